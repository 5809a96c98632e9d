// Who may not, for every route there is: the matrix is made from the route table, so that a new route is in it at once.
#include <catch2/catch.hpp>

#include "server/api/route_table.h"
#include "tests/support/server_fixture.h"

using namespace latchkey;
using namespace latchkey::testing;
using api::BodyRule;
using api::Caller;
using net::Method;

namespace {

std::string MethodName(Method method) {
  switch (method) {
    case Method::kGet:
      return "GET";
    case Method::kHead:
      return "HEAD";
    case Method::kPost:
      return "POST";
    case Method::kPut:
      return "PUT";
    case Method::kDelete:
      return "DELETE";
    case Method::kOptions:
      return "OPTIONS";
    case Method::kPatch:
      return "PATCH";
    case Method::kOther:
      return "OTHER";
  }
  return "";
}

std::string PathOf(const api::Route& route, const std::string& name) {
  std::string path(route.pattern);
  for (std::size_t at = path.find("{}"); at != std::string::npos; at = path.find("{}"))
    path.replace(at, 2, name);
  return path;
}

bool ReadsJson(BodyRule rule) {
  return rule == BodyRule::kJson || rule == BodyRule::kJsonAfterAuth;
}

TestRequest RequestOn(const api::Route& route, const std::string& name = "General_Password") {
  TestRequest request;
  request.method = MethodName(route.method);
  request.target = PathOf(route, name);
  if (ReadsJson(route.body)) request.body = "{}";
  return request;
}

std::size_t RefusalsOf(ServerFixture& server) {
  const auto events = server.Events(service::ChainName::kAccess);
  return static_cast<std::size_t>(
      std::count_if(events.begin(), events.end(), [](const std::string& event) {
        return event.find("\"auth.refused\"") != std::string::npos ||
               event.find("\"access.denied\"") != std::string::npos;
      }));
}

bool SameAnswer(const TestReply& a, const TestReply& b) {
  return a.status == b.status && a.body == b.body && a.content_type == b.content_type;
}

}  // namespace

TEST_CASE("no route but the status answers a caller who is not a client", "[api][matrix]") {
  ServerFixture server;
  server.AddClient("disabled", true, true, {"Security"});
  server.Call("PUT", "/automation/v2/clients/disabled/state", R"({"enabled":false})");
  const TestCaller doubtful{true, "client", std::nullopt, "two common names"};
  for (const api::Route& route : api::AllRoutes()) {
    const TestRequest request = RequestOn(route);
    CAPTURE(request.method, request.target);
    if (route.caller == Caller::kAnyone) {
      CHECK(server.Send(TestCaller::Nobody(), request).status == 200);
      continue;
    }
    server.clock().Advance(limits::kRefusalWindow);  // refusals of one window are not all written
    const std::size_t before = RefusalsOf(server);
    const TestReply nobody = server.Send(TestCaller::Nobody(), request);
    const TestReply unknown = server.Send(TestCaller::Named("stranger"), request);
    const TestReply disabled = server.Send(TestCaller::Named("disabled"), request);
    const TestReply refused = server.Send(doubtful, request);
    TestRequest forwarded = request;
    forwarded.forwarded_identity = true;
    const TestReply proxied = server.Send(TestCaller::Named("client"), forwarded);
    for (const TestReply* reply : {&nobody, &unknown, &disabled, &refused, &proxied}) {
      CHECK(reply->status == 401);
      CHECK(reply->body == R"({"code":401,"message":"HTTP 401 Unauthorized"})");
      CHECK_FALSE(reply->Header("WWW-Authenticate").empty());
      CHECK_FALSE(reply->deferred);
    }
    CHECK(SameAnswer(unknown, disabled));
    CHECK(RefusalsOf(server) == before + 5);
  }
}

TEST_CASE("strangers are counted, and known clients recorded one by one", "[api][audit]") {
  ServerFixture server;
  constexpr std::uint64_t kRequests = 500;
  for (std::uint64_t i = 0; i < kRequests; ++i) {
    REQUIRE(server.Send(TestCaller::Nobody(), {"GET", "/secret/x", "", {}, {}}).status == 401);
    REQUIRE(server.Send(TestCaller::Named("stranger"), {"GET", "/secrets", "", {}, {}}).status ==
            401);
    REQUIRE(server.Get("/secret/Hacking_Password").status == 403);
  }
  const auto count = [&](const std::string& text) {
    const auto events = server.Events(service::ChainName::kAccess);
    return std::count_if(events.begin(), events.end(), [&](const std::string& event) {
      return event.find(text) != std::string::npos;
    });
  };
  CHECK(count("\"auth.refused\"") == 2 * limits::kRefusalsWrittenSingly);
  CHECK(count("\"access.denied\"") == kRequests);
  REQUIRE(server.services().refusals->WriteAll(*server.services().access).has_value());
  CHECK(count("\"auth.refused_many\"") == 2);
  CHECK(count("\"detail\":\"no_certificate\",\"count\":496,\"since\":\"20") == 1);
  CHECK(count("\"actorName\":\"stranger\",\"address\":\"127.0.0.1\",\"detail\":\"unknown_client\","
              "\"count\":496") == 1);
}

