#include "client/cli/content.h"

#include <pty.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <catch2/catch.hpp>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <thread>

#include "common/model/limits.h"
#include "tests/unit/client/cli/captured.h"

namespace latchkey::cli {
namespace {

class ScratchDir {
 public:
  ScratchDir() {
    char pattern[] = "/tmp/latchkey-cli-test.XXXXXX";
    path_ = ::mkdtemp(pattern);
  }
  ~ScratchDir() { std::filesystem::remove_all(path_); }
  std::string File(const std::string& name) const { return path_ + "/" + name; }
  std::size_t entries() const {
    return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(path_), {}));
  }

 private:
  std::string path_;
};

void Put(const std::string& path, std::string_view text) {
  std::ofstream(path, std::ios::binary) << text;
}

std::string ReadBack(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

}  // namespace

TEST_CASE("Content from stdin and from a file is taken as it is", "[cli]") {
  const std::string bytes = GENERATE(as<std::string>{}, "x", "line\n", std::string("\0\xff\n\n", 4),
                                     std::string(300'000, 'z'));
  ScratchDir dir;
  Put(dir.File("in"), bytes);
  test::Captured captured(bytes);
  ContentSource source;
  SECTION("stdin") {}
  SECTION("a file") {
    source.from_file = dir.File("in");
  }
  SECTION("a descriptor, as a shell's <(command) gives it") {
    source.from_file = "/dev/fd/" + std::to_string(captured.in_fd());
  }
  const auto content = ReadContent(captured.terminal(), source, "x");
  REQUIRE(content.has_value());
  CHECK(AsText(content->bytes()) == bytes);
  CHECK(captured.Out().empty());
  CHECK(captured.Err().empty());
}

TEST_CASE("Content from a pipe that gives it in pieces is whole", "[cli]") {
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  std::jthread writer([&] {
    for (int i = 0; i < 1000; ++i) {
      if (::write(ends[1], "0123456789", 10) != 10) break;
    }
    ::close(ends[1]);
  });
  test::Captured captured;
  ContentSource source;
  source.from_file = "/dev/fd/" + std::to_string(ends[0]);
  const auto content = ReadContent(captured.terminal(), source, "x");
  ::close(ends[0]);
  REQUIRE(content.has_value());
  CHECK(content->size() == 10'000);
}

TEST_CASE("Content that is empty, too large or unreadable is refused", "[cli]") {
  ScratchDir dir;
  ContentSource source;
  Errc code = Errc::kInvalidArgument;
  test::Captured captured;
  SECTION("empty stdin") {}
  SECTION("an empty file") {
    Put(source.from_file = dir.File("in"), "");
  }
  SECTION("no file") {
    source.from_file = dir.File("missing");
  }
  SECTION("a directory") {
    source.from_file = "/tmp";
  }
  SECTION("file and generator at once") {
    source.from_file = dir.File("in");
    source.generate = "uuid";
  }
  SECTION("a generator that is none") {
    source.generate = "nonsense";
  }
  SECTION("one byte over the limit") {
    Put(source.from_file = dir.File("in"), std::string(limits::kHardMaxContentBytes + 1, 'x'));
    code = Errc::kTooLarge;
  }
  const auto content = ReadContent(captured.terminal(), source, "x");
  REQUIRE_FALSE(content.has_value());
  CHECK(content.error().code == code);
}

TEST_CASE("A prompt asks twice and shows nothing of what is typed", "[cli]") {
  int master = -1, slave = -1;
  REQUIRE(::openpty(&master, &slave, nullptr, nullptr, nullptr) == 0);
  const auto [first, second, good] =
      GENERATE(table<std::string, std::string, bool>({{"hunter2", "hunter2", true},
                                                      {"hunter2", "hunter3", false},
                                                      {"", "", false},
                                                      {"a\x03", "", false}}));
  std::string shown;
  std::jthread person([&, first = first, second = second] {
    char buffer[256];
    for (const auto& [question, answer] :
         {std::pair{"not shown", first}, std::pair{"again", second}}) {
      while (shown.find(question) == std::string::npos) {
        const ssize_t got = ::read(master, buffer, sizeof buffer);
        if (got <= 0) return;
        shown.append(buffer, static_cast<std::size_t>(got));
      }
      const std::string line = answer + "\n";
      if (::write(master, line.data(), line.size()) < 0) return;
      if (answer.empty() || answer.find('\x03') != std::string::npos) return;
    }
  });
  Terminal terminal(slave, slave, slave);
  const auto content = ReadContent(terminal, {}, "secret \"x\"");
  person.join();
  termios state{};
  REQUIRE(::tcgetattr(slave, &state) == 0);
  CHECK((state.c_lflag & ECHO) != 0);
  CHECK((state.c_lflag & ISIG) != 0);
  ::close(slave);
  char rest[4096];
  for (ssize_t got = 1; got > 0;) {
    got = ::read(master, rest, sizeof rest);
    if (got > 0) shown.append(rest, static_cast<std::size_t>(got));
  }
  ::close(master);
  CHECK(shown.find("hunter") == std::string::npos);
  REQUIRE(content.has_value() == good);
  if (good) {
    CHECK(AsText(content->bytes()) == first);
  } else {
    CHECK(content.error().code == Errc::kInvalidArgument);
  }
}

TEST_CASE("A file is written whole, mode 0600, in place of what was there", "[cli]") {
  ScratchDir dir;
  const std::string path = dir.File("out");
  if (GENERATE(false, true)) {
    Put(path, "older and longer content");
    ::chmod(path.c_str(), 0644);
  }
  const mode_t before = ::umask(0);
  const auto status = WriteFileAtomically(path, AsBytes(std::string_view("new\0er", 6)));
  ::umask(before);
  REQUIRE(status.has_value());
  CHECK(ReadBack(path) == std::string("new\0er", 6));
  struct stat info {};
  REQUIRE(::stat(path.c_str(), &info) == 0);
  CHECK((info.st_mode & 07777) == 0600);
  CHECK(dir.entries() == 1);
}

TEST_CASE("A target that is no regular file is left alone", "[cli]") {
  ScratchDir dir;
  std::string path = dir.File("out");
  SECTION("a link") {
    REQUIRE(::symlink("/tmp/elsewhere", path.c_str()) == 0);
  }
  SECTION("a directory") {
    REQUIRE(::mkdir(path.c_str(), 0700) == 0);
  }
  SECTION("a fifo") {
    REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
  }
  CHECK_FALSE(WriteFileAtomically(path, AsBytes("x")).has_value());
  CHECK(dir.entries() == 1);
  CHECK_FALSE(WriteFileAtomically(dir.File("missing/out"), AsBytes("x")).has_value());
  CHECK_FALSE(WriteFileAtomically("/dev/null", AsBytes("x")).has_value());
}

TEST_CASE("A write that fails half-way leaves the old file and no other", "[cli]") {
  ScratchDir dir;
  const std::string path = dir.File("out");
  Put(path, "old");
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const rlimit small{1000, before.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &small);
  const auto status = WriteFileAtomically(path, AsBytes(std::string(5000, 'x')));
  ::setrlimit(RLIMIT_FSIZE, &before);
  CHECK_FALSE(status.has_value());
  CHECK(ReadBack(path) == "old");
  CHECK(dir.entries() == 1);
}

}  // namespace latchkey::cli
