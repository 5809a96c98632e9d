#include "common/usage/usage.h"

#include <CLI/CLI.hpp>
#include <algorithm>

#include "common/base/suggest.h"

namespace latchkey {
namespace {

const CLI::App& DeepestNamed(const CLI::App& root) {
  const CLI::App* command = &root;
  for (auto named = command->get_subcommands(); !named.empty(); named = command->get_subcommands())
    command = named.front();
  return *command;
}

std::string Listed(const std::vector<std::string>& names) {
  std::string text = "commands:";
  for (const std::string& name : names) text += (text.back() == ':' ? " " : ", ") + name;
  return text;
}

}  // namespace

std::vector<std::string> CommandNames(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::App* sub : command.get_subcommands([](const CLI::App*) { return true; })) {
    if (!sub->get_group().empty()) names.push_back(sub->get_name());
  }
  return names;
}

std::string FullName(const CLI::App& command) {
  std::string name = command.get_name();
  for (const CLI::App* parent = command.get_parent(); parent != nullptr;
       parent = parent->get_parent()) {
    name = parent->get_name() + " " + name;
  }
  return name;
}

std::string UsageMessage(const CLI::ParseError& error) {
  std::string message = error.what();
  for (char& c : message) {
    if (c == '\n') c = ' ';
  }
  if (!message.empty() && message[0] >= 'A' && message[0] <= 'Z') {
    message[0] = static_cast<char>(message[0] - 'A' + 'a');
  }
  return message;
}

UsageProblem DescribeUsage(const CLI::App& root, const CLI::ParseError& error) {
  const CLI::App& command = DeepestNamed(root);
  const std::string see = "see `" + FullName(command) + " --help`";
  const std::vector<std::string> names = CommandNames(command);
  const bool of_command = error.get_name() == "RequiredError" || error.get_name() == "ExtrasError";
  if (names.empty() || !of_command) return {UsageMessage(error), see};
  const std::vector<std::string> words = root.remaining(true);
  const auto word = std::find_if(words.begin(), words.end(), [](const std::string& text) {
    return !text.empty() && text.front() != '-';
  });
  if (word == words.end()) return {"no command given", Listed(names) + "; " + see};
  const std::string meant = DidYouMean(Suggest(*word, names));
  return {FullName(command) + " has no command \"" + *word + "\"",
          (meant.empty() ? "" : meant + " ") + Listed(names)};
}

std::string UsageText(const CLI::App& root, const CLI::ParseError& error) {
  const UsageProblem problem = DescribeUsage(root, error);
  const std::string name = root.get_name();
  return name + ": error: " + problem.message + "\n" + name + ": hint: " + problem.hint + "\n";
}

}  // namespace latchkey
