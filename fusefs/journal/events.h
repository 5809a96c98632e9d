// Events that helper processes still have to make: the waker's touches and the notifier's page
// drops (fuse-client 5.2).
//
// Per node only the newest change counts, so the queue cannot overflow, and a helper that died
// finds in `want` and `done` what it missed.
#pragma once

#include <functional>
#include <string_view>

#include "fusefs/journal/region.h"

namespace latchkey::journal {

enum class EventKind : std::uint32_t { kRotated = 0, kNew = 1, kRevived = 2, kRevoked = 3 };

struct Event {
  std::uint32_t node;
  std::uint64_t generation;
  EventKind kind;
  std::string_view name;  // in the region; checked: one path component, no control bytes
};

// Worker side. Marks `node` as changed at `generation`; a rotation of what is pending as kNew makes it kRevived, so that both
// events are made. `name` is kept with the node and may not change later. Nodes outside the table are ignored.
void MarkEvent(Layout& layout, EventQueue& queue, std::uint32_t node, std::string_view name,
               EventKind kind, std::uint64_t generation);
// The newest generation ever marked for the node; 0 for none.
std::uint64_t MarkedGeneration(const EventQueue& queue, std::uint32_t node);

// Helper side: calls `make` for each pending event (all of them are looked at when `thorough`, else
// only dirty words), then marks it done. An event with a bad name is dropped. Returns the number
// made.
std::size_t MakeEvents(Layout& layout, EventQueue& queue, bool thorough,
                       const std::function<void(const Event&)>& make);
bool HasPending(const EventQueue& queue);

// Wakes the helper at the other end; never blocks. A full socket means it is awake already.
void Poke(int socket_fd);

}  // namespace latchkey::journal
