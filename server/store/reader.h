// Reads of the store. A Reader sees one committed state from its creation to its end (or, inside a
// Savepoint, the state of that savepoint); not thread-safe, cheap to make, keep it short: a long
// one keeps the write-ahead log from being recycled.
//
// Errors of all reads: kUnavailable (busy, descriptors used up), kCorrupt (a damaged page or a
// value outside its domain; the message names table and row). Rows are *not* verified here: MACs
// belong to server/keys, content to common/crypto.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/bytes.h"
#include "common/base/result.h"
#include "common/model/ids.h"
#include "server/store/rows.h"

namespace latchkey::store {

class Connection;
class ReaderPool;

// Visitors return an error to stop the walk; the walk then returns that error.
template <class Row>
using Visit = std::function<Status(Row&&)>;

struct StoreInfo {
  ByteArray<16> store_id{};
  std::int64_t created_at = 0;
  Generation generation;  // of the newest commit; 0 in a store that was never written
  std::uint32_t schema = 0;
};

struct Counts {
  std::uint64_t clients = 0, groups = 0, memberships = 0, grants = 0;
  std::uint64_t live_secrets = 0, deleted_secrets = 0, versions = 0, audit_rows = 0;
};

class Reader {
 public:
  // Leases `connection`, which is within a transaction; `pool` takes it back. Use Store::Read() or
  // Savepoint::reader().
  Reader(std::unique_ptr<Connection> connection, ReaderPool* pool);
  explicit Reader(Connection* borrowed);
  Reader(Reader&&) noexcept;
  Reader& operator=(Reader&&) = delete;
  ~Reader();

  // Pins the newest commit; Store::Read() has done it.
  Status Begin();

  Result<StoreInfo> Info();
  // Counts walk the tables: for `check` and metrics, not for start-up.
  Result<Counts> Count();
  Result<std::uint64_t> CountGrants();

  // Walks of whole tables, in the order named: clients and groups by id; memberships by (client,
  // group); grants by (group, secret); secrets by id, live and deleted.
  Status ForEachClient(const Visit<ClientRow>& visit);
  Status ForEachGroup(const Visit<GroupRow>& visit);
  Status ForEachMembership(const Visit<MembershipRow>& visit);
  Status ForEachGrant(const Visit<GrantRow>& visit);
  // Each secret with its current version, whose absence is kCorrupt.
  Status ForEachSecret(const std::function<Status(SecretRow&&, VersionInfo&&)>& visit);
  // Every version with its content, by secret and number; for `check`, import and rewrap.
  Status ForEachVersion(const Visit<VersionRow>& visit);
  Status ForEachKeyring(const Visit<KeyringRow>& visit);
  Status ForEachKek(const Visit<KekRow>& visit);
  // The change log, oldest first.
  Status ForEachChange(const Visit<ChangeRow>& visit);
  Status ForEachServing(const Visit<ServingRow>& visit);
  Status ForEachSetting(const std::function<Status(std::string&& name, ByteVector&& value)>& visit);

  // Single rows; kNotFound when absent.
  Result<ClientRow> GetClient(ClientId id);
  Result<GroupRow> GetGroup(GroupId id);
  Result<SecretRow> GetSecret(SecretId id);
  Result<VersionRow> LoadVersion(VersionId id);
  Result<VersionInfo> GetVersion(VersionId id);
  Result<VersionInfo> GetVersion(SecretId secret, VersionNumber number);
  Result<ByteVector> GetSetting(std::string_view name);

  // Versions of one secret, newest first: by time of creation, then by order of insertion (API
  // spec 5.6).
  Result<std::vector<VersionInfo>> ListVersions(SecretId secret, std::size_t offset,
                                                std::size_t limit);
  // The same below a version number, for paging that is stable while versions are added.
  Result<std::vector<VersionInfo>> ListVersionsBelow(SecretId secret, VersionNumber below,
                                                     std::size_t limit);
  // What pruning removes when a version is added at `now` (API spec 5.5): of those older than
  // kPruneAge and not `current`, all but the newest kPruneKeep, oldest first. Walks from the lowest number until
  // kPruneLookAhead young ones came in a row, so that a secret with many young versions costs no more than another; should a
  // clock have been set back by days, what is old behind them stays until they are old.
  Result<std::vector<VersionId>> PrunableVersions(SecretId secret, VersionId current,
                                                  std::int64_t now);

  // The `store` audit chain: up to `limit` rows with seq > after, ascending; the newest `limit`
  // rows, ascending; the last row.
  Result<std::vector<AuditRow>> ListAudit(std::uint64_t after, std::size_t limit);
  Result<std::vector<AuditRow>> ListNewestAudit(std::size_t limit);
  Result<std::optional<AuditRow>> LastAudit();

  // SQLite's own integrity and foreign key checks: one line per finding, none when sound.
  Result<std::vector<std::string>> CheckIntegrity();

 private:
  std::unique_ptr<Connection> leased_;
  Connection* connection_;
  ReaderPool* pool_ = nullptr;
};

}  // namespace latchkey::store
