// Ids and names as distinct types: Grant(GroupId, SecretId) does not compile with its arguments swapped.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "common/base/result.h"

namespace latchkey {

// A number that identifies one kind of row. 0 never identifies anything.
template <class Tag>
struct Id {
  std::int64_t value = 0;
  friend auto operator<=>(const Id&, const Id&) = default;
};
using SecretId = Id<struct SecretIdTag>;    // random signed 64 bits, as in Keywhiz
using ClientId = Id<struct ClientIdTag>;    // random signed 64 bits
using GroupId = Id<struct GroupIdTag>;      // random, in 32 bits: limits::kMaxGroupId
using VersionId = Id<struct VersionIdTag>;  // random signed 64 bits: Keywhiz' "version"

// 1, 2, 3 ... per secret, in the order of insertion; what people and the CLI speak.
struct VersionNumber {
  std::uint64_t value = 0;
  friend auto operator<=>(const VersionNumber&, const VersionNumber&) = default;
};

// Counts commits of the store; strictly ascending, never reused.
struct Generation {
  std::uint64_t value = 0;
  friend auto operator<=>(const Generation&, const Generation&) = default;
};

// Parsed names. Parse() is the only way in. They compare byte for byte and case matters (rule I3).
template <class Tag>
class Name {
 public:
  // Errors: kInvalidArgument for an empty or over-long name, control bytes, NUL or invalid UTF-8.
  static Result<Name> Parse(std::string_view text);
  // For names that come back from our own verified rows.
  static Name Trusted(std::string text) { return Name(std::move(text)); }
  const std::string& text() const { return text_; }
  friend auto operator<=>(const Name&, const Name&) = default;

 private:
  explicit Name(std::string text) : text_(std::move(text)) {}
  std::string text_;
};
using SecretName = Name<struct SecretNameTag>;
using ClientName = Name<struct ClientNameTag>;
using GroupName = Name<struct GroupNameTag>;

// The further rules of a *new* secret name: at most 195 UTF-16 units, no leading dot (API spec 6.1).
Status CheckNewSecretName(const SecretName& name);

}  // namespace latchkey

template <class Tag>
struct std::hash<latchkey::Id<Tag>> {
  std::size_t operator()(const latchkey::Id<Tag>& id) const noexcept {
    // Ids are random or small: one multiply spreads both over the table.
    return static_cast<std::size_t>(static_cast<std::uint64_t>(id.value) * 0x9e3779b97f4a7c15ULL);
  }
};
