#include "server/store/sqlite.h"

#include <cerrno>
#include <cstring>
#include <limits>
#include <mutex>
#include <utility>

#include "common/base/log.h"
#include "common/model/limits.h"
#include "server/store/store.h"

namespace latchkey::store {
namespace {

// What SQLite's result codes mean to us. Everything is an extended code.
struct Meaning {
  Errc code;
  Trouble trouble;
  const char* text;
};

Meaning MeaningOfIoError(int code, int system_errno) {
  switch (code) {
    case SQLITE_IOERR_FSYNC:
    case SQLITE_IOERR_DIR_FSYNC:
      return {Errc::kInternal, Trouble::kFatal, "fsync failed"};
    case SQLITE_IOERR_CORRUPTFS:
      return {Errc::kCorrupt, Trouble::kFatal, "file system reports corruption"};
    case SQLITE_IOERR_NOMEM:
      return {Errc::kUnavailable, Trouble::kTransient, "out of memory"};
    default:
      break;
  }
  if (system_errno == ENOSPC || system_errno == EDQUOT) {
    return {Errc::kUnavailable, Trouble::kTransient, "disk full"};
  }
  return {Errc::kUnavailable, Trouble::kTransient, "input or output error"};
}

Meaning MeaningOf(int code, int system_errno) {
  switch (code & 0xff) {
    case SQLITE_CONSTRAINT:
      if (code == SQLITE_CONSTRAINT_UNIQUE || code == SQLITE_CONSTRAINT_PRIMARYKEY ||
          code == SQLITE_CONSTRAINT_ROWID) {
        return {Errc::kConflict, Trouble::kNone, "already taken"};
      }
      return {Errc::kInternal, Trouble::kNone, "breaks a constraint of the schema"};
    case SQLITE_FULL:
      return {Errc::kUnavailable, Trouble::kTransient, "disk full"};
    case SQLITE_IOERR:
      return MeaningOfIoError(code, system_errno);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return {Errc::kCorrupt, Trouble::kFatal, "database file is malformed"};
    case SQLITE_NOMEM:
      return {Errc::kUnavailable, Trouble::kTransient, "out of memory"};
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return {Errc::kUnavailable, Trouble::kTransient, "busy"};
    case SQLITE_CANTOPEN:
      return {Errc::kUnavailable, Trouble::kTransient, "file cannot be opened"};
    case SQLITE_PERM:
    case SQLITE_AUTH:
    case SQLITE_READONLY:
      return {Errc::kUnavailable, Trouble::kTransient, "file may not be written"};
    case SQLITE_TOOBIG:
      return {Errc::kTooLarge, Trouble::kNone, "value over the store's limit"};
    default:
      return {Errc::kInternal, Trouble::kTransient, "database call failed"};
  }
}

int RememberWalPages(void* pages, sqlite3*, const char*, int count) {
  *static_cast<int*>(pages) = count;
  return SQLITE_OK;
}

// Memory statistics take a global lock on every allocation. Must come before SQLite's first use;
// later it is refused, harmlessly.
void InitialiseOnce() {
  static std::once_flag once;
  std::call_once(once, [] {
    sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
    sqlite3_initialize();
  });
}

}  // namespace

Statement::Statement(Connection* connection, sqlite3_stmt* statement)
    : connection_(connection), statement_(statement) {}

Statement::Statement(Statement&& other) noexcept
    : connection_(other.connection_),
      statement_(std::exchange(other.statement_, nullptr)),
      parameter_(other.parameter_),
      column_(other.column_),
      bind_error_(other.bind_error_),
      bad_value_(other.bad_value_) {}

Statement::~Statement() {
  if (statement_ == nullptr) return;
  // The result of reset repeats the error of the last step, which was reported then.
  sqlite3_reset(statement_);
  sqlite3_clear_bindings(statement_);
}

Statement& Statement::Bind(std::int64_t value) {
  if (statement_ != nullptr) bind_error_ |= sqlite3_bind_int64(statement_, ++parameter_, value);
  return *this;
}

Statement& Statement::Bind(std::string_view text) {
  // A null pointer would bind NULL: an empty view is an empty text.
  const char* data = text.data() != nullptr ? text.data() : "";
  if (statement_ != nullptr) {
    bind_error_ |= sqlite3_bind_text64(statement_, ++parameter_, data, text.size(), SQLITE_STATIC,
                                       SQLITE_UTF8);
  }
  return *this;
}

Statement& Statement::Bind(Bytes bytes) {
  if (statement_ == nullptr) return *this;
  ++parameter_;
  bind_error_ |= bytes.empty() ? sqlite3_bind_zeroblob(statement_, parameter_, 0)
                               : sqlite3_bind_blob64(statement_, parameter_, bytes.data(),
                                                     bytes.size(), SQLITE_STATIC);
  return *this;
}

Statement& Statement::BindNull() {
  if (statement_ != nullptr) bind_error_ |= sqlite3_bind_null(statement_, ++parameter_);
  return *this;
}

Result<bool> Statement::Step() {
  column_ = 0;
  if (connection_->refuses()) {
    return Error{Errc::kUnavailable, "store: the transaction ended with a storage failure"};
  }
  if (statement_ == nullptr) return connection_->Fail(SQLITE_INTERNAL, "prepare");
  if (bind_error_ != SQLITE_OK) return connection_->Fail(bind_error_, "bind");
  const int code = sqlite3_step(statement_);
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  return connection_->Fail(code, "step");
}

Status Statement::Run() {
  ASSIGN_OR_RETURN(const bool row, Step());
  if (row) return Error{Errc::kInternal, "store: a change returned rows"};
  return {};
}

Status Statement::RunOne(std::string_view what) {
  RETURN_IF_ERROR(Run());
  if (changes() == 0) return Error{Errc::kNotFound, std::string(what) + " not found in the store"};
  return {};
}

int Statement::changes() const {
  return sqlite3_changes(connection_->raw());
}

bool Statement::Is(int type) {
  if (sqlite3_column_type(statement_, column_) == type) return true;
  bad_value_ = true;
  return false;
}

std::int64_t Statement::Int() {
  const std::int64_t value = Is(SQLITE_INTEGER) ? sqlite3_column_int64(statement_, column_) : 0;
  ++column_;
  return value;
}

std::uint64_t Statement::Unsigned() {
  const std::int64_t value = Int();
  if (value < 0) bad_value_ = true;
  return static_cast<std::uint64_t>(value);
}

bool Statement::Bool() {
  const std::int64_t value = Int();
  if (value != 0 && value != 1) bad_value_ = true;
  return value == 1;
}

std::optional<std::int64_t> Statement::OptionalInt() {
  if (sqlite3_column_type(statement_, column_) == SQLITE_NULL) {
    ++column_;
    return std::nullopt;
  }
  return Int();
}

std::string Statement::Text() {
  std::string out;
  if (Is(SQLITE_TEXT)) {
    // The order matters: column_bytes is the size of what column_text converted to.
    const auto* text = sqlite3_column_text(statement_, column_);
    const int size = sqlite3_column_bytes(statement_, column_);
    if (text != nullptr) {
      out.assign(reinterpret_cast<const char*>(text), static_cast<std::size_t>(size));
    } else {
      bad_value_ = true;  // out of memory while converting
    }
  }
  ++column_;
  return out;
}

std::optional<std::string> Statement::OptionalText() {
  if (sqlite3_column_type(statement_, column_) == SQLITE_NULL) {
    ++column_;
    return std::nullopt;
  }
  return Text();
}

ByteVector Statement::Blob() {
  ByteVector out;
  if (Is(SQLITE_BLOB)) {
    const auto* data = static_cast<const std::uint8_t*>(sqlite3_column_blob(statement_, column_));
    const int size = sqlite3_column_bytes(statement_, column_);
    if (size > 0 && data != nullptr) {
      out.assign(data, data + size);
    } else if (size > 0) {
      bad_value_ = true;
    }
  }
  ++column_;
  return out;
}

void Statement::ReadFixed(MutableBytes out) {
  if (Is(SQLITE_BLOB)) {
    const void* data = sqlite3_column_blob(statement_, column_);
    const int size = sqlite3_column_bytes(statement_, column_);
    if (data != nullptr && static_cast<std::size_t>(size) == out.size()) {
      std::memcpy(out.data(), data, out.size());
    } else {
      bad_value_ = true;
    }
  }
  ++column_;
}

Status Statement::RowStatus(std::string_view table) {
  column_ = 0;
  if (!bad_value_) return {};
  bad_value_ = false;
  return Error{Errc::kCorrupt,
               "store: a row of " + std::string(table) + " has a value of the wrong type"};
}

Result<std::unique_ptr<Connection>> Connection::Open(const std::string& path, Kind kind,
                                                     const std::string& vfs,
                                                     std::function<void(const Error&)> fatal) {
  InitialiseOnce();
  std::unique_ptr<Connection> connection(new Connection);
  connection->fatal_ = std::move(fatal);
  connection->path_ = path;
  // One thread at a time uses a connection, so SQLite's own mutexes are not needed.
  const int flags = SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE |
                    (kind == Kind::kRead ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE);
  sqlite3* raw = nullptr;
  const int code = sqlite3_open_v2(path.c_str(), &raw, flags, vfs.empty() ? nullptr : vfs.c_str());
  connection->db_.reset(raw);
  if (code != SQLITE_OK) {
    if (raw == nullptr) return Error{Errc::kUnavailable, "store: out of memory"};
    return connection->Fail(code, "open");
  }
  RETURN_IF_ERROR(connection->Configure(kind));
  return connection;
}

Status Connection::Configure(Kind kind) {
  sqlite3* db = db_.get();
  struct Switch {
    int option;
    int value;
    const char* name;
  };
  static constexpr Switch kSwitches[] = {
      {SQLITE_DBCONFIG_DEFENSIVE, 1, "defensive"},
      {SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, "trusted_schema"},
      {SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0, "load_extension"},
      {SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, "trigger"},
      {SQLITE_DBCONFIG_ENABLE_VIEW, 0, "view"},
      {SQLITE_DBCONFIG_WRITABLE_SCHEMA, 0, "writable_schema"},
      {SQLITE_DBCONFIG_DQS_DDL, 0, "dqs_ddl"},
      {SQLITE_DBCONFIG_DQS_DML, 0, "dqs_dml"},
      {SQLITE_DBCONFIG_ENABLE_FKEY, 1, "foreign_keys"},
  };
  for (const Switch& item : kSwitches) {
    int now = -1;
    const int code = sqlite3_db_config(db, item.option, item.value, &now);
    if (code != SQLITE_OK) return Fail(code, item.name);
    if (now != item.value) {
      return Error{Errc::kInternal,
                   std::string("store: sqlite does not accept the setting ") + item.name};
    }
  }
  struct Limit {
    int id;
    int value;
  };
  static constexpr Limit kLimits[] = {
      {SQLITE_LIMIT_LENGTH, limits::kMaxRowBytes},
      {SQLITE_LIMIT_SQL_LENGTH, 64 * 1024},
      {SQLITE_LIMIT_COLUMN, 64},
      {SQLITE_LIMIT_EXPR_DEPTH, 32},
      {SQLITE_LIMIT_COMPOUND_SELECT, 8},
      {SQLITE_LIMIT_VDBE_OP, 25'000},
      {SQLITE_LIMIT_FUNCTION_ARG, 8},
      {SQLITE_LIMIT_ATTACHED, 0},
      {SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 256},
      {SQLITE_LIMIT_VARIABLE_NUMBER, 32},
      {SQLITE_LIMIT_TRIGGER_DEPTH, 1},
      {SQLITE_LIMIT_WORKER_THREADS, 0},
  };
  for (const Limit& limit : kLimits) sqlite3_limit(db, limit.id, limit.value);
  // Far above any commit of ours: another process (a check, a backup) holds locks for moments only.
  sqlite3_busy_timeout(db, 5000);
  RETURN_IF_ERROR(SetPragmas(kind));
  if (kind != Kind::kRead) {
    // Checkpoints are run by the writer, which looks at their result: the built-in one drops a
    // failed fsync.
    sqlite3_wal_hook(db, &RememberWalPages, &wal_pages_);
  }
  return {};
}

Status Connection::SetPragmas(Kind kind) {
  struct Pragma {
    const char* set;
    const char* get;
    std::string_view expected;
  };
  // Read back each time: an unknown pragma is silently nothing to SQLite.
  static constexpr Pragma kPragmas[] = {
      {"PRAGMA foreign_keys = ON", "PRAGMA foreign_keys", "1"},
      {"PRAGMA secure_delete = ON", "PRAGMA secure_delete", "1"},
      {"PRAGMA trusted_schema = OFF", "PRAGMA trusted_schema", "0"},
      {"PRAGMA cell_size_check = ON", "PRAGMA cell_size_check", "1"},
      {"PRAGMA temp_store = MEMORY", "PRAGMA temp_store", "2"},
      {"PRAGMA mmap_size = 0", "PRAGMA mmap_size", "0"},
      {"PRAGMA synchronous = FULL", "PRAGMA synchronous", "2"},
  };
  for (const Pragma& pragma : kPragmas) {
    RETURN_IF_ERROR(Execute(pragma.set));
    ASSIGN_OR_RETURN(const std::string value, QueryText(pragma.get));
    if (value != pragma.expected) {
      return Error{Errc::kInternal, std::string("store: sqlite refuses ") + pragma.set};
    }
  }
  RETURN_IF_ERROR(
      Execute(kind == Kind::kRead ? "PRAGMA cache_size = -1024" : "PRAGMA cache_size = -4096"));
  if (kind == Kind::kRead) return Execute("PRAGMA query_only = ON");
  RETURN_IF_ERROR(Execute("PRAGMA wal_autocheckpoint = 0"));
  RETURN_IF_ERROR(Execute("PRAGMA journal_size_limit = 67108864"));
  ASSIGN_OR_RETURN(const std::string mode, QueryText("PRAGMA journal_mode = WAL"));
  if (mode != "wal") {
    return Error{Errc::kUnavailable,
                 "store: the file system does not support a write-ahead log; use a local one"};
  }
  return {};
}

Statement Connection::Prepare(const char* sql) {
  const auto found = statements_.find(sql);
  if (found != statements_.end()) return Statement(this, found->second.get());
  sqlite3_stmt* raw = nullptr;
  const int code = sqlite3_prepare_v3(db_.get(), sql, -1, SQLITE_PREPARE_PERSISTENT, &raw, nullptr);
  StatementHandle statement(raw);
  Statement use(this, raw);
  if (code != SQLITE_OK) {
    use.bind_error_ = code;
    Log(LogLevel::kError, "store: statement cannot be prepared",
        {{"error", sqlite3_errmsg(db_.get())}});
  } else {
    statements_.emplace(sql, std::move(statement));
  }
  return use;
}

Status Connection::Execute(const char* sql) {
  const int code = sqlite3_exec(db_.get(), sql, nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) return Fail(code, "execute");
  return {};
}

Result<std::int64_t> Connection::QueryInt(const char* sql) {
  Statement statement = Prepare(sql);
  ASSIGN_OR_RETURN(const bool row, statement.Step());
  if (!row) return Error{Errc::kCorrupt, "store: a row that must exist is missing"};
  const std::int64_t value = statement.Int();
  RETURN_IF_ERROR(statement.RowStatus("store_info"));
  return value;
}

Result<std::string> Connection::QueryText(const char* sql) {
  Statement statement = Prepare(sql);
  ASSIGN_OR_RETURN(const bool row, statement.Step());
  if (!row) return Error{Errc::kInternal, std::string("store: no answer to ") + sql};
  const auto* text = sqlite3_column_text(statement.statement_, 0);
  return text != nullptr ? std::string(reinterpret_cast<const char*>(text)) : std::string();
}

Error Connection::Fail(int code, std::string_view doing) {
  const Meaning meaning = MeaningOf(code, sqlite3_system_errno(db_.get()));
  Error error{meaning.code, std::string("store: ") + meaning.text};
  if (error.message == kDiskFull) error.message += ": free space where " + path_ + " lies";
  // A full disk fails every batch: one line a second says enough.
  const auto now = std::chrono::steady_clock::now();
  const bool repeated = code == last_code_ && now - last_log_ < std::chrono::seconds(1);
  if (!repeated && (meaning.code == Errc::kInternal || meaning.trouble != Trouble::kNone)) {
    last_code_ = code;
    last_log_ = now;
    Log(meaning.trouble == Trouble::kFatal ? LogLevel::kError : LogLevel::kWarn,
        "store: sqlite error",
        {{"while", doing},
         {"code", code},
         {"text", sqlite3_errmsg(db_.get())},
         {"errno", sqlite3_system_errno(db_.get())}});
  }
  if (meaning.trouble > trouble_) {
    trouble_ = meaning.trouble;
    if (trouble_ == Trouble::kFatal && fatal_) fatal_(error);
  }
  return error;
}

}  // namespace latchkey::store
