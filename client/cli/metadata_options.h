// The flags that say what a secret is besides its content; shared by create and rotate.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/base/result.h"
#include "common/model/metadata.h"

namespace latchkey::cli {

struct MetadataOptions {
  std::optional<std::string> mode, owner, group, filename, description, type, expiry;
  std::vector<std::string> pairs;  // key=value; an empty value removes the key

  void AddTo(CLI::App* command);
  bool touches_metadata() const { return mode || owner || group || filename || !pairs.empty(); }
  // `before` with the given keys set or removed; keys keep their place. kInvalidArgument as CheckCliMetadata.
  Result<Metadata> ApplyTo(Metadata before) const;
  // Seconds since 1970, 0 for "never"; nullopt when the flag was not given.
  Result<std::optional<std::int64_t>> ExpirySeconds() const;
};

// Seconds since 1970 as digits, `2027-01-31`, `2027-01-31T12:00:00Z` or with an offset, or `never`.
Result<std::int64_t> ParseExpiry(const std::string& text);

}  // namespace latchkey::cli
