#include "client/lib/delivery.h"

#include <string.h>

#include <algorithm>
#include <charconv>
#include <set>
#include <utility>

#include "common/base/utf8.h"
#include "common/model/limits.h"
#include "common/wire/base64.h"

namespace latchkey::client {
namespace {

// A cursor over one answer. Its methods return Status with the byte position, never with bytes of
// the answer.
class Parser {
 public:
  Parser(MutableBytes json, const DeliveryLimits& limits) : json_(json), limits_(limits) {}

  Result<DeliveredSecret> Object();
  Result<std::vector<DeliveredSecret>> Array();
  Status End();

 private:
  struct Text {  // a string after its escapes were undone, still inside the answer
    char* at;
    std::size_t size;
    bool had_escapes;
    std::string_view view() const { return {at, size}; }
  };
  struct Draft {
    DeliveredSecret secret;
    std::set<std::string> seen;
    std::optional<std::uint64_t> length;
    std::size_t metadata_bytes = 0;
    bool has_name = false, has_content = false, has_checksum = false;
  };

  Error Malformed(const char* what) const {
    return Error{Errc::kInternal, std::string("answer of the server is malformed at byte ") +
                                      std::to_string(at_) + ": " + what};
  }
  void SkipBlanks();
  bool Take(char c);
  Status Expect(char c);
  bool TakeNull();
  bool NextIsDigit();
  Result<Text> String();
  Result<std::size_t> Unescape(char* begin, std::size_t size);
  Result<char32_t> HexUnit(const char* at, const char* end);
  Result<std::uint64_t> Number();
  Status Member(Draft* draft);
  Status Content(Draft* draft);
  Status MetadataEntry(Draft* draft, std::string key);
  Result<DeliveredSecret> Finish(Draft draft);

  MutableBytes json_;
  const DeliveryLimits& limits_;
  std::size_t at_ = 0;
  std::size_t total_bytes_ = 0;
};

void Parser::SkipBlanks() {
  while (at_ < json_.size() &&
         (json_[at_] == ' ' || json_[at_] == '\n' || json_[at_] == '\r' || json_[at_] == '\t')) {
    ++at_;
  }
}

bool Parser::Take(char c) {
  SkipBlanks();
  if (at_ >= json_.size() || json_[at_] != static_cast<std::uint8_t>(c)) return false;
  ++at_;
  return true;
}

Status Parser::Expect(char c) {
  if (Take(c)) return {};
  switch (c) {
    case '{':
      return Malformed("an object is expected");
    case '[':
      return Malformed("an array is expected");
    case ':':
      return Malformed("a colon is expected");
    case '"':
      return Malformed("a string is expected");
    default:
      return Malformed("a comma or an end is expected");
  }
}

bool Parser::TakeNull() {
  SkipBlanks();
  if (!AsText(json_.subspan(at_)).starts_with("null")) return false;
  at_ += 4;
  return true;
}

bool Parser::NextIsDigit() {
  SkipBlanks();
  return at_ < json_.size() && json_[at_] >= '0' && json_[at_] <= '9';
}

// Finds the end with memchr, so that the time depends on the length of the string and on nothing
// else as long as it has no escape; a content never has one.
Result<Parser::Text> Parser::String() {
  RETURN_IF_ERROR(Expect('"'));
  char* const begin = reinterpret_cast<char*>(json_.data()) + at_;
  const std::size_t left = json_.size() - at_;
  auto* quote = static_cast<char*>(::memchr(begin, '"', left));
  if (quote == nullptr) return Malformed("a string has no end");
  auto* escape = static_cast<char*>(::memchr(begin, '\\', static_cast<std::size_t>(quote - begin)));
  if (escape == nullptr) {
    const auto size = static_cast<std::size_t>(quote - begin);
    at_ += size + 1;
    return Text{begin, size, false};
  }
  // An escaped quote is not the end.
  const char* const end = begin + left;
  char* scan = escape;
  while (scan < end && *scan != '"') scan += *scan == '\\' ? 2 : 1;
  if (scan >= end) return Malformed("a string has no end");
  const auto raw_size = static_cast<std::size_t>(scan - begin);
  ASSIGN_OR_RETURN(const std::size_t size, Unescape(begin, raw_size));
  at_ += raw_size + 1;
  return Text{begin, size, true};
}

Result<char32_t> Parser::HexUnit(const char* at, const char* end) {
  unsigned value = 0;
  if (end - at < 4) return Malformed("an escape is cut");
  const auto [stop, error] = std::from_chars(at, at + 4, value, 16);
  if (error != std::errc() || stop != at + 4) return Malformed("an escape is not hexadecimal");
  return static_cast<char32_t>(value);
}

std::size_t PutUtf8(char* out, char32_t code) {
  const auto put = [&out](char32_t byte) {
    *out++ = static_cast<char>(static_cast<unsigned char>(byte));
  };
  if (code < 0x80) {
    put(code);
    return 1;
  }
  if (code < 0x800) {
    put(0xc0 | (code >> 6));
    put(0x80 | (code & 0x3f));
    return 2;
  }
  if (code < 0x10000) {
    put(0xe0 | (code >> 12));
    put(0x80 | ((code >> 6) & 0x3f));
    put(0x80 | (code & 0x3f));
    return 3;
  }
  put(0xf0 | (code >> 18));
  put(0x80 | ((code >> 12) & 0x3f));
  put(0x80 | ((code >> 6) & 0x3f));
  put(0x80 | (code & 0x3f));
  return 4;
}

// Every escape is at least as long as what it stands for, so the result fits in place.
Result<std::size_t> Parser::Unescape(char* begin, std::size_t size) {
  const char* in = begin;
  const char* const end = begin + size;
  char* out = begin;
  while (in < end) {
    if (*in != '\\') {
      *out++ = *in++;
      continue;
    }
    if (end - in < 2) return Malformed("an escape is cut");
    const char kind = in[1];
    in += 2;
    static constexpr std::string_view kFrom = "\"\\/bfnrt";
    static constexpr std::string_view kTo = "\"\\/\b\f\n\r\t";
    if (const std::size_t known = kFrom.find(kind); known != std::string_view::npos) {
      *out++ = kTo[known];
      continue;
    }
    if (kind != 'u') return Malformed("an escape is unknown");
    ASSIGN_OR_RETURN(char32_t code, HexUnit(in, end));
    in += 4;
    if (code >= 0xd800 && code < 0xdc00) {
      if (end - in < 6 || in[0] != '\\' || in[1] != 'u')
        return Malformed("a surrogate stands alone");
      ASSIGN_OR_RETURN(const char32_t low, HexUnit(in + 2, end));
      if (low < 0xdc00 || low > 0xdfff) return Malformed("a surrogate stands alone");
      in += 6;
      code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    } else if (code >= 0xdc00 && code <= 0xdfff) {
      return Malformed("a surrogate stands alone");
    }
    out += PutUtf8(out, code);
  }
  return static_cast<std::size_t>(out - begin);
}

Result<std::uint64_t> Parser::Number() {
  SkipBlanks();
  const std::string_view rest = AsText(json_.subspan(at_));
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), value);
  if (error != std::errc()) return Malformed("a number from 0 is expected");
  at_ += static_cast<std::size_t>(end - rest.data());
  return value;
}

