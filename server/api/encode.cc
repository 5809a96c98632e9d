#include "server/api/encode.h"

#include "common/base/bytes.h"
#include "common/base/clock.h"
#include "common/wire/json_gate.h"
#include "server/service/read_automation.h"
#include "server/service/rules.h"

namespace latchkey::api {
namespace {

using wire::JsonOut;

void EncodeOwner(JsonOut* out, const catalog::Root& root, std::optional<GroupId> owner) {
  const std::string_view name = service::GroupNameOf(root, owner);
  if (!name.empty()) out->Text("owner", name);
}

std::string_view MetadataOrEmpty(std::string_view json) {
  return json.empty() ? std::string_view("{}") : json;
}

// What a secret's detail says of a version, whether it is the current one or not.
struct VersionView {
  VersionId id;
  const ByteArray<32>& checksum;
  std::string_view metadata;
  std::int64_t expiry;
  std::int64_t created_at;
  std::string_view created_by;
};

VersionView CurrentOf(const catalog::Secret& secret) {
  return {secret.current(),        secret.checksum(),           secret.metadata(),
          secret.version_expiry(), secret.version_created_at(), secret.version_created_by()};
}

void EncodeDetail(JsonOut* out, const catalog::Root& root, const catalog::Secret& secret,
                  const VersionView& version) {
  out->BeginObject().Text("name", secret.name());
  EncodeOwner(out, root, secret.owner());
  out->Text("description", secret.description()).Text("checksum", HexUpper(version.checksum));
  out->Int("createdAtSeconds", secret.created_at()).Text("createdBy", secret.created_by());
  out->Int("updatedAtSeconds", secret.updated_at()).Text("updatedBy", secret.updated_by());
  out->Raw("metadata", MetadataOrEmpty(version.metadata));
  if (secret.type()) out->Text("type", *secret.type());
  out->Int("expiry", version.expiry).Int("version", version.id.value);
  out->Int("contentCreatedAtSeconds", version.created_at)
      .Text("contentCreatedBy", version.created_by);
  out->EndObject();
}

// A metadata pair called `version` would stand beside our own member.
std::string MetadataWithoutVersion(std::string_view json) {
  auto metadata = wire::ParseMetadata(json);
  if (!metadata) return std::string(json);
  std::erase_if(*metadata, [](const auto& entry) { return entry.first == "version"; });
  return wire::EncodeMetadata(*metadata);
}

}  // namespace

void EncodeSanitizedSecret(JsonOut* out, const catalog::Root& root, const catalog::Secret& secret) {
  out->BeginObject().Int("id", secret.id().value).Text("name", secret.name());
  EncodeOwner(out, root, secret.owner());
  out->Text("description", secret.description()).Text("checksum", HexUpper(secret.checksum()));
  out->Text("createdAt", ApiDate(secret.created_at())).Text("createdBy", secret.created_by());
  out->Text("updatedAt", ApiDate(secret.updated_at())).Text("updatedBy", secret.updated_by());
  out->Raw("metadata", MetadataOrEmpty(secret.metadata()));
  out->Key("type");
  secret.type() ? out->Text(*secret.type()) : out->Null();
  out->Raw("generationOptions", "{}")
      .Int("expiry", secret.version_expiry())
      .Int("version", secret.current().value);
  out->Text("contentCreatedAt", ApiDate(secret.version_created_at()));
  out->Text("contentCreatedBy", secret.version_created_by());
  out->Int("createdAtSeconds", secret.created_at()).Int("updatedAtSeconds", secret.updated_at());
  out->Int("contentCreatedAtSeconds", secret.version_created_at()).EndObject();
}

void EncodeSecretDetailV2(JsonOut* out, const catalog::Root& root, const catalog::Secret& secret) {
  EncodeDetail(out, root, secret, CurrentOf(secret));
}

void EncodeVersionDetailV2(JsonOut* out, const catalog::Root& root, const catalog::Secret& secret,
                           const store::VersionInfo& version) {
  EncodeDetail(out, root, secret,
               {version.id, version.checksum, version.metadata, version.expiry, version.created_at,
                version.created_by});
}

void EncodeSecretSeries(JsonOut* out, const catalog::Root& root, const catalog::Secret& secret) {
  out->BeginObject().Int("id", secret.id().value).Text("name", secret.name());
  EncodeOwner(out, root, secret.owner());
  out->Text("description", secret.description());
  out->Text("createdAt", ApiDate(secret.created_at())).Text("createdBy", secret.created_by());
  out->Text("updatedAt", ApiDate(secret.updated_at())).Text("updatedBy", secret.updated_by());
  out->Key("type");
  secret.type() ? out->Text(*secret.type()) : out->Null();
  out->Raw("generationOptions", "{}").Int("currentVersion", secret.current().value).EndObject();
}

void EncodeSecretWithGroups(JsonOut* out, const catalog::Root& root,
                            const catalog::Secret& secret) {
  out->BeginObject().Key("secret");
  EncodeSanitizedSecret(out, root, secret);
  out->Key("groups").BeginArray();
  for (const std::uint32_t id : secret.groups()) {
    if (const catalog::Group* group = root.FindGroup(GroupId{id})) EncodeGroup(out, root, *group);
  }
  out->EndArray().EndObject();
}

void EncodeGroup(JsonOut* out, const catalog::Root& root, const catalog::Group& group) {
  const store::GroupRow& row = group.row;
  out->BeginObject()
      .Int("id", row.id.value)
      .Text("name", row.name)
      .Text("description", row.description);
  out->Text("createdAt", ApiDate(row.created_at)).Text("createdBy", row.created_by);
  out->Text("updatedAt", ApiDate(row.updated_at)).Text("updatedBy", row.updated_by);
  out->Raw("metadata", MetadataOrEmpty(row.metadata));
  EncodeOwner(out, root, row.owner);
  out->EndObject();
}

void EncodeGroupDetailV2(JsonOut* out, const catalog::Root& root, const catalog::Group& group) {
  const store::GroupRow& row = group.row;
  out->BeginObject().Text("name", row.name).Text("description", row.description);
  out->Int("createdAtSeconds", row.created_at).Int("updatedAtSeconds", row.updated_at);
  out->Text("createdBy", row.created_by).Text("updatedBy", row.updated_by);
  out->Key("secrets").BeginArray();
  for (const catalog::Secret* secret : service::SecretsGrantedTo(root, group))
    out->Text(secret->name());
  out->EndArray().Key("clients").BeginArray();
  for (const catalog::Client* client : service::MembersOf(root, group)) out->Text(client->row.name);
  out->EndArray().Raw("metadata", MetadataOrEmpty(row.metadata));
  EncodeOwner(out, root, row.owner);
  out->EndObject();
}

void EncodeClient(JsonOut* out, const catalog::Root& root, const catalog::Client& client) {
  const store::ClientRow& row = client.row;
  out->BeginObject()
      .Int("id", row.id.value)
      .Text("name", row.name)
      .Text("description", row.description);
  if (row.spiffe_id) out->Text("spiffeId", *row.spiffe_id);
  out->Text("createdAt", ApiDate(row.created_at)).Text("createdBy", row.created_by);
  out->Text("updatedAt", ApiDate(row.updated_at)).Text("updatedBy", row.updated_by);
  if (row.last_seen.value_or(0) != 0) out->Text("lastSeen", ApiDate(*row.last_seen));
  if (row.expiration.value_or(0) != 0) out->Text("expiration", ApiDate(*row.expiration));
  out->Bool("enabled", row.enabled);
  EncodeOwner(out, root, row.owner);
  out->Bool("automationAllowed", row.automation).EndObject();
}

void EncodeClientDetailV2(JsonOut* out, const catalog::Root& root, const catalog::Client& client) {
  const store::ClientRow& row = client.row;
  out->BeginObject().Text("name", row.name).Text("description", row.description);
  out->Text("spiffeId", row.spiffe_id.value_or(""));
  out->Int("createdAtSeconds", row.created_at).Int("updatedAtSeconds", row.updated_at);
  out->Text("createdBy", row.created_by).Text("updatedBy", row.updated_by).Key("lastSeenSeconds");
  row.last_seen.value_or(0) != 0 ? out->Int(*row.last_seen) : out->Null();
  EncodeOwner(out, root, row.owner);
  out->EndObject();
}

std::string DeliveryPrefix(const catalog::Secret& secret) {
  std::string prefix;
  JsonOut(&prefix).BeginObject().Text("name", secret.name()).Key("secret");
  return prefix + '"';
}

std::string DeliverySuffix(const catalog::Secret& secret, std::uint64_t content_bytes,
                           bool with_version) {
  std::string suffix = "\",";
  JsonOut out(&suffix);
  out.Unsigned("secretLength", content_bytes).Text("checksum", HexUpper(secret.checksum()));
  out.Text("creationDate", ApiDate(secret.created_at()))
      .Text("updateDate", ApiDate(secret.updated_at()));
  if (with_version) out.Unsigned("version", secret.version().value);
  std::string own;
  std::string_view metadata = MetadataOrEmpty(secret.metadata());
  if (with_version && metadata.find("\"version\"") != std::string_view::npos)
    metadata = own = MetadataWithoutVersion(metadata);
  // Metadata is flattened: the inside of its object follows as members of this one.
  if (metadata.size() > 2) suffix.append(",").append(metadata.substr(1, metadata.size() - 2));
  return suffix + '}';
}

std::string EncodeTexts(const std::vector<std::string>& texts) {
  std::string json;
  JsonOut out(&json);
  out.BeginArray();
  for (const std::string& text : texts) out.Text(text);
  out.EndArray();
  return json;
}

}  // namespace latchkey::api
