// Writes compact JSON text, member by member, into a string: no tree is built (rule H2). Commas are
// put in by itself.
//
// Texts are expected to be valid UTF-8; an invalid byte is written as U+FFFD, so that the output is
// always valid JSON. Not for content: content is base64, written by common/wire/base64.h into
// wiping memory. Not thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "common/model/metadata.h"

namespace latchkey::wire {

class JsonOut {
 public:
  explicit JsonOut(std::string* out) : out_(*out) {}

  JsonOut& BeginObject() { return Open('{'); }
  JsonOut& EndObject() { return Close('}'); }
  JsonOut& BeginArray() { return Open('['); }
  JsonOut& EndArray() { return Close(']'); }
  JsonOut& Key(std::string_view key);

  JsonOut& Text(std::string_view value);
  JsonOut& Int(std::int64_t value);
  JsonOut& Unsigned(std::uint64_t value);
  JsonOut& Bool(bool value);
  JsonOut& Null();
  // JSON text that is already valid, such as stored metadata.
  JsonOut& Raw(std::string_view json);

  JsonOut& Text(std::string_view key, std::string_view value) { return Key(key).Text(value); }
  JsonOut& Int(std::string_view key, std::int64_t value) { return Key(key).Int(value); }
  JsonOut& Unsigned(std::string_view key, std::uint64_t value) { return Key(key).Unsigned(value); }
  JsonOut& Bool(std::string_view key, bool value) { return Key(key).Bool(value); }
  JsonOut& Null(std::string_view key) { return Key(key).Null(); }
  JsonOut& Raw(std::string_view key, std::string_view json) { return Key(key).Raw(json); }

 private:
  JsonOut& Open(char bracket);
  JsonOut& Close(char bracket);
  void BeforeValue();

  std::string& out_;
  bool comma_ = false;  // a value precedes on this level
};

// Appends `text` as the inside of a JSON string.
void AppendJsonText(std::string* out, std::string_view text);

// The stored form of metadata: a compact object, members in the order given; "{}" when empty.
std::string EncodeMetadata(const Metadata& metadata);

}  // namespace latchkey::wire
