// Exchange: one authenticated request in the hands of its endpoint. Worker: what a network worker keeps between requests.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <unordered_map>

#include "common/model/limits.h"
#include "common/wire/json_gate.h"
#include "server/api/handler.h"
#include "server/api/reply.h"
#include "server/api/route_table.h"
#include "server/service/read_delivery.h"
#include "server/service/writer.h"

namespace latchkey::api {

// The JSON around the content of one version, serialised beforehand.
struct Frame {
  std::string secret_name;  // with updated_at: what else than the version may change
  std::int64_t updated_at = 0;
  std::string prefix;  // up to the content
  std::string suffix;  // from behind the content, metadata included
};

class Worker final : public net::Handler {
 public:
  // kWithout: requests of this handler are not entered as the last time their client was seen.
  enum class Sightings { kWith, kWithout };
  Worker(const Dependencies& dependencies, std::shared_ptr<const RouteTable> routes,
         Sightings sightings = Sightings::kWith);

  void Handle(const net::Request& request, net::Responder& responder) noexcept override;
  bool Commit() noexcept override;

  const service::Services& services() const { return dependencies_.services; }
  identity::Authenticator& authenticator() const { return *dependencies_.authenticator; }

  // Adds an event of the batch; who and when are filled in. The texts are copied.
  template <class Fill>
  void Record(const service::Actor& actor, audit::EventType type, audit::Outcome outcome,
              const Fill& fill) {
    audit::Event event =
        actor.Event(type, outcome, services().clock->Now().time_since_epoch().count());
    fill(event);
    event.secret_name = event.secret_name.substr(0, limits::kMaxNameBytes);
    batch_.Add(event);
  }

  // Valid until the next call. Built once per version and name, kept for a bounded number of versions.
  const Frame& FrameOf(const catalog::Secret& secret);
  // Locked memory for one content. kUnavailable when the arena is exhausted.
  Result<MutableBytes> Scratch(std::size_t size_bytes);
  void WipeScratch();

 private:
  static constexpr std::size_t kScratchBytes = 64 * 1024;
  static constexpr std::size_t kFrames = 4096;

  void Judge(const net::Request& request, net::Responder& responder);
  bool DeliverFast(const net::Request& request, net::Responder& responder);
  // Authenticates; on refusal answers (or sees to the creation of the client) and gives nothing.
  std::optional<Principal> Authenticate(const catalog::Root& root, const net::Request& request,
                                        net::Responder& responder, bool may_create);
  void RecordStranger(const service::Actor& actor, const char* detail);
  void CreateThenHandle(const net::Request& request, net::Responder& responder,
                        identity::MissingClient missing);

  const Dependencies dependencies_;
  const std::shared_ptr<const RouteTable> routes_;
  const Sightings sightings_;
  audit::EventBatch batch_;
  SecretBuffer scratch_;
  SecretBuffer large_scratch_;
  std::unordered_map<VersionId, Frame> frames_;
};

class Exchange {
 public:
  Exchange(Worker& worker_in, const net::Request& request_in, net::Responder& responder_in,
           catalog::RootRef root_in)
      : worker(worker_in),
        request(request_in),
        responder(responder_in),
        root_ref(std::move(root_in)),
        root(*root_ref) {}

  Worker& worker;
  const net::Request& request;
  net::Responder& responder;
  const catalog::RootRef root_ref;
  const catalog::Root& root;                   // one state for the whole request
  std::optional<Principal> principal;          // set unless the route is for anyone
  std::string parameters[kMaxPathParameters];  // decoded
  wire::JsonValue body;                        // parsed, for routes that read JSON

  const service::Services& services() const { return worker.services(); }
  service::Actor actor() const { return service::Actor::Of(*principal, request.id.value); }
  Query query() const { return Query(request.target); }

  void Answer(const Reply& reply) { Send(responder, reply); }
  void Fail(const Error& error) { Answer(ReplyOf(error, request.id)); }
  void NotFound() { Answer(ErrorReply(404)); }
  void TooManyNames() {
    Answer(ErrorReply(
        413, "a batch may name at most " + std::to_string(limits::kMaxBatchNames) + " secrets"));
  }
  void BadJson() { Answer(ErrorReply(400, "Unable to process JSON")); }

  template <class Fill>
  void RecordRead(audit::EventType type, const Fill& fill) {
    worker.Record(actor(), type, audit::Outcome::kAllowed, fill);
  }
  void RecordRefusal(const char* detail, std::string_view secret_name);

  // Hands a use case to the writer and answers after its commit; `format` runs on the writer thread and must not refer to
  // this exchange.
  template <class T>
  void Write(service::Intent intent, service::Work<T> work, std::function<Reply(const T&)> format) {
    std::shared_ptr<net::DeferredReply> deferred = responder.Defer();
    const net::RequestId id = request.id;
    const Status queued = services().writer->template Submit<T>(
        actor(), std::move(intent), std::move(work),
        [deferred, id, format = std::move(format)](Result<T> result, Generation generation) {
          if (!result) return Complete(*deferred, ReplyOf(result.error(), id));
          Reply reply = format(*result);
          reply.With("X-Latchkey-Generation", std::to_string(generation.value));
          Complete(*deferred, std::move(reply));
        });
    if (!queued) Complete(*deferred, ReplyOf(queued.error(), id));
  }
};

// GET /secret/{}: the hot path, also reached without the route table.
void DeliverSecret(Worker& worker, const net::Request& request, net::Responder& responder,
                   const catalog::Root& root, const Principal& principal, std::string_view name);

}  // namespace latchkey::api
