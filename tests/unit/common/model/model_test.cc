#include <catch2/catch.hpp>
#include <type_traits>

#include "common/model/ids.h"
#include "common/model/limits.h"
#include "common/model/metadata.h"
#include "common/model/principal.h"

using namespace latchkey;

// Ids and names of different kinds do not mix, and a Principal cannot be made up (rule X3).
static_assert(!std::is_convertible_v<SecretId, GroupId>);
static_assert(!std::is_convertible_v<SecretName, ClientName>);
static_assert(!std::is_default_constructible_v<Principal>);
static_assert(!std::is_constructible_v<Principal, ClientId, std::string, bool, bool, std::string>);

TEST_CASE("Names refuse what is empty, too long, not text", "[model]") {
  CHECK(SecretName::Parse("db_password").has_value());
  CHECK(SecretName::Parse("x/y z").has_value());  // stored by old servers, so accepted
  CHECK(SecretName::Parse(std::string(255, 'a')).has_value());
  CHECK_FALSE(SecretName::Parse(std::string(256, 'a')).has_value());
  CHECK_FALSE(SecretName::Parse("").has_value());
  CHECK_FALSE(SecretName::Parse(std::string("a\0b", 3)).has_value());
  CHECK_FALSE(SecretName::Parse("a\nb").has_value());
  CHECK_FALSE(SecretName::Parse("\xc0\xaf").has_value());
}

TEST_CASE("New secret names have no leading dot and at most 195 UTF-16 units", "[model]") {
  CHECK(CheckNewSecretName(SecretName::Parse(std::string(195, 'a')).value()).has_value());
  CHECK_FALSE(CheckNewSecretName(SecretName::Parse(std::string(196, 'a')).value()).has_value());
  CHECK_FALSE(CheckNewSecretName(SecretName::Parse(".hidden").value()).has_value());
  std::string keys;  // U+1F511 is two UTF-16 units and four bytes: 63 of them are 126 units
  for (int i = 0; i < 63; ++i) keys += "\xf0\x9f\x94\x91";
  CHECK(CheckNewSecretName(SecretName::Parse(keys).value()).has_value());
}

TEST_CASE("Names compare byte for byte", "[model]") {
  CHECK(SecretName::Parse("Foo").value() != SecretName::Parse("foo").value());
}

TEST_CASE("Metadata that would lie about a delivery or widen a file is refused", "[model]") {
  CHECK(CheckMetadata(
            {{"mode", "0440"}, {"owner", "postgres"}, {"filename", "db.pass"}, {"_app", "x"}})
            .has_value());
  for (const char* key :
       {"name", "Secret", "secretlength", "CHECKSUM", "creationDate", "updatedate", ""})
    CHECK_FALSE(CheckMetadata({{key, "x"}}).has_value());
  for (const char* mode : {"4777", "0999", "", "u+x", "01777", "000777"})
    CHECK_FALSE(CheckMetadata({{"mode", mode}}).has_value());
  for (const char* mode : {"0400", "440", "0777", "0"})
    CHECK(CheckMetadata({{"mode", mode}}).has_value());
  for (const char* name : {"../x", ".", "a/b", ".hidden", ""})
    CHECK_FALSE(CheckMetadata({{"filename", name}}).has_value());
  CHECK_FALSE(CheckMetadata({{"k", std::string("a\0b", 3)}}).has_value());
}

TEST_CASE("Metadata has a limit on entries and on bytes", "[model]") {
  Metadata many;
  for (std::size_t i = 0; i < limits::kMaxMetadataEntries; ++i)
    many.emplace_back("_" + std::to_string(i), "v");
  CHECK(CheckMetadata(many).has_value());
  many.emplace_back("_last", "v");
  CHECK_FALSE(CheckMetadata(many).has_value());
  CHECK_FALSE(CheckMetadata({{"_big", std::string(limits::kMaxMetadataBytes, 'x')}}).has_value());
}

TEST_CASE("Mountable names are those of rule F2", "[model]") {
  CHECK(IsMountableName("db.password-1:x_y"));
  CHECK(IsMountableName(std::string(195, 'a')));
  for (const std::string& name :
       {std::string(), std::string(".x"), std::string(".."), std::string("a/b"), std::string("a b"),
        std::string(196, 'a'), std::string("\xc3\xa9")})
    CHECK_FALSE(IsMountableName(name));
}
