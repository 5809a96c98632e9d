#include "common/wire/json_out.h"

#include <catch2/catch.hpp>

#include "common/wire/json_gate.h"

using namespace latchkey;
using namespace latchkey::wire;

TEST_CASE("written JSON has its commas, brackets and escapes where they belong", "[wire]") {
  std::string text;
  JsonOut out(&text);
  out.BeginObject();
  out.Text("name", "a\"b\\c\n\x01\x7f")
      .Int("n", INT64_MIN)
      .Unsigned("u", UINT64_MAX)
      .Bool("b", true)
      .Null("z");
  out.Key("list")
      .BeginArray()
      .Text("x")
      .Int(1)
      .BeginObject()
      .EndObject()
      .BeginArray()
      .EndArray()
      .EndArray();
  out.Raw("raw", R"({"k":"v"})").Key("empty").BeginObject().EndObject();
  out.EndObject();
  CHECK(text ==
        "{\"name\":\"a\\\"b\\\\c\\n\\u0001\\u007f\",\"n\":-9223372036854775808,\"u\":"
        "18446744073709551615,\"b\":true,\"z\":null,"
        "\"list\":[\"x\",1,{},[]],\"raw\":{\"k\":\"v\"},\"empty\":{}}");
}

TEST_CASE("what is not UTF-8 is replaced, so that the output is always JSON", "[wire]") {
  std::string text;
  JsonOut(&text).Text("ok\xc3\xa4 bad\xff\xc3 \xf0\x9f\x98\x80");
  CHECK(text == "\"ok\xc3\xa4 bad\xef\xbf\xbd\xef\xbf\xbd \xf0\x9f\x98\x80\"");
  CHECK(ParseJson(text).has_value());
}

TEST_CASE("metadata keeps its order through the stored form", "[wire]") {
  const Metadata metadata = {{"mode", "0400"}, {"owner", "no\"body"}, {"_a", "\xe2\x82\xac\n"}};
  CHECK(EncodeMetadata({}) == "{}");
  CHECK(EncodeMetadata(metadata) ==
        "{\"mode\":\"0400\",\"owner\":\"no\\\"body\",\"_a\":\"\xe2\x82\xac\\n\"}");
  CHECK(ParseMetadata(EncodeMetadata(metadata)).value() == metadata);
  CHECK(ParseMetadata("").value().empty());
  CHECK_FALSE(ParseMetadata("[]").has_value());
  CHECK_FALSE(ParseMetadata("{").has_value());
}
