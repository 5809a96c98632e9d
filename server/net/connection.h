// One TLS connection: its socket, its encrypted backlog and what is known of the request that is
// coming in.
//
// Owned by the BIO of its SSL, so that it lives exactly as long as SSL and Pistache's Peer do. The
// BIO never reports a full socket on writing: what does not fit waits here. So SSL_write never
// blocks and Pistache's spinning retry is unreachable.
#pragma once

#include <openssl/ssl.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "common/model/limits.h"
#include "server/net/body_buffer.h"
#include "server/net/framer.h"
#include "server/net/shared.h"

namespace latchkey::net {

// Milliseconds of the monotonic clock; the coarse one is good enough for every deadline here.
std::int64_t NowMs();

// A request whose head is complete and whose body is not.
struct IncomingBody {
  IncomingBody(std::string_view text, Shared* shared, std::shared_ptr<IdentityAccount> own,
               const FramerLimits& limits);
  std::string head_text;  // `head` borrows from it
  RequestHead head;
  BodyDecoder decoder;
  BodyBuffer content;
};

// Bytes on the wire, counted by one thread and added to the server's counters now and then: the workers would otherwise
// pass one cache line to and fro several times a request.
struct Traffic {
  std::uint64_t received_bytes = 0;
  std::uint64_t sent_bytes = 0;
};

struct Connection {
  Connection(int socket, std::shared_ptr<Shared> everything,
             std::shared_ptr<const tls::TlsContext> accepted_under);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Makes the SSL with this connection inside; both are freed by SSL_free. Null when OpenSSL
  // cannot.
  static SSL* NewSsl(int socket, const std::shared_ptr<Shared>& shared,
                     const std::shared_ptr<const tls::TlsContext>& trust);
  static Connection* Of(const SSL* ssl) { return static_cast<Connection*>(SSL_get_app_data(ssl)); }

  std::size_t backlog_bytes() const { return out.size() - out_offset; }
  void CountReceived(std::size_t bytes);
  void CountSent(std::size_t bytes);
  // From the end of the handshake on: a peer that goes on talking TLS instead of sending requests is cut off. SSL_read would
  // take such messages one after the other and never return (rule H0).
  void GuardSession();
  // Sends as much of the backlog as the socket takes.
  void Pump();
  // Brings the identity's account in line with the backlog.
  void ChargeBacklog();
  void BeginTurn();
  // By the number of its requests, by what they made us build, or by time. Something is always done in it.
  bool TurnIsOver() const;
  bool idle() const {
    return phase == Phase::kIdle && !waiting && queued_replies == 0 && backlog_bytes() == 0;
  }

  enum class Phase { kIdle, kHead, kBody };

  const int fd;
  SSL* ssl = nullptr;  // borrowed: it owns us
  const std::shared_ptr<Shared> shared;
  std::shared_ptr<const tls::TlsContext> trust;  // the epoch under which the chain was judged last
  std::shared_ptr<const tls::PeerCertificate> certificate;
  std::shared_ptr<ConnectionControl> control = std::make_shared<ConnectionControl>();
  std::string identity;  // key in the table of identities; empty before the handshake is done
  std::string peer_address;
  std::string peer_network;  // bytes of the address, of an IPv6 address its /64

  // Encrypted bytes.
  Traffic* traffic = nullptr;  // of its worker; null during the handshake
  std::string out;
  std::size_t out_offset = 0;
  std::unique_ptr<char[]> early;  // read before OpenSSL asked for them, during the handshake only
  std::size_t early_offset = 0;
  std::size_t early_size = 0;
  std::size_t handshake_bytes = 0;      // received before it was done
  std::uint32_t protocol_messages = 0;  // handshake messages received after it was done
  bool corked = false;                  // collect writes, Pump() follows
  bool drained = false;                 // the last recv() emptied the socket
  bool in_worker = false;
  bool holds_buffers = false;  // OpenSSL's, 16 KiB each way; given back when idle
  bool armed_for_write = false;
  bool dead = false;  // the socket is of no use any more
  bool eof = false;   // the peer will send nothing more
  bool half_closed =
      false;  // the kernel has said so, which it does once, whether or not all is read

  // Requests.
  std::string in;           // plaintext not yet framed
  std::size_t scanned = 0;  // of `in`, by ParseHead
  std::unique_ptr<IncomingBody> body;
  Phase phase = Phase::kIdle;
  bool waiting = false;   // for a DeferredReply
  bool readable = false;  // reading was left off before the socket was empty
  bool resuming = false;  // is in the worker's list of connections to go on with
  bool closing = false;   // no request is read any more; close when all is sent
  bool linger = false;  // on closing, swallow what the peer still sends, so that it sees our answer
  bool shut_down = false;  // close_notify is written
  bool keep = true;        // of the request under way
  bool http10 = false;
  bool head_only = false;  // the request under way is a HEAD
  std::uint32_t requests = 0;
  std::uint32_t turn_requests = 0;   // since its turn began
  std::size_t turn_bytes = 0;        // built for it since then
  std::size_t turn_input_bytes = 0;  // framed since then
  std::chrono::steady_clock::time_point turn_end;
  std::uint64_t ticket = 0;        // of the request that waits
  RequestId request_id;            // of the request that waits
  std::size_t queued_replies = 0;  // in the batch, not yet committed
  std::size_t queued_bytes = 0;

  std::int64_t born_ms = 0;
  std::int64_t phase_ms = 0;            // when the phase began
  std::int64_t sent_ms = 0;             // when the backlog had last moved by enough
  std::size_t sent_since_bytes = 0;     // how far it has moved since
  std::size_t charged_reply_bytes = 0;  // to the account of the identity
  std::int64_t linger_until_ms = 0;     // 0: does not linger
  std::int64_t linger_end_ms = 0;       // however much still comes
  std::size_t swallowed_bytes = 0;
};

}  // namespace latchkey::net
