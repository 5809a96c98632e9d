#include "server/feed/feed.h"

#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <condition_variable>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <thread>

#include "common/model/limits.h"
#include "tests/support/store_fixture.h"

namespace latchkey::feed {
namespace {

using catalog::Editor;
using store::ChangeKind;
using store::ChangeRow;
using testing::ClientRowOf;
using testing::CodeOf;
using testing::GroupRowOf;
using testing::Must;
using testing::SecretRowOf;
using testing::StoreFixture;
using testing::VersionRowOf;

// A deadline far beyond anything a working feed needs: a test that waits this long has failed.
constexpr std::chrono::seconds kLong{60};

// Collects replies from the feed's thread.
class Mailbox {
 public:
  Reply For(int key) {
    return [this, key](Answer answer) {
      // Notified under the lock: the test may end as soon as it sees the answer.
      const std::lock_guard lock(mutex_);
      answers_.emplace(key, std::move(answer));
      arrived_.notify_all();
    };
  }
  // Waits for the reply of `key`.
  Answer Take(int key) {
    std::unique_lock lock(mutex_);
    if (!arrived_.wait_for(lock, kLong, [&] { return answers_.contains(key); })) {
      FAIL("no reply for " << key);
    }
    auto node = answers_.extract(answers_.find(key));
    return std::move(node.mapped());
  }
  std::size_t size() {
    const std::lock_guard lock(mutex_);
    return answers_.size();
  }

 private:
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::multimap<int, Answer> answers_;
};

// The store, the catalog and the feed wired as the server wires them: every Do is one job,
// published after its commit.
class World : public store::CommitObserver {
 public:
  World() : store_(this) { LoadFeed(); }
  ~World() override { StopAll(); }

  void JobBegin() override { before_ = editor_.Snapshot(); }
  void JobRolledBack() override { editor_.Reset(*before_); }
  void Committed(Generation newest, std::span<const ChangeRow> changes) override {
    editor_.SetGeneration(newest);
    catalog::RootRef root = editor_.Snapshot();
    catalog_.Publish(root);
    if (feed_ != nullptr && !detached_) feed_->Publish(root, newest, changes);
  }
  void BatchFailed(const Error&) override {}

  // A job over the store and the catalog alike.
  Generation Do(const std::function<Status(store::Savepoint&, Editor&)>& run) {
    return Must(store_->RunJob([&](store::Savepoint& s) { return run(s, editor_); }));
  }
  void Restart() {
    StopAll();
    store_.Open(this);
    LoadFeed();
  }

