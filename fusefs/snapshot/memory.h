// The mapping of the content memory and its block allocator. Private to fusefs/snapshot.
#pragma once

#include <map>
#include <set>

#include "common/base/unique_fd.h"
#include "fusefs/snapshot/store.h"

namespace latchkey::snapshot {

// Free room of the content area: first fit, so that what was touched once is used again. One
// thread.
class BlockAllocator {
 public:
  BlockAllocator();
  // Offset of a free block, rounded up to kBlockBytes; nullopt when there is none. 0 bytes take no
  // room.
  std::optional<std::uint64_t> Take(std::uint64_t bytes);
  // Takes exactly this block (recovery). False when it is not wholly free.
  bool TakeAt(std::uint64_t offset, std::uint64_t bytes);
  void Give(std::uint64_t offset, std::uint64_t bytes);

 private:
  std::map<std::uint64_t, std::uint64_t> free_;  // offset -> bytes
};

inline constexpr std::uint64_t kCountBits = 24;
inline constexpr std::uint64_t kCountMask = (1ULL << kCountBits) - 1;
inline constexpr std::uint64_t kHandleIndexBits = 16;
static_assert(limits::kMaxVersionRecords <= 1ULL << kHandleIndexBits);

inline VersionHandle MakeHandle(std::uint32_t record, std::uint64_t serial) {
  return serial << kHandleIndexBits | record;
}
inline std::uint32_t RecordOf(VersionHandle handle) {
  return static_cast<std::uint32_t>(handle & ((1ULL << kHandleIndexBits) - 1));
}
inline std::uint64_t SerialOf(VersionHandle handle) {
  return handle >> kHandleIndexBits;
}

// Count word of a version that nobody opened yet: no request and no other version has its upper
// bits.
inline std::uint64_t InitialCount(std::uint64_t serial) {
  return (1ULL << 39 | (serial & ((1ULL << 39) - 1))) << kCountBits;
}
// Upper bits of a count word for a request of a slot; modulo 2^39, which is months of nothing but opens.
inline std::uint64_t CountTag(std::uint64_t sequence) {
  return sequence & ((1ULL << 39) - 1);
}
std::uint32_t OpenCount(const VersionRecord& record);
std::uint64_t JsonBytes(const VersionRecord& record);
bool IsControlNode(NodeIndex node);

struct SnapshotStore::Memory {
  ~Memory();
  ContentLayout* layout = nullptr;
  UniqueFd fd;
  BlockAllocator blocks;                 // builder's thread only
  std::set<std::uint32_t> free_records;  // builder's thread only; all below record_limit
  // Sizes that the next publication will bring, plus one; 0: nothing is staged. Set before the
  // notice, cleared after the swap (5.2 point 6).
  std::array<std::atomic<std::uint64_t>, limits::kMaxMountNodes> staged_content{};
  std::array<std::atomic<std::uint64_t>, limits::kMaxMountNodes> staged_json{};

  VersionRecord& record(std::uint32_t index) const { return layout->records[index]; }
  const Index& index() const { return layout->indexes[layout->header.root.load() & 1]; }
  MutableBytes Block(const VersionRecord& at) const {
    return {layout->content.data() + at.content_offset, at.block_bytes};
  }
  // The record behind a handle, null when that version is gone.
  VersionRecord* Find(VersionHandle handle) const;
  // Takes a version's content away and wipes it; its descriptors stay counted.
  void Empty(std::uint32_t index);
  // Ends a version: no handle finds it any more, then its bytes are wiped and its room is free.
  void Free(std::uint32_t index);
};

// Overwrites content in a way that the compiler keeps.
void Wipe(MutableBytes bytes);
// Base64 of `content` (RFC 4648, padded) without table look-ups, so that its time does not depend
// on the bytes. Writes the characters [offset, offset + out.size()) of the encoding.
void EncodeBase64Range(Bytes content, std::uint64_t offset, MutableBytes out);
inline std::uint64_t Base64Bytes(std::uint64_t content_bytes) {
  return (content_bytes + 2) / 3 * 4;
}

}  // namespace latchkey::snapshot
