// The head of an answer: Date, the six security headers (API spec 1.1), then the rest.
#pragma once

#include <span>
#include <string_view>

#include "server/net/http.h"

namespace latchkey::net {

enum class ConnectionHeader { kNone, kClose, kKeepAlive };

struct ResponseHead {
  int status = 500;
  std::string_view date;  // IMF-fixdate, 29 characters
  std::string_view content_type;
  std::span<const Header> headers;
  RequestId id;
  std::size_t content_length = 0;
  ConnectionHeader connection = ConnectionHeader::kNone;
};

// Exactly what WriteHead will write.
std::size_t HeadBytes(const ResponseHead& head);
// Writes the head with its empty line and returns the position after it.
char* WriteHead(const ResponseHead& head, char* at);
// False when a name or value would break the framing: a control byte, an empty name.
bool AreSafeHeaders(std::string_view content_type, std::span<const Header> headers);
// 204 and 304 carry neither a body nor a Content-Length.
bool MayHaveBody(int status);

inline constexpr std::string_view kJsonType = "application/json";
inline constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";

}  // namespace latchkey::net
