// What the operator sets of the use cases. Immutable after start.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "common/model/limits.h"

namespace latchkey::service {

// A secret whose name begins with `prefix` must be owned by the group `owner` (API spec 6.1).
struct ReservedPrefix {
  std::string owner;
  std::string prefix;
};

struct Settings {
  std::size_t max_content_bytes = limits::kDefaultMaxContentBytes;  // decoded, inclusive
  std::vector<ReservedPrefix> reserved_prefixes;
  bool hide_names = false;  // ungranted secrets answer 404 like unknown ones
};

}  // namespace latchkey::service
