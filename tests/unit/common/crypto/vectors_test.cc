// The formats against bytes made by another implementation (tests/vectors/generate.py). A change
// here is a change of format.
#include <sodium.h>

#include <catch2/catch.hpp>

#include "common/crypto/crypto.h"
#include "tests/support/vectors.h"

namespace latchkey::crypto {
namespace {

Canonical Aad(const tests::VectorRecord& record) {
  Canonical aad(record.Text("label"));
  aad.Raw(record.Hex("bound"));
  return aad;
}

TEST_CASE("Envelopes open to the content of the golden vectors", "[crypto]") {
  const auto records = tests::LoadVectors("envelopes.txt");
  CHECK(records.size() >= 60);
  for (const auto& record : records) {
    CAPTURE(record.name());
    const Dek dek = Dek::FromBytes(record.Hex("dek")).value();
    const ByteVector sealed = record.Hex("sealed");
    const auto opened = Open(dek, sealed, Aad(record));
    REQUIRE(opened.has_value());
    CHECK(HexLower(opened.value().bytes()) == HexLower(record.Hex("content")));
    CHECK(HexLower(Bytes(sealed).subspan(2, 24)) == HexLower(record.Hex("nonce")));
  }
  tests::CheckAllRead(records);
}

TEST_CASE("Any flipped bit of the smaller golden envelopes is corrupt", "[crypto]") {
  for (const auto& record : tests::LoadVectors("envelopes.txt")) {
    ByteVector sealed = record.Hex("sealed");
    if (sealed.size() > 110) continue;
    CAPTURE(record.name());
    const Dek dek = Dek::FromBytes(record.Hex("dek")).value();
    const Canonical aad = Aad(record);
    std::size_t corrupt = 0;
    for (std::size_t bit = 0; bit < sealed.size() * 8; ++bit) {
      const auto mask = static_cast<std::uint8_t>(1u << bit % 8);
      sealed[bit / 8] ^= mask;
      const auto opened = Open(dek, sealed, aad);
      corrupt += !opened.has_value() && opened.error().code == Errc::kCorrupt ? 1 : 0;
      sealed[bit / 8] ^= mask;
    }
    CHECK(corrupt == sealed.size() * 8);
  }
}

TEST_CASE("Wrapped keys unwrap to the keys of the golden vectors", "[crypto]") {
  const auto records = tests::LoadVectors("wrapped.txt");
  for (const auto& record : records) {
    CAPTURE(record.name());
    const Kek kek = Kek::FromBytes(record.Hex("kek")).value();
    const auto kek_id = static_cast<std::uint32_t>(record.Unsigned("kek_id"));
    const ByteVector wrapped = record.Hex("wrapped");
    CHECK(WrappedKekId(wrapped).value() == kek_id);
    const auto key = UnwrapKey(kek, kek_id, wrapped, Aad(record));
    REQUIRE(key.has_value());
    CHECK(HexLower(key.value().bytes()) == HexLower(record.Hex("key")));
    CHECK(HexLower(Bytes(wrapped).subspan(6, 24)) == HexLower(record.Hex("nonce")));
  }
  tests::CheckAllRead(records);
}

TEST_CASE("Key check values equal the golden vectors", "[crypto]") {
  const auto records = tests::LoadVectors("kcv.txt");
  for (const auto& record : records) {
    CAPTURE(record.name());
    const auto value =
        KeyCheckValue(Kek::FromBytes(record.Hex("kek")).value(), record.Array<16>("store_id"),
                      static_cast<std::uint32_t>(record.Unsigned("kek_id")));
    CHECK(HexLower(value) == HexLower(record.Hex("value")));
  }
  tests::CheckAllRead(records);
}

TEST_CASE("MACs equal the golden vectors", "[crypto]") {
  const auto records = tests::LoadVectors("mac.txt");
  for (const auto& record : records) {
    CAPTURE(record.name());
    Canonical message = Aad(record);
    message.U64(record.Unsigned("number"));
    CHECK(HexLower(Mac(MacKey::FromBytes(record.Hex("key")).value(), message)) ==
          HexLower(record.Hex("value")));
    CHECK(HexLower(Mac(SessionKey::FromBytes(record.Hex("key")).value(), message)) ==
          HexLower(record.Hex("value")));
  }
  tests::CheckAllRead(records);
}

TEST_CASE("Checksums equal the golden vectors", "[crypto]") {
  const auto records = tests::LoadVectors("checksum.txt");
  for (const auto& record : records) {
    CAPTURE(record.name());
    const auto value = ContentChecksum(SumKey::FromBytes(record.Hex("key")).value(),
                                       record.Signed("secret_id"), record.Hex("content"));
    CHECK(HexLower(value) == HexLower(record.Hex("value")));
  }
  tests::CheckAllRead(records);
}

TEST_CASE("Chain hashes equal the golden vectors", "[crypto]") {
  const auto records = tests::LoadVectors("chain.txt");
  for (const auto& record : records) {
    CAPTURE(record.name());
    const auto value =
        ChainHash(AuditKey::FromBytes(record.Hex("key")).value(), record.Array<32>("previous"),
                  record.Text("chain_id"), record.Unsigned("seq"), record.Hex("event"));
    CHECK(HexLower(value) == HexLower(record.Hex("value")));
  }
  tests::CheckAllRead(records);
}

// The library itself against the published vector of draft-irtf-cfrg-xchacha-03, A.3.1: both
// implementations of this repository could otherwise share a misreading.
TEST_CASE("The cipher is XChaCha20-Poly1305 of the draft", "[crypto]") {
  ByteVector key(32), nonce(24), aad, sealed(114 + 16);
  for (std::size_t i = 0; i < 32; ++i) key[i] = static_cast<std::uint8_t>(0x80 + i);
  for (std::size_t i = 0; i < 24; ++i) nonce[i] = static_cast<std::uint8_t>(0x40 + i);
  REQUIRE(ParseHex("50515253c0c1c2c3c4c5c6c7", &aad));
  const std::string_view text =
      "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
      "sunscreen would be it.";
  REQUIRE(text.size() == 114);
  unsigned long long written = 0;
  crypto_aead_xchacha20poly1305_ietf_encrypt(sealed.data(), &written, AsBytes(text).data(),
                                             text.size(), aad.data(), aad.size(), nullptr,
                                             nonce.data(), key.data());
  CHECK(HexLower(Bytes(sealed).first(16)) == "bd6d179d3e83d43b9576579493c0e939");
  CHECK(HexLower(Bytes(sealed).last(16)) == "c0875924c1c7987947deafd8780acf49");
}

}  // namespace
}  // namespace latchkey::crypto
