#include "bench/https_client.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>
#include <sstream>

namespace latchkey::bench {

std::int64_t NowNs() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<std::int64_t>(t.tv_sec) * 1'000'000'000 + t.tv_nsec;
}

// ---- Histogram ---------------------------------------------------------------------------------

std::size_t Histogram::BucketOf(std::uint64_t value) {
  const int width = std::bit_width(value);
  if (width <= kSubBits + 1) return static_cast<std::size_t>(value);
  const int shift = width - kSubBits - 1;
  return (static_cast<std::size_t>(shift) << kSubBits) + static_cast<std::size_t>(value >> shift);
}

std::uint64_t Histogram::HighestOf(std::size_t bucket) {
  if (bucket < (std::size_t{2} << kSubBits)) return bucket;
  const std::size_t shift = (bucket >> kSubBits) - 1;
  const std::uint64_t base =
      (bucket & ((std::size_t{1} << kSubBits) - 1)) + (std::uint64_t{1} << kSubBits);
  return ((base + 1) << shift) - 1;
}

void Histogram::Record(std::int64_t value_ns) {
  const std::int64_t value = std::max<std::int64_t>(value_ns, 0);
  ++buckets_[BucketOf(static_cast<std::uint64_t>(value))];
  ++count_;
  max_ = std::max(max_, value);
  sum_ += static_cast<double>(value);
}

void Histogram::Merge(const Histogram& other) {
  for (std::size_t i = 0; i < buckets_.size(); ++i) buckets_[i] += other.buckets_[i];
  count_ += other.count_;
  max_ = std::max(max_, other.max_);
  sum_ += other.sum_;
}

std::int64_t Histogram::Quantile(double fraction) const {
  if (count_ == 0) return 0;
  const auto wanted = std::max<std::uint64_t>(
      1, static_cast<std::uint64_t>(fraction * static_cast<double>(count_) + 0.999999));
  std::uint64_t seen = 0;
  for (std::size_t i = 0; i < buckets_.size(); ++i) {
    seen += buckets_[i];
    if (seen >= wanted) return std::min(static_cast<std::int64_t>(HighestOf(i)), max_);
  }
  return max_;
}

std::string Histogram::Json() const {
  std::array<char, 320> text{};
  const auto us = [](std::int64_t ns) { return static_cast<double>(ns) / 1000.0; };
  std::snprintf(text.data(), text.size(),
                "{\"count\":%llu,\"mean_us\":%.1f,\"p50_us\":%.1f,\"p90_us\":%.1f,\"p99_us\":%.1f,"
                "\"p999_us\":%.1f,"
                "\"max_us\":%.1f}",
                static_cast<unsigned long long>(count_), mean() / 1000.0, us(Quantile(0.50)),
                us(Quantile(0.90)), us(Quantile(0.99)), us(Quantile(0.999)), us(max_));
  return text.data();
}

// ---- Identities --------------------------------------------------------------------------------

namespace {

using FileHandle = CHandle<FILE, std::fclose>;

Error Failure(const std::string& what) {
  std::array<char, 160> text{};
  const unsigned long code = ERR_peek_last_error();
  if (code != 0) ERR_error_string_n(code, text.data(), text.size());
  ERR_clear_error();
  return Error{Errc::kInvalidArgument,
               what + (code != 0 ? std::string(": ") + text.data() : std::string())};
}

Result<KeyHandle> LoadKey(const std::string& file) {
  FileHandle in(std::fopen(file.c_str(), "re"));
  if (!in) return Failure("cannot open " + file);
  KeyHandle key(PEM_read_PrivateKey(in.get(), nullptr, nullptr, nullptr));
  if (!key) return Failure("no private key in " + file);
  return key;
}

Result<X509Handle> LoadCertificate(const std::string& file) {
  FileHandle in(std::fopen(file.c_str(), "re"));
  if (!in) return Failure("cannot open " + file);
  X509Handle certificate(PEM_read_X509(in.get(), nullptr, nullptr, nullptr));
  if (!certificate) return Failure("no certificate in " + file);
  return certificate;
}

bool AddExtension(X509* certificate, X509* issuer, int nid, const char* value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value);
  if (extension == nullptr) return false;
  const bool added = X509_add_ext(certificate, extension, -1) == 1;
  X509_EXTENSION_free(extension);
  return added;
}

