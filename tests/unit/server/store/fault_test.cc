// The store when the disk fails, lies or loses power (F02, F04, F05, F07).
#include <sqlite3.h>
#include <sys/mount.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <fstream>
#include <random>
#include <set>
#include <thread>

#include "server/store/store.h"
#include "tests/support/fault_vfs.h"
#include "tests/support/store_fixture.h"

namespace latchkey::store {
namespace {

using testing::FaultOp;
using testing::FaultSpan;
using testing::FaultVfs;
using testing::InsertSecretWithVersion;
using testing::kTestStoreId;
using testing::Must;
using testing::TempDir;
using testing::VersionRowOf;

// One whole use case: secret, version, content, audit, change. Content of some pages, so that a
// commit has many writes.
Status WriteSecret(Savepoint& savepoint, std::int64_t id) {
  RETURN_IF_ERROR(savepoint.InsertSecret(
      testing::SecretRowOf(id, "secret-" + std::to_string(id), id * 100 + 1)));
  VersionRow version = VersionRowOf(id * 100 + 1, id, 1);
  version.sealed.assign(9000, static_cast<std::uint8_t>(id));
  RETURN_IF_ERROR(savepoint.InsertVersion(version));
  ASSIGN_OR_RETURN(const auto last, savepoint.reader().LastAudit());
  const std::uint64_t seq = last.has_value() ? last->seq + 1 : 1;
  RETURN_IF_ERROR(savepoint.AppendAudit({seq, {1, 2, 3}, {}}));
  return savepoint.AppendChange({{}, ChangeKind::kSecret, {id}, {}, {}, "", {}, {}});
}

// What is wrong with a store in which these secrets were acknowledged; empty when all is well.
// `may_be` may or may not be there.
std::string Examine(Store& store, const std::set<std::int64_t>& acknowledged,
                    const std::set<std::int64_t>& may_be) {
  auto reader = store.Read();
  if (!reader.has_value()) return "cannot be read: " + reader.error().message;
  std::set<std::int64_t> found;
  const Status secrets = reader.value().ForEachSecret([&](SecretRow&& row, VersionInfo&&) {
    found.insert(row.id.value);
    return Status();
  });
  if (!secrets.has_value()) return secrets.error().message;
  for (const auto id : acknowledged) {
    if (!found.contains(id)) return "lost secret " + std::to_string(id);
  }
  for (const auto id : found) {
    if (!acknowledged.contains(id) && !may_be.contains(id)) {
      return "refused secret " + std::to_string(id) + " is there";
    }
    const auto version = reader.value().LoadVersion(VersionId{id * 100 + 1});
    if (!version.has_value() || version.value().sealed.size() != 9000) return "half a secret";
  }
  std::size_t changes = 0;
  std::uint64_t newest = 0;
  const Status log = reader.value().ForEachChange([&](ChangeRow&& row) {
    ++changes;
    newest = std::max(newest, row.generation.value);
    return Status();
  });
  if (!log.has_value()) return log.error().message;
  const auto counts = reader.value().Count();
  const auto info = reader.value().Info();
  if (!counts.has_value() || !info.has_value()) return "no counts";
  if (counts.value().audit_rows != found.size() || changes != found.size() ||
      counts.value().versions != found.size()) {
    return "rows of a job are missing";
  }
  if (info.value().generation.value != newest) return "generation and change log differ";
  const auto integrity = reader.value().CheckIntegrity();
  if (!integrity.has_value()) return integrity.error().message;
  return integrity.value().empty() ? "" : integrity.value().front();
}

struct Run {
  std::set<std::int64_t> acknowledged;
  std::set<std::int64_t> refused;
  int fatal = 0;
  bool opened = false;
};

// Opens the store through the failing VFS and writes ten secrets, each with its own commit, then
// stops. `first`: their first id.
Run WriteTen(const std::filesystem::path& path, std::int64_t first) {
  Run run;
  std::atomic<int> fatal = 0;
  Options options;
  options.vfs = FaultVfs::Name();
  options.fatal = [&fatal](const Error&) { ++fatal; };
  auto opened = Store::Open(path, OpenMode::kExclusive, std::move(options));
  if (!opened.has_value()) return run;
  run.opened = true;
  Store& store = *opened.value();
  store.Start(nullptr);
  for (std::int64_t id = first; id < first + 10; ++id) {
    const auto written = store.RunJob([id](Savepoint& s) { return WriteSecret(s, id); });
    (written.has_value() ? run.acknowledged : run.refused).insert(id);
    if (fatal > 0 && written.has_value()) run.acknowledged.insert(-1);  // must not happen
  }
  store.Stop();
  run.fatal = fatal;
  return run;
}

std::unique_ptr<Store> OpenPlain(const std::filesystem::path& path) {
  return Must(Store::Open(path, OpenMode::kExclusive, {}));
}

TEST_CASE(
    "Whichever write, read or truncation fails, nothing acknowledged is lost and nothing refused "
    "is kept",
    "[store][fault]") {
  const auto [op, code] =
      GENERATE(table<FaultOp, int>({{FaultOp::kWrite, SQLITE_FULL},
                                    {FaultOp::kWrite, SQLITE_IOERR_WRITE},
                                    {FaultOp::kRead, SQLITE_IOERR_READ},
                                    {FaultOp::kTruncate, SQLITE_IOERR_TRUNCATE}}));
  const auto span = GENERATE(FaultSpan::kOnce, FaultSpan::kForEver);
  CAPTURE(static_cast<int>(op), code, static_cast<int>(span));
  std::uint64_t n = 1;
  for (;; n += 1 + n / 6) {  // every call at first, then with growing steps
    const TempDir dir;
    const auto path = dir / "s.db";
    Must(Store::Create(path, kTestStoreId, 0));
    FaultVfs::Heal();
    FaultVfs::FailAt(op, n, span, code);
    const Run run = WriteTen(path, 1);
    const bool struck = FaultVfs::Struck();
    FaultVfs::Heal();
    if (!struck) break;  // past the last call
    CAPTURE(n);
    CHECK(run.fatal == 0);
    if (span == FaultSpan::kOnce && run.opened) CHECK(run.refused.size() <= 1);
    const std::string wrong = Examine(*OpenPlain(path), run.acknowledged, {});
    if (!wrong.empty()) FAIL(wrong);
  }
  CHECK(n > 1);
}

TEST_CASE("A failed fsync ends the store, acknowledges nothing and loses nothing",
          "[store][fault]") {
  const auto span = GENERATE(FaultSpan::kOnce, FaultSpan::kForEver);
  std::uint64_t n = 1;
  bool struck_a_commit = false;
  for (;; ++n) {
    const TempDir dir;
    const auto path = dir / "s.db";
    Must(Store::Create(path, kTestStoreId, 0));
    FaultVfs::Heal();
    FaultVfs::FailAt(FaultOp::kSync, n, span, SQLITE_IOERR_FSYNC);
    const Run run = WriteTen(path, 1);
    const bool struck = FaultVfs::Struck();
    FaultVfs::Heal();
    if (!struck) break;
    CAPTURE(n);
    if (run.opened) {
      CHECK(run.fatal == 1);
      struck_a_commit = struck_a_commit || !run.refused.empty();
      // The job in hand has an unknown outcome; those after it were never tried.
      std::set<std::int64_t> unknown;
      if (!run.refused.empty()) unknown.insert(*run.refused.begin());
      const std::string wrong = Examine(*OpenPlain(path), run.acknowledged, unknown);
      if (!wrong.empty()) FAIL(wrong);
    }
  }
  CHECK(struck_a_commit);
  CHECK(n > 10);
}

TEST_CASE("A failed fsync of a checkpoint ends the store as well", "[store][fault]") {
  const TempDir dir;
  const auto path = dir / "s.db";
  Must(Store::Create(path, kTestStoreId, 0));
  FaultVfs::Heal();
  std::atomic<int> fatal = 0;
  Options options;
  options.vfs = FaultVfs::Name();
  options.fatal = [&fatal](const Error&) { ++fatal; };
  auto store = Must(Store::Open(path, OpenMode::kExclusive, std::move(options)));
  store->Start(nullptr);
  FaultVfs::FailAt(FaultOp::kSyncDatabase, 1, FaultSpan::kOnce, SQLITE_IOERR_FSYNC);
  std::set<std::int64_t> acknowledged;
  std::int64_t id = 1;
  while (id < 2000) {
    // The checkpoint follows the commit before: this job is refused, or was never begun.
    if (!store->RunJob([id](Savepoint& s) { return WriteSecret(s, id); }).has_value()) break;
    acknowledged.insert(id++);
  }
  CHECK(fatal == 1);
  CHECK(id < 2000);
  store.reset();
  FaultVfs::Heal();
  CHECK(Examine(*OpenPlain(path), acknowledged, {}) == "");
}

TEST_CASE("A job that swallows a failure of the storage is refused all the same",
          "[store][fault]") {
  const TempDir dir;
  const auto path = dir / "s.db";
  Must(Store::Create(path, kTestStoreId, 0));
  {
    auto store = OpenPlain(path);
    store->Start(nullptr);
    Must(store->RunJob([](Savepoint& s) { return WriteSecret(s, 1); }));
  }
  Options options;
  options.vfs = FaultVfs::Name();
  auto store = Must(Store::Open(path, OpenMode::kExclusive, std::move(options)));
  store->Start(nullptr);
  FaultVfs::Heal();
  const auto swallows = [](Savepoint& s) -> Status {
    FaultVfs::FailAt(FaultOp::kRead, 1, FaultSpan::kOnce, SQLITE_IOERR_READ);
    CHECK_FALSE(s.reader().LoadVersion(VersionId{101}).has_value());
    FaultVfs::Heal();
    return s.PutSetting("half", AsBytes("done"));
  };
  CHECK(testing::CodeOf(store->RunJob(swallows)) == Errc::kUnavailable);
  CHECK(testing::CodeOf(Must(store->Read()).GetSetting("half")) == Errc::kNotFound);
  Must(store->RunJob([](Savepoint& s) { return s.PutSetting("half", AsBytes("whole")); }));
}

// Writes secrets while recording, and looks at crash images after some of them. The first thing
// that is wrong, or nothing.
std::string LosePower(std::mt19937_64& random, int commits, int images_each) {
  const TempDir dir;
  const auto path = dir / "s.db";
  Must(Store::Create(path, kTestStoreId, 0));
  FaultVfs::Heal();
  FaultVfs::Record();
  Options options;
  options.vfs = FaultVfs::Name();
  auto store = Must(Store::Open(path, OpenMode::kExclusive, std::move(options)));
  store->Start(nullptr);
  std::set<std::int64_t> acknowledged;
  std::string wrong;
  for (std::int64_t id = 1; id <= commits && wrong.empty(); ++id) {
    // In the middle of a job: pages may have gone to the log before the commit. After it: only
    // synced bytes count.
    const auto look = [&](const std::set<std::int64_t>& may_be) {
      for (int i = 0; i < images_each && wrong.empty(); ++i) {
        const TempDir image;
        FaultVfs::WriteCrashImage(image.path(), random);
        const auto opened = Store::Open(image / "s.db", OpenMode::kExclusive, {});
        wrong = opened.has_value() ? Examine(*opened.value(), acknowledged, may_be)
                                   : "does not open: " + opened.error().message;
      }
    };
    const auto written = store->RunJob([&](Savepoint& s) -> Status {
      const Status status = WriteSecret(s, id);
      look({});
      return status;
    });
    if (!written.has_value()) wrong = written.error().message;
    acknowledged.insert(id);
    look({});
  }
  store.reset();
  return wrong;
}

TEST_CASE("A power loss at any point leaves every acknowledged job whole", "[store][fault]") {
  std::mt19937_64 random(Catch::rngSeed());
  CHECK(LosePower(random, 25, 10) == "");
}

TEST_CASE("The power loss test sees a disk that does not sync", "[store][fault]") {
  std::mt19937_64 random(Catch::rngSeed());
  FaultVfs::SetHonest(false);
  const std::string wrong = LosePower(random, 25, 10);
  FaultVfs::SetHonest(true);
  CHECK(wrong != "");
}

// A small file system of its own, gone with the object.
class SmallDisk {
 public:
  SmallDisk() {
    mounted_ = ::mount("tmpfs", dir_.path().c_str(), "tmpfs", 0, "size=4m,mode=0700") == 0;
  }
  ~SmallDisk() {
    if (mounted_) ::umount2(dir_.path().c_str(), MNT_DETACH);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  bool mounted() const { return mounted_; }
  std::filesystem::path operator/(const char* name) const { return dir_ / name; }

 private:
  TempDir dir_;
  bool mounted_ = false;
};

TEST_CASE("A full disk stops writes with a stable message, never reads, and heals without restart",
          "[store][fault]") {
  const SmallDisk disk;
  if (!disk.mounted()) {
    WARN("not allowed to mount a tmpfs here: run as root");
    return;
  }
  const auto path = disk / "s.db";
  Must(Store::Create(path, kTestStoreId, 0));
  std::ofstream(disk / "filler") << std::string(1024 * 1024, 'x');
  Options options;
  std::atomic<int> fatal = 0;
  options.fatal = [&fatal](const Error&) { ++fatal; };
  auto store = Must(Store::Open(path, OpenMode::kExclusive, std::move(options)));
  store->Start(nullptr);
  std::set<std::int64_t> acknowledged;
  std::int64_t id = 0;
  std::optional<Error> error;
  while (!error.has_value() && id < 2000) {
    ++id;
    const auto written = store->RunJob([id](Savepoint& s) { return WriteSecret(s, id); });
    if (written.has_value()) {
      acknowledged.insert(id);
    } else {
      error = written.error();
    }
  }
  REQUIRE(error.has_value());
  CHECK(error->code == Errc::kUnavailable);
  CHECK(error->message == "store: disk full: free space where " + path.string() + " lies");
  REQUIRE(store->write_trouble().has_value());
  CHECK(store->write_trouble()->message == error->message);
  for (int i = 0; i < 20; ++i) {
    CHECK(store->LoadVersion(VersionId{101}).has_value());
    CHECK_FALSE(store->RunJob([&](Savepoint& s) { return WriteSecret(s, id); }).has_value());
  }
  std::filesystem::remove(disk / "filler");
  const auto healed = store->RunJob([&](Savepoint& s) { return WriteSecret(s, id); });
  CHECK(healed.has_value());
  CHECK_FALSE(store->write_trouble().has_value());
  acknowledged.insert(id);
  CHECK(fatal == 0);
  CHECK(Examine(*store, acknowledged, {}) == "");
}

}  // namespace
}  // namespace latchkey::store
