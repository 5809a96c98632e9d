#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "fusefs/keeper/child.h"
#include "fusefs/keeper/memory.h"
#include "fusefs/keeper/paths.h"

using namespace latchkey;
using namespace latchkey::keeper;

namespace {

struct Scratch {
  Scratch() {
    std::string pattern = "/tmp/latchkey-keeper-test.XXXXXX";
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    path = pattern;
  }
  ~Scratch() { std::filesystem::remove_all(path); }
  std::string Make(const std::string& name, mode_t mode) const {
    const std::string full = path + "/" + name;
    mkdir(full.c_str(), 0700);
    chmod(full.c_str(), mode);
    return full;
  }
  std::string path;
};

Errc CodeOf(const Result<UniqueFd>& result) {
  return result.has_value() ? Errc::kInternal : result.error().code;
}

}  // namespace

TEST_CASE("paths must be absolute and plain", "[keeper]") {
  CHECK(NormalPath("//a///b/").value() == "/a/b");
  for (const char* bad : {"", "a", "a/b", "/", "//", "/a/../b", "/a/./b", "/.."}) {
    CAPTURE(bad);
    CHECK(NormalPath(bad).error().code == Errc::kInvalidArgument);
  }
}

TEST_CASE("a directory is opened only along components that root alone controls", "[keeper]") {
  const Scratch scratch;
  CHECK(OpenSafeDirectory(scratch.Make("good", 0755), false).has_value());
  CHECK(OpenSafeDirectory(scratch.path + "/made/deep", true).has_value());
  CHECK((std::filesystem::status(scratch.path + "/made").permissions() &
         std::filesystem::perms::mask) == std::filesystem::perms::owner_all);
  CHECK(CodeOf(OpenSafeDirectory(scratch.path + "/absent", false)) == Errc::kNotFound);
  CHECK(CodeOf(OpenSafeDirectory(scratch.Make("group", 0775), false)) == Errc::kPermissionDenied);
  CHECK(CodeOf(OpenSafeDirectory(scratch.Make("world", 0777), false)) == Errc::kPermissionDenied);
  // The sticky bit is enough above, not for the mount point itself.
  CHECK(CodeOf(OpenSafeDirectory(scratch.Make("sticky", 01777), false)) == Errc::kPermissionDenied);
  scratch.Make("sticky/inner", 0755);
  CHECK(OpenSafeDirectory(scratch.path + "/sticky/inner", false).has_value());
  scratch.Make("world/inner", 0755);
  CHECK(CodeOf(OpenSafeDirectory(scratch.path + "/world/inner", false)) == Errc::kPermissionDenied);
  REQUIRE(symlink((scratch.path + "/good").c_str(), (scratch.path + "/link").c_str()) == 0);
  CHECK(CodeOf(OpenSafeDirectory(scratch.path + "/link", false)) == Errc::kPermissionDenied);
  std::ofstream(scratch.path + "/file") << "x";
  CHECK(CodeOf(OpenSafeDirectory(scratch.path + "/file", false)) == Errc::kPermissionDenied);
  REQUIRE(chown(scratch.Make("theirs", 0755).c_str(), 1000, 0) == 0);
  CHECK(CodeOf(OpenSafeDirectory(scratch.path + "/theirs", false)) == Errc::kPermissionDenied);
}

TEST_CASE("a directory has one lock and it ends with its descriptor", "[keeper]") {
  const Scratch scratch;
  const UniqueFd directory(open(scratch.path.c_str(), O_PATH | O_CLOEXEC));
  {
    const auto first = LockDirectory(directory.get(), "taken");
    CHECK(first.has_value());
    CHECK(LockDirectory(directory.get(), "taken").error().message == "taken");
  }
  CHECK(LockDirectory(directory.get(), "taken").has_value());
}

TEST_CASE("only an empty directory is a mount point", "[keeper]") {
  const Scratch scratch;
  const UniqueFd directory(open(scratch.path.c_str(), O_PATH | O_CLOEXEC));
  CHECK(CheckEmpty(directory.get(), scratch.path).has_value());
  std::ofstream(scratch.path + "/.hidden") << "x";
  CHECK(CheckEmpty(directory.get(), scratch.path).error().code == Errc::kConflict);
}

TEST_CASE("a child has the descriptors it was given and no others", "[keeper]") {
  const UniqueFd given(open("/dev/null", O_RDONLY | O_CLOEXEC));
  const UniqueFd other(open("/dev/null", O_RDONLY));
  const int given_fd = given.get();
  const int other_fd = other.get();
  const pid_t child = StartChild({given_fd}, [&] {
    return fcntl(given_fd, F_GETFD) >= 0 && fcntl(other_fd, F_GETFD) < 0 && fcntl(1, F_GETFD) >= 0
               ? 5
               : 6;
  });
  CHECK(WaitForExit(child, std::chrono::seconds(10)) == 5);
}

TEST_CASE("a look at a child never blocks and tells running, dead and reaped", "[keeper]") {
  std::array<int, 2> ends{};
  REQUIRE(pipe(ends.data()) == 0);
  const int read_end = ends[0];
  const pid_t child = StartChild({read_end}, [&] {
    char byte = 0;
    return static_cast<int>(read(read_end, &byte, 1)) + 9;
  });
  CHECK(LookAt(child).kind == ChildState::Kind::kRuns);
  CHECK_FALSE(WaitForExit(child, std::chrono::milliseconds(1)).has_value());
  close(ends[1]);
  CHECK(WaitForExit(child, std::chrono::seconds(10)) == 9);
  CHECK(LookAt(child).kind == ChildState::Kind::kReaped);
  close(read_end);
}

TEST_CASE("content memory is secret or locked, and its size is fixed", "[keeper]") {
  constexpr std::size_t kBytes = 1024 * 1024;
  const auto secret = ContentMemory::Make(kBytes, true, false);
  REQUIRE(secret.has_value());
  auto plain = ContentMemory::Make(kBytes, false, false);
  REQUIRE(plain.has_value());
  CHECK_FALSE(plain.value().secret());
  CHECK(ftruncate(plain.value().fd(), 4096) != 0);
  // Another process uses a page; the keeper's lock follows.
  const auto locked_kib = [] {
    std::ifstream in("/proc/self/smaps");
    long sum = 0;
    bool ours = false;
    for (std::string line; std::getline(in, line);) {
      if (line.find("memfd:latchkey-content") != std::string::npos) ours = true;
      if (ours && line.rfind("Locked:", 0) == 0) {
        sum += std::stol(line.substr(7));
        ours = false;
      }
    }
    return sum;
  };
  const int fd = plain.value().fd();
  const pid_t child = StartChild({fd}, [&] {
    void* at = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) return 1;
    static_cast<char*>(at)[8192] = 'x';
    return 0;
  });
  REQUIRE(WaitForExit(child, std::chrono::seconds(10)) == 0);
  const long before = locked_kib();
  plain.value().LockUsedPages();
  CHECK(locked_kib() == before + 4);
}
