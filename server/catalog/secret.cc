#include "server/catalog/secret.h"

#include <cstring>
#include <new>
#include <string>

#include "common/base/check.h"

namespace latchkey::catalog {

SecretRef::SecretRef(const SecretRef& other) noexcept : secret_(other.secret_) {
  if (secret_ != nullptr) secret_->references_.fetch_add(1, std::memory_order_relaxed);
}

SecretRef::~SecretRef() {
  if (secret_ != nullptr) Secret::Release(secret_);
}

void Secret::Release(const Secret* secret) noexcept {
  if (secret->references_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  secret->~Secret();
  ::operator delete(const_cast<void*>(static_cast<const void*>(secret)));
}

SecretRef Secret::Make(const store::SecretRow& row, const store::VersionInfo& current,
                       std::span<const std::uint32_t> groups) {
  INVARIANT(row.current == current.id && row.id == current.secret);
  const std::size_t text_bytes = row.name.size() + row.description.size() + row.created_by.size() +
                                 row.updated_by.size() + (row.type ? row.type->size() : 0) +
                                 current.created_by.size() + current.metadata.size();
  void* memory = ::operator new(sizeof(Secret) + groups.size_bytes() + text_bytes);
  return SecretRef(::new (memory) Secret(row, current, groups));
}

Secret::Secret(const store::SecretRow& row, const store::VersionInfo& current,
               std::span<const std::uint32_t> groups)
    : group_count_(static_cast<std::uint32_t>(groups.size())),
      id_(row.id),
      created_at_(row.created_at),
      updated_at_(row.updated_at),
      current_(row.current),
      expiry_(row.expiry),
      newest_number_(row.newest_number),
      sequence_(row.sequence),
      version_(current.number),
      version_created_at_(current.created_at),
      version_expiry_(current.expiry),
      size_bytes_(current.size),
      owner_(row.owner ? static_cast<std::uint32_t>(row.owner->value) : 0),
      checksum_(current.checksum),
      live_(row.state == store::SecretState::kLive),
      has_type_(row.type.has_value()) {
  auto* out = reinterpret_cast<std::uint8_t*>(this + 1);
  if (!groups.empty()) std::memcpy(out, groups.data(), groups.size_bytes());
  out += groups.size_bytes();
  const std::string_view texts[kTexts] = {row.name,
                                          row.description,
                                          row.created_by,
                                          row.updated_by,
                                          row.type ? std::string_view(*row.type) : "",
                                          current.created_by,
                                          current.metadata};
  std::uint32_t end = 0;
  for (std::size_t i = 0; i < kTexts; ++i) {
    if (!texts[i].empty()) std::memcpy(out + end, texts[i].data(), texts[i].size());
    end += static_cast<std::uint32_t>(texts[i].size());
    ends_[i] = end;
  }
}

std::string_view Secret::Text(std::size_t index) const {
  const std::uint32_t begin = index == 0 ? 0 : ends_[index - 1];
  const auto* texts = reinterpret_cast<const char*>(tail() + group_count_ * sizeof(std::uint32_t));
  return {texts + begin, ends_[index] - begin};
}

acl::GroupList Secret::groups() const {
  // Aligned: the object's size is a multiple of its alignment of 8.
  return {reinterpret_cast<const std::uint32_t*>(tail()), group_count_};
}

store::SecretRow Secret::Row() const {
  store::SecretRow row;
  row.id = id_;
  row.name = name();
  row.description = description();
  row.created_at = created_at_;
  row.created_by = created_by();
  row.updated_at = updated_at_;
  row.updated_by = updated_by();
  if (has_type_) row.type = std::string(*type());
  row.owner = owner();
  row.current = current_;
  row.expiry = expiry_;
  row.state = live_ ? store::SecretState::kLive : store::SecretState::kDeleted;
  row.newest_number = newest_number_;
  row.sequence = sequence_;
  return row;
}

store::VersionInfo Secret::Current() const {
  store::VersionInfo info;
  info.id = current_;
  info.secret = id_;
  info.number = version_;
  info.created_at = version_created_at_;
  info.created_by = version_created_by();
  info.metadata = metadata();
  info.expiry = version_expiry_;
  info.checksum = checksum_;
  info.size = size_bytes_;
  return info;
}

}  // namespace latchkey::catalog
