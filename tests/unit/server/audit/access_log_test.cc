#include "server/audit/access_log.h"

#include <sys/resource.h>
#include <sys/wait.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <csignal>

#include "common/model/limits.h"
#include "server/audit/verify.h"
#include "tests/unit/server/audit/audit_fixture.h"

namespace latchkey::audit {
namespace {

std::unique_ptr<AccessLog> OpenLog(AccessLogOptions options) {
  Result<std::unique_ptr<AccessLog>> log = AccessLog::Open(TestKey(), std::move(options));
  if (!log) FAIL(log.error().message);
  return std::move(log).value();
}

struct Verified {
  std::vector<Damage> damage;
  std::uint64_t records = 0;
  ChainHead head;
};

Verified VerifySpool(const std::string& directory, const ExpectedHeads& expected = {}) {
  ChainVerifier verifier(TestKey(), "access:test", expected);
  Result<std::vector<Damage>> files = ReadSpool(
      {directory}, "access:test",
      [&](std::uint64_t seq, Bytes event, Bytes hash) { return verifier.Add(seq, event, hash); });
  REQUIRE(files.has_value());
  verifier.Finish();
  Verified result{verifier.damage(), verifier.records(), verifier.head()};
  result.damage.insert(result.damage.end(), files->begin(), files->end());
  return result;
}

std::string FirstSegment(const ScratchDir& dir) {
  return dir.File("access-000001.spool");
}

// Offsets of all records of one segment, and behind the last.
std::vector<std::size_t> RecordOffsets(Bytes segment) {
  std::vector<std::size_t> offsets{spool::kHeaderBytes};
  spool::Record record;
  while (spool::ReadRecord(segment, offsets.back(), &record) == spool::RecordState::kRecord)
    offsets.push_back(record.end);
  return offsets;
}

}  // namespace

TEST_CASE("Events come back in order with their positions, across segments and a restart",
          "[audit]") {
  const ScratchDir dir;
  constexpr std::uint64_t kEvents = 3000;  // about 30 segments of 16 KiB
  {
    const auto log = OpenLog(SmallLog(dir.path(), 48));
    for (std::uint64_t i = 0; i < kEvents / 2; i += 50) AppendReads(*log, i, 50);
  }
  const auto log = OpenLog(SmallLog(dir.path(), 48));
  CHECK_FALSE(log->recovery().cut);
  CHECK(log->recovery().head_after.seq == kEvents / 2);
  for (std::uint64_t i = kEvents / 2; i < kEvents; i += 50) AppendReads(*log, i, 50);
  CHECK(log->Last().head.seq == kEvents);
  CHECK(log->Stats().segments > 10);

  const std::uint64_t after =
      GENERATE(as<std::uint64_t>{}, 0, 1, 99, 1023, 1024, 1500, 2047, 2999, 3000, 4000);
  const auto read = log->Read(after, 120);
  REQUIRE(read.has_value());
  const std::uint64_t expected =
      after >= kEvents ? 0 : std::min<std::uint64_t>(120, kEvents - after);
  REQUIRE(read->size() == expected);
  for (std::uint64_t i = 0; i < expected; ++i) {
    REQUIRE((*read)[i].seq == after + 1 + i);
    REQUIRE(DecodeEvent((*read)[i].event)->request_id == after + 1 + i);
  }
}

TEST_CASE("A spool of 3000 records verifies end to end", "[audit]") {
  const ScratchDir dir;
  const auto log = OpenLog(SmallLog(dir.path(), 48));
  for (std::uint64_t i = 0; i < 3000; i += 50) AppendReads(*log, i, 50);
  const Verified verified = VerifySpool(dir.path());
  for (const Damage& damage : verified.damage) FAIL(damage.what);
  CHECK(verified.records == 3000);
  CHECK(verified.head == log->Last().head);
}

TEST_CASE("The spool is kept allocated ahead and its files are private", "[audit]") {
  const ScratchDir dir;
  const auto log = OpenLog(SmallLog(dir.path()));
  std::uint64_t allocated = 0;
  for (const auto& entry : std::filesystem::directory_iterator(dir.path())) {
    struct stat info {};
    REQUIRE(::stat(entry.path().c_str(), &info) == 0);
    CHECK((info.st_mode & 077) == 0);
    allocated += static_cast<std::uint64_t>(info.st_blocks) * 512;
  }
  CHECK(allocated >= 64 * 1024);
  CHECK(log->Stats().reserve_left_bytes >= 64 * 1024);
}

TEST_CASE("A second log on the same directory is refused, and allowed once the first is gone",
          "[audit]") {
  const ScratchDir dir;
  auto first = OpenLog(SmallLog(dir.path()));
  const auto second = AccessLog::Open(TestKey(), SmallLog(dir.path()));
  REQUIRE_FALSE(second.has_value());
  CHECK(second.error().code == Errc::kConflict);
  CHECK_THAT(second.error().message, Catch::Contains("in use by another server"));
  first.reset();
  CHECK(AccessLog::Open(TestKey(), SmallLog(dir.path())).has_value());
}

TEST_CASE("A directory that is absent or holds another server's chain is refused by name",
          "[audit]") {
  const ScratchDir dir;
  const auto absent = AccessLog::Open(TestKey(), SmallLog(dir.File("nowhere")));
  REQUIRE_FALSE(absent.has_value());
  CHECK_THAT(absent.error().message, Catch::Contains("nowhere"));
  { AppendReads(*OpenLog(SmallLog(dir.path())), 0, 1); }
  AccessLogOptions other = SmallLog(dir.path());
  other.server_id = "other";
  const auto refused = AccessLog::Open(TestKey(), other);
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().code == Errc::kConflict);
  CHECK_THAT(refused.error().message, Catch::Contains("access:test"));
}

