#include "server/catalog/catalog.h"

#include <catch2/catch.hpp>
#include <map>
#include <random>
#include <set>

#include "tests/support/store_fixture.h"

namespace latchkey::catalog {
namespace {

using testing::ClientRowOf;
using testing::CodeOf;
using testing::GroupRowOf;
using testing::InsertSecretWithVersion;
using testing::Must;
using testing::SecretRowOf;
using testing::StoreFixture;
using testing::VersionRowOf;

// Accepts every row but one.
class OneBadRow : public RowVerifier {
 public:
  explicit OneBadRow(std::string bad = "") : bad_(std::move(bad)) {}
  bool Verify(const store::ClientRow& row) const override { return bad_ != "client " + row.name; }
  bool Verify(const store::GroupRow& row) const override { return bad_ != "group " + row.name; }
  bool Verify(const store::MembershipRow&) const override { return bad_ != "membership"; }
  bool Verify(const store::GrantRow&) const override { return bad_ != "grant"; }
  bool Verify(const store::SecretRow& row) const override { return bad_ != "secret " + row.name; }
  bool Verify(const store::VersionInfo&) const override { return bad_ != "version"; }

 private:
  std::string bad_;
};

RootRef Load(StoreFixture& store) {
  store::Reader reader = Must(store->Read());
  return Must(LoadRoot(reader, OneBadRow()));
}

// The rules of API spec 3.1 over plain sets: what the catalog is held against.
struct Reference {
  std::map<std::int64_t, bool> clients;  // id -> enabled
  std::set<std::int64_t> groups;
  struct SecretState {
    std::string name;
    bool live;
  };
  std::map<std::int64_t, SecretState> secrets;
  std::set<std::pair<std::int64_t, std::int64_t>> memberships;  // client, group
  std::set<std::pair<std::int64_t, std::int64_t>> grants;       // group, secret

