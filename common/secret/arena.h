// LockedArena: a fixed piece of locked memory with an allocator on it (rules Y1, Y2). SecretBuffer
// is the way to use it.
//
// Blocks are 16-byte aligned and carry a 16-byte header whose check word depends on a random
// cookie: an overrun, a double or a foreign Free aborts instead of corrupting a neighbour. Free
// blocks are coalesced at once and kept in lists by power of two of their size, so that Allocate
// and Free take constant time unless memory is nearly used up. Freed memory is wiped before anybody
// else can get it. Thread-safe: one mutex, which protects everything below it.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>

#include "common/secret/secret_buffer.h"

namespace latchkey {

class LockedArena {
 public:
  // Errors: kInvalidArgument for 0 bytes or more than 4 GiB; kUnavailable when memory cannot be had
  // or locked.
  static Result<std::unique_ptr<LockedArena>> Make(const ArenaOptions& options);
  ~LockedArena();
  LockedArena(const LockedArena&) = delete;
  LockedArena& operator=(const LockedArena&) = delete;

  // Returns nullptr when no free block is large enough. `*capacity` is what the block holds, >=
  // bytes. Not zero-filled.
  std::uint8_t* Allocate(std::size_t bytes, std::size_t* capacity);
  // Wipes and frees a block that Allocate returned.
  void Free(std::uint8_t* block);
  // Keeps the first `bytes` of the block, wipes the rest and frees what a block of its own can
  // hold; the new capacity.
  std::size_t ShrinkTo(std::uint8_t* block, std::size_t bytes);

  // In a forked child, where the memory is no longer mapped: takes back what the address sanitizer was told of it.
  void ForgetMapping() const;

  bool Contains(const void* address) const;
  ArenaBacking backing() const { return backing_; }
  std::size_t size() const { return size_; }
  std::size_t FreeBytes() const;  // headers not counted; the largest block may be smaller

 private:
  struct Header;
  struct Links;
  static constexpr std::size_t kUnit = 16;
  static constexpr std::uint32_t kNone = 0xffffffff;

  LockedArena(std::uint8_t* base, std::size_t size, ArenaBacking backing);
  Header* At(std::uint32_t unit) const;
  Header* HeaderOf(std::uint8_t* block) const;
  std::uint32_t UnitOf(const Header* header) const;
  std::uint32_t CheckWord(const Header& header) const;
  void Write(std::uint32_t unit, std::uint32_t units, std::uint32_t prev_units, bool used);
  void Insert(std::uint32_t unit);
  void Remove(std::uint32_t unit);
  std::uint32_t Find(std::uint32_t units) const;
  void SplitTail(std::uint32_t unit, std::uint32_t units);
  void FreeUnits(std::uint32_t unit);

  std::uint8_t* const base_;
  const std::size_t size_;
  const ArenaBacking backing_;
  const std::uint32_t total_units_;
  std::uint32_t cookie_;
  mutable std::mutex mutex_;
  std::array<std::uint32_t, 32> bins_;
  std::uint32_t bin_bits_ = 0;
  std::size_t free_units_ = 0;
};

}  // namespace latchkey
