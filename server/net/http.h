// What the network layer hands up and takes back: framed requests in, bytes out. No rules, no URLs,
// no JSON here.
//
// One Handler per worker thread, made by a HandlerFactory. All requests of one epoll wake-up (at
// most limits::kMaxBatchReplies) go to Handle(); their replies are held back until Commit() said
// that the audit record of the whole batch is written (rule A1). Only then are they sent.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/bytes.h"
#include "common/tls/certificate.h"

namespace latchkey::net {

enum class Method { kGet, kHead, kPost, kPut, kDelete, kOptions, kPatch, kOther };

// 16 random-looking lower-case hex digits; sent as X-Request-Id with every answer (rule O3).
struct RequestId {
  std::uint64_t value = 0;
};
std::string FormatRequestId(RequestId id);
// "Not Found" for 404; "Unknown" for a code that this server never sends.
std::string_view ReasonPhrase(int status);
// The body of an answer without text of its own: {"code":404,"message":"HTTP 404 Not Found"} (API
// spec 1.4).
std::string ErrorBody(int status);

// One request whose framing was found good. All views borrow and live until Handle() returns.
struct Request {
  Method method = Method::kOther;
  std::string_view target;        // raw, begins with '/', includes the query; nothing is decoded
  std::string_view host;          // value of Host
  std::string_view content_type;  // empty when absent; see has_content_type
  std::string_view accept;
  bool has_content_type = false;
  bool has_accept = false;
  bool has_body = false;                // a body of at least one byte
  bool has_forwarded_identity = false;  // an X-Forwarded-Client-Cert header was present (rule X1)
  std::size_t forwarded_identity_count =
      0;  // how many such header lines (rule X1: more than one is 401)
  std::string_view
      forwarded_identity;  // raw value of the last one; for server/identity alone (rule X3)
  Bytes body;
  const tls::PeerCertificate* certificate = nullptr;  // verified; null when the peer showed none
  std::string_view peer_address;                      // "127.0.0.1"
  std::uint16_t local_port = 0;
  RequestId id;
};

struct Header {
  std::string_view name;
  std::string_view value;
};

// A reply that is given from another thread. Complete() may be called once, from any thread; the
// body is sent, then wiped. When the peer has gone meanwhile the reply is dropped.
struct DeferredResponse {
  int status = 500;
  std::vector<std::pair<std::string, std::string>> headers;  // besides the standing ones
  std::string body;
};
class DeferredReply {
 public:
  virtual ~DeferredReply() = default;
  virtual void Complete(DeferredResponse response) = 0;
  // False once the peer is known to be gone: a waiter may be dropped early.
  virtual bool Alive() const = 0;
  // `run` once when the peer has hung up before Complete(), at once when it has already. It may run
  // on a network thread, must not block, and may Complete(): a peer that only ended its sending
  // still gets that answer. At most one per reply.
  virtual void OnGone(std::function<void()> run) = 0;
};

// How a handler answers one request. The standing headers (Date, the six security headers,
// X-Request-Id, Content-Length, Connection when closing) are added here. Exactly one of
// Start+filled body, or Defer, per request.
class Responder {
 public:
  virtual ~Responder() = default;
  // Serialises the head into the worker's locked, wiped reply memory and returns room for exactly
  // `body_bytes`, to be filled before Handle() returns. Calling Start again throws the earlier
  // attempt away (a decryption that failed). `content_type` empty: no Content-Type. For HEAD the
  // body is not sent but its length is.
  virtual std::span<char> Start(int status, std::string_view content_type,
                                std::span<const Header> headers, std::size_t body_bytes) = 0;
  // Keeps the connection waiting for a reply from another thread. Requests behind it wait, in
  // order.
  virtual std::shared_ptr<DeferredReply> Defer() = 0;
};

class Handler {
 public:
  virtual ~Handler() = default;
  // Worker thread. Must not block on the network or a disk, must not throw.
  virtual void Handle(const Request& request, Responder& responder) noexcept = 0;
  // Ends a batch: true when every audit record of the batch is written. False turns all its replies
  // into 503.
  virtual bool Commit() noexcept = 0;
};
using HandlerFactory = std::function<std::unique_ptr<Handler>()>;

}  // namespace latchkey::net
