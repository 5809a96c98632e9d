#include <sys/resource.h>

#include "tests/integration/net/fixture.h"

namespace latchkey::net {
namespace {

using std::chrono::milliseconds;

std::string Get(const std::string& target) {
  return "GET " + target + " HTTP/1.1\r\nHost: localhost\r\n\r\n";
}

}  // namespace

TEST_CASE("Silent and trickling TLS clients are closed and keep nobody waiting", "[net]") {
  TestServer test;
  test.options.handshake_timeout = milliseconds(2000);
  test.options.acceptors = 1;
  test.Start();
  // Their keys are made first: all are to be connected at once, before the first runs out of time.
  std::vector<testing::TlsClient> silent;
  for (int i = 0; i < 30; ++i) silent.push_back(test.Client());
  testing::TlsClient trickling = test.Client();
  for (auto& client : silent) REQUIRE(client.ConnectTcp(test.port()));
  REQUIRE(trickling.ConnectTcp(test.port()));
  REQUIRE(trickling.SendRaw("\x16\x03"));
  REQUIRE(Eventually([&] { return test.server->stats().handshakes_in_flight == 31; }));
  CHECK(test.Connected("good").Get("/who").status == 200);
  trickling.SendRaw("\x01");
  for (auto& client : silent) CHECK(client.ClosedByPeer());
  CHECK(trickling.ClosedByPeer());
  CHECK(test.server->stats().handshakes_timed_out == 31);
  CHECK(Eventually([&] { return test.server->stats().handshakes_in_flight == 0; }));
}

TEST_CASE("Over the limit of handshakes the one that waits longest is closed, never the new one",
          "[net]") {
  TestServer test;
  const bool per_address = GENERATE(false, true);
  (per_address ? test.options.max_handshakes_per_address : test.options.max_handshakes) = 4;
  test.options.acceptors = GENERATE(1, 2);
  test.Start();
  std::vector<testing::TlsClient> silent;
  for (int i = 0; i < 8; ++i) {
    silent.push_back(test.Client());
    REQUIRE(silent.back().ConnectTcp(test.port()));
    REQUIRE(Eventually(
        [&] { return test.server->stats().accepted == static_cast<std::uint64_t>(i + 1); }));
  }
  for (int i = 0; i < 4; ++i) CHECK(silent[static_cast<std::size_t>(i)].ClosedByPeer());
  CHECK(test.Connected("good").Get("/who").status == 200);  // displaces the fifth
  CHECK(silent[4].ClosedByPeer());
  for (std::size_t i = 5; i < 8; ++i) CHECK(silent[i].Handshake());
  CHECK(test.server->stats().handshakes_displaced == 5);
}

TEST_CASE("Over the limit of connections the new one is refused", "[net]") {
  TestServer test;
  test.options.max_connections = 2;
  test.Start();
  testing::TlsClient first = test.Connected("one");
  testing::TlsClient second = test.Connected("two");
  testing::TlsClient third = test.Client("three");
  CHECK_FALSE(third.Connect(test.port()));
  CHECK(first.Get("/who").status == 200);
  CHECK(second.Get("/who").status == 200);
  CHECK(test.server->stats().connections_refused == 1);
  first.Close();
  REQUIRE(Eventually([&] { return test.server->stats().connections == 1; }));
  CHECK(test.Connected("four").Get("/who").status == 200);
}

TEST_CASE("At an identity's limit its longest idle connection makes room, and nobody else's",
          "[net]") {
  TestServer test;
  test.options.max_connections_per_identity = 3;
  test.Start();
  testing::TlsClient other = test.Connected("other");
  REQUIRE(other.Get("/who").status == 200);
  const auto options = test.ClientOptionsFor("client");
  std::vector<testing::TlsClient> mine;
  for (int i = 0; i < 3; ++i) {
    mine.emplace_back(options);
    REQUIRE(mine.back().Connect(test.port()));
    REQUIRE(mine.back().Get("/who").status == 200);
    std::this_thread::sleep_for(milliseconds(20));  // the clock of activity is coarse
  }
  REQUIRE(mine[0].Get("/who").status == 200);  // now the second is the longest idle
  testing::TlsClient fourth(options);
  REQUIRE(fourth.Connect(test.port()));
  CHECK(fourth.Get("/who").status == 200);
  CHECK(mine[1].ClosedByPeer());
  CHECK(mine[0].Get("/who").status == 200);
  CHECK(mine[2].Get("/who").status == 200);
  CHECK(other.Get("/who").status == 200);
  CHECK(test.server->stats().identity_displaced == 1);
}

TEST_CASE("A refused connection that sends on still counts and makes room (H0)", "[net]") {
  TestServer test;
  test.options.max_connections_per_identity = 2;
  test.Start();
  const auto options = test.ClientOptionsFor("client");
  std::vector<testing::TlsClient> mine;
  for (int i = 0; i < 5; ++i) {
    mine.emplace_back(options);
    REQUIRE(mine.back().Connect(test.port()));
    REQUIRE(mine.back().Send("BAD\r\n\r\n"));
    CHECK(mine.back().Receive().status == 400);
    for (testing::TlsClient& client : mine) client.SendRaw("a");
  }
  CHECK(Eventually([&] {
    for (testing::TlsClient& client : mine) client.SendRaw("a");
    return test.server->stats().connections <= 2;
  }));
  CHECK(test.server->stats().identity_displaced == 3);
}

TEST_CASE("Who shows no certificate waits until those who do had their turn (H0)", "[net]") {
  TestServer test;
  test.options.workers = 1;
  test.Start();
  testing::TlsClient gate = test.Connected("gate");
  testing::TlsClient stranger;
  REQUIRE(stranger.Connect(test.port()));
  REQUIRE(stranger.Get("/who").status == 200);
  testing::TlsClient client = test.Connected("client");
  REQUIRE(client.Get("/who").status == 200);
  REQUIRE(gate.Send(Get("/gate")));
  REQUIRE(Eventually([&] { return test.stage.handled == 3; }));
  REQUIRE(stranger.Send(Get("/host/first")));
  REQUIRE(client.Send(Get("/host/second")));
  test.stage.OpenGate();
  CHECK(client.Receive().status == 200);
  CHECK(stranger.Receive().status == 200);
  const std::lock_guard lock(test.stage.mutex);
  CHECK(test.stage.targets ==
        std::vector<std::string>{"/who", "/who", "/gate", "/host/second", "/host/first"});
}

TEST_CASE("A connection with a waiting request is not taken while an idle one exists", "[net]") {
  TestServer test;
  test.options.max_connections_per_identity = 2;
  test.Start();
  const auto options = test.ClientOptionsFor("client");
  testing::TlsClient waiting(options);
  REQUIRE(waiting.Connect(test.port()));
  REQUIRE(waiting.Send(Get("/hold")));
  const auto reply = test.stage.WaitForHeld();
  testing::TlsClient idle(options);
  REQUIRE(idle.Connect(test.port()));
  REQUIRE(idle.Get("/who").status == 200);
  testing::TlsClient third(options);
  REQUIRE(third.Connect(test.port()));
  CHECK(third.Get("/who").status == 200);
  CHECK(idle.ClosedByPeer());
  reply->Complete({.status = 200, .headers = {}, .body = "x"});
  CHECK(waiting.Receive().body == "x");
}

TEST_CASE("A head that does not come to an end is answered 408, on every request", "[net]") {
  TestServer test;
  test.options.head_timeout = milliseconds(300);
  test.Start();
  testing::TlsClient client = test.Connected();
  if (GENERATE(false, true)) REQUIRE(client.Get("/who").status == 200);
  REQUIRE(client.Send("GET /who HTTP/1.1\r\nHo"));
  const auto response = client.Receive();
  CHECK(response.status == 408);
  CHECK(response.header("connection") == "close");
  CHECK(client.ClosedByPeer());
  CHECK(test.server->stats().timed_out == 1);
}

TEST_CASE("A body that does not come to an end is answered 408", "[net]") {
  TestServer test;
  test.options.body_timeout = milliseconds(300);
  test.Start();
  testing::TlsClient client = test.Connected();
  REQUIRE(client.Send("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc"));
  CHECK(client.Receive().status == 408);
  CHECK(client.ClosedByPeer());
}

TEST_CASE("An idle connection is closed without an answer", "[net]") {
  TestServer test;
  test.options.keep_alive_idle = milliseconds(300);
  test.Start();
  testing::TlsClient client = test.Connected();
  REQUIRE(client.Get("/who").status == 200);
  CHECK(client.ClosedByPeer());
  CHECK(client.error() == "eof");
  CHECK(test.server->stats().idle_closed == 1);
}

TEST_CASE("A waiting request is not idle", "[net]") {
  TestServer test;
  test.options.keep_alive_idle = milliseconds(100);
  test.options.head_timeout = milliseconds(100);
  test.Start();
  testing::TlsClient client = test.Connected();
  CHECK(client.Get("/later/900/x").body == "x");
}

TEST_CASE("An old connection is told to close with its next answer", "[net]") {
  TestServer test;
  test.options.max_connection_age = milliseconds(400);
  test.options.keep_alive_idle = milliseconds(60'000);
  test.Start();
  testing::TlsClient client = test.Connected();
  CHECK(client.Get("/who").headers.count("connection") == 0);
  CHECK(client.Get("/later/600/x").header("connection") == "close");
  CHECK(client.ClosedByPeer());
}

TEST_CASE("The last permitted request of a connection says so", "[net]") {
  TestServer test;
  test.options.max_requests_per_connection = 3;
  test.Start();
  testing::TlsClient client = test.Connected();
  REQUIRE(client.Send(Get("/who") + Get("/who") + Get("/who") + Get("/who")));
  CHECK(client.Receive().headers.count("connection") == 0);
  CHECK(client.Receive().headers.count("connection") == 0);
  CHECK(client.Receive().header("connection") == "close");
  CHECK(client.ClosedByPeer());
  CHECK(test.stage.handled == 3);
}

TEST_CASE("Without descriptors the server sheds connections and recovers", "[net]") {
  TestServer test;
  test.Start();
  testing::TlsClient before = test.Connected("before");
  REQUIRE(before.Get("/who").status == 200);
  rlimit usual{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &usual) == 0);
  // The client's sockets live in this process too: they are opened first, so that only the server's accept() fails.
  std::vector<testing::TlsClient> clients;
  for (int i = 0; i < 8; ++i) clients.push_back(test.Client());
  const int highest = ::dup(0);
  ::close(highest);
  rlimit tight = usual;
  tight.rlim_cur = static_cast<rlim_t>(highest) + 4;
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &tight) == 0);
  for (auto& client : clients) client.ConnectTcp(test.port());
  const bool shed = Eventually([&] { return test.server->stats().descriptors_exhausted > 0; });
  const auto response = before.Get("/who");
  for (auto& client : clients) client.Close();
  ::setrlimit(RLIMIT_NOFILE, &usual);
  CHECK(shed);
  CHECK(response.status == 200);
  CHECK(test.Connected("after").Get("/who").status == 200);
}

