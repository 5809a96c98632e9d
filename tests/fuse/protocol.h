// What the test driver and the tests share: self-describing content, and switches that outlive a
// worker.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

namespace latchkey::fusetest {

// In memory shared by all processes of one driver.
struct Switches {
  std::atomic<std::uint32_t> delay_opcode{0};  // handlers of this opcode wait
  std::atomic<std::uint32_t> delay_ms{0};
  std::atomic<std::uint32_t> delay_times{0};  // that many times, over all workers
  std::atomic<std::uint32_t> delayed{0};      // handlers that began to wait
  std::atomic<std::uint32_t> crash_opcode{0};
  std::atomic<std::uint32_t> crash_times{0};
};

inline std::uint32_t Mix(std::uint32_t x) {
  x ^= x >> 16;
  x *= 0x7feb352dU;
  x ^= x >> 15;
  x *= 0x846ca68bU;
  return x ^ x >> 16;
}

// Content of one version: records of 33 bytes, each naming version, whole length and its own
// offset, so that any mixture, cut or padding shows. The length changes with the version: 66 to 8
// KiB.
inline std::size_t LengthOf(std::uint32_t version) {
  return 66 + Mix(version) % (8192 - 66);
}
inline std::string ContentOf(std::uint32_t version) {
  const std::size_t length = LengthOf(version);
  std::string text;
  char record[40];
  while (text.size() < length) {
    std::snprintf(record, sizeof record, "v=%08x l=%08x o=%08x\n", version,
                  static_cast<unsigned>(length), static_cast<unsigned>(text.size()));
    text.append(record, 33);
  }
  text.resize(length);
  return text;
}
// The version whose whole content this is, or 0.
inline std::uint32_t VersionIn(std::string_view text) {
  unsigned version = 0;
  if (text.size() < 33 ||
      std::sscanf(std::string(text.substr(0, 33)).c_str(), "v=%x", &version) != 1)
    return 0;
  return text == ContentOf(version) ? version : 0;
}

}  // namespace latchkey::fusetest
