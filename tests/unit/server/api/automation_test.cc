#include <catch2/catch.hpp>
#include <set>
#include <thread>

#include "common/wire/json_gate.h"
#include "tests/support/server_fixture.h"

using namespace latchkey;
using namespace latchkey::testing;
using service::ChainName;

namespace {

constexpr const char* kSecrets = "/automation/v2/secrets";

wire::JsonValue Json(const TestReply& reply) {
  INFO(reply.status << " " << reply.body);
  return Must(wire::ParseJson(reply.body));
}
std::string TextOf(const wire::JsonValue& object, std::string_view key) {
  return Must(object.OptionalText(key)).value_or("<absent>");
}
std::set<std::string> Texts(const TestReply& reply) {
  std::set<std::string> texts;
  const wire::JsonValue list = Json(reply);
  for (const auto& element : list.elements()) texts.insert(Must(element.AsText()));
  return texts;
}
std::string Path(const std::string& name, const std::string& rest = "") {
  return std::string(kSecrets).append("/").append(name).append(rest);
}

std::string Create(const std::string& name, const std::string& more = "") {
  return R"({"name":")" + name + R"(","content":"aGVsbG8=")" + more + "}";
}

}  // namespace

TEST_CASE("a created secret can be read, described and is announced with its headers", "[api]") {
  ServerFixture server;
  const TestReply created = server.Call(
      "POST", kSecrets,
      Create(
          "t1",
          R"(,"description":"d","metadata":{"zeta":"1","alpha":"2"},"type":"file","groups":["Security","nope"],"expiry":1900000000)"));
  CHECK(created.status == 201);
  CHECK(created.body.empty());
  CHECK(created.Header("Location") == "https://localhost:4444/automation/v2/secrets/t1");
  CHECK(created.Header("X-Latchkey-Version") == "1");
  CHECK(created.Header("X-Latchkey-Generation") ==
        std::to_string(server.root()->generation().value));
  const wire::JsonValue detail = Json(server.Get(Path("t1")));
  CHECK(TextOf(detail, "createdBy") == "client");
  CHECK(TextOf(detail, "type") == "file");
  CHECK(TextOf(detail, "expiry") == "1900000000");
  CHECK(TextOf(detail, "createdAtSeconds") == std::to_string(server.clock().Seconds()));
  const TestReply delivered = server.Get("/secret/t1");
  CHECK(delivered.body.find(R"("zeta":"1","alpha":"2"})") != std::string::npos);
}

TEST_CASE("names are judged by the same rules on every way in", "[api]") {
  ServerFixture::Config config;
  config.settings.reserved_prefixes = {{"Security", "sec-"}, {"Web", "sec-web-"}};
  ServerFixture server(config);
  server.AddSecret("present", "x");
  const std::string long_name(196, 'n');
  for (const std::string& bad :
       std::vector<std::string>{".hidden", long_name, "sec-a", "ctl\\u0001"}) {
    CAPTURE(bad);
    CHECK(server.Call("POST", kSecrets, Create(bad)).status == 400);
  }
  for (const std::string& bad : std::vector<std::string>{".hidden", long_name, "sec-a", "ctl%01"}) {
    CAPTURE(bad);
    CHECK(server.Call("POST", Path(bad), R"({"content":"aGVsbG8="})").status == 400);
    CHECK(server.Call("POST", Path("present", "/rename/" + bad)).status == 400);
  }
  CHECK(server.Call("POST", kSecrets, Create("sec-a", R"(,"owner":"Security")")).status == 201);
  CHECK(server.Call("POST", Path("sec-a", "/partialupdate"), R"({"ownerPresent":true,"owner":""})")
            .status == 400);
  // Overlapping prefixes with different owners make a name impossible.
  CHECK(server.Call("POST", kSecrets, Create("sec-web-a", R"(,"owner":"Security")")).status == 400);
  CHECK(server.Call("POST", kSecrets, Create("sec-web-a", R"(,"owner":"Web")")).status == 400);
  CHECK(server.Call("POST", kSecrets, Create(std::string(195, 'n'))).status == 201);
  CHECK(server.Get(Path(".hidden")).status == 404);
}

