#include "server/identity/authenticator.h"

#include <catch2/catch.hpp>
#include <type_traits>

using namespace latchkey;
using identity::Authenticator;
using identity::Credentials;
using identity::Identified;

// Rule X3: nobody else makes a Principal.
static_assert(!std::is_default_constructible_v<Principal>);
static_assert(!std::is_constructible_v<Principal, ClientId, std::string, bool, bool, std::string>);

namespace {

class FixedClock final : public Clock {
 public:
  WallTime Now() const override { return WallTime(std::chrono::seconds(1'000'000)); }
  MonotonicTime Monotonic() const override { return MonotonicTime(at); }
  std::chrono::nanoseconds at{1};
};

catalog::RootRef TestRoot() {
  catalog::Editor editor(std::make_shared<const catalog::Root>());
  const auto put = [&](std::int64_t id, const char* name, std::optional<std::string> spiffe,
                       bool enabled) {
    store::ClientRow row;
    row.id = ClientId{id};
    row.name = name;
    row.spiffe_id = std::move(spiffe);
    row.enabled = enabled;
    row.automation = id == 1;
    row.last_seen = 1'000'000;
    editor.PutClient(row);
  };
  put(1, "alice", "spiffe://corp/alice", true);
  put(2, "bob", std::nullopt, true);
  put(3, "carol", "spiffe://corp/carol", false);
  return editor.Snapshot();
}

tls::PeerCertificate Certificate(std::optional<std::string> name,
                                 std::optional<std::string> spiffe = std::nullopt) {
  tls::PeerCertificate certificate;
  certificate.names.common_name = std::move(name);
  certificate.names.spiffe_id = std::move(spiffe);
  certificate.subject = "CN=" + certificate.names.common_name.value_or("?");
  certificate.earliest_not_after = 2'000'000;
  return certificate;
}

struct Asked {
  FixedClock clock;
  catalog::RootRef root = TestRoot();
  Identified operator()(const tls::PeerCertificate& certificate, identity::Options options = {}) {
    return Authenticator(options, clock).Identify(*root, {&certificate, false, 4444, "10.0.0.1"});
  }
};

}  // namespace

TEST_CASE("a certificate is one client by its common name or by its SPIFFE id", "[identity]") {
  Asked ask;
  const auto by_name = ask(Certificate("alice"));
  REQUIRE(by_name.principal.has_value());
  CHECK(by_name.principal->client() == ClientId{1});
  CHECK(by_name.principal->automation());
  CHECK_FALSE(by_name.principal->content());
  CHECK(by_name.principal->address() == "10.0.0.1");
  CHECK(ask(Certificate(std::nullopt, "spiffe://corp/alice")).principal->name() == "alice");
  CHECK(ask(Certificate("alice", "spiffe://corp/alice")).principal->name() == "alice");
  CHECK(ask(Certificate("unknown", "spiffe://corp/alice")).principal->name() == "alice");
  CHECK(ask(Certificate("bob", "spiffe://corp/unknown")).principal->name() == "bob");
}

TEST_CASE("names of two rows, of none, and in another case are refused", "[identity][I3]") {
  Asked ask;
  CHECK(std::string(ask(Certificate("bob", "spiffe://corp/alice")).refusal.detail) ==
        "names_two_clients");
  // A disabled row counts as a row: it may not be slipped past by a second name.
  CHECK(std::string(ask(Certificate("bob", "spiffe://corp/carol")).refusal.detail) ==
        "names_two_clients");
  for (const char* name : {"Alice", "alice ", "ALICE", "mallory", ""}) {
    CAPTURE(name);
    CHECK_FALSE(ask(Certificate(name)).principal.has_value());
  }
  CHECK_FALSE(ask(Certificate(std::nullopt, "spiffe://corp/ALICE")).principal.has_value());
  CHECK_FALSE(ask(Certificate(std::nullopt)).principal.has_value());
}

TEST_CASE("doubtful names are refused although a row would match", "[identity][I1]") {
  Asked ask;
  tls::PeerCertificate certificate = Certificate("alice");
  certificate.names.error = "two common names";
  CHECK(std::string(ask(certificate).refusal.detail) == "doubtful_certificate_names");
  CHECK_FALSE(ask(certificate, {true, true, true}).missing.has_value());
}

