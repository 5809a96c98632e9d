#include <algorithm>
#include <functional>
#include <unordered_set>
#include <utility>

#include "server/catalog/catalog.h"
#include "server/catalog/name_hash.h"

namespace latchkey::catalog {
namespace {

template <class Map>
auto Pointer(const Map& map, const auto& key) {
  const auto* found = map.Find(key);
  return found != nullptr ? found->get() : nullptr;
}

// The entry of `index` whose text is `text`: one entry for all but one in billions of hashes.
template <class Value, class Map, class TextOf>
const Value* FindByText(const Map& index, std::string_view text, const TextOf& text_of) {
  const std::uint64_t hash = NameHash(text);
  const Value* result = nullptr;
  index.ForEachFrom({hash, INT64_MIN}, [&](const auto& key, const auto& ref) {
    if (key.hash != hash) return false;
    if (text_of(*ref) != text) return true;
    result = ref.get();
    return false;
  });
  return result;
}

std::string_view NameOf(const Secret& secret) {
  return secret.name();
}

}  // namespace

const Client* Root::FindClient(ClientId id) const {
  return Pointer(clients_, id);
}

const Client* Root::FindClient(std::string_view name) const {
  return FindByText<Client>(clients_by_name_, name,
                            [](const Client& c) -> std::string_view { return c.row.name; });
}

const Client* Root::FindClientBySpiffe(std::string_view spiffe_id) const {
  return FindByText<Client>(clients_by_spiffe_, spiffe_id,
                            [](const Client& c) -> std::string_view { return *c.row.spiffe_id; });
}

const Group* Root::FindGroup(GroupId id) const {
  return Pointer(groups_, id);
}

const Group* Root::FindGroup(std::string_view name) const {
  return FindByText<Group>(groups_by_name_, name,
                           [](const Group& g) -> std::string_view { return g.row.name; });
}

const Secret* Root::FindSecret(SecretId id) const {
  return Pointer(secrets_, id);
}

const Secret* Root::FindSecret(std::string_view name) const {
  return FindByText<Secret>(secrets_by_name_, name, NameOf);
}

const Secret* Root::FindDeletedSecret(SecretId id) const {
  return Pointer(deleted_, id);
}

std::vector<const Secret*> Root::FindDeletedSecrets(std::string_view name) const {
  const std::uint64_t hash = NameHash(name);
  std::vector<const Secret*> result;
  deleted_by_name_.ForEachFrom({hash, INT64_MIN}, [&](const NameKey& key, const SecretRef& ref) {
    if (key.hash != hash) return false;
    if (ref->name() == name) result.push_back(ref.get());
    return true;
  });
  std::sort(result.begin(), result.end(), [](const Secret* a, const Secret* b) {
    // Two deletions within one second: the series made later was deleted later.
    return std::pair(a->updated_at(), a->sequence()) > std::pair(b->updated_at(), b->sequence());
  });
  return result;
}

Root::Found Root::FindForClient(ClientId client_id, std::string_view name) const {
  const Client* client = FindClient(client_id);
  const Secret* secret = FindSecret(name);
  const auto client_view = client ? std::optional(client->view()) : std::nullopt;
  const auto secret_view = secret ? std::optional(secret->view()) : std::nullopt;
  const acl::Decision decision = acl::DecideRead(client_view, secret_view);
  return {decision.allowed() ? secret : nullptr, decision};
}

acl::Decision Root::DecideRead(ClientId client, std::string_view secret_name) const {
  acl::Decision decision = FindForClient(client, secret_name).decision;
  if (decision.reason == acl::Reason::kNoSuchSecret && !FindDeletedSecrets(secret_name).empty()) {
    decision.reason = acl::Reason::kSecretDeleted;
  }
  return decision;
}

bool Root::CanRead(ClientId client_id, SecretId secret_id) const {
  const Client* client = FindClient(client_id);
  const Secret* secret = FindSecret(secret_id);
  return client != nullptr && secret != nullptr &&
         acl::DecideRead(client->view(), secret->view()).allowed();
}

std::vector<const Secret*> Root::SecretsOf(ClientId client_id) const {
  std::vector<const Secret*> result;
  const Client* client = FindClient(client_id);
  if (client == nullptr || !client->row.enabled) return result;
  std::unordered_set<SecretId> seen;
  for (const std::uint32_t group_id : client->groups) {
    const Group* group = FindGroup(GroupId{group_id});
    if (group == nullptr) continue;
    group->secrets.ForEach([&](SecretId id) {
      const Secret* secret = FindSecret(id);
      if (secret != nullptr && seen.insert(id).second) result.push_back(secret);
      return true;
    });
  }
  std::sort(result.begin(), result.end(),
            [](const Secret* a, const Secret* b) { return a->name() < b->name(); });
  return result;
}

std::vector<Root::Holder> Root::HoldersOf(const Secret& secret) const {
  std::vector<Holder> result;
  if (!secret.live()) return result;
  std::unordered_set<ClientId> seen;
  // Groups ascend, so the first one that brings a client is the one DecideRead names.
  for (const std::uint32_t group_id : secret.groups()) {
    const Group* group = FindGroup(GroupId{group_id});
    if (group == nullptr) continue;
    group->clients.ForEach([&](ClientId id) {
      const Client* client = FindClient(id);
      if (client != nullptr && client->row.enabled && seen.insert(id).second) {
        result.push_back({client, GroupId{group_id}});
      }
      return true;
    });
  }
  std::sort(result.begin(), result.end(), [](const Holder& a, const Holder& b) {
    return a.client->row.name < b.client->row.name;
  });
  return result;
}

void Root::ForEachClient(const std::function<bool(const Client&)>& visit) const {
  clients_.ForEach([&](ClientId, const ClientRef& client) { return visit(*client); });
}
void Root::ForEachGroup(const std::function<bool(const Group&)>& visit) const {
  groups_.ForEach([&](GroupId, const GroupRef& group) { return visit(*group); });
}
void Root::ForEachSecret(const std::function<bool(const Secret&)>& visit) const {
  secrets_.ForEach([&](SecretId, const SecretRef& secret) { return visit(*secret); });
}
void Root::ForEachDeletedSecret(const std::function<bool(const Secret&)>& visit) const {
  deleted_.ForEach([&](SecretId, const SecretRef& secret) { return visit(*secret); });
}

}  // namespace latchkey::catalog
