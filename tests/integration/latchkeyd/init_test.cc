// init, keys, client set, usage: what refuses, with which exit code and which one line (rules K1, K3, K5; faults F25).
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <functional>

#include "common/base/check.h"
#include "server/config/config.h"

#include "tests/integration/latchkeyd/place.h"

namespace latchkey {
namespace {

void ExpectRefusal(const Outcome& outcome, int exit_code, const std::string& text) {
  CAPTURE(outcome.out, outcome.err);
  CHECK(outcome.exit_code == exit_code);
  CHECK_THAT(outcome.err, Catch::StartsWith("latchkeyd: error: ") && Catch::Contains(text));
  CHECK(std::count(outcome.err.begin(), outcome.err.end(), '\n') == 1);
}

// Everything below a directory with its bytes: "nothing was written" means that this did not change.
std::map<std::string, ByteVector> Snapshot(const std::string& directory) {
  std::map<std::string, ByteVector> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
    if (entry.is_regular_file()) files[entry.path().string()] = ReadBytes(entry.path().string());
  }
  return files;
}

// Without what a store leaves behind when it was only looked at: its lock, its shared index, an empty log.
std::map<std::string, ByteVector> Data(std::map<std::string, ByteVector> files) {
  std::erase_if(files, [](const auto& file) {
    return file.first.ends_with(".lock") || file.first.ends_with("-shm") ||
           (file.first.ends_with("-wal") && file.second.empty());
  });
  return files;
}

}  // namespace

TEST_CASE("init makes key, store and anchor, all private, and refuses to run over any of them",
          "[latchkeyd]") {
  const Place place;
  const Outcome outcome = place.Command({"init", "--admin", "ops", "--no-recovery"});
  CAPTURE(outcome.out, outcome.err);
  REQUIRE(outcome.exit_code == 0);
  CHECK_THAT(outcome.out,
             Catch::Contains("automation client ops") && Catch::Contains("--no-recovery"));
  for (const char* name : {"kek", "state/latchkey.db", "anchor"}) {
    struct stat info {};
    REQUIRE(::stat(place.Path(name).c_str(), &info) == 0);
    CHECK((info.st_mode & 077) == 0);
  }
  CHECK(SqlColumn(place.store(), "SELECT name || enabled || automation || content FROM clients") ==
        std::vector<std::string>{"ops110"});
  const auto before = Snapshot(place.directory());
  ExpectRefusal(place.Command({"init", "--admin", "ops", "--no-recovery"}), 1,
                "already there; init never overwrites");
  CHECK(Snapshot(place.directory()) == before);
  for (const char* left : {"kek", "anchor"}) {
    const Place other;
    WriteBytes(other.Path(left), AsBytes("something"));
    ExpectRefusal(other.Command({"init", "--admin", "ops", "--no-recovery"}), 1, left);
    CHECK(ReadText(other.Path(left)) == "something");
    CHECK_FALSE(std::filesystem::exists(other.store()));
  }
}

TEST_CASE("init without a terminal asks for --no-recovery and makes nothing", "[latchkeyd]") {
  const Place place;
  ExpectRefusal(place.Command({"init", "--admin", "ops"}), 2, "--no-recovery");
  CHECK_FALSE(std::filesystem::exists(place.Path("kek")));
  CHECK_FALSE(std::filesystem::exists(place.store()));
}

namespace {

// Runs init on a pseudo terminal; answers with what `answer` makes of the recovery copy and the first character asked for.
// Returns exit code and everything shown.
Outcome InitOnTerminal(
    const Place& place,
    const std::function<std::string(const std::string& line, std::size_t first)>& answer) {
  const int master = ::posix_openpt(O_RDWR | O_NOCTTY);
  INVARIANT(master >= 0 && ::grantpt(master) == 0 && ::unlockpt(master) == 0);
  const std::string slave = ::ptsname(master);
  const std::string program = BUILD_BIN_DIR "/latchkeyd";
  const std::string config = place.config();
  const pid_t child = ::fork();
  INVARIANT(child >= 0);
  if (child == 0) {
    ::setsid();
    const int terminal = ::open(slave.c_str(), O_RDWR);
    ::ioctl(terminal, TIOCSCTTY, 0);
    for (int fd = 0; fd <= 2; ++fd) ::dup2(terminal, fd);
    ::execl(program.c_str(), program.c_str(), "init", "--admin", "ops", "--config", config.c_str(),
            nullptr);
    ::_exit(127);
  }
  Outcome outcome;
  std::size_t answered = 0;
  char chunk[1024];
  ssize_t got;
  while ((got = ::read(master, chunk, sizeof chunk)) > 0) {
    outcome.out.append(chunk, static_cast<std::size_t>(got));
    const std::size_t asked = outcome.out.find("Type characters ", answered);
    if (asked == std::string::npos || outcome.out.find("dots): ", asked) == std::string::npos) {
      if (asked == std::string::npos || outcome.out.find("dot): ", asked) == std::string::npos)
        continue;
    }
    const std::size_t begin = outcome.out.find("lkkek1.");
    const std::string line =
        outcome.out.substr(begin, outcome.out.find_first_of("\r\n", begin) - begin);
    const std::string reply = answer(line, std::stoul(outcome.out.substr(asked + 16))) + "\n";
    answered = outcome.out.size();
    INVARIANT(::write(master, reply.data(), reply.size()) == static_cast<ssize_t>(reply.size()));
  }
  int status = 0;
  INVARIANT(::waitpid(child, &status, 0) == child);
  ::close(master);
  outcome.exit_code = WEXITSTATUS(status);
  return outcome;
}

}  // namespace