TEST_CASE("content, metadata and texts have limits that answers name", "[api]") {
  ServerFixture::Config config;
  config.settings.max_content_bytes = 6;
  ServerFixture server(config);
  CHECK(server.Call("POST", kSecrets, R"({"name":"a","content":""})").status == 400);
  CHECK(server.Call("POST", kSecrets, R"({"name":"six","content":"MTIzNDU2"})").status == 201);
  const TestReply seven =
      server.Call("POST", kSecrets, R"({"name":"seven","content":"MTIzNDU2Nw=="})");
  CHECK(seven.status == 413);
  CHECK(seven.body.find("larger than 6 bytes") != std::string::npos);
  CHECK(server.Call("POST", Path("six"), R"({"content":"MTIzNDU2Nw=="})").status == 413);
  CHECK(server
            .Call("POST", Path("six", "/partialupdate"),
                  R"({"contentPresent":true,"content":"MTIzNDU2Nw=="})")
            .status == 413);
  CHECK(
      server.Call("POST", Path("six", "/partialupdate"), R"({"contentPresent":true,"content":""})")
          .status == 400);
  for (const char* metadata : {R"({"Checksum":"x"})", R"({"secret":"x"})", R"({"mode":"4755"})",
                               R"({"mode":"abc"})", R"({"filename":"../x"})", R"({"":"x"})"}) {
    CAPTURE(metadata);
    CHECK(server.Call("POST", kSecrets, Create("m", std::string(R"(,"metadata":)") + metadata))
              .status == 400);
    CHECK(server
              .Call("POST", Path("six", "/partialupdate"),
                    std::string(R"({"metadataPresent":true,"metadata":)") + metadata + "}")
              .status == 400);
  }
  CHECK(server.Call("POST", kSecrets, Create("t", R"(,"type":")" + std::string(21, 't') + "\""))
            .status == 400);
  CHECK(
      server
          .Call("POST", kSecrets, Create("t", R"(,"description":")" + std::string(256, 'd') + "\""))
          .status == 400);
  CHECK(server.Call("POST", kSecrets, Create("t", R"(,"owner":"no-such-group")")).status == 400);
}

TEST_CASE("create-or-update resets what is left out, except the owner", "[api]") {
  ServerFixture server;
  server.Call(
      "POST", kSecrets,
      Create("u",
             R"(,"owner":"Web","description":"d","metadata":{"a":"b"},"type":"t","expiry":5)"));
  CHECK(server.Call("POST", Path("u"), R"({"content":"bmV3"})").Header("X-Latchkey-Version") ==
        "2");
  const wire::JsonValue detail = Json(server.Get(Path("u")));
  CHECK(TextOf(detail, "owner") == "Web");
  CHECK(TextOf(detail, "description").empty());
  CHECK(TextOf(detail, "type").empty());
  CHECK(TextOf(detail, "expiry") == "0");
  CHECK(detail.Find("metadata")->members().empty());
  server.Call("POST", Path("u"), R"({"content":"bmV3","owner":""})");
  CHECK(TextOf(Json(server.Get(Path("u"))), "owner") == "Web");
  server.Call("POST", Path("u"), R"({"content":"bmV3","owner":"iOS"})");
  CHECK(TextOf(Json(server.Get(Path("u"))), "owner") == "iOS");
}

TEST_CASE("a partial update keeps what it does not name and always adds a version", "[api]") {
  ServerFixture server;
  server.Call(
      "POST", kSecrets,
      Create(
          "p",
          R"(,"owner":"Web","description":"d","metadata":{"mode":"0400"},"groups":["Security"])"));
  const std::string before = TextOf(Json(server.Get(Path("p"))), "checksum");
  CHECK(server.Call("POST", Path("p", "/partialupdate"), "{}").Header("X-Latchkey-Version") == "2");
  CHECK(server
            .Call("POST", Path("p", "/partialupdate"),
                  R"({"metadataPresent":true,"metadata":{"mode":"0440"}})")
            .status == 201);
  wire::JsonValue detail = Json(server.Get(Path("p")));
  CHECK(TextOf(detail, "checksum") == before);  // same content of the same secret
  CHECK(TextOf(detail, "description") == "d");
  CHECK(TextOf(*detail.Find("metadata"), "mode") == "0440");
  CHECK(TextOf(Json(server.Get("/secret/p")), "secret") == "aGVsbG8=");
  server.Call("POST", Path("p", "/partialupdate"),
              R"({"descriptionPresent":true,"ownerPresent":true})");
  detail = Json(server.Get(Path("p")));
  CHECK(TextOf(detail, "description").empty());
  CHECK(TextOf(detail, "owner") == "<absent>");
  CHECK(TextOf(*detail.Find("metadata"), "mode") == "0440");
  CHECK(server.Call("POST", Path("nope", "/partialupdate"), "{}").status == 404);
}

