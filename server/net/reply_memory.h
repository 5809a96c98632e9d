// Where replies are built: one locked slab per worker, wiped after each batch (rules Y1, Y4). A
// reply that does not fit gets a block of its own, from the arena when it has room, else from a
// locked mapping that is wiped just the same.
#pragma once

#include <memory>

#include "common/secret/secret_buffer.h"

namespace latchkey::net {

class LargeBlock;  // owns memory that is wiped when it goes

// `size` writable bytes. Memory of the slab stays valid until ReplyMemory::Reset.
struct ReplyBlock {
  ReplyBlock();
  ReplyBlock(ReplyBlock&&) noexcept;
  ReplyBlock& operator=(ReplyBlock&&) noexcept;
  ~ReplyBlock();
  char* data = nullptr;
  std::size_t size = 0;
  std::unique_ptr<LargeBlock> large;
};

// Of one worker; not thread-safe.
class ReplyMemory {
 public:
  static Result<ReplyMemory> Make(std::size_t slab_bytes);

  // kUnavailable when the machine has no memory left.
  Result<ReplyBlock> Take(std::size_t size_bytes);
  // Gives back the block that was taken last.
  void Undo(ReplyBlock block);
  // Wipes all that was used. Every block of the slab must be done with.
  void Reset();
  std::size_t used_bytes() const { return used_; }

 private:
  explicit ReplyMemory(SecretBuffer slab) : slab_(std::move(slab)) {}
  SecretBuffer slab_;
  std::size_t used_ = 0;
};

}  // namespace latchkey::net
