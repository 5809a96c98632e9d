#include "client/lib/endpoint.h"

#include <charconv>

namespace latchkey::client {
namespace {

bool IsHostByte(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
         c == '.' || c == '_';
}

bool IsHost(std::string_view host) {
  if (host.empty() || host.size() > 253) return false;
  for (const char c : host) {
    if (!IsHostByte(c)) return false;
  }
  return true;
}

bool IsIpv6(std::string_view host) {
  if (host.empty() || host.size() > 45) return false;
  for (const char c : host) {
    const bool hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
    if (!hex && c != ':' && c != '.') return false;
  }
  return true;
}

Error Refused(std::string_view text, const char* why) {
  return Error{Errc::kInvalidArgument, "address \"" + std::string(text) + "\" " + why +
                                           ": write host:port or https://host:port"};
}

Result<std::uint16_t> ParsePort(std::string_view text, std::string_view digits) {
  unsigned value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc() || end != digits.data() + digits.size() || value == 0 || value > 65535) {
    return Refused(text, "has no port between 1 and 65535");
  }
  return static_cast<std::uint16_t>(value);
}

}  // namespace

std::string Endpoint::Text() const {
  const bool v6 = host.find(':') != std::string::npos;
  return (v6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

std::string Endpoint::Url() const {
  return "https://" + Text();
}

Result<Endpoint> ParseEndpoint(std::string_view text) {
  std::string_view rest = text;
  if (rest.starts_with("http://"))
    return Refused(text, "is plain http, the server speaks only https");
  if (rest.starts_with("https://")) {
    rest.remove_prefix(8);
    if (rest.ends_with('/')) rest.remove_suffix(1);
  }
  if (rest.find('@') != std::string_view::npos) return Refused(text, "has a user name");
  if (rest.find_first_of("/?#") != std::string_view::npos) return Refused(text, "has a path");

  Endpoint endpoint;
  std::string_view port;
  bool has_port = false;
  if (rest.starts_with('[')) {
    const std::size_t close = rest.find(']');
    if (close == std::string_view::npos || !IsIpv6(rest.substr(1, close - 1))) {
      return Refused(text, "has no valid IPv6 address in its brackets");
    }
    endpoint.host = std::string(rest.substr(1, close - 1));
    const std::string_view after = rest.substr(close + 1);
    if (!after.empty() && after.front() != ':') return Refused(text, "has text after its bracket");
    has_port = !after.empty();
    port = has_port ? after.substr(1) : after;
  } else {
    const std::size_t colon = rest.find(':');
    has_port = colon != std::string_view::npos;
    const std::string_view host = rest.substr(0, colon);
    if (!IsHost(host)) return Refused(text, "has no valid host name");
    endpoint.host = std::string(host);
    if (has_port) port = rest.substr(colon + 1);
  }
  if (has_port) {
    ASSIGN_OR_RETURN(endpoint.port, ParsePort(text, port));
  }
  return endpoint;
}

std::string PercentEncode(std::string_view text) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  std::string encoded;
  encoded.reserve(text.size());
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool unreserved = IsHostByte(c) || c == '~';
    if (unreserved) {
      encoded.push_back(c);
    } else {
      encoded.push_back('%');
      encoded.push_back(kHex[byte >> 4]);
      encoded.push_back(kHex[byte & 0xf]);
    }
  }
  return encoded;
}

}  // namespace latchkey::client
