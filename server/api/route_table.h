// Paths and methods of the API: an immutable table, matched on raw segments (rule H3; API spec 1.2 and Appendix C).
//
// A literal word in a pattern matches only that word, written without escapes; `{}` matches one segment that is not empty.
// Literal words win over `{}`, from left to right. One trailing slash and `;parameters` of a segment do not count; an empty
// segment, `.` and `..` match nothing. Nothing is decoded here: `%2F` stays inside its segment.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "server/net/http.h"

namespace latchkey::api {

class Exchange;
using Endpoint = void (*)(Exchange&);

enum class Caller : std::uint8_t { kAnyone, kClient, kAutomation };

enum class BodyRule : std::uint8_t {
  kIgnored,        // whatever is sent, with whatever type
  kJson,           // application/json, judged before authentication
  kJsonUnread,     // the type is judged as for kJson, the body ignored
  kJsonAfterAuth,  // application/json or any +json type, judged after authentication
};

struct Route {
  net::Method method = net::Method::kGet;
  std::string_view pattern;  // "/automation/v2/secrets/{}/groups"
  Caller caller = Caller::kAnyone;
  BodyRule body = BodyRule::kIgnored;
  bool any_accept = false;  // answers whatever Accept says
  Endpoint endpoint = nullptr;
};

// All routes of the server, in the order of docs/openapi.yaml.
std::span<const Route> AllRoutes();

inline constexpr std::size_t kMaxPathParameters = 2;

struct Match {
  std::vector<const Route*> methods;                // of the path; empty: no such path
  std::string_view parameters[kMaxPathParameters];  // raw, in order
  std::size_t parameter_count = 0;

  // HEAD finds the GET route where no route of its own exists.
  const Route* Find(net::Method method) const;
  // "GET,OPTIONS" for a 405, "HEAD,GET,OPTIONS" for OPTIONS.
  std::string Allow(bool for_options) const;
};

// Thread-safe.
class RouteTable {
 public:
  explicit RouteTable(std::span<const Route> routes);
  // `path` is the target up to its query.
  Match Find(std::string_view path) const;

 private:
  struct Path {
    std::vector<std::string_view> segments;  // "{}" for a parameter
    std::vector<const Route*> methods;
  };
  std::vector<Path> paths_;  // literal words before parameters
};

// Decodes the escapes of one raw segment, once. nullopt: a malformed escape, %00, or invalid UTF-8.
std::optional<std::string> DecodeSegment(std::string_view raw);

// The query of a target, decoded as a form ('+' is a blank). The first value of a name counts.
class Query {
 public:
  explicit Query(std::string_view target);
  std::optional<std::string_view> Find(std::string_view name) const;

  enum class Number { kAbsent, kValid, kMalformed };
  // A signed 64-bit integer; an empty value is kMalformed.
  Number FindInt(std::string_view name, std::int64_t* value) const;

 private:
  std::vector<std::pair<std::string, std::string>> values_;
};

// The path of a target: everything before '?'.
std::string_view PathOf(std::string_view target);

// Does an Accept header admit application/json?
bool AcceptsJson(std::string_view accept);

enum class MediaType { kJson, kOtherJson, kOther, kMalformed };
MediaType ClassifyContentType(std::string_view content_type);

}  // namespace latchkey::api
