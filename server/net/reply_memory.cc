#include "server/net/reply_memory.h"

#include <sys/mman.h>

#include "common/model/limits.h"

namespace latchkey::net {
namespace {

// A reply is made before the contents that go into it are opened, and these have no other room than the arena.
constexpr std::size_t kMostOfArenaBytes = limits::kArenaBytes / 16;

}  // namespace

// Tries the locked arena first. For what is large, and beyond the arena: an anonymous mapping, kept out of core dumps and
// locked as far as RLIMIT_MEMLOCK allows; the unit forbids swap (rule Y3), and the mapping lives for one batch.
class LargeBlock {
 public:
  static std::unique_ptr<LargeBlock> Make(std::size_t size_bytes) {
    auto block = std::unique_ptr<LargeBlock>(new LargeBlock);
    if (size_bytes <= kMostOfArenaBytes) {
      if (auto slice = SecretBuffer::OfSize(size_bytes); slice.has_value()) {
        block->slice_ = std::move(slice).value();
        return block;
      }
    }
    void* at =
        ::mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) return nullptr;
    block->mapped_ = at;
    block->mapped_bytes_ = size_bytes;
    ::madvise(at, size_bytes, MADV_DONTDUMP);
    [[maybe_unused]] const int locked = ::mlock(at, size_bytes);
    return block;
  }
  LargeBlock(const LargeBlock&) = delete;
  LargeBlock& operator=(const LargeBlock&) = delete;
  ~LargeBlock() {
    if (mapped_ == nullptr) return;
    WipeMemory(mapped_, mapped_bytes_);
    ::munmap(mapped_, mapped_bytes_);
  }
  char* data() {
    return mapped_ != nullptr ? static_cast<char*>(mapped_)
                              : reinterpret_cast<char*>(slice_.mutable_bytes().data());
  }

 private:
  LargeBlock() = default;
  SecretBuffer slice_;
  void* mapped_ = nullptr;
  std::size_t mapped_bytes_ = 0;
};

ReplyBlock::ReplyBlock() = default;
ReplyBlock::ReplyBlock(ReplyBlock&&) noexcept = default;
ReplyBlock& ReplyBlock::operator=(ReplyBlock&&) noexcept = default;
ReplyBlock::~ReplyBlock() = default;

Result<ReplyMemory> ReplyMemory::Make(std::size_t slab_bytes) {
  ASSIGN_OR_RETURN(SecretBuffer slab, SecretBuffer::OfSize(slab_bytes));
  return ReplyMemory(std::move(slab));
}

Result<ReplyBlock> ReplyMemory::Take(std::size_t size_bytes) {
  ReplyBlock block;
  block.size = size_bytes;
  if (size_bytes <= slab_.size() - used_) {
    block.data = reinterpret_cast<char*>(slab_.mutable_bytes().data()) + used_;
    used_ += size_bytes;
    return block;
  }
  block.large = LargeBlock::Make(size_bytes);
  if (!block.large)
    return Error{Errc::kUnavailable,
                 "no memory for a reply of " + std::to_string(size_bytes) + " bytes"};
  block.data = block.large->data();
  return block;
}

void ReplyMemory::Undo(ReplyBlock block) {
  if (block.large || block.data == nullptr) return;
  WipeMemory(block.data, block.size);
  used_ -= block.size;
}

void ReplyMemory::Reset() {
  if (used_ > 0) WipeMemory(slab_.mutable_bytes().data(), used_);
  used_ = 0;
}

}  // namespace latchkey::net
