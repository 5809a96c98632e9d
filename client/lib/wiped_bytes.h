// WipedBytes: a growing byte buffer on the heap whose memory is zeroed before it is given back
// (rules Y4, Y5). It holds requests and answers on their way between libcurl and a SecretBuffer;
// nothing keeps one for long.
#pragma once

#include <cstddef>
#include <iosfwd>
#include <string_view>

#include "common/base/bytes.h"

namespace latchkey::client {

class WipedBytes final {
 public:
  WipedBytes() = default;
  WipedBytes(WipedBytes&& other) noexcept;
  WipedBytes& operator=(WipedBytes&& other) noexcept;
  WipedBytes(const WipedBytes&) = delete;
  WipedBytes& operator=(const WipedBytes&) = delete;
  ~WipedBytes();

  Bytes bytes() const { return {data_, size_}; }
  MutableBytes mutable_bytes() { return {data_, size_}; }
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }

  // Makes room so that `total_bytes` fit without another move of the contents.
  void Reserve(std::size_t total_bytes);
  void Append(Bytes more);
  void Append(std::string_view more) { Append(AsBytes(more)); }
  // Appends `count` zero bytes and returns them; valid until the next call that grows.
  MutableBytes Extend(std::size_t count);
  // Wipes and empties; keeps nothing.
  void Clear();

  friend std::ostream& operator<<(std::ostream&, const WipedBytes&) = delete;

 private:
  std::uint8_t* data_ = nullptr;
  std::size_t size_ = 0;
  std::size_t capacity_ = 0;
};

}  // namespace latchkey::client
