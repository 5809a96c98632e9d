// A store in a directory of its own, and rows to fill it with. For unit tests of what stands on the
// store.
#pragma once

#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <utility>

#include "server/store/store.h"

namespace latchkey::testing {

// A directory that goes with its contents when the object does.
class TempDir {
 public:
  TempDir() {
    std::string name = (std::filesystem::temp_directory_path() / "latchkey-test-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) std::abort();
    path_ = name;
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const char* name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

// The value of a result that the test needs; ends the test with the error otherwise. Main thread
// only.
template <class T>
T Must(Result<T> result) {
  if (!result.has_value()) {
    FAIL(ErrcName(result.error().code) << ": " << result.error().message);
  }
  return std::move(result).value();
}
inline void Must(const Status& status) {
  if (!status.has_value()) {
    FAIL(ErrcName(status.error().code) << ": " << status.error().message);
  }
}
// The error code of a result, for CHECK; nullopt when it succeeded.
template <class T>
std::optional<Errc> CodeOf(const Result<T>& result) {
  return result.has_value() ? std::nullopt : std::optional(result.error().code);
}

inline constexpr ByteArray<16> kTestStoreId = {1, 2,  3,  4,  5,  6,  7,  8,
                                               9, 10, 11, 12, 13, 14, 15, 16};

inline store::ClientRow ClientRowOf(std::int64_t id, const std::string& name) {
  store::ClientRow row;
  row.id = ClientId{id};
  row.name = name;
  row.created_at = row.updated_at = 1000;
  row.created_by = row.updated_by = "test";
  row.mac.fill(static_cast<std::uint8_t>(id));
  return row;
}
inline store::GroupRow GroupRowOf(std::int64_t id, const std::string& name) {
  store::GroupRow row;
  row.id = GroupId{id};
  row.name = name;
  row.created_at = row.updated_at = 1000;
  row.created_by = row.updated_by = "test";
  row.metadata = "{}";
  return row;
}
inline store::VersionRow VersionRowOf(std::int64_t id, std::int64_t secret, std::uint64_t number,
                                      std::int64_t created_at = 1000) {
  store::VersionRow row;
  row.info.id = VersionId{id};
  row.info.secret = SecretId{secret};
  row.info.number = VersionNumber{number};
  row.info.created_at = created_at;
  row.info.created_by = "test";
  row.info.metadata = R"({"mode":"0400"})";
  row.info.size = 5;
  row.sealed = {0, 1, 2, 0, static_cast<std::uint8_t>(id)};
  row.wrapped = {9, 0, 9};
  return row;
}
inline store::SecretRow SecretRowOf(std::int64_t id, const std::string& name, std::int64_t current,
                                    std::uint64_t newest_number = 1) {
  store::SecretRow row;
  row.id = SecretId{id};
  row.name = name;
  row.created_at = row.updated_at = 1000;
  row.created_by = row.updated_by = "test";
  row.current = VersionId{current};
  row.newest_number = newest_number;
  row.sequence = static_cast<std::uint64_t>(id < 0 ? -(id + 1) : id);
  return row;
}
// A secret with its first version, whose id is 100 times its own plus 1.
inline Status InsertSecretWithVersion(store::Savepoint& savepoint, std::int64_t id,
                                      const std::string& name) {
  RETURN_IF_ERROR(savepoint.InsertSecret(SecretRowOf(id, name, id * 100 + 1)));
  return savepoint.InsertVersion(VersionRowOf(id * 100 + 1, id, 1));
}

// A new store, opened for writing and started.
class StoreFixture {
 public:
  explicit StoreFixture(store::CommitObserver* observer = nullptr) {
    Must(store::Store::Create(path(), kTestStoreId, 1000));
    Open(observer);
  }
  std::filesystem::path path() const { return dir_ / "store.db"; }
  void Open(store::CommitObserver* observer = nullptr) {
    store_ = Must(store::Store::Open(path(), store::OpenMode::kExclusive, {}));
    store_->Start(observer);
  }
  void Close() { store_.reset(); }
  store::Store& operator*() { return *store_; }
  store::Store* operator->() { return store_.get(); }

 private:
  TempDir dir_;
  std::unique_ptr<store::Store> store_;
};

}  // namespace latchkey::testing
