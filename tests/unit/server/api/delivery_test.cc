#include <catch2/catch.hpp>
#include <thread>

#include "common/wire/base64.h"
#include "common/wire/json_gate.h"
#include "tests/support/server_fixture.h"

using namespace latchkey;
using namespace latchkey::testing;
using service::ChainName;

namespace {

wire::JsonValue Json(const TestReply& reply) {
  return Must(wire::ParseJson(reply.body));
}

std::string TextOf(const wire::JsonValue& object, std::string_view key) {
  const auto text = object.OptionalText(key);
  REQUIRE(text.has_value());
  return text->value_or("<absent>");
}

std::size_t CountOf(const std::vector<std::string>& events, const std::string& part) {
  return static_cast<std::size_t>(
      std::count_if(events.begin(), events.end(),
                    [&](const std::string& e) { return e.find(part) != std::string::npos; }));
}

}  // namespace

TEST_CASE("a granted secret is delivered with the members in the order old clients compare",
          "[api]") {
  ServerFixture server;
  const TestReply reply = server.Get("/secret/General_Password");
  CHECK(reply.status == 200);
  CHECK(reply.content_type == "application/json");
  const catalog::RootRef root = server.root();
  const std::string checksum =
      HexUpper(root->FindSecret(std::string_view("General_Password"))->checksum());
  CHECK(
      reply.body ==
      R"({"name":"General_Password","secret":"YXNkZGFz","secretLength":6,"checksum":")" + checksum +
          R"(","creationDate":"2011-09-29T15:46:00.000Z","updateDate":"2011-09-29T15:46:00.000Z"})");
  CHECK(reply.Header("X-Latchkey-Version") == "1");
  CHECK(reply.Header("X-Latchkey-Generation") == std::to_string(root->generation().value));
}

TEST_CASE("metadata is flattened behind the members, in its own order", "[api]") {
  ServerFixture server;
  const std::string body = server.Get("/secret/NonexistentOwner_Pass").body;
  CHECK(body.find(R"(.000Z","owner":"NonExistant","mode":"0400"})") != std::string::npos);
}

TEST_CASE("contents of every length around the encoder's blocks arrive whole", "[api]") {
  ServerFixture server;
  for (const std::size_t size :
       {1u, 2u, 3u, 11u, 12u, 13u, 1000u, 65535u, 65536u, 65537u, 1024u * 1024u}) {
    std::string content(size, '\0');
    for (std::size_t i = 0; i < size; ++i) content[i] = static_cast<char>(i * 31 + size);
    const std::string name = "size_" + std::to_string(size);
    server.AddSecret(name, content, {"Security"});
    const TestReply reply = server.Get("/secret/" + name);
    REQUIRE(reply.status == 200);
    const wire::JsonValue json = Json(reply);
    CHECK(TextOf(json, "secretLength") == std::to_string(size));
    const SecretBuffer decoded = Must(wire::Base64Decode(TextOf(json, "secret")));
    CHECK(AsText(decoded.bytes()) == content);
  }
}

TEST_CASE("an ungranted secret is refused and an unknown one is not found", "[api]") {
  ServerFixture server;
  const TestReply forbidden = server.Get("/secret/Hacking_Password");
  CHECK(forbidden.status == 403);
  CHECK(forbidden.body ==
        R"({"code":403,"message":"Access denied: client at '/secret/Hacking_Password'"})");
  const std::string not_found = R"({"code":404,"message":"HTTP 404 Not Found"})";
  for (const char* target :
       {"/secret/does-not-exist", "/secret/Deleted_Secret", "/secret/general_password",
        "/secret/a%20b", "/secret/..%2Fsecrets", "/secret", "/secret/"}) {
    CAPTURE(target);
    const TestReply reply = server.Get(target);
    CHECK(reply.status == 404);
    CHECK(reply.body == not_found);
  }
}

