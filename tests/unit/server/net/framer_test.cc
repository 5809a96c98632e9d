#include "server/net/framer.h"

#include <catch2/catch.hpp>

namespace latchkey::net {
namespace {

struct Framed {
  int status = kNeedMore;
  RequestHead head;
  std::string body;
  std::size_t consumed_bytes = 0;
};

// Frames one request out of `input`, handing the body over in pieces of `piece_bytes`.
Framed Frame(std::string_view input, std::size_t piece_bytes = 1 << 20,
             const FramerLimits& limits = {}) {
  Framed framed;
  std::size_t scanned = 0;
  framed.status = ParseHead(input, limits, &scanned, &framed.head);
  if (framed.status != kComplete) return framed;
  framed.consumed_bytes = framed.head.head_bytes;
  BodyDecoder decoder(framed.head, limits);
  for (;;) {
    const auto step = decoder.Next(input.substr(framed.consumed_bytes, piece_bytes));
    framed.body.append(step.data);
    framed.consumed_bytes += step.consumed_bytes;
    framed.status = step.status;
    if (step.status != kNeedMore || step.consumed_bytes == 0) return framed;
  }
}

int StatusOf(std::string_view input) {
  return Frame(input).status;
}

std::string Get(std::string_view extra_fields) {
  return "GET /secrets HTTP/1.1\r\nHost: h\r\n" + std::string(extra_fields) + "\r\n";
}
std::string Post(std::string_view fields, std::string_view body) {
  return "POST /x HTTP/1.1\r\nHost: h\r\n" + std::string(fields) + "\r\n" + std::string(body);
}

}  // namespace

TEST_CASE("A plain request is framed and its fields are found", "[net]") {
  const std::string input =
      "GET /secret/a?b=c//d HTTP/1.1\r\nHOST: [::1]:4444\r\naccept:  application/json "
      "\r\nUser-Agent: x\r\n"
      "X-Forwarded-Client-Cert: a\r\n\r\nGET";
  const Framed framed = Frame(input);
  REQUIRE(framed.status == kComplete);
  CHECK(framed.consumed_bytes == input.size() - 3);
  CHECK(framed.head.method == Method::kGet);
  CHECK(framed.head.target == "/secret/a?b=c//d");
  CHECK_FALSE(framed.head.double_slash);
  CHECK(framed.head.host == "[::1]:4444");
  CHECK(framed.head.accept() == "application/json");
  CHECK(framed.head.forwarded_identity_count == 1);
  CHECK(framed.head.keep_alive);
  CHECK_FALSE(framed.head.has_body());
}

TEST_CASE("Methods are case-sensitive and unknown ones are still framed", "[net]") {
  CHECK(Frame("DELETE / HTTP/1.1\r\nHost: h\r\n\r\n").head.method == Method::kDelete);
  const std::string name = GENERATE(as<std::string>{}, "get", "TRACE", "CONNECT", "BREW", "GETT");
  const Framed framed = Frame(name + " / HTTP/1.1\r\nHost: h\r\n\r\n");
  CHECK(framed.status == kComplete);
  CHECK(framed.head.method == Method::kOther);
}

TEST_CASE("A head that trickles in gives the same result as one that comes at once", "[net]") {
  const std::string input = Get("Accept: a/b\r\nAccept: c/d\r\n") + "rest";
  std::size_t scanned = 0;
  RequestHead head;
  for (std::size_t size = 0; size < input.size() - 4; ++size) {
    REQUIRE(ParseHead(std::string_view(input).substr(0, size), {}, &scanned, &head) == kNeedMore);
  }
  REQUIRE(ParseHead(input, {}, &scanned, &head) == kComplete);
  CHECK(head.head_bytes == input.size() - 4);
  CHECK(head.accept() == "a/b, c/d");
}

TEST_CASE("Loose framing is refused with the status of the rule", "[net][H1]") {
  struct Case {
    const char* what;
    std::string input;
    int status;
  };
  using namespace std::string_literals;
  const auto bad = GENERATE(
      Case{"bare LF after the request line", "GET / HTTP/1.1\nHost: h\r\n\r\n", 400},
      Case{"bare LF in the fields", "GET / HTTP/1.1\r\nHost: h\n\r\n", 400},
      Case{"bare CR in a value", Get("A: b\rc\r\n"), 400},
      Case{"empty line first", "\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      Case{"no version", "GET /\r\n\r\n", 400},
      Case{"two blanks", "GET  / HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      Case{"blank at the end of the line", "GET / HTTP/1.1 \r\nHost: h\r\n\r\n", 400},
      Case{"tab in the line", "GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      Case{"lower-case version", "GET / http/1.1\r\nHost: h\r\n\r\n", 400},
      Case{"HTTP/2.0", "GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505},
      Case{"HTTP/0.9", "GET / HTTP/0.9\r\nHost: h\r\n\r\n", 505},
      Case{"target without slash", "GET x HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      Case{"absolute target", "GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      Case{"star target", "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      Case{"fragment", "GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      Case{"NUL in the target", "GET /a\0b HTTP/1.1\r\nHost: h\r\n\r\n"s, 400},
      Case{"UTF-8 in the target", "GET /\xc3\xa4 HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      Case{"control byte in the method", "G\x01T / HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      Case{"no Host", "GET / HTTP/1.1\r\n\r\n", 400}, Case{"two Hosts", Get("Host: h\r\n"), 400},
      Case{"empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", 400},
      Case{"Host with user", "GET / HTTP/1.1\r\nHost: u@h\r\n\r\n", 400},
      Case{"Host with slash", "GET / HTTP/1.1\r\nHost: h/x\r\n\r\n", 400},
      Case{"Host with blank", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400},
      Case{"blank before the colon", Get("A : b\r\n"), 400},
      Case{"folded line", Get("A: b\r\n c\r\n"), 400},
      Case{"folded first field", "GET / HTTP/1.1\r\n Host: h\r\n\r\n", 400},
      Case{"no colon", Get("A\r\n"), 400}, Case{"empty name", Get(": b\r\n"), 400},
      Case{"NUL in a value", Get("A: b\0c\r\n"s), 400},
      Case{"DEL in a value", Get("A: \x7f\r\n"), 400},
      Case{"two Content-Lengths", Post("Content-Length: 1\r\nContent-Length: 1\r\n", "x"), 400},
      Case{"Content-Length with a letter", Post("Content-Length: 3x\r\n", "abc"), 400},
      Case{"Content-Length with a sign", Post("Content-Length: +3\r\n", "abc"), 400},
      Case{"negative Content-Length", Post("Content-Length: -1\r\n", ""), 400},
      Case{"list of Content-Lengths", Post("Content-Length: 3, 3\r\n", "abc"), 400},
      Case{"empty Content-Length", Post("Content-Length:\r\n", ""), 400},
      Case{"hexadecimal Content-Length", Post("Content-Length: 0x3\r\n", "abc"), 400},
      Case{"huge Content-Length", Post("Content-Length: 99999999999999999999999\r\n", ""), 413},
      Case{"Content-Length of 60 GB", Post("Content-Length: 64424509440\r\n", ""), 413},
      Case{"both kinds of length",
           Post("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400},
      Case{"chunked twice",
           Post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400},
      Case{"gzip, chunked", Post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), 501},
      Case{"identity coding", Post("Transfer-Encoding: identity\r\n", ""), 501},
      Case{"chunked in HTTP/1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
           400},
      Case{"other expectation", Post("Expect: 200-ok\r\n", ""), 417},
      Case{"compressed request", Post("Content-Encoding: gzip\r\nContent-Length: 1\r\n", "x"), 415},
      Case{"two Content-Types", Post("Content-Type: a/b\r\nContent-Type: a/b\r\n", ""), 400});
  CAPTURE(bad.what);
  CHECK(StatusOf(bad.input) == bad.status);
}

TEST_CASE("Each limit of the head is met and its neighbour refused", "[net]") {
  const FramerLimits limits;
  const auto with_target = [](std::size_t size_bytes) {
    return "GET /" + std::string(size_bytes - 1, 'a') + " HTTP/1.1\r\nHost: h\r\n\r\n";
  };
  CHECK(StatusOf(with_target(limits.max_target_bytes)) == kComplete);
  CHECK(StatusOf(with_target(limits.max_target_bytes + 1)) == 414);
  CHECK(StatusOf("GET /" + std::string(limits.max_head_bytes, 'a')) == 414);
  const auto with_head = [](std::size_t size_bytes) {
    return Get("A: " + std::string(size_bytes - Get("A: \r\n").size(), 'a') + "\r\n");
  };
  REQUIRE(with_head(limits.max_head_bytes).size() == limits.max_head_bytes);
  CHECK(StatusOf(with_head(limits.max_head_bytes)) == kComplete);
  CHECK(StatusOf(with_head(limits.max_head_bytes + 1)) == 431);
  CHECK(StatusOf(with_head(1 << 20)) == 431);
  std::string fields;
  for (std::size_t i = 1; i < limits.max_header_fields; ++i) fields += "A: b\r\n";
  CHECK(StatusOf(Get(fields)) == kComplete);
  CHECK(StatusOf(Get(fields + "A: b\r\n")) == 431);
}

TEST_CASE("A path with 20 000 slashes is only too long, and a double slash is seen", "[net]") {
  CHECK(StatusOf("GET " + std::string(20'000, '/') + " HTTP/1.1\r\nHost: h\r\n\r\n") == 414);
  CHECK(Frame("GET //a HTTP/1.1\r\nHost: h\r\n\r\n").head.double_slash);
  CHECK(Frame("GET /a//b?c HTTP/1.1\r\nHost: h\r\n\r\n").head.double_slash);
}

TEST_CASE("A body is cut out by its length, whatever the pieces", "[net]") {
  const std::size_t piece = GENERATE(1, 2, 3, 1000);
  const Framed framed = Frame(Post("Content-Length: 005\r\n", "hellonext"), piece);
  REQUIRE(framed.status == kComplete);
  CHECK(framed.body == "hello");
  CHECK(framed.consumed_bytes == Post("Content-Length: 005\r\n", "hello").size());
  CHECK(StatusOf(Post("Content-Length: 5\r\n", "hell")) == kNeedMore);
}

TEST_CASE("A chunked body is decoded whatever the pieces", "[net]") {
  const std::size_t piece = GENERATE(1, 2, 3, 4, 5, 1000);
  const std::string body = "3\r\nabc\r\n0A\r\n0123456789\r\n00\r\n\r\n";
  const Framed framed = Frame(Post("Transfer-Encoding: Chunked\r\n", body + "GET /"), piece);
  REQUIRE(framed.status == kComplete);
  CHECK(framed.body == "abc0123456789");
  CHECK(framed.consumed_bytes == Post("Transfer-Encoding: Chunked\r\n", body).size());
}

TEST_CASE("Loose chunk framing is refused", "[net][H1]") {
  const std::string body = GENERATE(
      as<std::string>{}, "3;a=b\r\nabc\r\n0\r\n\r\n", "3 \r\nabc\r\n0\r\n\r\n", "\r\n", "g\r\n",
      "-1\r\n", "0x3\r\n", "000000003\r\n", "3\nabc\r\n0\r\n\r\n", "3\r\nabcd\r\n0\r\n\r\n",
      "3\r\nabc\n0\r\n\r\n", "0\r\nTrailer: x\r\n\r\n", "0\r\n\n", "3\r\nabcX\r\n");
  const std::size_t piece = GENERATE(1, 1000);
  CAPTURE(body);
  CHECK(Frame(Post("Transfer-Encoding: chunked\r\n", body), piece).status == 400);
}

TEST_CASE("A body at the limit is taken and one byte more refused", "[net]") {
  FramerLimits limits;
  limits.max_body_bytes = 10;
  CHECK(Frame(Post("Content-Length: 10\r\n", "0123456789"), 100, limits).status == kComplete);
  CHECK(Frame(Post("Content-Length: 11\r\n", ""), 100, limits).status == 413);
  const std::string chunked = "Transfer-Encoding: chunked\r\n";
  CHECK(Frame(Post(chunked, "5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n"), 100, limits).status ==
        kComplete);
  CHECK(Frame(Post(chunked, "5\r\n01234\r\n6\r\n567890\r\n0\r\n\r\n"), 100, limits).status == 413);
  CHECK(Frame(Post(chunked, "ffffffff\r\n"), 100, limits).status == 413);
}

TEST_CASE("Connection and version decide whether the connection is kept", "[net]") {
  CHECK(Frame(Get("")).head.keep_alive);
  CHECK_FALSE(Frame(Get("Connection: close\r\n")).head.keep_alive);
  CHECK_FALSE(Frame(Get("Connection: keep-alive, CLOSE\r\n")).head.keep_alive);
  CHECK_FALSE(Frame(Get("Connection: close\r\nConnection: keep-alive\r\n")).head.keep_alive);
  CHECK(Frame(Get("Connection: closed\r\n")).head.keep_alive);
  CHECK_FALSE(Frame("GET / HTTP/1.0\r\n\r\n").head.keep_alive);
  CHECK(Frame("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").head.keep_alive);
}

}  // namespace latchkey::net
