// Zero-on-free allocation for programs that hold content (rule Y4), because libraries copy
// plaintext into memory of theirs.
//
// Linking the object library common_wiping_new replaces the global operators new and delete, all
// forms, by a pair on malloc/free that wipes every block when it is freed. In sanitizer builds the
// operators stay the sanitizer's own. The functions below do the same for C libraries: main hands
// the first three to CRYPTO_set_mem_functions before the first call into OpenSSL (file and line are
// ignored), the Plain ones to curl_global_init_mem. All are thread-safe.
#pragma once

#include <cstddef>

namespace latchkey {

extern "C" {
void* WipingMalloc(std::size_t size, const char* file, int line);
void* WipingRealloc(void* block, std::size_t size, const char* file, int line);
void WipingFree(void* block, const char* file, int line);

void* WipingMallocPlain(std::size_t size);
void* WipingReallocPlain(void* block, std::size_t size);
void* WipingCallocPlain(std::size_t count, std::size_t size);
char* WipingStrdupPlain(const char* text);
void WipingFreePlain(void* block);
}

// True when the global operators are replaced: false in sanitizer builds. A program asserts it at
// its start.
bool WipingOperatorsInstalled();

}  // namespace latchkey
