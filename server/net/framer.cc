#include "server/net/framer.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace latchkey::net {
namespace {

constexpr std::uint8_t kToken = 1;   // RFC 9110 tchar
constexpr std::uint8_t kField = 2;   // field value: visible, blank, tab and bytes above 127
constexpr std::uint8_t kTarget = 4;  // visible ASCII without '#'
constexpr std::uint8_t kHost =
    8;  // reg-name, IPv4, [IPv6] and port; no '@', so that Location can repeat it

constexpr std::array<std::uint8_t, 256> MakeClasses() {
  std::array<std::uint8_t, 256> classes{};
  for (int c = 0; c < 256; ++c) {
    const bool alnum = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
    std::uint8_t bits = 0;
    if (alnum || (c != 0 && std::string_view("!#$%&'*+-.^_`|~").find(static_cast<char>(c)) !=
                                std::string_view::npos))
      bits |= kToken;
    if ((c >= 0x20 && c != 0x7f) || c == '\t') bits |= kField;
    if (c > 0x20 && c < 0x7f && c != '#') bits |= kTarget;
    if (alnum || (c != 0 &&
                  std::string_view("-._~:[]").find(static_cast<char>(c)) != std::string_view::npos))
      bits |= kHost;
    classes[static_cast<std::size_t>(c)] = bits;
  }
  return classes;
}
constexpr auto kClasses = MakeClasses();

bool Is(char c, std::uint8_t kind) {
  return (kClasses[static_cast<std::uint8_t>(c)] & kind) != 0;
}
bool AllAre(std::string_view text, std::uint8_t kind) {
  return std::all_of(text.begin(), text.end(), [kind](char c) { return Is(c, kind); });
}

char Lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
}
// `lower` is in lower case.
bool EqualsIgnoringCase(std::string_view text, std::string_view lower) {
  return text.size() == lower.size() && std::equal(text.begin(), text.end(), lower.begin(),
                                                   [](char a, char b) { return Lower(a) == b; });
}

