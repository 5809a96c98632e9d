// What the load programs share: a histogram, many client identities, and a non-blocking mTLS
// HTTP/1.1 connection. Not for the product. One thread per object; no locks.
#pragma once

#include <netinet/in.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/c_handle.h"
#include "common/base/result.h"

namespace latchkey::bench {

using SslContextHandle = CHandle<SSL_CTX, SSL_CTX_free>;
using SslHandle = CHandle<SSL, SSL_free>;
using X509Handle = CHandle<X509, X509_free>;
using KeyHandle = CHandle<EVP_PKEY, EVP_PKEY_free>;

// CLOCK_MONOTONIC, the same in every container of the machine.
std::int64_t NowNs();

// Latencies in log-linear buckets: 128 per power of two, so a quantile is exact within 0.8 %.
class Histogram {
 public:
  void Record(std::int64_t value_ns);
  void Merge(const Histogram& other);
  // 0 when empty; `fraction` in 0..1. The highest value of the bucket, never above the maximum.
  std::int64_t Quantile(double fraction) const;
  std::uint64_t count() const { return count_; }
  std::int64_t max() const { return max_; }
  double mean() const { return count_ == 0 ? 0 : sum_ / static_cast<double>(count_); }
  // {"count":..,"mean_us":..,"p50_us":..,"p90_us":..,"p99_us":..,"p999_us":..,"max_us":..}
  std::string Json() const;

 private:
  static constexpr int kSubBits = 7;
  static std::size_t BucketOf(std::uint64_t value);
  static std::uint64_t HighestOf(std::size_t bucket);
  std::array<std::uint32_t, (64 - kSubBits + 1) << kSubBits> buckets_{};
  std::uint64_t count_ = 0;
  std::int64_t max_ = 0;
  double sum_ = 0;
};

struct Identity {
  std::string name;
  X509Handle certificate;
  KeyHandle key;
};
// Every NAME.crt with a NAME.key in `directory`, sorted by name, less ca and server.
Result<std::vector<Identity>> LoadIdentities(const std::string& directory);
Result<Identity> LoadIdentity(const std::string& certificate_file, const std::string& key_file);
// `count` fresh P-256 client certificates PREFIX0, PREFIX1, ... signed by the given authority.
Result<std::vector<Identity>> GenerateIdentities(const std::string& ca_file,
                                                 const std::string& ca_key_file, std::size_t count,
                                                 const std::string& prefix);

// TLS 1.3 only, X25519, the given cipher suite, no session kept. Verifies the server against
// `ca_file` and `host`.
Result<SslContextHandle> MakeContext(const std::string& ca_file, const std::string& cipher_suite);

struct Endpoint {
  sockaddr_in address{};
  std::string host;  // "127.0.0.1:4444", for Host
};
Result<Endpoint> ParseEndpoint(const std::string& text);

struct Response {
  int status = 0;
  bool close = false;           // the server announced that it closes
  std::string_view head, body;  // valid until the next call on the connection
};

class Connection {
 public:
  enum class Event { kNone, kConnected, kResponse, kClosed, kFailed };

  Connection(SSL_CTX* context, const Identity* identity, const Endpoint* endpoint)
      : context_(context), identity_(identity), endpoint_(endpoint) {}
  ~Connection() { Close(); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Starts a TCP and TLS connection and registers it (edge-triggered, `tag` as data). False: no
  // socket.
  bool Open(int epoll_fd, std::uint64_t tag);
  // Queues one request; the caller sends one at a time and calls Advance() after it.
  void Send(std::string request);
  // Goes on as far as the socket allows. kClosed: the peer closed between requests.
  Event Advance();
  void Close();

  bool connected() const { return connected_; }
  bool busy() const { return busy_; }
  const Response& response() const { return response_; }
  const std::string& failure() const { return failure_; }
  const Identity& identity() const { return *identity_; }

 private:
  Event Fail(const char* what);
  Event Handshake();
  Event Write();
  Event Read();
  bool ParseResponse();

  SSL_CTX* context_;
  const Identity* identity_;
  const Endpoint* endpoint_;
  int fd_ = -1;
  SslHandle ssl_;
  bool connected_ = false;
  bool busy_ = false;
  std::string out_;
  std::size_t out_sent_ = 0;
  std::string in_;
  std::size_t in_used_ = 0;
  Response response_;
  std::string failure_;
};

// "GET /path HTTP/1.1" with Host, and with a JSON body when `body` is not empty.
std::string BuildRequest(std::string_view method, std::string_view path, const Endpoint& endpoint,
                         std::string_view body, bool close);

// CPU time of a process and of its children that are alive, user and system, in microseconds; -1
// when it is gone.
std::int64_t ProcessCpuUs(int pid);

}  // namespace latchkey::bench
