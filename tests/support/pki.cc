#include "tests/support/pki.h"

#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>
#include <sys/stat.h>

#include <cstdlib>
#include <ctime>
#include <fstream>

#include "common/base/check.h"
#include "common/tls/openssl.h"

namespace latchkey::testing {
namespace {

using tls::BioHandle;
using tls::KeyHandle;
using tls::X509CrlHandle;
using tls::X509Handle;

KeyHandle MakeKey(KeyKind kind) {
  switch (kind) {
    case KeyKind::kP256:
      return KeyHandle(EVP_EC_gen("P-256"));
    case KeyKind::kP384:
      return KeyHandle(EVP_EC_gen("P-384"));
    case KeyKind::kEd25519:
      return KeyHandle(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"));
    case KeyKind::kRsa1024:
      return KeyHandle(EVP_RSA_gen(1024));
    case KeyKind::kRsa2048:
      return KeyHandle(EVP_RSA_gen(2048));
  }
  INVARIANT(false);
}

int Asn1Type(StringKind kind) {
  switch (kind) {
    case StringKind::kUtf8:
      return V_ASN1_UTF8STRING;
    case StringKind::kPrintable:
      return V_ASN1_PRINTABLESTRING;
    case StringKind::kIa5:
      return V_ASN1_IA5STRING;
    case StringKind::kT61:
      return V_ASN1_T61STRING;
    case StringKind::kBmp:
      return V_ASN1_BMPSTRING;
  }
  INVARIANT(false);
}

std::string TakeText(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  return {data, static_cast<std::size_t>(size)};
}

std::string CertificatePem(X509* certificate) {
  const BioHandle out(BIO_new(BIO_s_mem()));
  INVARIANT(PEM_write_bio_X509(out.get(), certificate) == 1);
  return TakeText(out.get());
}

std::string KeyPem(EVP_PKEY* key) {
  const BioHandle out(BIO_new(BIO_s_mem()));
  INVARIANT(PEM_write_bio_PKCS8PrivateKey(out.get(), key, nullptr, nullptr, 0, nullptr, nullptr) ==
            1);
  return TakeText(out.get());
}

std::string SerialHex(const ASN1_INTEGER* serial) {
  const CHandle<BIGNUM, BN_free> number(ASN1_INTEGER_to_BN(serial, nullptr));
  char* hex = BN_bn2hex(number.get());
  std::string text(hex);
  OPENSSL_free(hex);
  return text;
}

void SetRandomSerial(X509* certificate) {
  unsigned char bytes[16];
  INVARIANT(RAND_bytes(bytes, sizeof bytes) == 1);
  bytes[0] = static_cast<unsigned char>((bytes[0] & 0x7f) | 0x01);
  const CHandle<BIGNUM, BN_free> number(BN_bin2bn(bytes, sizeof bytes, nullptr));
  INVARIANT(BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(certificate)) != nullptr);
}

void SetSubject(X509* certificate, const std::vector<CommonName>& names) {
  X509_NAME* subject = X509_get_subject_name(certificate);
  INVARIANT(X509_NAME_add_entry_by_txt(subject, "O", MBSTRING_ASC,
                                       reinterpret_cast<const unsigned char*>("test"), -1, -1, 0));
  for (const CommonName& name : names) {
    // Bytes and type are set past OpenSSL's checks: malformed strings are what some tests are
    // about.
    const CHandle<ASN1_STRING, ASN1_STRING_free> value(ASN1_STRING_type_new(Asn1Type(name.kind)));
    INVARIANT(
        ASN1_STRING_set(value.get(), name.bytes.data(), static_cast<int>(name.bytes.size())) == 1);
    X509_NAME_ENTRY* made = X509_NAME_ENTRY_create_by_NID(
        nullptr, NID_commonName, V_ASN1_UTF8STRING, reinterpret_cast<const unsigned char*>("x"), 1);
    INVARIANT(ASN1_STRING_copy(X509_NAME_ENTRY_get_data(made), value.get()) == 1);
    INVARIANT(X509_NAME_add_entry(subject, made, -1, 0) == 1);
    X509_NAME_ENTRY_free(made);
  }
}

void AddExtension(X509* certificate, X509* issuer, int nid, const std::string& value) {
  if (value.empty()) return;
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str());
  INVARIANT(extension != nullptr);
  INVARIANT(X509_add_ext(certificate, extension, -1) == 1);
  X509_EXTENSION_free(extension);
}

void PushName(GENERAL_NAMES* names, int type, const std::string& bytes) {
  GENERAL_NAME* name = GENERAL_NAME_new();
  ASN1_STRING* value =
      ASN1_STRING_type_new(type == GEN_IPADD ? V_ASN1_OCTET_STRING : V_ASN1_IA5STRING);
  INVARIANT(ASN1_STRING_set(value, bytes.data(), static_cast<int>(bytes.size())) == 1);
  GENERAL_NAME_set0_value(name, type, value);
  INVARIANT(sk_GENERAL_NAME_push(names, name) > 0);
}

void AddAlternativeNames(X509* certificate, const CertificateSpec& spec) {
  if (spec.uris.empty() && spec.dns_names.empty()) return;
  GENERAL_NAMES* names = GENERAL_NAMES_new();
  for (const std::string& uri : spec.uris) PushName(names, GEN_URI, uri);
  for (const std::string& dns : spec.dns_names) {
    if (dns.rfind("ip:", 0) == 0) {
      ASN1_OCTET_STRING* address = a2i_IPADDRESS(dns.c_str() + 3);
      PushName(names, GEN_IPADD,
               {reinterpret_cast<const char*>(ASN1_STRING_get0_data(address)),
                static_cast<std::size_t>(ASN1_STRING_length(address))});
      ASN1_OCTET_STRING_free(address);
    } else {
      PushName(names, GEN_DNS, dns);
    }
  }
  INVARIANT(X509_add1_ext_i2d(certificate, NID_subject_alt_name, names, 0, X509V3_ADD_DEFAULT) ==
            1);
  GENERAL_NAMES_free(names);
}

const EVP_MD* DigestFor(EVP_PKEY* key, const std::string& name) {
  return EVP_PKEY_get_base_id(key) == EVP_PKEY_ED25519 ? nullptr
                                                       : EVP_get_digestbyname(name.c_str());
}

}  // namespace

