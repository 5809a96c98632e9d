#include "common/tls/certificate.h"

#include <catch2/catch.hpp>

#include "tests/support/pki.h"

namespace latchkey::tls {
namespace {

using testing::Authority;
using testing::CertificateSpec;
using testing::ClientSpec;
using testing::SpiffeSpec;
using testing::StringKind;

const Authority& Ca() {
  static const Authority ca = Authority::Root("names CA");
  return ca;
}

NamePolicy Policy() {
  NamePolicy policy;
  policy.trust_domains = {"example.org"};
  return policy;
}

CertificateNames NamesOf(const CertificateSpec& spec, const NamePolicy& policy = Policy()) {
  return ReadCertificateNames(Ca().Issue(spec).certificate_der, policy);
}

CertificateSpec WithNames(std::vector<testing::CommonName> names) {
  CertificateSpec spec;
  spec.common_names = std::move(names);
  return spec;
}

}  // namespace

TEST_CASE("A common name of permitted characters is read byte for byte", "[tls]") {
  const std::string name = GENERATE(as<std::string>{}, "client", "CN=User1", "a.b-c_d:e=f",
                                    "two words", "X", std::string(255, 'n'));
  const auto kind = GENERATE(StringKind::kUtf8, StringKind::kPrintable, StringKind::kIa5);
  const auto names = NamesOf(WithNames({{name, kind}}));
  CHECK(names.error == "");
  REQUIRE(names.common_name.has_value());
  CHECK(*names.common_name == name);
  CHECK_FALSE(names.spiffe_id.has_value());
}

TEST_CASE("A doubtful common name is refused, never repaired", "[tls]") {
  using namespace std::string_literals;
  struct Case {
    const char* what;
    std::vector<testing::CommonName> names;
  };
  const auto wanted = GENERATE(
      Case{"empty", {{""}}}, Case{"too long", {{std::string(256, 'n')}}},
      Case{"NUL inside", {{"admin\0x"s}}}, Case{"NUL at the end", {{"admin\0"s}}},
      Case{"control byte", {{"adm\x01in"}}}, Case{"newline", {{"admin\n"}}},
      Case{"delete", {{"adm\x7fin"}}}, Case{"letter outside of the pattern", {{"adm\xc3\xafn"}}},
      Case{"slash", {{"a/b"}}}, Case{"star", {{"*"}}}, Case{"leading blank", {{" admin"}}},
      Case{"trailing blank", {{"admin "}}}, Case{"only a blank", {{" "}}},
      Case{"two names", {{"admin"}, {"client"}}}, Case{"twice the same", {{"admin"}, {"admin"}}},
      Case{"BMPString", {{"\0a\0d"s, StringKind::kBmp}}},
      Case{"T61String", {{"admin", StringKind::kT61}}},
      Case{"Latin-1 in a PrintableString", {{"adm\xe9", StringKind::kPrintable}}},
      Case{"Latin-1 in an IA5String", {{"adm\xe9", StringKind::kIa5}}});
  CAPTURE(wanted.what);
  const auto names = NamesOf(WithNames(wanted.names));
  CHECK_FALSE(names.error.empty());
  CHECK_FALSE(names.common_name.has_value());
  CHECK_FALSE(names.spiffe_id.has_value());
}

TEST_CASE("A common name that is not UTF-8 is refused", "[tls]") {
  // OpenSSL does not sign such a name, so it is written into the finished DER.
  const std::string bad =
      GENERATE(as<std::string>{}, "adm\xff\xff", "adm\xc1\x81", "\xed\xa0\x80zz");
  ByteVector der = Ca().Issue(ClientSpec("PLACE")).certificate_der;
  REQUIRE(ReadCertificateNames(der, Policy()).error.empty());
  const auto at = std::search(der.begin(), der.end(), std::begin("PLACE"), std::begin("PLACE") + 5);
  REQUIRE(at != der.end());
  std::copy(bad.begin(), bad.end(), at);
  CHECK_FALSE(ReadCertificateNames(der, Policy()).error.empty());
}

TEST_CASE("A certificate that names no one is refused", "[tls]") {
  CHECK_FALSE(NamesOf(WithNames({})).error.empty());
}

TEST_CASE("The character pattern is the policy's", "[tls]") {
  NamePolicy policy = Policy();
  policy.cn_characters = "a-c@-";
  CHECK(NamesOf(ClientSpec("ab@-c"), policy).error.empty());
  CHECK_FALSE(NamesOf(ClientSpec("abd"), policy).error.empty());
}

TEST_CASE("One canonical SPIFFE id of an allowed trust domain is read", "[tls]") {
  const std::string uri = GENERATE(as<std::string>{}, "spiffe://example.org/client",
                                   "spiffe://example.org/ns/prod/sa/web_1.x-y",
                                   "spiffe://example.org/" + std::string(2048 - 21, 'p'));
  const auto names = NamesOf(SpiffeSpec(uri));
  CHECK(names.error.empty());
  REQUIRE(names.spiffe_id.has_value());
  CHECK(*names.spiffe_id == uri);
  CHECK_FALSE(names.common_name.has_value());
}

TEST_CASE("A SPIFFE id that is not canonical is refused", "[tls]") {
  using namespace std::string_literals;
  const std::string uri = GENERATE(
      "SPIFFE://example.org/client"s, "Spiffe://example.org/client"s, "spiffe:/example.org/client"s,
      "spiffe:example.org"s, "spiffe://other.org/client"s, "spiffe://EXAMPLE.org/client"s,
      "spiffe://example.org"s, "spiffe://example.org/"s, "spiffe://example.org/a//b"s,
      "spiffe://example.org/a/"s, "spiffe://example.org/./a"s, "spiffe://example.org/../a"s,
      "spiffe://example.org/a/.."s, "spiffe://example.org/%61"s, "spiffe://example.org/a?b"s,
      "spiffe://example.org/a#b"s, "spiffe://example.org:443/a"s, "spiffe://user@example.org/a"s,
      "spiffe:///a"s, "spiffe://example.org/a\0b"s, "spiffe://example.org/a b"s,
      "spiffe://example.org/\xc3\xa4"s, "spiffe://example.org/" + std::string(2049 - 21, 'p'));
  CAPTURE(uri);
  const auto names = NamesOf(SpiffeSpec(uri));
  CHECK_FALSE(names.error.empty());
  CHECK_FALSE(names.spiffe_id.has_value());
}

TEST_CASE("Without an allow-list every SPIFFE id is refused", "[tls]") {
  CHECK_FALSE(NamesOf(SpiffeSpec("spiffe://example.org/client"), NamePolicy{}).error.empty());
}

TEST_CASE("A bad SPIFFE id is not hidden by a good common name", "[tls]") {
  CertificateSpec spec = ClientSpec("client");
  spec.uris = {"spiffe://other.org/client"};
  CHECK_FALSE(NamesOf(spec).error.empty());
  spec.uris = {"spiffe://example.org/client"};
  const auto names = NamesOf(spec);
  CHECK(names.error.empty());
  CHECK(names.common_name == "client");
  CHECK(names.spiffe_id == "spiffe://example.org/client");
}

TEST_CASE("Several URI names are refused unless Keywhiz' way is asked for", "[tls]") {
  CertificateSpec spec = ClientSpec("client");
  spec.uris = {"spiffe://example.org/a",
               GENERATE(as<std::string>{}, "spiffe://example.org/b", "https://example.org/")};
  CHECK_FALSE(NamesOf(spec).error.empty());
  NamePolicy compat = Policy();
  compat.keywhiz_compat = true;
  const auto names = NamesOf(spec, compat);
  CHECK(names.error.empty());
  CHECK(names.common_name == "client");
  CHECK_FALSE(names.spiffe_id.has_value());
}

TEST_CASE("A URI of another scheme and a DNS name name no one", "[tls]") {
  CertificateSpec spec = ClientSpec("client");
  spec.uris = {"https://example.org/admin"};
  spec.dns_names = {"admin"};
  const auto names = NamesOf(spec);
  CHECK(names.error.empty());
  CHECK(names.common_name == "client");
  spec.common_names.clear();
  CHECK_FALSE(NamesOf(spec).error.empty());
}

TEST_CASE("DER that is cut, grown or not a certificate is refused", "[tls]") {
  const ByteVector good = Ca().Issue(ClientSpec("client")).certificate_der;
  REQUIRE(ReadCertificateNames(good, Policy()).error.empty());
  ByteVector grown = good;
  grown.push_back(0);
  CHECK_FALSE(ReadCertificateNames(grown, Policy()).error.empty());
  for (std::size_t size = 0; size < good.size(); size += 7) {
    CHECK_FALSE(ReadCertificateNames(Bytes(good).first(size), Policy()).error.empty());
  }
}

}  // namespace latchkey::tls
