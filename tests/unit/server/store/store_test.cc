#include "server/store/store.h"

#include <sys/stat.h>

#include <catch2/catch.hpp>
#include <future>
#include <thread>

#include "common/model/limits.h"
#include "tests/support/store_fixture.h"

namespace latchkey::store {
namespace {

using testing::ClientRowOf;
using testing::CodeOf;
using testing::GroupRowOf;
using testing::InsertSecretWithVersion;
using testing::kTestStoreId;
using testing::Must;
using testing::SecretRowOf;
using testing::StoreFixture;
using testing::TempDir;
using testing::VersionRowOf;

// Holds the writer thread inside a job until it is let go.
class Gate {
 public:
  explicit Gate(Store& store) {
    Job job;
    job.run = [this](Savepoint&) {
      entered_.set_value();
      open_.get_future().wait();
      return Status();
    };
    job.bookkeeping = true;
    Must(store.Submit(std::move(job)));
    entered_.get_future().wait();
  }
  void Open() { open_.set_value(); }

 private:
  std::promise<void> entered_;
  std::promise<void> open_;
};

struct Recorder : CommitObserver {
  void BatchBegin() override { log += "B"; }
  void JobBegin() override { log += "j"; }
  void JobRolledBack() override { log += "r"; }
  void Committed(Generation newest, std::span<const ChangeRow> changes) override {
    log += "C" + std::to_string(newest.value) + "(" + std::to_string(changes.size()) + ")";
  }
  void BatchFailed(const Error&) override { log += "F"; }
  std::string log;  // read after Stop only
};

TEST_CASE("Create makes a private file and refuses to overwrite it", "[store]") {
  const TempDir dir;
  const auto path = dir / "s.db";
  Must(Store::Create(path, kTestStoreId, 1234));
  struct stat info {};
  REQUIRE(::stat(path.c_str(), &info) == 0);
  CHECK((info.st_mode & 07777) == 0600);
  CHECK(CodeOf(Store::Create(path, kTestStoreId, 1234)) == Errc::kConflict);

  const auto store = Must(Store::Open(path, OpenMode::kExclusive, {}));
  const StoreInfo read = Must(Must(store->Read()).Info());
  CHECK(read.store_id == kTestStoreId);
  CHECK(read.created_at == 1234);
  CHECK(read.generation == Generation{0});
  CHECK(read.schema == kSchemaVersion);
  for (const char* beside : {"s.db-wal", "s.db-shm", "s.db.lock"}) {
    if (::stat((dir / beside).c_str(), &info) == 0) CHECK((info.st_mode & 077) == 0);
  }
}

TEST_CASE("Open refuses what is not a store of this program", "[store]") {
  const TempDir dir;
  const auto path = dir / "s.db";
  const auto open = [&] { return CodeOf(Store::Open(path, OpenMode::kExclusive, {})); };
  SECTION("no file") {
    CHECK(open() == Errc::kNotFound);
  }
  SECTION("a file open to the group") {
    Must(Store::Create(path, kTestStoreId, 0));
    REQUIRE(::chmod(path.c_str(), 0640) == 0);
    CHECK(open() == Errc::kInvalidArgument);
    REQUIRE(::chmod(path.c_str(), 0600) == 0);
    CHECK(open() == std::nullopt);
  }
  SECTION("a short file") {
    std::ofstream(path) << "hello";
    REQUIRE(::chmod(path.c_str(), 0600) == 0);
    CHECK(open() == Errc::kInvalidArgument);
  }
  SECTION("a text file") {
    std::ofstream(path) << std::string(8192, '\0');
    REQUIRE(::chmod(path.c_str(), 0600) == 0);
    CHECK(open().has_value());
  }
  SECTION("a directory") {
    std::filesystem::create_directory(path);
    CHECK(open() == Errc::kInvalidArgument);
  }
}

TEST_CASE("Open refuses a newer schema and leaves the file as it is", "[store]") {
  const TempDir dir;
  const auto path = dir / "s.db";
  Must(Store::Create(path, kTestStoreId, 0));
  {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(60);
    file.write("\0\0\0\2", 4);
  }
  const auto read_all = [&] {
    std::ifstream file(path, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  const std::string before = read_all();
  const auto opened = Store::Open(path, OpenMode::kExclusive, {});
  REQUIRE_FALSE(opened.has_value());
  CHECK(opened.error().code == Errc::kConflict);
  CHECK_THAT(opened.error().message, Catch::Contains("schema 2 is newer"));
  CHECK(read_all() == before);
  CHECK(CodeOf(Store::Open(path, OpenMode::kSnapshot, {})) == Errc::kConflict);
}

TEST_CASE("A second opener is refused while the first lives, and not after", "[store]") {
  StoreFixture store;
  const auto second = Store::Open(store.path(), OpenMode::kExclusive, {});
  REQUIRE_FALSE(second.has_value());
  CHECK(second.error().code == Errc::kConflict);
  CHECK_THAT(second.error().message,
             Catch::Contains("in use by process " + std::to_string(::getpid())));
  // Beside it, reading is possible.
  CHECK(Must(Store::Open(store.path(), OpenMode::kSnapshot, {}))->generation() == Generation{0});
  store.Close();
  CHECK(Store::Open(store.path(), OpenMode::kExclusive, {}).has_value());
}

TEST_CASE("Every row comes back as it was written", "[store]") {
  StoreFixture store;
  ClientRow client = ClientRowOf(-7, std::string("client \xc3\xa9"));
  client.description = "with 'quotes' and \"others\"";
  client.spiffe_id = "spiffe://domain/x";
  client.enabled = false;
  client.automation = true;
  client.content = true;
  client.owner = GroupId{3};
  client.last_seen = 5;
  client.expiration = 6;
  GroupRow group = GroupRowOf(3, "group");
  group.metadata = R"({"a":"b"})";
  group.owner = GroupId{3};
  SecretRow secret = SecretRowOf(INT64_MIN, "secret", INT64_MAX, 7);
  secret.type = "";
  secret.owner = GroupId{3};
  secret.expiry = 99;
  secret.state = SecretState::kDeleted;
  secret.sequence = 12;
  secret.mac.fill(3);
  VersionRow version = VersionRowOf(INT64_MAX, INT64_MIN, 7);
  version.info.checksum.fill(8);
  version.info.mac.fill(9);
  version.info.expiry = 99;
  version.sealed = {};
  Must(store->RunJob([&](Savepoint& savepoint) -> Status {
    RETURN_IF_ERROR(savepoint.InsertGroup(group));
    RETURN_IF_ERROR(savepoint.InsertClient(client));
    RETURN_IF_ERROR(savepoint.InsertSecret(secret));
    RETURN_IF_ERROR(savepoint.InsertVersion(version));
    RETURN_IF_ERROR(savepoint.InsertMembership({client.id, group.id, 44, client.mac}));
    RETURN_IF_ERROR(savepoint.InsertGrant({group.id, secret.id, 45, secret.mac}));
    RETURN_IF_ERROR(savepoint.PutKeyring({"mac", 3, {1, 0, 2}}));
    RETURN_IF_ERROR(savepoint.PutKek({3, {4, 5}, 46, true}));
    RETURN_IF_ERROR(savepoint.PutSetting("server_id", AsBytes("abc")));
    RETURN_IF_ERROR(savepoint.AppendAudit({1, {1, 2}, {3}}));
    return savepoint.PutServing({{{client.id, Generation{1}, 47, 48}}});
  }));
  store.Close();
  store.Open();
  Reader reader = Must(store->Read());

  const ClientRow c = Must(reader.GetClient(client.id));
  CHECK(c.name == client.name);
  CHECK(c.description == client.description);
  CHECK(c.spiffe_id == client.spiffe_id);
  CHECK(c.created_at == client.created_at);
  CHECK(c.created_by == client.created_by);
  CHECK_FALSE(c.enabled);
  CHECK(c.automation);
  CHECK(c.content);
  CHECK(c.owner == client.owner);
  CHECK(c.last_seen == client.last_seen);
  CHECK(c.expiration == client.expiration);
  CHECK(c.mac == client.mac);
  const GroupRow g = Must(reader.GetGroup(group.id));
  CHECK(g.name == group.name);
  CHECK(g.metadata == group.metadata);
  CHECK(g.owner == group.owner);
  const SecretRow s = Must(reader.GetSecret(secret.id));
  CHECK(s.name == secret.name);
  CHECK(s.type == secret.type);
  CHECK(s.owner == secret.owner);
  CHECK(s.current == secret.current);
  CHECK(s.expiry == secret.expiry);
  CHECK(s.state == secret.state);
  CHECK(s.newest_number == secret.newest_number);
  CHECK(s.sequence == secret.sequence);
  CHECK(s.mac == secret.mac);
  const VersionRow v = Must(store->LoadVersion(version.info.id));
  CHECK(v.info.secret == secret.id);
  CHECK(v.info.number == version.info.number);
  CHECK(v.info.metadata == version.info.metadata);
  CHECK(v.info.checksum == version.info.checksum);
  CHECK(v.info.mac == version.info.mac);
  CHECK(v.info.size == version.info.size);
  CHECK(v.sealed == version.sealed);
  CHECK(v.wrapped == version.wrapped);
  int rows = 0;
  Must(reader.ForEachMembership([&](MembershipRow&& row) {
    rows += row.client == client.id && row.group == group.id && row.created_at == 44 &&
            row.mac == client.mac;
    return Status();
  }));
  Must(reader.ForEachGrant([&](GrantRow&& row) {
    rows += row.group == group.id && row.secret == secret.id && row.created_at == 45 &&
            row.mac == secret.mac;
    return Status();
  }));
  Must(reader.ForEachKeyring([&](KeyringRow&& row) {
    rows += row.purpose == "mac" && row.kek_id == 3 && row.wrapped == ByteVector{1, 0, 2};
    return Status();
  }));
  Must(reader.ForEachKek([&](KekRow&& row) {
    rows += row.kek_id == 3 && row.check_value == ByteArray<16>{4, 5} && row.created_at == 46 &&
            row.active;
    return Status();
  }));
  Must(reader.ForEachServing([&](ServingRow&& row) {
    rows += row.client == client.id && row.generation == Generation{1} && row.since == 47 &&
            row.last_seen == 48;
    return Status();
  }));
  CHECK(rows == 5);
  CHECK(Must(reader.GetSetting("server_id")) == ByteVector{'a', 'b', 'c'});
  CHECK(CodeOf(reader.GetSetting("other")) == Errc::kNotFound);
  const auto audit = Must(reader.LastAudit());
  REQUIRE(audit.has_value());
  CHECK(audit->seq == 1);
  CHECK(audit->event == ByteVector{1, 2});
  CHECK(Must(reader.CheckIntegrity()).empty());
  CHECK(store->generation() == Generation{1});
}

TEST_CASE("Unique names, pairs and ids are held by the schema", "[store]") {
  StoreFixture store;
  Must(store->RunJob([](Savepoint& savepoint) -> Status {
    RETURN_IF_ERROR(savepoint.InsertGroup(GroupRowOf(1, "g")));
    ClientRow client = ClientRowOf(1, "c");
    client.spiffe_id = "spiffe://d/c";
    RETURN_IF_ERROR(savepoint.InsertClient(client));
    RETURN_IF_ERROR(savepoint.InsertMembership({ClientId{1}, GroupId{1}, 0, {}}));
    RETURN_IF_ERROR(InsertSecretWithVersion(savepoint, 1, "s"));
    return savepoint.InsertGrant({GroupId{1}, SecretId{1}, 0, {}});
  }));
  const auto refused = [&](std::function<Status(Savepoint&)> job) {
    return CodeOf(store->RunJob(std::move(job)));
  };
  CHECK(refused([](Savepoint& s) { return s.InsertClient(ClientRowOf(2, "c")); }) ==
        Errc::kConflict);
  CHECK(refused([](Savepoint& s) { return s.InsertClient(ClientRowOf(1, "d")); }) ==
        Errc::kConflict);
  CHECK(refused([](Savepoint& s) {
          ClientRow row = ClientRowOf(2, "d");
          row.spiffe_id = "spiffe://d/c";
          return s.InsertClient(row);
        }) == Errc::kConflict);
  CHECK(refused([](Savepoint& s) { return s.InsertGroup(GroupRowOf(2, "g")); }) == Errc::kConflict);
  CHECK(refused([](Savepoint& s) { return InsertSecretWithVersion(s, 2, "s"); }) ==
        Errc::kConflict);
  CHECK(refused([](Savepoint& s) {
          return s.InsertMembership({ClientId{1}, GroupId{1}, 0, {}});
        }) == Errc::kConflict);
  CHECK(refused([](Savepoint& s) {
          return s.InsertGrant({GroupId{1}, SecretId{1}, 0, {}});
        }) == Errc::kConflict);
  CHECK(refused([](Savepoint& s) { return s.InsertVersion(VersionRowOf(9, 1, 1)); }) ==
        Errc::kConflict);
  // Neighbours that are allowed: case matters, and a deleted secret keeps its name without holding
  // it.
  CHECK(refused([](Savepoint& s) { return s.InsertClient(ClientRowOf(2, "C")); }) == std::nullopt);
  CHECK(refused([](Savepoint& s) -> Status {
          SecretRow row = SecretRowOf(1, "s", 101);
          row.state = SecretState::kDeleted;
          RETURN_IF_ERROR(s.UpdateSecret(row));
          return InsertSecretWithVersion(s, 2, "s");
        }) == std::nullopt);
  // And undeleting it now is a conflict.
  CHECK(refused([](Savepoint& s) { return s.UpdateSecret(SecretRowOf(1, "s", 101)); }) ==
        Errc::kConflict);
}

TEST_CASE("References to rows that do not exist are refused", "[store]") {
  StoreFixture store;
  Must(store->RunJob([](Savepoint& s) -> Status {
    RETURN_IF_ERROR(s.InsertGroup(GroupRowOf(1, "g")));
    RETURN_IF_ERROR(s.InsertClient(ClientRowOf(1, "c")));
    SecretRow owned = SecretRowOf(1, "s", 101);
    owned.owner = GroupId{1};
    RETURN_IF_ERROR(s.InsertSecret(owned));
    return s.InsertVersion(VersionRowOf(101, 1, 1));
  }));
  const auto code = [&](std::function<Status(Savepoint&)> job) {
    return CodeOf(store->RunJob(std::move(job)));
  };
  CHECK(code([](Savepoint& s) {
          return s.InsertGrant({GroupId{2}, SecretId{1}, 0, {}});
        }) == Errc::kInternal);
  CHECK(code([](Savepoint& s) {
          return s.InsertMembership({ClientId{2}, GroupId{1}, 0, {}});
        }) == Errc::kInternal);
  CHECK(code([](Savepoint& s) { return s.InsertVersion(VersionRowOf(5, 2, 1)); }) ==
        Errc::kInternal);
  // An owner holds its group.
  CHECK(code([](Savepoint& s) { return s.DeleteGroup(GroupId{1}); }) == Errc::kInternal);
  CHECK(code([](Savepoint& s) -> Status {
          RETURN_IF_ERROR(s.UpdateSecret(SecretRowOf(1, "s", 101)));
          return s.DeleteGroup(GroupId{1});
        }) == std::nullopt);
  for (const auto& absent : std::vector<std::function<Status(Savepoint&)>>{
           [](Savepoint& s) { return s.UpdateClient(ClientRowOf(9, "x")); },
           [](Savepoint& s) { return s.DeleteClient(ClientId{9}); },
           [](Savepoint& s) { return s.UpdateGroup(GroupRowOf(9, "x")); },
           [](Savepoint& s) { return s.DeleteGroup(GroupId{9}); },
           [](Savepoint& s) { return s.DeleteMembership(ClientId{1}, GroupId{1}); },
           [](Savepoint& s) { return s.DeleteGrant(GroupId{1}, SecretId{1}); },
           [](Savepoint& s) { return s.UpdateSecret(SecretRowOf(9, "x", 1)); },
           [](Savepoint& s) { return s.DeleteSecret(SecretId{9}); },
           [](Savepoint& s) { return s.ReplaceVersion(VersionRowOf(9, 1, 1)); },
           [](Savepoint& s) { return s.UpdateWrapped(VersionId{9}, {}); },
           [](Savepoint& s) { return s.DeleteSetting("x"); },
           [](Savepoint& s) { return s.UpdateLastSeen(ClientId{9}, 1, {}); }}) {
    CHECK(code(absent) == Errc::kNotFound);
  }
}

TEST_CASE("Deleting takes the dependent rows along and nothing else", "[store]") {
  StoreFixture store;
  Must(store->RunJob([](Savepoint& s) -> Status {
    for (int i = 1; i <= 2; ++i) {
      RETURN_IF_ERROR(s.InsertGroup(GroupRowOf(i, "g" + std::to_string(i))));
      RETURN_IF_ERROR(s.InsertClient(ClientRowOf(i, "c" + std::to_string(i))));
      RETURN_IF_ERROR(InsertSecretWithVersion(s, i, "s" + std::to_string(i)));
    }
    for (int i = 1; i <= 2; ++i) {
      for (int j = 1; j <= 2; ++j) {
        RETURN_IF_ERROR(s.InsertMembership({ClientId{i}, GroupId{j}, 0, {}}));
        RETURN_IF_ERROR(s.InsertGrant({GroupId{i}, SecretId{j}, 0, {}}));
      }
    }
    return s.PutServing({{{ClientId{1}, {}, 0, 0}, {ClientId{77}, {}, 0, 0}}});
  }));
  const auto counts = [&] { return Must(Must(store->Read()).Count()); };
  Must(store->RunJob([](Savepoint& s) { return s.DeleteGroup(GroupId{1}); }));
  CHECK(counts().memberships == 2);
  CHECK(counts().grants == 2);
  CHECK(counts().groups == 1);
  Must(store->RunJob([](Savepoint& s) { return s.DeleteClient(ClientId{1}); }));
  CHECK(counts().memberships == 1);
  CHECK(counts().clients == 1);
  Must(store->RunJob([](Savepoint& s) { return s.DeleteSecret(SecretId{2}); }));
  CHECK(counts().grants == 1);
  CHECK(counts().versions == 1);
  CHECK(counts().live_secrets == 1);
  CHECK(CodeOf(store->LoadVersion(VersionId{201})) == Errc::kNotFound);
  CHECK(CodeOf(store->LoadVersion(VersionId{101})) == std::nullopt);
}

TEST_CASE("A failed job leaves nothing and its neighbours in the batch stay", "[store]") {
  Recorder recorder;
  StoreFixture store(&recorder);
  Gate gate(*store);
  std::vector<std::pair<bool, std::uint64_t>> done;
  const auto submit = [&](std::function<Status(Savepoint&)> run) {
    Job job;
    job.run = std::move(run);
    job.done = [&done](const Status& status, Generation generation) {
      done.emplace_back(status.has_value(), generation.value);
    };
    Must(store->Submit(std::move(job)));
  };
  submit([](Savepoint& s) -> Status {
    CHECK(s.generation() == Generation{1});
    return s.InsertClient(ClientRowOf(1, "one"));
  });
  submit([](Savepoint& s) -> Status {
    // Sees the job before it, and is undone as a whole.
    RETURN_IF_ERROR(s.InsertClient(ClientRowOf(2, "two")));
    RETURN_IF_ERROR(s.AppendChange({{}, ChangeKind::kClient, {}, {}, ClientId{2}, "", {}, {}}));
    RETURN_IF_ERROR(s.reader().GetClient(ClientId{1}).has_value()
                        ? Status()
                        : Status(Error{Errc::kInternal, ""}));
    return Error{Errc::kPermissionDenied, "no"};
  });
  submit([](Savepoint& s) -> Status {
    CHECK(s.generation() == Generation{2});
    CHECK(CodeOf(s.reader().GetClient(ClientId{2})) == Errc::kNotFound);
    RETURN_IF_ERROR(s.AppendChange({{}, ChangeKind::kClient, {}, {}, ClientId{3}, "", {}, {}}));
    return s.InsertClient(ClientRowOf(3, "three"));
  });
  gate.Open();
  store->Stop();
  CHECK(done == std::vector<std::pair<bool, std::uint64_t>>{{true, 1}, {false, 2}, {true, 2}});
  CHECK(recorder.log == "BjC0(0)BjjrjC2(1)");
  Reader reader = Must(store->Read());
  CHECK(CodeOf(reader.GetClient(ClientId{1})) == std::nullopt);
  CHECK(CodeOf(reader.GetClient(ClientId{2})) == Errc::kNotFound);
  CHECK(CodeOf(reader.GetClient(ClientId{3})) == std::nullopt);
  CHECK(Must(reader.Info()).generation == Generation{2});
}

TEST_CASE("The queue of writes is bounded and refuses at once", "[store]") {
  StoreFixture store;
  Gate gate(*store);
  int ran = 0;
  for (std::size_t i = 0; i < limits::kMaxQueuedWrites; ++i) {
    Must(store->Submit({[&ran](Savepoint&) { return ++ran, Status(); }, {}, false}));
  }
  CHECK(store->queued_writes() == limits::kMaxQueuedWrites);
  bool called = false;
  Job one_more{[](Savepoint&) { return Status(); },
               [&called](const Status&, Generation) { called = true; }, false};
  CHECK(CodeOf(store->Submit(one_more)) == Errc::kUnavailable);
  gate.Open();
  store->Stop();
  CHECK(ran == static_cast<int>(limits::kMaxQueuedWrites));
  CHECK_FALSE(called);
  CHECK(CodeOf(store->Submit(one_more)) == Errc::kUnavailable);
  CHECK(store->generation() == Generation{limits::kMaxQueuedWrites});
}

TEST_CASE("Bookkeeping takes no generation", "[store]") {
  StoreFixture store;
  Must(store->RunJob([](Savepoint& s) { return s.InsertClient(ClientRowOf(1, "c")); }));
  std::promise<Generation> at;
  Must(store->Submit({[](Savepoint& s) { return s.UpdateLastSeen(ClientId{1}, 77, 88); },
                      [&at](const Status&, Generation generation) { at.set_value(generation); },
                      true}));
  CHECK(at.get_future().get() == Generation{1});
  CHECK(Must(Must(store->Read()).GetClient(ClientId{1})).last_seen == 77);
  Must(store->RunJob([](Savepoint& s) { return s.UpdateLastSeen(ClientId{1}, 78, {}); }));
  CHECK(Must(Must(store->Read()).GetClient(ClientId{1})).expiration == 88);
}

TEST_CASE("Versions are listed newest first and ties fall by insertion", "[store]") {
  StoreFixture store;
  Must(store->RunJob([](Savepoint& s) -> Status {
    RETURN_IF_ERROR(s.InsertSecret(SecretRowOf(1, "s", 50, 6)));
    const std::int64_t ids[] = {50, 10, 90, 20, 80, 30};
    const std::int64_t times[] = {100, 100, 300, 200, 200, 100};
    for (std::uint64_t i = 0; i < 6; ++i) {
      RETURN_IF_ERROR(s.InsertVersion(VersionRowOf(ids[i], 1, i + 1, times[i])));
    }
    return {};
  }));
  Reader reader = Must(store->Read());
  const auto numbers = [](const std::vector<VersionInfo>& versions) {
    std::vector<std::uint64_t> out;
    for (const auto& version : versions) out.push_back(version.number.value);
    return out;
  };
  using Numbers = std::vector<std::uint64_t>;
  CHECK(numbers(Must(reader.ListVersions(SecretId{1}, 0, 100))) == Numbers{3, 5, 4, 6, 2, 1});
  CHECK(numbers(Must(reader.ListVersions(SecretId{1}, 2, 2))) == Numbers{4, 6});
  CHECK(Must(reader.ListVersions(SecretId{1}, 6, 2)).empty());
  CHECK(Must(reader.ListVersions(SecretId{2}, 0, 2)).empty());
  CHECK(numbers(Must(reader.ListVersionsBelow(SecretId{1}, VersionNumber{UINT64_MAX}, 2))) ==
        Numbers{6, 5});
  CHECK(numbers(Must(reader.ListVersionsBelow(SecretId{1}, VersionNumber{5}, 9))) ==
        Numbers{4, 3, 2, 1});
  CHECK(Must(reader.GetVersion(SecretId{1}, VersionNumber{3})).id == VersionId{90});
  CHECK(CodeOf(reader.GetVersion(SecretId{1}, VersionNumber{7})) == Errc::kNotFound);
}

TEST_CASE("Pruning keeps young ones, the current one and the ten newest of the old", "[store]") {
  constexpr std::int64_t kDay = 86'400;
  constexpr std::int64_t kNow = 1000 * kDay;
  StoreFixture store;
  Must(store->RunJob([](Savepoint& s) -> Status {
    RETURN_IF_ERROR(s.InsertSecret(SecretRowOf(1, "s", 1, 30)));
    // Number 1 is current and the oldest; 2..14 are old, 15 exactly at the edge, the others young.
    for (std::int64_t i = 1; i <= 20; ++i) {
      const std::int64_t created = i <= 14   ? kNow - 15 * kDay - 100 + i
                                   : i == 15 ? kNow - 15 * kDay
                                             : kNow - kDay;
      RETURN_IF_ERROR(s.InsertVersion(VersionRowOf(i, 1, static_cast<std::uint64_t>(i), created)));
    }
    return {};
  }));
  const auto prunable = Must(Must(store->Read()).PrunableVersions(SecretId{1}, VersionId{1}, kNow));
  CHECK(prunable == std::vector<VersionId>{{2}, {3}, {4}});
  Must(store->RunJob([&](Savepoint& s) { return s.DeleteVersions(prunable); }));
  CHECK(Must(Must(store->Read()).ListVersions(SecretId{1}, 0, 99)).size() == 17);
  CHECK(CodeOf(store->RunJob([&](Savepoint& s) { return s.DeleteVersions(prunable); })) ==
        Errc::kNotFound);
}

TEST_CASE("Pruning looks past a few young versions, not through all of them", "[store]") {
  constexpr std::int64_t kNow = 1'000'000'000;
  constexpr auto kLookAhead = static_cast<std::int64_t>(limits::kPruneLookAhead);
  StoreFixture store;
  // 1..12 old, but 6 written by a clock that was wrong; then as many young ones as end the search, then an old one.
  Must(store->RunJob([](Savepoint& s) -> Status {
    RETURN_IF_ERROR(s.InsertSecret(SecretRowOf(1, "s", 30, 30)));
    for (std::int64_t i = 1; i <= 30; ++i) {
      const bool young = i == 6 || (i > 12 && i <= 12 + kLookAhead);
      RETURN_IF_ERROR(
          s.InsertVersion(VersionRowOf(i, 1, static_cast<std::uint64_t>(i), young ? kNow + i : i)));
    }
    return {};
  }));
  const auto prunable =
      Must(Must(store->Read()).PrunableVersions(SecretId{1}, VersionId{30}, kNow));
  CHECK(prunable == std::vector<VersionId>{{1}});
  // With the young ones gone, those behind them are found.
  Must(store->RunJob([](Savepoint& s) { return s.DeleteVersions(std::vector<VersionId>{{13}}); }));
  CHECK(Must(Must(store->Read()).PrunableVersions(SecretId{1}, VersionId{30}, kNow)) ==
        std::vector<VersionId>{{1}, {2}});
}

TEST_CASE("A version sealed anew replaces the old bytes", "[store]") {
  StoreFixture store;
  Must(store->RunJob([](Savepoint& s) { return InsertSecretWithVersion(s, 1, "s"); }));
  VersionRow row = VersionRowOf(101, 1, 1);
  row.info.expiry = 5;
  row.sealed = {7};
  Must(store->RunJob([&](Savepoint& s) { return s.ReplaceVersion(row); }));
  Must(store->RunJob([&](Savepoint& s) { return s.UpdateWrapped(row.info.id, AsBytes("new")); }));
  const VersionRow read = Must(store->LoadVersion(row.info.id));
  CHECK(read.info.expiry == 5);
  CHECK(read.sealed == ByteVector{7});
  CHECK(read.wrapped == ByteVector{'n', 'e', 'w'});
}

TEST_CASE("The audit chain has no gaps", "[store]") {
  StoreFixture store;
  const auto append = [&](std::uint64_t seq) {
    return CodeOf(store->RunJob([seq](Savepoint& s) {
      return s.AppendAudit({seq, {std::uint8_t(seq)}, {}});
    }));
  };
  CHECK(append(2) == Errc::kInternal);
  for (std::uint64_t seq = 1; seq <= 5; ++seq) CHECK(append(seq) == std::nullopt);
  CHECK(append(5) == Errc::kInternal);
  CHECK(append(7) == Errc::kInternal);
  Reader reader = Must(store->Read());
  const auto seqs = [](const std::vector<AuditRow>& rows) {
    std::vector<std::uint64_t> out;
    for (const auto& row : rows) out.push_back(row.seq);
    return out;
  };
  CHECK(seqs(Must(reader.ListAudit(0, 2))) == std::vector<std::uint64_t>{1, 2});
  CHECK(seqs(Must(reader.ListAudit(4, 9))) == std::vector<std::uint64_t>{5});
  CHECK(seqs(Must(reader.ListNewestAudit(2))) == std::vector<std::uint64_t>{4, 5});
}

TEST_CASE("The counter never hands out a number twice", "[store]") {
  StoreFixture store;
  Must(store->RunJob([&](Savepoint& s) -> Status {
    ASSIGN_OR_RETURN(const std::uint64_t a, s.NextSecretSequence());
    ASSIGN_OR_RETURN(const std::uint64_t b, s.NextSecretSequence());
    CHECK(b == a + 1);
    return {};
  }));
}

TEST_CASE("The change log tells which version a change left current", "[store]") {
  StoreFixture store;
  const ChangeRow change{{}, ChangeKind::kSecret, SecretId{1}, {}, {}, "s", {}, {}};
  Must(store->RunJob([&](Savepoint& s) -> Status {
    RETURN_IF_ERROR(InsertSecretWithVersion(s, 1, "s"));
    return s.AppendChange(change);
  }));
  Must(store->RunJob([&](Savepoint& s) -> Status {
    RETURN_IF_ERROR(s.InsertVersion(VersionRowOf(102, 1, 2)));
    RETURN_IF_ERROR(s.UpdateSecret(SecretRowOf(1, "s", 102, 2)));
    return s.AppendChange(change);
  }));
  Must(store->RunJob([&](Savepoint& s) -> Status {  // metadata only: nothing moves
    RETURN_IF_ERROR(s.UpdateSecret(SecretRowOf(1, "s", 102, 2)));
    return s.AppendChange(change);
  }));
  std::vector<std::array<std::uint64_t, 3>> log;
  Must(Must(store->Read()).ForEachChange([&](ChangeRow&& row) {
    log.push_back({row.generation.value, row.version.value, row.previous.value});
    return Status();
  }));
  CHECK(log == std::vector<std::array<std::uint64_t, 3>>{{1, 1, 0}, {2, 2, 1}, {3, 2, 2}});
}

TEST_CASE("A backup is one state, private, complete and never overwrites", "[store]") {
  StoreFixture store;
  const TempDir dir;
  const auto target = dir / "backup.db";
  std::atomic<bool> stop = false;
  std::thread writer([&] {
    // Always in pairs: a backup that is not one state would hold one half.
    for (std::int64_t i = 0; !stop; ++i) {
      (void)store->RunJob([i](Savepoint& s) -> Status {
        RETURN_IF_ERROR(s.InsertClient(ClientRowOf(2 * i + 1, "c" + std::to_string(2 * i + 1))));
        return s.InsertClient(ClientRowOf(2 * i + 2, "c" + std::to_string(2 * i + 2)));
      });
    }
  });
  while (store->generation().value < 20) std::this_thread::yield();
  const auto generation = store->Backup(target);
  stop = true;
  writer.join();
  REQUIRE(generation.has_value());
  struct stat info {};
  REQUIRE(::stat(target.c_str(), &info) == 0);
  CHECK((info.st_mode & 07777) == 0600);
  CHECK(std::distance(std::filesystem::directory_iterator(dir.path()), {}) == 1);
  CHECK(CodeOf(store->Backup(target)) == Errc::kConflict);
  CHECK(CodeOf(store->Backup(dir / "no" / "such")) == Errc::kUnavailable);

  const auto copy = Must(Store::Open(target, OpenMode::kExclusive, {}));
  CHECK(copy->generation() == generation.value());
  Reader reader = Must(copy->Read());
  CHECK(Must(reader.Count()).clients == 2 * generation.value().value);
  CHECK(Must(reader.CheckIntegrity()).empty());
}

TEST_CASE("A snapshot beside the server sees its commits and cannot write", "[store]") {
  StoreFixture store;
  Must(store->RunJob([](Savepoint& s) { return s.InsertClient(ClientRowOf(1, "a")); }));
  const auto snapshot = Must(Store::Open(store.path(), OpenMode::kSnapshot, {}));
  CHECK(snapshot->generation() == Generation{1});
  CHECK(Must(Must(snapshot->Read()).Count()).clients == 1);
  Must(store->RunJob([](Savepoint& s) { return s.InsertClient(ClientRowOf(2, "b")); }));
  CHECK(Must(Must(snapshot->Read()).Count()).clients == 2);
  CHECK_FALSE(snapshot->RunJob([](Savepoint&) { return Status(); }).has_value());
  const TempDir dir;
  CHECK(Must(snapshot->Backup(dir / "copy.db")) == Generation{2});
}

TEST_CASE("A reader sees one state while writes go on", "[store]") {
  StoreFixture store;
  Must(store->RunJob([](Savepoint& s) { return s.InsertClient(ClientRowOf(1, "a")); }));
  Reader before = Must(store->Read());
  Must(store->RunJob([](Savepoint& s) { return s.InsertClient(ClientRowOf(2, "b")); }));
  CHECK(Must(before.Count()).clients == 1);
  CHECK(Must(before.Info()).generation == Generation{1});
  CHECK(Must(Must(store->Read()).Count()).clients == 2);
}

}  // namespace
}  // namespace latchkey::store
