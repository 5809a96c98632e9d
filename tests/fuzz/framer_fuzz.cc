// The framer on arbitrary bytes against a second, slow one that shares no code with it (Z2): both must find the same requests
// at the same places, and the pieces in which the bytes arrive must make no difference.
#include <cctype>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <vector>

#include "server/net/framer.h"

namespace {

using latchkey::net::BodyDecoder;
using latchkey::net::FramerLimits;
using latchkey::net::kComplete;
using latchkey::net::kNeedMore;
using latchkey::net::ParseHead;
using latchkey::net::RequestHead;

struct Message {
  std::string target;
  std::string body;
  bool keep_alive = false;
  std::size_t end = 0;  // in the input
  bool operator==(const Message&) const = default;
};
enum class Ending { kIncomplete, kRefused };
struct Reading {
  std::vector<Message> messages;
  Ending ending = Ending::kIncomplete;
  bool operator==(const Reading&) const = default;
};

FramerLimits Limits() {
  FramerLimits limits;
  limits.max_target_bytes = 64;
  limits.max_head_bytes = 512;
  limits.max_header_fields = 8;
  limits.max_body_bytes = 300;
  return limits;
}

// ---- the product's framer, fed in pieces of `piece` bytes -------------------------------------------------------------------

Reading ReadFast(const std::string& input, std::size_t piece) {
  const FramerLimits limits = Limits();
  Reading reading;
  std::size_t at = 0;
  std::size_t arrived = 0;
  std::size_t scanned = 0;
  const auto more = [&] {
    if (arrived == input.size()) return false;
    arrived = std::min(input.size(), arrived + piece);
    return true;
  };
  for (;;) {
    RequestHead head;
    const int status =
        ParseHead(std::string_view(input).substr(at, arrived - at), limits, &scanned, &head);
    if (status == kNeedMore) {
      if (!more()) return reading;
      continue;
    }
    if (status != kComplete) {
      reading.ending = Ending::kRefused;
      return reading;
    }
    Message message{std::string(head.target), "", head.keep_alive, 0};
    BodyDecoder decoder(head, limits);
    at += head.head_bytes;
    for (int state = kNeedMore; state != kComplete;) {
      const auto step = decoder.Next(std::string_view(input).substr(at, arrived - at));
      message.body.append(step.data);
      at += step.consumed_bytes;
      state = step.status;
      if (state != kNeedMore && state != kComplete) {
        reading.ending = Ending::kRefused;
        return reading;
      }
      if (state == kNeedMore && step.consumed_bytes == 0 && !more()) return reading;
    }
    message.end = at;
    reading.messages.push_back(std::move(message));
  }
}

// ---- the slow framer: one byte at a time, strings and copies, written from RFC 9112 and the rules ----------------------------

class Slow {
 public:
  explicit Slow(const std::string& input) : input_(input) {}

  Reading Read() {
    Reading reading;
    for (;;) {
      Message message;
      const int verdict = One(&message);
      if (verdict == 0) return reading;
      if (verdict < 0) {
        reading.ending = Ending::kRefused;
        return reading;
      }
      message.end = at_;
      reading.messages.push_back(message);
    }
  }

 private:
  // Lines of the head without their ends. 0 incomplete, -1 refused, 1 complete.
  int Lines(std::vector<std::string>* lines) {
    std::string line;
    const std::size_t start = at_;
    for (std::size_t i = at_; i < input_.size(); ++i) {
      if (i - start >= Limits().max_head_bytes) return -1;
      if (input_[i] != '\n') {
        line += input_[i];
        continue;
      }
      if (line.empty() || line.back() != '\r') return -1;
      line.pop_back();
      if (line.empty()) {
        if (lines->empty()) return -1;
        at_ = i + 1;
        return 1;
      }
      lines->push_back(line);
      line.clear();
    }
    return input_.size() - start >= Limits().max_head_bytes ? -1 : 0;
  }

  static bool IsToken(const std::string& text) {
    for (const unsigned char c : text) {
      if (!(std::isalnum(c) && c < 128) &&
          std::string("!#$%&'*+-.^_`|~").find(static_cast<char>(c)) == std::string::npos)
        return false;
    }
    return !text.empty();
  }
  static std::string Lower(std::string text) {
    for (char& c : text) {
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    }
    return text;
  }
  static std::string Trim(const std::string& text) {
    const std::size_t first = text.find_first_not_of(" \t");
    return first == std::string::npos
               ? ""
               : text.substr(first, text.find_last_not_of(" \t") - first + 1);
  }

  static bool RequestLine(const std::string& line, std::string* target, bool* http10) {
    std::vector<std::string> parts(1);
    for (const char c : line) {
      if (c == ' ') {
        parts.emplace_back();
      } else {
        parts.back() += c;
      }
    }
    if (parts.size() != 3 || !IsToken(parts[0])) return false;
    if (parts[2] != "HTTP/1.1" && parts[2] != "HTTP/1.0") return false;
    *http10 = parts[2] == "HTTP/1.0";
    *target = parts[1];
    if (target->empty() || (*target)[0] != '/' || target->size() > Limits().max_target_bytes)
      return false;
    for (const unsigned char c : *target) {
      if (c < 0x21 || c > 0x7e || c == '#') return false;
    }
    return true;
  }

