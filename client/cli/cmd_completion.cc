// latchkey completion SHELL prints a script; the script asks the hidden command `latchkey __complete -- WORDS...`, which
// knows the commands and, with a short deadline, the names that exist on the server.
#include "client/cli/app.h"
#include "client/cli/command.h"
#include "client/cli/exit_codes.h"

namespace latchkey::cli {
namespace {

constexpr const char* kBash =
    R"(# bash completion of latchkey; put it into /etc/bash_completion.d, or: source <(latchkey completion bash)
_latchkey() {
  local cur=${COMP_WORDS[COMP_CWORD]} line
  local -a words=("${COMP_WORDS[@]:1:COMP_CWORD}")
  # Colons split words in bash, and names may hold them: take the words as they were typed where bash-completion helps.
  if declare -F _get_comp_words_by_ref >/dev/null; then
    local typed_words typed_index
    _get_comp_words_by_ref -n := -c cur -w typed_words -i typed_index
    words=("${typed_words[@]:1:typed_index}")
  fi
  COMPREPLY=()
  while IFS= read -r line; do
    if [ "$line" = ":files" ]; then
      compopt -o default
      COMPREPLY=()
      return 0
    fi
    # What lands on the command line is one word and no code, whatever was offered.
    printf -v line %q "${line%%$'\t'*}"
    COMPREPLY+=("$line")
  done < <(latchkey __complete -- "${words[@]}" 2>/dev/null)
  if declare -F __ltrim_colon_completions >/dev/null; then __ltrim_colon_completions "$cur"; fi
  return 0
}
complete -F _latchkey latchkey
)";

constexpr const char* kZsh = R"(#compdef latchkey
# zsh completion of latchkey; put it into a directory of $fpath as _latchkey, or, after compinit has run:
# source <(latchkey completion zsh)
_latchkey() {
  local line
  local -a candidates
  for line in "${(@f)$(latchkey __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
    if [[ "$line" == ":files" ]]; then
      _files
      return
    fi
    [[ -n "$line" ]] || continue
    line=${line//:/\\:}
    candidates+=("${line/$'\t'/:}")
  done
  _describe 'latchkey' candidates
}
if [[ "$funcstack[1]" == "_latchkey" ]]; then
  _latchkey "$@"
else
  compdef _latchkey latchkey
fi
)";

constexpr const char* kFish =
    R"(# fish completion of latchkey; put it into ~/.config/fish/completions/latchkey.fish
function __latchkey_complete
    set -l words (commandline -opc)[2..-1] (commandline -ct)
    for line in (latchkey __complete -- $words 2>/dev/null)
        if test "$line" = ":files"
            __fish_complete_path (commandline -ct)
        else
            echo $line
        end
    end
end
complete -c latchkey -f -a '(__latchkey_complete)'
)";

struct Shell {
  std::string name;
};
struct Words {
  std::vector<std::string> words;
};

Result<int> PrintScript(Session& session, const Shell& options) {
  session.Print(options.name == "bash" ? kBash : options.name == "zsh" ? kZsh : kFish);
  return kExitDone;
}

// Names that are the same word in every shell and no option. The server takes nearly any text as a name, from whoever has
// the automation bit, and a shell puts what is offered on the command line of somebody else.
std::vector<std::string> SafeWords(NameKind kind, Result<std::vector<std::string>> names) {
  if (!names.has_value()) return {};
  std::erase_if(*names, [kind](const std::string& name) {
    return !CheckName(kind, name).has_value() || name.starts_with("-");
  });
  return *std::move(names);
}

// What fits a value of this type name; nothing when the server does not answer quickly.
// `own_names`: the command works with a client's own certificate, which may not list everything.
std::vector<std::string> Candidates(Session& session, const std::string& type, bool own_names) {
  session.quick = true;
  if (type == kSecretArgument && own_names) return SafeWords(NameKind::kSecret, session.OwnNames());
  for (const auto& [argument, kind] : {std::pair(kSecretArgument, NameKind::kSecret),
                                       std::pair(kClientArgument, NameKind::kClient),
                                       std::pair(kGroupArgument, NameKind::kGroup)}) {
    if (type == argument) return SafeWords(kind, session.LiveNames(kind));
  }
  if (type == kFileArgument) return {":files"};
  if (type == "SHELL") return {"bash", "zsh", "fish"};
  if (type == "CHAIN") return {"both", "store", "access"};
  if (type == "SPEC") return {"alnum:32", "hex:64", "base64:32", "uuid"};
  return {};
}