Result<Identity> IssueClient(X509* issuer, EVP_PKEY* issuer_key, const std::string& name) {
  Identity identity{name, X509Handle(X509_new()), KeyHandle(EVP_EC_gen("P-256"))};
  X509* certificate = identity.certificate.get();
  if (certificate == nullptr || !identity.key) return Failure("cannot make a key");
  std::array<unsigned char, 16> serial{};
  if (RAND_bytes(serial.data(), static_cast<int>(serial.size())) != 1)
    return Failure("no random serial");
  serial[0] = static_cast<unsigned char>((serial[0] & 0x3f) | 0x40);
  BIGNUM* number = BN_bin2bn(serial.data(), static_cast<int>(serial.size()), nullptr);
  BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate));
  BN_free(number);
  X509_set_version(certificate, X509_VERSION_3);
  X509_gmtime_adj(X509_getm_notBefore(certificate), -60);
  X509_gmtime_adj(X509_getm_notAfter(certificate), 24L * 3600);
  X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_UTF8,
                             reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
  X509_set_issuer_name(certificate, X509_get_subject_name(issuer));
  X509_set_pubkey(certificate, identity.key.get());
  const bool extended =
      AddExtension(certificate, issuer, NID_basic_constraints, "critical,CA:FALSE") &&
      AddExtension(certificate, issuer, NID_key_usage, "critical,digitalSignature") &&
      AddExtension(certificate, issuer, NID_ext_key_usage, "clientAuth") &&
      AddExtension(certificate, issuer, NID_subject_key_identifier, "hash") &&
      AddExtension(certificate, issuer, NID_authority_key_identifier, "keyid");
  if (!extended || X509_sign(certificate, issuer_key, EVP_sha256()) == 0)
    return Failure("cannot sign " + name);
  return identity;
}

}  // namespace

Result<Identity> LoadIdentity(const std::string& certificate_file, const std::string& key_file) {
  ASSIGN_OR_RETURN(X509Handle certificate, LoadCertificate(certificate_file));
  ASSIGN_OR_RETURN(KeyHandle key, LoadKey(key_file));
  return Identity{certificate_file, std::move(certificate), std::move(key)};
}

Result<std::vector<Identity>> LoadIdentities(const std::string& directory) {
  std::vector<std::string> names;
  DIR* listing = opendir(directory.c_str());
  if (listing == nullptr) return Failure("cannot read directory " + directory);
  while (const dirent* entry = readdir(listing)) {
    const std::string_view name = entry->d_name;
    if (!name.ends_with(".crt")) continue;
    const std::string stem(name.substr(0, name.size() - 4));
    if (stem != "ca" && stem != "server" &&
        access((directory + "/" + stem + ".key").c_str(), R_OK) == 0) {
      names.push_back(stem);
    }
  }
  closedir(listing);
  std::sort(names.begin(), names.end());
  std::vector<Identity> identities;
  for (const std::string& name : names) {
    const std::string stem = directory + "/" + name;
    ASSIGN_OR_RETURN(Identity identity, LoadIdentity(stem + ".crt", stem + ".key"));
    identity.name = name;
    identities.push_back(std::move(identity));
  }
  if (identities.empty()) return Failure("no certificates with keys in " + directory);
  return identities;
}

Result<std::vector<Identity>> GenerateIdentities(const std::string& ca_file,
                                                 const std::string& ca_key_file, std::size_t count,
                                                 const std::string& prefix) {
  ASSIGN_OR_RETURN(const X509Handle issuer, LoadCertificate(ca_file));
  ASSIGN_OR_RETURN(const KeyHandle issuer_key, LoadKey(ca_key_file));
  std::vector<Identity> identities;
  for (std::size_t i = 0; i < count; ++i) {
    ASSIGN_OR_RETURN(Identity identity,
                     IssueClient(issuer.get(), issuer_key.get(), prefix + std::to_string(i)));
    identities.push_back(std::move(identity));
  }
  return identities;
}

// ---- TLS and HTTP ------------------------------------------------------------------------------