std::string_view TrimBlanks(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

Method MethodOf(std::string_view name) {
  if (name == "GET") return Method::kGet;
  if (name == "HEAD") return Method::kHead;
  if (name == "POST") return Method::kPost;
  if (name == "PUT") return Method::kPut;
  if (name == "DELETE") return Method::kDelete;
  if (name == "OPTIONS") return Method::kOptions;
  if (name == "PATCH") return Method::kPatch;
  return Method::kOther;
}

// What the fields of one head say about its framing, before the whole is judged.
struct FieldFacts {
  int hosts = 0;
  int content_lengths = 0;
  int transfer_encodings = 0;
  bool says_close = false;
  bool says_keep_alive = false;
};

int ReadContentLength(std::string_view value, RequestHead* head) {
  if (value.empty() ||
      !std::all_of(value.begin(), value.end(), [](char c) { return c >= '0' && c <= '9'; }))
    return 400;
  while (value.size() > 1 && value.front() == '0') value.remove_prefix(1);
  if (value.size() > 18) return 413;
  head->content_length = 0;
  for (const char c : value)
    head->content_length = head->content_length * 10 + static_cast<std::uint64_t>(c - '0');
  return kComplete;
}

void ReadConnection(std::string_view value, FieldFacts* facts) {
  while (!value.empty()) {
    const std::size_t comma = std::min(value.find(','), value.size());
    const std::string_view token = TrimBlanks(value.substr(0, comma));
    if (EqualsIgnoringCase(token, "close")) facts->says_close = true;
    if (EqualsIgnoringCase(token, "keep-alive")) facts->says_keep_alive = true;
    value.remove_prefix(std::min(comma + 1, value.size()));
  }
}

void ReadAccept(std::string_view value, RequestHead* head) {
  if (!head->has_accept) {
    head->first_accept = value;
  } else {
    if (head->joined_accept.empty()) head->joined_accept = head->first_accept;
    head->joined_accept.append(", ").append(value);
  }
  head->has_accept = true;
}

// Sorts by length first: of the usual fields most are none of ours.
int ReadField(std::string_view name, std::string_view value, RequestHead* head, FieldFacts* facts) {
  switch (name.size()) {
    case 4:
      if (!EqualsIgnoringCase(name, "host")) break;
      head->host = value;
      return ++facts->hosts > 1 || value.empty() || !AllAre(value, kHost) ? 400 : kComplete;
    case 6:
      if (EqualsIgnoringCase(name, "accept")) ReadAccept(value, head);
      if (!EqualsIgnoringCase(name, "expect")) break;
      head->expect_continue = true;
      return EqualsIgnoringCase(value, "100-continue") ? kComplete : 417;
    case 10:
      if (EqualsIgnoringCase(name, "connection")) ReadConnection(value, facts);
      break;
    case 12:
      if (!EqualsIgnoringCase(name, "content-type")) break;
      if (head->has_content_type) return 400;
      head->has_content_type = true;
      head->content_type = value;
      break;
    case 14:
      if (!EqualsIgnoringCase(name, "content-length")) break;
      return ++facts->content_lengths > 1 ? 400 : ReadContentLength(value, head);
    case 16:
      // Requests are never decompressed (rule H3).
      if (EqualsIgnoringCase(name, "content-encoding") && !EqualsIgnoringCase(value, "identity"))
        return 415;
      break;
    case 17:
      if (!EqualsIgnoringCase(name, "transfer-encoding")) break;
      head->chunked = true;
      if (++facts->transfer_encodings > 1) return 400;
      return EqualsIgnoringCase(value, "chunked") ? kComplete : 501;
    case 23:
      if (!EqualsIgnoringCase(name, "x-forwarded-client-cert")) break;
      ++head->forwarded_identity_count;
      head->forwarded_identity = value;
      break;
    default:
      break;
  }
  return kComplete;
}

int ReadRequestLine(std::string_view line, const FramerLimits& limits, RequestHead* head) {
  const std::size_t first = line.find(' ');
  if (first == 0 || first == std::string_view::npos || !AllAre(line.substr(0, first), kToken))
    return 400;
  const std::size_t second = line.find(' ', first + 1);
  if (second == std::string_view::npos) return 400;
  head->method = MethodOf(line.substr(0, first));
  head->target = line.substr(first + 1, second - first - 1);
  if (head->target.size() > limits.max_target_bytes) return 414;
  if (head->target.empty() || head->target.front() != '/' || !AllAre(head->target, kTarget))
    return 400;
  head->double_slash =
      head->target.substr(0, head->target.find('?')).find("//") != std::string_view::npos;
  const std::string_view version = line.substr(second + 1);
  head->http10 = version == "HTTP/1.0";
  if (head->http10 || version == "HTTP/1.1") return kComplete;
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  const bool other = version.size() == 8 && version.starts_with("HTTP/") && digit(version[5]) &&
                     version[6] == '.' && digit(version[7]);
  return other ? 505 : 400;
}

int ReadFields(std::string_view fields, const FramerLimits& limits, RequestHead* head,
               FieldFacts* facts) {
  std::size_t count = 0;
  while (!fields.empty()) {
    const std::size_t end =
        fields.find('\r');  // the line ends are checked: the next byte is '\n' or it is a bare CR
    if (end == std::string_view::npos || end + 1 >= fields.size() || fields[end + 1] != '\n')
      return 400;
    const std::string_view line = fields.substr(0, end);
    fields.remove_prefix(end + 2);
    if (++count > limits.max_header_fields) return 431;
    const std::size_t colon = line.find(':');
    if (colon == 0 || colon == std::string_view::npos) return 400;
    const std::string_view name = line.substr(0, colon);
    const std::string_view value = line.substr(colon + 1);
    if (!AllAre(name, kToken) || !AllAre(value, kField))
      return 400;  // a folded line begins with a blank: not a token
    if (const int status = ReadField(name, TrimBlanks(value), head, facts); status != kComplete)
      return status;
  }
  return kComplete;
}

// The index after the empty line that ends the head; npos when it is not there yet; 0 when a line
// end is not CRLF.
std::size_t FindEnd(std::string_view input, std::size_t from) {
  for (std::size_t at = from; at < input.size();) {
    const void* found = std::memchr(input.data() + at, '\n', input.size() - at);
    if (found == nullptr) return std::string_view::npos;
    const auto lf = static_cast<std::size_t>(static_cast<const char*>(found) - input.data());
    if (lf == 0 || input[lf - 1] != '\r') return 0;
    if (lf == 1) return 0;  // an empty line before the request line
    if (lf >= 3 && input[lf - 2] == '\n') return lf + 1;
    at = lf + 1;
  }
  return std::string_view::npos;
}

// A head that is too long: 414 when that is its target's fault.
int TooLong(std::string_view input, const FramerLimits& limits) {
  const std::string_view line = input.substr(0, input.find("\r\n"));
  const std::size_t space = line.find(' ');
  if (space == std::string_view::npos) return 431;
  const std::string_view target = line.substr(space + 1, line.find(' ', space + 1) - space - 1);
  return target.size() > limits.max_target_bytes ? 414 : 431;
}

int Judge(const FieldFacts& facts, const FramerLimits& limits, RequestHead* head) {
  if (facts.hosts == 0 && !head->http10) return 400;
  if (head->chunked && (facts.content_lengths > 0 || head->http10)) return 400;
  if (head->content_length > limits.max_body_bytes) return 413;
  head->keep_alive = !facts.says_close && (!head->http10 || facts.says_keep_alive);
  // RFC 9110 10.1.1: a 1.0 client did not mean it.
  if (head->http10) head->expect_continue = false;
  return kComplete;
}

}  // namespace