TEST_CASE(
    "init on a terminal shows the recovery copy and finishes when 8 of its characters are typed",
    "[latchkeyd]") {
  const Place place;
  const Outcome outcome = InitOnTerminal(place, [](const std::string& line, std::size_t first) {
    const std::size_t third = line.find('.', line.find('.') + 1) + 1;
    return line.substr(third + first - 1, 8);
  });
  CAPTURE(outcome.exit_code);
  REQUIRE(outcome.exit_code == 0);
  // The copy is the key file's own line.
  std::string key = ReadText(place.Path("kek"));
  while (!key.empty() && key.back() == '\n') key.pop_back();
  CHECK(outcome.out.find(key) != std::string::npos);
  CHECK(std::filesystem::exists(place.store()));
}

TEST_CASE("init on a terminal gives up after three wrong answers and leaves nothing behind",
          "[latchkeyd]") {
  const Place place;
  int asked = 0;
  const Outcome outcome = InitOnTerminal(place, [&](const std::string&, std::size_t) {
    ++asked;
    return std::string("wrong!!!");
  });
  CHECK(outcome.exit_code == 2);
  CHECK(asked == 3);
  CHECK_FALSE(std::filesystem::exists(place.Path("kek")));
  CHECK_FALSE(std::filesystem::exists(place.store()));
}

TEST_CASE("init that cannot finish leaves nothing behind", "[latchkeyd]") {
  const Place place;
  WriteBytes(place.Path("file"), AsBytes("x"));
  place.WriteConfig({{"anchor.path", "\"" + place.Path("file/anchor") + "\""}});
  ExpectRefusal(place.Command({"init", "--admin", "ops", "--no-recovery"}), 1,
                "cannot make the directory");
  CHECK_FALSE(std::filesystem::exists(place.Path("kek")));
  CHECK_FALSE(std::filesystem::exists(place.store()));
  ExpectRefusal(place.Command({"init", "--admin", "bad\nname", "--no-recovery"}), 2, "--admin");
}

