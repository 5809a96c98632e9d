// Mount points: safe to use (rule F5), free of other mounts, locked against a second keeper.
// Private to fusefs/keeper.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.h"
#include "common/base/unique_fd.h"

namespace latchkey::keeper {

// Absolute, without "." and ".." components, without a trailing slash. Errors: kInvalidArgument.
Result<std::string> NormalPath(std::string_view path);

// Opens a directory O_PATH|O_NOFOLLOW, component by component. Every component must be a directory
// owned by root; those above the last may be writable by others only with the sticky bit (nobody
// can then replace a component owned by root); the last one not at all. `make`: creates missing
// components, mode 0700. Errors: kPermissionDenied, kNotFound.
Result<UniqueFd> OpenSafeDirectory(const std::string& path, bool make);

struct MountEntry {
  dev_t device;
  std::string mount_point;
  std::string type;
};
std::vector<MountEntry> ReadMounts();
// The topmost mount on exactly this path.
std::optional<MountEntry> MountOn(const std::string& path);

// Removes FUSE mounts whose daemon is gone (ENOTCONN) from `path`, stacked ones too. Errors:
// kConflict when one that is alive, or does not answer within a second, is of our type.
Status ClearDeadMounts(const std::string& path);

// An exclusive lock of the directory that lasts as long as the descriptor. Errors: kConflict, with
// `message`.
Result<UniqueFd> LockDirectory(int directory_fd, const std::string& message);
Status CheckEmpty(int directory_fd, const std::string& path);

inline constexpr const char* kFuseType = "fuse.latchkey-fs";

}  // namespace latchkey::keeper
