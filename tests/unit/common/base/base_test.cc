#include <catch2/catch.hpp>
#include <set>

#include "common/base/bytes.h"
#include "common/base/clock.h"
#include "common/base/guarded.h"
#include "common/base/result.h"
#include "common/base/utf8.h"

using namespace latchkey;

namespace {

Result<int> Half(int value) {
  if (value % 2 != 0) return Error{Errc::kInvalidArgument, "odd"};
  return value / 2;
}

Result<int> Quarter(int value) {
  ASSIGN_OR_RETURN(const int half, Half(value));
  return Half(half);
}

Status NeedEven(int value) {
  RETURN_IF_ERROR(Half(value));
  return {};
}

}  // namespace

TEST_CASE("ASSIGN_OR_RETURN passes values on and leaves with the first error", "[base]") {
  CHECK(Quarter(8).value() == 2);
  REQUIRE_FALSE(Quarter(6).has_value());
  CHECK(Quarter(6).error().message == "odd");
  CHECK(NeedEven(2).has_value());
  CHECK_FALSE(NeedEven(3).has_value());
}

TEST_CASE("Every error code has a distinct name and a failing status, errno and exit code",
          "[base]") {
  std::set<std::string> names;
  for (int code = 0; code <= static_cast<int>(Errc::kInternal); ++code) {
    const auto errc = static_cast<Errc>(code);
    names.insert(ErrcName(errc));
    CHECK(HttpStatusOf(errc) >= 400);
    CHECK(ErrnoOf(errc) > 0);
    CHECK(ExitCodeOf(errc) > 0);
  }
  CHECK(names.size() == static_cast<std::size_t>(Errc::kInternal) + 1);
}

TEST_CASE("Hex parses what it prints and refuses odd or foreign digits", "[base]") {
  const ByteVector bytes = {0x00, 0x7f, 0x80, 0xff, 0xa5};
  ByteVector back;
  REQUIRE(ParseHex(HexLower(bytes), &back));
  CHECK(back == bytes);
  REQUIRE(ParseHex(HexUpper(bytes), &back));
  CHECK(back == bytes);
  CHECK_FALSE(ParseHex("abc", &back));
  CHECK_FALSE(ParseHex("0g", &back));
}

TEST_CASE("Big-endian integers read back as they were put", "[base]") {
  ByteVector out;
  PutU32(&out, 0x01020304U);
  PutU64(&out, 0x8000000000000001ULL);
  CHECK(out[0] == 1);
  CHECK(GetU32(out.data()) == 0x01020304U);
  CHECK(GetU64(out.data() + 4) == 0x8000000000000001ULL);
}

TEST_CASE("UTF-8 is decoded strictly", "[base]") {
  CHECK(IsValidUtf8("plain"));
  CHECK(IsValidUtf8("gr\xc3\xbc\xc3\x9f \xf0\x9f\x94\x91"));
  CHECK_FALSE(IsValidUtf8("\xc0\xaf"));          // overlong
  CHECK_FALSE(IsValidUtf8("\xe0\x80\xaf"));      // overlong
  CHECK_FALSE(IsValidUtf8("\xed\xa0\x80"));      // surrogate
  CHECK_FALSE(IsValidUtf8("\xf4\x90\x80\x80"));  // above U+10FFFF
  CHECK_FALSE(IsValidUtf8("\xe2\x82"));          // cut
  CHECK_FALSE(IsValidUtf8("\xff"));
}

TEST_CASE("Dates have the form that old clients parse", "[base]") {
  CHECK(ApiDate(1317311160) == "2011-09-29T15:46:00.000Z");
  CHECK(ApiDate(0) == "1970-01-01T00:00:00.000Z");
  const WallTime time{std::chrono::nanoseconds(1317311160'000001000LL)};
  CHECK(LogTimestamp(time) == "2011-09-29T15:46:00.000001Z");
  CHECK(EpochSeconds(time) == 1317311160);
}

TEST_CASE("Guarded gives its value only under the lock and returns what the use returns",
          "[base]") {
  Guarded<int> guarded(3);
  guarded.With([](int& value) { value = 4; });
  CHECK(guarded.With([](const int& value) { return value; }) == 4);
}
