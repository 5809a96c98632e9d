#include "server/api/handler.h"

#include "common/base/log.h"
#include "server/api/exchange.h"
#include "server/service/write_clients.h"

namespace latchkey::api {
namespace {

constexpr std::string_view kDeliveryPrefix = "/secret/";

bool NeedsJson(BodyRule rule) {
  return rule == BodyRule::kJson || rule == BodyRule::kJsonAfterAuth;
}

// What is no automation client names secrets in its bodies, and no more than a batch may hold.
wire::JsonLimits JsonLimitsOf(const Route& route) {
  wire::JsonLimits allowed;
  if (route.caller != Caller::kAutomation) allowed.max_nodes = limits::kMaxJsonNodesOfClient;
  return allowed;
}

// The answer for a body of the wrong type, or nullopt when it may be read.
std::optional<Reply> JudgeContentType(const net::Request& request, BodyRule rule) {
  if (rule == BodyRule::kIgnored) return std::nullopt;
  // An empty body without a type passes; whether a body is needed is asked later.
  if (!request.has_content_type)
    return request.has_body ? std::optional(ErrorReply(415)) : std::nullopt;
  switch (ClassifyContentType(request.content_type)) {
    case MediaType::kJson:
      return std::nullopt;
    case MediaType::kOtherJson:
      return rule == BodyRule::kJsonAfterAuth ? std::nullopt : std::optional(ErrorReply(415));
    case MediaType::kOther:
      return ErrorReply(415);
    case MediaType::kMalformed:
      return ErrorReply(400);
  }
  return ErrorReply(415);
}

Reply OptionsReply(const net::Request& request, const Match& match) {
  Reply reply = EmptyReply(200);
  const std::string allow = match.Allow(true);
  reply.With("Allow", allow);
  if (request.has_accept && AcceptsJson(request.accept)) {
    reply.content_type = "application/json";
    return reply;
  }
  reply.content_type = "text/plain";
  for (const char c : allow) reply.body.append(c == ',' ? ", " : std::string(1, c));
  return reply;
}

// A request that outlives the call: its answer has to wait for a write.
struct KeptRequest {
  explicit KeptRequest(const net::Request& from)
      : target(from.target),
        host(from.host),
        content_type(from.content_type),
        accept(from.accept),
        address(from.peer_address),
        body(from.body.begin(), from.body.end()),
        request(from) {
    if (from.certificate != nullptr) certificate = *from.certificate;
    request.target = target;
    request.host = host;
    request.content_type = content_type;
    request.accept = accept;
    request.peer_address = address;
    request.body = body;
    request.certificate = from.certificate != nullptr ? &certificate : nullptr;
  }
  KeptRequest(const KeptRequest&) = delete;
  KeptRequest& operator=(const KeptRequest&) = delete;

  const std::string target, host, content_type, accept, address;
  const ByteVector body;
  tls::PeerCertificate certificate;
  net::Request request;
};

// Turns what a handler answers into the reply of a connection that is already waiting. A client that was made a moment ago
// has no secret yet: what passes here as ordinary strings never is content.
class LateResponder final : public net::Responder {
 public:
  explicit LateResponder(std::shared_ptr<net::DeferredReply> deferred)
      : deferred_(std::move(deferred)) {}

  std::span<char> Start(int status, std::string_view content_type,
                        std::span<const net::Header> headers, std::size_t body_bytes) override {
    response_ = {};
    response_.status = status;
    for (const net::Header& header : headers)
      response_.headers.emplace_back(header.name, header.value);
    if (!content_type.empty()) response_.headers.emplace_back("Content-Type", content_type);
    response_.body.resize(body_bytes);
    return {response_.body.data(), response_.body.size()};
  }
  std::shared_ptr<net::DeferredReply> Defer() override { return std::exchange(deferred_, nullptr); }

  void Finish(bool recorded) {
    if (deferred_ == nullptr) return;  // deferred once more
    if (!recorded) return Complete(*deferred_, ErrorReply(503, "audit_unavailable"));
    deferred_->Complete(std::move(response_));
  }

