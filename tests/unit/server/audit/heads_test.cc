#include "server/audit/heads.h"

#include <catch2/catch.hpp>

#include "server/audit/verify.h"
#include "server/store/store.h"
#include "tests/unit/server/audit/audit_fixture.h"

namespace latchkey::audit {
namespace {

// A store and an access log with the observer that a server has, as far as the chain needs it.
class Chains final : public store::CommitObserver {
 public:
  Chains() {
    ByteArray<16> id;
    id.fill(9);
    REQUIRE(store::Store::Create(dir_.File("store.db"), id, 1).has_value());
    store_ = store::Store::Open(dir_.File("store.db"), store::OpenMode::kExclusive, {}).value();
    chain_ = std::make_unique<StoreChain>(TestKey(), ChainHead{});
    REQUIRE(::mkdir(dir_.File("audit").c_str(), 0700) == 0);
    access_ = AccessLog::Open(TestKey(), SmallLog(dir_.File("audit"))).value();
    store_->Start(this);
    HeadKeeperOptions options;
    options.store_id = id;
    options.anchor_path = anchor_path();
    options.clock = &SystemClock();
    options.record_in_store = [this](const Event& event) { return AppendToStore(event); };
    keeper_ = std::make_unique<HeadKeeper>(TestKey(), *chain_, *access_, std::move(options));
  }
  ~Chains() override {
    keeper_.reset();
    store_->Stop();
  }

  void JobBegin() override { mark_ = chain_->Mark(); }
  void JobRolledBack() override { chain_->Reset(mark_); }
  void Committed(Generation newest, std::span<const store::ChangeRow>) override {
    chain_->Committed(newest);
  }
  void BatchFailed(const Error&) override {}

  Status AppendToStore(const Event& event, bool then_fail = false) {
    const auto run = [&](store::Savepoint& savepoint) -> Status {
      RETURN_IF_ERROR(chain_->Append(savepoint, event));
      return then_fail ? Status(Error{Errc::kConflict, "refused after its event"}) : Status();
    };
    const auto generation = store_->RunJob(run);
    return generation ? Status() : Status(generation.error());
  }

  std::vector<store::AuditRow> StoreRows() {
    return store_->Read().value().ListAudit(0, 1000).value();
  }
  std::vector<EventType> TypesInStore() {
    std::vector<EventType> types;
    for (const store::AuditRow& row : StoreRows()) types.push_back(DecodeEvent(row.event)->type);
    return types;
  }
  std::vector<EventType> TypesInAccess() {
    std::vector<EventType> types;
    const std::vector<AccessLog::StoredEvent> events = access_->Read(0, 1000).value();
    for (const auto& event : events) types.push_back(DecodeEvent(event.event)->type);
    return types;
  }
  Anchor anchor() { return ReadAnchor(anchor_path(), TestKey()).value().value(); }
  std::string anchor_path() const { return dir_.File("anchor"); }

  StoreChain& chain() { return *chain_; }
  AccessLog& access() { return *access_; }
  HeadKeeper& keeper() { return *keeper_; }
  const ScratchDir& dir() const { return dir_; }

