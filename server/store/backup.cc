#include "server/store/backup.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <string>
#include <system_error>

#include "common/base/unique_fd.h"
#include "server/store/files.h"

namespace latchkey::store {
namespace {

using BackupHandle = CHandle<sqlite3_backup, sqlite3_backup_finish>;

// Ends the read transaction whatever happens.
class ReadTransaction {
 public:
  explicit ReadTransaction(Connection& connection) : connection_(connection) {}
  ~ReadTransaction() {
    if (connection_.in_transaction()) (void)connection_.Prepare("COMMIT").Run();
  }
  ReadTransaction(const ReadTransaction&) = delete;
  ReadTransaction& operator=(const ReadTransaction&) = delete;

 private:
  Connection& connection_;
};

// All pages in one step: within one read transaction of the source the copy is one state.
Status CopyPages(Connection& source, const std::string& file, const std::string& target_name) {
  sqlite3* raw = nullptr;
  const int opened =
      sqlite3_open_v2(file.c_str(), &raw,
                      SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, nullptr);
  const Sqlite3Handle target(raw);
  if (opened != SQLITE_OK) return Error{Errc::kUnavailable, "backup: target cannot be opened"};
  // The temporary file counts only once it is complete and synced, so SQLite need not journal or
  // sync it.
  if (sqlite3_exec(raw, "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF", nullptr, nullptr,
                   nullptr) != SQLITE_OK) {
    return Error{Errc::kUnavailable, "backup: target cannot be prepared"};
  }
  BackupHandle backup(sqlite3_backup_init(raw, "main", source.raw(), "main"));
  if (backup == nullptr) {
    return Error{Errc::kUnavailable, std::string("backup: ") + sqlite3_errmsg(raw)};
  }
  const int code = sqlite3_backup_step(backup.get(), -1);
  if (code == SQLITE_DONE) return {};
  if ((code & 0xff) == SQLITE_FULL) {
    return Error{Errc::kUnavailable,
                 "backup: no room for " + target_name +
                     "; free some on that disk, or write the backup to another one"};
  }
  if ((code & 0xff) == SQLITE_CORRUPT) return source.Fail(code, "backup");
  return Error{Errc::kUnavailable, std::string("backup: ") + sqlite3_errstr(code)};
}

Status SyncAndRename(const UniqueFd& file, const std::string& from,
                     const std::filesystem::path& target) {
  if (::fsync(file.get()) != 0) return FileError("backup", from, "cannot be synced");
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, target.c_str(), RENAME_NOREPLACE) != 0) {
    if (errno == EEXIST) {
      return Error{Errc::kConflict, "backup: \"" + target.string() + "\" exists already"};
    }
    return FileError("backup", target, "cannot be named");
  }
  return SyncDirectoryOf(target);
}

}  // namespace

Result<Generation> CopyTo(Connection& source, const std::filesystem::path& target) {
  if (::access(target.c_str(), F_OK) == 0) {
    return Error{Errc::kConflict, "backup: \"" + target.string() + "\" exists already"};
  }
  std::string temporary = target.string() + ".XXXXXX";
  // mkostemp makes it 0600.
  const UniqueFd file(::mkostemp(temporary.data(), O_CLOEXEC));
  if (!file.valid()) return FileError("backup", target, "cannot be made");
  const auto copy = [&]() -> Result<Generation> {
    RETURN_IF_ERROR(source.Execute("BEGIN"));
    const ReadTransaction transaction(source);
    ASSIGN_OR_RETURN(const std::int64_t generation,
                     source.QueryInt("SELECT generation FROM store_info"));
    RETURN_IF_ERROR(CopyPages(source, temporary, target.string()));
    RETURN_IF_ERROR(SyncAndRename(file, temporary, target));
    return Generation{static_cast<std::uint64_t>(generation)};
  };
  Result<Generation> copied = copy();
  if (!copied.has_value()) ::unlink(temporary.c_str());
  return copied;
}

}  // namespace latchkey::store
