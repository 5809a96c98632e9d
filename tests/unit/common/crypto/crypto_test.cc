#include "common/crypto/crypto.h"

#include <sodium.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <random>
#include <set>

#include "common/model/limits.h"
#include "tests/support/vectors.h"

namespace latchkey::crypto {
namespace {

// --- what the types promise before anything runs
// ---------------------------------------------------------------------
static_assert(!std::is_constructible_v<Dek, const Kek&> &&
              !std::is_constructible_v<Kek, const Dek&>);
static_assert(!std::is_constructible_v<MacKey, const SumKey&> &&
              !std::is_constructible_v<AuditKey, const MacKey&>);
static_assert(!std::is_copy_constructible_v<Kek> && std::is_nothrow_move_constructible_v<Kek>);
static_assert(!std::is_convertible_v<const Dek&, Bytes>);
static_assert(!std::is_default_constructible_v<Dek>);

// No function that encrypts takes a nonce (rule C1): neither as one more argument nor in place of
// another.
using Nonce = ByteArray<24>;
template <class... Extra>
concept SealTakes = requires(const Dek& dek, Bytes content, const Canonical& aad, Extra... extra) {
  Seal(dek, content, aad, extra...);
};
template <class... Extra>
concept WrapTakes = requires(const Kek& kek, Bytes key, const Canonical& aad, Extra... extra) {
  WrapKey(kek, std::uint32_t{1}, key, aad, extra...);
};
static_assert(SealTakes<> && WrapTakes<>);
static_assert(!SealTakes<Nonce> && !SealTakes<Bytes> && !SealTakes<const std::uint8_t*>);
static_assert(!WrapTakes<Nonce> && !WrapTakes<Bytes> && !WrapTakes<const std::uint8_t*>);

// --- a second implementation of the envelope, with a nonce: it exists in tests alone
// ----------------------------------
ByteVector SealWithNonce(Bytes key, Bytes head, Bytes nonce, Bytes content, const Canonical& aad) {
  ByteVector out(head.begin(), head.end());
  out.insert(out.end(), nonce.begin(), nonce.end());
  const std::size_t at = out.size();
  out.resize(at + content.size() + 16);
  unsigned long long written = 0;
  crypto_aead_xchacha20poly1305_ietf_encrypt(out.data() + at, &written, content.data(),
                                             content.size(), aad.bytes().data(), aad.bytes().size(),
                                             nullptr, nonce.data(), key.data());
  return out;
}

Dek TestDek(std::uint8_t fill = 7) {
  return Dek::FromBytes(ByteVector(32, fill)).value();
}
Kek TestKek(std::uint8_t fill = 9) {
  return Kek::FromBytes(ByteVector(32, fill)).value();
}
Canonical TestAad(int version = 3) {
  Canonical aad("lk/v1/example");
  aad.Text("db_password").I64(version);
  return aad;
}
ByteVector Pattern(std::size_t size) {
  ByteVector out(size);
  for (std::size_t i = 0; i < size; ++i) out[i] = static_cast<std::uint8_t>(i * 131 >> 3);
  return out;
}

bool OpensNot(const Result<SecretBuffer>& opened) {
  return !opened.has_value() && opened.error().code == Errc::kCorrupt;
}

TEST_CASE("Open gives back what Seal was given, at every size", "[crypto]") {
  const auto size_bytes =
      GENERATE(as<std::size_t>{}, 0, 1, 15, 16, 17, 63, 64, 65, 2047, 2048, 2049, 4096, 1 << 20);
  CAPTURE(size_bytes);
  const ByteVector content = Pattern(size_bytes);
  const auto sealed = Seal(TestDek(), content, TestAad());
  REQUIRE(sealed.has_value());
  CHECK(sealed.value().size() == size_bytes + kSealOverheadBytes);
  const auto opened = Open(TestDek(), sealed.value(), TestAad());
  REQUIRE(opened.has_value());
  CHECK(EqualsConstantTime(opened.value().bytes(), content));
  // The bytes are those of the second implementation for the nonce that was drawn.
  const Bytes nonce = Bytes(sealed.value()).subspan(2, 24);
  CHECK(SealWithNonce(TestDek().bytes(), ByteVector{1, 1}, nonce, content, TestAad()) ==
        sealed.value());
}

TEST_CASE("Random contents, keys and contexts open again, and only with their own", "[crypto]") {
  std::mt19937_64 random(Catch::rngSeed());
  for (int round = 0; round < 300; ++round) {
    ByteVector content(random() % 700);
    for (auto& byte : content) byte = static_cast<std::uint8_t>(random());
    const Dek dek = Dek::Random().value();
    Canonical aad("lk/v1/example");
    aad.U64(random());
    const auto sealed = Seal(dek, content, aad);
    REQUIRE(sealed.has_value());
    const auto opened = Open(dek, sealed.value(), aad);
    REQUIRE(opened.has_value());
    REQUIRE(EqualsConstantTime(opened.value().bytes(), content));
    REQUIRE(OpensNot(Open(Dek::Random().value(), sealed.value(), aad)));
    Canonical other("lk/v1/example");
    other.U64(random());
    REQUIRE(OpensNot(Open(dek, sealed.value(), other)));
  }
}

TEST_CASE("Seal accepts 8 MiB and refuses one byte more", "[crypto]") {
  const ByteVector largest = Pattern(limits::kHardMaxContentBytes);
  const auto sealed = Seal(TestDek(), largest, TestAad());
  REQUIRE(sealed.has_value());
  ByteVector out(largest.size());
  const auto opened = OpenInto(TestDek(), sealed.value(), TestAad(), out);
  REQUIRE(opened.has_value());
  CHECK(out == largest);
  const auto refused = Seal(TestDek(), Pattern(limits::kHardMaxContentBytes + 1), TestAad());
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().code == Errc::kTooLarge);
  // Longer sealed bytes are not even looked at, however authentic.
  const ByteVector too_long = SealWithNonce(TestDek().bytes(), ByteVector{1, 1}, ByteVector(24, 5),
                                            Pattern(limits::kHardMaxContentBytes + 1), TestAad());
  ByteVector room(limits::kHardMaxContentBytes + 1);
  const auto not_opened = OpenInto(TestDek(), too_long, TestAad(), room);
  REQUIRE_FALSE(not_opened.has_value());
  CHECK(not_opened.error().code == Errc::kCorrupt);
}

TEST_CASE("Equal contents seal to unequal bytes", "[crypto]") {
  std::set<ByteVector> nonces;
  for (int i = 0; i < 2000; ++i) {
    const auto sealed = Seal(TestDek(), AsBytes("same"), TestAad());
    REQUIRE(sealed.has_value());
    nonces.insert(ByteVector(sealed.value().begin() + 2, sealed.value().begin() + 26));
  }
  CHECK(nonces.size() == 2000);
}

TEST_CASE("Any flipped bit of sealed content is corrupt", "[crypto]") {
  const auto size_bytes = GENERATE(as<std::size_t>{}, 0, 1, 16, 64, 200);
  CAPTURE(size_bytes);
  ByteVector sealed = Seal(TestDek(), Pattern(size_bytes), TestAad()).value();
  std::size_t opened = 0;
  for (std::size_t bit = 0; bit < sealed.size() * 8; ++bit) {
    sealed[bit / 8] = static_cast<std::uint8_t>(sealed[bit / 8] ^ 1u << bit % 8);
    opened += OpensNot(Open(TestDek(), sealed, TestAad())) ? 0 : 1;
    sealed[bit / 8] = static_cast<std::uint8_t>(sealed[bit / 8] ^ 1u << bit % 8);
  }
  CHECK(opened == 0);
  CHECK_FALSE(OpensNot(Open(TestDek(), sealed, TestAad())));
}

TEST_CASE("Sealed content that is cut or lengthened is corrupt", "[crypto]") {
  const ByteVector sealed = Seal(TestDek(), Pattern(50), TestAad()).value();
  for (std::size_t size = 0; size < sealed.size(); ++size) {
    CHECK(OpensNot(Open(TestDek(), Bytes(sealed).first(size), TestAad())));
  }
  for (const std::uint8_t more : {0, 1, 255}) {
    ByteVector longer = sealed;
    longer.push_back(more);
    CHECK(OpensNot(Open(TestDek(), longer, TestAad())));
  }
}

TEST_CASE("Of all versions and algorithms only 1 and 1 open", "[crypto]") {
  const auto position = GENERATE(as<std::size_t>{}, 0, 1);
  ByteVector sealed = Seal(TestDek(), Pattern(20), TestAad()).value();
  ByteVector wrapped = WrapKey(TestKek(), 5, ByteVector(32, 1), TestAad()).value();
  for (int value = 0; value < 256; ++value) {
    CAPTURE(position, value);
    sealed[position] = wrapped[position] = static_cast<std::uint8_t>(value);
    CHECK(Open(TestDek(), sealed, TestAad()).has_value() == (value == 1));
    CHECK(UnwrapKey(TestKek(), 5, wrapped, TestAad()).has_value() == (value == 1));
    CHECK(WrappedKekId(wrapped).has_value() == (value == 1));
  }
}

TEST_CASE("Open rejects content sealed for another version", "[crypto]") {
  const auto size_bytes = GENERATE(as<std::size_t>{}, 0, 1, 4096);
  CAPTURE(size_bytes);
  const auto sealed = Seal(TestDek(), Pattern(size_bytes), TestAad(3));
  REQUIRE(sealed.has_value());
  CHECK(Open(TestDek(), sealed.value(), TestAad(3)).has_value());
  CHECK(OpensNot(Open(TestDek(), sealed.value(), TestAad(4))));
}

TEST_CASE("OpenInto writes exactly the content and leaves no plaintext behind on failure",
          "[crypto]") {
  const ByteVector content = Pattern(100);
  ByteVector sealed = Seal(TestDek(), content, TestAad()).value();
  ByteVector out(110, 0xee);
  const auto opened = OpenInto(TestDek(), sealed, TestAad(), out);
  REQUIRE(opened.has_value());
  CHECK(opened.value() == 100);
  CHECK(std::memcmp(out.data(), content.data(), 100) == 0);
  CHECK(std::count(out.begin() + 100, out.end(), 0xee) == 10);

  ByteVector small(99, 0xee);
  const auto no_room = OpenInto(TestDek(), sealed, TestAad(), small);
  REQUIRE_FALSE(no_room.has_value());
  CHECK(no_room.error().code == Errc::kTooLarge);
  CHECK(std::count(small.begin(), small.end(), 0xee) == 99);

  sealed.back() = static_cast<std::uint8_t>(sealed.back() ^ 1);
  std::fill(out.begin(), out.end(), std::uint8_t{0xee});
  REQUIRE_FALSE(OpenInto(TestDek(), sealed, TestAad(), out).has_value());
  std::size_t plain = 0;
  for (std::size_t i = 0; i < 100; ++i)
    plain += out[i] != 0 && out[i] != 0xee && out[i] == content[i] ? 1 : 0;
  CHECK(plain == 0);
}

TEST_CASE("A wrapped key unwraps with its own key, id and context only", "[crypto]") {
  const ByteVector key = Pattern(32);
  const auto wrapped = WrapKey(TestKek(), 5, key, TestAad());
  REQUIRE(wrapped.has_value());
  CHECK(wrapped.value().size() == 78);
  CHECK(WrappedKekId(wrapped.value()).value() == 5);
  const auto back = UnwrapKey(TestKek(), 5, wrapped.value(), TestAad());
  REQUIRE(back.has_value());
  CHECK(EqualsConstantTime(back.value().bytes(), key));
  CHECK(InSecretArena(back.value().bytes().data()));
  CHECK(OpensNot(UnwrapKey(TestKek(), 6, wrapped.value(), TestAad())));
  CHECK(OpensNot(UnwrapKey(TestKek(1), 5, wrapped.value(), TestAad())));
  CHECK(OpensNot(UnwrapKey(TestKek(), 5, wrapped.value(), TestAad(9))));
}

TEST_CASE("Any flipped bit of a wrapped key is corrupt, its kek_id apart", "[crypto]") {
  const ByteVector good = WrapKey(TestKek(), 5, Pattern(32), TestAad()).value();
  std::size_t opened = 0;
  for (std::size_t bit = 0; bit < good.size() * 8; ++bit) {
    ByteVector wrapped = good;
    wrapped[bit / 8] = static_cast<std::uint8_t>(wrapped[bit / 8] ^ 1u << bit % 8);
    opened += OpensNot(UnwrapKey(TestKek(), 5, wrapped, TestAad())) ? 0 : 1;
  }
  CHECK(opened == 0);
  for (const std::size_t size : {std::size_t{0}, std::size_t{5}, std::size_t{77}}) {
    CHECK(OpensNot(UnwrapKey(TestKek(), 5, Bytes(good).first(size), TestAad())));
  }
  ByteVector longer = good;
  longer.push_back(0);
  CHECK(OpensNot(UnwrapKey(TestKek(), 5, longer, TestAad())));
}

TEST_CASE("Keys have 32 bytes and lie in the arena", "[crypto]") {
  for (const std::size_t size : {0, 16, 31, 33, 64}) {
    const auto made = Kek::FromBytes(ByteVector(size, 1));
    REQUIRE_FALSE(made.has_value());
    CHECK(made.error().code == Errc::kInvalidArgument);
    const auto wrapped = WrapKey(TestKek(), 1, ByteVector(size, 1), TestAad());
    REQUIRE_FALSE(wrapped.has_value());
    CHECK(wrapped.error().code == Errc::kInvalidArgument);
    auto buffer = SecretBuffer::OfSize(size);
    REQUIRE(buffer.has_value());
    CHECK_FALSE(Kek::FromBuffer(std::move(buffer).value()).has_value());
  }
  const auto random = Dek::Random();
  REQUIRE(random.has_value());
  CHECK(InSecretArena(random.value().bytes().data()));
  CHECK_FALSE(EqualsConstantTime(random.value().bytes(), Dek::Random().value().bytes()));
}

TEST_CASE("The check value tells keys, stores and ids apart", "[crypto]") {
  const StoreId store{1};
  const auto value = KeyCheckValue(TestKek(), store, 1);
  CHECK(value == KeyCheckValue(TestKek(), store, 1));
  CHECK(value != KeyCheckValue(TestKek(8), store, 1));
  CHECK(value != KeyCheckValue(TestKek(), StoreId{2}, 1));
  CHECK(value != KeyCheckValue(TestKek(), store, 2));
}

TEST_CASE("The checksum shows equality within one secret only", "[crypto]") {
  const SumKey key = SumKey::FromBytes(ByteVector(32, 3)).value();
  const Hash sum = ContentChecksum(key, 42, AsBytes("content"));
  CHECK(sum == ContentChecksum(key, 42, AsBytes("content")));
  CHECK(sum != ContentChecksum(key, 43, AsBytes("content")));
  CHECK(sum != ContentChecksum(key, 42, AsBytes("contents")));
  CHECK(sum !=
        ContentChecksum(SumKey::FromBytes(ByteVector(32, 4)).value(), 42, AsBytes("content")));
}

TEST_CASE("A chain hash depends on every part", "[crypto]") {
  const AuditKey key = AuditKey::FromBytes(ByteVector(32, 3)).value();
  const Hash hash = ChainHash(key, Hash{1}, "store", 5, AsBytes("event"));
  CHECK(hash == ChainHash(key, Hash{1}, "store", 5, AsBytes("event")));
  CHECK(hash != ChainHash(AuditKey::FromBytes(ByteVector(32, 4)).value(), Hash{1}, "store", 5,
                          AsBytes("event")));
  CHECK(hash != ChainHash(key, Hash{2}, "store", 5, AsBytes("event")));
  CHECK(hash != ChainHash(key, Hash{1}, "access:a", 5, AsBytes("event")));
  CHECK(hash != ChainHash(key, Hash{1}, "store", 6, AsBytes("event")));
  CHECK(hash != ChainHash(key, Hash{1}, "store", 5, AsBytes("events")));
}

TEST_CASE("Constant-time comparison agrees with equality", "[crypto]") {
  CHECK(EqualsConstantTime({}, {}));
  CHECK(EqualsConstantTime(AsBytes("abc"), AsBytes("abc")));
  CHECK_FALSE(EqualsConstantTime(AsBytes("abc"), AsBytes("abd")));
  CHECK_FALSE(EqualsConstantTime(AsBytes("abc"), AsBytes("ab")));
}

TEST_CASE("Random ids are never 0 and do not repeat", "[crypto]") {
  std::set<std::int64_t> ids;
  bool negative = false;
  for (int i = 0; i < 10000; ++i) {
    const std::int64_t id = RandomId();
    negative = negative || id < 0;
    ids.insert(id);
  }
  CHECK(ids.size() == 10000);
  CHECK_FALSE(ids.contains(0));
  CHECK(negative);
}

TEST_CASE("State of the ACL seals under its own key", "[crypto]") {
  const StateKey key = StateKey::FromBytes(ByteVector(32, 7)).value();
  const auto sealed = Seal(key, AsBytes("state"), TestAad());
  REQUIRE(sealed.has_value());
  CHECK(AsText(Open(key, sealed.value(), TestAad()).value().bytes()) == "state");
  CHECK(OpensNot(Open(StateKey::FromBytes(ByteVector(32, 8)).value(), sealed.value(), TestAad())));
}

TEST_CASE("base64url gives keys back and accepts nothing but its own text", "[crypto]") {
  for (std::size_t size = 0; size < 50; ++size) {
    const auto text = ToBase64Url(Pattern(size));
    REQUIRE(text.has_value());
    const auto back = FromBase64Url(text.value().bytes());
    REQUIRE(back.has_value());
    CHECK(EqualsConstantTime(back.value().bytes(), Pattern(size)));
  }
  CHECK(AsText(ToBase64Url(ByteVector{0xfb, 0xff, 0xfe, 0}).value().bytes()) == "-__-AA");
  for (const char* bad :
       {"A", "AA=", "AA==", "AB", "A+", "A/", "AA ", " AA", "AA\n", "A.AA", "\xc3\xa4"}) {
    CAPTURE(bad);
    const auto refused = FromBase64Url(AsBytes(bad));
    REQUIRE_FALSE(refused.has_value());
    CHECK(refused.error().code == Errc::kInvalidArgument);
  }
}

TEST_CASE("The typing check sees every changed character of a key", "[crypto]") {
  Canonical head("lk/v1/example");
  head.RawHead(3);
  const auto check = TypingCheck(head, AsBytes("abc"));
  CHECK(check == TypingCheck(head, AsBytes("abc")));
  CHECK(check != TypingCheck(head, AsBytes("abd")));
  Canonical other("lk/v1/example2");
  other.RawHead(3);
  CHECK(check != TypingCheck(other, AsBytes("abc")));
}

}  // namespace
}  // namespace latchkey::crypto