TEST_CASE("automation is closed to plain clients, whatever they send", "[api][matrix]") {
  ServerFixture server;
  server.AddClient("plain", false, true, {"Security"});
  for (const api::Route& route : api::AllRoutes()) {
    if (route.caller != Caller::kAutomation) continue;
    TestRequest request = RequestOn(route);
    CAPTURE(request.method, request.target);
    const std::size_t before = RefusalsOf(server);
    CHECK(server.Send(TestCaller::Named("plain"), request).status == 403);
    CHECK(RefusalsOf(server) == before + 1);
    if (ReadsJson(route.body)) {
      request.body = "not json";
      CHECK(server.Send(TestCaller::Named("plain"), request).status == 403);
      CHECK(server.Send(TestCaller::Named("stranger"), request).status == 401);
    }
  }
}

TEST_CASE(
    "types and methods are judged before the caller, except where old clients know it otherwise",
    "[api][matrix]") {
  ServerFixture server;
  for (const api::Route& route : api::AllRoutes()) {
    TestRequest request = RequestOn(route);
    CAPTURE(request.method, request.target);
    TestRequest patch = request;
    patch.method = "PATCH";
    const TestReply not_allowed = server.Send(TestCaller::Nobody(), patch);
    CHECK(not_allowed.status == 405);
    CHECK(not_allowed.Header("Allow").find("OPTIONS") != std::string::npos);
    CHECK(not_allowed.Header("Allow").find("HEAD") == std::string::npos);
    patch.method = "TRACE";
    const TestReply other = server.Send(TestCaller::Nobody(), patch);
    CHECK(other.status == 405);
    CHECK(other.body.empty());

    TestRequest html = request;
    html.accept = "text/html";
    const bool ignored = route.any_accept || route.caller == Caller::kAnyone;
    if (!route.any_accept) CHECK(server.Send(TestCaller::Nobody(), html).status == 406);
    if (ignored && route.any_accept) CHECK(server.Send(TestCaller::Nobody(), html).status == 401);

    TestRequest text = request;
    text.body = "x=1";
    text.content_type = "text/plain";
    const int expected = server.Send(TestCaller::Nobody(), text).status;
    switch (route.body) {
      case BodyRule::kJson:
      case BodyRule::kJsonUnread:
        CHECK(expected == 415);
        text.content_type = "application/vnd.x+json";
        CHECK(server.Send(TestCaller::Nobody(), text).status == 415);
        text.content_type = "json";
        CHECK(server.Send(TestCaller::Nobody(), text).status == 400);
        break;
      case BodyRule::kJsonAfterAuth:
        CHECK(expected == 401);
        CHECK(server.Send(TestCaller::Named("client"), text).status == 415);
        break;
      case BodyRule::kIgnored:
        CHECK(expected == (route.caller == Caller::kAnyone ? 200 : 401));
        break;
    }
  }
}

TEST_CASE("bodies that are not what is asked for are 400 on every route that reads one",
          "[api][matrix]") {
  ServerFixture server;
  const std::string deep = std::string(17, '[') + std::string(17, ']');
  for (const api::Route& route : api::AllRoutes()) {
    if (!ReadsJson(route.body)) continue;
    TestRequest request = RequestOn(route);
    for (const std::string& body :
         std::vector<std::string>{"", " ", "null", "[]", "\"x\"", "{", "{} {}", R"({"a":1,"a":2})",
                                  "{\"a\":\"\xff\"}", deep, R"({"x":"\u0000"})"}) {
      request.body = body;
      request.content_type = "application/json";
      CAPTURE(request.method, request.target, body);
      const TestReply reply = server.Send(TestCaller::Named("client"), request);
      // Renaming a client looks for it first and reads nothing.
      const bool rename = route.pattern == "/automation/v2/clients/{}";
      CHECK((reply.status == 400 || (rename && reply.status == 404)));
    }
  }
}

TEST_CASE(
    "names that cannot be decoded are refused and unknown ones not found, on every route with a "
    "name",
    "[api][matrix]") {
  ServerFixture server;
  for (const api::Route& route : api::AllRoutes()) {
    if (route.pattern.find("{}") == std::string_view::npos) continue;
    for (const char* bad : {"%zz", "%00", "%ff", "a%2"}) {
      const TestRequest request = RequestOn(route, bad);
      CAPTURE(request.method, request.target);
      CHECK(server.Send(TestCaller::Named("client"), request).status == 400);
    }
    if (route.body == BodyRule::kIgnored && route.method == Method::kGet) {
      const TestReply reply =
          server.Send(TestCaller::Named("client"), RequestOn(route, "no-such-thing"));
      CAPTURE(route.pattern);
      CHECK((reply.status == 404 ||
             (route.pattern.find("deleted") != std::string_view::npos && reply.body == "[]")));
    }
  }
}
