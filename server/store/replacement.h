// Replacement: a copy of another store file that takes the place of a store, whole (`latchkeyd restore`).
//
// A file copied over the database by hand leaves the write-ahead log of the old one beside it, and SQLite then reads pages
// of both as one. Here the old database and its log go together, and one rename brings in the new one.
#pragma once

#include <filesystem>
#include <memory>

#include "common/base/result.h"
#include "common/base/unique_fd.h"

namespace latchkey::store {

// Owned by one thread. Holds the lock of the store until it is destroyed.
class Replacement {
 public:
  // Copies the state of the store file `source` to a file beside `path` (0600, fsynced). The store at `path` need not be
  // there and is not touched. Errors: as Store::Open has for `source`; kConflict when another process holds the store at
  // `path`, or a store that was replaced earlier is still kept; kPermissionDenied when others may exchange files in its
  // directory.
  static Result<std::unique_ptr<Replacement>> Prepare(const std::filesystem::path& path,
                                                      const std::filesystem::path& source);
  // Removes the copy when it was not committed.
  ~Replacement();
  Replacement(const Replacement&) = delete;
  Replacement& operator=(const Replacement&) = delete;

  // What Commit puts in place: verify this file, and close it, before.
  const std::filesystem::path& copy() const { return copy_; }
  // Where Commit leaves what was there: a store of its own, with its log `-wal` when that could not be written back.
  static std::filesystem::path KeptName(const std::filesystem::path& path);
  // Puts the copy in place; true when there was a store, which is kept. Whenever it is interrupted, `path` is the old store
  // with all of its writes or the new one alone. Only where the old one is too damaged for SQLite to write its log back can
  // it be neither: then nothing is at `path`, no start is possible, and the next restore goes on from there.
  Result<bool> Commit();

 private:
  Replacement(UniqueFd lock, std::filesystem::path path);
  Status SetOldAside();

  UniqueFd lock_;
  std::filesystem::path path_;
  std::filesystem::path copy_;
};

}  // namespace latchkey::store
