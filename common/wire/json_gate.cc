#include "common/wire/json_gate.h"

#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "common/secret/secret_buffer.h"

namespace latchkey::wire {
namespace {

Error Refused(std::string_view what) {
  return Error{Errc::kInvalidArgument, "json: " + std::string(what)};
}

// No content may ever turn into JSON by itself (rule O2).
static_assert(!std::is_constructible_v<nlohmann::json, const SecretBuffer&>);

constexpr double kTwoTo63 = 9223372036854775808.0;

Result<std::int64_t> IntegerOfText(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  if (text.empty()) return std::int64_t{0};
  if (text.front() == '+') text.remove_prefix(1);
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size())
    return Refused("text is not an integer");
  return value;
}

}  // namespace

JsonValue::JsonValue(JsonValue&& other) noexcept = default;

JsonValue& JsonValue::operator=(JsonValue&& other) noexcept {
  if (this == &other) return *this;
  Wipe();
  kind_ = other.kind_;
  bool_ = other.bool_;
  integer_ = other.integer_;
  unsigned_ = other.unsigned_;
  float_ = other.float_;
  text_ = std::move(other.text_);
  elements_ = std::move(other.elements_);
  members_ = std::move(other.members_);
  return *this;
}

JsonValue::~JsonValue() {
  Wipe();
}

void JsonValue::Wipe() {
  if (!text_.empty()) WipeMemory(text_.data(), text_.size());
}

const std::vector<JsonValue::Member>& JsonValue::members() const {
  return members_;
}

const JsonValue* JsonValue::Find(std::string_view key) const {
  for (const Member& member : members_)
    if (member.key == key) return &member.value;
  return nullptr;
}

bool JsonValue::Has(std::string_view key) const {
  const JsonValue* value = Find(key);
  return value != nullptr && !value->is_null();
}

Result<std::string> JsonValue::AsText() const {
  switch (kind_) {
    case Kind::kText:
    case Kind::kFloat:
      return text_;
    case Kind::kBool:
      return std::string(bool_ ? "true" : "false");
    case Kind::kInteger:
      return std::to_string(integer_);
    case Kind::kUnsigned:
      return std::to_string(unsigned_);
    case Kind::kNull:
    case Kind::kArray:
    case Kind::kObject:
      break;
  }
  return Refused("a text is expected");
}

Result<std::int64_t> JsonValue::AsInt() const {
  switch (kind_) {
    case Kind::kInteger:
      return integer_;
    case Kind::kUnsigned:
      if (unsigned_ > static_cast<std::uint64_t>(INT64_MAX))
        return Refused("integer is over 64 bits");
      return static_cast<std::int64_t>(unsigned_);
    case Kind::kFloat: {
      const double whole = std::trunc(float_);
      if (!(whole >= -kTwoTo63 && whole < kTwoTo63)) return Refused("integer is over 64 bits");
      return static_cast<std::int64_t>(whole);
    }
    case Kind::kText:
      return IntegerOfText(text_);
    case Kind::kNull:
    case Kind::kBool:
    case Kind::kArray:
    case Kind::kObject:
      break;
  }
  return Refused("an integer is expected");
}

Result<bool> JsonValue::AsBool() const {
  switch (kind_) {
    case Kind::kBool:
      return bool_;
    case Kind::kInteger:
      return integer_ != 0;
    case Kind::kUnsigned:
      return unsigned_ != 0;
    case Kind::kText:
      if (text_ == "true" || text_ == "True" || text_ == "TRUE") return true;
      if (text_ == "false" || text_ == "False" || text_ == "FALSE" || text_.empty()) return false;
      break;
    case Kind::kNull:
    case Kind::kFloat:
    case Kind::kArray:
    case Kind::kObject:
      break;
  }
  return Refused("a boolean is expected");
}

Result<std::string_view> JsonValue::TextView() const {
  if (kind_ != Kind::kText) return Refused("a text is expected");
  return std::string_view(text_);
}

Result<std::optional<std::string>> JsonValue::OptionalText(std::string_view key) const {
  if (!Has(key)) return std::optional<std::string>{};
  ASSIGN_OR_RETURN(std::string text, Find(key)->AsText());
  return std::optional<std::string>(std::move(text));
}

