#include "server/store/reader.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>

#include "common/base/log.h"
#include "common/model/limits.h"
#include "server/store/reader_pool.h"
#include "server/store/sqlite.h"

namespace latchkey::store {
namespace {

// Column lists, each beside the function that reads them in that order.
#define CLIENT_COLUMNS                                                                          \
  "id, name, description, spiffe_id, created_at, created_by, updated_at, updated_by, enabled, " \
  "automation, content, owner, last_seen, expiration, mac"
ClientRow ReadClient(Statement& s) {
  ClientRow row;
  row.id = s.IdOf<ClientId>();
  row.name = s.Text();
  row.description = s.Text();
  row.spiffe_id = s.OptionalText();
  row.created_at = s.Int();
  row.created_by = s.Text();
  row.updated_at = s.Int();
  row.updated_by = s.Text();
  row.enabled = s.Bool();
  row.automation = s.Bool();
  row.content = s.Bool();
  row.owner = s.OptionalId<GroupId>();
  row.last_seen = s.OptionalInt();
  row.expiration = s.OptionalInt();
  row.mac = s.Fixed<32>();
  return row;
}

#define GROUP_COLUMNS \
  "id, name, description, created_at, created_by, updated_at, updated_by, metadata, owner, mac"
GroupRow ReadGroup(Statement& s) {
  GroupRow row;
  row.id = s.IdOf<GroupId>();
  row.name = s.Text();
  row.description = s.Text();
  row.created_at = s.Int();
  row.created_by = s.Text();
  row.updated_at = s.Int();
  row.updated_by = s.Text();
  row.metadata = s.Text();
  row.owner = s.OptionalId<GroupId>();
  row.mac = s.Fixed<32>();
  return row;
}

#define SECRET_COLUMNS                                                                            \
  "s.id, s.name, s.description, s.created_at, s.created_by, s.updated_at, s.updated_by, s.type, " \
  "s.owner, s.current_version, s.expiry, s.newest_number, s.sequence, s.mac, s.state"
// `state_ok` is false for a state that is none.
SecretRow ReadSecret(Statement& s, bool* state_ok) {
  SecretRow row;
  row.id = s.IdOf<SecretId>();
  row.name = s.Text();
  row.description = s.Text();
  row.created_at = s.Int();
  row.created_by = s.Text();
  row.updated_at = s.Int();
  row.updated_by = s.Text();
  row.type = s.OptionalText();
  row.owner = s.OptionalId<GroupId>();
  row.current = s.IdOf<VersionId>();
  row.expiry = s.Int();
  row.newest_number = s.Unsigned();
  row.sequence = s.Unsigned();
  row.mac = s.Fixed<32>();
  const std::int64_t state = s.Int();
  *state_ok = state == 1 || state == 2;
  row.state = state == 2 ? SecretState::kDeleted : SecretState::kLive;
  return row;
}

#define VERSION_COLUMNS                                                                         \
  "v.id, v.secret_id, v.number, v.created_at, v.created_by, v.metadata, v.expiry, v.checksum, " \
  "v.size, v.mac"
VersionInfo ReadVersion(Statement& s) {
  VersionInfo info;
  info.id = s.IdOf<VersionId>();
  info.secret = s.IdOf<SecretId>();
  info.number = VersionNumber{s.Unsigned()};
  info.created_at = s.Int();
  info.created_by = s.Text();
  info.metadata = s.Text();
  info.expiry = s.Int();
  info.checksum = s.Fixed<32>();
  info.size = s.Unsigned();
  info.mac = s.Fixed<32>();
  return info;
}

AuditRow ReadAudit(Statement& s) {
  AuditRow row;
  row.seq = s.Unsigned();
  row.event = s.Blob();
  row.hash = s.Fixed<32>();
  return row;
}

// SQLite knows signed numbers only.
std::int64_t Limit(std::size_t value) {
  constexpr auto kMax = static_cast<std::size_t>(std::numeric_limits<std::int64_t>::max());
  return static_cast<std::int64_t>(std::min(value, kMax));
}

// Steps through all rows, reads each and hands it on once its columns were found right.
template <class Read, class Use>
Status Walk(Statement& statement, const char* table, const Read& read, const Use& use) {
  for (;;) {
    ASSIGN_OR_RETURN(const bool more, statement.Step());
    if (!more) return {};
    auto row = read(statement);
    RETURN_IF_ERROR(statement.RowStatus(table));
    RETURN_IF_ERROR(use(std::move(row)));
  }
}

template <class Row, class Read>
Result<Row> One(Statement& statement, const char* table, const Read& read, const char* what) {
  ASSIGN_OR_RETURN(const bool found, statement.Step());
  if (!found) return Error{Errc::kNotFound, std::string(what) + " not found in the store"};
  Row row = read(statement);
  RETURN_IF_ERROR(statement.RowStatus(table));
  return row;
}

template <class Row, class Read>
Result<std::vector<Row>> All(Statement& statement, const char* table, const Read& read) {
  std::vector<Row> rows;
  RETURN_IF_ERROR(Walk(statement, table, read, [&rows](Row&& row) {
    rows.push_back(std::move(row));
    return Status();
  }));
  return rows;
}

Error BadState(SecretId id) {
  return Error{Errc::kCorrupt,
               "store: secret " + std::to_string(id.value) + " has a state that does not exist"};
}

}  // namespace

Reader::Reader(std::unique_ptr<Connection> connection, ReaderPool* pool)
    : leased_(std::move(connection)), connection_(leased_.get()), pool_(pool) {}

Reader::Reader(Connection* borrowed) : connection_(borrowed) {}

Reader::Reader(Reader&& other) noexcept
    : leased_(std::move(other.leased_)),
      connection_(std::exchange(other.connection_, nullptr)),
      pool_(other.pool_) {}

Reader::~Reader() {
  if (leased_ == nullptr) return;
  // A read transaction has nothing to lose; when ending it fails, the pool closes the connection.
  if (leased_->in_transaction()) (void)leased_->Prepare("COMMIT").Run();
  pool_->GiveBack(std::move(leased_));
}

Status Reader::Begin() {
  RETURN_IF_ERROR(connection_->Prepare("BEGIN").Run());
  // BEGIN alone takes no snapshot; the first read does.
  ASSIGN_OR_RETURN([[maybe_unused]] const std::int64_t generation,
                   connection_->QueryInt("SELECT generation FROM store_info"));
  return {};
}

Result<StoreInfo> Reader::Info() {
  Statement s = connection_->Prepare("SELECT store_id, created_at, generation FROM store_info");
  ASSIGN_OR_RETURN(const bool found, s.Step());
  if (!found) return Error{Errc::kCorrupt, "store: the row of store_info is missing"};
  StoreInfo info;
  info.store_id = s.Fixed<16>();
  info.created_at = s.Int();
  info.generation = Generation{s.Unsigned()};
  RETURN_IF_ERROR(s.RowStatus("store_info"));
  ASSIGN_OR_RETURN(const std::int64_t schema, connection_->QueryInt("PRAGMA user_version"));
  info.schema = static_cast<std::uint32_t>(schema);
  return info;
}

Result<Counts> Reader::Count() {
  Statement s = connection_->Prepare(
      "SELECT (SELECT count(*) FROM clients), (SELECT count(*) FROM groups), "
      "(SELECT count(*) FROM memberships), (SELECT count(*) FROM grants), "
      "(SELECT count(*) FROM secrets WHERE state = 1), "
      "(SELECT count(*) FROM secrets WHERE state <> 1), "
      "(SELECT count(*) FROM versions), (SELECT count(*) FROM audit)");
  ASSIGN_OR_RETURN(const bool found, s.Step());
  if (!found) return Error{Errc::kInternal, "store: no answer to a count"};
  Counts counts;
  counts.clients = s.Unsigned();
  counts.groups = s.Unsigned();
  counts.memberships = s.Unsigned();
  counts.grants = s.Unsigned();
  counts.live_secrets = s.Unsigned();
  counts.deleted_secrets = s.Unsigned();
  counts.versions = s.Unsigned();
  counts.audit_rows = s.Unsigned();
  RETURN_IF_ERROR(s.RowStatus("counts"));
  return counts;
}

Result<std::uint64_t> Reader::CountGrants() {
  ASSIGN_OR_RETURN(const std::int64_t count, connection_->QueryInt("SELECT count(*) FROM grants"));
  return static_cast<std::uint64_t>(count);
}

Status Reader::ForEachClient(const Visit<ClientRow>& visit) {
  Statement s = connection_->Prepare("SELECT " CLIENT_COLUMNS " FROM clients ORDER BY id");
  return Walk(s, "clients", ReadClient, visit);
}

Status Reader::ForEachGroup(const Visit<GroupRow>& visit) {
  Statement s = connection_->Prepare("SELECT " GROUP_COLUMNS " FROM groups ORDER BY id");
  return Walk(s, "groups", ReadGroup, visit);
}

Status Reader::ForEachMembership(const Visit<MembershipRow>& visit) {
  Statement s = connection_->Prepare(
      "SELECT client_id, group_id, created_at, mac FROM memberships ORDER BY client_id, group_id");
  const auto read = [](Statement& row) {
    return MembershipRow{row.IdOf<ClientId>(), row.IdOf<GroupId>(), row.Int(), row.Fixed<32>()};
  };
  return Walk(s, "memberships", read, visit);
}

Status Reader::ForEachGrant(const Visit<GrantRow>& visit) {
  Statement s = connection_->Prepare(
      "SELECT group_id, secret_id, created_at, mac FROM grants ORDER BY group_id, secret_id");
  const auto read = [](Statement& row) {
    return GrantRow{row.IdOf<GroupId>(), row.IdOf<SecretId>(), row.Int(), row.Fixed<32>()};
  };
  return Walk(s, "grants", read, visit);
}

Status Reader::ForEachSecret(const std::function<Status(SecretRow&&, VersionInfo&&)>& visit) {
  Statement s =
      connection_->Prepare("SELECT " SECRET_COLUMNS ", v.id IS NOT NULL, " VERSION_COLUMNS
                           " FROM secrets s LEFT JOIN versions v "
                           "ON v.id = s.current_version AND v.secret_id = s.id ORDER BY s.id");
  for (;;) {
    ASSIGN_OR_RETURN(const bool more, s.Step());
    if (!more) return {};
    bool state_ok = false;
    SecretRow secret = ReadSecret(s, &state_ok);
    if (!state_ok) return BadState(secret.id);
    if (!s.Bool()) {
      return Error{Errc::kCorrupt,
                   "store: secret " + std::to_string(secret.id.value) + " has no current version"};
    }
    VersionInfo current = ReadVersion(s);
    RETURN_IF_ERROR(s.RowStatus("secrets or versions"));
    RETURN_IF_ERROR(visit(std::move(secret), std::move(current)));
  }
}

Status Reader::ForEachVersion(const Visit<VersionRow>& visit) {
  Statement s = connection_->Prepare(
      "SELECT " VERSION_COLUMNS
      ", c.version_id IS NOT NULL, c.sealed, c.wrapped "
      "FROM versions v LEFT JOIN contents c ON c.version_id = v.id ORDER BY v.secret_id, v.number");
  for (;;) {
    ASSIGN_OR_RETURN(const bool more, s.Step());
    if (!more) return {};
    VersionRow row;
    row.info = ReadVersion(s);
    if (!s.Bool()) {
      return Error{Errc::kCorrupt,
                   "store: version " + std::to_string(row.info.id.value) + " has no content"};
    }
    row.sealed = s.Blob();
    row.wrapped = s.Blob();
    RETURN_IF_ERROR(s.RowStatus("versions or contents"));
    RETURN_IF_ERROR(visit(std::move(row)));
  }
}

Status Reader::ForEachKeyring(const Visit<KeyringRow>& visit) {
  Statement s =
      connection_->Prepare("SELECT purpose, kek_id, wrapped FROM keyring ORDER BY purpose");
  const auto read = [](Statement& row) {
    return KeyringRow{row.Text(), static_cast<std::uint32_t>(row.Unsigned()), row.Blob()};
  };
  return Walk(s, "keyring", read, visit);
}

Status Reader::ForEachKek(const Visit<KekRow>& visit) {
  Statement s = connection_->Prepare(
      "SELECT kek_id, check_value, created_at, active FROM keks ORDER BY kek_id");
  const auto read = [](Statement& row) {
    return KekRow{static_cast<std::uint32_t>(row.Unsigned()), row.Fixed<16>(), row.Int(),
                  row.Bool()};
  };
  return Walk(s, "keks", read, visit);
}

Status Reader::ForEachChange(const Visit<ChangeRow>& visit) {
  Statement s = connection_->Prepare(
      "SELECT generation, kind, secret_id, group_id, client_id, name, version, previous "
      "FROM changes ORDER BY seq");
  const auto read = [](Statement& row) {
    ChangeRow change;
    change.generation = Generation{row.Unsigned()};
    change.kind = static_cast<ChangeKind>(row.Int());
    change.secret = row.IdOf<SecretId>();
    change.group = row.IdOf<GroupId>();
    change.client = row.IdOf<ClientId>();
    change.name = row.Text();
    change.version = VersionNumber{row.Unsigned()};
    change.previous = VersionNumber{row.Unsigned()};
    return change;
  };
  return Walk(s, "changes", read, [&visit](ChangeRow&& change) -> Status {
    if (change.kind < ChangeKind::kSecret || change.kind > ChangeKind::kClient) {
      return Error{Errc::kCorrupt, "store: a change has a kind that does not exist"};
    }
    return visit(std::move(change));
  });
}

Status Reader::ForEachServing(const Visit<ServingRow>& visit) {
  Statement s = connection_->Prepare(
      "SELECT client_id, generation, since, last_seen FROM serving ORDER BY client_id");
  const auto read = [](Statement& row) {
    return ServingRow{row.IdOf<ClientId>(), Generation{row.Unsigned()}, row.Int(), row.Int()};
  };
  return Walk(s, "serving", read, visit);
}

Status Reader::ForEachSetting(const std::function<Status(std::string&&, ByteVector&&)>& visit) {
  Statement s = connection_->Prepare("SELECT name, value FROM settings ORDER BY name");
  const auto read = [](Statement& row) {
    return std::pair<std::string, ByteVector>{row.Text(), row.Blob()};
  };
  return Walk(s, "settings", read, [&visit](std::pair<std::string, ByteVector>&& setting) {
    return visit(std::move(setting.first), std::move(setting.second));
  });
}

Result<ClientRow> Reader::GetClient(ClientId id) {
  Statement s = connection_->Prepare("SELECT " CLIENT_COLUMNS " FROM clients WHERE id = ?");
  s.Bind(id);
  return One<ClientRow>(s, "clients", ReadClient, "client");
}

Result<GroupRow> Reader::GetGroup(GroupId id) {
  Statement s = connection_->Prepare("SELECT " GROUP_COLUMNS " FROM groups WHERE id = ?");
  s.Bind(id);
  return One<GroupRow>(s, "groups", ReadGroup, "group");
}

Result<SecretRow> Reader::GetSecret(SecretId id) {
  Statement s = connection_->Prepare("SELECT " SECRET_COLUMNS " FROM secrets s WHERE s.id = ?");
  s.Bind(id);
  bool state_ok = false;
  const auto read = [&state_ok](Statement& row) { return ReadSecret(row, &state_ok); };
  ASSIGN_OR_RETURN(SecretRow row, One<SecretRow>(s, "secrets", read, "secret"));
  if (!state_ok) return BadState(id);
  return row;
}

Result<VersionRow> Reader::LoadVersion(VersionId id) {
  Statement s =
      connection_->Prepare("SELECT " VERSION_COLUMNS
                           ", c.sealed, c.wrapped "
                           "FROM versions v JOIN contents c ON c.version_id = v.id WHERE v.id = ?");
  s.Bind(id);
  const auto read = [](Statement& row) {
    VersionRow version;
    version.info = ReadVersion(row);
    version.sealed = row.Blob();
    version.wrapped = row.Blob();
    return version;
  };
  return One<VersionRow>(s, "versions or contents", read, "version");
}

Result<VersionInfo> Reader::GetVersion(VersionId id) {
  Statement s = connection_->Prepare("SELECT " VERSION_COLUMNS " FROM versions v WHERE v.id = ?");
  s.Bind(id);
  return One<VersionInfo>(s, "versions", ReadVersion, "version");
}

Result<VersionInfo> Reader::GetVersion(SecretId secret, VersionNumber number) {
  Statement s = connection_->Prepare("SELECT " VERSION_COLUMNS
                                     " FROM versions v WHERE v.secret_id = ? AND v.number = ?");
  s.Bind(secret).Bind(number.value);
  return One<VersionInfo>(s, "versions", ReadVersion, "version");
}

Result<ByteVector> Reader::GetSetting(std::string_view name) {
  Statement s = connection_->Prepare("SELECT value FROM settings WHERE name = ?");
  s.Bind(name);
  return One<ByteVector>(
      s, "settings", [](Statement& row) { return row.Blob(); }, "setting");
}

Result<std::vector<VersionInfo>> Reader::ListVersions(SecretId secret, std::size_t offset,
                                                      std::size_t limit) {
  Statement s = connection_->Prepare("SELECT " VERSION_COLUMNS
                                     " FROM versions v WHERE v.secret_id = ? "
                                     "ORDER BY v.created_at DESC, v.number DESC LIMIT ? OFFSET ?");
  s.Bind(secret).Bind(Limit(limit)).Bind(Limit(offset));
  return All<VersionInfo>(s, "versions", ReadVersion);
}

Result<std::vector<VersionInfo>> Reader::ListVersionsBelow(SecretId secret, VersionNumber below,
                                                           std::size_t limit) {
  Statement s = connection_->Prepare(
      "SELECT " VERSION_COLUMNS
      " FROM versions v WHERE v.secret_id = ? AND v.number < ? ORDER BY v.number DESC LIMIT ?");
  s.Bind(secret).Bind(Limit(below.value)).Bind(Limit(limit));
  return All<VersionInfo>(s, "versions", ReadVersion);
}

Result<std::vector<VersionId>> Reader::PrunableVersions(SecretId secret, VersionId current,
                                                        std::int64_t now) {
  constexpr std::int64_t kAgeSeconds = std::chrono::seconds(limits::kPruneAge).count();
  Statement s = connection_->Prepare(
      "SELECT id, created_at FROM versions WHERE secret_id = ? ORDER BY number");
  s.Bind(secret);
  std::vector<std::pair<std::int64_t, VersionId>> old;
  for (std::size_t young = 0; young < limits::kPruneLookAhead;) {
    ASSIGN_OR_RETURN(const bool row, s.Step());
    if (!row) break;
    const VersionId id = s.IdOf<VersionId>();
    const std::int64_t created_at = s.Int();
    RETURN_IF_ERROR(s.RowStatus("versions"));
    if (created_at >= now - kAgeSeconds) {
      ++young;
      continue;
    }
    young = 0;
    if (id != current) old.emplace_back(created_at, id);
  }
  // Of equal times the higher number is the newer, and comes later here.
  std::stable_sort(old.begin(), old.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<VersionId> prunable;
  for (std::size_t i = 0; i + limits::kPruneKeep < old.size(); ++i) {
    prunable.push_back(old[i].second);
  }
  return prunable;
}

Result<std::vector<AuditRow>> Reader::ListAudit(std::uint64_t after, std::size_t limit) {
  Statement s =
      connection_->Prepare("SELECT seq, event, hash FROM audit WHERE seq > ? ORDER BY seq LIMIT ?");
  s.Bind(Limit(after)).Bind(Limit(limit));
  return All<AuditRow>(s, "audit", ReadAudit);
}

Result<std::vector<AuditRow>> Reader::ListNewestAudit(std::size_t limit) {
  Statement s =
      connection_->Prepare("SELECT seq, event, hash FROM audit ORDER BY seq DESC LIMIT ?");
  s.Bind(Limit(limit));
  ASSIGN_OR_RETURN(std::vector<AuditRow> rows, All<AuditRow>(s, "audit", ReadAudit));
  std::reverse(rows.begin(), rows.end());
  return rows;
}

Result<std::optional<AuditRow>> Reader::LastAudit() {
  ASSIGN_OR_RETURN(std::vector<AuditRow> rows, ListNewestAudit(1));
  if (rows.empty()) return std::optional<AuditRow>();
  return std::optional(std::move(rows.front()));
}

Result<std::vector<std::string>> Reader::CheckIntegrity() {
  std::vector<std::string> findings;
  Statement integrity = connection_->Prepare("PRAGMA integrity_check(100)");
  const auto text = [](Statement& row) { return row.Text(); };
  RETURN_IF_ERROR(Walk(integrity, "integrity_check", text, [&findings](std::string&& line) {
    if (line != "ok") findings.push_back(std::move(line));
    return Status();
  }));
  Statement references = connection_->Prepare("PRAGMA foreign_key_check");
  RETURN_IF_ERROR(Walk(references, "foreign_key_check", text, [&findings](std::string&& table) {
    findings.push_back("a row of " + table + " refers to a row that does not exist");
    return Status();
  }));
  return findings;
}

}  // namespace latchkey::store
