#include "server/service/rules.h"

#include <catch2/catch.hpp>

using namespace latchkey;
using namespace latchkey::service;

namespace {

std::optional<Errc> Judge(const Settings& settings, std::string_view name,
                          std::string_view owner = "") {
  const auto checked = CheckedSecretName(settings, name, owner);
  return checked ? std::nullopt : std::optional(checked.error().code);
}

}  // namespace

TEST_CASE("a new secret name keeps to its length in UTF-16 units and its bytes", "[service]") {
  const Settings settings;
  std::string wide;  // 97 code points outside the basic plane are 194 units in 388 bytes
  for (int i = 0; i < 97; ++i) wide += "\xf0\x9f\x98\x80";
  CHECK_FALSE(Judge(settings, std::string(195, 'n')).has_value());
  CHECK(Judge(settings, std::string(196, 'n')) == Errc::kInvalidArgument);
  CHECK(Judge(settings, wide) == Errc::kInvalidArgument);
  CHECK_FALSE(Judge(settings, wide.substr(0, 4 * 60)).has_value());
  for (const std::string& bad :
       {std::string(), std::string(".a"), std::string("a\x01"), std::string("a\0b", 3),
        std::string("a\xff"), std::string("a\x7f")})
    CHECK(Judge(settings, bad) == Errc::kInvalidArgument);
  CHECK_FALSE(Judge(settings, "a b/c").has_value());
}

TEST_CASE("a reserved prefix needs exactly its owner, for every prefix that matches", "[service]") {
  Settings settings;
  settings.reserved_prefixes = {{"A", "x"}, {"B", "xy"}, {"A", "xz"}};
  CHECK_FALSE(Judge(settings, "free").has_value());
  CHECK(Judge(settings, "x1") == Errc::kInvalidArgument);
  CHECK(Judge(settings, "x1", "B") == Errc::kInvalidArgument);
  CHECK_FALSE(Judge(settings, "x1", "A").has_value());
  CHECK(Judge(settings, "xy1", "A") == Errc::kInvalidArgument);
  CHECK(Judge(settings, "xy1", "B") == Errc::kInvalidArgument);
  CHECK_FALSE(Judge(settings, "xz1", "A").has_value());
  CHECK(Judge(settings, "xz1", "a") == Errc::kInvalidArgument);
}

TEST_CASE("content, description and type stop at their limits", "[service]") {
  Settings settings;
  settings.max_content_bytes = 10;
  CHECK(CheckContent(settings, 0).error().code == Errc::kInvalidArgument);
  CHECK(CheckContent(settings, 10).has_value());
  CHECK(CheckContent(settings, 11).error().code == Errc::kTooLarge);
  CHECK(CheckDescription(std::string(255, 'd')).has_value());
  CHECK_FALSE(CheckDescription(std::string(256, 'd')).has_value());
  CHECK(CheckType(std::string(20, 't')).has_value());
  CHECK_FALSE(CheckType(std::string(21, 't')).has_value());
  // Characters count, not bytes.
  std::string umlauts;
  for (int i = 0; i < 20; ++i) umlauts += "\xc3\xbc";
  CHECK(CheckType(umlauts).has_value());
}
