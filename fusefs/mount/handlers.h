// libfuse's low-level callbacks. Each replies exactly once, from the snapshot alone, and holds no
// lock while it replies. Private to fusefs/mount.
#pragma once

#define FUSE_USE_VERSION 312
#include <fuse3/fuse_lowlevel.h>

#include "fusefs/journal/slot.h"
#include "fusefs/mount/tree.h"
#include "fusefs/reads/ring.h"

namespace latchkey::mount {

// Largest READ that the kernel sends (INIT's max_pages) and so the size of a bounce buffer.
inline constexpr std::size_t kMaxReadPages = 32;
inline constexpr std::size_t kBounceBytes = kMaxReadPages * 4096;

// Locked memory through which content goes to the kernel: /dev/fuse refuses memfd_secret pages with
// EFAULT (rule Y2).
class BounceBuffer {
 public:
  static Result<BounceBuffer> Make(bool allow_unlocked);
  BounceBuffer(BounceBuffer&& other) noexcept;
  BounceBuffer& operator=(BounceBuffer&& other) noexcept;
  ~BounceBuffer();
  MutableBytes bytes() const { return {data_, kBounceBytes}; }

 private:
  explicit BounceBuffer(std::uint8_t* data) : data_(data) {}
  std::uint8_t* data_ = nullptr;
};

// What one handler thread works with. The callbacks find it through a thread-local pointer.
struct ThreadState {
  journal::RequestSlot slot;
  BounceBuffer bounce;
  reads::ReadWriter audit;
  reads::CallerNames callers{};
  std::uint64_t init_unique = 0;  // of an INIT that is being answered; 0: none
  bool swallow_reply = false;     // INIT that this worker feeds itself: nobody waits for the reply
};

// Shared by all callbacks, as libfuse's userdata.
struct HandlerContext {
  snapshot::SnapshotStore& store;
  const journal::Region& region;
  const SessionOptions& options;
  Tree tree;
  int fuse_fd;
};

// The only notice that a worker may send: with a negative offset it touches attributes alone and never waits. One that drops
// pages or entries can hang behind a request in flight, and a worker killed in it could not be reaped (5.2, deadlocks).
void ForgetAttributes(int fuse_fd, Inode inode);

ThreadState*& CurrentThread();
const fuse_lowlevel_ops& Operations();

}  // namespace latchkey::mount
