// The part of certificate.h that works on parsed certificates: internal to common/tls and
// server/net.
#pragma once

#include "common/tls/certificate.h"
#include "common/tls/openssl.h"

namespace latchkey::tls {

// As ReadCertificateNames, of a certificate that OpenSSL has parsed already.
CertificateNames ReadNames(const X509* certificate, const NamePolicy& policy);

// Checks one SPIFFE id against rule I2; an empty text is returned when it is good, else why not.
std::string SpiffeIdProblem(std::string_view uri, const NamePolicy& policy);

}  // namespace latchkey::tls
