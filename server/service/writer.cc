#include "server/service/writer.h"

#include <algorithm>

#include "common/base/log.h"
#include "common/crypto/crypto.h"

namespace latchkey::service {
namespace {

// Messages of a use case may be shown to callers (rule O3); those of the storage are for the log.
Error StorageFailure(const char* action, Error error) {
  if (error.code == Errc::kUnavailable || error.code == Errc::kCorrupt)
    Log(LogLevel::kError, "storage failed in a use case",
        {{"action", action}, {"error", error.message}});
  switch (error.code) {
    case Errc::kConflict:
      return {Errc::kConflict, "the name is already in use"};
    case Errc::kUnavailable:
      return StorageReason(error);
    case Errc::kCorrupt:
      return {Errc::kCorrupt, "stored data is damaged"};
    case Errc::kInvalidArgument:
    case Errc::kTooLarge:
    case Errc::kUnauthenticated:
    case Errc::kPermissionDenied:
    case Errc::kNotFound:
    case Errc::kForbidden:
    case Errc::kInternal:
      break;
  }
  Log(LogLevel::kError, "storage refused a row of a use case",
      {{"action", action}, {"error", error.message}});
  return {Errc::kInternal, "internal error"};
}

Status FromStorage(const char* action, Status status) {
  if (status) return {};
  return StorageFailure(action, std::move(status).error());
}

}  // namespace

Error StorageReason(const Error& error) {
  if (error.code != Errc::kUnavailable) return error;
  const bool full = error.message.starts_with(store::kDiskFull);
  return {error.code, std::string(full ? kDiskFullReason : kNotWritableReason)};
}

Status WriteContext::Audit(audit::EventType type, const std::function<void(audit::Event&)>& fill) {
  audit::Event event = actor.Event(type, audit::Outcome::kAllowed, now_ns_);
  fill(event);
  return FromStorage("audit", chain_.Append(tx, event));
}

Status WriteContext::Change(store::ChangeRow row) {
  return FromStorage("change log", tx.AppendChange(row));
}

Status WriteContext::InsertClient(store::ClientRow row) {
  keys.Sign(&row);
  RETURN_IF_ERROR(FromStorage("insert client", tx.InsertClient(row)));
  editor.PutClient(row);
  return {};
}

Status WriteContext::UpdateClient(store::ClientRow row) {
  keys.Sign(&row);
  RETURN_IF_ERROR(FromStorage("update client", tx.UpdateClient(row)));
  editor.PutClient(row);
  return {};
}

Status WriteContext::DeleteClient(ClientId id) {
  RETURN_IF_ERROR(FromStorage("delete client", tx.DeleteClient(id)));
  editor.RemoveClient(id);
  return {};
}

Status WriteContext::InsertGroup(store::GroupRow row) {
  keys.Sign(&row);
  RETURN_IF_ERROR(FromStorage("insert group", tx.InsertGroup(row)));
  editor.PutGroup(row);
  return {};
}

Status WriteContext::UpdateGroup(store::GroupRow row) {
  keys.Sign(&row);
  RETURN_IF_ERROR(FromStorage("update group", tx.UpdateGroup(row)));
  editor.PutGroup(row);
  return {};
}

Status WriteContext::DeleteGroup(GroupId id) {
  RETURN_IF_ERROR(FromStorage("delete group", tx.DeleteGroup(id)));
  editor.RemoveGroup(id);
  return {};
}

Status WriteContext::AddMembership(ClientId client, GroupId group) {
  store::MembershipRow row{client, group, now, {}};
  keys.Sign(&row);
  RETURN_IF_ERROR(FromStorage("insert membership", tx.InsertMembership(row)));
  editor.AddMembership(client, group);
  return {};
}

Status WriteContext::RemoveMembership(ClientId client, GroupId group) {
  RETURN_IF_ERROR(FromStorage("delete membership", tx.DeleteMembership(client, group)));
  editor.RemoveMembership(client, group);
  return {};
}

Status WriteContext::AddGrant(GroupId group, SecretId secret) {
  store::GrantRow row{group, secret, now, {}};
  keys.Sign(&row);
  RETURN_IF_ERROR(FromStorage("insert grant", tx.InsertGrant(row)));
  editor.AddGrant(group, secret);
  return {};
}

Status WriteContext::RemoveGrant(GroupId group, SecretId secret) {
  RETURN_IF_ERROR(FromStorage("delete grant", tx.DeleteGrant(group, secret)));
  editor.RemoveGrant(group, secret);
  return {};
}

Status WriteContext::InsertSecret(store::SecretRow row, const store::VersionRow& first) {
  keys.Sign(&row);
  // The store lets the version follow its secret within the job.
  RETURN_IF_ERROR(FromStorage("insert secret", tx.InsertSecret(row)));
  RETURN_IF_ERROR(FromStorage("insert version", tx.InsertVersion(first)));
  editor.PutSecret(row, first.info);
  return {};
}

Status WriteContext::UpdateSecret(store::SecretRow row, const store::VersionInfo& current) {
  keys.Sign(&row);
  RETURN_IF_ERROR(FromStorage("update secret", tx.UpdateSecret(row)));
  editor.PutSecret(row, current);
  return {};
}

Status WriteContext::DeleteSecret(SecretId id) {
  RETURN_IF_ERROR(FromStorage("delete secret", tx.DeleteSecret(id)));
  editor.RemoveSecret(id);
  return {};
}

Result<store::VersionRow> WriteContext::SealNew(SecretId secret, VersionNumber number,
                                                Bytes content, std::string metadata,
                                                std::int64_t expiry) {
  store::VersionInfo info;
  info.id = VersionId{crypto::RandomId()};
  info.secret = secret;
  info.number = number;
  info.created_at = now;
  info.created_by = actor.name;
  info.metadata = std::move(metadata);
  info.expiry = expiry;
  return keys.SealVersion(std::move(info), content);
}

Result<store::VersionInfo> WriteContext::AddVersion(SecretId secret, VersionNumber number,
                                                    Bytes content, std::string metadata,
                                                    std::int64_t expiry) {
  ASSIGN_OR_RETURN(const store::VersionRow row,
                   SealNew(secret, number, content, std::move(metadata), expiry));
  RETURN_IF_ERROR(FromStorage("insert version", tx.InsertVersion(row)));
  return row.info;
}

Result<SecretBuffer> WriteContext::OpenVersion(VersionId id) {
  auto row = tx.reader().LoadVersion(id);
  if (!row) return StorageFailure("load version", std::move(row).error());
  return keys.OpenVersion(row->info, row->sealed, row->wrapped);
}

Writer::Writer(const Parts& parts)
    : parts_(parts), editor_(parts.catalog->Current()), batch_(Here()), job_(batch_) {}

WriteContext Writer::ContextFor(store::Savepoint& savepoint, const Actor& actor) {
  return WriteContext(savepoint, editor_, *parts_.keys, *parts_.chain, *parts_.settings, actor,
                      parts_.clock->Now());
}

void Writer::GoBackTo(const Mark& mark) {
  editor_.Reset(mark.root);
  parts_.chain->Reset(mark.chain);
}

void Writer::BatchBegin() {
  batch_ = Here();
}
void Writer::JobBegin() {
  job_ = Here();
}
void Writer::JobRolledBack() {
  GoBackTo(job_);
}

void Writer::Committed(Generation newest, std::span<const store::ChangeRow> changes) {
  editor_.SetGeneration(newest);
  const catalog::RootRef root = editor_.Snapshot();
  parts_.catalog->Publish(root);
  parts_.chain->Committed(newest);
  parts_.feed->Publish(root, newest, changes);
}

void Writer::BatchFailed(const Error& error) {
  GoBackTo(batch_);
  Log(LogLevel::kError, "a batch of writes was not committed", {{"error", error.message}});
}

Status Writer::RecordFailure(const Actor& actor, const Intent& intent, const Error& error) {
  const bool denied = error.code == Errc::kPermissionDenied || error.code == Errc::kForbidden;
  audit::Event event =
      actor.Event(denied ? audit::EventType::kAccessDenied : audit::EventType::kMutationFailed,
                  denied ? audit::Outcome::kDenied : audit::Outcome::kFailed,
                  parts_.clock->Now().time_since_epoch().count());
  if (error.code == Errc::kCorrupt) event.type = audit::EventType::kIntegrityFailure;
  event.detail = audit::EventTypeName(intent.attempted);
  event.secret_name = intent.secret_name;
  event.group_name = intent.group_name;
  event.client_name = intent.client_name;
  audit::EventBatch batch;
  batch.Add(event);
  return parts_.access->AppendDurable(batch);
}

void Writer::RecordSighting(ClientId client, std::optional<std::int64_t> expiration) {
  const bool first = sightings_.With([client](std::vector<ClientId>& queued) {
    if (std::find(queued.begin(), queued.end(), client) != queued.end()) return false;
    queued.push_back(client);
    return true;
  });
  if (!first) return;
  const auto forget = [this, client] {
    sightings_.With([client](std::vector<ClientId>& queued) { std::erase(queued, client); });
  };
  store::Job job;
  job.bookkeeping = true;
  job.run = [this, client, expiration](store::Savepoint& savepoint) -> Status {
    const catalog::Client* found = editor_.root().FindClient(client);
    if (found == nullptr) return {};  // deleted meanwhile
    store::ClientRow row = found->row;
    row.last_seen = std::max(row.last_seen.value_or(0), EpochSeconds(parts_.clock->Now()));
    if (expiration) row.expiration = expiration;
    RETURN_IF_ERROR(savepoint.UpdateLastSeen(client, *row.last_seen, expiration));
    editor_.PutClient(row);
    return {};
  };
  job.done = [forget](const Status&, Generation) { forget(); };
  if (!parts_.store->Submit(std::move(job))) forget();
}

}  // namespace latchkey::service
