// The mTLS listener: accepts, shakes hands, frames and answers through Handlers. Knows no URLs, no
// rules, no JSON.
//
// Threads: `acceptors` threads own handshakes, `workers` threads (a Pistache reactor) own
// established connections. A silent, slow or hostile peer costs memory up to a limit and a
// deadline, never a thread (rules T1, H0, H1; limits of section 10).
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "common/base/result.h"
#include "common/model/limits.h"
#include "common/tls/context.h"
#include "server/net/framer.h"
#include "server/net/http.h"

namespace latchkey::net {

struct ServerOptions {
  std::string address = "127.0.0.1";  // numeric, IPv4 or IPv6
  std::uint16_t port = 0;             // 0: any free port, see Server::port()
  std::size_t workers = 2;
  std::size_t acceptors = 2;
  FramerLimits framer;
  std::chrono::milliseconds handshake_timeout = limits::kHandshakeTimeout;
  std::chrono::milliseconds head_timeout = limits::kHeadTimeout;
  std::chrono::milliseconds body_timeout = limits::kBodyTimeout;
  std::chrono::milliseconds reply_stall_timeout = limits::kReplyStallTimeout;
  std::chrono::milliseconds keep_alive_idle = limits::kKeepAliveIdle;
  std::chrono::milliseconds max_connection_age = limits::kMaxConnectionAge;
  std::uint32_t max_requests_per_connection = limits::kMaxRequestsPerConnection;
  std::size_t max_handshakes = limits::kMaxHandshakesInFlight;
  std::size_t max_handshakes_per_address = limits::kMaxHandshakesPerAddress;
  std::size_t max_connections = limits::kMaxConnections;
  std::size_t max_connections_per_identity = limits::kMaxConnectionsPerIdentity;
  std::size_t max_bodies_in_flight_bytes = limits::kMaxBodiesInFlightBytes;
  std::size_t max_bodies_in_flight_bytes_per_identity = limits::kMaxBodiesInFlightBytesPerIdentity;
  std::size_t max_stranger_body_bytes = limits::kMaxStrangerBodyBytes;
  std::size_t max_batch_replies = limits::kMaxBatchReplies;
  std::size_t reply_backlog_pause_bytes = limits::kReplyBacklogPauseBytes;
  std::size_t min_reply_progress_bytes = limits::kMinReplyProgressBytes;
  std::size_t max_waiting_reply_bytes_per_identity = limits::kMaxWaitingReplyBytesPerIdentity;
};

// Counters since the start and gauges of this moment.
struct ServerStats {
  std::uint64_t accepted = 0;
  std::uint64_t handshakes_ok = 0;
  std::uint64_t handshakes_failed = 0;
  std::uint64_t handshakes_timed_out = 0;
  std::uint64_t handshakes_displaced = 0;   // closed for a newer one at a limit
  std::uint64_t handshakes_in_flight = 0;   // gauge
  std::uint64_t connections = 0;            // gauge, handshakes included
  std::uint64_t connections_refused = 0;    // at max_connections
  std::uint64_t descriptors_exhausted = 0;  // accepts that failed for want of descriptors or memory
  std::uint64_t identity_displaced =
      0;  // idle connections closed for a newer one of the same identity (rule H0)
  std::uint64_t requests = 0;
  std::uint64_t batches = 0;
  std::uint64_t batches_unaudited = 0;  // Commit() said false: answered 503
  std::uint64_t framing_refused = 0;
  std::uint64_t bodies_overloaded = 0;     // 503 for max_bodies_in_flight_bytes, or its share
  std::uint64_t replies_overloaded = 0;    // 503 for max_waiting_reply_bytes_per_identity
  std::uint64_t body_bytes_in_flight = 0;  // gauge
  std::uint64_t timed_out = 0;             // head, body
  std::uint64_t idle_closed = 0;           // idle or too old
  std::uint64_t stalled_closed = 0;        // peers that did not read their answer
  std::uint64_t trust_closed = 0;          // refused by a reload or past notAfter (rule T7)
  std::uint64_t protocol_closed = 0;       // went on with the TLS protocol after the handshake
  std::uint64_t strangers_displaced = 0;   // without a certificate, closed for a newer one
  std::uint64_t bytes_received = 0;        // on the wire
  std::uint64_t bytes_sent = 0;
  std::uint64_t handler_silent = 0;  // handlers that neither answered nor deferred
};

// Thread-safe, except that Drain and the destructor are the owner's.
class Server {
 public:
  // Binds, starts all threads and listens. `factory` is called once per worker, before this
  // returns. SIGPIPE need not be ignored. Errors: kUnavailable with the address and what failed.
  static Result<std::unique_ptr<Server>> Start(const ServerOptions& options,
                                               const HandlerFactory& factory,
                                               std::shared_ptr<const tls::TlsContext> trust);
  virtual ~Server() = default;  // stops hard: connections are cut

  virtual std::uint16_t port() const = 0;
  // New handshakes use `trust` from now on. Requests read after this returns are answered only when
  // the connection's chain is good under it; idle connections whose chain is refused are closed
  // soon (rule T7).
  virtual void Reload(std::shared_ptr<const tls::TlsContext> trust) = 0;
  // Stops accepting, answers what is under way with `Connection: close`, closes idle connections
  // and waits. True when every connection ended by itself within `timeout`; the rest is cut. Call
  // once.
  virtual bool Drain(std::chrono::milliseconds timeout) = 0;
  virtual ServerStats stats() const = 0;
};

}  // namespace latchkey::net
