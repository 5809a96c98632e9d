#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <catch2/catch.hpp>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "fusefs/control/config.h"
#include "fusefs/control/control_socket.h"
#include "fusefs/control/reads_log.h"

using namespace latchkey;
using namespace latchkey::control;

namespace {

struct TempDir {
  TempDir() {
    char name[] = "/tmp/latchkey-control-XXXXXX";
    path = ::mkdtemp(name);
  }
  ~TempDir() { std::filesystem::remove_all(path); }
  std::string path;
};

Result<Config> Load(const std::string& text) {
  const TempDir dir;
  std::ofstream(dir.path + "/fs.toml") << text;
  return LoadConfig(dir.path + "/fs.toml");
}

const std::string kGood =
    "[server]\naddress = \"localhost:4444\"\nca = \"/ca\"\n[identity]\ncertificate = \"/c\"\nkey = "
    "\"/k\"\n"
    "[mount]\ntarget = \"/secrets\"\n";

}  // namespace

TEST_CASE("A configuration with what is required loads", "[fs-config]") {
  const auto config = Load(kGood + "default_mode = \"0400\"\n");
  REQUIRE(config.has_value());
  CHECK(config->target == "/secrets");
  CHECK(config->default_mode == 0400);
}

TEST_CASE("A configuration that is not there is named with the reason", "[fs-config]") {
  const auto config = LoadConfig("/nowhere/fs.toml");
  REQUIRE_FALSE(config.has_value());
  CHECK(config.error().message ==
        "/nowhere/fs.toml: cannot be read: No such file or directory; name the configuration with "
        "--config");
}

TEST_CASE("Every mistake in a configuration is refused with its line", "[fs-config]") {
  const auto bad =
      GENERATE(as<std::string>{}, "typo = 1\n", "default_mode = \"0644\"\n", "default_mode = 440\n",
               "revoke_grace_seconds = -1\n", "revoke_grace_seconds = \"60\"\n",
               "allow_unlocked = 1\n", "[log]\nlevel = \"loud\"\n", "[logs]\nlevel = \"info\"\n",
               "target = [1\n", "private_dir = \"x\"\n");
  const auto config = Load(kGood + bad);
  CAPTURE(bad);
  REQUIRE_FALSE(config.has_value());
  CHECK(config.error().code == Errc::kInvalidArgument);
  CHECK(config.error().message.find("fs.toml") != std::string::npos);
}

TEST_CASE("Each required key is asked for by name", "[fs-config]") {
  const auto config = Load("[server]\naddress = \"x:1\"\n");
  REQUIRE_FALSE(config.has_value());
  CHECK(config.error().message.find("server.ca is required") != std::string::npos);
}

TEST_CASE("Two targets never share a private directory", "[fs-config]") {
  CHECK(DefaultPrivateDir("/a/b") == "/run/latchkey-fs/a-b");
  CHECK(DefaultPrivateDir("/a-b") != DefaultPrivateDir("/a/b"));
  CHECK(DefaultPrivateDir("/a/b/") == DefaultPrivateDir("/a/b"));
}

TEST_CASE("The control socket answers a command and only while a keeper holds the directory",
          "[fs-control]") {
  const TempDir dir;
  CHECK(AskControl(dir.path, "status").error().code == Errc::kNotFound);
  auto server = ControlServer::Bind(dir.path);
  REQUIRE(server.has_value());
  (*server)->Start([](std::string_view command) { return "you said " + std::string(command); });
  CHECK(AskControl(dir.path, "status").error().code == Errc::kNotFound);
  const auto pid_file = PidFile::Write(dir.path);
  REQUIRE(pid_file.has_value());
  CHECK(KeeperPid(dir.path).value() == ::getpid());
  CHECK(AskControl(dir.path, "status").value() == "you said status");
}

TEST_CASE("A pid file without its keeper is not believed", "[fs-control]") {
  const TempDir dir;
  { REQUIRE(PidFile::Write(dir.path).has_value()); }
  CHECK(KeeperPid(dir.path).error().code == Errc::kNotFound);
}

TEST_CASE("A second keeper on one directory is refused", "[fs-control]") {
  const TempDir dir;
  const auto first = PidFile::Write(dir.path);
  REQUIRE(first.has_value());
  CHECK(PidFile::Write(dir.path).error().code == Errc::kConflict);
}

TEST_CASE("Read records survive their writer and the older half is dropped at the limit",
          "[fs-reads]") {
  const TempDir dir;
  std::string printed;
  const auto print = [&printed](std::string_view text) {
    printed += text;
    return true;
  };
  { REQUIRE(ReadsLog::Open(dir.path).value().Append("{\"n\":1}")); }
  { REQUIRE(ReadsLog::Open(dir.path).value().Append("{\"n\":2}")); }
  REQUIRE(PrintReads(dir.path, false, print).has_value());
  CHECK(printed == "{\"n\":1}\n{\"n\":2}\n");

  auto log = ReadsLog::Open(dir.path);
  const std::string line(64 * 1024, 'x');
  for (int i = 0; i < 400; ++i) REQUIRE(log->Append(line));
  std::uintmax_t kept = 0;
  for (const auto& entry : std::filesystem::directory_iterator(dir.path)) kept += entry.file_size();
  CHECK(kept <= 16 * 1024 * 1024);
  printed.clear();
  REQUIRE(PrintReads(dir.path, false, print).has_value());
  CHECK(printed.find("{\"n\":1}") == std::string::npos);
  CHECK(printed.size() > 8 * 1024 * 1024);
  struct stat info {};
  REQUIRE(::stat((dir.path + "/reads.jsonl").c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == 0600);
}

TEST_CASE("A line that does not fit on the disk leaves no part of itself", "[fs-reads]") {
  const TempDir dir;
  if (::mount("latchkey-test", dir.path.c_str(), "tmpfs", MS_NOSUID | MS_NODEV, "size=64k") != 0) {
    WARN("skipped: mounting a tmpfs needs root");
    return;
  }
  std::string printed;
  const auto print = [&printed](std::string_view text) {
    printed += text;
    return true;
  };
  {
    const std::string first(60'000, 'a');
    auto log = ReadsLog::Open(dir.path);
    REQUIRE(log.has_value());
    REQUIRE(log->Append(first));
    for (int i = 0; i < 3; ++i) CHECK_FALSE(log->Append(std::string(10'000, 'b')));
    CHECK(log->Append("{\"n\":1}"));
    REQUIRE(PrintReads(dir.path, false, print).has_value());
    CHECK(printed == first + "\n{\"n\":1}\n");
  }
  // What a writer that was killed in the middle has left.
  std::ofstream(dir.path + "/reads.jsonl", std::ios::app) << "{\"n\":";
  printed.clear();
  CHECK(ReadsLog::Open(dir.path).value().Append("{\"n\":2}"));
  REQUIRE(PrintReads(dir.path, false, print).has_value());
  CHECK(printed.substr(60'001) == "{\"n\":1}\n{\"n\":2}\n");
  CHECK(::umount(dir.path.c_str()) == 0);
}
