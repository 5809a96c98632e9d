#include <catch2/catch.hpp>
#include <future>

#include "common/wire/json_gate.h"
#include "tests/support/server_fixture.h"

using namespace latchkey;
using namespace latchkey::testing;

namespace {

wire::JsonValue Json(const TestReply& reply) {
  INFO(reply.status << " " << reply.body);
  return Must(wire::ParseJson(reply.body));
}
std::string TextOf(const wire::JsonValue& object, std::string_view key) {
  return Must(object.OptionalText(key)).value_or("<absent>");
}
std::string GenerationOf(ServerFixture& server) {
  return std::to_string(server.root()->generation().value);
}

TestReply Changes(ServerFixture& server, const std::string& client, const std::string& query) {
  return server.Send(TestCaller::Named(client), {"GET", "/changes?" + query, "", {}, {}});
}

}  // namespace

TEST_CASE("a client without a position is told to take everything", "[api][feed]") {
  ServerFixture server;
  const wire::JsonValue answer = Json(Changes(server, "client", "since=0&wait=0"));
  CHECK(TextOf(answer, "reset") == "true");
  CHECK(TextOf(answer, "generation") == GenerationOf(server));
  CHECK(Changes(server, "client", "since=x").status == 400);
  CHECK(Changes(server, "client", "wait=-1").status == 400);
}

TEST_CASE("a client hears of its own secrets and of no other name", "[api][feed]") {
  ServerFixture server;
  const std::string since = "since=" + GenerationOf(server);
  const wire::JsonValue nothing = Json(Changes(server, "client", since));
  CHECK(nothing.Find("changed")->elements().empty());
  server.AddSecret("for_security", "12345", {"Security"});
  server.AddSecret("for_ios", "12345", {"iOS"});
  const wire::JsonValue one = Json(Changes(server, "client", since));
  REQUIRE(one.Find("changed")->elements().size() == 1);
  const wire::JsonValue& changed = one.Find("changed")->elements()[0];
  CHECK(TextOf(changed, "name") == "for_security");
  CHECK(TextOf(changed, "version") == "1");
  CHECK(TextOf(changed, "size") == "5");
  const std::string later = "since=" + TextOf(one, "generation");
  server.Call("DELETE", "/automation/v2/secrets/for_security");
  server.Call("DELETE", "/automation/v2/secrets/for_ios");
  const wire::JsonValue gone = Json(Changes(server, "client", later));
  REQUIRE(gone.Find("gone")->elements().size() == 1);
  CHECK(Must(gone.Find("gone")->elements()[0].AsText()) == "for_security");
}

TEST_CASE("a waiting client is woken by the commit that concerns it", "[api][feed]") {
  ServerFixture server;
  server.AddSecret("w", "1", {"Security"});
  const std::string since = "since=" + GenerationOf(server) + "&wait=30";
  auto answer = std::async(std::launch::async, [&] {
    const auto handler = server.NewHandler();
    return server.Send(*handler, TestCaller::Named("client"),
                       {"GET", "/changes?" + since, "", {}, {}});
  });
  while (server.services().feed->waiters() == 0) std::this_thread::yield();
  server.Call("POST", "/automation/v2/secrets/w/partialupdate",
              R"({"contentPresent":true,"content":"Mg=="})");
  const TestReply reply = answer.get();
  CHECK(reply.deferred);
  const wire::JsonValue json = Json(reply);
  REQUIRE(json.Find("changed")->elements().size() == 1);
  CHECK(TextOf(json.Find("changed")->elements()[0], "version") == "2");
}

TEST_CASE("what a client acknowledged is shown per secret", "[api][feed]") {
  ServerFixture server;
  server.AddSecret("s", "1", {"Security"});
  Changes(server, "client", "since=" + GenerationOf(server) + "&serving=" + GenerationOf(server));
  const auto of = [&](const std::string& name) {
    const wire::JsonValue list = Json(server.Get("/automation/v2/secrets/s/serving"));
    for (const auto& entry : list.elements())
      if (TextOf(entry, "client") == name)
        return TextOf(entry, "version") + "/" + TextOf(entry, "current") + "/" +
               TextOf(entry, "lastSeenSeconds");
    return std::string("none");
  };
  CHECK(of("client") == "1/true/" + std::to_string(server.clock().Seconds()));
  CHECK(of("CN=User1") == "<absent>/false/<absent>");
  CHECK(of("CN=User3") == "none");
  server.Call("POST", "/automation/v2/secrets/s/partialupdate",
              R"({"contentPresent":true,"content":"Mg=="})");
  CHECK(of("client") == "1/false/" + std::to_string(server.clock().Seconds()));
  CHECK(server.Get("/automation/v2/secrets/nope/serving").status == 404);
}

