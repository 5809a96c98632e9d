// What a failing or full disk may and may not do to a running server (rules A2, P4; faults F05, F07).
#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>

#include "common/base/check.h"
#include "common/base/unique_fd.h"
#include "tests/integration/latchkeyd/place.h"

namespace latchkey {
namespace {

// A file system of its own for store, spool and anchor. Unmounted when the object goes.
class SmallDisk {
 public:
  SmallDisk(const Place& place, const std::string& size) : path_(place.Path("disk")) {
    std::filesystem::create_directory(path_);
    mounted_ = ::mount("latchkey-test", path_.c_str(), "tmpfs", MS_NOSUID | MS_NODEV,
                       ("mode=0700,size=" + size).c_str()) == 0;
  }
  ~SmallDisk() {
    if (mounted_) ::umount2(path_.c_str(), MNT_DETACH);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  bool mounted() const { return mounted_; }

  void Fill() const {
    const UniqueFd fd(::open((path_ + "/filler").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    const std::string block(64 * 1024, 'f');
    std::size_t size = block.size();
    // Down to the last byte: whole blocks first, then what is left of a page.
    while (size > 0) {
      if (::write(fd.get(), block.data(), size) <= 0) size /= 2;
    }
  }
  void MakeRoom() const { std::filesystem::remove(path_ + "/filler"); }

 private:
  std::string path_;
  bool mounted_ = false;
};

std::string StatusOf(const Outcome& outcome) {
  return outcome.out.size() < 3 ? outcome.out : outcome.out.substr(outcome.out.size() - 3);
}

}  // namespace

TEST_CASE(
    "A full disk refuses writes, serves reads from the reserve, and recovers without a restart",
    "[latchkeyd]") {
  const Place place(true);
  const SmallDisk disk(place, "160m");
  if (!disk.mounted()) {
    WARN("skipped: mounting a tmpfs needs root");
    return;
  }
  const auto on_disk = [&](const std::string& name) {
    return "\"" + place.Path("disk/" + name) + "\"";
  };
  place.WriteConfig({{"store.path", on_disk("latchkey.db")},
                     {"audit.dir", on_disk("audit")},
                     {"anchor.path", on_disk("anchor")}});
  place.Init();
  place.Populate();
  RunningServer server(place.directory());
  if (!server.ready()) FAIL(server.log());
  REQUIRE(CreateSecret(place, "before") == "201");

  disk.Fill();
  bool refused = false;
  for (int i = 0; i < 200 && !refused; ++i) {
    // The store's log may have a few pages left that were allocated before.
    const std::string status = CreateSecret(place, "during-" + std::to_string(i));
    CAPTURE(status);
    REQUIRE((status == "201" || status == "503"));
    refused = status == "503";
  }
  CHECK(refused);
  for (int i = 0; i < 20; ++i)
    CHECK(StatusOf(Curl(place, "web-1", "/secret/db_password")) == "200");
  CHECK(StatusOf(Curl(place, "admin", "/secret/db_password")) != "200");

  disk.MakeRoom();
  CHECK(CreateSecret(place, "after") == "201");
  CHECK(StatusOf(Curl(place, "web-1", "/secret/after")) == "200");
  server.Signal(SIGTERM);
  CHECK(server.Wait() == 0);
  const Outcome check = place.Command({"check"});
  CAPTURE(check.out, check.err);
  CHECK(check.exit_code == 0);
}

TEST_CASE("An fsync that fails ends the server, acknowledges nothing, and the next start is clean",
          "[latchkeyd]") {
#ifdef LATCHKEY_SANITIZED
  WARN("skipped: a sanitizer must be the first library of a process");
#else
  const Place place(true);
  place.Init();
  place.Populate();
  {
    RunningServer server(place.directory(), {},
                         {"LD_PRELOAD=" FAILING_SYNC, "FAILING_SYNC_WHILE=" + place.Path("fail")});
    if (!server.ready()) FAIL(server.log());
    REQUIRE(CreateSecret(place, "before") == "201");
    WriteBytes(place.Path("fail"), AsBytes("now"));
    CHECK(CreateSecret(place, "lost")[0] != '2');
    CHECK(server.Wait() == 1);
    CHECK_THAT(server.log(), Catch::Contains("fatal: the server stops at once"));
    std::filesystem::remove(place.Path("fail"));
  }
  std::filesystem::remove(place.Path("port"));
  RunningServer server(place.directory());
  if (!server.ready()) FAIL(server.log());
  CHECK(StatusOf(Curl(place, "web-1", "/secret/before")) == "200");
  CHECK(CreateSecret(place, "after") == "201");
  const Outcome check = place.Command({"check"});
  CAPTURE(check.out);
  CHECK(check.exit_code == 0);
#endif
}

}  // namespace latchkey
