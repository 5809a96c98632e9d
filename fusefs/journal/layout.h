// Memory that the keeper makes and every process of the mount maps: requests in flight, events
// still to be made, OPEN records.
//
// It holds names, ids and numbers, never content (the waker maps it too). Everything in it survives
// the worker; everything read from it is validated by its reader, for the writer may have died
// anywhere or may have been taken over. All words are little structures of lock-free atomics; there
// is no lock in it that a dead process could hold. Source: fuse-client spec 5.1 (journal), 5.2
// (waker, notifier), R8, R23.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

namespace latchkey::journal {

// Mirrors of limits.h, which this layer may not include; common/model limits are checked against
// them in mount.
inline constexpr std::size_t kSlots = 4;
inline constexpr std::size_t kSlotBytes = 16 * 1024;
inline constexpr std::size_t kNodes = 16'384;
inline constexpr std::size_t kNodeNameBytes = 200;  // NUL-terminated
inline constexpr std::size_t kRecordsPerSlot = 16'384;
inline constexpr std::size_t kReadShares = 8;
inline constexpr std::size_t kReadCounts = 2048;
inline constexpr std::size_t kInitBytes = 256;

// Inode numbers: a node's own, and with this bit its `.json/secret/NAME` twin. Nodes below the
// first have no twin.
inline constexpr std::uint64_t kTwinBit = 1ULL << 32;
inline constexpr std::uint32_t kFirstTwinnedNode = 32;

using Word = std::atomic<std::uint64_t>;
using HalfWord = std::atomic<std::uint32_t>;
static_assert(Word::is_always_lock_free && HalfWord::is_always_lock_free);

// Beside each request slot. Written by the one thread that owns the slot; `strikes` and `blamed` by
// the next worker.
struct alignas(64) SlotHead {
  Word sequence;       // grows by one with each request read; never reset
  Word note_sequence;  // == sequence when note_value belongs to the request in the slot
  Word note_value;
  HalfWord handling;  // 1 from the moment a handler starts until it is done
  HalfWord strikes;   // workers in a row that crashed or stuck while they handled this very request
};

// One OPEN (R23). Plain data: written before the ring's head moves, never changed after.
struct ReadRecord {
  std::uint64_t time_ns;  // wall clock
  std::uint64_t version;  // version number; 0 for a control file
  std::uint64_t request;  // sequence of the slot, so that a replay does not record twice
  std::uint32_t node;
  std::uint32_t uid;
  std::uint32_t gid;
  std::uint32_t pid;          // 0: the caller's pid has no value in the worker's pid namespace
  std::array<char, 16> comm;  // NUL-padded; all NUL: not known
};

// One producer (the slot's thread), one consumer. `head` and `tail` only grow; a full ring drops
// and counts.
struct alignas(64) ReadRing {
  Word head;
  Word tail;
  Word dropped;
  std::array<ReadRecord, kRecordsPerSlot> records;
};

// What one uid has written of its own in the running window. Free while `spent_bytes` is 0.
struct ReadShare {
  std::uint32_t uid;
  std::uint32_t spent_bytes;
};

// Opens that were counted instead. Plain data but for `count`: written before the count leaves 0, unchanged until it is 0 again.
struct ReadCount {
  Word count;  // 0: free
  std::uint64_t first_ns;
  std::uint64_t last_ns;
  std::uint64_t version;
  std::uint32_t node;
  std::uint32_t uid;
};

// Uids of one kind (reads/tally.h). The last share is that of the uids that found no other.
struct ReadPool {
  std::array<ReadShare, kReadShares + 1> shares;
  std::array<ReadCount, kReadCounts> counts;
};

// Here and not in the consumer's own memory, so that counts survive a worker. The consumer alone uses it.
struct ReadTallies {
  Word began_ns;  // monotonic clock; 0: no window runs
  std::array<ReadPool, 2> pools;
};

// Events to be made by one helper process. `want` and `done` hold (generation << 2 | kind); an
// entry is pending while they differ. `dirty` only says where to look first.
struct alignas(64) EventQueue {
  std::array<Word, kNodes / 64> dirty;
  std::array<Word, kNodes> want;
  std::array<Word, kNodes> done;
  Word marked;    // entries ever marked, for the watchdog
  Word finished;  // entries ever finished
};

struct Layout {
  std::uint64_t magic;
  std::uint64_t layout_bytes;
  HalfWord mounted;         // futex word: 1 once the keeper has mounted the private mount
  HalfWord snapshot_ready;  // futex word: 1 once a worker has published a snapshot (R2)
  HalfWord init_bytes;
  // 1: the keeper is unmounting; nobody restarts anything. 2: it has, and ends the worker next.
  HalfWord stopping;
  HalfWord worker_pid;
  HalfWord waker_pid;
  HalfWord notifier_pid;
  HalfWord keeper_pid;
  HalfWord blame;  // 1: the last worker crashed by itself or was stuck (strikes are counted)
  Word worker_starts;
  Word acknowledged;  // mount generation that every new open serves
  Word replayed;
  Word refused;  // requests answered EIO after two strikes
  std::array<std::uint8_t, kInitBytes> init;
  std::array<SlotHead, kSlots> slots;
  EventQueue wake;
  EventQueue notify;
  // Generations of whose size the kernel heard by the waker's first touch, and by its second (mount/handlers.cc). Worker only.
  std::array<Word, kNodes> offered;
  std::array<Word, kNodes> settled;
  std::array<std::array<char, kNodeNameBytes>, kNodes> names;
  std::array<ReadRing, kSlots> reads;
  ReadTallies tallies;
  alignas(4096) std::array<std::array<std::uint8_t, kSlotBytes>, kSlots> requests;
};

}  // namespace latchkey::journal
