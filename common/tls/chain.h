// The verdict on a client's chain (rules T4, T5): what OpenSSL verifies, and what it lets pass but
// we do not.
#pragma once

#include <vector>

#include "common/tls/crl.h"
#include "common/tls/openssl.h"

namespace latchkey::tls {

// One certificate of a verified chain, as far as it must be looked at again on each use of a
// remembered verdict (rule T6).
struct ChainLink {
  std::int64_t not_before = 0;
  std::int64_t not_after = 0;
  bool is_anchor = false;
  const IssuerCrl* crl = nullptr;  // of its issuer; null: none is configured for that issuer
  std::string serial;
};

struct ChainRules {
  bool legacy_pki = false;  // admits a missing EKU and chains that X509_V_FLAG_X509_STRICT refuses
};

// A refusal: the code goes into the TLS alert, the text into the log.
struct ChainRefusal {
  int x509_error = X509_V_OK;  // X509_V_OK: accepted
  std::string reason;
  explicit operator bool() const { return x509_error != X509_V_OK; }
};

// Verifies `presented` (leaf first) up to a root of `store` at `now_s`, then applies rule T4. On
// success `links` describes the verified chain, leaf first. Thread-safe.
ChainRefusal VerifyChain(X509_STORE* store, STACK_OF(X509) * presented, const ChainRules& rules,
                         const CrlSet& crls, std::int64_t now_s, OSSL_LIB_CTX* library,
                         std::vector<ChainLink>* links);

// Dates and revocation of a chain that was verified before; done on every handshake, remembered
// verdict or not.
ChainRefusal CheckLinks(const std::vector<ChainLink>& links, const CrlSet& crls,
                        std::int64_t now_s);

// Why a key or its signature is too weak for rule T4; empty when it is not.
std::string WeakKeyProblem(X509* certificate);

}  // namespace latchkey::tls