Result<std::optional<std::int64_t>> JsonValue::OptionalInt(std::string_view key) const {
  if (!Has(key)) return std::optional<std::int64_t>{};
  ASSIGN_OR_RETURN(const std::int64_t value, Find(key)->AsInt());
  return std::optional<std::int64_t>(value);
}

Result<std::optional<bool>> JsonValue::OptionalBool(std::string_view key) const {
  if (!Has(key)) return std::optional<bool>{};
  ASSIGN_OR_RETURN(const bool value, Find(key)->AsBool());
  return std::optional<bool>(value);
}

Result<std::optional<std::vector<std::string>>> JsonValue::OptionalTexts(
    std::string_view key) const {
  if (!Has(key)) return std::optional<std::vector<std::string>>{};
  const JsonValue& list = *Find(key);
  if (!list.is_array()) return Refused("a list is expected");
  std::vector<std::string> texts;
  texts.reserve(list.elements().size());
  for (const JsonValue& element : list.elements()) {
    ASSIGN_OR_RETURN(std::string text, element.AsText());
    texts.push_back(std::move(text));
  }
  return std::optional<std::vector<std::string>>(std::move(texts));
}

Result<std::optional<Metadata>> JsonValue::OptionalMap(std::string_view key,
                                                       NullValues null_values) const {
  if (!Has(key)) return std::optional<Metadata>{};
  const JsonValue& map = *Find(key);
  if (!map.is_object()) return Refused("an object is expected");
  Metadata entries;
  entries.reserve(map.members().size());
  for (const Member& member : map.members()) {
    if (member.value.is_null() && null_values == NullValues::kDrop) continue;
    ASSIGN_OR_RETURN(std::string text, member.value.AsText());
    entries.emplace_back(member.key, std::move(text));
  }
  return std::optional<Metadata>(std::move(entries));
}

// Receives the parser's events, counts them against the limits and only then builds. nlohmann's
// lexer has already refused invalid UTF-8, lone surrogates and raw control bytes.
class JsonBuilder {
 public:
  using number_integer_t = nlohmann::json::number_integer_t;
  using number_unsigned_t = nlohmann::json::number_unsigned_t;
  using number_float_t = nlohmann::json::number_float_t;
  using string_t = nlohmann::json::string_t;
  using binary_t = nlohmann::json::binary_t;

  explicit JsonBuilder(const JsonLimits& limits) : limits_(limits) {}

  bool null() { return Add({}); }
  bool boolean(bool value) {
    JsonValue made;
    made.kind_ = JsonValue::Kind::kBool;
    made.bool_ = value;
    return Add(std::move(made));
  }
  bool number_integer(number_integer_t value) {
    JsonValue made;
    made.kind_ = JsonValue::Kind::kInteger;
    made.integer_ = value;
    return Add(std::move(made));
  }
  bool number_unsigned(number_unsigned_t value) {
    JsonValue made;
    made.kind_ = JsonValue::Kind::kUnsigned;
    made.unsigned_ = value;
    return Add(std::move(made));
  }
  bool number_float(number_float_t value, const string_t& written) {
    JsonValue made;
    made.kind_ = JsonValue::Kind::kFloat;
    made.float_ = value;
    made.text_ = written;
    return Add(std::move(made));
  }
  bool string(string_t& value) {
    if (value.find('\0') != std::string::npos) return Refuse("text holds a NUL");
    JsonValue made;
    made.kind_ = JsonValue::Kind::kText;
    made.text_ = std::move(value);
    return Add(std::move(made));
  }
  bool binary(binary_t&) { return Refuse("binary value"); }

  bool start_object(std::size_t) { return Open(JsonValue::Kind::kObject); }
  bool start_array(std::size_t) { return Open(JsonValue::Kind::kArray); }
  bool end_object() { return Close(); }
  bool end_array() { return Close(); }

  bool key(string_t& name) {
    if (name.size() > limits_.max_key_bytes)
      return Refuse("a key is longer than " + std::to_string(limits_.max_key_bytes) + " bytes");
    if (name.find('\0') != std::string::npos) return Refuse("key holds a NUL");
    if (!open_.back().keys.insert(name).second) return Refuse("an object has the same key twice");
    open_.back().key = std::move(name);
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) {
    return Refuse("not a valid document near byte " + std::to_string(position));
  }

