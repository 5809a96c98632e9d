#include "tests/unit/client/lib/tls_server.h"

#include <arpa/inet.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>

namespace latchkey::test {

DevPki::DevPki() {
  char pattern[] = "/tmp/latchkey-client-test.XXXXXX";
  if (::mkdtemp(pattern) == nullptr) throw std::runtime_error("mkdtemp");
  dir_ = pattern;
  // Two authorities: that of the tests in the directory itself, a foreign one in b/.
  std::string commands = "set -e; make=";
  commands.append(TESTS_SOURCE_DIR).append("/../certs/make-dev-certs; cd ").append(dir_);
  commands.append(
      "; for ca in a b; do $make all --out $ca --automation admin --client app >make.log; done;"
      " mv a/* .; exec 2>make.log; export OPENSSL_CONF=/dev/null;"
      // A certificate of the trusted authority for another host, and one whose subject alone says
      // localhost.
      " Issue() { openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "
      "$1.key -subj /CN=$2 |"
      " openssl x509 -req -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile $1.ext -out "
      "$1.crt; };"
      " printf 'extendedKeyUsage=serverAuth\nsubjectAltName=DNS:other.example' >other.ext; Issue "
      "other localhost;"
      " printf 'extendedKeyUsage=serverAuth' >subject.ext; Issue subject localhost");
  if (std::system(commands.c_str()) != 0) throw std::runtime_error("make-dev-certs failed");
}

DevPki::~DevPki() {
  std::error_code ignored;
  std::filesystem::remove_all(dir_, ignored);
}

const DevPki& SharedPki() {
  static const DevPki pki;
  return pki;
}

TlsServer::TlsServer(TlsServerOptions options, Handler handler)
    : options_(std::move(options)), handler_(std::move(handler)) {
  std::signal(SIGPIPE, SIG_IGN);
  context_ = SSL_CTX_new(TLS_server_method());
  if (options_.max_protocol != 0) SSL_CTX_set_max_proto_version(context_, options_.max_protocol);
  SSL_CTX_set_security_level(context_, 0);
  const bool good =
      SSL_CTX_use_certificate_chain_file(context_, options_.cert_file.c_str()) == 1 &&
      SSL_CTX_use_PrivateKey_file(context_, options_.key_file.c_str(), SSL_FILETYPE_PEM) == 1 &&
      SSL_CTX_load_verify_locations(context_, options_.client_ca_file.c_str(), nullptr) == 1;
  if (!good) throw std::runtime_error("TLS files");
  SSL_CTX_set_verify(context_, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (::bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      ::listen(listener_, 16) != 0 ||
      ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    throw std::runtime_error("listen");
  }
  port_ = ntohs(address.sin_port);
  acceptor_ = std::jthread([this] { Accept(); });
}

TlsServer::~TlsServer() {
  stopping_ = true;
  ::shutdown(listener_, SHUT_RDWR);
  acceptor_.join();
  {
    const std::lock_guard lock(mutex_);
    for (const int fd : open_fds_) ::shutdown(fd, SHUT_RDWR);
  }
  workers_.clear();
  ::close(listener_);
  SSL_CTX_free(context_);
}

void TlsServer::Accept() {
  while (!stopping_) {
    const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) return;
    ++connections_;
    const std::lock_guard lock(mutex_);
    open_fds_.push_back(fd);
    workers_.emplace_back([this, fd] { Serve(fd); });
  }
}

void TlsServer::Serve(int fd) {
  SSL* ssl = SSL_new(context_);
  SSL_set_fd(ssl, fd);
  std::string pending;
  bool alive = SSL_accept(ssl) == 1;
  if (!alive) {
    // Closing with unread bytes would send a reset, which eats the alert: the client reads it and closes first.
    ::shutdown(fd, SHUT_WR);
    char rest[4096];
    while (::recv(fd, rest, sizeof rest, 0) > 0) continue;
  }
  while (alive && !stopping_) {
    const std::size_t head = pending.find("\r\n\r\n");
    std::size_t wanted = std::string::npos;
    if (head != std::string::npos) {
      const std::size_t field = pending.find("Content-Length: ");
      wanted = head + 4 + (field < head ? std::stoul(pending.substr(field + 16)) : 0);
    }
    if (wanted == std::string::npos || pending.size() < wanted) {
      char buffer[16384];
      const int got = SSL_read(ssl, buffer, sizeof buffer);
      if (got <= 0) break;
      pending.append(buffer, static_cast<std::size_t>(got));
      continue;
    }
    const std::string request = pending.substr(0, wanted);
    pending.erase(0, wanted);
    {
      const std::lock_guard lock(mutex_);
      requests_.push_back(request);
    }
    const std::string answer = handler_(request);
    alive = !answer.empty() && SSL_write(ssl, answer.data(), static_cast<int>(answer.size())) > 0;
    if (answer.find("Connection: close") != std::string::npos) alive = false;
  }
  ::shutdown(fd, SHUT_WR);
  SSL_free(ssl);
  const std::lock_guard lock(mutex_);
  std::erase(open_fds_, fd);
  ::close(fd);
}

std::vector<std::string> TlsServer::requests() const {
  const std::lock_guard lock(mutex_);
  return requests_;
}

std::string JsonAnswer(const std::string& status, const std::string& body,
                       const std::string& more_headers) {
  return "HTTP/1.1 " + status +
         "\r\nContent-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) +
         "\r\n" + more_headers + "\r\n" + body;
}

}  // namespace latchkey::test
