#include "server/service/write_clients.h"

#include "server/service/rules.h"

namespace latchkey::service {
namespace {

std::uint64_t BitsOf(const store::ClientRow& row) {
  return audit::kBitsKnown | (row.enabled ? audit::kBitEnabled : 0) |
         (row.automation ? audit::kBitAutomation : 0) | (row.content ? audit::kBitContent : 0);
}

Status AuditClient(WriteContext& context, audit::EventType type, const store::ClientRow& row) {
  return context.Audit(type, [&](audit::Event& event) {
    event.client_id = row.id.value;
    event.client_name = row.name;
    if (type != audit::EventType::kClientDelete) event.client_bits = BitsOf(row);
  });
}

Status AnnounceClient(WriteContext& context, ClientId client) {
  store::ChangeRow change;
  change.kind = store::ChangeKind::kClient;
  change.client = client;
  return context.Change(change);
}

Status AnnounceMembership(WriteContext& context, ClientId client, GroupId group) {
  store::ChangeRow change;
  change.kind = store::ChangeKind::kMembership;
  change.client = client;
  change.group = group;
  return context.Change(change);
}

Status AuditMembership(WriteContext& context, audit::EventType type, const store::ClientRow& client,
                       const catalog::Group& group) {
  return context.Audit(type, [&](audit::Event& event) {
    event.client_id = client.id.value;
    event.client_name = client.name;
    event.group_id = group.row.id.value;
    event.group_name = group.row.name;
  });
}

Status Enrol(WriteContext& context, const store::ClientRow& client, GroupId group) {
  RETURN_IF_ERROR(context.AddMembership(client.id, group));
  return AuditMembership(context, audit::EventType::kMembershipAdd, client,
                         *context.root().FindGroup(group));
}

bool IsMember(const WriteContext& context, ClientId client, const catalog::Group& group) {
  return context.root().FindClient(client) != nullptr && group.clients.Contains(client);
}

// RFC 3986 as far as it matters: a scheme, a colon, and only characters that a URI may hold.
bool IsUri(std::string_view text) {
  const auto colon = text.find(':');
  if (colon == std::string_view::npos || colon == 0 || colon + 1 == text.size()) return false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    const bool digit = c >= '0' && c <= '9';
    if (i == 0 && !letter) return false;
    if (i < colon && !letter && !digit && c != '+' && c != '-' && c != '.') return false;
    if (!letter && !digit &&
        std::string_view("-._~:/?#[]@!$&'()*+,;=%").find(c) == std::string_view::npos)
      return false;
  }
  return true;
}

Status CheckSpiffeId(const std::string& spiffe_id) {
  if (spiffe_id.size() > limits::kMaxSpiffeIdBytes)
    return Error{Errc::kInvalidArgument, "SPIFFE id is longer than " +
                                             std::to_string(limits::kMaxSpiffeIdBytes) + " bytes"};
  if (!IsUri(spiffe_id))
    return Error{Errc::kInvalidArgument, "Invalid SPIFFE ID provided (not a URI)"};
  return {};
}

store::ClientRow FreshClient(const WriteContext& context, std::string name) {
  store::ClientRow row;
  row.id = ClientId{crypto::RandomId()};
  row.name = std::move(name);
  row.created_at = row.updated_at = context.now;
  row.created_by = row.updated_by = context.actor.name;
  return row;
}

Error NotFound() {
  return Error{Errc::kNotFound, ""};
}

Status CheckStateChange(const WriteContext& context, const store::ClientRow& row,
                        const ClientBitChanges& changes) {
  if (context.actor.kind != audit::ActorKind::kAutomation) return {};
  if (row.id == context.actor.client)
    return Error{Errc::kPermissionDenied, "a client may not change its own state"};
  if (changes.content.value_or(false) && !row.content &&
      !context.root().FindClient(context.actor.client)->row.content)
    return Error{Errc::kPermissionDenied,
                 "the content bit can be given only by a client that has it"};
  return {};
}

bool MayAutomate(const store::ClientRow& row) {
  return row.enabled && row.automation;
}

// Without one nobody can create, grant or enable anything; `become` is what `row` turns into, null when it is deleted.
Status CheckAutomationLeft(const WriteContext& context, const store::ClientRow& row,
                           const store::ClientRow* become) {
  if (!MayAutomate(row) || (become != nullptr && MayAutomate(*become))) return {};
  bool left = false;
  context.root().ForEachClient([&](const catalog::Client& client) {
    left = client.row.id != row.id && MayAutomate(client.row);
    return !left;
  });
  if (left) return {};
  return Error{Errc::kConflict,
               "client " + row.name +
                   " is the last enabled one with the automation bit: make another one first, "
                   "with latchkeyd client create NAME --automation at the server"};
}

// Random, not counted: memberships and grants bind nothing of their group but its id, so an id that came back would make
// the rows of a group that is long gone genuine again. No counter in the database can promise that it does not.
GroupId FreshGroupId(const catalog::Root& root) {
  GroupId id;
  while (id.value == 0 || root.FindGroup(id) != nullptr)
    id = GroupId{crypto::RandomId() & limits::kMaxGroupId};
  return id;
}

// Everything that names the group as its owner. Gathered first: the walk must not see the changes.
struct Owned {
  std::vector<store::ClientRow> clients;
  std::vector<store::GroupRow> groups;
  std::vector<std::pair<store::SecretRow, store::VersionInfo>> secrets;
};
Owned OwnedBy(const catalog::Root& root, GroupId owner) {
  Owned owned;
  root.ForEachClient([&](const catalog::Client& client) {
    if (client.row.owner == owner) owned.clients.push_back(client.row);
    return true;
  });
  root.ForEachGroup([&](const catalog::Group& group) {
    if (group.row.owner == owner) owned.groups.push_back(group.row);
    return true;
  });
  const auto add_secret = [&](const catalog::Secret& secret) {
    if (secret.owner() == owner) owned.secrets.emplace_back(secret.Row(), secret.Current());
    return true;
  };
  root.ForEachSecret(add_secret);
  root.ForEachDeletedSecret(add_secret);
  return owned;
}

Status ClearOwner(WriteContext& context, GroupId owner) {
  Owned owned = OwnedBy(context.root(), owner);
  for (store::ClientRow& row : owned.clients) {
    row.owner.reset();
    RETURN_IF_ERROR(context.UpdateClient(row));
  }
  for (store::GroupRow& row : owned.groups) {
    row.owner.reset();
    RETURN_IF_ERROR(context.UpdateGroup(row));
  }
  for (auto& [row, current] : owned.secrets) {
    row.owner.reset();
    RETURN_IF_ERROR(context.UpdateSecret(row, current));
  }
  return {};
}

}  // namespace

