#include "server/net/body_buffer.h"

#include <algorithm>
#include <cstring>

#include "common/secret/secret_buffer.h"

namespace latchkey::net {

BodyBuffer::~BodyBuffer() {
  Release();
}

void BodyBuffer::Release() {
  if (!data_) return;
  WipeMemory(data_.get(), capacity_);
  shared_->counters.body_bytes_in_flight.fetch_sub(capacity_, std::memory_order_relaxed);
  data_.reset();
}

bool BodyBuffer::Grow(std::size_t needed_bytes) {
  constexpr std::size_t kFirstBytes = 16 * 1024;
  const std::size_t capacity = std::max({needed_bytes, capacity_ * 2, kFirstBytes});
  Counter& in_flight = shared_->counters.body_bytes_in_flight;
  if (in_flight.fetch_add(capacity, std::memory_order_relaxed) + capacity >
      shared_->options.max_bodies_in_flight_bytes) {
    in_flight.fetch_sub(capacity, std::memory_order_relaxed);
    return false;
  }
  auto grown = std::make_unique_for_overwrite<char[]>(capacity);
  if (size_ > 0) std::memcpy(grown.get(), data_.get(), size_);
  Release();
  data_ = std::move(grown);
  capacity_ = capacity;
  return true;
}

bool BodyBuffer::Append(std::string_view data) {
  if (data.empty()) return true;
  if (size_ + data.size() > capacity_ && !Grow(size_ + data.size())) return false;
  std::memcpy(data_.get() + size_, data.data(), data.size());
  size_ += data.size();
  return true;
}

}  // namespace latchkey::net
