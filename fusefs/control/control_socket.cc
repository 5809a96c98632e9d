#include "fusefs/control/control_socket.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstring>

namespace latchkey::control {
namespace {

constexpr int kPeerTimeoutMs = 1000;
constexpr int kAnswerTimeoutMs = 5000;
constexpr std::size_t kMaxCommandBytes = 64;
constexpr std::size_t kMaxAnswerBytes = 1024 * 1024;

Result<sockaddr_un> AddressIn(const std::string& private_dir) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = private_dir + "/control.sock";
  if (path.size() >= sizeof address.sun_path)
    return Error{Errc::kInvalidArgument,
                 "path of the private directory is too long for a socket; set mount.private_dir"};
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

bool WaitFor(int fd, short events, int timeout_ms) {
  pollfd ready{fd, events, 0};
  int got = 0;
  do {
    got = ::poll(&ready, 1, timeout_ms);
  } while (got < 0 && errno == EINTR);
  return got > 0;
}

void SendAll(int fd, std::string_view text) {
  while (!text.empty() && WaitFor(fd, POLLOUT, kPeerTimeoutMs)) {
    const ssize_t sent = ::send(fd, text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent <= 0) return;
    text.remove_prefix(static_cast<std::size_t>(sent));
  }
}

UniqueFd OpenPidFile(const std::string& private_dir, int flags) {
  return UniqueFd(
      ::open((private_dir + "/keeper.pid").c_str(), flags | O_CLOEXEC | O_NOFOLLOW, 0600));
}

}  // namespace

Result<std::unique_ptr<ControlServer>> ControlServer::Bind(const std::string& private_dir) {
  ASSIGN_OR_RETURN(const sockaddr_un address, AddressIn(private_dir));
  UniqueFd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  ::unlink(address.sun_path);
  if (!listener.valid() ||
      ::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(listener.get(), 8) != 0)
    return Error{Errc::kUnavailable,
                 "cannot bind the control socket in " + private_dir + ": " + std::strerror(errno)};
  return std::unique_ptr<ControlServer>(new ControlServer(std::move(listener)));
}

ControlServer::~ControlServer() = default;

void ControlServer::Start(CommandHandler handler) {
  handler_ = std::move(handler);
  thread_ = std::jthread([this](const std::stop_token& stop) { Serve(stop); });
}

void ControlServer::Serve(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    if (!WaitFor(listener_.get(), POLLIN, 200)) continue;
    UniqueFd peer(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (peer.valid()) Answer(std::move(peer));
  }
}

void ControlServer::Answer(UniqueFd peer) {
  std::string command;
  std::array<char, kMaxCommandBytes> buffer;
  while (command.find('\n') == std::string::npos && command.size() < kMaxCommandBytes) {
    if (!WaitFor(peer.get(), POLLIN, kPeerTimeoutMs)) return;
    const ssize_t got = ::recv(peer.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (got <= 0) return;
    command.append(buffer.data(), static_cast<std::size_t>(got));
  }
  SendAll(peer.get(), handler_(command.substr(0, command.find('\n'))));
}

Result<std::string> AskControl(const std::string& private_dir, std::string_view command) {
  RETURN_IF_ERROR(KeeperPid(private_dir));
  ASSIGN_OR_RETURN(const sockaddr_un address, AddressIn(private_dir));
  const UniqueFd peer(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!peer.valid() ||
      ::connect(peer.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return Error{Errc::kUnavailable,
                 "the worker of this mount does not listen; the keeper starts it again by itself, "
                 "try in a second"};
  SendAll(peer.get(), std::string(command) + "\n");
  std::string answer;
  std::array<char, 16'384> buffer;
  while (answer.size() < kMaxAnswerBytes) {
    if (!WaitFor(peer.get(), POLLIN, kAnswerTimeoutMs))
      return Error{Errc::kUnavailable,
                   "the worker of this mount does not answer; the keeper replaces it by itself, "
                   "try in some seconds"};
    const ssize_t got = ::recv(peer.get(), buffer.data(), buffer.size(), 0);
    if (got <= 0) break;
    answer.append(buffer.data(), static_cast<std::size_t>(got));
  }
  return answer;
}

Result<PidFile> PidFile::Write(const std::string& private_dir) {
  UniqueFd fd = OpenPidFile(private_dir, O_RDWR | O_CREAT);
  if (!fd.valid())
    return Error{Errc::kUnavailable,
                 "cannot write keeper.pid in " + private_dir + ": " + std::strerror(errno)};
  // A status query holds the lock for an instant: try for a moment before believing in another
  // keeper.
  int attempts = 10;
  while (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0 && --attempts > 0) ::poll(nullptr, 0, 20);
  if (attempts == 0)
    return Error{Errc::kConflict,
                 "another keeper holds " + private_dir + "; stop it with `latchkey-fs unmount`"};
  const std::string text = std::to_string(::getpid()) + "\n";
  if (::ftruncate(fd.get(), 0) != 0 ||
      ::write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    return Error{Errc::kUnavailable,
                 "cannot write keeper.pid in " + private_dir + ": " + std::strerror(errno)};
  return PidFile(std::move(fd));
}

Result<int> KeeperPid(const std::string& private_dir) {
  const Error none{Errc::kNotFound, "no mount is kept in " + private_dir +
                                        "; is latchkey-fs running for this target?"};
  const UniqueFd fd = OpenPidFile(private_dir, O_RDONLY);
  if (!fd.valid() || ::flock(fd.get(), LOCK_SH | LOCK_NB) == 0)
    return none;  // a lock that we get is held by nobody
  std::array<char, 32> text{};
  const ssize_t size = ::read(fd.get(), text.data(), text.size());
  int pid = 0;
  if (size <= 0 || std::from_chars(text.data(), text.data() + size, pid).ec != std::errc())
    return none;
  return pid > 1 ? Result<int>(pid) : Result<int>(none);
}

}  // namespace latchkey::control
