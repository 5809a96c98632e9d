#include "common/tls/context.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <fstream>

#include "common/base/unique_fd.h"
#include "common/model/limits.h"
#include "tests/support/clocks.h"
#include "tests/support/pki.h"

namespace latchkey::tls {
namespace {

using testing::Authority;
using testing::CertificateSpec;
using testing::ClientSpec;
using testing::Credential;
using testing::CrlSpec;
using testing::KeyKind;
using testing::ServerSpec;
using testing::TestDirectory;

// A directory with a server certificate and a client CA, all good; a test spoils one file.
struct Setup {
  TestDirectory directory;
  Authority server_ca = Authority::Root("server CA");
  Authority client_ca = Authority::Root("client CA");
  Authority middle = client_ca.Intermediate("client intermediate");
  TrustOptions options;
  testing::ShiftedClock clock;

  Setup() {
    const Credential server = server_ca.Issue(ServerSpec());
    options.certificate_file = directory.Write("server.pem", server.certificate_with_chain_pem());
    options.key_file = directory.Write("server.key", server.key_pem);
    options.client_ca_file =
        directory.Write("clients.pem", client_ca.certificate_pem() + middle.certificate_pem());
    options.names.trust_domains = {"example.org"};
  }
  std::shared_ptr<const TlsContext> Load() {
    auto loaded = LoadTrust(options, clock);
    if (!loaded.has_value()) FAIL(loaded.error().message);
    return std::move(loaded).value();
  }
  std::string LoadError() {
    const auto loaded = LoadTrust(options, clock);
    return loaded.has_value() ? "" : loaded.error().message;
  }
};

// What a load of `setup` logs.
std::string LogOfLoad(Setup& setup) {
  const std::string path = setup.directory.Write("log", "");
  const UniqueFd file(::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
  const UniqueFd before(::dup(STDERR_FILENO));
  REQUIRE(::dup2(file.get(), STDERR_FILENO) >= 0);
  const auto loaded = LoadTrust(setup.options, setup.clock);
  REQUIRE(::dup2(before.get(), STDERR_FILENO) >= 0);
  REQUIRE(loaded.has_value());
  std::ifstream in(path);
  return std::string(std::istreambuf_iterator<char>(in), {});
}

std::vector<ByteVector> Presented(const Credential& leaf) {
  return {leaf.certificate_der};
}

bool Accepts(const TlsContext& trust, const Credential& leaf) {
  return trust.VerifyPresented(Presented(leaf)).has_value();
}

}  // namespace

TEST_CASE("A good set of files loads and a good leaf of either authority is accepted", "[tls]") {
  Setup setup;
  const auto trust = setup.Load();
  const Credential leaf = GENERATE(0, 1) == 0 ? setup.client_ca.Issue(ClientSpec("client"))
                                              : setup.middle.Issue(ClientSpec("client"));
  const auto verified = trust->VerifyPresented(Presented(leaf));
  REQUIRE(verified.has_value());
  CHECK((*verified)->names.common_name == "client");
  CHECK((*verified)->chain_der == Presented(leaf));
  CHECK((*verified)->earliest_not_after == (*verified)->not_after);
  CHECK(trust->server_not_after() > 0);
  CHECK(trust->earliest_crl_next_update() == 0);
}

TEST_CASE("Each load is a new trust epoch", "[tls]") {
  Setup setup;
  const std::uint64_t first = setup.Load()->epoch();
  CHECK(setup.Load()->epoch() > first);
}

TEST_CASE("A leaf with one defect is refused and its reason is told", "[tls]") {
  struct Case {
    const char* what;
    void (*spoil)(CertificateSpec*);
    bool legacy_accepts;
  };
  const auto defect = GENERATE(
      Case{"no extended key usage", [](CertificateSpec* s) { s->extended_key_usage.clear(); },
           true},
      Case{"only serverAuth", [](CertificateSpec* s) { s->extended_key_usage = "serverAuth"; },
           false},
      Case{"only codeSigning", [](CertificateSpec* s) { s->extended_key_usage = "codeSigning"; },
           false},
      Case{"only anyExtendedKeyUsage",
           [](CertificateSpec* s) { s->extended_key_usage = "anyExtendedKeyUsage"; }, false},
      Case{"no digitalSignature",
           [](CertificateSpec* s) { s->key_usage = "critical,keyEncipherment"; }, false},
      Case{"is a CA",
           [](CertificateSpec* s) {
             s->basic_constraints = "critical,CA:TRUE";
             s->key_usage = "critical,digitalSignature,keyCertSign";
           },
           false},
      Case{"expired", [](CertificateSpec* s) { s->not_after_offset_s = -60; }, false},
      Case{"not yet valid", [](CertificateSpec* s) { s->not_before_offset_s = 3600; }, false},
      Case{"signed with SHA-1", [](CertificateSpec* s) { s->digest = "SHA1"; }, false},
      Case{"RSA 1024", [](CertificateSpec* s) { s->key = KeyKind::kRsa1024; }, false},
      Case{"X.509 version 1", [](CertificateSpec* s) { s->version1 = true; }, true});
  const bool legacy = GENERATE(false, true);
  CAPTURE(defect.what, legacy);
  Setup setup;
  setup.options.legacy_pki = legacy;
  CertificateSpec spec = ClientSpec("client");
  defect.spoil(&spec);
  const auto verified = setup.Load()->VerifyPresented(Presented(setup.client_ca.Issue(spec)));
  CHECK(verified.has_value() == (legacy && defect.legacy_accepts));
  if (!verified.has_value())
    CHECK(verified.error().message.size() > std::string("client certificate is refused: ").size());
}

TEST_CASE("Every permitted kind of key is accepted", "[tls]") {
  Setup setup;
  CertificateSpec spec = ClientSpec("client");
  spec.key = GENERATE(KeyKind::kP256, KeyKind::kP384, KeyKind::kEd25519, KeyKind::kRsa2048);
  CHECK(Accepts(*setup.Load(), setup.client_ca.Issue(spec)));
}

TEST_CASE("A leaf of a foreign CA and one of the server's own CA are refused", "[tls]") {
  Setup setup;
  const auto trust = setup.Load();
  CHECK_FALSE(Accepts(
      *trust, Authority::Root("client CA").Issue(ClientSpec("client"))));  // same name, other key
  CHECK_FALSE(Accepts(*trust, setup.server_ca.Issue(ClientSpec("client"))));
}

TEST_CASE("A chain of depth three is accepted and a deeper one refused", "[tls]") {
  Setup setup;
  const auto trust = setup.Load();
  const Authority two = setup.middle.Intermediate("second intermediate");
  const Authority three = two.Intermediate("third intermediate");
  const Credential shallow = two.Issue(ClientSpec("client"));
  const Credential deep = three.Issue(ClientSpec("client"));
  std::vector<ByteVector> presented = {shallow.certificate_der, two.certificate_der()};
  CHECK(trust->VerifyPresented(presented).has_value());
  presented = {deep.certificate_der, three.certificate_der(), two.certificate_der()};
  CHECK_FALSE(trust->VerifyPresented(presented).has_value());
}

TEST_CASE("An intermediate that may not issue another CA is obeyed", "[tls]") {
  Setup setup;
  const Authority closed = setup.client_ca.Intermediate("closed", 0);
  const Authority below = closed.Intermediate("below");
  const auto trust = setup.Load();
  CHECK(trust
            ->VerifyPresented(
                {closed.Issue(ClientSpec("client")).certificate_der, closed.certificate_der()})
            .has_value());
  CHECK_FALSE(trust
                  ->VerifyPresented({below.Issue(ClientSpec("client")).certificate_der,
                                     below.certificate_der(), closed.certificate_der()})
                  .has_value());
}

TEST_CASE("A remembered verdict is still checked for dates", "[tls]") {
  Setup setup;
  const auto trust = setup.Load();
  CertificateSpec spec = ClientSpec("client");
  spec.not_after_offset_s = 30;
  const Credential leaf = setup.client_ca.Issue(spec);
  REQUIRE(Accepts(*trust, leaf));
  REQUIRE(Accepts(*trust, leaf));
  CHECK(trust->verdicts_remembered() == 1);
  setup.clock.Advance(std::chrono::seconds(40));
  CHECK_FALSE(Accepts(*trust, leaf));
  CHECK(trust->verdicts_remembered() == 2);  // found, and refused all the same
}

TEST_CASE("A verdict is forgotten after a minute, and a refusal is never remembered", "[tls]") {
  Setup setup;
  const auto trust = setup.Load();
  const Credential leaf = setup.client_ca.Issue(ClientSpec("client"));
  REQUIRE(Accepts(*trust, leaf));
  setup.clock.Advance(std::chrono::seconds(61));
  REQUIRE(Accepts(*trust, leaf));
  CHECK(trust->verdicts_remembered() == 0);
  CertificateSpec early = ClientSpec("early");
  early.not_before_offset_s = 1000;
  const Credential later = setup.client_ca.Issue(early);
  CHECK_FALSE(Accepts(*trust, later));
  setup.clock.Advance(std::chrono::seconds(1000));
  CHECK(Accepts(*trust, later));
}

TEST_CASE("A chain with much that is not needed is good, but not worth remembering", "[tls]") {
  Setup setup;
  const auto trust = setup.Load();
  std::vector<ByteVector> chain = Presented(setup.client_ca.Issue(ClientSpec("client")));
  std::size_t bytes = chain.front().size();
  while (bytes <= limits::kMaxRememberedChainBytes) {
    chain.push_back(setup.client_ca.Issue(ClientSpec("unneeded")).certificate_der);
    bytes += chain.back().size();
  }
  CHECK(trust->VerifyPresented(chain).has_value());
  CHECK(trust->VerifyPresented(chain).has_value());
  CHECK(trust->verdicts_remembered() == 0);
  CHECK(trust->ForgetExpired() == 0);
  chain.pop_back();
  CHECK(trust->VerifyPresented(chain).has_value());
  CHECK(trust->VerifyPresented(chain).has_value());
  CHECK(trust->verdicts_remembered() == 1);
}

TEST_CASE("Verdicts that are too old to count are let go of, the others stay", "[tls]") {
  Setup setup;
  const auto trust = setup.Load();
  REQUIRE(Accepts(*trust, setup.client_ca.Issue(ClientSpec("old"))));
  setup.clock.Advance(std::chrono::seconds(30));
  const Credential young = setup.client_ca.Issue(ClientSpec("young"));
  REQUIRE(Accepts(*trust, young));
  CHECK(trust->ForgetExpired() == 2);
  setup.clock.Advance(std::chrono::seconds(31));
  CHECK(trust->ForgetExpired() == 1);
  CHECK(Accepts(*trust, young));
  CHECK(trust->verdicts_remembered() == 1);
}

TEST_CASE("A remembered verdict belongs to the whole presented chain", "[tls]") {
  Setup setup;
  const Authority unknown = Authority::Root("unknown");
  const auto trust = setup.Load();
  const Credential leaf = setup.client_ca.Issue(ClientSpec("client"));
  REQUIRE(Accepts(*trust, leaf));
  CHECK(trust->VerifyPresented({leaf.certificate_der, unknown.certificate_der()}).has_value());
  CHECK(trust->verdicts_remembered() == 0);
}

TEST_CASE("A revoked leaf is refused and its neighbour accepted", "[tls]") {
  Setup setup;
  const Credential revoked = setup.client_ca.Issue(ClientSpec("revoked"));
  const Credential other = setup.client_ca.Issue(ClientSpec("other"));
  CrlSpec spec;
  spec.revoked_serials_hex = {revoked.serial_hex};
  setup.options.crl_files = {setup.directory.Write("root.crl", setup.client_ca.Crl(spec))};
  const auto trust = setup.Load();
  CHECK_FALSE(Accepts(*trust, revoked));
  CHECK(Accepts(*trust, other));
  CHECK(trust->earliest_crl_next_update() > 0);
}

TEST_CASE("With CRLs configured an issuer without one fails closed", "[tls]") {
  Setup setup;
  setup.options.crl_files = {setup.directory.Write("root.crl", setup.client_ca.Crl())};
  const Credential leaf = setup.middle.Issue(ClientSpec("client"));
  CHECK_FALSE(Accepts(*setup.Load(), leaf));
  setup.options.crl_files.push_back(setup.directory.Write("middle.crl", setup.middle.Crl()));
  CHECK(Accepts(*setup.Load(), leaf));
}

TEST_CASE("A client CA that no CRL covers is named at load", "[tls]") {
  Setup setup;
  CHECK(LogOfLoad(setup) == "");  // no CRLs, no checks
  setup.options.crl_files = {setup.directory.Write("middle.crl", setup.middle.Crl())};
  const std::string log = LogOfLoad(setup);
  CHECK_THAT(log, Catch::Contains(" warn ") && Catch::Contains("no revocation list") &&
                      Catch::Contains("CN=client CA"));
  CHECK_THAT(log, !Catch::Contains("CN=client intermediate"));
  // One of the same name is not covered by the list of the other.
  const Authority renewed = Authority::Root("client CA");
  setup.options.crl_files.push_back(setup.directory.Write("root.crl", setup.client_ca.Crl()));
  CHECK(LogOfLoad(setup) == "");
  setup.options.client_ca_file = setup.directory.Write(
      "clients.pem", setup.client_ca.certificate_pem() + setup.middle.certificate_pem() +
                         renewed.certificate_pem());
  CHECK_THAT(LogOfLoad(setup), Catch::Contains("CN=client CA"));
}

TEST_CASE("A revoked intermediate takes its leaves with it", "[tls]") {
  Setup setup;
  CrlSpec spec;
  spec.revoked_serials_hex = {setup.middle.serial_hex()};
  setup.options.crl_files = {
      setup.directory.Write("all.crl", setup.client_ca.Crl(spec) + setup.middle.Crl())};
  const auto trust = setup.Load();
  CHECK_FALSE(Accepts(*trust, setup.middle.Issue(ClientSpec("client"))));
  CHECK(Accepts(*trust, setup.client_ca.Issue(ClientSpec("client"))));
}

TEST_CASE("A CRL that runs out while the server runs fails closed, remembered verdict or not",
          "[tls]") {
  Setup setup;
  CrlSpec spec;
  spec.next_update_offset_s = 30;
  setup.options.crl_files = {setup.directory.Write("root.crl", setup.client_ca.Crl(spec))};
  const auto trust = setup.Load();
  const Credential leaf = setup.client_ca.Issue(ClientSpec("client"));
  REQUIRE(Accepts(*trust, leaf));
  setup.clock.Advance(std::chrono::seconds(31));
  CHECK_FALSE(Accepts(*trust, leaf));
}

TEST_CASE("A CRL that cannot be relied on is refused at load", "[tls]") {
  Setup setup;
  CrlSpec spec;
  std::string pem;
  std::string expected;
  SECTION("expired") {
    spec.this_update_offset_s = -7200;
    spec.next_update_offset_s = -60;
    pem = setup.client_ca.Crl(spec);
    expected = "has expired";
  }
  SECTION("not yet valid") {
    spec.this_update_offset_s = 3600;
    pem = setup.client_ca.Crl(spec);
    expected = "not yet valid";
  }
  SECTION("of an unknown CA") {
    pem = Authority::Root("elsewhere").Crl();
    expected = "not signed by a CA";
  }
  SECTION("signed by another key of the same name") {
    pem = Authority::Root("client CA").Crl();
    expected = "not signed by a CA";
  }
  SECTION("SHA-1") {
    spec.digest = "SHA1";
    pem = setup.client_ca.Crl(spec);
    expected = "SHA-2";
  }
  SECTION("empty file") {
    expected = "no PEM CRL";
  }
  setup.options.crl_files = {setup.directory.Write("bad.crl", pem)};
  CHECK_THAT(setup.LoadError(), Catch::Contains("bad.crl") && Catch::Contains(expected));
}

TEST_CASE("The newer of two CRLs of one issuer counts", "[tls]") {
  Setup setup;
  const Credential leaf = setup.client_ca.Issue(ClientSpec("client"));
  CrlSpec newer;
  newer.this_update_offset_s = -10;
  newer.revoked_serials_hex = {leaf.serial_hex};
  CrlSpec older;
  older.this_update_offset_s = -600;
  const std::string first = setup.client_ca.Crl(newer);
  const std::string second = setup.client_ca.Crl(older);
  for (const std::string& pem : {first + second, second + first}) {
    setup.options.crl_files = {setup.directory.Write("both.crl", pem)};
    CHECK_FALSE(Accepts(*setup.Load(), leaf));
  }
}

TEST_CASE("A bad file is refused with its name and what to do", "[tls]") {
  Setup setup;
  std::string expected;
  SECTION("key of another certificate") {
    setup.directory.Write("server.key", setup.server_ca.Issue(ServerSpec()).key_pem);
    expected = "does not belong";
  }
  SECTION("key open to every user") {
    ::chmod(setup.options.key_file.c_str(), 0604);
    expected = "chmod 0600";
  }
  SECTION("no key in the file") {
    setup.directory.Write("server.key", "nothing");
    expected = "no unencrypted PEM private key";
  }
  SECTION("missing key") {
    setup.options.key_file += ".missing";
    expected = "make it readable";
  }
  SECTION("expired server certificate") {
    CertificateSpec spec = ServerSpec();
    spec.not_after_offset_s = -60;
    const Credential expired = setup.server_ca.Issue(spec);
    setup.directory.Write("server.pem", expired.certificate_pem);
    setup.directory.Write("server.key", expired.key_pem);
    expected = "renew it";
  }
  SECTION("server certificate of tomorrow") {
    CertificateSpec spec = ServerSpec();
    spec.not_before_offset_s = 3600;
    const Credential early = setup.server_ca.Issue(spec);
    setup.directory.Write("server.pem", early.certificate_pem);
    setup.directory.Write("server.key", early.key_pem);
    expected = "not yet valid";
  }
  SECTION("server certificate that is a client's") {
    CertificateSpec spec = ServerSpec();
    spec.extended_key_usage = "clientAuth";
    // Not even the switch for old PKIs admits what says that it is something else.
    setup.options.legacy_pki = GENERATE(false, true);
    const Credential client = setup.server_ca.Issue(spec);
    setup.directory.Write("server.pem", client.certificate_pem);
    setup.directory.Write("server.key", client.key_pem);
    expected = "have one issued with serverAuth";
  }
  SECTION("server certificate without extended key usage") {
    CertificateSpec spec = ServerSpec();
    spec.extended_key_usage = "";
    const Credential plain = setup.server_ca.Issue(spec);
    setup.directory.Write("server.pem", plain.certificate_pem);
    setup.directory.Write("server.key", plain.key_pem);
    setup.options.legacy_pki = true;
    REQUIRE(LoadTrust(setup.options).has_value());
    setup.options.legacy_pki = false;
    expected = "has no extended key usage";
  }
  SECTION("a leaf among the CAs") {
    setup.directory.Write("clients.pem",
                          setup.client_ca.certificate_pem() +
                              setup.client_ca.Issue(ClientSpec("client")).certificate_pem);
    expected = "is not a CA";
  }
  SECTION("a self-signed weak root") {
    setup.directory.Write("clients.pem",
                          Authority::RootWithKey("weak", KeyKind::kRsa1024).certificate_pem());
    expected = "too weak";
  }
  SECTION("an intermediate without its root") {
    setup.directory.Write("clients.pem", setup.middle.certificate_pem());
    expected = "add the root CA";
  }
  SECTION("empty CA file") {
    setup.directory.Write("clients.pem", "");
    expected = "no PEM certificate";
  }
  SECTION("damaged CA file") {
    std::string pem = setup.client_ca.certificate_pem();
    pem[pem.size() / 2] = '!';
    setup.directory.Write("clients.pem", setup.client_ca.certificate_pem() + pem);
    expected = "certificate 2 is malformed";
  }
  SECTION("a directory in place of a file") {
    setup.options.client_ca_file = setup.directory.path().string();
    expected = "not a regular file";
  }
  CHECK_THAT(setup.LoadError(),
             Catch::Contains(setup.directory.path().string()) && Catch::Contains(expected));
}

}  // namespace latchkey::tls
