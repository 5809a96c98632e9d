// The `access:<server>` chain (rules A1-A3): reads, refusals, logins; appended to a spool of
// preallocated segments.
//
// Layout of the directory: `lock`, `access-000001.spool`, `access-000002.spool`, ... of
// limits::kSpoolSegmentBytes each. A segment is a 128-byte header (magic, chain id, first seq, head
// before it) and records `u32 BE length | event | hash 32`; unused room is zeros. At least
// limits::kSpoolBytes are kept allocated ahead, so that a full disk does not at once stop reads
// (rule A2); when they are used up Append refuses. The server never deletes a segment: what is recorded is the operator's. Closed segments that the
// anchor has passed may be moved away (packaging/archive-audit), also while it runs.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "common/base/unique_fd.h"
#include "server/audit/chain.h"
#include "server/audit/event.h"

namespace latchkey::audit {

struct AccessLogOptions {
  std::string directory;  // must exist; files in it are 0600
  std::string server_id;  // the chain is "access:<server_id>"
  // What the anchor says was durable: records up to here must be intact, damage behind it is a torn
  // tail that is cut.
  ChainHead durable;
  bool accept_rollback = false;  // cut also what was durable, or go on from a shorter chain
  std::size_t segment_bytes;     // limits::kSpoolSegmentBytes; tests use less
  std::size_t reserve_bytes;     // limits::kSpoolBytes
  // Called from any thread on an fsync error: the process must end (rule P4).
  std::function<void(const char* what)> on_fatal;
};

struct AccessLogStats {
  std::uint64_t events = 0;  // since start
  std::uint64_t denied = 0;  // of these, with outcome denied
  std::uint64_t integrity_failures =
      0;  // of these, stored data that was not what this server wrote
  std::uint64_t refused_batches = 0;
  std::uint64_t reserve_left_bytes = 0;
  std::uint64_t segments = 0;
};

// What the directory holds on its disk now, spares included; free_bytes is what this user may still take.
struct SpoolUsage {
  std::uint64_t bytes = 0;
  std::uint64_t free_bytes = 0;
};
Result<SpoolUsage> ReadSpoolUsage(const std::string& directory);
// True when a note is due that the disk fills up: limits::kAuditDiskLowBytes.
bool IsLow(const SpoolUsage& usage);

// Thread-safe: one lock, taken once per batch.
class AccessLog {
 public:
  struct Recovery {
    bool cut = false;  // a torn tail was cut behind `head_after`
    std::uint64_t cut_bytes = 0;
    ChainHead head_after;
    bool behind_durable =
        false;  // only with accept_rollback: the chain ended before what was durable
  };

  // Errors: kConflict when another process holds the directory; kCorrupt when records that were
  // durable are damaged or gone (message names chain and position); kUnavailable when no segment
  // can be allocated. `key` must outlive the log.
  static Result<std::unique_ptr<AccessLog>> Open(const crypto::AuditKey& key,
                                                 AccessLogOptions options);
  ~AccessLog();
  AccessLog(const AccessLog&) = delete;
  AccessLog& operator=(const AccessLog&) = delete;

  const Recovery& recovery() const { return recovery_; }
  const std::string& chain_id() const { return chain_id_; }

  // Appends all events or none, with one pwrite, and returns after it returned; a thread syncs them
  // within limits::kAuditSyncInterval. kUnavailable ("audit_unavailable: ...") when the spool is
  // full or cannot be written. Each event is the canonical encoding; an empty batch is valid and
  // does nothing.
  Status Append(std::span<const Bytes> events);
  Status Append(const EventBatch& events);
  // Append, then fdatasync before it returns.
  Status AppendDurable(const EventBatch& events);
  // A head record: like AppendDurable without the sync, and it does not count as movement of the
  // chain.
  Status AppendHead(const Event& heads);

  // Writes everything to the disk. Called by the sync thread, and once more at stop.
  Status Sync();

  struct Position {
    ChainHead head;
    std::uint64_t last_event_seq = 0;  // last record that is not a head record
  };
  Position Last() const;
  // The head up to which a sync has succeeded: the anchor may name it.
  Position LastSynced() const;

  struct StoredEvent {
    std::uint64_t seq = 0;
    ByteVector event;
  };
  // Up to `limit` records after `after_seq`, oldest first, of the segments that have not been
  // moved away. Each is compared with the record before it; kCorrupt names the one that does not
  // continue it. What is missing at the end is for verify.h.
  Result<std::vector<StoredEvent>> Read(std::uint64_t after_seq, std::size_t limit) const;

  AccessLogStats Stats() const;

 private:
  class Impl;
  explicit AccessLog(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
  Recovery recovery_;
  std::string chain_id_;
};

}  // namespace latchkey::audit
