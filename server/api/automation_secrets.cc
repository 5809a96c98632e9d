#include "common/wire/requests.h"
#include "server/api/encode.h"
#include "server/api/endpoints.h"
#include "server/service/read_automation.h"
#include "server/service/write_secrets.h"

namespace latchkey::api {
namespace {

using audit::EventType;
using service::Written;

constexpr std::string_view kSecretsPath = "/automation/v2/secrets/";

service::Intent IntentOn(EventType attempted, std::string secret_name) {
  service::Intent intent;
  intent.attempted = attempted;
  intent.secret_name = secret_name.substr(0, limits::kMaxNameBytes);
  return intent;
}

// 201 with the version that is current now and, except for setversion, where the secret is found.
std::function<Reply(const Written&)> CreatedAt(std::string location) {
  return [location = std::move(location)](const Written& written) {
    Reply reply = EmptyReply(201);
    if (!location.empty()) reply.With("Location", location);
    return reply.With("X-Latchkey-Version", std::to_string(written.version.value));
  };
}

std::string LocationOfSecret(const Exchange& exchange, std::string_view name) {
  return LocationOf(exchange.request.host, kSecretsPath, name);
}

std::shared_ptr<service::NewSecret> NewSecretOf(wire::CreateSecretRequest request) {
  auto secret = std::make_shared<service::NewSecret>();
  secret->name = std::move(request.name);
  secret->content = std::move(request.content);
  secret->description = std::move(request.description);
  secret->metadata_json = wire::EncodeMetadata(request.metadata);
  secret->metadata = std::move(request.metadata);
  secret->expiry = request.expiry;
  secret->type = std::move(request.type);
  secret->owner = std::move(request.owner);
  secret->groups = std::move(request.groups);
  return secret;
}

// The slice that `idx` and `num` ask for; both must be there, else everything is listed.
struct Slice {
  std::size_t from = 0;
  std::size_t count = 0;
  bool newest_first = true;
};
Result<std::optional<Slice>> SliceOf(const Query& query) {
  std::int64_t from = 0;
  std::int64_t count = 0;
  const Query::Number has_from = query.FindInt("idx", &from);
  const Query::Number has_count = query.FindInt("num", &count);
  if (has_from == Query::Number::kMalformed || has_count == Query::Number::kMalformed)
    return Error{Errc::kNotFound, ""};
  if (has_from == Query::Number::kAbsent || has_count == Query::Number::kAbsent)
    return std::optional<Slice>{};
  if (from < 0 || count < 0)
    return Error{Errc::kInvalidArgument,
                 "Index and num must both be positive when retrieving batched secrets!"};
  if (count > static_cast<std::int64_t>(limits::kMaxPageEntries))
    return Error{Errc::kInvalidArgument,
                 "num may be at most " + std::to_string(limits::kMaxPageEntries)};
  const auto order = query.Find("newestFirst");
  const bool newest_first = !order || *order == "true" || *order == "True" || *order == "TRUE";
  return std::optional(
      Slice{static_cast<std::size_t>(from), static_cast<std::size_t>(count), newest_first});
}

template <class EncodeOne>
void ListInto(Exchange& exchange, const std::vector<const catalog::Secret*>& secrets,
              const EncodeOne& encode) {
  std::string body;
  wire::JsonOut out(&body);
  out.BeginArray();
  for (const catalog::Secret* secret : secrets) encode(&out, *secret);
  out.EndArray();
  exchange.Answer(JsonReply(200, std::move(body)));
}

template <class EncodeOne>
void ListSlice(Exchange& exchange, const EncodeOne& encode) {
  const auto slice = SliceOf(exchange.query());
  if (!slice) return exchange.Fail(slice.error());
  const auto& wanted = *slice;
  ListInto(exchange,
           wanted ? service::SecretsByCreation(exchange.root, wanted->from, wanted->count,
                                               wanted->newest_first)
                  : service::SecretsByExpiry(exchange.root),
           encode);
}

const catalog::Secret* FindNamed(Exchange& exchange) {
  const catalog::Secret* secret =
      exchange.root.FindSecret(std::string_view(exchange.parameters[0]));
  if (secret == nullptr) exchange.NotFound();
  return secret;
}

Reply TextsReply(const std::vector<std::string>& texts) {
  return JsonReply(200, EncodeTexts(texts));
}

}  // namespace

void ListSecretNames(Exchange& exchange) {
  ListSlice(exchange,
            [](wire::JsonOut* out, const catalog::Secret& secret) { out->Text(secret.name()); });
}

void ListSanitizedSecrets(Exchange& exchange) {
  ListSlice(exchange, [&](wire::JsonOut* out, const catalog::Secret& secret) {
    EncodeSanitizedSecret(out, exchange.root, secret);
  });
}

void CreateSecret(Exchange& exchange) {
  auto request = wire::CreateSecretRequest::Parse(exchange.body);
  if (!request) return exchange.BadJson();
  const auto secret = NewSecretOf(std::move(*request));
  exchange.Write<Written>(
      IntentOn(EventType::kSecretCreate, secret->name),
      [secret](service::WriteContext& context) { return service::CreateSecret(context, *secret); },
      CreatedAt(LocationOfSecret(exchange, secret->name)));
}

void CreateOrUpdateSecret(Exchange& exchange) {
  auto request = wire::CreateSecretRequest::ParseUpdate(exchange.body);
  if (!request) return exchange.BadJson();
  const auto secret = NewSecretOf(std::move(*request));
  secret->name = exchange.parameters[0];
  exchange.Write<Written>(
      IntentOn(EventType::kSecretUpdate, secret->name),
      [secret](service::WriteContext& context) {
        return service::CreateOrUpdateSecret(context, *secret);
      },
      CreatedAt(LocationOfSecret(exchange, secret->name)));
}

void PartialUpdateSecret(Exchange& exchange) {
  auto request = wire::PartialUpdateRequest::Parse(exchange.body);
  if (!request) return exchange.BadJson();
  auto changes = std::make_shared<service::SecretChanges>();
  changes->content = std::move(request->content);
  changes->description = std::move(request->description);
  if (request->metadata) changes->metadata_json = wire::EncodeMetadata(*request->metadata);
  changes->metadata = std::move(request->metadata);
  changes->expiry = request->expiry;
  changes->type = std::move(request->type);
  changes->owner = std::move(request->owner);
  const std::string name = exchange.parameters[0];
  exchange.Write<Written>(
      IntentOn(changes->content ? EventType::kSecretRotate : EventType::kSecretUpdate, name),
      [name, changes](service::WriteContext& context) {
        return service::UpdateSecretPartly(context, name, *changes);
      },
      CreatedAt(LocationOfSecret(exchange, name)));
}

void RenameSecret(Exchange& exchange) {
  const std::string name = exchange.parameters[0];
  const std::string new_name = exchange.parameters[1];
  exchange.Write<Written>(
      IntentOn(EventType::kSecretRename, name),
      [name, new_name](service::WriteContext& context) {
        return service::RenameSecret(context, name, new_name);
      },
      CreatedAt(LocationOfSecret(exchange, new_name)));
}

void SetSecretVersion(Exchange& exchange) {
  const auto request = wire::SetVersionRequest::Parse(exchange.body);
  if (!request) return exchange.BadJson();
  const std::string name = exchange.parameters[0];
  // Keywhiz acted on the body's name whatever the path said; the two must agree here, and another name is not found.
  if (request->name != name) return exchange.NotFound();
  const VersionId version{request->version};
  exchange.Write<Written>(
      IntentOn(EventType::kSecretRollback, name),
      [name, version](service::WriteContext& context) {
        return service::SetSecretVersion(context, name, version);
      },
      CreatedAt(""));
}

void DeleteSecret(Exchange& exchange) {
  const Query query = exchange.query();
  const std::string mode(query.Find("deletionMode").value_or("soft"));
  const bool soft = mode == "soft" || mode == "SOFT";
  const bool hard = mode == "hard" || mode == "HARD";
  if (!soft && !hard) {
    std::string body;
    wire::JsonOut(&body)
        .BeginObject()
        .Key("errors")
        .BeginArray()
        .Text("query param deletionMode " + mode +
              " is not a valid value for enum SecretDeletionMode")
        .EndArray()
        .EndObject();
    return exchange.Answer(JsonReply(400, std::move(body)));
  }
  const std::string name = exchange.parameters[0];
  const auto deletion = hard ? service::DeletionMode::kHard : service::DeletionMode::kSoft;
  exchange.Write<service::Nothing>(
      IntentOn(EventType::kSecretDelete, name),
      [name, deletion](service::WriteContext& context) -> Result<service::Nothing> {
        auto deleted = service::DeleteSecret(context, name, deletion);
        if (!deleted && deleted.error().code == Errc::kNotFound)
          return Error{Errc::kNotFound, "Secret series not found."};
        return deleted;
      },
      [](const service::Nothing&) { return EmptyReply(204); });
}

void UndeleteSecret(Exchange& exchange) {
  const std::string name = exchange.parameters[0];
  exchange.Write<Written>(
      IntentOn(EventType::kSecretUndelete, name),
      [name](service::WriteContext& context) { return service::UndeleteSecret(context, name); },
      CreatedAt(LocationOfSecret(exchange, name)));
}

void HeadSecret(Exchange& exchange) {
  if (FindNamed(exchange) == nullptr) return;
  exchange.Answer(JsonReply(200, ""));
}

void GetSecretDetail(Exchange& exchange) {
  const catalog::Secret* secret = FindNamed(exchange);
  if (secret == nullptr) return;
  std::string body;
  wire::JsonOut out(&body);
  EncodeSecretDetailV2(&out, exchange.root, *secret);
  exchange.Answer(JsonReply(200, std::move(body)));
}

void GetSanitizedSecret(Exchange& exchange) {
  const catalog::Secret* secret = FindNamed(exchange);
  if (secret == nullptr) return;
  std::string body;
  wire::JsonOut out(&body);
  EncodeSanitizedSecret(&out, exchange.root, *secret);
  exchange.Answer(JsonReply(200, std::move(body)));
}

void ListDeletedSecrets(Exchange& exchange) {
  ListInto(exchange, exchange.root.FindDeletedSecrets(exchange.parameters[0]),
           [&](wire::JsonOut* out, const catalog::Secret& secret) {
             EncodeSecretSeries(out, exchange.root, secret);
           });
}

void ListSecretGroups(Exchange& exchange) {
  const catalog::Secret* secret = FindNamed(exchange);
  if (secret == nullptr) return;
  std::vector<std::string> names;
  for (const std::uint32_t id : secret->groups()) {
    if (const catalog::Group* group = exchange.root.FindGroup(GroupId{id}))
      names.push_back(group->row.name);
  }
  exchange.Answer(TextsReply(names));
}

void ModifySecretGroups(Exchange& exchange) {
  auto parsed = wire::ModifyGroupsRequest::Parse(exchange.body);
  if (!parsed) return exchange.BadJson();
  const auto request = std::make_shared<const wire::ModifyGroupsRequest>(std::move(*parsed));
  const std::string name = exchange.parameters[0];
  exchange.Write<std::vector<std::string>>(
      IntentOn(request->add.empty() ? EventType::kGrantRemove : EventType::kGrantAdd, name),
      [name, request](service::WriteContext& context) {
        return service::ModifySecretGroups(context, name, request->add, request->remove);
      },
      TextsReply);
}

}  // namespace latchkey::api
