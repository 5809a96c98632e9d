// Keeper: holds /dev/fuse and the memory, mounts, starts and watches worker, waker and notifier. It
// parses nothing, has no network and never touches the mounted tree itself (R5, R6, F5, F6).
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "common/base/result.h"
#include "fusefs/journal/handover.h"

namespace latchkey::keeper {

// Runs in a forked child and returns its exit code; it may also exec (journal::ExecWith). The child
// has only the descriptors named in the handover besides 0-2, default signal dispositions, and dies
// with the keeper.
using ChildMain = std::function<int(const journal::Handover&)>;

struct KeeperOptions {
  std::string target;             // where users see the secrets; an empty directory owned by root
  std::string private_dir;        // made 0700 if absent; holds the lock and the private mount; e.g.
                                  // /run/latchkey-fs/NAME
  std::size_t content_bytes = 0;  // size of the content memory: snapshot::ContentMemoryBytes()
  bool try_secret_memory = true;  // memfd_secret first, else a memfd locked by the keeper
  bool allow_unlocked = false;    // false: memory that cannot be locked is an error (rule Y2)
  ChildMain worker;
  ChildMain waker;
  ChildMain notifier;
  std::chrono::milliseconds stuck_after{2000};  // watchdog R5, and the waker's time-out
  std::chrono::milliseconds lazy_unmount_after{5000};
  std::chrono::milliseconds snapshot_wait{0};  // 0: wait for ever for the first snapshot (R2)
  std::function<void()> on_ready;              // mounted and exposed; e.g. sd_notify(READY=1)
  std::function<void()> on_tick;               // about every 250 ms; e.g. WATCHDOG=1
};

// Single-threaded, and must be made before any other thread starts: it forks. One per process.
class Keeper {
 public:
  // Checks the target (rule F5), takes the locks, replaces a dead mount (ENOTCONN), makes the
  // memory, opens /dev/fuse. Errors, one line each that says what to do: kConflict (a second keeper
  // on the same point, a mount point that is in use or not empty), kPermissionDenied (path not
  // safe), kUnavailable (no /dev/fuse, memory cannot be locked).
  static Result<std::unique_ptr<Keeper>> Prepare(KeeperOptions options);
  ~Keeper();
  Keeper(const Keeper&) = delete;
  Keeper& operator=(const Keeper&) = delete;

  // Starts the worker, waits for its first snapshot, mounts, exposes, then watches until SIGTERM or
  // SIGINT. Leaves nothing mounted: waker, notifier, unmount (lazy after lazy_unmount_after),
  // worker, and as last resort fusectl's abort.
  Status Run();

 private:
  class Impl;
  explicit Keeper(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace latchkey::keeper
