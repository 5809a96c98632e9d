// What one who writes the file, or a bad disk, can do to the store: with the real keys above it
// (F09, F10, rules G1, G2).
#include <sqlite3.h>

#include <catch2/catch.hpp>
#include <fstream>
#include <map>
#include <random>
#include <set>

#include "common/base/c_handle.h"
#include "server/catalog/catalog.h"
#include "server/keys/keyring.h"
#include "server/store/store.h"
#include "tests/support/store_fixture.h"

namespace latchkey::store {
namespace {

using testing::kTestStoreId;
using testing::Must;
using testing::TempDir;

class KeyringVerifier final : public catalog::RowVerifier {
 public:
  explicit KeyringVerifier(const keys::Keyring& keys) : keys_(keys) {}
  bool Verify(const ClientRow& row) const override { return keys_.Verify(row).has_value(); }
  bool Verify(const GroupRow& row) const override { return keys_.Verify(row).has_value(); }
  bool Verify(const MembershipRow& row) const override { return keys_.Verify(row).has_value(); }
  bool Verify(const GrantRow& row) const override { return keys_.Verify(row).has_value(); }
  bool Verify(const SecretRow& row) const override { return keys_.Verify(row).has_value(); }
  bool Verify(const VersionInfo& row) const override { return keys_.Verify(row).has_value(); }

 private:
  const keys::Keyring& keys_;
};

// A store with signed rows and sealed contents, closed, as a file to copy and damage.
class Original {
 public:
  Original() {
    Must(Store::Create(path(), kTestStoreId, 0));
    auto made = Must(keys::Keyring::Create(kTestStoreId, 1, Must(crypto::Kek::Random()), 0));
    keys_ = std::move(made.keyring);
    auto store = Must(Store::Open(path(), OpenMode::kExclusive, {}));
    store->Start(nullptr);
    Must(store->RunJob([this](Savepoint& s) { return Fill(s); }));
  }
  std::filesystem::path path() const { return dir_ / "original.db"; }
  const keys::Keyring& keys() const { return *keys_; }
  std::string ContentOf(std::int64_t secret, std::uint64_t number) const {
    return "content " + std::to_string(secret) + "/" + std::to_string(number) +
           std::string(static_cast<std::size_t>(secret) * 300, '.');
  }
  std::string bytes() const {
    std::ifstream in(path(), std::ios::binary);
    return std::string((std::istreambuf_iterator<char>(in)), {});
  }

 private:
  template <class Row>
  Row Signed(Row row) const {
    keys_->Sign(&row);
    return row;
  }
  Status Fill(Savepoint& s) const {
    for (int i = 1; i <= 6; ++i) {
      GroupRow group = testing::GroupRowOf(i, "group" + std::to_string(i));
      if (i > 1) group.owner = GroupId{1};
      RETURN_IF_ERROR(s.InsertGroup(Signed(group)));
      ClientRow client = testing::ClientRowOf(i, "client" + std::to_string(i));
      client.spiffe_id = "spiffe://d/" + std::to_string(i);
      client.owner = GroupId{1};
      RETURN_IF_ERROR(s.InsertClient(Signed(client)));
      SecretRow secret = testing::SecretRowOf(i, "secret" + std::to_string(i), i * 10 + 2, 2);
      secret.type = "t";
      secret.owner = GroupId{1};
      RETURN_IF_ERROR(s.InsertSecret(Signed(secret)));
      for (std::uint64_t number = 1; number <= 2; ++number) {
        VersionInfo info = testing::VersionRowOf(i * 10 + static_cast<int>(number), i, number).info;
        ASSIGN_OR_RETURN(const VersionRow version,
                         keys_->SealVersion(info, AsBytes(ContentOf(i, number))));
        RETURN_IF_ERROR(s.InsertVersion(version));
      }
    }
    for (int i = 1; i <= 6; ++i) {
      for (int j = i; j <= 6; j += 2) {
        RETURN_IF_ERROR(s.InsertMembership(Signed(MembershipRow{{i}, {j}, 7, {}})));
        RETURN_IF_ERROR(s.InsertGrant(Signed(GrantRow{{j}, {i}, 7, {}})));
      }
    }
    return {};
  }

