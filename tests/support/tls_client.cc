#include "tests/support/tls_client.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>

#include "common/base/unique_fd.h"
#include "common/tls/openssl.h"

namespace latchkey::testing {

using Deadline = std::chrono::steady_clock::time_point;

class TlsSession {
 public:
  explicit TlsSession(SSL_SESSION* session) : session_(session) {}
  SSL_SESSION* get() const { return session_.get(); }

 private:
  CHandle<SSL_SESSION, SSL_SESSION_free> session_;
};

struct TlsClient::State {
  ClientOptions options;
  tls::SslCtxHandle context;
  tls::SslHandle ssl;
  UniqueFd fd;
  std::string error;
  std::string buffered;  // received and not yet given out
  std::shared_ptr<TlsSession> offered;
  std::shared_ptr<TlsSession> received;
  int tickets = 0;

  bool Wait(short events, Deadline deadline) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        deadline - std::chrono::steady_clock::now());
    pollfd p{fd.get(), events, 0};
    if (left.count() > 0 && ::poll(&p, 1, static_cast<int>(left.count())) > 0) return true;
    error = "timeout";
    return false;
  }
  // Waits as SSL_get_error asks; false when the call has failed for good.
  bool WaitFor(int result, Deadline deadline) {
    switch (SSL_get_error(ssl.get(), result)) {
      case SSL_ERROR_WANT_READ:
        return Wait(POLLIN, deadline);
      case SSL_ERROR_WANT_WRITE:
        return Wait(POLLOUT, deadline);
      case SSL_ERROR_ZERO_RETURN:
        error = "eof";
        return false;
      case SSL_ERROR_SYSCALL:
        error = ERR_peek_error() == 0 ? "eof" : tls::DrainOpenSslErrors();
        return false;
      default:
        error = tls::DrainOpenSslErrors();
        return false;
    }
  }
  Deadline Until() const { return std::chrono::steady_clock::now() + options.timeout; }
  // Appends what comes next to `buffered`; false at the end, on an error or at the deadline.
  bool Fill(Deadline deadline) {
    char chunk[16 * 1024];
    for (;;) {
      ERR_clear_error();
      const int got = SSL_read(ssl.get(), chunk, sizeof chunk);
      if (got > 0) {
        buffered.append(chunk, static_cast<std::size_t>(got));
        return true;
      }
      if (!WaitFor(got, deadline)) return false;
    }
  }
};

namespace {

int StateIndex() {
  static const int index = SSL_get_ex_new_index(0, nullptr, nullptr, nullptr, nullptr);
  return index;
}

void UseCredential(SSL_CTX* context, const Credential& credential) {
  const tls::BioHandle pem(BIO_new_mem_buf(credential.certificate_pem.data(),
                                           static_cast<int>(credential.certificate_pem.size())));
  const tls::X509Handle leaf(PEM_read_bio_X509(pem.get(), nullptr, nullptr, nullptr));
  const tls::BioHandle key_pem(
      BIO_new_mem_buf(credential.key_pem.data(), static_cast<int>(credential.key_pem.size())));
  const tls::KeyHandle key(PEM_read_bio_PrivateKey(key_pem.get(), nullptr, nullptr, nullptr));
  INVARIANT(SSL_CTX_use_certificate(context, leaf.get()) == 1 &&
            SSL_CTX_use_PrivateKey(context, key.get()) == 1);
  if (credential.chain_pem.empty()) return;
  const tls::BioHandle chain(
      BIO_new_mem_buf(credential.chain_pem.data(), static_cast<int>(credential.chain_pem.size())));
  while (X509* next = PEM_read_bio_X509(chain.get(), nullptr, nullptr, nullptr))
    SSL_CTX_add0_chain_cert(context, next);
  ERR_clear_error();
}

void UseAuthority(SSL_CTX* context, const std::string& ca_pem) {
  const tls::BioHandle pem(BIO_new_mem_buf(ca_pem.data(), static_cast<int>(ca_pem.size())));
  const tls::X509Handle root(PEM_read_bio_X509(pem.get(), nullptr, nullptr, nullptr));
  INVARIANT(root != nullptr &&
            X509_STORE_add_cert(SSL_CTX_get_cert_store(context), root.get()) == 1);
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nullptr);
}

