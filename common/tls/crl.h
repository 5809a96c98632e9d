// Revocation (rule T5): each CRL is verified once, at load; afterwards a certificate is looked up
// in a set of serials.
#pragma once

#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "common/tls/openssl.h"

namespace latchkey::tls {

// What one issuer has revoked. Immutable after load.
struct IssuerCrl {
  std::int64_t this_update = 0;  // epoch seconds
  std::int64_t next_update = 0;
  std::string issuer;  // RFC 2253, for messages
  std::unordered_set<std::string> serials;
};

// All configured CRLs. Immutable after Load: thread-safe.
class CrlSet {
 public:
  // Verifies every CRL of `files` against the CA of `authorities` that signed it: signature, SHA-2,
  // dates, no critical extension (a partial or indirect CRL would hide revocations). When two CRLs
  // are of one issuer the newer one counts. Errors name the file: unknown issuer, bad signature,
  // expired, not yet valid.
  static Result<CrlSet> Load(const std::vector<std::string>& files,
                             const STACK_OF(X509) * authorities, std::int64_t now_s,
                             OSSL_LIB_CTX* library);

  bool enabled() const { return enabled_; }
  // The CRL of this issuer, or null. The pointer lives as long as this set.
  const IssuerCrl* Find(const X509* issuer) const;
  // Epoch seconds at which the first CRL runs out; 0 when no CRL is configured. Alarm 24 h before.
  std::int64_t earliest_next_update() const;

 private:
  bool enabled_ = false;
  std::unordered_map<std::string, IssuerCrl>
      by_issuer_;  // key: subject name and public key of the issuer
};

// A serial number as the set holds it: its magnitude bytes, '-' in front of a negative one.
std::string SerialKey(const ASN1_INTEGER* serial);

}  // namespace latchkey::tls