TEST_CASE("Every bad state of the key file ends with 78 before anything is written",
          "[latchkeyd]") {
  const Place place;
  place.Init();
  const std::string kek = place.Path("kek");
  const std::string good = ReadText(kek);
  const std::string command = GENERATE("serve", "check", "client");
  const auto run = [&] {
    return command == "client" ? place.Command({"client", "set", "admin", "--content"})
                               : place.Command({command});
  };
  const auto expect_78 = [&](const std::string& what) {
    CAPTURE(command, what);
    const auto before = Snapshot(place.Path("state"));
    const Outcome outcome = run();
    CAPTURE(outcome.err);
    CHECK(outcome.exit_code == 78);
    CHECK_THAT(outcome.err, Catch::StartsWith("latchkeyd: error: "));
    CHECK(std::count(outcome.err.begin(), outcome.err.end(), '\n') == 1);
    // The key's own text is never shown, not even a wrong one's.
    CHECK(outcome.err.find(good.substr(good.find('.', 8) + 1, 12)) == std::string::npos);
    CHECK(Data(Snapshot(place.Path("state"))) == Data(before));
    CHECK_FALSE(std::filesystem::exists(place.Path("port")));
  };
  const auto put = [&](const std::string& text, mode_t mode) {
    std::filesystem::remove(kek);
    WriteBytes(kek, AsBytes(text));
    REQUIRE(::chmod(kek.c_str(), mode) == 0);
  };
  std::filesystem::remove(kek);
  expect_78("missing");
  put(good, 0644);
  expect_78("readable for all");
  put(good, 0640);
  expect_78("readable for the group");
  put(good.substr(0, good.size() / 2), 0600);
  expect_78("truncated");
  put("", 0600);
  expect_78("empty");
  put("not a key\n", 0600);
  expect_78("no key");
  std::string changed = good;
  changed[good.find('.', 8) + 5] ^= 1;
  put(changed, 0600);
  expect_78("one character changed");
  std::filesystem::remove(kek);
  WriteBytes(place.Path("real"), AsBytes(good));
  REQUIRE(::chmod(place.Path("real").c_str(), 0600) == 0);
  std::filesystem::create_symlink(place.Path("real"), kek);
  expect_78("a symbolic link");
  std::filesystem::remove(kek);
  std::filesystem::create_hard_link(place.Path("real"), kek);
  expect_78("a second link");
  std::filesystem::remove(kek);
  std::filesystem::create_directory(kek);
  expect_78("a directory");
  std::filesystem::remove(kek);
  const Place other;
  other.Init();
  std::string other_key = ReadText(other.Path("kek"));
  put(other_key, 0600);
  expect_78("the key of another store");
  // The same id with other key bytes: only the check value can tell (rule K3).
  const std::string id = good.substr(7, good.find('.', 7) - 7);
  put(good, 0600);
  CHECK(place.Command({"check"}).exit_code == 0);
}

TEST_CASE("config-check takes the key file as serve does, and init is advised without a store only",
          "[latchkeyd]") {
  const Place place(true);
  CHECK(place.Command({"config-check"}).exit_code == 0);  // before init there is no key
  ExpectRefusal(place.Command({"serve"}), 78, "for a new server run latchkeyd init");
  place.Init();
  CHECK(place.Command({"config-check"}).exit_code == 0);
  const std::string kek = place.Path("kek");
  std::filesystem::rename(kek, place.Path("real"));
  std::filesystem::create_symlink(place.Path("real"), kek);
  const Outcome serve = place.Command({"serve"});
  CHECK(serve.exit_code == 78);
  const Outcome of_link = place.Command({"config-check"});
  CHECK(of_link.exit_code == 78);
  CHECK(of_link.err == serve.err);
  std::filesystem::remove(kek);
  for (const char* command : {"serve", "check", "config-check"}) {
    const Outcome missing = place.Command({command});
    CAPTURE(command, missing.err);
    CHECK(missing.exit_code == 78);
    CHECK_THAT(missing.err, Catch::Contains("put it or its recovery copy back") &&
                                Catch::Contains("do not move it away") &&
                                !Catch::Contains("latchkeyd init"));
  }
  ExpectRefusal(place.Command({"init", "--admin", "ops", "--no-recovery"}), 1,
                "init never overwrites. A store opens with its own key only: put that key back");
}

TEST_CASE("A start is refused where somebody else could exchange store, spool or anchor",
          "[latchkeyd]") {
  const Place place;
  place.Init();
  const auto start = [&] { return place.Command({"client", "set", "admin", "--enable"}); };
  const auto expect_refused = [&](const std::string& command, const std::string& path) {
    const Outcome outcome = start();
    CAPTURE(command, outcome.err);
    CHECK(outcome.exit_code == 1);
    CHECK_THAT(outcome.err, Catch::Contains(command) && Catch::Contains(path));
  };
  const std::string state = place.Path("state"), audit = place.Path("audit");
  REQUIRE(start().exit_code == 0);
  for (const std::string& directory : {state, audit, place.directory()}) {
    for (const mode_t mode : {0770, 0702, 01777}) {
      REQUIRE(::chmod(directory.c_str(), mode) == 0);
      expect_refused("run chmod go-w ", directory);
    }
    REQUIRE(::chmod(directory.c_str(), 0755) == 0);
    CHECK(start().exit_code == 0);
    if (::geteuid() != 0) continue;
    REQUIRE(::chown(directory.c_str(), 12345, 0) == 0);
    expect_refused(
        "belongs to user 12345: run this as that user (setpriv --reuid 12345 --clear-groups ...), "
        "or, if no "
        "server runs as that user, run chown 0 ",
        directory);
    REQUIRE(::chown(directory.c_str(), 0, 0) == 0);
  }
  if (::geteuid() == 0) {
    REQUIRE(::chown(place.store().c_str(), 12345, 0) == 0);
    expect_refused("run chown 0 ", place.store());
    REQUIRE(::chown(place.store().c_str(), 0, 0) == 0);
  }
  std::filesystem::rename(place.store(), place.Path("real.db"));
  std::filesystem::create_symlink(place.Path("real.db"), place.store());
  expect_refused("is a symbolic link: name the file itself", place.store());
  // A backup may be read through one.
  CHECK(Latchkeyd({"check", "--store", place.store(), "--kek", place.Path("kek")}).exit_code == 0);
  std::filesystem::remove(place.store());
  std::filesystem::rename(place.Path("real.db"), place.store());
  CHECK(start().exit_code == 0);
}

