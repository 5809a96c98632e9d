#include "common/base/trusted_path.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace latchkey {
namespace {

constexpr mode_t kNewFileMode = 0600;

Error Refused(const std::string& what, const std::string& why) {
  return Error{Errc::kPermissionDenied, what + " " + why};
}

Error NotRegular(const std::string& what) {
  return Refused(what, "is not a regular file: move away what is there, or name the file itself");
}

Error SystemError(const std::string& what, const char* doing) {
  const int error = errno;
  return Error{error == ENOENT ? Errc::kNotFound : Errc::kUnavailable,
               std::string("cannot ") + doing + " " + what + ": " + std::strerror(error)};
}

}  // namespace

Result<UniqueFd> OpenRegularFile(const std::string& path, int flags, const std::string& what) {
  constexpr int kAlways = O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY;
  UniqueFd fd(::open(path.c_str(), flags | kAlways, kNewFileMode));
  if (!fd.valid()) {
    if (errno == ELOOP) return Refused(what, "is a symbolic link: name the file itself");
    // A directory, a socket, or a FIFO that nobody reads.
    if (errno == EISDIR || errno == ENXIO) return NotRegular(what);
    return SystemError(what, "open");
  }
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return SystemError(what, "examine");
  if (!S_ISREG(info.st_mode)) return NotRegular(what);
  return fd;
}

Status CheckOwner(const struct stat& info, const std::string& path, const std::string& what) {
  const uid_t own = ::geteuid();
  if (info.st_uid == 0 || info.st_uid == own) return {};
  const std::string user = std::to_string(info.st_uid);
  const std::string chown = "run chown " + std::to_string(own) + " " + path;
  // Root is likely to be an administrator who looks after the server of another user, which must not lose its files.
  if (own == 0) {
    return Refused(what, "belongs to user " + user + ": run this as that user (setpriv --reuid " +
                             user + " --clear-groups ...), or, if no server runs as that user, " +
                             chown);
  }
  return Refused(what, "belongs to user " + user + ": run this as that user, or " + chown);
}

Status CheckOwnDirectory(const std::string& path, const std::string& what) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return SystemError(what, "examine");
  if (!S_ISDIR(info.st_mode)) return Refused(what, "is not a directory");
  RETURN_IF_ERROR(CheckOwner(info, path, what));
  if ((info.st_mode & (S_IWGRP | S_IWOTH)) == 0) return {};
  return Refused(what, "may be written by group or others: run chmod go-w " + path);
}

}  // namespace latchkey
