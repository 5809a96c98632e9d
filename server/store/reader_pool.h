// Read connections of one store, lent to one reader at a time. Internal to the store.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common/base/guarded.h"
#include "common/base/result.h"
#include "server/store/sqlite.h"

namespace latchkey::store {

// Thread-safe. Opens connections as they are needed and keeps kMaxIdleReaders of them.
class ReaderPool {
 public:
  ReaderPool(std::string path, std::string vfs, std::function<void(const Error&)> fatal);

  Result<std::unique_ptr<Connection>> Take();
  // Connections that had trouble or are still in a transaction are closed instead.
  void GiveBack(std::unique_ptr<Connection> connection);

 private:
  const std::string path_;
  const std::string vfs_;
  const std::function<void(const Error&)> fatal_;
  Guarded<std::vector<std::unique_ptr<Connection>>> idle_;
};

}  // namespace latchkey::store
