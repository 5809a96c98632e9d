// latchkeyd check: one changed byte anywhere is found and named (rules C8, G1, G2, A3, G6).
#include <catch2/catch.hpp>
#include <filesystem>

#include "server/assembly.h"
#include "server/audit/spool.h"
#include "server/keys/kek_provider.h"
#include "server/keys/row_mac.h"
#include "server/service/check.h"
#include "tests/integration/latchkeyd/place.h"

namespace latchkey {
namespace {

// One filled installation; each test works on a copy, because filling it takes longer than copying.
const Place& Filled() {
  static const Place place;
  static const bool filled = [] {
    place.Init();
    place.Populate();
    return true;
  }();
  INVARIANT(filled);
  return place;
}

class Copy {
 public:
  Copy() {
    std::filesystem::remove(place_.config());
    std::filesystem::copy(Filled().directory(), place_.directory(),
                          std::filesystem::copy_options::recursive);
    place_.WriteConfig();
  }
  const Place& place() const { return place_; }
  Outcome Check() const { return place_.Command({"check"}); }

 private:
  Place place_;
};

// Flips one bit of a blob; `at` counts from the end when it is negative.
void FlipByte(const std::string& store, const std::string& table, const std::string& column,
              const std::string& where, std::ptrdiff_t at) {
  ByteVector bytes;
  REQUIRE(ParseHex(
      SqlColumn(store, "SELECT hex(" + column + ") FROM " + table + " WHERE " + where).at(0),
      &bytes));
  bytes.at(
      static_cast<std::size_t>(at >= 0 ? at : static_cast<std::ptrdiff_t>(bytes.size()) + at)) ^= 1;
  Sql(store, "UPDATE " + table + " SET " + column + " = x'" + HexLower(bytes) + "' WHERE " + where);
}

void ExpectDamage(const Outcome& outcome, const std::string& named) {
  CAPTURE(outcome.out, outcome.err);
  CHECK(outcome.exit_code == 8);
  CHECK_THAT(outcome.out, Catch::Contains("damaged: "));
  CHECK_THAT(outcome.out, Catch::Contains(named));
}

// Runs the verifier on a store file by itself: the matrix of columns needs many runs.
std::vector<std::string> Findings(const std::string& store_path, const std::string& kek_path) {
  auto store = store::Store::Open(store_path, store::OpenMode::kSnapshot, {});
  if (!store) return {store.error().message};
  auto key = keys::FileKekProvider(kek_path).LoadAny();
  auto keyring = LoadKeyring(**store, std::move(key).value());
  if (!keyring) return {keyring.error().message};
  service::CheckOptions options;
  options.chain_id = "access:main";
  std::vector<std::string> findings;
  const auto counts = service::CheckStore(
      **store, **keyring, options, [&](const std::string& line) { findings.push_back(line); });
  if (!counts) findings.push_back(counts.error().message);
  return findings;
}

}  // namespace

TEST_CASE("An untouched store is good, and the counts say what was looked at", "[latchkeyd]") {
  const Copy copy;
  const Outcome outcome = copy.Check();
  CAPTURE(outcome.out, outcome.err);
  REQUIRE(outcome.exit_code == 0);
  CHECK(outcome.err.empty());
  for (const char* line :
       {"clients                3", "groups                 2", "memberships            2",
        "grants                 3", "secrets                2", "deleted secrets        1",
        "versions opened        9", "damaged                0"}) {
    CHECK_THAT(outcome.out, Catch::Contains(line));
  }
}

TEST_CASE("Every column that a row MAC covers is found when it is edited", "[latchkeyd]") {
  const Copy copy;
  const std::string store = copy.place().store();
  const std::string kek = copy.place().Path("kek");
  REQUIRE(Findings(store, kek).empty());
  const ByteVector good = ReadBytes(store);
  std::size_t edited = 0;
  for (const std::string_view table : keys::MacTables()) {
    const std::vector<std::string> columns = keys::MacColumns(table);
    REQUIRE_FALSE(columns.empty());
    for (const std::string& column : columns) {
      CAPTURE(std::string(table), column);
      const std::string name(table);
      // What is there, changed a little: numbers by some, texts by a letter, bytes by a bit; nothing becomes something.
      const std::string kind =
          SqlColumn(store, "SELECT typeof(" + column + ") FROM " + name + " LIMIT 1").at(0);
      std::string value = column + " + 1000003";
      if (kind == "text") value = column + " || 'x'";
      if (kind == "blob") value = "CAST('x' || substr(" + column + ", 2) AS BLOB)";
      if (kind == "null") {
        const bool is_text = SqlColumn(store, "SELECT type FROM pragma_table_info('" + name +
                                                  "') WHERE name = '" + column + "'")
                                 .at(0) == "TEXT";
        value = is_text ? "'x'" : "1";
      }
      const std::string key = name == "memberships" ? "client_id"
                              : name == "grants"    ? "secret_id"
                                                    : "id";
      Sql(store, "UPDATE " + name + " SET " + column + " = " + value + " WHERE " + key +
                     " = (SELECT max(" + key + ") FROM " + name + ")");
      const std::vector<std::string> findings = Findings(store, kek);
      CHECK_FALSE(findings.empty());
      const bool named = std::any_of(
          findings.begin(), findings.end(),
          [&](const std::string& line) { return line.find(name) != std::string::npos; });
      if (!named) WARN(findings.at(0));
      CHECK(named);
      ++edited;
      for (const char* suffix : {"-wal", "-shm"}) std::filesystem::remove(store + suffix);
      WriteBytes(store, good);
    }
  }
  CHECK(edited >= 50);
}

TEST_CASE("One flipped bit of any sealed version or wrapped key is found, old versions included",
          "[latchkeyd]") {
  const Copy copy;
  const std::string store = copy.place().store();
  const std::string kek = copy.place().Path("kek");
  const ByteVector good = ReadBytes(store);
  const std::vector<std::string> versions = SqlColumn(store, "SELECT version_id FROM contents");
  REQUIRE(versions.size() == 9);
  for (const std::string& version : versions) {
    for (const std::string column : {"sealed", "wrapped"}) {
      CAPTURE(version, column);
      FlipByte(store, "contents", column, "version_id = " + version, -1);  // within the tag
      const std::vector<std::string> findings = Findings(store, kek);
      REQUIRE(findings.size() == 1);
      CHECK_THAT(findings[0], Catch::StartsWith("versions: ") && Catch::Contains(version));
      for (const char* suffix : {"-wal", "-shm"}) std::filesystem::remove(store + suffix);
      WriteBytes(store, good);
    }
  }
}

TEST_CASE("check names a flipped byte of a sealed version and exits 8", "[latchkeyd]") {
  const Copy copy;
  const std::string id = SqlColumn(copy.place().store(),
                                   "SELECT v.id FROM versions v JOIN secrets s ON s.id = "
                                   "v.secret_id WHERE s.name = 'db_password' AND number = 2")
                             .at(0);
  FlipByte(copy.place().store(), "contents", "sealed", "version_id = " + id, 40);
  const Outcome outcome = copy.Check();
  ExpectDamage(outcome, "versions: version " + id + " of secret ");
  ExpectDamage(outcome, "(db_password number 2)");
}

TEST_CASE("check names two versions whose sealed contents were swapped", "[latchkeyd]") {
  const Copy copy;
  const std::string store = copy.place().store();
  const std::vector<std::string> ids = SqlColumn(store, "SELECT version_id FROM contents LIMIT 2");
  const std::string a = ids.at(0), b = ids.at(1);
  Sql(store, "CREATE TEMP TABLE t AS SELECT * FROM contents WHERE version_id IN (" + a + "," + b +
                 ");"
                 "UPDATE contents SET wrapped = (SELECT wrapped FROM t WHERE version_id = " +
                 b + "), sealed = (SELECT sealed FROM t WHERE version_id = " + b +
                 ") WHERE version_id = " + a +
                 ";"
                 "UPDATE contents SET wrapped = (SELECT wrapped FROM t WHERE version_id = " +
                 a + "), sealed = (SELECT sealed FROM t WHERE version_id = " + a +
                 ") WHERE version_id = " + b);
  const Outcome outcome = copy.Check();
  ExpectDamage(outcome, "version " + a);
  ExpectDamage(outcome, "version " + b);
}

TEST_CASE("check names an edited row of clients, grants and secrets by what people call it",
          "[latchkeyd]") {
  const Copy copy;
  Sql(copy.place().store(), "UPDATE clients SET content = 1 WHERE name = 'admin'");
  Sql(copy.place().store(),
      "UPDATE grants SET created_at = created_at + 1 WHERE secret_id = (SELECT id FROM secrets "
      "WHERE name = 'api_key')");
  Sql(copy.place().store(),
      "UPDATE secrets SET owner = (SELECT id FROM groups WHERE name = 'web') WHERE name = "
      "'db_password'");
  const Outcome outcome = copy.Check();
  ExpectDamage(outcome, "(admin): the row was changed outside the server");
  ExpectDamage(outcome, "(api_key to web): the row was changed");
  ExpectDamage(outcome, "(db_password): the row was changed");
}

TEST_CASE("check finds a version that lost its content, and a secret that lost its version",
          "[latchkeyd]") {
  const Copy copy;
  const std::string id = SqlColumn(copy.place().store(),
                                   "SELECT current_version FROM secrets WHERE name = 'db_password'")
                             .at(0);
  const bool whole = GENERATE(false, true);
  Sql(copy.place().store(), "DELETE FROM contents WHERE version_id = " + id);
  if (whole) Sql(copy.place().store(), "DELETE FROM versions WHERE id = " + id);
  const Outcome outcome = copy.Check();
  CAPTURE(outcome.out, outcome.err);
  CHECK(outcome.exit_code == 8);
}

TEST_CASE(
    "check finds one edited, removed, renumbered or appended event of the store chain at its "
    "position",
    "[latchkeyd]") {
  const Copy copy;
  const std::string store = copy.place().store();
  const std::size_t events = SqlColumn(store, "SELECT seq FROM audit").size();
  REQUIRE(events > 10);
  const std::string how =
      GENERATE("edit", "remove", "close the gap", "cut the last", "cut many", "hash");
  CAPTURE(how);
  std::string position = "record 5";
  if (how == "edit") FlipByte(store, "audit", "event", "seq = 5", -1);
  if (how == "hash") Sql(store, "UPDATE audit SET hash = zeroblob(32) WHERE seq = 5");
  if (how == "remove") Sql(store, "DELETE FROM audit WHERE seq = 5");
  if (how == "close the gap") {
    Sql(store,
        "DELETE FROM audit WHERE seq = 5; UPDATE audit SET seq = -seq WHERE seq > 5; UPDATE audit "
        "SET seq = -seq - 1 WHERE seq < 0");
  }
  if (how == "cut the last") {
    Sql(store, "DELETE FROM audit WHERE seq = (SELECT max(seq) FROM audit)");
    position = "record " + std::to_string(events);
  }
  if (how == "cut many") Sql(store, "DELETE FROM audit WHERE seq >= 5");
  const Outcome outcome = copy.Check();
  ExpectDamage(outcome, "audit chain store, " + position);
}

TEST_CASE("check finds a cut, an edit and a lost segment of the access chain", "[latchkeyd]") {
  const Copy copy;
  const std::string path = copy.place().Path("audit/access-000001.spool");
  ByteVector segment = ReadBytes(path);
  std::vector<std::size_t> offsets{audit::spool::kHeaderBytes};
  audit::spool::Record record;
  while (audit::spool::ReadRecord(segment, offsets.back(), &record) ==
         audit::spool::RecordState::kRecord)
    offsets.push_back(record.end);
  REQUIRE(offsets.size() >= 2);
  const std::string how = GENERATE("cut", "edit", "lose");
  CAPTURE(how);
  if (how == "cut")
    std::fill(segment.begin() + static_cast<std::ptrdiff_t>(offsets[offsets.size() - 2]),
              segment.end(), std::uint8_t{0});
  if (how == "edit") segment[offsets[0] + 30] ^= 4;
  if (how == "lose")
    std::filesystem::remove(path);
  else
    WriteBytes(path, segment);
  ExpectDamage(copy.Check(), "audit chain access:main, record ");
}

TEST_CASE("check says that a store is older than its anchor, and that an anchor is gone or forged",
          "[latchkeyd]") {
  const Copy copy;
  const Place& place = copy.place();
  const std::string how = GENERATE("older", "gone", "forged");
  CAPTURE(how);
  if (how == "older") {
    const ByteVector old = ReadBytes(place.store());
    REQUIRE(place.Command({"client", "set", "web-1", "--disable"}).exit_code == 0);
    WriteBytes(place.store(), old);
    const Outcome outcome = copy.Check();
    ExpectDamage(outcome, "the store is older than its anchor");
    // The access chain has seen more of the store chain than there is now.
    ExpectDamage(outcome, "audit chain store");
    return;
  }
  if (how == "gone") std::filesystem::remove(place.Path("anchor"));
  if (how == "forged") {
    std::string text = ReadText(place.Path("anchor"));
    text.replace(text.find("generation ") + 11, 1, "0");
    WriteBytes(place.Path("anchor"), AsBytes(text));
  }
  ExpectDamage(copy.Check(), "anchor: ");
}

TEST_CASE("A backup holds everything but the key, and check --store says so", "[latchkeyd]") {
  const Copy copy;
  const Place& place = copy.place();
  const std::string backup = place.Path("backup.db");
  REQUIRE(place.Command({"backup", backup}).exit_code == 0);
  const Outcome good = Latchkeyd({"check", "--store", backup, "--kek", place.Path("kek")});
  CAPTURE(good.out, good.err);
  CHECK(good.exit_code == 0);
  CHECK_THAT(good.out, Catch::Contains("versions opened        9"));
  CHECK_THAT(good.out, Catch::Contains("not part of a backup"));
  CHECK(place.Command({"check", "--store", backup}).exit_code == 0);

  const Outcome again = place.Command({"backup", backup});
  CHECK(again.exit_code == 1);
  CHECK_THAT(again.err, Catch::Contains("exists already"));

  Sql(backup, "UPDATE clients SET enabled = 1 - enabled WHERE name = 'web-1'");
  const Outcome damaged = Latchkeyd({"check", "--store", backup, "--kek", place.Path("kek")});
  ExpectDamage(damaged, "(web-1)");
  // The key is not in it: neither its text nor its bytes.
  const std::string key = ReadText(place.Path("kek"));
  const std::string part = key.substr(key.find('.', 8) + 1, 20);
  CHECK(ReadText(backup).find(part) == std::string::npos);
  const Outcome wrong = Latchkeyd({"check", "--store", backup, "--kek", place.Path("anchor")});
  CHECK(wrong.exit_code == 78);
}

}  // namespace latchkey
