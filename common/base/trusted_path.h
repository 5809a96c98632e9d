// Files and directories that are trusted because of where they are: opened without surprises, and owned by the only users
// who may change them. Every message names `what`, says what is wrong and what mends it. Thread-safe, no state.
#pragma once

#include <sys/stat.h>

#include <string>

#include "common/base/result.h"
#include "common/base/unique_fd.h"

namespace latchkey {

// Opens the regular file at `path`, never through a symbolic link, close-on-exec. `flags` as of open(2); with O_CREAT a new
// file has mode 0600. A FIFO or a device in its place is refused, not waited for. Errors: kNotFound; kPermissionDenied for
// anything but a regular file; kUnavailable.
Result<UniqueFd> OpenRegularFile(const std::string& path, int flags, const std::string& what);

// kPermissionDenied unless root or the effective user owns what `info` describes.
Status CheckOwner(const struct stat& info, const std::string& path, const std::string& what);

// kPermissionDenied unless `path` is a directory of root or the effective user in which nobody else may make, replace or
// remove files; kNotFound; kUnavailable. The directory itself may be reached through a symbolic link.
Status CheckOwnDirectory(const std::string& path, const std::string& what);

}  // namespace latchkey
