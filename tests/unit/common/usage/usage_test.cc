#include "common/usage/usage.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <catch2/catch.hpp>

namespace latchkey {
namespace {

UsageProblem Said(std::vector<std::string> words) {
  CLI::App app("a program", "prog");
  app.require_subcommand(1)->fallthrough();
  std::string file;
  app.add_option("--config", file, "a file");
  app.add_subcommand("mount", "one");
  app.add_subcommand("status", "two");
  app.add_subcommand("client", "three")->require_subcommand(1)->add_subcommand("set", "four");
  std::reverse(words.begin(), words.end());
  try {
    app.parse(words);
  } catch (const CLI::ParseError& error) {
    return DescribeUsage(app, error);
  }
  return {};
}

}  // namespace

TEST_CASE("A missing command is answered with the commands", "[usage]") {
  CHECK(Said({}).message == "no command given");
  CHECK(Said({}).hint == "commands: mount, status, client; see `prog --help`");
  CHECK(Said({"client"}).message == "no command given");
  CHECK(Said({"client"}).hint == "commands: set; see `prog client --help`");
}

TEST_CASE("A misspelt command is answered with the one that was meant", "[usage]") {
  for (const auto& words : {std::vector<std::string>{"statsu"}, {"--config", "x", "statsu"}}) {
    const UsageProblem said = Said(words);
    CHECK(said.message == "prog has no command \"statsu\"");
    CHECK(said.hint == "did you mean \"status\"? commands: mount, status, client");
  }
  CHECK(Said({"client", "ste"}).message == "prog client has no command \"ste\"");
  CHECK(Said({"something"}).hint == "commands: mount, status, client");
}

TEST_CASE("Any other mistake is said in one line, with the help of its command", "[usage]") {
  CHECK(Said({"--config"}).hint == "see `prog --help`");
  CHECK(Said({"mount", "--nonsense"}).hint == "see `prog mount --help`");
  CHECK(Said({"mount", "--nonsense"}).message.find("--nonsense") != std::string::npos);
  CHECK(Said({"status"}).message.empty());
}

}  // namespace latchkey
