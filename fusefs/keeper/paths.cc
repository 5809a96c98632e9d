#include "fusefs/keeper/paths.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "common/base/c_handle.h"
#include "common/base/log.h"
#include "fusefs/keeper/child.h"

namespace latchkey::keeper {
namespace {

constexpr std::size_t kMaxStackedMounts = 16;
constexpr auto kProbeTimeout = std::chrono::milliseconds(1000);

std::vector<std::string> Components(const std::string& path) {
  std::vector<std::string> parts;
  std::istringstream in(path);
  for (std::string part; std::getline(in, part, '/');)
    if (!part.empty()) parts.push_back(part);
  return parts;
}

Status CheckComponent(int fd, const std::string& shown, bool last) {
  struct stat info {};
  if (fstat(fd, &info) != 0)
    return Error{Errc::kUnavailable, "cannot look at " + shown + ": " + std::strerror(errno)};
  if (!S_ISDIR(info.st_mode)) return Error{Errc::kPermissionDenied, shown + " is not a directory"};
  if (info.st_uid != 0)
    return Error{Errc::kPermissionDenied,
                 shown + " is not owned by root; run: chown root " + shown};
  const bool others_write = (info.st_mode & 022) != 0;
  if (others_write && (last || (info.st_mode & S_ISVTX) == 0))
    return Error{Errc::kPermissionDenied,
                 shown + " is writable by others; run: chmod go-w " + shown};
  return {};
}

// Mount points in mountinfo have blanks and backslashes as \ooo.
std::string Unescape(const std::string& text) {
  std::string out;
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (text[at] == '\\' && at + 3 < text.size()) {
      out.push_back(static_cast<char>((text[at + 1] - '0') * 64 + (text[at + 2] - '0') * 8 +
                                      (text[at + 3] - '0')));
      at += 3;
    } else {
      out.push_back(text[at]);
    }
  }
  return out;
}

// A look at a mount may hang when its daemon is stuck, so a child looks. Returns its errno,
// ETIMEDOUT when it hangs.
int ProbeMount(const std::string& path) {
  const pid_t child = StartChild({}, [&] {
    // Not stat: its answer may still be in the kernel's cache.
    struct statfs info {};
    return statfs(path.c_str(), &info) == 0 ? 0 : errno;
  });
  const std::optional<int> code = WaitForExit(child, kProbeTimeout);
  if (!code.has_value()) kill(child, SIGKILL);
  return code.value_or(ETIMEDOUT);
}

}  // namespace

Result<std::string> NormalPath(std::string_view path) {
  if (path.empty() || path.front() != '/')
    return Error{Errc::kInvalidArgument, "\"" + std::string(path) + "\" is not an absolute path"};
  std::string normal;
  for (const std::string& part : Components(std::string(path))) {
    if (part == "." || part == "..")
      return Error{Errc::kInvalidArgument, std::string(path) + " may not contain . or .."};
    normal += "/" + part;
  }
  if (normal.empty())
    return Error{Errc::kInvalidArgument, "the root directory cannot be a mount point"};
  return normal;
}

Result<UniqueFd> OpenSafeDirectory(const std::string& path, bool make) {
  UniqueFd at(open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
  std::string shown;
  const std::vector<std::string> parts = Components(path);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    shown += "/" + parts[i];
    if (make && mkdirat(at.get(), parts[i].c_str(), 0700) != 0 && errno != EEXIST)
      return Error{Errc::kUnavailable, "cannot make " + shown + ": " + std::strerror(errno)};
    UniqueFd next(
        openat(at.get(), parts[i].c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!next.valid()) {
      if (errno == ENOENT)
        return Error{Errc::kNotFound, shown + " does not exist; run: mkdir -p " + path};
      const bool link = errno == ENOTDIR || errno == ELOOP;
      return Error{Errc::kPermissionDenied,
                   shown + (link ? " is a symbolic link or no directory; name the real path"
                                 : std::string(": ") + std::strerror(errno))};
    }
    RETURN_IF_ERROR(CheckComponent(next.get(), shown, i + 1 == parts.size()));
    at = std::move(next);
  }
  return at;
}

std::vector<MountEntry> ReadMounts() {
  std::vector<MountEntry> list;
  std::ifstream in("/proc/self/mountinfo");
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::string id, parent, device, root, point, word, type;
    words >> id >> parent >> device >> root >> point;
    while (words >> word && word != "-") {
    }
    words >> type;
    unsigned major_number = 0;
    unsigned minor_number = 0;
    char colon = 0;
    std::istringstream(device) >> major_number >> colon >> minor_number;
    list.push_back({makedev(major_number, minor_number), Unescape(point), type});
  }
  return list;
}

std::optional<MountEntry> MountOn(const std::string& path) {
  std::optional<MountEntry> found;
  for (MountEntry& entry : ReadMounts())
    if (entry.mount_point == path) found = std::move(entry);
  return found;
}

Status ClearDeadMounts(const std::string& path) {
  for (std::size_t tries = 0; tries < kMaxStackedMounts; ++tries) {
    const auto mount = MountOn(path);
    if (!mount.has_value() || mount->type.rfind("fuse", 0) != 0) return {};
    const int error = ProbeMount(path);
    if (error == ENOTCONN || error == ECONNABORTED) {
      if (umount2(path.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) != 0)
        return Error{Errc::kUnavailable,
                     "cannot remove the dead mount on " + path + ": " + std::strerror(errno)};
      Log(LogLevel::kWarn, "removed a dead mount whose daemon is gone",
          {{"path", path}, {"type", mount->type}});
      continue;
    }
    if (mount->type == kFuseType)
      return Error{Errc::kConflict, path +
                                        " is served by another latchkey-fs already; stop that one "
                                        "first: latchkey-fs unmount " +
                                        path};
    return Error{Errc::kConflict, path + " is a mount point of type " + mount->type +
                                      " already; choose another directory or unmount it"};
  }
  return Error{Errc::kConflict,
               "too many mounts are stacked on " + path + "; unmount them: umount -l " + path};
}

Result<UniqueFd> LockDirectory(int directory_fd, const std::string& message) {
  UniqueFd fd(openat(directory_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid())
    return Error{Errc::kUnavailable,
                 std::string("cannot open the mount point: ") + std::strerror(errno)};
  if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) return Error{Errc::kConflict, message};
  return fd;
}

Status CheckEmpty(int directory_fd, const std::string& path) {
  const int fd = openat(directory_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const CHandle<DIR, closedir> list(fd < 0 ? nullptr : fdopendir(fd));
  if (list == nullptr)
    return Error{Errc::kUnavailable, "cannot list " + path + ": " + std::strerror(errno)};
  while (const dirent* entry = readdir(list.get())) {
    if (std::strcmp(entry->d_name, ".") == 0 || std::strcmp(entry->d_name, "..") == 0) continue;
    return Error{Errc::kConflict,
                 "mount point " + path +
                     " is not empty; mounting would hide its files: choose an empty directory"};
  }
  return {};
}

}  // namespace latchkey::keeper
