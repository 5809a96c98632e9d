#include "server/api/route_table.h"

#include <algorithm>
#include <charconv>

#include "common/base/utf8.h"

namespace latchkey::api {
namespace {

constexpr std::string_view kParameter = "{}";

std::vector<std::string_view> SplitPattern(std::string_view pattern) {
  std::vector<std::string_view> segments;
  while (!pattern.empty()) {
    pattern.remove_prefix(1);  // the slash
    const std::size_t end = std::min(pattern.find('/'), pattern.size());
    segments.push_back(pattern.substr(0, end));
    pattern.remove_prefix(end);
  }
  return segments;
}

// Raw segments of a path; false when no pattern can match it.
bool SplitPath(std::string_view path, std::vector<std::string_view>* segments) {
  if (path.empty() || path.front() != '/') return false;
  if (path.size() > 1 && path.back() == '/') path.remove_suffix(1);
  while (!path.empty()) {
    path.remove_prefix(1);
    const std::size_t end = std::min(path.find('/'), path.size());
    const std::string_view whole = path.substr(0, end);
    const std::string_view segment = whole.substr(0, whole.find(';'));
    if (segment.empty() || segment == "." || segment == "..") return false;
    segments->push_back(segment);
    path.remove_prefix(end);
  }
  return true;
}

// A strict order in which, among patterns of one length, a literal word comes before a parameter at the same place.
bool MoreLiteral(const std::vector<std::string_view>& a, const std::vector<std::string_view>& b) {
  if (a.size() != b.size()) return a.size() < b.size();
  for (std::size_t i = 0; i < a.size(); ++i) {
    const bool a_literal = a[i] != kParameter;
    const bool b_literal = b[i] != kParameter;
    if (a_literal != b_literal) return a_literal;
  }
  return false;
}

int HexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::optional<std::string> DecodeEscapes(std::string_view raw, bool form) {
  std::string text;
  text.reserve(raw.size());
  for (std::size_t i = 0; i < raw.size(); ++i) {
    if (raw[i] == '+' && form) {
      text.push_back(' ');
      continue;
    }
    if (raw[i] != '%') {
      text.push_back(raw[i]);
      continue;
    }
    if (i + 2 >= raw.size()) return std::nullopt;
    const int high = HexValue(raw[i + 1]);
    const int low = HexValue(raw[i + 2]);
    if (high < 0 || low < 0 || (high == 0 && low == 0)) return std::nullopt;
    text.push_back(static_cast<char>(high * 16 + low));
    i += 2;
  }
  if (!IsValidUtf8(text) || text.find('\0') != std::string::npos) return std::nullopt;
  return text;
}

std::string_view Trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

bool EqualsIgnoringCase(std::string_view a, std::string_view b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](char x, char y) {
           const auto lower = [](char c) {
             return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
           };
           return lower(x) == lower(y);
         });
}

// True when the parameters of a media range say q=0, q=0.0, ...
bool HasZeroQuality(std::string_view parameters) {
  while (!parameters.empty()) {
    const std::size_t end = std::min(parameters.find(';'), parameters.size());
    const std::string_view one = Trim(parameters.substr(0, end));
    parameters.remove_prefix(std::min(end + 1, parameters.size()));
    if (one.size() < 2 || !EqualsIgnoringCase(one.substr(0, 2), "q=")) continue;
    const std::string_view value = Trim(one.substr(2));
    return !value.empty() && value.find_first_not_of("0.") == std::string_view::npos;
  }
  return false;
}

}  // namespace

const Route* Match::Find(net::Method method) const {
  const auto of = [this](net::Method wanted) -> const Route* {
    for (const Route* route : methods)
      if (route->method == wanted) return route;
    return nullptr;
  };
  const Route* own = of(method);
  return own == nullptr && method == net::Method::kHead ? of(net::Method::kGet) : own;
}

std::string Match::Allow(bool for_options) const {
  std::string allow;
  if (for_options && Find(net::Method::kHead) != nullptr) allow += "HEAD,";
  if (Find(net::Method::kDelete) != nullptr) allow += "DELETE,";
  if (Find(net::Method::kPost) != nullptr) allow += "POST,";
  if (Find(net::Method::kPut) != nullptr) allow += "PUT,";
  if (Find(net::Method::kGet) != nullptr) allow += "GET,";
  return allow + "OPTIONS";
}

