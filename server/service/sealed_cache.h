// A bounded cache of sealed versions: ciphertext only, never plaintext (architecture, "State and where it lives").
#pragma once

#include <array>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "common/model/ids.h"
#include "common/model/limits.h"
#include "server/store/rows.h"

namespace latchkey::service {

using SealedRef = std::shared_ptr<const store::VersionRow>;

// Least recently used rows go first. A version's sealed bytes never change under its id, except by rewrapping (Forget).
// Thread-safe.
class SealedCache {
 public:
  explicit SealedCache(std::size_t capacity_bytes = limits::kSealedCacheBytes)
      : shard_capacity_bytes_(capacity_bytes / kShards) {}

  SealedRef Find(VersionId id);  // null when absent
  // Rows larger than a shard are not kept.
  void Put(SealedRef row);
  void Forget(VersionId id);
  std::size_t bytes() const;

 private:
  static constexpr std::size_t kShards =
      4;  // 4 MiB each: the largest content of the default limit fits thrice

  struct Shard {
    mutable std::mutex mutex;
    std::list<SealedRef> newest_first;
    std::unordered_map<VersionId, std::list<SealedRef>::iterator> by_id;
    std::size_t bytes = 0;
  };
  Shard& ShardOf(VersionId id) { return shards_[std::hash<VersionId>{}(id) >> 32 & (kShards - 1)]; }
  static std::size_t CostOf(const store::VersionRow& row);
  static void Drop(Shard* shard, std::list<SealedRef>::iterator at);

  const std::size_t shard_capacity_bytes_;
  std::array<Shard, kShards> shards_;
};

}  // namespace latchkey::service
