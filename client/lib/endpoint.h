// Where a server is: host and port, as people write them, and the parts of a URL that we build.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "common/base/result.h"

namespace latchkey::client {

inline constexpr std::uint16_t kDefaultPort = 4444;

struct Endpoint {
  std::string host;  // a name or an address, IPv6 without brackets
  std::uint16_t port = kDefaultPort;

  // `host:port` as messages show it; IPv6 in brackets.
  std::string Text() const;
  std::string Url() const;  // `https://host:port`, no slash at the end
};

// Accepts `host`, `host:port`, `[v6]:port` and `https://host[:port][/]`. Errors: kInvalidArgument
// for anything else; plain http, a path, a query and credentials are named in the message.
Result<Endpoint> ParseEndpoint(std::string_view text);

// Percent-encodes everything but RFC 3986 unreserved bytes, so that a name stays one path segment
// or query value.
std::string PercentEncode(std::string_view text);

}  // namespace latchkey::client
