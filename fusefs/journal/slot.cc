#include "fusefs/journal/slot.h"

#include <linux/fuse.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "common/base/check.h"

namespace latchkey::journal {
namespace {

constexpr std::size_t kPageBytes = 4096;

// The length of the kernel's header is the slot's state: 0 means empty. It is written by read(2),
// so it is no atomic object.
std::uint32_t LoadLength(const std::uint8_t* slot) {
  return __atomic_load_n(reinterpret_cast<const std::uint32_t*>(slot), __ATOMIC_ACQUIRE);
}
void ClearLength(std::uint8_t* slot) {
  __atomic_store_n(reinterpret_cast<std::uint32_t*>(slot), 0U, __ATOMIC_RELEASE);
}

}  // namespace

RequestSlot::RequestSlot(const Region& region, std::size_t index)
    : region_(&region), index_(index) {
  INVARIANT(index < kSlots);
  // Maps every page for writing without changing a byte: a request may be waiting in it.
  for (std::size_t at = 0; at < kSlotBytes; at += kPageBytes)
    __atomic_fetch_add(memory() + at, std::uint8_t{0}, __ATOMIC_RELAXED);
}

std::uint64_t RequestSlot::sequence() const {
  return head().sequence.load(std::memory_order_relaxed);
}

long RequestSlot::Read(int fuse_fd) {
  SlotHead& state = head();
  ClearLength(memory());
  state.strikes.store(0, std::memory_order_relaxed);
  // Before the read: a worker that dies inside it leaves the request with a number that no note
  // has.
  state.sequence.fetch_add(1, std::memory_order_release);
  const ssize_t count = read(fuse_fd, memory(), kSlotBytes);
  return count < 0 ? -errno : count;
}

Bytes RequestSlot::request() const {
  const std::uint32_t length = LoadLength(memory());
  if (length < sizeof(fuse_in_header) || length > kSlotBytes) return {};
  return {memory(), length};
}

void RequestSlot::Begin() {
  head().handling.store(1, std::memory_order_release);
}

void RequestSlot::Finish() {
  ClearLength(memory());
  head().handling.store(0, std::memory_order_release);
}

std::optional<std::uint64_t> RequestSlot::Note() const {
  const SlotHead& state = head();
  if (state.note_sequence.load(std::memory_order_acquire) != sequence()) return std::nullopt;
  return state.note_value.load(std::memory_order_relaxed);
}

void RequestSlot::SetNote(std::uint64_t value) {
  SlotHead& state = head();
  // Invalid while the value changes, so that a death in between leaves no note rather than a wrong
  // one.
  state.note_sequence.store(0, std::memory_order_release);
  state.note_value.store(value, std::memory_order_release);
  state.note_sequence.store(sequence(), std::memory_order_release);
}

std::uint32_t RequestSlot::TakeOver(bool blame) {
  SlotHead& state = head();
  const bool was_handled = state.handling.exchange(0, std::memory_order_acq_rel) != 0;
  if (request().empty()) return 0;
  if (blame && was_handled) state.strikes.fetch_add(1, std::memory_order_relaxed);
  return state.strikes.load(std::memory_order_relaxed);
}

}  // namespace latchkey::journal
