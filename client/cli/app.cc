#include "client/cli/app.h"

#include <algorithm>

#include "client/cli/command.h"
#include "client/cli/exit_codes.h"
#include "client/cli/wait.h"

namespace latchkey::cli {
namespace {

constexpr const char* kFooter =
    "Environment: LATCHKEY_ADDR (host:port), LATCHKEY_CA, LATCHKEY_CERT, LATCHKEY_KEY (PEM "
    "files).\n"
    "Exit codes: 0 done, 2 usage, 3 not authenticated, 4 not allowed, 5 not found, 6 conflict, 7 "
    "try again later,\n"
    "8 damaged data, 1 a bug. See `latchkey COMMAND --help`.";

bool TakesValue(const CLI::Option* option) {
  return option->get_items_expected_max() > 0;
}

const CLI::App* FindCommand(const CLI::App* parent, const std::string& name) {
  for (const CLI::App* sub : parent->get_subcommands([](const CLI::App*) { return true; })) {
    if (sub->get_name() == name) return sub;
  }
  return nullptr;
}

// The option that a word such as `--name`, `--name=x` or `-o` means, in the command or above it.
const CLI::Option* FindOption(const CLI::App* command, std::string_view word) {
  const std::string name(word.substr(0, word.find('=')));
  for (; command != nullptr; command = command->get_parent()) {
    for (const CLI::Option* option : command->get_options()) {
      if (option->nonpositional() && option->check_name(name)) return option;
    }
  }
  return nullptr;
}

// CLI11 would take the next word as the value of an option whose value is optional: `--wait` takes one only after `=`.
std::vector<std::string> SpellOutWait(std::vector<std::string> words) {
  for (std::string& word : words) {
    if (word == "--") break;
    if (word == "--wait") word = "--wait=" + std::to_string(kDefaultWaitSeconds);
  }
  return words;
}

// `latchkey help secret rotate` is `latchkey secret rotate --help`.
std::vector<std::string> SpellOutHelp(std::vector<std::string> words) {
  if (words.empty() || words.front() != "help") return words;
  words.erase(words.begin());
  words.push_back("--help");
  return words;
}

int UsageError(Terminal& terminal, bool json, const std::string& message,
               const std::vector<std::string>& meant, const std::string& where) {
  if (json) {
    std::string text;
    wire::JsonOut out(&text);
    out.BeginObject().Text("error", "usage").Text("message", message);
    WriteTexts(out, "didYouMean", meant);
    out.EndObject();
    terminal.ErrJson(text);
    return kExitUsage;
  }
  terminal.ErrorLine(message);
  terminal.HintLine(meant.empty() ? "see `" + where + " --help`" : DidYouMean(meant));
  return kExitUsage;
}

// Words that other programs use, for commands of ours; then what is spelt like one.
std::vector<std::string> MeantCommands(const CLI::App& command, const std::string& word) {
  const std::vector<std::string> names = CommandNames(command);
  static constexpr std::pair<std::string_view, std::string_view> kElsewhere[] = {
      {"ls", "list"},    {"rm", "delete"},  {"remove", "delete"},
      {"add", "create"}, {"new", "create"}, {"update", "rotate"},
      {"set", "rotate"}, {"put", "rotate"}, {"history", "versions"}};
  for (const auto& [theirs, ours] : kElsewhere) {
    if (word == theirs && std::find(names.begin(), names.end(), ours) != names.end())
      return {std::string(ours)};
  }
  // Reading a content is no command of administrators, so it stands by itself.
  if (command.get_name() == "secret" && word == "get") return {"latchkey get"};
  return Suggest(word, names);
}

// `--wait 5`: its value comes after a `=`, because it may be left out.
std::vector<std::string> MeantWait(const std::vector<std::string>& words) {
  for (std::size_t i = 0; i + 1 < words.size() && words[i] != "--"; ++i) {
    const std::string& next = words[i + 1];
    if (words[i] == "--wait" && !next.empty() && next.find_first_not_of("0123456789") == next.npos)
      return {"--wait=" + next};
  }
  return {};
}

int Execute(const Invocation& invocation, const ConnectionOptions& environment,
            Terminal& terminal) {
  ConnectionOptions connection = invocation.connection;
  if (connection.address.empty()) connection.address = environment.address;
  if (connection.ca_file.empty()) connection.ca_file = environment.ca_file;
  if (connection.cert_file.empty()) connection.cert_file = environment.cert_file;
  if (connection.key_file.empty()) connection.key_file = environment.key_file;
  Session session(terminal, std::move(connection));
  session.json = invocation.json;
  session.dry_run = invocation.dry_run;
  const auto result = invocation.action(session);
  const int code = result.has_value() ? *result : session.Fail(result.error());
  if (terminal.out_failed()) {
    terminal.ErrorLine("cannot write to standard output");
    return code == kExitDone ? ExitCodeOf(Errc::kUnavailable) : code;
  }
  return code;
}

// The help of a command lists its own options only.
void NameGlobalOptions(CLI::App* command) {
  for (CLI::App* sub : command->get_subcommands([](CLI::App*) { return true; })) {
    const std::string own = sub->get_footer();
    sub->footer(own + (own.empty() ? "" : "\n") +
                "Also taken: --json, --addr, --ca, --cert, --key; see `latchkey --help`.");
    NameGlobalOptions(sub);
  }
}

}  // namespace

void AddDryRun(CLI::App* command, Invocation* invocation) {
  command->add_flag("--dry-run", invocation->dry_run,
                    "check what can be checked, say what would be done, change nothing");
}

void BuildCommands(CLI::App& root, Invocation* invocation) {
  root.name("latchkey");
  root.description("Manage secrets, clients, groups and grants of a Latchkey server.");
  root.footer(kFooter);
  root.require_subcommand(1)->fallthrough();
  root.set_version_flag("--version", std::string("latchkey ") + LATCHKEY_VERSION);
  root.add_flag("--json", invocation->json, "print results as JSON, the stable form");
  root.add_option("--addr", invocation->connection.address, "server, host:port")
      ->type_name("ADDRESS");
  root.add_option("--ca", invocation->connection.ca_file, "CA of the server")
      ->type_name(kFileArgument);
  root.add_option("--cert", invocation->connection.cert_file, "own certificate")
      ->type_name(kFileArgument);
  root.add_option("--key", invocation->connection.key_file, "its key")->type_name(kFileArgument);

  CLI::App* secret = root.add_subcommand("secret", "Secrets and their versions");
  secret->require_subcommand(1)->fallthrough();
  AddSecretCreate(*secret, invocation);
  AddSecretRotate(*secret, invocation);
  AddSecretList(*secret, invocation);
  AddSecretShow(*secret, invocation);
  AddSecretVersions(*secret, invocation);
  AddSecretRollback(*secret, invocation);
  AddSecretRename(*secret, invocation);
  AddSecretDelete(*secret, invocation);
  AddSecretUndelete(*secret, invocation);
  AddClientCommands(root, invocation);
  AddGroupCommands(root, invocation);
  AddGrant(root, invocation);
  AddRevoke(root, invocation);
  AddWho(root, invocation);
  AddCan(root, invocation);
  AddServing(root, invocation);
  AddAudit(root, invocation);
  AddStatus(root, invocation);
  AddGet(root, invocation);
  AddCompletion(root, invocation);
  NameGlobalOptions(&root);
}

Position Walk(const CLI::App& root, const std::vector<std::string>& words) {
  Position position;
  position.command = &root;
  for (const std::string& word : words) {
    if (position.option != nullptr) {
      position.option = nullptr;  // this word is its value
    } else if (position.only_arguments) {
      ++position.arguments;
    } else if (word == "--") {
      position.only_arguments = true;
    } else if (word.size() > 1 && word.front() == '-') {
      const CLI::Option* option = FindOption(position.command, word);
      const bool bare = word.find('=') == std::string::npos && word != "--wait";
      if (option != nullptr && bare && TakesValue(option)) position.option = option;
    } else if (const CLI::App* sub = FindCommand(position.command, word);
               sub != nullptr && position.arguments == 0) {
      position.command = sub;
    } else if (!position.command->get_subcommands([](const CLI::App*) { return true; }).empty()) {
      position.unknown = word;
      return position;
    } else {
      ++position.arguments;
    }
  }
  return position;
}

int RunProgram(const std::vector<std::string>& typed, const ConnectionOptions& environment,
               Terminal& terminal) {
  const std::vector<std::string> words = SpellOutHelp(typed);
  CLI::App root;
  Invocation invocation;
  BuildCommands(root, &invocation);
  const Position position = Walk(root, words);
  const std::string where = FullName(*position.command);
  const bool json = std::find(words.begin(), words.end(), "--json") != words.end();
  if (!position.unknown.empty()) {
    return UsageError(terminal, json, where + " has no command \"" + position.unknown + "\"",
                      MeantCommands(*position.command, position.unknown), where);
  }
  std::vector<std::string> reversed = SpellOutWait(words);
  std::reverse(reversed.begin(), reversed.end());  // CLI11 takes words from the end
  try {
    root.parse(std::move(reversed));
  } catch (const CLI::CallForHelp&) {
    const CLI::App* parent = position.command->get_parent();
    terminal.Out(position.command->help(parent == nullptr ? "" : FullName(*parent)));
    return kExitDone;
  } catch (const CLI::CallForVersion& version) {
    terminal.Out(json ? "{\"version\":\"" LATCHKEY_VERSION "\"}\n"
                      : std::string(version.what()) + "\n");
    return kExitDone;
  } catch (const CLI::ParseError& error) {
    return UsageError(terminal, json, UsageMessage(error), MeantWait(words), where);
  }
  INVARIANT(invocation.action);
  return Execute(invocation, environment, terminal);
}

}  // namespace latchkey::cli
