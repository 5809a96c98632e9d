#include "common/base/clock.h"

#include <cstdio>
#include <ctime>

namespace latchkey {
namespace {

class RealClock final : public Clock {
 public:
  WallTime Now() const override { return std::chrono::system_clock::now(); }
  MonotonicTime Monotonic() const override { return std::chrono::steady_clock::now(); }
};

std::tm UtcOf(std::int64_t epoch_seconds) {
  const std::time_t seconds = epoch_seconds;
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  return parts;
}

}  // namespace

const Clock& SystemClock() {
  static const RealClock clock;
  return clock;
}

std::int64_t EpochSeconds(WallTime time) {
  return std::chrono::floor<std::chrono::seconds>(time).time_since_epoch().count();
}

std::string ApiDate(std::int64_t epoch_seconds) {
  const std::tm parts = UtcOf(epoch_seconds);
  char text[64];
  const std::size_t length = std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S.000Z", &parts);
  return {text, length};
}

std::string LogTimestamp(WallTime time) {
  const std::int64_t seconds = EpochSeconds(time);
  const auto micros = std::chrono::duration_cast<std::chrono::microseconds>(
      time.time_since_epoch() - std::chrono::seconds(seconds));
  const std::tm parts = UtcOf(seconds);
  char text[64];
  std::size_t length = std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
  length += static_cast<std::size_t>(std::snprintf(text + length, sizeof text - length, ".%06dZ",
                                                   static_cast<int>(micros.count())));
  return {text, length};
}

}  // namespace latchkey
