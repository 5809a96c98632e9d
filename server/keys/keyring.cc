#include "server/keys/keyring.h"

#include <algorithm>
#include <array>
#include <string>

#include "common/model/limits.h"
#include "server/keys/dek_cache.h"

namespace latchkey::keys {
namespace {

using crypto::Canonical;

constexpr std::array<std::string_view, 5> kPurposes = {"mac", "audit", "sum", "session", "state"};

Canonical KeyringAad(std::string_view purpose, const crypto::StoreId& store_id,
                     std::uint32_t kek_id) {
  Canonical aad("lk/v1/keyring");
  aad.Text(purpose).Raw(store_id).U64(kek_id);
  return aad;
}

// Rule C5. The name of the secret is bound by the MAC of its row, which keeps a rename O(1).
Canonical ContentAad(const crypto::StoreId& store_id, const store::VersionInfo& info) {
  Canonical aad("lk/v1/content");
  aad.Raw(store_id)
      .I64(info.secret.value)
      .I64(info.id.value)
      .I64(info.created_at)
      .Text(info.created_by)
      .I64(info.expiry)
      .Text(info.metadata)
      .Raw(info.checksum);
  return aad;
}

Canonical DekAad(const crypto::StoreId& store_id, const store::VersionInfo& info,
                 std::uint32_t kek_id) {
  Canonical aad("lk/v1/dek");
  aad.Raw(store_id).I64(info.secret.value).I64(info.id.value).U64(kek_id);
  return aad;
}

Canonical SettingMessage(const crypto::StoreId& store_id, std::string_view name, Bytes value) {
  Canonical message("lk/v1/row/settings");
  message.Raw(store_id).Text(name).Raw(value);
  return message;
}

Error KeyringCorrupt(const std::string& what) {
  return Error{Errc::kCorrupt, "the keyring of the store is damaged: " + what +
                                   "; restore the store from a backup"};
}

Status CheckPurposes(std::span<const store::KeyringRow> rows) {
  if (rows.size() != kPurposes.size()) {
    return KeyringCorrupt("it has " + std::to_string(rows.size()) + " keys, not " +
                          std::to_string(kPurposes.size()));
  }
  for (const std::string_view purpose : kPurposes) {
    if (std::count_if(rows.begin(), rows.end(),
                      [&](const auto& row) { return row.purpose == purpose; }) != 1) {
      return KeyringCorrupt("it has not exactly one key \"" + std::string(purpose) + "\"");
    }
  }
  return {};
}

template <class KeyType>
Result<KeyType> UnwrapRow(std::string_view purpose, const crypto::StoreId& store_id,
                          std::uint32_t kek_id, const crypto::Kek& kek,
                          std::span<const store::KeyringRow> rows) {
  const auto row =
      std::find_if(rows.begin(), rows.end(), [&](const auto& r) { return r.purpose == purpose; });
  if (row->kek_id != kek_id) {
    return KeyringCorrupt("key \"" + row->purpose + "\" is wrapped by key " +
                          std::to_string(row->kek_id) + ", not by key " + std::to_string(kek_id));
  }
  auto key = crypto::UnwrapKey(kek, kek_id, row->wrapped, KeyringAad(purpose, store_id, kek_id));
  if (!key.has_value()) {
    if (key.error().code != Errc::kCorrupt) return std::move(key).error();
    return KeyringCorrupt("key \"" + row->purpose + "\" does not open");
  }
  return KeyType::FromBuffer(std::move(key).value());
}

}  // namespace

Keyring::Keyring(const crypto::StoreId& store_id, std::uint32_t kek_id, crypto::Kek kek,
                 crypto::MacKey mac, crypto::AuditKey audit, crypto::SumKey sum,
                 crypto::SessionKey session, crypto::StateKey state, std::unique_ptr<DekCache> deks)
    : store_id_(store_id),
      kek_id_(kek_id),
      kek_(std::move(kek)),
      mac_(std::move(mac)),
      audit_(std::move(audit)),
      sum_(std::move(sum)),
      session_(std::move(session)),
      state_(std::move(state)),
      deks_(std::move(deks)) {}

Keyring::~Keyring() = default;

Result<NewKeyring> Keyring::Create(const crypto::StoreId& store_id, std::uint32_t kek_id,
                                   crypto::Kek kek, std::int64_t created_at) {
  NewKeyring made;
  made.kek = {kek_id, crypto::KeyCheckValue(kek, store_id, kek_id), created_at, true};
  for (const std::string_view purpose : kPurposes) {
    ASSIGN_OR_RETURN(SecretBuffer key, SecretBuffer::OfSize(crypto::kKeyBytes));
    crypto::RandomBytes(key.mutable_bytes());
    ASSIGN_OR_RETURN(ByteVector wrapped, crypto::WrapKey(kek, kek_id, key.bytes(),
                                                         KeyringAad(purpose, store_id, kek_id)));
    made.rows.push_back({std::string(purpose), kek_id, std::move(wrapped)});
  }
  // Loaded from what will be written, not from what was drawn: a keyring that init can use is one
  // that serve can use.
  ASSIGN_OR_RETURN(made.keyring, Unwrap(store_id, kek_id, std::move(kek), made.rows));
  return made;
}

Result<std::unique_ptr<Keyring>> Keyring::Load(const crypto::StoreId& store_id,
                                               std::uint32_t kek_id, crypto::Kek kek,
                                               std::span<const store::KekRow> keks,
                                               std::span<const store::KeyringRow> rows) {
  const auto known =
      std::find_if(keks.begin(), keks.end(), [&](const auto& row) { return row.kek_id == kek_id; });
  if (known == keks.end()) {
    return Error{Errc::kNotFound,
                 "the store does not know key " + std::to_string(kek_id) +
                     ": this key belongs to another store; provide the key of this one"};
  }
  if (!crypto::EqualsConstantTime(known->check_value,
                                  crypto::KeyCheckValue(kek, store_id, kek_id))) {
    return Error{Errc::kInvalidArgument,
                 "key " + std::to_string(kek_id) +
                     " is not the one this store was made with: provide the right key " +
                     std::to_string(kek_id) + " or its recovery copy"};
  }
  return Unwrap(store_id, kek_id, std::move(kek), rows);
}

Result<std::unique_ptr<Keyring>> Keyring::Unwrap(const crypto::StoreId& store_id,
                                                 std::uint32_t kek_id, crypto::Kek kek,
                                                 std::span<const store::KeyringRow> rows) {
  RETURN_IF_ERROR(CheckPurposes(rows));
  ASSIGN_OR_RETURN(auto mac, UnwrapRow<crypto::MacKey>("mac", store_id, kek_id, kek, rows));
  ASSIGN_OR_RETURN(auto audit, UnwrapRow<crypto::AuditKey>("audit", store_id, kek_id, kek, rows));
  ASSIGN_OR_RETURN(auto sum, UnwrapRow<crypto::SumKey>("sum", store_id, kek_id, kek, rows));
  ASSIGN_OR_RETURN(auto session,
                   UnwrapRow<crypto::SessionKey>("session", store_id, kek_id, kek, rows));
  ASSIGN_OR_RETURN(auto state, UnwrapRow<crypto::StateKey>("state", store_id, kek_id, kek, rows));
  ASSIGN_OR_RETURN(auto deks, DekCache::Make(limits::kDekCacheEntries));
  return std::unique_ptr<Keyring>(new Keyring(store_id, kek_id, std::move(kek), std::move(mac),
                                              std::move(audit), std::move(sum), std::move(session),
                                              std::move(state), std::move(deks)));
}

Error Keyring::RowCorrupt(const std::string& row) {
  return Error{Errc::kCorrupt,
               row + " does not authenticate: its row was changed outside of latchkeyd"};
}

Result<store::VersionRow> Keyring::SealVersion(store::VersionInfo info, Bytes content) const {
  info.checksum = Checksum(info.secret, content);
  info.size = content.size();
  Sign(&info);
  store::VersionRow row;
  ASSIGN_OR_RETURN(const crypto::Dek dek, crypto::Dek::Random());
  ASSIGN_OR_RETURN(row.sealed, crypto::Seal(dek, content, ContentAad(store_id_, info)));
  ASSIGN_OR_RETURN(row.wrapped,
                   crypto::WrapKey(kek_, kek_id_, dek.bytes(), DekAad(store_id_, info, kek_id_)));
  row.info = std::move(info);
  return row;
}

Result<crypto::Dek> Keyring::DekOf(const store::VersionInfo& info, Bytes wrapped) const {
  if (auto cached = deks_->Find(info.id, wrapped); cached.has_value()) return std::move(*cached);
  auto key = crypto::UnwrapKey(kek_, kek_id_, wrapped, DekAad(store_id_, info, kek_id_));
  if (!key.has_value()) {
    if (key.error().code != Errc::kCorrupt) return std::move(key).error();
    return Error{Errc::kCorrupt,
                 "the key of " + RowName(info) + " does not open: " + key.error().message};
  }
  ASSIGN_OR_RETURN(crypto::Dek dek, crypto::Dek::FromBuffer(std::move(key).value()));
  deks_->Put(info.id, wrapped, dek);
  return dek;
}

Result<SecretBuffer> Keyring::OpenVersion(const store::VersionInfo& info, Bytes sealed,
                                          Bytes wrapped) const {
  if (info.size > limits::kHardMaxContentBytes) return RowCorrupt(RowName(info));
  ASSIGN_OR_RETURN(SecretBuffer content, SecretBuffer::OfSize(info.size));
  ASSIGN_OR_RETURN(const std::size_t opened,
                   OpenVersionInto(info, sealed, wrapped, content.mutable_bytes()));
  INVARIANT(opened == content.size());
  return content;
}

Result<std::size_t> Keyring::OpenVersionInto(const store::VersionInfo& info, Bytes sealed,
                                             Bytes wrapped, MutableBytes out) const {
  RETURN_IF_ERROR(Verify(info));
  if (sealed.size() != info.size + crypto::kSealOverheadBytes)
    return RowCorrupt("the content of " + RowName(info));
  ASSIGN_OR_RETURN(const crypto::Dek dek, DekOf(info, wrapped));
  auto opened = crypto::OpenInto(dek, sealed, ContentAad(store_id_, info), out);
  if (!opened.has_value() && opened.error().code == Errc::kCorrupt) {
    return RowCorrupt("the content of " + RowName(info));
  }
  return opened;
}

void Keyring::ForgetDek(VersionId version) const {
  deks_->Forget(version);
}

crypto::Hash Keyring::Checksum(SecretId secret, Bytes content) const {
  return crypto::ContentChecksum(sum_, secret.value, content);
}

ByteVector Keyring::SignSetting(std::string_view name, Bytes value) const {
  const crypto::Hash mac = crypto::Mac(mac_, SettingMessage(store_id_, name, value));
  ByteVector stored(value.begin(), value.end());
  stored.insert(stored.end(), mac.begin(), mac.end());
  return stored;
}

Result<ByteVector> Keyring::OpenSetting(std::string_view name, Bytes stored) const {
  if (stored.size() < crypto::kHashBytes) return RowCorrupt("setting " + std::string(name));
  const Bytes value = stored.first(stored.size() - crypto::kHashBytes);
  const crypto::Hash mac = crypto::Mac(mac_, SettingMessage(store_id_, name, value));
  if (!crypto::EqualsConstantTime(stored.last(crypto::kHashBytes), mac)) {
    return RowCorrupt("setting " + std::string(name));
  }
  return ByteVector(value.begin(), value.end());
}

}  // namespace latchkey::keys
