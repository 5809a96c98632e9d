// The tree of granted secrets: immutable snapshots for the handlers, one builder for the sync side.
//
// The truth lives in the keeper's content memory, so that it survives the worker (R2, R6, R8); a
// SnapshotStore is one worker's view of it. Publishing commits with one atomic store: a worker that
// dies anywhere inside leaves the old state or the new one, never a mixture (fuse-client 5.2 point
// 6; rules F2, F3, F7).
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/bytes.h"
#include "common/base/guarded.h"
#include "common/base/result.h"

namespace latchkey::snapshot {

// Index of a node; equals the inode number in the mount and is never reused. Below
// kFirstSecretNode: fixed nodes.
using NodeIndex = std::uint32_t;
inline constexpr NodeIndex kRootNode = 1;
inline constexpr NodeIndex kPubNode = 2;
inline constexpr NodeIndex kNewNode = 3;
inline constexpr NodeIndex kJsonNode = 4;
inline constexpr NodeIndex kJsonSecretNode = 5;
inline constexpr NodeIndex kStandInNode = 6;
// Control files (fuse-client 1.1) with text that somebody puts; they are versioned like secrets,
// without events.
enum class ControlFile : NodeIndex {
  kVersion = 8,
  kRunning = 9,
  kClearCache = 10,
  kStatus = 11,
  kServerStatus = 12,
  kMetrics = 13,
  kSecrets = 14,
  kThreads = 15,
};
// Its name in `/` (those with a dot) or in `/.json`.
const char* ControlFileName(ControlFile file);
inline constexpr NodeIndex kFirstControlNode = 8;
inline constexpr NodeIndex kEndControlNode = 16;
inline constexpr NodeIndex kFirstSecretNode = 32;

// Names one version record for ever: what `fh` of a descriptor holds. Never 0 for a record.
using VersionHandle = std::uint64_t;

// What the sync side knows about one version of one secret. Owner and group are already resolved
// (NSS never runs in a handler); an unknown owner is for the caller to turn into mode 0400, uid 0
// (rule F3).
struct SecretVersion {
  std::string_view name;      // the secret; rule F2 or it is skipped
  std::string_view filename;  // the name in the mount; empty: same as `name`
  std::uint64_t number = 0;   // version number, 1, 2, 3 ...; 0 when the server does not tell
  std::int64_t id = 0;        // Keywhiz' version id; 0 when unknown
  std::string_view checksum;  // as the server writes it, at most 128 bytes; for the xattr
  std::uint32_t mode = 0440;  // masked to 0444
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::int64_t mtime_s = 0;  // the server's updateDate
  Bytes content;             // copied into locked memory by Put
  // `.json/secret/NAME` is head + base64(content) + tail; both empty:
  // {"name":"NAME","secret":"..."}.
  std::string_view delivery_head;
  std::string_view delivery_tail;
};

// One thing that was not mounted, for the status output. The rest of the list is not affected
// (R22).
struct Problem {
  std::string name;    // as received, cut at 255 bytes
  std::string reason;  // one line
};

struct MountedSecret {
  std::string name;
  std::string filename;
  std::uint64_t number;
  std::int64_t id;
  std::size_t size_bytes;
  std::uint32_t mode;
  std::uint32_t uid;
  std::uint32_t gid;
  std::string checksum;
};

// Freshness of everything that is served (R12).
struct Freshness {
  std::int64_t last_success_s =
      0;  // wall clock of the last answer of the server that confirmed the snapshot; 0 = never
  std::int64_t stale_since_s = 0;  // 0 = fresh
};

enum class ChangeKind : std::uint32_t { kRotated = 0, kNew = 1, kRevived = 2, kRevoked = 3 };

// What Publish asks of the mount, in the order of 5.2 point 6. Called on the publishing thread.
// None may block.
class PublishHooks {
 public:
  virtual ~PublishHooks() = default;
  // Before the swap: attributes of this node (and of its JSON twin) change. Attribute-only notice.
  virtual void InvalidateAttributes(NodeIndex node) = 0;
  // After the swap and the acknowledgement. `generation` is the mount's own.
  virtual void Acknowledge(std::uint64_t generation) = 0;
  virtual void QueueEvent(NodeIndex node, std::string_view filename, ChangeKind kind,
                          std::uint64_t generation) = 0;
  // The newest generation ever queued for the node, over the lives of all workers; lets a new
  // worker queue what the old one committed and did not announce.
  virtual std::uint64_t QueuedGeneration(NodeIndex node) const = 0;
  // All events of this publication are queued; wake the helpers.
  virtual void Announce(bool names_changed) = 0;
};

struct PublishResult {
  std::uint64_t mount_generation =
      0;                    // grows by one with each publication over the life of the keeper
  std::size_t changed = 0;  // nodes that are new, rotated, revived or revoked
  // Secrets whose file name is free again now that a rival is gone: fetch and Put them.
  std::vector<std::string> refetch;
  // All secrets that were put and are not mounted because several want their file name.
  std::vector<std::string> refused;
};

class SnapshotStore;

// Collects one batch and publishes it. One thread (the sync thread) uses it; handlers go on
// meanwhile and never wait for it.
class SnapshotBuilder {
 public:
  explicit SnapshotBuilder(SnapshotStore& store);
  ~SnapshotBuilder();
  SnapshotBuilder(const SnapshotBuilder&) = delete;
  SnapshotBuilder& operator=(const SnapshotBuilder&) = delete;

  // Stages one version. The bytes are in locked memory when it returns; the caller wipes its own
  // copy. Errors: kInvalidArgument (name or file name against rule F2: skipped, kept as a problem),
  // kConflict (two secrets want one file name: neither is mounted, kept as a problem), kTooLarge
  // (over the limits of rule F7: the old version stays), kUnavailable (out of records or memory).
  // The rest of the batch is not affected.
  Status Put(const SecretVersion& version);
  // Stages the end of a secret (revoked or deleted). Unknown names are no error.
  void Remove(std::string_view secret_name);
  // Stages the text of a control file (status, secrets, metrics ...). Errors: kTooLarge,
  // kUnavailable.
  Status PutControl(ControlFile file, std::string_view text);
  // Drops everything that was staged since the last Publish, wiped. Rivals for a file name are
  // forgotten with it: after a Discard put the whole listing again.
  void Discard();

  // Publishes the batch in one step and in the order of 5.2 point 6. `server_generation` is stored
  // with it and comes back from server_generation() of the next worker. An empty batch only stores
  // the generation. First publication: the mount appears.
  Result<PublishResult> Publish(std::uint64_t server_generation);

  // What is mounted now (without the staged batch), for comparison with a listing. Also right after
  // a restart.
  std::vector<MountedSecret> Mounted() const;
  std::vector<Problem> Problems() const;
  std::uint64_t server_generation()
      const;  // of the last publication, also by an earlier worker; 0 before the first
  // Visible at once in user.latchkey.age and .stale_since; survives the worker.
  void SetFreshness(const Freshness& freshness);
  // Wipes and frees versions that nobody has open any more. Publish does it too; call it about once
  // a second.
  void Sweep();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace latchkey::snapshot