Result<ClientId> CreateClient(WriteContext& context, const NewClient& client) {
  RETURN_IF_ERROR(CheckStillAutomation(context));
  ASSIGN_OR_RETURN(const ClientName name, ClientName::Parse(client.name));
  RETURN_IF_ERROR(CheckDescription(client.description));
  store::ClientRow row = FreshClient(context, name.text());
  row.description = client.description;
  if (!client.spiffe_id.empty()) {
    RETURN_IF_ERROR(CheckSpiffeId(client.spiffe_id));
    if (context.root().FindClientBySpiffe(client.spiffe_id) != nullptr)
      return Error{Errc::kConflict, "SPIFFE id is already used by another client"};
    row.spiffe_id = client.spiffe_id;
  }
  if (context.root().FindClient(std::string_view(name.text())) != nullptr)
    return Error{Errc::kConflict, "Client name already exists."};
  RETURN_IF_ERROR(context.InsertClient(row));
  RETURN_IF_ERROR(AuditClient(context, audit::EventType::kClientCreate, row));
  for (const std::string& group_name : client.groups) {
    const catalog::Group* group = context.root().FindGroup(std::string_view(group_name));
    if (group == nullptr || IsMember(context, row.id, *group)) continue;
    RETURN_IF_ERROR(Enrol(context, row, group->row.id));
  }
  RETURN_IF_ERROR(AnnounceClient(context, row.id));
  return row.id;
}

Result<ClientId> AutoCreateClient(WriteContext& context, const std::string& name,
                                  const std::optional<std::string>& spiffe_id) {
  const catalog::Client* present = context.root().FindClient(std::string_view(name));
  if (present != nullptr) return present->row.id;
  if (spiffe_id && context.root().FindClientBySpiffe(*spiffe_id) != nullptr)
    return Error{Errc::kConflict, "SPIFFE id is already used by another client"};
  store::ClientRow row = FreshClient(context, name);
  row.created_by = row.updated_by = "automatic";
  row.description = "Client created automatically from valid certificate authentication";
  row.spiffe_id = spiffe_id;
  RETURN_IF_ERROR(context.InsertClient(row));
  RETURN_IF_ERROR(AuditClient(context, audit::EventType::kClientAutoCreate, row));
  RETURN_IF_ERROR(AnnounceClient(context, row.id));
  return row.id;
}

Result<Nothing> DeleteClient(WriteContext& context, const std::string& name) {
  RETURN_IF_ERROR(CheckStillAutomation(context));
  const catalog::Client* found = context.root().FindClient(std::string_view(name));
  if (found == nullptr) return NotFound();
  const store::ClientRow row = found->row;
  RETURN_IF_ERROR(CheckAutomationLeft(context, row, nullptr));
  RETURN_IF_ERROR(context.DeleteClient(row.id));
  RETURN_IF_ERROR(AuditClient(context, audit::EventType::kClientDelete, row));
  RETURN_IF_ERROR(AnnounceClient(context, row.id));
  return Nothing{};
}

