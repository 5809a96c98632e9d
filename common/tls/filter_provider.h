// The private OpenSSL library context of the server's TLS (network.md, section 7).
//
// Its only provider is ours: it forwards to OpenSSL's default provider but lists no more than TLS 1.2 and 1.3 need here.
// OpenSSL 3.0 looks through every algorithm of every provider each time it decodes a certificate's key, so a short list
// makes a handshake cheaper; and what is not listed cannot be reached by a certificate that a stranger sends.
#pragma once

#include "common/tls/openssl.h"

namespace latchkey::tls {

// The context of this process; made on first use and kept until the end. kInternal when OpenSSL cannot make it.
Result<OSSL_LIB_CTX*> TlsLibrary();

// The same key inside `library`. The key was loaded outside, where PEM and PKCS#8 can be read; here they cannot.
Result<KeyHandle> MoveKey(const EVP_PKEY* key, OSSL_LIB_CTX* library);

}  // namespace latchkey::tls
