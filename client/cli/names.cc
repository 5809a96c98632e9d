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

std::size_t EditDistance(std::string_view a, std::string_view b) {
  // Three rows of the usual matrix: the one before the last is for the swap of neighbours.
  std::vector<std::size_t> before, last(b.size() + 1), row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) last[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replace = last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, replace});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        row[j] = std::min(row[j], before[j - 2] + 1);
      }
    }
    before = last;
    last = row;
  }
  return last[b.size()];
}

std::vector<std::string> Suggest(std::string_view word, const std::vector<std::string>& known) {
  constexpr std::size_t kMostSuggestions = 3;
  const std::size_t farthest = std::max<std::size_t>(1, std::min<std::size_t>(3, word.size() / 3));
  std::vector<std::pair<std::size_t, std::string_view>> near;
  for (const std::string& name : known) {
    const std::size_t gap =
        name.size() > word.size() ? name.size() - word.size() : word.size() - name.size();
    if (name == word || gap > farthest) continue;
    const std::size_t distance = EditDistance(word, name);
    if (distance <= farthest) near.emplace_back(distance, name);
  }
  std::sort(near.begin(), near.end());
  std::vector<std::string> names;
  for (const auto& [distance, name] : near) {
    if (names.size() == kMostSuggestions || distance > near.front().first + 1) break;
    names.emplace_back(name);
  }
  return names;
}

std::string DidYouMean(const std::vector<std::string>& names) {
  if (names.empty()) return {};
  std::string text = "did you mean ";
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (i > 0) text += i + 1 == names.size() ? " or " : ", ";
    text += Quoted(names[i]);
  }
  return text + "?";
}

}  // namespace latchkey::cli
