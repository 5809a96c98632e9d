// Envelope encryption, MACs and hashes of the store (rules C1-C8, K1-K3). libsodium only.
//
// Formats are in docs/formats.md with worked bytes; golden vectors in tests/vectors. All functions are thread-safe and
// keep no state. Random nonces are drawn inside: no function here takes one.
#pragma once

#include "common/base/bytes.h"
#include "common/base/result.h"
#include "common/crypto/canonical.h"
#include "common/secret/secret_buffer.h"

namespace latchkey::crypto {

inline constexpr std::size_t kKeyBytes = 32;
inline constexpr std::size_t kHashBytes = 32;
using Hash = ByteArray<kHashBytes>;
using StoreId = ByteArray<16>;

// Keys are types that do not convert to each other; each owns its bytes in the locked arena.
template <class Tag>
class Key {
 public:
  // kInvalidArgument unless exactly 32 bytes; kUnavailable when secret memory is exhausted.
  static Result<Key> FromBytes(Bytes bytes);
  static Result<Key> Random();
  Bytes bytes() const { return buffer_.bytes(); }

 private:
  explicit Key(SecretBuffer buffer) : buffer_(std::move(buffer)) {}
  SecretBuffer buffer_;
};
using Kek = Key<struct KekTag>;            // wraps DEKs and keyring keys (through K_wrap)
using Dek = Key<struct DekTag>;            // seals one version
using MacKey = Key<struct MacKeyTag>;      // K_mac: row MACs
using AuditKey = Key<struct AuditKeyTag>;  // K_audit: chain hashes
using SumKey = Key<struct SumKeyTag>;      // K_sum: checksums shown in the API

// Content: 0x01 | alg 0x01 | nonce 24 | ciphertext | tag 16.
inline constexpr std::size_t kSealOverheadBytes = 2 + 24 + 16;
// Wrapped key: 0x01 | 0x01 | kek_id u32 BE | nonce 24 | ciphertext 32 | tag 16.
inline constexpr std::size_t kWrappedKeyBytes = 2 + 4 + 24 + 32 + 16;

// Seals `content` under `dek`, bound to `aad`; opens the result once again before returning it (rule C8).
// Errors: kTooLarge above 8 MiB; kInternal when the self-check fails.
Result<ByteVector> Seal(const Dek& dek, Bytes content, const Canonical& aad);
// Errors: kCorrupt for any malformed or unauthentic input; nothing is returned partially.
Result<SecretBuffer> Open(const Dek& dek, Bytes sealed, const Canonical& aad);
// Open into memory of the caller (locked): writes sealed.size() - kSealOverheadBytes bytes, which `out` must have.
Result<std::size_t> OpenInto(const Dek& dek, Bytes sealed, const Canonical& aad, MutableBytes out);

// Wrap and Unwrap use K_wrap = crypto_kdf(KEK, 1, "lk-wrap_"). The key is chosen by kek_id by the caller, never by trial.
Result<ByteVector> WrapKey(const Kek& kek, std::uint32_t kek_id, Bytes key, const Canonical& aad);
Result<SecretBuffer> UnwrapKey(const Kek& kek, std::uint32_t kek_id, Bytes wrapped, const Canonical& aad);
// The kek_id that a wrapped key names. kCorrupt when it is not a wrapped key of version 1.
Result<std::uint32_t> WrappedKekId(Bytes wrapped);

// Key check value (rule K3): BLAKE2b of 16 bytes keyed with K_kcv = crypto_kdf(KEK, 2, "lk-kcv__") over store_id, kek_id.
ByteArray<16> KeyCheckValue(const Kek& kek, const StoreId& store_id, std::uint32_t kek_id);

// Keyed BLAKE2b-256 of a canonical encoding.
Hash Mac(const MacKey& key, const Canonical& message);
bool EqualsConstantTime(Bytes a, Bytes b);  // lengths are not secret

// Checksum of content (rule C6): BLAKE2b-256 keyed with K_sum over secret_id, content.
Hash ContentChecksum(const SumKey& key, std::int64_t secret_id, Bytes content);

// h_n = BLAKE2b-256(K_audit; h_(n-1), chain_id, seq, event) (rule A3).
Hash ChainHash(const AuditKey& key, const Hash& previous, std::string_view chain_id, std::uint64_t seq, Bytes event);

// randombytes_buf; aborts when libsodium cannot start (rule C7).
void RandomBytes(MutableBytes out);
std::int64_t RandomId();  // never 0

}  // namespace latchkey::crypto