TEST_CASE("with hidden names ungranted and unknown secrets answer alike", "[api]") {
  ServerFixture::Config config;
  config.settings.hide_names = true;
  ServerFixture server(config);
  const auto same = [](const TestReply& a, const TestReply& b) {
    return a.status == b.status && a.body == b.body && a.headers == b.headers &&
           a.content_type == b.content_type;
  };
  CHECK(same(server.Get("/secret/Hacking_Password"), server.Get("/secret/does-not-exist")));
  CHECK(server.Get("/secret/Hacking_Password").status == 404);
  CHECK(same(server.Call("POST", "/batchsecret", R"({"secrets":["Hacking_Password"]})"),
             server.Call("POST", "/batchsecret", R"({"secrets":["does-not-exist"]})")));
  // Neither the place of a guess among others nor what it costs tells whether it exists.
  const auto records = [&](const std::string& batch) {
    const std::size_t before = server.Events(ChainName::kAccess).size();
    const TestReply reply = server.Call("POST", "/batchsecret", R"({"secrets":[)" + batch + "]}");
    CHECK(same(reply, server.Get("/secret/does-not-exist")));
    return server.Events(ChainName::kAccess).size() - before - 1;
  };
  const std::string others = R"("General_Password","no-such-1","Hacking_Password","no-such-2")";
  CHECK(records(R"("does-not-exist",)" + others) == 4);
  CHECK(records(R"("Deleted_Secret",)" + others) == 4);
  CHECK(records(others + R"(,"does-not-exist")") == 4);
  server.AddSecret("ungranted", "x");
  CHECK(records(R"("ungranted",)" + others) == 4);
  CHECK(CountOf(server.Events(ChainName::kAccess), R"("detail":"not_granted")") == 8);
}

TEST_CASE("the listing has every granted secret once, without content", "[api]") {
  ServerFixture server;
  const wire::JsonValue list = Json(server.Get("/secrets"));
  REQUIRE(list.elements().size() == 4);
  std::vector<std::string> names;
  for (const auto& entry : list.elements()) {
    names.push_back(TextOf(entry, "name"));
    CHECK(TextOf(entry, "secret").empty());
    CHECK(TextOf(entry, "secretLength") == "0");
    CHECK(TextOf(entry, "checksum").size() == 64);
  }
  std::sort(names.begin(), names.end());
  CHECK(names == std::vector<std::string>{"Database_Password", "General_Password", "Nobody_PgPass",
                                          "NonexistentOwner_Pass"});
}

TEST_CASE("a batch is all or nothing", "[api]") {
  ServerFixture server;
  const auto batch = [&](const std::string& body) {
    return server.Call("POST", "/batchsecret", body);
  };
  CHECK(Json(batch(R"({"secrets":["General_Password","Nobody_PgPass","General_Password"]})"))
            .elements()
            .size() == 2);
  CHECK(batch(R"({"secrets":["Nobody_PgPass","nope"]})").status == 404);
  CHECK(batch(R"({"secrets":["Hacking_Password","nope"]})").status == 404);
  CHECK(batch(R"({"secrets":["nope","Hacking_Password"]})").status == 404);
  const TestReply forbidden =
      batch(R"({"secrets":["Nobody_PgPass","Hacking_Password","Versioned_Password"]})");
  CHECK(forbidden.status == 403);
  CHECK(
      forbidden.body ==
      R"({"code":403,"message":"Access denied: client to secret(s) '[Hacking_Password, Versioned_Password]'"})");
  for (const char* idle : {R"({"secrets":null})", R"({"secrets":[]})", "{}"}) {
    const TestReply reply = batch(idle);
    CHECK(reply.status == 200);
    CHECK(reply.body == "[]");
  }
  std::string many = R"({"secrets":["x0")";
  for (std::size_t i = 1; i <= limits::kMaxBatchNames; ++i)
    many += ",\"x" + std::to_string(i) + "\"";
  CHECK(batch(many + "]}").status == 413);
  // Far more are not even read: the answer is the same.
  for (std::size_t i = 0; i < limits::kMaxJsonNodes; ++i) many += ",\"\"";
  const TestReply far_more = batch(many + "]}");
  CHECK(far_more.status == 413);
  CHECK(far_more.body.find("a batch may name at most 1000 secrets") != std::string::npos);
  // Nor are as many values that are no names: a client has no use for them.
  std::string values = R"({"secrets":[],"other":[0)";
  for (std::size_t i = 0; i < limits::kMaxJsonNodesOfClient; ++i) values += ",0";
  CHECK(batch(values + "]}").status == 413);
}

