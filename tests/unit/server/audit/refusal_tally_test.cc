#include "server/audit/refusal_tally.h"

#include <sys/resource.h>

#include <catch2/catch.hpp>
#include <csignal>
#include <thread>

#include "common/model/limits.h"
#include "server/audit/verify.h"
#include "tests/support/clocks.h"
#include "tests/unit/server/audit/audit_fixture.h"

namespace latchkey::audit {
namespace {

// Who was refused, how often, by what the log holds.
using Totals = std::map<std::tuple<std::string, std::string, std::string>, std::uint64_t>;

// Room for what the tests write, without waiting for the thread that adds more.
AccessLogOptions RoomyLog(const std::string& directory) {
  AccessLogOptions options = SmallLog(directory);
  options.segment_bytes = 1024 * 1024;
  options.reserve_bytes = 16 * options.segment_bytes;
  return options;
}

class Door {
 public:
  Door() : log_(AccessLog::Open(TestKey(), RoomyLog(dir_.path())).value()), tally_(clock_) {}

  void Refuse(std::string_view address, std::string_view name = "",
              std::string_view reason = "no_certificate") {
    Event event;
    event.type = EventType::kAuthRefused;
    event.outcome = Outcome::kDenied;
    event.time_ns = clock_.Nanoseconds();
    event.address = address;
    event.actor_name = name;
    event.detail = reason;
    ++refused_;
    if (!tally_.IsWrittenSingly(event)) return;
    EventBatch batch;
    batch.Add(event);
    REQUIRE(log_->Append(batch).has_value());
  }