TEST_CASE("Who goes on talking TLS instead of sending requests is cut off (H0)", "[net]") {
  TestServer test;
  test.options.workers = 1;
  test.Start();
  testing::TlsClient other = test.Connected("other");
  auto options = test.ClientOptionsFor("talker");
  SECTION("new keys without end") {
    options.tls_version = 13;
    testing::TlsClient talker(options);
    REQUIRE(talker.Connect(test.port()));
    for (std::size_t i = 0; i < limits::kMaxProtocolMessages; ++i) REQUIRE(talker.UpdateKey());
    REQUIRE(talker.Get("/who").status == 200);  // an honest one never comes near
    talker.UpdateKey();
    CHECK(talker.ClosedByPeer());
  }
  SECTION("a wish to begin anew, which is never granted") {
    options.tls_version = 12;
    testing::TlsClient talker(options);
    REQUIRE(talker.Connect(test.port()));
    REQUIRE(talker.Get("/who").status == 200);
    REQUIRE(talker.Renegotiate());
    CHECK(Eventually([&] { return test.server->stats().connections == 1; }));
  }
  CHECK(test.server->stats().protocol_closed == 1);
  CHECK(other.Get("/who").status == 200);
}

TEST_CASE("A long pipeline is worked off in turns with what others ask (H0)", "[net]") {
  TestServer test;
  test.options.workers = 1;
  test.Start();
  const bool large = GENERATE(false, true);
  const int length = large ? 40 : 600;
  testing::TlsClient gate = test.Connected("gate");
  testing::TlsClient greedy = test.Connected("greedy");
  testing::TlsClient other = test.Connected("other");
  REQUIRE(other.Get("/who").status == 200);
  REQUIRE(gate.Send(Get("/gate")));  // the worker stands still until all is in its sockets
  REQUIRE(Eventually([&] { return test.stage.handled == 2; }));
  const std::string one =
      large ? "HEAD /big/300000 HTTP/1.1\r\nHost: localhost\r\n\r\n" : Get("/empty");
  std::string pipeline;
  for (int i = 0; i < length; ++i) pipeline += one;
  REQUIRE(greedy.Send(pipeline));
  REQUIRE(other.Send(Get("/who?other")));
  test.stage.OpenGate();
  REQUIRE(other.Receive().status == 200);
  for (int i = 0; i < length; ++i) REQUIRE(greedy.Receive(large).status == (large ? 200 : 204));
  const std::lock_guard lock(test.stage.mutex);
  const auto& targets = test.stage.targets;
  const auto place = std::find(targets.begin(), targets.end(), "/who?other") - targets.begin();
  CHECK(place <= (large ? 4 : 2 + 2 * limits::kMaxRequestsPerTurn));
}

