#include "common/base/suggest.h"

#include <algorithm>
#include <utility>

namespace latchkey {

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
    text += "\"" + names[i] + "\"";
  }
  return text + "?";
}

}  // namespace latchkey
