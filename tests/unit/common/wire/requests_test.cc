#include "common/wire/requests.h"

#include <catch2/catch.hpp>

using namespace latchkey;
using namespace latchkey::wire;

namespace {

template <class Request>
Result<Request> Read(Result<Request> (*parse)(const JsonValue&), std::string_view text) {
  ASSIGN_OR_RETURN(const JsonValue body, ParseJson(text));
  return parse(body);
}

}  // namespace

TEST_CASE("a new secret is read with its defaults", "[wire]") {
  auto full = Read(
      &CreateSecretRequest::Parse,
      R"({"name":"a","content":"MTIz","description":"d","metadata":{"mode":"0400"},"expiry":"12","type":"t","groups":["g"],
                       "owner":"o","unknown":[{}]})");
  REQUIRE(full.has_value());
  CHECK(full->name == "a");
  CHECK(AsText(full->content.bytes()) == "123");
  CHECK(full->metadata == Metadata{{"mode", "0400"}});
  CHECK(full->expiry == 12);
  CHECK(full->groups == std::vector<std::string>{"g"});
  CHECK(full->owner == "o");
  auto bare =
      Read(&CreateSecretRequest::Parse, R"({"name":5,"content":"","metadata":null,"groups":null})");
  REQUIRE(bare.has_value());
  CHECK(bare->name == "5");
  CHECK(bare->content.empty());
  CHECK(bare->description.empty());
}

TEST_CASE("a new secret without what it needs is refused", "[wire]") {
  for (const char* bad :
       {R"({"content":"MTIz"})", R"({"name":"","content":"MTIz"})", R"({"name":"a"})",
        R"({"name":"a","content":null})", R"({"name":"a","content":"-_-_"})",
        R"({"name":"a","content":"MTIz","metadata":{"a":null}})",
        R"({"name":"a","content":"MTIz","metadata":""})",
        R"({"name":"a","content":"MTIz","groups":"g"})",
        R"({"name":"a","content":"MTIz","groups":[null]})",
        R"({"name":"a","content":"MTIz","expiry":true})", "null", "[]", "\"x\"",
        R"({"name":["a"],"content":"MTIz"})"}) {
    CAPTURE(bad);
    CHECK_FALSE(Read(&CreateSecretRequest::Parse, bad).has_value());
  }
}

TEST_CASE("a partial update takes only what its flags announce", "[wire]") {
  auto none = Read(&PartialUpdateRequest::Parse, R"({"content":"MTIz","description":"d"})");
  REQUIRE(none.has_value());
  CHECK_FALSE(none->content.has_value());
  CHECK_FALSE(none->description.has_value());
  auto all = Read(
      &PartialUpdateRequest::Parse,
      R"({"contentPresent":true,"content":"MTIz","descriptionPresent":true,"metadataPresent":1,"expiryPresent":"true",
                      "expiry":9,"typePresent":true,"type":"t","ownerPresent":true,"owner":""})");
  REQUIRE(all.has_value());
  CHECK(AsText(all->content->bytes()) == "123");
  CHECK(all->description == "");
  CHECK(all->metadata == Metadata{});
  CHECK(all->expiry == 9);
  CHECK(all->type == "t");
  CHECK(all->owner == "");
  CHECK_FALSE(Read(&PartialUpdateRequest::Parse, R"({"contentPresent":true})").has_value());
  CHECK_FALSE(
      Read(&PartialUpdateRequest::Parse, R"({"contentPresent":true,"content":"*"})").has_value());
}

TEST_CASE("an idle batch request is empty, a malformed one is refused", "[wire]") {
  for (const char* idle : {R"({"secrets":null})", R"({"secrets":[]})", "{}"})
    CHECK(Read(&BatchSecretsRequest::Parse, idle)->names.empty());
  CHECK(Read(&BatchSecretsRequest::Parse, R"({"secrets":["a","b"]})")->names.size() == 2);
  for (const char* bad :
       {"null", R"({"secrets":"a"})", R"({"secrets":["a",null]})", R"({"secrets":""})", "[]"})
    CHECK_FALSE(Read(&BatchSecretsRequest::Parse, bad).has_value());
}

TEST_CASE("version numbers in requests follow their endpoint", "[wire]") {
  for (const char* zero :
       {R"({"name":"a"})", R"({"name":"a","version":null})", R"({"name":"a","version":""})"})
    CHECK(Read(&SetVersionRequest::Parse, zero)->version == 0);
  CHECK_FALSE(Read(&SetVersionRequest::Parse, R"({"name":"","version":1})").has_value());
  CHECK_FALSE(Read(&SetVersionRequest::Parse, R"({"version":1})").has_value());
  for (const char* bad : {R"({"secret":"a"})", R"({"secret":"a","version":null})",
                          R"({"secret":"a","version":""})", R"({"version":1})"})
    CHECK_FALSE(Read(&ContentsAtVersionRequest::Parse, bad).has_value());
  CHECK(Read(&ContentsAtVersionRequest::Parse, R"({"secret":"a","version":-5})")->version == -5);
}

TEST_CASE("clients, groups and their changes are read", "[wire]") {
  CHECK(
      Read(&CreateClientRequest::Parse, R"({"name":"c","spiffeId":"spiffe://x/y","groups":["g"]})")
          ->spiffe_id == "spiffe://x/y");
  CHECK_FALSE(Read(&CreateClientRequest::Parse, R"({"name":""})").has_value());
  CHECK(
      Read(&CreateGroupRequest::Parse, R"({"name":"g","metadata":{"a":"x","b":null}})")->metadata ==
      Metadata{{"a", "x"}});
  CHECK_FALSE(Read(&ModifyGroupsRequest::Parse, R"({"addGroups":["a"]})").has_value());
  CHECK_FALSE(
      Read(&ModifyGroupsRequest::Parse, R"({"addGroups":null,"removeGroups":[]})").has_value());
  CHECK(Read(&ModifyGroupsRequest::Parse, R"({"addGroups":["a"],"removeGroups":[]})")->add.size() ==
        1);
  const auto state = Read(&ClientStateRequest::Parse, R"({"enabled":false,"content":null})");
  CHECK(state->enabled == false);
  CHECK_FALSE(state->automation.has_value());
  CHECK_FALSE(state->content.has_value());
  CHECK_FALSE(Read(&ContentsRequest::Parse, R"({})").has_value());
  CHECK(Read(&ContentsRequest::Parse, R"({"secrets":[]})")->names.empty());
}
