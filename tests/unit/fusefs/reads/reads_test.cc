#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <thread>

#include "common/base/clock.h"
#include "fusefs/journal/region.h"
#include "fusefs/reads/ring.h"

using namespace latchkey;
using namespace latchkey::reads;

namespace {

journal::Region NewRegion() {
  auto region = journal::Region::Create();
  REQUIRE(region.has_value());
  return std::move(region).value();
}

std::vector<std::string> Drain(const journal::Region& region, std::size_t limit = 1'000'000) {
  std::vector<std::string> lines;
  DrainReads(
      region, [](std::uint32_t node) { return node == 40 ? "db \"x\"" : std::string(); },
      [&](const std::string& line) {
        if (lines.size() == limit) return false;
        lines.push_back(line);
        return true;
      });
  return lines;
}

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
  CHECK(Drain(region).size() == journal::kRecordsPerSlot);
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
  CHECK(Drain(region).size() == journal::kRecordsPerSlot * journal::kSlots);
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
