// Result<T>: a value or an Error, never both. Member names follow std::expected, so that the swap to C++23 is mechanical.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "common/base/check.h"

namespace latchkey {

// What went wrong, as far as a caller can act on it. Every boundary maps each code in one switch without default.
enum class Errc {
  kInvalidArgument,   // malformed input
  kTooLarge,          // over a documented limit
  kUnauthenticated,   // unknown caller
  kPermissionDenied,  // known caller that lacks a right or a bit
  kNotFound,          // absent
  kForbidden,         // exists but is not granted
  kConflict,          // lost a race, or the name is taken
  kUnavailable,       // try again later
  kCorrupt,           // authentication of stored data failed
  kInternal,          // our bug
};

// Stable lower-case name of a code, for logs and --json output ("not_found").
const char* ErrcName(Errc code);
// The three boundary mappings of design "Errors": HTTP status, errno of the mount, exit code of programs.
int HttpStatusOf(Errc code);
int ErrnoOf(Errc code);
int ExitCodeOf(Errc code);

// `message` names the object, the limit, the size; never content or key bytes. Lower case, no full stop.
struct [[nodiscard]] Error {
  Errc code;
  std::string message;
};

template <class T = void>
class [[nodiscard]] Result {
 public:
  using value_type = T;
  Result(T value)
      : state_(std::in_place_index<0>, std::move(value)) {}  // NOLINT: implicit by design
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT

  bool has_value() const noexcept { return state_.index() == 0; }
  explicit operator bool() const noexcept { return has_value(); }

  T& value() & {
    INVARIANT(has_value());
    return *std::get_if<0>(&state_);
  }
  const T& value() const& {
    INVARIANT(has_value());
    return *std::get_if<0>(&state_);
  }
  T&& value() && {
    INVARIANT(has_value());
    return std::move(*std::get_if<0>(&state_));
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  const Error& error() const& {
    INVARIANT(!has_value());
    return *std::get_if<1>(&state_);
  }
  Error&& error() && {
    INVARIANT(!has_value());
    return std::move(*std::get_if<1>(&state_));
  }

 private:
  std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  using value_type = void;
  Result() = default;
  Result(Error error) : error_(std::move(error)) {}  // NOLINT: implicit by design
  bool has_value() const noexcept { return !error_.has_value(); }
  explicit operator bool() const noexcept { return has_value(); }
  const Error& error() const& {
    INVARIANT(error_.has_value());
    return *error_;
  }
  Error&& error() && {
    INVARIANT(error_.has_value());
    return std::move(*error_);
  }

 private:
  std::optional<Error> error_;
};

using Status = Result<void>;

}  // namespace latchkey

#define LATCHKEY_CONCAT_INNER(a, b) a##b
#define LATCHKEY_CONCAT(a, b) LATCHKEY_CONCAT_INNER(a, b)

// RETURN_IF_ERROR(expr): leaves the function with the error of `expr`.
#define RETURN_IF_ERROR(expr)                                        \
  do {                                                               \
    if (auto latchkey_status = (expr); !latchkey_status.has_value()) \
      return std::move(latchkey_status).error();                     \
  } while (false)

// ASSIGN_OR_RETURN(const auto x, expr): declares x from the value, or leaves with the error.
#define ASSIGN_OR_RETURN(declaration, expr) \
  LATCHKEY_ASSIGN_OR_RETURN(LATCHKEY_CONCAT(latchkey_result_, __LINE__), declaration, expr)
#define LATCHKEY_ASSIGN_OR_RETURN(temporary, declaration, expr)    \
  auto temporary = (expr);                                         \
  if (!temporary.has_value()) return std::move(temporary).error(); \
  declaration = std::move(temporary).value()
