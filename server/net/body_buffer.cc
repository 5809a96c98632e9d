#include "server/net/body_buffer.h"

#include <algorithm>
#include <cstring>

#include "common/secret/secret_buffer.h"

namespace latchkey::net {

BodyBuffer::~BodyBuffer() {
  if (!data_) return;
  WipeMemory(data_.get(), capacity_);
  own_->body_bytes.fetch_sub(capacity_, std::memory_order_relaxed);
  shared_->counters.body_bytes_in_flight.fetch_sub(capacity_, std::memory_order_relaxed);
}

// Rule H0: nobody may use up what all have together.
bool BodyBuffer::Charge(std::size_t bytes) {
  const ServerOptions& options = shared_->options;
  Counter& all = shared_->counters.body_bytes_in_flight;
  if (own_->body_bytes.fetch_add(bytes, std::memory_order_relaxed) + bytes <=
      options.max_bodies_in_flight_bytes_per_identity) {
    if (all.fetch_add(bytes, std::memory_order_relaxed) + bytes <=
        options.max_bodies_in_flight_bytes)
      return true;
    all.fetch_sub(bytes, std::memory_order_relaxed);
  }
  own_->body_bytes.fetch_sub(bytes, std::memory_order_relaxed);
  return false;
}

bool BodyBuffer::Grow(std::size_t needed_bytes) {
  constexpr std::size_t kFirstBytes = 16 * 1024;
  const std::size_t wanted = std::min(std::max(capacity_ * 2, kFirstBytes), most_bytes_);
  const std::size_t capacity = std::max(needed_bytes, wanted);
  if (!Charge(capacity - capacity_)) return false;
  auto grown = std::make_unique_for_overwrite<char[]>(capacity);
  if (size_ > 0) std::memcpy(grown.get(), data_.get(), size_);
  if (data_) WipeMemory(data_.get(), capacity_);
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
