// A plain TLS client for tests: real sockets, real OpenSSL, every call bounded by a deadline. Not
// thread-safe; one per thread.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "tests/support/pki.h"

namespace latchkey::testing {

struct ClientOptions {
  std::optional<Credential> credential;  // none: no client certificate is offered
  std::string ca_pem;                    // verifies the server; empty: the server is not verified
  int tls_version = 0;                   // 12 or 13; 0: either
  std::string groups;                    // as SSL_set1_groups_list; empty: OpenSSL's default
  std::string ciphers;                   // TLS 1.2 cipher list; empty: default
  std::chrono::milliseconds timeout{10'000};  // of each single call
  int receive_buffer_bytes = 0;               // SO_RCVBUF; 0: the default
};

struct HttpResponse {
  int status = 0;                              // 0: no complete answer came
  std::map<std::string, std::string> headers;  // names in lower case
  std::string head;                            // raw, with the empty line
  std::string body;

  // The value of a header, named in lower case; empty when it is absent.
  std::string header(const std::string& name) const {
    const auto found = headers.find(name);
    return found == headers.end() ? "" : found->second;
  }
};

// A saved session, to be offered by a later client.
class TlsSession;

class TlsClient {
 public:
  explicit TlsClient(ClientOptions options = {});
  ~TlsClient();
  TlsClient(TlsClient&&) noexcept;
  TlsClient& operator=(TlsClient&&) noexcept;

  // Connects to 127.0.0.1 and shakes hands; in TLS 1.3 the server's verdict on the certificate
  // comes with the first read.
  bool Connect(std::uint16_t port);
  // The TCP connection alone.
  bool ConnectTcp(std::uint16_t port);
  bool Handshake();
  bool Send(std::string_view bytes);
  // Raw bytes past TLS.
  bool SendRaw(std::string_view bytes);
  // One complete answer; `head_only`: none of its body follows (HEAD). 100-continue is returned
  // like any other answer.
  HttpResponse Receive(bool head_only = false);
  HttpResponse Get(std::string_view target);
  // Up to `size` bytes as they come; empty at the end or on timeout.
  std::string ReceiveSome(std::size_t size);
  // True when the peer closed (and nothing but the end came) within the timeout.
  bool ClosedByPeer();
  // Announces a new key (TLS 1.3), or asks to begin anew (TLS 1.2); false when that cannot be sent, or was granted at once.
  bool UpdateKey();
  bool Renegotiate();
  // Ends sending: close_notify and FIN; reading goes on.
  void HalfClose();
  void Close();

  bool resumed() const;
  int tls_version() const;    // 12 or 13
  std::string error() const;  // of the last failed call: OpenSSL's reason, "timeout" or "eof"
  std::string group() const;  // of the key exchange
  std::string client_ca_names() const;  // the server's CertificateRequest, one name a line
  int fd() const;

  // Sessions or tickets that the server gave out so far; reads them when asked.
  std::shared_ptr<TlsSession> session() const;
  void Offer(const std::shared_ptr<TlsSession>& session);  // before Connect
  int tickets_received() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace latchkey::testing