Status CheckText(std::string_view text) {
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) return Error{Errc::kInternal, "control byte"};
  }
  if (!IsValidUtf8(text)) return Error{Errc::kInternal, "invalid UTF-8"};
  return {};
}

Status Parser::Content(Draft* draft) {
  ASSIGN_OR_RETURN(const Text text, String());
  if (text.had_escapes) return Malformed("a content is not plain base64");
  // Four characters hold three bytes: what cannot fit is refused before memory is taken for it.
  const std::size_t bound_bytes = text.size / 4 * 3 + 3;
  if (bound_bytes > limits_.max_content_bytes + 5) {
    return Error{Errc::kTooLarge, "content from the server is larger than " +
                                      std::to_string(limits_.max_content_bytes) + " bytes"};
  }
  ASSIGN_OR_RETURN(SecretBuffer content, wire::Base64Decode(text.view()));
  if (content.size() > limits_.max_content_bytes) {
    return Error{Errc::kTooLarge, "content from the server is larger than " +
                                      std::to_string(limits_.max_content_bytes) + " bytes"};
  }
  total_bytes_ += content.size();
  if (total_bytes_ > limits_.max_total_bytes) {
    return Error{Errc::kTooLarge, "contents from the server are together larger than " +
                                      std::to_string(limits_.max_total_bytes) + " bytes"};
  }
  draft->secret.content = std::move(content);
  draft->has_content = true;
  return {};
}

Status Parser::MetadataEntry(Draft* draft, std::string key) {
  if (TakeNull()) return {};  // Keywhiz omits absent values; an explicit null means the same
  ASSIGN_OR_RETURN(const Text text, String());
  draft->metadata_bytes += key.size() + text.size;
  if (draft->secret.metadata.size() >= limits::kMaxMetadataEntries ||
      draft->metadata_bytes > limits::kMaxMetadataBytes) {
    return Error{Errc::kTooLarge, "metadata from the server is over its limit"};
  }
  if (!IsValidUtf8(text.view()) || text.view().find('\0') != std::string_view::npos) {
    return Malformed("metadata is not text");
  }
  draft->secret.metadata.emplace_back(std::move(key), std::string(text.view()));
  return {};
}

