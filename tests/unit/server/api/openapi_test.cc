// docs/openapi.yaml and the route table say the same, both ways.
#include <catch2/catch.hpp>
#include <fstream>
#include <set>
#include <string>

#include "server/api/route_table.h"

namespace {

using latchkey::net::Method;

const char* NameOf(Method method) {
  switch (method) {
    case Method::kGet:
      return "get";
    case Method::kHead:
      return "head";
    case Method::kPost:
      return "post";
    case Method::kPut:
      return "put";
    case Method::kDelete:
      return "delete";
    case Method::kOptions:
      return "options";
    case Method::kPatch:
      return "patch";
    case Method::kOther:
      return "other";
  }
  return "";
}

// "/secret/{name}" as the route table writes it: "/secret/{}".
std::string Anonymous(const std::string& path) {
  std::string result;
  bool inside = false;
  for (const char c : path) {
    if (c == '}') inside = false;
    if (!inside) result.push_back(c);
    if (c == '{') inside = true;
  }
  return result;
}

// The file is regular: paths are indented by two blanks, their methods by four.
std::set<std::string> Documented() {
  std::ifstream file(DOCS_DIR "/openapi.yaml");
  REQUIRE(file.good());
  std::set<std::string> operations;
  std::string line;
  std::string path;
  bool in_paths = false;
  while (std::getline(file, line)) {
    if (!line.empty() && line[0] != ' ' && line[0] != '#') in_paths = line == "paths:";
    if (!in_paths || line.size() < 4) continue;
    if (line.compare(0, 3, "  /") == 0 && line.back() == ':')
      path = Anonymous(line.substr(2, line.size() - 3));
    if (line.compare(0, 4, "    ") == 0 && line[4] != ' ' && line.back() == ':') {
      const bool fresh = operations.insert(line.substr(4, line.size() - 5) + " " + path).second;
      CHECK(fresh);
    }
  }
  return operations;
}

}  // namespace

TEST_CASE("every route is documented and nothing else is", "[api][docs]") {
  std::set<std::string> built;
  for (const auto& route : latchkey::api::AllRoutes())
    CHECK(
        built.insert(std::string(NameOf(route.method)) + " " + std::string(route.pattern)).second);
  const std::set<std::string> documented = Documented();
  for (const std::string& operation : built) {
    INFO("built, but not in docs/openapi.yaml: " << operation);
    CHECK(documented.count(operation) == 1);
  }
  for (const std::string& operation : documented) {
    INFO("in docs/openapi.yaml, but not built: " << operation);
    CHECK(built.count(operation) == 1);
  }
  CHECK(built.size() > 40);
}
