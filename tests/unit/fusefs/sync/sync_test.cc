#include <sys/mman.h>
#include <unistd.h>
#include <catch2/catch.hpp>

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <thread>

#include "common/base/unique_fd.h"
#include "fusefs/snapshot/snapshot.h"
#include "fusefs/snapshot/store.h"
#include "fusefs/sync/syncer.h"
#include "tests/support/clocks.h"

using namespace latchkey;
using namespace latchkey::sync;

namespace {

struct Held {
  std::string content;
  Metadata metadata;
  std::uint64_t version = 1;
};

// A server in memory: what it grants, what it was asked, what shall go wrong.
class FakeServer final : public Source {
 public:
  std::map<std::string, Held> granted;
  std::map<std::string, Held> hidden_from_listing;  // granted, but the listing forgets them
  std::vector<std::string> changed_next, gone_next;
  std::uint64_t generation = 7;
  bool has_feed = true, reset_next = false, down = false;
  std::size_t most_names = 1000;
  std::set<std::string> broken;       // the server answers 500 for these
  std::set<std::string> unreachable;  // and is gone when it is asked for one of these alone
  std::optional<std::uint64_t> acknowledged;
  std::vector<std::string> fetched;
  int listings = 0;

  Result<std::vector<client::DeliveredSecret>> Listing() override {
    if (down) return Down();
    ++listings;
    std::vector<client::DeliveredSecret> out;
    for (const auto& [name, held] : granted) out.push_back(Deliver(name, held, false));
    return out;
  }
  Result<std::vector<client::DeliveredSecret>> Batch(
      const std::vector<std::string>& names) override {
    if (down) return Down();
    if (names.size() > most_names) return Error{Errc::kTooLarge, "batch too large"};
    std::vector<client::DeliveredSecret> out;
    for (const auto& name : names) {
      const auto found = granted.find(name);
      if (found == granted.end()) return Error{Errc::kForbidden, "not granted"};
      if (broken.count(name) != 0) return Error{Errc::kInternal, "HTTP 500"};
      fetched.push_back(name);
      out.push_back(Deliver(name, found->second, true));
    }
    return out;
  }
  Result<client::DeliveredSecret> One(const std::string& name) override {
    if (down || unreachable.count(name) != 0) return Down();
    for (const auto* held : {&granted, &hidden_from_listing}) {
      const auto found = held->find(name);
      if (found == held->end()) continue;
      if (broken.count(name) != 0) return Error{Errc::kInternal, "HTTP 500"};
      fetched.push_back(name);
      return Deliver(name, found->second, true);
    }
    return Error{Errc::kNotFound, "unknown"};
  }
  Result<client::ChangeSet> Changes(Generation since, std::chrono::seconds,
                                    std::optional<Generation> serving) override {
    if (down) return Down();
    if (serving) acknowledged = serving->value;
    if (!has_feed) return Error{Errc::kNotFound, "no feed"};
    client::ChangeSet out;
    out.generation = Generation{generation};
    out.reset = reset_next || since.value == 0;
    reset_next = false;
    if (out.reset) return out;
    for (const auto& name : changed_next)
      out.changed.push_back({name, granted[name].version, granted[name].content.size()});
    out.gone = gone_next;
    changed_next.clear();
    gone_next.clear();
    return out;
  }
  void Cancel() override {}
  void Rearm() override {}