  TempDir dir_;
  std::unique_ptr<keys::Keyring> keys_;
};

const Original& TheOriginal() {
  static const Original original;
  return original;
}

// Reads everything that a server would: "" when all of it is right, "error" when something refused,
// else what is wrong.
std::string ReadAll(const std::filesystem::path& path) {
  const Original& original = TheOriginal();
  auto store = Store::Open(path, OpenMode::kExclusive, {});
  if (!store.has_value()) return "error";
  auto reader = store.value()->Read();
  if (!reader.has_value()) return "error";
  const auto root = catalog::LoadRoot(reader.value(), KeyringVerifier(original.keys()));
  bool refused = !root.has_value();
  if (root.has_value()) {
    // Whatever was loaded grants nothing that the original does not.
    for (int client = 1; client <= 6; ++client) {
      for (int secret = 1; secret <= 6; ++secret) {
        bool expected = false;
        for (int group = 1; group <= 6; ++group) {
          expected = expected || (group >= client && (group - client) % 2 == 0 && group >= secret &&
                                  (group - secret) % 2 == 0);
        }
        if (root.value()->CanRead(ClientId{client}, SecretId{secret}) && !expected) {
          return "client " + std::to_string(client) + " gained " + std::to_string(secret);
        }
      }
    }
  }
  for (int secret = 1; secret <= 6; ++secret) {
    for (std::uint64_t number = 1; number <= 2; ++number) {
      const auto version =
          reader.value().LoadVersion(VersionId{secret * 10 + static_cast<int>(number)});
      if (!version.has_value()) {
        refused = true;
        continue;
      }
      const auto& row = version.value();
      const auto opened = original.keys().OpenVersion(row.info, row.sealed, row.wrapped);
      if (!opened.has_value()) {
        refused = true;
      } else if (AsText(opened.value().bytes()) != original.ContentOf(secret, number)) {
        return "wrong plaintext";
      }
    }
  }
  return refused ? "error" : "";
}

void WriteFile(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
  std::filesystem::permissions(path, std::filesystem::perms(0600));
}

TEST_CASE("Flipped bytes, swapped pages and truncations give right data or an error",
          "[store][damage]") {
  const std::string original = TheOriginal().bytes();
  std::mt19937_64 random(Catch::rngSeed());
  const TempDir dir;
  const auto path = dir / "s.db";
  const std::size_t pages = original.size() / 4096;
  REQUIRE(pages > 20);
  WriteFile(path, original);
  REQUIRE(ReadAll(path) == "");
  int refused = 0;
  for (int round = 0; round < 1300; ++round) {
    std::string bytes = original;
    if (round < 1000) {
      auto& byte = bytes[random() % bytes.size()];
      byte = static_cast<char>(byte ^ static_cast<char>(1 << random() % 8));
    } else if (round < 1200) {
      const std::size_t a = random() % pages;
      const std::size_t b = random() % pages;
      std::swap_ranges(bytes.begin() + static_cast<std::ptrdiff_t>(a * 4096),
                       bytes.begin() + static_cast<std::ptrdiff_t>((a + 1) * 4096),
                       bytes.begin() + static_cast<std::ptrdiff_t>(b * 4096));
    } else {
      bytes.resize(random() % bytes.size());
    }
    for (const char* suffix : {"-wal", "-shm"}) std::filesystem::remove(path.string() + suffix);
    WriteFile(path, bytes);
    const std::string result = ReadAll(path);
    if (result != "" && result != "error") FAIL("round " << round << ": " << result);
    refused += result == "error" ? 1 : 0;
  }
  CHECK(refused > 100);
}

using Sqlite3 = CHandle<sqlite3, sqlite3_close_v2>;

// One who has the file and any SQLite, but not the keys.
class Attacker {
 public:
  Attacker() {
    WriteFile(path(), TheOriginal().bytes());
    sqlite3* raw = nullptr;
    REQUIRE(sqlite3_open(path().c_str(), &raw) == SQLITE_OK);
    db_.reset(raw);
  }
  std::filesystem::path path() const { return dir_ / "s.db"; }
  void Do(const std::string& sql) {
    char* error = nullptr;
    const int code = sqlite3_exec(db_.get(), sql.c_str(), nullptr, nullptr, &error);
    const std::string text = error != nullptr ? error : "";
    sqlite3_free(error);
    if (code != SQLITE_OK) FAIL(sql << ": " << text);
  }
  // What the server says of the file afterwards.
  std::string Result() {
    db_.reset();
    return ReadAll(path());
  }

