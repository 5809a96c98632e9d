// The inner loops of base64, each a function of its own so that a test can read its object code:
// the only conditional jumps in them may be those on the block count. Internal to common/wire and
// its test.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

// Encodes `blocks` groups of 6 bytes into 8 characters each. Reads 8 bytes at each group: 2 beyond
// the last one.
void LatchkeyBase64EncodeSwar(const std::uint8_t* in, char* out, std::size_t blocks);
// Encodes `blocks` groups of 12 bytes into 16 characters each. Reads 16 bytes at each group: 4
// beyond the last one.
void LatchkeyBase64EncodeSsse3(const std::uint8_t* in, char* out, std::size_t blocks);
// Decodes `blocks` groups of 8 characters into 6 bytes each. Gives 0 when every character was in
// the alphabet.
std::uint64_t LatchkeyBase64DecodeSwar(const char* in, std::uint8_t* out, std::size_t blocks);
}