 private:
  static Error Down() { return {Errc::kUnavailable, "server is down"}; }
  static client::DeliveredSecret Deliver(const std::string& name, const Held& held,
                                         bool with_content) {
    client::DeliveredSecret out;
    out.name = name;
    if (with_content) out.content = SecretBuffer::CopyOf(AsBytes(held.content)).value();
    out.checksum =
        std::to_string(std::hash<std::string>{}(held.content)) + "." + std::to_string(held.version);
    out.creation_date = out.update_date = "2026-11-24T10:00:00.000Z";
    if (with_content) out.version = held.version;
    out.metadata = held.metadata;
    return out;
  }
};

struct Mount {
  Mount() : fd(::memfd_create("content", MFD_CLOEXEC)) {
    REQUIRE(::ftruncate(fd.get(), static_cast<off_t>(snapshot::ContentMemoryBytes())) == 0);
    Restart();
  }
  void Restart() {  // what a new worker does
    syncer.reset();
    builder.reset();
    store.reset();
    store = snapshot::SnapshotStore::Attach(fd.get()).value();
    builder = std::make_unique<snapshot::SnapshotBuilder>(*store);
    syncer = std::make_unique<Syncer>(server, *builder, clock, SyncOptions{});
  }
  // Follows the server until a step failed.
  bool Fail() const {
    std::jthread running([&](const std::stop_token& stop) { syncer->Run(stop); });
    for (int i = 0; i < 5000 && syncer->health().stale_since_s == 0; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    running.request_stop();
    running.join();
    return syncer->health().stale_since_s != 0;
  }
  // One answer of the feed: these changed, as of that generation.
  void Change(std::uint64_t generation, std::vector<std::string> changed,
              std::vector<std::string> gone = {}) {
    server.generation = generation;
    server.changed_next = std::move(changed);
    server.gone_next = std::move(gone);
    REQUIRE(syncer->Step().has_value());
  }
  // What the server was told last: the next request says it.
  std::uint64_t Acknowledged() {
    REQUIRE(syncer->Step().has_value());
    return server.acknowledged.value_or(0);
  }
  bool StatusNames(const std::string& text) const {
    return syncer->StatusJson().find(text) != std::string::npos;
  }
  std::string Read(const std::string& name) const {
    const auto snapshot = store->Current();
    const auto* node = snapshot->Lookup(name);
    if (node == nullptr) return "<none>";
    std::vector<std::uint8_t> out(4096);
    std::size_t got = 0;
    const auto outcome = store->ReadVersion(store->HandleOf(node->record), snapshot::View::kContent,
                                            0, out, &got, snapshot::MonotonicNs());
    return outcome == snapshot::ReadOutcome::kOk
               ? std::string(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(got))
               : "<error>";
  }
  FakeServer server;
  testing::ShiftedClock clock;
  UniqueFd fd;
  std::unique_ptr<snapshot::SnapshotStore> store;
  std::unique_ptr<snapshot::SnapshotBuilder> builder;
  std::unique_ptr<Syncer> syncer;
};

}  // namespace

TEST_CASE("The first step mounts everything that is granted", "[sync]") {
  Mount mount;
  mount.server.granted = {{"a", {"alpha", {}}}, {"b", {"beta", {}}}};
  REQUIRE(mount.syncer->Step().has_value());
  CHECK(mount.Read("a") == "alpha");
  CHECK(mount.Read("b") == "beta");
  CHECK(mount.builder->server_generation() == 7);
  CHECK(mount.syncer->health().last_success_s > 0);
}

TEST_CASE("A client without any grant still gets a mount, an empty one", "[sync]") {
  Mount mount;
  REQUIRE(mount.syncer->Step().has_value());
  CHECK(mount.store->Current()->generation > 0);
  CHECK(mount.builder->Mounted().empty());
}

TEST_CASE("A change fetches only what changed, a revocation removes only its secret", "[sync]") {
  Mount mount;
  mount.server.granted = {{"a", {"alpha", {}}}, {"b", {"beta", {}}}};
  REQUIRE(mount.syncer->Step().has_value());
  mount.server.fetched.clear();
  mount.server.granted["a"] = {"alpha two", {}, 2};
  mount.server.changed_next = {"a"};
  mount.server.generation = 8;
  REQUIRE(mount.syncer->Step().has_value());
  CHECK(mount.Read("a") == "alpha two");
  CHECK(mount.server.fetched == std::vector<std::string>{"a"});
  CHECK(mount.server.listings == 1);

  mount.server.granted.erase("b");
  mount.server.gone_next = {"b"};
  mount.server.generation = 9;
  REQUIRE(mount.syncer->Step().has_value());
  CHECK(mount.Read("b") == "<none>");
  CHECK(mount.Read("a") == "alpha two");
  CHECK(mount.builder->server_generation() == 9);
}

TEST_CASE("A reset leads to a full listing, and what it lacks goes", "[sync][R3]") {
  Mount mount;
  mount.server.granted = {{"a", {"alpha", {}}}, {"b", {"beta", {}}}, {"c", {"gamma", {}}}};
  REQUIRE(mount.syncer->Step().has_value());
  mount.server.granted.erase("c");
  mount.server.reset_next = true;
  REQUIRE(mount.syncer->Step().has_value());
  REQUIRE(mount.syncer->Step().has_value());
  CHECK(mount.server.listings == 2);
  CHECK(mount.Read("c") == "<none>");
  CHECK(mount.Read("a") == "alpha");
}

TEST_CASE("A listing that lost most of its names is believed only name by name", "[sync][R13]") {
  Mount mount;
  mount.server.granted = {{"a", {"alpha", {}}}, {"b", {"beta", {}}}, {"c", {"gamma", {}}}};
  REQUIRE(mount.syncer->Step().has_value());
  std::swap(mount.server.granted, mount.server.hidden_from_listing);
  mount.server.hidden_from_listing.erase("c");  // this one is really gone
  mount.server.reset_next = true;
  REQUIRE(mount.syncer->Step().has_value());
  REQUIRE(mount.syncer->Step().has_value());
  CHECK(mount.Read("a") == "alpha");
  CHECK(mount.Read("b") == "beta");
  CHECK(mount.Read("c") == "<none>");
}

TEST_CASE("An outage changes nothing that is mounted and is told", "[sync][R3][R12]") {
  Mount mount;
  mount.server.granted = {{"a", {"alpha", {}}}};
  REQUIRE(mount.syncer->Step().has_value());
  mount.server.down = true;
  const Status failed = mount.syncer->Step();
  REQUIRE_FALSE(failed.has_value());
  CHECK(failed.error().code == Errc::kUnavailable);
  CHECK(mount.Read("a") == "alpha");
}

TEST_CASE("What the feed is silent about after an outage is found within a minute", "[sync]") {
  Mount mount;
  mount.server.granted = {{"a", {"alpha", {}}}, {"b", {"beta", {}}}};
  REQUIRE(mount.syncer->Step().has_value());
  mount.server.down = true;
  REQUIRE(mount.Fail());
  // Somebody has written to the server's change log meanwhile.
  mount.server.granted["a"] = {"alpha two", {}, 2};
  mount.server.granted.erase("b");
  mount.server.down = false;
  REQUIRE(mount.syncer->Step().has_value());
  REQUIRE(mount.syncer->health().stale_since_s == 0);
  mount.clock.Advance(std::chrono::seconds(61));
  REQUIRE(mount.syncer->Step().has_value());
  CHECK(mount.Read("a") == "alpha two");
  CHECK(mount.Read("b") == "<none>");
  const int listings = mount.server.listings;
  mount.clock.Advance(std::chrono::seconds(1));
  REQUIRE(mount.syncer->Step().has_value());
  CHECK(mount.server.listings == listings);
}

TEST_CASE("Without an outage it is found within an hour", "[sync]") {
  Mount mount;
  mount.server.granted = {{"a", {"alpha", {}}}};
  REQUIRE(mount.syncer->Step().has_value());
  mount.server.granted["a"] = {"alpha two", {}, 2};
  REQUIRE(mount.syncer->Step().has_value());
  CHECK(mount.Read("a") == "alpha");
  mount.clock.Advance(std::chrono::seconds(3601));
  REQUIRE(mount.syncer->Step().has_value());
  CHECK(mount.Read("a") == "alpha two");
}

TEST_CASE("A new worker takes over only what the listing confirms", "[sync]") {
  Mount mount;
  mount.server.granted = {{"a", {"alpha", {}}}, {"b", {"beta", {}}}};
  REQUIRE(mount.syncer->Step().has_value());
  mount.server.fetched.clear();
  mount.Restart();
  mount.server.granted["a"] = {"alpha two", {}, 2};  // and the feed says nothing
  REQUIRE(mount.syncer->Step().has_value());
  CHECK(mount.server.fetched == std::vector<std::string>{"a"});
  CHECK(mount.Read("a") == "alpha two");
}

TEST_CASE("One secret that went away meanwhile does not cost the others of its batch", "[sync]") {
  Mount mount;
  mount.server.granted = {{"a", {"alpha", {}}}, {"b", {"beta", {}}}};
  REQUIRE(mount.syncer->Step().has_value());
  mount.server.granted["a"] = {"alpha two", {}, 2};
  mount.server.granted["n"] = {"new", {}};
  mount.server.changed_next = {"a", "b", "n"};
  mount.server.generation = 8;
  // `b` is revoked between the feed's answer and the batch.
  struct Race final : Source {
    explicit Race(FakeServer& inner) : server(inner) {}
    FakeServer& server;
    Result<std::vector<client::DeliveredSecret>> Listing() override { return server.Listing(); }
    Result<std::vector<client::DeliveredSecret>> Batch(
        const std::vector<std::string>& names) override {
      server.granted.erase("b");
      return server.Batch(names);
    }
    Result<client::DeliveredSecret> One(const std::string& name) override {
      return server.One(name);
    }
    Result<client::ChangeSet> Changes(Generation g, std::chrono::seconds w,
                                      std::optional<Generation> s) override {
      return server.Changes(g, w, s);
    }
    void Cancel() override {}
    void Rearm() override {}
  } race(mount.server);
  Syncer syncer(race, *mount.builder, SystemClock(), SyncOptions{});
  REQUIRE(syncer.Step().has_value());
  CHECK(mount.Read("a") == "alpha two");
  CHECK(mount.Read("n") == "new");
  CHECK(mount.Read("b") == "<none>");
}

TEST_CASE("A generation is acknowledged once everything of it is served", "[sync]") {
  Mount mount;
  mount.server.granted = {{"a", {"alpha", {}}}, {"b", {"beta", {}}}};
  REQUIRE(mount.syncer->Step().has_value());
  CHECK(mount.Acknowledged() == 7);
  mount.server.granted["a"] = {"alpha two", {}, 2};
  mount.server.broken = {"a"};
  mount.Change(8, {"a"});
  CHECK(mount.Read("a") == "alpha");
  CHECK(mount.Acknowledged() == 7);
  CHECK(mount.StatusNames("HTTP 500"));
  // The feed goes on for the others.
  mount.server.granted["b"] = {"beta two", {}, 2};
  mount.Change(9, {"b"});
  CHECK(mount.Read("b") == "beta two");
  CHECK(mount.Acknowledged() == 7);
  mount.server.broken.clear();
  mount.clock.Advance(std::chrono::seconds(61));
  REQUIRE(mount.syncer->Step().has_value());
  CHECK(mount.Read("a") == "alpha two");
  CHECK(mount.Acknowledged() == 9);
  CHECK_FALSE(mount.StatusNames("HTTP 500"));
}

TEST_CASE("One that cannot be fetched is asked for less and less often", "[sync]") {
  struct Counting final : Source {
    explicit Counting(FakeServer& inner) : server(inner) {}
    FakeServer& server;
    int asked = 0;
    Result<std::vector<client::DeliveredSecret>> Listing() override { return server.Listing(); }
    Result<std::vector<client::DeliveredSecret>> Batch(
        const std::vector<std::string>& names) override {
      return server.Batch(names);
    }
    Result<client::DeliveredSecret> One(const std::string& name) override {
      ++asked;
      return server.One(name);
    }
    Result<client::ChangeSet> Changes(Generation g, std::chrono::seconds w,
                                      std::optional<Generation> s) override {
      return server.Changes(g, w, s);
    }
    void Cancel() override {}
    void Rearm() override {}
  };
  Mount mount;
  mount.server.granted = {{"a", {"alpha", {}}}};
  mount.server.broken = {"a"};
  Counting source(mount.server);
  Syncer syncer(source, *mount.builder, mount.clock, SyncOptions{});
  REQUIRE(syncer.Step().has_value());
  CHECK(source.asked == 1);
  REQUIRE(syncer.Step().has_value());
  CHECK(source.asked == 1);
  mount.clock.Advance(std::chrono::seconds(3));  // the first pause is at most two seconds
  REQUIRE(syncer.Step().has_value());
  CHECK(source.asked == 2);
  const auto within = [&](int minutes) {
    const int before = source.asked;
    for (int i = 0; i < minutes * 60; ++i) {
      mount.clock.Advance(std::chrono::seconds(1));
      REQUIRE(syncer.Step().has_value());
    }
    return source.asked - before;
  };
  CHECK(within(5) >= 8);
  const int later = within(10);  // a pause is now of 30 to 60 seconds
  CHECK(later >= 9);
  CHECK(later <= 21);
}

TEST_CASE("One that is not served is tried at once when another is gone, which may leave room",
          "[sync]") {
  Mount mount;
  mount.server.granted = {{"a", {"alpha", {}}}, {"b", {"beta", {}}}};
  mount.server.broken = {"a"};
  REQUIRE(mount.syncer->Step().has_value());
  CHECK(mount.Read("a") == "<none>");
  mount.server.broken.clear();
  mount.server.granted.erase("b");
  mount.Change(8, {}, {"b"});  // long before the next attempt
  CHECK(mount.Read("a") == "alpha");
  CHECK(mount.Acknowledged() == 8);
}

TEST_CASE("A secret that cannot be fetched and is revoked holds nothing back", "[sync]") {
  for (const bool by_listing : {false, true}) {
    Mount mount;
    mount.server.granted = {{"a", {"alpha", {}}}, {"b", {"beta", {}}}};
    mount.server.broken = {"b"};
    REQUIRE(mount.syncer->Step().has_value());
    CHECK(mount.Read("a") == "alpha");
    CHECK(mount.Acknowledged() == 0);
    mount.server.granted.erase("b");
    if (by_listing) {
      mount.clock.Advance(std::chrono::seconds(3601));
      mount.Change(8, {});
    } else {
      mount.Change(8, {}, {"b"});
    }
    CHECK(mount.Acknowledged() == 8);
    CHECK_FALSE(mount.StatusNames("HTTP 500"));
  }
}

TEST_CASE("A new worker does not acknowledge what its predecessor could not fetch", "[sync]") {
  Mount mount;
  mount.server.granted = {{"a", {"alpha", {}}}};
  REQUIRE(mount.syncer->Step().has_value());
  mount.server.granted["a"] = {"alpha two", {}, 2};
  mount.server.broken = {"a"};
  mount.Change(8, {"a"});
  CHECK(mount.Acknowledged() == 7);
  mount.Restart();
  REQUIRE(mount.syncer->Step().has_value());
  CHECK(mount.Acknowledged() == 7);
  mount.server.broken.clear();
  mount.clock.Advance(std::chrono::seconds(61));
  REQUIRE(mount.syncer->Step().has_value());
  CHECK(mount.Acknowledged() == 8);
}

TEST_CASE("Two that want one file name hold back their own generations and no later one",
          "[sync]") {
  Mount mount;
  mount.server.granted = {{"db", {"first", {}}}, {"healthy", {"well", {}}}};
  REQUIRE(mount.syncer->Step().has_value());
  CHECK(mount.Acknowledged() == 7);
  mount.server.granted["newcomer"] = {"second", {{"filename", "db"}}};
  mount.Change(8, {"newcomer"});
  CHECK(mount.Read("db") == "<none>");
  CHECK(mount.Acknowledged() == 7);
  CHECK(mount.StatusNames("\"db\""));
  CHECK(mount.StatusNames("\"newcomer\""));
  // Neither of the two is said to be served.
  mount.server.granted["db"] = {"first two", {}, 2};
  mount.Change(9, {"db"});
  CHECK(mount.Read("db") == "<none>");
  CHECK(mount.Acknowledged() == 7);
  mount.server.granted["healthy"] = {"well two", {}, 2};
  mount.Change(10, {"healthy"});
  CHECK(mount.Read("healthy") == "well two");
  CHECK(mount.Acknowledged() == 10);
  mount.server.granted["newcomer"] = {"second two", {{"filename", "db"}}, 2};
  mount.Change(11, {"newcomer"});
  CHECK(mount.Acknowledged() == 10);
  // When one goes the other is mounted, at once.
  mount.server.granted.erase("db");
  mount.Change(12, {}, {"db"});
  CHECK(mount.Read("db") == "second two");
  CHECK(mount.Acknowledged() == 12);
  CHECK_FALSE(mount.StatusNames("newcomer"));
}

TEST_CASE("One whose file name a later one of its batch wants too is not said to be served",
          "[sync]") {
  Mount mount;
  mount.server.granted = {{"healthy", {"well", {}}}};
  REQUIRE(mount.syncer->Step().has_value());
  CHECK(mount.Acknowledged() == 7);
  mount.server.granted["a"] = {"one", {{"filename", "same"}}};
  mount.server.granted["b"] = {"two", {{"filename", "same"}}};
  mount.Change(8, {"a", "b"});
  CHECK(mount.Read("same") == "<none>");
  CHECK(mount.Acknowledged() == 7);
}

TEST_CASE("Two that want one file name are left out after an outage and by a new worker too",
          "[sync][R22]") {
  for (const bool restart : {false, true}) {
    Mount mount;
    mount.server.granted = {{"zz", {"first", {{"filename", "db"}}}}, {"db", {"second", {}}}};
    REQUIRE(mount.syncer->Step().has_value());
    CHECK(mount.Read("db") == "<none>");
    if (restart) {
      mount.Restart();
    } else {
      mount.server.down = true;
      REQUIRE(mount.Fail());
      mount.server.down = false;
    }
    REQUIRE(mount.syncer->Step().has_value());
    mount.server.granted["zz"] = {"first two", {{"filename", "db"}}, 2};
    mount.Change(8, {"zz"});
    CHECK(mount.Read("db") == "<none>");
    mount.server.granted.erase("zz");
    mount.Change(9, {}, {"zz"});
    CHECK(mount.Read("db") == "second");
  }
}

TEST_CASE("A rival that goes while the server is away leaves the file to the other", "[sync]") {
  Mount mount;
  mount.server.granted = {{"zz", {"first", {{"filename", "db"}}}}, {"db", {"second", {}}}};
  REQUIRE(mount.syncer->Step().has_value());
  CHECK(mount.Read("db") == "<none>");
  mount.server.down = true;
  REQUIRE(mount.Fail());
  mount.server.down = false;
  mount.server.granted.erase("zz");
  REQUIRE(mount.syncer->Step().has_value());
  CHECK(mount.Read("db") == "second");
  REQUIRE(mount.syncer->Step().has_value());
  CHECK_FALSE(mount.StatusNames("two secrets"));
}

TEST_CASE("A rival of a batch that failed leaves no problem behind when it goes", "[sync]") {
  Mount mount;
  mount.server.granted = {{"db", {"first", {}}}};
  mount.server.most_names = 1;
  REQUIRE(mount.syncer->Step().has_value());
  mount.server.granted["newcomer"] = {"second", {{"filename", "db"}}};
  mount.server.granted["z"] = {"other", {}};
  mount.server.unreachable = {"z"};
  mount.server.changed_next = {"newcomer", "z"};
  mount.server.generation = 8;
  REQUIRE(mount.Fail());
  CHECK(mount.Read("db") == "first");
  mount.server.unreachable.clear();
  mount.server.granted.erase("newcomer");
  REQUIRE(mount.syncer->Step().has_value());
  CHECK(mount.Read("db") == "first");
  CHECK(mount.Read("z") == "other");
  CHECK_FALSE(mount.StatusNames("two secrets"));
  CHECK(mount.Acknowledged() == 8);
}

TEST_CASE("A batch that is too large is split until it fits", "[sync]") {
  Mount mount;
  mount.server.most_names = 3;
  for (int i = 0; i < 20; ++i)
    mount.server.granted["s" + std::to_string(i)] = {"v" + std::to_string(i), {}};
  REQUIRE(mount.syncer->Step().has_value());
  CHECK(mount.builder->Mounted().size() == 20);
  CHECK(mount.Read("s19") == "v19");
}

TEST_CASE("A server without a feed is polled by listings", "[sync][R28]") {
  Mount mount;
  mount.server.has_feed = false;
  mount.server.granted = {{"a", {"alpha", {}}}};
  REQUIRE(mount.syncer->Step().has_value());
  CHECK(mount.Read("a") == "alpha");
  CHECK_FALSE(mount.syncer->health().has_feed);
}

TEST_CASE("A new worker fetches only what changed since its predecessor published", "[sync][R7]") {
  Mount mount;
  mount.server.granted = {{"a", {"alpha", {}}}, {"b", {"beta", {}}}};
  REQUIRE(mount.syncer->Step().has_value());
  mount.server.fetched.clear();
  mount.Restart();
  CHECK(mount.Read("a") == "alpha");
  mount.server.granted["b"] = {"beta two", {}, 2};
  mount.server.changed_next = {"b"};
  mount.server.generation = 8;
  REQUIRE(mount.syncer->Step().has_value());
  CHECK(mount.server.fetched == std::vector<std::string>{"b"});
  CHECK(mount.Read("b") == "beta two");
  CHECK(mount.Read("a") == "alpha");
}

TEST_CASE("A refetch fetches everything again", "[sync]") {
  Mount mount;
  mount.server.granted = {{"a", {"alpha", {}}}};
  REQUIRE(mount.syncer->Step().has_value());
  mount.server.fetched.clear();
  mount.syncer->RequestRefetch();
  REQUIRE(mount.syncer->Step().has_value());
  CHECK(mount.server.fetched == std::vector<std::string>{"a"});
}

TEST_CASE("Owners that this host does not know give 0400 root, never anything wider", "[sync]") {
  const OwnerDefaults defaults{0440, 12, 34};
  CHECK(ResolveOwner({}, defaults) == FileOwner{0440, 12, 34, ""});
  CHECK(ResolveOwner({{"mode", "0777"}}, defaults).mode == 0444);
  CHECK(ResolveOwner({{"mode", "4755"}}, defaults).mode == 0444);
  CHECK(ResolveOwner({{"owner", "root"}, {"mode", "0400"}}, defaults) ==
        FileOwner{0400, 0, 34, ""});
  for (const Metadata& bad :
       {Metadata{{"owner", "no-such-user-here"}, {"mode", "0444"}},
        Metadata{{"group", "no-such-group-here"}, {"mode", "0444"}}, Metadata{{"mode", "u+r"}}}) {
    const FileOwner owner = ResolveOwner(bad, defaults);
    CHECK(owner.mode == 0400);
    CHECK(owner.uid == 0);
    CHECK(owner.gid == 0);
    CHECK_FALSE(owner.problem.empty());
  }
}

TEST_CASE("The status names what is not mounted and why, and holds no content", "[sync]") {
  Mount mount;
  mount.server.granted = {{"a", {"alpha-content", {}}},
                          {"bad/name", {"x", {}}},
                          {"odd", {"y", {{"owner", "no-such-user"}}}}};
  REQUIRE(mount.syncer->Step().has_value());
  const std::string status = mount.syncer->StatusJson();
  CHECK(status.find("bad/name") != std::string::npos);
  CHECK(status.find("no-such-user") != std::string::npos);
  CHECK(status.find("alpha-content") == std::string::npos);
  CHECK(mount.Read("odd") == "y");
}

TEST_CASE("The status tells what other parts know at the moment it is asked", "[sync]") {
  Mount mount;
  std::uint64_t dropped = 0;
  Syncer syncer(mount.server, *mount.builder, SystemClock(), SyncOptions{}, [&dropped] {
    return MountFacts{1, dropped};
  });
  REQUIRE(syncer.Step().has_value());
  CHECK(syncer.StatusJson().find("\"dropped_reads\":0,") != std::string::npos);
  dropped = 47'000;
  CHECK(syncer.StatusJson().find("\"dropped_reads\":47000,") != std::string::npos);
}
