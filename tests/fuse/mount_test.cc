// What users of the mount see: tree, modes, versions, events, refusals.
#include <fcntl.h>
#include <grp.h>
#include <linux/fuse.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <set>
#include <thread>

#include "tests/fuse/harness.h"

using namespace latchkey::fusetest;
using latchkey::UniqueFd;

namespace {

std::set<std::string> List(const std::string& path) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(path))
    names.insert(entry.path().filename());
  return names;
}

struct stat Stat(const std::string& path) {
  struct stat info {};
  REQUIRE(stat(path.c_str(), &info) == 0);
  return info;
}

// Runs `body` as another user; its return value as exit code.
int AsUser(uid_t uid, gid_t gid, const std::function<int()>& body, std::vector<gid_t> groups = {}) {
  const pid_t child = fork();
  if (child == 0) {
    const bool done = setgroups(groups.size(), groups.data()) == 0 &&
                      setresgid(gid, gid, gid) == 0 && setresuid(uid, uid, uid) == 0;
    _exit(done ? body() : 126);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 200 + WTERMSIG(status);
}

int OpenAs(const std::string& path, uid_t uid, gid_t gid, std::vector<gid_t> groups = {}) {
  return AsUser(
      uid, gid, [&] { return ErrnoOfOpen(path, O_RDONLY); }, std::move(groups));
}

}  // namespace

