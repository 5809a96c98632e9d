#include "server/net/connection.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>

#include "common/tls/openssl.h"

namespace latchkey::net {
namespace {

constexpr std::size_t kEarlyBytes = 4096;
// A backlog is cut loose from its buffer at these sizes, so that one large answer does not stay
// allocated.
constexpr std::size_t kKeptCapacityBytes = 64 * 1024;
constexpr std::size_t kCompactBytes = 1024 * 1024;
constexpr std::size_t kPumpBytes = 64 * 1024;

Connection* Owner(BIO* bio) {
  return static_cast<Connection*>(BIO_get_data(bio));
}

int ReadSocket(Connection* c, BIO* bio, char* at, std::size_t size) {
  for (;;) {
    const ssize_t got = ::recv(c->fd, at, size, MSG_DONTWAIT);
    if (got > 0) {
      c->CountReceived(static_cast<std::size_t>(got));
      c->drained = static_cast<std::size_t>(got) < size;
      return static_cast<int>(got);
    }
    if (got == 0) {
      c->eof = true;
      return 0;
    }
    if (errno == EINTR) continue;
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
      c->drained = true;
      BIO_set_retry_read(bio);
    } else {
      c->dead = true;
    }
    return -1;
  }
}

// During a handshake OpenSSL asks for five bytes, then for the rest, record by record. One recv()
// for all of a flight saves most of these system calls; the worker asks for whole buffers and reads
// past this one.
int BioRead(BIO* bio, char* at, int size) {
  Connection* c = Owner(bio);
  BIO_clear_retry_flags(bio);
  if (c->dead) return -1;  // cut off in the middle of SSL_read
  if (c->early_size == c->early_offset) {
    if (c->in_worker) {
      c->early.reset();
      c->early_size = c->early_offset = 0;
      return ReadSocket(c, bio, at, static_cast<std::size_t>(size));
    }
    if (!c->early) c->early = std::make_unique_for_overwrite<char[]>(kEarlyBytes);
    const int got = ReadSocket(c, bio, c->early.get(), kEarlyBytes);
    if (got <= 0) return got;
    c->handshake_bytes += static_cast<std::size_t>(got);
    if (c->handshake_bytes > limits::kMaxHandshakeBytes) {
      c->dead = true;
      return -1;
    }
    c->early_offset = 0;
    c->early_size = static_cast<std::size_t>(got);
  }
  const std::size_t take =
      std::min(static_cast<std::size_t>(size), c->early_size - c->early_offset);
  std::memcpy(at, c->early.get() + c->early_offset, take);
  c->early_offset += take;
  return static_cast<int>(take);
}

// Takes everything, always: a full socket is not the caller's business, and a dead one is found by
// its owner.
int BioWrite(BIO* bio, const char* at, int size) {
  Connection* c = Owner(bio);
  BIO_clear_retry_flags(bio);
  auto left = static_cast<std::size_t>(size);
  if (c->dead) return size;
  if (c->in_worker && !c->corked && c->backlog_bytes() == 0) {
    const ssize_t sent = ::send(c->fd, at, left, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
      c->dead = true;
      return size;
    }
    if (sent > 0) {
      c->CountSent(static_cast<std::size_t>(sent));
      at += sent;
      left -= static_cast<std::size_t>(sent);
    }
    if (left == 0) return size;
  }
  if (c->backlog_bytes() == 0) {
    c->sent_ms = NowMs();
    c->sent_since_bytes = 0;
  }
  c->out.append(at, left);
  if (c->backlog_bytes() >= kPumpBytes && !c->armed_for_write) c->Pump();
  return size;
}

long BioControl(BIO* bio, int command, long, void*) {
  Connection* c = Owner(bio);
  if (command == BIO_CTRL_FLUSH) {
    if (!c->in_worker) c->Pump();
    return 1;
  }
  return command == BIO_CTRL_EOF && c->eof ? 1 : 0;
}

int BioDestroy(BIO* bio) {
  delete Owner(bio);
  BIO_set_data(bio, nullptr);
  return 1;
}

int BioCreate(BIO* bio) {
  BIO_set_init(bio, 1);
  return 1;
}

void FreeMethod(BIO_METHOD* method) {
  BIO_meth_free(method);
}

// OpenSSL tells of each message. After the handshake there are two kinds that a peer can send without end: new keys
// (TLS 1.3), and wishes to begin anew (TLS 1.2), which OpenSSL refuses with an alert each.
void OnProtocolMessage(int written, int, int type, const void* data, std::size_t size, SSL* ssl,
                       void*) {
  Connection* c = Connection::Of(ssl);
  const bool received = written == 0 && type == SSL3_RT_HANDSHAKE;
  const bool refused = written == 1 && type == SSL3_RT_ALERT && size == 2 &&
                       static_cast<const unsigned char*>(data)[1] == SSL_AD_NO_RENEGOTIATION;
  if (!received && !refused) return;
  if (!refused && ++c->protocol_messages <= limits::kMaxProtocolMessages) return;
  if (!c->dead) Count(c->shared->counters.protocol_closed);
  c->dead = true;
}

const BIO_METHOD* ConnectionMethod() {
  static const CHandle<BIO_METHOD, FreeMethod> method([] {
    BIO_METHOD* made =
        BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "latchkey connection");
    INVARIANT(made != nullptr);
    BIO_meth_set_read(made, BioRead);
    BIO_meth_set_write(made, BioWrite);
    BIO_meth_set_ctrl(made, BioControl);
    BIO_meth_set_create(made, BioCreate);
    BIO_meth_set_destroy(made, BioDestroy);
    return made;
  }());
  return method.get();
}