  struct Fields {
    std::vector<std::string> hosts, lengths, codings, types;
    bool close = false, keep = false;
  };

  static bool Field(const std::string& line, Fields* fields) {
    const std::size_t colon = line.find(':');
    if (colon == std::string::npos || !IsToken(line.substr(0, colon))) return false;
    const std::string name = Lower(line.substr(0, colon));
    for (const unsigned char c : line.substr(colon + 1)) {
      if ((c < 0x20 && c != '\t') || c == 0x7f) return false;
    }
    const std::string value = Trim(line.substr(colon + 1));
    if (name == "host") fields->hosts.push_back(value);
    if (name == "content-length") fields->lengths.push_back(value);
    if (name == "transfer-encoding") fields->codings.push_back(Lower(value));
    if (name == "content-type") fields->types.push_back(value);
    if (name == "expect" && Lower(value) != "100-continue") return false;
    if (name == "content-encoding" && Lower(value) != "identity") return false;
    if (name == "connection") {
      std::string token;
      for (const char c : value + ",") {
        if (c != ',') {
          token += c;
          continue;
        }
        if (Lower(Trim(token)) == "close") fields->close = true;
        if (Lower(Trim(token)) == "keep-alive") fields->keep = true;
        token.clear();
      }
    }
    return true;
  }

  static bool GoodHost(const std::string& host) {
    for (const unsigned char c : host) {
      if (!(std::isalnum(c) && c < 128) &&
          std::string("-._~:[]").find(static_cast<char>(c)) == std::string::npos)
        return false;
    }
    return !host.empty();
  }

  // The length of the body, or nothing when it is malformed or too large.
  static std::optional<std::size_t> Length(const std::string& text) {
    if (text.empty()) return std::nullopt;
    std::size_t value = 0;
    for (const char c : text) {
      if (c < '0' || c > '9') return std::nullopt;
      value = value * 10 + static_cast<std::size_t>(c - '0');
      if (value > Limits().max_body_bytes) return std::nullopt;
    }
    return value;
  }

  int One(Message* message) {
    std::vector<std::string> lines;
    const int found = Lines(&lines);
    if (found <= 0) return found;
    bool http10 = false;
    if (!RequestLine(lines[0], &message->target, &http10)) return -1;
    if (lines.size() - 1 > Limits().max_header_fields) return -1;
    Fields fields;
    for (std::size_t i = 1; i < lines.size(); ++i) {
      if (!Field(lines[i], &fields)) return -1;
    }
    if (fields.hosts.size() > 1 || (fields.hosts.empty() && !http10)) return -1;
    if (!fields.hosts.empty() && !GoodHost(fields.hosts[0])) return -1;
    if (fields.lengths.size() > 1 || fields.codings.size() > 1 || fields.types.size() > 1)
      return -1;
    message->keep_alive = !fields.close && (!http10 || fields.keep);
    if (!fields.codings.empty()) {
      if (fields.codings[0] != "chunked" || !fields.lengths.empty() || http10) return -1;
      return Chunks(&message->body);
    }
    if (fields.lengths.empty()) return 1;
    const auto length = Length(fields.lengths[0]);
    if (!length) return -1;
    if (input_.size() - at_ < *length) return 0;
    message->body = input_.substr(at_, *length);
    at_ += *length;
    return 1;
  }

  // 1 when the next byte is `wanted`, 0 when there is none yet.
  int Expect(char wanted) {
    if (at_ == input_.size()) return 0;
    return input_[at_++] == wanted ? 1 : -1;
  }

  int Chunks(std::string* body) {
    std::size_t announced = 0;
    for (;;) {
      std::string digits;
      while (at_ < input_.size() && std::isxdigit(static_cast<unsigned char>(input_[at_]))) {
        digits += input_[at_++];
        if (digits.size() > 8) return -1;
      }
      if (at_ == input_.size()) return 0;
      if (digits.empty()) return -1;
      for (const char c : {'\r', '\n'}) {
        if (const int got = Expect(c); got <= 0) return got;
      }
      const std::size_t size = std::stoul(digits, nullptr, 16);
      announced += size;
      if (announced > Limits().max_body_bytes) return -1;
      if (input_.size() - at_ < size) return 0;
      body->append(input_, at_, size);
      at_ += size;
      for (const char c : {'\r', '\n'}) {
        if (const int got = Expect(c); got <= 0) return got;
      }
      if (size == 0) return 1;
    }
  }

  const std::string& input_;
  std::size_t at_ = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string input(reinterpret_cast<const char*>(data), size);
  const Reading slow = Slow(input).Read();
  for (const std::size_t piece :
       {std::size_t{1}, std::size_t{3}, std::size_t{17}, input.size() + 1}) {
    const Reading fast = ReadFast(input, piece);
    // A refusal may come before the slow framer has seen enough; what was framed must be the same, and a refusal of one is
    // never a message of the other.
    if (!(fast == slow)) std::abort();
  }
  return 0;
}
