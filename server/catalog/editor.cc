#include <algorithm>
#include <utility>

#include "common/base/check.h"
#include "common/model/limits.h"
#include "server/catalog/catalog.h"
#include "server/catalog/name_hash.h"

namespace latchkey::catalog {
namespace {

std::uint32_t Narrow(GroupId id) {
  INVARIANT(id.value > 0 && id.value <= limits::kMaxGroupId);
  return static_cast<std::uint32_t>(id.value);
}

// A copy of an ascending list with `group` added or taken out.
std::vector<std::uint32_t> With(acl::GroupList groups, std::uint32_t group) {
  std::vector<std::uint32_t> out(groups.begin(), groups.end());
  const auto at = std::lower_bound(out.begin(), out.end(), group);
  INVARIANT(at == out.end() || *at != group);
  out.insert(at, group);
  return out;
}
std::vector<std::uint32_t> Without(acl::GroupList groups, std::uint32_t group) {
  std::vector<std::uint32_t> out(groups.begin(), groups.end());
  const auto at = std::lower_bound(out.begin(), out.end(), group);
  INVARIANT(at != out.end() && *at == group);
  out.erase(at);
  return out;
}

}  // namespace

void Editor::ReplaceClient(const Root::ClientRef& client) {
  const store::ClientRow& row = client->row;
  if (const Client* old = working_.FindClient(row.id); old != nullptr) {
    working_.clients_by_name_.Erase({NameHash(old->row.name), row.id.value});
    if (old->row.spiffe_id) {
      working_.clients_by_spiffe_.Erase({NameHash(*old->row.spiffe_id), row.id.value});
    }
  }
  INVARIANT(working_.FindClient(row.name) == nullptr);
  working_.clients_by_name_.Set({NameHash(row.name), row.id.value}, client);
  if (row.spiffe_id) {
    INVARIANT(working_.FindClientBySpiffe(*row.spiffe_id) == nullptr);
    working_.clients_by_spiffe_.Set({NameHash(*row.spiffe_id), row.id.value}, client);
  }
  working_.clients_.Set(row.id, client);
}

void Editor::ReplaceGroup(const Root::GroupRef& group) {
  const store::GroupRow& row = group->row;
  if (const Group* old = working_.FindGroup(row.id); old != nullptr) {
    working_.groups_by_name_.Erase({NameHash(old->row.name), row.id.value});
  }
  INVARIANT(working_.FindGroup(row.name) == nullptr);
  working_.groups_by_name_.Set({NameHash(row.name), row.id.value}, group);
  working_.groups_.Set(row.id, group);
}

void Editor::EraseSecret(const Secret& secret) {
  const SecretId id = secret.id();
  const Root::NameKey key{NameHash(secret.name()), id.value};
  // By key from here on: erasing may free the secret.
  if (secret.live()) {
    working_.secrets_by_name_.Erase(key);
    working_.secrets_.Erase(id);
  } else {
    working_.deleted_by_name_.Erase(key);
    working_.deleted_.Erase(id);
  }
}

void Editor::ReplaceSecret(const SecretRef& secret) {
  const Secret* old = working_.FindSecret(secret->id());
  if (old == nullptr) old = working_.FindDeletedSecret(secret->id());
  const Root::NameKey key{NameHash(secret->name()), secret->id().value};
  // The usual change, a rotation, replaces in place.
  const bool same_place =
      old != nullptr && old->live() == secret->live() && old->name() == secret->name();
  if (old != nullptr && !same_place) EraseSecret(*old);
  if (secret->live()) {
    INVARIANT(same_place || working_.FindSecret(secret->name()) == nullptr);
    working_.secrets_.Set(secret->id(), secret);
    working_.secrets_by_name_.Set(key, secret);
  } else {
    working_.deleted_.Set(secret->id(), secret);
    working_.deleted_by_name_.Set(key, secret);
  }
}

void Editor::PutClient(const store::ClientRow& row) {
  auto client = std::make_shared<Client>();
  client->row = row;
  client->row.mac = {};
  if (const Client* old = working_.FindClient(row.id); old != nullptr) client->groups = old->groups;
  ReplaceClient(client);
}

void Editor::RemoveClient(ClientId id) {
  const Root::ClientRef* found = working_.clients_.Find(id);
  INVARIANT(found != nullptr);
  const Root::ClientRef client = *found;
  for (const std::uint32_t group_id : client->groups) {
    auto group = std::make_shared<Group>(*working_.FindGroup(GroupId{group_id}));
    group->clients.Erase(id);
    ReplaceGroup(group);
  }
  working_.clients_by_name_.Erase({NameHash(client->row.name), id.value});
  if (client->row.spiffe_id) {
    working_.clients_by_spiffe_.Erase({NameHash(*client->row.spiffe_id), id.value});
  }
  working_.clients_.Erase(id);
}

void Editor::PutGroup(const store::GroupRow& row) {
  (void)Narrow(row.id);
  const Group* old = working_.FindGroup(row.id);
  auto group = old != nullptr ? std::make_shared<Group>(*old) : std::make_shared<Group>();
  group->row = row;
  group->row.mac = {};
  ReplaceGroup(group);
}

void Editor::RemoveGroup(GroupId id) {
  const Root::GroupRef* found = working_.groups_.Find(id);
  INVARIANT(found != nullptr);
  const Root::GroupRef group = *found;
  group->clients.ForEach([this, id](ClientId member) {
    RemoveMembership(member, id);
    return true;
  });
  group->secrets.ForEach([this, id](SecretId secret) {
    RemoveGrant(id, secret);
    return true;
  });
  working_.groups_by_name_.Erase({NameHash(group->row.name), id.value});
  working_.groups_.Erase(id);
}

void Editor::AddMembership(ClientId client_id, GroupId group_id) {
  const Client* old_client = working_.FindClient(client_id);
  const Group* old_group = working_.FindGroup(group_id);
  INVARIANT(old_client != nullptr && old_group != nullptr);
  auto client = std::make_shared<Client>(*old_client);
  client->groups = With(old_client->groups, Narrow(group_id));
  auto group = std::make_shared<Group>(*old_group);
  INVARIANT(group->clients.Add(client_id));
  ReplaceClient(client);
  ReplaceGroup(group);
}

void Editor::RemoveMembership(ClientId client_id, GroupId group_id) {
  const Client* old_client = working_.FindClient(client_id);
  const Group* old_group = working_.FindGroup(group_id);
  INVARIANT(old_client != nullptr && old_group != nullptr);
  auto client = std::make_shared<Client>(*old_client);
  client->groups = Without(old_client->groups, Narrow(group_id));
  auto group = std::make_shared<Group>(*old_group);
  INVARIANT(group->clients.Erase(client_id));
  ReplaceClient(client);
  ReplaceGroup(group);
}

void Editor::AddGrant(GroupId group_id, SecretId secret_id) {
  const Secret* secret = working_.FindSecret(secret_id);
  if (secret == nullptr) secret = working_.FindDeletedSecret(secret_id);
  const Group* old_group = working_.FindGroup(group_id);
  INVARIANT(secret != nullptr && old_group != nullptr);
  auto group = std::make_shared<Group>(*old_group);
  INVARIANT(group->secrets.Add(secret_id));
  ReplaceSecret(
      Secret::Make(secret->Row(), secret->Current(), With(secret->groups(), Narrow(group_id))));
  ReplaceGroup(group);
}

void Editor::RemoveGrant(GroupId group_id, SecretId secret_id) {
  const Secret* secret = working_.FindSecret(secret_id);
  if (secret == nullptr) secret = working_.FindDeletedSecret(secret_id);
  const Group* old_group = working_.FindGroup(group_id);
  INVARIANT(secret != nullptr && old_group != nullptr);
  auto group = std::make_shared<Group>(*old_group);
  INVARIANT(group->secrets.Erase(secret_id));
  ReplaceSecret(
      Secret::Make(secret->Row(), secret->Current(), Without(secret->groups(), Narrow(group_id))));
  ReplaceGroup(group);
}

void Editor::PutSecret(const store::SecretRow& row, const store::VersionInfo& current) {
  const Secret* old = working_.FindSecret(row.id);
  if (old == nullptr) old = working_.FindDeletedSecret(row.id);
  ReplaceSecret(Secret::Make(row, current, old != nullptr ? old->groups() : acl::GroupList()));
}

void Editor::RemoveSecret(SecretId id) {
  const SecretRef* found = working_.secrets_.Find(id);
  if (found == nullptr) found = working_.deleted_.Find(id);
  INVARIANT(found != nullptr);
  const SecretRef secret = *found;
  for (const std::uint32_t group_id : secret->groups()) {
    auto group = std::make_shared<Group>(*working_.FindGroup(GroupId{group_id}));
    group->secrets.Erase(id);
    ReplaceGroup(group);
  }
  EraseSecret(*secret);
}

}  // namespace latchkey::catalog
