// That the peer of a connection has gone, and what somebody wants done about it.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>

namespace latchkey::net {

// Thread-safe. Costs a connection that never waits nothing but its size.
class HangUp {
 public:
  bool happened() const { return happened_.load(std::memory_order_relaxed); }

  // The peer has gone. Runs what was asked for, once, on this thread and outside all locks.
  void Happen();
  // `run` when it happens, at once when it has; replaces what was asked for before.
  void Then(std::function<void()> run);
  // Nobody waits any more.
  void Forget();

 private:
  std::function<void()> Take();

  std::atomic<bool> happened_{false};
  std::mutex mutex_;
  std::function<void()> run_;
};

}  // namespace latchkey::net
