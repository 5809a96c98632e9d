// The keyring and its MACs against the real store: what is signed verifies after a round trip through the database, and
// every column of the schema is either under a MAC or left out on purpose (rule G1).
#include "server/store/store.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <set>

#include "keys_for_test.h"

namespace latchkey::keys {
namespace {

namespace fs = std::filesystem;

class TempStore {
 public:
  TempStore() {
    std::string pattern = (fs::temp_directory_path() / "latchkey-keys-XXXXXX").string();
    REQUIRE(::mkdtemp(pattern.data()) != nullptr);
    directory_ = pattern;
    REQUIRE(store::Store::Create(path(), crypto::StoreId{1}, 1700000000).has_value());
  }
  ~TempStore() {
    std::error_code ignored;
    fs::remove_all(directory_, ignored);
  }
  TempStore(const TempStore&) = delete;
  TempStore& operator=(const TempStore&) = delete;
  fs::path path() const { return directory_ / "store.db"; }

 private:
  fs::path directory_;
};

TEST_CASE("Every column of a signed table is under the MAC or exempt by name", "[keys]") {
  const TempStore temp;
  const auto schema = store::SchemaColumns(temp.path());
  REQUIRE(schema.has_value());
  std::set<std::string> seen;
  for (const auto& [table, columns] : schema.value()) {
    CAPTURE(table);
    seen.insert(table);
    const auto covered = MacColumns(table);
    if (covered.empty()) {
      // Tables without a MAC in each row, and what protects them instead. A new table must be added here or be signed.
      const std::set<std::string> others = {
          "store_info",              // store_id and generation: the anchor (rule G6); counters
          "contents",                // sealed and wrapped: authenticated by themselves (rule C5)
          "keyring",    "keks",      // wrapped keys and keyed check values (rules K2, K3)
          "settings",                // MAC inside the value
          "audit",                   // the chain (rule A3)
          "changes",    "serving"};  // what to look at again: authorises nothing
      CHECK(others.contains(table));
      continue;
    }
    std::vector<std::string> known = covered;
    for (const std::string& column : MacExemptColumns(table)) known.push_back(column);
    std::vector<std::string> actual = columns;
    std::sort(known.begin(), known.end());
    std::sort(actual.begin(), actual.end());
    CHECK(actual == known);
  }
  for (const std::string_view table : MacTables()) CHECK(seen.contains(std::string(table)));
}

TEST_CASE("A keyring, rows and a version survive the database and verify", "[keys]") {
  const TempStore temp;
  const NewKeyring made = FreshKeyring();
  auto opened = store::Store::Open(temp.path(), store::OpenMode::kExclusive, {});
  REQUIRE(opened.has_value());
  store::Store& db = *opened.value();
  db.Start(nullptr);
  store::ClientRow client;
  client.id = {-5};
  client.name = "web";
  client.spiffe_id = "spiffe://example.org/web";
  client.content = true;
  made.keyring->Sign(&client);
  store::GroupRow group;
  group.id = {1};
  group.name = "group";
  group.metadata = "{}";
  made.keyring->Sign(&group);
  store::VersionRow version =
      made.keyring->SealVersion(InfoFor(INT64_MIN, -9), AsBytes("content")).value();
  store::SecretRow secret;
  secret.id = version.info.secret;
  secret.name = "db_password";
  secret.current = version.info.id;
  secret.type = "";
  secret.owner = GroupId{1};
  made.keyring->Sign(&secret);
  store::MembershipRow membership{.client = client.id, .group = group.id, .created_at = 3};
  made.keyring->Sign(&membership);
  store::GrantRow grant{.group = group.id, .secret = secret.id, .created_at = 4};
  made.keyring->Sign(&grant);
  const auto written = db.RunJob([&](store::Savepoint& tx) -> Status {
    RETURN_IF_ERROR(tx.PutKek(made.kek));
    for (const auto& row : made.rows) RETURN_IF_ERROR(tx.PutKeyring(row));
    RETURN_IF_ERROR(tx.InsertGroup(group));
    RETURN_IF_ERROR(tx.InsertClient(client));
    RETURN_IF_ERROR(tx.InsertSecret(secret));
    RETURN_IF_ERROR(tx.InsertVersion(version));
    RETURN_IF_ERROR(tx.InsertMembership(membership));
    RETURN_IF_ERROR(tx.InsertGrant(grant));
    return tx.PutSetting("setting", made.keyring->SignSetting("setting", AsBytes("on")));
  });
  REQUIRE(written.has_value());

  auto reader = db.Read();
  REQUIRE(reader.has_value());
  std::vector<store::KekRow> keks;
  std::vector<store::KeyringRow> rows;
  REQUIRE(reader.value()
              .ForEachKek([&](store::KekRow&& row) {
                keks.push_back(row);
                return Status();
              })
              .has_value());
  REQUIRE(reader.value()
              .ForEachKeyring([&](store::KeyringRow&& row) {
                rows.push_back(std::move(row));
                return Status();
              })
              .has_value());
  const auto loaded = Keyring::Load(db.store_id(), kTestKekId, KekOf(9), keks, rows);
  REQUIRE(loaded.has_value());
  const Keyring& keyring = *loaded.value();
  int verified = 0;
  const auto verify = [&](auto&& row) {
    ++verified;
    return keyring.Verify(row);
  };
  CHECK(reader.value().ForEachClient(verify).has_value());
  CHECK(reader.value().ForEachGroup(verify).has_value());
  CHECK(reader.value().ForEachMembership(verify).has_value());
  CHECK(reader.value().ForEachGrant(verify).has_value());
  CHECK(reader.value()
            .ForEachSecret([&](store::SecretRow&& row, store::VersionInfo&& info) -> Status {
              RETURN_IF_ERROR(verify(row));
              return verify(info);
            })
            .has_value());
  CHECK(verified == 6);
  const auto back = db.LoadVersion(version.info.id);
  REQUIRE(back.has_value());
  const auto content =
      keyring.OpenVersion(back.value().info, back.value().sealed, back.value().wrapped);
  REQUIRE(content.has_value());
  CHECK(AsText(content.value().bytes()) == "content");
  const auto setting = reader.value().GetSetting("setting");
  REQUIRE(setting.has_value());
  CHECK(AsText(keyring.OpenSetting("setting", setting.value()).value()) == "on");
}

}  // namespace
}  // namespace latchkey::keys