TEST_CASE("A reader of the log is not shown a record that was changed under it", "[audit]") {
  const ScratchDir dir;
  const auto log = OpenLog(SmallLog(dir.path(), 40));
  for (std::uint64_t i = 0; i < 2500; i += 10) AppendReads(*log, i, 10);
  REQUIRE(log->Read(0, 10'000)->size() == 2500);
  // In a closed segment, in the open one, and in one whose start is known from the index.
  const std::uint64_t seq = GENERATE(3, 700, 1024, 1025, 2499);
  std::string path;
  std::uint64_t first = 0;
  const auto segments = spool::ListSegments(dir.path());
  REQUIRE(segments.has_value());
  for (const std::uint32_t ordinal : *segments) {
    const std::string candidate = dir.File(spool::SegmentName(ordinal));
    const auto header = spool::ParseHeader(ReadFile(candidate));
    if (!header || header->before.seq >= seq) break;
    first = header->before.seq + 1;
    path = candidate;
  }
  ByteVector bytes = ReadFile(path);
  spool::Record record;
  std::size_t at = spool::kHeaderBytes;
  for (std::uint64_t i = first; i < seq; ++i) {
    REQUIRE(spool::ReadRecord(bytes, at, &record) == spool::RecordState::kRecord);
    at = record.end;
  }
  bytes[at + 40] ^= 1;
  WriteFile(path, bytes);
  CHECK(log->Read(0, 10'000).error().code == Errc::kCorrupt);
  const auto refused = log->Read(seq - 1, 1);
  REQUIRE_FALSE(refused.has_value());
  CHECK_THAT(refused.error().message, Catch::Contains("record " + std::to_string(seq) + " of"));
  // Those before and behind it are shown still.
  CHECK(log->Read(0, seq - 1)->size() == seq - 1);
  CHECK(log->Read(seq, 10'000)->size() == 2500 - seq);
}

TEST_CASE("A FIFO or a directory in the place of a segment is refused, not waited for", "[audit]") {
  const ScratchDir dir;
  { AppendReads(*OpenLog(SmallLog(dir.path())), 0, 1); }
  const std::string path = dir.File(spool::SegmentName(GENERATE(as<std::uint32_t>{}, 1, 3, 9)));
  std::filesystem::remove(path);
  if (GENERATE(false, true)) {
    REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
  } else {
    REQUIRE(::mkdir(path.c_str(), 0700) == 0);
  }
  CAPTURE(path);
  const auto refused = AccessLog::Open(TestKey(), SmallLog(dir.path()));
  REQUIRE_FALSE(refused.has_value());
  CHECK_THAT(refused.error().message,
             Catch::Contains(path) && Catch::Contains("not a regular file"));
  const auto read =
      ReadSpool({dir.path()}, "access:test", [](std::uint64_t, Bytes, Bytes) { return true; });
  REQUIRE_FALSE(read.has_value());
  CHECK_THAT(read.error().message, Catch::Contains(path) && Catch::Contains("not a regular file"));
  CHECK_FALSE(spool::ReadWhole(path).has_value());
}

TEST_CASE("Archiving moves closed segments alone, beside a running server, and loses no record",
          "[audit]") {
  const ScratchDir dir;
  const ScratchDir archive;
  const std::string program = std::string(TESTS_SOURCE_DIR) + "/../packaging/archive-audit ";
  const std::string directories = dir.path() + " " + archive.path() + " >/dev/null 2>&1";
  const std::string archive_now = program + "--min-age-minutes 0 " + directories;
  const std::string archive_old = program + directories;
  auto log = OpenLog(SmallLog(dir.path(), 8));
  // One segment, spares behind it: there is nothing to move.
  AppendReads(*log, 0, 10);
  REQUIRE(std::system(archive_now.c_str()) == 0);
  CHECK(std::filesystem::exists(FirstSegment(dir)));
  for (std::uint64_t i = 10; i < 500; i += 10) AppendReads(*log, i, 10);
  const std::uint64_t segments = log->Stats().segments;
  REQUIRE(segments > 4);
  // Too young by default: what the anchor has not passed yet must stay.
  REQUIRE(std::system(archive_old.c_str()) == 0);
  CHECK(std::filesystem::exists(FirstSegment(dir)));
  REQUIRE(std::system(archive_now.c_str()) == 0);
  std::size_t moved = 0;
  for (const auto& entry : std::filesystem::directory_iterator(archive.path()))
    moved += entry.path().extension() == ".spool" ? 1 : 0;
  CHECK(moved == segments - 2);
  CHECK_FALSE(std::filesystem::exists(FirstSegment(dir)));
  // The running log goes on, and what it reads begins with what it still has.
  AppendReads(*log, 500, 100);
  const auto read = log->Read(0, 10'000);
  REQUIRE(read.has_value());
  REQUIRE_FALSE(read->empty());
  CHECK(read->front().seq > 1);
  CHECK(read->back().seq == 600);
  REQUIRE(log->Sync().has_value());
  AccessLogOptions again = SmallLog(dir.path(), 8);
  again.durable = log->Last().head;
  log.reset();
  log = OpenLog(again);
  CHECK(log->Last().head.seq == 600);
  ChainVerifier verifier(TestKey(), "access:test", {});
  const auto files = ReadSpool(
      {archive.path(), dir.path()}, "access:test",
      [&](std::uint64_t seq, Bytes event, Bytes hash) { return verifier.Add(seq, event, hash); });
  REQUIRE(files.has_value());
  CHECK(files->empty());
  CHECK(verifier.damage().empty());
  CHECK(verifier.records() == 600);
}

TEST_CASE("Archiving never overwrites what an archive has", "[audit]") {
  const ScratchDir dir;
  const ScratchDir archive;
  const auto log = OpenLog(SmallLog(dir.path(), 8));
  for (std::uint64_t i = 0; i < 400; i += 10) AppendReads(*log, i, 10);
  WriteFile(archive.File("access-000001.spool"), AsBytes("of another server"));
  const std::string command = std::string(TESTS_SOURCE_DIR) +
                              "/../packaging/archive-audit --min-age-minutes 0 " + dir.path() +
                              " " + archive.path() + " >/dev/null 2>&1";
  CHECK(std::system(command.c_str()) != 0);
  CHECK(std::filesystem::exists(FirstSegment(dir)));
  CHECK(ReadFile(archive.File("access-000001.spool")).size() == 17);
  // What an earlier run copied and did not get to remove is removed now.
  std::filesystem::copy_file(FirstSegment(dir), archive.File("access-000001.spool"),
                             std::filesystem::copy_options::overwrite_existing);
  CHECK(std::system(command.c_str()) == 0);
  CHECK_FALSE(std::filesystem::exists(FirstSegment(dir)));
}

TEST_CASE("What the spool takes and what its disk has left is told", "[audit]") {
  const ScratchDir dir;
  const auto log = OpenLog(SmallLog(dir.path()));
  const auto usage = ReadSpoolUsage(dir.path());
  REQUIRE(usage.has_value());
  CHECK(usage->bytes >= 64 * 1024);
  CHECK(usage->free_bytes > 0);
  CHECK(IsLow({0, limits::kAuditDiskLowBytes - 1}));
  CHECK_FALSE(IsLow({0, limits::kAuditDiskLowBytes}));
  CHECK_FALSE(ReadSpoolUsage(dir.File("nowhere")).has_value());
}

TEST_CASE("When nothing of the spool is left appends are refused, and go on after space returned",
          "[audit]") {
  const ScratchDir dir;
  AccessLogOptions options = SmallLog(dir.path());
  options.reserve_bytes = 32 * 1024;
  // A full disk for this process alone: no file may grow beyond a limit that no new segment fits.
  // The limit is lifted later.
  const auto log = OpenLog(options);
  struct rlimit before {};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  REQUIRE(std::signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
  struct rlimit full = before;
  full.rlim_cur = 1024;
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &full) == 0);
  // A write inside an allocated segment counts against the limit too, so it stands for a write
  // error as well.
  EventBatch batch;
  for (std::uint64_t i = 0; i < 64; ++i) batch.Add(ReadEvent(i));
  const Status refused = log->Append(batch);
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().code == Errc::kUnavailable);
  CHECK_THAT(refused.error().message, Catch::StartsWith("audit_unavailable"));
  CHECK(log->Last().head.seq == 0);
  CHECK(log->Stats().refused_batches == 1);
  // What the failed write left behind is covered by the next, shorter one.
  AppendReads(*log, 0, 1);
  const Verified verified = VerifySpool(dir.path());
  for (const Damage& damage : verified.damage) FAIL(damage.what);
  CHECK(verified.records == 1);
}

TEST_CASE("A spool whose spares are used up says that it is full", "[audit]") {
  const ScratchDir dir;
  AccessLogOptions options = SmallLog(dir.path());
  options.reserve_bytes = 1;  // the first segment only; the sync thread would add one per second
  const auto log = OpenLog(options);
  Status status;
  std::uint64_t appended = 0;
  while (status && appended < 10'000) {
    EventBatch batch;
    batch.Add(ReadEvent(appended));
    status = log->Append(batch);
    if (status) ++appended;
  }
  REQUIRE_FALSE(status.has_value());
  CHECK_THAT(status.error().message, Catch::Contains("spool is full"));
  CHECK(log->Last().head.seq == appended);
}

TEST_CASE("A torn last record is cut at open, and the chain goes on from the record before it",
          "[audit]") {
  const ScratchDir dir;
  ChainHead after_ten;
  {
    const auto log = OpenLog(SmallLog(dir.path()));
    AppendReads(*log, 0, 10);
    after_ten = log->Last().head;
    AppendReads(*log, 10, 1);
  }
  ByteVector segment = ReadFile(FirstSegment(dir));
  const std::vector<std::size_t> offsets = RecordOffsets(segment);
  REQUIRE(offsets.size() == 12);
  const std::size_t keep = GENERATE(as<std::size_t>{}, 4, 5, 60, 150);
  REQUIRE(offsets[10] + keep < offsets[11]);
  std::fill(segment.begin() + static_cast<std::ptrdiff_t>(offsets[10] + keep), segment.end(),
            std::uint8_t{0});
  WriteFile(FirstSegment(dir), segment);

  AccessLogOptions options = SmallLog(dir.path());
  options.durable = after_ten;
  const auto log = OpenLog(options);
  CHECK(log->recovery().cut);
  CHECK(log->recovery().cut_bytes > 0);
  CHECK(log->recovery().head_after == after_ten);
  AppendReads(*log, 100, 5);
  const Verified verified = VerifySpool(dir.path());
  for (const Damage& damage : verified.damage) FAIL(damage.what);
  CHECK(verified.records == 15);
}

TEST_CASE("Damage of a record that was durable is refused, and cut only with accept_rollback",
          "[audit]") {
  const ScratchDir dir;
  ChainHead durable;
  {
    const auto log = OpenLog(SmallLog(dir.path(), 8));
    AppendReads(*log, 0, 400);
    durable = log->Last().head;
  }
  // 400 records fill several segments: the damaged one is in the segment that holds the durable
  // head.
  ByteVector segment;
  std::string path;
  for (std::uint32_t ordinal = 1;
       spool::ParseHeader(ReadFile(dir.File(spool::SegmentName(ordinal)))); ++ordinal) {
    path = dir.File(spool::SegmentName(ordinal));
  }
  segment = ReadFile(path);
  const std::vector<std::size_t> offsets = RecordOffsets(segment);
  REQUIRE(offsets.size() > 3);
  segment[offsets[1] + 20] ^= 1;
  WriteFile(path, segment);
  const std::uint64_t damaged_seq = spool::ParseHeader(segment)->before.seq + 2;

  AccessLogOptions options = SmallLog(dir.path(), 8);
  options.durable = durable;
  const auto refused = AccessLog::Open(TestKey(), options);
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().code == Errc::kCorrupt);
  CHECK_THAT(refused.error().message,
             Catch::Contains("access:test is damaged at record " + std::to_string(damaged_seq)));
  CHECK(ReadFile(path) == segment);  // nothing was touched

  options.accept_rollback = true;
  const auto log = OpenLog(options);
  CHECK(log->recovery().behind_durable);
  CHECK(log->recovery().head_after.seq == damaged_seq - 1);
}

TEST_CASE("A spool that lost records behind the anchor is refused, whole segments included",
          "[audit]") {
  const ScratchDir dir;
  ChainHead durable;
  {
    const auto log = OpenLog(SmallLog(dir.path(), 8));
    AppendReads(*log, 0, 400);
    durable = log->Last().head;
  }
  const bool whole_files = GENERATE(false, true);
  std::uint32_t last = 1;
  while (spool::ParseHeader(ReadFile(dir.File(spool::SegmentName(last + 1))))) ++last;
  REQUIRE(last > 2);
  if (whole_files) {
    for (const auto& entry : std::filesystem::directory_iterator(dir.path())) {
      if (entry.path().filename() != "lock") std::filesystem::remove(entry.path());
    }
  } else {
    ByteVector segment = ReadFile(dir.File(spool::SegmentName(last)));
    const std::vector<std::size_t> offsets = RecordOffsets(segment);
    std::fill(segment.begin() + static_cast<std::ptrdiff_t>(offsets[offsets.size() - 2]),
              segment.end(), std::uint8_t{0});
    WriteFile(dir.File(spool::SegmentName(last)), segment);
  }
  AccessLogOptions options = SmallLog(dir.path(), 8);
  options.durable = durable;
  const auto refused = AccessLog::Open(TestKey(), options);
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().code == Errc::kCorrupt);
  CHECK_THAT(refused.error().message, Catch::Contains("--accept-rollback"));
  options.accept_rollback = true;
  CHECK(AccessLog::Open(TestKey(), options).has_value());
}

TEST_CASE(
    "A writer killed at any moment leaves a log that opens with everything that was acknowledged",
    "[audit]") {
  for (int round = 0; round < 20; ++round) {
    const ScratchDir dir;
    int acknowledged[2];
    REQUIRE(::pipe(acknowledged) == 0);
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      // The locked arena does not survive fork: the writer is a program of its own.
      ::dup2(acknowledged[1], STDOUT_FILENO);
      ::execl(SPOOL_WRITER, SPOOL_WRITER, dir.path().c_str(), nullptr);
      ::_exit(127);
    }
    ::close(acknowledged[1]);
    std::uint64_t seq = 0;
    for (int i = 0; i <= round * 17; ++i)
      REQUIRE(::read(acknowledged[0], &seq, sizeof seq) == sizeof seq);
    REQUIRE(::kill(child, SIGKILL) == 0);
    while (::read(acknowledged[0], &seq, sizeof seq) == sizeof seq) {
    }
    ::close(acknowledged[0]);
    REQUIRE(::waitpid(child, nullptr, 0) == child);
    const auto log = OpenLog(SmallLog(dir.path()));
    CHECK(log->recovery().head_after.seq >= seq);
    const Verified verified = VerifySpool(dir.path());
    for (const Damage& damage : verified.damage) FAIL(damage.what);
  }
}

TEST_CASE("Eight threads append at once and the chain holds every event once", "[audit]") {
  const ScratchDir dir;
  AccessLogOptions options = SmallLog(dir.path());
  options.segment_bytes = 1024 * 1024;
  options.reserve_bytes = 4 * 1024 * 1024;
  const auto log = OpenLog(options);
  constexpr std::uint64_t kThreads = 8, kBatches = 60, kPerBatch = 11;
  std::atomic<std::uint64_t> failures{0};
  {
    std::vector<std::jthread> threads;
    for (std::uint64_t t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        EventBatch batch;
        for (std::uint64_t b = 0; b < kBatches; ++b) {
          batch.Clear();
          for (std::uint64_t i = 0; i < kPerBatch; ++i)
            batch.Add(ReadEvent((t * kBatches + b) * kPerBatch + i));
          const Status status = b % 10 == 0 ? log->AppendDurable(batch) : log->Append(batch);
          if (!status) ++failures;
          if (b % 7 == 0 && !log->Read(b, 5)) ++failures;
        }
      });
    }
  }
  CHECK(failures == 0);
  constexpr std::uint64_t kAll = kThreads * kBatches * kPerBatch;
  CHECK(log->Last().head.seq == kAll);
  std::set<std::uint64_t> seen;
  for (std::uint64_t after = 0; after < kAll; after += 1000) {
    const auto events = log->Read(after, 1000);
    REQUIRE(events.has_value());
    for (const auto& event : *events) seen.insert(DecodeEvent(event.event)->request_id);
  }
  CHECK(seen.size() == kAll);
  const Verified verified = VerifySpool(dir.path());
  for (const Damage& damage : verified.damage) FAIL(damage.what);
}

TEST_CASE("AppendDurable moves the synced head, Append alone leaves that to the sync", "[audit]") {
  const ScratchDir dir;
  const auto log = OpenLog(SmallLog(dir.path()));
  EventBatch batch;
  batch.Add(ReadEvent(1));
  REQUIRE(log->AppendDurable(batch).has_value());
  CHECK(log->LastSynced().head == log->Last().head);
  REQUIRE(log->Append(batch).has_value());
  REQUIRE(log->Sync().has_value());
  CHECK(log->LastSynced().head.seq == 2);
}

TEST_CASE("Head records do not count as movement of the chain", "[audit]") {
  const ScratchDir dir;
  {
    const auto log = OpenLog(SmallLog(dir.path()));
    AppendReads(*log, 0, 2);
    Event heads;
    heads.type = EventType::kHeads;
    heads.head_chain = "store";
    heads.head_seq = 5;
    REQUIRE(log->AppendHead(heads).has_value());
    CHECK(log->Last().head.seq == 3);
    CHECK(log->Last().last_event_seq == 2);
  }
  CHECK(OpenLog(SmallLog(dir.path()))->Last().last_event_seq == 2);
}

}  // namespace latchkey::audit
