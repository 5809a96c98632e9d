#include "client/lib/delivery.h"

#include <catch2/catch.hpp>
#include <random>

#include "common/model/limits.h"
#include "common/wire/base64.h"

namespace latchkey::client {
namespace {

constexpr DeliveryLimits kLimits{
    .max_secrets = 3, .max_content_bytes = 1024, .max_total_bytes = 2000};

// The parser undoes escapes in place and must stay inside: a heap copy of the exact size, so that a
// sanitizer sees it.
template <class Parse>
auto Run(Parse parse, std::string_view json, const DeliveryLimits& limits = kLimits) {
  std::vector<std::uint8_t> copy(json.begin(), json.end());
  copy.shrink_to_fit();
  return parse(MutableBytes(copy), limits);
}

auto One(std::string_view json, const DeliveryLimits& limits = kLimits) {
  return Run([](MutableBytes b, const DeliveryLimits& l) { return ParseDelivery(b, l); }, json,
             limits);
}

auto Many(std::string_view json, const DeliveryLimits& limits = kLimits) {
  return Run([](MutableBytes b, const DeliveryLimits& l) { return ParseDeliveries(b, l); }, json,
             limits);
}

std::string Encode(std::string_view plain) {
  std::string text(wire::Base64EncodedSize(plain.size()), '\0');
  wire::Base64Encode(AsBytes(plain), text.data());
  return text;
}

std::string Item(const std::string& name, std::string_view plain, const std::string& more = "") {
  return R"({"name":")" + name + R"(","secret":")" + Encode(plain) + R"(","secretLength":)" +
         std::to_string(plain.size()) + R"(,"checksum":"AB")" + more + "}";
}

}  // namespace

TEST_CASE("A delivery gives content, dates, version and metadata in order", "[client]") {
  const auto secret = One(
      R"( { "name" : "db", "secret":"cGFzcw==", "secretLength":4,"checksum":"C0FFEE",)"
      R"("creationDate":"2011-09-29T15:46:00.000Z","updateDate":"2012-09-29T15:46:00.000Z","version":7,)"
      R"("mode":"0400","owner":"app","_note":"a\"b\\c\u00e9\ud83d\ude00\n"} )");
  REQUIRE(secret.has_value());
  CHECK(secret->name == "db");
  CHECK(AsText(secret->content.bytes()) == "pass");
  CHECK(secret->checksum == "C0FFEE");
  CHECK(secret->creation_date == "2011-09-29T15:46:00.000Z");
  CHECK(secret->update_date == "2012-09-29T15:46:00.000Z");
  CHECK(secret->version == 7u);
  const Metadata wanted{
      {"mode", "0400"}, {"owner", "app"}, {"_note", "a\"b\\c\xc3\xa9\xf0\x9f\x98\x80\n"}};
  CHECK(secret->metadata == wanted);
}

TEST_CASE("Contents arrive in locked memory and nowhere else", "[client]") {
  const auto secret = One(Item("db", "x"));
  REQUIRE(secret.has_value());
  CHECK(InSecretArena(secret->content.bytes().data()));
}

TEST_CASE("Any bytes survive delivery", "[client]") {
  std::mt19937 random(Catch::rngSeed());
  for (std::size_t size = 0; size < 70; ++size) {
    std::string plain(size, '\0');
    for (char& c : plain) c = static_cast<char>(random());
    const auto secret = One(Item("db", plain));
    REQUIRE(secret.has_value());
    CHECK(AsText(secret->content.bytes()) == plain);
  }
}

TEST_CASE("An array of deliveries keeps its order, and an empty one is empty", "[client]") {
  const auto some = Many("[" + Item("a", "1") + " , " + Item("b", "22") + "]");
  REQUIRE(some.has_value());
  REQUIRE(some->size() == 2);
  CHECK((*some)[0].name == "a");
  CHECK(AsText((*some)[1].content.bytes()) == "22");
  const auto none = Many(" [ ] ");
  REQUIRE(none.has_value());
  CHECK(none->empty());
}

TEST_CASE("A listing has empty contents with a real checksum", "[client]") {
  const auto listed = Many(R"([{"name":"a","secret":"","secretLength":0,"checksum":"AA"}])",
                           {.max_secrets = 1, .max_content_bytes = 0, .max_total_bytes = 0});
  REQUIRE(listed.has_value());
  CHECK(listed->front().content.empty());
}

TEST_CASE("Metadata called version does not hide the number of ours", "[client]") {
  const auto both = One(Item("a", "1", R"(,"version":3,"version":"blue")"));
  REQUIRE(both.has_value());
  CHECK(both->version == 3u);
  CHECK(both->metadata == Metadata{{"version", "blue"}});
  const auto text_only = One(Item("a", "1", R"(,"version":"blue")"));
  REQUIRE(text_only.has_value());
  CHECK_FALSE(text_only->version.has_value());
  CHECK_FALSE(One(Item("a", "1", R"(,"version":3,"version":4)")).has_value());
}