 private:
  std::shared_ptr<net::DeferredReply> deferred_;
  net::DeferredResponse response_;
};

}  // namespace

Worker::Worker(const Dependencies& dependencies, std::shared_ptr<const RouteTable> routes,
               Sightings sightings)
    : dependencies_(dependencies), routes_(std::move(routes)), sightings_(sightings) {}

bool Worker::Commit() noexcept {
  if (batch_.empty()) return true;
  const Status written = services().access->Append(batch_);
  batch_.Clear();
  if (!written)
    Log(LogLevel::kError, "answers withheld: no audit record",
        {{"error", written.error().message}});
  return written.has_value();
}

Result<MutableBytes> Worker::Scratch(std::size_t size_bytes) {
  if (size_bytes > kScratchBytes) {
    ASSIGN_OR_RETURN(large_scratch_, SecretBuffer::OfSize(size_bytes));
    return large_scratch_.mutable_bytes();
  }
  if (scratch_.empty()) {
    ASSIGN_OR_RETURN(scratch_, SecretBuffer::OfSize(kScratchBytes));
  }
  return scratch_.mutable_bytes().subspan(0, size_bytes);
}

void Worker::WipeScratch() {
  large_scratch_ = SecretBuffer();
}

void Worker::Handle(const net::Request& request, net::Responder& responder) noexcept {
  if (DeliverFast(request, responder)) return;
  Judge(request, responder);
}

// The way of nearly every request: GET /secret/<plain name>. What is not exactly that goes through the route table.
bool Worker::DeliverFast(const net::Request& request, net::Responder& responder) {
  if (request.method != net::Method::kGet || !request.target.starts_with(kDeliveryPrefix))
    return false;
  const std::string_view name = request.target.substr(kDeliveryPrefix.size());
  if (name.empty() || name == "." || name == ".." ||
      name.find_first_of("/%;?") != std::string_view::npos)
    return false;
  if (request.has_accept && request.accept != "*/*" && request.accept != "application/json")
    return false;
  const catalog::RootRef root = services().catalog->Current();
  const std::optional<Principal> principal = Authenticate(*root, request, responder, true);
  if (principal) DeliverSecret(*this, request, responder, *root, *principal, name);
  return true;
}

void Worker::Judge(const net::Request& request, net::Responder& responder) {
  if (request.method == net::Method::kOther) return Send(responder, EmptyReply(405));
  const Match match = routes_->Find(PathOf(request.target));
  if (match.methods.empty()) return Send(responder, ErrorReply(404));
  if (request.method == net::Method::kOptions) return Send(responder, OptionsReply(request, match));
  const Route* route = match.Find(request.method);
  if (route == nullptr) return Send(responder, ErrorReply(405).With("Allow", match.Allow(false)));
  const bool type_after_auth = route->body == BodyRule::kJsonAfterAuth;
  if (!type_after_auth) {
    if (const auto refused = JudgeContentType(request, route->body))
      return Send(responder, *refused);
  }
  if (request.has_accept && !route->any_accept && !AcceptsJson(request.accept))
    return Send(responder, ErrorReply(406));

  Exchange exchange(*this, request, responder, services().catalog->Current());
  if (route->caller != Caller::kAnyone) {
    exchange.principal =
        Authenticate(exchange.root, request, responder, route->caller == Caller::kClient);
    if (!exchange.principal) return;
  }
  if (route->caller == Caller::kAutomation && !exchange.principal->automation()) {
    exchange.RecordRefusal("not_an_automation_client", {});
    return exchange.Answer(ErrorReply(403));
  }
  if (type_after_auth) {
    if (const auto refused = JudgeContentType(request, route->body))
      return exchange.Answer(*refused);
  }
  for (std::size_t i = 0; i < match.parameter_count; ++i) {
    auto decoded = DecodeSegment(match.parameters[i]);
    if (!decoded) return exchange.Answer(ErrorReply(400));
    exchange.parameters[i] = std::move(*decoded);
  }
  if (NeedsJson(route->body)) {
    auto body = wire::ParseJson(request.body, JsonLimitsOf(*route));
    if (!body && body.error().code == Errc::kTooLarge && route->caller == Caller::kClient)
      return exchange.TooManyNames();
    if (!body) return exchange.BadJson();
    exchange.body = std::move(*body);
  }
  route->endpoint(exchange);
}

std::optional<Principal> Worker::Authenticate(const catalog::Root& root,
                                              const net::Request& request,
                                              net::Responder& responder, bool may_create) {
  identity::Identified identified =
      authenticator().Identify(root, {request.certificate, request.has_forwarded_identity,
                                      request.local_port, request.peer_address});
  if (identified.sighting && sightings_ == Sightings::kWith)
    services().writer->RecordSighting(identified.sighting->client, identified.sighting->expiration);
  if (identified.principal) return identified.principal;
  if (identified.missing && may_create && authenticator().AdmitCreation()) {
    CreateThenHandle(request, responder, std::move(*identified.missing));
    return std::nullopt;
  }
  service::Actor nobody;
  nobody.address = std::string(request.peer_address);
  nobody.request_id = request.id.value;
  if (request.certificate != nullptr && request.certificate->names.error.empty())
    nobody.name = request.certificate->names.common_name
                      .value_or(request.certificate->names.spiffe_id.value_or(""))
                      .substr(0, limits::kMaxNameBytes);
  RecordStranger(nobody, identified.refusal.detail);
  Send(responder, ErrorReply(401).With("WWW-Authenticate", identified.refusal.challenge));
  return std::nullopt;
}

// Strangers come as fast as the network carries them: beyond a few they are counted, not written one by one.
void Worker::RecordStranger(const service::Actor& actor, const char* detail) {
  audit::Event event = actor.Event(audit::EventType::kAuthRefused, audit::Outcome::kDenied,
                                   services().clock->Now().time_since_epoch().count());
  event.detail = detail;
  if (services().refusals->IsWrittenSingly(event)) batch_.Add(event);
}

// The row is made by the writer; then the very same request is handled by a handler of its own, which finds the client. The
// request that creates a client does not count as seeing it (API spec 2.4).
void Worker::CreateThenHandle(const net::Request& request, net::Responder& responder,
                              identity::MissingClient missing) {
  const std::shared_ptr<net::DeferredReply> deferred = responder.Defer();
  auto kept = std::make_shared<KeptRequest>(request);
  auto handler = std::make_shared<Worker>(dependencies_, routes_, Sightings::kWithout);
  service::Actor server = service::Actor::Server("automatic", kept->address, request.id.value);
  service::Intent intent;
  intent.attempted = audit::EventType::kClientAutoCreate;
  intent.client_name = missing.name;
  const Status queued = services().writer->Submit<ClientId>(
      std::move(server), std::move(intent),
      [missing](service::WriteContext& context) {
        return service::AutoCreateClient(context, missing.name, missing.spiffe_id);
      },
      [deferred, kept, handler](Result<ClientId> created, Generation) {
        if (!created) return Complete(*deferred, ReplyOf(created.error(), kept->request.id));
        LateResponder late(deferred);
        handler->Handle(kept->request, late);
        late.Finish(handler->Commit());
      });
  if (!queued) Complete(*deferred, ReplyOf(queued.error(), request.id));
}

void Exchange::RecordRefusal(const char* detail, std::string_view secret_name) {
  worker.Record(actor(), audit::EventType::kAccessDenied, audit::Outcome::kDenied,
                [&](audit::Event& event) {
                  event.detail = detail;
                  event.secret_name = secret_name;
                });
}

net::HandlerFactory MakeHandlerFactory(const Dependencies& dependencies) {
  auto routes = std::make_shared<const RouteTable>(AllRoutes());
  return [dependencies, routes] { return std::make_unique<Worker>(dependencies, routes); };
}

}  // namespace latchkey::api