TEST_CASE("rollback moves the pointer and nothing else", "[api]") {
  ServerFixture server;
  server.Call("POST", kSecrets,
              Create("r", R"(,"metadata":{"v":"1"},"expiry":7,"groups":["Security"])"));
  const std::string first = TextOf(Json(server.Get(Path("r"))), "version");
  server.Call("POST", Path("r"), R"({"content":"dHdv","description":"now","metadata":{"v":"2"}})");
  const TestReply back =
      server.Call("POST", Path("r", "/setversion"), R"({"name":"r","version":)" + first + "}");
  CHECK(back.status == 201);
  CHECK(back.Header("Location").empty());
  CHECK(back.Header("X-Latchkey-Version") == "1");
  const wire::JsonValue detail = Json(server.Get(Path("r")));
  CHECK(TextOf(detail, "version") == first);
  CHECK(TextOf(detail, "expiry") == "7");
  CHECK(TextOf(*detail.Find("metadata"), "v") == "1");
  CHECK(TextOf(detail, "description") == "now");
  CHECK(TextOf(Json(server.Get("/secret/r")), "secret") == "aGVsbG8=");
  // The next version counts on from the newest, not from the current one.
  CHECK(server.Call("POST", Path("r"), R"({"content":"dGhyZWU="})").Header("X-Latchkey-Version") ==
        "3");
}

TEST_CASE("a version of another secret cannot be made current or read through this one", "[api]") {
  ServerFixture server;
  server.AddSecret("a", "x");
  server.AddSecret("b", "y");
  const std::string other = TextOf(Json(server.Get(Path("b"))), "version");
  const TestReply set =
      server.Call("POST", Path("a", "/setversion"), R"({"name":"a","version":)" + other + "}");
  CHECK(set.status == 400);
  CHECK(set.body.find("The requested version " + other +
                      " is not a known version of this secret") != std::string::npos);
  CHECK(server.Call("POST", Path("a", "/setversion"), R"({"name":"b","version":)" + other + "}")
            .status == 404);
  CHECK(server.Call("POST", Path("a", "/setversion"), R"({"name":"a"})").status == 400);
  const std::string at = std::string(kSecrets) + "/request/contents-at-version";
  CHECK(server.Call("POST", at, R"({"secret":"a","version":)" + other + "}").status == 404);
  CHECK(server.Call("POST", at, R"({"secret":"b","version":)" + other + "}").body ==
        R"({"secret":"eQ=="})");
}

TEST_CASE("versions are listed newest first, also within one second", "[api]") {
  ServerFixture server;
  server.AddSecret("v", "0");
  for (int i = 1; i < 5; ++i)
    server.Call("POST", Path("v"),
                R"({"content":"MTI=","metadata":{"n":")" + std::to_string(i) + "\"}}");
  const wire::JsonValue all = Json(server.Get(Path("v", "/versions?versionIdx=0&numVersions=10")));
  REQUIRE(all.elements().size() == 5);
  for (std::size_t i = 0; i + 1 < 5; ++i)
    CHECK(TextOf(*all.elements()[i].Find("metadata"), "n") == std::to_string(4 - i));
  CHECK(Json(server.Get(Path("v", "/versions?versionIdx=3&numVersions=10"))).elements().size() ==
        2);
  CHECK(server.Get(Path("v", "/versions")).status == 404);
  CHECK(server.Get(Path("v", "/versions?versionIdx=5&numVersions=10")).status == 404);
  CHECK(server.Get(Path("v", "/versions?versionIdx=-1&numVersions=10")).status == 400);
  CHECK(server.Get(Path("v", "/versions?versionIdx=0&numVersions=1001")).status == 400);
  CHECK(server.Get(Path("v", "/versions?versionIdx=x&numVersions=1")).status == 404);
}

