// The schema: created once, compared text for text at every open, so that a dropped index or an
// added trigger is seen.
#pragma once

#include <filesystem>

#include "common/base/bytes.h"
#include "common/base/result.h"
#include "server/store/sqlite.h"

namespace latchkey::store {

// "LtKy": marks the file as a store of Latchkey.
inline constexpr std::int64_t kApplicationId = 0x4c744b79;

// Creates all tables and the one row of store_info in a new file.
Status CreateSchema(Connection& connection, const ByteArray<16>& store_id, std::int64_t created_at);

// Errors: kConflict for a newer schema, kInvalidArgument for a file that is not a store, kCorrupt
// when the tables or indexes are not the ones this program makes.
Status CheckSchema(Connection& connection);

// Reads the schema version from the file's header, before SQLite looks at it: a newer file is left
// untouched. Only while the store's lock is held and no connection to the file is open in this
// process: closing the file drops their locks.
Status RefuseNewerSchema(const std::filesystem::path& path);

}  // namespace latchkey::store
