#include "common/model/metadata.h"

#include <strings.h>

#include <array>

#include "common/base/utf8.h"
#include "common/model/limits.h"

namespace latchkey {
namespace {

constexpr std::array<const char*, 6> kDeliveryMembers = {"name",     "secret",       "secretLength",
                                                         "checksum", "creationDate", "updateDate"};

bool IsOctalMode(std::string_view mode) {
  if (mode.empty() || mode.size() > 5) return false;
  unsigned value = 0;
  for (const char c : mode) {
    if (c < '0' || c > '7') return false;
    value = value * 8 + static_cast<unsigned>(c - '0');
  }
  return value <= 0777;
}

Status CheckEntry(const std::string& key, const std::string& value) {
  if (key.empty()) return Error{Errc::kInvalidArgument, "metadata key may not be empty"};
  if (!IsValidUtf8(key) || !IsValidUtf8(value))
    return Error{Errc::kInvalidArgument, "metadata is not valid UTF-8"};
  if (key.find('\0') != std::string::npos || value.find('\0') != std::string::npos)
    return Error{Errc::kInvalidArgument, "metadata holds a NUL byte"};
  for (const char* reserved : kDeliveryMembers) {
    if (strcasecmp(key.c_str(), reserved) == 0)
      return Error{Errc::kInvalidArgument, "metadata key \"" + key + "\" is reserved"};
  }
  if (key == "mode" && !IsOctalMode(value))
    return Error{Errc::kInvalidArgument, "metadata mode must be octal digits up to 0777"};
  if (key == "filename" && !IsMountableName(value))
    return Error{Errc::kInvalidArgument,
                 "metadata filename must match [A-Za-z0-9_.:-]{1,195} without leading dot"};
  return {};
}

}  // namespace

const std::string* FindMetadata(const Metadata& metadata, std::string_view key) {
  for (const auto& [k, v] : metadata)
    if (k == key) return &v;
  return nullptr;
}

Status CheckMetadata(const Metadata& metadata) {
  if (metadata.size() > limits::kMaxMetadataEntries)
    return Error{
        Errc::kInvalidArgument,
        "metadata has more than " + std::to_string(limits::kMaxMetadataEntries) + " entries"};
  std::size_t bytes = 2;
  for (const auto& [key, value] : metadata) {
    bytes += key.size() + value.size() + 6;
    RETURN_IF_ERROR(CheckEntry(key, value));
  }
  if (bytes > limits::kMaxMetadataBytes)
    return Error{Errc::kInvalidArgument,
                 "metadata is larger than " + std::to_string(limits::kMaxMetadataBytes) + " bytes"};
  return {};
}

bool IsMountableName(std::string_view name) {
  if (name.empty() || name.size() > limits::kMaxSecretNameChars || name.front() == '.')
    return false;
  for (const char c : name) {
    const bool allowed = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                         (c >= '0' && c <= '9') || c == '_' || c == '.' || c == ':' || c == '-';
    if (!allowed) return false;
  }
  return true;
}

}  // namespace latchkey
