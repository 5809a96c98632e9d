// Clocks that a test moves by hand. Thread-safe.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

#include "common/base/clock.h"

namespace latchkey::testing {

// Stands still until it is moved.
class ManualClock final : public Clock {
 public:
  WallTime Now() const override { return WallTime(std::chrono::nanoseconds(wall_ns_.load())); }
  MonotonicTime Monotonic() const override {
    return MonotonicTime(std::chrono::nanoseconds(monotonic_ns_.load()));
  }
  void Advance(std::chrono::nanoseconds by) {
    wall_ns_ += by.count();
    monotonic_ns_ += by.count();
  }
  std::int64_t Seconds() const { return EpochSeconds(Now()); }
  std::int64_t Nanoseconds() const { return wall_ns_.load(); }

 private:
  std::atomic<std::int64_t> wall_ns_{1'795'395'653'000'000'000};
  std::atomic<std::int64_t> monotonic_ns_{1'000'000'000};
};

// The real one, so that certificates and deadlines of the kernel hold, but ahead of it by as much as it was moved.
class ShiftedClock final : public Clock {
 public:
  WallTime Now() const override { return SystemClock().Now() + ahead(); }
  MonotonicTime Monotonic() const override { return SystemClock().Monotonic() + ahead(); }
  void Advance(std::chrono::nanoseconds by) { ahead_ns_ += by.count(); }

 private:
  std::chrono::nanoseconds ahead() const { return std::chrono::nanoseconds(ahead_ns_.load()); }
  std::atomic<std::int64_t> ahead_ns_{0};
};

}  // namespace latchkey::testing
