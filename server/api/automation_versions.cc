#include <cstring>

#include "common/base/bytes.h"
#include "common/wire/base64.h"
#include "common/wire/requests.h"
#include "server/api/encode.h"
#include "server/api/endpoints.h"
#include "server/service/read_automation.h"

namespace latchkey::api {
namespace {

// Contents through /automation/* need the content bit besides the automation bit (rule I5).
bool RefusedWithoutContentBit(Exchange& exchange) {
  if (exchange.principal->content()) return false;
  exchange.RecordRefusal("no_content_bit", {});
  exchange.Answer(ErrorReply(403, "reading contents needs the content bit"));
  return true;
}

void RecordContentRead(Exchange& exchange, const catalog::Secret& secret, VersionNumber version) {
  exchange.RecordRead(audit::EventType::kSecretReadContent, [&](audit::Event& event) {
    event.secret_id = secret.id().value;
    event.secret_name = secret.name();
    event.version_number = version.value;
  });
}

void FailOpening(Exchange& exchange, const catalog::Secret& secret, const Error& error) {
  if (error.code == Errc::kCorrupt) {
    exchange.worker.Record(exchange.actor(), audit::EventType::kIntegrityFailure,
                           audit::Outcome::kFailed, [&](audit::Event& event) {
                             event.secret_id = secret.id().value;
                             event.secret_name = secret.name();
                           });
  }
  exchange.Fail(error);
}

char* Put(char* at, std::string_view text) {
  std::memcpy(at, text.data(), text.size());
  return at + text.size();
}

struct Asked {
  std::vector<const catalog::Secret*> found;
  std::vector<std::string> missing;
  std::size_t content_bytes = 0;
};

Asked Sort(const catalog::Root& root, const std::vector<std::string>& names) {
  Asked asked;
  for (const std::string& name : names) {
    const catalog::Secret* secret = root.FindSecret(std::string_view(name));
    const bool again = secret != nullptr && std::find(asked.found.begin(), asked.found.end(),
                                                      secret) != asked.found.end();
    if (again) continue;
    if (secret == nullptr) {
      if (std::find(asked.missing.begin(), asked.missing.end(), name) == asked.missing.end())
        asked.missing.push_back(name);
      continue;
    }
    asked.found.push_back(secret);
    asked.content_bytes += secret->size_bytes();
  }
  return asked;
}

// `"name":"<base64>"` pairs of all that was found, opened straight into the answer.
void AnswerContents(Exchange& exchange, const Asked& asked) {
  std::vector<std::string> keys;
  std::size_t body_bytes = 0;
  for (const catalog::Secret* secret : asked.found) {
    std::string key(keys.empty() ? "" : ",");
    key.push_back('"');
    wire::AppendJsonText(&key, secret->name());
    key.append("\":\"");
    body_bytes += key.size() + wire::Base64EncodedSize(secret->size_bytes()) + 1;
    keys.push_back(std::move(key));
  }
  constexpr std::string_view kHead = "{\"successSecrets\":{";
  const std::string tail = "},\"missingSecrets\":" + EncodeTexts(asked.missing) + "}";
  body_bytes += kHead.size() + tail.size();
  const std::span<char> body = exchange.responder.Start(200, "application/json", {}, body_bytes);
  if (body.size() < body_bytes)
    return exchange.Fail({Errc::kUnavailable, "no room for the answer"});
  char* at = Put(body.data(), kHead);
  for (std::size_t i = 0; i < keys.size(); ++i) {
    const catalog::Secret& secret = *asked.found[i];
    auto opened = service::OpenVersionOf(exchange.services(), secret, secret.current());
    if (!opened) return FailOpening(exchange, secret, opened.error());
    const SecretBuffer* content = &opened->content;
    if (content->size() != secret.size_bytes())
      return FailOpening(exchange, secret,
                         {Errc::kCorrupt, "the current version's row belongs to something else"});
    at = Put(at, keys[i]);
    wire::Base64Encode(content->bytes(), at);
    at = Put(at + wire::Base64EncodedSize(content->size()), "\"");
  }
  Put(at, tail);
  for (const catalog::Secret* secret : asked.found)
    RecordContentRead(exchange, *secret, secret->version());
}

// A non-negative page parameter; Keywhiz answers 404 for what is no number.
Result<std::size_t> PageNumber(const Query& query, std::string_view name, std::int64_t otherwise,
                               std::int64_t most) {
  std::int64_t value = otherwise;
  if (query.FindInt(name, &value) == Query::Number::kMalformed) return Error{Errc::kNotFound, ""};
  if (value < 0) return Error{Errc::kInvalidArgument, std::string(name) + " must not be negative"};
  if (value > most)
    return Error{Errc::kInvalidArgument,
                 std::string(name) + " may be at most " + std::to_string(most)};
  return static_cast<std::size_t>(value);
}

constexpr std::int64_t kMostEntries = static_cast<std::int64_t>(limits::kMaxPageEntries);
constexpr std::int64_t kDefaultHistoryEntries = 100;

}  // namespace

void RequestContents(Exchange& exchange) {
  const auto request = wire::ContentsRequest::Parse(exchange.body);
  if (!request) return exchange.BadJson();
  if (RefusedWithoutContentBit(exchange)) return;
  if (request->names.size() > limits::kMaxBatchNames)
    return exchange.Answer(ErrorReply(
        413, "a batch may name at most " + std::to_string(limits::kMaxBatchNames) + " secrets"));
  const Asked asked = Sort(exchange.root, request->names);
  if (asked.content_bytes > limits::kMaxBatchContentBytes)
    return exchange.Answer(ErrorReply(413, "a batch may hold at most " +
                                               std::to_string(limits::kMaxBatchContentBytes) +
                                               " bytes of content"));
  AnswerContents(exchange, asked);
}

void RequestContentsAtVersion(Exchange& exchange) {
  const auto request = wire::ContentsAtVersionRequest::Parse(exchange.body);
  if (!request) return exchange.BadJson();
  if (RefusedWithoutContentBit(exchange)) return;
  const catalog::Secret* secret = exchange.root.FindSecret(std::string_view(request->name));
  if (secret == nullptr) return exchange.NotFound();
  const auto opened =
      service::OpenVersionOf(exchange.services(), *secret, VersionId{request->version});
  if (!opened && opened.error().code == Errc::kNotFound) return exchange.NotFound();
  if (!opened) return FailOpening(exchange, *secret, opened.error());
  const SecretBuffer& content = opened->content;
  constexpr std::string_view kHead = "{\"secret\":\"";
  constexpr std::string_view kTail = "\"}";
  const std::size_t encoded = wire::Base64EncodedSize(content.size());
  const std::size_t body_bytes = kHead.size() + encoded + kTail.size();
  const std::span<char> body = exchange.responder.Start(200, "application/json", {}, body_bytes);
  if (body.size() < body_bytes)
    return exchange.Fail({Errc::kUnavailable, "no room for the answer"});
  char* at = Put(body.data(), kHead);
  wire::Base64Encode(content.bytes(), at);
  Put(at + encoded, kTail);
  RecordContentRead(exchange, *secret, opened->number);
}

void ListSecretVersions(Exchange& exchange) {
  const catalog::Secret* secret =
      exchange.root.FindSecret(std::string_view(exchange.parameters[0]));
  if (secret == nullptr) return exchange.NotFound();
  const Query query = exchange.query();
  const auto from = PageNumber(query, "versionIdx", 0, INT64_MAX);
  if (!from) return exchange.Fail(from.error());
  const auto count = PageNumber(query, "numVersions", 0, kMostEntries);
  if (!count) return exchange.Fail(count.error());
  const auto versions = service::ListVersions(exchange.services(), *secret, *from, *count);
  if (!versions) return FailOpening(exchange, *secret, versions.error());
  if (versions->empty()) return exchange.NotFound();
  std::string body;
  wire::JsonOut out(&body);
  out.BeginArray();
  for (const store::VersionInfo& version : *versions)
    EncodeVersionDetailV2(&out, exchange.root, *secret, version);
  out.EndArray();
  exchange.Answer(JsonReply(200, std::move(body)));
}

void GetSecretHistory(Exchange& exchange) {
  const catalog::Secret* secret =
      exchange.root.FindSecret(std::string_view(exchange.parameters[0]));
  if (secret == nullptr) return exchange.NotFound();
  const Query query = exchange.query();
  const auto limit = PageNumber(query, "limit", kDefaultHistoryEntries, kMostEntries);
  if (!limit) return exchange.Fail(limit.error());
  const auto after = PageNumber(query, "after", 0, INT64_MAX);
  if (!after) return exchange.Fail(after.error());
  std::optional<VersionNumber> below;
  if (*after != 0) below = VersionNumber{*after};
  const auto versions = service::VersionsBelow(exchange.services(), *secret, below, *limit);
  if (!versions) return FailOpening(exchange, *secret, versions.error());
  std::string body;
  wire::JsonOut out(&body);
  out.BeginArray();
  for (const store::VersionInfo& version : *versions) {
    out.BeginObject().Unsigned("number", version.number.value).Int("version", version.id.value);
    out.Int("createdAtSeconds", version.created_at).Text("createdBy", version.created_by);
    out.Text("checksum", HexUpper(version.checksum))
        .Bool("current", version.id == secret->current())
        .EndObject();
  }
  out.EndArray();
  exchange.Answer(JsonReply(200, std::move(body)));
}

}  // namespace latchkey::api
