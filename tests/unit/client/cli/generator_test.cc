#include "client/cli/generator.h"

#include <array>
#include <catch2/catch.hpp>
#include <map>
#include <set>

#include "common/wire/base64.h"

namespace latchkey::cli {
namespace {

std::string Drawn(const std::string& spec) {
  const auto parsed = ParseGeneratorSpec(spec);
  REQUIRE(parsed.has_value());
  const auto content = Generate(*parsed);
  REQUIRE(content.has_value());
  return std::string(AsText(content->bytes()));
}

}  // namespace

TEST_CASE("A generator gives exactly the characters and the length that its spec names", "[cli]") {
  const auto [spec, size, alphabet] = GENERATE(table<std::string, std::size_t, std::string>({
      {"alnum:32", 32, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"},
      {"hex:64", 64, "0123456789abcdef"},
      {"hex:1", 1, "0123456789abcdef"},
      {"charset:ab:7", 7, "ab"},
      {"charset:a:b:9", 9, "a:b"},
      {"charset:::b:9", 9, "::b"},
      {"charset:!\"#$%&/()=?:300", 300, "!\"#$%&/()=?"},
      {"base64:32", 44, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="},
      {"base64:1048576", 1398104,
       "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="},
  }));
  CAPTURE(spec);
  if (alphabet == "::b") {
    CHECK_FALSE(ParseGeneratorSpec(spec).has_value());  // a colon twice
    return;
  }
  const std::string text = Drawn(spec);
  CHECK(text.size() == size);
  CHECK(text.find_first_not_of(alphabet) == std::string::npos);
}

TEST_CASE("A generator spec that is not one is refused", "[cli]") {
  const auto spec = GENERATE(values<std::string>({"",
                                                  "alnum",
                                                  "alnum:",
                                                  "alnum:0",
                                                  "alnum:-1",
                                                  "alnum:x",
                                                  "alnum:3x",
                                                  "alnum: 3",
                                                  "hex:3:4",
                                                  "uuid:1",
                                                  "base64:",
                                                  "charset:ab",
                                                  "charset::5",
                                                  "charset:a:5",
                                                  "charset:aa:5",
                                                  "charset:a\nb:5",
                                                  "charset:a\xc3\xa9:5",
                                                  "alnum:1048577",
                                                  "alnum:99999999999999999999999",
                                                  "ALNUM:3",
                                                  "password"}));
  CAPTURE(spec);
  CHECK_FALSE(ParseGeneratorSpec(spec).has_value());
}

TEST_CASE("A UUID is of version 4 and of the RFC's variant, and no two are equal", "[cli]") {
  std::set<std::string> seen;
  for (int i = 0; i < 1000; ++i) {
    const std::string uuid = Drawn("uuid");
    REQUIRE(uuid.size() == 36);
    CHECK(uuid.find_first_not_of("0123456789abcdef-") == std::string::npos);
    for (const std::size_t dash : {8, 13, 18, 23}) CHECK(uuid[dash] == '-');
    CHECK(uuid[14] == '4');
    CHECK(std::string("89ab").find(uuid[19]) != std::string::npos);
    CHECK(seen.insert(uuid).second);
  }
}

// Chi-square over all characters of an alphabet whose size does not divide 256. The naive remainder favours 8 of 62
// characters by a quarter, which would give about 1000 here; 62 fair ones stay below 180 but for once in 10^12 runs.
TEST_CASE("Every character is equally likely", "[cli]") {
  const auto [spec, alphabet_size] = GENERATE(table<std::string, std::size_t>(
      {{"alnum:200000", 62}, {"charset:abc:200000", 3}, {"hex:200000", 16}}));
  CAPTURE(spec);
  std::map<char, double> counts;
  for (const char c : Drawn(spec)) counts[c] += 1;
  REQUIRE(counts.size() == alphabet_size);
  const double expected = 200000.0 / static_cast<double>(alphabet_size);
  double chi_square = 0;
  for (const auto& [c, count] : counts)
    chi_square += (count - expected) * (count - expected) / expected;
  CHECK(chi_square < 180);
}

TEST_CASE("Entropy is counted by what was really drawn", "[cli]") {
  CHECK(ParseGeneratorSpec("hex:64")->Bits() == Approx(256));
  CHECK(ParseGeneratorSpec("base64:32")->Bits() == Approx(256));
  CHECK(ParseGeneratorSpec("uuid")->Bits() == Approx(122));
  CHECK(ParseGeneratorSpec("charset:ab:10")->Bits() == Approx(10));
}

}  // namespace latchkey::cli
