#include "tests/integration/net/fixture.h"

namespace latchkey::net {
namespace {

using testing::Authority;
using testing::CertificateSpec;
using testing::ClientSpec;
using testing::KeyKind;
using testing::StringKind;

enum class Verdict { kServed, kNoHandshake, kBadName };

struct Leaf {
  const char* what;
  std::function<void(CertificateSpec*)> change;
  Verdict verdict;
};

// The table of leaf variants (security test S15): what TLS refuses, what identification refuses, what is served.
std::vector<Leaf> Leaves() {
  using namespace std::string_literals;
  const auto names = [](std::vector<testing::CommonName> list) {
    return [list](CertificateSpec* s) { s->common_names = list; };
  };
  const auto uris = [](std::vector<std::string> list) {
    return [list](CertificateSpec* s) { s->uris = list; };
  };
  return {
      {"good", [](CertificateSpec*) {}, Verdict::kServed},
      {"good P-384", [](CertificateSpec* s) { s->key = KeyKind::kP384; }, Verdict::kServed},
      {"good RSA 2048", [](CertificateSpec* s) { s->key = KeyKind::kRsa2048; }, Verdict::kServed},
      {"good Ed25519", [](CertificateSpec* s) { s->key = KeyKind::kEd25519; }, Verdict::kServed},
      {"clientAuth and serverAuth",
       [](CertificateSpec* s) { s->extended_key_usage = "serverAuth,clientAuth"; },
       Verdict::kServed},
      {"no basic constraints", [](CertificateSpec* s) { s->basic_constraints.clear(); },
       Verdict::kServed},
      {"SPIFFE beside the name", uris({"spiffe://example.org/a"}), Verdict::kServed},
      {"no extended key usage", [](CertificateSpec* s) { s->extended_key_usage.clear(); },
       Verdict::kNoHandshake},
      {"serverAuth only", [](CertificateSpec* s) { s->extended_key_usage = "serverAuth"; },
       Verdict::kNoHandshake},
      {"any usage only", [](CertificateSpec* s) { s->extended_key_usage = "anyExtendedKeyUsage"; },
       Verdict::kNoHandshake},
      {"no digitalSignature", [](CertificateSpec* s) { s->key_usage = "critical,keyAgreement"; },
       Verdict::kNoHandshake},
      {"is a CA",
       [](CertificateSpec* s) {
         s->basic_constraints = "critical,CA:TRUE";
         s->key_usage = "critical,digitalSignature,keyCertSign";
       },
       Verdict::kNoHandshake},
      {"expired", [](CertificateSpec* s) { s->not_after_offset_s = -10; }, Verdict::kNoHandshake},
      {"not yet valid", [](CertificateSpec* s) { s->not_before_offset_s = 600; },
       Verdict::kNoHandshake},
      {"SHA-1", [](CertificateSpec* s) { s->digest = "SHA1"; }, Verdict::kNoHandshake},
      {"RSA 1024", [](CertificateSpec* s) { s->key = KeyKind::kRsa1024; }, Verdict::kNoHandshake},
      {"version 1", [](CertificateSpec* s) { s->version1 = true; }, Verdict::kNoHandshake},
      {"two common names", names({{"client"}, {"admin"}}), Verdict::kBadName},
      {"no name", names({}), Verdict::kBadName},
      {"empty name", names({{""}}), Verdict::kBadName},
      {"NUL in the name", names({{"client\0admin"s}}), Verdict::kBadName},
      {"BMPString", names({{"\0a\0d"s, StringKind::kBmp}}), Verdict::kBadName},
      {"long name", names({{std::string(256, 'n')}}), Verdict::kBadName},
      {"two SPIFFE ids", uris({"spiffe://example.org/a", "spiffe://example.org/b"}),
       Verdict::kBadName},
      {"SPIFFE of another domain", uris({"spiffe://other.org/a"}), Verdict::kBadName},
  };
}

}  // namespace

TEST_CASE("More certificates than a chain can need are refused before they are looked at (T1)",
          "[net]") {
  TestServer test;
  test.Start();
  const auto with_unneeded = [&](int count) {
    testing::ClientOptions options = test.ClientOptionsFor("client");
    const std::string unneeded = test.server_ca.certificate_pem();
    for (int i = 0; i < count; ++i) options.credential->chain_pem += unneeded;
    testing::TlsClient client(options);
    return client.Connect(test.port()) ? client.Get("/who").status : 0;
  };
  CHECK(with_unneeded(limits::kMaxPeerCertificates - 1) == 200);
  CHECK(with_unneeded(limits::kMaxPeerCertificates) == 0);
}

TEST_CASE("Every variant of a leaf gets its verdict in TLS 1.2 and 1.3", "[net]") {
  TestServer test;
  test.Start();
  for (const Leaf& leaf : Leaves()) {
    CertificateSpec spec = ClientSpec("client");
    leaf.change(&spec);
    testing::ClientOptions options;
    options.credential = test.client_ca.Issue(spec);
    for (const int version : {12, 13}) {
      CAPTURE(leaf.what, version);
      options.tls_version = version;
      testing::TlsClient client(options);
      // In TLS 1.3 the client believes itself connected before the server has judged.
      const bool connected = client.Connect(test.port());
      const auto response = connected ? client.Get("/who") : testing::HttpResponse{};
      const Verdict verdict = response.status == 0                  ? Verdict::kNoHandshake
                              : response.body.starts_with("error ") ? Verdict::kBadName
                                                                    : Verdict::kServed;
      CHECK(verdict == leaf.verdict);
      if (response.status == 0)
        CHECK_THAT(client.error(), Catch::Contains("alert"));  // told why, not merely cut
    }
  }
}

TEST_CASE("A server key of every permitted kind serves TLS 1.2 and 1.3", "[net]") {
  TestServer test;
  CertificateSpec spec = testing::ServerSpec();
  spec.key = GENERATE(KeyKind::kP256, KeyKind::kP384, KeyKind::kEd25519, KeyKind::kRsa2048);
  const auto credential = test.server_ca.Issue(spec);
  test.directory.Write("server.pem", credential.certificate_pem);
  test.directory.Write("server.key", credential.key_pem);
  test.Start();
  for (const int version : {12, 13}) {
    auto options = test.ClientOptionsFor("client");
    options.tls_version = version;
    testing::TlsClient client(options);
    REQUIRE(client.Connect(test.port()));
    CHECK(client.Get("/who").status == 200);
  }
}

TEST_CASE("A client without certificate is served only where none is required", "[net]") {
  TestServer test;
  test.trust.require_client_certificate = GENERATE(false, true);
  test.Start();
  testing::ClientOptions options;
  options.tls_version = GENERATE(12, 13);
  testing::TlsClient client(options);
  const auto response = client.Connect(test.port()) ? client.Get("/who") : testing::HttpResponse{};
  CHECK(response.status == (test.trust.require_client_certificate ? 0 : 200));
  if (response.status == 200) CHECK(response.body == "nobody at 127.0.0.1");
}

TEST_CASE("A certificate of another CA fails the handshake even where none is required", "[net]") {
  TestServer test;
  test.Start();
  testing::ClientOptions options;
  options.credential = GENERATE(0, 1) == 0
                           ? test.server_ca.Issue(ClientSpec("client"))
                           : Authority::Root("client CA").Issue(ClientSpec("client"));
  options.tls_version = GENERATE(12, 13);
  testing::TlsClient client(options);
  CHECK((!client.Connect(test.port()) || client.Get("/who").status == 0));
  CHECK_THAT(client.error(), Catch::Contains("unknown ca"));
}

TEST_CASE("The names of all client CAs are sent with the request for a certificate", "[net]") {
  TestServer test;
  const Authority second = Authority::Root("second client CA");
  test.directory.Write("clients.pem", test.client_ca.certificate_pem() + second.certificate_pem());
  test.Start();
  testing::TlsClient client = test.Connected();
  CHECK_THAT(client.client_ca_names(),
             Catch::Contains("CN=client CA") && Catch::Contains("CN=second client CA"));
}

TEST_CASE("No session is ever resumed and no ticket given out", "[net]") {
  TestServer test;
  test.Start();
  auto options = test.ClientOptionsFor("client");
  options.tls_version = GENERATE(12, 13);
  testing::TlsClient first(options);
  REQUIRE(first.Connect(test.port()));
  REQUIRE(first.Get("/who").status == 200);
  CHECK(first.tickets_received() == 0);
  const auto session = first.session();
  first.Close();
  testing::TlsClient second(options);
  if (session) second.Offer(session);
  REQUIRE(second.Connect(test.port()));
  CHECK(second.Get("/who").status == 200);
  CHECK_FALSE(second.resumed());
}

TEST_CASE("X25519 is preferred and P-256 and P-384 work too", "[net]") {
  TestServer test;
  test.Start();
  auto options = test.ClientOptionsFor("client");
  struct Case {
    int version;
    const char* offered;
    const char* chosen;
  };
  // In 1.2 the server chooses; in 1.3 it takes the key share that the client has sent. A 1.2 client must also name the curve
  // of the server's certificate, P-256.
  const auto wanted =
      GENERATE(Case{12, "P-384:P-256:X25519", "x25519"}, Case{12, "P-384:P-256", "secp256r1"},
               Case{13, "X25519:P-256", "x25519"}, Case{13, "P-256", "secp256r1"},
               Case{13, "P-521:X25519", "x25519"}, Case{13, "P-384", "secp384r1"});
  options.groups = wanted.offered;
  options.tls_version = wanted.version;
  testing::TlsClient client(options);
  REQUIRE(client.Connect(test.port()));
  CHECK(client.Get("/who").status == 200);
  CHECK(client.group() == wanted.chosen);
}

TEST_CASE("Old protocols, ciphers without forward secrecy and foreign groups are refused",
          "[net]") {
  TestServer test;
  test.Start();
  auto options = test.ClientOptionsFor("client");
  SECTION("CBC in TLS 1.2") {
    options.tls_version = 12;
    options.ciphers = "ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES128-SHA256";
  }
  SECTION("no forward secrecy") {
    options.tls_version = 12;
    options.ciphers = "AES128-GCM-SHA256";
  }
  SECTION("P-521 only") {
    options.groups = "P-521";
  }
  testing::TlsClient client(options);
  CHECK_FALSE(client.Connect(test.port()));
}

TEST_CASE("A reload with a key of another certificate keeps the old set", "[net]") {
  TestServer test;
  test.Start();
  test.directory.Write("server.key", test.server_ca.Issue(testing::ServerSpec()).key_pem);
  const auto loaded = tls::LoadTrust(test.trust);
  REQUIRE_FALSE(loaded.has_value());
  CHECK_THAT(loaded.error().message, Catch::Contains("does not belong"));
  CHECK(test.Connected().Get("/who").status == 200);
}

TEST_CASE("After a reload a revoked client is refused on its open connection and on a new one",
          "[net]") {
  TestServer test;
  test.Start();
  const auto revoked_options = test.ClientOptionsFor("revoked");
  const auto good_options = test.ClientOptionsFor("good");
  testing::TlsClient idle(revoked_options);
  testing::TlsClient busy(revoked_options);
  testing::TlsClient good(good_options);
  for (auto* client : {&idle, &busy, &good}) {
    REQUIRE(client->Connect(test.port()));
    REQUIRE(client->Get("/who").status == 200);
  }
  testing::CrlSpec crl;
  crl.revoked_serials_hex = {revoked_options.credential->serial_hex};
  test.trust.crl_files = {test.directory.Write("clients.crl", test.client_ca.Crl(crl))};
  test.server->Reload(test.Load());
  const int handled = test.stage.handled;
  CHECK(busy.Get("/who").status == 0);
  CHECK(idle.ClosedByPeer());
  CHECK(test.stage.handled == handled);
  CHECK(good.Get("/who").body == "cn=good spiffe=");
  testing::TlsClient again(revoked_options);
  CHECK((!again.Connect(test.port()) || again.Get("/who").status == 0));
  CHECK_THAT(again.error(), Catch::Contains("revoked"));
  CHECK(test.server->stats().trust_closed == 2);
}

TEST_CASE("A waiting request of a client that a reload refuses is cut off", "[net]") {
  TestServer test;
  test.Start();
  testing::TlsClient client = test.Connected();
  REQUIRE(client.Send("GET /hold HTTP/1.1\r\nHost: h\r\n\r\n"));
  const auto reply = test.stage.WaitForHeld();
  REQUIRE(reply != nullptr);
  test.directory.Write("clients.pem", Authority::Root("new client CA").certificate_pem());
  test.server->Reload(test.Load());
  CHECK(client.ClosedByPeer());
  CHECK(Eventually([&] { return !reply->Alive(); }));
}

TEST_CASE("After a reload names are read by the new policy", "[net]") {
  TestServer test;
  test.Start();
  testing::TlsClient client = test.Connected("client");
  REQUIRE(client.Get("/who").body == "cn=client spiffe=");
  test.trust.names.cn_characters = "A-Z";
  test.server->Reload(test.Load());
  CHECK_THAT(client.Get("/who").body, Catch::StartsWith("error "));
}

TEST_CASE("A handshake begun before a reload is judged by the trust after it", "[net]") {
  TestServer test;
  test.Start();
  testing::TlsClient client = test.Client("client");
  REQUIRE(client.ConnectTcp(test.port()));
  REQUIRE(Eventually([&] { return test.server->stats().handshakes_in_flight == 1; }));
  test.directory.Write("clients.pem", Authority::Root("new client CA").certificate_pem());
  test.server->Reload(test.Load());
  const bool connected = client.Handshake();
  CHECK((!connected || client.Get("/who").status == 0));
  CHECK(test.stage.handled == 0);
}

TEST_CASE("A connection ends with the certificate that opened it", "[net]") {
  TestServer test;
  test.Start();
  CertificateSpec spec = ClientSpec("short");
  spec.not_after_offset_s = 2;
  testing::ClientOptions options;
  options.credential = test.client_ca.Issue(spec);
  testing::TlsClient client(options);
  REQUIRE(client.Connect(test.port()));
  REQUIRE(client.Get("/who").status == 200);
  CHECK(client.ClosedByPeer());
  CHECK(test.server->stats().trust_closed == 1);
}

TEST_CASE("Reloads under load lose no request", "[net]") {
  TestServer test;
  test.Start();
  std::atomic<bool> stop{false};
  std::atomic<int> failures{0};
  std::atomic<int> served{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      const auto options = test.ClientOptionsFor("client" + std::to_string(t));
      while (!stop) {
        testing::TlsClient client(options);
        if (!client.Connect(test.port())) ++failures;
        for (int i = 0; i < 5; ++i) (client.Get("/who").status == 200 ? served : failures)++;
      }
    });
  }
  for (int i = 0; i < 10; ++i) {
    const int before = served;
    test.server->Reload(test.Load());
    Eventually([&] { return served > before + 10; });
  }
  stop = true;
  for (auto& thread : threads) thread.join();
  CHECK(failures == 0);
  CHECK(served > 100);
}

