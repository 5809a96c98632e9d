// Canonical encoding for AAD and MACs (rule C4): label, then per field `tag (0 null, 1 u64, 2
// bytes) | u32 BE length | value`.
//
// The label is encoded as a bytes field. Distinct field tuples have distinct encodings; nothing is
// ever joined with a separator. The encoding lives on the ordinary heap: content and keys never go
// through it. A field is at most 4 GiB - 1.
#pragma once

#include <optional>

#include "common/base/bytes.h"

namespace latchkey::crypto {

class Canonical {
 public:
  // `label` is `lk/v1/<purpose>`, one purpose per label.
  explicit Canonical(std::string_view label);

  Canonical& Null();
  Canonical& U64(std::uint64_t value);
  Canonical& I64(std::int64_t value) { return U64(static_cast<std::uint64_t>(value)); }
  Canonical& Bool(bool value) { return U64(value ? 1 : 0); }
  Canonical& Raw(Bytes value);
  Canonical& Text(std::string_view value) { return Raw(AsBytes(value)); }
  Canonical& OptionalText(const std::optional<std::string>& value) {
    return value ? Text(*value) : Null();
  }
  Canonical& OptionalI64(const std::optional<std::int64_t>& value) {
    return value ? I64(*value) : Null();
  }
  // The head of a bytes field whose `size_bytes` value bytes follow elsewhere: hashes of content
  // stream it behind.
  Canonical& RawHead(std::size_t size_bytes);

  Bytes bytes() const { return bytes_; }

 private:
  ByteVector bytes_;
};

}  // namespace latchkey::crypto
