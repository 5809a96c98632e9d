// latchkeyd restore: the old store with all of its writes or the new one alone, whenever the command ends.
#include <signal.h>
#include <sqlite3.h>

#include <catch2/catch.hpp>
#include <filesystem>

#include "common/base/c_handle.h"
#include "tests/integration/latchkeyd/place.h"

namespace latchkey {
namespace {

namespace fs = std::filesystem;

// A store whose newest write, "web-1 was seen at 77", is in its write-ahead log alone, as a killed server leaves it, and a
// backup from before that write. Each test works on a copy of the state directory.
class Scene {
 public:
  Scene() {
    place_.Init();
    place_.Populate();
    REQUIRE(place_.Command({"backup", backup()}).exit_code == 0);
    // As long as nobody closes the store the log stays beside it.
    sqlite3* raw = nullptr;
    REQUIRE(sqlite3_open_v2(place_.store().c_str(), &raw, SQLITE_OPEN_READWRITE, nullptr) ==
            SQLITE_OK);
    const CHandle<sqlite3, sqlite3_close_v2> writer(raw);
    REQUIRE(sqlite3_exec(raw, "UPDATE clients SET last_seen = 77 WHERE name = 'web-1'", nullptr,
                         nullptr, nullptr) == SQLITE_OK);
    fs::copy(place_.Path("state"), place_.Path("killed"));
    REQUIRE(fs::file_size(place_.Path("killed/latchkey.db-wal")) > 0);
  }

  void PutBack() const {
    fs::remove_all(place_.Path("state"));
    fs::copy(place_.Path("killed"), place_.Path("state"));
  }
  // Restores with the environment of `dies_at.c`; the exit code.
  int RestoreDyingAt(int call) const {
    // A sanitizer wants to be the first library of a process, and does without.
    return RunProgram({"/usr/bin/env", "LD_PRELOAD=" DIES_AT,
                       "ASAN_OPTIONS=verify_asan_link_order=0", "DIES_AT=" + std::to_string(call),
                       BUILD_BIN_DIR "/latchkeyd", "restore", backup(), "--config",
                       place_.config()})
        .exit_code;
  }
  Outcome Restore() const { return place_.Command({"restore", backup()}); }
  // 77 is the old store's newest write, which the backup has not.
  bool IsOld(const std::string& store) const {
    return SqlColumn(store, "SELECT last_seen FROM clients WHERE name = 'web-1'").at(0) == "77";
  }
  bool IsWhole(const std::string& store) const {
    return Latchkeyd({"check", "--store", store, "--kek", place_.Path("kek")}).exit_code == 0;
  }
  std::string kept() const { return place_.store() + ".before-restore"; }
  std::string backup() const { return place_.Path("backup.db"); }
  const Place& place() const { return place_; }