  std::vector<AccessLog::StoredEvent> Records() const { return log_->Read(0, 100'000).value(); }
  Totals Logged() const {
    Totals totals;
    for (const auto& record : Records()) {
      const Event event = DecodeEvent(record.event).value();
      REQUIRE(event.outcome == Outcome::kDenied);
      if (event.type == EventType::kAuthRefused) REQUIRE(event.count == 0);
      if (event.type == EventType::kAuthRefusedMany) REQUIRE(event.count > 0);
      totals[{std::string(event.address), std::string(event.actor_name),
              std::string(event.detail)}] += std::max<std::uint64_t>(event.count, 1);
    }
    return totals;
  }
  std::uint64_t LoggedInAll() const {
    std::uint64_t sum = 0;
    for (const auto& entry : Logged()) sum += entry.second;
    return sum;
  }
  std::vector<Event> Counted(std::vector<AccessLog::StoredEvent>* keep) const {
    *keep = Records();
    std::vector<Event> counted;
    for (const auto& record : *keep) {
      const Event event = DecodeEvent(record.event).value();
      if (event.type == EventType::kAuthRefusedMany) counted.push_back(event);
    }
    return counted;
  }

  testing::ManualClock& clock() { return clock_; }
  RefusalTally& tally() { return tally_; }
  AccessLog& log() { return *log_; }
  std::uint64_t refused() const { return refused_; }
  const ScratchDir& dir() const { return dir_; }

 private:
  ScratchDir dir_;
  testing::ManualClock clock_;
  std::unique_ptr<AccessLog> log_;
  RefusalTally tally_;
  std::uint64_t refused_ = 0;
};

}  // namespace

TEST_CASE("The first refusals of a window are records, the rest one count with both its times",
          "[audit]") {
  Door door;
  const std::int64_t begin = door.clock().Nanoseconds();
  for (int i = 0; i < 1000; ++i) {
    door.Refuse("192.0.2.1");
    door.clock().Advance(std::chrono::milliseconds(10));
  }
  CHECK(door.Records().size() == limits::kRefusalsWrittenSingly);
  // Its window has not ended: nothing is due.
  REQUIRE(door.tally().WriteEnded(door.log()).has_value());
  CHECK(door.Records().size() == limits::kRefusalsWrittenSingly);
  door.clock().Advance(limits::kRefusalWindow);
  REQUIRE(door.tally().WriteEnded(door.log()).has_value());
  std::vector<AccessLog::StoredEvent> keep;
  const std::vector<Event> counted = door.Counted(&keep);
  REQUIRE(counted.size() == 1);
  CHECK(counted[0].count == 1000 - limits::kRefusalsWrittenSingly);
  CHECK(counted[0].address == "192.0.2.1");
  CHECK(counted[0].detail == "no_certificate");
  CHECK(counted[0].since_ns == begin + limits::kRefusalsWrittenSingly * 10'000'000LL);
  CHECK(counted[0].time_ns == begin + 999 * 10'000'000LL);
  // The next window begins anew.
  door.Refuse("192.0.2.1");
  CHECK(door.Records().size() == keep.size() + 1);
}

TEST_CASE("A few refusals per window are never counted, however long it goes on", "[audit]") {
  Door door;
  for (int i = 0; i < 50; ++i) {
    for (std::uint32_t j = 0; j < limits::kRefusalsWrittenSingly; ++j) door.Refuse("192.0.2.1");
    door.clock().Advance(limits::kRefusalWindow);
    if (i % 2 == 0) REQUIRE(door.tally().WriteEnded(door.log()).has_value());
  }
  CHECK(door.Records().size() == door.refused());
  CHECK(door.tally().Stats().counted == 0);
}

TEST_CASE("Addresses, reasons and certified names are told apart", "[audit]") {
  Door door;
  for (int i = 0; i < 100; ++i) {
    door.Refuse("192.0.2.1");
    door.Refuse("192.0.2.2");
    door.Refuse("192.0.2.1", "web-1", "client_disabled");
    door.Refuse("192.0.2.1", "web-2", "client_disabled");
    door.Refuse("192.0.2.1", "web-2", "unknown_client");
  }
  REQUIRE(door.tally().WriteAll(door.log()).has_value());
  const Totals totals = door.Logged();
  CHECK(totals.size() == 5);
  for (const auto& entry : totals) CHECK(entry.second == 100);
  CHECK(totals.count({"192.0.2.1", "web-2", "client_disabled"}) == 1);
}

TEST_CASE("Beyond the bound of sources refusals go into one, and no certified name among them",
          "[audit]") {
  Door door;
  const std::size_t strangers = 3 * limits::kMaxRefusalSources;
  for (int round = 0; round < 10; ++round) {
    for (std::size_t i = 0; i < strangers; ++i) door.Refuse("2001:db8::" + std::to_string(i));
    // A table full of strangers does not push out who has a certificate.
    door.Refuse("192.0.2.9", "web-1", "client_disabled");
  }
  REQUIRE(door.tally().WriteAll(door.log()).has_value());
  CHECK(door.LoggedInAll() == door.refused());
  const Totals totals = door.Logged();
  CHECK(totals.at({"192.0.2.9", "web-1", "client_disabled"}) == 10);
  const std::uint64_t others = totals.at({std::string(kOtherAddresses), "", "no_certificate"});
  CHECK(others + limits::kRefusalsWrittenSingly == 10 * (strangers - limits::kMaxRefusalSources));
  // What they cost: a few records per source, and the counts.
  CHECK(door.Records().size() <=
        (limits::kMaxRefusalSources + 2) * (limits::kRefusalsWrittenSingly + 1));
}

TEST_CASE("One certified name at many addresses does not take the names of others", "[audit]") {
  Door door;
  for (std::size_t i = 0; i < 3 * limits::kMaxRefusalSources; ++i)
    door.Refuse("2001:db8::" + std::to_string(i), "roamer", "unknown_client");
  for (int i = 0; i < 10; ++i) door.Refuse("192.0.2.9", "web-1", "unknown_client");
  // Too many names: each may have its own source no longer, and all are counted.
  for (std::size_t i = 0; i < 3 * limits::kMaxRefusalSources; ++i)
    door.Refuse("192.0.2.10", "name-" + std::to_string(i), "unknown_client");
  REQUIRE(door.tally().WriteAll(door.log()).has_value());
  CHECK(door.LoggedInAll() == door.refused());
  const Totals totals = door.Logged();
  const auto counted = [&](const char* name) {
    const auto found = totals.find({std::string(kOtherAddresses), name, "unknown_client"});
    return found == totals.end() ? 0 : found->second;
  };
  CHECK(counted("web-1") == 10 - limits::kRefusalsWrittenSingly);
  CHECK(counted("roamer") > 0);
  CHECK(counted("") > 0);
  CHECK(totals.size() < 3 * limits::kMaxRefusalSources + 100);
}

TEST_CASE("Singles and counts add up to every refusal there was, whatever the order", "[audit]") {
  Door door;
  std::mt19937_64 rng(Catch::rngSeed());
  const char* const reasons[] = {"no_certificate", "unknown_client", "doubtful_certificate_names"};
  for (int i = 0; i < 20'000; ++i) {
    const std::string address = "192.0.2." + std::to_string(rng() % 400);
    door.Refuse(address, rng() % 3 == 0 ? "web-" + std::to_string(rng() % 300) : "",
                reasons[rng() % 3]);
    if (rng() % 50 == 0) door.clock().Advance(std::chrono::seconds(rng() % 40));
    if (rng() % 100 == 0) REQUIRE(door.tally().WriteEnded(door.log()).has_value());
  }
  REQUIRE(door.tally().WriteAll(door.log()).has_value());
  CHECK(door.tally().Stats().pending == 0);
  CHECK(door.LoggedInAll() == door.refused());
  REQUIRE(door.tally().WriteAll(door.log()).has_value());  // nothing twice
  CHECK(door.LoggedInAll() == door.refused());
}

TEST_CASE("A count that cannot be written is kept and written later, once", "[audit]") {
  Door door;
  for (int i = 0; i < 100; ++i) door.Refuse("192.0.2.1");
  struct rlimit before {};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  REQUIRE(std::signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
  struct rlimit full = before;
  full.rlim_cur = 1;
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &full) == 0);
  const Status failed = door.tally().WriteAll(door.log());
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
  REQUIRE_FALSE(failed.has_value());
  CHECK(door.tally().Stats().pending == 100 - limits::kRefusalsWrittenSingly);
  door.Refuse("192.0.2.1");
  REQUIRE(door.tally().WriteAll(door.log()).has_value());
  CHECK(door.LoggedInAll() == door.refused());
}

TEST_CASE("Threads that refuse while counts are written lose none", "[audit]") {
  Door door;
  constexpr int kThreads = 4, kEach = 5000;
  std::atomic<std::uint64_t> singly{0};
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&door, &singly, t] {
        Event event;
        event.type = EventType::kAuthRefused;
        event.outcome = Outcome::kDenied;
        const std::string address = "192.0.2." + std::to_string(t % 2);
        event.address = address;
        for (int i = 0; i < kEach; ++i) singly += door.tally().IsWrittenSingly(event) ? 1 : 0;
      });
    }
    for (int i = 0; i < 200; ++i) REQUIRE(door.tally().WriteAll(door.log()).has_value());
  }
  REQUIRE(door.tally().WriteAll(door.log()).has_value());
  CHECK(door.LoggedInAll() + singly == std::uint64_t{kThreads} * kEach);
  ChainVerifier verifier(TestKey(), "access:test", {});
  const auto files = ReadSpool(
      {door.dir().path()}, "access:test",
      [&](std::uint64_t seq, Bytes event, Bytes hash) { return verifier.Add(seq, event, hash); });
  CHECK(files->empty());
  CHECK(verifier.damage().empty());
}

}  // namespace latchkey::audit