TEST_CASE("A malformed delivery is refused without a byte of it in the message", "[client]") {
  const std::string good = Item("zzzz", "hunter2");
  const auto bad = GENERATE_COPY(values<std::string>(
      {"", " ", "{", "{}", "[]", "null", "{\"name\"}", "{\"name\":}", good + "x", good + good,
       "[" + good + "]",
       R"({"name":"a","secret":"hunter222","checksum":"A"})",      // bad length of base64
       R"({"name":"a","secret":"aHVu-GVy","checksum":"A"})",       // url-safe alphabet
       R"({"name":"a","secret":"aHVu dGVy","checksum":"A"})",      // a blank
       R"({"name":"a","secret":"aHVu\u0064GVy","checksum":"A"})",  // an escape in content
       R"({"name":"a","secret":12,"checksum":"A"})", R"({"name":"a","secret":null,"checksum":"A"})",
       R"({"name":"a","secret":"YQ==","secretLength":2,"checksum":"A"})",  // announced length
                                                                           // differs
       R"({"name":"a","secret":"YQ==","secretLength":-1,"checksum":"A"})",
       R"({"secret":"YQ==","checksum":"A"})", R"({"name":"a","checksum":"A"})",
       R"({"name":"a","secret":"YQ=="})", R"({"name":"","secret":"YQ==","checksum":"A"})",
       R"({"name":null,"secret":"YQ==","checksum":"A"})",
       R"({"name":"a","name":"a","secret":"YQ==","checksum":"A"})",       // duplicate member
       R"({"name":"a","\u006eame":"b","secret":"YQ==","checksum":"A"})",  // the same, hidden by an
                                                                          // escape
       R"({"name":"a","secret":"YQ==","checksum":"A","m":{"x":"y"}})",
       R"({"name":"a","secret":"YQ==","checksum":"A","m":[]})",
       R"({"name":"a","secret":"YQ==","checksum":"A","m":"\ud800"})",
       R"({"name":"a","secret":"YQ==","checksum":"A","m":"\udc00x"})",
       R"({"name":"a","secret":"YQ==","checksum":"A","m":"\ud800\u0041"})",
       R"({"name":"a","secret":"YQ==","checksum":"A","m":"\u12"})",
       R"({"name":"a","secret":"YQ==","checksum":"A","m":"\u0000"})",
       R"({"name":"a","secret":"YQ==","checksum":"A","m":"\q"})",
       R"({"name":"a","secret":"YQ==","checksum":"A","m":"\)",
       R"({"name":"a","secret":"YQ==","checksum":"A","m":"\")",
       R"({"name":"a\u001b[2J","secret":"YQ==","checksum":"A"})",
       R"({"name":"a","secret":"YQ==","checksum":"A",})",
       R"({"name":"a","secret":"YQ==","checksum":"A" "b":"c"})",
       "{\"name\":\"\xff\",\"secret\":\"YQ==\",\"checksum\":\"A\"}",
       "{\"name\":\"a\",\"secret\":\"YQ==\",\"checksum\":\"A\",\"m\":\"\xc0\xaf\"}"}));
  CAPTURE(bad);
  const auto parsed = One(bad);
  REQUIRE_FALSE(parsed.has_value());
  CHECK(parsed.error().message.find("hunter2") == std::string::npos);
  CHECK(parsed.error().message.find("zzzz") == std::string::npos);
}

TEST_CASE("Every prefix of an answer is refused and none is read beyond its end", "[client]") {
  const std::string whole =
      "[" + Item("a", "some content", R"(,"m":"x\u00e9\"y")") + "," + Item("b", "more") + "]";
  REQUIRE(Many(whole).has_value());
  for (std::size_t size = 0; size < whole.size(); ++size)
    CHECK_FALSE(Many(whole.substr(0, size)).has_value());
}

TEST_CASE("No flipped byte of an answer makes the parser read or write outside of it", "[client]") {
  const std::string whole = "[" + Item("a", "some content", R"(,"m":"x\u00e9\"y")") + "]";
  std::mt19937 random(Catch::rngSeed());
  for (int round = 0; round < 20'000; ++round) {
    std::string damaged = whole;
    for (int hit = 0; hit < 1 + round % 3; ++hit)
      damaged[random() % damaged.size()] = static_cast<char>(random());
    const auto parsed = Many(damaged);
    if (parsed.has_value()) CHECK(parsed->size() <= 1);
  }
}

TEST_CASE("Limits hold to the byte and the count", "[client]") {
  CHECK(One(Item("a", std::string(1024, 'x'))).has_value());
  const auto content = One(Item("a", std::string(1025, 'x')));
  REQUIRE_FALSE(content.has_value());
  CHECK(content.error().code == Errc::kTooLarge);

  CHECK(
      Many("[" + Item("a", std::string(1000, 'x')) + "," + Item("b", std::string(1000, 'x')) + "]")
          .has_value());
  const auto total =
      Many("[" + Item("a", std::string(1000, 'x')) + "," + Item("b", std::string(1001, 'x')) + "]");
  REQUIRE_FALSE(total.has_value());
  CHECK(total.error().code == Errc::kTooLarge);

  CHECK(Many("[" + Item("a", "") + "," + Item("b", "") + "," + Item("c", "") + "]").has_value());
  const auto count = Many("[" + Item("a", "") + "," + Item("b", "") + "," + Item("c", "") + "," +
                          Item("d", "") + "]");
  REQUIRE_FALSE(count.has_value());
  CHECK(count.error().code == Errc::kTooLarge);

  CHECK_FALSE(Many("[" + Item("a", "") + "," + Item("a", "") + "]").has_value());
}

TEST_CASE("Metadata from the server is bounded in entries and bytes", "[client]") {
  std::string members;
  for (std::size_t i = 0; i < limits::kMaxMetadataEntries; ++i)
    members += ",\"_" + std::to_string(i) + "\":\"v\"";
  CHECK(One(Item("a", "x", members)).has_value());
  CHECK_FALSE(One(Item("a", "x", members + R"(,"_more":"v")")).has_value());
  CHECK(One(Item("a", "x", ",\"_big\":\"" + std::string(limits::kMaxMetadataBytes - 4, 'v') + "\""))
            .has_value());
  CHECK_FALSE(
      One(Item("a", "x", ",\"_big\":\"" + std::string(limits::kMaxMetadataBytes - 3, 'v') + "\""))
          .has_value());
}

}  // namespace latchkey::client