int ParseHead(std::string_view input, const FramerLimits& limits, std::size_t* scanned,
              RequestHead* head) {
  const std::string_view window = input.substr(0, limits.max_head_bytes);
  const std::size_t end = FindEnd(window, *scanned);
  *scanned = 0;
  if (end == 0) return 400;
  if (end == std::string_view::npos) {
    if (input.size() >= limits.max_head_bytes) return TooLong(window, limits);
    *scanned = window.size();
    return kNeedMore;
  }
  *head = RequestHead{};
  head->head_bytes = end;
  const std::size_t line_end = window.find("\r\n");
  if (const int status = ReadRequestLine(window.substr(0, line_end), limits, head);
      status != kComplete)
    return status;
  FieldFacts facts;
  const std::string_view fields = window.substr(line_end + 2, end - 2 - (line_end + 2));
  if (const int status = ReadFields(fields, limits, head, &facts); status != kComplete)
    return status;
  return Judge(facts, limits, head);
}

BodyDecoder::Step BodyDecoder::TakeData(std::string_view input, State after) {
  const auto take = static_cast<std::size_t>(std::min<std::uint64_t>(left_, input.size()));
  left_ -= take;
  if (left_ == 0) state_ = after;
  return {take, input.substr(0, take), state_ == State::kDone ? kComplete : kNeedMore};
}

// One byte of chunk framing. Returns kNeedMore, kComplete or a refusal.
int BodyDecoder::TakeControl(char c) {
  constexpr int kMaxSizeDigits = 8;
  switch (state_) {
    case State::kSize: {
      const char lower = Lower(c);
      const int value =
          c >= '0' && c <= '9' ? c - '0' : (lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1);
      if (value >= 0) {
        if (++digits_ > kMaxSizeDigits) return 400;
        left_ = left_ * 16 + static_cast<std::uint64_t>(value);
        return kNeedMore;
      }
      if (c != '\r' || digits_ == 0) return 400;  // a chunk extension ends here too
      state_ = State::kSizeLf;
      return kNeedMore;
    }
    case State::kSizeLf:
      if (c != '\n') return 400;
      total_ += left_;
      if (total_ > max_bytes_) return 413;
      state_ = left_ == 0 ? State::kEndCr : State::kData;
      return kNeedMore;
    case State::kDataCr:
      if (c != '\r') return 400;
      state_ = State::kDataLf;
      return kNeedMore;
    case State::kDataLf:
      if (c != '\n') return 400;
      digits_ = 0;
      left_ = 0;
      state_ = State::kSize;
      return kNeedMore;
    case State::kEndCr:
      if (c != '\r') return 400;  // trailers are not taken
      state_ = State::kEndLf;
      return kNeedMore;
    case State::kEndLf:
      if (c != '\n') return 400;
      state_ = State::kDone;
      return kComplete;
    case State::kPlain:
    case State::kData:
    case State::kDone:
      break;
  }
  return kComplete;
}

BodyDecoder::Step BodyDecoder::Next(std::string_view input) {
  if (state_ == State::kDone) return {0, {}, kComplete};
  if (input.empty()) return {};
  if (state_ == State::kPlain) return TakeData(input, State::kDone);
  if (state_ == State::kData) return TakeData(input, State::kDataCr);
  Step step;
  while (step.consumed_bytes < input.size() && state_ != State::kData && step.status == kNeedMore) {
    step.status = TakeControl(input[step.consumed_bytes++]);
  }
  return step;
}

}  // namespace latchkey::net
