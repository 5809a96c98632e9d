#include "server/api/encode.h"
#include "server/api/endpoints.h"
#include "server/service/read_automation.h"
#include "server/service/rules.h"

namespace latchkey::api {
namespace {

constexpr std::int64_t kDefaultAuditEvents = 100;

void NumberOrNull(wire::JsonOut* out, std::string_view key, std::int64_t value) {
  out->Key(key);
  value != 0 ? out->Int(value) : out->Null();
}

const catalog::Secret* FindNamed(Exchange& exchange) {
  const catalog::Secret* secret =
      exchange.root.FindSecret(std::string_view(exchange.parameters[0]));
  if (secret == nullptr) exchange.NotFound();
  return secret;
}

}  // namespace

void ListSecretClients(Exchange& exchange) {
  const catalog::Secret* secret = FindNamed(exchange);
  if (secret == nullptr) return;
  std::string body;
  wire::JsonOut out(&body);
  out.BeginArray();
  for (const catalog::Root::Holder& holder : exchange.root.HoldersOf(*secret)) {
    out.BeginObject().Text("client", holder.client->row.name);
    out.Text("group", service::GroupNameOf(exchange.root, holder.through)).EndObject();
  }
  out.EndArray();
  exchange.Answer(JsonReply(200, std::move(body)));
}

void ListSecretServing(Exchange& exchange) {
  const catalog::Secret* secret = FindNamed(exchange);
  if (secret == nullptr) return;
  std::string body;
  wire::JsonOut out(&body);
  out.BeginArray();
  for (const feed::Serving& serving : exchange.services().feed->ServingOf(exchange.root, *secret)) {
    const catalog::Client* client = exchange.root.FindClient(serving.client);
    if (client == nullptr) continue;
    out.BeginObject().Text("client", client->row.name).Key("version");
    serving.version ? out.Unsigned(serving.version->value) : out.Null();
    out.Bool("current", serving.version == secret->version());
    NumberOrNull(&out, "servedSinceSeconds", serving.served_since);
    NumberOrNull(&out, "lastSeenSeconds", serving.last_seen);
    out.EndObject();
  }
  out.EndArray();
  exchange.Answer(JsonReply(200, std::move(body)));
}

void GetAccess(Exchange& exchange) {
  const Query query = exchange.query();
  const auto client = query.Find("client");
  const auto secret = query.Find("secret");
  if (!client || !secret)
    return exchange.Answer(ErrorReply(400, "query params client and secret are required"));
  const service::Access access = service::ExplainAccess(exchange.root, *client, *secret);
  std::string body;
  wire::JsonOut out(&body);
  out.BeginObject().Bool("allowed", access.decision.allowed());
  out.Text("reason", catalog::acl::ReasonText(access.decision.reason));
  out.Raw("groups", EncodeTexts(access.groups)).EndObject();
  exchange.Answer(JsonReply(200, std::move(body)));
}

void GetAudit(Exchange& exchange) {
  const Query query = exchange.query();
  const auto chain = query.Find("chain").value_or("store");
  if (chain != "store" && chain != "access")
    return exchange.Answer(ErrorReply(400, "query param chain must be store or access"));
  std::int64_t after = 0;
  std::int64_t limit = kDefaultAuditEvents;
  const Query::Number has_after = query.FindInt("after", &after);
  const Query::Number has_limit = query.FindInt("limit", &limit);
  if (has_after == Query::Number::kMalformed || has_limit == Query::Number::kMalformed ||
      after < 0 || limit < 1 || limit > static_cast<std::int64_t>(limits::kMaxPageEntries))
    return exchange.Answer(
        ErrorReply(400, "query params after and limit must be numbers, limit from 1 to " +
                            std::to_string(limits::kMaxPageEntries)));
  std::optional<std::uint64_t> position;
  if (has_after == Query::Number::kValid) position = static_cast<std::uint64_t>(after);
  const auto which = chain == "store" ? service::ChainName::kStore : service::ChainName::kAccess;
  const auto page =
      service::ReadAudit(exchange.services(), which, position, static_cast<std::size_t>(limit));
  if (!page) return exchange.Fail(page.error());
  std::string body;
  wire::JsonOut out(&body);
  out.BeginArray();
  for (const std::string& event : page->events) out.Raw(event);
  out.EndArray();
  if (!position || page->besides_reads > 0)
    exchange.RecordRead(audit::EventType::kAuditRead,
                        [&](audit::Event& event) { event.count = page->events.size(); });
  exchange.Answer(JsonReply(200, std::move(body)));
}

}  // namespace latchkey::api
