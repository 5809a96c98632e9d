// What acceptors and workers of one server share. Internal to server/net.
#pragma once

#include <algorithm>
#include <atomic>
#include <memory>

#include "common/base/guarded.h"
#include "common/model/limits.h"
#include "common/tls/context.h"
#include "server/net/identity_table.h"
#include "server/net/server.h"

namespace latchkey::net {

using Counter = std::atomic<std::uint64_t>;

inline void Count(Counter& counter, std::uint64_t by = 1) {
  counter.fetch_add(by, std::memory_order_relaxed);
}

struct Counters {
  Counter accepted{0}, handshakes_ok{0}, handshakes_failed{0}, handshakes_timed_out{0},
      handshakes_displaced{0};
  Counter connections{0}, connections_refused{0}, descriptors_exhausted{0}, identity_displaced{0};
  Counter requests{0}, batches{0}, batches_unaudited{0}, framing_refused{0}, bodies_overloaded{0},
      replies_overloaded{0}, body_bytes_in_flight{0};
  Counter timed_out{0}, idle_closed{0}, stalled_closed{0}, trust_closed{0}, protocol_closed{0},
      strangers_displaced{0}, bytes_received{0}, bytes_sent{0}, handler_silent{0};
};

inline std::size_t ShareOf(std::size_t all, std::size_t parts) {
  return std::max(limits::kLeastShare, all / parts);
}

struct Shared {
  Shared(const ServerOptions& given, std::shared_ptr<const tls::TlsContext> initial)
      : options(given),
        trust(std::move(initial)),
        identities(given.max_connections_per_identity),
        strangers(ShareOf(given.max_connections, limits::kStrangerShare)) {
    epoch.store(CurrentTrust()->epoch(), std::memory_order_release);
  }
  std::shared_ptr<const tls::TlsContext> CurrentTrust() const {
    return trust.With([](const auto& current) { return current; });
  }

  const ServerOptions options;
  Guarded<std::shared_ptr<const tls::TlsContext>> trust;
  std::atomic<std::uint64_t> epoch{0};  // of `trust`: lets a worker see a reload without the lock
  std::atomic<bool> draining{false};
  std::uint16_t port = 0;  // set before any thread starts
  IdentityTable identities;
  IdentityTable strangers;  // all connections without a certificate, under one name
  Counters counters;
};

}  // namespace latchkey::net
