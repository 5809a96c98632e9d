#include "common/crypto/canonical.h"

#include <catch2/catch.hpp>
#include <map>
#include <random>
#include <variant>

#include "tests/support/vectors.h"

namespace latchkey::crypto {
namespace {

using Field = std::variant<std::monostate, std::uint64_t, std::string>;
using Tuple = std::vector<Field>;

Canonical Encode(const std::string& label, const Tuple& fields) {
  Canonical out(label);
  for (const Field& field : fields) {
    if (std::holds_alternative<std::monostate>(field)) out.Null();
    if (const auto* number = std::get_if<std::uint64_t>(&field)) out.U64(*number);
    if (const auto* text = std::get_if<std::string>(&field)) out.Text(*text);
  }
  return out;
}

// The way back, written from the format alone; false for anything that is no encoding.
bool Decode(Bytes in, std::string* label, Tuple* fields) {
  Tuple all;
  while (!in.empty()) {
    if (in.size() < 5) return false;
    const std::uint8_t tag = in[0];
    const std::uint32_t length = GetU32(in.data() + 1);
    in = in.subspan(5);
    if (length > in.size()) return false;
    const Bytes value = in.first(length);
    in = in.subspan(length);
    if (tag == 0 && length == 0) {
      all.emplace_back(std::monostate{});
    } else if (tag == 1 && length == 8) {
      all.emplace_back(GetU64(value.data()));
    } else if (tag == 2) {
      all.emplace_back(std::string(AsText(value)));
    } else {
      return false;
    }
  }
  if (all.empty() || !std::holds_alternative<std::string>(all.front())) return false;
  *label = std::get<std::string>(all.front());
  fields->assign(all.begin() + 1, all.end());
  return true;
}

TEST_CASE("Canonical encodings equal the golden vectors", "[crypto]") {
  const auto records = tests::LoadVectors("canonical.txt");
  for (const auto& record : records) {
    CAPTURE(record.name());
    Canonical encoded(record.Text("label"));
    for (std::uint64_t i = 0; i < record.Unsigned("fields"); ++i) {
      const std::string key = "field" + std::to_string(i);
      if (record.IsNull(key)) {
        encoded.Null();
      } else if (record.IsNumber(key)) {
        encoded.U64(record.Unsigned(key));
      } else {
        encoded.Raw(record.Hex(key));
      }
    }
    CHECK(HexLower(encoded.bytes()) == HexLower(record.Hex("encoded")));
  }
  tests::CheckAllRead(records);
}

// Injectivity by the strongest witness there is: the tuple can be computed back from the bytes.
TEST_CASE("Every tuple of fields can be read back from its canonical encoding", "[crypto]") {
  std::mt19937_64 random(Catch::rngSeed());
  const auto text = [&] {
    // Short strings over few bytes, among them every byte that could pass for a tag or a length.
    std::string out(random() % 6, '\0');
    for (char& c : out) c = "\0\1\2\5\10|a/"[random() % 8];
    return out;
  };
  for (int round = 0; round < 20000; ++round) {
    const std::string label = text();
    Tuple fields;
    for (std::size_t n = random() % 5; n > 0; --n) {
      switch (random() % 3) {
        case 0:
          fields.emplace_back(std::monostate{});
          break;
        case 1:
          fields.emplace_back(std::uint64_t{random() >> (random() % 64)});
          break;
        default:
          fields.emplace_back(text());
      }
    }
    std::string label_back;
    Tuple back;
    REQUIRE(Decode(Encode(label, fields).bytes(), &label_back, &back));
    REQUIRE(label_back == label);
    REQUIRE(back == fields);
  }
}

TEST_CASE("Small tuples never share a canonical encoding", "[crypto]") {
  const std::vector<Field> values = {std::monostate{},     std::uint64_t{0},  std::uint64_t{1},
                                     std::string(),        std::string("a"),  std::string("b"),
                                     std::string("ab"),    std::string("ba"), std::string(1, '\0'),
                                     std::string(8, '\0'), std::string("|"),  std::string("a|b")};
  std::vector<Tuple> tuples = {{}};
  for (const Field& a : values) {
    tuples.push_back({a});
    for (const Field& b : values) {
      tuples.push_back({a, b});
      for (const Field& c : values) tuples.push_back({a, b, c});
    }
  }
  std::map<std::string, std::size_t> seen;
  for (const std::string label : {"", "a", "lk/v1/x"}) {
    for (std::size_t i = 0; i < tuples.size(); ++i) {
      const Canonical encoded = Encode(label, tuples[i]);
      REQUIRE(seen.emplace(std::string(AsText(encoded.bytes())), i).second);
    }
  }
  CHECK(seen.size() == 3 * tuples.size());
}

TEST_CASE("The short forms encode what they stand for", "[crypto]") {
  const auto hex = [](const Canonical& c) { return HexLower(c.bytes()); };
  CHECK(hex(Canonical("l").I64(-1)) == hex(Canonical("l").U64(UINT64_MAX)));
  CHECK(hex(Canonical("l").Bool(true)) == hex(Canonical("l").U64(1)));
  CHECK(hex(Canonical("l").Bool(false)) == hex(Canonical("l").U64(0)));
  CHECK(hex(Canonical("l").OptionalText(std::nullopt)) == hex(Canonical("l").Null()));
  CHECK(hex(Canonical("l").OptionalText("")) == hex(Canonical("l").Text("")));
  CHECK(hex(Canonical("l").OptionalText("")) != hex(Canonical("l").Null()));
  CHECK(hex(Canonical("l").OptionalI64(std::nullopt)) == hex(Canonical("l").Null()));
  CHECK(hex(Canonical("l").OptionalI64(0)) == hex(Canonical("l").U64(0)));
  Canonical streamed("l");
  streamed.RawHead(2);
  CHECK(hex(streamed) + "6162" == hex(Canonical("l").Text("ab")));
}

}  // namespace
}  // namespace latchkey::crypto
