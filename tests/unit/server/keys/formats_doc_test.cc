// docs/formats.md shows worked bytes. They are those of the golden vectors, which other tests
// compare with the code.
#include <catch2/catch.hpp>
#include <fstream>
#include <set>
#include <sstream>

#include "server/keys/row_mac.h"
#include "tests/support/vectors.h"

namespace latchkey {
namespace {

std::string WithoutBlanks(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c != ' ' && c != '\n') out.push_back(c);
  }
  return out;
}

TEST_CASE("Every worked example of the formats document equals its golden vector", "[keys]") {
  std::ifstream in(TESTS_SOURCE_DIR "/../docs/formats.md");
  REQUIRE(in);
  std::set<std::string> shown;
  for (std::string line; std::getline(in, line);) {
    // <!-- vector FILE RECORD FIELD -->, then a fenced block with the bytes.
    std::istringstream words(line);
    std::string open, keyword, file, record, field;
    if (!(words >> open >> keyword >> file >> record >> field) || open != "<!--" ||
        keyword != "vector")
      continue;
    CAPTURE(file, record, field);
    REQUIRE(std::getline(in, line));
    REQUIRE(line == "```");
    std::string block;
    while (std::getline(in, line) && line != "```") block += line + "\n";
    const auto records = tests::LoadVectors(file);
    const auto& vector = tests::FindVector(records, record);
    const std::string expected =
        file == "kek_file.txt" ? vector.Text(field) : HexLower(vector.Hex(field));
    CHECK(WithoutBlanks(block) == expected);
    shown.insert(file);
  }
  CHECK(shown == std::set<std::string>{"canonical.txt", "chain.txt", "checksum.txt",
                                       "envelopes.txt", "kcv.txt", "kek_file.txt", "keyring.txt",
                                       "rows.txt", "version.txt", "wrapped.txt"});
}

TEST_CASE("The formats document lists the columns of every MAC in their order", "[keys]") {
  std::ifstream in(TESTS_SOURCE_DIR "/../docs/formats.md");
  REQUIRE(in);
  std::set<std::string> listed;
  for (std::string line; std::getline(in, line);) {
    for (const std::string_view table : keys::MacTables()) {
      const std::string head = "| " + std::string(table) + " | ";
      if (line.rfind(head, 0) != 0) continue;
      std::string expected = head;
      for (const std::string& column : keys::MacColumns(table)) {
        expected += expected == head ? column : ", " + column;
        if (column == "state") expected += " (1 live, 2 deleted)";
      }
      CHECK(line == expected + " |");
      listed.emplace(table);
    }
  }
  CHECK(listed.size() == keys::MacTables().size());
}

}  // namespace
}  // namespace latchkey
