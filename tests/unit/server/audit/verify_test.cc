#include "server/audit/verify.h"

#include <catch2/catch.hpp>

#include "tests/unit/server/audit/audit_fixture.h"

namespace latchkey::audit {
namespace {

struct Stored {
  std::uint64_t seq = 0;
  ByteVector event;
  crypto::Hash hash{};
};

std::vector<Stored> MakeChain(const std::string& chain_id, std::uint64_t records) {
  std::vector<Stored> chain;
  crypto::Hash previous{};
  for (std::uint64_t seq = 1; seq <= records; ++seq) {
    Stored row;
    row.seq = seq;
    EncodeEvent(ReadEvent(seq), &row.event);
    row.hash = previous = crypto::ChainHash(TestKey(), previous, chain_id, seq, row.event);
    chain.push_back(row);
  }
  return chain;
}

std::vector<Damage> Check(const std::vector<Stored>& chain, const ExpectedHeads& expected = {}) {
  ChainVerifier verifier(TestKey(), "store", expected);
  for (const Stored& row : chain) {
    if (!verifier.Add(row.seq, row.event, row.hash)) break;
  }
  verifier.Finish();
  return verifier.damage();
}

ExpectedHeads HeadOf(const std::vector<Stored>& chain, std::uint64_t seq) {
  ExpectedHeads expected;
  expected[seq] = ExpectedHead{chain[seq - 1].hash, "the anchor"};
  return expected;
}

std::uint64_t Random(std::uint64_t below) {
  static std::mt19937_64 rng(Catch::rngSeed());
  return rng() % below;
}

Event HeadEvent(EventType type, std::string_view chain, const Stored& row) {
  Event event;
  event.type = type;
  event.head_chain = chain;
  event.head_seq = row.seq;
  event.head_hash = row.hash;
  return event;
}

}  // namespace

TEST_CASE("An untouched chain verifies, with its head vouched for", "[audit]") {
  const auto chain = MakeChain("store", 500);
  CHECK(Check(chain).empty());
  CHECK(Check(chain, HeadOf(chain, 500)).empty());
  CHECK(Check(chain, HeadOf(chain, 250)).empty());
  CHECK(Check({}).empty());
}

TEST_CASE("One edited, removed, swapped or repeated record of a chain is found at its position",
          "[audit]") {
  const auto chain = MakeChain("store", 300);
  for (int round = 0; round < 400; ++round) {
    auto changed = chain;
    const std::uint64_t at = Random(chain.size() - 1);  // index; the position is one more
    const std::uint64_t how = Random(6);
    CAPTURE(at, how);
    std::uint64_t found_at = at + 1;
    switch (how) {
      case 0:  // one bit of the event
        changed[at].event[Random(changed[at].event.size())] ^=
            static_cast<std::uint8_t>(1 << Random(8));
        break;
      case 1:  // one bit of the hash
        changed[at].hash[Random(32)] ^= static_cast<std::uint8_t>(1 << Random(8));
        break;
      case 2:  // gone
        changed.erase(changed.begin() + static_cast<std::ptrdiff_t>(at));
        break;
      case 3:  // gone, and the ones behind it renumbered
        changed.erase(changed.begin() + static_cast<std::ptrdiff_t>(at));
        for (std::uint64_t i = at; i < changed.size(); ++i) changed[i].seq = i + 1;
        break;
      case 4:  // two neighbours swapped, with the numbers that their places have
        std::swap(changed[at], changed[at + 1]);
        std::swap(changed[at].seq, changed[at + 1].seq);
        break;
      case 5:  // twice
        changed.insert(changed.begin() + static_cast<std::ptrdiff_t>(at), changed[at]);
        found_at = at + 2 > at + 1 ? at + 1 : at;
        break;
    }
    const std::vector<Damage> damage = Check(changed, HeadOf(chain, chain.size()));
    REQUIRE(damage.size() == 1);
    REQUIRE(damage[0].chain == "store");
    REQUIRE(damage[0].seq == found_at);
  }
}

TEST_CASE("A chain cut at its end is found through whoever saw its head", "[audit]") {
  const auto chain = MakeChain("store", 300);
  auto cut = chain;
  cut.resize(299);
  CHECK(Check(cut)
            .empty());  // by itself it is a good chain: that is why heads are recorded elsewhere
  const auto damage = Check(cut, HeadOf(chain, 300));
  REQUIRE(damage.size() == 1);
  CHECK(damage[0].seq == 300);
  CHECK(damage[0].what == "the chain ends at record 299, but the anchor saw record 300");
}

TEST_CASE("A chain that was written anew with the key is found through a recorded head",
          "[audit]") {
  const auto chain = MakeChain("store", 100);
  std::vector<Stored> forged = MakeChain("store", 49);
  crypto::Hash previous = forged.back().hash;
  for (std::uint64_t seq = 50; seq <= 120; ++seq) {
    Stored row{seq, {}, {}};
    EncodeEvent(ReadEvent(seq + 1000), &row.event);
    row.hash = previous = crypto::ChainHash(TestKey(), previous, "store", seq, row.event);
    forged.push_back(row);
  }
  CHECK(Check(forged).empty());
  const auto damage = Check(forged, HeadOf(chain, 80));
  REQUIRE(damage.size() == 1);
  CHECK(damage[0].seq == 80);
}

TEST_CASE("A chain of one name does not pass for another, nor under another key", "[audit]") {
  const auto chain = MakeChain("access:test", 3);
  CHECK(Check(chain).size() == 1);
  ByteArray<32> bytes;
  bytes.fill(1);
  const crypto::AuditKey other = crypto::AuditKey::FromBytes(bytes).value();
  ChainVerifier verifier(other, "access:test", {});
  CHECK_FALSE(verifier.Add(1, chain[0].event, chain[0].hash));
}

TEST_CASE(
    "Heads recorded in one chain are handed out, and an accepted rollback takes back the later "
    "ones",
    "[audit]") {
  const auto other = MakeChain("store", 50);
  std::vector<Event> events{HeadEvent(EventType::kHeads, "store", other[9]),
                            HeadEvent(EventType::kHeads, "store", other[29]),
                            HeadEvent(EventType::kHeads, "store", other[49])};
  const bool rolled_back = GENERATE(false, true);
  if (rolled_back) events.push_back(HeadEvent(EventType::kRollbackAccepted, "store", other[19]));
  ChainVerifier verifier(TestKey(), "access:test", {});
  crypto::Hash previous{};
  for (std::uint64_t seq = 1; seq <= events.size(); ++seq) {
    ByteVector encoded;
    EncodeEvent(events[seq - 1], &encoded);
    previous = crypto::ChainHash(TestKey(), previous, "access:test", seq, encoded);
    REQUIRE(verifier.Add(seq, encoded, previous));
  }
  const ExpectedHeads& heads = verifier.RecordedHeads("store");
  CHECK(verifier.RecordedHeads("access:other").empty());
  std::vector<std::uint64_t> seqs;
  for (const auto& [seq, head] : heads) seqs.push_back(seq);
  CHECK(seqs == (rolled_back ? std::vector<std::uint64_t>{10, 20}
                             : std::vector<std::uint64_t>{10, 30, 50}));
  CHECK(heads.at(10).hash == other[9].hash);
  CHECK(heads.at(10).source == "record 1 of access:test");
}

namespace {

// 300 records over four small segments, then closed.
ChainHead MakeSpool(const ScratchDir& dir) {
  auto log = AccessLog::Open(TestKey(), SmallLog(dir.path(), 8));
  REQUIRE(log.has_value());
  // More than the reserve holds is appended while the sync thread tops it up: 600 records need 8
  // segments.
  for (std::uint64_t i = 0; i < 300; i += 10) AppendReads(**log, i, 10);
  return (*log)->Last().head;
}

std::vector<Damage> CheckSpool(const ScratchDir& dir, const ExpectedHeads& expected) {
  ChainVerifier verifier(TestKey(), "access:test", expected);
  Result<std::vector<Damage>> damage = ReadSpool(
      {dir.path()}, "access:test",
      [&](std::uint64_t seq, Bytes event, Bytes hash) { return verifier.Add(seq, event, hash); });
  REQUIRE(damage.has_value());
  if (damage->empty()) verifier.Finish();
  damage->insert(damage->end(), verifier.damage().begin(), verifier.damage().end());
  return *damage;
}

}  // namespace

TEST_CASE("Any one flipped bit of the spool's used bytes is found", "[audit]") {
  const ScratchDir dir;
  const ChainHead head = MakeSpool(dir);
  ExpectedHeads expected;
  expected[head.seq] = ExpectedHead{head.hash, "the anchor"};
  REQUIRE(CheckSpool(dir, expected).empty());
  for (int round = 0; round < 150; ++round) {
    const std::string path =
        dir.File(spool::SegmentName(static_cast<std::uint32_t>(1 + Random(3))));
    const ByteVector good = ReadFile(path);
    ByteVector bad = good;
    const std::size_t at = Random(spool::UsedBytes(good));
    bad[at] ^= static_cast<std::uint8_t>(1 << Random(8));
    WriteFile(path, bad);
    CAPTURE(path, at);
    const std::vector<Damage> damage = CheckSpool(dir, expected);
    REQUIRE_FALSE(damage.empty());
    REQUIRE(damage[0].chain == "access:test");
    WriteFile(path, good);
  }
}

TEST_CASE("A record cut out of, moved in or repeated in the spool file is found at its position",
          "[audit]") {
  const ScratchDir dir;
  const ChainHead head = MakeSpool(dir);
  ExpectedHeads expected;
  expected[head.seq] = ExpectedHead{head.hash, "record 4 of store"};
  const std::string path = dir.File(spool::SegmentName(2));
  const ByteVector good = ReadFile(path);
  std::vector<std::size_t> offsets{spool::kHeaderBytes};
  spool::Record record;
  while (spool::ReadRecord(good, offsets.back(), &record) == spool::RecordState::kRecord)
    offsets.push_back(record.end);
  const std::uint64_t before = spool::ParseHeader(good)->before.seq;
  const auto record_bytes = [&](std::size_t i) {
    return ByteVector(good.begin() + static_cast<std::ptrdiff_t>(offsets[i]),
                      good.begin() + static_cast<std::ptrdiff_t>(offsets[i + 1]));
  };
  const std::string how = GENERATE("remove", "swap", "repeat");
  CAPTURE(how);
  ByteVector changed(good.begin(), good.begin() + spool::kHeaderBytes);
  for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
    std::size_t source = i;
    if (how == "swap" && (i == 5 || i == 6)) source = 11 - i;
    const ByteVector bytes = record_bytes(source);
    if (!(how == "remove" && i == 5)) changed.insert(changed.end(), bytes.begin(), bytes.end());
    if (how == "repeat" && i == 5) changed.insert(changed.end(), bytes.begin(), bytes.end());
  }
  changed.resize(good.size());
  WriteFile(path, changed);
  const std::vector<Damage> damage = CheckSpool(dir, expected);
  REQUIRE_FALSE(damage.empty());
  CHECK(damage[0].seq == before + (how == "repeat" ? 7 : 6));
}

