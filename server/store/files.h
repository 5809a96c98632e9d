// The files of a store as the file system sees them: who holds it, what may stand in its place. Internal to the store.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "common/base/result.h"
#include "common/base/unique_fd.h"

namespace latchkey::store {

std::string Quoted(const std::filesystem::path& path);
// kUnavailable: `WHOSE: "PATH" WHAT: ` and what errno says.
Error FileError(std::string_view whose, const std::filesystem::path& path, std::string_view what);

// Takes `<path>.lock` for this process until the descriptor is closed (F29). kConflict names the holder; kPermissionDenied
// when others than root and this user may exchange files in the directory.
Result<UniqueFd> Lock(const std::filesystem::path& path);
// Whether the file at `path` may be read as a store. kNotFound; kInvalidArgument; kUnavailable.
Status CheckFile(const std::filesystem::path& path);
// And whether it may be served from: kPermissionDenied for a symbolic link and for a file of another user.
Status CheckOwnFile(const std::filesystem::path& path);
// After it a rename, link or unlink of `file` outlives a power cut.
Status SyncDirectoryOf(const std::filesystem::path& file);

}  // namespace latchkey::store
