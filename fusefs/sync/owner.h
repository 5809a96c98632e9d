// Who may read a mounted secret: metadata `mode`, `owner`, `group` turned into numbers (rules F3,
// R21). Never in a handler.
#pragma once

#include <cstdint>
#include <string>

#include "common/model/metadata.h"

namespace latchkey::sync {

struct OwnerDefaults {
  std::uint32_t mode = 0440;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
};

struct FileOwner {
  std::uint32_t mode = 0400;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::string problem;  // empty, or one line: an unknown name, a bad mode
  bool operator==(const FileOwner&) const = default;
};

// Missing entries take the defaults. An unknown user or group, or a mode that is not octal, gives
// 0400 root, never anything wider. The mode is masked to 0444. Asks NSS: may read files or block;
// call it on the sync thread only.
FileOwner ResolveOwner(const Metadata& metadata, const OwnerDefaults& defaults);

}  // namespace latchkey::sync
