// Content memory as the keeper holds it (rule Y2). Private to fusefs/keeper.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/base/result.h"
#include "common/base/unique_fd.h"

namespace latchkey::keeper {

class ContentMemory {
 public:
  // memfd_secret when it works; else a sealed memfd whose pages this process keeps locked. Errors:
  // kUnavailable when memory cannot be locked and `allow_unlocked` is false.
  static Result<ContentMemory> Make(std::size_t bytes, bool try_secret_memory, bool allow_unlocked);
  ContentMemory(ContentMemory&& other) noexcept;
  ContentMemory& operator=(ContentMemory&&) = delete;
  ~ContentMemory();

  int fd() const { return fd_.get(); }
  bool secret() const { return at_ == nullptr; }
  bool locked() const { return locked_; }
  // Locks the pages that the worker has used since the last call (memfd only; the worker's own lock
  // ends with the worker).
  void LockUsedPages();

 private:
  ContentMemory(UniqueFd fd, std::size_t bytes) : fd_(std::move(fd)), bytes_(bytes) {}
  UniqueFd fd_;
  std::size_t bytes_ = 0;
  std::uint8_t* at_ = nullptr;
  bool locked_ = true;
  std::vector<bool> held_;
};

}  // namespace latchkey::keeper
