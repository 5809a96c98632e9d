#include "common/tls/context.h"

#include <openssl/err.h>

#include <atomic>
#include <unordered_map>

#include "common/base/guarded.h"
#include "common/base/log.h"
#include "common/model/limits.h"
#include "common/tls/chain.h"
#include "common/tls/filter_provider.h"
#include "common/tls/names.h"
#include "common/tls/pem_file.h"

namespace latchkey::tls {
namespace {

// What the verification callback leaves with an SSL: freed by OpenSSL together with it.
struct PeerSlot {
  std::shared_ptr<const PeerCertificate> certificate;
  std::string refusal;
};

int PeerSlotIndex() {
  static const int index = SSL_get_ex_new_index(
      0, nullptr, nullptr, nullptr, [](void*, void* slot, CRYPTO_EX_DATA*, int, long, void*) {
        delete static_cast<PeerSlot*>(slot);
      });
  return index;
}

// A verdict worth remembering: the identity and what must be checked again each time.
struct Verdict {
  std::shared_ptr<const PeerCertificate> certificate;
  std::vector<ChainLink> links;
};
struct RememberedVerdict {
  MonotonicTime until;
  std::shared_ptr<const Verdict> verdict;
};
struct RememberedVerdicts {
  std::unordered_map<std::string, RememberedVerdict> by_digest;
  std::size_t bytes = 0;  // of all their certificates
};

std::size_t ChainBytes(const Verdict& verdict) {
  std::size_t bytes = 0;
  for (const ByteVector& der : verdict.certificate->chain_der) bytes += der.size();
  return bytes;
}

// SHA-256 over the whole presented chain, each certificate with its length in front (rule T6).
std::string ChainDigest(const std::vector<ByteVector>& chain_der) {
  const CHandle<EVP_MD_CTX, EVP_MD_CTX_free> context(EVP_MD_CTX_new());
  INVARIANT(context && EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr) == 1);
  for (const ByteVector& der : chain_der) {
    ByteVector length;
    PutU64(&length, der.size());
    EVP_DigestUpdate(context.get(), length.data(), length.size());
    EVP_DigestUpdate(context.get(), der.data(), der.size());
  }
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  INVARIANT(EVP_DigestFinal_ex(context.get(), digest, &size) == 1);
  return {reinterpret_cast<const char*>(digest), size};
}

Result<std::shared_ptr<const PeerCertificate>> MakePeerCertificate(
    STACK_OF(X509) * presented, const NamePolicy& policy, std::vector<ByteVector> chain_der) {
  auto peer = std::make_shared<PeerCertificate>();
  const X509* leaf = sk_X509_value(presented, 0);
  peer->names = ReadNames(leaf, policy);
  ASSIGN_OR_RETURN(peer->not_after, EpochOf(X509_get0_notAfter(leaf)));
  peer->earliest_not_after = peer->not_after;
  for (int i = 1; i < sk_X509_num(presented); ++i) {
    ASSIGN_OR_RETURN(const std::int64_t not_after,
                     EpochOf(X509_get0_notAfter(sk_X509_value(presented, i))));
    peer->earliest_not_after = std::min(peer->earliest_not_after, not_after);
  }
  peer->subject = NameText(X509_get_subject_name(leaf));
  peer->chain_der = std::move(chain_der);
  return std::shared_ptr<const PeerCertificate>(std::move(peer));
}

class Snapshot final : public TlsContext {
 public:
  Snapshot(TrustOptions options, const Clock& clock, std::uint64_t epoch)
      : options_(std::move(options)), clock_(clock), epoch_(epoch) {}

  SSL_CTX* ssl_ctx() const override { return ssl_ctx_.get(); }
  std::uint64_t epoch() const override { return epoch_; }
  bool require_client_certificate() const override { return options_.require_client_certificate; }
  std::int64_t server_not_after() const override { return server_not_after_; }
  std::int64_t earliest_crl_next_update() const override { return crls_.earliest_next_update(); }
  std::uint64_t verdicts_remembered() const override {
    return remembered_hits_.load(std::memory_order_relaxed);
  }
  std::size_t ForgetExpired() const override;
  Result<std::shared_ptr<const PeerCertificate>> VerifyPresented(
      const std::vector<ByteVector>& chain_der) const override;

  Status Load();

