#include "server/service/maintenance.h"

#include <future>

#include "common/crypto/crypto.h"

namespace latchkey::service {
namespace {

std::int64_t NowNs(const Clock& clock) {
  return clock.Now().time_since_epoch().count();
}

Actor ServerActor() {
  return Actor::Server("latchkeyd", "", 0);
}

}  // namespace

Actor OperatorActor(unsigned uid) {
  Actor actor;
  actor.kind = audit::ActorKind::kOperator;
  actor.name = "uid:" + std::to_string(uid);
  return actor;
}

Status FillNewStore(store::Store& store, const keys::NewKeyring& keyring, audit::StoreChain& chain,
                    const NewStore& what, const Clock& clock) {
  ASSIGN_OR_RETURN(const ClientName name, ClientName::Parse(what.admin));
  const WallTime now = clock.Now();
  const auto fill = [&](store::Savepoint& savepoint) -> Status {
    RETURN_IF_ERROR(savepoint.PutKek(keyring.kek));
    for (const store::KeyringRow& row : keyring.rows) RETURN_IF_ERROR(savepoint.PutKeyring(row));
    store::ClientRow admin;
    admin.id = ClientId{crypto::RandomId()};
    admin.name = name.text();
    admin.description = "first automation client";
    admin.created_at = admin.updated_at = EpochSeconds(now);
    admin.created_by = admin.updated_by = what.actor.name;
    admin.automation = true;
    keyring.keyring->Sign(&admin);
    RETURN_IF_ERROR(savepoint.InsertClient(admin));
    audit::Event event = what.actor.Event(audit::EventType::kInit, audit::Outcome::kAllowed,
                                          now.time_since_epoch().count());
    event.client_id = admin.id.value;
    event.client_name = admin.name;
    event.client_bits = audit::kBitsKnown | audit::kBitEnabled | audit::kBitAutomation;
    event.detail = what.no_recovery ? "no_recovery" : "recovery_copy_confirmed";
    return chain.Append(savepoint, event);
  };
  ASSIGN_OR_RETURN(const Generation generation, store.RunJob(fill));
  chain.Committed(generation);
  return {};
}

Status AppendToStoreChain(store::Store& store, audit::StoreChain& chain,
                          const audit::Event& event) {
  auto outcome = std::make_shared<std::promise<Status>>();
  std::future<Status> done = outcome->get_future();
  store::Job job;
  job.bookkeeping = true;
  // The caller waits, so what the event borrows stays alive.
  job.run = [&chain, &event](store::Savepoint& savepoint) {
    return chain.Append(savepoint, event);
  };
  job.done = [outcome](const Status& status, Generation) { outcome->set_value(status); };
  RETURN_IF_ERROR(store.Submit(std::move(job)));
  return done.get();
}

Status RecordServerEvent(audit::AccessLog& access, audit::EventType type, audit::Outcome outcome,
                         const char* detail, Generation generation, const Clock& clock) {
  const Actor actor = ServerActor();
  audit::Event event = actor.Event(type, outcome, NowNs(clock));
  event.detail = detail;
  event.generation = generation.value;
  audit::EventBatch batch;
  batch.Add(event);
  return access.AppendDurable(batch);
}

Status RecordAcceptedRollback(store::Store& store, audit::StoreChain& chain,
                              audit::AccessLog& access, const Actor& actor, const Clock& clock) {
  // As far as this store goes: whatever the access chain said of later positions is void.
  const audit::ChainHead store_head = chain.Last().head;
  audit::Event for_access =
      actor.Event(audit::EventType::kRollbackAccepted, audit::Outcome::kAllowed, NowNs(clock));
  for_access.generation = store.generation().value;
  for_access.head_chain = audit::kStoreChainId;
  for_access.head_seq = store_head.seq;
  for_access.head_hash = store_head.hash;
  audit::EventBatch batch;
  batch.Add(for_access);
  RETURN_IF_ERROR(access.AppendDurable(batch));

  const audit::ChainHead access_head = access.LastSynced().head;
  audit::Event for_store = for_access;
  for_store.head_chain = access.chain_id();
  for_store.head_seq = access_head.seq;
  for_store.head_hash = access_head.hash;
  return AppendToStoreChain(store, chain, for_store);
}

Status RecordTailCut(audit::AccessLog& access, const Clock& clock) {
  const Actor actor = ServerActor();
  audit::Event event =
      actor.Event(audit::EventType::kTailCut, audit::Outcome::kFailed, NowNs(clock));
  event.count = access.recovery().cut_bytes;
  event.head_chain = access.chain_id();
  event.head_seq = access.recovery().head_after.seq;
  audit::EventBatch batch;
  batch.Add(event);
  return access.AppendDurable(batch);
}

}  // namespace latchkey::service
