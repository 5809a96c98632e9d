// The store: one SQLite file with everything that must survive, sealed content included. The only
// module that speaks SQL.
//
// Durability: write-ahead log, synchronous=FULL; a job is acknowledged after the fsync of its
// commit (rule A1, H4). The file is 0600 and held by one process through a lock on `<path>.lock`,
// which dies with the process (F29). Thread safety: Store is thread-safe; Reader and Savepoint
// belong to one thread.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/bytes.h"
#include "common/base/result.h"
#include "common/model/ids.h"
#include "server/store/reader.h"
#include "server/store/rows.h"

namespace latchkey::store {

// The schema this program writes. A newer one is refused before the first statement (F27).
inline constexpr std::uint32_t kSchemaVersion = 1;

class Writer;

// One use case's view of the transaction. An error of any method, or an error returned by the job,
// rolls the whole job back. Every method that changes something must be called on the writer
// thread, from Job::run.
//
// Errors of changes: kConflict (a unique name, pair or id is taken), kNotFound (nothing to update
// or delete), kInternal (a reference to a row that does not exist), kUnavailable (disk full),
// kCorrupt.
class Savepoint {
 public:
  // The generation that this job's commit gets. In a bookkeeping job: the newest one.
  Generation generation() const { return generation_; }
  // Reads that see this batch, including the jobs before this one and the changes of this one.
  Reader& reader() { return reader_; }

  // Updates address the row by id and replace every other column.
  Status InsertClient(const ClientRow& row);
  Status UpdateClient(const ClientRow& row);
  // Also removes its memberships and what it said it serves.
  Status DeleteClient(ClientId id);
  Status InsertGroup(const GroupRow& row);
  Status UpdateGroup(const GroupRow& row);
  // Also removes its memberships and grants. kInternal while a row still names it as owner: clear
  // those first (their MACs cover the owner).
  Status DeleteGroup(GroupId id);
  Status InsertMembership(const MembershipRow& row);
  Status DeleteMembership(ClientId client, GroupId group);
  Status InsertGrant(const GrantRow& row);
  Status DeleteGrant(GroupId group, SecretId secret);
  // The current version may be inserted after the secret, within the same job.
  Status InsertSecret(const SecretRow& row);
  Status UpdateSecret(const SecretRow& row);
  // Hard delete: also removes its versions, contents and grants.
  Status DeleteSecret(SecretId id);
  Status InsertVersion(const VersionRow& row);
  // Replaces the columns and the content of a version that was sealed anew.
  Status ReplaceVersion(const VersionRow& row);
  // Replaces the wrapped DEK alone (rewrap).
  Status UpdateWrapped(VersionId id, Bytes wrapped);
  // Prunes. kNotFound when one is absent; never pass a current version.
  Status DeleteVersions(std::span<const VersionId> ids);

  // `row.seq` must be the last one plus 1 (kInternal otherwise): the chain has no gaps.
  Status AppendAudit(const AuditRow& row);
  // Appends to the change log under generation(); call it after the rows it speaks of are written.
  // The generation, version and previous fields of `row` are ignored and filled in. The log keeps
  // the newest kFeedLogEntries.
  Status AppendChange(const ChangeRow& row);

  // A counter; a number once handed out by a committed job is never handed out again, even when
  // its row is deleted. For the order of listings only: nothing that authorises may come from a
  // counter, which whoever writes the database can set back.
  Result<std::uint64_t> NextSecretSequence();

  // Insert or replace.
  Status PutKeyring(const KeyringRow& row);
  Status PutKek(const KekRow& row);
  Status PutSetting(std::string_view name, Bytes value);
  Status DeleteSetting(std::string_view name);

  // Bookkeeping outside the MACs and the audit. UpdateLastSeen leaves the expiration as it is when
  // none is given.
  Status UpdateLastSeen(ClientId client, std::int64_t last_seen,
                        std::optional<std::int64_t> expiration);
  // Rows of clients that no longer exist are passed over.
  Status PutServing(std::span<const ServingRow> rows);

  Savepoint(const Savepoint&) = delete;
  Savepoint& operator=(const Savepoint&) = delete;

