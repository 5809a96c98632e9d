#include "fusefs/control/reads_log.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "common/model/limits.h"

namespace latchkey::control {
namespace {

constexpr const char* kNewer = "reads.jsonl";
constexpr const char* kOlder = "reads.1.jsonl";

UniqueFd OpenNewer(int dir) {
  return UniqueFd(
      ::openat(dir, kNewer, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
}

// Prints from the descriptor's position to its end; false when `print` had enough.
bool PrintRest(int fd, const std::function<bool(std::string_view)>& print) {
  std::array<char, 65'536> buffer;
  for (;;) {
    const ssize_t got = ::read(fd, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return true;
    if (!print({buffer.data(), static_cast<std::size_t>(got)})) return false;
  }
}

}  // namespace

Result<ReadsLog> ReadsLog::Open(const std::string& private_dir) {
  UniqueFd dir(::open(private_dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!dir.valid())
    return Error{Errc::kUnavailable, "cannot open " + private_dir + ": " + std::strerror(errno)};
  UniqueFd file = OpenNewer(dir.get());
  struct stat info {};
  if (!file.valid() || ::fstat(file.get(), &info) != 0)
    return Error{Errc::kUnavailable,
                 "cannot write read records in " + private_dir + ": " + std::strerror(errno)};
  return ReadsLog(std::move(dir), std::move(file), static_cast<std::size_t>(info.st_size));
}

bool ReadsLog::Append(const std::string& line) {
  const std::string whole = line + "\n";
  if (size_bytes_ + whole.size() > limits::kReadLogBytes && !Rotate()) return false;
  const ssize_t written = ::write(file_.get(), whole.data(), whole.size());
  if (written > 0) size_bytes_ += static_cast<std::size_t>(written);
  return written == static_cast<ssize_t>(whole.size());
}

bool ReadsLog::Rotate() {
  if (::renameat(dir_.get(), kNewer, dir_.get(), kOlder) != 0) return false;
  UniqueFd fresh = OpenNewer(dir_.get());
  if (!fresh.valid()) return false;
  file_ = std::move(fresh);
  size_bytes_ = 0;
  return true;
}

Status PrintReads(const std::string& private_dir, bool follow,
                  const std::function<bool(std::string_view)>& print) {
  UniqueFd dir(::open(private_dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!dir.valid())
    return Error{Errc::kNotFound, "no mount is kept in " + private_dir +
                                      "; is latchkey-fs running for this target?"};
  // The watch comes before the first read, so that no line falls between the two.
  const UniqueFd watch(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  if (!watch.valid() ||
      ::inotify_add_watch(watch.get(), private_dir.c_str(), IN_MODIFY | IN_CREATE) < 0)
    return Error{Errc::kUnavailable, "cannot watch " + private_dir + ": " + std::strerror(errno)};
  const UniqueFd older(::openat(dir.get(), kOlder, O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (older.valid() && !PrintRest(older.get(), print)) return {};
  UniqueFd newer(::openat(dir.get(), kNewer, O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (newer.valid() && !PrintRest(newer.get(), print)) return {};
  while (follow) {
    pollfd ready{watch.get(), POLLIN, 0};
    if (::poll(&ready, 1, -1) < 0 && errno != EINTR)
      return Error{Errc::kUnavailable, "poll failed"};
    std::array<char, 4096> events;
    while (::read(watch.get(), events.data(), events.size()) > 0) {
    }
    if (newer.valid() && !PrintRest(newer.get(), print)) return {};
    struct stat held {};
    struct stat named {};
    const bool same = newer.valid() && ::fstat(newer.get(), &held) == 0 &&
                      ::fstatat(dir.get(), kNewer, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
                      held.st_ino == named.st_ino;
    if (same) continue;
    newer.Reset(::openat(dir.get(), kNewer, O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
    if (newer.valid() && !PrintRest(newer.get(), print)) return {};
  }
  return {};
}

}  // namespace latchkey::control
