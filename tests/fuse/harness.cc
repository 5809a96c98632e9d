#include "tests/fuse/harness.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

namespace latchkey::fusetest {
namespace {

constexpr auto kPatience = std::chrono::seconds(10);
constexpr auto kPollInterval = std::chrono::milliseconds(2);

// Mount points below `path`, innermost first.
std::vector<std::string> MountsBelow(const std::string& path) {
  std::vector<std::string> list;
  std::ifstream in("/proc/self/mounts");
  for (std::string device, point, rest; in >> device >> point && std::getline(in, rest);)
    if (point.rfind(path + "/", 0) == 0) list.insert(list.begin(), point);
  return list;
}

void RemoveTree(const std::string& path) {
  for (const std::string& point : MountsBelow(path))
    umount2(point.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW);
  std::error_code ignored;
  std::filesystem::remove_all(path, ignored);
}

const std::string kPrefix = "/tmp/latchkey-fuse-test.";

// Directories carry the pid of their test: what a killed one left behind goes with the next.
void CleanUpAfterTheDead() {
  for (const auto& entry : std::filesystem::directory_iterator("/tmp")) {
    const std::string path = entry.path();
    if (path.rfind(kPrefix, 0) != 0) continue;
    const int pid = std::atoi(path.c_str() + kPrefix.size());
    if (pid > 0 && kill(pid, 0) != 0 && errno == ESRCH) RemoveTree(path);
  }
}

}  // namespace

bool Eventually(const std::function<bool()>& done) {
  for (const auto end = std::chrono::steady_clock::now() + kPatience;
       std::chrono::steady_clock::now() < end;) {
    if (done()) return true;
    std::this_thread::sleep_for(kPollInterval);
  }
  return done();
}

std::string ReadAll(int fd) {
  std::string text;
  std::array<char, 16384> buffer;
  for (;;) {
    const ssize_t count = read(fd, buffer.data(), buffer.size());
    if (count < 0) return std::string("!") + strerrorname_np(errno);
    if (count == 0) return text;
    text.append(buffer.data(), static_cast<std::size_t>(count));
  }
}

std::string ReadFile(const std::string& path) {
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  return fd.valid() ? ReadAll(fd.get()) : std::string("!") + strerrorname_np(errno);
}

int ErrnoOfOpen(const std::string& path, int flags) {
  const UniqueFd fd(open(path.c_str(), flags | O_CLOEXEC, 0600));
  return fd.valid() ? 0 : errno;
}

long SizeOf(const std::string& path) {
  struct stat info {};
  return stat(path.c_str(), &info) == 0 ? static_cast<long>(info.st_size) : -errno;
}

char ProcessState(pid_t pid) {
  const std::string text = ReadFile("/proc/" + std::to_string(pid) + "/stat");
  const auto end = text.rfind(')');
  return end == std::string::npos || end + 2 >= text.size() ? '\0' : text[end + 2];
}

bool ProcessExists(pid_t pid) {
  const char state = ProcessState(pid);
  return state != '\0' && state != 'Z' && state != 'X';
}

TempDirectory::TempDirectory() {
  CleanUpAfterTheDead();
  std::string pattern = kPrefix + std::to_string(getpid()) + ".XXXXXX";
  REQUIRE(mkdtemp(pattern.data()) != nullptr);
  path_ = pattern;
  chmod(path_.c_str(), 0755);
  mkdir((*this / "control").c_str(), 0700);
  chmod((*this / "control").c_str(), 01777);  // a worker of another user listens there
}

TempDirectory::~TempDirectory() {
  RemoveTree(path_);
}

std::string TempDirectory::MakeTarget(const std::string& name) const {
  const std::string path = *this / name;
  mkdir(path.c_str(), 0755);
  chmod(path.c_str(), 0755);
  return path;
}

Driver::Driver(const TempDirectory& directory, const std::vector<std::string>& options,
               const std::string& target, const std::string& private_dir)
    : target_(directory.MakeTarget(target)), private_dir_(directory / private_dir) {
  static std::atomic<int> count{0};
  const std::string id = std::to_string(count++);
  socket_ = directory / ("control/" + id);
  error_file_ = directory / ("errors" + id);
  std::vector<std::string> words = {BUILD_BIN_DIR "/fuse_driver", target_, private_dir_, socket_};
  words.insert(words.end(), options.begin(), options.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  std::array<int, 2> output{};
  REQUIRE(pipe2(output.data(), O_CLOEXEC) == 0);
  output_.Reset(output[0]);
  const UniqueFd errors(open(error_file_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  pid_ = fork();
  if (pid_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGTERM);  // it unmounts when the test is killed
    dup2(output[1], 1);
    dup2(errors.get(), 2);
    execv(argv[0], argv.data());
    _exit(127);
  }
  close(output[1]);
}

Driver::~Driver() {
  if (pid_ > 0) Stop();
}

std::string Driver::Command(const std::string& line, const std::string& body) {
  std::string reply;
  const bool answered = Eventually([&] {
    const UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, socket_.c_str(), sizeof address.sun_path - 1);
    if (connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) return false;
    const timeval patience{5, 0};  // a worker that was stopped accepts and never answers
    setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    const std::string message = line + "\n" + body;
    if (send(fd.get(), message.data(), message.size(), MSG_NOSIGNAL) !=
        static_cast<ssize_t>(message.size()))
      return false;
    shutdown(fd.get(), SHUT_WR);
    reply.clear();
    char c = 0;
    while (read(fd.get(), &c, 1) == 1 && c != '\n') reply.push_back(c);
    return c == '\n';
  });
  return answered ? reply : "error no answer: " + ReadFile(error_file_);
}

std::string Driver::Put(const std::string& name, std::uint32_t number, const std::string& text,
                        const std::string& mode, uid_t uid, gid_t gid) {
  std::ostringstream line;
  line << "put " << name << " - " << number << " " << mode << " " << uid << " " << gid << " "
       << 1'700'000'000 + number << " " << text.size();
  return Command(line.str(), text);
}

void Driver::Publish() {
  const std::string reply = Command("publish 1");
  if (reply.rfind("ok", 0) != 0) throw std::runtime_error(reply);
}

void Driver::Rotate(const std::string& name, std::uint32_t version) {
  // A worker that dies between the two commands takes the staged batch with it, so the generation tells.
  do {
    const std::string put = Put(name, version, ContentOf(version));
    if (put != "ok") throw std::runtime_error(put);
    const std::string published = Command("publish " + std::to_string(version));
    if (published.rfind("ok", 0) != 0) throw std::runtime_error(published);
  } while (VersionIn(ReadFile(target_ + "/" + name)) != version);
}

std::map<std::string, long> Driver::Stats() {
  std::map<std::string, long> stats;
  std::istringstream words(Command("stats"));
  for (std::string word; words >> word;) {
    const auto equals = word.find('=');
    if (equals != std::string::npos)
      stats[word.substr(0, equals)] = std::stol(word.substr(equals + 1));
  }
  return stats;
}

void Driver::WaitReady() {
  pollfd wait{output_.get(), POLLIN, 0};
  std::array<char, 64> text{};
  const bool ready =
      poll(&wait, 1, 10'000) == 1 && read(output_.get(), text.data(), text.size() - 1) > 0;
  if (!ready) throw std::runtime_error("the driver did not mount: " + ReadFile(error_file_));
}

DriverResult Driver::Stop() {
  kill(pid_, SIGTERM);
  return WaitForEnd();
}

DriverResult Driver::WaitForEnd() {
  int status = -1;
  const bool ended = Eventually([&] { return waitpid(pid_, &status, WNOHANG) == pid_; });
  if (!ended) {
    kill(pid_, SIGKILL);
    waitpid(pid_, &status, 0);
  }
  pid_ = -1;
  return {ended && WIFEXITED(status) ? WEXITSTATUS(status) : -1, ReadFile(error_file_)};
}

void Driver::WaitSettled() {
  REQUIRE(Eventually([&] { return Command("pending") == "no"; }));
}

void Driver::Kill(int signal_number) const {
  kill(pid_, signal_number);
}

Mounted::Mounted(const std::vector<std::string>& names, const std::vector<std::string>& options)
    : driver(directory, options) {
  for (const std::string& name : names) REQUIRE(driver.Put(name, 1, ContentOf(1)) == "ok");
  driver.Publish();
  driver.WaitReady();
  driver.WaitSettled();
}

std::string Mounted::Bind(const std::string& what) {
  const std::string place = directory / ("bind" + std::to_string(binds++));
  const std::string source = what.empty() ? driver.target() : *this / what;
  if (what.empty())
    mkdir(place.c_str(), 0755);
  else
    close(open(place.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  REQUIRE(mount(source.c_str(), place.c_str(), nullptr, MS_BIND, nullptr) == 0);
  REQUIRE(mount(nullptr, place.c_str(), nullptr,
                MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr) == 0);
  return place;
}

Watcher::Watcher(const std::string& path, std::uint32_t mask) : fd_(inotify_init1(IN_CLOEXEC)) {
  REQUIRE(inotify_add_watch(fd_.get(), path.c_str(), mask) >= 0);
}

void Watcher::Collect() {
  alignas(inotify_event) std::array<char, 4096> buffer;
  pollfd wait{fd_.get(), POLLIN, 0};
  while (poll(&wait, 1, 0) == 1) {
    const ssize_t size = read(fd_.get(), buffer.data(), buffer.size());
    for (ssize_t at = 0; at < size;) {
      inotify_event event{};
      std::memcpy(&event, buffer.data() + at, sizeof event);
      events_.emplace_back(event.mask, event.len > 0
                                           ? std::string(buffer.data() + at + sizeof event)
                                           : std::string());
      at += static_cast<ssize_t>(sizeof event + event.len);
    }
  }
}

bool Watcher::Sees(std::uint32_t mask, const std::string& name) {
  const bool seen = Eventually([&] {
    Collect();
    for (auto it = events_.begin(); it != events_.end(); ++it) {
      if ((it->first & mask) == 0 || (!name.empty() && it->second != name)) continue;
      events_.erase(it);
      return true;
    }
    return false;
  });
  if (!seen)
    for (const auto& [other, of] : events_) UNSCOPED_INFO("seen instead: " << other << " " << of);
  return seen;
}

void Watcher::Clear() {
  Collect();
  events_.clear();
}

}  // namespace latchkey::fusetest