  Generation AddClient(int id) {
    return Do([id](store::Savepoint& s, Editor& e) -> Status {
      RETURN_IF_ERROR(s.InsertClient(ClientRowOf(id, "client" + std::to_string(id))));
      e.PutClient(ClientRowOf(id, "client" + std::to_string(id)));
      return s.AppendChange({{}, ChangeKind::kClient, {}, {}, ClientId{id}, "", {}, {}});
    });
  }
  Generation AddGroup(int id) {
    return Do([id](store::Savepoint& s, Editor& e) -> Status {
      e.PutGroup(GroupRowOf(id, "group" + std::to_string(id)));
      return s.InsertGroup(GroupRowOf(id, "group" + std::to_string(id)));
    });
  }
  Generation AddSecret(int id, const std::string& name) {
    return Do([&](store::Savepoint& s, Editor& e) -> Status {
      const auto row = SecretRowOf(id, name, id * 100 + 1);
      const auto version = VersionRowOf(id * 100 + 1, id, 1);
      RETURN_IF_ERROR(s.InsertSecret(row));
      RETURN_IF_ERROR(s.InsertVersion(version));
      e.PutSecret(row, version.info);
      return s.AppendChange({{}, ChangeKind::kSecret, SecretId{id}, {}, {}, name, {}, {}});
    });
  }
  Generation Rotate(int id) {
    return Do([id](store::Savepoint& s, Editor& e) -> Status {
      store::SecretRow row = e.root().FindSecret(SecretId{id})->Row();
      const std::uint64_t number = ++row.newest_number;
      const auto version = VersionRowOf(id * 100 + static_cast<std::int64_t>(number), id, number);
      row.current = version.info.id;
      RETURN_IF_ERROR(s.InsertVersion(version));
      RETURN_IF_ERROR(s.UpdateSecret(row));
      e.PutSecret(row, version.info);
      return s.AppendChange({{}, ChangeKind::kSecret, row.id, {}, {}, row.name, {}, {}});
    });
  }
  // Renames, or deletes softly when `name` is empty.
  Generation Move(int id, const std::string& name) {
    return Do([&](store::Savepoint& s, Editor& e) -> Status {
      const catalog::Secret* secret = e.root().FindSecret(SecretId{id});
      const std::vector<std::uint32_t> groups(secret->groups().begin(), secret->groups().end());
      store::SecretRow row = secret->Row();
      const auto current = secret->Current();
      const std::string old_name = row.name;
      if (name.empty()) {
        row.state = store::SecretState::kDeleted;
      } else {
        row.name = name;
      }
      RETURN_IF_ERROR(s.UpdateSecret(row));
      e.PutSecret(row, current);
      for (const auto group : groups) {
        RETURN_IF_ERROR(s.AppendChange(
            {{}, ChangeKind::kSecretGone, row.id, GroupId{group}, {}, old_name, {}, {}}));
      }
      if (name.empty()) return {};
      return s.AppendChange({{}, ChangeKind::kSecret, row.id, {}, {}, name, {}, {}});
    });
  }
  Generation Join(int client, int group, bool leave = false) {
    return Do([=](store::Savepoint& s, Editor& e) -> Status {
      if (leave) {
        RETURN_IF_ERROR(s.DeleteMembership(ClientId{client}, GroupId{group}));
        e.RemoveMembership(ClientId{client}, GroupId{group});
      } else {
        RETURN_IF_ERROR(s.InsertMembership({ClientId{client}, GroupId{group}, 0, {}}));
        e.AddMembership(ClientId{client}, GroupId{group});
      }
      return s.AppendChange(
          {{}, ChangeKind::kMembership, {}, GroupId{group}, ClientId{client}, "", {}, {}});
    });
  }
  Generation Grant(int group, int secret, bool revoke = false) {
    return Do([=](store::Savepoint& s, Editor& e) -> Status {
      const std::string name(e.root().FindSecret(SecretId{secret})->name());
      if (revoke) {
        RETURN_IF_ERROR(s.DeleteGrant(GroupId{group}, SecretId{secret}));
        e.RemoveGrant(GroupId{group}, SecretId{secret});
      } else {
        RETURN_IF_ERROR(s.InsertGrant({GroupId{group}, SecretId{secret}, 0, {}}));
        e.AddGrant(GroupId{group}, SecretId{secret});
      }
      return s.AppendChange({{},
                             revoke ? ChangeKind::kRevoke : ChangeKind::kGrant,
                             SecretId{secret},
                             GroupId{group},
                             {},
                             name,
                             {},
                             {}});
    });
  }

  Answer Now(int client, Generation since) {
    const Asked asked = Must(feed_->Ask({ClientId{client}, since, {}, {}}, {}));
    REQUIRE(asked.answer.has_value());
    return *asked.answer;
  }
  Feed& feed() { return *feed_; }
  // From here on the test publishes, and commits of the store (acknowledgements) do not.
  void Detach() { detached_ = true; }
  catalog::RootRef root() const { return catalog_.Current(); }
  const catalog::Secret& secret(int id) const { return *root()->FindSecret(SecretId{id}); }
  StoreFixture& store() { return store_; }

 private:
  // The order that the feed asks for: its last job may still be on its way when it stopped.
  void StopAll() {
    feed_->Stop();
    store_.Close();
    feed_.reset();
  }
  void LoadFeed() {
    // The rows are those the editor made: the catalog needs no loading here.
    feed_ = Must(Feed::Load(&*store_, editor_.Snapshot(), SystemClock()));
  }