TEST_CASE("Draining under load cuts no answer short", "[net]") {
  TestServer test;
  test.Start();
  std::atomic<int> broken{0};
  std::atomic<int> served{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      testing::TlsClient client = test.Client("client" + std::to_string(t));
      if (!client.Connect(test.port())) return;
      for (;;) {
        if (!client.Send("GET /big/20000 HTTP/1.1\r\nHost: h\r\n\r\n")) return;
        const auto response = client.Receive();
        if (response.status == 0) {
          if (!response.head.empty()) ++broken;  // begun and not finished
          return;
        }
        ++served;
        if (response.headers.count("connection") != 0) return;
      }
    });
  }
  REQUIRE(Eventually([&] { return served > 200; }));
  testing::TlsClient idle = test.Connected("idle");
  REQUIRE(idle.Get("/who").status == 200);
  testing::TlsClient waiting = test.Connected("waiting");
  REQUIRE(waiting.Send("GET /later/300/x HTTP/1.1\r\nHost: h\r\n\r\n"));
  REQUIRE(Eventually([&] {
    const std::lock_guard lock(test.stage.mutex);
    return std::find(test.stage.targets.begin(), test.stage.targets.end(), "/later/300/x") !=
           test.stage.targets.end();
  }));
  CHECK(test.server->Drain(std::chrono::seconds(10)));
  for (auto& thread : threads) thread.join();
  CHECK(broken == 0);
  CHECK(idle.ClosedByPeer());
  const auto late = waiting.Receive();
  CHECK(late.body == "x");
  CHECK(late.header("connection") == "close");
  testing::TlsClient after = test.Client();
  CHECK_FALSE(after.ConnectTcp(test.port()));
}

TEST_CASE("Draining does not wait for the rest of an upload that is refused", "[net]") {
  TestServer test;
  test.options.framer.max_body_bytes = 1000;
  test.Start();
  testing::TlsClient client = test.Connected();
  REQUIRE(client.Send("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 1001\r\n\r\n"));
  CHECK(client.Receive().status == 413);
  std::jthread sender([&](const std::stop_token& stop) {
    while (!stop.stop_requested() && client.SendRaw("a"))
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
  });
  CHECK(test.server->Drain(limits::kLingerTimeout / 2));
}

TEST_CASE("Draining gives up on a request that never ends, and a late answer is dropped", "[net]") {
  TestServer test;
  test.Start();
  testing::TlsClient client = test.Connected();
  REQUIRE(client.Send("GET /hold HTTP/1.1\r\nHost: h\r\n\r\n"));
  const auto reply = test.stage.WaitForHeld();
  REQUIRE(reply != nullptr);
  CHECK_FALSE(test.server->Drain(std::chrono::milliseconds(50)));
  CHECK(client.ClosedByPeer());
  CHECK_FALSE(reply->Alive());
  test.server.reset();
  reply->Complete({.status = 200, .headers = {}, .body = "nobody hears this"});
}

}  // namespace latchkey::net
