#include "common/wire/requests.h"

#include "common/wire/base64.h"

namespace latchkey::wire {
namespace {

Error Missing(std::string_view member) {
  return Error{Errc::kInvalidArgument, "json: member \"" + std::string(member) + "\" is required"};
}

Status NeedObject(const JsonValue& body) {
  if (body.is_object()) return {};
  return Error{Errc::kInvalidArgument, "json: an object is expected"};
}

Result<std::string> TextOr(const JsonValue& body, std::string_view key, std::string otherwise) {
  ASSIGN_OR_RETURN(std::optional<std::string> text, body.OptionalText(key));
  return text ? std::move(*text) : std::move(otherwise);
}

Result<std::string> RequiredName(const JsonValue& body, std::string_view key) {
  ASSIGN_OR_RETURN(std::string name, TextOr(body, key, ""));
  if (name.empty()) return Missing(key);
  return name;
}

Result<std::vector<std::string>> TextsOrNone(const JsonValue& body, std::string_view key) {
  ASSIGN_OR_RETURN(std::optional<std::vector<std::string>> texts, body.OptionalTexts(key));
  return texts ? std::move(*texts) : std::vector<std::string>{};
}

Result<std::vector<std::string>> RequiredTexts(const JsonValue& body, std::string_view key) {
  if (!body.Has(key)) return Missing(key);
  return TextsOrNone(body, key);
}

Result<Metadata> MapOrEmpty(const JsonValue& body, std::string_view key,
                            JsonValue::NullValues null_values) {
  ASSIGN_OR_RETURN(std::optional<Metadata> map, body.OptionalMap(key, null_values));
  return map ? std::move(*map) : Metadata{};
}

// Numbers are coerced like any text, but decoded without a copy when it is a text, which is what
// content always is.
Result<SecretBuffer> Content(const JsonValue& value) {
  if (value.kind() == JsonValue::Kind::kText) {
    ASSIGN_OR_RETURN(const std::string_view text, value.TextView());
    return Base64Decode(text);
  }
  ASSIGN_OR_RETURN(const std::string text, value.AsText());
  return Base64Decode(text);
}

Result<CreateSecretRequest> ParseSecretBody(const JsonValue& body) {
  RETURN_IF_ERROR(NeedObject(body));
  CreateSecretRequest request;
  if (!body.Has("content")) return Missing("content");
  ASSIGN_OR_RETURN(request.content, Content(*body.Find("content")));
  ASSIGN_OR_RETURN(request.description, TextOr(body, "description", ""));
  ASSIGN_OR_RETURN(request.metadata, MapOrEmpty(body, "metadata", JsonValue::NullValues::kRefuse));
  ASSIGN_OR_RETURN(const std::optional<std::int64_t> expiry, body.OptionalInt("expiry"));
  request.expiry = expiry.value_or(0);
  ASSIGN_OR_RETURN(request.type, TextOr(body, "type", ""));
  ASSIGN_OR_RETURN(request.owner, TextOr(body, "owner", ""));
  return request;
}

Result<bool> Flag(const JsonValue& body, std::string_view key) {
  ASSIGN_OR_RETURN(const std::optional<bool> flag, body.OptionalBool(key));
  return flag.value_or(false);
}

}  // namespace

Result<BatchSecretsRequest> BatchSecretsRequest::Parse(const JsonValue& body) {
  RETURN_IF_ERROR(NeedObject(body));
  BatchSecretsRequest request;
  ASSIGN_OR_RETURN(request.names, TextsOrNone(body, "secrets"));
  return request;
}

Result<CreateSecretRequest> CreateSecretRequest::Parse(const JsonValue& body) {
  RETURN_IF_ERROR(NeedObject(body));
  ASSIGN_OR_RETURN(std::string name, RequiredName(body, "name"));
  ASSIGN_OR_RETURN(CreateSecretRequest request, ParseSecretBody(body));
  request.name = std::move(name);
  ASSIGN_OR_RETURN(request.groups, TextsOrNone(body, "groups"));
  return request;
}

Result<CreateSecretRequest> CreateSecretRequest::ParseUpdate(const JsonValue& body) {
  return ParseSecretBody(body);
}

Result<PartialUpdateRequest> PartialUpdateRequest::Parse(const JsonValue& body) {
  RETURN_IF_ERROR(NeedObject(body));
  PartialUpdateRequest request;
  // Every value is read even when its flag is not set: a malformed member is refused either way.
  ASSIGN_OR_RETURN(std::string description, TextOr(body, "description", ""));
  ASSIGN_OR_RETURN(Metadata metadata, MapOrEmpty(body, "metadata", JsonValue::NullValues::kRefuse));
  ASSIGN_OR_RETURN(const std::optional<std::int64_t> expiry, body.OptionalInt("expiry"));
  ASSIGN_OR_RETURN(std::string type, TextOr(body, "type", ""));
  ASSIGN_OR_RETURN(std::string owner, TextOr(body, "owner", ""));
  ASSIGN_OR_RETURN(const bool has_content, Flag(body, "contentPresent"));
  ASSIGN_OR_RETURN(const bool has_description, Flag(body, "descriptionPresent"));
  ASSIGN_OR_RETURN(const bool has_metadata, Flag(body, "metadataPresent"));
  ASSIGN_OR_RETURN(const bool has_expiry, Flag(body, "expiryPresent"));
  ASSIGN_OR_RETURN(const bool has_type, Flag(body, "typePresent"));
  ASSIGN_OR_RETURN(const bool has_owner, Flag(body, "ownerPresent"));
  if (has_content) {
    if (!body.Has("content")) return Missing("content");
    ASSIGN_OR_RETURN(request.content, Content(*body.Find("content")));
  }
  if (has_description) request.description = std::move(description);
  if (has_metadata) request.metadata = std::move(metadata);
  if (has_expiry) request.expiry = expiry.value_or(0);
  if (has_type) request.type = std::move(type);
  if (has_owner) request.owner = std::move(owner);
  return request;
}

Result<SetVersionRequest> SetVersionRequest::Parse(const JsonValue& body) {
  RETURN_IF_ERROR(NeedObject(body));
  SetVersionRequest request;
  ASSIGN_OR_RETURN(request.name, RequiredName(body, "name"));
  ASSIGN_OR_RETURN(const std::optional<std::int64_t> version, body.OptionalInt("version"));
  request.version = version.value_or(0);
  return request;
}

Result<ContentsRequest> ContentsRequest::Parse(const JsonValue& body) {
  RETURN_IF_ERROR(NeedObject(body));
  ContentsRequest request;
  ASSIGN_OR_RETURN(request.names, RequiredTexts(body, "secrets"));
  return request;
}

Result<ContentsAtVersionRequest> ContentsAtVersionRequest::Parse(const JsonValue& body) {
  RETURN_IF_ERROR(NeedObject(body));
  ContentsAtVersionRequest request;
  ASSIGN_OR_RETURN(request.name, RequiredName(body, "secret"));
  if (!body.Has("version")) return Missing("version");
  if (body.Find("version")->kind() == JsonValue::Kind::kText) {
    ASSIGN_OR_RETURN(const std::string_view text, body.Find("version")->TextView());
    if (text.empty()) return Missing("version");
  }
  ASSIGN_OR_RETURN(request.version, body.Find("version")->AsInt());
  return request;
}

Result<CreateClientRequest> CreateClientRequest::Parse(const JsonValue& body) {
  RETURN_IF_ERROR(NeedObject(body));
  CreateClientRequest request;
  ASSIGN_OR_RETURN(request.name, RequiredName(body, "name"));
  ASSIGN_OR_RETURN(request.description, TextOr(body, "description", ""));
  ASSIGN_OR_RETURN(request.spiffe_id, TextOr(body, "spiffeId", ""));
  ASSIGN_OR_RETURN(request.groups, TextsOrNone(body, "groups"));
  return request;
}

Result<CreateGroupRequest> CreateGroupRequest::Parse(const JsonValue& body) {
  RETURN_IF_ERROR(NeedObject(body));
  CreateGroupRequest request;
  ASSIGN_OR_RETURN(request.name, RequiredName(body, "name"));
  ASSIGN_OR_RETURN(request.description, TextOr(body, "description", ""));
  ASSIGN_OR_RETURN(request.metadata, MapOrEmpty(body, "metadata", JsonValue::NullValues::kDrop));
  return request;
}

Result<ModifyGroupsRequest> ModifyGroupsRequest::Parse(const JsonValue& body) {
  RETURN_IF_ERROR(NeedObject(body));
  ModifyGroupsRequest request;
  ASSIGN_OR_RETURN(request.add, RequiredTexts(body, "addGroups"));
  ASSIGN_OR_RETURN(request.remove, RequiredTexts(body, "removeGroups"));
  return request;
}

Result<ClientStateRequest> ClientStateRequest::Parse(const JsonValue& body) {
  RETURN_IF_ERROR(NeedObject(body));
  ClientStateRequest request;
  ASSIGN_OR_RETURN(request.enabled, body.OptionalBool("enabled"));
  ASSIGN_OR_RETURN(request.automation, body.OptionalBool("automation"));
  ASSIGN_OR_RETURN(request.content, body.OptionalBool("content"));
  return request;
}

}  // namespace latchkey::wire
