// INVARIANT(condition): aborts, in release too, when our own logic is broken. Not for input errors: those are Results.
#pragma once

namespace latchkey {
[[noreturn]] void InvariantFailed(const char* condition, const char* file, int line) noexcept;
}  // namespace latchkey

#define INVARIANT(condition)                                       \
  do {                                                             \
    if (!(condition)) [[unlikely]]                                 \
      ::latchkey::InvariantFailed(#condition, __FILE__, __LINE__); \
  } while (false)
