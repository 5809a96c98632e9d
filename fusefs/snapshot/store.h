// SnapshotStore: one worker's view of the content memory, for the handlers of the mount. See
// snapshot.h for the builder.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <unordered_map>

#include "fusefs/snapshot/content_layout.h"
#include "fusefs/snapshot/snapshot.h"

namespace latchkey::snapshot {

// Bytes that the keeper must give the content memory.
std::size_t ContentMemoryBytes();
// CLOCK_MONOTONIC, which all workers of one boot share.
std::uint64_t MonotonicNs();

// One node as one snapshot shows it. Immutable.
struct NodeView {
  NodeIndex node = 0;
  std::uint32_t record = kNoRecord;      // what a new open gets; kNoRecord: ENOENT
  std::uint64_t changed_generation = 0;  // mount generation of the last change
  std::uint64_t changed_ns = 0;
  std::uint64_t narrowed_ns = 0;
  bool forgotten = false;  // of a version that descriptors have open nothing is known any more
  std::vector<std::uint32_t>
      superseded;  // records that descriptors may still have open, oldest first
};

using NameTable = std::map<std::string, NodeIndex, std::less<>>;

// Immutable; handlers hold it by shared_ptr for the time of one request. Records of a held snapshot
// are not reused.
struct Snapshot {
  std::uint64_t generation = 0;  // 0: nothing published yet, the tree answers EIO (R3)
  std::uint64_t server_generation = 0;
  std::uint64_t structure_ns = 0;
  std::vector<std::shared_ptr<const NodeView>> nodes;  // by NodeIndex; null: never used
  std::shared_ptr<const NameTable> names;              // of secrets, also revoked ones

  const NodeView* Find(NodeIndex node) const;
  // The live secret of that name, or null.
  const NodeView* Lookup(std::string_view filename) const;
};

struct VersionInfo {
  VersionHandle handle;
  std::uint64_t number;
  std::int64_t mtime_s;
  std::uint32_t mode;
  std::uint32_t uid;
  std::uint32_t gid;
  std::size_t content_bytes;
  std::size_t json_bytes;
};

enum class View { kContent, kJson };

struct SizeAnswer {
  std::uint64_t bytes;       // for whoever asks: at least what any descriptor of now reads
  std::uint64_t open_bytes;  // at least what a new open reads; exact unless one is staged
  bool staged;               // the next version is about to be swapped in
  bool settled;  // false: within the two seconds of a change, the kernel may not cache it
};

enum class ReadOutcome { kOk, kStale, kGone };

// Thread-safe for handlers; SnapshotBuilder alone changes it.
class SnapshotStore {
 public:
  // Maps and validates `content_fd` (borrowed), lays it out when it is new, wipes what a dead
  // worker staged, rebuilds the view. Call it while CAP_IPC_LOCK is there. Errors: kCorrupt (not
  // ours or damaged beyond single records), kUnavailable.
  static Result<std::unique_ptr<SnapshotStore>> Attach(int content_fd);
  ~SnapshotStore();
  SnapshotStore(const SnapshotStore&) = delete;
  SnapshotStore& operator=(const SnapshotStore&) = delete;

  // Set once before the first publication. May be null (tests).
  void SetHooks(PublishHooks* hooks) { hooks_ = hooks; }
  // Queues the events that an earlier worker committed and did not announce.
  void QueueMissedEvents();
  void SetRevokeGrace(std::chrono::nanoseconds grace) {
    revoke_grace_ns_ = static_cast<std::uint64_t>(grace.count());
  }

  std::shared_ptr<const Snapshot> Current() const;
  // What is served of `record` as long as a snapshot that shows it is held.
  VersionInfo Info(std::uint32_t record) const;
  std::string_view Checksum(std::uint32_t record) const;
  std::string_view SecretName(NodeIndex node) const;
  std::string_view FileName(NodeIndex node) const;

  // The size rule of 5.2 point 4. Takes its own snapshot, which it leaves in `used`; nullopt: the
  // node is not there now.
  std::optional<SizeAnswer> SizeOf(NodeIndex node, View view, std::uint64_t now_ns,
                                   std::shared_ptr<const Snapshot>* used) const;

  // Counts one open descriptor of `handle` on behalf of request `sequence` of `slot`; counting the
  // same request again does nothing (replay). False: the version is gone.
  bool CountOpen(std::size_t slot, std::uint64_t sequence, VersionHandle handle);
  bool AlreadyCounted(std::size_t slot, std::uint64_t sequence, VersionHandle handle) const;
  void CountRelease(std::size_t slot, std::uint64_t sequence, VersionHandle handle);
  // Takes back what CountOpen of the same request counted, when the kernel did not want the reply.
  void UndoOpen(std::size_t slot, std::uint64_t sequence, VersionHandle handle);
  std::uint32_t OpenDescriptors(VersionHandle handle) const;

  // Copies up to out.size() bytes at `offset` of the version. kStale: evicted (F7). kGone: revoked
  // and the grace is over (F4).
  ReadOutcome ReadVersion(VersionHandle handle, View view, std::uint64_t offset, MutableBytes out,
                          std::size_t* read_bytes, std::uint64_t now_ns) const;
  VersionHandle HandleOf(std::uint32_t record) const;
  // What goes into the page cache of the node when a descriptor that was opened on `opened` misses a
  // page: the current version. All descriptors of the node share that cache, so nothing goes in
  // while one is open that belongs to a version with other rights, open to somebody whom the
  // current one is closed to (rule F3). 0: nothing.
  VersionHandle MappedBy(VersionHandle opened, const NodeView& view) const;

  Freshness GetFreshness() const;
  std::uint64_t total_content_bytes() const { return total_bytes_.load(std::memory_order_relaxed); }

 private:
  friend class SnapshotBuilder;
  struct Memory;
  bool OthersMaySeePages(const NodeView& view) const;
  explicit SnapshotStore(std::unique_ptr<Memory> memory);
  std::unique_ptr<Memory> memory_;
  PublishHooks* hooks_ = nullptr;
  std::atomic<std::uint64_t> revoke_grace_ns_;
  std::atomic<std::uint64_t> total_bytes_{0};
  Guarded<std::shared_ptr<const Snapshot>> current_;
};

}  // namespace latchkey::snapshot