 private:
  Status LoadServerCertificate();
  Status LoadClientAuthorities();
  void WarnAboutMissingCrls() const;
  Status ConfigureContext();
  std::int64_t NowSeconds() const { return EpochSeconds(clock_.Now()); }

  // Judges a chain that OpenSSL has parsed already; `certificate` is set on success.
  ChainRefusal Judge(STACK_OF(X509) * presented, std::vector<ByteVector> chain_der,
                     std::shared_ptr<const PeerCertificate>* certificate) const;
  std::shared_ptr<const Verdict> Recall(const std::string& digest) const;
  void Remember(const std::string& digest, std::shared_ptr<const Verdict> verdict) const;
  static int VerifyCallback(X509_STORE_CTX* context, void* self);

  const TrustOptions options_;
  const Clock& clock_;
  const std::uint64_t epoch_;
  OSSL_LIB_CTX* library_ = nullptr;
  SslCtxHandle ssl_ctx_;
  X509StoreHandle store_;
  X509StackHandle authorities_;
  CrlSet crls_;
  std::int64_t server_not_after_ = 0;
  mutable Guarded<RememberedVerdicts> remembered_;
  mutable std::atomic<std::uint64_t> remembered_hits_{0};
};

std::shared_ptr<const Verdict> Snapshot::Recall(const std::string& digest) const {
  const MonotonicTime now = clock_.Monotonic();
  return remembered_.With([&](const auto& known) -> std::shared_ptr<const Verdict> {
    const auto found = known.by_digest.find(digest);
    if (found == known.by_digest.end() || found->second.until <= now) return nullptr;
    return found->second.verdict;
  });
}

void Snapshot::Remember(const std::string& digest, std::shared_ptr<const Verdict> verdict) const {
  const MonotonicTime until = clock_.Monotonic() + limits::kVerifiedChainCache;
  const std::size_t size = ChainBytes(*verdict);
  if (size > limits::kMaxRememberedChainBytes)
    return;  // verified each time: nothing is lost but time
  remembered_.With([&](auto& known) {
    if (known.by_digest.size() >= limits::kMaxVerifiedChains ||
        known.bytes + size > limits::kMaxVerifiedChainBytes) {
      known = {};
    }
    const bool added =
        known.by_digest.insert_or_assign(digest, RememberedVerdict{until, std::move(verdict)})
            .second;
    if (added) known.bytes += size;  // the same digest means the same bytes
  });
}

std::size_t Snapshot::ForgetExpired() const {
  const MonotonicTime now = clock_.Monotonic();
  return remembered_.With([now](auto& known) {
    std::erase_if(known.by_digest, [&](const auto& entry) {
      if (entry.second.until > now) return false;
      known.bytes -= ChainBytes(*entry.second.verdict);
      return true;
    });
    return known.by_digest.size();
  });
}

ChainRefusal Snapshot::Judge(STACK_OF(X509) * presented, std::vector<ByteVector> chain_der,
                             std::shared_ptr<const PeerCertificate>* certificate) const {
  const std::int64_t now_s = NowSeconds();
  const std::string digest = ChainDigest(chain_der);
  if (const auto known = Recall(digest)) {
    remembered_hits_.fetch_add(1, std::memory_order_relaxed);
    if (auto refusal = CheckLinks(known->links, crls_, now_s)) return refusal;
    *certificate = known->certificate;
    return {};
  }
  auto verdict = std::make_shared<Verdict>();
  const ChainRules rules{.legacy_pki = options_.legacy_pki};
  if (auto refusal =
          VerifyChain(store_.get(), presented, rules, crls_, now_s, library_, &verdict->links))
    return refusal;
  auto made = MakePeerCertificate(presented, options_.names, std::move(chain_der));
  if (!made.has_value()) return {X509_V_ERR_UNSPECIFIED, made.error().message};
  verdict->certificate = std::move(made).value();
  *certificate = verdict->certificate;
  Remember(digest, std::move(verdict));
  return {};
}

int Snapshot::VerifyCallback(X509_STORE_CTX* context, void* self) {
  const auto* snapshot = static_cast<const Snapshot*>(self);
  auto* ssl =
      static_cast<SSL*>(X509_STORE_CTX_get_ex_data(context, SSL_get_ex_data_X509_STORE_CTX_idx()));
  STACK_OF(X509)* presented =
      X509_STORE_CTX_get0_untrusted(context);  // borrowed: the peer's chain, leaf first
  auto slot = std::make_unique<PeerSlot>();
  ChainRefusal refusal{X509_V_ERR_CERT_CHAIN_TOO_LONG, "too many certificates are presented"};
  if (sk_X509_num(presented) <= limits::kMaxPeerCertificates) {
    std::vector<ByteVector> chain_der;
    for (int i = 0; i < sk_X509_num(presented); ++i)
      chain_der.push_back(DerOf(sk_X509_value(presented, i)));
    refusal = snapshot->Judge(presented, std::move(chain_der), &slot->certificate);
  }
  slot->refusal = refusal.reason;
  delete static_cast<PeerSlot*>(SSL_get_ex_data(ssl, PeerSlotIndex()));
  SSL_set_ex_data(ssl, PeerSlotIndex(), slot.release());
  X509_STORE_CTX_set_error(context, refusal.x509_error);
  return refusal ? 0 : 1;
}

Result<std::shared_ptr<const PeerCertificate>> Snapshot::VerifyPresented(
    const std::vector<ByteVector>& chain_der) const {
  const X509StackHandle presented(sk_X509_new_null());
  for (const ByteVector& der : chain_der) {
    ASSIGN_OR_RETURN(X509Handle certificate, ParseCertificate(der, library_));
    INVARIANT(sk_X509_push(presented.get(), certificate.release()) > 0);
  }
  std::shared_ptr<const PeerCertificate> certificate;
  if (auto refusal = Judge(presented.get(), chain_der, &certificate)) {
    return Error{Errc::kUnauthenticated, "client certificate is refused: " + refusal.reason};
  }
  return certificate;
}

// What clients would refuse the server for: better at the start, with a line, than at the first handshake.
std::string ServerUsageProblem(X509* leaf, bool legacy_pki) {
  const std::uint32_t flags = X509_get_extension_flags(leaf);
  const bool has_usage = (flags & EXFLAG_XKUSAGE) != 0;
  if (!has_usage && !legacy_pki) {
    return "server certificate has no extended key usage: have it issued with serverAuth, or set "
           "tls.legacy_pki for an old PKI";
  }
  if (has_usage && (X509_get_extended_key_usage(leaf) & XKU_SSL_SERVER) == 0) {
    return "extended key usage of the server certificate has no serverAuth: this is not a server's "
           "certificate, have one issued with serverAuth";
  }
  return "";
}

// The file of the server's certificate holds the leaf and, after it, the intermediates that are
// sent along.
Status Snapshot::LoadServerCertificate() {
  ASSIGN_OR_RETURN(const X509StackHandle chain,
                   ReadCertificateFile(options_.certificate_file, library_));
  ASSIGN_OR_RETURN(const KeyHandle outside, ReadPrivateKeyFile(options_.key_file));
  auto moved = MoveKey(outside.get(), library_);
  if (!moved.has_value())
    return Error{moved.error().code, "file " + options_.key_file + ": " + moved.error().message};
  const KeyHandle& key = moved.value();
  const std::string where = "file " + options_.certificate_file + ": ";
  X509* leaf = sk_X509_value(chain.get(), 0);
  ASSIGN_OR_RETURN(const std::int64_t not_before, EpochOf(X509_get0_notBefore(leaf)));
  ASSIGN_OR_RETURN(server_not_after_, EpochOf(X509_get0_notAfter(leaf)));
  if (server_not_after_ < NowSeconds())
    return Error{Errc::kInvalidArgument, where + "server certificate has expired: renew it"};
  if (not_before > NowSeconds()) {
    return Error{Errc::kInvalidArgument,
                 where + "server certificate is not yet valid: check the clock of this machine"};
  }
  if (const std::string problem = WeakKeyProblem(leaf); !problem.empty())
    return Error{Errc::kInvalidArgument, where + problem};
  if (const std::string problem = ServerUsageProblem(leaf, options_.legacy_pki); !problem.empty())
    return Error{Errc::kInvalidArgument, where + problem};
  ERR_clear_error();
  if (X509_check_private_key(leaf, key.get()) != 1) {
    DrainOpenSslErrors();
    return Error{Errc::kInvalidArgument,
                 "file " + options_.key_file +
                     ": private key does not belong to the first certificate of " +
                     options_.certificate_file + ": install key and certificate together"};
  }
  if (SSL_CTX_use_certificate(ssl_ctx_.get(), leaf) != 1) {
    return Error{Errc::kInvalidArgument,
                 where + "openssl refuses the certificate: " + DrainOpenSslErrors()};
  }
  if (SSL_CTX_use_PrivateKey(ssl_ctx_.get(), key.get()) != 1) {
    return Error{Errc::kInvalidArgument, "file " + options_.key_file +
                                             ": openssl refuses the key: " + DrainOpenSslErrors()};
  }
  for (int i = 1; i < sk_X509_num(chain.get()); ++i) {
    if (SSL_CTX_add1_chain_cert(ssl_ctx_.get(), sk_X509_value(chain.get(), i)) != 1) {
      return Error{Errc::kInvalidArgument,
                   where + "openssl refuses an intermediate: " + DrainOpenSslErrors()};
    }
  }
  return {};
}

bool HasIssuerIn(STACK_OF(X509) * authorities, X509* certificate) {
  for (int i = 0; i < sk_X509_num(authorities); ++i) {
    X509* candidate = sk_X509_value(authorities, i);
    if (candidate != certificate && X509_check_issued(candidate, certificate) == X509_V_OK)
      return true;
  }
  return false;
}

// Only CA certificates may be trusted (CVE-2025-6037), and each intermediate must lead to a root of
// the same file: a bundle that can never verify anyone is a mistake worth hearing about before the
// swap.
Status CheckAuthority(STACK_OF(X509) * authorities, int index, const std::string& file,
                      std::int64_t now_s) {
  X509* authority = sk_X509_value(authorities, index);
  const std::string where = "file " + file + ": certificate " + std::to_string(index + 1) + " (" +
                            NameText(X509_get_subject_name(authority)) + ") ";
  if (X509_check_ca(authority) != 1) {
    return Error{Errc::kInvalidArgument,
                 where + "is not a CA: remove it, only CA certificates may be trusted"};
  }
  if (const std::string problem = WeakKeyProblem(authority); !problem.empty()) {
    return Error{Errc::kInvalidArgument, where + "is too weak: " + problem};
  }
  if (X509_self_signed(authority, 1) != 1 && !HasIssuerIn(authorities, authority)) {
    DrainOpenSslErrors();
    return Error{Errc::kInvalidArgument,
                 where + "is not a root and its issuer is not in the file: add the root CA"};
  }
  ASSIGN_OR_RETURN(const std::int64_t not_after, EpochOf(X509_get0_notAfter(authority)));
  if (not_after < now_s) {
    // It can verify nobody any more, so keeping it is safe, and one old root must not stop a
    // restart.
    Log(LogLevel::kWarn, "client CA has expired: remove it from the bundle",
        {{"file", file}, {"subject", NameText(X509_get_subject_name(authority))}});
  }
  return {};
}

// Fails closed, as rule T5 wants, but whoever exchanged the files should not have to learn it from the clients.
void Snapshot::WarnAboutMissingCrls() const {
  if (!crls_.enabled()) return;
  for (int i = 0; i < sk_X509_num(authorities_.get()); ++i) {
    const X509* authority = sk_X509_value(authorities_.get(), i);
    if (crls_.Find(authority) != nullptr) continue;
    Log(LogLevel::kWarn,
        "client CA has no revocation list: every certificate that it issued is refused; add its "
        "list to tls.crl",
        {{"file", options_.client_ca_file},
         {"subject", NameText(X509_get_subject_name(authority))}});
  }
}

Status Snapshot::LoadClientAuthorities() {
  ASSIGN_OR_RETURN(authorities_, ReadCertificateFile(options_.client_ca_file, library_));
  store_.reset(X509_STORE_new());
  INVARIANT(store_ != nullptr);
  for (int i = 0; i < sk_X509_num(authorities_.get()); ++i) {
    RETURN_IF_ERROR(CheckAuthority(authorities_.get(), i, options_.client_ca_file, NowSeconds()));
    X509* authority = sk_X509_value(authorities_.get(), i);
    // Without the names of all CAs in the CertificateRequest some clients send no certificate at
    // all (rule H0).
    if (X509_STORE_add_cert(store_.get(), authority) != 1 ||
        SSL_CTX_add_client_CA(ssl_ctx_.get(), authority) != 1) {
      return Error{Errc::kInternal, "openssl cannot take a client CA: " + DrainOpenSslErrors()};
    }
  }
  ASSIGN_OR_RETURN(crls_,
                   CrlSet::Load(options_.crl_files, authorities_.get(), NowSeconds(), library_));
  WarnAboutMissingCrls();
  return {};
}

Status Snapshot::ConfigureContext() {
  ssl_ctx_.reset(SSL_CTX_new_ex(library_, nullptr, TLS_server_method()));
  SSL_CTX* ctx = ssl_ctx_.get();
  if (ctx == nullptr)
    return Error{Errc::kInternal, "openssl cannot make a context: " + DrainOpenSslErrors()};
  SSL_CTX_set_security_level(ctx, 2);
  SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                               SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_IGNORE_UNEXPECTED_EOF |
                               SSL_OP_NO_TICKET | SSL_OP_CLEANSE_PLAINTEXT);
  // Not SSL_MODE_RELEASE_BUFFERS: with SSL_OP_CLEANSE_PLAINTEXT it clears 16 KiB after every record. What idle connections
  // hold is given back by SSL_free_buffers.
  SSL_CTX_set_mode(ctx, SSL_MODE_NO_AUTO_CHAIN);
  // AES-128 first: it is as safe here and cheaper. ECDHE with an AEAD is all that TLS 1.2 may use
  // (rule T2).
  constexpr const char* kTls12Ciphers =
      "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
      "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";
  constexpr const char* kTls13Ciphers =
      "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";
  static constexpr unsigned char kSessionContext[] = "latchkey";
  const bool done =
      SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) == 1 &&
      SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) == 1 &&
      SSL_CTX_set_cipher_list(ctx, kTls12Ciphers) == 1 &&
      SSL_CTX_set_ciphersuites(ctx, kTls13Ciphers) == 1 &&
      SSL_CTX_set1_groups_list(ctx, "X25519:P-256:P-384") == 1 &&
      SSL_CTX_set_num_tickets(ctx, 0) == 1 && SSL_CTX_set_max_early_data(ctx, 0) == 1 &&
      SSL_CTX_set_session_id_context(ctx, kSessionContext, sizeof kSessionContext - 1) == 1;
  if (!done)
    return Error{Errc::kInternal, "openssl refuses the TLS settings: " + DrainOpenSslErrors()};
  SSL_CTX_set_session_cache_mode(
      ctx, SSL_SESS_CACHE_OFF);  // rule T6: a resumed session runs no verification
  SSL_CTX_set_max_cert_list(ctx, static_cast<long>(limits::kMaxPeerChainBytes));
  const int required = options_.require_client_certificate ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0;
  SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | required, nullptr);
  SSL_CTX_set_cert_verify_callback(ctx, &Snapshot::VerifyCallback, this);
  return {};
}

