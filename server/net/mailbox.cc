#include "server/net/mailbox.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/secret/secret_buffer.h"

namespace latchkey::net {

Mailbox::Mailbox() : event_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  INVARIANT(event_.valid());
}

void Mailbox::Wake() {
  const std::uint64_t one = 1;
  // Fails only when the counter is full, and then the worker is awake already.
  [[maybe_unused]] const ssize_t written = ::write(event_.get(), &one, sizeof one);
}

template <class Letter>
bool Mailbox::Put(std::vector<Letter> Letters::*pile, Letter* letter) {
  bool first = false;
  {
    const std::lock_guard lock(mutex_);
    if (closed_) return false;
    first = letters_.empty();
    (letters_.*pile).push_back(std::move(*letter));
  }
  if (first) Wake();
  return true;
}

bool Mailbox::Post(std::shared_ptr<Pistache::Tcp::Peer> peer) {
  return Put(&Letters::peers, &peer);
}

void Mailbox::Post(Delivery delivery) {
  if (Put(&Letters::deliveries, &delivery)) return;
  WipeMemory(delivery.response.body.data(), delivery.response.body.size());
}

void Mailbox::Post(std::shared_ptr<ConnectionControl> displaced) {
  Put(&Letters::displaced, &displaced);
}

Letters Mailbox::Take() {
  std::uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = ::read(event_.get(), &count, sizeof count);
  const std::lock_guard lock(mutex_);
  return std::exchange(letters_, {});
}

void Mailbox::Close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
}

MailedReply::~MailedReply() {
  if (!completed_.load()) Complete({.status = 500, .headers = {}, .body = ErrorBody(500)});
}

void MailedReply::Complete(DeferredResponse response) {
  if (completed_.exchange(true)) {
    WipeMemory(response.body.data(), response.body.size());
    return;
  }
  control_->gone.Forget();
  mailbox_->Post(Delivery{peer_, ticket_, std::move(response)});
}

}  // namespace latchkey::net
