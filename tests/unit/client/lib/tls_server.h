// A real TLS server whose answers a test scripts: for what latchkeyd never does (redirects, cut
// answers, hostile sizes).
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

struct ssl_ctx_st;

namespace latchkey::test {

// A fresh development CA with server.crt, app.crt and friends (certs/make-dev-certs), removed at
// the end.
class DevPki {
 public:
  DevPki();
  ~DevPki();
  const std::string& dir() const { return dir_; }
  std::string File(const std::string& name) const { return dir_ + "/" + name; }

 private:
  std::string dir_;
};
// One for all tests of the process.
const DevPki& SharedPki();

struct TlsServerOptions {
  std::string cert_file, key_file, client_ca_file;
  int max_protocol = 0;  // OpenSSL's number, 0: newest
};

// Serves 127.0.0.1 on a free port until destruction. Thread-safe.
class TlsServer {
 public:
  // Gets the whole request (head and body) and gives the raw answer; empty ends the connection
  // without one.
  using Handler = std::function<std::string(const std::string& request)>;

  TlsServer(TlsServerOptions options, Handler handler);
  ~TlsServer();
  std::uint16_t port() const { return port_; }
  int connections() const { return connections_.load(); }
  std::vector<std::string> requests() const;

 private:
  void Accept();
  void Serve(int fd);

  TlsServerOptions options_;
  Handler handler_;
  ssl_ctx_st* context_;
  int listener_ = -1;
  std::uint16_t port_ = 0;
  std::atomic<bool> stopping_{false};
  std::atomic<int> connections_{0};
  mutable std::mutex mutex_;
  std::vector<std::string> requests_;
  std::vector<int> open_fds_;
  std::vector<std::jthread> workers_;
  std::jthread acceptor_;
};

// `HTTP/1.1 <status>` with a JSON body.
std::string JsonAnswer(const std::string& status, const std::string& body,
                       const std::string& more_headers = "");

}  // namespace latchkey::test