Status Snapshot::Load() {
  InitOpenSsl();
  ERR_clear_error();
  ASSIGN_OR_RETURN(library_, TlsLibrary());
  RETURN_IF_ERROR(ConfigureContext());
  RETURN_IF_ERROR(LoadServerCertificate());
  return LoadClientAuthorities();
}

}  // namespace

Result<std::shared_ptr<const TlsContext>> LoadTrust(const TrustOptions& options,
                                                    const Clock& clock) {
  static std::atomic<std::uint64_t> next_epoch{
      1};  // only ever counts: no state that behaviour hangs on
  auto snapshot = std::make_shared<Snapshot>(options, clock, next_epoch.fetch_add(1));
  RETURN_IF_ERROR(snapshot->Load());
  return std::shared_ptr<const TlsContext>(std::move(snapshot));
}

std::shared_ptr<const PeerCertificate> PeerCertificateOf(const SSL* ssl) {
  const auto* slot = static_cast<const PeerSlot*>(SSL_get_ex_data(ssl, PeerSlotIndex()));
  return slot != nullptr ? slot->certificate : nullptr;
}

std::string ChainRefusalOf(const SSL* ssl) {
  const auto* slot = static_cast<const PeerSlot*>(SSL_get_ex_data(ssl, PeerSlotIndex()));
  return slot != nullptr ? slot->refusal : "";
}

}  // namespace latchkey::tls