 private:
  friend class Writer;
  Savepoint(Connection* connection, Generation generation, bool bookkeeping,
            std::vector<ChangeRow>* changes);
  Connection* connection_;
  Reader reader_;
  Generation generation_;
  bool bookkeeping_;
  std::vector<ChangeRow>*
      changes_;  // of the batch; the writer cuts it back when the job is rolled back
  std::vector<std::pair<SecretId, VersionNumber>>
      moved_;  // current version before this job moved it
};

// One unit of writing. `run` is called once, on the writer thread, inside a SAVEPOINT; `done` once,
// on the writer thread, after the commit (or the failure) of the batch, with the result and the
// generation of the job (of the newest commit for a job that failed). Neither may block on anything
// but the store. `done` may be empty.
struct Job {
  std::function<Status(Savepoint&)> run;
  std::function<void(const Status&, Generation)> done;
  bool bookkeeping = false;  // takes no generation and may not append changes: last seen, serving
};

// Told about batches, on the writer thread, in this order: BatchBegin, then per job JobBegin and,
// when it failed, JobRolledBack; then Committed or BatchFailed; then the `done` of every job. A
// batch in which every job failed is rolled back and ends with Committed of the unchanged
// generation and no changes.
class CommitObserver {
 public:
  virtual ~CommitObserver() = default;
  virtual void BatchBegin() {}
  virtual void JobBegin() {}
  virtual void JobRolledBack() {}
  // `changes`: what the released jobs appended to the change log, in order.
  virtual void Committed(Generation newest, std::span<const ChangeRow> changes) = 0;
  // Nothing of the batch happened: forget everything since BatchBegin.
  virtual void BatchFailed(const Error& error) = 0;
};

// What the message of an error begins with when the disk of the database is full.
inline constexpr std::string_view kDiskFull = "store: disk full";

enum class OpenMode {
  kExclusive,  // the server, and offline commands that write: refused while another process holds
               // the store
  kSnapshot,   // read only, beside a running server (`check`, `backup`): Read() and Backup() only
};

struct Options {
  // P4: called once, on the thread that saw it, after an fsync error or SQLITE_CORRUPT; the outcome
  // of the batch in hand is unknown and nothing of it is acknowledged. The program exits non-zero
  // within a second. Further writes are refused.
  std::function<void(const Error&)> fatal;
  // For tests: the name of a registered SQLite VFS.
  std::string vfs;
};

class Store {
 public:
  // Makes a new store at `path` with mode 0600 and closes it. Errors: kConflict when the file
  // exists.
  static Status Create(const std::filesystem::path& path, const ByteArray<16>& store_id,
                       std::int64_t created_at, const std::string& vfs = {});
  // Errors: kNotFound; kConflict (held by another process; schema newer than this program);
  // kInvalidArgument (mode wider than 0600, not a store); kCorrupt; kUnavailable. kExclusive also wants what a server
  // relies on: a file and a directory that nobody but root and the effective user may exchange, no symbolic link
  // (kPermissionDenied).
  static Result<std::unique_ptr<Store>> Open(const std::filesystem::path& path, OpenMode mode,
                                             Options options);
  // Stops the writer (waiting jobs are committed first).
  ~Store();
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  // Starts the writer thread. Once, in mode kExclusive, before the first Submit. `observer`
  // outlives the store; may be null.
  void Start(CommitObserver* observer);
  // Commits what waits, then refuses further jobs. Idempotent. The destructor calls it.
  void Stop();

  // Queues a job. Errors: kUnavailable at once, and `done` is not called, when kMaxQueuedWrites
  // wait, after Stop, or after a fatal error. Thread-safe.
  Status Submit(Job job);
  // Submits and waits for the commit; never call it from a job or an observer.
  Result<Generation> RunJob(std::function<Status(Savepoint&)> run, bool bookkeeping = false);

  // A consistent view of the newest commit.
  Result<Reader> Read();
  // Single reads in their own statement: the hot path of deliveries.
  Result<VersionRow> LoadVersion(VersionId id);

  // Generation of the newest commit. In snapshot mode: as of Open.
  Generation generation() const;
  const ByteArray<16>& store_id() const;
  std::size_t queued_writes() const;
  // Why the newest commit failed; nothing when it succeeded. After a full disk the success must be a change, or find
  // kRoomAgainBytes free.
  std::optional<Error> write_trouble() const;

  // Copies one consistent state to a new file `target` (0600): written beside it, fsynced, then
  // renamed. Returns the generation it contains. Errors: kConflict when `target` exists;
  // kUnavailable.
  Result<Generation> Backup(const std::filesystem::path& target);

 private:
  struct Parts;
  explicit Store(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

// For the schema test (rule G1): the columns of every table, as SQLite reports them.
struct TableColumns {
  std::string table;
  std::vector<std::string> columns;
};
Result<std::vector<TableColumns>> SchemaColumns(const std::filesystem::path& path);

}  // namespace latchkey::store
