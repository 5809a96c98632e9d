#include "common/tls/openssl.h"

#include <openssl/err.h>

#include <ctime>
#include <mutex>

namespace latchkey::tls {

void InitOpenSsl() {
  static std::once_flag once;
  std::call_once(once, [] {
    OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_NO_ATEXIT, nullptr);
  });
}

std::string DrainOpenSslErrors() {
  std::string text;
  while (const unsigned long code = ERR_get_error()) {
    const char* reason = ERR_reason_error_string(code);
    if (!text.empty()) text += "; ";
    text += reason != nullptr ? reason : "unknown openssl error";
  }
  return text.empty() ? "no detail from openssl" : text;
}

std::string NameText(const X509_NAME* name) {
  const BioHandle out(BIO_new(BIO_s_mem()));
  if (!out || X509_NAME_print_ex(out.get(), name, 0, XN_FLAG_RFC2253) < 0) {
    DrainOpenSslErrors();
    return "";
  }
  char* data = nullptr;  // borrowed from the BIO
  const long size = BIO_get_mem_data(out.get(), &data);
  return size > 0 ? std::string(data, static_cast<std::size_t>(size)) : "";
}

ByteVector DerOf(const X509* certificate) {
  const int size = i2d_X509(certificate, nullptr);
  if (size <= 0) {
    DrainOpenSslErrors();
    return {};
  }
  ByteVector der(static_cast<std::size_t>(size));
  std::uint8_t* at = der.data();
  if (i2d_X509(certificate, &at) != size) der.clear();
  return der;
}

Result<X509Handle> ParseCertificate(Bytes der, OSSL_LIB_CTX* library) {
  InitOpenSsl();
  ERR_clear_error();
  if (der.size() > static_cast<std::size_t>(INT32_MAX))
    return Error{Errc::kTooLarge, "certificate is larger than 2 GiB"};
  X509Handle certificate(X509_new_ex(library, nullptr));
  INVARIANT(certificate != nullptr);
  const std::uint8_t* at = der.data();
  X509* raw = certificate.release();  // d2i_X509 frees it on failure and nulls the pointer
  X509* parsed = d2i_X509(&raw, &at, static_cast<long>(der.size()));
  X509Handle owned(parsed);
  if (parsed == nullptr)
    return Error{Errc::kInvalidArgument, "malformed certificate: " + DrainOpenSslErrors()};
  if (at != der.data() + der.size())
    return Error{Errc::kInvalidArgument, "bytes follow the certificate"};
  return owned;
}

Result<std::int64_t> EpochOf(const ASN1_TIME* time) {
  std::tm parts{};
  if (time == nullptr || ASN1_TIME_to_tm(time, &parts) != 1) {
    DrainOpenSslErrors();
    return Error{Errc::kInvalidArgument, "malformed time in a certificate or CRL"};
  }
  return static_cast<std::int64_t>(timegm(&parts));
}

}  // namespace latchkey::tls
