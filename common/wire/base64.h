// Base64 of content (API spec 1.3: RFC 4648 standard alphabet), in time that depends on the length
// alone (rule C7).
//
// No table in memory is indexed by the bytes and no jump depends on them; a test reads the object
// code. Encoding uses SSSE3 when the CPU has it, else eight characters at a time in one 64-bit
// word. Thread-safe, no state.
#pragma once

#include <cstddef>
#include <string_view>

#include "common/base/bytes.h"
#include "common/base/result.h"
#include "common/secret/secret_buffer.h"

namespace latchkey::wire {

// Characters of `size_bytes` encoded with padding.
constexpr std::size_t Base64EncodedSize(std::size_t size_bytes) {
  return (size_bytes + 2) / 3 * 4;
}

// Writes exactly Base64EncodedSize(source.size()) characters, padded, no line breaks, into `out`,
// which must have them. `out` may not overlap `source`.
void Base64Encode(Bytes source, char* out);

// Bytes that `text` decodes to, from its length and padding alone. kInvalidArgument: a length of 1
// mod 4, or padding that is not what the length asks for. Padding is optional.
Result<std::size_t> Base64DecodedSize(std::string_view text);

// Decodes into `out`, which must hold Base64DecodedSize(text) bytes; gives that size.
// kInvalidArgument as above and for any character outside the alphabet ('-', '_', blanks, line
// breaks), in which case `out` is wiped. Bits left over in the last character are ignored. Where a
// wrong character stands does not change the time taken.
Result<std::size_t> Base64DecodeInto(std::string_view text, MutableBytes out);

// The same into locked memory. Errors: as above, kUnavailable when secret memory is exhausted.
Result<SecretBuffer> Base64Decode(std::string_view text);

}  // namespace latchkey::wire