std::string LowerCase(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return text;
}

void ParseHeaders(HttpResponse* response) {
  for (std::size_t at = response->head.find("\r\n") + 2; at + 2 < response->head.size();) {
    const std::size_t end = response->head.find("\r\n", at);
    const std::string line = response->head.substr(at, end - at);
    const std::size_t colon = line.find(": ");
    if (colon != std::string::npos)
      response->headers[LowerCase(line.substr(0, colon))] = line.substr(colon + 2);
    at = end + 2;
  }
}

}  // namespace

TlsClient::TlsClient(ClientOptions options) : state_(std::make_unique<State>()) {
  tls::InitOpenSsl();
  std::signal(SIGPIPE, SIG_IGN);  // SSL_write uses write(2)
  state_->options = std::move(options);
  state_->context.reset(SSL_CTX_new(TLS_client_method()));
  SSL_CTX* context = state_->context.get();
  SSL_CTX_set_security_level(context, 0);  // a test may present what the server must refuse
  const int version = state_->options.tls_version == 12
                          ? TLS1_2_VERSION
                          : (state_->options.tls_version == 13 ? TLS1_3_VERSION : 0);
  if (version != 0) {
    SSL_CTX_set_min_proto_version(context, version);
    SSL_CTX_set_max_proto_version(context, version);
  }
  if (!state_->options.groups.empty())
    INVARIANT(SSL_CTX_set1_groups_list(context, state_->options.groups.c_str()) == 1);
  if (!state_->options.ciphers.empty())
    INVARIANT(SSL_CTX_set_cipher_list(context, state_->options.ciphers.c_str()) == 1);
  if (state_->options.credential) UseCredential(context, *state_->options.credential);
  if (!state_->options.ca_pem.empty()) UseAuthority(context, state_->options.ca_pem);
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
  SSL_CTX_sess_set_new_cb(context, [](SSL* ssl, SSL_SESSION* session) {
    auto* state = static_cast<State*>(SSL_get_ex_data(ssl, StateIndex()));
    ++state->tickets;
    state->received = std::make_shared<TlsSession>(session);
    return 1;  // the session is ours now
  });
}

TlsClient::~TlsClient() = default;
TlsClient::TlsClient(TlsClient&&) noexcept = default;
TlsClient& TlsClient::operator=(TlsClient&&) noexcept = default;

bool TlsClient::ConnectTcp(std::uint16_t port) {
  state_->fd.Reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!state_->fd.valid()) {
    state_->error = std::strerror(errno);
    return false;
  }
  if (state_->options.receive_buffer_bytes > 0) {
    ::setsockopt(state_->fd.get(), SOL_SOCKET, SO_RCVBUF, &state_->options.receive_buffer_bytes,
                 sizeof(int));
  }
  const int one = 1;
  ::setsockopt(state_->fd.get(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_port = htons(port);
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(state_->fd.get(), reinterpret_cast<sockaddr*>(&at), sizeof at) != 0) {
    state_->error = std::strerror(errno);
    return false;
  }
  return ::fcntl(state_->fd.get(), F_SETFL, O_NONBLOCK) == 0;
}

bool TlsClient::Handshake() {
  state_->ssl.reset(SSL_new(state_->context.get()));
  SSL* ssl = state_->ssl.get();
  SSL_set_ex_data(ssl, StateIndex(), state_.get());
  SSL_set_fd(ssl, state_->fd.get());
  if (state_->offered) SSL_set_session(ssl, state_->offered->get());
  const Deadline deadline = state_->Until();
  for (;;) {
    ERR_clear_error();
    const int result = SSL_connect(ssl);
    if (result == 1) return true;
    if (!state_->WaitFor(result, deadline)) return false;
  }
}

bool TlsClient::Connect(std::uint16_t port) {
  return ConnectTcp(port) && Handshake();
}

bool TlsClient::Send(std::string_view bytes) {
  const Deadline deadline = state_->Until();
  while (!bytes.empty()) {
    ERR_clear_error();
    const int sent = SSL_write(state_->ssl.get(), bytes.data(), static_cast<int>(bytes.size()));
    if (sent > 0) {
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    } else if (!state_->WaitFor(sent, deadline)) {
      return false;
    }
  }
  return true;
}

