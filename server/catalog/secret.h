// Secret: one secret of the catalog with its current version and the groups that are granted it,
// packed into one allocation.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

#include "common/base/bytes.h"
#include "common/model/ids.h"
#include "server/catalog/acl.h"
#include "server/store/rows.h"

namespace latchkey::catalog {

class Secret;

// Counts references to a Secret. Thread-safe as shared_ptr is, in a quarter of its memory.
class SecretRef {
 public:
  SecretRef() = default;
  SecretRef(const SecretRef& other) noexcept;
  SecretRef(SecretRef&& other) noexcept : secret_(std::exchange(other.secret_, nullptr)) {}
  SecretRef& operator=(SecretRef other) noexcept {
    std::swap(secret_, other.secret_);
    return *this;
  }
  ~SecretRef();

  const Secret* get() const { return secret_; }
  const Secret* operator->() const { return secret_; }
  const Secret& operator*() const { return *secret_; }
  explicit operator bool() const { return secret_ != nullptr; }

 private:
  friend class Secret;
  explicit SecretRef(const Secret* adopted) : secret_(adopted) {}
  const Secret* secret_ = nullptr;
};

// Immutable. Views that it returns live as long as it does. 100 000 of these are in memory: no
// std::string, no MACs.
class Secret {
 public:
  // `groups` ascending; row.current is current.id.
  static SecretRef Make(const store::SecretRow& row, const store::VersionInfo& current,
                        std::span<const std::uint32_t> groups);

  SecretId id() const { return id_; }
  std::string_view name() const { return Text(0); }
  std::string_view description() const { return Text(1); }
  std::int64_t created_at() const { return created_at_; }
  std::string_view created_by() const { return Text(2); }
  std::int64_t updated_at() const { return updated_at_; }
  std::string_view updated_by() const { return Text(3); }
  std::optional<std::string_view> type() const {
    return has_type_ ? std::optional(Text(4)) : std::nullopt;
  }
  std::optional<GroupId> owner() const {
    return owner_ != 0 ? std::optional(GroupId{owner_}) : std::nullopt;
  }
  VersionId current() const { return current_; }
  std::int64_t expiry() const { return expiry_; }
  bool live() const { return live_; }
  std::uint64_t newest_number() const { return newest_number_; }
  std::uint64_t sequence() const { return sequence_; }

  // Of the current version.
  VersionNumber version() const { return version_; }
  std::int64_t version_created_at() const { return version_created_at_; }
  std::string_view version_created_by() const { return Text(5); }
  std::string_view metadata() const { return Text(6); }  // compact JSON object
  std::int64_t version_expiry() const { return version_expiry_; }
  const ByteArray<32>& checksum() const { return checksum_; }
  std::uint64_t size_bytes() const { return size_bytes_; }

  acl::GroupList groups() const;  // granted, ascending
  acl::SecretView view() const { return {live_, groups()}; }

  // The rows again, with a zero MAC: what a use case changes, signs and writes.
  store::SecretRow Row() const;
  store::VersionInfo Current() const;

  Secret(const Secret&) = delete;
  Secret& operator=(const Secret&) = delete;

 private:
  friend class SecretRef;
  static constexpr std::size_t kTexts = 7;

  Secret(const store::SecretRow& row, const store::VersionInfo& current,
         std::span<const std::uint32_t> groups);
  ~Secret() = default;
  std::string_view Text(std::size_t index) const;
  const std::uint8_t* tail() const { return reinterpret_cast<const std::uint8_t*>(this + 1); }
  static void Release(const Secret* secret) noexcept;

  mutable std::atomic<std::uint32_t> references_{1};
  std::uint32_t group_count_;
  SecretId id_;
  std::int64_t created_at_;
  std::int64_t updated_at_;
  VersionId current_;
  std::int64_t expiry_;
  std::uint64_t newest_number_;
  std::uint64_t sequence_;
  VersionNumber version_;
  std::int64_t version_created_at_;
  std::int64_t version_expiry_;
  std::uint64_t size_bytes_;
  std::uint32_t owner_;
  std::uint32_t ends_[kTexts];  // where each text ends, counted from the first
  ByteArray<32> checksum_;
  bool live_;
  bool has_type_;
  // Behind the object: group_count_ group ids, then the texts.
};

}  // namespace latchkey::catalog