  bool CanRead(std::int64_t client, std::int64_t secret) const {
    const auto c = clients.find(client);
    const auto s = secrets.find(secret);
    if (c == clients.end() || !c->second || s == secrets.end() || !s->second.live) return false;
    for (const auto group : groups) {
      if (memberships.contains({client, group}) && grants.contains({group, secret})) return true;
    }
    return false;
  }
  bool NameTaken(const std::string& name) const {
    for (const auto& [id, secret] : secrets) {
      if (secret.live && secret.name == name) return true;
    }
    return false;
  }
};

void CheckAgainst(const Root& root, const Reference& reference, int max_id) {
  std::size_t live = 0;
  for (const auto& [id, secret] : reference.secrets) {
    live += secret.live;
    const Secret* found = root.FindSecret(SecretId{id});
    if ((found != nullptr) != secret.live) FAIL("secret " << id);
    if (secret.live && root.FindSecret(secret.name) != found) FAIL("name " << secret.name);
    if (!secret.live && root.FindDeletedSecret(SecretId{id}) == nullptr) FAIL("deleted " << id);
  }
  CHECK(root.secret_count() == live);
  CHECK(root.deleted_secret_count() == reference.secrets.size() - live);
  CHECK(root.client_count() == reference.clients.size());
  CHECK(root.group_count() == reference.groups.size());
  for (int client = 1; client <= max_id; ++client) {
    std::set<std::int64_t> readable;
    for (int secret = 1; secret <= max_id; ++secret) {
      const bool expected = reference.CanRead(client, secret);
      if (expected) readable.insert(secret);
      if (root.CanRead(ClientId{client}, SecretId{secret}) != expected) {
        FAIL("client " << client << " secret " << secret << " expected " << expected);
      }
      const auto known = reference.secrets.find(secret);
      if (known == reference.secrets.end() || !known->second.live) continue;
      const auto found = root.FindForClient(ClientId{client}, known->second.name);
      if ((found.secret != nullptr) != expected) FAIL("by name");
      if (expected && (found.secret->id().value != secret ||
                       !reference.memberships.contains({client, found.decision.through.value}) ||
                       !reference.grants.contains({found.decision.through.value, secret}))) {
        FAIL("through the wrong group");
      }
    }
    std::set<std::int64_t> listed;
    for (const Secret* secret : root.SecretsOf(ClientId{client})) {
      if (!listed.insert(secret->id().value).second) FAIL("listed twice");
    }
    if (listed != readable) FAIL("listing of client " << client);
  }
  for (const auto& [id, secret] : reference.secrets) {
    if (!secret.live) continue;
    std::set<std::int64_t> holders;
    for (const auto& holder : root.HoldersOf(*root.FindSecret(SecretId{id}))) {
      holders.insert(holder.client->row.id.value);
    }
    for (int client = 1; client <= max_id; ++client) {
      if (holders.contains(client) != reference.CanRead(client, id)) FAIL("holder " << client);
    }
  }
}

void EditAtRandom(std::mt19937_64& random, int max_id, Editor& editor, Reference& reference) {
  const auto pick = [&] {
    return static_cast<std::int64_t>(random() % static_cast<unsigned>(max_id)) + 1;
  };
  const std::int64_t a = pick();
  const std::int64_t b = pick();
  const auto put_secret = [&](std::int64_t id, const std::string& name, bool live) {
    store::SecretRow row = SecretRowOf(id, name, id * 100 + 1);
    row.state = live ? store::SecretState::kLive : store::SecretState::kDeleted;
    editor.PutSecret(row, VersionRowOf(id * 100 + 1, id, 1).info);
    reference.secrets[id] = {name, live};
  };
  switch (random() % 14) {
    case 0:
    case 1: {
      store::ClientRow row = ClientRowOf(a, "client" + std::to_string(a) + (b % 2 ? "x" : "y"));
      row.enabled = b % 4 != 0;
      if (b % 3 == 0) row.spiffe_id = "spiffe://d/" + std::to_string(a) + "/" + std::to_string(b);
      editor.PutClient(row);
      reference.clients[a] = row.enabled;
      break;
    }
    case 2:
      if (!reference.clients.contains(a) || b % 3 != 0) break;
      editor.RemoveClient(ClientId{a});
      reference.clients.erase(a);
      std::erase_if(reference.memberships, [a](const auto& m) { return m.first == a; });
      break;
    case 3:
      editor.PutGroup(GroupRowOf(a, "group" + std::to_string(a) + (b % 2 ? "x" : "y")));
      reference.groups.insert(a);
      break;
    case 4:
      if (!reference.groups.contains(a) || b % 3 != 0) break;
      editor.RemoveGroup(GroupId{a});
      reference.groups.erase(a);
      std::erase_if(reference.memberships, [a](const auto& m) { return m.second == a; });
      std::erase_if(reference.grants, [a](const auto& g) { return g.first == a; });
      break;
    case 5:
    case 6: {  // make, rename, rotate, delete or undelete
      const std::string name = "secret" + std::to_string(b);
      const bool live = random() % 4 != 0;
      const auto known = reference.secrets.find(a);
      const bool has_name =
          known != reference.secrets.end() && known->second.live && known->second.name == name;
      if (live && !has_name && reference.NameTaken(name)) break;
      put_secret(a, name, live);
      break;
    }
    case 7:
      if (!reference.secrets.contains(a) || b % 3 != 0) break;
      editor.RemoveSecret(SecretId{a});
      reference.secrets.erase(a);
      std::erase_if(reference.grants, [a](const auto& g) { return g.second == a; });
      break;
    case 8:
    case 9:
    case 10:
      if (!reference.clients.contains(a) || !reference.groups.contains(b)) break;
      if (reference.memberships.insert({a, b}).second) {
        editor.AddMembership(ClientId{a}, GroupId{b});
      } else {
        editor.RemoveMembership(ClientId{a}, GroupId{b});
        reference.memberships.erase({a, b});
      }
      break;
    default:
      if (!reference.groups.contains(a) || !reference.secrets.contains(b)) break;
      if (reference.grants.insert({a, b}).second) {
        editor.AddGrant(GroupId{a}, SecretId{b});
      } else {
        editor.RemoveGrant(GroupId{a}, SecretId{b});
        reference.grants.erase({a, b});
      }
  }
}

TEST_CASE("Decisions equal a naive reference after any sequence of edits",
          "[catalog][acl][property]") {
  constexpr int kMaxId = 24;
  std::mt19937_64 random(Catch::rngSeed());
  Editor editor(std::make_shared<const Root>());
  Reference reference;
  std::vector<std::pair<RootRef, Reference>> published;
  for (int round = 0; round < 60; ++round) {
    for (int step = 0; step < 50; ++step) EditAtRandom(random, kMaxId, editor, reference);
    CheckAgainst(editor.root(), reference, kMaxId);
    if (round % 20 == 0) published.emplace_back(editor.Snapshot(), reference);
    if (round % 7 == 3) {  // a batch that fails: everything since the snapshot is undone
      const RootRef before = editor.Snapshot();
      Reference scratch = reference;
      for (int step = 0; step < 50; ++step) EditAtRandom(random, kMaxId, editor, scratch);
      editor.Reset(*before);
      CheckAgainst(editor.root(), reference, kMaxId);
    }
  }
  // What was published is untouched by everything that came after.
  for (const auto& [root, then] : published) CheckAgainst(*root, then, kMaxId);
}

TEST_CASE("Each refusal names its reason", "[catalog][acl]") {
  Editor editor(std::make_shared<const Root>());
  editor.PutGroup(GroupRowOf(1, "g1"));
  editor.PutGroup(GroupRowOf(2, "g2"));
  editor.PutClient(ClientRowOf(1, "in"));
  editor.PutClient(ClientRowOf(2, "out"));
  store::ClientRow disabled = ClientRowOf(3, "off");
  disabled.enabled = false;
  editor.PutClient(disabled);
  editor.PutSecret(SecretRowOf(1, "s", 101), VersionRowOf(101, 1, 1).info);
  editor.PutSecret(SecretRowOf(2, "orphan", 201), VersionRowOf(201, 2, 1).info);
  store::SecretRow deleted = SecretRowOf(3, "old", 301);
  deleted.state = store::SecretState::kDeleted;
  editor.PutSecret(deleted, VersionRowOf(301, 3, 1).info);
  for (const int group : {1, 2}) {
    editor.AddGrant(GroupId{group}, SecretId{1});
    editor.AddGrant(GroupId{group}, SecretId{3});
    editor.AddMembership(ClientId{1}, GroupId{group});
    editor.AddMembership(ClientId{3}, GroupId{group});
  }
  const Root& root = editor.root();
  const auto reason = [&root](int client, const char* secret) {
    return root.DecideRead(ClientId{client}, secret).reason;
  };
  CHECK(reason(1, "s") == acl::Reason::kGranted);
  CHECK(root.DecideRead(ClientId{1}, "s").through == GroupId{1});
  CHECK(reason(1, "S") == acl::Reason::kNoSuchSecret);
  CHECK(reason(1, "s ") == acl::Reason::kNoSuchSecret);
  CHECK(reason(1, "") == acl::Reason::kNoSuchSecret);
  CHECK(reason(2, "s") == acl::Reason::kNoGroupInCommon);
  CHECK(reason(1, "orphan") == acl::Reason::kNoGroupInCommon);
  CHECK(reason(3, "s") == acl::Reason::kClientDisabled);
  CHECK(reason(9, "s") == acl::Reason::kNoSuchClient);
  CHECK(reason(1, "old") == acl::Reason::kSecretDeleted);
  CHECK(root.SecretsOf(ClientId{3}).empty());
  CHECK(root.SecretsOf(ClientId{9}).empty());
  CHECK(root.HoldersOf(*root.FindSecret(SecretId{1})).size() == 1);
  std::set<std::string> texts;
  for (const auto each :
       {acl::Reason::kGranted, acl::Reason::kNoSuchClient, acl::Reason::kClientDisabled,
        acl::Reason::kNoSuchSecret, acl::Reason::kSecretDeleted, acl::Reason::kNoGroupInCommon}) {
    texts.insert(acl::ReasonText(each));
  }
  CHECK(texts.size() == 6);
}

TEST_CASE("An empty catalog refuses everything", "[catalog][acl]") {
  const Root root;
  CHECK_FALSE(root.CanRead(ClientId{0}, SecretId{0}));
  CHECK_FALSE(root.FindForClient(ClientId{1}, "s").decision.allowed());
  CHECK_FALSE(acl::DecideRead(std::nullopt, std::nullopt).allowed());
  CHECK_FALSE(acl::DecideRead(acl::ClientView{}, acl::SecretView{}).allowed());
  CHECK_FALSE(acl::DecideRead(acl::ClientView{true, {}}, acl::SecretView{true, {}}).allowed());
}

TEST_CASE("A secret keeps all its columns through packing", "[catalog]") {
  store::SecretRow row = SecretRowOf(-5, "name", 77, 9);
  row.description = "d";
  row.type = GENERATE(as<std::optional<std::string>>{}, std::nullopt, "", "type");
  row.owner = GENERATE(as<std::optional<GroupId>>{}, std::nullopt, GroupId{0xffffffff});
  row.expiry = INT64_MAX;
  row.state = GENERATE(store::SecretState::kLive, store::SecretState::kDeleted);
  store::VersionInfo info = VersionRowOf(77, -5, 9).info;
  info.metadata = std::string(65'536, 'm');
  info.checksum.fill(0xa5);
  info.expiry = INT64_MIN;
  const std::vector<std::uint32_t> groups = {1, 5, 0xffffffff};
  const SecretRef secret = Secret::Make(row, info, groups);
  const store::SecretRow back = secret->Row();
  CHECK(back.id == row.id);
  CHECK(back.name == row.name);
  CHECK(back.description == row.description);
  CHECK(back.created_at == row.created_at);
  CHECK(back.created_by == row.created_by);
  CHECK(back.updated_at == row.updated_at);
  CHECK(back.updated_by == row.updated_by);
  CHECK(back.type == row.type);
  CHECK(back.owner == row.owner);
  CHECK(back.current == row.current);
  CHECK(back.expiry == row.expiry);
  CHECK(back.state == row.state);
  CHECK(back.newest_number == row.newest_number);
  CHECK(back.sequence == row.sequence);
  const store::VersionInfo current = secret->Current();
  CHECK(current.id == info.id);
  CHECK(current.secret == info.secret);
  CHECK(current.number == info.number);
  CHECK(current.created_at == info.created_at);
  CHECK(current.created_by == info.created_by);
  CHECK(current.metadata == info.metadata);
  CHECK(current.expiry == info.expiry);
  CHECK(current.checksum == info.checksum);
  CHECK(current.size == info.size);
  CHECK(std::vector<std::uint32_t>(secret->groups().begin(), secret->groups().end()) == groups);
}

void Fill(StoreFixture& store) {
  Must(store->RunJob([](store::Savepoint& s) -> Status {
    for (int i = 1; i <= 3; ++i) {
      RETURN_IF_ERROR(s.InsertGroup(GroupRowOf(i, "g" + std::to_string(i))));
      store::ClientRow client = ClientRowOf(10 - i, "c" + std::to_string(i));
      client.spiffe_id = "spiffe://d/" + std::to_string(i);
      RETURN_IF_ERROR(s.InsertClient(client));
      RETURN_IF_ERROR(InsertSecretWithVersion(s, i == 2 ? -2 : i, "s" + std::to_string(i)));
    }
    store::SecretRow deleted = SecretRowOf(4, "s1", 401);
    deleted.state = store::SecretState::kDeleted;
    RETURN_IF_ERROR(s.InsertSecret(deleted));
    RETURN_IF_ERROR(s.InsertVersion(VersionRowOf(401, 4, 1)));
    for (const auto& [client, group] : {std::pair(9, 1), {9, 3}, {8, 2}}) {
      RETURN_IF_ERROR(s.InsertMembership({ClientId{client}, GroupId{group}, 0, {}}));
    }
    for (const auto& [group, secret] : {std::pair(1, 1), {3, 1}, {3, -2}, {2, 3}, {1, 4}}) {
      RETURN_IF_ERROR(s.InsertGrant({GroupId{group}, SecretId{secret}, 0, {}}));
    }
    return {};
  }));
}

TEST_CASE("Loading gives the catalog of the store", "[catalog]") {
  StoreFixture store;
  Fill(store);
  const RootRef root = Load(store);
  CHECK(root->generation() == Generation{1});
  CHECK(root->client_count() == 3);
  CHECK(root->group_count() == 3);
  CHECK(root->secret_count() == 3);
  CHECK(root->deleted_secret_count() == 1);
  REQUIRE(root->FindClient("c1") != nullptr);
  CHECK(root->FindClient("c1")->groups == std::vector<std::uint32_t>{1, 3});
  CHECK(root->FindClientBySpiffe("spiffe://d/2") == root->FindClient(ClientId{8}));
  CHECK(root->FindGroup("g3")->secrets.size() == 2);
  CHECK(root->CanRead(ClientId{9}, SecretId{-2}));
  CHECK_FALSE(root->CanRead(ClientId{8}, SecretId{-2}));
  CHECK(root->FindDeletedSecrets("s1").size() == 1);
  CHECK(root->FindSecret("s1")->metadata() == R"({"mode":"0400"})");
}

TEST_CASE("One row whose mac does not match refuses the whole load and is named",
          "[catalog][integrity]") {
  StoreFixture store;
  Fill(store);
  const auto [bad, named] = GENERATE(table<std::string, std::string>({
      {"client c2", "client 8"},
      {"group g3", "group 3"},
      {"membership", "membership 8 in 2"},
      {"grant", "grant of secret 1 to group 1"},
      {"secret s2", "secret -2"},
      {"version", "version -199 of secret -2"},
  }));
  store::Reader reader = Must(store->Read());
  const auto loaded = LoadRoot(reader, OneBadRow(bad));
  REQUIRE_FALSE(loaded.has_value());
  CHECK(loaded.error().code == Errc::kCorrupt);
  CHECK_THAT(loaded.error().message, Catch::Contains(named));
}

TEST_CASE("A secret whose current version is missing or another's refuses the load",
          "[catalog][integrity]") {
  StoreFixture store;
  const auto current = GENERATE(5, 201);
  Must(store->RunJob([&](store::Savepoint& s) -> Status {
    RETURN_IF_ERROR(s.InsertSecret(SecretRowOf(1, "a", current)));
    return InsertSecretWithVersion(s, 2, "b");
  }));
  store::Reader reader = Must(store->Read());
  const auto loaded = LoadRoot(reader, OneBadRow());
  REQUIRE_FALSE(loaded.has_value());
  CHECK(loaded.error().code == Errc::kCorrupt);
  CHECK_THAT(loaded.error().message, Catch::Contains("secret 1 has no current version"));
}

TEST_CASE("Readers keep the root they took while newer ones are published", "[catalog]") {
  Editor editor(std::make_shared<const Root>());
  editor.PutClient(ClientRowOf(1, "one"));
  Catalog catalog(editor.Snapshot());
  const RootRef taken = catalog.Current();
  editor.RemoveClient(ClientId{1});
  editor.SetGeneration(Generation{5});
  catalog.Publish(editor.Snapshot());
  CHECK(taken->FindClient("one") != nullptr);
  CHECK(catalog.Current()->FindClient("one") == nullptr);
  CHECK(catalog.Current()->generation() == Generation{5});
}

}  // namespace
}  // namespace latchkey::catalog
