// What the mount survives: workers killed, stuck and crashing, helpers stuck, bad mount points.
#include <fcntl.h>
#include <linux/fuse.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include "tests/fuse/harness.h"

using namespace latchkey::fusetest;
using latchkey::UniqueFd;

namespace {

bool IsMounted(const std::string& path) {
  std::ifstream in("/proc/self/mounts");
  for (std::string device, point, rest; in >> device >> point && std::getline(in, rest);)
    if (point == path) return true;
  return false;
}

// Stops a process and waits until every thread of it has.
void Freeze(pid_t pid) {
  kill(pid, SIGSTOP);
  const bool frozen = Eventually([&] {
    for (const auto& task :
         std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/task"))
      if (ProcessState(std::stoi(task.path().filename())) != 'T') return false;
    return true;
  });
  REQUIRE(frozen);
}

bool HoldsFuse(pid_t pid) {
  for (const auto& entry :
       std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/fd")) {
    std::error_code ignored;
    if (std::filesystem::read_symlink(entry.path(), ignored) == "/dev/fuse") return true;
  }
  return false;
}

// Readers that loop until told to stop, and count what must not happen.
class Readers {
 public:
  Readers(std::vector<std::string> paths, int threads) : paths_(std::move(paths)) {
    for (int i = 0; i < threads; ++i)
      threads_.emplace_back([this, i] { Loop(static_cast<std::size_t>(i)); });
  }
  ~Readers() { Stop(); }
  void Stop() {
    stop_ = true;
    for (std::thread& thread : threads_)
      if (thread.joinable()) thread.join();
  }
  int wrong() const { return wrong_; }
  long reads() const { return reads_; }
  std::string first_wrong() const { return first_wrong_; }

 private:
  void Loop(std::size_t turn) {
    while (!stop_) {
      const std::string text = ReadFile(paths_[turn++ % paths_.size()]);
      ++reads_;
      if (VersionIn(text) != 0) continue;
      if (wrong_.fetch_add(1) == 0) first_wrong_ = text.substr(0, 80);
    }
  }
  std::vector<std::string> paths_;
  std::vector<std::thread> threads_;
  std::atomic<bool> stop_{false};
  std::atomic<int> wrong_{0};
  std::atomic<long> reads_{0};
  std::string first_wrong_;
};

}  // namespace

TEST_CASE("two hundred killed workers under readers and rotations cost no error and no mixed read",
          "[fuse][R6][R10]") {
  Mounted mounted({"one", "two"});
  const std::string directory = mounted.Bind("");
  const std::string file = mounted.Bind("one");
  const UniqueFd held(open(file.c_str(), O_RDONLY | O_CLOEXEC));
  std::atomic<bool> stop{false};
  std::string failure;
  Readers readers({mounted / "one", directory + "/two", file}, 3);
  std::thread rotator([&] {
    try {
      for (std::uint32_t version = 2; !stop; ++version) {
        mounted.driver.Rotate("one", version);
        mounted.driver.Rotate("two", version + 1);
      }
    } catch (const std::exception& error) {
      failure = error.what();
    }
  });
  std::mt19937 random(Catch::rngSeed());
  pid_t last = 0;
  for (int kills = 0; kills < 200; ++kills) {
    pid_t worker = last;
    REQUIRE(Eventually([&] { return (worker = mounted.driver.worker()) != last && worker > 0; }));
    usleep(random() % 30'000);
    kill(worker, SIGKILL);
    last = worker;
  }
  stop = true;
  rotator.join();
  readers.Stop();
  CHECK(failure.empty());
  CHECK(readers.first_wrong().empty());
  CHECK(readers.wrong() == 0);
  CHECK(readers.reads() > 1000);
  CHECK(ReadAll(held.get()) == ContentOf(1));
  CHECK(mounted.driver.Stats()["starts"] > 200);
  CHECK(mounted.driver.Stats()["refused"] == 0);
  // Descriptor counts came through all of it exactly.
  CHECK(Eventually([&] { return mounted.driver.Command("opens one") == "1"; }));
  CHECK(Eventually([&] { return mounted.driver.Command("opens two") == "0"; }));
}

TEST_CASE("requests of every kind in flight at the kill are answered by the next worker",
          "[fuse][R6]") {
  Mounted mounted({"token"});
  for (const std::uint32_t opcode : {FUSE_LOOKUP, FUSE_GETATTR, FUSE_OPEN, FUSE_READ,
                                     FUSE_READDIRPLUS, FUSE_STATFS, FUSE_RELEASE}) {
    CAPTURE(opcode);
    const pid_t worker = mounted.driver.worker();
    const long delayed = mounted.driver.Stats()["delayed"];
    mounted.driver.Command("delay " + std::to_string(opcode) + " 60000 1");
    std::atomic<bool> ok{false};
    std::thread user([&] {
      struct statvfs info {};
      switch (opcode) {
        case FUSE_LOOKUP:
          ok = ErrnoOfOpen(mounted / "absent", O_RDONLY) == ENOENT;
          break;
        case FUSE_GETATTR: {
          struct stat stat_info {};
          ok = stat((mounted / ".json").c_str(), &stat_info) == 0;
          break;
        }
        case FUSE_READDIRPLUS:
          ok =
              std::filesystem::exists(mounted / ".json/secret") &&
              std::distance(std::filesystem::directory_iterator(mounted / ".json/secret"), {}) == 1;
          break;
        case FUSE_STATFS:
          ok = statvfs(mounted.driver.target().c_str(), &info) == 0;
          break;
        default:
          ok = ReadFile(mounted / "token") == ContentOf(1);
      }
    });
    REQUIRE(Eventually([&] { return mounted.driver.Stats()["delayed"] > delayed; }));
    kill(worker, SIGKILL);
    user.join();
    CHECK(ok);
  }
  CHECK(Eventually([&] { return mounted.driver.Command("opens token") == "0"; }));
  CHECK(mounted.driver.Stats()["replayed"] >= 7);
}

TEST_CASE("a secret published by a dead worker is served and announced by the next", "[fuse][R7]") {
  Mounted mounted({"token"});
  for (std::uint32_t version = 2; version < 8; ++version) {
    Watcher watcher(mounted / "token", IN_CLOSE_WRITE);
    mounted.driver.Rotate("token", version);
    kill(mounted.driver.worker(), SIGKILL);
    CHECK(watcher.Sees(IN_CLOSE_WRITE));
    CHECK(ReadFile(mounted / "token") == ContentOf(version));
  }
  CHECK(mounted.driver.Stats()["server_generation"] == 7);
}

TEST_CASE("a stopped worker is replaced and the reader that waited is served", "[fuse][R5]") {
  Mounted mounted({"token"}, {"stuck_ms=500"});
  const pid_t worker = mounted.driver.worker();
  // Idle when it is stopped: no slot holds a request, so the count of waiting ones must tell.
  Watcher watcher(mounted / "token", IN_CLOSE_WRITE);
  mounted.driver.Rotate("token", 2);
  REQUIRE(watcher.Sees(IN_CLOSE_WRITE));
  REQUIRE(Eventually(
      [&] { return ProcessState(static_cast<pid_t>(mounted.driver.Stats()["waker"])) == 'S'; }));
  Freeze(worker);
  const auto start = std::chrono::steady_clock::now();
  CHECK(ReadFile(mounted / "token") == ContentOf(2));
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(5));
  CHECK(mounted.driver.worker() != worker);
  CHECK(Eventually([&] { return !ProcessExists(worker); }));
}

TEST_CASE("a handler that never ends is found through its slot while others are served",
          "[fuse][R5]") {
  Mounted mounted({"token", "other"}, {"stuck_ms=500"});
  Readers others({mounted / "other"}, 1);  // so that requests as a whole do go on
  const pid_t worker = mounted.driver.worker();
  mounted.driver.Command("delay " + std::to_string(FUSE_STATFS) + " 60000 1");
  struct statvfs info {};
  CHECK(statvfs(mounted.driver.target().c_str(), &info) == 0);
  CHECK(mounted.driver.worker() != worker);
  others.Stop();
  CHECK(others.wrong() == 0);
}

TEST_CASE("a request that ends two workers in a row is answered EIO and everybody else is served",
          "[fuse][R5]") {
  Mounted mounted({"token"});
  mounted.driver.Command("crash " + std::to_string(FUSE_STATFS) + " 1000");
  struct statvfs info {};
  CHECK(statvfs(mounted.driver.target().c_str(), &info) == -1);
  CHECK(errno == EIO);
  CHECK(ReadFile(mounted / "token") == ContentOf(1));
  const auto stats = mounted.driver.Stats();
  CHECK(stats.at("refused") == 1);
  CHECK(stats.at("starts") == 3);
}

TEST_CASE("a worker that cannot be reaped does not keep the next one from starting", "[fuse]") {
  // The first deadlock of 5.2. A thread of the worker sits in a page-dropping notice behind a page that is being filled, in a
  // request that this very worker holds: killed, it stays in uninterruptible sleep until somebody answers the request.
  Mounted mounted({"token"}, {"stuck_ms=60000"});  // no help from the watchdog
  struct stat info {};
  REQUIRE(stat((mounted / "token").c_str(), &info) == 0);
  const pid_t worker = mounted.driver.worker();
  const UniqueFd fd(open((mounted / "token").c_str(), O_RDONLY | O_CLOEXEC));
  void* map = mmap(nullptr, 66, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  REQUIRE(map != MAP_FAILED);
  mounted.driver.Command("delay " + std::to_string(FUSE_READ) + " 60000 1");
  std::atomic<char> first{0};
  std::thread toucher([&] { first = *static_cast<const volatile char*>(map); });
  REQUIRE(Eventually([&] { return mounted.driver.Stats()["delayed"] == 1; }));
  mounted.driver.Command("hang " + std::to_string(info.st_ino));
  REQUIRE(Eventually([&] {
    for (const auto& task :
         std::filesystem::directory_iterator("/proc/" + std::to_string(worker) + "/task"))
      if (ProcessState(std::stoi(task.path().filename())) == 'D') return true;
    return false;
  }));
  kill(worker, SIGKILL);
  toucher.join();
  CHECK(first == 'v');
  CHECK(ReadFile(mounted / "token") == ContentOf(1));
  CHECK(Eventually([&] { return ProcessState(worker) == '\0'; }));  // and is reaped in the end
  munmap(map, 66);
}

TEST_CASE("the worker sends notices with a look-up in flight and is reaped at once when killed",
          "[fuse]") {
  Mounted mounted({"token"});
  for (std::uint32_t version = 2; version < 22; ++version) {
    const pid_t worker = mounted.driver.worker();
    const long delayed = mounted.driver.Stats()["delayed"];
    mounted.driver.Command("delay " + std::to_string(FUSE_LOOKUP) + " 60000 1");
    std::atomic<int> error{0};
    std::thread user([&] { error = ErrnoOfOpen(mounted / "absent", O_RDONLY); });
    REQUIRE(Eventually([&] { return mounted.driver.Stats()["delayed"] > delayed; }));
    mounted.driver.Put("token", version, ContentOf(version));
    mounted.driver.Publish();
    kill(worker, SIGKILL);
    CHECK(Eventually([&] { return ProcessState(worker) == '\0'; }));
    user.join();
    CHECK(error == ENOENT);
  }
}

TEST_CASE("the waker has no FUSE descriptor, a stuck one is replaced, what it missed is made up",
          "[fuse]") {
  // The second deadlock of 5.2.
  Mounted mounted({"token"}, {"stuck_ms=500"});
  mounted.driver.Rotate("token", 2);
  auto stats = mounted.driver.Stats();
  const auto waker = static_cast<pid_t>(stats["waker"]);
  const auto worker = static_cast<pid_t>(stats["worker"]);
  CHECK(Eventually(
      [&] { return !HoldsFuse(waker); }));  // a child closes what it inherits before anything else
  CHECK(HoldsFuse(static_cast<pid_t>(stats["notifier"])));
  CHECK(HoldsFuse(worker));
  Watcher watcher(mounted / "token", IN_MODIFY | IN_CLOSE_WRITE);
  REQUIRE(Eventually([&] { return ProcessState(waker) == 'S'; }));
  watcher.Clear();
  Freeze(waker);
  mounted.driver.Rotate("token", 3);
  CHECK(ReadFile(mounted / "token") == ContentOf(3));  // reads never wait for it
  CHECK(watcher.Sees(IN_MODIFY));
  CHECK(watcher.Sees(IN_CLOSE_WRITE));
  stats = mounted.driver.Stats();
  CHECK(stats["waker"] != waker);
  CHECK(stats["worker"] == worker);
  CHECK(Eventually([&] { return !ProcessExists(waker); }));
  // Killed in the middle of a touch: the rest of it is made up.
  watcher.Clear();
  mounted.driver.Put("token", 5, ContentOf(5));
  const long delayed = mounted.driver.Stats()["delayed"];
  mounted.driver.Command("delay " + std::to_string(FUSE_SETATTR) + " 300 1");
  mounted.driver.Publish();
  REQUIRE(Eventually([&] { return mounted.driver.Stats()["delayed"] > delayed; }));
  kill(static_cast<pid_t>(mounted.driver.Stats()["waker"]), SIGKILL);
  CHECK(watcher.Sees(IN_CLOSE_WRITE));
  // Killed outright while something is pending.
  stats = mounted.driver.Stats();
  watcher.Clear();
  Freeze(static_cast<pid_t>(stats["waker"]));
  mounted.driver.Rotate("token", 6);
  kill(static_cast<pid_t>(stats["waker"]), SIGKILL);
  CHECK(watcher.Sees(IN_MODIFY));
  CHECK(mounted.driver.worker() == worker);
}

TEST_CASE("the waker and the worker keep no capability that they do not need", "[fuse][R25]") {
  Mounted mounted({"token"}, {"uid=65534"});
  const auto stats = mounted.driver.Stats();
  const auto field = [](long pid, const std::string& name) {
    std::ifstream in("/proc/" + std::to_string(pid) + "/status");
    for (std::string key, value; in >> key && std::getline(in, value);)
      if (key == name + ":") return value.substr(value.find_first_not_of(" \t"));
    return std::string();
  };
  CHECK(field(stats.at("worker"), "CapEff") == "0000000000000000");
  CHECK(field(stats.at("worker"), "CapPrm") == "0000000000000000");
  CHECK(field(stats.at("worker"), "NoNewPrivs") == "1");
  CHECK(field(stats.at("worker"), "Uid").rfind("65534\t65534\t65534", 0) == 0);
  // The helpers start beside the first readers.
  CHECK(Eventually([&] {
    return field(stats.at("waker"), "CapEff") == "000000000000000a";
  }));  // DAC_OVERRIDE, FOWNER
  CHECK(Eventually([&] { return field(stats.at("notifier"), "CapEff") == "0000000000000000"; }));
  CHECK(ReadFile(mounted / "token") == ContentOf(1));
  kill(static_cast<pid_t>(stats.at("worker")), SIGKILL);
  CHECK(ReadFile(mounted / "token") == ContentOf(1));
}

TEST_CASE("everything works with a locked memfd where memfd_secret is not to be had", "[fuse]") {
  Mounted mounted({"token"}, {"secret_memory=0"});
  mounted.driver.Rotate("token", 2);
  kill(mounted.driver.worker(), SIGKILL);
  CHECK(ReadFile(mounted / "token") == ContentOf(2));
}

TEST_CASE("a stop leaves nothing mounted and no process, whatever hangs", "[fuse][R9]") {
  SECTION("idle") {}
  SECTION("waker stopped in the middle of a touch, worker stopped") {}
  const bool stuck = GENERATE(false, true);
  Mounted mounted({"token"}, {"stuck_ms=60000", "lazy_ms=300"});
  mounted.driver.Rotate("token", 2);
  const auto stats = mounted.driver.Stats();
  if (stuck) {
    // The waker waits in the mount for a worker that does not answer: it cannot even be killed.
    mounted.driver.Put("token", 3, ContentOf(3));
    mounted.driver.Command("delay " + std::to_string(FUSE_SETATTR) + " 60000 1");
    mounted.driver.Publish();
    REQUIRE(Eventually([&] { return mounted.driver.Stats()["delayed"] == 1; }));
    Freeze(static_cast<pid_t>(stats.at("worker")));
  }
  const DriverResult result = mounted.driver.Stop();
  CAPTURE(result.errors);
  CHECK(result.exit_code == 0);
  CHECK_FALSE(IsMounted(mounted.driver.target()));
  CHECK_FALSE(IsMounted(mounted.driver.private_mount()));
  for (const char* who : {"worker", "waker", "notifier"}) {
    CAPTURE(who);
    CHECK(Eventually([&] { return !ProcessExists(static_cast<pid_t>(stats.at(who))); }));
  }
}

TEST_CASE("a stop does not hang behind a page that a stopped worker never filled", "[fuse]") {
  Mounted mounted({"token"}, {"stuck_ms=60000", "lazy_ms=300"});
  const UniqueFd fd(open((mounted / "token").c_str(), O_RDONLY | O_CLOEXEC));
  void* map = mmap(nullptr, 66, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  REQUIRE(map != MAP_FAILED);
  mounted.driver.Command("delay " + std::to_string(FUSE_READ) + " 60000 1");
  const pid_t toucher = fork();
  if (toucher == 0) _exit(*static_cast<const volatile char*>(map) == 'v' ? 0 : 1);
  REQUIRE(Eventually([&] { return mounted.driver.Stats()["delayed"] == 1; }));
  const auto stats = mounted.driver.Stats();
  Freeze(static_cast<pid_t>(stats.at("worker")));
  CHECK(mounted.driver.Stop().exit_code == 0);
  CHECK_FALSE(IsMounted(mounted.driver.target()));
  for (const char* who : {"worker", "waker", "notifier"})
    CHECK(Eventually([&] { return !ProcessExists(static_cast<pid_t>(stats.at(who))); }));
  int status = 0;
  CHECK(Eventually([&] { return waitpid(toucher, &status, WNOHANG) == toucher; }));  // with SIGBUS
  munmap(map, 66);
}

TEST_CASE("a stop with a reader inside waits, then detaches", "[fuse][R9]") {
  Mounted mounted({"token"}, {"lazy_ms=300"});
  const UniqueFd held(open((mounted / "token").c_str(), O_RDONLY | O_CLOEXEC));
  CHECK(mounted.driver.Stop().exit_code == 0);
  CHECK_FALSE(IsMounted(mounted.driver.target()));
}

TEST_CASE("a mount point that is not safe or not free is refused with what to do", "[fuse]") {
  TempDirectory directory;
  const auto refusal = [&](const std::string& target) {
    Driver driver(directory, {"wait_ms=5000"}, target);
    return driver.WaitForEnd();
  };
  SECTION("not empty") {
    std::ofstream(directory.MakeTarget("full") + "/file") << "x";
    const DriverResult result = refusal("full");
    CHECK(result.exit_code == 6);
    CHECK(result.errors.find(
              "is not empty; mounting would hide its files: choose an empty directory") !=
          std::string::npos);
  }
  SECTION("symbolic link in the path") {
    directory.MakeTarget("real");
    directory.MakeTarget("real/inner");
    std::filesystem::create_directory_symlink(directory / "real", directory / "link");
    const DriverResult result = refusal("link/inner");
    CHECK(result.exit_code == 4);
    CHECK(result.errors.find("symbolic link") != std::string::npos);
  }
  SECTION("parent writable by others") {
    directory.MakeTarget("open");
    directory.MakeTarget("open/inner");
    chmod((directory / "open").c_str(), 0777);
    const DriverResult result = refusal("open/inner");
    CHECK(result.exit_code == 4);
    CHECK(result.errors.find("chmod go-w") != std::string::npos);
  }
  SECTION("owned by somebody else") {
    REQUIRE(chown(directory.MakeTarget("theirs").c_str(), 1000, 1000) == 0);
    const DriverResult result = refusal("theirs");
    CHECK(result.exit_code == 4);
    CHECK(result.errors.find("chown root") != std::string::npos);
  }
}

TEST_CASE("a second keeper on the same point is refused and the first goes on", "[fuse]") {
  Mounted mounted({"token"});
  for (const char* private_dir :
       {"private", "private2"}) {  // the same runtime directory, and another one
    Driver second(mounted.directory, {"wait_ms=5000"}, "target", private_dir);
    const DriverResult result = second.WaitForEnd();
    CHECK(result.exit_code == 6);
    CHECK(result.errors.find("another latchkey-fs") != std::string::npos);
    CHECK(result.errors.find("latchkey-fs unmount") != std::string::npos);
  }
  CHECK(ReadFile(mounted / "token") == ContentOf(1));
}

TEST_CASE("a keeper that was killed leaves a dead mount, which the next one replaces",
          "[fuse][R9]") {
  Mounted mounted({"token"});
  const auto stats = mounted.driver.Stats();
  mounted.driver.Kill(SIGKILL);
  mounted.driver.WaitForEnd();
  for (const char* who : {"worker", "waker", "notifier"})
    CHECK(Eventually([&] { return !ProcessExists(static_cast<pid_t>(stats.at(who))); }));
  // The first one may still meet the connection as it ends.
  CHECK(Eventually([&] { return ReadFile(mounted / "token") == "!ENOTCONN"; }));
  Driver next(mounted.directory, {});
  REQUIRE(next.Put("token", 5, ContentOf(5)) == "ok");
  next.Publish();
  next.WaitReady();
  CHECK(ReadFile(mounted / "token") == ContentOf(5));
}

TEST_CASE("nothing is mounted before the first snapshot", "[fuse][R2]") {
  TempDirectory directory;
  Driver driver(directory, {"wait_ms=700"});
  REQUIRE(driver.Command("stats").rfind("worker=", 0) == 0);
  CHECK_FALSE(IsMounted(driver.target()));
  const DriverResult result = driver.WaitForEnd();
  CHECK(result.exit_code != 0);
  CHECK(result.errors.find("nothing is mounted") != std::string::npos);
  CHECK_FALSE(IsMounted(driver.target()));
}
