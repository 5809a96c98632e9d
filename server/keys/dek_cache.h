// DekCache: unwrapped DEKs in locked memory, so that a repeated read does not unwrap again.
//
// Bounded: limits::kDekCacheEntries keys in one slice of the arena, 4 to a set, the oldest of a set
// replaced. An entry answers only for the very wrapped bytes it came from: a version that was
// sealed anew, or whose row was exchanged, misses. Content is never kept. Thread-safe; 16 mutexes,
// each over its part of the sets, held for a copy of 32 bytes.
#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "common/crypto/crypto.h"
#include "common/model/ids.h"

namespace latchkey::keys {

class DekCache {
 public:
  // Rounds `entries` up to a power of two of at least 64. kUnavailable when secret memory is
  // exhausted.
  static Result<std::unique_ptr<DekCache>> Make(std::size_t entries);

  std::optional<crypto::Dek> Find(VersionId version, Bytes wrapped);
  void Put(VersionId version, Bytes wrapped, const crypto::Dek& dek);
  void Forget(VersionId version);

 private:
  static constexpr std::size_t kWays = 4;
  static constexpr std::size_t kLocks = 16;
  struct Entry {
    std::int64_t version = 0;  // 0: empty
    std::uint32_t age = 0;     // of the set's own counter
    ByteArray<crypto::kWrappedKeyBytes> wrapped{};
  };

  DekCache(std::size_t sets, SecretBuffer keys);
  std::size_t SetOf(VersionId version) const;
  MutableBytes KeyAt(std::size_t index);

  const std::size_t sets_;  // power of two
  std::array<std::mutex, kLocks> locks_;
  std::vector<Entry> entries_;
  std::vector<std::uint32_t> clocks_;
  SecretBuffer keys_;
};

}  // namespace latchkey::keys