TEST_CASE("a pruned version cannot be read any more, even if it was a moment ago", "[api]") {
  ServerFixture server;
  server.AddSecret("gone", "first");
  const std::string first = TextOf(Json(server.Get(Path("gone"))), "version");
  const std::string at = std::string(kSecrets) + "/request/contents-at-version";
  const std::string asked = R"({"secret":"gone","version":)" + first + "}";
  for (int i = 0; i < 12; ++i) server.Call("POST", Path("gone"), R"({"content":"MTI="})");
  CHECK(server.Call("POST", at, asked).status == 200);
  server.clock().Advance(std::chrono::hours(16 * 24));
  server.Call("POST", Path("gone"), R"({"content":"MTI="})");
  CHECK(server.Call("POST", at, asked).status == 404);
}

TEST_CASE("old versions are pruned beyond ten, young ones never", "[api]") {
  ServerFixture server;
  server.AddSecret("old", "0");
  for (int i = 0; i < 14; ++i) server.Call("POST", Path("old"), R"({"content":"MTI="})");
  server.clock().Advance(std::chrono::hours(16 * 24));
  CHECK(Json(server.Get(Path("old", "/versions?versionIdx=0&numVersions=100"))).elements().size() ==
        15);
  server.Call("POST", Path("old"), R"({"content":"MTI="})");
  CHECK(Json(server.Get(Path("old", "/versions?versionIdx=0&numVersions=100"))).elements().size() ==
        11);
  for (int i = 0; i < 14; ++i) server.Call("POST", Path("old"), R"({"content":"MTI="})");
  CHECK(Json(server.Get(Path("old", "/versions?versionIdx=0&numVersions=100"))).elements().size() ==
        25);
}

TEST_CASE("deletion frees the name, undelete brings series and grants back", "[api]") {
  ServerFixture server;
  server.AddSecret("d", "first", {"Security"});
  CHECK(server.Call("DELETE", Path("d")).status == 204);
  CHECK(server.Get("/secret/d").status == 404);
  CHECK(server.Call("DELETE", Path("d")).body ==
        R"({"code":404,"message":"Secret series not found."})");
  CHECK(Json(server.Get(Path("deleted/d"))).elements().size() == 1);
  server.AddSecret("d", "second");
  CHECK(server.Call("POST", Path("d", "/undelete")).status == 409);
  CHECK(Json(server.Get(Path("d", "/versions?versionIdx=0&numVersions=9"))).elements().size() == 1);
  CHECK(server.Call("DELETE", Path("d") + "?deletionMode=hard").status == 204);
  CHECK(Json(server.Get(Path("deleted/d"))).elements().size() == 1);
  CHECK(server.Call("POST", Path("d", "/undelete")).status == 201);
  CHECK(TextOf(Json(server.Get("/secret/d")), "secret") == "Zmlyc3Q=");
  CHECK(server.Call("POST", Path("d", "/undelete")).status == 409);
  CHECK(server.Call("POST", Path("never", "/undelete")).status == 404);
  const TestReply bogus = server.Call("DELETE", Path("d") + "?deletionMode=bogus");
  CHECK(bogus.status == 400);
  CHECK(
      bogus.body ==
      R"({"errors":["query param deletionMode bogus is not a valid value for enum SecretDeletionMode"]})");
}

TEST_CASE("grants are changed by name and removal wins", "[api]") {
  ServerFixture server;
  server.AddSecret("g", "x", {"Security"});
  const std::string groups = Path("g", "/groups");
  CHECK(Texts(server.Call(
            "PUT", groups,
            R"({"addGroups":["Web","iOS","nope"],"removeGroups":["Security","iOS"]})")) ==
        std::set<std::string>{"Web"});
  CHECK(Texts(server.Call("PUT", groups, R"({"addGroups":["Web"],"removeGroups":["Security"]})")) ==
        std::set<std::string>{"Web"});
  CHECK(Texts(server.Get(groups)) == std::set<std::string>{"Web"});
  CHECK(
      server.Call("PUT", Path("nope", "/groups"), R"({"addGroups":[],"removeGroups":[]})").status ==
      404);
  CHECK(server.Call("PUT", groups, "{}").status == 400);
}