Result<std::vector<std::string>> ModifyClientGroups(WriteContext& context, const std::string& name,
                                                    const std::vector<std::string>& add,
                                                    const std::vector<std::string>& remove) {
  RETURN_IF_ERROR(CheckStillAutomation(context));
  const catalog::Client* found = context.root().FindClient(std::string_view(name));
  if (found == nullptr) return NotFound();
  const store::ClientRow row = found->row;
  for (const std::string& group_name : add) {
    const catalog::Group* group = context.root().FindGroup(std::string_view(group_name));
    if (group == nullptr || IsMember(context, row.id, *group)) continue;
    const GroupId id = group->row.id;
    RETURN_IF_ERROR(Enrol(context, row, id));
    RETURN_IF_ERROR(AnnounceMembership(context, row.id, id));
  }
  for (const std::string& group_name : remove) {
    const catalog::Group* group = context.root().FindGroup(std::string_view(group_name));
    if (group == nullptr || !IsMember(context, row.id, *group)) continue;
    const GroupId id = group->row.id;
    RETURN_IF_ERROR(context.RemoveMembership(row.id, id));
    RETURN_IF_ERROR(AuditMembership(context, audit::EventType::kMembershipRemove, row,
                                    *context.root().FindGroup(id)));
    RETURN_IF_ERROR(AnnounceMembership(context, row.id, id));
  }
  std::vector<std::string> names;
  for (const std::uint32_t group : context.root().FindClient(row.id)->groups)
    names.emplace_back(GroupNameOf(context.root(), GroupId{group}));
  return names;
}

Result<ClientBits> SetClientState(WriteContext& context, const std::string& name,
                                  const ClientBitChanges& changes) {
  RETURN_IF_ERROR(CheckStillAutomation(context));
  const catalog::Client* found = context.root().FindClient(std::string_view(name));
  if (found == nullptr) return NotFound();
  store::ClientRow row = found->row;
  RETURN_IF_ERROR(CheckStateChange(context, row, changes));
  row.enabled = changes.enabled.value_or(row.enabled);
  row.automation = changes.automation.value_or(row.automation);
  row.content = changes.content.value_or(row.content);
  RETURN_IF_ERROR(CheckAutomationLeft(context, found->row, &row));
  row.updated_at = context.now;
  row.updated_by = context.actor.name;
  RETURN_IF_ERROR(context.UpdateClient(row));
  RETURN_IF_ERROR(AuditClient(context, audit::EventType::kClientSet, row));
  RETURN_IF_ERROR(AnnounceClient(context, row.id));
  return ClientBits{row.enabled, row.automation, row.content};
}

Result<GroupId> CreateGroup(WriteContext& context, const NewGroup& group) {
  RETURN_IF_ERROR(CheckStillAutomation(context));
  ASSIGN_OR_RETURN(const GroupName name, GroupName::Parse(group.name));
  RETURN_IF_ERROR(CheckDescription(group.description));
  if (group.metadata_json.size() > limits::kMaxMetadataBytes ||
      group.metadata.size() > limits::kMaxMetadataEntries)
    return Error{Errc::kInvalidArgument,
                 "metadata is over its limit of " + std::to_string(limits::kMaxMetadataEntries) +
                     " entries or " + std::to_string(limits::kMaxMetadataBytes) + " bytes"};
  if (context.root().FindGroup(std::string_view(name.text())) != nullptr)
    return Error{Errc::kConflict, "Group " + name.text() + " already exists"};
  store::GroupRow row;
  row.id = FreshGroupId(context.root());
  row.name = name.text();
  row.description = group.description;
  row.metadata = group.metadata_json;
  row.created_at = row.updated_at = context.now;
  row.created_by = row.updated_by = context.actor.name;
  RETURN_IF_ERROR(context.InsertGroup(row));
  RETURN_IF_ERROR(context.Audit(audit::EventType::kGroupCreate, [&](audit::Event& event) {
    event.group_id = row.id.value;
    event.group_name = row.name;
  }));
  return row.id;
}

Result<Nothing> DeleteGroup(WriteContext& context, const std::string& name) {
  RETURN_IF_ERROR(CheckStillAutomation(context));
  const catalog::Group* found = context.root().FindGroup(std::string_view(name));
  if (found == nullptr) return NotFound();
  const GroupId id = found->row.id;
  std::vector<ClientId> members;
  found->clients.ForEach([&](ClientId client) {
    members.push_back(client);
    return true;
  });
  RETURN_IF_ERROR(ClearOwner(context, id));
  RETURN_IF_ERROR(context.DeleteGroup(id));
  RETURN_IF_ERROR(context.Audit(audit::EventType::kGroupDelete, [&](audit::Event& event) {
    event.group_id = id.value;
    event.group_name = name;
    event.count = members.size();
  }));
  // Its members take a full listing: one entry each, however many secrets it was granted.
  for (const ClientId client : members) RETURN_IF_ERROR(AnnounceMembership(context, client, id));
  return Nothing{};
}

}  // namespace latchkey::service
