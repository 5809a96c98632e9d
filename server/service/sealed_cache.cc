#include "server/service/sealed_cache.h"

namespace latchkey::service {

std::size_t SealedCache::CostOf(const store::VersionRow& row) {
  constexpr std::size_t kOverheadBytes = 160;  // list node, map node, reference counts
  return sizeof row + row.sealed.size() + row.wrapped.size() + row.info.metadata.size() +
         row.info.created_by.size() + kOverheadBytes;
}

void SealedCache::Drop(Shard* shard, std::list<SealedRef>::iterator at) {
  shard->bytes -= CostOf(**at);
  shard->by_id.erase((*at)->info.id);
  shard->newest_first.erase(at);
}

SealedRef SealedCache::Find(VersionId id) {
  Shard& shard = ShardOf(id);
  const std::lock_guard lock(shard.mutex);
  const auto found = shard.by_id.find(id);
  if (found == shard.by_id.end()) return nullptr;
  shard.newest_first.splice(shard.newest_first.begin(), shard.newest_first, found->second);
  return *found->second;
}

void SealedCache::Put(SealedRef row) {
  const std::size_t cost = CostOf(*row);
  if (cost > shard_capacity_bytes_) return;
  Shard& shard = ShardOf(row->info.id);
  const std::lock_guard lock(shard.mutex);
  const auto found = shard.by_id.find(row->info.id);
  if (found != shard.by_id.end()) Drop(&shard, found->second);
  while (shard.bytes + cost > shard_capacity_bytes_)
    Drop(&shard, std::prev(shard.newest_first.end()));
  shard.newest_first.push_front(std::move(row));
  shard.by_id.emplace(shard.newest_first.front()->info.id, shard.newest_first.begin());
  shard.bytes += cost;
}

void SealedCache::Forget(VersionId id) {
  Shard& shard = ShardOf(id);
  const std::lock_guard lock(shard.mutex);
  const auto found = shard.by_id.find(id);
  if (found != shard.by_id.end()) Drop(&shard, found->second);
}

std::size_t SealedCache::bytes() const {
  std::size_t total = 0;
  for (const Shard& shard : shards_) {
    const std::lock_guard lock(shard.mutex);
    total += shard.bytes;
  }
  return total;
}

}  // namespace latchkey::service
