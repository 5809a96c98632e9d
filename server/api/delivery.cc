#include <charconv>
#include <cstring>
#include <mutex>

#include "common/base/log.h"
#include "common/wire/base64.h"
#include "common/wire/requests.h"
#include "server/api/encode.h"
#include "server/api/endpoints.h"

namespace latchkey::api {
namespace {

// A number as the value of a header, without allocation.
class NumberText {
 public:
  explicit NumberText(std::uint64_t value)
      : size_(static_cast<std::size_t>(std::to_chars(digits_, digits_ + sizeof digits_, value).ptr -
                                       digits_)) {}
  std::string_view view() const { return {digits_, size_}; }

 private:
  char digits_[20];
  std::size_t size_;
};

char* Put(char* at, std::string_view text) {
  std::memcpy(at, text.data(), text.size());
  return at + text.size();
}

void RecordDelivery(Worker& worker, const service::Actor& actor, const catalog::Secret& secret,
                    const char* detail) {
  worker.Record(actor, audit::EventType::kSecretRead, audit::Outcome::kAllowed,
                [&](audit::Event& event) {
                  event.secret_id = secret.id().value;
                  event.secret_name = secret.name();
                  event.version_number = secret.version().value;
                  event.detail = detail;
                });
}

// What cannot be opened is recorded and answered with a bare 500 (rule C8); memory that is used up is 503.
Reply OpeningFailed(Worker& worker, const service::Actor& actor, const catalog::Secret& secret,
                    const Error& error, net::RequestId request) {
  if (error.code == Errc::kCorrupt || error.code == Errc::kNotFound) {
    worker.Record(actor, audit::EventType::kIntegrityFailure, audit::Outcome::kFailed,
                  [&](audit::Event& event) {
                    event.secret_id = secret.id().value;
                    event.secret_name = secret.name();
                    event.version_number = secret.version().value;
                  });
  }
  if (error.code == Errc::kNotFound)
    return ReplyOf({Errc::kCorrupt, "the current version has no row"}, request);
  return ReplyOf(error, request);
}

constexpr std::string_view kNeedsContentBit = "reading contents needs the content bit";

// An automation client can put itself into any group: were its grants enough here, the content bit
// would keep nothing from it (rule I5).
bool LacksContentBit(const Principal& principal) {
  return principal.automation() && !principal.content();
}

void RefuseDelivery(Worker& worker, net::Responder& responder, const service::Actor& actor,
                    const catalog::acl::Decision& decision, std::string_view name) {
  using catalog::acl::Reason;
  const bool exists = decision.reason != Reason::kNoSuchSecret &&
                      decision.reason != Reason::kSecretDeleted &&
                      decision.reason != Reason::kNoSuchClient;
  const bool forbidden = exists && !worker.services().settings->hide_names;
  worker.Record(actor, audit::EventType::kAccessDenied, audit::Outcome::kDenied,
                [&](audit::Event& event) {
                  event.secret_name = name;
                  event.detail = exists ? "not_granted" : "no_such_secret";
                });
  if (!forbidden) return Send(responder, ErrorReply(404));
  Send(responder,
       ErrorReply(403, "Access denied: " + actor.name + " at '/secret/" + std::string(name) + "'"));
}

}  // namespace

const Frame& Worker::FrameOf(const catalog::Secret& secret) {
  Frame& frame = frames_[secret.current()];
  if (frame.updated_at == secret.updated_at() && frame.secret_name == secret.name() &&
      !frame.prefix.empty())
    return frame;
  if (frames_.size() > kFrames) {
    frames_.clear();
    return FrameOf(secret);
  }
  frame.secret_name = secret.name();
  frame.updated_at = secret.updated_at();
  frame.prefix = DeliveryPrefix(secret);
  frame.suffix = DeliverySuffix(secret, secret.size_bytes(), false);
  return frame;
}

void DeliverSecret(Worker& worker, const net::Request& request, net::Responder& responder,
                   const catalog::Root& root, const Principal& principal, std::string_view name) {
  const service::Actor actor = service::Actor::Of(principal, request.id.value);
  if (LacksContentBit(principal)) {
    worker.Record(actor, audit::EventType::kAccessDenied, audit::Outcome::kDenied,
                  [&](audit::Event& event) {
                    event.secret_name = name;
                    event.detail = "no_content_bit";
                  });
    return Send(responder, ErrorReply(403, kNeedsContentBit));
  }
  const catalog::Root::Found found = root.FindForClient(principal.client(), name);
  if (found.secret == nullptr)
    return RefuseDelivery(worker, responder, actor, found.decision, name);
  const catalog::Secret& secret = *found.secret;

  auto content = worker.Scratch(secret.size_bytes());
  if (!content) return Send(responder, ReplyOf(content.error(), request.id));
  const Status opened = service::OpenCurrentInto(worker.services(), secret, *content);
  if (!opened) {
    worker.WipeScratch();
    return Send(responder, OpeningFailed(worker, actor, secret, opened.error(), request.id));
  }
  const Frame& frame = worker.FrameOf(secret);
  const std::size_t encoded = wire::Base64EncodedSize(content->size());
  const NumberText version(secret.version().value);
  const NumberText generation(root.generation().value);
  const net::Header headers[] = {{"X-Latchkey-Version", version.view()},
                                 {"X-Latchkey-Generation", generation.view()}};
  const std::size_t body_bytes = frame.prefix.size() + encoded + frame.suffix.size();
  const std::span<char> body = responder.Start(200, "application/json", headers, body_bytes);
  if (body.size() >= body_bytes) {
    char* at = Put(body.data(), frame.prefix);
    wire::Base64Encode(*content, at);
    Put(at + encoded, frame.suffix);
  }
  // One fixed piece of locked memory per worker: wiped now, not when the next request happens to come.
  WipeMemory(content->data(), content->size());
  worker.WipeScratch();
  RecordDelivery(worker, actor, secret, "");
}

void GetSecret(Exchange& exchange) {
  DeliverSecret(exchange.worker, exchange.request, exchange.responder, exchange.root,
                *exchange.principal, exchange.parameters[0]);
}

void ListSecrets(Exchange& exchange) {
  const auto secrets = exchange.root.SecretsOf(exchange.principal->client());
  std::string body = "[";
  for (const catalog::Secret* secret : secrets) {
    if (body.size() > 1) body.push_back(',');
    body.append(DeliveryPrefix(*secret)).append(DeliverySuffix(*secret, 0, false));
  }
  body.push_back(']');
  exchange.RecordRead(audit::EventType::kSecretList,
                      [&](audit::Event& event) { event.count = secrets.size(); });
  exchange.Answer(
      JsonReply(200, std::move(body))
          .With("X-Latchkey-Generation", std::to_string(exchange.root.generation().value)));
}

namespace {

void RefuseBatch(Exchange& exchange, const service::Batch& batch) {
  using service::BatchRefusal;
  switch (batch.refusal) {
    case BatchRefusal::kNone:
      return;
    case BatchRefusal::kTooManyNames:
      return exchange.TooManyNames();
    case BatchRefusal::kTooMuchContent:
      return exchange.Answer(ErrorReply(413, "a batch may hold at most " +
                                                 std::to_string(limits::kMaxBatchContentBytes) +
                                                 " bytes of content"));
    case BatchRefusal::kMissing:
      exchange.RecordRefusal("no_such_secret", batch.refused.front().name);
      return exchange.NotFound();
    case BatchRefusal::kForbidden:
      break;
  }
  std::string names;
  for (const auto& [name, exists] : batch.refused) {
    exchange.RecordRefusal(exists ? "not_granted" : "no_such_secret", name);
    names.append(names.empty() ? "" : ", ").append(name);
  }
  if (exchange.services().settings->hide_names) return exchange.NotFound();
  exchange.Answer(ErrorReply(
      403, "Access denied: " + exchange.principal->name() + " to secret(s) '[" + names + "]'"));
}

// Opens one secret into place: prefix, content, suffix. Gives where the next one starts.
Result<char*> PutDelivery(Exchange& exchange, const catalog::Secret& secret,
                          std::string_view prefix, std::string_view suffix, char* at) {
  ASSIGN_OR_RETURN(const MutableBytes content, exchange.worker.Scratch(secret.size_bytes()));
  const Status opened = service::OpenCurrentInto(exchange.services(), secret, content);
  if (opened) {
    at = Put(at, prefix);
    wire::Base64Encode(content, at);
    at = Put(at + wire::Base64EncodedSize(content.size()), suffix);
  }
  WipeMemory(content.data(), content.size());
  exchange.worker.WipeScratch();
  RETURN_IF_ERROR(opened);
  return at;
}

}  // namespace

void BatchSecrets(Exchange& exchange) {
  const auto asked = wire::BatchSecretsRequest::Parse(exchange.body);
  if (!asked) return exchange.BadJson();
  if (LacksContentBit(*exchange.principal)) {
    exchange.RecordRefusal("no_content_bit", {});
    return exchange.Answer(ErrorReply(403, kNeedsContentBit));
  }
  const service::Batch batch =
      service::DecideBatch(exchange.root, exchange.principal->client(), asked->names,
                           exchange.services().settings->hide_names);
  if (batch.refusal != service::BatchRefusal::kNone) return RefuseBatch(exchange, batch);
  const bool with_version = exchange.query().Find("versions") == "true";

  std::vector<std::pair<std::string, std::string>> around;  // prefix and suffix of each
  std::size_t body_bytes = 2;
  for (const catalog::Secret* secret : batch.secrets) {
    around.emplace_back((around.empty() ? "" : ",") + DeliveryPrefix(*secret),
                        DeliverySuffix(*secret, secret->size_bytes(), with_version));
    body_bytes += around.back().first.size() + around.back().second.size() +
                  wire::Base64EncodedSize(secret->size_bytes());
  }
  const NumberText generation(exchange.root.generation().value);
  const net::Header headers[] = {{"X-Latchkey-Generation", generation.view()}};
  const std::span<char> body =
      exchange.responder.Start(200, "application/json", headers, body_bytes);
  if (body.size() < body_bytes)
    return exchange.Fail({Errc::kUnavailable, "no room for the answer"});
  char* at = Put(body.data(), "[");
  for (std::size_t i = 0; i < batch.secrets.size(); ++i) {
    const auto next =
        PutDelivery(exchange, *batch.secrets[i], around[i].first, around[i].second, at);
    if (!next) {
      // Starting anew throws away, and wipes, what was filled in so far.
      return exchange.Answer(OpeningFailed(exchange.worker, exchange.actor(), *batch.secrets[i],
                                           next.error(), exchange.request.id));
    }
    at = *next;
  }
  Put(at, "]");
  const service::Actor actor = exchange.actor();
  for (const catalog::Secret* secret : batch.secrets)
    RecordDelivery(exchange.worker, actor, *secret, "batch");
}

namespace {

Reply ChangesReply(const feed::Answer& answer) {
  std::string body;
  wire::JsonOut out(&body);
  out.BeginObject().Unsigned("generation", answer.generation.value).Bool("reset", answer.reset);
  out.Key("changed").BeginArray();
  for (const feed::Changed& changed : answer.changed) {
    out.BeginObject().Text("name", changed.name).Unsigned("version", changed.version.value);
    out.Unsigned("size", changed.size_bytes).EndObject();
  }
  out.EndArray().Key("gone").BeginArray();
  for (const std::string& name : answer.gone) out.Text(name);
  out.EndArray().EndObject();
  return JsonReply(200, std::move(body));
}

// A waiter may be woken before the connection was told to wait: whichever comes second completes the
// reply.
class Waiting {
 public:
  void Give(feed::Answer answer) {
    std::unique_lock lock(mutex_);
    if (reply_ == nullptr) {
      if (!answer_) answer_ = std::move(answer);
      return;
    }
    const auto reply = std::move(reply_);
    lock.unlock();
    Complete(*reply, ChangesReply(answer));
  }
  void Await(std::shared_ptr<net::DeferredReply> reply) {
    std::unique_lock lock(mutex_);
    if (!answer_) {
      reply_ = std::move(reply);
      return;
    }
    const feed::Answer answer = std::move(*answer_);
    lock.unlock();
    Complete(*reply, ChangesReply(answer));
  }

