// The bytes of one request body while it comes in. Wiped when they go; counted against the server's
// total while they stay.
#pragma once

#include <memory>
#include <string_view>

#include "server/net/shared.h"

namespace latchkey::net {

// Not thread-safe; the counter it counts in is.
class BodyBuffer {
 public:
  explicit BodyBuffer(Shared* shared) : shared_(shared) {}
  BodyBuffer(const BodyBuffer&) = delete;
  BodyBuffer& operator=(const BodyBuffer&) = delete;
  ~BodyBuffer();

  // False when the bodies of all connections together would exceed max_bodies_in_flight_bytes:
  // nothing was added. Memory is taken as bytes arrive, never because a Content-Length promises
  // them.
  bool Append(std::string_view data);
  std::string_view view() const { return {data_.get(), size_}; }

 private:
  bool Grow(std::size_t needed_bytes);
  void Release();

  Shared* shared_;
  std::unique_ptr<char[]> data_;
  std::size_t size_ = 0;
  std::size_t capacity_ = 0;
};

}  // namespace latchkey::net
