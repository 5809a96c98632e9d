// Names as the CLI takes them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.h"
#include "common/base/suggest.h"
#include "common/model/metadata.h"

namespace latchkey::cli {

enum class NameKind { kSecret, kClient, kGroup };

const char* KindWord(NameKind kind);  // "secret", "client", "group"

// The rule of the CLI (API spec 6.2): letters, digits and `_ - . :`, no leading dot, at most 195 bytes for secrets and 255
// for others. Checked before any request. Errors: kInvalidArgument naming the rule.
Status CheckName(NameKind kind, std::string_view name);

// Metadata as the CLI takes it: keys `owner`, `group`, `mode`, `filename`, or `_` followed by the alphabet of names; mode
// octal with a leading 0. On top of CheckMetadata, which the server applies too.
Status CheckCliMetadata(const Metadata& metadata);

}  // namespace latchkey::cli