TEST_CASE("only a batch that asks for versions gets them, and never twice the same member",
          "[api]") {
  ServerFixture server;
  server.Call(
      "POST", "/automation/v2/secrets",
      R"({"name":"v","content":"MTIz","metadata":{"version":"mine","mode":"0400"},"groups":["Security"]})");
  const std::string body = R"({"secrets":["v"]})";
  const wire::JsonValue plain = Json(server.Call("POST", "/batchsecret", body));
  CHECK(TextOf(plain.elements()[0], "version") == "mine");
  const wire::JsonValue ours = Json(server.Call("POST", "/batchsecret?versions=true", body));
  CHECK(TextOf(ours.elements()[0], "version") == "1");
  CHECK(TextOf(ours.elements()[0], "mode") == "0400");
}

TEST_CASE("too much content for one batch names the limit", "[api]") {
  ServerFixture server;
  const std::string content(1024 * 1024, 'x');
  std::string body = R"({"secrets":[)";
  for (int i = 0; i < 17; ++i) {
    const std::string name = "big" + std::to_string(i);
    server.AddSecret(name, content, {"Security"});
    body += (i == 0 ? "\"" : ",\"") + name + "\"";
  }
  const TestReply reply = server.Call("POST", "/batchsecret", body + "]}");
  CHECK(reply.status == 413);
  CHECK(reply.body.find(std::to_string(limits::kMaxBatchContentBytes)) != std::string::npos);
}

TEST_CASE("a rotation, a rename and a revocation show in the very next read", "[api]") {
  ServerFixture server;
  server.AddSecret("live", "one", {"Security"});
  CHECK(TextOf(Json(server.Get("/secret/live")), "secret") == "b25l");
  server.Call("POST", "/automation/v2/secrets/live/partialupdate",
              R"({"contentPresent":true,"content":"dHdv"})");
  const TestReply rotated = server.Get("/secret/live");
  CHECK(TextOf(Json(rotated), "secret") == "dHdv");
  CHECK(rotated.Header("X-Latchkey-Version") == "2");
  server.Call("POST", "/automation/v2/secrets/live/rename/renamed");
  CHECK(server.Get("/secret/live").status == 404);
  CHECK(TextOf(Json(server.Get("/secret/renamed")), "name") == "renamed");
  server.Call("PUT", "/automation/v2/secrets/renamed/groups",
              R"({"addGroups":[],"removeGroups":["Security"]})");
  CHECK(server.Get("/secret/renamed").status == 403);
}

TEST_CASE("HEAD is answered wherever GET is", "[api]") {
  ServerFixture server;
  const TestReply get = server.Get("/secret/General_Password");
  const TestReply head = server.Call("HEAD", "/secret/General_Password");
  CHECK(head.status == 200);
  CHECK(head.body.size() == get.body.size());
  CHECK(server.Call("HEAD", "/secrets").status == 200);
}

TEST_CASE("every delivery and refusal is one record of the access chain", "[api][audit][A1]") {
  ServerFixture server;
  server.Get("/secret/General_Password");
  server.Get("/secret/Hacking_Password");
  server.Get("/secret/nope");
  server.Get("/secrets");
  server.Call("POST", "/batchsecret", R"({"secrets":["Nobody_PgPass","Database_Password"]})");
  server.Send(TestCaller::Named("stranger"), {"GET", "/secrets", "", {}, {}});
  const auto events = server.Events(ChainName::kAccess);
  CHECK(CountOf(events, R"("secret.read")") == 3);
  CHECK(CountOf(events, R"("secret.list")") == 1);
  CHECK(CountOf(events, R"("access.denied")") == 2);
  CHECK(CountOf(events, R"("auth.refused")") == 1);
  CHECK(CountOf(events, "YXNkZGFz") == 0);
  for (const std::string& event : events) CHECK(wire::ParseJson(event).has_value());
}

TEST_CASE("a flipped byte of stored content is a bare 500 and an integrity failure", "[api]") {
  ServerFixture server;
  server.AddSecret("flip", "precious", {"Security"});
  const VersionId current = server.root()->FindSecret(std::string_view("flip"))->current();
  server.Run<service::Nothing>([&](service::WriteContext& context) -> Result<service::Nothing> {
    ASSIGN_OR_RETURN(store::VersionRow row, context.tx.reader().LoadVersion(current));
    row.sealed[row.sealed.size() / 2] ^= 1;
    RETURN_IF_ERROR(context.tx.ReplaceVersion(row));
    return service::Nothing{};
  });
  const TestReply reply = server.Get("/secret/flip");
  CHECK(reply.status == 500);
  CHECK(reply.body.find("It has been logged (ID ") != std::string::npos);
  CHECK(reply.body.find("cHJlY2lvdXM=") == std::string::npos);
  CHECK(server.Call("POST", "/batchsecret", R"({"secrets":["General_Password","flip"]})").status ==
        500);
  CHECK(CountOf(server.Events(ChainName::kAccess), "integrity_failure") == 2);
}

