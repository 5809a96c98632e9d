#include "common/wire/json_out.h"

#include <charconv>

#include "common/base/utf8.h"

namespace latchkey::wire {
namespace {

bool IsPlain(unsigned char byte) {
  return byte >= 0x20 && byte < 0x7f && byte != '"' && byte != '\\';
}

void AppendControl(std::string* out, unsigned char byte) {
  constexpr char kHex[] = "0123456789abcdef";
  switch (byte) {
    case '"':
      out->append("\\\"");
      return;
    case '\\':
      out->append("\\\\");
      return;
    case '\n':
      out->append("\\n");
      return;
    case '\r':
      out->append("\\r");
      return;
    case '\t':
      out->append("\\t");
      return;
    case '\b':
      out->append("\\b");
      return;
    case '\f':
      out->append("\\f");
      return;
    default:
      out->append("\\u00");
      out->push_back(kHex[byte >> 4]);
      out->push_back(kHex[byte & 15]);
  }
}

}  // namespace

void AppendJsonText(std::string* out, std::string_view text) {
  while (!text.empty()) {
    std::size_t plain = 0;
    while (plain < text.size() && IsPlain(static_cast<unsigned char>(text[plain]))) ++plain;
    out->append(text.substr(0, plain));
    text.remove_prefix(plain);
    if (text.empty()) return;
    const auto byte = static_cast<unsigned char>(text.front());
    if (byte < 0x80) {
      AppendControl(out, byte);
      text.remove_prefix(1);
      continue;
    }
    const Utf8Step step = DecodeUtf8(text);
    const std::size_t length = step.valid ? step.length : 1;
    out->append(step.valid ? text.substr(0, length) : std::string_view("\xef\xbf\xbd"));
    text.remove_prefix(length);
  }
}

void JsonOut::BeforeValue() {
  if (comma_) out_.push_back(',');
  comma_ = true;
}

JsonOut& JsonOut::Open(char bracket) {
  BeforeValue();
  out_.push_back(bracket);
  comma_ = false;
  return *this;
}

JsonOut& JsonOut::Close(char bracket) {
  out_.push_back(bracket);
  comma_ = true;
  return *this;
}

JsonOut& JsonOut::Key(std::string_view key) {
  BeforeValue();
  out_.push_back('"');
  AppendJsonText(&out_, key);
  out_.append("\":");
  comma_ = false;
  return *this;
}

JsonOut& JsonOut::Text(std::string_view value) {
  BeforeValue();
  out_.push_back('"');
  AppendJsonText(&out_, value);
  out_.push_back('"');
  return *this;
}

JsonOut& JsonOut::Int(std::int64_t value) {
  BeforeValue();
  char digits[24];
  out_.append(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
  return *this;
}

JsonOut& JsonOut::Unsigned(std::uint64_t value) {
  BeforeValue();
  char digits[24];
  out_.append(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
  return *this;
}

JsonOut& JsonOut::Bool(bool value) {
  BeforeValue();
  out_.append(value ? "true" : "false");
  return *this;
}

JsonOut& JsonOut::Null() {
  BeforeValue();
  out_.append("null");
  return *this;
}

JsonOut& JsonOut::Raw(std::string_view json) {
  BeforeValue();
  out_.append(json);
  return *this;
}

std::string EncodeMetadata(const Metadata& metadata) {
  std::string text;
  JsonOut out(&text);
  out.BeginObject();
  for (const auto& [key, value] : metadata) out.Text(key, value);
  out.EndObject();
  return text;
}

}  // namespace latchkey::wire
