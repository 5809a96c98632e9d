#include "server/net/identity_table.h"

#include <algorithm>
#include <utility>

namespace latchkey::net {

std::shared_ptr<ConnectionControl> IdentityTable::Add(
    const std::string& identity, const std::shared_ptr<ConnectionControl>& control) {
  const std::lock_guard lock(mutex_);
  Known& known = open_[identity];
  auto& connections = known.connections;
  control->account = known.account;
  std::shared_ptr<ConnectionControl> victim;
  if (connections.size() >= limit_ && !connections.empty()) {
    const auto rank = [](const auto& c) {
      return std::pair(c->busy.load(), c->last_active_ms.load());
    };
    const auto quietest =
        std::min_element(connections.begin(), connections.end(),
                         [&](const auto& a, const auto& b) { return rank(a) < rank(b); });
    victim = *quietest;
    connections.erase(quietest);
  }
  connections.push_back(control);
  return victim;
}

void IdentityTable::Remove(const std::string& identity, const ConnectionControl* control) {
  const std::lock_guard lock(mutex_);
  const auto found = open_.find(identity);
  if (found == open_.end()) return;
  std::erase_if(found->second.connections, [control](const auto& c) { return c.get() == control; });
  if (found->second.connections.empty()) open_.erase(found);
}

std::size_t IdentityTable::Size(const std::string& identity) const {
  const std::lock_guard lock(mutex_);
  const auto found = open_.find(identity);
  return found == open_.end() ? 0 : found->second.connections.size();
}

}  // namespace latchkey::net
