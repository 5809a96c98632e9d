// The API behind the real network layer: certificates, TLS, HTTP framing, handlers, use cases, store.
#include <sys/socket.h>

#include <catch2/catch.hpp>
#include <future>
#include <set>
#include <thread>

#include "common/wire/base64.h"
#include "common/wire/json_gate.h"
#include "server/net/server.h"
#include "tests/support/pki.h"
#include "tests/support/server_fixture.h"
#include "tests/support/tls_client.h"

using namespace latchkey;
using namespace latchkey::testing;

namespace {

class Running {
 public:
  Running() : root_(Authority::Root("Test root")) {
    tls::TrustOptions trust;
    const Credential server = root_.Issue(ServerSpec());
    trust.certificate_file = files_.Write("server.pem", server.certificate_with_chain_pem());
    trust.key_file = files_.Write("server.key", server.key_pem);
    trust.client_ca_file = files_.Write("ca.pem", root_.certificate_pem());
    net_ = Must(net::Server::Start(
        {}, [this] { return core.NewHandler(); }, Must(tls::LoadTrust(trust))));
  }

  // Main thread only: issuing is not thread-safe.
  ClientOptions Options(const std::optional<CertificateSpec>& who) {
    ClientOptions options;
    options.ca_pem = root_.certificate_pem();
    options.timeout = std::chrono::seconds(60);
    if (who) options.credential = root_.Issue(*who);
    return options;
  }
  // Any thread.
  TlsClient Connect(const ClientOptions& options) {
    TlsClient client(options);
    INVARIANT(client.Connect(net_->port()));
    return client;
  }
  TlsClient As(const std::string& common_name) { return Connect(Options(ClientSpec(common_name))); }

  ServerFixture core;

 private:
  TestDirectory files_;
  Authority root_;
  std::unique_ptr<net::Server> net_;
};

std::string RequestText(const std::string& method, const std::string& target,
                        const std::string& body = "", const std::string& more = "") {
  std::string text = method + " " + target + " HTTP/1.1\r\nHost: localhost:4444\r\n" + more;
  if (!body.empty())
    text +=
        "Content-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) + "\r\n";
  return text + "\r\n" + body;
}

HttpResponse Call(TlsClient& client, const std::string& method, const std::string& target,
                  const std::string& body = "", const std::string& more = "") {
  if (!client.Send(RequestText(method, target, body, more))) return {};
  return client.Receive(method == "HEAD");
}

std::string Base64(const std::string& plain) {
  std::string coded(wire::Base64EncodedSize(plain.size()), '\0');
  wire::Base64Encode(AsBytes(plain), coded.data());
  return coded;
}

std::string TextOf(const std::string& json, std::string_view key) {
  auto parsed = wire::ParseJson(json);
  if (!parsed) return "<not JSON>";
  auto text = parsed->OptionalText(key);
  return text ? text->value_or("<absent>") : "<not text>";
}

}  // namespace

TEST_CASE("a certificate decides what its holder is given", "[api][tls]") {
  Running server;
  auto client = server.As("client");
  const HttpResponse granted = Call(client, "GET", "/secret/General_Password");
  CHECK(granted.status == 200);
  CHECK(TextOf(granted.body, "secret") == "YXNkZGFz");
  CHECK(granted.header("content-type") == "application/json");
  CHECK(granted.header("x-latchkey-version") == "1");
  CHECK(granted.header("x-request-id").size() == 16);
  CHECK(granted.header("x-content-type-options") == "nosniff");
  CHECK(Call(client, "GET", "/secret/Hacking_Password").status == 403);
  CHECK(Call(client, "GET", "/secret/nope").status == 404);
  CHECK(Call(client, "GET", "/secret/..%2Fsecrets").status == 404);
  const HttpResponse head = Call(client, "HEAD", "/secret/General_Password");
  CHECK(head.status == 200);
  CHECK(head.header("content-length") == std::to_string(granted.body.size()));

  auto user = server.As("CN=User1");
  CHECK(Call(user, "GET", "/secret/Hacking_Password").status == 200);
  CHECK(Call(user, "GET", "/automation/v2/secrets").status == 403);
  auto stranger = server.As("stranger");
  const HttpResponse unknown = Call(stranger, "GET", "/secret/General_Password");
  CHECK(unknown.status == 401);
  CHECK(unknown.header("www-authenticate")
            .starts_with("No authorized Client for connection using principal CN=stranger"));
  CHECK(unknown.body == R"({"code":401,"message":"HTTP 401 Unauthorized"})");
  auto nobody = server.Connect(server.Options(std::nullopt));
  CHECK(Call(nobody, "GET", "/secrets").header("www-authenticate") ==
        "Not authorized as Keywhiz client");
  CHECK(Call(nobody, "GET", "/_status").status == 200);
}

TEST_CASE("a forwarded identity on the direct port is refused over the wire", "[api][tls][X1]") {
  Running server;
  auto client = server.As("client");
  for (const char* header :
       {"X-Forwarded-Client-Cert: Hash=abc\r\n", "x-forwarded-client-cert:\r\n"}) {
    const HttpResponse reply = Call(client, "GET", "/secrets", "", header);
    CHECK(reply.status == 401);
  }
}

