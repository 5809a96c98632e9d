#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <thread>

#include "common/base/clock.h"
#include "common/model/limits.h"
#include "fusefs/journal/region.h"
#include "fusefs/reads/ring.h"
#include "tests/support/clocks.h"

using namespace latchkey;
using namespace latchkey::reads;

namespace {

journal::Region NewRegion() {
  auto region = journal::Region::Create();
  REQUIRE(region.has_value());
  return std::move(region).value();
}

std::string NameOf(std::uint32_t node) {
  return node == 40 ? "db \"x\"" : std::string();
}

// Each call is a new consumer, as after the death of a worker.
std::vector<std::string> Drain(const journal::Region& region, std::size_t limit = 1'000'000,
                               const Clock& clock = SystemClock()) {
  std::vector<std::string> lines;
  ReadTally tally(region, clock);
  DrainReads(
      region, NameOf,
      [&](const std::string& line) {
        if (lines.size() == limit) return false;
        lines.push_back(line);
        return true;
      },
      &tally);
  return lines;
}

std::vector<std::string> Rest(const journal::Region& region) {
  std::vector<std::string> lines;
  ReadTally tally(region, SystemClock());
  CHECK(DrainAll(
            region, NameOf,
            [&](const std::string& line) {
              lines.push_back(line);
              return true;
            },
            &tally) == 0);
  return lines;
}

std::uint64_t NumberAfter(const std::string& line, const std::string& key, std::uint64_t absent) {
  const auto at = line.find("\"" + key + "\":");
  return at == std::string::npos ? absent : std::stoull(line.substr(at + key.size() + 3));
}

std::uint64_t Opens(const std::vector<std::string>& lines) {
  std::uint64_t sum = 0;
  for (const auto& line : lines) sum += NumberAfter(line, "count", 1);
  return sum;
}

std::vector<std::string> With(const std::vector<std::string>& lines, const std::string& text) {
  std::vector<std::string> found;
  for (const auto& line : lines)
    if (line.find(text) != std::string::npos) found.push_back(line);
  return found;
}

std::size_t BytesOf(const std::vector<std::string>& lines) {
  std::size_t sum = 0;
  for (const auto& line : lines) sum += line.size();
  return sum;
}

// A ring as it runs: what is written is drained before it is full. Returns the lines.
class Flood {
 public:
  explicit Flood(const journal::Region& region) : region_(region), writer_(region, 0) {}
  void Open(std::uint32_t uid, std::uint32_t node = 40, std::uint64_t version = 3) {
    if (writer_.full()) Take();
    REQUIRE(writer_.Append(node, version, ++request_, {uid, uid, 0}));
  }
  void Take() {
    for (auto& line : Drain(region_, 1'000'000, clock)) lines.push_back(std::move(line));
  }
  testing::ManualClock clock;
  std::vector<std::string> lines;

 private:
  const journal::Region& region_;
  ReadWriter writer_;
  std::uint64_t request_ = 0;
};

const Reader kNobody{1000, 1001, 0};

}  // namespace

TEST_CASE("an open becomes one JSON line with escaped names", "[reads]") {
  const auto region = NewRegion();
  ReadWriter writer(region, 0);
  REQUIRE(writer.Append(40, 3, 1, kNobody));
  const auto lines = Drain(region);
  REQUIRE(lines.size() == 1);
  CHECK(lines[0].find(R"(","secret":"db \"x\"","version":3,"uid":1000,"gid":1001,"pid":0})") !=
        std::string::npos);
  CHECK(lines[0].rfind(R"({"time":"20)", 0) == 0);
  CHECK(Drain(region).empty());
}

TEST_CASE("a replayed request is recorded once", "[reads]") {
  const auto region = NewRegion();
  ReadWriter writer(region, 0);
  REQUIRE(writer.Append(40, 3, 7, kNobody));
  REQUIRE(ReadWriter(region, 0).Append(40, 3, 7, kNobody));
  REQUIRE(writer.Append(40, 3, 8, kNobody));
  CHECK(Drain(region).size() == 2);
}

