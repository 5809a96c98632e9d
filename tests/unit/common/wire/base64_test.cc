#include "common/wire/base64.h"

#include <catch2/catch.hpp>
#include <random>

#include "common/wire/base64_kernels.h"

using namespace latchkey;
using namespace latchkey::wire;

namespace {

std::string Encode(std::string_view source) {
  std::string out(Base64EncodedSize(source.size()), '?');
  Base64Encode(AsBytes(source), out.data());
  return out;
}

std::string ReferenceEncode(std::string_view source) {
  static constexpr char kAlphabet[] =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (std::size_t i = 0; i < source.size(); i += 3) {
    unsigned word = 0;
    const std::size_t n = std::min<std::size_t>(3, source.size() - i);
    for (std::size_t k = 0; k < 3; ++k)
      word = word << 8 | (k < n ? static_cast<unsigned char>(source[i + k]) : 0u);
    for (std::size_t k = 0; k < 4; ++k) out += k <= n ? kAlphabet[word >> (18 - 6 * k) & 63] : '=';
  }
  return out;
}

std::optional<std::string> Decode(std::string_view text) {
  auto decoded = Base64Decode(text);
  if (!decoded) {
    CHECK(decoded.error().code == Errc::kInvalidArgument);
    return std::nullopt;
  }
  return std::string(AsText(decoded->bytes()));
}

std::string RandomText(std::mt19937_64& random, std::size_t size) {
  std::string text(size, '\0');
  for (char& c : text) c = static_cast<char>(random());
  return text;
}

}  // namespace

TEST_CASE("base64 gives the vectors of RFC 4648", "[wire]") {
  const std::vector<std::pair<std::string, std::string>> vectors = {{"", ""},
                                                                    {"f", "Zg=="},
                                                                    {"fo", "Zm8="},
                                                                    {"foo", "Zm9v"},
                                                                    {"foob", "Zm9vYg=="},
                                                                    {"fooba", "Zm9vYmE="},
                                                                    {"foobar", "Zm9vYmFy"}};
  for (const auto& [plain, coded] : vectors) {
    CHECK(Encode(plain) == coded);
    CHECK(Decode(coded) == plain);
  }
}

TEST_CASE("base64 of every length agrees with a table-driven encoder and comes back", "[wire]") {
  std::mt19937_64 random(Catch::rngSeed());
  for (std::size_t size = 0; size < 300; ++size) {
    CAPTURE(size);
    const std::string plain = RandomText(random, size);
    const std::string coded = Encode(plain);
    REQUIRE(coded == ReferenceEncode(plain));
    REQUIRE(Decode(coded) == plain);
    const std::string unpadded = coded.substr(0, coded.find('='));
    REQUIRE(Decode(unpadded) == plain);
  }
}

TEST_CASE("the portable kernel writes the same characters as the one for SSSE3", "[wire]") {
  std::mt19937_64 random(Catch::rngSeed());
  const std::string plain = RandomText(random, 6 * 1000 + 2);
  std::string coded(8 * 1000, '?');
  LatchkeyBase64EncodeSwar(AsBytes(plain).data(), coded.data(), 1000);
  CHECK(coded == ReferenceEncode(plain.substr(0, 6000)));
}

TEST_CASE("decoding knows exactly the 64 characters of the standard alphabet", "[wire]") {
  const std::string alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (int c = 0; c < 256; ++c) {
    CAPTURE(c);
    const bool member = c != 0 && alphabet.find(static_cast<char>(c)) != std::string::npos;
    for (std::size_t at = 0; at < 12; ++at) {
      std::string text = "QUJDREVGR0hJ";
      text[at] = static_cast<char>(c);
      if (c == '=' && at == 11) continue;  // padding of its own kind, below
      REQUIRE(Decode(text).has_value() == member);
    }
  }
}

TEST_CASE("padding is optional, and correct when it is there", "[wire]") {
  CHECK(Decode("MTIzNDU=") == "12345");
  CHECK(Decode("MTIzNDU") == "12345");
  CHECK(Decode("MTMzNw==") == "1337");
  CHECK(Decode("MTMzNw") == "1337");
  CHECK(Decode("").value() == "");
  CHECK(Decode("Zh==") == "f");  // bits left over are ignored
  for (const char* bad : {"Z", "ZZZZZ", "=", "==", "Zg=", "Zg===", "Zm9v=", "Zm9v==", "Z===",
                          "Zg==Zg==", "Zm8=\n", "Zm 9v", "Zm-_", "Zg\n=="}) {
    CAPTURE(bad);
    CHECK_FALSE(Decode(bad).has_value());
  }
}

TEST_CASE("a refused text leaves nothing decoded behind", "[wire]") {
  std::string out(9, 'x');
  const auto result =
      Base64DecodeInto("QUJDREVGR0h*", {reinterpret_cast<std::uint8_t*>(out.data()), out.size()});
  REQUIRE_FALSE(result.has_value());
  CHECK(out == std::string(9, '\0'));
}