TEST_CASE("a client is switched off on the connection that it has", "[api][tls][T7]") {
  Running server;
  auto admin = server.As("client");
  auto user = server.As("CN=User1");
  CHECK(Call(user, "GET", "/secret/General_Password").status == 200);
  CHECK(
      Call(admin, "PUT", "/automation/v2/clients/CN=User1/state", R"({"enabled":false})").status ==
      200);
  CHECK(Call(user, "GET", "/secret/General_Password").status == 401);
  CHECK(Call(admin, "PUT", "/automation/v2/clients/CN=User1/state", R"({"enabled":true})").status ==
        200);
  CHECK(Call(user, "GET", "/secret/General_Password").status == 200);
}

TEST_CASE("pipelined reads, writes and refusals are answered in order", "[api][tls]") {
  Running server;
  auto client = server.As("client");
  std::string burst;
  for (int i = 0; i < 20; ++i) {
    burst += RequestText("GET", "/secret/General_Password");
    burst +=
        RequestText("POST", "/automation/v2/groups", R"({"name":"g)" + std::to_string(i) + "\"}");
    burst += RequestText("GET", "/secret/nope");
  }
  REQUIRE(client.Send(burst));
  for (int i = 0; i < 20; ++i) {
    CAPTURE(i);
    CHECK(client.Receive().status == 200);
    const HttpResponse created = client.Receive();
    CHECK(created.status == 201);
    CHECK(created.header("location") ==
          "https://localhost:4444/automation/v2/groups/g" + std::to_string(i));
    CHECK(client.Receive().status == 404);
  }
}

TEST_CASE("a waiting client hears of a rotation on another connection", "[api][tls][feed]") {
  Running server;
  auto admin = server.As("client");
  CHECK(Call(admin, "POST", "/automation/v2/secrets",
             R"({"name":"w","content":"MQ==","groups":["Blackops"]})")
            .status == 201);
  auto user = server.As("CN=User1");
  const std::string generation = TextOf(Call(user, "GET", "/changes?since=0").body, "generation");
  REQUIRE(user.Send(RequestText("GET", "/changes?wait=50&since=" + generation)));
  while (server.core.services().feed->waiters() == 0) std::this_thread::yield();
  const HttpResponse rotated = Call(admin, "POST", "/automation/v2/secrets/w/partialupdate",
                                    R"({"contentPresent":true,"content":"Mg=="})");
  CHECK(rotated.status == 201);
  const HttpResponse woken = user.Receive();
  CHECK(woken.status == 200);
  CHECK(woken.body.find(R"("changed":[{"name":"w","version":2,"size":1}])") != std::string::npos);
  CHECK(TextOf(woken.body, "generation") == rotated.header("x-latchkey-generation"));
}

// The clock of this server stands still: no wait ever ends by itself.
TEST_CASE("a waiting client that hangs up gives its place in the feed back", "[api][tls][feed]") {
  Running server;
  const feed::Feed& feed = *server.core.services().feed;
  const ClientOptions options = server.Options(ClientSpec("client"));
  const std::string poll =
      RequestText("GET", "/changes?wait=60&since=" + std::to_string(feed.generation().value));
  const auto waiters_become = [&](std::size_t count) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (feed.waiters() != count) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return true;
  };
  std::vector<TlsClient> waiting;
  for (std::size_t i = 0; i < limits::kMaxFeedWaitersPerClient; ++i) {
    waiting.push_back(server.Connect(options));
    REQUIRE(waiting.back().Send(poll));
  }
  REQUIRE(waiters_become(limits::kMaxFeedWaitersPerClient));

  SECTION("the connections end, each in one of three ways") {
    for (std::size_t i = 0; i < waiting.size(); ++i) {
      if (i % 3 == 1) {  // a reset
        const linger hard{1, 0};
        REQUIRE(::setsockopt(waiting[i].fd(), SOL_SOCKET, SO_LINGER, &hard, sizeof hard) == 0);
      } else if (i % 3 == 2) {  // close_notify, then FIN
        waiting[i].HalfClose();
      }
      waiting[i].Close();  // FIN without a word of TLS
    }
    waiting.clear();
    REQUIRE(waiters_become(0));
  }
  SECTION("only the sending ends: the peer still hears that there was nothing") {
    for (TlsClient& client : waiting) client.HalfClose();
    REQUIRE(waiters_become(0));
    for (TlsClient& client : waiting) {
      const HttpResponse nothing = client.Receive();
      CHECK(nothing.status == 200);
      CHECK(nothing.body.find(R"("reset":false,"changed":[],"gone":[])") != std::string::npos);
      CHECK(client.ClosedByPeer());
    }
  }
  TlsClient next = server.Connect(options);
  REQUIRE(next.Send(poll));
  CHECK(waiters_become(1));
}

