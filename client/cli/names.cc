#include "client/cli/names.h"

#include <algorithm>
#include <cstdint>

#include "common/model/limits.h"

namespace latchkey::cli {
namespace {

bool IsNameByte(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '-' || c == '.' || c == ':';
}

bool AreNameBytes(std::string_view text) {
  return std::all_of(text.begin(), text.end(), IsNameByte);
}

std::string Quoted(std::string_view text) {
  return "\"" + std::string(text) + "\"";
}

}  // namespace

const char* KindWord(NameKind kind) {
  switch (kind) {
    case NameKind::kSecret:
      return "secret";
    case NameKind::kClient:
      return "client";
    case NameKind::kGroup:
      return "group";
  }
  INVARIANT(false);
}

Status CheckName(NameKind kind, std::string_view name) {
  const std::string subject = std::string(KindWord(kind)) + " name " + Quoted(name);
  const std::size_t limit =
      kind == NameKind::kSecret ? limits::kMaxSecretNameChars : limits::kMaxNameBytes;
  if (name.empty())
    return Error{Errc::kInvalidArgument, std::string(KindWord(kind)) + " name is empty"};
  if (!AreNameBytes(name)) {
    return Error{Errc::kInvalidArgument, subject + " may only hold letters, digits and _ - . :"};
  }
  if (name.front() == '.')
    return Error{Errc::kInvalidArgument, subject + " may not start with a dot"};
  if (name.size() > limit) {
    return Error{Errc::kInvalidArgument,
                 subject + " is longer than " + std::to_string(limit) + " characters"};
  }
  return {};
}

Status CheckCliMetadata(const Metadata& metadata) {
  static constexpr std::string_view kKnown[] = {"owner", "group", "mode", "filename"};
  for (const auto& [key, value] : metadata) {
    const bool known = std::find(std::begin(kKnown), std::end(kKnown), key) != std::end(kKnown);
    const bool own = key.size() > 1 && key.front() == '_' && AreNameBytes(key);
    if (!known && !own) {
      return Error{
          Errc::kInvalidArgument,
          "metadata key " + Quoted(key) + " must be owner, group, mode, filename, or start with _"};
    }
    if (key == "mode") {
      const bool octal =
          value.size() > 1 && value.front() == '0' &&
          std::all_of(value.begin(), value.end(), [](char c) { return c >= '0' && c <= '7'; });
      if (!octal) {
        return Error{Errc::kInvalidArgument,
                     "mode " + Quoted(value) + " must be octal with a leading 0, such as 0440"};
      }
    }
  }
  return CheckMetadata(metadata);
}

}  // namespace latchkey::cli
