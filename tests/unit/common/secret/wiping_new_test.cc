#include "common/secret/wiping_new.h"

#include <malloc.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cstring>
#include <memory>
#include <string>

// The test watches every free(3) of this program: it looks at the block just before glibc gets it
// back.
#ifndef LATCHKEY_SANITIZED
namespace {
std::atomic<const void*> g_watched{nullptr};
std::atomic<long> g_left{-1};
}  // namespace
extern "C" void __libc_free(void*);  // NOLINT: glibc's own entry point
extern "C" void free(void* block) {
  if (block != nullptr && block == g_watched.load()) {
    long left = 0;
    const auto* bytes = static_cast<const unsigned char*>(block);
    for (std::size_t i = 0; i < malloc_usable_size(block); ++i) left += bytes[i] != 0 ? 1 : 0;
    g_left = left;
    g_watched = nullptr;
  }
  __libc_free(block);
}
#endif

namespace latchkey {
namespace {

#ifndef LATCHKEY_SANITIZED
template <class Dispose>
long BytesLeftWhenFreed(void* block, std::size_t size, Dispose&& dispose) {
  std::memset(block, 0x5a, size);
  g_left = -1;
  g_watched = block;
  dispose();
  return g_left.load();
}

struct alignas(64) Wide {
  unsigned char bytes[192];
};

TEST_CASE("Every form of delete hands back wiped memory", "[secret]") {
  REQUIRE(WipingOperatorsInstalled());
  const auto size = GENERATE(as<std::size_t>{}, 1, 24, 1000, 300000);
  CAPTURE(size);
  void* block = ::operator new(size);
  CHECK(BytesLeftWhenFreed(block, size, [&] { ::operator delete(block); }) == 0);
#ifdef __cpp_sized_deallocation  // off by default in clang 14
  block = ::operator new(size);
  CHECK(BytesLeftWhenFreed(block, size, [&] { ::operator delete(block, size); }) == 0);
  block = ::operator new[](size, std::align_val_t{128});
  CHECK(BytesLeftWhenFreed(block, size,
                           [&] { ::operator delete[](block, size, std::align_val_t{128}); }) == 0);
#endif
  block = ::operator new[](size, std::nothrow);
  CHECK(BytesLeftWhenFreed(block, size, [&] { ::operator delete[](block, std::nothrow); }) == 0);
  block = ::operator new[](size, std::align_val_t{128});
  CHECK(reinterpret_cast<std::uintptr_t>(block) % 128 == 0);
  CHECK(BytesLeftWhenFreed(block, size,
                           [&] { ::operator delete[](block, std::align_val_t{128}); }) == 0);
  auto* wide = new Wide;
  CHECK(reinterpret_cast<std::uintptr_t>(wide) % 64 == 0);
  CHECK(BytesLeftWhenFreed(wide, sizeof(Wide), [&] { delete wide; }) == 0);
}

TEST_CASE("The watch itself sees bytes that a plain free leaves", "[secret]") {
  void* block = std::malloc(100);
  CHECK(BytesLeftWhenFreed(block, 100, [&] { std::free(block); }) >= 100);
}

TEST_CASE("A string that grows leaves no copy of its old bytes", "[secret]") {
  auto text = std::make_unique<std::string>(100, 'x');
  CHECK(BytesLeftWhenFreed(text->data(), 100, [&] { text->append(10000, 'y'); }) == 0);
}

TEST_CASE("The C hooks wipe on free and on every realloc", "[secret]") {
  void* block = WipingMalloc(100, "file", 1);
  void* grown = nullptr;
  CHECK(BytesLeftWhenFreed(block, 100, [&] { grown = WipingRealloc(block, 5000, "file", 1); }) ==
        0);
  CHECK(static_cast<unsigned char*>(grown)[99] == 0x5a);
  void* less = nullptr;
  CHECK(BytesLeftWhenFreed(grown, 5000, [&] { less = WipingReallocPlain(grown, 10); }) == 0);
  CHECK(static_cast<unsigned char*>(less)[9] == 0x5a);
  CHECK(BytesLeftWhenFreed(less, 10, [&] { WipingFree(less, "file", 1); }) == 0);
}
#endif

TEST_CASE("The C hooks keep the contract of malloc and realloc", "[secret]") {
  void* block = WipingReallocPlain(nullptr, 10);
  REQUIRE(block != nullptr);
  CHECK(WipingReallocPlain(block, 0) == nullptr);
  char* copy = WipingStrdupPlain("text");
  CHECK(std::string(copy) == "text");
  WipingFreePlain(copy);
  auto* zero = static_cast<char*>(WipingCallocPlain(3, 5));
  CHECK(std::string(zero, 15) == std::string(15, '\0'));
  WipingFreePlain(zero);
  WipingFreePlain(nullptr);
  WipingFree(nullptr, "file", 1);
#ifndef LATCHKEY_SANITIZED  // the sanitizer ends the program instead
  CHECK(WipingCallocPlain(SIZE_MAX / 2, 4) == nullptr);
#endif
}

TEST_CASE("Impossible sizes are refused as the standard says", "[secret]") {
#ifndef LATCHKEY_SANITIZED
  volatile std::size_t most = SIZE_MAX / 2;
  CHECK(::operator new(most, std::nothrow) == nullptr);
  CHECK_THROWS_AS(::operator new(most), std::bad_alloc);
#endif
  void* nothing = ::operator new(0);
  CHECK(nothing != nullptr);
  ::operator delete(nothing);
}

}  // namespace
}  // namespace latchkey