bool TlsClient::SendRaw(std::string_view bytes) {
  return ::send(state_->fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
         static_cast<ssize_t>(bytes.size());
}

HttpResponse TlsClient::Receive(bool head_only) {
  HttpResponse response;
  const Deadline deadline = state_->Until();
  std::string& data = state_->buffered;
  std::size_t end = 0;
  while ((end = data.find("\r\n\r\n")) == std::string::npos) {
    if (!state_->Fill(deadline)) return response;
  }
  response.head = data.substr(0, end + 4);
  data.erase(0, end + 4);
  ParseHeaders(&response);
  const auto length = response.headers.find("content-length");
  const std::size_t body_bytes =
      head_only || length == response.headers.end() ? 0 : std::stoul(length->second);
  while (data.size() < body_bytes) {
    if (!state_->Fill(deadline)) return response;
  }
  response.body = data.substr(0, body_bytes);
  data.erase(0, body_bytes);
  response.status = std::stoi(response.head.substr(9, 3));
  return response;
}

HttpResponse TlsClient::Get(std::string_view target) {
  if (!Send("GET " + std::string(target) + " HTTP/1.1\r\nHost: localhost\r\n\r\n")) return {};
  return Receive();
}

std::string TlsClient::ReceiveSome(std::size_t size) {
  if (state_->buffered.empty() && !state_->Fill(state_->Until())) return "";
  std::string some = state_->buffered.substr(0, size);
  state_->buffered.erase(0, some.size());
  return some;
}

bool TlsClient::ClosedByPeer() {
  const Deadline deadline = state_->Until();
  if (!state_->ssl) {  // not a TLS client yet: the raw end
    char ignored[256];
    while (state_->Wait(POLLIN, deadline)) {
      const ssize_t got = ::recv(state_->fd.get(), ignored, sizeof ignored, 0);
      if (got <= 0) return got == 0 || errno == ECONNRESET;
    }
    return false;
  }
  return state_->buffered.empty() && !state_->Fill(deadline) && state_->error != "timeout";
}

bool TlsClient::UpdateKey() {
  return SSL_key_update(state_->ssl.get(), SSL_KEY_UPDATE_NOT_REQUESTED) == 1 &&
         SSL_do_handshake(state_->ssl.get()) == 1;
}

bool TlsClient::Renegotiate() {
  if (SSL_renegotiate(state_->ssl.get()) != 1) return false;
  return SSL_do_handshake(state_->ssl.get()) != 1;  // sent; the answer is not waited for
}

void TlsClient::HalfClose() {
  SSL_shutdown(state_->ssl.get());
  ::shutdown(state_->fd.get(), SHUT_WR);
}

void TlsClient::Close() {
  state_->ssl.reset();
  state_->fd.Reset();
}

bool TlsClient::resumed() const {
  return SSL_session_reused(state_->ssl.get()) == 1;
}
int TlsClient::tls_version() const {
  return SSL_version(state_->ssl.get()) == TLS1_2_VERSION ? 12 : 13;
}
std::string TlsClient::error() const {
  return state_->error;
}
std::string TlsClient::group() const {
  const char* name = SSL_group_to_name(
      state_->ssl.get(), static_cast<int>(SSL_get_negotiated_group(state_->ssl.get())));
  return name == nullptr ? "" : name;
}

std::string TlsClient::client_ca_names() const {
  std::string text;
  const STACK_OF(X509_NAME)* names = SSL_get0_peer_CA_list(state_->ssl.get());
  for (int i = 0; i < sk_X509_NAME_num(names); ++i)
    text += tls::NameText(sk_X509_NAME_value(names, i)) + "\n";
  return text;
}

int TlsClient::fd() const {
  return state_->fd.get();
}
std::shared_ptr<TlsSession> TlsClient::session() const {
  if (state_->received) return state_->received;
  SSL_SESSION* current = SSL_get1_session(state_->ssl.get());
  return current == nullptr ? nullptr : std::make_shared<TlsSession>(current);
}
void TlsClient::Offer(const std::shared_ptr<TlsSession>& session) {
  state_->offered = session;
}
int TlsClient::tickets_received() const {
  return state_->tickets;
}

}  // namespace latchkey::testing
