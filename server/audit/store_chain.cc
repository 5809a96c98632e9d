#include "server/audit/store_chain.h"

#include "server/store/store.h"

namespace latchkey::audit {

StoreChain::StoreChain(const crypto::AuditKey& key, ChainHead head, Generation generation)
    : key_(key), position_{head, head.seq}, published_(Published{head, head.seq, generation}) {}

Status StoreChain::Append(store::Savepoint& savepoint, const Event& event) {
  encoded_.clear();
  EncodeEvent(event, &encoded_);
  store::AuditRow row;
  row.seq = position_.head.seq + 1;
  row.hash = crypto::ChainHash(key_, position_.head.hash, kStoreChainId, row.seq, encoded_);
  row.event = encoded_;
  RETURN_IF_ERROR(savepoint.AppendAudit(row));
  position_.head = ChainHead{row.seq, row.hash};
  if (event.type != EventType::kHeads) position_.last_event_seq = row.seq;
  return {};
}

void StoreChain::Committed(Generation generation) {
  published_.With([&](Published& published) {
    published = Published{position_.head, position_.last_event_seq, generation};
  });
}

StoreChain::Published StoreChain::Last() const {
  return published_.With([](const Published& published) { return published; });
}

}  // namespace latchkey::audit