TEST_CASE("a version row put in the place of another does not open", "[api]") {
  ServerFixture server;
  server.AddSecret("mine", "12345678", {"Security"});
  server.AddSecret("other", "87654321");
  const VersionId mine = server.root()->FindSecret(std::string_view("mine"))->current();
  const VersionId other = server.root()->FindSecret(std::string_view("other"))->current();
  server.Run<service::Nothing>([&](service::WriteContext& context) -> Result<service::Nothing> {
    ASSIGN_OR_RETURN(store::VersionRow theirs, context.tx.reader().LoadVersion(other));
    ASSIGN_OR_RETURN(store::VersionRow row, context.tx.reader().LoadVersion(mine));
    row.sealed = theirs.sealed;
    row.wrapped = theirs.wrapped;
    RETURN_IF_ERROR(context.tx.ReplaceVersion(row));
    return service::Nothing{};
  });
  CHECK(server.Get("/secret/mine").status == 500);
}

TEST_CASE("no answer leaves when its audit record cannot be written", "[api][audit][A1][A2]") {
  // A spool of half a MiB is used up by reads of a long name; from then on everything is refused.
  ServerFixture server;
  int answered = 0;
  int refused = 0;
  // The spool grows on this disk as long as there is room: fill the reserve by taking the directory away.
  std::filesystem::remove_all(server.directory() / "audit");
  for (int i = 0; i < 20'000 && refused == 0; ++i) {
    const int status = server.Get("/secret/General_Password").status;
    status == 200 ? ++answered : ++refused;
    if (status != 200) CHECK(status == 503);
  }
  CHECK(answered > 0);
  CHECK(refused == 1);
  CHECK(server.Get("/secret/General_Password").status == 503);
}

TEST_CASE("status is up for anybody", "[api]") {
  ServerFixture server;
  const TestReply reply = server.Send(TestCaller::Nobody(), {"GET", "/_status", "", {}, {}});
  CHECK(reply.status == 200);
  const wire::JsonValue json = Json(reply);
  CHECK(TextOf(json, "status") == "ok");
  CHECK(json.Find("results")->Has("db-readonly-health"));
}

TEST_CASE("deliveries during rotations give one whole version or the other", "[api]") {
  ServerFixture server;
  server.AddSecret("race", std::string(3000, 'a'), {"Security"});
  std::atomic<bool> stop{false};
  std::atomic<int> mixed{0}, reads{0};
  std::vector<std::thread> readers;
  for (int t = 0; t < 2; ++t) {
    readers.emplace_back([&] {
      const auto handler = server.NewHandler();
      while (!stop) {
        const TestReply reply =
            server.Send(*handler, TestCaller::Named("client"), {"GET", "/secret/race", "", {}, {}});
        auto json = wire::ParseJson(reply.body);
        auto text =
            json ? json->OptionalText("secret") : Result<std::optional<std::string>>(json.error());
        auto content = text && *text ? wire::Base64Decode(**text)
                                     : Result<SecretBuffer>(Error{Errc::kInternal, ""});
        const bool whole =
            content && content->size() == 3000 &&
            AsText(content->bytes()) == std::string(3000, static_cast<char>(content->bytes()[0]));
        if (reply.status != 200 || !whole) ++mixed;
        ++reads;
      }
    });
  }
  for (int i = 0; i < 60; ++i) {
    std::string plain(3000, static_cast<char>('b' + i % 20));
    std::string coded(wire::Base64EncodedSize(plain.size()), '\0');
    wire::Base64Encode(AsBytes(plain), coded.data());
    server.Call("POST", "/automation/v2/secrets/race/partialupdate",
                R"({"contentPresent":true,"content":")" + coded + "\"}");
  }
  stop = true;
  for (auto& reader : readers) reader.join();
  CHECK(mixed == 0);
  CHECK(reads > 0);
}
