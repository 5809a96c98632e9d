#include "server/service/writer.h"

#include <catch2/catch.hpp>
#include <random>

#include "server/audit/verify.h"
#include "server/service/rules.h"
#include "server/service/write_clients.h"
#include "server/service/write_secrets.h"
#include "tests/support/server_fixture.h"

using namespace latchkey;
using namespace latchkey::testing;
using service::Nothing;
using service::WriteContext;

namespace {

// What of the catalog is visible, as one text: two states with the same text answer alike.
std::string Picture(const catalog::Root& root) {
  std::string text = std::to_string(root.generation().value) + "\n";
  const auto list = [&](const auto& groups) {
    for (const std::uint32_t group : groups) text += " " + std::to_string(group);
    text += "\n";
  };
  root.ForEachClient([&](const catalog::Client& client) {
    text += client.row.name + (client.row.enabled ? "+" : "-") +
            (client.row.automation ? "a" : "") + (client.row.content ? "c" : "");
    list(client.groups);
    return true;
  });
  const auto secret_text = [&](const catalog::Secret& secret) {
    text += std::string(secret.name()) + "@" + std::to_string(secret.current().value) + "#" +
            std::to_string(secret.newest_number()) + std::string(secret.metadata()) +
            std::to_string(secret.owner().value_or(GroupId{}).value) + (secret.live() ? "l" : "d");
    list(secret.groups());
    return true;
  };
  root.ForEachSecret(secret_text);
  root.ForEachDeletedSecret(secret_text);
  root.ForEachGroup([&](const catalog::Group& group) {
    text += group.row.name + "\n";
    return true;
  });
  return text;
}

template <class T>
Result<T> Try(ServerFixture& server, service::Work<T> work) {
  return server.services().writer->Run<T>(ServerFixture::Operator(), {}, std::move(work));
}

std::shared_ptr<service::NewSecret> Secret(const std::string& name, const std::string& content) {
  auto secret = std::make_shared<service::NewSecret>();
  secret->name = name;
  secret->content = Must(SecretBuffer::CopyOf(AsBytes(content)));
  secret->metadata_json = "{}";
  return secret;
}

}  // namespace

TEST_CASE("the catalog in memory is always what the files say", "[service][property]") {
  ServerFixture server;
  std::mt19937_64 random(Catch::rngSeed());
  const auto pick = [&](const std::vector<std::string>& from) {
    return from[random() % from.size()];
  };
  const std::vector<std::string> names = {"a", "b", "c", "d"};
  const std::vector<std::string> groups = {"Web", "Security", "iOS", "new"};
  const std::vector<std::string> clients = {"client", "CN=User1", "fresh"};
  for (int round = 0; round < 150; ++round) {
    const std::string name = pick(names), other = pick(names), group = pick(groups),
                      client = pick(clients);
    switch (random() % 12) {
      case 0:
      case 1: {
        const auto secret = Secret(name, "x" + std::to_string(round));
        secret->groups = {group};
        if (random() % 2 == 0) secret->owner = "Web";
        (void)Try<service::Written>(
            server, [&](WriteContext& c) { return service::CreateSecret(c, *secret); });
        break;
      }
      case 2:
        (void)Try<service::Written>(server, [&](WriteContext& c) {
          return service::CreateOrUpdateSecret(c, *Secret(name, "y"));
        });
        break;
      case 3:
        (void)Try<service::Written>(
            server, [&](WriteContext& c) { return service::RenameSecret(c, name, other); });
        break;
      case 4:
        (void)Try<Nothing>(server, [&](WriteContext& c) {
          return service::DeleteSecret(
              c, name,
              random() % 2 == 0 ? service::DeletionMode::kSoft : service::DeletionMode::kHard);
        });
        break;
      case 5:
        (void)Try<service::Written>(
            server, [&](WriteContext& c) { return service::UndeleteSecret(c, name); });
        break;
      case 6:
        (void)Try<std::vector<std::string>>(server, [&](WriteContext& c) {
          return service::ModifySecretGroups(c, name, {group}, {pick(groups)});
        });
        break;
      case 7:
        (void)Try<std::vector<std::string>>(server, [&](WriteContext& c) {
          return service::ModifyClientGroups(c, client, {group}, {pick(groups)});
        });
        break;
      case 8:
        (void)Try<GroupId>(server, [&](WriteContext& c) {
          return service::CreateGroup(c, {group, "", {}, "{}"});
        });
        break;
      case 9:
        (void)Try<Nothing>(server, [&](WriteContext& c) { return service::DeleteGroup(c, group); });
        break;
      case 10:
        (void)Try<ClientId>(server, [&](WriteContext& c) {
          return service::CreateClient(c, {"fresh", "", "", {group}});
        });
        break;
      default:
        (void)Try<service::ClientBits>(server, [&](WriteContext& c) {
          return service::SetClientState(c, client,
                                         {random() % 2 == 0, std::nullopt, std::nullopt});
        });
    }
  }
  const std::string before = Picture(*server.root());
  server.Restart();  // loads and verifies every row
  CHECK(Picture(*server.root()) == before);
}

TEST_CASE("both chains verify after writes that succeeded and writes that failed",
          "[service][audit]") {
  ServerFixture server;
  for (int i = 0; i < 20; ++i) {
    (void)Try<service::Written>(server, [&](WriteContext& c) {
      return service::CreateSecret(c, *Secret("n" + std::to_string(i / 2), "x"));
    });
  }
  audit::ChainVerifier verifier(server.services().keys->audit_key(), "store", {});
  auto reader = Must(server.services().store->Read());
  for (const store::AuditRow& row : Must(reader.ListAudit(0, 10'000)))
    CHECK(verifier.Add(row.seq, row.event, row.hash));
  verifier.Finish();
  CHECK(verifier.damage().empty());
  CHECK(verifier.records() > 0);
  CHECK(verifier.head() == server.services().chain->Last().head);
}

TEST_CASE("a caller who lost his bit after he was identified writes nothing", "[service]") {
  ServerFixture server;
  server.AddClient("robot", true, false);
  service::Actor robot;
  robot.kind = audit::ActorKind::kAutomation;
  robot.client = server.root()->FindClient(std::string_view("robot"))->row.id;
  robot.name = "robot";
  const auto create = [&](const std::string& name) {
    return server.services().writer->Run<service::Written>(robot, {}, [&, name](WriteContext& c) {
      return service::CreateSecret(c, *Secret(name, "x"));
    });
  };
  CHECK(create("first").has_value());
  server.Run<service::ClientBits>([](WriteContext& c) {
    return service::SetClientState(c, "robot", {std::nullopt, false, std::nullopt});
  });
  const auto refused = create("second");
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().code == Errc::kPermissionDenied);
  CHECK(server.root()->FindSecret(std::string_view("second")) == nullptr);
  CHECK(server.Events(service::ChainName::kAccess).back().find("access.denied") !=
        std::string::npos);
}

TEST_CASE("after the store stopped a write is refused and nobody waits for it", "[service]") {
  ServerFixture server;
  server.services().store->Stop();
  const auto result = Try<GroupId>(server, [](WriteContext& c) {
    return service::CreateGroup(c, {"g", "", {}, "{}"});
  });
  REQUIRE_FALSE(result.has_value());
  CHECK(result.error().code == Errc::kUnavailable);
  CHECK(server.Call("POST", "/automation/v2/groups", R"({"name":"g"})").status == 503);
}