 private:
  Place place_;
};

}  // namespace

TEST_CASE("A restore that ends at any moment leaves the old store whole or the new one alone",
          "[latchkeyd]") {
  const Scene scene;
  const std::string store = scene.place().store();
  int code = -1;
  int call = 0;
  bool was_old = false, was_new = false;
  while (code != 0) {
    CAPTURE(++call);
    REQUIRE(call < 100);
    scene.PutBack();
    code = scene.RestoreDyingAt(call);
    REQUIRE((code == 0 || code == 128 + SIGKILL));
    REQUIRE(scene.IsWhole(store));
    const bool is_new = !scene.IsOld(store);
    CHECK((is_new || !was_new));  // once it is in place it stays
    (is_new ? was_new : was_old) = true;
    if (is_new) {
      REQUIRE(scene.IsWhole(scene.kept()));
      CHECK(scene.IsOld(scene.kept()));
      continue;
    }
    // Nothing that was left is in the way of the next try.
    const Outcome again = scene.Restore();
    CAPTURE(again.err);
    REQUIRE(again.exit_code == 0);
    CHECK(scene.IsWhole(store));
    CHECK_FALSE(scene.IsOld(store));
    CHECK(scene.IsOld(scene.kept()));
  }
  CHECK(was_old);
  CHECK(was_new);
}

TEST_CASE("A store too damaged for its log to be written back is replaced, and kept with its log",
          "[latchkeyd]") {
  const Scene scene;
  const std::string store = scene.place().store();
  const ByteVector log = ReadBytes(scene.place().Path("killed/latchkey.db-wal"));
  const ByteVector garbage(5000, 0x5a);
  int code = -1;
  for (int call = 1; code != 0; ++call) {
    CAPTURE(call);
    REQUIRE(call < 100);
    scene.PutBack();
    WriteBytes(store, garbage);
    code = scene.RestoreDyingAt(call);
    // The damaged one, none, or the new one: never the new one with a log of the old one.
    if (fs::exists(store) && ReadBytes(store) != garbage) {
      REQUIRE(scene.IsWhole(store));
      CHECK_FALSE(scene.IsOld(store));
    } else {
      REQUIRE(scene.Restore().exit_code == 0);
      REQUIRE(scene.IsWhole(store));
    }
    CHECK(ReadBytes(scene.kept()) == garbage);
    CHECK(ReadBytes(scene.kept() + "-wal") == log);
  }
}

TEST_CASE("A damaged backup is not restored and the store stays as it is", "[latchkeyd]") {
  const Scene scene;
  const std::string store = scene.place().store();
  scene.PutBack();
  const ByteVector before = ReadBytes(store), log = ReadBytes(store + "-wal");
  int exit_code = 8;
  SECTION("an edited row") {
    Sql(scene.backup(), "UPDATE clients SET content = 1 WHERE name = 'web-2'");
  }
  SECTION("a cut file") {
    fs::resize_file(scene.backup(), fs::file_size(scene.backup()) / 2);
  }
  SECTION("another key") {
    exit_code = 78;
    const Place other;
    other.Init();
    fs::copy_file(other.Path("kek"), scene.place().Path("kek"),
                  fs::copy_options::overwrite_existing);
  }
  SECTION("no file") {
    exit_code = 1;
    fs::remove(scene.backup());
  }
  const Outcome outcome = scene.Restore();
  CAPTURE(outcome.out, outcome.err);
  CHECK(outcome.exit_code == exit_code);
  CHECK_THAT(outcome.err, Catch::Contains("latchkeyd: error: "));
  CHECK(ReadBytes(store) == before);
  CHECK(ReadBytes(store + "-wal") == log);
  std::size_t files = 0;
  for (const auto& entry : fs::directory_iterator(scene.place().Path("state"))) {
    CAPTURE(entry.path().string());
    CHECK(entry.path().string().find("restor") == std::string::npos);
    ++files;
  }
  CHECK(files >= 2);
}

TEST_CASE("A backup is restored to where no store is, and asks for no more when it is the newest",
          "[latchkeyd]") {
  const Place place;
  place.Init();
  place.Populate();
  const std::string backup = place.Path("backup.db");
  REQUIRE(place.Command({"backup", backup}).exit_code == 0);
  fs::remove_all(place.Path("state"));
  SECTION("with the anchor") {
    const Outcome outcome = place.Command({"restore", backup});
    CAPTURE(outcome.err);
    CHECK(outcome.exit_code == 0);
    CHECK_THAT(outcome.out, !Catch::Contains("--accept-rollback"));
    CHECK_THAT(outcome.out, Catch::Contains("3 clients, 2 secrets, 9 versions"));
  }
  SECTION("without an anchor") {
    fs::remove(place.Path("anchor"));
    const Outcome outcome = place.Command({"restore", backup});
    CAPTURE(outcome.err);
    CHECK(outcome.exit_code == 0);
    CHECK_THAT(outcome.out, Catch::Contains("--accept-rollback"));
    CHECK_FALSE(fs::exists(place.Path("anchor")));
  }
  CHECK_FALSE(fs::exists(place.store() + ".before-restore"));
  CHECK(fs::status(place.store()).permissions() ==
        (fs::perms::owner_read | fs::perms::owner_write));
  CHECK(Latchkeyd({"check", "--store", place.store(), "--kek", place.Path("kek")}).exit_code == 0);
}

}  // namespace latchkey
