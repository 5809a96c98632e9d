#include "server/store/files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <system_error>

#include "common/base/trusted_path.h"

namespace latchkey::store {
namespace {

std::filesystem::path DirectoryOf(const std::filesystem::path& file) {
  return file.has_parent_path() ? file.parent_path() : ".";
}

}  // namespace

std::string Quoted(const std::filesystem::path& path) {
  return '"' + path.string() + '"';
}

Error FileError(std::string_view whose, const std::filesystem::path& path, std::string_view what) {
  return Error{Errc::kUnavailable, std::string(whose) + ": " + Quoted(path) + " " +
                                       std::string(what) + ": " +
                                       std::generic_category().message(errno)};
}

// The lock belongs to the open file and ends with the process, however it ends: it is never stale.
// The file stays.
Result<UniqueFd> Lock(const std::filesystem::path& path) {
  const std::string folder = DirectoryOf(path).string();
  RETURN_IF_ERROR(CheckOwnDirectory(folder, "the directory of the store " + path.string()));
  const std::filesystem::path lock_path = path.string() + ".lock";
  UniqueFd file(::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file.valid()) return FileError("store", lock_path, "cannot be opened");
  if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return FileError("store", lock_path, "cannot be locked");
    char holder[16] = {};
    const ssize_t size = ::pread(file.get(), holder, sizeof holder - 1, 0);
    return Error{Errc::kConflict, "store: " + Quoted(path) + " is in use by process " +
                                      (size > 0 ? std::string(holder) : "?") +
                                      "; stop it, or use its server"};
  }
  // The holder's id is for that message only; failing to write it changes nothing.
  const std::string self = std::to_string(::getpid());
  if (::ftruncate(file.get(), 0) == 0) {
    [[maybe_unused]] const ssize_t written = ::pwrite(file.get(), self.data(), self.size(), 0);
  }
  return file;
}

Status CheckFile(const std::filesystem::path& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) {
    if (errno == ENOENT) {
      return Error{Errc::kNotFound,
                   "store: " + Quoted(path) + " does not exist; latchkeyd init makes one"};
    }
    return FileError("store", path, "cannot be examined");
  }
  if (!S_ISREG(info.st_mode)) {
    return Error{Errc::kInvalidArgument, "store: " + Quoted(path) + " is not a regular file"};
  }
  if ((info.st_mode & 077) != 0) {
    return Error{Errc::kInvalidArgument,
                 "store: " + Quoted(path) + " is open to other users; run chmod 600 on it"};
  }
  return {};
}

Status CheckOwnFile(const std::filesystem::path& path) {
  RETURN_IF_ERROR(CheckFile(path));
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0) return FileError("store", path, "cannot be examined");
  const std::string what = "store: " + Quoted(path);
  if (S_ISLNK(info.st_mode)) {
    return Error{Errc::kPermissionDenied,
                 what + " is a symbolic link: name the file itself as store.path"};
  }
  return CheckOwner(info, path.string(), what);
}

Status SyncDirectoryOf(const std::filesystem::path& file) {
  const std::filesystem::path folder = DirectoryOf(file);
  const UniqueFd directory(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory.valid() && ::fsync(directory.get()) == 0) return {};
  return FileError("store", folder, "cannot be synced");
}

}  // namespace latchkey::store