 private:
  std::mutex mutex_;
  std::shared_ptr<net::DeferredReply> reply_;
  std::optional<feed::Answer> answer_;
};

Status ReadQuestion(const Query& query, feed::Question* question) {
  const auto number = [&](std::string_view name, std::optional<std::int64_t>* value) -> Status {
    std::int64_t read = 0;
    const Query::Number kind = query.FindInt(name, &read);
    if (kind == Query::Number::kAbsent) return {};
    if (kind == Query::Number::kMalformed || read < 0)
      return Error{Errc::kInvalidArgument,
                   "query param " + std::string(name) + " is not a number of at least 0"};
    *value = read;
    return {};
  };
  std::optional<std::int64_t> since, wait, serving;
  RETURN_IF_ERROR(number("since", &since));
  RETURN_IF_ERROR(number("wait", &wait));
  RETURN_IF_ERROR(number("serving", &serving));
  question->since = Generation{static_cast<std::uint64_t>(since.value_or(0))};
  question->wait =
      std::chrono::seconds(std::min(wait.value_or(0), std::int64_t{limits::kMaxFeedWait.count()}));
  if (serving) question->serving = Generation{static_cast<std::uint64_t>(*serving)};
  return {};
}

}  // namespace

void GetChanges(Exchange& exchange) {
  feed::Question question;
  question.client = exchange.principal->client();
  const Status read = ReadQuestion(exchange.query(), &question);
  if (!read) return exchange.Fail(read.error());
  feed::Feed* const feed = exchange.services().feed;
  const auto waiting = std::make_shared<Waiting>();
  const auto asked =
      feed->Ask(question, [waiting](feed::Answer answer) { waiting->Give(std::move(answer)); });
  if (!asked) return exchange.Fail(asked.error());
  if (asked->answer) return exchange.Answer(ChangesReply(*asked->answer));
  const auto deferred = exchange.responder.Defer();
  waiting->Await(deferred);
  // A peer that hangs up gives its place in the feed back at once. One that only ended its sending
  // looks the same from here: it is told that there was nothing.
  deferred->OnGone([feed, ticket = asked->ticket, since = question.since,
                    waiter = std::weak_ptr<Waiting>(waiting)] {
    const auto held = waiter.lock();  // the feed lets its own go
    feed->Cancel(ticket);
    feed::Answer nothing;
    nothing.generation = since;
    if (held) held->Give(std::move(nothing));
  });
}

}  // namespace latchkey::api