// The peer ends its sending while the question is kept back behind answers that it has not read.
TEST_CASE("a hang-up that comes before the wait gives the place in the feed back",
          "[api][tls][feed]") {
  Running server;
  const feed::Feed& feed = *server.core.services().feed;
  auto admin = server.As("client");
  const std::string content = Base64(std::string(1024 * 1024, 'x'));
  REQUIRE(Call(admin, "POST", "/automation/v2/secrets",
               R"({"name":"big","groups":["Security"],"content":")" + content + "\"}")
              .status == 201);
  constexpr int kUnread = 24;  // far more than the kernel and the server keep for one connection
  std::string requests;
  for (int i = 0; i < kUnread; ++i) requests += RequestText("GET", "/secret/big");
  requests +=
      RequestText("GET", "/changes?wait=60&since=" + std::to_string(feed.generation().value));
  TlsClient client = server.Connect(server.Options(ClientSpec("client")));
  REQUIRE(client.Send(requests));
  REQUIRE(::shutdown(client.fd(), SHUT_WR) == 0);
  for (int i = 0; i < kUnread; ++i) REQUIRE(client.Receive().status == 200);
  const HttpResponse nothing = client.Receive();
  CHECK(nothing.status == 200);
  CHECK(nothing.body.find(R"("reset":false,"changed":[],"gone":[])") != std::string::npos);
  CHECK(feed.waiters() == 0);
}

TEST_CASE("the largest content and the largest batch arrive whole", "[api][tls]") {
  Running server;
  auto client = server.As("client");
  std::string names;
  std::string content(1024 * 1024, '\0');
  for (std::size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>(i * 7919 >> 3);
  for (int i = 0; i < 16; ++i) {
    const std::string name = "big" + std::to_string(i);
    content[0] = static_cast<char>(i);
    const HttpResponse created = Call(
        client, "POST", "/automation/v2/secrets",
        R"({"name":")" + name + R"(","groups":["Security"],"content":")" + Base64(content) + "\"}");
    REQUIRE(created.status == 201);
    names += (i == 0 ? "\"" : ",\"") + name + "\"";
  }
  const HttpResponse batch =
      Call(client, "POST", "/batchsecret?versions=true", R"({"secrets":[)" + names + "]}");
  REQUIRE(batch.status == 200);
  const auto list = Must(wire::ParseJson(batch.body));
  REQUIRE(list.elements().size() == 16);
  for (std::size_t i = 0; i < 16; ++i) {
    content[0] = static_cast<char>(i);
    CHECK(Must(list.elements()[i].OptionalText("secret")) == Base64(content));
  }
  content.push_back('x');
  const HttpResponse refused = Call(client, "POST", "/automation/v2/secrets",
                                    R"({"name":"toobig","content":")" + Base64(content) + "\"}");
  CHECK(refused.status == 413);
}

TEST_CASE("eight writers lose nothing and readers never see a mixture", "[api][tls]") {
  Running server;
  server.core.AddSecret("hot", std::string(2000, 'a'), {"Security"});
  const ClientOptions options = server.Options(ClientSpec("client"));
  constexpr int kWriters = 8;
  constexpr int kRotations = 25;
  std::atomic<int> failed{0}, mixed{0};
  std::atomic<bool> stop{false};
  std::mutex mutex;
  std::set<std::string> versions;
  std::vector<std::thread> threads;
  for (int w = 0; w < kWriters; ++w) {
    threads.emplace_back([&, w] {
      auto client = server.Connect(options);
      const std::string body = R"({"contentPresent":true,"content":")" +
                               Base64(std::string(2000, static_cast<char>('b' + w))) + "\"}";
      for (int i = 0; i < kRotations; ++i) {
        const HttpResponse reply =
            Call(client, "POST", "/automation/v2/secrets/hot/partialupdate", body);
        if (reply.status != 201) ++failed;
        const std::lock_guard lock(mutex);
        versions.insert(reply.header("x-latchkey-version"));
      }
    });
  }
  std::string first_bad;
  std::thread reader([&] {
    auto client = server.Connect(options);
    while (!stop) {
      const HttpResponse reply = Call(client, "GET", "/secret/hot");
      auto content = wire::Base64Decode(TextOf(reply.body, "secret"));
      const bool whole =
          reply.status == 200 && content && content->size() == 2000 &&
          AsText(content->bytes()) == std::string(2000, static_cast<char>(content->bytes()[0]));
      if (!whole && mixed++ == 0)
        first_bad = std::to_string(reply.status) + " " + reply.head + client.error();
      // A connection ends, announced, after its ten thousandth request.
      if (reply.header("connection") == "close") client = server.Connect(options);
    }
  });
  for (auto& thread : threads) thread.join();
  stop = true;
  reader.join();
  CHECK(failed == 0);
  INFO("the first answer that was not whole: " << first_bad);
  CHECK(mixed == 0);
  CHECK(versions.size() == kWriters * kRotations);
  CHECK(server.core.root()->FindSecret(std::string_view("hot"))->version().value ==
        1 + kWriters * kRotations);
}
