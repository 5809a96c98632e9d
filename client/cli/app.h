// The program without its process: command line in, exit code out. main.cc gives it the environment.
#pragma once

#include <string>
#include <vector>

#include "client/cli/session.h"
#include "client/cli/terminal.h"
#include "common/usage/usage.h"

namespace latchkey::cli {

struct Invocation;

// `words` without the name of the program. `environment` is used where a flag is not given.
int RunProgram(const std::vector<std::string>& words, const ConnectionOptions& environment,
               Terminal& terminal);

// The tree of commands. Borrowed `invocation` is filled by a parse.
void BuildCommands(CLI::App& root, Invocation* invocation);

// Where a command line has got to, word by word, without parsing values: for completion and for unknown commands.
struct Position {
  const CLI::App* command = nullptr;  // the deepest command named so far
  std::size_t arguments = 0;          // positional words after it
  std::string unknown = {};           // a word where a command was expected; the walk ended there
  const void* option = nullptr;       // CLI::Option that waits for its value
  bool only_arguments = false;        // after `--`
};
Position Walk(const CLI::App& root, const std::vector<std::string>& words);

}  // namespace latchkey::cli