TEST_CASE("the tree shows secrets and control files with the modes of the old client",
          "[fuse][R21]") {
  Mounted mounted({"alpha"});
  REQUIRE(mounted.driver.Put("db_password", 3, "s3cret", "0640", 1000, 1001) == "ok");
  REQUIRE(mounted.driver.Put("setuid", 1, "x", "4755") == "ok");
  REQUIRE(mounted.driver.Command("control 11 2", "{}") == "ok");
  mounted.driver.Publish();
  CHECK(List(mounted.driver.target()) == std::set<std::string>{".clear_cache", ".json", ".running",
                                                               ".version", "alpha", "db_password",
                                                               "setuid"});
  CHECK(List(mounted / ".json") == std::set<std::string>{"secret", "status", "threads"});
  CHECK(List(mounted / ".json/secret") == std::set<std::string>{"alpha", "db_password", "setuid"});
  CHECK(ReadFile(mounted / "db_password") == "s3cret");
  CHECK(ReadFile(mounted / ".version") == "2.0");
  CHECK(ReadFile(mounted / ".running") == "pid=" + std::to_string(mounted.driver.pid()));
  CHECK(ReadFile(mounted / ".clear_cache").empty());
  CHECK(ReadFile(mounted / ".json/status") == "{}");
  CHECK(ReadFile(mounted / ".json/secret/db_password") ==
        R"({"name":"db_password","secret":"czNjcmV0"})");
  const struct stat info = Stat(mounted / "db_password");
  CHECK(info.st_mode == (S_IFREG | 0440));  // masked to reading (rule F3)
  CHECK(info.st_uid == 1000);
  CHECK(info.st_gid == 1001);
  CHECK(info.st_size == 6);
  CHECK(info.st_mtime == 1'700'000'003);
  CHECK(Stat(mounted / "setuid").st_mode == (S_IFREG | 0444));
  CHECK(Stat(mounted / ".json").st_mode == (S_IFDIR | 0700));
  CHECK(Stat(mounted / ".clear_cache").st_mode == (S_IFREG | 0440));
  CHECK(Stat(mounted / ".json/secret/alpha").st_mode == (S_IFREG | 0400));
  CHECK(OpenAs(mounted / "db_password", 1000, 5) == 0);
  CHECK(OpenAs(mounted / "db_password", 2000, 1001) == 0);
  CHECK(OpenAs(mounted / "db_password", 2000, 5, {1001}) == 0);
  CHECK(OpenAs(mounted / "db_password", 2000, 5) == EACCES);
  CHECK(OpenAs(mounted / ".json/secret/db_password", 1000, 1001) == EACCES);
  CHECK(ErrnoOfOpen(mounted / "absent", O_RDONLY) == ENOENT);
  CHECK(ErrnoOfOpen(mounted / ".json", O_WRONLY) == EISDIR);
}

TEST_CASE("a bad name costs that name and two rivals for a file name are both left out",
          "[fuse][R22]") {
  Mounted mounted({"good"});
  CHECK(mounted.driver.Put(".hidden", 1, "x").rfind("error invalid_argument", 0) == 0);
  CHECK(mounted.driver.Put("a/b", 1, "x").rfind("error invalid_argument", 0) == 0);
  CHECK(mounted.driver.Command("put one same 1 0444 0 0 0 1", "1") == "ok");
  CHECK(mounted.driver.Command("put two same 1 0444 0 0 0 1", "2").rfind("error conflict", 0) == 0);
  mounted.driver.Publish();
  CHECK(List(mounted.driver.target()).count("same") == 0);
  CHECK(ReadFile(mounted / "good") == ContentOf(1));
  const std::string problems = mounted.driver.Command("problems");
  for (const char* name : {".hidden", "a/b", "one", "two"})
    CHECK(problems.find(name) != std::string::npos);
  // Once a rival is gone the other may have the name.
  mounted.driver.Command("remove two");
  CHECK(mounted.driver.Command("put one same 1 0444 0 0 0 1", "1") == "ok");
  mounted.driver.Publish();
  CHECK(ReadFile(mounted / "same") == "1");
}

TEST_CASE("a held descriptor keeps its version while a new open gets the new one", "[fuse][R17]") {
  Mounted mounted({"token"});
  const std::string directory = mounted.Bind("");
  const std::string file = mounted.Bind("token");
  for (const std::string& path : {mounted / "token", directory + "/token", file}) {
    CAPTURE(path);
    mounted.driver.Rotate("token", 10);
    const UniqueFd held(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    const UniqueFd place(open(path.c_str(), O_PATH | O_CLOEXEC));
    mounted.driver.Rotate("token", 11);
    CHECK(ReadFile(path) == ContentOf(11));
    CHECK(ReadFile("/proc/self/fd/" + std::to_string(place.get())) == ContentOf(11));
    CHECK(ReadAll(held.get()) == ContentOf(10));
    CHECK(lseek(held.get(), 0, SEEK_SET) == 0);
    CHECK(ReadAll(held.get()) == ContentOf(10));
  }
}

TEST_CASE(
    "a rotation fires MODIFY and CLOSE_WRITE on the file, on a single-file bind and in the "
    "directory",
    "[fuse]") {
  Mounted mounted({"token"});
  const std::string file = mounted.Bind("token");
  const std::string directory = mounted.Bind("");
  Watcher on_file(mounted / "token", IN_ALL_EVENTS & ~IN_OPEN & ~IN_ACCESS & ~IN_CLOSE_NOWRITE);
  Watcher on_bind(file, IN_MODIFY | IN_CLOSE_WRITE);
  Watcher on_directory(directory, IN_MODIFY | IN_CLOSE_WRITE);
  for (std::uint32_t version = 2; version < 12; ++version) {  // watches are never added again
    mounted.driver.Rotate("token", version);
    CHECK(on_file.Sees(IN_MODIFY));
    CHECK(on_file.Sees(IN_CLOSE_WRITE));
    CHECK(on_bind.Sees(IN_MODIFY));
    CHECK(on_bind.Sees(IN_CLOSE_WRITE));
    CHECK(on_directory.Sees(IN_MODIFY, "token"));
    CHECK(on_directory.Sees(IN_CLOSE_WRITE, "token"));
    // Whoever reads after the event reads the new bytes.
    CHECK(VersionIn(ReadFile(file)) == version);
  }
}

TEST_CASE(
    "a new secret is MOVED_TO, a revoked one DELETE, a revived one both again on the same watches",
    "[fuse]") {
  Mounted mounted({"first"});
  Watcher directory(mounted.driver.target(), IN_MOVED_TO | IN_DELETE);
  CHECK(ErrnoOfOpen(mounted / "late", O_RDONLY) ==
        ENOENT);  // whatever the kernel remembers of it must not last
  mounted.driver.Rotate("late", 1);
  CHECK(directory.Sees(IN_MOVED_TO, "late"));
  Watcher file(mounted / "late", IN_MODIFY | IN_CLOSE_WRITE | IN_DELETE_SELF);
  mounted.driver.Command("remove late");
  mounted.driver.Publish();
  CHECK(directory.Sees(IN_DELETE, "late"));
  CHECK(ErrnoOfOpen(mounted / "late", O_RDONLY) == ENOENT);
  mounted.driver.Rotate("late", 2);
  CHECK(directory.Sees(IN_MOVED_TO, "late"));
  CHECK(ReadFile(mounted / "late") == ContentOf(2));
  // Revoked when the kernel does not remember the name: the waker finds it all the same.
  mounted.driver.Rotate("unseen", 1);
  CHECK(directory.Sees(IN_MOVED_TO, "unseen"));
  mounted.driver.Command("forget unseen");
  mounted.driver.Command("remove unseen");
  mounted.driver.Publish();
  CHECK(directory.Sees(IN_DELETE, "unseen"));
}

// A file can be opened and watched before the waker has made its name appear, by a rename over that
// name.
TEST_CASE("a watch set on a file that is just appearing is kept, whatever notices come", "[fuse]") {
  Mounted mounted({"first"});
  std::vector<std::unique_ptr<Watcher>> watchers;
  for (int i = 0; i < 60; ++i) {
    const std::string name = "new" + std::to_string(i);
    REQUIRE(mounted.driver.Command("notices " + std::to_string(i + 1)) == "ok");
    mounted.driver.Rotate(name, 1);
    watchers.push_back(std::make_unique<Watcher>(mounted / name, IN_CLOSE_WRITE));
  }
  mounted.driver.WaitSettled();
  REQUIRE(mounted.driver.Command("notices") == "ok");
  for (std::size_t i = 0; i < watchers.size(); ++i) {
    watchers[i]->Clear();
    const std::string name = "new" + std::to_string(i);
    mounted.driver.Rotate(name, 2);
    CAPTURE(name);
    CHECK(watchers[i]->Sees(IN_CLOSE_WRITE));
  }
}

TEST_CASE("stat never falls short of what the descriptor can read within two seconds of a rotation",
          "[fuse]") {
  Mounted mounted({"token"});
  REQUIRE(mounted.driver.Put("token", 2, std::string(5000, 'b')) == "ok");
  mounted.driver.Publish();
  const UniqueFd held(open((mounted / "token").c_str(), O_RDONLY | O_CLOEXEC));
  REQUIRE(mounted.driver.Put("token", 3, std::string(100, 'c')) == "ok");
  mounted.driver.Publish();
  struct stat info {};
  REQUIRE(fstat(held.get(), &info) == 0);
  CHECK(info.st_size == 5000);  // the longer version is still open
  CHECK(SizeOf(mounted / "token") == 5000);
  CHECK(ReadFile(mounted / "token") == std::string(100, 'c'));
  CHECK(Eventually([&] {
    return SizeOf(mounted / "token") == 100;
  }));  // the exact size once the two seconds are over
  CHECK(ReadAll(held.get()) == std::string(5000, 'b'));
  REQUIRE(mounted.driver.Put("token", 4, std::string(7000, 'd')) == "ok");
  mounted.driver.Publish();
  CHECK(SizeOf(mounted / "token") == 7000);  // growth shows at once
}

TEST_CASE("programs that read st_size bytes get whole versions while rotations run", "[fuse]") {
  Mounted mounted({"token"});
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0};
  std::atomic<int> reads{0};
  std::vector<std::thread> readers;
  for (int i = 0; i < 2; ++i)
    readers.emplace_back([&] {
      while (!stop) {
        const UniqueFd fd(open((mounted / "token").c_str(), O_RDONLY | O_CLOEXEC));
        struct stat info {};
        if (fstat(fd.get(), &info) != 0) ++wrong;
        std::string text(static_cast<std::size_t>(info.st_size), '\0');
        const ssize_t count = read(fd.get(), text.data(), text.size());
        text.resize(count < 0 ? 0 : static_cast<std::size_t>(count));
        if (VersionIn(text) == 0) ++wrong;
        ++reads;
      }
    });
  for (std::uint32_t version = 2; version < 300; ++version) mounted.driver.Rotate("token", version);
  stop = true;
  for (std::thread& reader : readers) reader.join();
  CHECK(wrong == 0);
  CHECK(reads > 300);
}

TEST_CASE("a map made after the rotation shows the new bytes, and MAP_SHARED is refused",
          "[fuse]") {
  Mounted mounted({"token"});
  for (std::uint32_t version = 2; version < 30; ++version) {
    const UniqueFd old(open((mounted / "token").c_str(), O_RDONLY | O_CLOEXEC));
    void* before = mmap(nullptr, 66, PROT_READ, MAP_PRIVATE, old.get(), 0);
    REQUIRE(before != MAP_FAILED);
    CHECK(std::string(static_cast<const char*>(before), 33) ==
          ContentOf(version - 1).substr(0, 33));
    mounted.driver.Rotate("token", version);
    const UniqueFd fd(open((mounted / "token").c_str(), O_RDONLY | O_CLOEXEC));
    void* after = mmap(nullptr, 66, PROT_READ, MAP_PRIVATE, fd.get(), 0);
    REQUIRE(after != MAP_FAILED);
    CHECK(std::string(static_cast<const char*>(after), 33) == ContentOf(version).substr(0, 33));
    CHECK(mmap(nullptr, 66, PROT_READ, MAP_SHARED, fd.get(), 0) == MAP_FAILED);
    munmap(before, 66);
    munmap(after, 66);
  }
}

namespace {

// All that one sendfile(2) after the other hands out, up to the end that it reports itself.
std::string SendAll(int from, off_t offset = 0) {
  const UniqueFd into(memfd_create("copy", MFD_CLOEXEC));
  ssize_t sent = 1;
  while (sent > 0) sent = sendfile(into.get(), from, &offset, 1 << 20);
  if (sent < 0) return std::string("!") + std::strerror(errno);
  lseek(into.get(), 0, SEEK_SET);
  return ReadAll(into.get());
}

// The same through a pipe, as splice(2) wants it.
std::string SpliceAll(int from) {
  std::array<int, 2> pipe_ends{};
  REQUIRE(pipe2(pipe_ends.data(), O_CLOEXEC) == 0);
  UniqueFd reading(pipe_ends[0]);
  UniqueFd writing(pipe_ends[1]);
  off64_t offset = 0;
  while (splice(from, &offset, writing.get(), nullptr, 1 << 20, SPLICE_F_NONBLOCK) > 0) {
  }
  writing.Reset();
  return ReadAll(reading.get());
}

}  // namespace

TEST_CASE("sendfile and splice give the current version, whole and without padding",
          "[fuse][R17]") {
  Mounted mounted({"token"});
  const std::string file = mounted.Bind("token");
  Watcher events(mounted / "token", IN_CLOSE_WRITE);
  const auto rotate = [&](std::uint32_t number, const std::string& text) {
    REQUIRE(mounted.driver.Put("token", number, text) == "ok");
    events.Clear();
    mounted.driver.Publish();
    REQUIRE(events.Sees(IN_CLOSE_WRITE));
  };
  int wrong = 0;
  const auto look = [&](int fd, const std::string& wanted) {
    if (SendAll(fd) != wanted || SpliceAll(fd) != wanted) ++wrong;
  };
  for (std::uint32_t round = 0; round < 10; ++round) {
    const std::string longer(5000 + round, 'b');
    const std::string shorter(100 + round, 'c');
    rotate(2 + 2 * round, longer);
    const UniqueFd held(open(file.c_str(), O_RDONLY | O_CLOEXEC));
    // A program that holds the longer version asks for its size all the time, and may not be told
    // less.
    std::atomic<bool> stop{false};
    std::atomic<int> asked{0};
    std::atomic<int> too_small{0};
    std::thread asker([&] {
      struct stat info {};
      for (; !stop; ++asked)
        if (fstat(held.get(), &info) != 0 || info.st_size < 5000) ++too_small;
    });
    CHECK(Eventually([&] { return asked > 0; }));
    rotate(3 + 2 * round, shorter);
    for (int turn = 0; turn < 100; ++turn) {
      if (turn % 10 == 0) mounted.driver.Command("forget token");  // the next open looks it up
      for (const std::string& path : {mounted / "token", file}) {
        const UniqueFd fresh(open(path.c_str(), O_RDONLY | O_CLOEXEC));
        look(fresh.get(), shorter);
        // The page cache of the one inode serves it: never the version of the descriptor.
        look(held.get(), shorter);
      }
    }
    stop = true;
    asker.join();
    CAPTURE(round);
    CHECK(too_small == 0);
    CHECK(ReadAll(held.get()) == longer);
  }
  CHECK(wrong == 0);
}

TEST_CASE("a seek to the end finds the end of the descriptor's own version", "[fuse][R18]") {
  Mounted mounted({"token"});
  Watcher events(mounted / "token", IN_CLOSE_WRITE);
  for (std::uint32_t number = 2; number < 12; number += 2) {
    REQUIRE(mounted.driver.Put("token", number, std::string(5000, 'b')) == "ok");
    mounted.driver.Publish();
    const UniqueFd held(open((mounted / "token").c_str(), O_RDONLY | O_CLOEXEC));
    REQUIRE(mounted.driver.Put("token", number + 1, std::string(100, 'c')) == "ok");
    events.Clear();
    mounted.driver.Publish();
    REQUIRE(events.Sees(IN_CLOSE_WRITE));
    // A notice under way at the same time would keep the kernel at the current size (decision 5).
    mounted.driver.WaitSettled();
    const UniqueFd fresh(open((mounted / "token").c_str(), O_RDONLY | O_CLOEXEC));
    CHECK(lseek(held.get(), 0, SEEK_END) == 5000);
    CHECK(lseek(fresh.get(), 0, SEEK_END) == 100);
    CHECK(SizeOf(mounted / "token") == 5000);
  }
}

TEST_CASE("every change through the exposed mount is EROFS, also for root", "[fuse][R26]") {
  Mounted mounted({"token"});
  const auto error = [](long result) { return result < 0 ? errno : 0; };
  const timespec times[2] = {{1, 0}, {1, 0}};
  for (const bool through_bind : {false, true}) {
    const std::string base = through_bind ? mounted.Bind("") : mounted.driver.target();
    const std::string file = base + "/token";
    const std::string absent = base + "/other";
    CAPTURE(base);
    CHECK(ErrnoOfOpen(file, O_WRONLY) == EROFS);
    CHECK(ErrnoOfOpen(file, O_RDWR) == EROFS);
    CHECK(ErrnoOfOpen(file, O_RDONLY | O_TRUNC) == EROFS);
    CHECK(ErrnoOfOpen(absent, O_WRONLY | O_CREAT) == EROFS);
    CHECK(error(truncate(file.c_str(), 0)) == EROFS);
    CHECK(error(unlink(file.c_str())) == EROFS);
    CHECK(error(unlink((base + "/.clear_cache").c_str())) == EROFS);
    CHECK(error(rename(file.c_str(), absent.c_str())) == EROFS);
    CHECK(error(link(file.c_str(), absent.c_str())) == EROFS);
    CHECK(error(symlink("x", absent.c_str())) == EROFS);
    CHECK(error(mkdir(absent.c_str(), 0700)) == EROFS);
    CHECK(error(rmdir((base + "/.json").c_str())) == EROFS);
    CHECK(error(mknod(absent.c_str(), S_IFIFO | 0600, 0)) == EROFS);
    CHECK(error(chmod(file.c_str(), 0777)) == EROFS);
    CHECK(error(chown(file.c_str(), 1, 1)) == EROFS);
    CHECK(error(utimensat(AT_FDCWD, file.c_str(), times, 0)) == EROFS);
    CHECK(error(setxattr(file.c_str(), "user.latchkey.version", "9", 1, 0)) == EROFS);
    CHECK(error(removexattr(file.c_str(), "user.latchkey.version")) == EROFS);
    struct statvfs info {};
    REQUIRE(statvfs(base.c_str(), &info) == 0);
    CHECK((info.f_flag & (ST_RDONLY | ST_NOSUID | ST_NODEV | ST_NOEXEC)) ==
          (ST_RDONLY | ST_NOSUID | ST_NODEV | ST_NOEXEC));
    CHECK(info.f_namemax == 255);
  }
}

TEST_CASE("the private mount is for root alone and takes no change either", "[fuse]") {
  Mounted mounted({"token"});
  const std::string base = mounted.driver.private_mount() + "/pub";
  const std::string file = base + "/token";
  const std::string absent = base + "/other";
  const auto error = [](long result) { return result < 0 ? errno : 0; };
  CHECK(OpenAs(file, 1000, 1000) == EACCES);
  // The waker's calls succeed and change nothing.
  CHECK(error(chmod(file.c_str(), 0777)) == 0);
  CHECK(error(chown(file.c_str(), 1, 1)) == 0);
  CHECK(error(truncate(file.c_str(), 0)) == 0);
  CHECK(error(unlink(file.c_str())) == 0);
  CHECK(ReadFile(mounted / "token") == ContentOf(1));
  CHECK(Stat(mounted / "token").st_mode == (S_IFREG | 0444));
  CHECK(Stat(mounted / "token").st_uid == 0);
  // Any other change is refused; a rename of one secret over another would show it under a wrong name.
  mounted.driver.Rotate("rival", 2);
  CHECK(error(rename(file.c_str(), (base + "/rival").c_str())) == EROFS);
  CHECK(error(rename(file.c_str(), absent.c_str())) == EROFS);
  CHECK(error(rename((mounted.driver.private_mount() + "/new/xrival").c_str(), file.c_str())) ==
        EROFS);
  CHECK(ErrnoOfOpen(absent, O_WRONLY | O_CREAT) == EROFS);
  CHECK(error(mkdir(absent.c_str(), 0700)) == EROFS);
  CHECK(error(symlink("x", absent.c_str())) == EROFS);
  CHECK(error(link(file.c_str(), absent.c_str())) == EROFS);
  CHECK(error(mknod(absent.c_str(), S_IFREG | 0600, 0)) == EROFS);
  CHECK(error(rmdir((base + "/.json").c_str())) == EROFS);
  CHECK(error(setxattr(file.c_str(), "user.x", "9", 1, 0)) == EROFS);
  const UniqueFd writer(open(file.c_str(), O_WRONLY | O_CLOEXEC));
  REQUIRE(writer.valid());
  CHECK(error(write(writer.get(), "evil", 4)) == EROFS);
  CHECK(ReadFile(mounted / "token") == ContentOf(1));
  CHECK(ReadFile(mounted / "rival") == ContentOf(2));
}

TEST_CASE("nobody opens a secret by the rights of the version before", "[fuse]") {
  Mounted mounted({"token"});
  // Versions with an even number belong to 1000 alone, with an odd one to 1001 alone; each loops and may read its own only.
  void* shared = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  auto* reads = new (shared) std::array<std::atomic<int>, 2>{};
  std::vector<pid_t> children;
  for (const uid_t uid : {1000U, 1001U}) {
    const pid_t child = fork();
    if (child == 0) {
      if (setgroups(0, nullptr) != 0 || setresgid(uid, uid, uid) != 0 ||
          setresuid(uid, uid, uid) != 0)
        _exit(126);
      for (;;) {
        const std::string text = ReadFile(mounted / "token");
        if (text == "end") _exit(0);
        if (text[0] == '!' || text[0] == 'v') continue;
        ++(*reads)[uid - 1000];
        if (text[0] != (uid == 1000 ? 'E' : 'O')) _exit(2);
      }
    }
    children.push_back(child);
  }
  std::uint32_t version = 2;
  // A reader that found a leak has ended, so there is an upper bound too.
  for (; version < 400 || (version < 20'000 && ((*reads)[0] < 20 || (*reads)[1] < 20)); ++version) {
    const bool even = version % 2 == 0;
    REQUIRE(mounted.driver.Put("token", version, even ? "E" : "O", "0400", even ? 1000 : 1001, 0) ==
            "ok");
    mounted.driver.Publish();
  }
  REQUIRE(mounted.driver.Put("token", version, "end", "0444") == "ok");
  mounted.driver.Publish();
  for (const pid_t child : children) {
    int status = 0;
    waitpid(child, &status, 0);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
  }
  CHECK((*reads)[0] >= 20);
  CHECK((*reads)[1] >= 20);
  munmap(shared, 4096);
}

TEST_CASE("after a narrowing OPEN itself checks the caller, and supplementary groups count",
          "[fuse]") {
  Mounted mounted({"token"});
  REQUIRE(mounted.driver.Put("token", 2, "x", "0444") == "ok");
  mounted.driver.Publish();
  CHECK(OpenAs(mounted / "token", 3000, 3000) == 0);
  REQUIRE(mounted.driver.Put("token", 3, "y", "0440", 1000, 1001) == "ok");
  mounted.driver.Publish();
  CHECK(OpenAs(mounted / "token", 3000, 3000) == EACCES);
  CHECK(OpenAs(mounted / "token", 3000, 3000, {7, 1001}) == 0);
  CHECK(OpenAs(mounted / "token", 1000, 3000) == 0);
  CHECK(ErrnoOfOpen(mounted / "token", O_RDONLY) == 0);
}

namespace {
sigjmp_buf bus_return;
void OnBus(int) {
  siglongjmp(bus_return, 1);
}
// False when touching the page ends in SIGBUS.
bool PageIsThere(const volatile char* at) {
  struct sigaction action {};
  struct sigaction before {};
  action.sa_handler = OnBus;
  sigaction(SIGBUS, &action, &before);
  const bool there = sigsetjmp(bus_return, 1) == 0 && (static_cast<void>(*at), true);
  sigaction(SIGBUS, &before, nullptr);
  return there;
}
}  // namespace

TEST_CASE("nobody maps a narrower version while a descriptor from before the narrowing is open",
          "[fuse][F3]") {
  Mounted mounted({"token"});
  REQUIRE(mounted.driver.Put("token", 2, "old words", "0444") == "ok");
  mounted.driver.Publish();
  UniqueFd held(open((mounted / "token").c_str(), O_RDONLY | O_CLOEXEC));
  char* held_map = static_cast<char*>(mmap(nullptr, 9, PROT_READ, MAP_PRIVATE, held.get(), 0));
  REQUIRE(held_map != MAP_FAILED);
  REQUIRE(mounted.driver.Put("token", 3, "new words", "0400") == "ok");
  mounted.driver.Publish();
  CHECK(ReadAll(held.get()) == "old words");
  // The rightful reader reads, and is told to when it tries sendfile; it fills no page that the other
  // mapping would show.
  const UniqueFd fresh(open((mounted / "token").c_str(), O_RDONLY | O_CLOEXEC));
  char* fresh_map = static_cast<char*>(mmap(nullptr, 9, PROT_READ, MAP_PRIVATE, fresh.get(), 0));
  REQUIRE(fresh_map != MAP_FAILED);
  CHECK_FALSE(PageIsThere(fresh_map));
  const UniqueFd sink(memfd_create("sink", MFD_CLOEXEC));
  errno = 0;
  CHECK(sendfile(sink.get(), fresh.get(), nullptr, 9) == -1);
  CHECK(errno == EINVAL);
  CHECK(ReadAll(fresh.get()) == "new words");
  CHECK_FALSE(PageIsThere(held_map));
  // A mapping holds its descriptor open.
  held.Reset();
  CHECK_FALSE(PageIsThere(fresh_map));
  munmap(held_map, 9);
  const bool there = Eventually([&] { return PageIsThere(fresh_map); });
  REQUIRE(there);
  CHECK(std::string(fresh_map, 9) == "new words");
  munmap(fresh_map, 9);
}

TEST_CASE(
    "a revoked secret cannot be opened, descriptors are cut at the grace, pages of mappings go, "
    "and a grant revives it",
    "[fuse]") {
  Mounted mounted({"token"}, {"grace_s=1"});
  const std::string file = mounted.Bind("token");
  const UniqueFd held(open(file.c_str(), O_RDONLY | O_CLOEXEC));
  void* map = mmap(nullptr, 66, PROT_READ, MAP_PRIVATE, held.get(), 0);
  REQUIRE(map != MAP_FAILED);
  REQUIRE(PageIsThere(static_cast<const char*>(map)));
  mounted.driver.Command("remove token");
  mounted.driver.Publish();
  for (const std::string& path : {mounted / "token", file}) {
    CHECK(ErrnoOfOpen(path, O_RDONLY) == ENOENT);
    CHECK(SizeOf(path) == -ENOENT);
  }
  CHECK(ErrnoOfOpen(mounted / ".json/secret/token", O_RDONLY) == ENOENT);
  CHECK(ReadAll(held.get()) == ContentOf(1));  // the grace
  CHECK(Eventually(
      [&] { return lseek(held.get(), 0, SEEK_SET) == 0 && ReadAll(held.get()) == "!ENOENT"; }));
  CHECK(Eventually([&] { return !PageIsThere(static_cast<const char*>(map)); }));
  munmap(map, 66);
  mounted.driver.Rotate("token", 2);
  CHECK(ReadFile(file) == ContentOf(2));  // the same bind as before
  CHECK(Eventually(
      [&] { return lseek(held.get(), 0, SEEK_SET) == 0 && ReadAll(held.get())[0] == '!'; }));
}

TEST_CASE("nobody stops rotations by holding files open: the fifth old version goes", "[fuse]") {
  Mounted mounted({"token"});
  std::vector<UniqueFd> held;
  for (std::uint32_t version = 1; version <= 8; ++version) {
    if (version > 1) mounted.driver.Rotate("token", version);
    held.emplace_back(open((mounted / "token").c_str(), O_RDONLY | O_CLOEXEC));
  }
  mounted.driver.Command("sweep");
  for (std::uint32_t version = 1; version <= 8; ++version) {
    CAPTURE(version);
    const std::string text = ReadAll(held[version - 1].get());
    CHECK(text == (version <= 3 ? "!ESTALE" : ContentOf(version)));
  }
  held.clear();
  CHECK(Eventually([&] { return mounted.driver.Command("opens token") == "0"; }));
}

TEST_CASE("extended attributes tell version, checksum and age", "[fuse][R12]") {
  Mounted mounted({"token"});
  const auto xattr = [&](const char* name) {
    std::array<char, 128> value{};
    const ssize_t size = getxattr((mounted / "token").c_str(), name, value.data(), value.size());
    return size < 0 ? std::string("!") + strerrorname_np(errno)
                    : std::string(value.data(), static_cast<std::size_t>(size));
  };
  CHECK(xattr("user.latchkey.version") == "1");
  CHECK(xattr("user.latchkey.checksum") == "C0FFEE");
  CHECK(xattr("user.latchkey.stale_since") == "!ENODATA");
  CHECK(xattr("user.other") == "!ENODATA");
  const std::time_t now = std::time(nullptr);
  mounted.driver.Command("fresh " + std::to_string(now - 100) + " 1317311160");
  CHECK(std::stol(xattr("user.latchkey.age")) >= 100);
  CHECK(xattr("user.latchkey.stale_since") == "2011-09-29T15:46:00.000Z");
  std::array<char, 256> names{};
  CHECK(listxattr((mounted / "token").c_str(), names.data(), names.size()) > 60);
  CHECK(listxattr((mounted / ".version").c_str(), names.data(), names.size()) == 0);
}

TEST_CASE("a snapshot older than max_stale is answered EIO", "[fuse][R12]") {
  Mounted mounted({"token"}, {"max_stale=60"});
  const std::time_t now = std::time(nullptr);
  mounted.driver.Command("fresh " + std::to_string(now) + " 0");
  CHECK(ErrnoOfOpen(mounted / "token", O_RDONLY) == 0);
  mounted.driver.Command("fresh " + std::to_string(now - 61) + " " + std::to_string(now - 61));
  CHECK(ErrnoOfOpen(mounted / "token", O_RDONLY) == EIO);
  CHECK(ErrnoOfOpen(mounted / ".version", O_RDONLY) == 0);
}

TEST_CASE("a secret of a megabyte is read whole, plain and as JSON", "[fuse]") {
  Mounted mounted({"small"});
  std::string big(1024 * 1024 + 7, '\0');
  for (std::size_t i = 0; i < big.size(); ++i)
    big[i] = static_cast<char>(Mix(static_cast<std::uint32_t>(i)));
  REQUIRE(mounted.driver.Put("big", 1, big) == "ok");
  mounted.driver.Publish();
  CHECK(ReadFile(mounted / "big") == big);
  const std::string json = ReadFile(mounted / ".json/secret/big");
  CHECK(json.size() == static_cast<std::size_t>(SizeOf(mounted / ".json/secret/big")));
  CHECK(json.substr(0, 24) == R"({"name":"big","secret":")");
  CHECK(mounted.driver.Put("huge", 1, std::string(9 * 1024 * 1024, 'x'))
            .rfind("error too_large", 0) == 0);
}

TEST_CASE("every open is recorded once, with who and which version", "[fuse][R23]") {
  TempDirectory log;
  Mounted mounted({"token"}, {"reads=" + (log / "reads")});
  REQUIRE(OpenAs(mounted / "token", 1234, 2345) == 0);
  mounted.driver.Rotate("token", 2);  // reads once by itself, as root
  const auto lines_with = [&](const std::string& part) {
    const std::string text = ReadFile(log / "reads");
    int count = 0;
    for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
    return count;
  };
  CHECK(Eventually([&] {
    return lines_with(R"("secret":"token","version":1,"uid":1234,"gid":2345,"pid":)") == 1;
  }));
  CHECK(Eventually([&] {
    return lines_with(R"("secret":"token","version":2,"uid":0,"gid":0,"pid":)" +
                      std::to_string(getpid())) == 1;
  }));
  CHECK(lines_with(R"("comm":")") >= 1);
  // Processes that end at once, long before anybody looks at the records.
  for (int i = 0; i < 50; ++i)
    REQUIRE(AsUser(1235, 2345, [&] {
              prctl(PR_SET_NAME, i % 2 == 0 ? "briefly" : "fleeting");
              return ErrnoOfOpen(mounted / "token", O_RDONLY);
            }) == 0);
  CHECK(Eventually([&] { return lines_with(R"("uid":1235,)") == 50; }));
  CHECK(lines_with(R"("comm":"briefly")") == 25);
  CHECK(lines_with(R"("comm":"fleeting")") == 25);
  CHECK(mounted.driver.Stats()["dropped"] == 0);
}