TEST_CASE("a full ring drops, counts, and never overwrites", "[reads]") {
  const auto region = NewRegion();
  ReadWriter writer(region, 2);
  for (std::uint64_t request = 1; request <= journal::kRecordsPerSlot; ++request)
    REQUIRE(writer.Append(41, request, request, kNobody));
  CHECK(writer.full());
  CHECK_FALSE(writer.Append(41, 0, 99'999, kNobody));
  CHECK(DroppedRecords(region) == 1);
  const auto lines = Drain(region, 1);
  REQUIRE(lines.size() == 1);
  CHECK(lines[0].find(R"("secret":"#41","version":1,)") != std::string::npos);
  CHECK_FALSE(writer.full());
  CHECK(writer.Append(41, 5, 100'000, kNobody));
  CHECK(Opens(Drain(region)) + Opens(Rest(region)) == journal::kRecordsPerSlot);
}

TEST_CASE("a line that the sink does not take is offered again", "[reads]") {
  const auto region = NewRegion();
  ReadWriter writer(region, 0);
  REQUIRE(writer.Append(40, 1, 1, kNobody));
  CHECK(Drain(region, 0).empty());
  CHECK(Drain(region).size() == 1);
}

TEST_CASE("records of several threads come out by time", "[reads]") {
  const auto region = NewRegion();
  ReadWriter first(region, 0);
  ReadWriter second(region, 1);
  for (std::uint64_t i = 1; i <= 50; ++i)
    REQUIRE((i % 3 == 0 ? second : first).Append(40, i, i, kNobody));
  const auto lines = Drain(region);
  REQUIRE(lines.size() == 50);
  for (std::size_t i = 0; i < lines.size(); ++i)
    CHECK(lines[i].find("\"version\":" + std::to_string(i + 1) + ",") != std::string::npos);
}

TEST_CASE("the caller is looked up while it lives, and never mistaken for a later process",
          "[reads]") {
  const auto region = NewRegion();
  ReadWriter writer(region, 0);
  REQUIRE(writer.Append(40, 1, 1, {0, 0, static_cast<std::uint32_t>(getpid())}));
  const auto lines = Drain(region);
  REQUIRE(lines.size() == 1);
  CHECK(lines[0].find("\"comm\":\"fusefs_reads") != std::string::npos);
  CHECK(lines[0].find("\"exe\":\"/") != std::string::npos);
  CHECK(lines[0].find("\"cgroup\":\"") != std::string::npos);
  // Recorded long before this process started: the number must have belonged to another one.
  REQUIRE(writer.Append(40, 1, 2, {0, 0, static_cast<std::uint32_t>(getpid())}));
  region.layout().reads[0].records[1].time_ns -= 3'600'000'000'000ULL * 24;
  const auto old = Drain(region);
  REQUIRE(old.size() == 1);
  CHECK(old[0].find("\"comm\"") == std::string::npos);
  CHECK(old[0].find("\"exe\"") == std::string::npos);
}

TEST_CASE("a head that a broken worker wrote is bounded", "[reads]") {
  const auto region = NewRegion();
  region.layout().reads[0].head.store(~0ULL);
  CHECK(Opens(Drain(region)) + ReadTally(region, SystemClock()).Pending() ==
        journal::kRecordsPerSlot * journal::kSlots);
  region.layout().reads[0].tail.store(5);
  region.layout().reads[0].head.store(3);
  CHECK(Drain(region).empty());
}

TEST_CASE("the consumer takes what is there before it ends", "[reads]") {
  const auto region = NewRegion();
  ReadWriter writer(region, 0);
  int lines = 0;
  {
    ReadConsumer consumer(
        region, [](std::uint32_t) { return std::string("x"); },
        [&](const std::string&) {
          ++lines;
          return true;
        },
        std::chrono::hours(1));
    for (std::uint64_t i = 1; i <= 10; ++i) REQUIRE(writer.Append(40, i, i, kNobody));
  }
  CHECK(lines == 10);
}

TEST_CASE("whoever opens without end pushes nobody's record out, and is counted exactly",
          "[reads]") {
  const auto region = NewRegion();
  Flood flood(region);
  flood.Open(0);
  for (int i = 0; i < 150'000; ++i) flood.Open(65'534, 41, 1 + i % 2);
  flood.Open(1000);
  flood.Take();
  CHECK(With(flood.lines, "\"uid\":0,").size() == 1);
  CHECK(With(flood.lines, "\"uid\":1000,").size() == 1);
  CHECK(BytesOf(flood.lines) < limits::kReadShareBytes + 4096);
  CHECK(With(flood.lines, "\"count\"").empty());

  flood.clock.Advance(limits::kReadWindow);
  flood.Take();
  const auto counts = With(flood.lines, "\"count\"");
  REQUIRE(counts.size() == 2);
  for (const auto& line : counts) {
    CHECK(line.rfind(R"({"time":"20)", 0) == 0);
    CHECK(line.find(R"(Z","since":"20)") != std::string::npos);
    CHECK(line.find(R"(,"secret":"#41","version":)") != std::string::npos);
    CHECK(line.substr(line.find("\"uid\"")) == "\"uid\":65534}");
  }
  CHECK(Opens(With(flood.lines, "\"uid\":65534")) == 150'000);

  // The next window begins with lines again.
  flood.lines.clear();
  flood.Open(65'534);
  flood.Take();
  REQUIRE(flood.lines.size() == 1);
  CHECK(flood.lines[0].find("\"count\"") == std::string::npos);
}

TEST_CASE("uids without end take one share together, and none from the accounts of the host",
          "[reads]") {
  const auto region = NewRegion();
  Flood flood(region);
  constexpr std::uint32_t kUids = 65'536;
  for (std::uint32_t i = 0; i < kUids; ++i)
    for (int again = 0; again < 3; ++again) flood.Open(100'000 + i, 100 + i % 1000);
  for (int i = 0; i < 3; ++i) flood.Open(1000);
  flood.Take();
  CHECK(With(flood.lines, "\"uid\":1000,").size() == 3);
  CHECK(BytesOf(flood.lines) < (limits::kMaxReadShares + 1) * (limits::kReadShareBytes + 4096));
  flood.clock.Advance(limits::kReadWindow);
  flood.Take();
  CHECK(Opens(flood.lines) == 3 * kUids + 3);
  CHECK(With(flood.lines, "\"count\"").size() <= limits::kMaxReadCounts);
  CHECK(With(flood.lines, "\"version\":3,\"uid\":null}").size() > 100);
  CHECK(With(flood.lines, R"("secret":null,"version":null,"uid":null})").size() == 1);
}

TEST_CASE("counts survive their consumer, wait for a sink that refuses, and end with the mount",
          "[reads]") {
  const auto region = NewRegion();
  Flood flood(region);
  for (int i = 0; i < 5000; ++i) flood.Open(7);
  flood.Take();
  const std::uint64_t written = flood.lines.size();
  CHECK(written < 5000);
  flood.clock.Advance(limits::kReadWindow);
  flood.Open(8);
  // Nothing is taken while the count is not: with audit_required the ring must fill.
  CHECK(Drain(region, 0, flood.clock).empty());
  CHECK(WaitingRecords(region) == 1);
  const auto rest = Rest(region);
  CHECK(WaitingRecords(region) == 0);
  CHECK(Opens(With(rest, "\"uid\":7}")) == 5000 - written);
  CHECK(With(rest, "\"uid\":8,").size() == 1);
}
