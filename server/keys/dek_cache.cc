#include "server/keys/dek_cache.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace latchkey::keys {

Result<std::unique_ptr<DekCache>> DekCache::Make(std::size_t entries) {
  const std::size_t sets = std::bit_ceil(std::max(entries, kWays * kLocks)) / kWays;
  ASSIGN_OR_RETURN(SecretBuffer keys, SecretBuffer::OfSize(sets * kWays * crypto::kKeyBytes));
  return std::unique_ptr<DekCache>(new DekCache(sets, std::move(keys)));
}

DekCache::DekCache(std::size_t sets, SecretBuffer keys)
    : sets_(sets), entries_(sets * kWays), clocks_(sets), keys_(std::move(keys)) {}

std::size_t DekCache::SetOf(VersionId version) const {
  return (std::hash<VersionId>()(version) >> 32) & (sets_ - 1);
}

MutableBytes DekCache::KeyAt(std::size_t index) {
  return keys_.mutable_bytes().subspan(index * crypto::kKeyBytes, crypto::kKeyBytes);
}

std::optional<crypto::Dek> DekCache::Find(VersionId version, Bytes wrapped) {
  if (wrapped.size() != crypto::kWrappedKeyBytes) return std::nullopt;
  const std::size_t set = SetOf(version);
  const std::lock_guard lock(locks_[set % kLocks]);
  for (std::size_t i = set * kWays; i < (set + 1) * kWays; ++i) {
    const Entry& entry = entries_[i];
    if (entry.version != version.value || version.value == 0) continue;
    if (!std::equal(wrapped.begin(), wrapped.end(), entry.wrapped.begin())) continue;
    auto dek = crypto::Dek::FromBytes(KeyAt(i));
    if (!dek.has_value())
      return std::nullopt;  // no secret memory: the caller's own attempt says so
    return std::move(dek).value();
  }
  return std::nullopt;
}

void DekCache::Put(VersionId version, Bytes wrapped, const crypto::Dek& dek) {
  if (version.value == 0 || wrapped.size() != crypto::kWrappedKeyBytes) return;
  const std::size_t set = SetOf(version);
  const std::lock_guard lock(locks_[set % kLocks]);
  std::size_t victim = set * kWays;
  for (std::size_t i = set * kWays; i < (set + 1) * kWays; ++i) {
    if (entries_[i].version == version.value) {
      victim = i;  // one entry per version
      break;
    }
    const std::uint32_t age = clocks_[set] - entries_[i].age;
    const std::uint32_t most = clocks_[set] - entries_[victim].age;
    if (entries_[victim].version != 0 && (entries_[i].version == 0 || age > most)) victim = i;
  }
  Entry& entry = entries_[victim];
  entry.version = version.value;
  entry.age = ++clocks_[set];
  std::copy(wrapped.begin(), wrapped.end(), entry.wrapped.begin());
  std::memcpy(KeyAt(victim).data(), dek.bytes().data(), crypto::kKeyBytes);
}

void DekCache::Forget(VersionId version) {
  const std::size_t set = SetOf(version);
  const std::lock_guard lock(locks_[set % kLocks]);
  for (std::size_t i = set * kWays; i < (set + 1) * kWays; ++i) {
    if (entries_[i].version != version.value) continue;
    entries_[i] = Entry{};
    WipeMemory(KeyAt(i).data(), crypto::kKeyBytes);
  }
}

}  // namespace latchkey::keys
