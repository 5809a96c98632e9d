#include "server/net/response.h"

#include <catch2/catch.hpp>

namespace latchkey::net {
namespace {

std::string Written(const ResponseHead& head) {
  std::string text(HeadBytes(head), '\0');
  CHECK(WriteHead(head, text.data()) == text.data() + text.size());
  return text;
}

}  // namespace

TEST_CASE("An answer's head has the standing headers in their order", "[net]") {
  const Header extra[] = {{"Vary", "Accept-Encoding"}, {"Location", "https://h/x"}};
  ResponseHead head;
  head.status = 201;
  head.date = "Tue, 24 Nov 2026 12:00:00 GMT";
  head.content_type = kJsonType;
  head.headers = extra;
  head.id = {0x0123456789abcdefULL};
  head.content_length = 1234567890123;
  head.connection = ConnectionHeader::kClose;
  CHECK(Written(head) ==
        "HTTP/1.1 201 Created\r\nDate: Tue, 24 Nov 2026 12:00:00 GMT\r\nX-Content-Security-Policy: "
        "default-src 'self'\r\n"
        "X-XSS-Protection: 0\r\nX-Content-Type-Options: nosniff\r\nFrame-Options: "
        "DENY\r\nX-Frame-Options: DENY\r\n"
        "Strict-Transport-Security: max-age=31536000; includeSubDomains\r\nContent-Type: "
        "application/json\r\n"
        "Vary: Accept-Encoding\r\nLocation: https://h/x\r\nX-Request-Id: "
        "0123456789abcdef\r\nContent-Length: 1234567890123\r\n"
        "Connection: close\r\n\r\n");
}

TEST_CASE("An answer without content has no length", "[net]") {
  ResponseHead head;
  head.status = 204;
  CHECK_THAT(Written(head),
             !Catch::Contains("Content-Length") && Catch::Contains("204 No Content"));
}

TEST_CASE("A header that would break the framing is found", "[net]") {
  CHECK(AreSafeHeaders("a/b", std::vector<Header>{{"Location", "https://h/\xc3\xa4"}}));
  CHECK_FALSE(AreSafeHeaders("a/b\r\n", {}));
  using namespace std::string_view_literals;
  for (const Header& bad :
       {Header{"A", "b\r\nC: d"}, Header{"A\n", "b"}, Header{"", "b"}, Header{"A", "b\0"sv}}) {
    CHECK_FALSE(AreSafeHeaders("", std::vector<Header>{bad}));
  }
}

TEST_CASE("The body of a bare error is Keywhiz'", "[net]") {
  CHECK(ErrorBody(404) == R"({"code":404,"message":"HTTP 404 Not Found"})");
}

TEST_CASE("A request id is 16 lower-case hex digits", "[net]") {
  CHECK(FormatRequestId({0xABC}) == "0000000000000abc");
}

}  // namespace latchkey::net
