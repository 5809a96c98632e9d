// What was probably meant by a word that is misspelt.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace latchkey {

// Edits between two words: insert, delete, replace, swap of neighbours.
std::size_t EditDistance(std::string_view a, std::string_view b);

// At most three of `known` that `word` may have meant, nearest first; empty when nothing is near.
std::vector<std::string> Suggest(std::string_view word, const std::vector<std::string>& known);

// `did you mean "a" or "b"?`; empty for no names.
std::string DidYouMean(const std::vector<std::string>& names);

}  // namespace latchkey
