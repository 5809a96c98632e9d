#include "common/crypto/canonical.h"

#include <limits>

#include "common/base/check.h"

namespace latchkey::crypto {
namespace {

// Enough for the AAD of a version with ordinary metadata: one allocation on the read path.
constexpr std::size_t kUsualBytes = 384;

constexpr std::uint8_t kTagNull = 0;
constexpr std::uint8_t kTagU64 = 1;
constexpr std::uint8_t kTagBytes = 2;

}  // namespace

Canonical::Canonical(std::string_view label) {
  bytes_.reserve(kUsualBytes);
  Text(label);
}

Canonical& Canonical::Null() {
  bytes_.push_back(kTagNull);
  PutU32(&bytes_, 0);
  return *this;
}

Canonical& Canonical::U64(std::uint64_t value) {
  bytes_.push_back(kTagU64);
  PutU32(&bytes_, sizeof(value));
  PutU64(&bytes_, value);
  return *this;
}

Canonical& Canonical::Raw(Bytes value) {
  RawHead(value.size());
  bytes_.insert(bytes_.end(), value.begin(), value.end());
  return *this;
}

Canonical& Canonical::RawHead(std::size_t size_bytes) {
  INVARIANT(size_bytes <= std::numeric_limits<std::uint32_t>::max());
  bytes_.push_back(kTagBytes);
  PutU32(&bytes_, static_cast<std::uint32_t>(size_bytes));
  return *this;
}

}  // namespace latchkey::crypto
