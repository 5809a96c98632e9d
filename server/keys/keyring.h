// Keyring: the keys of one store while a program runs, and all that is done with them to rows and
// contents (rules C1-C8, G1, G2, K2, K3).
//
// The store's own keys are random from init and wrapped by the KEK. Every method after Load is
// thread-safe and const in effect; the only state that changes is the cache of unwrapped DEKs
// (dek_cache.h), which lives in the locked arena. Errors of all checks: kCorrupt, naming the row by
// its ids; kUnavailable when secret memory is exhausted.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "common/crypto/crypto.h"
#include "server/keys/row_mac.h"
#include "server/store/rows.h"

namespace latchkey::keys {

class DekCache;
class Keyring;

// What init writes into the store.
struct NewKeyring {
  std::unique_ptr<Keyring> keyring;
  store::KekRow kek;
  std::vector<store::KeyringRow> rows;
};

class Keyring {
 public:
  // Draws the five keys of a new store and wraps them.
  static Result<NewKeyring> Create(const crypto::StoreId& store_id, std::uint32_t kek_id,
                                   crypto::Kek kek, std::int64_t created_at);
  // The keyring of an existing store. The check value is compared before anything is decrypted.
  // Errors, all to end with kKeyExitCode: kNotFound when the store does not know key `kek_id`;
  // kInvalidArgument when the key is not the one the store was made with; kCorrupt when the keyring
  // rows are not exactly the five, wrapped by this key.
  static Result<std::unique_ptr<Keyring>> Load(const crypto::StoreId& store_id,
                                               std::uint32_t kek_id, crypto::Kek kek,
                                               std::span<const store::KekRow> keks,
                                               std::span<const store::KeyringRow> rows);
  ~Keyring();
  Keyring(const Keyring&) = delete;
  Keyring& operator=(const Keyring&) = delete;

  // --- versions
  // -------------------------------------------------------------------------------------------------------
  // Seals `content` under a fresh DEK. The caller fills id, secret, number, created_at, created_by,
  // metadata and expiry; checksum, size and mac are computed here. A changed metadata needs a new
  // Seal (rule C6). kTooLarge as crypto::Seal.
  Result<store::VersionRow> SealVersion(store::VersionInfo info, Bytes content) const;
  // Verifies the row's MAC, takes the DEK from the cache or unwraps it, and opens. `info`, `sealed`
  // and `wrapped` come from one row. kCorrupt when any of them does not belong to the others.
  Result<SecretBuffer> OpenVersion(const store::VersionInfo& info, Bytes sealed,
                                   Bytes wrapped) const;
  // The same into locked memory of the caller, which must hold info.size bytes (kTooLarge); returns
  // info.size. The read path: no copy of the content is made.
  Result<std::size_t> OpenVersionInto(const store::VersionInfo& info, Bytes sealed, Bytes wrapped,
                                      MutableBytes out) const;
  // After a version was deleted: its DEK leaves the cache at once.
  void ForgetDek(VersionId version) const;
  // Checksum of content as the API shows it (rule C6).
  crypto::Hash Checksum(SecretId secret, Bytes content) const;

  // --- rows
  // -----------------------------------------------------------------------------------------------------------
  // Row is ClientRow, GroupRow, MembershipRow, GrantRow, SecretRow or VersionInfo.
  template <class Row>
  void Sign(Row* row) const {
    row->mac = crypto::Mac(mac_, RowMessage(store_id_, *row));
  }
  template <class Row>
  Status Verify(const Row& row) const {
    if (crypto::EqualsConstantTime(row.mac, crypto::Mac(mac_, RowMessage(store_id_, row))))
      return {};
    return RowCorrupt(RowName(row));
  }
  // Settings carry their MAC in the value: value | mac 32.
  ByteVector SignSetting(std::string_view name, Bytes value) const;
  Result<ByteVector> OpenSetting(std::string_view name, Bytes stored) const;

  // --- keys for other modules
  // -----------------------------------------------------------------------------------------
  const crypto::StoreId& store_id() const { return store_id_; }
  std::uint32_t kek_id() const { return kek_id_; }
  const crypto::AuditKey& audit_key() const { return audit_; }
  const crypto::SessionKey& session_key() const { return session_; }
  const crypto::StateKey& state_key() const { return state_; }

 private:
  Keyring(const crypto::StoreId& store_id, std::uint32_t kek_id, crypto::Kek kek,
          crypto::MacKey mac, crypto::AuditKey audit, crypto::SumKey sum,
          crypto::SessionKey session, crypto::StateKey state, std::unique_ptr<DekCache> deks);
  static Result<std::unique_ptr<Keyring>> Unwrap(const crypto::StoreId& store_id,
                                                 std::uint32_t kek_id, crypto::Kek kek,
                                                 std::span<const store::KeyringRow> rows);
  static Error RowCorrupt(const std::string& row);
  Result<crypto::Dek> DekOf(const store::VersionInfo& info, Bytes wrapped) const;

  const crypto::StoreId store_id_;
  const std::uint32_t kek_id_;
  const crypto::Kek kek_;
  const crypto::MacKey mac_;
  const crypto::AuditKey audit_;
  const crypto::SumKey sum_;
  const crypto::SessionKey session_;
  const crypto::StateKey state_;
  const std::unique_ptr<DekCache> deks_;
};

}  // namespace latchkey::keys