TEST_CASE("client set changes the bits offline, on record, and says what they are", "[latchkeyd]") {
  const Place place;
  place.Init();
  place.Populate();
  const Outcome outcome = place.Command({"client", "set", "web-1", "--automation", "--content"});
  CAPTURE(outcome.err);
  REQUIRE(outcome.exit_code == 0);
  CHECK(outcome.out == "client web-1: enabled, automation, content\n");
  const Outcome back = place.Command({"client", "set", "web-1", "--no-content", "--disable"});
  CHECK(back.out == "client web-1: disabled, automation, no content\n");
  // On record, and the store is as a server wrote it.
  CHECK(place.Command({"check"}).exit_code == 0);
  ExpectRefusal(place.Command({"client", "set", "nobody", "--content"}), 5, "no client nobody");
  ExpectRefusal(place.Command({"client", "set", "web-1"}), 2, "say what to set");
  CHECK(place.Command({"client", "set", "web-1", "--content", "--no-content"}).exit_code == 2);
}

TEST_CASE("client create makes the way back in, and the last way in is not taken", "[latchkeyd]") {
  const Place place;
  place.Init();
  for (const char* off : {"--no-automation", "--disable"})
    ExpectRefusal(place.Command({"client", "set", "admin", off}), 1,
                  "client admin is the last enabled one with the automation bit: make another one");
  // One that is disabled, or has no bit, does not count.
  CHECK(place.Command({"client", "create", "plain"}).out ==
        "client plain: enabled, no automation, no content\n");
  CHECK(place.Command({"client", "set", "plain", "--automation", "--disable"}).exit_code == 0);
  CHECK(place.Command({"client", "set", "admin", "--disable"}).exit_code == 1);
  const Outcome made = place.Command({"client", "create", "ops", "--automation", "--content"});
  CAPTURE(made.err);
  CHECK(made.out == "client ops: enabled, automation, content\n");
  ExpectRefusal(place.Command({"client", "create", "ops", "--automation"}), 1,
                "there is a client ops already; change it with: latchkeyd client set ops");
  CHECK(place.Command({"client", "set", "admin", "--disable"}).exit_code == 0);
  CHECK(place.Command({"client", "set", "ops", "--no-automation"}).exit_code == 1);
  CHECK(place.Command({"check"}).exit_code == 0);
}

TEST_CASE("Usage and configuration errors end with 2", "[latchkeyd]") {
  const Place place(true);
  CHECK(Latchkeyd({}).exit_code == 2);
  CHECK(Latchkeyd({"frobnicate"}).exit_code == 2);
  CHECK(Latchkeyd({"serve", "--no-such-flag"}).exit_code == 2);
  ExpectRefusal(Latchkeyd({"serve", "--config", place.Path("absent.toml")}), 2, "absent.toml");
  place.WriteConfig({{"listen.prot", "1"}});
  ExpectRefusal(place.Command({"serve"}), 2, "did you mean \\\"listen.port\\\"");
  ExpectRefusal(place.Command({"config-check"}), 2, "listen.prot");
  place.WriteConfig();
  const Outcome good = place.Command({"config-check"});
  CHECK(good.exit_code == 0);
  CHECK_THAT(good.out, Catch::Contains("is good"));
}

TEST_CASE("--help names every key of the configuration, and --version the version", "[latchkeyd]") {
  const Outcome help = Latchkeyd({"--help"});
  CHECK(help.exit_code == 0);
  for (const config::KeyDoc& doc : config::KeyDocs())
    CHECK_THAT(help.out, Catch::Contains(std::string(doc.key)));
  const Outcome of_check = Latchkeyd({"check", "--help"});
  CHECK_THAT(of_check.out, Catch::Contains("--archive") && !Catch::Contains("kek_file"));
  CHECK(Latchkeyd({"--version"}).out == std::string("latchkeyd ") + LATCHKEY_VERSION + "\n");
}

}  // namespace latchkey
