// Copying a store while it is written to. Internal to the store.
#pragma once

#include <filesystem>

#include "common/base/result.h"
#include "server/store/sqlite.h"

namespace latchkey::store {

// The contract of Store::Backup. `source` is a connection outside a transaction.
Result<Generation> CopyTo(Connection& source, const std::filesystem::path& target);

}  // namespace latchkey::store
