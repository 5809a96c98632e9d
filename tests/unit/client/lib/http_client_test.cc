// The transport against real TLS: what it trusts, repeats, refuses and says.
#include "client/lib/http_client.h"

#include <openssl/ssl.h>
#include <sys/stat.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <fstream>
#include <future>

#include "client/lib/api_client.h"
#include "common/secret/secret_buffer.h"
#include "tests/unit/client/lib/tls_server.h"

namespace latchkey::client {
namespace {

using test::JsonAnswer;
using test::SharedPki;
using test::TlsServer;

test::TlsServerOptions Served(const std::string& name = "server") {
  return {.cert_file = SharedPki().File(name + ".crt"),
          .key_file = SharedPki().File(name + ".key"),
          .client_ca_file = SharedPki().File("ca.crt")};
}

HttpOptions OptionsFor(std::uint16_t port, const std::string& host = "127.0.0.1") {
  HttpOptions options;
  options.server = {host, port};
  options.tls = {SharedPki().File("ca.crt"), SharedPki().File("app.crt"),
                 SharedPki().File("app.key")};
  options.retry_base = std::chrono::milliseconds(5);
  return options;
}

std::unique_ptr<HttpClient> MustOpen(HttpOptions options) {
  auto http = HttpClient::Open(std::move(options));
  REQUIRE(http.has_value());
  return std::move(*http);
}

HttpRequest Get(const std::string& target, bool idempotent = true) {
  return {.method = "GET",
          .target = target,
          .json_body = std::nullopt,
          .idempotent = idempotent,
          .max_response_bytes = 1000};
}

bool Says(const Error& error, const std::string& part) {
  UNSCOPED_INFO(error.message);
  return error.message.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("Requests reuse one verified connection", "[client]") {
  TlsServer server(Served(), [](const std::string&) {
    return JsonAnswer(
        "200 OK", "{}",
        "X-Request-Id: r1\r\nX-Latchkey-Version: 12\r\nX-Latchkey-Generation: 99\r\n");
  });
  const auto http = MustOpen(OptionsFor(server.port(), GENERATE("127.0.0.1", "localhost")));
  for (int i = 0; i < 3; ++i) {
    const auto response = http->Send(Get("/x?y=" + std::to_string(i)));
    REQUIRE(response.has_value());
    CHECK(response->status == 200);
    CHECK(AsText(response->body.bytes()) == "{}");
    CHECK(response->request_id == "r1");
    CHECK(response->version == 12u);
    CHECK(response->generation == 99u);
  }
  CHECK(server.connections() == 1);
  const auto requests = server.requests();
  REQUIRE(requests.size() == 3);
  CHECK(requests[2].starts_with("GET /x?y=2 HTTP/1.1\r\nHost: "));
  CHECK(requests[0].find("Accept: application/json") != std::string::npos);
  CHECK(requests[0].find("Accept-Encoding") == std::string::npos);
}

TEST_CASE("A body is sent as JSON at once, without waiting for 100-continue", "[client]") {
  TlsServer server(Served(), [](const std::string&) { return JsonAnswer("201 Created", ""); });
  const auto http = MustOpen(OptionsFor(server.port()));
  const std::string body(1'500'000, 'x');
  const auto response = http->Send({.method = GENERATE("POST", "PUT"),
                                    .target = "/a",
                                    .json_body = AsBytes(body),
                                    .max_response_bytes = 10});
  REQUIRE(response.has_value());
  CHECK(response->status == 201);
  const auto requests = server.requests();
  REQUIRE(requests.size() == 1);
  CHECK(requests[0].ends_with("\r\n\r\n" + body));
  CHECK(requests[0].find("Expect:") == std::string::npos);
  CHECK(requests[0].find("Content-Type: application/json\r\n") != std::string::npos);
}

TEST_CASE("A server of another CA is not trusted, and no request reaches it", "[client]") {
  auto options = Served();
  options.cert_file = SharedPki().File("b/server.crt");
  options.key_file = SharedPki().File("b/server.key");
  TlsServer server(options, [](const std::string&) { return JsonAnswer("200 OK", "{}"); });
  const auto response = MustOpen(OptionsFor(server.port()))->Send(Get("/"));
  REQUIRE_FALSE(response.has_value());
  CHECK(response.error().code == Errc::kUnauthenticated);
  CHECK(Says(response.error(), "not trusted by CA file"));
  CHECK(server.requests().empty());
}

TEST_CASE("A certificate for another name is refused although its CA is trusted", "[client]") {
  TlsServer server(Served(GENERATE("other", "subject")),
                   [](const std::string&) { return JsonAnswer("200 OK", "{}"); });
  const auto host = GENERATE(as<std::string>{}, "127.0.0.1", "localhost");
  const auto response = MustOpen(OptionsFor(server.port(), host))->Send(Get("/"));
  REQUIRE_FALSE(response.has_value());
  CHECK(response.error().code == Errc::kUnauthenticated);
  CHECK(Says(response.error(), "is not for the name \"" + host + "\""));
  CHECK(server.requests().empty());
}

TEST_CASE("A refused client certificate is told apart from a lost connection", "[client]") {
  auto options = Served();
  options.client_ca_file = SharedPki().File("b/ca.crt");
  options.max_protocol = GENERATE(TLS1_2_VERSION, TLS1_3_VERSION);
  TlsServer server(options, [](const std::string&) { return JsonAnswer("200 OK", "{}"); });
  const auto response = MustOpen(OptionsFor(server.port()))->Send(Get("/"));
  REQUIRE_FALSE(response.has_value());
  CHECK(response.error().code == Errc::kUnauthenticated);
  CHECK(Says(response.error(), "did not accept the certificate"));
}

TEST_CASE("TLS 1.1 is not spoken", "[client]") {
  auto options = Served();
  options.max_protocol = TLS1_1_VERSION;
  TlsServer server(options, [](const std::string&) { return JsonAnswer("200 OK", "{}"); });
  const auto response = MustOpen(OptionsFor(server.port()))->Send(Get("/"));
  REQUIRE_FALSE(response.has_value());
  CHECK(server.requests().empty());
}

TEST_CASE("Proxies of the environment are ignored and no key log is written", "[client]") {
  const std::string log = SharedPki().File("keys.log");
  ::setenv("https_proxy", "http://127.0.0.1:1", 1);
  ::setenv("ALL_PROXY", "http://127.0.0.1:1", 1);
  ::setenv("SSLKEYLOGFILE", log.c_str(), 1);
  TlsServer server(Served(), [](const std::string&) { return JsonAnswer("200 OK", "{}"); });
  const auto response = MustOpen(OptionsFor(server.port()))->Send(Get("/"));
  ::unsetenv("https_proxy");
  ::unsetenv("ALL_PROXY");
  ::unsetenv("SSLKEYLOGFILE");
  REQUIRE(response.has_value());
  std::ifstream written(log);
  CHECK(std::string(std::istreambuf_iterator<char>(written), {}).empty());
}

TEST_CASE("A redirect is an answer, not a journey", "[client]") {
  TlsServer other(Served(), [](const std::string&) { return JsonAnswer("200 OK", "{}"); });
  TlsServer server(Served(), [&](const std::string&) {
    return JsonAnswer("302 Found", "",
                      "Location: https://127.0.0.1:" + std::to_string(other.port()) + "/\r\n");
  });
  const auto response = MustOpen(OptionsFor(server.port()))->Send(Get("/"));
  REQUIRE(response.has_value());
  CHECK(response->status == 302);
  CHECK(other.connections() == 0);
}

TEST_CASE("An answer over its limit is refused whether announced or not", "[client]") {
  const bool announced = GENERATE(true, false);
  TlsServer server(Served(), [announced](const std::string&) {
    const std::string body(1001, 'x');
    return announced ? JsonAnswer("200 OK", body)
                     : "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body;
  });
  const auto response = MustOpen(OptionsFor(server.port()))->Send(Get("/"));
  REQUIRE_FALSE(response.has_value());
  CHECK(response.error().code == Errc::kTooLarge);
}

TEST_CASE("An endless head is refused", "[client]") {
  TlsServer server(Served(), [](const std::string&) {
    std::string head = "HTTP/1.1 200 OK\r\n";
    for (int i = 0; i < 3000; ++i)
      head += "X-Filler-" + std::to_string(i) + ": 0123456789012345678901234567\r\n";
    return head + "Content-Length: 0\r\n\r\n";
  });
  const auto response = MustOpen(OptionsFor(server.port()))->Send(Get("/"));
  REQUIRE_FALSE(response.has_value());
  CHECK(response.error().code == Errc::kTooLarge);
}

TEST_CASE("Reads are repeated after a lost connection and after 503, writes never", "[client]") {
  const bool dropped = GENERATE(true, false);
  std::atomic<int> calls{0};
  TlsServer server(Served(), [&](const std::string&) {
    if (++calls < 3) return dropped ? std::string() : JsonAnswer("503 Service Unavailable", "{}");
    return JsonAnswer("200 OK", "{}");
  });
  const auto http = MustOpen(OptionsFor(server.port()));
  const bool idempotent = GENERATE(true, false);
  const auto response = http->Send(Get("/", idempotent));
  if (idempotent) {
    REQUIRE(response.has_value());
    CHECK(response->status == 200);
    CHECK(calls == 3);
  } else {
    CHECK(calls == 1);
    if (dropped) {
      REQUIRE_FALSE(response.has_value());
      CHECK(response.error().code == Errc::kUnavailable);
    } else {
      CHECK(response->status == 503);
    }
  }
}

TEST_CASE("A write is sent once even when its kept-alive connection dies under it", "[client]") {
  std::atomic<int> posts{0};
  TlsServer server(Served(), [&](const std::string& request) {
    if (request.starts_with("GET")) return JsonAnswer("200 OK", "{}");
    ++posts;
    return std::string();
  });
  const auto http = MustOpen(OptionsFor(server.port()));
  REQUIRE(http->Send(Get("/")).has_value());
  const std::string body = "{}";
  CHECK_FALSE(http->Send({.method = "POST",
                          .target = "/",
                          .json_body = AsBytes(body),
                          .max_response_bytes = 10})
                  .has_value());
  CHECK(posts == 1);
}

TEST_CASE("Attempts end: a server that stays away is unavailable", "[client]") {
  std::uint16_t port = 0;
  {
    TlsServer gone(Served(), [](const std::string&) { return std::string(); });
    port = gone.port();
  }
  const auto response = MustOpen(OptionsFor(port))->Send(Get("/"));
  REQUIRE_FALSE(response.has_value());
  CHECK(response.error().code == Errc::kUnavailable);
  CHECK(Says(response.error(), "is latchkeyd running there?"));
}

TEST_CASE("An answer that does not come in time ends the request", "[client]") {
  std::promise<void> release;
  auto released = release.get_future().share();
  TlsServer server(Served(), [released](const std::string&) {
    released.wait();
    return std::string();
  });
  auto options = OptionsFor(server.port());
  options.total_timeout = std::chrono::milliseconds(200);
  const auto response = MustOpen(options)->Send(Get("/"));
  release.set_value();
  REQUIRE_FALSE(response.has_value());
  CHECK(response.error().code == Errc::kUnavailable);
  CHECK(Says(response.error(), "no complete answer"));
}

TEST_CASE("Cancel from another thread ends a long poll, and Rearm allows the next request",
          "[client]") {
  std::promise<void> arrived, release;
  auto released = release.get_future().share();
  std::atomic<bool> first{true};
  TlsServer server(Served(), [&, released](const std::string&) {
    if (first.exchange(false)) {
      arrived.set_value();
      released.wait();
      return std::string();
    }
    return JsonAnswer("200 OK", R"({"generation":5,"reset":false,"changed":[],"gone":[]})");
  });
  auto opened = ApiClient::Open(OptionsFor(server.port()));
  REQUIRE(opened.has_value());
  ApiClient& api = **opened;
  std::jthread canceller([&] {
    arrived.get_future().wait();
    api.Cancel();
  });
  const auto cancelled = api.Changes(Generation{1}, std::chrono::seconds(60), Generation{1});
  REQUIRE_FALSE(cancelled.has_value());
  CHECK(cancelled.error().code == Errc::kUnavailable);
  CHECK_FALSE(api.Changes(Generation{1}, std::chrono::seconds(60), std::nullopt).has_value());
  CHECK(server.requests().size() == 1);
  api.Rearm();
  const auto next = api.Changes(Generation{1}, std::chrono::seconds(60), std::nullopt);
  release.set_value();
  REQUIRE(next.has_value());
  CHECK(next->generation.value == 5);
}

TEST_CASE("A missing, unreadable or wrong file is named before any connection", "[client]") {
  auto options = OptionsFor(1);
  SECTION("CA file") {
    options.tls.ca_file = "/nonexistent/ca.pem";
  }
  SECTION("certificate file") {
    options.tls.cert_file = "/nonexistent/app.crt";
  }
  SECTION("key file") {
    options.tls.key_file = "";
  }
  SECTION("key file that is a directory") {
    options.tls.key_file = SharedPki().dir();
  }
  SECTION("key file that is a fifo") {
    options.tls.key_file = SharedPki().File("fifo");
    ::mkfifo(options.tls.key_file.c_str(), 0600);
  }
  const auto http = HttpClient::Open(options);
  REQUIRE_FALSE(http.has_value());
  CHECK(http.error().code == Errc::kInvalidArgument);
}

TEST_CASE("Files that do not fit each other are refused with their names", "[client]") {
  TlsServer server(Served(), [](const std::string&) { return JsonAnswer("200 OK", "{}"); });
  auto options = OptionsFor(server.port());
  std::string named;
  SECTION("the key of another certificate") {
    named = options.tls.key_file = SharedPki().File("admin.key");
  }
  SECTION("a CA file without a certificate") {
    named = options.tls.ca_file = SharedPki().File("app.key");
  }
  SECTION("a certificate file that is none") {
    named = options.tls.cert_file = SharedPki().File("app.key");
  }
  SECTION("an encrypted key, for which nothing asks on the terminal") {
    named = options.tls.key_file = SharedPki().File("encrypted.key");
    const std::string command = "openssl pkey -in " + SharedPki().File("app.key") +
                                " -aes256 -passout pass:x -out " + named;
    REQUIRE(std::system(command.c_str()) == 0);
  }
  const auto response = MustOpen(options)->Send(Get("/"));
  REQUIRE_FALSE(response.has_value());
  CHECK(response.error().code == Errc::kInvalidArgument);
  CHECK(Says(response.error(), named));
  CHECK(server.requests().empty());
}

TEST_CASE("The status of an answer becomes a code, and its message reaches the user cleaned",
          "[client]") {
  const auto [status, code] = GENERATE(table<std::string, Errc>({
      {"400 Bad Request", Errc::kInvalidArgument},
      {"401 Unauthorized", Errc::kUnauthenticated},
      {"403 Forbidden", Errc::kPermissionDenied},
      {"404 Not Found", Errc::kNotFound},
      {"409 Conflict", Errc::kConflict},
      {"413 Content Too Large", Errc::kTooLarge},
      {"422 Unprocessable Content", Errc::kInvalidArgument},
      {"500 Internal Server Error", Errc::kInternal},
      {"503 Service Unavailable", Errc::kUnavailable},
      {"302 Found", Errc::kInternal},
  }));
  TlsServer server(Served(), [status = status](const std::string&) {
    return JsonAnswer(status, R"({"code":1,"message":"because \u001b[2Jof it"})",
                      "X-Request-Id: abc\r\n");
  });
  auto api = ApiClient::Open(OptionsFor(server.port()));
  REQUIRE(api.has_value());
  const auto answer = (*api)->GetSecret("x");
  REQUIRE_FALSE(answer.has_value());
  CHECK(answer.error().code == code);
  CHECK(answer.error().message.find('\x1b') == std::string::npos);
  if (code != Errc::kUnauthenticated) CHECK(Says(answer.error(), "because \\u001b[2Jof it"));
  const auto delivered = (*api)->Secret("x");
  REQUIRE_FALSE(delivered.has_value());
  CHECK(delivered.error().code == (code == Errc::kPermissionDenied ? Errc::kForbidden : code));
}

TEST_CASE("A server that cannot write says why, and what the codes of it mean is said",
          "[client]") {
  const auto [body, said] = GENERATE(table<std::string, std::string>({
      {R"({"code":503,"message":"audit_unavailable"})", "free space where audit.dir lies"},
      {R"({"code":503,"message":"disk full: free space where store.path lies"})",
       "disk full: free space where store.path lies"},
      {R"({"code":503,"message":"HTTP 503 Service Unavailable"})", "is busy: try again"},
  }));
  TlsServer server(Served(), [body = body](const std::string&) {
    return JsonAnswer("503 Service Unavailable", body);
  });
  auto api = ApiClient::Open(OptionsFor(server.port()));
  REQUIRE(api.has_value());
  const auto refused = (*api)->DeleteClient("x");
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().code == Errc::kUnavailable);
  CHECK(Says(refused.error(), said));
}

TEST_CASE("A batch asks by name with versions and takes nothing that it did not ask for",
          "[client]") {
  std::string body =
      R"([{"name":"a","secret":"YQ==","secretLength":1,"checksum":"X","version":4}])";
  TlsServer server(Served(), [&](const std::string&) { return JsonAnswer("200 OK", body); });
  auto api = ApiClient::Open(OptionsFor(server.port()));
  REQUIRE(api.has_value());
  const auto batch = (*api)->BatchSecrets({"a", "b\"c"});
  REQUIRE(batch.has_value());
  REQUIRE(batch->size() == 1);
  CHECK(batch->front().version == 4u);
  CHECK(AsText(batch->front().content.bytes()) == "a");
  const auto requests = server.requests();
  REQUIRE(requests.size() == 1);
  CHECK(requests[0].starts_with("POST /batchsecret?versions=true HTTP/1.1\r\n"));
  CHECK(requests[0].ends_with("\r\n\r\n{\"secrets\":[\"a\",\"b\\\"c\"]}"));
  CHECK_FALSE((*api)->BatchSecrets({"z", "b"}).has_value());
  CHECK((*api)->BatchSecrets({})->empty());
  CHECK_FALSE((*api)->BatchSecrets(std::vector<std::string>(1001, "a")).has_value());
  CHECK_FALSE((*api)->Secret("other").has_value());
}

TEST_CASE("A write carries its content as base64 and gives its receipt", "[client]") {
  TlsServer server(Served(), [&](const std::string&) {
    return JsonAnswer("201 Created", "", "X-Latchkey-Version: 2\r\nX-Latchkey-Generation: 77\r\n");
  });
  auto api = ApiClient::Open(OptionsFor(server.port()));
  REQUIRE(api.has_value());
  const auto content = SecretBuffer::CopyOf(AsBytes("top\n"));
  REQUIRE(content.has_value());
  SecretChange change;
  change.metadata = Metadata{{"mode", "0400"}};
  const auto receipt = (*api)->UpdateSecret("a/b", change, &*content);
  REQUIRE(receipt.has_value());
  CHECK(receipt->version == 2u);
  CHECK(receipt->generation == 77u);
  NewSecret secret;
  secret.name = "n";
  secret.groups = {"g"};
  REQUIRE((*api)->CreateSecret(secret, *content).has_value());
  const auto requests = server.requests();
  REQUIRE(requests.size() == 2);
  CHECK(requests[0].starts_with("POST /automation/v2/secrets/a%2Fb/partialupdate HTTP/1.1\r\n"));
  CHECK(requests[0].ends_with(
      R"({"contentPresent":true,"descriptionPresent":false,"typePresent":false,"metadataPresent":true,)"
      R"("metadata":{"mode":"0400"},"expiryPresent":false,"content":"dG9wCg=="})"));
  CHECK(requests[1].ends_with(
      R"({"name":"n","description":"","type":"","expiry":0,"metadata":{},"groups":["g"],"content":"dG9wCg=="})"));
}

TEST_CASE("An answer that is not what the API promises is refused", "[client]") {
  const auto body = GENERATE(values<std::string>({"", "[", "{}", "[1,{}]", "\"x\"", "[\"a\"]]"}));
  TlsServer server(Served(), [&](const std::string&) { return JsonAnswer("200 OK", body); });
  auto api = ApiClient::Open(OptionsFor(server.port()));
  REQUIRE(api.has_value());
  CHECK_FALSE((*api)->ListSecrets().has_value());
  CHECK_FALSE((*api)->GetSecret("a").has_value());
  CHECK_FALSE((*api)->Changes(Generation{0}, std::chrono::seconds(0), std::nullopt).has_value());
  CHECK_FALSE((*api)->Access("a", "b").has_value());
  CHECK_FALSE((*api)->Secrets().has_value());
}

}  // namespace latchkey::client
