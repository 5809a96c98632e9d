#include "fusefs/journal/handover.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace latchkey::journal {
namespace {

constexpr std::size_t kDescriptors = 5;
constexpr int kFirstFd = 3;

std::array<int*, kDescriptors> Descriptors(Handover& handover) {
  return {&handover.fuse_fd, &handover.region_fd, &handover.content_fd, &handover.wake_fd,
          &handover.notify_fd};
}

}  // namespace

Error ExecWith(const Handover& handover, const std::string& path, std::vector<std::string> argv) {
  Handover moved = handover;
  // First out of the way of the fixed numbers, then onto them; dup2 clears close-on-exec.
  for (int* fd : Descriptors(moved)) {
    if (*fd < 0) continue;
    *fd = fcntl(*fd, F_DUPFD_CLOEXEC, kFirstFd + static_cast<int>(kDescriptors));
    if (*fd < 0)
      return Error{Errc::kUnavailable, std::string("cannot hand over: ") + std::strerror(errno)};
  }
  int next = kFirstFd;
  for (int* fd : Descriptors(moved)) {
    if (*fd >= 0) *fd = dup2(*fd, next);
    ++next;
  }
  std::string text = "--handover=";
  for (int* fd : Descriptors(moved)) text += (*fd >= 0 ? "1" : "0");
  text += moved.content_locked ? "L" : "U";
  text += moved.private_path;
  argv.push_back(text);
  std::vector<char*> raw;
  for (std::string& word : argv) raw.push_back(word.data());
  raw.push_back(nullptr);
  execv(path.c_str(), raw.data());
  return Error{Errc::kUnavailable, "cannot execute " + path + ": " + std::strerror(errno)};
}

Result<Handover> ParseHandover(std::string_view text) {
  const Error bad{Errc::kInvalidArgument, "--handover is set by the keeper, not by hand"};
  if (text.size() < kDescriptors + 1) return bad;
  Handover handover;
  int next = kFirstFd;
  std::size_t at = 0;
  for (int* fd : Descriptors(handover)) {
    if (text[at] != '0' && text[at] != '1') return bad;
    if (text[at] == '1') {
      if (fcntl(next, F_SETFD, FD_CLOEXEC) != 0) return bad;
      *fd = next;
    }
    ++next;
    ++at;
  }
  if (text[at] != 'L' && text[at] != 'U') return bad;
  handover.content_locked = text[at] == 'L';
  handover.private_path = std::string(text.substr(at + 1));
  return handover;
}

}  // namespace latchkey::journal
