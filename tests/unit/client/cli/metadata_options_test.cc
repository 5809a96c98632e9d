#include "client/cli/metadata_options.h"

#include <catch2/catch.hpp>

namespace latchkey::cli {

TEST_CASE("An expiry is a date, a date-time with offset, seconds, or never", "[cli]") {
  const auto [text, seconds] = GENERATE(table<std::string, std::int64_t>({
      {"never", 0},
      {"0", 0},
      {"1888888888", 1888888888},
      {"1970-01-01", 0},
      {"2027-01-31", 1801353600},
      {"2027-01-31T12:00:00Z", 1801396800},
      {"2027-01-31T12:00Z", 1801396800},
      {"2027-01-31T12:00:00+02:00", 1801389600},
      {"2027-01-31T12:00:00-02:30", 1801405800},
      {"2028-02-29T00:00:00Z", 1835395200},
  }));
  CAPTURE(text);
  const auto parsed = ParseExpiry(text);
  REQUIRE(parsed.has_value());
  CHECK(*parsed == seconds);
}

TEST_CASE("What is no date is refused as an expiry", "[cli]") {
  const auto text = GENERATE(values<std::string>(
      {"", "-1", "tomorrow", "2027", "2027-1-31", "2027-13-01", "2027-02-29", "2027-01-31T12:00:00",
       "2027-01-31T24:00:00Z", "2027-01-31T12:60:00Z", "2027-01-31 12:00:00Z", "2027-01-31Z",
       "2027-01-31T12:00:00+2:00", "2027-01-31T12:00:00Zx", "1969-12-31", "99999999999999999999",
       "+-1-01-01"}));
  CAPTURE(text);
  CHECK_FALSE(ParseExpiry(text).has_value());
}

TEST_CASE("Metadata flags change what they name and keep the rest in its place", "[cli]") {
  MetadataOptions options;
  CHECK_FALSE(options.touches_metadata());
  options.mode = "0400";
  options.pairs = {"_a=1=2", "_gone="};
  CHECK(options.touches_metadata());
  const auto after = options.ApplyTo({{"_gone", "x"}, {"mode", "0440"}, {"owner", "app"}});
  REQUIRE(after.has_value());
  CHECK(*after == Metadata{{"mode", "0400"}, {"owner", "app"}, {"_a", "1=2"}});
}

TEST_CASE("Wrong metadata flags are refused", "[cli]") {
  MetadataOptions options;
  SECTION("no equals sign") {
    options.pairs = {"_a"};
  }
  SECTION("no key") {
    options.pairs = {"=x"};
  }
  SECTION("a key of ours") {
    options.pairs = {"checksum=x"};
  }
  SECTION("a mode that is not octal") {
    options.mode = "999";
  }
  SECTION("a set-id bit") {
    options.mode = "04400";
  }
  SECTION("a file name with a slash") {
    options.filename = "../x";
  }
  const auto after = options.ApplyTo({});
  REQUIRE_FALSE(after.has_value());
  CHECK(after.error().code == Errc::kInvalidArgument);
}

}  // namespace latchkey::cli
