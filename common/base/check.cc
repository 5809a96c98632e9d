#include "common/base/check.h"

#include <cstdio>
#include <cstdlib>

namespace latchkey {

void InvariantFailed(const char* condition, const char* file, int line) noexcept {
  // The condition text is ours and constant: it can hold no secret (rule Y5).
  std::fprintf(stderr, "invariant failed: %s (%s:%d)\n", condition, file, line);
  std::abort();
}

}  // namespace latchkey
