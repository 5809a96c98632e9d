// Secret memory (rules Y1, Y2, Y5, O2): one locked arena; SecretBuffer is a move-only slice of it,
// wiped on destruction.
#pragma once

#include <cstddef>
#include <iosfwd>

#include "common/base/bytes.h"
#include "common/base/result.h"

namespace latchkey {

// How the arena's memory is held. kSecretMemory: memfd_secret(2), outside the kernel's direct map.
// kLocked: anonymous memory, mlock'ed, MADV_DONTDUMP. kUnlocked: only with allow_unlocked, when
// locking failed.
enum class ArenaBacking { kSecretMemory, kLocked, kUnlocked };

struct ArenaOptions {
  std::size_t size_bytes;       // rounded up to pages; the arena never grows
  bool allow_unlocked = false;  // false: failure to lock is an error
  bool try_secret_memory = true;
  // False: secret memory becomes resident as it is first used, and stays so. For an arena whose size is a worst case
  // (one content of the hard limit) that hardly ever occurs.
  bool prefault = true;
};

// Makes the process's arena. Call once in main before any thread starts; a second call is
// kInternal. Programs that never call it get a 4 MiB arena on first use (tests). Errors:
// kUnavailable when the memory cannot be had or locked.
Status InitSecretArena(const ArenaOptions& options);
ArenaBacking SecretArenaBacking();
std::size_t SecretArenaFreeBytes();
// True when `address` lies in the arena (for tests and the memory scan).
bool InSecretArena(const void* address);

class SecretBuffer final {
 public:
  SecretBuffer() = default;  // empty: size 0, owns nothing
  SecretBuffer(SecretBuffer&& other) noexcept;
  SecretBuffer& operator=(SecretBuffer&& other) noexcept;
  SecretBuffer(const SecretBuffer&) = delete;
  SecretBuffer& operator=(const SecretBuffer&) = delete;
  ~SecretBuffer();

  // Errors of both: kUnavailable when secret memory is exhausted. Zero bytes are valid.
  static Result<SecretBuffer> CopyOf(Bytes source);
  static Result<SecretBuffer> OfSize(std::size_t size_bytes);  // zero-filled

  Bytes bytes() const { return {data_, size_}; }  // borrowed: never outlives this buffer
  MutableBytes mutable_bytes() { return {data_, size_}; }
  std::size_t size() const { return size_; }  // the length is not secret
  bool empty() const { return size_ == 0; }
  // Gives back the tail (wiped): afterwards size() == size_bytes, which may not exceed size().
  void Shrink(std::size_t size_bytes);
  bool EqualsConstantTime(const SecretBuffer& other) const;

  friend bool operator==(const SecretBuffer&, const SecretBuffer&) = delete;
  friend std::ostream& operator<<(std::ostream&, const SecretBuffer&) = delete;

 private:
  SecretBuffer(std::uint8_t* data, std::size_t size, std::size_t capacity)
      : data_(data), size_(size), capacity_(capacity) {}
  std::uint8_t* data_ = nullptr;
  std::size_t size_ = 0;
  std::size_t capacity_ = 0;
};

// sodium_memzero for memory outside the arena that held a secret for a moment.
void WipeMemory(void* at, std::size_t size_bytes);

}  // namespace latchkey
