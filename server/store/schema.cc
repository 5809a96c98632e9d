#include "server/store/schema.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <map>
#include <string>
#include <system_error>

#include "common/base/unique_fd.h"
#include "server/store/store.h"

namespace latchkey::store {
namespace {

struct Object {
  const char* name;
  const char* sql;
};

// STRICT: SQLite itself refuses a value of another type. Columns that authorise or route are
// covered by `mac` (rule G1); a test holds every column against that list. Owners are references,
// so that a group cannot vanish under a row whose MAC names it.
constexpr Object kObjects[] = {
    {"store_info",
     "CREATE TABLE store_info (id INTEGER PRIMARY KEY CHECK (id = 1), store_id BLOB NOT NULL, "
     "created_at INTEGER NOT NULL, generation INTEGER NOT NULL, next_group INTEGER NOT NULL, "
     "next_secret INTEGER NOT NULL) STRICT"},
    {"groups",
     "CREATE TABLE groups (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, "
     "description TEXT NOT NULL, created_at INTEGER NOT NULL, created_by TEXT NOT NULL, "
     "updated_at INTEGER NOT NULL, updated_by TEXT NOT NULL, metadata TEXT NOT NULL, "
     "owner INTEGER REFERENCES groups(id), mac BLOB NOT NULL) STRICT"},
    {"groups_owner", "CREATE INDEX groups_owner ON groups(owner) WHERE owner IS NOT NULL"},
    {"clients",
     "CREATE TABLE clients (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, "
     "description TEXT NOT NULL, spiffe_id TEXT UNIQUE, created_at INTEGER NOT NULL, "
     "created_by TEXT NOT NULL, updated_at INTEGER NOT NULL, updated_by TEXT NOT NULL, "
     "enabled INTEGER NOT NULL, automation INTEGER NOT NULL, content INTEGER NOT NULL, "
     "owner INTEGER REFERENCES groups(id), last_seen INTEGER, expiration INTEGER, "
     "mac BLOB NOT NULL) STRICT"},
    {"clients_owner", "CREATE INDEX clients_owner ON clients(owner) WHERE owner IS NOT NULL"},
    {"memberships",
     "CREATE TABLE memberships (client_id INTEGER NOT NULL REFERENCES clients(id), "
     "group_id INTEGER NOT NULL REFERENCES groups(id), created_at INTEGER NOT NULL, "
     "mac BLOB NOT NULL, PRIMARY KEY (client_id, group_id)) STRICT, WITHOUT ROWID"},
    {"memberships_group", "CREATE INDEX memberships_group ON memberships(group_id)"},
    {"secrets",
     "CREATE TABLE secrets (id INTEGER PRIMARY KEY, name TEXT NOT NULL, description TEXT NOT NULL, "
     "created_at INTEGER NOT NULL, created_by TEXT NOT NULL, updated_at INTEGER NOT NULL, "
     "updated_by TEXT NOT NULL, type TEXT, owner INTEGER REFERENCES groups(id), "
     "current_version INTEGER NOT NULL, expiry INTEGER NOT NULL, state INTEGER NOT NULL, "
     "newest_number INTEGER NOT NULL, sequence INTEGER NOT NULL, mac BLOB NOT NULL) STRICT"},
    {"secrets_live_name", "CREATE UNIQUE INDEX secrets_live_name ON secrets(name) WHERE state = 1"},
    {"secrets_owner", "CREATE INDEX secrets_owner ON secrets(owner) WHERE owner IS NOT NULL"},
    {"grants",
     "CREATE TABLE grants (group_id INTEGER NOT NULL REFERENCES groups(id), "
     "secret_id INTEGER NOT NULL REFERENCES secrets(id), created_at INTEGER NOT NULL, "
     "mac BLOB NOT NULL, PRIMARY KEY (group_id, secret_id)) STRICT, WITHOUT ROWID"},
    {"grants_secret", "CREATE INDEX grants_secret ON grants(secret_id)"},
    {"versions",
     "CREATE TABLE versions (id INTEGER PRIMARY KEY, "
     "secret_id INTEGER NOT NULL REFERENCES secrets(id), number INTEGER NOT NULL, "
     "created_at INTEGER NOT NULL, created_by TEXT NOT NULL, metadata TEXT NOT NULL, "
     "expiry INTEGER NOT NULL, checksum BLOB NOT NULL, size INTEGER NOT NULL, "
     "mac BLOB NOT NULL, UNIQUE (secret_id, number)) STRICT"},
    // Apart from versions: walks of heads and listings never touch pages of content.
    {"contents",
     "CREATE TABLE contents (version_id INTEGER PRIMARY KEY REFERENCES versions(id), "
     "wrapped BLOB NOT NULL, sealed BLOB NOT NULL) STRICT"},
    {"keyring",
     "CREATE TABLE keyring (purpose TEXT PRIMARY KEY NOT NULL, kek_id INTEGER NOT NULL, "
     "wrapped BLOB NOT NULL) STRICT"},
    {"keks",
     "CREATE TABLE keks (kek_id INTEGER PRIMARY KEY, check_value BLOB NOT NULL, "
     "created_at INTEGER NOT NULL, active INTEGER NOT NULL) STRICT"},
    {"settings",
     "CREATE TABLE settings (name TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL) STRICT"},
    {"audit",
     "CREATE TABLE audit (seq INTEGER PRIMARY KEY, event BLOB NOT NULL, hash BLOB NOT NULL) "
     "STRICT"},
    {"changes",
     "CREATE TABLE changes (seq INTEGER PRIMARY KEY, generation INTEGER NOT NULL, "
     "kind INTEGER NOT NULL, secret_id INTEGER NOT NULL, group_id INTEGER NOT NULL, "
     "client_id INTEGER NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, "
     "previous INTEGER NOT NULL) STRICT"},
    {"serving",
     "CREATE TABLE serving (client_id INTEGER PRIMARY KEY REFERENCES clients(id), "
     "generation INTEGER NOT NULL, since INTEGER NOT NULL, last_seen INTEGER NOT NULL) STRICT"},
};

constexpr off_t kUserVersionOffset = 60;  // of the file header (sqlite.org/fileformat2.html)

Error NewerSchema(std::int64_t found) {
  return Error{Errc::kConflict, "store: schema " + std::to_string(found) +
                                    " is newer than this program's " +
                                    std::to_string(kSchemaVersion) + "; run the newer program"};
}

Error WrongSchema(const std::string& name) {
  return Error{Errc::kCorrupt, "store: schema object \"" + name +
                                   "\" is not the one this program makes; restore a backup"};
}

}  // namespace

Status CreateSchema(Connection& connection, const ByteArray<16>& store_id,
                    std::int64_t created_at) {
  RETURN_IF_ERROR(connection.Execute("BEGIN IMMEDIATE"));
  for (const Object& object : kObjects) RETURN_IF_ERROR(connection.Execute(object.sql));
  const std::string marks = "PRAGMA application_id = " + std::to_string(kApplicationId) +
                            "; PRAGMA user_version = " + std::to_string(kSchemaVersion);
  RETURN_IF_ERROR(connection.Execute(marks.c_str()));
  RETURN_IF_ERROR(connection
                      .Prepare("INSERT INTO store_info (id, store_id, created_at, generation, "
                               "next_group, next_secret) VALUES (1, ?, ?, 0, 1, 1)")
                      .Bind(Bytes(store_id))
                      .Bind(created_at)
                      .Run());
  return connection.Execute("COMMIT");
}

Status CheckSchema(Connection& connection) {
  ASSIGN_OR_RETURN(const std::int64_t version, connection.QueryInt("PRAGMA user_version"));
  if (version > std::int64_t{kSchemaVersion}) return NewerSchema(version);
  ASSIGN_OR_RETURN(const std::int64_t application, connection.QueryInt("PRAGMA application_id"));
  if (application != kApplicationId || version != std::int64_t{kSchemaVersion}) {
    return Error{Errc::kInvalidArgument, "store: the file is not a store of latchkey"};
  }
  std::map<std::string, std::string> expected;
  for (const Object& object : kObjects) expected.emplace(object.name, object.sql);
  Statement statement =
      connection.Prepare("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL");
  for (;;) {
    ASSIGN_OR_RETURN(const bool row, statement.Step());
    if (!row) break;
    const std::string name = statement.Text();
    const std::string sql = statement.Text();
    RETURN_IF_ERROR(statement.RowStatus("sqlite_schema"));
    const auto found = expected.find(name);
    if (found == expected.end() || found->second != sql) return WrongSchema(name);
    expected.erase(found);
  }
  if (!expected.empty()) return WrongSchema(expected.begin()->first);
  return {};
}

Status RefuseNewerSchema(const std::filesystem::path& path) {
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) {
    return Error{Errc::kUnavailable, "store: \"" + path.string() + "\" cannot be opened: " +
                                         std::generic_category().message(errno)};
  }
  std::uint8_t header[4];
  if (::pread(file.get(), header, sizeof header, kUserVersionOffset) != ssize_t{sizeof header}) {
    return Error{Errc::kInvalidArgument,
                 "store: \"" + path.string() + "\" is not a store of latchkey"};
  }
  const std::uint32_t version = GetU32(header);
  if (version > kSchemaVersion) return NewerSchema(version);
  return {};
}

}  // namespace latchkey::store
