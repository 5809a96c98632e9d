#include "common/secret/secret_buffer.h"

#include <pthread.h>
#include <sodium.h>

#include <atomic>
#include <cstring>
#include <mutex>
#include <string>
#include <utility>

#include "common/secret/arena.h"

namespace latchkey {
namespace {

constexpr std::size_t kDefaultArenaBytes = 4 * 1024 * 1024;

// The arena is made once and never taken down: buffers in static storage may outlive any order of
// destruction.
std::atomic<LockedArena*> g_arena{nullptr};
std::mutex g_make_mutex;  // taken before nothing else
std::atomic<bool> g_after_fork{
    false};  // this process has inherited SecretBuffer objects, but not their memory

void BeforeFork() {
  g_make_mutex.lock();
}
void AfterForkInParent() {
  g_make_mutex.unlock();
}
void AfterForkInChild() {
  if (const LockedArena* inherited = g_arena.exchange(nullptr); inherited != nullptr) {
    inherited->ForgetMapping();
    g_after_fork = true;
  }
  g_make_mutex.unlock();
}

// Call with g_make_mutex held.
Status MakeArena(const ArenaOptions& options) {
  static const int registered = ::pthread_atfork(BeforeFork, AfterForkInParent, AfterForkInChild);
  if (registered != 0) return Error{Errc::kInternal, "pthread_atfork failed"};
  auto arena = LockedArena::Make(options);
  if (!arena.has_value()) return std::move(arena).error();
  g_arena.store(arena.value().release(), std::memory_order_release);
  return {};
}

Result<LockedArena*> Arena() {
  if (LockedArena* arena = g_arena.load(std::memory_order_acquire); arena != nullptr) return arena;
  const std::lock_guard lock(g_make_mutex);
  if (g_arena.load() == nullptr) RETURN_IF_ERROR(MakeArena({.size_bytes = kDefaultArenaBytes}));
  return g_arena.load();
}

}  // namespace

Status InitSecretArena(const ArenaOptions& options) {
  const std::lock_guard lock(g_make_mutex);
  if (g_arena.load() != nullptr) {
    return Error{Errc::kInternal,
                 "the secret arena exists already: it must be made before its first use"};
  }
  return MakeArena(options);
}

ArenaBacking SecretArenaBacking() {
  auto arena = Arena();
  INVARIANT(arena.has_value());
  return arena.value()->backing();
}

std::size_t SecretArenaFreeBytes() {
  auto arena = Arena();
  return arena.has_value() ? arena.value()->FreeBytes() : 0;
}

bool InSecretArena(const void* address) {
  const LockedArena* arena = g_arena.load(std::memory_order_acquire);
  return arena != nullptr && arena->Contains(address);
}

namespace {

void Release(std::uint8_t* data) {
  if (data == nullptr) return;
  LockedArena* arena = g_arena.load(std::memory_order_acquire);
  // In a child the memory of inherited buffers is not mapped (MADV_DONTFORK): there is nothing to
  // wipe or to free.
  if (g_after_fork.load() && (arena == nullptr || !arena->Contains(data))) return;
  INVARIANT(arena != nullptr);
  arena->Free(data);
}

struct Slice {
  std::uint8_t* data;
  std::size_t capacity;
};

Result<Slice> Take(std::size_t size_bytes) {
  ASSIGN_OR_RETURN(LockedArena* const arena, Arena());
  Slice slice{nullptr, 0};
  slice.data = arena->Allocate(size_bytes, &slice.capacity);
  if (slice.data == nullptr) {
    return Error{Errc::kUnavailable, "secret memory is exhausted: asked for " +
                                         std::to_string(size_bytes) + " bytes, " +
                                         std::to_string(arena->FreeBytes()) + " of " +
                                         std::to_string(arena->size()) + " are free"};
  }
  return slice;
}

}  // namespace

SecretBuffer::SecretBuffer(SecretBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      capacity_(std::exchange(other.capacity_, 0)) {}

SecretBuffer& SecretBuffer::operator=(SecretBuffer&& other) noexcept {
  if (this == &other) return *this;
  Release(data_);
  data_ = std::exchange(other.data_, nullptr);
  size_ = std::exchange(other.size_, 0);
  capacity_ = std::exchange(other.capacity_, 0);
  return *this;
}

SecretBuffer::~SecretBuffer() {
  Release(data_);
}

Result<SecretBuffer> SecretBuffer::CopyOf(Bytes source) {
  if (source.empty()) return SecretBuffer();
  ASSIGN_OR_RETURN(const Slice slice, Take(source.size()));
  std::memcpy(slice.data, source.data(), source.size());
  return SecretBuffer(slice.data, source.size(), slice.capacity);
}

Result<SecretBuffer> SecretBuffer::OfSize(std::size_t size_bytes) {
  if (size_bytes == 0) return SecretBuffer();
  ASSIGN_OR_RETURN(const Slice slice, Take(size_bytes));
  std::memset(slice.data, 0, size_bytes);
  return SecretBuffer(slice.data, size_bytes, slice.capacity);
}

void SecretBuffer::Shrink(std::size_t size_bytes) {
  INVARIANT(size_bytes <= size_);
  if (size_bytes == size_) return;
  if (size_bytes == 0) {
    *this = SecretBuffer();
    return;
  }
  LockedArena* arena = g_arena.load(std::memory_order_acquire);
  INVARIANT(arena != nullptr);
  capacity_ = arena->ShrinkTo(data_, size_bytes);
  size_ = size_bytes;
}

bool SecretBuffer::EqualsConstantTime(const SecretBuffer& other) const {
  return size_ == other.size_ && (size_ == 0 || sodium_memcmp(data_, other.data_, size_) == 0);
}

void WipeMemory(void* at, std::size_t size_bytes) {
  if (size_bytes != 0) sodium_memzero(at, size_bytes);
}

}  // namespace latchkey