TEST_CASE("slices go by time of creation and then by order of insertion", "[api]") {
  ServerFixture server;
  CHECK(server.Get(std::string(kSecrets) + "?idx=1&num=2&newestFirst=false").body ==
        R"(["Hacking_Password","Database_Password"])");
  CHECK(server.Get(std::string(kSecrets) + "?idx=0&num=2").body ==
        R"(["Versioned_Password","NonexistentOwner_Pass"])");
  CHECK(server.Get(std::string(kSecrets) + "?idx=100&num=2").body == "[]");
  CHECK(server.Get(std::string(kSecrets) + "?idx=0&num=0").body == "[]");
  CHECK(server.Get(std::string(kSecrets) + "?idx=-1&num=2").status == 400);
  CHECK(server.Get(std::string(kSecrets) + "?idx=0&num=1001").status == 400);
  CHECK(server.Get(std::string(kSecrets) + "?idx=x&num=2").status == 404);
  CHECK(Texts(server.Get(std::string(kSecrets) + "?idx=1")).size() == 6);
}

TEST_CASE("clients are created, enrolled and deleted", "[api]") {
  ServerFixture server;
  const std::string clients = "/automation/v2/clients";
  CHECK(
      server
          .Call(
              "POST", clients,
              R"({"name":"c2","description":"d","groups":["Web","nope","Web"],"spiffeId":"spiffe://example.org/c2"})")
          .Header("Location") == "https://localhost:4444/automation/v2/clients/c2");
  CHECK(server.Call("POST", clients, R"({"name":"c2"})").status == 409);
  CHECK(server.Call("POST", clients, R"({"name":"c3","spiffeId":"spiffe://example.org/c2"})")
            .status == 409);
  CHECK(server.Call("POST", clients, R"({"name":"c4","spiffeId":"not a spiffe"})").status == 400);
  CHECK(server.Call("POST", clients, R"({"name":")" + std::string(256, 'c') + "\"}").status == 400);
  CHECK(Texts(server.Get(clients + "/c2/groups")) == std::set<std::string>{"Web"});
  CHECK(Texts(server.Call("PUT", clients + "/c2/groups",
                          R"({"addGroups":["iOS","nope"],"removeGroups":["Web"]})")) ==
        std::set<std::string>{"iOS"});
  CHECK(TextOf(Json(server.Get(clients + "/c2")), "spiffeId") == "spiffe://example.org/c2");
  CHECK(Texts(server.Get(clients + "/c2/secrets")) == std::set<std::string>{"General_Password"});
  CHECK(server.Call("DELETE", clients + "/c2").status == 204);
  CHECK(server.Call("DELETE", clients + "/c2").status == 404);
  CHECK(server.Get(clients + "/c2").status == 404);
  CHECK(server.Call("POST", clients + "/nope", R"({"name":"x"})").status == 404);
  CHECK(server.Call("POST", clients + "/client", R"({"name":"x"})").status == 400);
}

TEST_CASE("the last client that can administer is not deleted", "[api]") {
  ServerFixture server;
  const std::string path = "/automation/v2/clients/client";
  const auto refused = server.Call("DELETE", path);
  CHECK(refused.status == 409);
  CHECK(refused.body.find("is the last enabled one with the automation bit") != std::string::npos);
  CHECK(server.Get(path).status == 200);
  server.AddClient("other", true, false);
  CHECK(server.Call("DELETE", path).status == 204);
}

TEST_CASE("a deleted group takes memberships, grants and ownership with it", "[api]") {
  ServerFixture server;
  server.Call("POST", kSecrets, Create("owned", R"(,"owner":"Security")"));
  server.Call("POST", kSecrets, Create("owned_deleted", R"(,"owner":"Security")"));
  server.Call("DELETE", Path("owned_deleted"));
  CHECK(server.Get("/secret/Database_Password").status == 200);
  CHECK(server.Call("DELETE", "/automation/v2/groups/Security").status == 204);
  CHECK(server.Get("/secret/Database_Password").status == 403);
  CHECK(TextOf(Json(server.Get(Path("owned"))), "owner") == "<absent>");
  server.Call("POST", Path("owned_deleted", "/undelete"));
  CHECK(TextOf(Json(server.Get(Path("owned_deleted"))), "owner") == "<absent>");
  CHECK(Texts(server.Get("/automation/v2/clients/client/groups")).empty());
  CHECK(server.Call("DELETE", "/automation/v2/groups/Security").status == 404);
  // Everything verifies from the files, too.
  server.Restart();
  CHECK(server.Get(Path("owned")).status == 200);
  CHECK(server.root()->FindGroup(std::string_view("Security")) == nullptr);
}

// Memberships and grants bind only ids in their MACs: an id that came back would bring old rows back to life.
TEST_CASE("the id of a deleted group is not given to the next one, nor is any counted", "[api]") {
  ServerFixture server;
  std::vector<std::int64_t> ids;
  for (int i = 0; i < 3; ++i) {
    REQUIRE(server.Call("POST", "/automation/v2/groups", R"({"name":"g"})").status == 201);
    ids.push_back(server.root()->FindGroup(std::string_view("g"))->row.id.value);
    CHECK((ids.back() > 0 && ids.back() <= limits::kMaxGroupId));
    REQUIRE(server.Call("DELETE", "/automation/v2/groups/g").status == 204);
  }
  CHECK(ids[1] != ids[0]);
  CHECK(ids[1] - ids[0] != ids[2] - ids[1]);
}

TEST_CASE("group details and listings carry owners and members", "[api]") {
  ServerFixture server;
  server.Call("POST", kSecrets, Create("mine", R"(,"owner":"Web","groups":["Web"])"));
  const std::string web = "/automation/v2/groups/Web";
  const wire::JsonValue detail = Json(server.Get(web));
  CHECK(detail.Find("clients")->elements().size() == 3);
  CHECK(detail.Find("secrets")->elements().size() == 5);
  const wire::JsonValue owned = Json(server.Get(web + "/ownedsecretsandgroups"));
  REQUIRE(owned.elements().size() == 1);
  CHECK(TextOf(*owned.elements()[0].Find("secret"), "owner") == "Web");
  CHECK(Json(server.Get(web + "/secretsandgroups")).elements().size() == 5);
  CHECK(Json(server.Get(web + "/secrets")).elements().size() == 5);
  CHECK(Json(server.Get(web + "/clients")).elements().size() == 3);
  for (const char* rest :
       {"", "/secrets", "/secretsandgroups", "/ownedsecretsandgroups", "/clients"})
    CHECK(server.Get("/automation/v2/groups/nope" + std::string(rest)).status == 404);
}

TEST_CASE("contents are given to automation only with the content bit", "[api][I5]") {
  ServerFixture server;
  server.AddClient("robot", true, false);
  const TestCaller robot = TestCaller::Named("robot");
  const std::string contents = std::string(kSecrets) + "/request/contents";
  const std::string asked = R"({"secrets":["General_Password","nope","General_Password","nope"]})";
  CHECK(server.Call("POST", contents, asked).body ==
        R"({"successSecrets":{"General_Password":"YXNkZGFz"},"missingSecrets":["nope"]})");
  CHECK(server.Call("POST", contents, R"({"secrets":[]})").body ==
        R"({"successSecrets":{},"missingSecrets":[]})");
  CHECK(server.Send(robot, {"POST", contents, asked, {}, {}}).status == 403);
  CHECK(server
            .Send(robot, {"POST",
                          contents + "-at-version",
                          R"({"secret":"General_Password","version":940})",
                          {},
                          {}})
            .status == 403);
  // It may create, grant and list all the same.
  CHECK(server.Send(robot, {"POST", kSecrets, Create("by_robot"), {}, {}}).status == 201);
  CHECK(server.Send(robot, {"GET", Path("General_Password"), "", {}, {}}).status == 200);
}

TEST_CASE("an automation client without the content bit reads nothing through groups it joins",
          "[api][I5]") {
  ServerFixture server;
  server.AddClient("robot", true, false);
  const TestCaller robot = TestCaller::Named("robot");
  REQUIRE(
      server.Send(robot, {"POST", kSecrets, Create("s", R"(,"groups":["Web"])"), {}, {}}).status ==
      201);
  REQUIRE(server
              .Send(robot, {"PUT",
                            "/automation/v2/clients/robot/groups",
                            R"({"addGroups":["Web"],"removeGroups":[]})",
                            {},
                            {}})
              .status == 200);
  const std::string batch = R"({"secrets":["s"]})";
  for (const TestReply& refused : {server.Send(robot, {"GET", "/secret/s", "", {}, {}}),
                                   server.Send(robot, {"GET", "/secret/%73", "", {}, {}}),
                                   server.Send(robot, {"POST", "/batchsecret", batch, {}, {}})}) {
    CHECK(refused.status == 403);
    CHECK(refused.body.find("aGVsbG8") == std::string::npos);
    const auto events = server.Events(ChainName::kAccess);
    REQUIRE_FALSE(events.empty());
    CHECK(events.back().find("no_content_bit") != std::string::npos);
  }
  // What it may not read it cannot probe for either, and a plain member reads.
  CHECK(server.Send(robot, {"GET", "/secret/nope", "", {}, {}}).status == 403);
  server.AddClient("plain", false, false);
  REQUIRE(server
              .Send(robot, {"PUT",
                            "/automation/v2/clients/plain/groups",
                            R"({"addGroups":["Web"],"removeGroups":[]})",
                            {},
                            {}})
              .status == 200);
  const TestCaller plain = TestCaller::Named("plain");
  CHECK(server.Send(plain, {"GET", "/secret/s", "", {}, {}}).status == 200);
  CHECK(server.Send(plain, {"POST", "/batchsecret", batch, {}, {}}).status == 200);
}

TEST_CASE("of fifty creations of one name exactly one succeeds", "[api]") {
  ServerFixture server;
  std::atomic<int> created{0}, conflicts{0}, other{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 10; ++t) {
    threads.emplace_back([&] {
      const auto handler = server.NewHandler();
      for (int i = 0; i < 5; ++i) {
        const TestReply reply = server.Send(*handler, TestCaller::Named("client"),
                                            {"POST", kSecrets, Create("same"), {}, {}});
        ++(reply.status == 201 ? created : reply.status == 409 ? conflicts : other);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(created == 1);
  CHECK(conflicts == 49);
  CHECK(other == 0);
  CHECK(Json(server.Get(Path("same", "/versions?versionIdx=0&numVersions=9"))).elements().size() ==
        1);
}

TEST_CASE("a write is one event of the store chain, a refused one is in the access chain",
          "[api][audit]") {
  ServerFixture server;
  const std::size_t before = server.Events(ChainName::kStore).size();
  server.Call("POST", kSecrets, Create("e", R"(,"groups":["Web"])"));
  auto events = server.Events(ChainName::kStore);
  REQUIRE(events.size() == before + 2);
  CHECK(events[before].find(R"("secret.create")") != std::string::npos);
  CHECK(events[before + 1].find(R"("grant.add")") != std::string::npos);
  server.Call("POST", kSecrets, Create("e"));
  CHECK(server.Events(ChainName::kStore).size() == before + 2);
  const auto access = server.Events(ChainName::kAccess);
  REQUIRE_FALSE(access.empty());
  CHECK(access.back().find(R"("mutation.failed")") != std::string::npos);
  CHECK(access.back().find("aGVsbG8") == std::string::npos);
}

TEST_CASE("a use case that fails half way leaves store, catalog and chain as they were",
          "[service]") {
  ServerFixture server;
  const auto before = server.root();
  const auto head = server.services().chain->Last();
  const auto result = server.services().writer->Run<service::Nothing>(
      ServerFixture::Operator(), {},
      [](service::WriteContext& context) -> Result<service::Nothing> {
        store::GroupRow row;
        row.id = GroupId{77};
        row.name = "half";
        row.metadata = "{}";
        RETURN_IF_ERROR(context.InsertGroup(row));
        RETURN_IF_ERROR(context.Audit(audit::EventType::kGroupCreate, [](audit::Event&) {}));
        return Error{Errc::kConflict, "on purpose"};
      });
  CHECK_FALSE(result.has_value());
  CHECK(server.root()->FindGroup(std::string_view("half")) == nullptr);
  CHECK(server.root()->generation() == before->generation());
  CHECK(server.services().chain->Last().head == head.head);
  // The chain goes on from where it was, and everything loads again.
  CHECK(server.Call("POST", "/automation/v2/groups", R"({"name":"half"})").status == 201);
  server.Restart();
  CHECK(server.root()->FindGroup(std::string_view("half")) != nullptr);
}
