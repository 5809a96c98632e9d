// Envelope encryption, MACs and hashes of the store (rules C1-C8, K1-K3). libsodium only.
//
// Formats are in docs/formats.md with worked bytes; golden vectors in tests/vectors. All functions
// are thread-safe and keep no state. Random nonces are drawn inside: no function here takes one.
// Where libsodium cannot start, they abort.
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

// randombytes_buf; aborts when libsodium cannot start (rule C7).
void RandomBytes(MutableBytes out);
std::int64_t RandomId();  // never 0

// Keys are types that do not convert to each other; each owns its bytes in the locked arena.
template <class Tag>
class Key {
 public:
  // kInvalidArgument unless exactly 32 bytes; kUnavailable when secret memory is exhausted.
  static Result<Key> FromBytes(Bytes bytes) {
    if (bytes.size() != kKeyBytes) return WrongSize(bytes.size());
    ASSIGN_OR_RETURN(SecretBuffer buffer, SecretBuffer::CopyOf(bytes));
    return Key(std::move(buffer));
  }
  // The same without a copy, for a buffer that holds nothing but the key.
  static Result<Key> FromBuffer(SecretBuffer buffer) {
    if (buffer.size() != kKeyBytes) return WrongSize(buffer.size());
    return Key(std::move(buffer));
  }
  static Result<Key> Random() {
    ASSIGN_OR_RETURN(SecretBuffer buffer, SecretBuffer::OfSize(kKeyBytes));
    RandomBytes(buffer.mutable_bytes());
    return Key(std::move(buffer));
  }
  Bytes bytes() const { return buffer_.bytes(); }

 private:
  static Error WrongSize(std::size_t size) {
    return Error{Errc::kInvalidArgument, "a key has 32 bytes, not " + std::to_string(size)};
  }
  explicit Key(SecretBuffer buffer) : buffer_(std::move(buffer)) {}
  SecretBuffer buffer_;
};
using Kek = Key<struct KekTag>;                // wraps DEKs and keyring keys (through K_wrap)
using Dek = Key<struct DekTag>;                // seals one version
using MacKey = Key<struct MacKeyTag>;          // K_mac: row MACs
using AuditKey = Key<struct AuditKeyTag>;      // K_audit: chain hashes
using SumKey = Key<struct SumKeyTag>;          // K_sum: checksums shown in the API
using SessionKey = Key<struct SessionKeyTag>;  // K_session: hashes of session tokens (rule W3)
using StateKey = Key<struct StateKeyTag>;      // K_state: seals the state of the ACL (rule G3)

// Content: 0x01 | alg 0x01 | nonce 24 | ciphertext | tag 16.
inline constexpr std::size_t kSealOverheadBytes = 2 + 24 + 16;
// Wrapped key: 0x01 | 0x01 | kek_id u32 BE | nonce 24 | ciphertext 32 | tag 16.
inline constexpr std::size_t kWrappedKeyBytes = 2 + 4 + 24 + 32 + 16;

// Seals `content` under the key, bound to `aad`; checks that the result opens to the same bytes
// before returning it (rule C8). Empty content is valid here; the API refuses it. Equal inputs give
// unequal outputs. Errors: kTooLarge above limits::kHardMaxContentBytes (8 MiB); kInternal when the
// self-check fails.
Result<ByteVector> Seal(const Dek& dek, Bytes content, const Canonical& aad);
Result<ByteVector> Seal(const StateKey& key, Bytes content, const Canonical& aad);
// Errors: kCorrupt for any malformed or unauthentic input, nothing is returned partially;
// kUnavailable when secret memory is exhausted.
Result<SecretBuffer> Open(const Dek& dek, Bytes sealed, const Canonical& aad);
Result<SecretBuffer> Open(const StateKey& key, Bytes sealed, const Canonical& aad);
// Open into memory of the caller (locked): writes sealed.size() - kSealOverheadBytes bytes, which
// `out` must have, and returns that number. kTooLarge when `out` is smaller. On kCorrupt `out`
// holds zeros or what it held before, never plaintext. Allocates nothing.
Result<std::size_t> OpenInto(const Dek& dek, Bytes sealed, const Canonical& aad, MutableBytes out);

// Wrap and Unwrap use K_wrap = crypto_kdf(KEK, 1, "lk-wrap_"). The key is chosen by kek_id by the
// caller, never by trial: UnwrapKey refuses a wrapped key that names another kek_id. `key` has 32
// bytes (kInvalidArgument).
Result<ByteVector> WrapKey(const Kek& kek, std::uint32_t kek_id, Bytes key, const Canonical& aad);
Result<SecretBuffer> UnwrapKey(const Kek& kek, std::uint32_t kek_id, Bytes wrapped,
                               const Canonical& aad);
// The kek_id that a wrapped key names. kCorrupt when it is not a wrapped key of version 1.
Result<std::uint32_t> WrappedKekId(Bytes wrapped);

// Key check value (rule K3): BLAKE2b of 16 bytes keyed with K_kcv = crypto_kdf(KEK, 2, "lk-kcv__")
// over `lk/v1/kcv`, store_id, kek_id.
ByteArray<16> KeyCheckValue(const Kek& kek, const StoreId& store_id, std::uint32_t kek_id);

// Keyed BLAKE2b-256 of a canonical encoding. One purpose per label keeps the uses of one key apart.
Hash Mac(const MacKey& key, const Canonical& message);
Hash Mac(const AuditKey& key, const Canonical& message);
Hash Mac(const SessionKey& key, const Canonical& message);
// The check of a key file against typing mistakes: the first 8 bytes of BLAKE2b-256(head | secret),
// where `head` ends with the RawHead of `secret`. Unkeyed: it shows damage, not forgery.
ByteArray<8> TypingCheck(const Canonical& head, Bytes secret);
bool EqualsConstantTime(Bytes a, Bytes b);  // lengths are not secret

// Checksum of content (rule C6): BLAKE2b-256 keyed with K_sum over `lk/v1/sum`, secret_id, content.
Hash ContentChecksum(const SumKey& key, std::int64_t secret_id, Bytes content);

// h_n = BLAKE2b-256(K_audit; `lk/v1/chain`, h_(n-1), chain_id, seq, event) (rule A3).
Hash ChainHash(const AuditKey& key, const Hash& previous, std::string_view chain_id,
               std::uint64_t seq, Bytes event);

// base64url without padding of a key, from arena to arena and without a table or branch on its
// bytes (rule C7). FromBase64Url: kInvalidArgument for any other character, a wrong length, or bits
// behind the last byte.
Result<SecretBuffer> ToBase64Url(Bytes bytes);
Result<SecretBuffer> FromBase64Url(Bytes text);

}  // namespace latchkey::crypto
