#include "server/store/reader_pool.h"

#include <utility>

#include "common/model/limits.h"

namespace latchkey::store {

ReaderPool::ReaderPool(std::string path, std::string vfs, std::function<void(const Error&)> fatal)
    : path_(std::move(path)), vfs_(std::move(vfs)), fatal_(std::move(fatal)) {}

Result<std::unique_ptr<Connection>> ReaderPool::Take() {
  auto idle = idle_.With([](auto& connections) -> std::unique_ptr<Connection> {
    if (connections.empty()) return nullptr;
    auto last = std::move(connections.back());
    connections.pop_back();
    return last;
  });
  if (idle != nullptr) return idle;
  return Connection::Open(path_, Connection::Kind::kRead, vfs_, fatal_);
}

void ReaderPool::GiveBack(std::unique_ptr<Connection> connection) {
  if (connection->trouble() != Trouble::kNone || connection->in_transaction()) return;
  // A connection too many is closed by the caller's thread, after the lock.
  idle_.With([&connection](auto& connections) {
    if (connections.size() < limits::kMaxIdleReaders) connections.push_back(std::move(connection));
  });
}

}  // namespace latchkey::store
