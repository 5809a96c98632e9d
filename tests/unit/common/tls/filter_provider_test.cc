#include "common/tls/filter_provider.h"

#include <openssl/pem.h>

#include <catch2/catch.hpp>

#include "tests/support/pki.h"

namespace latchkey::tls {
namespace {

using testing::Authority;
using testing::CertificateSpec;
using testing::KeyKind;

OSSL_LIB_CTX* Library() {
  const auto library = TlsLibrary();
  REQUIRE(library.has_value());
  return *library;
}

KeyHandle KeyOf(const testing::Credential& credential) {
  const BioHandle pem(
      BIO_new_mem_buf(credential.key_pem.data(), static_cast<int>(credential.key_pem.size())));
  return KeyHandle(PEM_read_bio_PrivateKey(pem.get(), nullptr, nullptr, nullptr));
}

template <class T, auto Free>
bool Drop(T* fetched) {
  const bool found = fetched != nullptr;
  Free(fetched);
  DrainOpenSslErrors();
  return found;
}
bool HasDigest(const char* name) {
  return Drop<EVP_MD, EVP_MD_free>(EVP_MD_fetch(Library(), name, nullptr));
}
bool HasCipher(const char* name) {
  return Drop<EVP_CIPHER, EVP_CIPHER_free>(EVP_CIPHER_fetch(Library(), name, nullptr));
}
bool HasSignature(const char* name) {
  return Drop<EVP_SIGNATURE, EVP_SIGNATURE_free>(EVP_SIGNATURE_fetch(Library(), name, nullptr));
}
bool HasKeys(const char* name) {
  return Drop<EVP_KEYMGMT, EVP_KEYMGMT_free>(EVP_KEYMGMT_fetch(Library(), name, nullptr));
}

}  // namespace

TEST_CASE("The TLS library context offers what TLS needs here and nothing else", "[tls]") {
  for (const char* name : {"SHA2-256", "SHA2-384", "SHA2-512"}) CHECK(HasDigest(name));
  for (const char* name : {"MD5", "MD4", "RIPEMD-160", "SM3", "SHA3-256", "MD5-SHA1"})
    CHECK_FALSE(HasDigest(name));
  for (const char* name : {"AES-128-GCM", "AES-256-GCM", "ChaCha20-Poly1305"})
    CHECK(HasCipher(name));
  for (const char* name :
       {"AES-128-CBC", "AES-256-CBC", "DES-EDE3-CBC", "CAMELLIA-128-CBC", "ARIA-128-GCM", "NULL"})
    CHECK_FALSE(HasCipher(name));
  for (const char* name : {"ECDSA", "RSA", "ED25519"}) CHECK(HasSignature(name));
  for (const char* name : {"DSA", "ED448", "SM2"}) CHECK_FALSE(HasSignature(name));
  for (const char* name : {"EC", "RSA", "X25519", "ED25519"}) CHECK(HasKeys(name));
  for (const char* name : {"DSA", "DH", "DHX", "X448", "SM2"}) CHECK_FALSE(HasKeys(name));
}

TEST_CASE("A certificate's key decodes in the TLS library context as it does outside", "[tls]") {
  CertificateSpec spec;
  spec.key = GENERATE(KeyKind::kP256, KeyKind::kP384, KeyKind::kEd25519, KeyKind::kRsa2048);
  const auto credential = Authority::Root("CA").Issue(spec);
  const auto outside = ParseCertificate(credential.certificate_der);
  const auto inside = ParseCertificate(credential.certificate_der, Library());
  REQUIRE((outside.has_value() && inside.has_value()));
  const EVP_PKEY* key = X509_get0_pubkey(inside->get());
  REQUIRE(key != nullptr);
  CHECK(EVP_PKEY_get_bits(key) == EVP_PKEY_get_bits(X509_get0_pubkey(outside->get())));
  const auto moved = MoveKey(KeyOf(credential).get(), Library());
  REQUIRE(moved.has_value());
  CHECK(EVP_PKEY_eq(moved->get(), key) == 1);
}

TEST_CASE("A private key that TLS here cannot use is refused when it is moved", "[tls]") {
  Library();
  const KeyHandle ed448(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED448"));
  REQUIRE(ed448 != nullptr);
  const auto moved = MoveKey(ed448.get(), Library());
  REQUIRE_FALSE(moved.has_value());
  CHECK_THAT(moved.error().message, Catch::Contains("of a kind"));
}

}  // namespace latchkey::tls
