#include "common/crypto/crypto.h"

#include <sodium.h>

#include <algorithm>
#include <cstring>

#include "common/model/limits.h"

namespace latchkey::crypto {
namespace {

constexpr std::uint8_t kFormatVersion = 1;
constexpr std::uint8_t kAlgXChaCha20Poly1305 = 1;
constexpr std::size_t kNonceBytes = crypto_aead_xchacha20poly1305_ietf_NPUBBYTES;
constexpr std::size_t kTagBytes = crypto_aead_xchacha20poly1305_ietf_ABYTES;
constexpr std::size_t kWrapHeadBytes = 2 + 4;
static_assert(kNonceBytes == 24 && kTagBytes == 16);
static_assert(crypto_aead_xchacha20poly1305_ietf_KEYBYTES == kKeyBytes);
static_assert(kSealOverheadBytes == 2 + kNonceBytes + kTagBytes);
static_assert(kWrappedKeyBytes == kWrapHeadBytes + kNonceBytes + kKeyBytes + kTagBytes);

void StartSodium() {
  static const bool started = sodium_init() >= 0;
  INVARIANT(started);
}

// A derived key for the length of one call. It never leaves this file.
class Subkey {
 public:
  Subkey(const Kek& kek, std::uint64_t id, const char (&context)[crypto_kdf_CONTEXTBYTES + 1]) {
    StartSodium();
    INVARIANT(crypto_kdf_derive_from_key(bytes_, sizeof(bytes_), id, context, kek.bytes().data()) ==
              0);
  }
  ~Subkey() { sodium_memzero(bytes_, sizeof(bytes_)); }
  Subkey(const Subkey&) = delete;
  Subkey& operator=(const Subkey&) = delete;
  Bytes bytes() const { return bytes_; }

 private:
  std::uint8_t bytes_[kKeyBytes];
};

Subkey WrappingKey(const Kek& kek) {
  return Subkey(kek, 1, "lk-wrap_");
}

Error DoesNotOpen() {
  return Error{Errc::kCorrupt, "sealed bytes do not authenticate"};
}

// Rule C8: what was just sealed must open to the same bytes. The tag is verified by the function
// that Open uses; the plaintext is recomputed in pieces, so that sealing 8 MiB does not need 8 MiB
// of secret memory. XChaCha20-Poly1305-IETF encrypts with block counter 1 onwards, which for less
// than 256 GiB is what crypto_stream_xchacha20_xor_ic does.
bool OpensTo(Bytes key, Bytes content, const std::uint8_t* nonce, const std::uint8_t* ciphertext,
             Bytes aad) {
  const std::uint8_t* tag = ciphertext + content.size();
  if (crypto_aead_xchacha20poly1305_ietf_decrypt_detached(nullptr, nullptr, ciphertext,
                                                          content.size(), tag, aad.data(),
                                                          aad.size(), nonce, key.data()) != 0) {
    return false;
  }
  constexpr std::size_t kBlock = 64;
  std::uint8_t piece[32 * kBlock];
  bool equal = true;
  for (std::size_t at = 0; at < content.size() && equal; at += sizeof(piece)) {
    const std::size_t size = std::min(sizeof(piece), content.size() - at);
    equal = crypto_stream_xchacha20_xor_ic(piece, ciphertext + at, size, nonce, 1 + at / kBlock,
                                           key.data()) == 0 &&
            sodium_memcmp(piece, content.data() + at, size) == 0;
  }
  sodium_memzero(piece, sizeof(piece));
  return equal;
}

// Appends nonce | ciphertext | tag to `head`.
Result<ByteVector> SealBehind(ByteVector head, Bytes key, Bytes content, const Canonical& aad) {
  StartSodium();
  const std::size_t head_bytes = head.size();
  head.resize(head_bytes + kNonceBytes + content.size() + kTagBytes);
  std::uint8_t* nonce = head.data() + head_bytes;
  std::uint8_t* ciphertext = nonce + kNonceBytes;
  randombytes_buf(nonce, kNonceBytes);
  unsigned long long written = 0;
  const int rc = crypto_aead_xchacha20poly1305_ietf_encrypt(
      ciphertext, &written, content.data(), content.size(), aad.bytes().data(), aad.bytes().size(),
      nullptr, nonce, key.data());
  if (rc != 0 || written != content.size() + kTagBytes ||
      !OpensTo(key, content, nonce, ciphertext, aad.bytes())) {
    return Error{Errc::kInternal, "sealed bytes do not open again: nothing was stored"};
  }
  return head;
}

// `body` is nonce | ciphertext | tag; `out` has room for the plaintext. libsodium verifies before
// it decrypts.
bool OpenBody(Bytes key, Bytes body, const Canonical& aad, std::uint8_t* out) {
  StartSodium();
  const std::uint8_t* nonce = body.data();
  const Bytes ciphertext = body.subspan(kNonceBytes);
  unsigned long long written = 0;
  return crypto_aead_xchacha20poly1305_ietf_decrypt(out, &written, nullptr, ciphertext.data(),
                                                    ciphertext.size(), aad.bytes().data(),
                                                    aad.bytes().size(), nonce, key.data()) == 0 &&
         written == ciphertext.size() - kTagBytes;
}

bool IsSealedContent(Bytes sealed) {
  return sealed.size() >= kSealOverheadBytes &&
         sealed.size() - kSealOverheadBytes <= limits::kHardMaxContentBytes &&
         sealed[0] == kFormatVersion && sealed[1] == kAlgXChaCha20Poly1305;
}

Result<ByteVector> SealContent(Bytes key, Bytes content, const Canonical& aad) {
  if (content.size() > limits::kHardMaxContentBytes) {
    return Error{Errc::kTooLarge, "content of " + std::to_string(content.size()) +
                                      " bytes is over the limit of " +
                                      std::to_string(limits::kHardMaxContentBytes) + " bytes"};
  }
  ByteVector head;
  head.reserve(content.size() + kSealOverheadBytes);
  head.push_back(kFormatVersion);
  head.push_back(kAlgXChaCha20Poly1305);
  return SealBehind(std::move(head), key, content, aad);
}

Result<SecretBuffer> OpenContent(Bytes key, Bytes sealed, const Canonical& aad) {
  if (!IsSealedContent(sealed)) return DoesNotOpen();
  ASSIGN_OR_RETURN(SecretBuffer content, SecretBuffer::OfSize(sealed.size() - kSealOverheadBytes));
  if (!OpenBody(key, sealed.subspan(2), aad, content.mutable_bytes().data())) return DoesNotOpen();
  return content;
}

class Blake2b {
 public:
  Blake2b(Bytes key, std::size_t out_bytes) : out_bytes_(out_bytes) {
    StartSodium();
    INVARIANT(crypto_generichash_init(&state_, key.data(), key.size(), out_bytes_) == 0);
  }
  ~Blake2b() { sodium_memzero(&state_, sizeof(state_)); }  // it starts with the key
  Blake2b(const Blake2b&) = delete;
  Blake2b& operator=(const Blake2b&) = delete;

