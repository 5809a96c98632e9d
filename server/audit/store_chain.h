// The `store` chain (rules A1, A3): one event per mutation, written as a row in the savepoint of
// that mutation.
#pragma once

#include "common/base/guarded.h"
#include "common/model/ids.h"
#include "server/audit/chain.h"
#include "server/audit/event.h"

namespace latchkey::store {
class Savepoint;
}

namespace latchkey::audit {

// Owned by the writer thread: Append, Mark and Reset are called there only. Committed() publishes,
// Last() may be called from any thread.
class StoreChain {
 public:
  // `head` is the last row of the chain as it was loaded, `generation` the store's at that moment. `key` must outlive the
  // chain.
  StoreChain(const crypto::AuditKey& key, ChainHead head, Generation generation = {});

  // Adds the event as the next row. On error the head has not moved; the caller's savepoint rolls
  // back.
  Status Append(store::Savepoint& savepoint, const Event& event);

  // A job that fails after Append rolls its savepoint back and puts the head back with it.
  struct Position {
    ChainHead head;
    std::uint64_t last_event_seq = 0;
  };
  Position Mark() const { return position_; }
  void Reset(const Position& position) { position_ = position; }

  // The writer calls this after each commit, before replies go out: from now on others may see the
  // head.
  void Committed(Generation generation);

  struct Published {
    ChainHead head;
    std::uint64_t last_event_seq = 0;  // last record that is not itself a head record
    Generation generation;
  };
  Published Last() const;

 private:
  const crypto::AuditKey& key_;
  Position position_;
  ByteVector encoded_;  // scratch, kept to save allocations
  Guarded<Published> published_;
};

}  // namespace latchkey::audit
