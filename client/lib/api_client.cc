#include "client/lib/api_client.h"

#include <algorithm>
#include <utility>

#include "client/lib/api_decode.h"
#include "client/lib/http_errors.h"
#include "common/model/limits.h"
#include "common/wire/base64.h"
#include "common/wire/json_gate.h"
#include "common/wire/json_out.h"

namespace latchkey::client {
namespace {

constexpr std::size_t kMaxSmallAnswerBytes = 1024 * 1024;
constexpr std::size_t kMaxListAnswerBytes = 128 * 1024 * 1024;
constexpr std::size_t kMaxListNodes = 4'000'000;
// Around each content of a delivery: name, dates, checksum and metadata.
constexpr std::size_t kMaxDeliveryFrameBytes = 1024 + limits::kMaxMetadataBytes * 6;
constexpr std::size_t kMaxListedSecrets = 200'000;

constexpr std::string_view kSecretsPath = "/automation/v2/secrets";
constexpr std::string_view kClientsPath = "/automation/v2/clients";
constexpr std::string_view kGroupsPath = "/automation/v2/groups";

std::string Path(std::string_view base, std::string_view name, std::string_view rest = {}) {
  return std::string(base) + "/" + PercentEncode(name) + std::string(rest);
}

// Small and large answers differ in what they may cost; both are parsed within limits (rule F7).
enum class Size { kSmall, kList };

HttpRequest Get(std::string target, Size size) {
  return {.method = "GET",
          .target = std::move(target),
          .json_body = std::nullopt,
          .idempotent = true,
          .max_response_bytes = size == Size::kSmall ? kMaxSmallAnswerBytes : kMaxListAnswerBytes};
}

HttpRequest Write(std::string_view method, std::string target, std::optional<Bytes> body) {
  return {.method = method,
          .target = std::move(target),
          .json_body = body,
          .idempotent = false,
          .max_response_bytes = kMaxSmallAnswerBytes};
}

// Sends, and makes an error of every status outside 200-299.
Result<HttpResponse> Exchange(HttpClient& http, const HttpRequest& request, Surface surface) {
  ASSIGN_OR_RETURN(HttpResponse response, http.Send(request));
  if (response.status < 200 || response.status > 299)
    return StatusError(response, surface, http.options());
  return response;
}

Error Malformed(const HttpClient& http, const Error& why) {
  return Error{Errc::kInternal, "answer of " + http.options().server.Text() + " is malformed: " +
                                    why.message + ": is it a latchkeyd of this version?"};
}

template <class T, class Decoder>
Result<T> Decode(const HttpClient& http, const HttpResponse& response, Decoder decode) {
  const auto json = wire::ParseJson(response.body.bytes(), {.max_nodes = kMaxListNodes});
  if (!json.has_value()) return Malformed(http, json.error());
  Result<T> decoded = decode(*json);
  if (!decoded.has_value()) return Malformed(http, decoded.error());
  return decoded;
}

template <class T, class Decoder>
Result<T> Fetch(HttpClient& http, const HttpRequest& request, Decoder decode) {
  ASSIGN_OR_RETURN(const HttpResponse response, Exchange(http, request, Surface::kAutomation));
  return Decode<T>(http, response, decode);
}

template <class T>
Result<std::vector<T>> FetchList(HttpClient& http, std::string target,
                                 Result<T> (*decode)(const wire::JsonValue&)) {
  return Fetch<std::vector<T>>(
      http, Get(std::move(target), Size::kList),
      [decode](const wire::JsonValue& json) { return DecodeList<T>(json, decode); });
}

Result<WriteReceipt> SendWrite(HttpClient& http, const HttpRequest& request) {
  ASSIGN_OR_RETURN(const HttpResponse response, Exchange(http, request, Surface::kAutomation));
  return WriteReceipt{response.version, response.generation};
}

std::string EncodeNames(std::string_view key, const std::vector<std::string>& names) {
  std::string text;
  wire::JsonOut out(&text);
  out.BeginObject().Key(key).BeginArray();
  for (const std::string& name : names) out.Text(name);
  out.EndArray().EndObject();
  return text;
}

void AppendTexts(wire::JsonOut* out, std::string_view key, const std::vector<std::string>& texts) {
  out->Key(key).BeginArray();
  for (const std::string& text : texts) out->Text(text);
  out->EndArray();
}

// `object` is a finished JSON object; the result is the same object with the content as its last
// member. The content is encoded straight into memory that is wiped.
WipedBytes WithContent(std::string_view object, const SecretBuffer& content) {
  constexpr std::string_view kMember = ",\"content\":\"";
  const std::size_t encoded_bytes = wire::Base64EncodedSize(content.size());
  INVARIANT(object.size() > 2 && object.back() == '}');
  object.remove_suffix(1);
  WipedBytes body;
  body.Reserve(object.size() + kMember.size() + encoded_bytes + 2);
  body.Append(object);
  body.Append(kMember);
  if (encoded_bytes > 0) {
    MutableBytes room = body.Extend(encoded_bytes);
    wire::Base64Encode(content.bytes(), reinterpret_cast<char*>(room.data()));
  }
  body.Append(std::string_view("\"}"));
  return body;
}

Result<std::vector<std::string>> ModifyGroups(HttpClient& http, std::string target,
                                              const std::vector<std::string>& add,
                                              const std::vector<std::string>& remove) {
  std::string body;
  wire::JsonOut out(&body);
  out.BeginObject();
  AppendTexts(&out, "addGroups", add);
  AppendTexts(&out, "removeGroups", remove);
  out.EndObject();
  HttpRequest request = Write("PUT", std::move(target), AsBytes(body));
  request.max_response_bytes = kMaxListAnswerBytes;
  return Fetch<std::vector<std::string>>(http, request, [](const wire::JsonValue& json) {
    return DecodeList<std::string>(json, DecodeName);
  });
}

}  // namespace

Result<std::unique_ptr<ApiClient>> ApiClient::Open(HttpOptions options) {
  ASSIGN_OR_RETURN(auto http, HttpClient::Open(std::move(options)));
  return std::unique_ptr<ApiClient>(new ApiClient(std::move(http)));
}

// ---- Delivery

Result<std::vector<DeliveredSecret>> ApiClient::Secrets() {
  ASSIGN_OR_RETURN(HttpResponse response,
                   Exchange(*http_, Get("/secrets", Size::kList), Surface::kDelivery));
  return ParseDeliveries(
      response.body.mutable_bytes(),
      {.max_secrets = kMaxListedSecrets, .max_content_bytes = 0, .max_total_bytes = 0});
}

Result<DeliveredSecret> ApiClient::Secret(std::string_view name) {
  HttpRequest request = Get(Path("/secret", name), Size::kSmall);
  request.max_response_bytes =
      wire::Base64EncodedSize(limits::kHardMaxContentBytes) + kMaxDeliveryFrameBytes;
  ASSIGN_OR_RETURN(HttpResponse response, Exchange(*http_, request, Surface::kDelivery));
  ASSIGN_OR_RETURN(DeliveredSecret secret,
                   ParseDelivery(response.body.mutable_bytes(),
                                 {.max_secrets = 1,
                                  .max_content_bytes = limits::kHardMaxContentBytes,
                                  .max_total_bytes = limits::kHardMaxContentBytes}));
  if (secret.name != name) {
    return Error{Errc::kInternal, "server " + options().server.Text() +
                                      " answered with another secret than \"" + std::string(name) +
                                      "\""};
  }
  if (!secret.version) secret.version = response.version;
  return secret;
}

Result<std::vector<DeliveredSecret>> ApiClient::BatchSecrets(
    const std::vector<std::string>& names) {
  if (names.empty()) return std::vector<DeliveredSecret>();
  if (names.size() > limits::kMaxBatchNames) {
    return Error{Errc::kTooLarge,
                 "batch has more than " + std::to_string(limits::kMaxBatchNames) + " names"};
  }
  const std::string body = EncodeNames("secrets", names);
  // A read in the form of a POST: sending it twice does no harm.
  HttpRequest request = Write("POST", "/batchsecret?versions=true", AsBytes(body));
  request.idempotent = true;
  request.max_response_bytes = wire::Base64EncodedSize(limits::kMaxBatchContentBytes) +
                               std::min(names.size() * kMaxDeliveryFrameBytes, kMaxListAnswerBytes);
  ASSIGN_OR_RETURN(HttpResponse response, Exchange(*http_, request, Surface::kDelivery));
  ASSIGN_OR_RETURN(auto secrets,
                   ParseDeliveries(response.body.mutable_bytes(),
                                   {.max_secrets = names.size(),
                                    .max_content_bytes = limits::kHardMaxContentBytes,
                                    .max_total_bytes = limits::kMaxBatchContentBytes}));
  for (const DeliveredSecret& secret : secrets) {
    if (std::find(names.begin(), names.end(), secret.name) == names.end()) {
      return Error{Errc::kInternal,
                   "server " + options().server.Text() + " sent a secret that was not asked for"};
    }
  }
  return secrets;
}

Result<ChangeSet> ApiClient::Changes(Generation since, std::chrono::seconds wait,
                                     std::optional<Generation> serving) {
  wait = std::clamp(wait, std::chrono::seconds(0), limits::kMaxFeedWait);
  std::string target =
      "/changes?since=" + std::to_string(since.value) + "&wait=" + std::to_string(wait.count());
  if (serving) target += "&serving=" + std::to_string(serving->value);
  HttpRequest request = Get(std::move(target), Size::kList);
  request.extra_wait = wait;
  return Fetch<ChangeSet>(*http_, request, DecodeChangeSet);
}

// ---- Status

Result<ServerStatus> ApiClient::Status() {
  ASSIGN_OR_RETURN(const HttpResponse response, http_->Send(Get("/_status", Size::kSmall)));
  // 500 carries the same object: it says which check fails.
  if (response.status != 200 && response.status != 500) {
    return StatusError(response, Surface::kAutomation, options());
  }
  const auto json = wire::ParseJson(response.body.bytes());
  if (!json.has_value()) return Malformed(*http_, json.error());
  auto status = DecodeServerStatus(*json);
  if (!status.has_value()) {
    return response.status == 500 ? StatusError(response, Surface::kAutomation, options())
                                  : Malformed(*http_, status.error());
  }
  return status;
}

// ---- Secrets

Result<std::vector<std::string>> ApiClient::ListSecrets() {
  return FetchList<std::string>(*http_, std::string(kSecretsPath), DecodeName);
}

Result<std::vector<SecretInfo>> ApiClient::ListSecretInfos() {
  return FetchList<SecretInfo>(*http_, std::string(kSecretsPath) + "/v2", DecodeSecretInfo);
}

Result<SecretInfo> ApiClient::GetSecret(std::string_view name) {
  return Fetch<SecretInfo>(*http_, Get(Path(kSecretsPath, name), Size::kSmall), DecodeSecretInfo);
}

Result<bool> ApiClient::SecretExists(std::string_view name) {
  HttpRequest request = Get(Path(kSecretsPath, name), Size::kSmall);
  request.method = "HEAD";
  ASSIGN_OR_RETURN(const HttpResponse response, http_->Send(request));
  if (response.status == 404) return false;
  if (response.status < 200 || response.status > 299) {
    return StatusError(response, Surface::kAutomation, options());
  }
  return true;
}

Result<std::vector<std::string>> ApiClient::SecretGroups(std::string_view name) {
  return FetchList<std::string>(*http_, Path(kSecretsPath, name, "/groups"), DecodeName);
}

Result<std::vector<HistoryEntry>> ApiClient::History(std::string_view name, std::uint64_t after,
                                                     std::size_t limit) {
  std::string query = "/history?limit=" + std::to_string(limit);
  if (after > 0) query += "&after=" + std::to_string(after);
  return FetchList<HistoryEntry>(*http_, Path(kSecretsPath, name, query), DecodeHistoryEntry);
}

Result<std::vector<Reader>> ApiClient::SecretReaders(std::string_view name) {
  return FetchList<Reader>(*http_, Path(kSecretsPath, name, "/clients"), DecodeReader);
}

Result<ServingReport> ApiClient::Serving(std::string_view name) {
  const HttpRequest request = Get(Path(kSecretsPath, name, "/serving"), Size::kList);
  ASSIGN_OR_RETURN(const HttpResponse response, Exchange(*http_, request, Surface::kAutomation));
  ASSIGN_OR_RETURN(auto entries,
                   Decode<std::vector<ServingEntry>>(*http_, response, [](const auto& json) {
                     return DecodeList<ServingEntry>(json, DecodeServingEntry);
                   }));
  return ServingReport{std::move(entries), response.server_time_s};
}

Result<WriteReceipt> ApiClient::CreateSecret(const NewSecret& secret, const SecretBuffer& content) {
  std::string object;
  wire::JsonOut out(&object);
  out.BeginObject()
      .Text("name", secret.name)
      .Text("description", secret.description)
      .Text("type", secret.type);
  out.Int("expiry", secret.expiry_s).Raw("metadata", wire::EncodeMetadata(secret.metadata));
  AppendTexts(&out, "groups", secret.groups);
  if (!secret.owner.empty()) out.Text("owner", secret.owner);
  out.EndObject();
  const WipedBytes body = WithContent(object, content);
  return SendWrite(*http_, Write("POST", std::string(kSecretsPath), body.bytes()));
}

Result<WriteReceipt> ApiClient::UpdateSecret(std::string_view name, const SecretChange& change,
                                             const SecretBuffer* content) {
  std::string object;
  wire::JsonOut out(&object);
  out.BeginObject().Bool("contentPresent", content != nullptr);
  out.Bool("descriptionPresent", change.description.has_value());
  if (change.description) out.Text("description", *change.description);
  out.Bool("typePresent", change.type.has_value());
  if (change.type) out.Text("type", *change.type);
  out.Bool("metadataPresent", change.metadata.has_value());
  if (change.metadata) out.Raw("metadata", wire::EncodeMetadata(*change.metadata));
  out.Bool("expiryPresent", change.expiry_s.has_value());
  if (change.expiry_s) out.Int("expiry", *change.expiry_s);
  out.EndObject();
  const std::string target = Path(kSecretsPath, name, "/partialupdate");
  if (content == nullptr) return SendWrite(*http_, Write("POST", target, AsBytes(object)));
  const WipedBytes body = WithContent(object, *content);
  return SendWrite(*http_, Write("POST", target, body.bytes()));
}

Result<WriteReceipt> ApiClient::SetVersion(std::string_view name, std::int64_t version_id) {
  std::string body;
  wire::JsonOut(&body).BeginObject().Text("name", name).Int("version", version_id).EndObject();
  return SendWrite(*http_, Write("POST", Path(kSecretsPath, name, "/setversion"), AsBytes(body)));
}

Result<WriteReceipt> ApiClient::RenameSecret(std::string_view name, std::string_view new_name) {
  const std::string target = Path(kSecretsPath, name, "/rename/") + PercentEncode(new_name);
  return SendWrite(*http_, Write("POST", target, AsBytes("{}")));
}

Result<WriteReceipt> ApiClient::DeleteSecret(std::string_view name) {
  return SendWrite(*http_, Write("DELETE", Path(kSecretsPath, name), std::nullopt));
}

Result<WriteReceipt> ApiClient::UndeleteSecret(std::string_view name) {
  return SendWrite(*http_, Write("POST", Path(kSecretsPath, name, "/undelete"), AsBytes("{}")));
}

Result<std::vector<std::string>> ApiClient::ModifySecretGroups(
    std::string_view name, const std::vector<std::string>& add,
    const std::vector<std::string>& remove) {
  return ModifyGroups(*http_, Path(kSecretsPath, name, "/groups"), add, remove);
}

// ---- Clients

Result<std::vector<std::string>> ApiClient::ListClients() {
  return FetchList<std::string>(*http_, std::string(kClientsPath), DecodeName);
}

Result<ClientInfo> ApiClient::GetClient(std::string_view name) {
  return Fetch<ClientInfo>(*http_, Get(Path(kClientsPath, name), Size::kSmall), DecodeClientInfo);
}

Result<std::vector<std::string>> ApiClient::ClientGroups(std::string_view name) {
  return FetchList<std::string>(*http_, Path(kClientsPath, name, "/groups"), DecodeName);
}

Result<std::vector<std::string>> ApiClient::ClientSecrets(std::string_view name) {
  return FetchList<std::string>(*http_, Path(kClientsPath, name, "/secrets"), DecodeName);
}

Result<WriteReceipt> ApiClient::CreateClient(const NewClient& client) {
  std::string body;
  wire::JsonOut out(&body);
  out.BeginObject().Text("name", client.name).Text("description", client.description);
  if (!client.spiffe_id.empty()) out.Text("spiffeId", client.spiffe_id);
  AppendTexts(&out, "groups", client.groups);
  out.EndObject();
  return SendWrite(*http_, Write("POST", std::string(kClientsPath), AsBytes(body)));
}

Result<ClientState> ApiClient::GetClientState(std::string_view name) {
  return Fetch<ClientState>(*http_, Get(Path(kClientsPath, name, "/state"), Size::kSmall),
                            DecodeClientState);
}

Result<WriteReceipt> ApiClient::SetClientState(std::string_view name, const ClientState& state) {
  std::string body;
  wire::JsonOut out(&body);
  out.BeginObject();
  if (state.enabled) out.Bool("enabled", *state.enabled);
  if (state.automation) out.Bool("automation", *state.automation);
  if (state.content) out.Bool("content", *state.content);
  out.EndObject();
  return SendWrite(*http_, Write("PUT", Path(kClientsPath, name, "/state"), AsBytes(body)));
}

Result<WriteReceipt> ApiClient::DeleteClient(std::string_view name) {
  return SendWrite(*http_, Write("DELETE", Path(kClientsPath, name), std::nullopt));
}

Result<std::vector<std::string>> ApiClient::ModifyClientGroups(
    std::string_view name, const std::vector<std::string>& add,
    const std::vector<std::string>& remove) {
  return ModifyGroups(*http_, Path(kClientsPath, name, "/groups"), add, remove);
}

// ---- Groups

Result<std::vector<std::string>> ApiClient::ListGroups() {
  return FetchList<std::string>(*http_, std::string(kGroupsPath), DecodeName);
}

Result<GroupInfo> ApiClient::GetGroup(std::string_view name) {
  return Fetch<GroupInfo>(*http_, Get(Path(kGroupsPath, name), Size::kList), DecodeGroupInfo);
}

Result<WriteReceipt> ApiClient::CreateGroup(std::string_view name, std::string_view description,
                                            const Metadata& metadata) {
  std::string body;
  wire::JsonOut out(&body);
  out.BeginObject().Text("name", name).Text("description", description);
  out.Raw("metadata", wire::EncodeMetadata(metadata)).EndObject();
  return SendWrite(*http_, Write("POST", std::string(kGroupsPath), AsBytes(body)));
}

Result<WriteReceipt> ApiClient::DeleteGroup(std::string_view name) {
  return SendWrite(*http_, Write("DELETE", Path(kGroupsPath, name), std::nullopt));
}

// ---- Questions about all of it

Result<AccessAnswer> ApiClient::Access(std::string_view client, std::string_view secret) {
  const std::string target =
      "/automation/v2/access?client=" + PercentEncode(client) + "&secret=" + PercentEncode(secret);
  return Fetch<AccessAnswer>(*http_, Get(target, Size::kSmall), DecodeAccessAnswer);
}

Result<std::vector<AuditEvent>> ApiClient::Audit(std::string_view chain,
                                                 std::optional<std::uint64_t> after,
                                                 std::size_t limit) {
  std::string target =
      "/automation/v2/audit?chain=" + PercentEncode(chain) + "&limit=" + std::to_string(limit);
  if (after) target += "&after=" + std::to_string(*after);
  return FetchList<AuditEvent>(*http_, std::move(target), DecodeAuditEvent);
}

}  // namespace latchkey::client