  JsonValue TakeRoot() { return std::move(root_); }
  const std::string& refusal() const { return refusal_; }
  bool too_large() const { return too_large_; }

 private:
  struct Level {
    JsonValue value;
    std::string key;  // of the member that is being read
    std::unordered_set<std::string> keys;
  };

  bool Refuse(std::string why) {
    refusal_ = std::move(why);
    return false;
  }

  bool Count() {
    if (++nodes_ <= limits_.max_nodes) return true;
    too_large_ = true;
    return Refuse("more than " + std::to_string(limits_.max_nodes) + " values");
  }

  bool Add(JsonValue value) {
    if (!Count()) return false;
    Place(std::move(value));
    return true;
  }

  void Place(JsonValue value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return;
    }
    Level& level = open_.back();
    if (level.value.kind_ == JsonValue::Kind::kArray) {
      level.value.elements_.push_back(std::move(value));
    } else {
      level.value.members_.push_back({std::move(level.key), std::move(value)});
    }
  }

  bool Open(JsonValue::Kind kind) {
    if (!Count()) return false;
    if (open_.size() >= limits_.max_depth)
      return Refuse("nested deeper than " + std::to_string(limits_.max_depth) + " levels");
    open_.emplace_back();
    open_.back().value.kind_ = kind;
    return true;
  }

  bool Close() {
    JsonValue done = std::move(open_.back().value);
    open_.pop_back();
    Place(std::move(done));
    return true;
  }

  const JsonLimits limits_;
  std::vector<Level> open_;
  JsonValue root_;
  std::size_t nodes_ = 0;
  bool too_large_ = false;
  std::string refusal_;
};

namespace {

// Where the text that begins at `begin` ends: at its closing quote, or at the end of the document.
std::size_t EndOfText(std::string_view document, std::size_t begin) {
  for (std::size_t at = begin;; ++at) {
    at = document.find('"', at);
    if (at == std::string_view::npos) return document.size();
    std::size_t escapes = 0;
    while (at - escapes > begin && document[at - escapes - 1] == '\\') ++escapes;
    if (escapes % 2 == 0) return at;
  }
}

// The parser would collect and convert digits for as long as there are any.
bool HasLongNumber(std::string_view document) {
  constexpr std::string_view kOfNumbers = "0123456789.-+eE";
  std::size_t run = 0;
  for (std::size_t at = 0; at < document.size(); ++at) {
    if (document[at] == '"') at = EndOfText(document, at + 1);
    const bool in_number =
        at < document.size() && kOfNumbers.find(document[at]) != std::string_view::npos;
    run = in_number ? run + 1 : 0;
    if (run > limits::kMaxJsonNumberBytes) return true;
  }
  return false;
}

}  // namespace

Result<JsonValue> ParseJson(std::string_view text, const JsonLimits& limits) {
  // The parser takes a NUL byte for the end of the text: what follows it would be trailing data
  // that nobody looked at.
  if (text.find('\0') != std::string_view::npos) return Refused("the text holds a NUL byte");
  if (HasLongNumber(text)) {
    return Refused("a number is longer than " + std::to_string(limits::kMaxJsonNumberBytes) +
                   " characters");
  }
  JsonBuilder builder(limits);
  try {
    if (nlohmann::json::sax_parse(text.begin(), text.end(), &builder)) return builder.TakeRoot();
  } catch (const nlohmann::json::exception&) {
    return Refused("not a valid document");
  }
  Error refused = Refused(builder.refusal());
  if (builder.too_large()) refused.code = Errc::kTooLarge;
  return refused;
}

Result<Metadata> ParseMetadata(std::string_view json) {
  if (json.empty() || json == "{}") return Metadata{};
  ASSIGN_OR_RETURN(const JsonValue value, ParseJson(json));
  if (!value.is_object()) return Refused("metadata is not an object");
  Metadata entries;
  entries.reserve(value.members().size());
  for (const auto& member : value.members()) {
    ASSIGN_OR_RETURN(std::string text, member.value.AsText());
    entries.emplace_back(member.key, std::move(text));
  }
  return entries;
}

}  // namespace latchkey::wire
