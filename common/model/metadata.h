// Metadata of a secret or group: an ordered map of strings. Order is the order given at creation (API spec Appendix C).
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/result.h"

namespace latchkey {

using Metadata = std::vector<std::pair<std::string, std::string>>;

const std::string* FindMetadata(const Metadata& metadata, std::string_view key);

// Rules for metadata of a new version. kInvalidArgument: more than 64 entries or 64 KiB; a key that equals, ignoring case,
// a member of the delivery object (name, secret, secretLength, checksum, creationDate, updateDate); a `mode` that is not
// octal digits within 0777 (set-id and type bits refused); a `filename` outside the mount's name rule (rule F2); NUL bytes.
Status CheckMetadata(const Metadata& metadata);

// Names that can be mounted: [A-Za-z0-9_.:-]{1,195}, no leading dot (rule F2).
bool IsMountableName(std::string_view name);

}  // namespace latchkey
