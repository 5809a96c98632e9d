// The only way in for JSON (rule H2): a counting SAX gate in front of a small immutable value tree.
//
// Refused with kInvalidArgument, whatever the nesting: more than max_depth levels, max_nodes values
// or max_key_bytes in a key, a duplicate key, invalid UTF-8 (lone surrogates included), a NUL byte
// raw or escaped, anything but blanks after the document. A leading byte order mark is accepted.
// Limits are checked while reading, before anything is kept; the size of the text is the caller's
// limit. Getters coerce as the API spec 1.3 and Appendix C 8 have it.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/bytes.h"
#include "common/base/result.h"
#include "common/model/limits.h"
#include "common/model/metadata.h"

namespace latchkey::wire {

struct JsonLimits {
  std::size_t max_depth = limits::kMaxJsonDepth;
  std::size_t max_nodes = limits::kMaxJsonNodes;
  std::size_t max_key_bytes = limits::kMaxJsonKeyBytes;
};

// One value of a parsed document. Immutable; move-only; its texts are wiped on destruction, because
// a request may hold content. Every getter gives kInvalidArgument where the coercion rules refuse
// the value. Not shared between threads.
class JsonValue {
 public:
  enum class Kind { kNull, kBool, kInteger, kUnsigned, kFloat, kText, kArray, kObject };
  struct Member;

  JsonValue() = default;
  JsonValue(JsonValue&& other) noexcept;
  JsonValue& operator=(JsonValue&& other) noexcept;
  JsonValue(const JsonValue&) = delete;
  JsonValue& operator=(const JsonValue&) = delete;
  ~JsonValue();

  Kind kind() const { return kind_; }
  bool is_null() const { return kind_ == Kind::kNull; }
  bool is_object() const { return kind_ == Kind::kObject; }
  bool is_array() const { return kind_ == Kind::kArray; }
  const std::vector<JsonValue>& elements() const { return elements_; }  // of an array
  const std::vector<Member>& members() const;  // of an object, in the order given
  // The member, or null when it is absent or this is not an object. A JSON null is a value.
  const JsonValue* Find(std::string_view key) const;
  // True when the member is there and not JSON null.
  bool Has(std::string_view key) const;

  // This value as text (number and bool become their text), integer (text "12" and fractions are
  // taken, fractions truncated, "" is 0, bool refused, over 64 bits refused) or bool (numbers: not
  // 0; "true", "false", "").
  Result<std::string> AsText() const;
  Result<std::int64_t> AsInt() const;
  Result<bool> AsBool() const;
  // Text without a copy; refused for anything but a JSON string. Borrowed from this value.
  Result<std::string_view> TextView() const;

  // Members of an object: absent and null give nullopt.
  Result<std::optional<std::string>> OptionalText(std::string_view key) const;
  Result<std::optional<std::int64_t>> OptionalInt(std::string_view key) const;
  Result<std::optional<bool>> OptionalBool(std::string_view key) const;
  // A list of texts; a null element, a scalar and "" are refused.
  Result<std::optional<std::vector<std::string>>> OptionalTexts(std::string_view key) const;
  // A map of texts. Null values are refused, or dropped with their key (API spec Appendix C 7).
  enum class NullValues { kRefuse, kDrop };
  Result<std::optional<Metadata>> OptionalMap(std::string_view key, NullValues null_values) const;

 private:
  friend class JsonBuilder;
  void Wipe();

  Kind kind_ = Kind::kNull;
  bool bool_ = false;
  std::int64_t integer_ = 0;
  std::uint64_t unsigned_ = 0;
  double float_ = 0;
  std::string text_;  // of a text, and the written form of a float
  std::vector<JsonValue> elements_;
  std::vector<Member> members_;
};

struct JsonValue::Member {
  std::string key;
  JsonValue value;
};

// Reads one document. Errors: kTooLarge for more values than `limits` allow, else kInvalidArgument, with what was refused,
// never with bytes of the text. Numbers have at most limits::kMaxJsonNumberBytes characters.
Result<JsonValue> ParseJson(std::string_view text, const JsonLimits& limits = {});
inline Result<JsonValue> ParseJson(Bytes text, const JsonLimits& limits = {}) {
  return ParseJson(AsText(text), limits);
}

// The stored form of metadata, a compact JSON object of texts ("{}" when empty), read back. "" is
// taken as empty.
Result<Metadata> ParseMetadata(std::string_view json);

}  // namespace latchkey::wire