TEST_CASE("who can read a secret is listed with the group that lets him", "[api]") {
  ServerFixture server;
  CHECK(server.Get("/automation/v2/secrets/Hacking_Password/clients").body ==
        R"([{"client":"CN=User1","group":"Blackops"}])");
  CHECK(Json(server.Get("/automation/v2/secrets/General_Password/clients")).elements().size() == 5);
  CHECK(server.Get("/automation/v2/secrets/Versioned_Password/clients").body == "[]");
  CHECK(server.Get("/automation/v2/secrets/nope/clients").status == 404);
  // A disabled client can read nothing.
  server.Call("PUT", "/automation/v2/clients/CN=User1/state", R"({"enabled":false})");
  CHECK(server.Get("/automation/v2/secrets/Hacking_Password/clients").body == "[]");
}

TEST_CASE("access is explained", "[api]") {
  ServerFixture server;
  const auto access = [&](const std::string& query) {
    return server.Get("/automation/v2/access?" + query);
  };
  const wire::JsonValue yes = Json(access("client=CN%3DUser1&secret=General_Password"));
  CHECK(TextOf(yes, "allowed") == "true");
  CHECK(yes.Find("groups")->elements().size() == 3);
  for (const char* query : {"client=client&secret=Hacking_Password",
                            "client=nope&secret=General_Password", "client=client&secret=nope"}) {
    const wire::JsonValue no = Json(access(query));
    CHECK(TextOf(no, "allowed") == "false");
    CHECK_FALSE(TextOf(no, "reason").empty());
    CHECK(no.Find("groups")->elements().empty());
  }
  CHECK(access("client=client").status == 400);
}

TEST_CASE("history maps version numbers to ids, newest first, in stable pages", "[api]") {
  ServerFixture server;
  server.AddSecret("h", "0");
  for (int i = 0; i < 4; ++i)
    server.Call("POST", "/automation/v2/secrets/h", R"({"content":"MTI="})");
  const std::string history = "/automation/v2/secrets/h/history";
  const wire::JsonValue first = Json(server.Get(history + "?limit=2"));
  REQUIRE(first.elements().size() == 2);
  CHECK(TextOf(first.elements()[0], "number") == "5");
  CHECK(TextOf(first.elements()[0], "current") == "true");
  CHECK(TextOf(first.elements()[0], "createdBy") == "client");
  CHECK(TextOf(first.elements()[0], "version") ==
        std::to_string(server.root()->FindSecret(std::string_view("h"))->current().value));
  server.Call("POST", "/automation/v2/secrets/h", R"({"content":"MTI="})");
  const wire::JsonValue rest = Json(server.Get(history + "?after=4"));
  REQUIRE(rest.elements().size() == 3);
  CHECK(TextOf(rest.elements()[0], "number") == "3");
  CHECK(Json(server.Get(history + "?after=1")).elements().empty());
  CHECK(server.Get(history + "?limit=1001").status == 400);
  CHECK(server.Get("/automation/v2/secrets/nope/history").status == 404);
}

TEST_CASE("the state of clients is changed under its rules", "[api][I5]") {
  ServerFixture server;
  server.AddClient("robot", true, false);
  server.AddClient("plain", false, false, {"Security"});
  const auto put = [&](const std::string& caller, const std::string& client,
                       const std::string& body) {
    return server.Send(TestCaller::Named(caller),
                       {"PUT", "/automation/v2/clients/" + client + "/state", body, {}, {}});
  };
  const auto get = [&](const std::string& caller, const std::string& client) {
    return server.Send(TestCaller::Named(caller),
                       {"GET", "/automation/v2/clients/" + client + "/state", "", {}, {}});
  };
  CHECK(get("robot", "robot").body == R"({"enabled":true,"automation":true,"content":false})");
  CHECK(get("robot", "plain").body == R"({"enabled":true,"automation":false,"content":false})");
  CHECK(get("plain", "plain").status == 403);
  CHECK(get("robot", "nope").status == 404);
  CHECK(put("robot", "plain", R"({"automation":true})").body ==
        R"({"enabled":true,"automation":true,"content":false})");
  CHECK(put("robot", "plain", R"({"content":true})").status == 403);
  CHECK(put("robot", "robot", R"({"enabled":true})").status == 403);
  CHECK(put("client", "client", R"({"automation":false})").status == 403);
  CHECK(put("client", "plain", R"({"content":true,"automation":false})").body ==
        R"({"enabled":true,"automation":false,"content":true})");
  // Whoever lacks the bit may take it away, and leave it as it is, but not give it back.
  CHECK(put("robot", "plain", R"({"content":true})").status == 200);
  CHECK(put("robot", "plain", R"({"content":false})").status == 200);
  CHECK(put("robot", "plain", R"({"content":true})").status == 403);
  CHECK(put("robot", "nope", "{}").status == 404);
  CHECK(put("plain", "robot", "{}").status == 403);
  CHECK(server.Send(TestCaller::Named("plain"), {"GET", "/secret/General_Password", "", {}, {}})
            .status == 200);
  CHECK(put("client", "plain", R"({"enabled":false})").status == 200);
  CHECK(get("robot", "plain").body == R"({"enabled":false,"automation":false,"content":false})");
  CHECK(server.Send(TestCaller::Named("plain"), {"GET", "/secret/General_Password", "", {}, {}})
            .status == 401);
}

