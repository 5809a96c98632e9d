// One accepting thread: takes connections, shakes hands without blocking, judges, hands over to a
// worker (rules T1, H0).
#pragma once

#include <algorithm>
#include <array>
#include <list>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

#include "common/base/unique_fd.h"
#include "server/net/connection.h"
#include "server/net/worker.h"

namespace latchkey::net {

using AddressKey = std::array<std::uint8_t, 16>;  // IPv6, or IPv4 mapped into it

// The handshakes of all acceptors in the order of their arrival. At a limit the one that waits
// longest is to be closed, never the new one: a flood of silent peers cannot lock out the next good
// one. Thread-safe.
class HandshakeTable {
 public:
  HandshakeTable(std::size_t limit, std::size_t limit_per_address)
      : limit_(limit), limit_per_address_(limit_per_address) {}

  struct Entry {
    std::uint64_t id = 0;
    std::size_t acceptor = 0;
    AddressKey address{};
  };
  // Enters a handshake; returns those that must make room for it. They have left the table already.
  std::vector<Entry> Enter(std::size_t acceptor, const AddressKey& address, std::uint64_t* id);
  void Leave(std::uint64_t id);
  std::size_t size() const;

 private:
  void Erase(std::list<Entry>::iterator entry);

  const std::size_t limit_;
  const std::size_t limit_per_address_;
  mutable std::mutex mutex_;
  std::uint64_t next_id_ = 1;
  std::list<Entry> order_;
  std::unordered_map<std::uint64_t, std::list<Entry>::iterator> by_id_;
  struct AddressHash {
    std::size_t operator()(const AddressKey& key) const;
  };
  std::unordered_map<AddressKey, std::size_t, AddressHash> per_address_;
};

// Owned, started and stopped by Server. Everything private runs on its own thread.
class Acceptor {
 public:
  // `peers` are all acceptors of the server, this one included, in the order of their indices.
  Acceptor(std::size_t index, int listen_fd, std::shared_ptr<Shared> shared, HandshakeTable* table,
           std::vector<std::shared_ptr<Worker>> workers,
           const std::vector<std::unique_ptr<Acceptor>>* peers);
  ~Acceptor();
  void Start();
  // Ends the thread; handshakes under way are cut.
  void Stop();

 private:
  struct Handshake {
    std::uint64_t id;
    SSL* ssl;
    Connection* connection;
    AddressKey address;
    std::int64_t deadline_ms;
    std::list<std::uint64_t>::iterator place;
  };

  void Run();
  void AcceptSome();
  void AcceptOne(int fd, const AddressKey& address, std::string address_text);
  void ShedOne();
  void Step(std::uint64_t id);
  void Finish(std::uint64_t id);
  void HandOver(Handshake* handshake);
  // Has the worker of a connection that was chosen close it.
  void MakeRoom(const std::shared_ptr<ConnectionControl>& victim, Counter* counter);
  void Abort(std::uint64_t id);
  void DropDisplaced();
  void DropOverdue();
  void Displace(std::uint64_t id);  // any thread
  void LogFailure(const Handshake& handshake);
  void WatchListener(bool on);
  Worker& QuietestWorker(std::size_t* index) const;

  const std::size_t index_;
  const int listen_fd_;
  const std::shared_ptr<Shared> shared_;
  HandshakeTable* const table_;
  const std::vector<std::shared_ptr<Worker>> workers_;
  const std::vector<std::unique_ptr<Acceptor>>* const peers_;
  UniqueFd epoll_;
  UniqueFd wake_;
  UniqueFd spare_;  // given up for a moment when descriptors run out, to take one connection and
                    // close it
  std::unordered_map<std::uint64_t, Handshake> handshakes_;
  std::list<std::uint64_t> order_;  // equal timeouts: the front is due first
  std::int64_t paused_until_ms_ = 0;
  std::int64_t log_second_ = 0;
  int logged_in_second_ = 0;  // of refused chains
  int noise_in_second_ = 0;   // of everything else
  std::mutex displaced_mutex_;
  std::vector<std::uint64_t> displaced_;
  std::atomic<bool> stopping_{false};
  std::jthread thread_;  // last: joined first
};

}  // namespace latchkey::net
