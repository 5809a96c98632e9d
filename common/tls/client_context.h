// What a client of ours sets on a TLS context that another library made (rules T2, T4).
#pragma once

#include <string>

#include "common/base/result.h"

namespace latchkey::tls {

// Call before anything else uses OpenSSL: OPENSSL_CONF and the system's configuration are not
// loaded (rule T2).
Status InitClientTls();

// `context` is the SSL_CTX* that libcurl hands to its callback, before the handshake. Sets the
// protocol floor, ciphers and groups of T2, refuses resumption and renegotiation, writes no key
// log, and makes the handshake itself check that the certificate is for `host` (a DNS name or an
// address; subject CN never counts, no partial wildcards). False when OpenSSL refuses a setting:
// the connection must then not be made.
bool HardenClientContext(void* context, const std::string& host) noexcept;

}  // namespace latchkey::tls