TEST_CASE("both audit chains are read in windows", "[api][audit]") {
  ServerFixture server;
  for (int i = 0; i < 5; ++i) server.AddGroup("g" + std::to_string(i));
  const auto audit = [&](const std::string& query) {
    return Json(server.Get("/automation/v2/audit?" + query));
  };
  const wire::JsonValue newest = audit("chain=store&limit=2");
  REQUIRE(newest.elements().size() == 2);
  CHECK(TextOf(newest.elements()[1], "type") == "group.create");
  CHECK(TextOf(newest.elements()[1], "chain") == "store");
  const wire::JsonValue from = audit("chain=store&after=1&limit=3");
  CHECK(TextOf(from.elements()[0], "seq") == "2");
  server.Get("/secret/General_Password");
  const wire::JsonValue access = audit("chain=access&limit=1");
  CHECK(TextOf(access.elements()[0], "type") == "secret.read");
  // Following the chain does not feed it: a page of nothing but readings is not recorded again.
  const std::string last = std::to_string(server.services().access->Last().head.seq);
  audit("chain=access&after=" + last);
  CHECK(std::to_string(server.services().access->Last().head.seq) == last);
  for (const char* bad : {"chain=x", "limit=0", "limit=1001", "after=-1", "after=x"})
    CHECK(server.Get("/automation/v2/audit?" + std::string(bad)).status == 400);
}

TEST_CASE("an unknown certificate makes a client only where that is switched on", "[api][I4]") {
  ServerFixture::Config config;
  config.identity.create_missing_clients = true;
  ServerFixture server(config);
  const TestCaller fresh = TestCaller::Named("fresh");
  const TestReply reply = server.Send(fresh, {"GET", "/secrets", "", {}, {}});
  CHECK(reply.status == 200);
  CHECK(reply.body == "[]");
  // Whatever bookkeeping that request had queued is done after this.
  server.Run<service::Nothing>(
      [](service::WriteContext&) -> Result<service::Nothing> { return service::Nothing{}; });
  const catalog::RootRef root = server.root();
  const catalog::Client* client = root->FindClient(std::string_view("fresh"));
  REQUIRE(client != nullptr);
  CHECK(client->row.created_by == "automatic");
  CHECK(client->groups.empty());
  CHECK_FALSE(client->row.automation);
  CHECK_FALSE(client->row.last_seen.has_value());
  CHECK(server.Send(fresh, {"GET", "/secret/General_Password", "", {}, {}}).status == 403);
  CHECK(server.Send(TestCaller::Named("other"), {"GET", "/automation/v2/secrets", "", {}, {}})
            .status == 401);
  CHECK(server.root()->FindClient(std::string_view("other")) == nullptr);
  // A POST keeps its body over the creation.
  CHECK(server
            .Send(TestCaller::Named("poster"),
                  {"POST", "/batchsecret", R"({"secrets":["General_Password"]})", {}, {}})
            .status == 403);
}

TEST_CASE("last-seen is written at most once a day and never twice in the queue", "[api]") {
  ServerFixture server;
  const auto last_seen = [&] {
    server.Run<service::Nothing>(
        [](service::WriteContext&) -> Result<service::Nothing> { return service::Nothing{}; });
    return server.root()->FindClient(std::string_view("client"))->row.last_seen;
  };
  CHECK_FALSE(last_seen().has_value());
  server.Get("/secrets");
  const std::int64_t first = server.clock().Seconds();
  CHECK(last_seen() == first);
  CHECK(server.root()->FindClient(std::string_view("client"))->row.expiration == 2'376'326'683);
  server.clock().Advance(std::chrono::hours(24));
  server.Get("/secrets");
  CHECK(last_seen() == first);
  server.clock().Advance(std::chrono::seconds(1));
  server.Get("/secrets");
  CHECK(last_seen() == first + 86'401);
  server.Restart();
  CHECK(server.root()->FindClient(std::string_view("client"))->row.last_seen == first + 86'401);
}
