#include "common/base/process.h"

#include <dirent.h>
#include <fcntl.h>
#include <malloc.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <climits>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "common/base/c_handle.h"

namespace latchkey {
namespace {

constexpr int kFirstUnknownFd = 3;

Error StepFailed(const char* step) {
  return Error{Errc::kInternal,
               std::string("cannot harden the process: ") + step + ": " + std::strerror(errno)};
}

// A variable that is a whole decimal number, or `otherwise`.
long NumberFromEnvironment(const char* name, long otherwise) {
  const char* text = std::getenv(name);
  if (text == nullptr) return otherwise;
  long value = 0;
  const char* end = text + std::strlen(text);
  const auto parsed = std::from_chars(text, end, value);
  return parsed.ec == std::errc() && parsed.ptr == end ? value : otherwise;
}

// sd_listen_fds' rule: the variables count only when they were meant for this process.
void AppendSystemdFds(std::vector<int>* keep) {
  if (NumberFromEnvironment("LISTEN_PID", -1) != static_cast<long>(::getpid())) return;
  constexpr long kMostFds = 4096;
  const long count = std::min(NumberFromEnvironment("LISTEN_FDS", 0), kMostFds);
  for (long i = 0; i < count; ++i) keep->push_back(static_cast<int>(kFirstUnknownFd + i));
}

Status OpenStandardFds() {
  for (int fd = 0; fd < kFirstUnknownFd; ++fd) {
    if (::fcntl(fd, F_GETFD) >= 0) continue;
    // The lowest free number is taken, and everything below is open already: it is `fd`.
    if (::open("/dev/null", fd == 0 ? O_RDONLY : O_WRONLY) != fd)
      return StepFailed("open /dev/null");
  }
  return {};
}

Status ReduceEnvironment(const std::vector<std::string_view>& keep) {
  std::vector<std::pair<std::string, std::string>> kept;
  for (const std::string_view name : keep) {
    const std::string key(name);
    if (const char* value = std::getenv(key.c_str()); value != nullptr)
      kept.emplace_back(key, value);
  }
  if (::clearenv() != 0) return StepFailed("clear the environment");
  for (const auto& [name, value] : kept) {
    if (::setenv(name.c_str(), value.c_str(), 1) != 0)
      return StepFailed("keep a variable of the environment");
  }
  return {};
}

// What cannot be raised is no error here: whoever needs more says so with the number it needs.
void RaiseSoftLimit(__rlimit_resource resource) {
  rlimit limit{};
  if (::getrlimit(resource, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  static_cast<void>(::setrlimit(resource, &limit));
}

bool CloseRange(unsigned first, unsigned last) {
  return first > last || ::syscall(SYS_close_range, first, last, 0) == 0;
}

}  // namespace

std::vector<std::string_view> ServiceEnvironment() {
  return {"NOTIFY_SOCKET", "LISTEN_PID",    "LISTEN_FDS",    "LISTEN_FDNAMES",
          "WATCHDOG_PID",  "WATCHDOG_USEC", "INVOCATION_ID", "CREDENTIALS_DIRECTORY",
          "JOURNAL_STREAM"};
}

Status CloseUnknownFdsByListing(const std::vector<int>& keep) {
  const CHandle<DIR, ::closedir> listing(::opendir("/proc/self/fd"));
  if (listing == nullptr) return StepFailed("list /proc/self/fd");
  std::vector<int> unknown;
  while (const dirent* entry = ::readdir(listing.get())) {
    int fd = -1;
    const char* end = entry->d_name + std::strlen(entry->d_name);
    if (std::from_chars(entry->d_name, end, fd).ptr != end || fd < kFirstUnknownFd) continue;
    if (fd == ::dirfd(listing.get()) || std::find(keep.begin(), keep.end(), fd) != keep.end())
      continue;
    unknown.push_back(fd);
  }
  for (const int fd : unknown) ::close(fd);
  return {};
}

Status CloseUnknownFds(std::vector<int> keep) {
  std::sort(keep.begin(), keep.end());
  unsigned next = kFirstUnknownFd;
  bool closed = true;
  for (const int fd : keep) {
    if (fd < kFirstUnknownFd || static_cast<unsigned>(fd) < next) continue;
    closed = closed && CloseRange(next, static_cast<unsigned>(fd) - 1);
    next = static_cast<unsigned>(fd) + 1;
  }
  closed = closed && CloseRange(next, UINT_MAX);
  return closed ? Status() : CloseUnknownFdsByListing(keep);
}

void ReturnFreeMemory(std::size_t least_bytes) {
  if (least_bytes > 0 && ::mallinfo2().fordblks < least_bytes) return;
  ::malloc_trim(0);
}

void GiveLargeBlocksTheirOwnPages(std::size_t least_bytes, std::size_t most_blocks) {
  ::mallopt(M_MMAP_THRESHOLD, static_cast<int>(least_bytes));
  ::mallopt(M_MMAP_MAX, static_cast<int>(most_blocks));
}

Status HardenProcess(const HardenOptions& options) {
  const rlimit no_core{0, 0};
  if (::setrlimit(RLIMIT_CORE, &no_core) != 0) return StepFailed("forbid core dumps");
#ifndef LATCHKEY_SANITIZED
  if (::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) return StepFailed("forbid dumping and tracing");
#endif
  RETURN_IF_ERROR(OpenStandardFds());
  std::vector<int> keep = options.keep_fds;
  AppendSystemdFds(&keep);
  RETURN_IF_ERROR(CloseUnknownFds(std::move(keep)));
  ::umask(077);
  RETURN_IF_ERROR(ReduceEnvironment(options.keep_environment));
  if (std::signal(SIGPIPE, SIG_IGN) == SIG_ERR) return StepFailed("ignore SIGPIPE");
  RaiseSoftLimit(RLIMIT_NOFILE);
  RaiseSoftLimit(RLIMIT_MEMLOCK);
  return {};
}

}  // namespace latchkey
