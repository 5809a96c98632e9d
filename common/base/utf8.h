// Strict UTF-8 (RFC 3629): no overlong forms, no surrogates, nothing above U+10FFFF.
#pragma once

#include <cstddef>
#include <string_view>

namespace latchkey {

struct Utf8Step {
  bool valid;
  std::size_t length;  // bytes used when valid
  char32_t code_point;
};

// Decodes the first code point of a non-empty text.
Utf8Step DecodeUtf8(std::string_view text);
bool IsValidUtf8(std::string_view text);

}  // namespace latchkey