Result<SslContextHandle> MakeContext(const std::string& ca_file, const std::string& cipher_suite) {
  SslContextHandle context(SSL_CTX_new(TLS_client_method()));
  if (!context) return Failure("no TLS context");
  SSL_CTX_set_min_proto_version(context.get(), TLS1_3_VERSION);
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER, nullptr);
  SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_OFF);
  SSL_CTX_set_mode(context.get(), SSL_MODE_ENABLE_PARTIAL_WRITE |
                                      SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_NO_AUTO_CHAIN);
  if (SSL_CTX_load_verify_locations(context.get(), ca_file.c_str(), nullptr) != 1)
    return Failure("cannot load " + ca_file);
  if (SSL_CTX_set_ciphersuites(context.get(), cipher_suite.c_str()) != 1)
    return Failure("no cipher " + cipher_suite);
  if (SSL_CTX_set1_groups_list(context.get(), "X25519") != 1) return Failure("no X25519");
  return context;
}

Result<Endpoint> ParseEndpoint(const std::string& text) {
  Endpoint endpoint;
  const std::size_t colon = text.rfind(':');
  unsigned port = 0;
  if (colon == std::string::npos) return Failure("\"" + text + "\" is not ADDRESS:PORT");
  const auto parsed = std::from_chars(text.data() + colon + 1, text.data() + text.size(), port);
  if (parsed.ptr != text.data() + text.size() || port == 0 || port > 65535 ||
      inet_pton(AF_INET, text.substr(0, colon).c_str(), &endpoint.address.sin_addr) != 1) {
    return Failure("\"" + text + "\" is not ADDRESS:PORT");
  }
  endpoint.address.sin_family = AF_INET;
  endpoint.address.sin_port = htons(static_cast<std::uint16_t>(port));
  endpoint.host = text;
  return endpoint;
}

bool Connection::Open(int epoll_fd, std::uint64_t tag) {
  Close();
  failure_.clear();
  fd_ = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd_ < 0) {
    failure_ = "socket";
    return false;
  }
  const int one = 1;
  setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  connect(fd_, reinterpret_cast<const sockaddr*>(&endpoint_->address), sizeof(endpoint_->address));
  ssl_.reset(SSL_new(context_));
  SSL_use_certificate(ssl_.get(), identity_->certificate.get());
  SSL_use_PrivateKey(ssl_.get(), identity_->key.get());
  X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl_.get()),
                                endpoint_->host.substr(0, endpoint_->host.rfind(':')).c_str());
  SSL_set_fd(ssl_.get(), fd_);
  SSL_set_connect_state(ssl_.get());
  epoll_event event{};
  event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
  event.data.u64 = tag;
  return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd_, &event) == 0;
}

void Connection::Close() {
  if (ssl_ && connected_) SSL_shutdown(ssl_.get());
  ERR_clear_error();
  ssl_.reset();
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
  connected_ = busy_ = false;
  in_.clear();
  in_used_ = 0;
}

void Connection::Send(std::string request) {
  in_.erase(0, in_used_);
  in_used_ = 0;
  out_ = std::move(request);
  out_sent_ = 0;
  busy_ = true;
}

Connection::Event Connection::Fail(const char* what) {
  const unsigned long code = ERR_peek_last_error();
  failure_ = what;
  if (code != 0) failure_ += std::string(": ") + ERR_reason_error_string(code);
  ERR_clear_error();
  Close();
  return Event::kFailed;
}

Connection::Event Connection::Handshake() {
  ERR_clear_error();
  const int rc = SSL_do_handshake(ssl_.get());
  if (rc == 1) {
    connected_ = true;
    return Event::kConnected;
  }
  const int reason = SSL_get_error(ssl_.get(), rc);
  if (reason == SSL_ERROR_WANT_READ || reason == SSL_ERROR_WANT_WRITE) return Event::kNone;
  if (reason == SSL_ERROR_SYSCALL && (errno == ENOTCONN || errno == EAGAIN)) return Event::kNone;
  return Fail("handshake");
}

