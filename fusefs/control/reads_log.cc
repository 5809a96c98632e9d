#include "fusefs/control/reads_log.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "common/base/log.h"
#include "common/model/limits.h"

namespace latchkey::control {
namespace {

constexpr const char* kNewer = "reads.jsonl";
constexpr const char* kOlder = "reads.1.jsonl";

UniqueFd OpenNewer(int dir) {
  return UniqueFd(
      ::openat(dir, kNewer, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
}

// Prints the whole lines from the descriptor's position on; false when `print` had enough. What follows the last newline is
// being written: it is left for the next call.
bool PrintRest(int fd, const std::function<bool(std::string_view)>& print) {
  std::array<char, 65'536> buffer;
  std::string held;
  for (;;) {
    const ssize_t got = ::read(fd, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    held.append(buffer.data(), static_cast<std::size_t>(got));
    const std::size_t end = held.rfind('\n');
    if (end == std::string::npos) continue;
    if (!print(std::string_view(held).substr(0, end + 1))) return false;
    held.erase(0, end + 1);
  }
  ::lseek(fd, -static_cast<off_t>(held.size()), SEEK_CUR);
  return true;
}

// Bytes of `fd` up to its last newline.
std::size_t WholeLines(int fd, std::size_t size_bytes) {
  std::array<char, 4096> buffer;
  while (size_bytes > 0) {
    const std::size_t part = std::min(size_bytes, buffer.size());
    const ssize_t got = ::pread(fd, buffer.data(), part, static_cast<off_t>(size_bytes - part));
    if (got != static_cast<ssize_t>(part)) return size_bytes;
    const std::size_t end = std::string_view(buffer.data(), part).rfind('\n');
    if (end != std::string_view::npos) return size_bytes - part + end + 1;
    size_bytes -= part;
  }
  return 0;
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
  const std::size_t whole_bytes = WholeLines(file.get(), static_cast<std::size_t>(info.st_size));
  ReadsLog log(std::move(dir), std::move(file), whole_bytes);
  log.torn_ = whole_bytes != static_cast<std::size_t>(info.st_size);
  return log;
}

bool ReadsLog::Append(const std::string& line) {
  const bool written = WriteWhole(line + "\n");
  if (!written && !failing_)
    Log(LogLevel::kWarn, "read records cannot be written, they wait in memory",
        {{"reason", std::strerror(errno)}});
  if (written && failing_) Log(LogLevel::kInfo, "read records are written again");
  failing_ = !written;
  return written;
}

bool ReadsLog::WriteWhole(const std::string& text) {
  if (torn_ && ::ftruncate(file_.get(), static_cast<off_t>(size_bytes_)) != 0) return false;
  torn_ = false;
  if (size_bytes_ + text.size() > limits::kReadLogBytes && !Rotate()) return false;
  const ssize_t written = ::write(file_.get(), text.data(), text.size());
  if (written == static_cast<ssize_t>(text.size())) {
    size_bytes_ += text.size();
    return true;
  }
  if (written >= 0) {
    torn_ = ::ftruncate(file_.get(), static_cast<off_t>(size_bytes_)) != 0;
    errno = ENOSPC;  // a short write to a file does not tell, and the cut may have changed it
  }
  return false;
}

bool ReadsLog::Rotate() {
  // ENOENT: the last rotation got this far, but could not make the new file.
  if (::renameat(dir_.get(), kNewer, dir_.get(), kOlder) != 0 && errno != ENOENT) return false;
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
