#include "client/cli/names.h"

#include <catch2/catch.hpp>

namespace latchkey::cli {

TEST_CASE("A name holds letters, digits and four marks, and does not start with a dot", "[cli]") {
  for (const std::string& good :
       std::vector<std::string>{"a", "db_password", "A-b.c:d", "0", "-x", std::string(195, 'a')}) {
    CHECK(CheckName(NameKind::kSecret, good).has_value());
  }
  for (const std::string& bad :
       std::vector<std::string>{"", ".hidden", "a b", "a/b", "a\n", "\xc3\xa9", "a=b", "a@b",
                                "a\x7f", std::string(196, 'a')}) {
    CAPTURE(bad);
    const auto status = CheckName(NameKind::kSecret, bad);
    REQUIRE_FALSE(status.has_value());
    CHECK(status.error().code == Errc::kInvalidArgument);
  }
  CHECK(CheckName(NameKind::kClient, std::string(255, 'a')).has_value());
  CHECK_FALSE(CheckName(NameKind::kGroup, std::string(256, 'a')).has_value());
}

TEST_CASE("Metadata keys are the four known ones or start with an underscore", "[cli]") {
  CHECK(CheckCliMetadata(
            {{"owner", "a"}, {"group", "b"}, {"mode", "0440"}, {"filename", "f"}, {"_note", "x"}})
            .has_value());
  for (const char* key : {"Owner", "note", "", "_", "_a b", "checksum", "name"}) {
    CAPTURE(key);
    CHECK_FALSE(CheckCliMetadata({{key, "x"}}).has_value());
  }
  for (const char* mode : {"440", "0", "0448", "04000", "rw", ""}) {
    CAPTURE(mode);
    CHECK_FALSE(CheckCliMetadata({{"mode", mode}}).has_value());
  }
}

}  // namespace latchkey::cli