Connection::Event Connection::Write() {
  while (out_sent_ < out_.size()) {
    ERR_clear_error();
    const int n =
        SSL_write(ssl_.get(), out_.data() + out_sent_, static_cast<int>(out_.size() - out_sent_));
    if (n <= 0) {
      const int reason = SSL_get_error(ssl_.get(), n);
      return reason == SSL_ERROR_WANT_WRITE || reason == SSL_ERROR_WANT_READ ? Event::kNone
                                                                             : Fail("write");
    }
    out_sent_ += static_cast<std::size_t>(n);
  }
  return Event::kConnected;
}

bool Connection::ParseResponse() {
  const std::string_view all(in_);
  const std::size_t end = all.find("\r\n\r\n");
  if (end == std::string_view::npos) return false;
  const std::string_view head = all.substr(0, end + 2);
  std::size_t length = 0;
  bool close = false;
  for (std::size_t at = head.find("\r\n"); at + 2 < head.size(); at = head.find("\r\n", at + 2)) {
    const std::string_view line = head.substr(at + 2, head.find("\r\n", at + 2) - at - 2);
    if (line.size() > 15 && strncasecmp(line.data(), "content-length:", 15) == 0) {
      const std::size_t digit = line.find_first_of("0123456789");
      if (digit != std::string_view::npos)
        std::from_chars(line.data() + digit, line.data() + line.size(), length);
    } else if (line.size() > 16 && strncasecmp(line.data(), "connection:", 11) == 0) {
      close = line.find("lose") != std::string_view::npos;
    }
  }
  if (all.size() < end + 4 + length) return false;
  response_ = Response{0, close, head, all.substr(end + 4, length)};
  if (head.size() > 12) std::from_chars(head.data() + 9, head.data() + 12, response_.status);
  in_used_ = end + 4 + length;
  return true;
}

Connection::Event Connection::Read() {
  for (;;) {
    std::array<char, 16 * 1024> buffer;
    ERR_clear_error();
    const int n = SSL_read(ssl_.get(), buffer.data(), static_cast<int>(buffer.size()));
    if (n > 0) {
      in_.append(buffer.data(), static_cast<std::size_t>(n));
      if (busy_ && ParseResponse()) {
        busy_ = false;
        return Event::kResponse;
      }
      continue;
    }
    const int reason = SSL_get_error(ssl_.get(), n);
    if (reason == SSL_ERROR_WANT_READ || reason == SSL_ERROR_WANT_WRITE) return Event::kNone;
    if (!busy_) {
      Close();
      return Event::kClosed;
    }
    return Fail(reason == SSL_ERROR_ZERO_RETURN ? "closed before the answer" : "read");
  }
}

Connection::Event Connection::Advance() {
  if (fd_ < 0) return Event::kNone;
  if (!connected_) return Handshake();
  if (busy_ && out_sent_ < out_.size()) {
    if (const Event written = Write(); written != Event::kConnected) return written;
  }
  return Read();
}

std::string BuildRequest(std::string_view method, std::string_view path, const Endpoint& endpoint,
                         std::string_view body, bool close) {
  std::string text;
  text.append(method)
      .append(" ")
      .append(path)
      .append(" HTTP/1.1\r\nHost: ")
      .append(endpoint.host)
      .append("\r\n");
  if (close) text.append("Connection: close\r\n");
  if (!body.empty()) {
    text.append("Content-Type: application/json\r\nContent-Length: ")
        .append(std::to_string(body.size()))
        .append("\r\n");
  }
  text.append("\r\n").append(body);
  return text;
}

namespace {
std::int64_t OwnCpuUs(const std::string& pid) {
  std::ifstream in("/proc/" + pid + "/stat");
  std::string line;
  if (!std::getline(in, line)) return -1;
  std::istringstream fields(line.substr(line.rfind(')') + 2));
  std::string skipped;
  for (int i = 3; i < 14; ++i) fields >> skipped;
  long long user = 0;
  long long system = 0;
  fields >> user >> system;
  return (user + system) * 1'000'000 / sysconf(_SC_CLK_TCK);
}
}  // namespace

std::int64_t ProcessCpuUs(int pid) {
  const std::string id = std::to_string(pid);
  std::int64_t total = OwnCpuUs(id);
  if (total < 0) return -1;
  std::ifstream children("/proc/" + id + "/task/" + id + "/children");
  for (std::string child; children >> child;) total += std::max<std::int64_t>(0, OwnCpuUs(child));
  return total;
}

}  // namespace latchkey::bench
