// Session: the worker's side of the mount. libfuse handlers that answer from the snapshot alone: no
// network, no lock shared with it, no disk (R1). Sole owner of libfuse.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>

#include "common/base/result.h"
#include "fusefs/journal/handover.h"
#include "fusefs/journal/region.h"
#include "fusefs/snapshot/store.h"

namespace latchkey::mount {

struct SessionOptions {
  unsigned threads = 2;  // a third made it slower on two cores (fuse-client 6.9)
  // Identity of the worker after Open(); empty: stays what it is (tests). Capabilities are dropped
  // in both cases.
  std::optional<uid_t> uid;
  std::optional<gid_t> gid;
  bool drop_privileges = true;            // capabilities and NoNewPrivs (R25)
  std::chrono::seconds revoke_grace{60};  // rule F4
  std::chrono::seconds max_stale{
      0};                       // 0: none; else OPEN answers EIO when the snapshot is older (R12)
  bool audit_required = false;  // OPEN answers EACCES when the ring of records is full (R23)
  uid_t control_uid = 0;        // owner of control files and directories
  gid_t control_gid = 0;
  std::function<void(std::uint32_t opcode)>
      before_handler;  // tests only: runs with the request in its slot
};

// One per process. Usage: Open, SnapshotBuilder on store(), publish, Start, ... , Stop.
class Session {
 public:
  // Maps the memory of the handover, drops privileges, prepares libfuse. Errors: kCorrupt,
  // kUnavailable.
  static Result<std::unique_ptr<Session>> Open(const journal::Handover& handover,
                                               SessionOptions options);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  snapshot::SnapshotStore& store();
  const journal::Region& region() const;
  // True when the memory already holds a published snapshot (an earlier worker): serving may start
  // at once (R2).
  bool has_snapshot() const;

  // Starts the handler threads. They wait for the keeper to mount, replay INIT and the requests of
  // a dead worker, then serve. The keeper mounts after the first publication of the builder.
  Status Start();
  // Waits until the kernel ended the connection (unmounted) or Stop(); returns at once when it was
  // not started.
  void Wait();
  void Stop();
  bool serving() const;

 private:
  class Impl;
  explicit Session(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Stages the control files whose text does not depend on the server: .version, .running (the
// keeper's pid), .clear_cache and .json/threads. Call it before the first publication of each
// worker.
Status PutFixedControlFiles(snapshot::SnapshotBuilder& builder, const journal::Region& region);

}  // namespace latchkey::mount
