#include "server/keys/kek_provider.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <csignal>
#include <cstdlib>
#include <fstream>

#include "keys_for_test.h"

namespace latchkey::keys {
namespace {

namespace fs = std::filesystem;

class TempDir {
 public:
  TempDir() {
    std::string pattern = (fs::temp_directory_path() / "latchkey-keys-XXXXXX").string();
    REQUIRE(::mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ~TempDir() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  fs::path operator/(const char* name) const { return path_ / name; }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

std::string Read(const fs::path& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

void Write(const fs::path& path, const std::string& text, mode_t mode = 0600) {
  std::ofstream(path) << text;
  REQUIRE(::chmod(path.c_str(), mode) == 0);
}

// The file must be refused with one line that tells what to do.
Error Refusal(KekProvider&& provider) {
  auto loaded = provider.Load(7);
  REQUIRE_FALSE(loaded.has_value());
  const Error error = std::move(loaded).error();
  CHECK(error.message.find('\n') == std::string::npos);
  CHECK((error.message.find(": ") != std::string::npos ||
         error.message.find("; ") != std::string::npos));
  return error;
}

TEST_CASE("A created key file is private, complete and loads", "[keys]") {
  const TempDir dir;
  const fs::path path = dir / "kek";
  const mode_t old = ::umask(0777);
  const Status created = CreateKekFile(path, 7, KekOf(3));
  ::umask(old);
  REQUIRE(created.has_value());
  struct stat file {};
  REQUIRE(::stat(path.c_str(), &file) == 0);
  CHECK((file.st_mode & 07777) == 0600);
  CHECK(Read(path) == std::string(AsText(FormatKek(7, KekOf(3)).value().bytes())) + "\n");
  const auto loaded = FileKekProvider(path).Load(7);
  REQUIRE(loaded.has_value());
  CHECK(crypto::EqualsConstantTime(loaded.value().bytes(), KekOf(3).bytes()));
  CHECK(FileKekProvider(path).LoadAny().value().kek_id == 7);
}

TEST_CASE("A key file is never overwritten, nor is a link in its place followed", "[keys]") {
  const TempDir dir;
  Write(dir / "kek", "something");
  fs::create_symlink("nowhere", dir / "link");
  for (const char* name : {"kek", "link"}) {
    const Status created = CreateKekFile(dir / name, 7, KekOf(3));
    REQUIRE_FALSE(created.has_value());
    CHECK(created.error().code == Errc::kConflict);
  }
  CHECK(Read(dir / "kek") == "something");
  CHECK_FALSE(fs::exists(dir / "nowhere"));
  const Status missing = CreateKekFile(dir / "no/such/kek", 7, KekOf(3));
  REQUIRE_FALSE(missing.has_value());
  CHECK(missing.error().code == Errc::kUnavailable);
}

TEST_CASE("A full disk leaves no key file behind", "[keys]") {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  const TempDir dir;  // after the fork: each side removes its own
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit small{10, 10};
    if (::setrlimit(RLIMIT_FSIZE, &small) != 0) ::_exit(2);
    const Status created = CreateKekFile(dir / "kek", 7, KekOf(3));
    const bool refused = !created.has_value() && created.error().code == Errc::kUnavailable;
    const bool gone = !fs::exists(dir / "kek");
    std::error_code ignored;
    fs::remove_all(dir.path(), ignored);
    ::_exit(refused && gone ? 0 : 1);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}

TEST_CASE("Bad states of a key file are each refused with advice", "[keys]") {
  const TempDir dir;
  const fs::path path = dir / "kek";
  REQUIRE(CreateKekFile(path, 7, KekOf(3)).has_value());
  const std::string line = Read(path);
  REQUIRE(FileKekProvider(path).Load(7).has_value());

  SECTION("missing") {
    fs::remove(path);
    CHECK(Refusal(FileKekProvider(path)).code == Errc::kNotFound);
  }
  SECTION("symbolic link") {
    fs::create_symlink(path, dir / "link");
    CHECK(Refusal(FileKekProvider(dir / "link")).message.find("symbolic link") !=
          std::string::npos);
  }
  SECTION("directory") {
    CHECK(Refusal(FileKekProvider(dir.path())).code == Errc::kPermissionDenied);
  }
  SECTION("FIFO, which must not hang") {
    REQUIRE(::mkfifo((dir / "fifo").c_str(), 0600) == 0);
    CHECK(Refusal(FileKekProvider(dir / "fifo")).message.find("regular") != std::string::npos);
  }
  SECTION("hard link") {
    fs::create_hard_link(path, dir / "second");
    CHECK(Refusal(FileKekProvider(path)).message.find("2 links") != std::string::npos);
  }
  SECTION("any bit for group or others") {
    for (const mode_t bit : {0001, 0002, 0004, 0010, 0020, 0040}) {
      REQUIRE(::chmod(path.c_str(), 0600 | bit) == 0);
      CHECK(Refusal(FileKekProvider(path)).message.find("chmod 0600") != std::string::npos);
    }
    for (const mode_t fine : {0600, 0400}) {
      REQUIRE(::chmod(path.c_str(), fine) == 0);
      CHECK(FileKekProvider(path).Load(7).has_value());
    }
  }
  SECTION("another owner") {
    if (::geteuid() != 0) {
      WARN("not root: a file of another owner cannot be made");
      return;
    }
    REQUIRE(::chown(path.c_str(), 12345, 0) == 0);
    CHECK(Refusal(FileKekProvider(path)).message.find("belongs to user 12345") !=
          std::string::npos);
  }
  SECTION("empty") {
    Write(path, "");
    CHECK(Refusal(FileKekProvider(path)).message.find("empty") != std::string::npos);
  }
  SECTION("truncated anywhere") {
    for (std::size_t size = 0; size + 1 < line.size(); ++size) {
      Write(path, line.substr(0, size));
      CHECK(Refusal(FileKekProvider(path)).code == Errc::kInvalidArgument);
    }
  }
  SECTION("too long") {
    Write(path, line + std::string(1000, '\n'));
    CHECK(Refusal(FileKekProvider(path)).message.find("too long") != std::string::npos);
  }
  SECTION("another key's id") {
    const Error error = Refusal(FileKekProvider([&] {
      fs::remove(path);
      REQUIRE(CreateKekFile(path, 8, KekOf(3)).has_value());
      return path;
    }()));
    CHECK(error.code == Errc::kNotFound);
    CHECK(error.message.find("holds key 8, but the store needs key 7") != std::string::npos);
  }
}

TEST_CASE("A systemd credential loads, also with the group bit that its ACL shows", "[keys]") {
  const TempDir dir;
  REQUIRE(CreateKekFile(dir / "kek", 7, KekOf(3)).has_value());
  for (const mode_t fine : {0400, 0600, 0440}) {
    CAPTURE(fine);
    REQUIRE(::chmod((dir / "kek").c_str(), fine) == 0);
    // The group bit is for files of root alone; another user's own file keeps the strict rule.
    const bool expected = fine != 0440 || ::geteuid() == 0;
    CHECK(CredentialKekProvider(dir.path(), "kek").Load(7).has_value() == expected);
  }
  for (const mode_t bad : {0404, 0420, 0410, 0444}) {
    CAPTURE(bad);
    REQUIRE(::chmod((dir / "kek").c_str(), bad) == 0);
    CHECK(Refusal(CredentialKekProvider(dir.path(), "kek")).code == Errc::kPermissionDenied);
  }
  if (::geteuid() == 0) {
    REQUIRE(::chown((dir / "kek").c_str(), 12345, 0) == 0);
    REQUIRE(::chmod((dir / "kek").c_str(), 0440) == 0);
    CHECK(Refusal(CredentialKekProvider(dir.path(), "kek")).code == Errc::kPermissionDenied);
  }
  CHECK(Refusal(CredentialKekProvider({}, "kek")).message.find("LoadCredential=") !=
        std::string::npos);
  for (const char* name : {"", "../kek", "a/b", ".kek", ".."}) {
    CHECK_FALSE(CredentialKekProvider(dir.path(), name).Load(7).has_value());
  }
}

TEST_CASE("An inherited descriptor is read once, whole, and closed", "[keys]") {
  const std::string line(AsText(FormatKek(7, KekOf(3)).value().bytes()));
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  // Two writes: a pipe may give its bytes in pieces.
  REQUIRE(::write(ends[1], line.data(), 10) == 10);
  REQUIRE(::write(ends[1], line.data() + 10, line.size() - 10) ==
          static_cast<ssize_t>(line.size() - 10));
  ::close(ends[1]);
  FdKekProvider provider{UniqueFd(ends[0])};
  const auto loaded = provider.Load(7);
  REQUIRE(loaded.has_value());
  CHECK(crypto::EqualsConstantTime(loaded.value().bytes(), KekOf(3).bytes()));
  CHECK(::fcntl(ends[0], F_GETFD) < 0);
  const auto again = provider.Load(7);
  REQUIRE_FALSE(again.has_value());
  CHECK(again.error().code == Errc::kUnavailable);
  CHECK_FALSE(FdKekProvider(UniqueFd(-1)).Load(7).has_value());
}

}  // namespace
}  // namespace latchkey::keys
