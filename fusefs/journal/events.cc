#include "fusefs/journal/events.h"

#include <sys/socket.h>

#include <bit>
#include <cstring>

namespace latchkey::journal {
namespace {

constexpr std::uint64_t kKindBits = 2;
constexpr std::uint64_t kKindMask = 3;

std::uint64_t Pack(std::uint64_t generation, EventKind kind) {
  return generation << kKindBits | static_cast<std::uint64_t>(kind);
}

EventKind KindOf(std::uint64_t word) {
  return static_cast<EventKind>(word & kKindMask);
}

// The writer may have been taken over: what a privileged helper uses as a path must be one harmless
// component.
std::string_view CheckedName(const std::array<char, kNodeNameBytes>& stored) {
  const std::size_t length = strnlen(stored.data(), stored.size());
  const std::string_view name(stored.data(), length);
  if (length == stored.size() || name == "." || name == "..") return {};
  for (const char c : name)
    if (c == '/' || static_cast<unsigned char>(c) < 0x20 || c == 0x7f) return {};
  return name;
}

bool MakeOne(Layout& layout, EventQueue& queue, std::uint32_t node,
             const std::function<void(const Event&)>& make) {
  const std::uint64_t want = queue.want[node].load(std::memory_order_acquire);
  if (want == queue.done[node].load(std::memory_order_acquire)) return false;
  const std::string_view name = CheckedName(layout.names[node]);
  if (!name.empty()) make(Event{node, want >> kKindBits, KindOf(want), name});
  queue.done[node].store(want, std::memory_order_release);
  queue.finished.fetch_add(1, std::memory_order_release);
  return true;
}

}  // namespace

void MarkEvent(Layout& layout, EventQueue& queue, std::uint32_t node, std::string_view name,
               EventKind kind, std::uint64_t generation) {
  if (node == 0 || node >= kNodes || name.empty() || name.size() >= kNodeNameBytes) return;
  char* stored = layout.names[node].data();
  if (stored[0] == '\0') {
    std::memcpy(stored, name.data(), name.size());
    stored[name.size()] = '\0';
  }
  const std::uint64_t before = queue.want[node].load(std::memory_order_acquire);
  const bool pending = before != queue.done[node].load(std::memory_order_acquire);
  const EventKind was = KindOf(before);
  // A name that has not appeared yet and changes already: both events are due.
  if (pending && kind == EventKind::kRotated &&
      (was == EventKind::kNew || was == EventKind::kRevived))
    kind = EventKind::kRevived;
  queue.want[node].store(Pack(generation, kind), std::memory_order_release);
  queue.marked.fetch_add(1, std::memory_order_release);
  queue.dirty[node / 64].fetch_or(1ULL << (node % 64), std::memory_order_release);
}

std::uint64_t MarkedGeneration(const EventQueue& queue, std::uint32_t node) {
  if (node >= kNodes) return 0;
  return queue.want[node].load(std::memory_order_acquire) >> kKindBits;
}

std::size_t MakeEvents(Layout& layout, EventQueue& queue, bool thorough,
                       const std::function<void(const Event&)>& make) {
  std::size_t made = 0;
  for (std::uint32_t word = 0; word < kNodes / 64; ++word) {
    std::uint64_t bits = queue.dirty[word].load(std::memory_order_relaxed) == 0
                             ? 0
                             : queue.dirty[word].exchange(0, std::memory_order_acq_rel);
    if (thorough) bits = ~0ULL;
    for (; bits != 0; bits &= bits - 1) {
      const auto node = word * 64 + static_cast<std::uint32_t>(std::countr_zero(bits));
      if (MakeOne(layout, queue, node, make)) ++made;
    }
  }
  return made;
}

bool HasPending(const EventQueue& queue) {
  for (std::uint32_t node = 0; node < kNodes; ++node)
    if (queue.want[node].load(std::memory_order_acquire) !=
        queue.done[node].load(std::memory_order_acquire))
      return true;
  return false;
}

void Poke(int socket_fd) {
  const char byte = 1;
  [[maybe_unused]] const ssize_t sent = send(socket_fd, &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

}  // namespace latchkey::journal
