// CHandle<T, Free>: owns an object of a C library from the line after its creation; costs one pointer.
#pragma once

#include <memory>

namespace latchkey {

template <auto Free>
struct CFree {
  template <class T>
  void operator()(T* object) const noexcept {
    Free(object);
  }
};
template <class T, auto Free>
using CHandle = std::unique_ptr<T, CFree<Free>>;

}  // namespace latchkey
