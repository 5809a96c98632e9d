#include "common/tls/crl.h"

#include <openssl/err.h>

#include <algorithm>

#include "common/tls/pem_file.h"

namespace latchkey::tls {
namespace {

std::string IssuerKey(const X509* issuer) {
  std::string key;
  const X509_NAME* name = X509_get_subject_name(issuer);  // borrowed
  unsigned char* der = nullptr;
  const int size = i2d_X509_NAME(name, &der);
  if (size > 0) key.assign(reinterpret_cast<const char*>(der), static_cast<std::size_t>(size));
  OPENSSL_free(der);
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int digest_size = 0;
  INVARIANT(X509_pubkey_digest(issuer, EVP_sha256(), digest, &digest_size) == 1);
  key.append(reinterpret_cast<const char*>(digest), digest_size);
  return key;
}

bool IsSha2(int signature_nid) {
  int digest_nid = NID_undef;
  if (OBJ_find_sigid_algs(signature_nid, &digest_nid, nullptr) != 1) return false;
  return digest_nid == NID_sha256 || digest_nid == NID_sha384 || digest_nid == NID_sha512 ||
         signature_nid == NID_ED25519 || signature_nid == NID_rsassaPss;
}

const X509* FindIssuer(const STACK_OF(X509) * authorities, X509_CRL* crl) {
  for (int i = 0; i < sk_X509_num(authorities); ++i) {
    X509* candidate = sk_X509_value(authorities, i);
    if (X509_NAME_cmp(X509_get_subject_name(candidate), X509_CRL_get_issuer(crl)) != 0) continue;
    if ((X509_get_key_usage(candidate) & KU_CRL_SIGN) == 0) continue;
    if (X509_CRL_verify(crl, X509_get0_pubkey(candidate)) == 1) return candidate;
  }
  DrainOpenSslErrors();
  return nullptr;
}

// Entries may carry extensions too; a critical one changes their meaning.
Result<std::unordered_set<std::string>> SerialsOf(X509_CRL* crl) {
  std::unordered_set<std::string> serials;
  STACK_OF(X509_REVOKED)* entries =
      X509_CRL_get_REVOKED(crl);  // borrowed; null when nothing is revoked
  for (int i = 0; i < sk_X509_REVOKED_num(entries); ++i) {
    const X509_REVOKED* entry = sk_X509_REVOKED_value(entries, i);
    if (X509_REVOKED_get_ext_by_critical(entry, 1, -1) >= 0) {
      return Error{Errc::kInvalidArgument,
                   "has an entry with a critical extension, which is not supported"};
    }
    serials.insert(SerialKey(X509_REVOKED_get0_serialNumber(entry)));
  }
  return serials;
}

Result<IssuerCrl> ReadCrl(X509_CRL* crl, std::int64_t now_s) {
  IssuerCrl result;
  result.issuer = NameText(X509_CRL_get_issuer(crl));
  if (!IsSha2(X509_CRL_get_signature_nid(crl)))
    return Error{Errc::kInvalidArgument, "is not signed with SHA-2"};
  if (X509_CRL_get_ext_by_critical(crl, 1, -1) >= 0) {
    return Error{Errc::kInvalidArgument,
                 "has a critical extension: only complete, direct CRLs are supported"};
  }
  if (X509_CRL_get0_nextUpdate(crl) == nullptr)
    return Error{Errc::kInvalidArgument, "has no next update"};
  ASSIGN_OR_RETURN(result.this_update, EpochOf(X509_CRL_get0_lastUpdate(crl)));
  ASSIGN_OR_RETURN(result.next_update, EpochOf(X509_CRL_get0_nextUpdate(crl)));
  if (result.this_update > now_s)
    return Error{Errc::kInvalidArgument, "is not yet valid: check the clock of this machine"};
  if (result.next_update <= now_s)
    return Error{Errc::kInvalidArgument, "has expired: fetch the current one"};
  ASSIGN_OR_RETURN(result.serials, SerialsOf(crl));
  return result;
}

}  // namespace

std::string SerialKey(const ASN1_INTEGER* serial) {
  std::string key;
  if (ASN1_STRING_type(serial) == V_ASN1_NEG_INTEGER) key += '-';
  key.append(reinterpret_cast<const char*>(ASN1_STRING_get0_data(serial)),
             static_cast<std::size_t>(ASN1_STRING_length(serial)));
  return key;
}

Result<CrlSet> CrlSet::Load(const std::vector<std::string>& files,
                            const STACK_OF(X509) * authorities, std::int64_t now_s,
                            OSSL_LIB_CTX* library) {
  CrlSet set;
  set.enabled_ = !files.empty();
  for (const std::string& file : files) {
    ASSIGN_OR_RETURN(const auto crls, ReadCrlFile(file, library));
    for (const X509CrlHandle& crl : crls) {
      const std::string where =
          "file " + file + ": CRL of " + NameText(X509_CRL_get_issuer(crl.get())) + " ";
      const X509* issuer = FindIssuer(authorities, crl.get());
      if (issuer == nullptr) {
        return Error{Errc::kInvalidArgument,
                     where + "is not signed by a CA of the client CA bundle: add its issuer there"};
      }
      auto read = ReadCrl(crl.get(), now_s);
      if (!read.has_value()) return Error{read.error().code, where + read.error().message};
      IssuerCrl& slot = set.by_issuer_[IssuerKey(issuer)];
      if (slot.issuer.empty() || slot.this_update < read->this_update)
        slot = std::move(read).value();
    }
  }
  return set;
}

const IssuerCrl* CrlSet::Find(const X509* issuer) const {
  const auto found = by_issuer_.find(IssuerKey(issuer));
  return found == by_issuer_.end() ? nullptr : &found->second;
}

std::int64_t CrlSet::earliest_next_update() const {
  std::int64_t earliest = 0;
  for (const auto& [key, crl] : by_issuer_) {
    if (earliest == 0 || crl.next_update < earliest) earliest = crl.next_update;
  }
  return earliest;
}

}  // namespace latchkey::tls
