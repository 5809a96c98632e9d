#include "fusefs/snapshot/memory.h"

#include <string.h>
#include <sys/mman.h>

#include <algorithm>

namespace latchkey::snapshot {
namespace {

std::uint64_t RoundUp(std::uint64_t bytes) {
  return (bytes + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
}

// 6 bits to a character by arithmetic: each range adds its offset through a mask, no branch and no
// table.
std::uint8_t Base64Character(unsigned six) {
  const auto above = [six](unsigned limit) {
    return (limit - six) >> 8 & 0xffU;
  };  // 0xff when six > limit
  unsigned c = six + 'A';
  c += above(25) & ('a' - 'Z' - 1U);
  c -= above(51) & ('z' - '0' + 1U);
  c -= above(61) & ('9' + 1U - '+');
  c += above(62) & ('/' - '+' - 1U);
  return static_cast<std::uint8_t>(c);
}

}  // namespace

BlockAllocator::BlockAllocator() {
  free_.emplace(0, limits::kContentAreaBytes);
}

std::optional<std::uint64_t> BlockAllocator::Take(std::uint64_t bytes) {
  bytes = RoundUp(bytes);
  if (bytes == 0) return 0;
  for (auto it = free_.begin(); it != free_.end(); ++it) {
    if (it->second < bytes) continue;
    const auto [offset, room] = *it;
    free_.erase(it);
    if (room > bytes) free_.emplace(offset + bytes, room - bytes);
    return offset;
  }
  return std::nullopt;
}

bool BlockAllocator::TakeAt(std::uint64_t offset, std::uint64_t bytes) {
  bytes = RoundUp(bytes);
  if (bytes == 0) return true;
  auto it = free_.upper_bound(offset);
  if (it == free_.begin()) return false;
  --it;
  const auto [start, room] = *it;
  if (offset + bytes > start + room) return false;
  free_.erase(it);
  if (offset > start) free_.emplace(start, offset - start);
  if (offset + bytes < start + room) free_.emplace(offset + bytes, start + room - offset - bytes);
  return true;
}

void BlockAllocator::Give(std::uint64_t offset, std::uint64_t bytes) {
  bytes = RoundUp(bytes);
  if (bytes == 0) return;
  auto it = free_.emplace(offset, bytes).first;
  const auto next = std::next(it);
  if (next != free_.end() && offset + bytes == next->first) {
    it->second += next->second;
    free_.erase(next);
  }
  if (it == free_.begin()) return;
  const auto before = std::prev(it);
  if (before->first + before->second != offset) return;
  before->second += it->second;
  free_.erase(it);
}

std::uint32_t OpenCount(const VersionRecord& record) {
  std::uint64_t sum = 0;
  for (const Word& word : record.opens) sum += word.load(std::memory_order_acquire) & kCountMask;
  return static_cast<std::uint32_t>(sum & kCountMask);
}

std::uint64_t JsonBytes(const VersionRecord& record) {
  return record.head_bytes + Base64Bytes(record.content_bytes) + record.tail_bytes;
}

bool IsControlNode(NodeIndex node) {
  return node >= kFirstControlNode && node < kEndControlNode;
}

SnapshotStore::Memory::~Memory() {
  if (layout != nullptr) munmap(layout, sizeof(ContentLayout));
}

VersionRecord* SnapshotStore::Memory::Find(VersionHandle handle) const {
  const std::uint32_t at = RecordOf(handle);
  if (at >= limits::kMaxVersionRecords || SerialOf(handle) == 0) return nullptr;
  VersionRecord& found = record(at);
  return found.serial.load(std::memory_order_acquire) == SerialOf(handle) ? &found : nullptr;
}

// A reader that is copying right now looks at serial and `emptied` again afterwards (ReadVersion). A
// worker that dies before the wipe is done leaves a record with a block: block_bytes goes last, and
// the next worker wipes what it finds.
void SnapshotStore::Memory::Empty(std::uint32_t index) {
  VersionRecord& ended = record(index);
  const std::uint64_t bytes = ended.block_bytes;
  ended.emptied.store(1, std::memory_order_seq_cst);
  Wipe(Block(ended));
  __atomic_store_n(&ended.block_bytes, 0, __ATOMIC_RELEASE);
  blocks.Give(ended.content_offset, bytes);
}

void SnapshotStore::Memory::Free(std::uint32_t index) {
  VersionRecord& ended = record(index);
  const std::uint64_t bytes = ended.block_bytes;
  ended.serial.store(0, std::memory_order_seq_cst);
  Wipe(Block(ended));
  for (Word& word : ended.opens) word.store(0, std::memory_order_relaxed);
  __atomic_store_n(&ended.block_bytes, 0, __ATOMIC_RELEASE);
  blocks.Give(ended.content_offset, bytes);
  free_records.insert(index);
}

void Wipe(MutableBytes bytes) {
  explicit_bzero(bytes.data(), bytes.size());
}

void EncodeBase64Range(Bytes content, std::uint64_t offset, MutableBytes out) {
  for (std::size_t done = 0; done < out.size();) {
    const std::uint64_t group = (offset + done) / 4;
    const std::size_t first = static_cast<std::size_t>(group * 3);
    const std::size_t have = std::min<std::size_t>(3, content.size() - first);
    unsigned bits = static_cast<unsigned>(content[first]) << 16;
    if (have > 1) bits |= static_cast<unsigned>(content[first + 1]) << 8;
    if (have > 2) bits |= content[first + 2];
    std::array<std::uint8_t, 4> four = {
        Base64Character(bits >> 18), Base64Character(bits >> 12 & 63U),
        have > 1 ? Base64Character(bits >> 6 & 63U) : std::uint8_t{'='},
        have > 2 ? Base64Character(bits & 63U) : std::uint8_t{'='}};
    for (std::uint64_t at = (offset + done) % 4; at < 4 && done < out.size(); ++at)
      out[done++] = four[at];
  }
}

}  // namespace latchkey::snapshot
