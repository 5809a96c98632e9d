// What a program says of a command line that it cannot parse.
#pragma once

#include <string>
#include <vector>

namespace CLI {
class App;
class ParseError;
}  // namespace CLI

namespace latchkey {

// Names of the visible subcommands.
std::vector<std::string> CommandNames(const CLI::App& command);
// `latchkey secret rotate`.
std::string FullName(const CLI::App& command);
// CLI11's message on one line, as ours begin.
std::string UsageMessage(const CLI::ParseError& error);

struct UsageProblem {
  std::string message;
  std::string hint;
};
// After a parse that threw `error`: a missing command is answered with the commands, a misspelt one also
// with the one that was probably meant.
UsageProblem DescribeUsage(const CLI::App& root, const CLI::ParseError& error);
// The same as the two lines that the program prints.
std::string UsageText(const CLI::App& root, const CLI::ParseError& error);

}  // namespace latchkey
