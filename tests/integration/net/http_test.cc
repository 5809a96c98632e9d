#include <linux/sockios.h>
#include <sys/ioctl.h>

#include "tests/integration/net/fixture.h"

namespace latchkey::net {
namespace {

std::string Get(const std::string& target, const std::string& fields = "") {
  return "GET " + target + " HTTP/1.1\r\nHost: localhost\r\n" + fields + "\r\n";
}

void CheckStandingHeaders(const testing::HttpResponse& response) {
  CHECK(response.header("x-content-security-policy") == "default-src 'self'");
  CHECK(response.header("x-xss-protection") == "0");
  CHECK(response.header("x-content-type-options") == "nosniff");
  CHECK(response.header("frame-options") == "DENY");
  CHECK(response.header("x-frame-options") == "DENY");
  CHECK(response.header("strict-transport-security") == "max-age=31536000; includeSubDomains");
  CHECK(response.header("date").size() == 29);
  CHECK(response.header("x-request-id").size() == 16);
  CHECK(response.headers.count("server") == 0);
}

}  // namespace

TEST_CASE("Loose framing is refused over the wire and the connection ends", "[net][H1]") {
  TestServer test;
  test.Start();
  struct Case {
    const char* what;
    std::string input;
    int status;
  };
  using namespace std::string_literals;
  const std::vector<Case> cases = {
      {"bare LF", "GET / HTTP/1.1\nHost: h\n\n", 400},
      {"no Host", "GET / HTTP/1.1\r\n\r\n", 400},
      {"two Hosts", Get("/", "Host: h\r\n"), 400},
      {"blank before the colon", Get("/", "A : b\r\n"), 400},
      {"folded line", Get("/", "A: b\r\n c\r\n"), 400},
      {"NUL", Get("/", "A: \0\r\n"s), 400},
      {"sloppy Content-Length", Get("/", "Content-Length: 3x\r\n"), 400},
      {"two Content-Lengths", Get("/", "Content-Length: 0\r\nContent-Length: 0\r\n"), 400},
      {"both lengths", Get("/", "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"), 400},
      {"too large a body", Get("/", "Content-Length: 64424509440\r\n"), 413},
      {"too long a target", Get("/" + std::string(2048, 'a')), 414},
      {"20 000 slashes", Get(std::string(20'000, '/')), 414},
      {"compressed body", Get("/", "Content-Encoding: gzip\r\n"), 415},
      {"other expectation", Get("/", "Expect: fast\r\n"), 417},
      {"header of 1 MB", Get("/", "A: " + std::string(1 << 20, 'a') + "\r\n"), 431},
      {"65 fields",
       [] {
         std::string f;
         for (int i = 0; i < 64; ++i) f += "A: b\r\n";
         return Get("/", f);
       }(),
       431},
      {"unknown coding", Get("/", "Transfer-Encoding: gzip\r\n"), 501},
      {"HTTP/2", "GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505},
      {"TLS inside TLS", "\x16\x03\x01\x02\0\x01\n"s, 400}};
  for (const Case& bad : cases) {
    CAPTURE(bad.what);
    testing::TlsClient client = test.Connected();
    client.Send(bad.input);  // a part may not be taken any more
    const auto response = client.Receive();
    CHECK(response.status == bad.status);
    CHECK(response.body == ErrorBody(bad.status));
    CHECK(response.header("connection") == "close");
    CheckStandingHeaders(response);
    CHECK(client.ClosedByPeer());
  }
  CHECK(test.server->stats().framing_refused == cases.size());
  CHECK(test.stage.handled == 0);
  CHECK(test.Connected().Get("/who").status == 200);  // and the next good request works
}

TEST_CASE("A double slash is 404 and an unknown method 405, and the connection stays", "[net]") {
  TestServer test;
  test.Start();
  testing::TlsClient client = test.Connected();
  const auto missing = client.Get("//who");
  CHECK(missing.status == 404);
  CHECK(missing.body == ErrorBody(404));
  CheckStandingHeaders(missing);
  for (const std::string method : {"get", "TRACE", "CONNECT", "PROPFIND"}) {
    REQUIRE(client.Send(method + " /who HTTP/1.1\r\nHost: h\r\n\r\n"));
    const auto response = client.Receive();
    CHECK(response.status == 405);
    CHECK(response.body.empty());
    CHECK(response.headers.count("content-type") == 0);
    CheckStandingHeaders(response);
  }
  CHECK(client.Get("/who").status == 200);
  CHECK(test.stage.handled == 1);
}

TEST_CASE("The header order is Date, the security headers, the rest", "[net]") {
  TestServer test;
  test.Start();
  const auto response = test.Connected().Get("/who");
  CHECK_THAT(response.head, Catch::StartsWith("HTTP/1.1 200 OK\r\nDate: "));
  std::size_t at = 0;
  for (const char* name :
       {"Date", "X-Content-Security-Policy", "X-XSS-Protection", "X-Content-Type-Options",
        "Frame-Options", "X-Frame-Options", "Strict-Transport-Security", "Content-Type",
        "X-Request-Id", "Content-Length"}) {
    const std::size_t found = response.head.find("\r\n" + std::string(name) + ": ");
    CAPTURE(name);
    REQUIRE(found != std::string::npos);
    CHECK(found >= at);
    at = found;
  }
}

TEST_CASE("HEAD is answered with the length of the body and without the body", "[net]") {
  TestServer test;
  test.Start();
  testing::TlsClient client = test.Connected();
  REQUIRE(client.Send("HEAD /big/5000 HTTP/1.1\r\nHost: h\r\n\r\n" + Get("/who")));
  const auto head = client.Receive(true);
  CHECK(head.status == 200);
  CHECK(head.header("content-length") == "5000");
  CHECK(client.Receive().body == "cn=client spiffe=");  // nothing of the first body lies in between
}

TEST_CASE("Connection and version decide whether the connection is kept", "[net]") {
  TestServer test;
  test.Start();
  SECTION("no header in 1.1: kept") {
    testing::TlsClient client = test.Connected();
    CHECK(client.Get("/who").headers.count("connection") == 0);
    CHECK(client.Get("/who").status == 200);
  }
  SECTION("close: answered and closed") {
    testing::TlsClient client = test.Connected();
    REQUIRE(client.Send(Get("/who", "Connection: close\r\n")));
    const auto response = client.Receive();
    CHECK(response.body == "cn=client spiffe=");
    CHECK(response.header("connection") == "close");
    CHECK(client.ClosedByPeer());
    CHECK(client.error() == "eof");  // by close_notify, not by a reset
  }
  SECTION("1.0 without header: closed") {
    testing::TlsClient client = test.Connected();
    REQUIRE(client.Send("GET /who HTTP/1.0\r\n\r\n"));
    CHECK(client.Receive().header("connection") == "close");
    CHECK(client.ClosedByPeer());
  }
  SECTION("1.0 with keep-alive: kept and said so") {
    testing::TlsClient client = test.Connected();
    REQUIRE(client.Send("GET /who HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
    CHECK(client.Receive().header("connection") == "keep-alive");
    CHECK(client.Get("/who").status == 200);
  }
}

TEST_CASE("Pipelined requests are all answered, in order", "[net]") {
  const int count = GENERATE(3, 300);
  TestServer test;
  test.Start();
  testing::TlsClient client = test.Connected();
  std::string requests;
  for (int i = 0; i < count; ++i) requests += Get("/big/" + std::to_string(i + 1));
  REQUIRE(client.Send(requests));
  for (int i = 0; i < count; ++i) {
    const auto response = client.Receive();
    REQUIRE(response.status == 200);
    REQUIRE(response.body.size() == static_cast<std::size_t>(i + 1));
  }
  CHECK(test.stage.commits <= test.stage.handled);
}

TEST_CASE("Deferred answers keep their place among pipelined ones", "[net]") {
  TestServer test;
  test.Start();
  testing::TlsClient client = test.Connected();
  REQUIRE(client.Send(Get("/later/40/a") + Get("/who") + Get("/later/1/b") + Get("/big/70000") +
                      Get("/later/0/c")));
  CHECK(client.Receive().body == "a");
  CHECK(client.Receive().body == "cn=client spiffe=");
  const auto later = client.Receive();
  CHECK(later.body == "b");
  CHECK(later.header("x-latchkey-version") == "7");
  CHECK(later.header("content-type") == "text/plain");
  CheckStandingHeaders(later);
  CHECK(client.Receive().body.size() == 70000);
  CHECK(client.Receive().body == "c");
}

TEST_CASE("Pipelined large answers reach a slow reader whole", "[net]") {
  TestServer test;
  test.Start();
  auto options = test.ClientOptionsFor("client");
  options.receive_buffer_bytes = 4096;
  testing::TlsClient client(options);
  REQUIRE(client.Connect(test.port()));
  std::string requests;
  for (int i = 0; i < 20; ++i) requests += Get("/big/300000");
  REQUIRE(client.Send(requests));
  // Parsing pauses at the backlog limit: while nothing is read, not all of the twenty are handled.
  REQUIRE(Eventually([&] { return test.stage.handled >= 1; }));
  CHECK(test.Connected("other").Get("/who").status == 200);
  CHECK(test.stage.handled < 15);
  for (int i = 0; i < 20; ++i) {
    const auto response = client.Receive();
    REQUIRE(response.status == 200);
    REQUIRE(response.body == std::string(300000, 'b'));
  }
}

TEST_CASE("Four clients that do not read do not keep others waiting", "[net]") {
  TestServer test;
  test.Start();
  std::vector<testing::TlsClient> slow;
  for (int i = 0; i < 4; ++i) {
    auto options = test.ClientOptionsFor("slow");
    options.receive_buffer_bytes = 4096;
    slow.emplace_back(options);
    REQUIRE(slow.back().Connect(test.port()));
    REQUIRE(slow.back().Send(Get("/big/8000000")));
  }
  REQUIRE(Eventually([&] { return test.stage.handled == 4; }));
  for (int i = 0; i < 8; ++i) {
    testing::TlsClient other = test.Connected("other");
    for (int k = 0; k < 50; ++k) REQUIRE(other.Get("/who").status == 200);
  }
}

TEST_CASE("A peer that does not read its answer is cut off", "[net]") {
  TestServer test;
  test.options.reply_stall_timeout = std::chrono::milliseconds(300);
  test.Start();
  auto options = test.ClientOptionsFor("slow");
  options.receive_buffer_bytes = 4096;
  testing::TlsClient client(options);
  REQUIRE(client.Connect(test.port()));
  REQUIRE(client.Send(Get("/big/8000000")));
  CHECK(Eventually([&] { return test.server->stats().stalled_closed == 1; }));
  CHECK(Eventually([&] { return test.server->stats().connections == 0; }));
}

TEST_CASE("A peer that reads too slowly is cut off although it reads", "[net]") {
  TestServer test;
  // More often than the time-out the socket takes something, and never as much as it must.
  test.options.reply_stall_timeout = std::chrono::milliseconds(1500);
  test.options.min_reply_progress_bytes = 100'000'000;
  test.Start();
  auto options = test.ClientOptionsFor("slow");
  options.receive_buffer_bytes = 4096;
  testing::TlsClient client(options);
  REQUIRE(client.Connect(test.port()));
  REQUIRE(client.Send(Get("/big/8000000")));
  std::size_t taken = 0;
  while (test.server->stats().stalled_closed == 0) {
    const std::string some = client.ReceiveSome(16 * 1024);
    if (some.empty()) break;
    taken += some.size();
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  CHECK(Eventually([&] { return test.server->stats().stalled_closed == 1; }));
  CHECK(taken < 8'000'000);
}

TEST_CASE("Who does not take its answers gets no more of them, and others do (H0)", "[net]") {
  TestServer test;
  test.options.max_waiting_reply_bytes_per_identity = 1'000'000;
  test.Start();
  auto options = test.ClientOptionsFor("slow");
  options.receive_buffer_bytes = 4096;
  testing::TlsClient stuck(options);
  REQUIRE(stuck.Connect(test.port()));
  REQUIRE(stuck.Send(Get("/big/8000000")));
  const auto ask = [&](const std::string& name) {
    testing::TlsClient client = test.Connected(name);
    return client.Get("/who").status;
  };
  CHECK(Eventually([&] { return ask("slow") == 503; }));
  CHECK(test.server->stats().replies_overloaded >= 1);
  CHECK(ask("other") == 200);
  stuck.Close();
  CHECK(Eventually([&] { return ask("slow") == 200; }));
}

TEST_CASE("Large answers that all are asked for at one moment share the limit too (H0)", "[net]") {
  TestServer test;
  test.options.workers = 1;
  test.options.max_waiting_reply_bytes_per_identity = 1'000'000;
  test.Start();
  auto options = test.ClientOptionsFor("slow");
  options.receive_buffer_bytes = 4096;
  std::vector<testing::TlsClient> stuck;
  for (int i = 0; i < 12; ++i) {
    stuck.emplace_back(options);
    REQUIRE(stuck.back().Connect(test.port()));
  }
  // The worker stands still, so that it finds all the others' requests in one wake-up.
  testing::TlsClient gate = test.Connected("gate");
  REQUIRE(gate.Send(Get("/gate")));
  REQUIRE(Eventually([&] { return test.stage.handled == 1; }));
  for (auto& client : stuck) REQUIRE(client.Send(Get("/big/8000000")));
  test.stage.OpenGate();
  CHECK(gate.Receive().status == 204);
  CHECK(test.Connected("other").Get("/who").status == 200);
  CHECK(Eventually([&] { return test.server->stats().replies_overloaded == 11; }));
  CHECK(test.stage.handled == 3);
}

TEST_CASE("Bodies arrive whole by length and by chunks, whatever the pieces", "[net]") {
  TestServer test;
  test.Start();
  testing::TlsClient client = test.Connected();
  SECTION("by length, in pieces") {
    REQUIRE(
        client.Send("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Type: "
                    "application/json\r\nContent-Length: 10\r\n\r\n01"));
    REQUIRE(client.Send("234567"));
    REQUIRE(client.Send("89"));
    const auto response = client.Receive();
    CHECK(response.body == "0123456789");
    CHECK(response.header("x-type") == "application/json");
  }
  SECTION("chunked, the last line end split") {
    REQUIRE(client.Send(
        "PUT /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r"));
    REQUIRE(client.Send("\n"));
    CHECK(client.Receive().body == "abc");
    REQUIRE(client.Send(
        "PUT /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"));
    REQUIRE(client.Send("\r\n" + Get("/who")));
    CHECK(client.Receive().body == "x");
  }
  SECTION("a large one, with the next request behind it") {
    const std::string body(400'000, 'z');
    REQUIRE(client.Send("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 400000\r\n\r\n" + body +
                        Get("/who")));
    CHECK(client.Receive().body == body);
  }
  SECTION("an empty chunked one") {
    REQUIRE(client.Send(
        "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"));
    const auto response = client.Receive();
    CHECK(response.status == 200);
    CHECK(response.body.empty());
    REQUIRE(client.Send(Get("/who")));
  }
  SECTION("DELETE with a body") {
    REQUIRE(client.Send("DELETE /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nok"));
    CHECK(client.Receive().body == "ok");
  }
  CHECK(client.Get("/who").status == 200);
  CHECK(test.server->stats().body_bytes_in_flight == 0);
}

TEST_CASE("A body after 100-continue, and one that is refused before it is sent", "[net]") {
  TestServer test;
  test.options.framer.max_body_bytes = 100;
  test.Start();
  testing::TlsClient client = test.Connected();
  REQUIRE(client.Send(
      Get("/who") +
      "POST /echo HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"));
  CHECK(client.Receive().status == 200);
  CHECK(client.Receive(true).status == 100);
  REQUIRE(client.Send("body"));
  CHECK(client.Receive().body == "body");
  REQUIRE(client.Send(
      "POST /echo HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 101\r\n\r\n"));
  CHECK(client.Receive().status == 413);
  CHECK(client.ClosedByPeer());
}

TEST_CASE("A refusal in the middle of a large upload reaches the client", "[net]") {
  TestServer test;
  test.options.framer.max_body_bytes = 1000;
  test.Start();
  testing::TlsClient client = test.Connected();
  client.Send("POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n10000\r\n" +
              std::string(0x10000, 'a') + "\r\n");
  CHECK(client.Receive().status == 413);
}

TEST_CASE("A refusal reaches a client that sends on faster than the server reads", "[net]") {
  TestServer test;
  test.options.framer.max_body_bytes = 1000;
  test.options.workers = 1;
  test.Start();
  testing::TlsClient other = test.Connected("other");
  REQUIRE(other.Send(Get("/gate")));
  REQUIRE(Eventually([&] { return test.stage.handled == 1; }));
  testing::TlsClient client = test.Connected("uploader");
  const std::string upload =
      "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n400000\r\n" +
      std::string(0x400000, 'a') + "\r\n0\r\n\r\n";
  bool sent = false;
  std::jthread sender([&] { sent = client.Send(upload); });
  // More lies ready than the worker reads in one turn.
  CHECK(Eventually([&] {
    int unsent_bytes = 0;
    return ::ioctl(client.fd(), SIOCOUTQ, &unsent_bytes) == 0 && unsent_bytes > 1'000'000;
  }));
  test.stage.OpenGate();
  sender.join();
  CHECK(sent);
  CHECK(client.Receive().status == 413);
  CHECK(client.ClosedByPeer());
}

TEST_CASE("A refused peer that sends on without end is cut off", "[net]") {
  TestServer test;
  test.options.framer.max_body_bytes = 1000;
  test.Start();
  testing::TlsClient client = test.Connected();
  REQUIRE(client.Send("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 1001\r\n\r\n"));
  const std::string megabyte(1024 * 1024, 'a');
  constexpr std::size_t kFarTooMany = 4 * limits::kMaxSwallowedBytes;
  std::size_t sent_bytes = 0;
  while (sent_bytes < kFarTooMany && client.SendRaw(megabyte)) sent_bytes += megabyte.size();
  CHECK(sent_bytes < kFarTooMany);
  CHECK(Eventually([&] { return test.server->stats().connections == 0; }));
}

TEST_CASE("Bodies of all connections together have a limit", "[net]") {
  TestServer test;
  test.options.max_bodies_in_flight_bytes = 100'000;
  test.Start();
  testing::TlsClient first = test.Connected("first");
  REQUIRE(first.Send("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 90000\r\n\r\n" +
                     std::string(60'000, 'a')));
  REQUIRE(Eventually([&] { return test.server->stats().body_bytes_in_flight >= 60'000; }));
  testing::TlsClient second = test.Connected("second");
  second.Send("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 90000\r\n\r\n" +
              std::string(80'000, 'a'));
  const auto refused = second.Receive();
  CHECK(refused.status == 503);
  CHECK(refused.header("retry-after") == "1");
  first.Close();
  CHECK(Eventually([&] { return test.server->stats().body_bytes_in_flight == 0; }));
}

TEST_CASE("The bodies of one identity leave room for those of others (H0)", "[net]") {
  TestServer test;
  test.options.max_bodies_in_flight_bytes = 400'000;
  test.options.max_bodies_in_flight_bytes_per_identity = 100'000;
  test.Start();
  const std::string head = "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 90000\r\n\r\n";
  testing::TlsClient first = test.Connected("greedy");
  REQUIRE(first.Send(head + std::string(60'000, 'a')));
  REQUIRE(Eventually([&] { return test.server->stats().body_bytes_in_flight >= 60'000; }));
  testing::TlsClient second = test.Connected("greedy");
  second.Send(head + std::string(80'000, 'a'));
  const auto refused = second.Receive();
  CHECK(refused.status == 503);
  CHECK(refused.header("retry-after") == "1");
  testing::TlsClient other = test.Connected("other");
  REQUIRE(other.Send(head + std::string(90'000, 'b')));
  CHECK(other.Receive().body == std::string(90'000, 'b'));
  // What the first one held comes back to its identity with the connection.
  first.Close();
  REQUIRE(Eventually([&] { return test.server->stats().body_bytes_in_flight == 0; }));
  testing::TlsClient third = test.Connected("greedy");
  REQUIRE(third.Send(head + std::string(90'000, 'c')));
  CHECK(third.Receive().body == std::string(90'000, 'c'));
}

TEST_CASE("A body that takes more room than it grew to is counted once", "[net]") {
  TestServer test;
  test.options.framer.max_body_bytes = 300'000;
  test.options.max_bodies_in_flight_bytes_per_identity = 300'000;
  test.Start();
  testing::TlsClient client = test.Connected();
  REQUIRE(client.Send("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 300000\r\n\r\n" +
                      std::string(300'000, 'a')));
  CHECK(client.Receive().body.size() == 300'000);
}

TEST_CASE("Who shows no certificate may send little (H0)", "[net]") {
  TestServer test;
  test.trust.require_client_certificate = false;
  test.options.max_stranger_body_bytes = 1000;
  test.Start();
  testing::ClientOptions options;
  options.ca_pem = test.server_ca.certificate_pem();
  const std::string post = "POST /echo HTTP/1.1\r\nHost: h\r\n";
  const auto answer = [&](const std::string& request) {
    testing::TlsClient client(options);
    REQUIRE(client.Connect(test.port()));
    client.Send(request);
    return client.Receive().status;
  };
  CHECK(answer(post + "Content-Length: 1000\r\n\r\n" + std::string(1000, 'a')) == 200);
  CHECK(answer(post + "Content-Length: 1001\r\n\r\n") == 413);
  CHECK(answer(post + "Transfer-Encoding: chunked\r\n\r\n3e9\r\n" + std::string(1001, 'a') +
               "\r\n0\r\n\r\n") == 413);
  testing::TlsClient known = test.Connected();
  REQUIRE(known.Send(post + "Content-Length: 1001\r\n\r\n" + std::string(1001, 'a')));
  CHECK(known.Receive().status == 200);
}

TEST_CASE("Nothing is answered when the audit record could not be written", "[net][A1][A2]") {
  TestServer test;
  test.Start();
  testing::TlsClient client = test.Connected();
  test.stage.audit_works = false;
  REQUIRE(client.Send(Get("/big/3000") + "HEAD /big/3000 HTTP/1.1\r\nHost: h\r\n\r\n" +
                      Get("/big/10")));
  for (const bool head : {false, true, false}) {
    const auto response = client.Receive(head);
    CHECK(response.status == 503);
    CHECK(response.header("retry-after") == "1");
    CHECK(response.header("x-request-id").size() == 16);
    if (!head) CHECK(response.body == R"({"code":503,"message":"audit_unavailable"})");
  }
  test.stage.audit_works = true;
  CHECK(client.Get("/big/10").body == "bbbbbbbbbb");
  CHECK(test.server->stats().batches_unaudited >= 1);
}

TEST_CASE("A handler that misbehaves costs its own request only", "[net]") {
  TestServer test;
  test.Start();
  testing::TlsClient client = test.Connected();
  SECTION("no answer") {
    const auto response = client.Get("/silent");
    CHECK(response.status == 500);
    CHECK(response.body == ErrorBody(500));
    CHECK(test.server->stats().handler_silent == 1);
  }
  SECTION("begun twice: the second counts") {
    CHECK(client.Get("/twice").body == "second");
  }
  SECTION("a header with a line break") {
    const auto response = client.Get("/inject");
    CHECK(response.status == 500);
    CHECK(response.headers.count("x-injected") == 0);
  }
  SECTION("a deferred reply that is dropped") {
    CHECK(client.Get("/forget").status == 500);
  }
  SECTION("begun and then deferred: the deferred one counts") {
    REQUIRE(client.Send(Get("/both")));
    const auto reply = test.stage.WaitForHeld();
    REQUIRE(reply != nullptr);
    reply->Complete({.status = 200, .headers = {}, .body = "later"});
    reply->Complete({.status = 200, .headers = {}, .body = "again"});
    CHECK(client.Receive().body == "later");
  }
  SECTION("204") {
    const auto response = client.Get("/empty");
    CHECK(response.status == 204);
    CHECK(response.headers.count("content-length") == 0);
  }
  CHECK(client.Get("/who").status == 200);
}

TEST_CASE("A waiting request learns that its peer has gone", "[net]") {
  TestServer test;
  test.Start();
  testing::TlsClient client = test.Connected();
  REQUIRE(client.Send(Get("/hold")));
  const auto reply = test.stage.WaitForHeld();
  REQUIRE(reply != nullptr);
  CHECK(reply->Alive());
  client.Close();
  CHECK(Eventually([&] { return !reply->Alive(); }));
  reply->Complete({.status = 200, .headers = {}, .body = "too late"});
  CHECK(Eventually([&] { return test.server->stats().connections == 0; }));
}

TEST_CASE("A half-close that comes with the request is answered and then closed", "[net]") {
  TestServer test;
  test.Start();
  const bool deferred = GENERATE(false, true);
  testing::TlsClient client = test.Connected();
  REQUIRE(client.Send(Get(deferred ? "/later/20/x" : "/big/200")));
  client.HalfClose();
  CHECK(client.Receive().status == 200);
  CHECK(client.ClosedByPeer());
  CHECK(Eventually([&] { return test.server->stats().connections == 0; }));
}

TEST_CASE("Answers never cross connections, though descriptors are reused and answers are late",
          "[net]") {
  TestServer test;
  test.options.workers = 2;
  test.Start();
  std::atomic<int> wrong{0};
  std::atomic<int> right{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      const auto options = test.ClientOptionsFor("client" + std::to_string(t));
      for (int i = 0; i < 60; ++i) {
        testing::TlsClient client(options);
        if (!client.Connect(test.port())) continue;
        const std::string mine = std::to_string(t) + "-" + std::to_string(i);
        client.Send(Get("/later/10/" + mine));
        if (i % 2 == 0)
          continue;  // gone before the answer: its descriptor is free for the next one
        const auto response = client.Receive();
        (response.body == mine ? right : wrong)++;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(wrong == 0);
  CHECK(right == 4 * 30);
}

}  // namespace latchkey::net
