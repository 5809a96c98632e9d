// Layout of the content memory: what survives a worker. Private to fusefs/snapshot; nobody else
// maps it writable.
//
//   Header | names of nodes | two indexes | version records | content area
//
// Commit: the spare index is written whole, then `root` (generation << 1 | which index) is stored
// once. A record is filled and its block written before the root that refers to it; records that no
// root refers to and nobody has open are garbage that the next worker wipes. Everything is
// validated when a worker attaches.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "common/model/limits.h"
#include "fusefs/snapshot/snapshot.h"

namespace latchkey::snapshot {

inline constexpr std::uint64_t kContentMagic = 0x4c4b434f4e543031ULL;  // "LKCONT01"
inline constexpr std::size_t kMaxChecksumBytes = 128;
inline constexpr std::size_t kStoredNameBytes = 200;
inline constexpr std::uint32_t kNoRecord = 0xffffffff;
using Word = std::atomic<std::uint64_t>;

struct StoredName {
  char text[kStoredNameBytes];  // NUL-terminated, rule F2
};

struct IndexEntry {
  std::uint32_t record;  // kNoRecord: revoked or never committed
  std::uint32_t change;  // ChangeKind of the last change, and kForgotten
  std::uint64_t changed_generation;
  std::uint64_t changed_ns;   // CLOCK_MONOTONIC of the last change of what is served
  std::uint64_t narrowed_ns;  // CLOCK_MONOTONIC of the last change of mode or owner; 0 = never
};

// Flag beside the kind of change: see NodeView::forgotten.
inline constexpr std::uint32_t kForgotten = 4;

struct Index {
  std::uint64_t generation;
  std::uint64_t server_generation;
  std::uint64_t structure_ns;  // wall clock of the last change of the list of names: mtime of /pub
  std::uint32_t node_count;    // names in use, all below it
  std::uint32_t reserved;
  std::array<IndexEntry, limits::kMaxMountNodes> entries;
};

// `serial` 0: free. Counts are one word per request slot, (request sequence << 24 | count modulo
// 2^24): the sum over the slots is the number of open descriptors, and a word whose sequence is
// that of the request was already counted for it.
struct VersionRecord {
  Word serial;
  std::array<Word, limits::kMaxHandlerThreads> opens;
  std::uint64_t number;
  std::int64_t id;
  std::int64_t mtime_s;
  std::uint64_t content_offset;  // from the start of the content area
  std::uint64_t block_bytes;     // content + head + tail; the block is rounded up to kBlockBytes
  std::uint64_t content_bytes;
  std::uint32_t head_bytes;
  std::uint32_t tail_bytes;
  Word superseded_ns;                  // CLOCK_MONOTONIC; 0 while current
  std::atomic<std::uint32_t> revoked;  // 1: ended by a revocation, subject to revoke_grace
  // 1: its content is gone before its descriptors are (rules F4, F7); whom it was open to is still
  // needed.
  std::atomic<std::uint32_t> emptied;
  std::uint32_t node;
  std::uint32_t mode;
  std::uint32_t uid;
  std::uint32_t gid;
  std::uint32_t checksum_bytes;
  char checksum[kMaxChecksumBytes];
  char secret[kStoredNameBytes];
};

inline constexpr std::size_t kBlockBytes = 64;

struct ContentHeader {
  std::uint64_t magic;
  std::uint64_t memory_bytes;
  std::uint64_t layout_bytes;
  Word root;          // 0: nothing was ever published
  Word next_serial;   // grows before a serial is used
  Word record_limit;  // records from here on were never used, nor their memory touched
  Word last_success_s;
  Word stale_since_s;
};

struct ContentLayout {
  ContentHeader header;
  alignas(4096) std::array<StoredName, limits::kMaxMountNodes> names;
  alignas(4096) std::array<Index, 2> indexes;
  alignas(4096) std::array<VersionRecord, limits::kMaxVersionRecords> records;
  alignas(4096) std::array<std::uint8_t, limits::kContentAreaBytes> content;
};

}  // namespace latchkey::snapshot
