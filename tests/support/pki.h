// A throw-away PKI inside the test process: authorities, intermediates, leaves with every defect
// that the product must refuse, and CRLs. Keys are made anew in each process and never written
// anywhere but to a test's own directory. No OpenSSL type is visible here. Everything aborts the
// test program when OpenSSL itself fails.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "common/base/bytes.h"

namespace latchkey::testing {

enum class KeyKind { kP256, kP384, kEd25519, kRsa1024, kRsa2048 };
enum class StringKind { kUtf8, kPrintable, kIa5, kT61, kBmp };

struct CommonName {
  std::string bytes;  // as they go into the DER, without conversion: "a\0b" stays as it is
  StringKind kind = StringKind::kUtf8;
};

// What goes into a certificate. The defaults are a good client leaf; each test spoils one field.
struct CertificateSpec {
  std::vector<CommonName> common_names = {{"client", StringKind::kUtf8}};
  std::vector<std::string> uris;       // URI SANs, raw bytes
  std::vector<std::string> dns_names;  // DNS SANs; an entry "ip:127.0.0.1" becomes an IP SAN
  KeyKind key = KeyKind::kP256;
  // Extensions in OpenSSL's configuration syntax; empty: the extension is left out.
  std::string basic_constraints = "critical,CA:FALSE";
  std::string key_usage = "critical,digitalSignature";
  std::string extended_key_usage = "clientAuth";
  std::string digest = "SHA256";
  std::int64_t not_before_offset_s = -3600;  // relative to now
  std::int64_t not_after_offset_s = 24 * 3600;
  bool version1 = false;  // an X.509 v1 certificate: no extensions at all
};

CertificateSpec ClientSpec(const std::string& common_name);
CertificateSpec SpiffeSpec(const std::string& uri);  // no common name
// A server leaf for 127.0.0.1 and localhost.
CertificateSpec ServerSpec();

// A certificate with its key. PEM texts may be written to files or handed to any TLS library.
struct Credential {
  std::string certificate_pem;  // the leaf alone
  std::string chain_pem;        // the intermediates that belong with it, without the root
  std::string key_pem;
  ByteVector certificate_der;
  std::string serial_hex;

  std::string certificate_with_chain_pem() const { return certificate_pem + chain_pem; }
};

struct CrlSpec {
  std::vector<std::string> revoked_serials_hex;
  std::int64_t this_update_offset_s = -60;
  std::int64_t next_update_offset_s = 7 * 24 * 3600;
  std::string digest = "SHA256";
};

// A certification authority. Cheap to copy: copies share the key. Not thread-safe.
class Authority {
 public:
  // A self-signed root, valid for 30 days.
  static Authority Root(const std::string& common_name);
  static Authority RootWithKey(const std::string& common_name, KeyKind key);
  // An intermediate signed by this authority. `path_len` < 0: none.
  Authority Intermediate(const std::string& common_name, int path_len = -1) const;

  Credential Issue(const CertificateSpec& spec) const;
  std::string Crl(const CrlSpec& spec = {}) const;  // PEM
  const std::string& certificate_pem() const;
  ByteVector certificate_der() const;
  const std::string& serial_hex() const;  // of the authority's own certificate

 private:
  struct State;
  explicit Authority(std::shared_ptr<const State> state) : state_(std::move(state)) {}
  static Authority Make(const std::string& common_name, KeyKind key, const State* issuer,
                        int path_len);
  std::shared_ptr<const State> state_;
};

// A directory of its own below the system's temporary directory, removed with everything in it.
class TestDirectory {
 public:
  TestDirectory();
  ~TestDirectory();
  TestDirectory(const TestDirectory&) = delete;
  TestDirectory& operator=(const TestDirectory&) = delete;
  const std::filesystem::path& path() const { return path_; }
  // Writes the file with mode 0600 and returns its full path. An existing file is replaced.
  std::string Write(const std::string& name, const std::string& content,
                    unsigned mode = 0600) const;

 private:
  std::filesystem::path path_;
};

}  // namespace latchkey::testing