struct Authority::State {
  X509Handle certificate;
  KeyHandle key;
  std::string pem;
  std::string chain_pem;  // what a leaf of this authority must send along
  std::string serial_hex;
};

namespace {

// Fills everything but subject and signature.
void SetBasics(X509* certificate, const CertificateSpec& spec, EVP_PKEY* key,
               const X509_NAME* issuer_name) {
  INVARIANT(X509_set_version(certificate, spec.version1 ? X509_VERSION_1 : X509_VERSION_3) == 1);
  SetRandomSerial(certificate);
  const std::time_t now = std::time(nullptr);
  INVARIANT(ASN1_TIME_set(X509_getm_notBefore(certificate), now + spec.not_before_offset_s) !=
            nullptr);
  INVARIANT(ASN1_TIME_set(X509_getm_notAfter(certificate), now + spec.not_after_offset_s) !=
            nullptr);
  INVARIANT(X509_set_pubkey(certificate, key) == 1);
  INVARIANT(X509_set_issuer_name(certificate, issuer_name) == 1);
}

void AddExtensions(X509* certificate, X509* issuer, const CertificateSpec& spec) {
  if (spec.version1) return;
  AddExtension(certificate, issuer, NID_basic_constraints, spec.basic_constraints);
  AddExtension(certificate, issuer, NID_key_usage, spec.key_usage);
  AddExtension(certificate, issuer, NID_ext_key_usage, spec.extended_key_usage);
  AddExtension(certificate, issuer, NID_subject_key_identifier, "hash");
  AddExtension(certificate, issuer, NID_authority_key_identifier, "keyid:always");
  AddAlternativeNames(certificate, spec);
}

}  // namespace

CertificateSpec ClientSpec(const std::string& common_name) {
  CertificateSpec spec;
  spec.common_names = {{common_name, StringKind::kUtf8}};
  return spec;
}

CertificateSpec SpiffeSpec(const std::string& uri) {
  CertificateSpec spec;
  spec.common_names.clear();
  spec.uris = {uri};
  return spec;
}

CertificateSpec ServerSpec() {
  CertificateSpec spec = ClientSpec("localhost");
  spec.dns_names = {"localhost", "ip:127.0.0.1"};
  spec.extended_key_usage = "serverAuth";
  return spec;
}

Authority Authority::Make(const std::string& common_name, KeyKind kind, const State* issuer,
                          int path_len) {
  tls::InitOpenSsl();
  auto state = std::make_shared<State>();
  state->key = MakeKey(kind);
  INVARIANT(state->key != nullptr);
  state->certificate.reset(X509_new());
  X509* certificate = state->certificate.get();
  CertificateSpec spec = ClientSpec(common_name);
  spec.basic_constraints =
      "critical,CA:TRUE" + (path_len >= 0 ? ",pathlen:" + std::to_string(path_len) : "");
  spec.key_usage = "critical,keyCertSign,cRLSign";
  spec.extended_key_usage.clear();
  spec.not_after_offset_s = 30 * 24 * 3600;
  SetSubject(certificate, spec.common_names);
  X509* signer = issuer != nullptr ? issuer->certificate.get() : certificate;
  EVP_PKEY* signing_key = issuer != nullptr ? issuer->key.get() : state->key.get();
  SetBasics(certificate, spec, state->key.get(), X509_get_subject_name(signer));
  AddExtensions(certificate, signer, spec);
  INVARIANT(X509_sign(certificate, signing_key, DigestFor(signing_key, "SHA256")) > 0);
  state->pem = CertificatePem(certificate);
  state->serial_hex = SerialHex(X509_get0_serialNumber(certificate));
  if (issuer != nullptr) state->chain_pem = state->pem + issuer->chain_pem;
  return Authority(std::move(state));
}

