#include "server/net/hang_up.h"

#include <utility>

namespace latchkey::net {

std::function<void()> HangUp::Take() {
  const std::lock_guard lock(mutex_);
  return std::exchange(run_, nullptr);
}

void HangUp::Happen() {
  happened_.store(true);
  if (const auto run = Take()) run();
}

void HangUp::Then(std::function<void()> run) {
  {
    const std::lock_guard lock(mutex_);
    run_.swap(run);
  }
  run = nullptr;  // what it replaces goes outside the lock: it may own a reply
  // Either this sees that it has happened, or Happen() sees what is to be run.
  if (happened_.load()) Happen();
}

void HangUp::Forget() {
  [[maybe_unused]] const auto dropped = Take();
}

}  // namespace latchkey::net
