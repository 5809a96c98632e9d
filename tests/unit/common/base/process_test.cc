#include "common/base/process.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

extern char** environ;

namespace latchkey {
namespace {

// Everything here changes the process for good: each check runs in a child, which exits with 0 when
// `body` holds.
int InChild(const std::function<bool()>& body) {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) ::_exit(body() ? 0 : 1);
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  return WEXITSTATUS(status);
}

bool IsOpen(int fd) {
  return ::fcntl(fd, F_GETFD) >= 0;
}

// A descriptor on /dev/null with exactly this number.
bool OpenAt(int fd) {
  const int null = ::open("/dev/null", O_RDONLY);
  if (null < 0) return false;
  if (null == fd) return true;
  const bool moved = ::dup2(null, fd) == fd;
  ::close(null);
  return moved;
}

TEST_CASE("A hardened process leaves no core, cannot be traced and makes private files", "[base]") {
  CHECK(InChild([] {
          ::umask(0);
          rlimit limit{};
          return HardenProcess({}).has_value() && ::getrlimit(RLIMIT_CORE, &limit) == 0 &&
                 limit.rlim_cur == 0 && limit.rlim_max == 0 && ::umask(0) == 077;
        }) == 0);
#ifndef LATCHKEY_SANITIZED
  CHECK(InChild([] {
          return ::prctl(PR_GET_DUMPABLE) == 1 && HardenProcess({}).has_value() &&
                 ::prctl(PR_GET_DUMPABLE) == 0;
        }) == 0);
#endif
}

TEST_CASE("Only the allowed variables survive, with their values", "[base]") {
  CHECK(InChild([] {
          ::setenv("LATCHKEY_KEEP", "kept = as is", 1);
          ::setenv("LATCHKEY_EMPTY", "", 1);
          ::setenv("LATCHKEY_GO", "secret", 1);
          ::setenv("LATCHKEY_KEEPER", "longer name", 1);
          if (!HardenProcess(
                   {.keep_environment = {"LATCHKEY_KEEP", "LATCHKEY_EMPTY", "LATCHKEY_ABSENT"},
                    .keep_fds = {}})
                   .has_value()) {
            return false;
          }
          std::size_t count = 0;
          for (char** at = environ; at != nullptr && *at != nullptr; ++at) ++count;
          return count == 2 && std::string(std::getenv("LATCHKEY_KEEP")) == "kept = as is" &&
                 std::string(std::getenv("LATCHKEY_EMPTY")).empty() &&
                 std::getenv("LATCHKEY_GO") == nullptr;
        }) == 0);
}

TEST_CASE("Unknown descriptors are closed and listed ones stay", "[base]") {
  CHECK(InChild([] {
          if (!OpenAt(3) || !OpenAt(10) || !OpenAt(11) || !OpenAt(200)) return false;
          // Order, doubles and standard descriptors in the list do not matter; one that is not open
          // is no error.
          if (!HardenProcess({.keep_environment = {}, .keep_fds = {11, 3, 11, 1, 150}}).has_value())
            return false;
          return IsOpen(0) && IsOpen(1) && IsOpen(2) && IsOpen(3) && !IsOpen(10) && IsOpen(11) &&
                 !IsOpen(150) && !IsOpen(200);
        }) == 0);
}

TEST_CASE("The listing closes the same descriptors as close_range", "[base]") {
  CHECK(InChild([] {
          if (!OpenAt(3) || !OpenAt(10) || !OpenAt(11) || !OpenAt(200)) return false;
          if (!CloseUnknownFdsByListing({11, 3}).has_value()) return false;
          for (int fd = 3; fd < 400; ++fd) {
            if (IsOpen(fd) != (fd == 3 || fd == 11)) return false;
          }
          return IsOpen(0) && IsOpen(1) && IsOpen(2);
        }) == 0);
}

TEST_CASE("Descriptors from systemd stay when they are for this process, and only then", "[base]") {
  const auto offset = GENERATE(0, 1);
  CHECK(
      InChild([offset] {
        if (!OpenAt(3) || !OpenAt(4) || !OpenAt(5)) return false;
        ::setenv("LISTEN_PID", std::to_string(::getpid() + offset).c_str(), 1);
        ::setenv("LISTEN_FDS", "2", 1);
        if (!HardenProcess({.keep_environment = ServiceEnvironment(), .keep_fds = {}}).has_value())
          return false;
        const bool ours = offset == 0;
        return IsOpen(3) == ours && IsOpen(4) == ours && !IsOpen(5) &&
               std::getenv("LISTEN_FDS") != nullptr;
      }) == 0);
}

TEST_CASE("A LISTEN_FDS that is no number keeps nothing", "[base]") {
  const std::string text =
      GENERATE(as<std::string>{}, "", "2x", "-1", "99999999999999999999", " 2");
  CAPTURE(text);
  CHECK(InChild([&text] {
          if (!OpenAt(3)) return false;
          ::setenv("LISTEN_PID", std::to_string(::getpid()).c_str(), 1);
          ::setenv("LISTEN_FDS", text.c_str(), 1);
          return HardenProcess({}).has_value() && !IsOpen(3);
        }) == 0);
}

TEST_CASE("Closed standard descriptors are opened on /dev/null", "[base]") {
  CHECK(InChild([] {
          ::close(0);
          ::close(2);
          if (!HardenProcess({}).has_value()) return false;
          struct stat null {
          }, in{}, err{};
          return ::stat("/dev/null", &null) == 0 && ::fstat(0, &in) == 0 && ::fstat(2, &err) == 0 &&
                 in.st_rdev == null.st_rdev && err.st_rdev == null.st_rdev;
        }) == 0);
}

TEST_CASE("A write to a closed pipe is an error and no signal", "[base]") {
  CHECK(InChild([] {
          if (!HardenProcess({}).has_value()) return false;
          int ends[2];
          if (::pipe(ends) != 0) return false;
          ::close(ends[0]);
          return ::write(ends[1], "x", 1) < 0 && errno == EPIPE;
        }) == 0);
}

TEST_CASE("The soft limits of files and locked memory are raised to the hard ones", "[base]") {
  CHECK(InChild([] {
          for (const auto resource : {RLIMIT_NOFILE, RLIMIT_MEMLOCK}) {
            rlimit limit{};
            if (::getrlimit(resource, &limit) != 0) return false;
            limit.rlim_cur = 256;
            if (limit.rlim_max < 512 || ::setrlimit(resource, &limit) != 0) return false;
          }
          if (!HardenProcess({}).has_value()) return false;
          for (const auto resource : {RLIMIT_NOFILE, RLIMIT_MEMLOCK}) {
            rlimit limit{};
            if (::getrlimit(resource, &limit) != 0 || limit.rlim_cur != limit.rlim_max)
              return false;
          }
          return true;
        }) == 0);
}

#ifndef LATCHKEY_SANITIZED  // the sanitizer's allocator has no holes of glibc's kind
std::size_t ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  std::size_t total_pages = 0;
  std::size_t resident_pages = 0;
  statm >> total_pages >> resident_pages;
  return resident_pages * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

TEST_CASE("Freed memory below a block that stays goes back to the kernel", "[base]") {
  constexpr std::size_t kBlockBytes = 4096;
  constexpr std::size_t kBlocks = 8192;
  std::vector<std::unique_ptr<char[]>> blocks;
  for (std::size_t i = 0; i < kBlocks; ++i) {
    blocks.push_back(std::make_unique<char[]>(kBlockBytes));  // zeroed, so it is resident
  }
  const std::unique_ptr<char[]> stays = std::make_unique<char[]>(kBlockBytes);
  blocks.clear();
  const std::size_t before = ResidentBytes();
  ReturnFreeMemory(2 * kBlocks * kBlockBytes);
  CHECK(ResidentBytes() + kBlocks * kBlockBytes / 2 > before);  // less lies free than was asked for
  ReturnFreeMemory();
  CHECK(ResidentBytes() + kBlocks * kBlockBytes / 2 < before);
}

// Mixed as connections mix them, on the heap of a thread; false when the large ones leave their memory behind.
bool LeaveNoHoles() {
  constexpr std::size_t kPairs = 1024;
  constexpr std::size_t kLargeBytes = 17 * 1024;
  std::vector<std::unique_ptr<char[]>> small, large;
  const std::size_t before = ResidentBytes();
  for (std::size_t i = 0; i < kPairs; ++i) {
    small.push_back(std::make_unique<char[]>(1024));
    large.push_back(std::make_unique<char[]>(kLargeBytes));  // zeroed, so it is resident
  }
  if (ResidentBytes() < before + kPairs * kLargeBytes) return false;
  large.clear();
  return ResidentBytes() < before + kPairs * 4096;
}

TEST_CASE("Large blocks with pages of their own leave no holes between small ones", "[base]") {
  CHECK(InChild([] {
          GiveLargeBlocksTheirOwnPages(16 * 1024, 4096);
          bool none = false;
          std::thread([&none] { none = LeaveNoHoles(); }).join();
          return none;
        }) == 0);
}
#endif

}  // namespace
}  // namespace latchkey
