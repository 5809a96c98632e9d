// SQLite's C API behind two classes: Connection (hardened, rule H4) and Statement. Internal to the
// store.
#pragma once

#include <sqlite3.h>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "common/base/bytes.h"
#include "common/base/c_handle.h"
#include "common/base/result.h"
#include "common/model/ids.h"

namespace latchkey::store {

using Sqlite3Handle = CHandle<sqlite3, sqlite3_close_v2>;
using StatementHandle = CHandle<sqlite3_stmt, sqlite3_finalize>;

// What the storage below has done to a connection since the flag was last cleared.
enum class Trouble {
  kNone,
  kTransient,  // disk full, no memory, a failed write or read: the batch is lost, the server goes
               // on
  kFatal,      // fsync failed or the file is malformed: the outcome is unknown (rule P4)
};

class Connection;

// One use of a prepared statement. Values are bound in order and must outlive the statement;
// columns are read in order. The destructor resets the statement for the next use.
class Statement {
 public:
  Statement(Connection* connection, sqlite3_stmt* statement);
  Statement(Statement&& other) noexcept;
  Statement& operator=(Statement&&) = delete;
  ~Statement();

  Statement& Bind(std::int64_t value);
  Statement& Bind(std::uint64_t value) { return Bind(static_cast<std::int64_t>(value)); }
  Statement& Bind(bool value) { return Bind(static_cast<std::int64_t>(value ? 1 : 0)); }
  Statement& Bind(std::string_view text);
  Statement& Bind(const std::string& text) { return Bind(std::string_view(text)); }
  Statement& Bind(Bytes bytes);
  template <class Tag>
  Statement& Bind(const Id<Tag>& id) {
    return Bind(id.value);
  }
  template <class T>
  Statement& Bind(const std::optional<T>& value) {
    return value.has_value() ? Bind(*value) : BindNull();
  }
  Statement& BindNull();

  // True: a row is there. False: no more rows.
  Result<bool> Step();
  // For statements without rows.
  Status Run();
  // Run, and kNotFound named `what` when no row was changed.
  Status RunOne(std::string_view what);
  int changes() const;

  // Columns in order, each read advances. A value of the wrong type or size makes RowStatus
  // kCorrupt.
  std::int64_t Int();
  std::uint64_t Unsigned();  // negative is wrong
  bool Bool();               // 0 or 1, else wrong
  std::optional<std::int64_t> OptionalInt();
  std::string Text();
  std::optional<std::string> OptionalText();
  ByteVector Blob();
  template <std::size_t N>
  ByteArray<N> Fixed() {
    ByteArray<N> out{};
    ReadFixed(out);
    return out;
  }
  template <class T>
  T IdOf() {
    return T{Int()};
  }
  template <class T>
  std::optional<T> OptionalId() {
    const auto value = OptionalInt();
    return value.has_value() ? std::optional(T{*value}) : std::nullopt;
  }
  // Whether every column of the row just read was as it should be; begins the next row.
  Status RowStatus(std::string_view table);

 private:
  friend class Connection;
  bool Is(int type);
  void ReadFixed(MutableBytes out);

  Connection* connection_;
  sqlite3_stmt* statement_;  // owned by the connection's cache; null when preparing failed
  int parameter_ = 0;
  int column_ = 0;
  int bind_error_ = 0;
  bool bad_value_ = false;
};

class Connection {
 public:
  enum class Kind { kWrite, kRead };

  // Opens and hardens: DEFENSIVE, no trusted schema, no extensions, triggers or views,
  // secure_delete, foreign_keys, WAL + synchronous=FULL, limits; every pragma is read back. `fatal`
  // is called at the first kFatal trouble.
  static Result<std::unique_ptr<Connection>> Open(const std::string& path, Kind kind,
                                                  const std::string& vfs,
                                                  std::function<void(const Error&)> fatal);

  // `sql` must be a constant: statements are kept under its address.
  Statement Prepare(const char* sql);
  // One statement without values or rows. Not cached.
  Status Execute(const char* sql);
  Result<std::int64_t> QueryInt(const char* sql);
  Result<std::string> QueryText(const char* sql);

  void SetFatal(std::function<void(const Error&)> fatal) { fatal_ = std::move(fatal); }
  Trouble trouble() const { return trouble_; }
  void ClearTrouble() { trouble_ = Trouble::kNone; }
  bool in_transaction() const { return sqlite3_get_autocommit(db_.get()) == 0; }
  sqlite3* raw() const { return db_.get(); }
  // While set, every step is refused once the transaction is gone or the storage had trouble.
  // SQLite rolls a whole transaction back by itself after such an error; what follows would commit
  // on its own, statement by statement.
  void RequireTransaction(bool require) { transaction_required_ = require; }
  // Pages in the write-ahead log after the last commit of this connection.
  int wal_pages() const { return wal_pages_; }

  // Turns a failed call into an Error and notes the trouble.
  Error Fail(int code, std::string_view doing);

 private:
  friend class Statement;
  Connection() = default;
  bool refuses() const {
    return transaction_required_ && (trouble_ != Trouble::kNone || !in_transaction());
  }
  Status Configure(Kind kind);
  Status SetPragmas(Kind kind);

  std::function<void(const Error&)> fatal_;
  std::string path_;
  int wal_pages_ = 0;
  bool transaction_required_ = false;
  int last_code_ = 0;  // of the last logged error
  std::chrono::steady_clock::time_point last_log_;
  Trouble trouble_ = Trouble::kNone;
  Sqlite3Handle db_;
  std::unordered_map<const char*, StatementHandle> statements_;  // finalised before db_ is closed
};

}  // namespace latchkey::store
