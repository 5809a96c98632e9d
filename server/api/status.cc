#include <span>

#include "common/base/clock.h"
#include "server/api/encode.h"
#include "server/api/endpoints.h"
#include "server/service/read_delivery.h"

namespace latchkey::api {
namespace {

struct Check {
  const char* name;
  bool healthy;
  const char* message;  // when it is not
};

// "ok", or the names of the checks that fail, as Keywhiz puts it.
std::string MessageOf(std::span<const Check> checks) {
  std::string failing;
  for (const Check& check : checks) {
    if (!check.healthy) failing += (failing.empty() ? "" : ", ") + std::string(check.name);
  }
  return failing.empty() ? "ok" : "failing health checks: [" + failing + "]";
}

// The ISO form of ApiDate with its milliseconds.
std::string Timestamp(std::int64_t time_ms) {
  std::string text = ApiDate(time_ms / 1000);
  const std::string millis = std::to_string(1000 + time_ms % 1000).substr(1);
  return text.replace(text.size() - 4, 3, millis);
}

}  // namespace

// Up or down and nothing else (rule P5): anybody may ask. The names of the checks are those that old dashboards read. The
// status code is for balancers: as with Keywhiz, a store that only cannot be written to keeps serving reads, with 200.
void GetStatus(Exchange& exchange) {
  const Clock& clock = *exchange.services().clock;
  const auto begin = clock.Monotonic();
  const bool readable = service::StoreReadable(exchange.services());
  const auto duration =
      std::chrono::duration_cast<std::chrono::milliseconds>(clock.Monotonic() - begin).count();
  const std::int64_t now_ms =
      std::chrono::duration_cast<std::chrono::milliseconds>(clock.Now().time_since_epoch()).count();
  const bool writable = service::StoreWritable(exchange.services());
  const Check checks[] = {{"db-read-write-health", writable, "The newest write failed."},
                          {"db-readonly-health", readable, "Unhealthy connection to database."},
                          {"deadlocks", true, ""},
                          {"manualStatus", true, ""}};
  const std::string message = MessageOf(checks);
  std::string body;
  wire::JsonOut out(&body);
  out.BeginObject().Text("status", message == "ok" ? "ok" : "critical").Text("message", message);
  out.Key("results").BeginObject();
  for (const Check& check : checks) {
    out.Key(check.name).BeginObject().Bool("healthy", check.healthy);
    if (!check.healthy) out.Text("message", check.message);
    out.Int("time", now_ms)
        .Int("duration", duration)
        .Text("timestamp", Timestamp(now_ms))
        .EndObject();
  }
  out.EndObject().EndObject();
  exchange.Answer(JsonReply(readable ? 200 : 500, std::move(body)));
}

}  // namespace latchkey::api
