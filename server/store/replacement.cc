#include "server/store/replacement.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "server/store/files.h"
#include "server/store/sqlite.h"
#include "server/store/store.h"

namespace latchkey::store {
namespace {

using Path = std::filesystem::path;

Path With(const Path& path, const char* suffix) {
  return path.string() + suffix;
}

bool Exists(const Path& path) {
  struct stat info {};
  return ::lstat(path.c_str(), &info) == 0;
}

bool AreOneFile(const Path& a, const Path& b) {
  struct stat first {
  }, second{};
  return ::lstat(a.c_str(), &first) == 0 && ::lstat(b.c_str(), &second) == 0 &&
         first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

Status Remove(const Path& path) {
  if (::unlink(path.c_str()) == 0 || errno == ENOENT) return {};
  return FileError("restore", path, "cannot be removed");
}

Status RemoveWithLog(const Path& path) {
  for (const char* suffix : {"", "-wal", "-shm"}) RETURN_IF_ERROR(Remove(With(path, suffix)));
  return {};
}

Status Move(const Path& from, const Path& to) {
  if (!Exists(from)) return {};
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return {};
  return FileError("restore", from, "cannot be moved aside");
}

// What an interrupted restore left is no store of its own: a second name of the store, or the old one without a new one.
Status CheckNothingIsKept(const Path& path) {
  const Path kept = Replacement::KeptName(path);
  if (!Exists(path) && Exists(kept)) return {};
  if (AreOneFile(path, kept)) return Remove(kept);
  for (const Path& name : {kept, With(kept, "-wal")}) {
    if (!Exists(name)) continue;
    return Error{Errc::kConflict, "restore: \"" + name.string() +
                                      "\" is there, which an earlier restore replaced; remove it, "
                                      "or move it away together with its -wal, then restore again"};
  }
  return {};
}

// True when everything that was written to the store is in its main file, so that this file alone is the store. The
// outcome is judged by the log itself: a checkpoint that a reader holds up is no error to SQLite.
bool WriteLogBack(const Path& path) {
  struct stat info {};
  // SQLite takes an empty database for a new one and throws its log away.
  if (::lstat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode) || info.st_size == 0)
    return false;
  {
    const auto connection = Connection::Open(path.string(), Connection::Kind::kWrite, {}, {});
    if (!connection || !(*connection)->Execute("PRAGMA wal_checkpoint(TRUNCATE)")) return false;
  }
  return ::lstat(With(path, "-wal").c_str(), &info) != 0 ? errno == ENOENT : info.st_size == 0;
}

}  // namespace

Path Replacement::KeptName(const Path& path) {
  return With(path, ".before-restore");
}

Replacement::Replacement(UniqueFd lock, Path path)
    : lock_(std::move(lock)), path_(std::move(path)), copy_(With(path_, ".restoring")) {}

Replacement::~Replacement() {
  // After a commit there is nothing of that name. What cannot be removed the next restore removes.
  [[maybe_unused]] const Status removed = RemoveWithLog(copy_);
}

Result<std::unique_ptr<Replacement>> Replacement::Prepare(const Path& path, const Path& source) {
  ASSIGN_OR_RETURN(UniqueFd lock, Lock(path));
  RETURN_IF_ERROR(CheckNothingIsKept(path));
  std::unique_ptr<Replacement> replacement(new Replacement(std::move(lock), path));
  RETURN_IF_ERROR(RemoveWithLog(replacement->copy_));
  ASSIGN_OR_RETURN(const auto store, Store::Open(source, OpenMode::kSnapshot, {}));
  const Result<Generation> copied = store->Backup(replacement->copy_);
  if (!copied) return copied.error();
  return replacement;
}

// With the log written back the old file is linked, not moved: until the rename it stays the store. A log that cannot be
// written back must not lie beside the new file for a moment, nor the old file be without it, so both leave.
Status Replacement::SetOldAside() {
  const Path kept = KeptName(path_);
  if (WriteLogBack(path_)) {
    if (::link(path_.c_str(), kept.c_str()) != 0)
      return FileError("restore", kept, "cannot be made");
  } else {
    RETURN_IF_ERROR(Move(path_, kept));
    RETURN_IF_ERROR(Move(With(path_, "-wal"), With(kept, "-wal")));
  }
  for (const char* suffix : {"-wal", "-shm"}) RETURN_IF_ERROR(Remove(With(path_, suffix)));
  // The log must be gone from the disk before the new file is there.
  return SyncDirectoryOf(path_);
}

Result<bool> Replacement::Commit() {
  // The copy was only read: its log is empty.
  for (const char* suffix : {"-wal", "-shm"}) RETURN_IF_ERROR(Remove(With(copy_, suffix)));
  RETURN_IF_ERROR(SetOldAside());
  if (::rename(copy_.c_str(), path_.c_str()) != 0)
    return FileError("restore", path_, "cannot be replaced");
  RETURN_IF_ERROR(SyncDirectoryOf(path_));
  return Exists(KeptName(path_));
}

}  // namespace latchkey::store
