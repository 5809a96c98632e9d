// Region: the keeper's shared memory, mapped. Create() in the keeper, Attach() in its children.
#pragma once

#include <chrono>

#include "common/base/bytes.h"
#include "common/base/result.h"
#include "common/base/unique_fd.h"
#include "fusefs/journal/layout.h"

namespace latchkey::journal {

// Movable; unmaps when destroyed. Thread-safe as far as the words of Layout are.
class Region {
 public:
  // A sealed memfd (it can neither grow nor shrink), zero-filled. Errors: kUnavailable.
  static Result<Region> Create();
  // Maps `fd` (borrowed, duplicated). Errors: kCorrupt when it is not such a region, kUnavailable.
  static Result<Region> Attach(int fd);

  Region(Region&& other) noexcept;
  Region& operator=(Region&& other) noexcept;
  ~Region();

  int fd() const { return fd_.get(); }
  Layout& layout() const { return *layout_; }

  // The INIT request of the kernel, sent once per connection. Save() keeps at most kInitBytes;
  // Saved() is empty before.
  void SaveInit(Bytes request) const;
  ByteVector SavedInit() const;

 private:
  Region(UniqueFd fd, Layout* layout) : fd_(std::move(fd)), layout_(layout) {}
  UniqueFd fd_;
  Layout* layout_ = nullptr;
};

// Sets a futex word and wakes all who wait for it, in any process.
void Raise(HalfWord& word, std::uint32_t value);
// Wakes all who wait for the word, after the caller changed it.
void WakeAll(HalfWord& word);
// Waits until the word is no longer `value`, at most `limit`; true when it changed.
bool WaitWhile(const HalfWord& word, std::uint32_t value, std::chrono::milliseconds limit);

}  // namespace latchkey::journal