TEST_CASE("Who shows no certificate has a share, in which the longest idle makes room (H0)",
          "[net]") {
  TestServer test;
  test.options.max_connections = 32;  // a share of 16, the least
  test.Start();
  testing::TlsClient client = test.Connected("client");
  auto nobody = test.ClientOptionsFor("nobody");
  nobody.credential.reset();
  std::vector<testing::TlsClient> strangers;
  for (int i = 0; i < 40; ++i) {
    strangers.emplace_back(nobody);
    REQUIRE(strangers.back().Connect(test.port()));
    REQUIRE(strangers.back().Get("/who").status == 200);
  }
  CHECK(test.server->stats().strangers_displaced == 24);
  CHECK(Eventually([&] { return test.server->stats().connections == 17; }));
  CHECK(test.server->stats().connections_refused == 0);
  CHECK(strangers.back().Get("/who").status == 200);
  CHECK(client.Get("/who").status == 200);
}

TEST_CASE("An address that cannot be listened on is an error that names it", "[net]") {
  TestServer first;
  first.Start();
  TestServer second;
  second.options.port = first.port();
  const auto factory = [&] { return std::make_unique<StageHandler>(&second.stage); };
  auto failed = Server::Start(second.options, factory, second.Load());
  REQUIRE_FALSE(failed.has_value());
  CHECK_THAT(failed.error().message, Catch::Contains(std::to_string(first.port())));
  second.options.address = "localhost";
  CHECK_FALSE(Server::Start(second.options, factory, second.Load()).has_value());
  second.options.address = "::1";
  second.options.port = 0;
  CHECK(Server::Start(second.options, factory, second.Load()).has_value());
}

}  // namespace latchkey::net