Authority Authority::Root(const std::string& common_name) {
  return Make(common_name, KeyKind::kP256, nullptr, -1);
}
Authority Authority::RootWithKey(const std::string& common_name, KeyKind key) {
  return Make(common_name, key, nullptr, -1);
}
Authority Authority::Intermediate(const std::string& common_name, int path_len) const {
  return Make(common_name, KeyKind::kP256, state_.get(), path_len);
}

const std::string& Authority::certificate_pem() const {
  return state_->pem;
}
ByteVector Authority::certificate_der() const {
  return tls::DerOf(state_->certificate.get());
}
const std::string& Authority::serial_hex() const {
  return state_->serial_hex;
}

Credential Authority::Issue(const CertificateSpec& spec) const {
  const KeyHandle key = MakeKey(spec.key);
  INVARIANT(key != nullptr);
  const X509Handle certificate(X509_new());
  SetSubject(certificate.get(), spec.common_names);
  SetBasics(certificate.get(), spec, key.get(), X509_get_subject_name(state_->certificate.get()));
  AddExtensions(certificate.get(), state_->certificate.get(), spec);
  INVARIANT(X509_sign(certificate.get(), state_->key.get(),
                      DigestFor(state_->key.get(), spec.digest)) > 0);
  Credential credential;
  credential.certificate_pem = CertificatePem(certificate.get());
  credential.chain_pem = state_->chain_pem;
  credential.key_pem = KeyPem(key.get());
  credential.certificate_der = tls::DerOf(certificate.get());
  credential.serial_hex = SerialHex(X509_get0_serialNumber(certificate.get()));
  return credential;
}

std::string Authority::Crl(const CrlSpec& spec) const {
  const X509CrlHandle crl(X509_CRL_new());
  INVARIANT(X509_CRL_set_version(crl.get(), 1) == 1);
  INVARIANT(X509_CRL_set_issuer_name(crl.get(), X509_get_subject_name(state_->certificate.get())) ==
            1);
  const std::time_t now = std::time(nullptr);
  const CHandle<ASN1_TIME, ASN1_TIME_free> from(
      ASN1_TIME_set(nullptr, now + spec.this_update_offset_s));
  const CHandle<ASN1_TIME, ASN1_TIME_free> until(
      ASN1_TIME_set(nullptr, now + spec.next_update_offset_s));
  INVARIANT(X509_CRL_set1_lastUpdate(crl.get(), from.get()) == 1 &&
            X509_CRL_set1_nextUpdate(crl.get(), until.get()) == 1);
  for (const std::string& hex : spec.revoked_serials_hex) {
    BIGNUM* number = nullptr;
    INVARIANT(BN_hex2bn(&number, hex.c_str()) > 0);
    const CHandle<ASN1_INTEGER, ASN1_INTEGER_free> serial(BN_to_ASN1_INTEGER(number, nullptr));
    BN_free(number);
    X509_REVOKED* entry = X509_REVOKED_new();
    INVARIANT(X509_REVOKED_set_serialNumber(entry, serial.get()) == 1);
    INVARIANT(X509_REVOKED_set_revocationDate(entry, from.get()) == 1);
    INVARIANT(X509_CRL_add0_revoked(crl.get(), entry) == 1);
  }
  X509_CRL_sort(crl.get());
  INVARIANT(X509_CRL_sign(crl.get(), state_->key.get(), DigestFor(state_->key.get(), spec.digest)) >
            0);
  const BioHandle out(BIO_new(BIO_s_mem()));
  INVARIANT(PEM_write_bio_X509_CRL(out.get(), crl.get()) == 1);
  return TakeText(out.get());
}

TestDirectory::TestDirectory() {
  std::string pattern = (std::filesystem::temp_directory_path() / "latchkey-test-XXXXXX").string();
  INVARIANT(::mkdtemp(pattern.data()) != nullptr);
  path_ = pattern;
}

TestDirectory::~TestDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string TestDirectory::Write(const std::string& name, const std::string& content,
                                 unsigned mode) const {
  const std::filesystem::path file = path_ / name;
  {
    std::ofstream out(file, std::ios::binary | std::ios::trunc);
    out << content;
    INVARIANT(out.good());
  }
  INVARIANT(::chmod(file.c_str(), mode) == 0);
  return file.string();
}

}  // namespace latchkey::testing
