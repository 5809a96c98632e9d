// Time as an injected dependency: wall clock for what is stored and shown, monotonic clock for deadlines.
#pragma once

#include <chrono>
#include <string>

namespace latchkey {

using WallTime = std::chrono::sys_time<std::chrono::nanoseconds>;
using MonotonicTime = std::chrono::steady_clock::time_point;

// Thread-safe. Tests derive from it; programs use SystemClock().
class Clock {
 public:
  virtual ~Clock() = default;
  virtual WallTime Now() const = 0;
  virtual MonotonicTime Monotonic() const = 0;
};

const Clock& SystemClock();

// Seconds since 1970, the unit of all stored times.
std::int64_t EpochSeconds(WallTime time);
// `2011-09-29T15:46:00.000Z` for whole seconds since 1970 (API spec 1.3, ApiDate).
std::string ApiDate(std::int64_t epoch_seconds);
// `2026-11-24T12:00:00.123456Z`, for logs.
std::string LogTimestamp(WallTime time);

}  // namespace latchkey
