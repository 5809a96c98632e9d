#include <algorithm>
#include <utility>

#include "common/base/check.h"
#include "server/store/sqlite.h"
#include "server/store/store.h"

namespace latchkey::store {

Savepoint::Savepoint(Connection* connection, Generation generation, bool bookkeeping,
                     std::vector<ChangeRow>* changes)
    : connection_(connection),
      reader_(connection),
      generation_(generation),
      bookkeeping_(bookkeeping),
      changes_(changes) {}

Status Savepoint::InsertClient(const ClientRow& row) {
  return connection_
      ->Prepare(
          "INSERT INTO clients (id, name, description, spiffe_id, created_at, created_by, "
          "updated_at, updated_by, enabled, automation, content, owner, last_seen, expiration, "
          "mac) "
          "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
      .Bind(row.id)
      .Bind(row.name)
      .Bind(row.description)
      .Bind(row.spiffe_id)
      .Bind(row.created_at)
      .Bind(row.created_by)
      .Bind(row.updated_at)
      .Bind(row.updated_by)
      .Bind(row.enabled)
      .Bind(row.automation)
      .Bind(row.content)
      .Bind(row.owner)
      .Bind(row.last_seen)
      .Bind(row.expiration)
      .Bind(Bytes(row.mac))
      .Run();
}

Status Savepoint::UpdateClient(const ClientRow& row) {
  return connection_
      ->Prepare(
          "UPDATE clients SET name = ?, description = ?, spiffe_id = ?, created_at = ?, "
          "created_by = ?, updated_at = ?, updated_by = ?, enabled = ?, automation = ?, "
          "content = ?, owner = ?, last_seen = ?, expiration = ?, mac = ? WHERE id = ?")
      .Bind(row.name)
      .Bind(row.description)
      .Bind(row.spiffe_id)
      .Bind(row.created_at)
      .Bind(row.created_by)
      .Bind(row.updated_at)
      .Bind(row.updated_by)
      .Bind(row.enabled)
      .Bind(row.automation)
      .Bind(row.content)
      .Bind(row.owner)
      .Bind(row.last_seen)
      .Bind(row.expiration)
      .Bind(Bytes(row.mac))
      .Bind(row.id)
      .RunOne("client");
}

Status Savepoint::DeleteClient(ClientId id) {
  RETURN_IF_ERROR(
      connection_->Prepare("DELETE FROM memberships WHERE client_id = ?").Bind(id).Run());
  RETURN_IF_ERROR(connection_->Prepare("DELETE FROM serving WHERE client_id = ?").Bind(id).Run());
  return connection_->Prepare("DELETE FROM clients WHERE id = ?").Bind(id).RunOne("client");
}

Status Savepoint::InsertGroup(const GroupRow& row) {
  return connection_
      ->Prepare(
          "INSERT INTO groups (id, name, description, created_at, created_by, updated_at, "
          "updated_by, metadata, owner, mac) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
      .Bind(row.id)
      .Bind(row.name)
      .Bind(row.description)
      .Bind(row.created_at)
      .Bind(row.created_by)
      .Bind(row.updated_at)
      .Bind(row.updated_by)
      .Bind(row.metadata)
      .Bind(row.owner)
      .Bind(Bytes(row.mac))
      .Run();
}

Status Savepoint::UpdateGroup(const GroupRow& row) {
  return connection_
      ->Prepare(
          "UPDATE groups SET name = ?, description = ?, created_at = ?, created_by = ?, "
          "updated_at = ?, updated_by = ?, metadata = ?, owner = ?, mac = ? WHERE id = ?")
      .Bind(row.name)
      .Bind(row.description)
      .Bind(row.created_at)
      .Bind(row.created_by)
      .Bind(row.updated_at)
      .Bind(row.updated_by)
      .Bind(row.metadata)
      .Bind(row.owner)
      .Bind(Bytes(row.mac))
      .Bind(row.id)
      .RunOne("group");
}

Status Savepoint::DeleteGroup(GroupId id) {
  RETURN_IF_ERROR(
      connection_->Prepare("DELETE FROM memberships WHERE group_id = ?").Bind(id).Run());
  RETURN_IF_ERROR(connection_->Prepare("DELETE FROM grants WHERE group_id = ?").Bind(id).Run());
  return connection_->Prepare("DELETE FROM groups WHERE id = ?").Bind(id).RunOne("group");
}

Status Savepoint::InsertMembership(const MembershipRow& row) {
  return connection_
      ->Prepare(
          "INSERT INTO memberships (client_id, group_id, created_at, mac) VALUES (?, ?, ?, ?)")
      .Bind(row.client)
      .Bind(row.group)
      .Bind(row.created_at)
      .Bind(Bytes(row.mac))
      .Run();
}

Status Savepoint::DeleteMembership(ClientId client, GroupId group) {
  return connection_->Prepare("DELETE FROM memberships WHERE client_id = ? AND group_id = ?")
      .Bind(client)
      .Bind(group)
      .RunOne("membership");
}

Status Savepoint::InsertGrant(const GrantRow& row) {
  return connection_
      ->Prepare("INSERT INTO grants (group_id, secret_id, created_at, mac) VALUES (?, ?, ?, ?)")
      .Bind(row.group)
      .Bind(row.secret)
      .Bind(row.created_at)
      .Bind(Bytes(row.mac))
      .Run();
}

Status Savepoint::DeleteGrant(GroupId group, SecretId secret) {
  return connection_->Prepare("DELETE FROM grants WHERE group_id = ? AND secret_id = ?")
      .Bind(group)
      .Bind(secret)
      .RunOne("grant");
}

Status Savepoint::InsertSecret(const SecretRow& row) {
  moved_.emplace_back(row.id, VersionNumber{});
  return connection_
      ->Prepare(
          "INSERT INTO secrets (id, name, description, created_at, created_by, updated_at, "
          "updated_by, type, owner, current_version, expiry, state, newest_number, sequence, mac) "
          "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
      .Bind(row.id)
      .Bind(row.name)
      .Bind(row.description)
      .Bind(row.created_at)
      .Bind(row.created_by)
      .Bind(row.updated_at)
      .Bind(row.updated_by)
      .Bind(row.type)
      .Bind(row.owner)
      .Bind(row.current)
      .Bind(row.expiry)
      .Bind(static_cast<std::int64_t>(row.state))
      .Bind(row.newest_number)
      .Bind(row.sequence)
      .Bind(Bytes(row.mac))
      .Run();
}

Status Savepoint::UpdateSecret(const SecretRow& row) {
  Statement before = connection_->Prepare(
      "SELECT v.number FROM secrets s JOIN versions v ON v.id = s.current_version "
      "WHERE s.id = ? AND s.current_version <> ?");
  before.Bind(row.id).Bind(row.current);
  ASSIGN_OR_RETURN(const bool moves, before.Step());
  if (moves) {
    const VersionNumber number{before.Unsigned()};
    RETURN_IF_ERROR(before.RowStatus("versions"));
    moved_.emplace_back(row.id, number);
  }
  return connection_
      ->Prepare(
          "UPDATE secrets SET name = ?, description = ?, created_at = ?, created_by = ?, "
          "updated_at = ?, updated_by = ?, type = ?, owner = ?, current_version = ?, expiry = ?, "
          "state = ?, newest_number = ?, sequence = ?, mac = ? WHERE id = ?")
      .Bind(row.name)
      .Bind(row.description)
      .Bind(row.created_at)
      .Bind(row.created_by)
      .Bind(row.updated_at)
      .Bind(row.updated_by)
      .Bind(row.type)
      .Bind(row.owner)
      .Bind(row.current)
      .Bind(row.expiry)
      .Bind(static_cast<std::int64_t>(row.state))
      .Bind(row.newest_number)
      .Bind(row.sequence)
      .Bind(Bytes(row.mac))
      .Bind(row.id)
      .RunOne("secret");
}

Status Savepoint::DeleteSecret(SecretId id) {
  RETURN_IF_ERROR(connection_
                      ->Prepare("DELETE FROM contents WHERE version_id IN "
                                "(SELECT id FROM versions WHERE secret_id = ?)")
                      .Bind(id)
                      .Run());
  RETURN_IF_ERROR(connection_->Prepare("DELETE FROM versions WHERE secret_id = ?").Bind(id).Run());
  RETURN_IF_ERROR(connection_->Prepare("DELETE FROM grants WHERE secret_id = ?").Bind(id).Run());
  return connection_->Prepare("DELETE FROM secrets WHERE id = ?").Bind(id).RunOne("secret");
}

Status Savepoint::InsertVersion(const VersionRow& row) {
  const VersionInfo& info = row.info;
  RETURN_IF_ERROR(connection_
                      ->Prepare("INSERT INTO versions (id, secret_id, number, created_at, "
                                "created_by, metadata, expiry, checksum, size, mac) "
                                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
                      .Bind(info.id)
                      .Bind(info.secret)
                      .Bind(info.number.value)
                      .Bind(info.created_at)
                      .Bind(info.created_by)
                      .Bind(info.metadata)
                      .Bind(info.expiry)
                      .Bind(Bytes(info.checksum))
                      .Bind(info.size)
                      .Bind(Bytes(info.mac))
                      .Run());
  return connection_->Prepare("INSERT INTO contents (version_id, wrapped, sealed) VALUES (?, ?, ?)")
      .Bind(info.id)
      .Bind(Bytes(row.wrapped))
      .Bind(Bytes(row.sealed))
      .Run();
}

Status Savepoint::ReplaceVersion(const VersionRow& row) {
  const VersionInfo& info = row.info;
  RETURN_IF_ERROR(connection_
                      ->Prepare("UPDATE versions SET secret_id = ?, number = ?, created_at = ?, "
                                "created_by = ?, metadata = ?, expiry = ?, checksum = ?, size = ?, "
                                "mac = ? WHERE id = ?")
                      .Bind(info.secret)
                      .Bind(info.number.value)
                      .Bind(info.created_at)
                      .Bind(info.created_by)
                      .Bind(info.metadata)
                      .Bind(info.expiry)
                      .Bind(Bytes(info.checksum))
                      .Bind(info.size)
                      .Bind(Bytes(info.mac))
                      .Bind(info.id)
                      .RunOne("version"));
  return connection_->Prepare("UPDATE contents SET wrapped = ?, sealed = ? WHERE version_id = ?")
      .Bind(Bytes(row.wrapped))
      .Bind(Bytes(row.sealed))
      .Bind(info.id)
      .RunOne("version");
}

Status Savepoint::UpdateWrapped(VersionId id, Bytes wrapped) {
  return connection_->Prepare("UPDATE contents SET wrapped = ? WHERE version_id = ?")
      .Bind(wrapped)
      .Bind(id)
      .RunOne("version");
}

Status Savepoint::DeleteVersions(std::span<const VersionId> ids) {
  for (const VersionId id : ids) {
    RETURN_IF_ERROR(
        connection_->Prepare("DELETE FROM contents WHERE version_id = ?").Bind(id).Run());
    RETURN_IF_ERROR(
        connection_->Prepare("DELETE FROM versions WHERE id = ?").Bind(id).RunOne("version"));
  }
  return {};
}

Status Savepoint::AppendAudit(const AuditRow& row) {
  ASSIGN_OR_RETURN(const std::int64_t last,
                   connection_->QueryInt("SELECT coalesce(max(seq), 0) FROM audit"));
  if (row.seq != static_cast<std::uint64_t>(last) + 1) {
    return Error{Errc::kInternal, "store: audit row " + std::to_string(row.seq) +
                                      " does not follow row " + std::to_string(last)};
  }
  return connection_->Prepare("INSERT INTO audit (seq, event, hash) VALUES (?, ?, ?)")
      .Bind(row.seq)
      .Bind(Bytes(row.event))
      .Bind(Bytes(row.hash))
      .Run();
}

Status Savepoint::AppendChange(const ChangeRow& row) {
  INVARIANT(!bookkeeping_);
  ChangeRow change = row;
  change.generation = generation_;
  change.version = change.previous = VersionNumber{};
  if (row.kind == ChangeKind::kSecret) {
    Statement current = connection_->Prepare(
        "SELECT v.number FROM secrets s JOIN versions v ON v.id = s.current_version WHERE s.id = "
        "?");
    current.Bind(row.secret);
    ASSIGN_OR_RETURN(const bool found, current.Step());
    if (found) change.version = VersionNumber{current.Unsigned()};
    RETURN_IF_ERROR(current.RowStatus("versions"));
    // The version before the job: a job may move the pointer twice, the first move counts.
    const auto moved = std::find_if(moved_.begin(), moved_.end(),
                                    [&row](const auto& move) { return move.first == row.secret; });
    change.previous = moved != moved_.end() ? moved->second : change.version;
  }
  RETURN_IF_ERROR(connection_
                      ->Prepare("INSERT INTO changes (generation, kind, secret_id, group_id, "
                                "client_id, name, version, previous) "
                                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)")
                      .Bind(change.generation.value)
                      .Bind(static_cast<std::int64_t>(change.kind))
                      .Bind(change.secret)
                      .Bind(change.group)
                      .Bind(change.client)
                      .Bind(change.name)
                      .Bind(change.version.value)
                      .Bind(change.previous.value)
                      .Run());
  changes_->push_back(std::move(change));
  return {};
}

Result<std::uint64_t> Savepoint::NextSecretSequence() {
  ASSIGN_OR_RETURN(const std::int64_t next,
                   connection_->QueryInt("SELECT next_secret FROM store_info"));
  RETURN_IF_ERROR(
      connection_->Prepare("UPDATE store_info SET next_secret = ?").Bind(next + 1).Run());
  return static_cast<std::uint64_t>(next);
}

Status Savepoint::PutKeyring(const KeyringRow& row) {
  return connection_
      ->Prepare(
          "INSERT INTO keyring (purpose, kek_id, wrapped) VALUES (?, ?, ?) "
          "ON CONFLICT (purpose) DO UPDATE SET kek_id = excluded.kek_id, wrapped = "
          "excluded.wrapped")
      .Bind(row.purpose)
      .Bind(static_cast<std::int64_t>(row.kek_id))
      .Bind(Bytes(row.wrapped))
      .Run();
}

Status Savepoint::PutKek(const KekRow& row) {
  return connection_
      ->Prepare(
          "INSERT INTO keks (kek_id, check_value, created_at, active) VALUES (?, ?, ?, ?) "
          "ON CONFLICT (kek_id) DO UPDATE SET check_value = excluded.check_value, "
          "created_at = excluded.created_at, active = excluded.active")
      .Bind(static_cast<std::int64_t>(row.kek_id))
      .Bind(Bytes(row.check_value))
      .Bind(row.created_at)
      .Bind(row.active)
      .Run();
}

Status Savepoint::PutSetting(std::string_view name, Bytes value) {
  return connection_
      ->Prepare(
          "INSERT INTO settings (name, value) VALUES (?, ?) "
          "ON CONFLICT (name) DO UPDATE SET value = excluded.value")
      .Bind(name)
      .Bind(value)
      .Run();
}

Status Savepoint::DeleteSetting(std::string_view name) {
  return connection_->Prepare("DELETE FROM settings WHERE name = ?").Bind(name).RunOne("setting");
}

Status Savepoint::UpdateLastSeen(ClientId client, std::int64_t last_seen,
                                 std::optional<std::int64_t> expiration) {
  return connection_
      ->Prepare(
          "UPDATE clients SET last_seen = ?, expiration = coalesce(?, expiration) WHERE id = ?")
      .Bind(last_seen)
      .Bind(expiration)
      .Bind(client)
      .RunOne("client");
}

Status Savepoint::PutServing(std::span<const ServingRow> rows) {
  for (const ServingRow& row : rows) {
    RETURN_IF_ERROR(connection_
                        ->Prepare("INSERT INTO serving (client_id, generation, since, last_seen) "
                                  "SELECT id, ?, ?, ? FROM clients WHERE id = ? "
                                  "ON CONFLICT (client_id) DO UPDATE SET "
                                  "generation = excluded.generation, since = excluded.since, "
                                  "last_seen = excluded.last_seen")
                        .Bind(row.generation.value)
                        .Bind(row.since)
                        .Bind(row.last_seen)
                        .Bind(row.client)
                        .Run());
  }
  return {};
}

}  // namespace latchkey::store
