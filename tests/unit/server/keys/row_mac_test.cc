#include "server/keys/row_mac.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <functional>
#include <set>

#include "keys_for_test.h"

namespace latchkey::keys {
namespace {

using tests::VectorRecord;

std::optional<std::string> OptionalText(const VectorRecord& record, const std::string& key) {
  if (record.IsNull(key)) return std::nullopt;
  return record.Text(key);
}
std::optional<GroupId> OptionalGroup(const VectorRecord& record, const std::string& key) {
  if (record.IsNull(key)) return std::nullopt;
  return GroupId{record.Signed(key)};
}

template <class Row>
void ReadStamps(const VectorRecord& record, Row* row) {
  row->description = record.Text("description");
  row->created_at = record.Signed("created_at");
  row->created_by = record.Text("created_by");
  row->updated_at = record.Signed("updated_at");
  row->updated_by = record.Text("updated_by");
}

store::ClientRow ClientOf(const VectorRecord& record) {
  store::ClientRow row;
  row.id = {record.Signed("id")};
  row.name = record.Text("name");
  row.spiffe_id = OptionalText(record, "spiffe_id");
  row.enabled = record.Signed("enabled") != 0;
  row.automation = record.Signed("automation") != 0;
  row.content = record.Signed("content") != 0;
  row.owner = OptionalGroup(record, "owner");
  ReadStamps(record, &row);
  row.mac = record.Array<32>("mac");
  return row;
}

store::GroupRow GroupOf(const VectorRecord& record) {
  store::GroupRow row;
  row.id = {record.Signed("id")};
  row.name = record.Text("name");
  row.owner = OptionalGroup(record, "owner");
  ReadStamps(record, &row);
  row.metadata = record.Text("metadata");
  row.mac = record.Array<32>("mac");
  return row;
}

store::MembershipRow MembershipOf(const VectorRecord& record) {
  return {.client = {record.Signed("client_id")},
          .group = {record.Signed("group_id")},
          .created_at = record.Signed("created_at"),
          .mac = record.Array<32>("mac")};
}

store::GrantRow GrantOf(const VectorRecord& record) {
  return {.group = {record.Signed("group_id")},
          .secret = {record.Signed("secret_id")},
          .created_at = record.Signed("created_at"),
          .mac = record.Array<32>("mac")};
}

store::SecretRow SecretOf(const VectorRecord& record) {
  store::SecretRow row;
  row.id = {record.Signed("id")};
  row.name = record.Text("name");
  row.owner = OptionalGroup(record, "owner");
  row.current = {record.Signed("current_version")};
  row.expiry = record.Signed("expiry");
  row.type = OptionalText(record, "type");
  row.state = static_cast<store::SecretState>(record.Signed("state"));
  row.newest_number = record.Unsigned("newest_number");
  row.sequence = record.Unsigned("sequence");
  ReadStamps(record, &row);
  row.mac = record.Array<32>("mac");
  return row;
}

store::VersionInfo VersionOf(const VectorRecord& record) {
  store::VersionInfo row;
  row.id = {record.Signed("id")};
  row.secret = {record.Signed("secret_id")};
  row.number = {record.Unsigned("number")};
  row.created_at = record.Signed("created_at");
  row.created_by = record.Text("created_by");
  row.metadata = record.Text("metadata");
  row.expiry = record.Signed("expiry");
  row.checksum = record.Array<32>("checksum");
  row.size = record.Unsigned("size");
  row.mac = record.Array<32>("mac");
  return row;
}

TEST_CASE("Rows of the golden vectors verify", "[keys]") {
  const auto records = tests::LoadVectors("rows.txt");
  const auto keyring = VectorKeyring();
  std::set<std::string> tables;
  for (const auto& record : records) {
    CAPTURE(record.name());
    CHECK(record.Array<16>("store_id") == keyring->store_id());
    CHECK(record.Hex("key").size() == 32);
    const std::string table = record.Text("table");
    tables.insert(table);
    if (table == "clients") CHECK(keyring->Verify(ClientOf(record)).has_value());
    if (table == "groups") CHECK(keyring->Verify(GroupOf(record)).has_value());
    if (table == "memberships") CHECK(keyring->Verify(MembershipOf(record)).has_value());
    if (table == "grants") CHECK(keyring->Verify(GrantOf(record)).has_value());
    if (table == "secrets") CHECK(keyring->Verify(SecretOf(record)).has_value());
    if (table == "versions") CHECK(keyring->Verify(VersionOf(record)).has_value());
    if (table == "settings") {
      const auto value = keyring->OpenSetting(record.Text("name"), record.Hex("stored"));
      REQUIRE(value.has_value());
      CHECK(HexLower(value.value()) == HexLower(record.Hex("value")));
    }
  }
  CHECK(tables.size() == MacTables().size() + 1);
  tests::CheckAllRead(records);
}

// Each change is to one member; the count of changes must be that of the columns, so that a new
// member cannot be forgotten.
template <class Row>
void CheckEveryChangeShows(const Row& original, std::string_view table,
                           const std::vector<std::function<void(Row*)>>& changes) {
  CAPTURE(table);
  const auto keyring = VectorKeyring();
  CHECK(changes.size() == MacColumns(table).size());
  Row row = original;
  keyring->Sign(&row);
  REQUIRE(keyring->Verify(row).has_value());
  for (std::size_t i = 0; i < changes.size(); ++i) {
    CAPTURE(i);
    Row changed = row;
    changes[i](&changed);
    const Status verified = keyring->Verify(changed);
    REQUIRE_FALSE(verified.has_value());
    CHECK(verified.error().code == Errc::kCorrupt);
    CHECK(verified.error().message.find(RowName(changed)) == 0);
  }
  Row other_mac = row;
  other_mac.mac[31] ^= 0x80;
  CHECK_FALSE(keyring->Verify(other_mac).has_value());
  CHECK_FALSE(FreshKeyring().keyring->Verify(row).has_value());
}

TEST_CASE("A changed column of any row fails its MAC", "[keys]") {
  using store::ClientRow, store::GroupRow, store::SecretRow, store::VersionInfo;
  ClientRow client;
  client.name = "web";
  CheckEveryChangeShows<ClientRow>(
      client, "clients",
      {[](auto* r) { r->id.value = 1; }, [](auto* r) { r->name = "we"; },
       [](auto* r) { r->spiffe_id = ""; }, [](auto* r) { r->enabled = false; },
       [](auto* r) { r->automation = true; }, [](auto* r) { r->content = true; },
       [](auto* r) { r->owner = GroupId{0}; }, [](auto* r) { r->description = "x"; },
       [](auto* r) { r->created_at = 1; }, [](auto* r) { r->created_by = "x"; },
       [](auto* r) { r->updated_at = 1; }, [](auto* r) { r->updated_by = "x"; }});
  CheckEveryChangeShows<GroupRow>(
      GroupRow{}, "groups",
      {[](auto* r) { r->id.value = 1; }, [](auto* r) { r->name = "x"; },
       [](auto* r) { r->owner = GroupId{0}; }, [](auto* r) { r->description = "x"; },
       [](auto* r) { r->created_at = 1; }, [](auto* r) { r->created_by = "x"; },
       [](auto* r) { r->updated_at = 1; }, [](auto* r) { r->updated_by = "x"; },
       [](auto* r) { r->metadata = "{}"; }});
  CheckEveryChangeShows<store::MembershipRow>(
      {.client = {1}, .group = {2}}, "memberships",
      {[](auto* r) { r->client.value = 3; }, [](auto* r) { r->group.value = 3; },
       [](auto* r) { r->created_at = 1; }});
  CheckEveryChangeShows<store::GrantRow>(
      {.group = {1}, .secret = {2}}, "grants",
      {[](auto* r) { r->group.value = 3; }, [](auto* r) { r->secret.value = 3; },
       [](auto* r) { r->created_at = 1; }});
  CheckEveryChangeShows<SecretRow>(
      SecretRow{}, "secrets",
      {[](auto* r) { r->id.value = 1; }, [](auto* r) { r->name = "x"; },
       [](auto* r) { r->owner = GroupId{0}; }, [](auto* r) { r->current.value = 1; },
       [](auto* r) { r->expiry = 1; }, [](auto* r) { r->type = ""; },
       [](auto* r) { r->state = store::SecretState::kDeleted; },
       [](auto* r) { r->newest_number = 1; }, [](auto* r) { r->sequence = 1; },
       [](auto* r) { r->description = "x"; }, [](auto* r) { r->created_at = 1; },
       [](auto* r) { r->created_by = "x"; }, [](auto* r) { r->updated_at = 1; },
       [](auto* r) { r->updated_by = "x"; }});
  CheckEveryChangeShows<VersionInfo>(
      VersionInfo{}, "versions",
      {[](auto* r) { r->id.value = 1; }, [](auto* r) { r->secret.value = 1; },
       [](auto* r) { r->number.value = 1; }, [](auto* r) { r->created_at = 1; },
       [](auto* r) { r->created_by = "x"; }, [](auto* r) { r->metadata = "{}"; },
       [](auto* r) { r->expiry = 1; }, [](auto* r) { r->checksum[31] = 1; },
       [](auto* r) { r->size = 1; }});
}

TEST_CASE("Rows of different tables never share a MAC", "[keys]") {
  const crypto::StoreId store{1};
  const store::MembershipRow membership{.client = {1}, .group = {2}, .created_at = 3};
  const store::GrantRow grant{.group = {1}, .secret = {2}, .created_at = 3};
  CHECK(HexLower(RowMessage(store, membership).bytes()) !=
        HexLower(RowMessage(store, grant).bytes()));
}

TEST_CASE("Bookkeeping of a client is outside its MAC and everything else inside", "[keys]") {
  const auto keyring = VectorKeyring();
  store::ClientRow client;
  keyring->Sign(&client);
  client.last_seen = 5;
  client.expiration = 6;
  CHECK(keyring->Verify(client).has_value());
  CHECK(MacExemptColumns("clients") == std::vector<std::string>{"last_seen", "expiration", "mac"});
  CHECK(MacExemptColumns("grants") == std::vector<std::string>{"mac"});
  CHECK(MacExemptColumns("audit").empty());
  CHECK(MacColumns("audit").empty());
  for (const std::string_view table : MacTables()) CHECK_FALSE(MacColumns(table).empty());
}

}  // namespace
}  // namespace latchkey::keys
