// Certificate names on arbitrary DER (Z3): whatever is accepted holds no byte outside of the pattern, and is found in the
// certificate as it stands, byte for byte.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "common/tls/certificate.h"

namespace {

void Require(bool condition) {
  if (!condition) std::abort();
}

bool IsNameByte(char c) {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
         std::string("_.:=- ").find(c) != std::string::npos;
}

bool Contains(latchkey::Bytes der, const std::string& text) {
  return std::search(der.begin(), der.end(), text.begin(), text.end(), [](std::uint8_t a, char b) {
           return a == static_cast<std::uint8_t>(b);
         }) != der.end();
}

void Check(latchkey::Bytes der, const latchkey::tls::NamePolicy& policy) {
  const auto names = latchkey::tls::ReadCertificateNames(der, policy);
  if (!names.error.empty()) {
    Require(!names.common_name && !names.spiffe_id);
    return;
  }
  Require(names.common_name || names.spiffe_id);
  if (names.common_name) {
    const std::string& name = *names.common_name;
    Require(!name.empty() && name.size() <= 255 &&
            std::all_of(name.begin(), name.end(), IsNameByte));
    Require(name.front() != ' ' && name.back() != ' ' && Contains(der, name));
  }
  if (names.spiffe_id) {
    const std::string& id = *names.spiffe_id;
    Require(id.starts_with("spiffe://example.org/") && id.size() <= 2048 && Contains(der, id));
    Require(id.find("//", 9) == std::string::npos && id.back() != '/' &&
            id.find_first_of("%?#\\ :@", 9) == std::string::npos);
    Require(id.find("/./") == std::string::npos && id.find("/../") == std::string::npos &&
            id.find('\0') == std::string::npos);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  latchkey::tls::NamePolicy policy;
  policy.trust_domains = {"example.org"};
  Check({data, size}, policy);
  policy.keywhiz_compat = true;
  Check({data, size}, policy);
  return 0;
}