TEST_CASE("A segment that is gone is named, and found again in an archive directory", "[audit]") {
  const ScratchDir dir;
  const ScratchDir archive;
  const ChainHead head = MakeSpool(dir);
  ExpectedHeads expected;
  expected[head.seq] = ExpectedHead{head.hash, "the anchor"};
  const std::string name = spool::SegmentName(GENERATE(as<std::uint32_t>{}, 1, 2));
  std::filesystem::rename(dir.File(name), archive.File(name));
  const std::vector<Damage> damage = CheckSpool(dir, expected);
  REQUIRE_FALSE(damage.empty());
  CHECK_THAT(damage[0].what, Catch::Contains("missing"));

  ChainVerifier verifier(TestKey(), "access:test", expected);
  const auto with_archive = ReadSpool(
      {archive.path(), dir.path()}, "access:test",
      [&](std::uint64_t seq, Bytes event, Bytes hash) { return verifier.Add(seq, event, hash); });
  verifier.Finish();
  CHECK(with_archive->empty());
  CHECK(verifier.damage().empty());
}

TEST_CASE("A good copy of a segment does not hide what was done to another", "[audit]") {
  const ScratchDir dir;
  const ScratchDir archive;
  const ChainHead head = MakeSpool(dir);
  const auto damage = [&] {
    ChainVerifier verifier(TestKey(), "access:test", {});
    const auto files = ReadSpool(
        {archive.path(), dir.path()}, "access:test",
        [&](std::uint64_t seq, Bytes event, Bytes hash) { return verifier.Add(seq, event, hash); });
    REQUIRE(files.has_value());
    if (files->empty() && verifier.damage().empty()) CHECK(verifier.records() == head.seq);
    return files->size() + verifier.damage().size();
  };
  const std::string live = dir.File("access-000001.spool");
  const std::string copy = archive.File("access-000001.spool");
  const ByteVector good = ReadFile(live);
  WriteFile(copy, good);
  CHECK(damage() == 0);
  // Copied while it grew: shorter, and as good.
  spool::Record record;
  REQUIRE(spool::ReadRecord(good, spool::kHeaderBytes, &record) == spool::RecordState::kRecord);
  ByteVector shorter = good;
  std::fill(shorter.begin() + static_cast<std::ptrdiff_t>(record.end), shorter.end(),
            std::uint8_t{0});
  WriteFile(copy, shorter);
  CHECK(damage() == 0);
  ByteVector changed = good;
  changed[spool::kHeaderBytes + 60] ^= 1;
  SECTION("to the live one") {
    WriteFile(copy, good);
    WriteFile(live, changed);
  }
  SECTION("to the archived one") {
    WriteFile(copy, changed);
  }
  CHECK(damage() >= 1);
}

TEST_CASE("A spool that is being written verifies at every moment", "[audit]") {
  const ScratchDir dir;
  AccessLogOptions options = SmallLog(dir.path());
  options.segment_bytes = 256 * 1024;
  options.reserve_bytes = 8 * 1024 * 1024;
  const auto log = AccessLog::Open(TestKey(), options);
  REQUIRE(log.has_value());
  std::jthread writer([&](const std::stop_token& stop) {
    EventBatch batch;
    for (std::uint64_t i = 0; !stop.stop_requested() && i < 20'000; i += 5) {
      batch.Clear();
      for (std::uint64_t j = 0; j < 5; ++j) batch.Add(ReadEvent(i + j));
      if (!(*log)->Append(batch)) return;
    }
  });
  for (int round = 0; round < 10; ++round) {
    const ChainHead head = (*log)->Last().head;
    ExpectedHeads expected;
    if (head.seq != 0) expected[head.seq] = ExpectedHead{head.hash, "the log itself"};
    for (const Damage& damage : CheckSpool(dir, expected)) FAIL(damage.what);
  }
}

}  // namespace latchkey::audit