  Blake2b& Add(Bytes bytes) {
    INVARIANT(crypto_generichash_update(&state_, bytes.data(), bytes.size()) == 0);
    return *this;
  }
  template <std::size_t N>
  ByteArray<N> Finish() {
    INVARIANT(N == out_bytes_);
    ByteArray<N> out;
    INVARIANT(crypto_generichash_final(&state_, out.data(), N) == 0);
    return out;
  }

 private:
  crypto_generichash_state state_;
  std::size_t out_bytes_;
};

}  // namespace

void RandomBytes(MutableBytes out) {
  StartSodium();
  randombytes_buf(out.data(), out.size());
}

std::int64_t RandomId() {
  std::int64_t id = 0;
  while (id == 0) {
    StartSodium();
    randombytes_buf(&id, sizeof(id));
  }
  return id;
}

Result<ByteVector> Seal(const Dek& dek, Bytes content, const Canonical& aad) {
  return SealContent(dek.bytes(), content, aad);
}

Result<ByteVector> Seal(const StateKey& key, Bytes content, const Canonical& aad) {
  return SealContent(key.bytes(), content, aad);
}

Result<SecretBuffer> Open(const Dek& dek, Bytes sealed, const Canonical& aad) {
  return OpenContent(dek.bytes(), sealed, aad);
}

Result<SecretBuffer> Open(const StateKey& key, Bytes sealed, const Canonical& aad) {
  return OpenContent(key.bytes(), sealed, aad);
}

Result<std::size_t> OpenInto(const Dek& dek, Bytes sealed, const Canonical& aad, MutableBytes out) {
  if (!IsSealedContent(sealed)) return DoesNotOpen();
  const std::size_t size = sealed.size() - kSealOverheadBytes;
  if (out.size() < size) {
    return Error{Errc::kTooLarge, "content of " + std::to_string(size) +
                                      " bytes does not fit into the " + std::to_string(out.size()) +
                                      " bytes it was to be opened into"};
  }
  if (!OpenBody(dek.bytes(), sealed.subspan(2), aad, out.data())) return DoesNotOpen();
  return size;
}

Result<ByteVector> WrapKey(const Kek& kek, std::uint32_t kek_id, Bytes key, const Canonical& aad) {
  if (key.size() != kKeyBytes) {
    return Error{Errc::kInvalidArgument, "a key has 32 bytes, not " + std::to_string(key.size())};
  }
  ByteVector head;
  head.reserve(kWrappedKeyBytes);
  head.push_back(kFormatVersion);
  head.push_back(kAlgXChaCha20Poly1305);
  PutU32(&head, kek_id);
  return SealBehind(std::move(head), WrappingKey(kek).bytes(), key, aad);
}

Result<std::uint32_t> WrappedKekId(Bytes wrapped) {
  if (wrapped.size() != kWrappedKeyBytes || wrapped[0] != kFormatVersion ||
      wrapped[1] != kAlgXChaCha20Poly1305) {
    return Error{Errc::kCorrupt, "not a wrapped key of version 1"};
  }
  return GetU32(wrapped.data() + 2);
}

Result<SecretBuffer> UnwrapKey(const Kek& kek, std::uint32_t kek_id, Bytes wrapped,
                               const Canonical& aad) {
  ASSIGN_OR_RETURN(const std::uint32_t named, WrappedKekId(wrapped));
  if (named != kek_id) {
    return Error{Errc::kCorrupt, "the wrapped key names key " + std::to_string(named) +
                                     ", not key " + std::to_string(kek_id)};
  }
  ASSIGN_OR_RETURN(SecretBuffer key, SecretBuffer::OfSize(kKeyBytes));
  if (!OpenBody(WrappingKey(kek).bytes(), wrapped.subspan(kWrapHeadBytes), aad,
                key.mutable_bytes().data())) {
    return DoesNotOpen();
  }
  return key;
}

ByteArray<16> KeyCheckValue(const Kek& kek, const StoreId& store_id, std::uint32_t kek_id) {
  const Subkey key(kek, 2, "lk-kcv__");
  return Blake2b(key.bytes(), 16)
      .Add(Canonical("lk/v1/kcv").Raw(store_id).U64(kek_id).bytes())
      .Finish<16>();
}

Hash Mac(const MacKey& key, const Canonical& message) {
  return Blake2b(key.bytes(), kHashBytes).Add(message.bytes()).Finish<kHashBytes>();
}

Hash Mac(const AuditKey& key, const Canonical& message) {
  return Blake2b(key.bytes(), kHashBytes).Add(message.bytes()).Finish<kHashBytes>();
}

Hash Mac(const SessionKey& key, const Canonical& message) {
  return Blake2b(key.bytes(), kHashBytes).Add(message.bytes()).Finish<kHashBytes>();
}

ByteArray<8> TypingCheck(const Canonical& head, Bytes secret) {
  const Hash whole = Blake2b({}, kHashBytes).Add(head.bytes()).Add(secret).Finish<kHashBytes>();
  ByteArray<8> check;
  std::copy_n(whole.begin(), check.size(), check.begin());
  return check;
}

bool EqualsConstantTime(Bytes a, Bytes b) {
  return a.size() == b.size() && (a.empty() || sodium_memcmp(a.data(), b.data(), a.size()) == 0);
}

Hash ContentChecksum(const SumKey& key, std::int64_t secret_id, Bytes content) {
  Canonical head("lk/v1/sum");
  head.I64(secret_id).RawHead(content.size());
  return Blake2b(key.bytes(), kHashBytes).Add(head.bytes()).Add(content).Finish<kHashBytes>();
}

Hash ChainHash(const AuditKey& key, const Hash& previous, std::string_view chain_id,
               std::uint64_t seq, Bytes event) {
  Canonical head("lk/v1/chain");
  head.Raw(previous).Text(chain_id).U64(seq).RawHead(event.size());
  return Blake2b(key.bytes(), kHashBytes).Add(head.bytes()).Add(event).Finish<kHashBytes>();
}

Result<SecretBuffer> ToBase64Url(Bytes bytes) {
  StartSodium();
  const std::size_t with_nul =
      sodium_base64_encoded_len(bytes.size(), sodium_base64_VARIANT_URLSAFE_NO_PADDING);
  ASSIGN_OR_RETURN(SecretBuffer text, SecretBuffer::OfSize(with_nul));
  sodium_bin2base64(reinterpret_cast<char*>(text.mutable_bytes().data()), with_nul, bytes.data(),
                    bytes.size(), sodium_base64_VARIANT_URLSAFE_NO_PADDING);
  text.Shrink(with_nul - 1);
  return text;
}

Result<SecretBuffer> FromBase64Url(Bytes text) {
  StartSodium();
  ASSIGN_OR_RETURN(SecretBuffer bytes, SecretBuffer::OfSize(text.size() / 4 * 3 + 3));
  std::size_t size = 0;
  if (sodium_base642bin(bytes.mutable_bytes().data(), bytes.size(),
                        reinterpret_cast<const char*>(text.data()), text.size(), nullptr, &size,
                        nullptr, sodium_base64_VARIANT_URLSAFE_NO_PADDING) != 0) {
    return Error{Errc::kInvalidArgument, "not base64url without padding"};
  }
  bytes.Shrink(size);
  return bytes;
}

}  // namespace latchkey::crypto