// The positional argument at `index`; the last one may take many words.
const CLI::Option* ArgumentAt(const CLI::App* command, std::size_t index) {
  const CLI::Option* last = nullptr;
  for (const CLI::Option* option : command->get_options()) {
    if (option->nonpositional() || !option->get_positional()) continue;
    last = option;
    if (index == 0) return option;
    --index;
  }
  return last != nullptr && last->get_items_expected_max() > 1 ? last : nullptr;
}

void AppendOptionNames(const CLI::App* command, std::vector<std::string>* lines) {
  for (; command != nullptr; command = command->get_parent()) {
    for (const CLI::Option* option : command->get_options()) {
      for (const std::string& name : option->get_lnames()) {
        lines->push_back("--" + name + "\t" + option->get_description());
      }
    }
  }
}

std::vector<std::string> Complete(Session& session, const CLI::App& root,
                                  const std::vector<std::string>& before,
                                  const std::string& current) {
  const Position position = Walk(root, before);
  if (!position.unknown.empty()) return {};
  const bool own_names = position.command->get_name() == "get";
  if (position.option != nullptr) {
    return Candidates(session, static_cast<const CLI::Option*>(position.option)->get_type_name(),
                      own_names);
  }
  std::vector<std::string> lines;
  if (!position.only_arguments && current.starts_with("-")) {
    AppendOptionNames(position.command, &lines);
    return lines;
  }
  for (const CLI::App* sub :
       position.command->get_subcommands([](const CLI::App*) { return true; })) {
    if (!sub->get_group().empty()) lines.push_back(sub->get_name() + "\t" + sub->get_description());
  }
  if (!lines.empty()) return lines;
  const CLI::Option* argument = ArgumentAt(position.command, position.arguments);
  return argument == nullptr ? lines : Candidates(session, argument->get_type_name(), own_names);
}

Result<int> RunComplete(Session& session, const Words& options) {
  CLI::App root;
  Invocation unused;
  BuildCommands(root, &unused);
  std::vector<std::string> before = options.words;
  std::string current;
  if (!before.empty()) {
    current = before.back();
    before.pop_back();
  }
  // The certificate may be given on the line that is being completed.
  for (std::size_t i = 0; i + 1 < before.size(); ++i) {
    ConnectionOptions& connection = session.connection();
    if (before[i] == "--addr") connection.address = before[i + 1];
    if (before[i] == "--ca") connection.ca_file = before[i + 1];
    if (before[i] == "--cert") connection.cert_file = before[i + 1];
    if (before[i] == "--key") connection.key_file = before[i + 1];
  }
  std::string text;
  for (const std::string& line : Complete(session, root, before, current)) {
    if (line != ":files" && !line.starts_with(current)) continue;
    // A name that a terminal would interpret, or that a shell's line would split, is left out.
    if (line.find('\n') == std::string::npos &&
        Printable(line.substr(0, line.find('\t'))) == line.substr(0, line.find('\t'))) {
      text += line + "\n";
    }
  }
  session.Print(text);
  return kExitDone;
}

}  // namespace

void AddCompletion(CLI::App& root, Invocation* invocation) {
  auto shell = std::make_shared<Shell>();
  CLI::App* completion = AddCommand(root, invocation, "completion",
                                    "Print the completion script of a shell", shell, PrintScript);
  completion->add_option("shell", shell->name, "bash, zsh or fish")
      ->required()
      ->type_name("SHELL")
      ->check(CLI::IsMember({"bash", "zsh", "fish"}).description(""));

  auto words = std::make_shared<Words>();
  CLI::App* hidden =
      AddCommand(root, invocation, "__complete", "for completion scripts", words, RunComplete);
  hidden->group("");
  hidden->add_option("words", words->words, "the words after the program's name, up to the cursor");
}

}  // namespace latchkey::cli
