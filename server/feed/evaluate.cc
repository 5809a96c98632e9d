#include "server/feed/evaluate.h"

#include <algorithm>
#include <string_view>
#include <vector>

namespace latchkey::feed {

using store::ChangeKind;

namespace {

bool IsMember(const catalog::Client& client, std::uint32_t group) {
  return std::binary_search(client.groups.begin(), client.groups.end(), group);
}

}  // namespace

Answer Evaluate(const State& state, ClientId client_id, Generation since) {
  const LogView& log = state.log;
  Answer answer;
  answer.generation = state.newest;
  const catalog::Client* client = state.root->FindClient(client_id);
  // A generation of the future belongs to a store that was since restored from a backup.
  answer.reset = since.value == 0 || since > state.newest || since < log.complete_since() ||
                 client == nullptr || !client->row.enabled;
  if (answer.reset) return answer;
  std::vector<const catalog::Secret*> changed;
  std::vector<std::string_view> gone;
  for (std::uint64_t i = log.After(since); i < log.end(); ++i) {
    const LogEntry& entry = log.at(i);
    switch (entry.kind) {
      case ChangeKind::kMembership:
      case ChangeKind::kClient:
        if (entry.client() != client_id) break;
        answer.reset = true;
        return answer;
      case ChangeKind::kSecret:
      case ChangeKind::kGrant: {
        // A grant to somebody else's group is no news for one who could read already.
        if (entry.kind == ChangeKind::kGrant && !IsMember(*client, entry.group)) break;
        const catalog::Secret* secret = state.root->FindSecret(entry.secret());
        if (secret != nullptr &&
            catalog::acl::DecideRead(client->view(), secret->view()).allowed()) {
          changed.push_back(secret);
        }
        break;
      }
      case ChangeKind::kSecretGone:
      case ChangeKind::kRevoke:
        if (IsMember(*client, entry.group) &&
            state.root->FindForClient(client_id, *entry.name).secret == nullptr) {
          gone.push_back(*entry.name);
        }
        break;
    }
  }
  std::sort(changed.begin(), changed.end(),
            [](const auto* a, const auto* b) { return a->name() < b->name(); });
  changed.erase(std::unique(changed.begin(), changed.end()), changed.end());
  for (const catalog::Secret* secret : changed) {
    answer.changed.push_back(
        {std::string(secret->name()), secret->version(), secret->size_bytes()});
  }
  std::sort(gone.begin(), gone.end());
  gone.erase(std::unique(gone.begin(), gone.end()), gone.end());
  answer.gone.assign(gone.begin(), gone.end());
  return answer;
}

}  // namespace latchkey::feed