RequestHead ParsedAgain(std::string_view text, const FramerLimits& limits) {
  RequestHead head;
  std::size_t scanned = 0;
  INVARIANT(ParseHead(text, limits, &scanned, &head) == kComplete);
  return head;
}

}  // namespace

std::int64_t NowMs() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return static_cast<std::int64_t>(now.tv_sec) * 1000 + now.tv_nsec / 1'000'000;
}

IncomingBody::IncomingBody(std::string_view text, Shared* shared,
                           std::shared_ptr<IdentityAccount> own, const FramerLimits& limits)
    : head_text(text),
      head(ParsedAgain(head_text, limits)),
      decoder(head, limits),
      content(
          shared, std::move(own),
          head.chunked ? limits.max_body_bytes : static_cast<std::size_t>(head.content_length)) {}

Connection::Connection(int socket, std::shared_ptr<Shared> everything,
                       std::shared_ptr<const tls::TlsContext> accepted_under)
    : fd(socket), shared(std::move(everything)), trust(std::move(accepted_under)) {
  Count(shared->counters.connections);
  born_ms = phase_ms = NowMs();
}

Connection::~Connection() {
  control->gone.Happen();
  out.clear();
  out_offset = 0;
  ChargeBacklog();
  if (!identity.empty()) shared->identities.Remove(identity, control.get());
  if (!identity.empty() && !certificate) shared->strangers.Remove({}, control.get());
  shared->counters.connections.fetch_sub(1, std::memory_order_relaxed);
}

SSL* Connection::NewSsl(int socket, const std::shared_ptr<Shared>& shared,
                        const std::shared_ptr<const tls::TlsContext>& trust) {
  tls::SslHandle ssl(SSL_new(trust->ssl_ctx()));
  BIO* bio = ssl ? BIO_new(ConnectionMethod()) : nullptr;
  if (bio == nullptr) return nullptr;
  auto* connection = new Connection(socket, shared, trust);
  connection->ssl = ssl.get();
  BIO_set_data(bio, connection);
  SSL_set_bio(ssl.get(), bio, bio);
  SSL_set_app_data(ssl.get(), connection);
  SSL_set_accept_state(ssl.get());
  return ssl.release();
}

void Connection::GuardSession() {
  SSL_set_msg_callback(ssl, OnProtocolMessage);
}

void Connection::BeginTurn() {
  turn_requests = 0;
  turn_bytes = 0;
  turn_input_bytes = 0;
  turn_end = std::chrono::steady_clock::now() + limits::kMaxTurn;
}

bool Connection::TurnIsOver() const {
  if (turn_requests == 0 && turn_input_bytes == 0) return false;
  return turn_requests >= limits::kMaxRequestsPerTurn ||
         turn_bytes >= limits::kMaxBuiltBytesPerTurn ||
         std::chrono::steady_clock::now() >= turn_end;
}

void Connection::CountReceived(std::size_t bytes) {
  if (traffic != nullptr) {
    traffic->received_bytes += bytes;
  } else {
    Count(shared->counters.bytes_received, bytes);
  }
}

void Connection::CountSent(std::size_t bytes) {
  if (traffic != nullptr) {
    traffic->sent_bytes += bytes;
  } else {
    Count(shared->counters.bytes_sent, bytes);
  }
}

void Connection::Pump() {
  while (backlog_bytes() > 0 && !dead) {
    const ssize_t sent =
        ::send(fd, out.data() + out_offset, backlog_bytes(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) {
      CountSent(static_cast<std::size_t>(sent));
      out_offset += static_cast<std::size_t>(sent);
      // A reader that takes a byte now and then does not keep its answer for ever.
      sent_since_bytes += static_cast<std::size_t>(sent);
      if (sent_since_bytes >= shared->options.min_reply_progress_bytes) {
        sent_ms = NowMs();
        sent_since_bytes = 0;
      }
    } else if (sent < 0 && errno == EINTR) {
      continue;
    } else if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      break;
    } else {
      dead = true;
    }
  }
  if (backlog_bytes() == 0 || dead) {
    if (out.capacity() > kKeptCapacityBytes) {
      std::string().swap(out);
    } else {
      out.clear();
    }
    out_offset = 0;
  } else if (out_offset > kCompactBytes) {
    out.erase(0, out_offset);
    out_offset = 0;
  }
}

void Connection::ChargeBacklog() {
  const std::size_t held = backlog_bytes() > 0 ? out.capacity() : 0;
  if (held == charged_reply_bytes || !control->account) return;
  std::atomic<std::size_t>& account = control->account->reply_bytes;
  if (held > charged_reply_bytes) {
    account.fetch_add(held - charged_reply_bytes, std::memory_order_relaxed);
  } else {
    account.fetch_sub(charged_reply_bytes - held, std::memory_order_relaxed);
  }
  charged_reply_bytes = held;
}

}  // namespace latchkey::net