Status Parser::Member(Draft* draft) {
  ASSIGN_OR_RETURN(const Text key_text, String());
  if (key_text.size > limits::kMaxJsonKeyBytes) return Malformed("a member name is too long");
  std::string key(key_text.view());
  if (!CheckText(key).has_value()) return Malformed("a member name is not text");
  RETURN_IF_ERROR(Expect(':'));
  // Metadata may be called "version" too: as a text it is metadata, as a number the member of ours.
  // A secret whose metadata has that key must not make the whole answer unreadable.
  const bool is_version = key == "version" && NextIsDigit();
  if (!draft->seen.insert(is_version ? "version number" : key).second)
    return Malformed("a member occurs twice");
  if (draft->seen.size() > limits::kMaxMetadataEntries + 8)
    return Malformed("an object has too many members");
  if (key == "secret") return Content(draft);
  if (key == "secretLength") {
    ASSIGN_OR_RETURN(draft->length, Number());
    return {};
  }
  if (is_version) {
    ASSIGN_OR_RETURN(draft->secret.version, Number());
    return {};
  }
  std::string* field = key == "name"           ? &draft->secret.name
                       : key == "checksum"     ? &draft->secret.checksum
                       : key == "creationDate" ? &draft->secret.creation_date
                       : key == "updateDate"   ? &draft->secret.update_date
                                               : nullptr;
  if (field == nullptr) return MetadataEntry(draft, std::move(key));
  ASSIGN_OR_RETURN(const Text text, String());
  if (text.size > limits::kMaxNameBytes * 4) return Malformed("a text is too long");
  if (!CheckText(text.view()).has_value())
    return Malformed("a text holds control bytes or is not UTF-8");
  *field = std::string(text.view());
  draft->has_name = draft->has_name || field == &draft->secret.name;
  draft->has_checksum = draft->has_checksum || field == &draft->secret.checksum;
  return {};
}

Result<DeliveredSecret> Parser::Finish(Draft draft) {
  if (!draft.has_name || draft.secret.name.empty()) return Malformed("a secret has no name");
  if (!draft.has_content) return Malformed("a secret has no content member");
  if (!draft.has_checksum) return Malformed("a secret has no checksum");
  if (draft.length && *draft.length != draft.secret.content.size()) {
    return Malformed("a content has another length than announced");
  }
  return std::move(draft.secret);
}

Result<DeliveredSecret> Parser::Object() {
  RETURN_IF_ERROR(Expect('{'));
  Draft draft;
  if (!Take('}')) {
    do {
      SkipBlanks();
      RETURN_IF_ERROR(Member(&draft));
    } while (Take(','));
    RETURN_IF_ERROR(Expect('}'));
  }
  return Finish(std::move(draft));
}

Result<std::vector<DeliveredSecret>> Parser::Array() {
  RETURN_IF_ERROR(Expect('['));
  std::vector<DeliveredSecret> secrets;
  std::set<std::string> names;
  if (Take(']')) return secrets;
  do {
    if (secrets.size() >= limits_.max_secrets) {
      return Error{Errc::kTooLarge,
                   "server sends more than " + std::to_string(limits_.max_secrets) + " secrets"};
    }
    ASSIGN_OR_RETURN(DeliveredSecret secret, Object());
    if (!names.insert(secret.name).second) return Malformed("a secret occurs twice");
    secrets.push_back(std::move(secret));
  } while (Take(','));
  RETURN_IF_ERROR(Expect(']'));
  return secrets;
}

Status Parser::End() {
  SkipBlanks();
  if (at_ != json_.size()) return Malformed("text follows the end");
  return {};
}

}  // namespace

Result<DeliveredSecret> ParseDelivery(MutableBytes json, const DeliveryLimits& limits) {
  Parser parser(json, limits);
  ASSIGN_OR_RETURN(DeliveredSecret secret, parser.Object());
  RETURN_IF_ERROR(parser.End());
  return secret;
}

Result<std::vector<DeliveredSecret>> ParseDeliveries(MutableBytes json,
                                                     const DeliveryLimits& limits) {
  Parser parser(json, limits);
  ASSIGN_OR_RETURN(auto secrets, parser.Array());
  RETURN_IF_ERROR(parser.End());
  return secrets;
}

}  // namespace latchkey::client
