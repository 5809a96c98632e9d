#include "common/secret/wiping_new.h"

#include <malloc.h>
#include <string.h>

#include <algorithm>
#include <cstdlib>
#include <new>

namespace latchkey {
namespace {

// malloc_usable_size may exceed what was asked for, and realloc-like growth may have used it: all
// of it is wiped.
void WipeAndFree(void* block) noexcept {
  if (block == nullptr) return;
  ::explicit_bzero(block, ::malloc_usable_size(block));
  std::free(block);
}

}  // namespace

extern "C" {
void* WipingMallocPlain(std::size_t size) {
  return std::malloc(size);
}

// Never std::realloc: it would free the old block unwiped.
void* WipingReallocPlain(void* block, std::size_t size) {
  if (block == nullptr) return std::malloc(size);
  if (size == 0) {
    WipeAndFree(block);
    return nullptr;
  }
  void* fresh = std::malloc(size);
  if (fresh == nullptr) return nullptr;
  ::memcpy(fresh, block, std::min(size, ::malloc_usable_size(block)));
  WipeAndFree(block);
  return fresh;
}

void* WipingCallocPlain(std::size_t count, std::size_t size) {
  return std::calloc(count, size);
}

char* WipingStrdupPlain(const char* text) {
  return ::strdup(text);
}

void WipingFreePlain(void* block) {
  WipeAndFree(block);
}

void* WipingMalloc(std::size_t size, const char*, int) {
  return WipingMallocPlain(size);
}
void* WipingRealloc(void* block, std::size_t size, const char*, int) {
  return WipingReallocPlain(block, size);
}
void WipingFree(void* block, const char*, int) {
  WipeAndFree(block);
}
}

}  // namespace latchkey

#ifdef LATCHKEY_SANITIZED
namespace latchkey {
bool WipingOperatorsInstalled() {
  return false;
}
}  // namespace latchkey
#else
namespace latchkey {
bool WipingOperatorsInstalled() {
  return true;
}

namespace {

void* NewOrNull(std::size_t size) noexcept {
  for (;;) {
    if (void* block = std::malloc(size == 0 ? 1 : size); block != nullptr) return block;
    const std::new_handler handler = std::get_new_handler();
    if (handler == nullptr) return nullptr;
    handler();
  }
}

void* NewOrNull(std::size_t size, std::align_val_t alignment) noexcept {
  const std::size_t align = std::max(static_cast<std::size_t>(alignment), sizeof(void*));
  for (;;) {
    void* block = nullptr;
    if (::posix_memalign(&block, align, size == 0 ? 1 : size) == 0) return block;
    const std::new_handler handler = std::get_new_handler();
    if (handler == nullptr) return nullptr;
    handler();
  }
}

template <class... Alignment>
void* NewOrThrow(std::size_t size, Alignment... alignment) {
  void* block = NewOrNull(size, alignment...);
  if (block == nullptr) throw std::bad_alloc();
  return block;
}

}  // namespace
}  // namespace latchkey

using latchkey::NewOrNull;
using latchkey::NewOrThrow;
using latchkey::WipeAndFree;

void* operator new(std::size_t size) {
  return NewOrThrow(size);
}
void* operator new[](std::size_t size) {
  return NewOrThrow(size);
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  return NewOrNull(size);
}
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept {
  return NewOrNull(size);
}
void* operator new(std::size_t size, std::align_val_t alignment) {
  return NewOrThrow(size, alignment);
}
void* operator new[](std::size_t size, std::align_val_t alignment) {
  return NewOrThrow(size, alignment);
}
void* operator new(std::size_t size, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  return NewOrNull(size, alignment);
}
void* operator new[](std::size_t size, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  return NewOrNull(size, alignment);
}

void operator delete(void* block) noexcept {
  WipeAndFree(block);
}
void operator delete[](void* block) noexcept {
  WipeAndFree(block);
}
void operator delete(void* block, std::size_t) noexcept {
  WipeAndFree(block);
}
void operator delete[](void* block, std::size_t) noexcept {
  WipeAndFree(block);
}
void operator delete(void* block, const std::nothrow_t&) noexcept {
  WipeAndFree(block);
}
void operator delete[](void* block, const std::nothrow_t&) noexcept {
  WipeAndFree(block);
}
void operator delete(void* block, std::align_val_t) noexcept {
  WipeAndFree(block);
}
void operator delete[](void* block, std::align_val_t) noexcept {
  WipeAndFree(block);
}
void operator delete(void* block, std::size_t, std::align_val_t) noexcept {
  WipeAndFree(block);
}
void operator delete[](void* block, std::size_t, std::align_val_t) noexcept {
  WipeAndFree(block);
}
void operator delete(void* block, std::align_val_t, const std::nothrow_t&) noexcept {
  WipeAndFree(block);
}
void operator delete[](void* block, std::align_val_t, const std::nothrow_t&) noexcept {
  WipeAndFree(block);
}
#endif
