// RequestSlot: one thread's place in the journal. A request is read from the kernel straight into
// it, so that the next worker finds it there when this one dies before the reply.
#pragma once

#include <optional>

#include "common/base/bytes.h"
#include "fusefs/journal/region.h"

namespace latchkey::journal {

// Used by one thread at a time. The region must outlive it.
class RequestSlot {
 public:
  RequestSlot(const Region& region, std::size_t index);

  std::size_t index() const { return index_; }
  std::uint64_t sequence() const;

  // Forgets the last request, then reads the next one from `fuse_fd`. Returns its bytes, or the
  // negative errno of read(2). The slot's memory is touched beforehand: a page fault inside the
  // kernel's copy would cost the request (fuse-client 5.1).
  long Read(int fuse_fd);
  // The request in the slot; empty when there is none or its length word is impossible.
  Bytes request() const;
  // Bracket a handler: what is begun and never finished is what the watchdog and the next worker
  // look at.
  void Begin();
  void Finish();

  // A note that belongs to this very request: what an earlier attempt decided (for OPEN, which
  // version it counted).
  std::optional<std::uint64_t> Note() const;
  void SetNote(std::uint64_t value);

  // For the worker that takes over (R5): adds a strike when the slot was being handled and the last
  // worker is to blame. Returns the strikes of the request.
  std::uint32_t TakeOver(bool blame);

 private:
  SlotHead& head() const { return region_->layout().slots[index_]; }
  std::uint8_t* memory() const { return region_->layout().requests[index_].data(); }
  const Region* region_;
  std::size_t index_;
};

}  // namespace latchkey::journal