 private:
  ScratchDir dir_;
  std::unique_ptr<store::Store> store_;
  std::unique_ptr<StoreChain> chain_;
  std::unique_ptr<AccessLog> access_;
  std::unique_ptr<HeadKeeper> keeper_;
  StoreChain::Position mark_;
};

Event Mutation(std::string_view name) {
  Event event;
  event.type = EventType::kSecretCreate;
  event.secret_name = name;
  return event;
}

}  // namespace

TEST_CASE("Each chain records the other's head when that moved, and only then", "[audit]") {
  Chains chains;
  REQUIRE(chains.AppendToStore(Mutation("a")).has_value());
  AppendReads(chains.access(), 0, 3);
  REQUIRE(chains.keeper().RunOnce().has_value());
  using T = EventType;
  const std::vector<T> store_then{T::kSecretCreate, T::kHeads};
  const std::vector<T> access_then{T::kSecretRead, T::kSecretRead, T::kSecretRead, T::kHeads};
  CHECK(chains.TypesInStore() == store_then);
  CHECK(chains.TypesInAccess() == access_then);
  // Heads are not movement: nothing is recorded about them, however often it runs.
  for (int i = 0; i < 3; ++i) REQUIRE(chains.keeper().RunOnce().has_value());
  CHECK(chains.TypesInStore() == store_then);
  CHECK(chains.TypesInAccess() == access_then);
  // Movement of one chain is recorded in the other one alone.
  AppendReads(chains.access(), 10, 1);
  REQUIRE(chains.keeper().RunOnce().has_value());
  CHECK(chains.TypesInStore().size() == 3);
  CHECK(chains.TypesInAccess().size() == 5);
}

TEST_CASE("The anchor names generation and both heads after each round", "[audit]") {
  Chains chains;
  REQUIRE(chains.AppendToStore(Mutation("a")).has_value());
  AppendReads(chains.access(), 0, 2);
  REQUIRE(chains.keeper().RunOnce().has_value());
  const Anchor anchor = chains.anchor();
  CHECK(anchor.store == chains.chain().Last().head);
  CHECK(anchor.access == chains.access().Last().head);
  CHECK(anchor.generation == chains.chain().Last().generation);
  CHECK(anchor.access_chain == "access:test");
  REQUIRE(chains.keeper().Stop().has_value());
  CHECK(chains.anchor() == anchor);
}

TEST_CASE(
    "Recorded heads are those of records that are on the disk, and each chain vouches for the "
    "other",
    "[audit]") {
  Chains chains;
  for (int i = 0; i < 5; ++i) {
    REQUIRE(chains.AppendToStore(Mutation("a")).has_value());
    AppendReads(chains.access(), 0, 2);
    REQUIRE(chains.keeper().RunOnce().has_value());
  }
  ChainVerifier store(TestKey(), "store", {});
  const std::vector<store::AuditRow> rows = chains.StoreRows();
  for (const store::AuditRow& row : rows) REQUIRE(store.Add(row.seq, row.event, row.hash));
  ChainVerifier access(TestKey(), "access:test", store.RecordedHeads("access:test"));
  const auto files = ReadSpool(
      {chains.dir().File("audit")}, "access:test",
      [&](std::uint64_t seq, Bytes event, Bytes hash) { return access.Add(seq, event, hash); });
  access.Finish();
  CHECK(files->empty());
  CHECK(access.damage().empty());
  CHECK(store.RecordedHeads("access:test").size() == 5);
  CHECK(access.RecordedHeads("store").size() == 5);
}

TEST_CASE("A job that fails after its event leaves no record and no gap", "[audit]") {
  Chains chains;
  REQUIRE(chains.AppendToStore(Mutation("a")).has_value());
  const Status refused = chains.AppendToStore(Mutation("b"), true);
  REQUIRE_FALSE(refused.has_value());
  CHECK(chains.chain().Last().head.seq == 1);
  REQUIRE(chains.AppendToStore(Mutation("c")).has_value());
  const auto rows = chains.StoreRows();
  REQUIRE(rows.size() == 2);
  CHECK(DecodeEvent(rows[1].event)->secret_name == "c");
  ChainVerifier verifier(TestKey(), "store", {});
  for (const store::AuditRow& row : rows) REQUIRE(verifier.Add(row.seq, row.event, row.hash));
}

TEST_CASE("A round whose anchor cannot be written says so and is made up for later", "[audit]") {
  Chains chains;
  REQUIRE(chains.AppendToStore(Mutation("a")).has_value());
  // A directory in its place: not even root can replace it by a file.
  std::filesystem::create_directory(chains.anchor_path());
  const Status failed = chains.keeper().RunOnce();
  REQUIRE_FALSE(failed.has_value());
  CHECK_THAT(failed.error().message, Catch::Contains("anchor"));
  std::filesystem::remove(chains.anchor_path());
  REQUIRE(chains.keeper().RunOnce().has_value());
  CHECK(chains.anchor().store == chains.chain().Last().head);
}

TEST_CASE("The thread of the keeper records by itself", "[audit]") {
  Chains chains;
  chains.keeper().Start();
  AppendReads(chains.access(), 0, 1);
  // Stop runs the last round whatever the thread had done before: both ways the result is the same.
  REQUIRE(chains.keeper().Stop().has_value());
  CHECK(chains.TypesInStore() == std::vector<EventType>{EventType::kHeads});
  CHECK(chains.anchor().access == chains.access().Last().head);
}

}  // namespace latchkey::audit
