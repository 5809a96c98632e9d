#include "common/tls/chain.h"

#include <openssl/err.h>

#include "common/model/limits.h"

namespace latchkey::tls {
namespace {

constexpr int kSecurityLevel = 2;  // 112 bits: RSA 2048, P-224 and better, no SHA-1 (rule T2)

std::string WeakSignatureProblem(X509* certificate) {
  int digest_nid = NID_undef;
  int key_nid = NID_undef;
  if (X509_get_signature_info(certificate, &digest_nid, &key_nid, nullptr, nullptr) != 1) {
    DrainOpenSslErrors();
    return "certificate is signed with an unknown algorithm";
  }
  if (digest_nid == NID_sha256 || digest_nid == NID_sha384 || digest_nid == NID_sha512 ||
      key_nid == NID_ED25519)
    return "";
  return "certificate is not signed with SHA-2";
}

ChainRefusal Refuse(int x509_error, std::string reason) {
  return {x509_error, std::move(reason)};
}

// Rule T4. OpenSSL by itself accepts a leaf without extended key usage, and a CA certificate as a
// leaf.
ChainRefusal CheckLeaf(X509* leaf, const ChainRules& rules) {
  const std::uint32_t flags = X509_get_extension_flags(leaf);
  if ((flags & EXFLAG_INVALID) != 0)
    return Refuse(X509_V_ERR_INVALID_EXTENSION, "an extension of the leaf is malformed");
  if ((flags & EXFLAG_CA) != 0 || X509_check_ca(leaf) != 0) {
    return Refuse(X509_V_ERR_INVALID_PURPOSE, "the leaf is a CA certificate");
  }
  const bool has_usage = (flags & EXFLAG_XKUSAGE) != 0;
  if (!has_usage && !rules.legacy_pki)
    return Refuse(X509_V_ERR_INVALID_PURPOSE, "the leaf has no extended key usage");
  if (has_usage && (X509_get_extended_key_usage(leaf) & XKU_SSL_CLIENT) == 0) {
    return Refuse(X509_V_ERR_INVALID_PURPOSE,
                  "the extended key usage of the leaf has no clientAuth");
  }
  if ((X509_get_key_usage(leaf) & KU_DIGITAL_SIGNATURE) ==
      0) {  // all bits are set when the extension is absent
    return Refuse(X509_V_ERR_INVALID_PURPOSE, "the key usage of the leaf has no digitalSignature");
  }
  return {};
}

ChainRefusal CheckStrength(STACK_OF(X509) * chain) {
  const int count = sk_X509_num(chain);
  if (count > limits::kMaxChainDepth + 1)
    return Refuse(X509_V_ERR_CERT_CHAIN_TOO_LONG, "the chain is deeper than 3");
  for (int i = 0; i < count; ++i) {
    X509* certificate = sk_X509_value(chain, i);
    std::string problem = WeakKeyProblem(certificate);
    // Nobody relies on the signature that a trust anchor makes over itself.
    if (problem.empty() && i + 1 < count) problem = WeakSignatureProblem(certificate);
    if (problem.empty()) continue;
    return Refuse(i == 0 ? X509_V_ERR_EE_KEY_TOO_SMALL : X509_V_ERR_CA_KEY_TOO_SMALL,
                  std::move(problem));
  }
  return {};
}

ChainRefusal DescribeLinks(STACK_OF(X509) * chain, const CrlSet& crls,
                           std::vector<ChainLink>* links) {
  const int count = sk_X509_num(chain);
  for (int i = 0; i < count; ++i) {
    const X509* certificate = sk_X509_value(chain, i);
    const auto not_before = EpochOf(X509_get0_notBefore(certificate));
    const auto not_after = EpochOf(X509_get0_notAfter(certificate));
    if (!not_before.has_value() || !not_after.has_value()) {
      return Refuse(X509_V_ERR_ERROR_IN_CERT_NOT_AFTER_FIELD,
                    "a certificate of the chain has malformed dates");
    }
    ChainLink link{.not_before = *not_before,
                   .not_after = *not_after,
                   .is_anchor = i + 1 == count,
                   .crl = nullptr,
                   .serial = SerialKey(X509_get0_serialNumber(certificate))};
    if (!link.is_anchor && crls.enabled()) link.crl = crls.Find(sk_X509_value(chain, i + 1));
    links->push_back(std::move(link));
  }
  return {};
}

}  // namespace

std::string WeakKeyProblem(X509* certificate) {
  const EVP_PKEY* key = X509_get0_pubkey(certificate);  // borrowed
  if (key == nullptr) {
    DrainOpenSslErrors();
    return "certificate has a key of an unsupported kind";
  }
  switch (EVP_PKEY_get_base_id(key)) {
    case EVP_PKEY_RSA:
    case EVP_PKEY_RSA_PSS:
      return EVP_PKEY_get_bits(key) >= limits::kMinRsaBits
                 ? ""
                 : "certificate has an RSA key of less than 2048 bits";
    case EVP_PKEY_EC:
      return EVP_PKEY_get_bits(key) >= 256
                 ? ""
                 : "certificate has an elliptic curve key of less than 256 bits";
    case EVP_PKEY_ED25519:
      return "";
    default:
      return "certificate has a key that is not RSA, P-256, P-384, P-521 or Ed25519";
  }
}

ChainRefusal VerifyChain(X509_STORE* store, STACK_OF(X509) * presented, const ChainRules& rules,
                         const CrlSet& crls, std::int64_t now_s, OSSL_LIB_CTX* library,
                         std::vector<ChainLink>* links) {
  ERR_clear_error();
  X509* leaf = sk_X509_num(presented) > 0 ? sk_X509_value(presented, 0) : nullptr;
  if (leaf == nullptr) return Refuse(X509_V_ERR_UNSPECIFIED, "no certificate was presented");
  const X509StoreCtxHandle context(X509_STORE_CTX_new_ex(library, nullptr));
  INVARIANT(context != nullptr);
  if (X509_STORE_CTX_init(context.get(), store, leaf, presented) != 1) {
    return Refuse(X509_V_ERR_OUT_OF_MEM, DrainOpenSslErrors());
  }
  X509_STORE_CTX_set_default(context.get(), "ssl_client");
  X509_VERIFY_PARAM* param = X509_STORE_CTX_get0_param(context.get());  // borrowed
  if (!rules.legacy_pki) X509_VERIFY_PARAM_set_flags(param, X509_V_FLAG_X509_STRICT);
  X509_VERIFY_PARAM_set_auth_level(param, kSecurityLevel);
  // OpenSSL counts the certificates between leaf and root; we count the root and not the leaf.
  X509_VERIFY_PARAM_set_depth(param, limits::kMaxChainDepth - 1);
  X509_VERIFY_PARAM_set_time(param, static_cast<time_t>(now_s));
  if (X509_verify_cert(context.get()) != 1) {
    const int error = X509_STORE_CTX_get_error(context.get());
    DrainOpenSslErrors();
    return Refuse(error == X509_V_OK ? X509_V_ERR_UNSPECIFIED : error,
                  X509_verify_cert_error_string(error));
  }
  STACK_OF(X509)* chain = X509_STORE_CTX_get0_chain(context.get());  // borrowed
  if (auto refusal = CheckLeaf(leaf, rules)) return refusal;
  if (auto refusal = CheckStrength(chain)) return refusal;
  links->clear();
  if (auto refusal = DescribeLinks(chain, crls, links)) return refusal;
  return CheckLinks(*links, crls, now_s);
}

ChainRefusal CheckLinks(const std::vector<ChainLink>& links, const CrlSet& crls,
                        std::int64_t now_s) {
  for (const ChainLink& link : links) {
    if (now_s < link.not_before)
      return Refuse(X509_V_ERR_CERT_NOT_YET_VALID, "a certificate of the chain is not yet valid");
    if (now_s > link.not_after)
      return Refuse(X509_V_ERR_CERT_HAS_EXPIRED, "a certificate of the chain has expired");
    if (link.is_anchor || !crls.enabled()) continue;
    if (link.crl == nullptr) {
      return Refuse(X509_V_ERR_UNABLE_TO_GET_CRL,
                    "an issuer of the chain has no CRL: add its CRL to the configuration");
    }
    if (now_s >= link.crl->next_update) {
      return Refuse(X509_V_ERR_CRL_HAS_EXPIRED,
                    "the CRL of " + link.crl->issuer + " has expired: fetch the current one");
    }
    if (link.crl->serials.contains(link.serial)) {
      return Refuse(X509_V_ERR_CERT_REVOKED, "a certificate of the chain is revoked");
    }
  }
  return {};
}

}  // namespace latchkey::tls
