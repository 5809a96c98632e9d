// The server's TLS context with everything it trusts: one immutable snapshot, a *trust epoch*
// (rules T2-T7, H0).
//
// A reload builds a complete new snapshot with LoadTrust, and only when that succeeded swaps the
// pointer. Connections keep the snapshot they were accepted under; VerifyPresented of the new one
// judges them again (rule T7).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/result.h"
#include "common/tls/certificate.h"

using SSL_CTX = struct ssl_ctx_st;  // as <openssl/types.h> has it
using SSL = struct ssl_st;

namespace latchkey::tls {

struct TrustOptions {
  std::string certificate_file;  // PEM: the server's leaf, then its intermediates
  std::string key_file;          // PEM, unencrypted, not readable for others
  std::string client_ca_file;    // PEM: every CA that may stand in a client's chain; roots are the
                                 // trust anchors
  std::vector<std::string>
      crl_files;  // PEM; none: no revocation checks. Some: every issuer needs one (rule T5)
  bool require_client_certificate =
      false;  // true: a handshake without a certificate fails (rule T3)
  // Rule T4's one switch: EKU may be absent (the server's own too), chains need not be strict.
  bool legacy_pki = false;
  NamePolicy names;
};

// Thread-safe: everything visible is immutable, the cache of verdicts inside has its own lock.
class TlsContext {
 public:
  virtual ~TlsContext() = default;
  // Borrowed. An SSL made from it verifies through this snapshot: keep the snapshot until its
  // handshake is over.
  virtual SSL_CTX* ssl_ctx() const = 0;
  // Grows with every LoadTrust of the process; verdicts are never carried from one epoch to
  // another.
  virtual std::uint64_t epoch() const = 0;
  virtual bool require_client_certificate() const = 0;
  // Judges a chain as presented, leaf first, at this moment: kUnauthenticated with the reason, or
  // the certificate with its names read under this snapshot's policy. A verdict may be remembered
  // for 60 s; dates and revocation are always checked.
  virtual Result<std::shared_ptr<const PeerCertificate>> VerifyPresented(
      const std::vector<ByteVector>& chain_der) const = 0;
  virtual std::int64_t server_not_after()
      const = 0;  // epoch seconds of the server's own certificate
  virtual std::int64_t earliest_crl_next_update()
      const = 0;  // epoch seconds; 0 without CRLs. Alarm at 24 h left
  virtual std::uint64_t verdicts_remembered()
      const = 0;  // chains taken from the cache so far, for metrics
  // Lets go of verdicts that are too old to count, and of the certificates in them; returns how many are left. For the
  // memory alone: they are not heeded anyway.
  virtual std::size_t ForgetExpired() const = 0;
};

// Reads and validates all files. Errors name the file and say what to do: unreadable, malformed,
// key of another certificate, expired, not for a server (EKU), key open to others, a leaf among the CAs, an intermediate
// whose root is missing, a stale CRL. `clock` must outlive the snapshot.
Result<std::shared_ptr<const TlsContext>> LoadTrust(const TrustOptions& options,
                                                    const Clock& clock = SystemClock());

// The verified certificate of a finished handshake made with a TlsContext; null when the peer
// showed none.
std::shared_ptr<const PeerCertificate> PeerCertificateOf(const SSL* ssl);
// Why the peer's chain was refused in this handshake, for the log; empty when it was not.
std::string ChainRefusalOf(const SSL* ssl);

}  // namespace latchkey::tls