RouteTable::RouteTable(std::span<const Route> routes) {
  for (const Route& route : routes) {
    const std::vector<std::string_view> segments = SplitPattern(route.pattern);
    const auto same = std::find_if(paths_.begin(), paths_.end(),
                                   [&](const Path& path) { return path.segments == segments; });
    if (same != paths_.end()) {
      same->methods.push_back(&route);
    } else {
      paths_.push_back({segments, {&route}});
    }
  }
  std::stable_sort(paths_.begin(), paths_.end(), [](const Path& a, const Path& b) {
    return MoreLiteral(a.segments, b.segments);
  });
}

Match RouteTable::Find(std::string_view path) const {
  Match match;
  std::vector<std::string_view> segments;
  if (!SplitPath(path, &segments)) return match;
  for (const Path& candidate : paths_) {
    if (candidate.segments.size() != segments.size()) continue;
    std::size_t parameters = 0;
    bool same = true;
    for (std::size_t i = 0; same && i < segments.size(); ++i) {
      if (candidate.segments[i] == kParameter) {
        match.parameters[parameters++] = segments[i];
      } else {
        same = candidate.segments[i] == segments[i];
      }
    }
    if (!same) continue;
    match.parameter_count = parameters;
    match.methods = candidate.methods;
    return match;
  }
  return match;
}

std::optional<std::string> DecodeSegment(std::string_view raw) {
  return DecodeEscapes(raw, false);
}

std::string_view PathOf(std::string_view target) {
  return target.substr(0, target.find('?'));
}

Query::Query(std::string_view target) {
  const std::size_t mark = target.find('?');
  if (mark == std::string_view::npos) return;
  std::string_view rest = target.substr(mark + 1);
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find('&'), rest.size());
    const std::string_view pair = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    const std::size_t equals = std::min(pair.find('='), pair.size());
    auto name = DecodeEscapes(pair.substr(0, equals), true);
    auto value = DecodeEscapes(pair.substr(std::min(equals + 1, pair.size())), true);
    // A pair that cannot be decoded keeps its name with a value that no endpoint takes.
    if (name && !name->empty())
      values_.emplace_back(std::move(*name), value ? std::move(*value) : std::string(1, '\0'));
  }
}

std::optional<std::string_view> Query::Find(std::string_view name) const {
  for (const auto& [key, value] : values_)
    if (key == name) return std::string_view(value);
  return std::nullopt;
}

Query::Number Query::FindInt(std::string_view name, std::int64_t* value) const {
  const auto text = Find(name);
  if (!text) return Number::kAbsent;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), *value);
  const bool whole = error == std::errc{} && end == text->data() + text->size();
  return whole ? Number::kValid : Number::kMalformed;
}

bool AcceptsJson(std::string_view accept) {
  while (!accept.empty()) {
    const std::size_t end = std::min(accept.find(','), accept.size());
    const std::string_view range = accept.substr(0, end);
    accept.remove_prefix(std::min(end + 1, accept.size()));
    const std::size_t mark = std::min(range.find(';'), range.size());
    const std::string_view type = Trim(range.substr(0, mark));
    const bool matches = type == "*/*" || EqualsIgnoringCase(type, "application/*") ||
                         EqualsIgnoringCase(type, "application/json");
    if (matches && !HasZeroQuality(range.substr(std::min(mark + 1, range.size())))) return true;
  }
  return false;
}

MediaType ClassifyContentType(std::string_view content_type) {
  const std::string_view type = Trim(content_type.substr(0, content_type.find(';')));
  const std::size_t slash = type.find('/');
  if (slash == std::string_view::npos || slash == 0 || slash + 1 == type.size())
    return MediaType::kMalformed;
  if (type.find_first_of(" \t,") != std::string_view::npos) return MediaType::kMalformed;
  if (EqualsIgnoringCase(type, "application/json")) return MediaType::kJson;
  if (type.size() > 5 && EqualsIgnoringCase(type.substr(type.size() - 5), "+json"))
    return MediaType::kOtherJson;
  return MediaType::kOther;
}

}  // namespace latchkey::api
