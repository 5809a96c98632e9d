#include "common/wire/base64.h"

#include <cstring>

#include "common/wire/base64_kernels.h"

namespace latchkey::wire {
namespace {

Error NotBase64() {
  return Error{Errc::kInvalidArgument, "content is not valid base64"};
}

// The characters before the padding. Only the length and the two last characters are looked at.
Result<std::size_t> DataCharacters(std::string_view text) {
  std::size_t padding = 0;
  while (padding < 2 && padding < text.size() && text[text.size() - 1 - padding] == '=') ++padding;
  const std::size_t characters = text.size() - padding;
  if (characters % 4 == 1) return NotBase64();
  if (padding != 0 && (text.size() % 4 != 0)) return NotBase64();
  return characters;
}

}  // namespace

void Base64Encode(Bytes source, char* out) {
  const std::uint8_t* in = source.data();
  std::size_t left = source.size();
  if (left >= 16 && __builtin_cpu_supports("ssse3")) {
    const std::size_t blocks = (left - 4) / 12;
    LatchkeyBase64EncodeSsse3(in, out, blocks);
    in += blocks * 12;
    out += blocks * 16;
    left -= blocks * 12;
  } else if (left >= 8) {
    const std::size_t blocks = (left - 2) / 6;
    LatchkeyBase64EncodeSwar(in, out, blocks);
    in += blocks * 6;
    out += blocks * 8;
    left -= blocks * 6;
  }
  // What is left goes through a padded copy, six bytes at a time.
  std::uint8_t block[8];
  char text[8];
  while (left != 0) {
    const std::size_t taken = left < 6 ? left : 6;
    std::memset(block, 0, sizeof block);
    std::memcpy(block, in, taken);
    LatchkeyBase64EncodeSwar(block, text, 1);
    const std::size_t data = (taken * 8 + 5) / 6;
    const std::size_t written = Base64EncodedSize(taken);
    std::memset(text + data, '=', written - data);
    std::memcpy(out, text, written);
    in += taken;
    out += written;
    left -= taken;
  }
  WipeMemory(block, sizeof block);
  WipeMemory(text, sizeof text);
}

Result<std::size_t> Base64DecodedSize(std::string_view text) {
  ASSIGN_OR_RETURN(const std::size_t characters, DataCharacters(text));
  return characters / 4 * 3 + characters % 4 * 3 / 4;
}

Result<std::size_t> Base64DecodeInto(std::string_view text, MutableBytes out) {
  ASSIGN_OR_RETURN(const std::size_t characters, DataCharacters(text));
  const std::size_t size = characters / 4 * 3 + characters % 4 * 3 / 4;
  INVARIANT(out.size() >= size);
  const std::size_t blocks = characters / 8;
  std::uint64_t wrong = LatchkeyBase64DecodeSwar(text.data(), out.data(), blocks);
  const std::size_t rest = characters % 8;
  if (rest != 0) {
    char last[8];
    std::uint8_t bytes[6];
    std::memset(last, 'A', sizeof last);
    std::memcpy(last, text.data() + blocks * 8, rest);
    wrong |= LatchkeyBase64DecodeSwar(last, bytes, 1);
    std::memcpy(out.data() + blocks * 6, bytes, size - blocks * 6);
    WipeMemory(last, sizeof last);
    WipeMemory(bytes, sizeof bytes);
  }
  if (wrong == 0) return size;
  WipeMemory(out.data(), size);
  return NotBase64();
}

Result<SecretBuffer> Base64Decode(std::string_view text) {
  ASSIGN_OR_RETURN(const std::size_t size, Base64DecodedSize(text));
  ASSIGN_OR_RETURN(SecretBuffer buffer, SecretBuffer::OfSize(size));
  ASSIGN_OR_RETURN(const std::size_t written, Base64DecodeInto(text, buffer.mutable_bytes()));
  INVARIANT(written == size);
  return buffer;
}

}  // namespace latchkey::wire
