#include "client/lib/endpoint.h"

#include <catch2/catch.hpp>

namespace latchkey::client {

TEST_CASE("An address is host:port, a host alone, or an https URL", "[client]") {
  const auto [text, host, port] = GENERATE(table<std::string, std::string, int>({
      {"db.example:4445", "db.example", 4445},
      {"localhost", "localhost", kDefaultPort},
      {"127.0.0.1:1", "127.0.0.1", 1},
      {"https://a-b.example:65535", "a-b.example", 65535},
      {"https://a/", "a", kDefaultPort},
      {"[::1]:4444", "::1", 4444},
      {"https://[fe80::1]", "fe80::1", kDefaultPort},
  }));
  CAPTURE(text);
  const auto endpoint = ParseEndpoint(text);
  REQUIRE(endpoint.has_value());
  CHECK(endpoint->host == host);
  CHECK(endpoint->port == port);
}

TEST_CASE("An address that is not one is refused with the form to write", "[client]") {
  const auto text = GENERATE(values<std::string>(
      {"",      ":4444", "http://a:4444", "https://",       "a:0", "a:65536", "a:x",  "a:",
       "a:1:2", "a b",   "user@a",        "https://a/path", "a?x", "a#x",     "[::1", "[::1]4444",
       "[x]:1", "a\nb",  "a\r\nHost: b",  "-\xff"}));
  CAPTURE(text);
  const auto endpoint = ParseEndpoint(text);
  REQUIRE_FALSE(endpoint.has_value());
  CHECK(endpoint.error().code == Errc::kInvalidArgument);
  CHECK(endpoint.error().message.find("host:port") != std::string::npos);
}

TEST_CASE("A URL has IPv6 in brackets", "[client]") {
  CHECK(Endpoint{"::1", 7}.Url() == "https://[::1]:7");
  CHECK(Endpoint{"a", 7}.Url() == "https://a:7");
}

TEST_CASE("A name stays one segment of a path", "[client]") {
  CHECK(PercentEncode("db_pass-word.v1~") == "db_pass-word.v1~");
  CHECK(PercentEncode("../x/y?z#%") == "..%2Fx%2Fy%3Fz%23%25");
  CHECK(PercentEncode(std::string("\0\r\n\xc3", 4)) == "%00%0D%0A%C3");
  CHECK(PercentEncode("a:b+c&d=e") == "a%3Ab%2Bc%26d%3De");
}

}  // namespace latchkey::client
