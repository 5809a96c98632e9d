// Names of a verified certificate (rules I1, I2), read strictly: what is doubtful is an error,
// never repaired.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/bytes.h"
#include "common/base/result.h"

namespace latchkey::tls {

struct NamePolicy {
  // Characters that a CN may hold besides inner blanks: [A-Za-z0-9_.:=-] (identity.cn_pattern's
  // default).
  std::string cn_characters = "A-Za-z0-9_.:=-";
  std::vector<std::string>
      trust_domains;            // allowed SPIFFE trust domains; empty: SPIFFE ids are refused
  bool keywhiz_compat = false;  // several URI SANs: ignore them and use the CN, as Keywhiz did
};

// What identification found in a leaf. Either name may be absent; `error` non-empty means that the
// certificate must be refused with 401 (rule I1) although its chain verified.
struct CertificateNames {
  std::optional<std::string> common_name;
  std::optional<std::string> spiffe_id;
  std::string error;
};

// Parses the names of one DER certificate. Never throws, never repairs; fuzzed (Z3).
CertificateNames ReadCertificateNames(Bytes der, const NamePolicy& policy);

// Everything the server keeps of a peer's certificate, once per connection (never enabled bits or
// grants, rule T7).
struct PeerCertificate {
  CertificateNames names;
  std::int64_t not_after = 0;           // of the leaf, epoch seconds
  std::int64_t earliest_not_after = 0;  // over the presented chain
  std::string subject;                  // RFC 2253 text, for messages
  std::vector<ByteVector>
      chain_der;  // as the peer presented it, leaf first: re-verified at reload (rule T7)
};

}  // namespace latchkey::tls
