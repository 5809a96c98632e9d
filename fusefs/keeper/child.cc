#include "fusefs/keeper/child.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <string>
#include <string_view>

#include "common/base/unique_fd.h"

namespace latchkey::keeper {
namespace {

constexpr int kLastSignal = 64;

void CloseAllBut(std::vector<int> kept) {
  std::sort(kept.begin(), kept.end());
  unsigned next = 3;
  for (const int fd : kept) {
    const auto keep = static_cast<unsigned>(fd);
    if (fd < 3 || keep < next) continue;
    if (keep > next) syscall(SYS_close_range, next, keep - 1, 0);
    next = keep + 1;
  }
  syscall(SYS_close_range, next, ~0U, 0);
}

void ResetSignals() {
  for (int number = 1; number <= kLastSignal; ++number)
    if (number != SIGKILL && number != SIGSTOP) signal(number, SIG_DFL);
  signal(SIGPIPE, SIG_IGN);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

// The letter in /proc/PID/stat after the name: Z and X are dead.
bool IsZombie(pid_t child) {
  const std::string path = "/proc/" + std::to_string(child) + "/stat";
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::array<char, 512> text;
  const ssize_t size = fd.valid() ? read(fd.get(), text.data(), text.size()) : -1;
  if (size <= 0) return true;
  const std::string_view line(text.data(), static_cast<std::size_t>(size));
  const std::size_t end = line.rfind(')');
  return end == std::string_view::npos || end + 2 >= line.size() || line[end + 2] == 'Z' ||
         line[end + 2] == 'X';
}

}  // namespace

pid_t StartChild(std::vector<int> descriptors, const std::function<int()>& body) {
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child != 0) return child;
  prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  if (getppid() != parent) _exit(1);
  ResetSignals();
  CloseAllBut(std::move(descriptors));
  _exit(body());
}

ChildState LookAt(pid_t child) {
  int status = 0;
  const pid_t reaped = waitpid(child, &status, WNOHANG);
  if (reaped == child) return {ChildState::Kind::kReaped, status};
  if (reaped < 0) return {ChildState::Kind::kReaped, 0};
  return {IsZombie(child) ? ChildState::Kind::kDead : ChildState::Kind::kRuns, 0};
}

std::optional<int> WaitForExit(pid_t child, std::chrono::milliseconds limit) {
  if (child < 0) return std::nullopt;
  const UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, child, 0)));
  pollfd wait{pidfd.get(), POLLIN, 0};
  if (pidfd.valid() && poll(&wait, 1, static_cast<int>(limit.count())) == 0) return std::nullopt;
  int status = 0;
  if (waitpid(child, &status, WNOHANG) != child) return std::nullopt;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace latchkey::keeper
