// The bytes of one request body while it comes in. Wiped when they go; counted against the server's
// total and its identity's share while they stay.
#pragma once

#include <memory>
#include <string_view>
#include <utility>

#include "server/net/shared.h"

namespace latchkey::net {

// Not thread-safe; the counter it counts in is.
class BodyBuffer {
 public:
  // `own`: the account of the connection's identity. `most_bytes`: it never needs more room.
  BodyBuffer(Shared* shared, std::shared_ptr<IdentityAccount> own, std::size_t most_bytes)
      : shared_(shared), own_(std::move(own)), most_bytes_(most_bytes) {}
  BodyBuffer(const BodyBuffer&) = delete;
  BodyBuffer& operator=(const BodyBuffer&) = delete;
  ~BodyBuffer();

  // False when the bodies of all connections together would exceed max_bodies_in_flight_bytes, or
  // those of one identity its share: nothing was added. Memory is taken as bytes arrive, never because a Content-Length promises
  // them.
  bool Append(std::string_view data);
  std::string_view view() const { return {data_.get(), size_}; }

 private:
  bool Grow(std::size_t needed_bytes);
  bool Charge(std::size_t bytes);

  Shared* shared_;
  const std::shared_ptr<IdentityAccount> own_;
  const std::size_t most_bytes_;
  std::unique_ptr<char[]> data_;
  std::size_t size_ = 0;
  std::size_t capacity_ = 0;
};

}  // namespace latchkey::net
