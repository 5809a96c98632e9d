#include "common/wire/json_gate.h"

#include <catch2/catch.hpp>
#include <random>

using namespace latchkey;
using namespace latchkey::wire;

static_assert(!std::is_copy_constructible_v<JsonValue>);

namespace {

bool Accepted(std::string_view text) {
  const auto parsed = ParseJson(text);
  if (!parsed) {
    const Errc code = parsed.error().code;
    CHECK((code == Errc::kInvalidArgument || code == Errc::kTooLarge));
    CHECK(parsed.error().message.find("hunter2") == std::string::npos);
  }
  return parsed.has_value();
}

std::string Nested(std::size_t depth) {
  return std::string(depth, '[') + std::string(depth, ']');
}

JsonValue Parse(std::string_view text) {
  auto parsed = ParseJson(text);
  REQUIRE(parsed.has_value());
  return std::move(*parsed);
}

}  // namespace

TEST_CASE("the gate stops at each limit and not one step before", "[wire]") {
  CHECK(Accepted(Nested(limits::kMaxJsonDepth)));
  CHECK_FALSE(Accepted(Nested(limits::kMaxJsonDepth + 1)));
  CHECK_FALSE(Accepted(Nested(100'000)));
  std::string list = "[0";
  for (std::size_t i = 0; i + 2 < limits::kMaxJsonNodes; ++i) list += ",0";
  CHECK(Accepted(list + "]"));
  CHECK_FALSE(Accepted(list + ",0]"));
  CHECK(Accepted("{\"" + std::string(limits::kMaxJsonKeyBytes, 'k') + "\":1}"));
  CHECK_FALSE(Accepted("{\"" + std::string(limits::kMaxJsonKeyBytes + 1, 'k') + "\":1}"));
}

TEST_CASE("too many values are told apart from a document that is none", "[wire]") {
  const auto code = [](std::string_view text) {
    return ParseJson(text, {.max_nodes = 3}).error().code;
  };
  CHECK(ParseJson("[1,2]", {.max_nodes = 3}).has_value());
  CHECK(code("[1,2,3]") == Errc::kTooLarge);
  CHECK(code("[1,2,") == Errc::kInvalidArgument);
}

TEST_CASE("numbers have a length, texts of digits have not", "[wire]") {
  const std::string most(limits::kMaxJsonNumberBytes, '1');
  CHECK(Accepted("[0." + most.substr(2) + "]"));
  CHECK_FALSE(Accepted("[0." + most + "]"));
  CHECK_FALSE(Accepted("[0." + std::string(1'000'000, '1') + "]"));
  CHECK_FALSE(Accepted(R"({"a":"\\","b":0.)" + most + "}"));
  // Inside a text, behind escaped quotes too.
  CHECK(Accepted("[\"" + most + most + "\"]"));
  CHECK(Accepted(R"(["\"\\\")" + most + most + "\"]"));
  CHECK(Accepted(R"({")" + most + most + R"(":0})"));
  CHECK_FALSE(Accepted("\"" + most + most));
}

TEST_CASE("the gate refuses what two readers might take differently", "[wire]") {
  CHECK_FALSE(Accepted(R"({"a":1,"a":2})"));
  CHECK_FALSE(Accepted(R"({"x":{"a":1,"\u0061":2}})"));
  CHECK(Accepted(R"({"x":{"a":1},"y":{"a":2}})"));
  CHECK_FALSE(Accepted("{} {}"));
  CHECK_FALSE(Accepted("{}x"));
  CHECK(Accepted(" {} \r\n\t"));
  CHECK_FALSE(Accepted(std::string_view("{}\0", 3)));
  CHECK_FALSE(Accepted(std::string_view("{}\0{\"a\":1}", 10)));
  CHECK_FALSE(Accepted(std::string_view("{\"a\":\"x\0y\"}", 11)));
  CHECK_FALSE(Accepted(R"({"a":"x\u0000y"})"));
  CHECK_FALSE(Accepted(R"({"x\u0000y":1})"));
  CHECK_FALSE(Accepted("{\"a\":\"hunter2\xff\"}"));
  CHECK_FALSE(Accepted("{\"a\":\"\xc0\x80\"}"));
  CHECK_FALSE(Accepted("{\"a\":\"\xed\xa0\x80\"}"));
  CHECK_FALSE(Accepted(R"({"a":"\ud800"})"));
  CHECK_FALSE(Accepted(R"({"a":"\udc00\ud800"})"));
  CHECK(Accepted(R"({"a":"\ud83d\ude00"})"));
  CHECK(Accepted("\xef\xbb\xbf{\"a\":1}"));
  CHECK_FALSE(Accepted("\xef\xbb\xbf"));
  for (const char* bad : {"",
                          " ",
                          "{",
                          "[1,]",
                          "{\"a\":}",
                          "{a:1}",
                          "{'a':1}",
                          "nul",
                          "NaN",
                          "01",
                          "+1",
                          "1.",
                          ".5",
                          "1e999",
                          "\"a",
                          "[1 2]",
                          "/* */{}",
                          "{\"a\":1,}",
                          "\"tab\tinside\"",
                          "]"}) {
    CAPTURE(bad);
    CHECK_FALSE(Accepted(bad));
  }
}

TEST_CASE("texts are coerced from scalars and from nothing else", "[wire]") {
  const JsonValue v =
      Parse(R"({"s":"x","e":"","i":12,"n":-3,"f":1.50,"t":true,"z":null,"a":[],"o":{}})");
  CHECK(v.OptionalText("s").value() == "x");
  CHECK(v.OptionalText("e").value() == "");
  CHECK(v.OptionalText("i").value() == "12");
  CHECK(v.OptionalText("n").value() == "-3");
  CHECK(v.OptionalText("f").value() == "1.50");
  CHECK(v.OptionalText("t").value() == "true");
  CHECK(v.OptionalText("z").value() == std::nullopt);
  CHECK(v.OptionalText("absent").value() == std::nullopt);
  CHECK_FALSE(v.OptionalText("a").has_value());
  CHECK_FALSE(v.OptionalText("o").has_value());
}

TEST_CASE("integers are coerced as old clients were used to", "[wire]") {
  const JsonValue v = Parse(
      R"({"i":7,"s":"12","m":"-6917","e":"","f":3.99,"g":-3.99,"x":1e3,"max":9223372036854775807,"over":9223372036854775808,
          "min":-9223372036854775808,"under":-9223372036854775809,"huge":1e30,"b":true,"w":"12x","h":"1.5","a":[1],"z":null})");
  CHECK(v.OptionalInt("i").value() == 7);
  CHECK(v.OptionalInt("s").value() == 12);
  CHECK(v.OptionalInt("m").value() == -6917);
  CHECK(v.OptionalInt("e").value() == 0);
  CHECK(v.OptionalInt("f").value() == 3);
  CHECK(v.OptionalInt("g").value() == -3);
  CHECK(v.OptionalInt("x").value() == 1000);
  CHECK(v.OptionalInt("max").value() == INT64_MAX);
  CHECK(v.OptionalInt("min").value() == INT64_MIN);
  CHECK(v.OptionalInt("z").value() == std::nullopt);
  for (const char* key : {"over", "huge", "b", "w", "h", "a"}) {
    CAPTURE(key);
    CHECK_FALSE(v.OptionalInt(key).has_value());
  }
}

TEST_CASE("lists and maps are never made from scalars", "[wire]") {
  const JsonValue v = Parse(
      R"({"l":["a",1,true],"n":["a",null],"s":"","t":"x","m":{"mode":"0400","k":1},"mn":{"a":"x","b":null},"deep":[["x"]],"md":{"a":{}}})");
  CHECK(v.OptionalTexts("l").value() == std::vector<std::string>{"a", "1", "true"});
  for (const char* key : {"n", "s", "t", "m", "deep"})
    CHECK_FALSE(v.OptionalTexts(key).has_value());
  CHECK(v.OptionalMap("m", JsonValue::NullValues::kRefuse).value() ==
        Metadata{{"mode", "0400"}, {"k", "1"}});
  CHECK_FALSE(v.OptionalMap("mn", JsonValue::NullValues::kRefuse).has_value());
  CHECK(v.OptionalMap("mn", JsonValue::NullValues::kDrop).value() == Metadata{{"a", "x"}});
  for (const char* key : {"s", "t", "l", "md"})
    CHECK_FALSE(v.OptionalMap(key, JsonValue::NullValues::kRefuse).has_value());
}

TEST_CASE("booleans are coerced from numbers and their names", "[wire]") {
  const JsonValue v = Parse(
      R"({"t":true,"f":false,"one":1,"zero":0,"s":"true","u":"false","e":"","x":"yes","l":[],"z":null})");
  CHECK(v.OptionalBool("t").value() == true);
  CHECK(v.OptionalBool("f").value() == false);
  CHECK(v.OptionalBool("one").value() == true);
  CHECK(v.OptionalBool("zero").value() == false);
  CHECK(v.OptionalBool("s").value() == true);
  CHECK(v.OptionalBool("u").value() == false);
  CHECK(v.OptionalBool("e").value() == false);
  CHECK(v.OptionalBool("z").value() == std::nullopt);
  CHECK_FALSE(v.OptionalBool("x").has_value());
  CHECK_FALSE(v.OptionalBool("l").has_value());
}

TEST_CASE("random bytes and mangled documents never break the gate", "[wire]") {
  std::mt19937_64 random(Catch::rngSeed());
  const std::string seed =
      R"({"name":"a","content":"MTIz","metadata":{"mode":"0400"},"groups":["x","y"],"expiry":12.5})";
  for (int round = 0; round < 5000; ++round) {
    std::string text = seed;
    for (int edits = 0; edits < 3; ++edits)
      text[random() % text.size()] = static_cast<char>(random());
    const auto parsed = ParseJson(text);
    if (parsed && parsed->is_object()) (void)parsed->OptionalTexts("groups");
  }
  SUCCEED("no crash and no sanitizer report");
}
