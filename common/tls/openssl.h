// Owners of OpenSSL objects and the few calls that every user of OpenSSL here needs. Only
// common/tls and server/net include this.
#pragma once

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <string>
#include <string_view>

#include "common/base/bytes.h"
#include "common/base/c_handle.h"
#include "common/base/result.h"

namespace latchkey::tls {

inline void FreeX509Stack(STACK_OF(X509) * stack) {
  sk_X509_pop_free(stack, X509_free);
}

using BioHandle = CHandle<BIO, BIO_free_all>;
using SslHandle = CHandle<SSL, SSL_free>;
using SslCtxHandle = CHandle<SSL_CTX, SSL_CTX_free>;
using X509Handle = CHandle<X509, X509_free>;
using X509StackHandle = CHandle<STACK_OF(X509), FreeX509Stack>;
using X509CrlHandle = CHandle<X509_CRL, X509_CRL_free>;
using X509StoreHandle = CHandle<X509_STORE, X509_STORE_free>;
using X509StoreCtxHandle = CHandle<X509_STORE_CTX, X509_STORE_CTX_free>;
using KeyHandle = CHandle<EVP_PKEY, EVP_PKEY_free>;

// Initialises OpenSSL without reading any configuration file (rule T2: OPENSSL_CONF is ignored).
// Idempotent and thread-safe; everything in this module calls it first. It must be the first use of
// OpenSSL in the process.
void InitOpenSsl();

// Empties this thread's OpenSSL error queue into one text: "reason; reason". Never contains key or
// content bytes.
std::string DrainOpenSslErrors();

// RFC 2253 text of a name, control and non-ASCII characters escaped; for messages only, never an
// identity.
std::string NameText(const X509_NAME* name);

// DER encoding; empty when OpenSSL cannot encode the object.
ByteVector DerOf(const X509* certificate);

// One certificate of exactly these bytes: bytes left over are an error. `library` may be null (the
// default context).
Result<X509Handle> ParseCertificate(Bytes der, OSSL_LIB_CTX* library = nullptr);

// Seconds since 1970 of an ASN.1 time; kInvalidArgument when it is malformed.
Result<std::int64_t> EpochOf(const ASN1_TIME* time);

}  // namespace latchkey::tls
