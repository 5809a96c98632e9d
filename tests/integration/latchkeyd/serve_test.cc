// serve: what it refuses at start, what signals do, what it shows to monitoring, what survives (rules A3, G6, P4, P5, T5).
#include <arpa/inet.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>

#include "common/base/check.h"
#include "tests/integration/latchkeyd/place.h"
#include "tests/support/pki.h"

namespace latchkey {
namespace {

Outcome CurlMetrics(const Place& place, const std::string& path) {
  return RunProgram({"/usr/bin/curl", "--silent", "--show-error", "--max-time", "30", "--write-out",
                     "\n%{http_code}",
                     "http://127.0.0.1:" + Trimmed(ReadText(place.Path("metrics-port"))) + path});
}

// A start that must be refused: the one line, and the exit code.
void ExpectNoStart(const Place& place, int exit_code, const std::string& text,
                   const std::vector<std::string>& extra = {}) {
  std::vector<std::string> arguments{"serve"};
  arguments.insert(arguments.end(), extra.begin(), extra.end());
  const Outcome outcome = place.Command(arguments);
  CAPTURE(outcome.err);
  CHECK(outcome.exit_code == exit_code);
  const std::size_t at = outcome.err.find("latchkeyd: error: ");
  REQUIRE(at != std::string::npos);
  CHECK_THAT(outcome.err.substr(at), Catch::Contains(text));
  CHECK_FALSE(std::filesystem::exists(place.Path("port")));
}

std::string Quoted(const std::string& text) {
  return "\"" + text + "\"";
}

}  // namespace

TEST_CASE("serve says READY, answers a granted client, and ends cleanly at SIGTERM",
          "[latchkeyd]") {
  const Place place(true);
  place.Init();
  place.Populate();
  {
    RunningServer server(place.directory());
    if (!server.ready()) FAIL(server.log());
    const Outcome status = Curl(place, "", "/_status");
    CHECK_THAT(status.out, Catch::EndsWith("\n200"));
    const Outcome secret = Curl(place, "web-1", "/secret/db_password");
    CHECK_THAT(secret.out, Catch::EndsWith("\n200"));
    CHECK_THAT(secret.out, Catch::Contains("dGhpcmQ="));  // "third"
    const Outcome denied = Curl(place, "admin", "/secret/db_password");
    CHECK_THAT(denied.out, Catch::EndsWith("\n403") || Catch::EndsWith("\n404"));
    // Beside the running server everything verifies.
    const Outcome check = place.Command({"check"});
    CAPTURE(check.out, check.err);
    CHECK(check.exit_code == 0);
    server.Signal(SIGTERM);
    CHECK(server.AwaitNotice("STOPPING=1"));
    CHECK(server.Wait() == 0);
    CHECK_THAT(server.log(), Catch::Contains("audit heads") && Catch::Contains("stopped"));
  }
  const Outcome check = place.Command({"check"});
  CAPTURE(check.out, check.err);
  CHECK(check.exit_code == 0);
}

TEST_CASE("A second server on the same store is refused, and so is client set beside a server",
          "[latchkeyd]") {
  const Place place(true);
  place.Init();
  RunningServer server(place.directory());
  if (!server.ready()) FAIL(server.log());
  std::filesystem::remove(place.Path("port"));
  ExpectNoStart(place, 1, "is in use by process " + std::to_string(server.pid()));
  const Outcome set = place.Command({"client", "set", "admin", "--content"});
  CHECK(set.exit_code == 1);
  CHECK_THAT(set.err, Catch::Contains("is in use by process"));
  const Outcome create = place.Command({"client", "create", "ops", "--automation"});
  CHECK(create.exit_code == 1);
  CHECK_THAT(create.err, Catch::Contains("is in use by process"));
  // A backup is taken beside it.
  CHECK(place.Command({"backup", place.Path("copy.db")}).exit_code == 0);
  CHECK(Latchkeyd({"check", "--store", place.Path("copy.db"), "--kek", place.Path("kek")})
            .exit_code == 0);
}

TEST_CASE("Each thing in the way of a start is refused with a line that names it", "[latchkeyd]") {
  const Place place(true);
  ExpectNoStart(place, 78, "key file");
  place.Init();
  WriteBytes(place.Path("file"), AsBytes("x"));

  const int taken = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = ::htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  REQUIRE(::bind(taken, reinterpret_cast<sockaddr*>(&address), length) == 0);
  REQUIRE(::listen(taken, 1) == 0);
  REQUIRE(::getsockname(taken, reinterpret_cast<sockaddr*>(&address), &length) == 0);
  const std::string port = std::to_string(::ntohs(address.sin_port));
  place.WriteConfig({{"listen.port", port}});
  ExpectNoStart(place, 1, "port " + port);
  place.WriteConfig({{"metrics.port", port}});
  ExpectNoStart(place, 1, "port " + port);
  ::close(taken);

  place.WriteConfig({{"audit.dir", Quoted(place.Path("no-such-directory"))}});
  ExpectNoStart(place, 1, "no-such-directory");
  place.WriteConfig({{"audit.dir", Quoted(place.Path("file"))}});
  ExpectNoStart(place, 1, place.Path("file"));
  place.WriteConfig({{"anchor.path", Quoted(place.Path("file/anchor"))}});
  ExpectNoStart(place, 1, "file/anchor");
  place.WriteConfig({{"store.path", Quoted(place.Path("state/other.db"))}});
  ExpectNoStart(place, 1, "latchkeyd init makes one");
  place.WriteConfig({{"listen.port_file", Quoted(place.Path("nowhere/port"))}});
  ExpectNoStart(place, 1, "cannot write the port file");

  place.WriteConfig({{"tls.certificate", Quoted(place.Path("pki/none.crt"))}});
  ExpectNoStart(place, 1, "none.crt");
  place.WriteConfig({{"tls.certificate", Quoted(place.Path("file"))}});
  ExpectNoStart(place, 1, place.Path("file"));
  place.WriteConfig({{"tls.key", Quoted(place.Path("pki/web-1.key"))}});
  ExpectNoStart(place, 1, "web-1.key");
  place.WriteConfig({{"tls.client_ca", Quoted(place.Path("pki/web-1.crt"))}});
  ExpectNoStart(place, 1, "web-1.crt");
  place.WriteConfig({{"tls.crl", Quoted(place.Path("pki/none.crl"))}});
  ExpectNoStart(place, 1, "none.crl");
  place.WriteConfig();
  REQUIRE(::chmod(place.Path("pki/server.key").c_str(), 0644) == 0);
  ExpectNoStart(place, 1, "server.key");
  REQUIRE(::chmod(place.Path("pki/server.key").c_str(), 0600) == 0);
  REQUIRE(::chmod(place.store().c_str(), 0644) == 0);
  ExpectNoStart(place, 1, "chmod 600");
  REQUIRE(::chmod(place.store().c_str(), 0600) == 0);

  // With everything in place again it starts: none of the refusals has harmed the store.
  RunningServer server(place.directory());
  CAPTURE(server.log());
  CHECK(server.ready());
}

TEST_CASE("A store that was changed outside the server does not start", "[latchkeyd]") {
  const Place place(true);
  place.Init();
  place.Populate();
  Sql(place.store(), "UPDATE clients SET automation = 1 WHERE name = 'web-1'");
  ExpectNoStart(place, 8, "client");
}

TEST_CASE("A store older than its anchor starts only with --accept-rollback, and that is on record",
          "[latchkeyd]") {
  const Place place(true);
  place.Init();
  place.Populate();
  const ByteVector old = ReadBytes(place.store());
  REQUIRE(place.Command({"client", "set", "web-1", "--disable"}).exit_code == 0);
  WriteBytes(place.store(), old);
  const ByteVector anchor = ReadBytes(place.Path("anchor"));
  ExpectNoStart(place, 1, "the store is older than its anchor");
  CHECK(ReadBytes(place.Path("anchor")) == anchor);
  ExpectNoStart(place, 1, "--accept-rollback");
  {
    RunningServer server(place.directory(), {"--accept-rollback"});
    if (!server.ready()) FAIL(server.log());
    CHECK_THAT(server.log(), Catch::Contains("rollback accepted"));
    server.Signal(SIGTERM);
    CHECK(server.Wait() == 0);
  }
  // From then on the store is good as it is, with the acceptance in both chains.
  const Outcome check = place.Command({"check"});
  CAPTURE(check.out);
  CHECK(check.exit_code == 0);
  std::filesystem::remove(place.Path("port"));
  RunningServer server(place.directory());
  if (!server.ready()) FAIL(server.log());
  const Outcome store_events = Curl(place, "admin", "/automation/v2/audit?chain=store&limit=100");
  CHECK_THAT(store_events.out, Catch::Contains("rollback.accepted"));
  const Outcome access_events = Curl(place, "admin", "/automation/v2/audit?chain=access&limit=100");
  CHECK_THAT(access_events.out, Catch::Contains("rollback.accepted"));
}

TEST_CASE("A missing or forged anchor, and a spool that lost records, are refused in the same way",
          "[latchkeyd]") {
  const Place place(true);
  place.Init();
  place.Populate();
  const std::string how = GENERATE("missing anchor", "forged anchor", "lost spool");
  CAPTURE(how);
  if (how == "missing anchor") std::filesystem::remove(place.Path("anchor"));
  if (how == "forged anchor") WriteBytes(place.Path("anchor"), AsBytes("latchkey-anchor 1\n"));
  if (how == "lost spool") std::filesystem::remove(place.Path("audit/access-000001.spool"));
  ExpectNoStart(place, how == "lost spool" ? 8 : 1, "--accept-rollback");
  RunningServer server(place.directory(), {"--accept-rollback"});
  if (!server.ready()) FAIL(server.log());
  server.Signal(SIGTERM);
  CHECK(server.Wait() == 0);
  const Outcome check = place.Command({"check"});
  CAPTURE(check.out);
  CHECK(check.exit_code == 0);
}

TEST_CASE("A killed server starts again and everything verifies", "[latchkeyd]") {
  const Place place(true);
  place.Init();
  place.Populate();
  for (int round = 0; round < 3; ++round) {
    std::filesystem::remove(place.Path("port"));
    RunningServer server(place.directory());
    if (!server.ready()) FAIL(server.log());
    for (int i = 0; i < 3; ++i)
      CHECK_THAT(Curl(place, "web-1", "/secret/api_key").out, Catch::EndsWith("\n200"));
    server.Signal(SIGKILL);
    CHECK(server.Wait() == 128 + SIGKILL);
  }
  const Outcome check = place.Command({"check"});
  CAPTURE(check.out);
  CHECK(check.exit_code == 0);
}

TEST_CASE("SIGHUP takes certificate and log level together, or neither", "[latchkeyd]") {
  const Place place(true);
  place.Init();
  RunningServer server(place.directory());
  if (!server.ready()) FAIL(server.log());
  const auto reload = [&] {
    server.Signal(SIGHUP);
    REQUIRE(server.AwaitNotice("RELOADING=1"));
    REQUIRE(server.AwaitNotice("READY=1"));
  };
  const auto served_certificate = [&] {
    const Outcome shown = RunProgram({"/usr/bin/openssl", "s_client", "-connect",
                                      "127.0.0.1:" + Trimmed(ReadText(place.Path("port")))});
    const std::size_t begin = shown.out.find("-----BEGIN CERTIFICATE");
    return shown.out.substr(begin, shown.out.find("-----END CERTIFICATE") - begin);
  };
  const std::string first = served_certificate();
  REQUIRE(first.size() > 200);
  REQUIRE(RunProgram({TESTS_SOURCE_DIR "/../certs/make-dev-certs", "server", "renewed", "--out",
                      place.Path("pki")})
              .exit_code == 0);

  // A broken pair: the certificate is renewed, the key is not.
  place.WriteConfig(
      {{"tls.certificate", Quoted(place.Path("pki/renewed.crt"))}, {"log.level", "\"error\""}});
  reload();
  CHECK_THAT(server.log(), Catch::Contains("reload refused: everything stays as it was"));
  CHECK(served_certificate() == first);
  // The log level stayed, too: information is still printed.
  place.WriteConfig({{"tls.certificate", Quoted(place.Path("pki/renewed.crt"))},
                     {"tls.key", Quoted(place.Path("pki/renewed.key"))}});
  reload();
  CHECK_THAT(server.log(), Catch::Contains("reloaded certificates"));
  CHECK(served_certificate() != first);
  // A typing error in the configuration refuses as well.
  place.WriteConfig({{"log.levle", "\"error\""}});
  reload();
  CHECK_THAT(server.log(), Catch::Contains("log.levle"));
  server.Signal(SIGTERM);
  CHECK(server.Wait() == 0);
}

TEST_CASE("A certificate that no client would accept is refused by config-check, serve and SIGHUP",
          "[latchkeyd]") {
  const Place place(true);
  place.Init();
  RunningServer server(place.directory());
  if (!server.ready()) FAIL(server.log());
  REQUIRE(place.Command({"config-check"}).exit_code == 0);
  const testing::Authority ca = testing::Authority::Root("another CA");
  const auto expect_refused = [&](const testing::Credential& credential, bool own_key,
                                  const std::string& text) {
    CAPTURE(text);
    WriteBytes(place.Path("bad.crt"), AsBytes(credential.certificate_pem));
    WriteBytes(place.Path("bad.key"), AsBytes(credential.key_pem));
    REQUIRE(::chmod(place.Path("bad.key").c_str(), 0600) == 0);
    place.WriteConfig({{"tls.certificate", Quoted(place.Path("bad.crt"))},
                       {"tls.key", Quoted(place.Path(own_key ? "bad.key" : "pki/server.key"))}});
    const Outcome check = place.Command({"config-check"});
    CHECK(check.exit_code == 1);
    CHECK(check.out.empty());
    CHECK_THAT(check.err, Catch::StartsWith("latchkeyd: error: ") && Catch::Contains(text));
    CHECK(std::count(check.err.begin(), check.err.end(), '\n') == 1);
    const std::size_t before = server.log().size();
    server.Signal(SIGHUP);
    REQUIRE(server.AwaitNotice("RELOADING=1"));
    REQUIRE(server.AwaitNotice("READY=1"));
    CHECK_THAT(server.log().substr(before),
               Catch::Contains("reload refused") && Catch::Contains(text));
    // A server of its own, so that the store is not what stops it.
    const Place other(true);
    other.Init();
    WriteBytes(other.Path("bad.key"), AsBytes(credential.key_pem));
    REQUIRE(::chmod(other.Path("bad.key").c_str(), 0600) == 0);
    other.WriteConfig(
        {{"tls.certificate", Quoted(place.Path("bad.crt"))},
         {"tls.key", Quoted(own_key ? other.Path("bad.key") : other.Path("pki/server.key"))}});
    ExpectNoStart(other, 1, text);
  };
  testing::CertificateSpec spec = testing::ServerSpec();
  expect_refused(ca.Issue(spec), false, "install key and certificate together");
  spec.extended_key_usage = "clientAuth";
  expect_refused(ca.Issue(spec), true, "have one issued with serverAuth");
  spec.extended_key_usage = "";
  expect_refused(ca.Issue(spec), true, "have it issued with serverAuth");
  spec = testing::ServerSpec();
  spec.not_after_offset_s = -60;
  expect_refused(ca.Issue(spec), true, "server certificate has expired: renew it");
  CHECK_THAT(Curl(place, "", "/_status").out, Catch::EndsWith("\n200"));
}

TEST_CASE("A flood of strangers costs a handful of records, and every refusal is in the chain",
          "[latchkeyd]") {
  const Place place(true);
  place.Init();
  constexpr int kRequests = 400;
  {
    RunningServer server(place.directory());
    if (!server.ready()) FAIL(server.log());
    // No certificate: one connection, many requests.
    const Outcome flood = Curl(place, "", "/secret/x[1-" + std::to_string(kRequests) + "]",
                               {"--output", "/dev/null"});
    CHECK_THAT(flood.out, Catch::EndsWith("401"));
    const std::string metrics = CurlMetrics(place, "/metrics").out;
    CHECK_THAT(metrics, Catch::Contains("\nlatchkey_audit_denied_events_total 400\n"));
    CHECK_THAT(metrics, Catch::Contains("\nlatchkey_audit_refusals_counted_total 396\n"));
    server.Signal(SIGTERM);
    CHECK(server.Wait() == 0);
  }
  const Outcome check = place.Command({"check"});
  CAPTURE(check.out, check.err);
  CHECK(check.exit_code == 0);
  RunningServer server(place.directory());
  if (!server.ready()) FAIL(server.log());
  const std::string audit =
      Curl(place, "admin", "/automation/v2/audit?chain=access&limit=1000").out;
  CAPTURE(audit);
  const auto count = [&audit](const std::string& text) {
    int found = 0;
    for (std::size_t at = audit.find(text); at != std::string::npos; at = audit.find(text, at + 1))
      ++found;
    return found;
  };
  CHECK(count("\"type\":\"auth.refused\"") == 4);
  CHECK(count("\"type\":\"auth.refused_many\"") == 1);
  CHECK(count("\"detail\":\"no_certificate\",\"count\":396,\"since\":") == 1);
  CHECK(audit.find("auth.refused_many") < audit.find("server.stop"));
}

TEST_CASE("Health, readiness and metrics are on their own listener, and nothing else is",
          "[latchkeyd]") {
  const Place place(true);
  place.Init();
  place.Populate();
  RunningServer server(place.directory());
  if (!server.ready()) FAIL(server.log());
  CHECK(CurlMetrics(place, "/healthz").out == "ok\n\n200");
  CHECK(CurlMetrics(place, "/readyz").out == "ready\n\n200");
  CHECK_THAT(CurlMetrics(place, "/secrets").out, Catch::EndsWith("404"));
  REQUIRE_THAT(Curl(place, "web-1", "/secret/api_key").out, Catch::EndsWith("\n200"));
  const std::string metrics = CurlMetrics(place, "/metrics").out;
  CAPTURE(metrics);
  CHECK_THAT(metrics, Catch::Contains("\nlatchkey_secrets 2\n"));
  CHECK_THAT(metrics, Catch::Contains("\nlatchkey_clients 3\n"));
  CHECK_THAT(metrics, Catch::Contains("\nlatchkey_requests_total 1\n"));
  CHECK_THAT(metrics, Catch::Contains("# TYPE latchkey_requests_total counter"));
  CHECK_THAT(metrics, Catch::Contains("latchkey_audit_reserve_bytes "));
  CHECK_THAT(metrics, Catch::Contains("\nlatchkey_audit_spool_bytes 1"));  // 128 MiB and more
  CHECK_THAT(metrics, Catch::Contains("\nlatchkey_audit_disk_free_bytes "));
  // Names of secrets and clients have no place there.
  CHECK(metrics.find("api_key") == std::string::npos);
  CHECK(metrics.find("web-1") == std::string::npos);
  CHECK_THAT(Curl(place, "", "/metrics").out, !Catch::EndsWith("\n200"));
}

TEST_CASE("The metrics listener can be switched off", "[latchkeyd]") {
  const Place place(true);
  place.Init();
  place.WriteConfig({{"metrics.address", "\"\""}});
  RunningServer server(place.directory());
  CHECK(server.ready());
  CHECK_FALSE(std::filesystem::exists(place.Path("metrics-port")));
}

TEST_CASE("With the spool's disk gone the server refuses reads instead of serving them unrecorded",
          "[latchkeyd][A2]") {
  // The spool's files are replaced by nothing that can be written: the process may not write any file beyond one byte.
  const Place place(true);
  place.Init();
  place.Populate();
  RunningServer server(place.directory());
  if (!server.ready()) FAIL(server.log());
  REQUIRE_THAT(Curl(place, "web-1", "/secret/api_key").out, Catch::EndsWith("\n200"));
  REQUIRE(RunProgram({"/usr/bin/prlimit", "--pid", std::to_string(server.pid()), "--fsize=1:1"})
              .exit_code == 0);
  const Outcome refused = Curl(place, "web-1", "/secret/api_key");
  CHECK_THAT(refused.out, Catch::EndsWith("\n503"));
  CHECK(refused.out.find("dGhpcmQ=") == std::string::npos);
}

}  // namespace latchkey
