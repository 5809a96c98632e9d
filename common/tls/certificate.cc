#include "common/tls/certificate.h"

#include <openssl/err.h>

#include <algorithm>
#include <bitset>

#include "common/base/utf8.h"
#include "common/model/limits.h"
#include "common/tls/names.h"

namespace latchkey::tls {
namespace {

using CharacterSet = std::bitset<256>;

std::uint8_t Octet(char c) {
  return static_cast<std::uint8_t>(c);
}

// "A-Za-z0-9_" as a set. A '-' at either end, or after a range, stands for itself.
CharacterSet ParseCharacters(std::string_view pattern) {
  CharacterSet set;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    if (i + 2 < pattern.size() && pattern[i + 1] == '-') {
      for (int c = Octet(pattern[i]); c <= Octet(pattern[i + 2]); ++c)
        set.set(static_cast<std::size_t>(c));
      i += 2;
    } else {
      set.set(Octet(pattern[i]));
    }
  }
  return set;
}

std::string CommonNameProblem(std::string_view name, const NamePolicy& policy) {
  if (name.empty()) return "common name is empty";
  if (name.size() > limits::kMaxCommonNameBytes) return "common name is longer than 255 bytes";
  if (!IsValidUtf8(name)) return "common name is not valid UTF-8";
  const CharacterSet allowed = ParseCharacters(policy.cn_characters);
  for (const char c : name) {
    if (Octet(c) < 0x20 || Octet(c) == 0x7f) return "common name holds a control byte";
    if (c != ' ' && !allowed.test(Octet(c)))
      return "common name holds a character outside of identity.cn_pattern";
  }
  if (name.front() == ' ' || name.back() == ' ') return "common name begins or ends with a blank";
  return "";
}

// Only the three string types that clients in the field use are read. BMPString, UniversalString
// and T61String would need a conversion, and a conversion is a repair (rule I1).
bool IsPlainStringType(int type) {
  return type == V_ASN1_UTF8STRING || type == V_ASN1_PRINTABLESTRING || type == V_ASN1_IA5STRING;
}

void ReadCommonName(const X509* certificate, const NamePolicy& policy, CertificateNames* names) {
  const X509_NAME* subject = X509_get_subject_name(certificate);  // borrowed
  const int first = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
  if (first < 0) return;
  if (X509_NAME_get_index_by_NID(subject, NID_commonName, first) >= 0) {
    names->error = "certificate has more than one common name";
    return;
  }
  const ASN1_STRING* value =
      X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, first));  // borrowed
  if (!IsPlainStringType(ASN1_STRING_type(value))) {
    names->error = "common name is not a UTF8String, PrintableString or IA5String";
    return;
  }
  unsigned char* text = nullptr;
  const int size = ASN1_STRING_to_UTF8(&text, value);
  const CHandle<unsigned char, [](unsigned char* p) { OPENSSL_free(p); }> owner(text);
  // The lengths differ when OpenSSL had to convert: a Latin-1 byte in a PrintableString.
  if (size < 0 || size != ASN1_STRING_length(value)) {
    DrainOpenSslErrors();
    names->error = "common name is malformed";
    return;
  }
  std::string name(reinterpret_cast<const char*>(text), static_cast<std::size_t>(size));
  names->error = CommonNameProblem(name, policy);
  if (names->error.empty()) names->common_name = std::move(name);
}

bool StartsWithSpiffeScheme(std::string_view uri) {
  constexpr std::string_view kScheme = "spiffe:";
  return uri.size() >= kScheme.size() &&
         std::equal(kScheme.begin(), kScheme.end(), uri.begin(),
                    [](char a, char b) { return a == (b | 0x20) || a == b; });
}

void FreeGeneralNames(GENERAL_NAMES* names) {
  GENERAL_NAMES_free(names);
}

