#include "common/base/suggest.h"

#include <catch2/catch.hpp>
#include <random>

namespace latchkey {

TEST_CASE("Edit distance counts inserts, deletes, replacements and swaps", "[base]") {
  const auto [a, b, distance] =
      GENERATE(table<std::string, std::string, std::size_t>({{"", "", 0},
                                                             {"", "abc", 3},
                                                             {"abc", "abc", 0},
                                                             {"abc", "ab", 1},
                                                             {"abc", "axc", 1},
                                                             {"abc", "acb", 1},
                                                             {"db_pasword", "db_password", 1},
                                                             {"kitten", "sitting", 3},
                                                             {"ca", "abc", 3}}));
  CHECK(EditDistance(a, b) == distance);
  CHECK(EditDistance(b, a) == distance);
}

TEST_CASE("Edit distance never exceeds the edits that were made", "[base]") {
  std::mt19937 random(Catch::rngSeed());
  for (int round = 0; round < 500; ++round) {
    std::string word(random() % 12, ' '), other;
    for (char& c : word) c = static_cast<char>('a' + random() % 4);
    other = word;
    const std::size_t edits = random() % 4;
    for (std::size_t i = 0; i < edits; ++i) {
      const std::size_t at = random() % (other.size() + 1);
      if (random() % 2 == 0) {
        other.insert(at, 1, 'x');
      } else if (at < other.size()) {
        other.erase(at, 1);
      }
    }
    CHECK(EditDistance(word, other) <= edits);
    CHECK((EditDistance(word, other) == 0) == (word == other));
  }
}

TEST_CASE("Suggestions are near, few, and nearest first", "[base]") {
  const std::vector<std::string> known{"db_password", "db_passwords", "api_key", "db", "tls_key"};
  CHECK(Suggest("db_pasword", known) == std::vector<std::string>{"db_password", "db_passwords"});
  CHECK(Suggest("api_kay", known) == std::vector<std::string>{"api_key"});
  CHECK(Suggest("something_else", known).empty());
  CHECK(Suggest("dc", known) == std::vector<std::string>{"db"});
  CHECK(Suggest("db", known).empty());  // it exists
  CHECK(Suggest("aa", {"ab", "ac", "ad", "ae"}).size() == 3);
  CHECK(DidYouMean({}).empty());
  CHECK(DidYouMean({"a"}) == "did you mean \"a\"?");
  CHECK(DidYouMean({"a", "b", "c"}) == "did you mean \"a\", \"b\" or \"c\"?");
}

}  // namespace latchkey
