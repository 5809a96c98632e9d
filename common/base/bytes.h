// Views of raw bytes. A Bytes never owns; it must not outlive what it looks at.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace latchkey {

using Bytes = std::span<const std::uint8_t>;
using MutableBytes = std::span<std::uint8_t>;
using ByteVector = std::vector<std::uint8_t>;
template <std::size_t N>
using ByteArray = std::array<std::uint8_t, N>;

inline Bytes AsBytes(std::string_view text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}
inline std::string_view AsText(Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Hex of public values only (digests, ids): the conversion indexes a table by its input.
std::string HexLower(Bytes bytes);
std::string HexUpper(Bytes bytes);
// Parses an even number of hex digits of either case; false leaves `out` unspecified.
bool ParseHex(std::string_view text, ByteVector* out);

// Big-endian integers, as all formats of docs/formats.md have them.
void PutU32(ByteVector* out, std::uint32_t value);
void PutU64(ByteVector* out, std::uint64_t value);
std::uint32_t GetU32(const std::uint8_t* at);
std::uint64_t GetU64(const std::uint8_t* at);

}  // namespace latchkey