void ReadSpiffeId(const X509* certificate, const NamePolicy& policy, CertificateNames* names) {
  int state = 0;
  const CHandle<GENERAL_NAMES, FreeGeneralNames> alternatives(static_cast<GENERAL_NAMES*>(
      X509_get_ext_d2i(certificate, NID_subject_alt_name, &state, nullptr)));
  if (!alternatives) {
    DrainOpenSslErrors();
    if (state != -1)
      names->error =
          "subject alternative names are malformed or given twice";  // -1: there are none
    return;
  }
  int uris = 0;
  std::string_view uri;
  for (int i = 0; i < sk_GENERAL_NAME_num(alternatives.get()); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(alternatives.get(), i);
    if (name->type != GEN_URI) continue;
    ++uris;
    uri = {reinterpret_cast<const char*>(ASN1_STRING_get0_data(name->d.uniformResourceIdentifier)),
           static_cast<std::size_t>(ASN1_STRING_length(name->d.uniformResourceIdentifier))};
  }
  if (uris > 1) {
    if (!policy.keywhiz_compat) names->error = "certificate has more than one URI name";
    return;
  }
  if (uris == 0 || !StartsWithSpiffeScheme(uri)) return;  // another kind of URI names no one here
  names->error = SpiffeIdProblem(uri, policy);
  if (names->error.empty()) names->spiffe_id = std::string(uri);
}

bool IsTrustDomainCharacter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_';
}
bool IsSegmentCharacter(char c) {
  return IsTrustDomainCharacter(c) || (c >= 'A' && c <= 'Z');
}

}  // namespace

std::string SpiffeIdProblem(std::string_view uri, const NamePolicy& policy) {
  constexpr std::string_view kScheme = "spiffe://";
  if (uri.size() > limits::kMaxSpiffeIdBytes) return "SPIFFE id is longer than 2048 bytes";
  if (!uri.starts_with(kScheme)) return "SPIFFE id does not begin with spiffe:// in lower case";
  const std::string_view rest = uri.substr(kScheme.size());
  const std::size_t slash = rest.find('/');
  const std::string_view domain = rest.substr(0, slash);
  if (domain.empty() || !std::all_of(domain.begin(), domain.end(), IsTrustDomainCharacter)) {
    return "SPIFFE id has a malformed trust domain";
  }
  if (std::find(policy.trust_domains.begin(), policy.trust_domains.end(), domain) ==
      policy.trust_domains.end()) {
    return "SPIFFE id is of a trust domain that is not on the allow-list";
  }
  if (slash == std::string_view::npos) return "SPIFFE id has no path";
  for (std::string_view path = rest.substr(slash); !path.empty();) {
    path.remove_prefix(1);  // the slash
    const std::size_t end = std::min(path.find('/'), path.size());
    const std::string_view segment = path.substr(0, end);
    if (segment.empty() || segment == "." || segment == "..")
      return "SPIFFE id has an empty or dot segment";
    if (!std::all_of(segment.begin(), segment.end(), IsSegmentCharacter)) {
      return "SPIFFE id holds a character that is not a letter, digit, '.', '-' or '_'";
    }
    path.remove_prefix(end);
  }
  return "";
}

CertificateNames ReadNames(const X509* certificate, const NamePolicy& policy) {
  CertificateNames names;
  ReadCommonName(certificate, policy, &names);
  if (names.error.empty()) ReadSpiffeId(certificate, policy, &names);
  if (names.error.empty() && !names.common_name && !names.spiffe_id)
    names.error = "certificate names no one";
  if (!names.error.empty()) {
    names.common_name.reset();
    names.spiffe_id.reset();
  }
  return names;
}

CertificateNames ReadCertificateNames(Bytes der, const NamePolicy& policy) {
  auto certificate = ParseCertificate(der);
  if (!certificate.has_value())
    return {.common_name = {}, .spiffe_id = {}, .error = certificate.error().message};
  return ReadNames(certificate.value().get(), policy);
}

}  // namespace latchkey::tls
