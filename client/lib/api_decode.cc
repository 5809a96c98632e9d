#include "client/lib/api_decode.h"

#include <algorithm>
#include <iterator>

#include "common/wire/json_out.h"

namespace latchkey::client {
namespace {

using wire::JsonValue;

Error Missing(std::string_view key) {
  return Error{Errc::kInvalidArgument,
               "member \"" + std::string(key) + "\" is missing or of another kind"};
}

Result<std::string> OptionalText(const JsonValue& json, std::string_view key) {
  const auto text = json.OptionalText(key);
  if (!text.has_value()) return Missing(key);
  return text.value().has_value() ? **text : std::string();
}

Result<std::string> Text(const JsonValue& json, std::string_view key) {
  if (!json.Has(key)) return Missing(key);
  return OptionalText(json, key);
}

Result<std::optional<std::int64_t>> OptionalInt(const JsonValue& json, std::string_view key) {
  auto number = json.OptionalInt(key);
  if (!number.has_value()) return Missing(key);
  return number;
}

Result<std::int64_t> Int(const JsonValue& json, std::string_view key) {
  ASSIGN_OR_RETURN(const auto number, OptionalInt(json, key));
  if (!number) return Missing(key);
  return *number;
}

Result<std::uint64_t> Count(const JsonValue& json, std::string_view key) {
  ASSIGN_OR_RETURN(const std::int64_t number, Int(json, key));
  if (number < 0) return Missing(key);
  return static_cast<std::uint64_t>(number);
}

Result<std::optional<std::uint64_t>> OptionalCount(const JsonValue& json, std::string_view key) {
  ASSIGN_OR_RETURN(const auto number, OptionalInt(json, key));
  if (!number) return std::optional<std::uint64_t>();
  if (*number < 0) return Missing(key);
  return std::optional<std::uint64_t>(static_cast<std::uint64_t>(*number));
}

Result<std::optional<bool>> OptionalBool(const JsonValue& json, std::string_view key) {
  auto flag = json.OptionalBool(key);
  if (!flag.has_value()) return Missing(key);
  return flag;
}

Result<bool> Bool(const JsonValue& json, std::string_view key) {
  ASSIGN_OR_RETURN(const auto flag, OptionalBool(json, key));
  if (!flag) return Missing(key);
  return *flag;
}

Result<std::vector<std::string>> Texts(const JsonValue& json, std::string_view key) {
  auto texts = json.OptionalTexts(key);
  if (!texts.has_value()) return Missing(key);
  return texts.value().value_or(std::vector<std::string>());
}

Result<Metadata> Map(const JsonValue& json, std::string_view key) {
  auto map = json.OptionalMap(key, JsonValue::NullValues::kDrop);
  if (!map.has_value()) return Missing(key);
  return map.value().value_or(Metadata());
}

Status RequireObject(const JsonValue& json) {
  if (!json.is_object()) return Error{Errc::kInvalidArgument, "an object is expected"};
  return {};
}

Result<ChangeSet::Changed> DecodeChanged(const JsonValue& json) {
  RETURN_IF_ERROR(RequireObject(json));
  ChangeSet::Changed changed;
  ASSIGN_OR_RETURN(changed.name, Text(json, "name"));
  ASSIGN_OR_RETURN(changed.version, Count(json, "version"));
  ASSIGN_OR_RETURN(changed.size_bytes, Count(json, "size"));
  return changed;
}

// What SecretDetailV2 and SanitizedSecret have in common: all of it.
Status FillSecretInfo(const JsonValue& json, SecretInfo* info) {
  RETURN_IF_ERROR(RequireObject(json));
  ASSIGN_OR_RETURN(info->name, Text(json, "name"));
  ASSIGN_OR_RETURN(info->owner, OptionalText(json, "owner"));
  ASSIGN_OR_RETURN(info->description, OptionalText(json, "description"));
  ASSIGN_OR_RETURN(info->checksum, OptionalText(json, "checksum"));
  ASSIGN_OR_RETURN(info->type, OptionalText(json, "type"));
  ASSIGN_OR_RETURN(info->created_at_s, Int(json, "createdAtSeconds"));
  ASSIGN_OR_RETURN(info->created_by, OptionalText(json, "createdBy"));
  ASSIGN_OR_RETURN(info->updated_at_s, Int(json, "updatedAtSeconds"));
  ASSIGN_OR_RETURN(info->updated_by, OptionalText(json, "updatedBy"));
  ASSIGN_OR_RETURN(info->metadata, Map(json, "metadata"));
  ASSIGN_OR_RETURN(const auto expiry, OptionalInt(json, "expiry"));
  info->expiry_s = expiry.value_or(0);
  ASSIGN_OR_RETURN(info->version_id, OptionalInt(json, "version"));
  ASSIGN_OR_RETURN(info->content_created_at_s, OptionalInt(json, "contentCreatedAtSeconds"));
  ASSIGN_OR_RETURN(info->content_created_by, OptionalText(json, "contentCreatedBy"));
  return {};
}

bool IsNamedAuditMember(std::string_view key) {
  static constexpr std::string_view kNamed[] = {
      "chain", "seq", "time", "type", "outcome", "actorName", "address", "actor", "requestId"};
  return std::find(std::begin(kNamed), std::end(kNamed), key) != std::end(kNamed);
}

// Depth is bounded by the gate.
void WriteAgain(const JsonValue& value, wire::JsonOut* out) {
  switch (value.kind()) {
    case JsonValue::Kind::kNull:
      out->Null();
      return;
    case JsonValue::Kind::kBool:
      out->Bool(value.AsBool().value());
      return;
    case JsonValue::Kind::kInteger:
    case JsonValue::Kind::kUnsigned:
    case JsonValue::Kind::kFloat:
      out->Raw(value.AsText().value());
      return;
    case JsonValue::Kind::kText:
      out->Text(value.TextView().value());
      return;
    case JsonValue::Kind::kArray:
      out->BeginArray();
      for (const JsonValue& element : value.elements()) WriteAgain(element, out);
      out->EndArray();
      return;
    case JsonValue::Kind::kObject:
      out->BeginObject();
      for (const JsonValue::Member& member : value.members()) {
        out->Key(member.key);
        WriteAgain(member.value, out);
      }
      out->EndObject();
      return;
  }
}

}  // namespace

Result<ChangeSet> DecodeChangeSet(const JsonValue& json) {
  RETURN_IF_ERROR(RequireObject(json));
  ChangeSet changes;
  ASSIGN_OR_RETURN(changes.generation.value, Count(json, "generation"));
  ASSIGN_OR_RETURN(changes.reset, Bool(json, "reset"));
  const JsonValue* changed = json.Find("changed");
  if (changed == nullptr) return Missing("changed");
  ASSIGN_OR_RETURN(changes.changed, DecodeList<ChangeSet::Changed>(*changed, DecodeChanged));
  ASSIGN_OR_RETURN(changes.gone, Texts(json, "gone"));
  return changes;
}

Result<SecretInfo> DecodeSecretInfo(const JsonValue& json) {
  SecretInfo info;
  RETURN_IF_ERROR(FillSecretInfo(json, &info));
  return info;
}

Result<ClientInfo> DecodeClientInfo(const JsonValue& json) {
  RETURN_IF_ERROR(RequireObject(json));
  ClientInfo info;
  ASSIGN_OR_RETURN(info.name, Text(json, "name"));
  ASSIGN_OR_RETURN(info.owner, OptionalText(json, "owner"));
  ASSIGN_OR_RETURN(info.description, OptionalText(json, "description"));
  ASSIGN_OR_RETURN(info.spiffe_id, OptionalText(json, "spiffeId"));
  ASSIGN_OR_RETURN(info.created_at_s, Int(json, "createdAtSeconds"));
  ASSIGN_OR_RETURN(info.created_by, OptionalText(json, "createdBy"));
  ASSIGN_OR_RETURN(info.updated_at_s, Int(json, "updatedAtSeconds"));
  ASSIGN_OR_RETURN(info.updated_by, OptionalText(json, "updatedBy"));
  ASSIGN_OR_RETURN(info.last_seen_s, OptionalInt(json, "lastSeenSeconds"));
  return info;
}

Result<ClientState> DecodeClientState(const JsonValue& json) {
  RETURN_IF_ERROR(RequireObject(json));
  ClientState state;
  ASSIGN_OR_RETURN(state.enabled, Bool(json, "enabled"));
  ASSIGN_OR_RETURN(state.automation, Bool(json, "automation"));
  ASSIGN_OR_RETURN(state.content, Bool(json, "content"));
  return state;
}

Result<GroupInfo> DecodeGroupInfo(const JsonValue& json) {
  RETURN_IF_ERROR(RequireObject(json));
  GroupInfo info;
  ASSIGN_OR_RETURN(info.name, Text(json, "name"));
  ASSIGN_OR_RETURN(info.owner, OptionalText(json, "owner"));
  ASSIGN_OR_RETURN(info.description, OptionalText(json, "description"));
  ASSIGN_OR_RETURN(info.created_at_s, Int(json, "createdAtSeconds"));
  ASSIGN_OR_RETURN(info.created_by, OptionalText(json, "createdBy"));
  ASSIGN_OR_RETURN(info.updated_at_s, Int(json, "updatedAtSeconds"));
  ASSIGN_OR_RETURN(info.updated_by, OptionalText(json, "updatedBy"));
  ASSIGN_OR_RETURN(info.secrets, Texts(json, "secrets"));
  ASSIGN_OR_RETURN(info.clients, Texts(json, "clients"));
  ASSIGN_OR_RETURN(info.metadata, Map(json, "metadata"));
  return info;
}

Result<HistoryEntry> DecodeHistoryEntry(const JsonValue& json) {
  RETURN_IF_ERROR(RequireObject(json));
  HistoryEntry entry;
  ASSIGN_OR_RETURN(entry.number, Count(json, "number"));
  ASSIGN_OR_RETURN(entry.version_id, Int(json, "version"));
  ASSIGN_OR_RETURN(entry.created_at_s, Int(json, "createdAtSeconds"));
  ASSIGN_OR_RETURN(entry.created_by, OptionalText(json, "createdBy"));
  ASSIGN_OR_RETURN(entry.checksum, OptionalText(json, "checksum"));
  ASSIGN_OR_RETURN(entry.current, Bool(json, "current"));
  return entry;
}

Result<Reader> DecodeReader(const JsonValue& json) {
  RETURN_IF_ERROR(RequireObject(json));
  Reader reader;
  ASSIGN_OR_RETURN(reader.client, Text(json, "client"));
  ASSIGN_OR_RETURN(reader.group, Text(json, "group"));
  return reader;
}

Result<ServingEntry> DecodeServingEntry(const JsonValue& json) {
  RETURN_IF_ERROR(RequireObject(json));
  ServingEntry entry;
  ASSIGN_OR_RETURN(entry.client, Text(json, "client"));
  ASSIGN_OR_RETURN(entry.version, OptionalCount(json, "version"));
  ASSIGN_OR_RETURN(entry.current, Bool(json, "current"));
  ASSIGN_OR_RETURN(entry.served_since_s, OptionalInt(json, "servedSinceSeconds"));
  ASSIGN_OR_RETURN(entry.last_seen_s, OptionalInt(json, "lastSeenSeconds"));
  return entry;
}

Result<AccessAnswer> DecodeAccessAnswer(const JsonValue& json) {
  RETURN_IF_ERROR(RequireObject(json));
  AccessAnswer answer;
  ASSIGN_OR_RETURN(answer.allowed, Bool(json, "allowed"));
  ASSIGN_OR_RETURN(answer.reason, OptionalText(json, "reason"));
  ASSIGN_OR_RETURN(answer.groups, Texts(json, "groups"));
  return answer;
}

Result<AuditEvent> DecodeAuditEvent(const JsonValue& json) {
  RETURN_IF_ERROR(RequireObject(json));
  AuditEvent event;
  ASSIGN_OR_RETURN(event.chain, Text(json, "chain"));
  ASSIGN_OR_RETURN(event.seq, Count(json, "seq"));
  ASSIGN_OR_RETURN(event.time, Text(json, "time"));
  ASSIGN_OR_RETURN(event.type, Text(json, "type"));
  ASSIGN_OR_RETURN(event.outcome, OptionalText(json, "outcome"));
  ASSIGN_OR_RETURN(event.actor, OptionalText(json, "actorName"));
  ASSIGN_OR_RETURN(event.address, OptionalText(json, "address"));
  ASSIGN_OR_RETURN(event.request_id, OptionalText(json, "requestId"));
  for (const JsonValue::Member& member : json.members()) {
    if (IsNamedAuditMember(member.key)) continue;
    std::string text;
    if (const auto scalar = member.value.AsText(); scalar.has_value()) {
      text = *scalar;
    } else {
      wire::JsonOut out(&text);
      WriteAgain(member.value, &out);
    }
    event.details.emplace_back(member.key, std::move(text));
  }
  wire::JsonOut out(&event.json);
  WriteAgain(json, &out);
  return event;
}

Result<ServerStatus> DecodeServerStatus(const JsonValue& json) {
  RETURN_IF_ERROR(RequireObject(json));
  ServerStatus status;
  ASSIGN_OR_RETURN(status.status, Text(json, "status"));
  ASSIGN_OR_RETURN(status.message, OptionalText(json, "message"));
  if (const JsonValue* results = json.Find("results"); results != nullptr) {
    for (const JsonValue::Member& member : results->members()) {
      ASSIGN_OR_RETURN(const bool healthy, Bool(member.value, "healthy"));
      status.checks.emplace_back(member.key, healthy);
    }
  }
  return status;
}

Result<std::string> DecodeName(const JsonValue& json) {
  ASSIGN_OR_RETURN(const auto text, json.TextView());
  return std::string(text);
}

}  // namespace latchkey::client
