// Reads the PEM files that trust is built from. Every error names the file and says what to do.
#pragma once

#include <string>

#include "common/tls/openssl.h"

namespace latchkey::tls {

// All certificates of a PEM file, in order, at least one. Text between them is ignored as PEM has
// it; a block that cannot be parsed is an error, never skipped. `library` may be null.
Result<X509StackHandle> ReadCertificateFile(const std::string& path, OSSL_LIB_CTX* library);

// The one private key of a PEM file, unencrypted. Refused when others than owner and group may read
// the file.
Result<KeyHandle> ReadPrivateKeyFile(const std::string& path);

// All CRLs of a PEM file, at least one.
Result<std::vector<X509CrlHandle>> ReadCrlFile(const std::string& path, OSSL_LIB_CTX* library);

}  // namespace latchkey::tls
