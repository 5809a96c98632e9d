// What other threads hand to a worker: new connections, answers to deferred requests, connections
// to close.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "common/base/unique_fd.h"
#include "server/net/http.h"
#include "server/net/identity_table.h"

namespace Pistache::Tcp {
class Peer;
}

namespace latchkey::net {

// The answer to one deferred request. The peer is looked up by the worker alone: no other thread
// may become its last owner.
struct Delivery {
  std::weak_ptr<Pistache::Tcp::Peer> peer;
  std::uint64_t ticket = 0;
  DeferredResponse response;
};

struct Letters {
  std::vector<std::shared_ptr<Pistache::Tcp::Peer>> peers;
  std::vector<Delivery> deliveries;
  std::vector<std::shared_ptr<ConnectionControl>> displaced;
  bool empty() const { return peers.empty() && deliveries.empty() && displaced.empty(); }
};

// Thread-safe. Pistache's own queue loses wake-ups (network.md, section 2), so this one does not
// use it.
class Mailbox {
 public:
  Mailbox();

  int event_fd() const { return event_.get(); }
  bool Post(std::shared_ptr<Pistache::Tcp::Peer>
                peer);           // false: the worker has ended, the peer is the caller's still
  void Post(Delivery delivery);  // wiped and dropped when the worker has ended
  void Post(std::shared_ptr<ConnectionControl> displaced);
  void Wake();
  // Empties the box. Only the worker calls it.
  Letters Take();
  // Nothing is taken any more.
  void Close();

 private:
  // Wakes the worker for the first letter only: who finds others there relies on the wake-up that they caused.
  template <class Letter>
  bool Put(std::vector<Letter> Letters::*pile, Letter* letter);

  UniqueFd event_;
  std::mutex mutex_;
  bool closed_ = false;
  Letters letters_;
};

// The reply handle of one waiting request (see http.h). Dropped without an answer it answers 500.
class MailedReply final : public DeferredReply {
 public:
  MailedReply(std::shared_ptr<Mailbox> mailbox, std::weak_ptr<Pistache::Tcp::Peer> peer,
              std::uint64_t ticket, std::shared_ptr<ConnectionControl> control)
      : mailbox_(std::move(mailbox)),
        peer_(std::move(peer)),
        ticket_(ticket),
        control_(std::move(control)) {}
  ~MailedReply() override;
  void Complete(DeferredResponse response) override;
  bool Alive() const override { return !control_->gone.happened(); }
  void OnGone(std::function<void()> run) override { control_->gone.Then(std::move(run)); }

 private:
  const std::shared_ptr<Mailbox> mailbox_;
  const std::weak_ptr<Pistache::Tcp::Peer> peer_;
  const std::uint64_t ticket_;
  const std::shared_ptr<ConnectionControl> control_;
  std::atomic<bool> completed_{false};
};

}  // namespace latchkey::net