TEST_CASE("disabled, unknown and doubtful callers get one text", "[identity][I4]") {
  Asked ask;
  tls::PeerCertificate carol = Certificate("carol");
  tls::PeerCertificate nobody = Certificate("nobody");
  carol.subject = nobody.subject = "CN=x";
  const Identified disabled = ask(carol);
  const Identified unknown = ask(nobody);
  CHECK_FALSE(disabled.principal.has_value());
  CHECK(disabled.refusal.challenge == unknown.refusal.challenge);
  CHECK(disabled.refusal.challenge == "No authorized Client for connection using principal CN=x");
  CHECK(std::string(disabled.refusal.detail) == "client_disabled");
}

TEST_CASE("a subject cannot break out of its header line", "[identity]") {
  Asked ask;
  tls::PeerCertificate certificate = Certificate("nobody");
  certificate.subject =
      std::string("CN=x\r\nSet-Cookie: a=b\0\x7f\xff", 24) + std::string(5000, 'y');
  const std::string challenge = ask(certificate).refusal.challenge;
  for (const char c : challenge) CHECK((c >= 0x20 && c <= 0x7e));
  CHECK(challenge.size() < 400);
}

TEST_CASE("no certificate and a forwarded identity on a direct port are refused first",
          "[identity][X1]") {
  Asked ask;
  const Authenticator authenticator({}, ask.clock);
  CHECK(
      authenticator.Identify(*ask.root, Credentials{nullptr, false, 4444, ""}).refusal.challenge ==
      "Not authorized as Keywhiz client");
  const tls::PeerCertificate alice = Certificate("alice");
  const Identified forwarded =
      authenticator.Identify(*ask.root, Credentials{&alice, true, 4444, ""});
  CHECK_FALSE(forwarded.principal.has_value());
  CHECK(forwarded.refusal.challenge ==
        "Port 4444 is configured to never receive traffic with the X-Forwarded-Client-Cert header "
        "set");
}

TEST_CASE("a lookup that is switched off finds nothing and contradicts nothing", "[identity]") {
  Asked ask;
  CHECK_FALSE(ask(Certificate("alice"), {false, true, false}).principal.has_value());
  CHECK(ask(Certificate("bob", "spiffe://corp/alice"), {false, true, false}).principal->name() ==
        "alice");
  CHECK(ask(Certificate("bob", "spiffe://corp/alice"), {true, false, false}).principal->name() ==
        "bob");
}

TEST_CASE("a missing client may be created only when that is on and it has a name",
          "[identity][I4]") {
  Asked ask;
  CHECK_FALSE(ask(Certificate("fresh")).missing.has_value());
  const Identified fresh = ask(Certificate("fresh", "spiffe://corp/fresh"), {true, true, true});
  REQUIRE(fresh.missing.has_value());
  CHECK(fresh.missing->name == "fresh");
  CHECK(fresh.missing->spiffe_id == "spiffe://corp/fresh");
  CHECK_FALSE(ask(Certificate(std::nullopt, "spiffe://corp/fresh"), {true, true, true})
                  .missing.has_value());
  CHECK_FALSE(ask(Certificate("carol"), {true, true, true}).missing.has_value());
}

TEST_CASE("a hundred clients are created in a minute and no more", "[identity][I4]") {
  FixedClock clock;
  Authenticator authenticator({true, true, true}, clock);
  for (std::size_t i = 0; i < limits::kMaxAutoCreatedPerMinute; ++i)
    CHECK(authenticator.AdmitCreation());
  CHECK_FALSE(authenticator.AdmitCreation());
  clock.at += std::chrono::seconds(59);
  CHECK_FALSE(authenticator.AdmitCreation());
  clock.at += std::chrono::seconds(1);
  CHECK(authenticator.AdmitCreation());
}

TEST_CASE("a sighting is due after a day, for disabled clients too", "[identity]") {
  Asked ask;
  CHECK_FALSE(ask(Certificate("alice")).sighting.has_value());
  catalog::Editor editor(ask.root);
  store::ClientRow carol = editor.root().FindClient(std::string_view("carol"))->row;
  carol.last_seen = 1'000'000 - 86'400;
  editor.PutClient(carol);
  ask.root = editor.Snapshot();
  CHECK_FALSE(ask(Certificate("carol")).sighting.has_value());
  carol.last_seen = 1'000'000 - 86'401;
  editor.PutClient(carol);
  ask.root = editor.Snapshot();
  const Identified due = ask(Certificate("carol"));
  REQUIRE(due.sighting.has_value());
  CHECK(due.sighting->client == ClientId{3});
  CHECK(due.sighting->expiration == 2'000'000);
}
