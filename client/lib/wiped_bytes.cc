#include "client/lib/wiped_bytes.h"

#include <string.h>

#include <algorithm>
#include <new>
#include <utility>

namespace latchkey::client {

WipedBytes::WipedBytes(WipedBytes&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      capacity_(std::exchange(other.capacity_, 0)) {}

WipedBytes& WipedBytes::operator=(WipedBytes&& other) noexcept {
  if (this != &other) {
    Clear();
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
    capacity_ = std::exchange(other.capacity_, 0);
  }
  return *this;
}

WipedBytes::~WipedBytes() {
  Clear();
}

void WipedBytes::Clear() {
  if (data_ != nullptr) {
    ::explicit_bzero(data_, capacity_);
    ::operator delete(data_);
  }
  data_ = nullptr;
  size_ = 0;
  capacity_ = 0;
}

void WipedBytes::Reserve(std::size_t total_bytes) {
  if (total_bytes <= capacity_) return;
  auto* grown = static_cast<std::uint8_t*>(::operator new(total_bytes));
  if (size_ > 0) std::copy_n(data_, size_, grown);
  const std::size_t size = size_;
  Clear();
  data_ = grown;
  size_ = size;
  capacity_ = total_bytes;
}

void WipedBytes::Append(Bytes more) {
  if (more.empty()) return;
  MutableBytes room = Extend(more.size());
  std::copy(more.begin(), more.end(), room.begin());
}

MutableBytes WipedBytes::Extend(std::size_t count) {
  if (count > capacity_ - size_)
    Reserve(std::max({size_ + count, capacity_ * 2, std::size_t{512}}));
  std::fill_n(data_ + size_, count, std::uint8_t{0});
  size_ += count;
  return {data_ + size_ - count, count};
}

}  // namespace latchkey::client
