// The hash under which names stand in the indexes of the catalog. Internal to the catalog.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

namespace latchkey::catalog {

// Collisions are told apart by comparing names. Names are made by automation clients only: making
// many collide costs lookups of those very names some time and nothing else.
inline std::uint64_t NameHash(std::string_view text) {
  return std::hash<std::string_view>{}(text);
}

}  // namespace latchkey::catalog