 private:
  TempDir dir_;
  Sqlite3 db_;
};

TEST_CASE("Every column of the tables with MACs is covered or exempt for a reason",
          "[store][integrity]") {
  // Tables whose rows carry no MAC of their own, and why.
  const std::map<std::string, std::string> without = {
      {"store_info",
       "the store id is part of every MAC; generation and heads are in the anchor (G6)"},
      {"contents", "the seal and its AAD cover all columns (G5)"},
      {"keyring", "wrapped with AAD by the KEK"},
      {"keks", "check values are compared before use (K3)"},
      {"settings", "the MAC is in the value"},
      {"audit", "hash chain under a key (A3)"},
      {"changes", "hints: what a client gets is decided on verified rows"},
      {"serving", "bookkeeping: authorises nothing"},
  };
  std::size_t with_mac = 0;
  for (const auto& [table, columns] : Must(SchemaColumns(TheOriginal().path()))) {
    CAPTURE(table);
    const auto covered = keys::MacColumns(table);
    if (covered.empty()) {
      CHECK(without.contains(table));
      continue;
    }
    ++with_mac;
    std::multiset<std::string> known(covered.begin(), covered.end());
    for (const auto& exempt : keys::MacExemptColumns(table)) known.insert(exempt);
    CHECK(known == std::multiset<std::string>(columns.begin(), columns.end()));
  }
  CHECK(with_mac == keys::MacTables().size());
}

TEST_CASE("A change to any covered column of any row is detected", "[store][integrity]") {
  for (const std::string_view table : keys::MacTables()) {
    for (const std::string& column : keys::MacColumns(table)) {
      CAPTURE(table, column);
      const std::string where = table == "memberships" ? "client_id = 2 AND group_id = 4"
                                : table == "grants"    ? "group_id = 4 AND secret_id = 2"
                                : table == "versions"  ? "id = 22"
                                                       : "id = 2";
      // A value of the same type: the attacker respects STRICT.
      std::string value = column + " = ";
      if (column == "checksum") {
        value += "randomblob(32)";
      } else if (column == "enabled" || column == "automation" || column == "content") {
        value += "1 - " + column;
      } else if (column == "state") {
        value += "2";
      } else {
        value += "CASE typeof(" + column + ") WHEN 'text' THEN " + column + " || 'x' ELSE " +
                 column + " + 1000000 END";
      }
      Attacker attacker;
      attacker.Do("UPDATE " + std::string(table) + " SET " + value + " WHERE " + where);
      CHECK(attacker.Result() == "error");
    }
  }
}

TEST_CASE("Rows that are copied, swapped or made up are detected", "[store][integrity]") {
  Attacker attacker;
  SECTION("a grant copied to another secret") {
    attacker.Do(
        "INSERT INTO grants SELECT group_id, 5, created_at, mac FROM grants "
        "WHERE group_id = 4 AND secret_id = 2");
  }
  SECTION("a membership copied to another client") {
    attacker.Do(
        "INSERT INTO memberships SELECT 5, group_id, created_at, mac FROM memberships "
        "WHERE client_id = 2 AND group_id = 4");
  }
  SECTION("a grant with a made-up mac") {
    attacker.Do("INSERT INTO grants VALUES (4, 5, 7, randomblob(32))");
  }
  SECTION("the macs of two clients swapped") {
    attacker.Do("UPDATE clients SET mac = (SELECT mac FROM clients WHERE id = 3) WHERE id = 2");
  }
  SECTION("a secret pointed back at an old version") {
    attacker.Do("UPDATE secrets SET current_version = 21 WHERE id = 2");
  }
  SECTION("a secret pointed at the version of another") {
    attacker.Do("UPDATE secrets SET current_version = 32 WHERE id = 2");
  }
  SECTION("a version moved to another secret") {
    attacker.Do("UPDATE versions SET secret_id = 3, number = 9 WHERE id = 22");
  }
  SECTION("the content of two versions swapped") {
    attacker.Do(
        "UPDATE contents SET (sealed, wrapped) = "
        "(SELECT sealed, wrapped FROM contents WHERE version_id = 32) WHERE version_id = 22");
  }
  SECTION("the sealed bytes of an older version under the newer one") {
    attacker.Do(
        "UPDATE contents SET sealed = "
        "(SELECT sealed FROM contents WHERE version_id = 21) WHERE version_id = 22");
  }
  SECTION("a deleted group, whose members remain") {
    attacker.Do("PRAGMA foreign_keys = OFF; DELETE FROM groups WHERE id = 4");
  }
  SECTION("a deleted version") {
    attacker.Do("PRAGMA foreign_keys = OFF; DELETE FROM versions WHERE id = 22");
  }
  CHECK(attacker.Result() == "error");
}

TEST_CASE("A changed schema is refused", "[store][integrity]") {
  Attacker attacker;
  SECTION("a trigger") {
    attacker.Do("CREATE TRIGGER t AFTER INSERT ON audit BEGIN DELETE FROM audit; END");
  }
  SECTION("a view") {
    attacker.Do("CREATE VIEW v AS SELECT * FROM clients");
  }
  SECTION("a dropped unique index") {
    attacker.Do("DROP INDEX secrets_live_name");
  }
  SECTION("a column more") {
    attacker.Do("ALTER TABLE clients ADD COLUMN admin INTEGER");
  }
  SECTION("a table less") {
    attacker.Do("DROP TABLE serving");
  }
  SECTION("a table more") {
    attacker.Do("CREATE TABLE extra (x INTEGER)");
  }
  attacker.Result();
  const auto opened = Store::Open(attacker.path(), OpenMode::kExclusive, {});
  REQUIRE_FALSE(opened.has_value());
  CHECK(opened.error().code == Errc::kCorrupt);
  CHECK_THAT(opened.error().message, Catch::Contains("schema object"));
}

TEST_CASE("The untouched copy of the attacker's file is right", "[store][integrity]") {
  CHECK(Attacker().Result() == "");
}

TEST_CASE("A malformed page found while serving ends the store", "[store][damage]") {
  const TempDir dir;
  const auto path = dir / "s.db";
  std::string bytes = TheOriginal().bytes();
  // Every page but the first few, which Open itself reads: some of them hold contents.
  int fatal = 0;
  int errors = 0;
  for (std::size_t page = 1; page < bytes.size() / 4096; ++page) {
    std::string damaged = bytes;
    damaged[page * 4096] = '\x77';  // no kind of b-tree page
    for (const char* suffix : {"-wal", "-shm"}) std::filesystem::remove(path.string() + suffix);
    WriteFile(path, damaged);
    Options options;
    options.fatal = [&fatal](const Error& error) {
      ++fatal;
      if (error.code != Errc::kCorrupt) std::abort();
    };
    const int before = fatal;
    const auto store = Store::Open(path, OpenMode::kExclusive, std::move(options));
    if (!store.has_value()) continue;
    store.value()->Start(nullptr);
    bool failed = false;
    for (int secret = 1; secret <= 6; ++secret) {
      failed = failed || !store.value()->LoadVersion(VersionId{secret * 10 + 1}).has_value();
    }
    if (!failed) continue;
    ++errors;
    CHECK(fatal == before + 1);
    // Nothing is written any more.
    const auto job = store.value()->RunJob([](Savepoint&) { return Status(); });
    CHECK_FALSE(job.has_value());
  }
  CHECK(errors > 0);
}

}  // namespace
}  // namespace latchkey::store