  Editor editor_{std::make_shared<const catalog::Root>()};
  catalog::Catalog catalog_{std::make_shared<const catalog::Root>()};
  catalog::RootRef before_;
  StoreFixture store_;
  std::unique_ptr<Feed> feed_;
  std::atomic<bool> detached_ = false;
};

// Two clients in two groups: client 1 in group 1, client 2 in group 2; secret "one" granted to 1,
// "two" to 2, "both" to both.
Generation Populate(World& world) {
  for (int i = 1; i <= 2; ++i) {
    world.AddClient(i);
    world.AddGroup(i);
    world.Join(i, i);
  }
  world.AddSecret(1, "one");
  world.AddSecret(2, "two");
  world.AddSecret(3, "both");
  world.Grant(1, 1);
  world.Grant(2, 2);
  world.Grant(1, 3);
  return world.Grant(2, 3);
}

std::vector<std::string> Names(const Answer& answer) {
  std::vector<std::string> out;
  for (const Changed& changed : answer.changed) out.push_back(changed.name);
  return out;
}
using Strings = std::vector<std::string>;

TEST_CASE("A client hears of changes of what it can read and of nothing else", "[feed]") {
  World world;
  const Generation start = Populate(world);
  CHECK(world.Now(1, start).empty());

  const Generation rotated = world.Rotate(2);
  CHECK(world.Now(1, start).empty());
  CHECK(world.Now(1, start).generation == rotated);
  CHECK(world.Now(2, start).changed == std::vector<Changed>{{"two", VersionNumber{2}, 5}});

  world.Rotate(3);
  CHECK(Names(world.Now(1, start)) == Strings{"both"});
  CHECK(Names(world.Now(2, start)) == Strings{"both", "two"});
  CHECK(Names(world.Now(2, rotated)) == Strings{"both"});

  SECTION("rename: the new name is changed, the old one gone") {
    const Generation renamed = world.Move(1, "uno");
    const Answer answer = world.Now(1, rotated);
    CHECK(Names(answer) == Strings{"both", "uno"});
    CHECK(answer.gone == Strings{"one"});
    CHECK(world.Now(2, world.feed().generation()).empty());
    CHECK(world.Now(2, rotated).gone.empty());
    CHECK(world.Now(1, renamed).empty());
  }
  SECTION("a name that is taken again at once is not gone") {
    world.Move(1, "uno");
    world.AddSecret(4, "one");
    world.Grant(1, 4);
    const Answer answer = world.Now(1, rotated);
    CHECK(Names(answer) == Strings{"both", "one", "uno"});
    CHECK(answer.gone.empty());
  }
  SECTION("delete") {
    world.Move(3, "");
    CHECK(world.Now(1, rotated).gone == Strings{"both"});
    CHECK(world.Now(1, rotated).changed.empty());
    CHECK(world.Now(2, rotated).gone == Strings{"both"});
  }
  SECTION("revoke of one of two ways is no loss") {
    world.Join(1, 2);
    const Generation joined = world.feed().generation();
    world.Grant(2, 3, true);
    CHECK(world.Now(1, joined).gone.empty());
    CHECK(world.Now(2, joined).gone == Strings{"both"});
    world.Grant(1, 3, true);
    CHECK(world.Now(1, joined).gone == Strings{"both"});
  }
  SECTION("grant") {
    const Generation before = world.feed().generation();
    world.Grant(1, 2);
    CHECK(world.Now(1, before).changed == std::vector<Changed>{{"two", VersionNumber{2}, 5}});
    CHECK(world.Now(2, before).empty());
  }
  SECTION("grant and revoke within the range leave gone only") {
    const Generation before = world.feed().generation();
    world.Grant(1, 2);
    world.Grant(1, 2, true);
    CHECK(world.Now(1, before).changed.empty());
    CHECK(world.Now(1, before).gone == Strings{"two"});
    CHECK(world.Now(2, before).gone.empty());
  }
}

TEST_CASE("What a client must list anew is answered with reset", "[feed]") {
  World world;
  const Generation start = Populate(world);
  CHECK(world.Now(1, Generation{0}).reset);
  CHECK(world.Now(1, Generation{start.value + 1}).reset);
  CHECK_FALSE(world.Now(1, start).reset);
  CHECK(world.Now(77, start).reset);

  world.Join(1, 2);
  CHECK(world.Now(1, start).reset);
  CHECK(world.Now(1, start).changed.empty());
  CHECK_FALSE(world.Now(2, start).reset);
  const Generation joined = world.feed().generation();
  CHECK_FALSE(world.Now(1, joined).reset);
  world.Join(1, 2, true);
  CHECK(world.Now(1, joined).reset);

  world.Do([](store::Savepoint& s, Editor& e) -> Status {
    store::ClientRow row = ClientRowOf(2, "client2");
    row.enabled = false;
    RETURN_IF_ERROR(s.UpdateClient(row));
    e.PutClient(row);
    return s.AppendChange({{}, ChangeKind::kClient, {}, {}, ClientId{2}, "", {}, {}});
  });
  CHECK(world.Now(2, world.feed().generation()).reset);
}

TEST_CASE("The log survives a restart and is complete from the beginning", "[feed]") {
  World world;
  const Generation start = Populate(world);
  world.Rotate(1);
  world.Move(3, "renamed");
  const Answer before = world.Now(1, start);
  world.Restart();
  const Answer after = world.Now(1, start);
  CHECK(after.generation == before.generation);
  CHECK(after.changed == before.changed);
  CHECK(after.gone == before.gone);
  CHECK_FALSE(world.Now(2, Generation{6}).reset);
}

TEST_CASE("A client behind the retained log takes a full listing", "[feed]") {
  World world;
  const Generation start = Populate(world);
  const Generation flooded = world.Do([](store::Savepoint& s, Editor&) -> Status {
    for (std::size_t i = 0; i < limits::kFeedLogEntries - 1; ++i) {
      RETURN_IF_ERROR(
          s.AppendChange({{}, ChangeKind::kSecret, SecretId{2}, {}, {}, "two", {}, {}}));
    }
    return {};
  });
  // The oldest entry kept is that of `start`.
  CHECK(world.Now(1, Generation{start.value - 2}).reset);
  CHECK_FALSE(world.Now(1, Generation{start.value - 1}).reset);
  CHECK_FALSE(world.Now(1, flooded).reset);
  world.Restart();
  CHECK(world.Now(1, Generation{start.value - 1}).reset);
  CHECK_FALSE(world.Now(1, flooded).reset);
  std::size_t kept = 0;
  Must(
      Must(world.store()->Read()).ForEachChange([&kept](ChangeRow&&) { return ++kept, Status(); }));
  CHECK(kept == limits::kFeedLogEntries);
}

TEST_CASE("A waiter whose news left the log before it was woken lists anew", "[feed]") {
  World world;
  const Generation start = Populate(world);
  Mailbox mailbox;
  Must(world.feed().Ask({ClientId{1}, start, {}, kLong}, mailbox.For(1)));
  // One batch with more than the log holds: what concerns client 1 is its first entry.
  world.Do([](store::Savepoint& s, Editor&) -> Status {
    RETURN_IF_ERROR(s.AppendChange({{}, ChangeKind::kSecret, SecretId{1}, {}, {}, "one", {}, {}}));
    for (std::size_t i = 0; i < limits::kFeedLogEntries; ++i) {
      RETURN_IF_ERROR(
          s.AppendChange({{}, ChangeKind::kSecret, SecretId{2}, {}, {}, "two", {}, {}}));
    }
    return {};
  });
  CHECK(mailbox.Take(1).reset);
}

TEST_CASE("A waiter is answered by the first change that concerns it", "[feed]") {
  World world;
  const Generation start = Populate(world);
  Mailbox mailbox;
  const auto ask = [&](int client) {
    const Asked asked =
        Must(world.feed().Ask({ClientId{client}, start, {}, kLong}, mailbox.For(client)));
    CHECK_FALSE(asked.answer.has_value());
    return asked.ticket;
  };
  ask(1);
  ask(2);
  CHECK(world.feed().waiters() == 2);
  const Generation rotated = world.Rotate(2);
  const Answer answer = mailbox.Take(2);
  CHECK(answer.generation == rotated);
  CHECK(Names(answer) == Strings{"two"});
  CHECK(world.feed().waiters() == 1);
  CHECK(mailbox.size() == 0);

  SECTION("revoke") {
    world.Grant(1, 1, true);
    CHECK(mailbox.Take(1).gone == Strings{"one"});
  }
  SECTION("grant") {
    world.Grant(1, 2);
    CHECK(Names(mailbox.Take(1)) == Strings{"two"});
  }
  SECTION("membership") {
    world.Join(1, 2);
    CHECK(mailbox.Take(1).reset);
  }
  SECTION("delete") {
    world.Move(1, "");
    CHECK(mailbox.Take(1).gone == Strings{"one"});
  }
  SECTION("its own row") {
    world.Do([](store::Savepoint& s, Editor& e) -> Status {
      RETURN_IF_ERROR(s.DeleteClient(ClientId{1}));
      e.RemoveClient(ClientId{1});
      return s.AppendChange({{}, ChangeKind::kClient, {}, {}, ClientId{1}, "", {}, {}});
    });
    CHECK(mailbox.Take(1).reset);
  }
  CHECK(world.feed().waiters() == 0);
}

TEST_CASE("A job that fails wakes nobody and changes nothing", "[feed]") {
  World world;
  const Generation start = Populate(world);
  Mailbox mailbox;
  Must(world.feed().Ask({ClientId{1}, start, {}, kLong}, mailbox.For(1)));
  const auto failed = world.store()->RunJob([](store::Savepoint& s) -> Status {
    RETURN_IF_ERROR(s.AppendChange({{}, ChangeKind::kSecret, SecretId{1}, {}, {}, "one", {}, {}}));
    return Error{Errc::kConflict, "no"};
  });
  CHECK(CodeOf(failed) == Errc::kConflict);
  CHECK(world.Now(1, start).empty());
  CHECK(world.feed().waiters() == 1);
  world.Rotate(1);
  CHECK(Names(mailbox.Take(1)) == Strings{"one"});
}

TEST_CASE("A wait that ends without news answers with the newest generation", "[feed]") {
  World world;
  const Generation start = Populate(world);
  Mailbox mailbox;
  Must(world.feed().Ask({ClientId{1}, start, {}, std::chrono::milliseconds(30)}, mailbox.For(1)));
  const Generation other = world.Rotate(2);
  const Answer answer = mailbox.Take(1);
  CHECK(answer.empty());
  CHECK(answer.generation == other);
}

TEST_CASE("A cancelled waiter is never answered and gives its place back", "[feed]") {
  World world;
  const Generation start = Populate(world);
  Mailbox mailbox;
  const Asked asked = Must(world.feed().Ask({ClientId{1}, start, {}, kLong}, mailbox.For(1)));
  Must(world.feed().Ask({ClientId{1}, start, {}, kLong}, mailbox.For(2)));
  world.feed().Cancel(asked.ticket);
  world.feed().Cancel(asked.ticket);
  world.feed().Cancel(12345);
  CHECK(world.feed().waiters() == 1);
  world.Rotate(1);
  mailbox.Take(2);
  world.feed().Stop();
  CHECK(mailbox.size() == 0);
}

TEST_CASE("The number of waiters is bounded; Stop answers them all", "[feed]") {
  World world;
  const Generation start = Populate(world);
  std::atomic<std::size_t> answered = 0;
  const Reply count = [&answered](Answer answer) { answered += answer.empty() ? 1 : 0; };
  constexpr std::size_t kEach = limits::kMaxFeedWaitersPerClient;
  constexpr int kFirst = 1000;
  const Generation joined = world.Do([](store::Savepoint& savepoint, Editor& editor) -> Status {
    for (std::size_t i = 0; i * kEach < limits::kMaxFeedWaiters; ++i) {
      const int id = kFirst + static_cast<int>(i);
      const store::ClientRow row = ClientRowOf(id, "client-" + std::to_string(id));
      RETURN_IF_ERROR(savepoint.InsertClient(row));
      editor.PutClient(row);
    }
    return {};
  });
  REQUIRE(joined > start);
  for (std::size_t i = 0; i < limits::kMaxFeedWaiters; ++i) {
    const ClientId client{kFirst + static_cast<int>(i / kEach)};
    if (!world.feed().Ask({client, joined, {}, kLong}, count).has_value()) FAIL(i);
  }
  CHECK(CodeOf(world.feed().Ask({ClientId{2}, joined, {}, kLong}, count)) == Errc::kUnavailable);
  // What needs no waiting is still answered.
  CHECK(world.Now(2, Generation{0}).reset);
  world.feed().Stop();
  CHECK(answered == limits::kMaxFeedWaiters);
  CHECK(CodeOf(world.feed().Ask({ClientId{2}, start, {}, kLong}, count)) == Errc::kUnavailable);
}

TEST_CASE("A client that asks and hangs up again and again keeps nobody else from waiting",
          "[feed]") {
  World world;
  const Generation start = Populate(world);
  Mailbox mailbox;
  constexpr int kMost = static_cast<int>(limits::kMaxFeedWaitersPerClient);
  for (int i = 0; i < kMost; ++i) {
    Must(world.feed().Ask({ClientId{1}, start, {}, kLong}, mailbox.For(i)));
  }
  CHECK(mailbox.size() == 0);
  for (int i = kMost; i < 3 * kMost; ++i) {
    Must(world.feed().Ask({ClientId{1}, start, {}, kLong}, mailbox.For(i)));
    CHECK(mailbox.Take(i - kMost).empty());  // the oldest goes
  }
  CHECK(world.feed().waiters() == limits::kMaxFeedWaitersPerClient);
  Must(world.feed().Ask({ClientId{2}, start, {}, kLong}, mailbox.For(-1)));
  world.Rotate(3);
  CHECK(Names(mailbox.Take(-1)) == Strings{"both"});
  CHECK(Names(mailbox.Take(3 * kMost - 1)) == Strings{"both"});
}

TEST_CASE("Ten thousand waiters of which ten hold the secret: those ten are woken", "[feed]") {
  constexpr int kClients = 10'000;
  constexpr int kHolders = 10;
  World world;
  world.AddGroup(1);
  world.AddGroup(2);
  world.AddSecret(1, "rare");
  world.AddSecret(2, "common");
  world.Grant(1, 1);
  world.Grant(2, 2);
  const Generation start = world.Do([](store::Savepoint& s, Editor& e) -> Status {
    for (int i = 1; i <= kClients; ++i) {
      RETURN_IF_ERROR(s.InsertClient(ClientRowOf(i, "c" + std::to_string(i))));
      e.PutClient(ClientRowOf(i, "c" + std::to_string(i)));
      const GroupId group{i <= kHolders ? 1 : 2};
      RETURN_IF_ERROR(s.InsertMembership({ClientId{i}, group, 0, {}}));
      e.AddMembership(ClientId{i}, group);
    }
    return {};
  });
  std::mutex mutex;
  std::condition_variable arrived;
  std::map<std::string, std::set<int>> woken;
  std::size_t total = 0;
  for (int i = 1; i <= kClients; ++i) {
    Must(world.feed().Ask({ClientId{i}, start, {}, kLong}, [&, i](Answer answer) {
      const std::lock_guard lock(mutex);
      for (const Changed& changed : answer.changed) woken[changed.name].insert(i);
      ++total;
      arrived.notify_all();
    }));
  }
  const auto wait_for = [&](std::size_t wanted) {
    std::unique_lock lock(mutex);
    return arrived.wait_for(lock, kLong, [&] { return total == wanted; });
  };
  world.Rotate(1);
  CHECK(wait_for(kHolders));
  CHECK(world.feed().waiters() == kClients - kHolders);
  world.Rotate(2);
  CHECK(wait_for(kClients));
  CHECK(world.feed().waiters() == 0);
  CHECK(woken["rare"].size() == kHolders);
  CHECK(*woken["rare"].rbegin() == kHolders);
  CHECK(woken["common"].size() == kClients - kHolders);
}

TEST_CASE("Acknowledgements tell the version served and survive a restart", "[feed]") {
  World world;
  Populate(world);
  const auto version = [&](int client, int secret) {
    return world.feed().ServedBy(ClientId{client}, world.secret(secret)).version;
  };
  const auto acknowledge = [&](int client, Generation generation) {
    Must(world.feed().Ask({ClientId{client}, generation, generation, {}}, {}));
  };
  CHECK(version(1, 1) == std::nullopt);
  CHECK(world.feed().ServedBy(ClientId{1}, world.secret(1)).last_seen == 0);
  const Generation first = world.feed().generation();
  acknowledge(1, first);
  CHECK(version(1, 1) == VersionNumber{1});
  world.Rotate(1);
  CHECK(version(1, 1) == VersionNumber{1});
  const Generation third = world.Rotate(1);
  world.Rotate(3);
  CHECK(version(1, 1) == VersionNumber{1});
  acknowledge(1, third);
  CHECK(version(1, 1) == VersionNumber{3});
  CHECK(version(1, 3) == VersionNumber{1});
  // Words about a generation that does not exist are not believed.
  acknowledge(1, Generation{third.value + 1000});
  CHECK(version(1, 1) == VersionNumber{3});
  CHECK(version(2, 3) == std::nullopt);

  const auto before = world.feed().ServedBy(ClientId{1}, world.secret(1));
  CHECK(before.generation == third);
  CHECK(before.served_since > 0);
  world.feed().Stop();
  world.Restart();
  const auto after = world.feed().ServedBy(ClientId{1}, world.secret(1));
  CHECK(after.version == VersionNumber{3});
  CHECK(after.generation == third);
  CHECK(after.served_since == before.served_since);
  CHECK(after.last_seen == before.last_seen);

  const auto serving = world.feed().ServingOf(*world.root(), world.secret(3));
  REQUIRE(serving.size() == 2);
  CHECK(serving[0].client == ClientId{1});
  CHECK(serving[0].version == VersionNumber{1});
  CHECK(serving[1].version == std::nullopt);
}

TEST_CASE("What was granted after the acknowledgement is not said to be served", "[feed]") {
  World world;
  Populate(world);
  const auto acknowledge = [&](int client) {
    const Generation now = world.feed().generation();
    Must(world.feed().Ask({ClientId{client}, now, now, {}}, {}));
  };
  const auto version = [&](int client, int secret) {
    return world.feed().ServedBy(ClientId{client}, world.secret(secret)).version;
  };
  acknowledge(1);
  world.Grant(1, 2);
  CHECK(version(1, 2) == std::nullopt);
  CHECK(version(1, 1) == VersionNumber{1});
  acknowledge(1);
  CHECK(version(1, 2) == VersionNumber{1});
  world.Join(1, 2);
  CHECK(version(1, 1) == std::nullopt);
  world.AddSecret(9, "new");
  world.Grant(1, 9);
  CHECK(version(1, 9) == std::nullopt);
  acknowledge(1);
  CHECK(version(1, 9) == VersionNumber{1});
}

TEST_CASE("Acknowledgements are written while the feed runs", "[feed]") {
  World world;
  const Generation start = Populate(world);
  Must(world.feed().Ask({ClientId{1}, start, start, {}}, {}));
  const auto written = [&] {
    std::size_t rows = 0;
    Must(Must(world.store()->Read()).ForEachServing([&](store::ServingRow&& row) {
      rows += row.client == ClientId{1} && row.generation == start;
      return Status();
    }));
    return rows;
  };
  const auto deadline = std::chrono::steady_clock::now() + kLong;
  while (written() == 0 && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
  CHECK(written() == 1);
  CHECK(world.store()->generation() == start);
}

// Changes drawn by lot: secrets come, go, are rotated and renamed, members and grants change.
class Chance {
 public:
  static constexpr int kClients = 4;
  static constexpr int kGroups = 4;
  static constexpr int kSecrets = 6;

  explicit Chance(World* world) : world_(*world), random_(Catch::rngSeed()) {
    for (int i = 1; i <= kClients; ++i) world_.AddClient(i);
    for (int i = 1; i <= kGroups; ++i) world_.AddGroup(i);
  }
  int Pick(int n) { return static_cast<int>(random_() % static_cast<unsigned>(n)) + 1; }

  void Step() {
    const int action = Pick(10);
    if (live_.empty() || (action == 1 && live_.size() < kSecrets)) {
      world_.AddSecret(next_secret_, FreeName());
      live_.insert(next_secret_++);
    } else if (action <= 3) {
      world_.Rotate(PickLive());
    } else if (action == 4) {
      world_.Move(PickLive(), FreeName());
    } else if (action == 5) {
      const int gone = PickLive();
      world_.Move(gone, "");
      live_.erase(gone);
      std::erase_if(granted_, [gone](const auto& g) { return g.second == gone; });
    } else if (action == 6) {
      const std::pair pair(Pick(kClients), Pick(kGroups));
      world_.Join(pair.first, pair.second, Toggle(&members_, pair));
    } else {
      const std::pair pair(Pick(kGroups), PickLive());
      world_.Grant(pair.first, pair.second, Toggle(&granted_, pair));
    }
  }

 private:
  using Pairs = std::set<std::pair<int, int>>;
  // Whether it was there: then it no longer is.
  static bool Toggle(Pairs* pairs, const std::pair<int, int>& pair) {
    if (pairs->erase(pair) > 0) return true;
    pairs->insert(pair);
    return false;
  }
  std::string FreeName() {
    for (;;) {
      std::string name = "n" + std::to_string(random_() % 9);
      if (world_.root()->FindSecret(name) == nullptr) return name;
    }
  }
  int PickLive() {
    return *std::next(live_.begin(), static_cast<std::ptrdiff_t>(random_() % live_.size()));
  }

  World& world_;
  std::mt19937_64 random_;
  int next_secret_ = 1;
  std::set<int> live_;
  Pairs members_;
  Pairs granted_;
};

using Listing = std::map<std::string, std::uint64_t>;

Listing ListingOf(const World& world, int client) {
  Listing out;
  const catalog::RootRef root = world.root();
  for (const auto* secret : root->SecretsOf(ClientId{client})) {
    out.emplace(secret->name(), secret->version().value);
  }
  return out;
}

// Applies answers as the mount does.
struct Follower {
  Generation at;
  Listing has;

  void Apply(const World& world, int client, const Answer& answer) {
    if (answer.reset) {
      has = ListingOf(world, client);
    } else {
      for (const std::string& name : answer.gone) has.erase(name);
      for (const Changed& changed : answer.changed) has[changed.name] = changed.version.value;
    }
    at = answer.generation;
  }
};

TEST_CASE("Following the feed leads to the full listing, whatever happens", "[feed][property]") {
  World world;
  Chance chance(&world);
  std::map<int, Follower> followers;
  for (int step = 0; step < 400; ++step) {
    chance.Step();
    for (int client = 1; client <= Chance::kClients; ++client) {
      if (chance.Pick(3) != 1) continue;  // some lag behind
      Follower& follower = followers[client];
      follower.Apply(world, client, world.Now(client, follower.at));
      if (follower.has != ListingOf(world, client)) {
        FAIL("client " << client << " differs at step " << step);
      }
    }
  }
}

// An answer says "everything up to this generation": a wake-up that is missed is never made up for.
TEST_CASE("Waiting on the feed while it changes leads to the full listing", "[feed][property]") {
  World world;
  Chance chance(&world);
  std::array<Follower, Chance::kClients> followers;
  std::atomic<int> waited = 0;
  // Each round ends with a look: what was missed must not hide behind a later reset.
  for (int round = 0; round < 30; ++round) {
    std::atomic<bool> stop = false;
    std::vector<std::thread> threads;
    for (int client = 1; client <= Chance::kClients; ++client) {
      threads.emplace_back([&, client] {
        Follower& follower = followers[static_cast<std::size_t>(client - 1)];
        Mailbox mailbox;
        // Some waits end with news and some without.
        const std::chrono::milliseconds wait(client % 2 == 0 ? 1 : 30);
        while (!stop) {
          const Asked asked = Must(
              world.feed().Ask({ClientId{client}, follower.at, {}, wait}, mailbox.For(client)));
          if (!asked.answer) ++waited;
          follower.Apply(world, client, asked.answer ? *asked.answer : mailbox.Take(client));
        }
      });
    }
    for (int step = 0; step < 40; ++step) chance.Step();
    stop = true;
    for (std::thread& thread : threads) thread.join();
    for (int client = 1; client <= Chance::kClients; ++client) {
      Follower& follower = followers[static_cast<std::size_t>(client - 1)];
      follower.Apply(world, client, world.Now(client, follower.at));
      if (follower.has != ListingOf(world, client)) {
        FAIL("client " << client << " differs after round " << round);
      }
    }
  }
  CHECK(waited > 0);
}

// Published without a store, so that changes fall into every gap between looking and waiting. Each of
// them concerns the client: an answer without news must not claim to have seen any.
TEST_CASE("No change is skipped between the look and the wait", "[feed][property]") {
  World world;
  const Generation start = Populate(world);
  world.Detach();
  constexpr std::uint64_t kChanges = 20'000;
  const int how_many = GENERATE(1, 3);  // one alone leaves no other waiter behind
  std::atomic<bool> stop = false;
  std::atomic<int> skipped = 0;
  std::atomic<int> needless = 0;
  std::vector<std::thread> askers;
  for (int t = 0; t < how_many; ++t) {
    askers.emplace_back([&] {
      Generation since = start;
      Mailbox mailbox;
      while (!stop) {
        const Asked asked = Must(world.feed().Ask(
            {ClientId{1}, since, {}, std::chrono::milliseconds(1)}, mailbox.For(1)));
        const Answer answer = asked.answer ? *asked.answer : mailbox.Take(1);
        if (answer.empty() && answer.generation != since) ++skipped;
        if (answer.reset) ++needless;
        since = answer.generation;
      }
    });
  }
  std::mt19937_64 random(Catch::rngSeed());
  for (std::uint64_t i = 1; i <= kChanges; ++i) {
    const Generation next{start.value + i};
    const ChangeRow row{next, ChangeKind::kSecret, SecretId{3}, {}, {}, "both", {}, {}};
    world.feed().Publish(world.root(), next, std::span(&row, 1));
    // Now a moment, now as long as a wait, so that some end as a change comes.
    if (i % 16 == 0) {
      std::this_thread::sleep_for(std::chrono::microseconds(900 + random() % 200));
    } else {
      const auto until =
          std::chrono::steady_clock::now() + std::chrono::nanoseconds(random() % 4'000);
      while (std::chrono::steady_clock::now() < until) continue;
    }
  }
  stop = true;
  for (std::thread& asker : askers) asker.join();
  CHECK(skipped == 0);
  CHECK(needless == 0);
}

TEST_CASE("Asking, waiting and writing at once loses no wake-up", "[feed]") {
  World world;
  const Generation start = Populate(world);
  std::atomic<bool> stop = false;
  std::atomic<std::uint64_t> seen = 0;
  std::vector<std::thread> askers;
  for (int t = 0; t < 4; ++t) {
    askers.emplace_back([&, t] {
      Generation since = start;
      while (!stop) {
        std::mutex mutex;
        std::condition_variable arrived;
        std::optional<Answer> answer;
        auto asked = world.feed().Ask({ClientId{t % 2 + 1}, since, since, kLong}, [&](Answer a) {
          const std::lock_guard lock(mutex);
          answer = std::move(a);
          arrived.notify_one();
        });
        if (!asked.has_value()) return;
        if (asked.value().answer) {
          since = asked.value().answer->generation;
        } else {
          std::unique_lock lock(mutex);
          arrived.wait(lock, [&] { return answer.has_value(); });
          since = answer->generation;
        }
        ++seen;
      }
    });
  }
  for (int i = 0; i < 300; ++i) world.Rotate(3);
  const Generation last = world.feed().generation();
  stop = true;
  world.feed().Stop();
  for (auto& asker : askers) asker.join();
  CHECK(seen > 0);
  CHECK(last.value == start.value + 300);
}

}  // namespace
}  // namespace latchkey::feed
