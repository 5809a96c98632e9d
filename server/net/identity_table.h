// Which connections an identity has open (rule H0): at the limit the longest idle one makes room
// for the new one.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "server/net/hang_up.h"

namespace latchkey::net {

// What the connections of one identity hold together (rule H0).
struct IdentityAccount {
  std::atomic<std::size_t> body_bytes{0};   // room for bodies that are coming in
  std::atomic<std::size_t> reply_bytes{0};  // room for answers that their readers have not taken
};

// The part of a connection that other threads may see. Its worker writes, others read.
struct ConnectionControl {
  std::atomic<std::int64_t> last_active_ms{0};  // monotonic
  std::atomic<bool> busy{false};  // a request is coming in, waits, or its answer is not yet sent
  HangUp gone;                    // the peer has hung up
  std::atomic<bool> displaced{false};  // told to make room: its worker closes it
  // Set before the control is shared.
  std::size_t worker = 0;
  int fd = -1;
  std::shared_ptr<IdentityAccount> account;  // of its identity; IdentityTable::Add sets it
};

// Thread-safe.
class IdentityTable {
 public:
  explicit IdentityTable(std::size_t limit) : limit_(limit) {}

  // Enters a connection and gives it its identity's account. When the identity is over its limit now, one of the others leaves the
  // table and is returned: the one idle for longest, or, when none is idle, the one that has been
  // quiet for longest. The caller has it closed.
  std::shared_ptr<ConnectionControl> Add(const std::string& identity,
                                         const std::shared_ptr<ConnectionControl>& control);
  // Forgets a connection; harmless when it has left already.
  void Remove(const std::string& identity, const ConnectionControl* control);
  std::size_t Size(const std::string& identity) const;

 private:
  const std::size_t limit_;
  mutable std::mutex mutex_;
  struct Known {
    // Outlives the entry in the connections that still hold bytes.
    std::shared_ptr<IdentityAccount> account = std::make_shared<IdentityAccount>();
    std::vector<std::shared_ptr<ConnectionControl>> connections;
  };
  std::unordered_map<std::string, Known> open_;
};

}  // namespace latchkey::net
