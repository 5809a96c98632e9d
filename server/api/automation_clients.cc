#include "common/wire/requests.h"
#include "server/api/encode.h"
#include "server/api/endpoints.h"
#include "server/service/read_automation.h"
#include "server/service/write_clients.h"

namespace latchkey::api {
namespace {

using audit::EventType;
using service::Nothing;

service::Intent OnClient(EventType attempted, const std::string& name) {
  service::Intent intent;
  intent.attempted = attempted;
  intent.client_name = name.substr(0, limits::kMaxNameBytes);
  return intent;
}

service::Intent OnGroup(EventType attempted, const std::string& name) {
  service::Intent intent;
  intent.attempted = attempted;
  intent.group_name = name.substr(0, limits::kMaxNameBytes);
  return intent;
}

template <class T>
std::function<Reply(const T&)> CreatedAt(std::string location) {
  return [location = std::move(location)](const T&) {
    return EmptyReply(201).With("Location", location);
  };
}

Reply NoContent(const Nothing&) {
  return EmptyReply(204);
}

Reply StateReply(const service::ClientBits& bits) {
  std::string body;
  wire::JsonOut(&body)
      .BeginObject()
      .Bool("enabled", bits.enabled)
      .Bool("automation", bits.automation)
      .Bool("content", bits.content)
      .EndObject();
  return JsonReply(200, std::move(body));
}

const catalog::Client* FindClientNamed(Exchange& exchange) {
  const catalog::Client* client =
      exchange.root.FindClient(std::string_view(exchange.parameters[0]));
  if (client == nullptr) exchange.NotFound();
  return client;
}

const catalog::Group* FindGroupNamed(Exchange& exchange) {
  const catalog::Group* group = exchange.root.FindGroup(std::string_view(exchange.parameters[0]));
  if (group == nullptr) exchange.NotFound();
  return group;
}

// An array of whatever `encode` writes for each item.
template <class Item, class EncodeOne>
void AnswerList(Exchange& exchange, const std::vector<const Item*>& items,
                const EncodeOne& encode) {
  std::string body;
  wire::JsonOut out(&body);
  out.BeginArray();
  for (const Item* item : items) encode(&out, *item);
  out.EndArray();
  exchange.Answer(JsonReply(200, std::move(body)));
}

}  // namespace

void CreateClient(Exchange& exchange) {
  auto request = wire::CreateClientRequest::Parse(exchange.body);
  if (!request) return exchange.BadJson();
  service::NewClient client{std::move(request->name), std::move(request->description),
                            std::move(request->spiffe_id), std::move(request->groups)};
  std::string location = LocationOf(exchange.request.host, "/automation/v2/clients/", client.name);
  service::Intent intent = OnClient(EventType::kClientCreate, client.name);
  exchange.Write<ClientId>(
      std::move(intent),
      [client = std::move(client)](service::WriteContext& context) {
        return service::CreateClient(context, client);
      },
      CreatedAt<ClientId>(std::move(location)));
}

void ListClients(Exchange& exchange) {
  std::string body;
  wire::JsonOut out(&body);
  out.BeginArray();
  exchange.root.ForEachClient([&](const catalog::Client& client) {
    out.Text(client.row.name);
    return true;
  });
  out.EndArray();
  exchange.Answer(JsonReply(200, std::move(body)));
}

void GetClient(Exchange& exchange) {
  const catalog::Client* client = FindClientNamed(exchange);
  if (client == nullptr) return;
  std::string body;
  wire::JsonOut out(&body);
  EncodeClientDetailV2(&out, exchange.root, *client);
  exchange.Answer(JsonReply(200, std::move(body)));
}

// Keywhiz announced this and never had it (API spec 1.14).
void RenameClient(Exchange& exchange) {
  if (FindClientNamed(exchange) == nullptr) return;
  exchange.Answer(ErrorReply(400, "clients cannot be renamed"));
}

void DeleteClient(Exchange& exchange) {
  const std::string name = exchange.parameters[0];
  exchange.Write<Nothing>(
      OnClient(EventType::kClientDelete, name),
      [name](service::WriteContext& context) { return service::DeleteClient(context, name); },
      NoContent);
}

void ListClientGroups(Exchange& exchange) {
  const catalog::Client* client = FindClientNamed(exchange);
  if (client == nullptr) return;
  std::vector<std::string> names;
  for (const std::uint32_t id : client->groups) {
    if (const catalog::Group* group = exchange.root.FindGroup(GroupId{id}))
      names.push_back(group->row.name);
  }
  exchange.Answer(JsonReply(200, EncodeTexts(names)));
}

void ModifyClientGroups(Exchange& exchange) {
  auto parsed = wire::ModifyGroupsRequest::Parse(exchange.body);
  if (!parsed) return exchange.BadJson();
  const auto request = std::make_shared<const wire::ModifyGroupsRequest>(std::move(*parsed));
  const std::string name = exchange.parameters[0];
  exchange.Write<std::vector<std::string>>(
      OnClient(request->add.empty() ? EventType::kMembershipRemove : EventType::kMembershipAdd,
               name),
      [name, request](service::WriteContext& context) {
        return service::ModifyClientGroups(context, name, request->add, request->remove);
      },
      [](const std::vector<std::string>& names) { return JsonReply(200, EncodeTexts(names)); });
}

void ListClientSecrets(Exchange& exchange) {
  const catalog::Client* client = FindClientNamed(exchange);
  if (client == nullptr) return;
  AnswerList(exchange, exchange.root.SecretsOf(client->row.id),
             [](wire::JsonOut* out, const catalog::Secret& secret) { out->Text(secret.name()); });
}

void GetClientState(Exchange& exchange) {
  const catalog::Client* client = FindClientNamed(exchange);
  if (client == nullptr) return;
  const store::ClientRow& row = client->row;
  exchange.Answer(StateReply({row.enabled, row.automation, row.content}));
}

void SetClientState(Exchange& exchange) {
  const auto request = wire::ClientStateRequest::Parse(exchange.body);
  if (!request) return exchange.BadJson();
  const service::ClientBitChanges changes{request->enabled, request->automation, request->content};
  const std::string name = exchange.parameters[0];
  exchange.Write<service::ClientBits>(
      OnClient(EventType::kClientSet, name),
      [name, changes](service::WriteContext& context) {
        return service::SetClientState(context, name, changes);
      },
      StateReply);
}

void CreateGroup(Exchange& exchange) {
  auto request = wire::CreateGroupRequest::Parse(exchange.body);
  if (!request) return exchange.BadJson();
  service::NewGroup group;
  group.name = std::move(request->name);
  group.description = std::move(request->description);
  group.metadata_json = wire::EncodeMetadata(request->metadata);
  group.metadata = std::move(request->metadata);
  std::string location = LocationOf(exchange.request.host, "/automation/v2/groups/", group.name);
  service::Intent intent = OnGroup(EventType::kGroupCreate, group.name);
  exchange.Write<GroupId>(
      std::move(intent),
      [group = std::move(group)](service::WriteContext& context) {
        return service::CreateGroup(context, group);
      },
      CreatedAt<GroupId>(std::move(location)));
}

void ListGroups(Exchange& exchange) {
  std::string body;
  wire::JsonOut out(&body);
  out.BeginArray();
  exchange.root.ForEachGroup([&](const catalog::Group& group) {
    out.Text(group.row.name);
    return true;
  });
  out.EndArray();
  exchange.Answer(JsonReply(200, std::move(body)));
}

void GetGroup(Exchange& exchange) {
  const catalog::Group* group = FindGroupNamed(exchange);
  if (group == nullptr) return;
  std::string body;
  wire::JsonOut out(&body);
  EncodeGroupDetailV2(&out, exchange.root, *group);
  exchange.Answer(JsonReply(200, std::move(body)));
}

void DeleteGroup(Exchange& exchange) {
  const std::string name = exchange.parameters[0];
  exchange.Write<Nothing>(
      OnGroup(EventType::kGroupDelete, name),
      [name](service::WriteContext& context) { return service::DeleteGroup(context, name); },
      NoContent);
}

void ListGroupSecrets(Exchange& exchange) {
  const catalog::Group* group = FindGroupNamed(exchange);
  if (group == nullptr) return;
  AnswerList(exchange, service::SecretsGrantedTo(exchange.root, *group),
             [&](wire::JsonOut* out, const catalog::Secret& secret) {
               EncodeSanitizedSecret(out, exchange.root, secret);
             });
}

void ListGroupSecretsAndGroups(Exchange& exchange) {
  const catalog::Group* group = FindGroupNamed(exchange);
  if (group == nullptr) return;
  AnswerList(exchange, service::SecretsGrantedTo(exchange.root, *group),
             [&](wire::JsonOut* out, const catalog::Secret& secret) {
               EncodeSecretWithGroups(out, exchange.root, secret);
             });
}

void ListGroupOwnedSecrets(Exchange& exchange) {
  const catalog::Group* group = FindGroupNamed(exchange);
  if (group == nullptr) return;
  AnswerList(exchange, service::SecretsOwnedBy(exchange.root, group->row.id),
             [&](wire::JsonOut* out, const catalog::Secret& secret) {
               EncodeSecretWithGroups(out, exchange.root, secret);
             });
}

void ListGroupClients(Exchange& exchange) {
  const catalog::Group* group = FindGroupNamed(exchange);
  if (group == nullptr) return;
  AnswerList(exchange, service::MembersOf(exchange.root, *group),
             [&](wire::JsonOut* out, const catalog::Client& client) {
               EncodeClient(out, exchange.root, client);
             });
}

}  // namespace latchkey::api
