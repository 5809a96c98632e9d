#include "server/net/response.h"

#include <algorithm>
#include <cstring>

namespace latchkey::net {
namespace {

constexpr std::string_view kSecurityHeaders =
    "\r\nX-Content-Security-Policy: default-src 'self'\r\nX-XSS-Protection: "
    "0\r\nX-Content-Type-Options: nosniff"
    "\r\nFrame-Options: DENY\r\nX-Frame-Options: DENY\r\nStrict-Transport-Security: "
    "max-age=31536000; includeSubDomains";
constexpr std::size_t kRequestIdDigits = 16;

// Both passes, counting and writing, run the same code, so that they cannot disagree.
class Counter {
 public:
  void Put(std::string_view text) { bytes_ += text.size(); }
  std::size_t bytes() const { return bytes_; }

 private:
  std::size_t bytes_ = 0;
};

class Writer {
 public:
  explicit Writer(char* at) : at_(at) {}
  void Put(std::string_view text) {
    if (text.empty()) return;  // a null pointer is not for memcpy, whatever the length
    std::memcpy(at_, text.data(), text.size());
    at_ += text.size();
  }
  char* at() const { return at_; }

 private:
  char* at_;
};

std::string_view Decimal(std::uint64_t value, char (&buffer)[20]) {
  std::size_t at = sizeof buffer;
  do {
    buffer[--at] = static_cast<char>('0' + value % 10);
    value /= 10;
  } while (value != 0);
  return {buffer + at, sizeof buffer - at};
}

void PutHexDigits(std::uint64_t value, char* digits) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  for (std::size_t i = kRequestIdDigits; i-- > 0; value >>= 4) digits[i] = kDigits[value & 15];
}

template <class Out>
void PutHead(const ResponseHead& head, Out* out) {
  char number[20];
  out->Put("HTTP/1.1 ");
  out->Put(Decimal(static_cast<std::uint64_t>(head.status), number));
  out->Put(" ");
  out->Put(ReasonPhrase(head.status));
  out->Put("\r\nDate: ");
  out->Put(head.date);
  out->Put(kSecurityHeaders);
  if (!head.content_type.empty()) {
    out->Put("\r\nContent-Type: ");
    out->Put(head.content_type);
  }
  for (const Header& header : head.headers) {
    out->Put("\r\n");
    out->Put(header.name);
    out->Put(": ");
    out->Put(header.value);
  }
  char id[kRequestIdDigits];
  PutHexDigits(head.id.value, id);
  out->Put("\r\nX-Request-Id: ");
  out->Put({id, sizeof id});
  if (MayHaveBody(head.status)) {
    out->Put("\r\nContent-Length: ");
    out->Put(Decimal(head.content_length, number));
  }
  if (head.connection == ConnectionHeader::kClose) out->Put("\r\nConnection: close");
  if (head.connection == ConnectionHeader::kKeepAlive) out->Put("\r\nConnection: keep-alive");
  out->Put("\r\n\r\n");
}

bool IsSafe(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    const auto octet = static_cast<std::uint8_t>(c);
    return octet >= 0x20 && octet != 0x7f;
  });
}

}  // namespace

std::string FormatRequestId(RequestId id) {
  std::string text(kRequestIdDigits, '0');
  PutHexDigits(id.value, text.data());
  return text;
}

std::string_view ReasonPhrase(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 201:
      return "Created";
    case 202:
      return "Accepted";
    case 204:
      return "No Content";
    case 303:
      return "See Other";
    case 304:
      return "Not Modified";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 406:
      return "Not Acceptable";
    case 408:
      return "Request Timeout";
    case 409:
      return "Conflict";
    case 410:
      return "Gone";
    case 413:
      return "Request Entity Too Large";
    case 414:
      return "Request-URI Too Long";
    case 415:
      return "Unsupported Media Type";
    case 417:
      return "Expectation Failed";
    case 422:
      return "Unprocessable Entity";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 501:
      return "Not Implemented";
    case 503:
      return "Service Unavailable";
    case 505:
      return "HTTP Version Not Supported";
    default:
      return "Unknown";
  }
}

std::string ErrorBody(int status) {
  const std::string code = std::to_string(status);
  return "{\"code\":" + code + ",\"message\":\"HTTP " + code + " " +
         std::string(ReasonPhrase(status)) + "\"}";
}

std::size_t HeadBytes(const ResponseHead& head) {
  Counter counter;
  PutHead(head, &counter);
  return counter.bytes();
}

char* WriteHead(const ResponseHead& head, char* at) {
  Writer writer(at);
  PutHead(head, &writer);
  return writer.at();
}

bool AreSafeHeaders(std::string_view content_type, std::span<const Header> headers) {
  return IsSafe(content_type) &&
         std::all_of(headers.begin(), headers.end(), [](const Header& header) {
           return !header.name.empty() && IsSafe(header.name) && IsSafe(header.value);
         });
}

bool MayHaveBody(int status) {
  return status != 204 && status != 304 && status >= 200;
}

}  // namespace latchkey::net
