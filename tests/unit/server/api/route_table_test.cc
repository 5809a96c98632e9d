#include "server/api/route_table.h"

#include <catch2/catch.hpp>

using namespace latchkey::api;
using latchkey::net::Method;

namespace {

const RouteTable& Table() {
  static const RouteTable table(AllRoutes());
  return table;
}

std::string PatternOf(std::string_view path) {
  const Match match = Table().Find(path);
  return match.methods.empty() ? "" : std::string(match.methods.front()->pattern);
}

}  // namespace

TEST_CASE("literal words win over names", "[api]") {
  CHECK(PatternOf("/automation/v2/secrets/v2") == "/automation/v2/secrets/v2");
  CHECK(PatternOf("/automation/v2/secrets/v3") == "/automation/v2/secrets/{}");
  CHECK(PatternOf("/automation/v2/secrets/deleted/groups") == "/automation/v2/secrets/deleted/{}");
  CHECK(PatternOf("/automation/v2/secrets/x/groups") == "/automation/v2/secrets/{}/groups");
  CHECK(PatternOf("/automation/v2/secrets/request/contents") ==
        "/automation/v2/secrets/request/contents");
  CHECK(PatternOf("/automation/v2/secrets/a/rename/b") == "/automation/v2/secrets/{}/rename/{}");
}

TEST_CASE("one trailing slash and segment parameters do not count", "[api]") {
  CHECK(PatternOf("/secrets/") == "/secrets");
  CHECK(PatternOf("/secrets;x=1") == "/secrets");
  CHECK(PatternOf("/secret/a/") == "/secret/{}");
  const Match match = Table().Find("/secret/a;v=1");
  REQUIRE(match.parameter_count == 1);
  CHECK(match.parameters[0] == "a");
}

TEST_CASE("what only resembles a path matches nothing", "[api]") {
  for (const char* path : {"",
                           "/",
                           "//",
                           "secrets",
                           "//secrets",
                           "/secrets//",
                           "/./secrets",
                           "/secret",
                           "/secret/",
                           "/secret//",
                           "/secret/.",
                           "/secret/..",
                           "/%73ecrets",
                           "/Secrets",
                           "/secret%2Fa",
                           "/secret/a/b",
                           "/automation",
                           "/automation/v2",
                           "/automation//v2/secrets",
                           "/automation/v2/secrets/a/%67roups",
                           "/;/secrets",
                           "/secrets/x"}) {
    CAPTURE(path);
    CHECK(PatternOf(path).empty());
  }
}

TEST_CASE("segments are decoded once, strictly", "[api]") {
  CHECK(DecodeSegment("a%20b") == "a b");
  CHECK(DecodeSegment("a+b") == "a+b");
  CHECK(DecodeSegment("..%2Fsecrets") == "../secrets");
  CHECK(DecodeSegment("%2541") == "%41");
  CHECK(DecodeSegment("%C3%BC") == "\xc3\xbc");
  for (const char* bad : {"%", "%4", "%zz", "%4g", "%00", "%ff%fe", "%c0%80", "%ed%a0%80", "a%"}) {
    CAPTURE(bad);
    CHECK_FALSE(DecodeSegment(bad).has_value());
  }
}

TEST_CASE("queries are decoded as forms and their numbers read strictly", "[api]") {
  const Query query("/x?a=1&b=+7&c=%2D7&d=&e=9223372036854775808&f=x+y&a=2&g=%zz&&=3");
  std::int64_t value = 0;
  CHECK(query.FindInt("a", &value) == Query::Number::kValid);
  CHECK(value == 1);
  CHECK(query.FindInt("b", &value) == Query::Number::kMalformed);
  CHECK(query.FindInt("c", &value) == Query::Number::kValid);
  CHECK(value == -7);
  CHECK(query.FindInt("d", &value) == Query::Number::kMalformed);
  CHECK(query.FindInt("e", &value) == Query::Number::kMalformed);
  CHECK(query.FindInt("absent", &value) == Query::Number::kAbsent);
  CHECK(query.FindInt("g", &value) == Query::Number::kMalformed);
  CHECK(query.Find("f") == "x y");
  CHECK_FALSE(Query("/x").Find("x").has_value());
}

TEST_CASE("an Accept header is read with its qualities", "[api]") {
  for (const char* yes : {"*/*", "application/json", "application/*", "text/html, */*;q=0.1",
                          "application/json;q=0.5, text/plain", "Application/JSON",
                          "text/html;level=1 , application/json"}) {
    CAPTURE(yes);
    CHECK(AcceptsJson(yes));
  }
  for (const char* no : {"", "text/html", "application/json;q=0", "application/json; q=0.0",
                         "application/jsonx", "application", "*"}) {
    CAPTURE(no);
    CHECK_FALSE(AcceptsJson(no));
  }
}

TEST_CASE("content types are told apart without their parameters", "[api]") {
  CHECK(ClassifyContentType("application/json; charset=utf-8") == MediaType::kJson);
  CHECK(ClassifyContentType("APPLICATION/JSON") == MediaType::kJson);
  CHECK(ClassifyContentType("application/vnd.x+json") == MediaType::kOtherJson);
  CHECK(ClassifyContentType("text/plain") == MediaType::kOther);
  CHECK(ClassifyContentType("application/jsonx") == MediaType::kOther);
  for (const char* bad :
       {"", "json", "/json", "application/", "application json", "a b/c", "a/b,c/d"})
    CHECK(ClassifyContentType(bad) == MediaType::kMalformed);
}

TEST_CASE("Allow lists HEAD for OPTIONS only", "[api]") {
  CHECK(Table().Find("/secrets").Allow(false) == "GET,OPTIONS");
  CHECK(Table().Find("/secrets").Allow(true) == "HEAD,GET,OPTIONS");
  CHECK(Table().Find("/automation/v2/secrets").Allow(false) == "POST,GET,OPTIONS");
  CHECK(Table().Find("/automation/v2/secrets").Allow(true) == "HEAD,POST,GET,OPTIONS");
  CHECK(Table().Find("/automation/v2/clients/c").Allow(false) == "DELETE,POST,GET,OPTIONS");
  CHECK(Table().Find("/batchsecret").Allow(true) == "POST,OPTIONS");
}

TEST_CASE("every route has an endpoint and is reachable through its own pattern", "[api]") {
  for (const Route& route : AllRoutes()) {
    CAPTURE(route.pattern);
    REQUIRE(route.endpoint != nullptr);
    std::string path(route.pattern);
    for (std::size_t at = path.find("{}"); at != std::string::npos; at = path.find("{}"))
      path.replace(at, 2, "name");
    const Match match = Table().Find(path);
    REQUIRE_FALSE(match.methods.empty());
    CHECK(match.Find(route.method) == &route);
  }
}
