// How a command enters the program: each cmd_*.cc adds itself to the tree of commands and leaves its action behind.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <string>

#include "client/cli/session.h"

namespace latchkey::cli {

// Runs a command; the value is the exit code.
using Action = std::function<Result<int>(Session&)>;

// What parsing the command line left to do.
struct Invocation {
  Action action;
  bool json = false;
  bool dry_run = false;
  ConnectionOptions connection;
};

// The type names of positional arguments tell the completion what to offer.
inline constexpr const char* kSecretArgument = "SECRET";
inline constexpr const char* kClientArgument = "CLIENT";
inline constexpr const char* kGroupArgument = "GROUP";
inline constexpr const char* kFileArgument = "FILE";

// Adds a command whose options are `O` and whose body is `run`.
template <class O>
CLI::App* AddCommand(CLI::App& parent, Invocation* invocation, const std::string& name,
                     const std::string& description, std::shared_ptr<O> options,
                     Result<int> (*run)(Session&, const O&)) {
  CLI::App* command = parent.add_subcommand(name, description);
  command->fallthrough();
  command->callback([invocation, options, run] {
    invocation->action = [options, run](Session& session) { return run(session, *options); };
  });
  return command;
}

// --dry-run, on every command that writes.
void AddDryRun(CLI::App* command, Invocation* invocation);

void AddSecretCreate(CLI::App& secret, Invocation* invocation);
void AddSecretRotate(CLI::App& secret, Invocation* invocation);
void AddSecretList(CLI::App& secret, Invocation* invocation);
void AddSecretShow(CLI::App& secret, Invocation* invocation);
void AddSecretVersions(CLI::App& secret, Invocation* invocation);
void AddSecretRollback(CLI::App& secret, Invocation* invocation);
void AddSecretRename(CLI::App& secret, Invocation* invocation);
void AddSecretDelete(CLI::App& secret, Invocation* invocation);
void AddSecretUndelete(CLI::App& secret, Invocation* invocation);
void AddClientCommands(CLI::App& root, Invocation* invocation);
void AddGroupCommands(CLI::App& root, Invocation* invocation);
void AddGrant(CLI::App& root, Invocation* invocation);
void AddRevoke(CLI::App& root, Invocation* invocation);
void AddWho(CLI::App& root, Invocation* invocation);
void AddCan(CLI::App& root, Invocation* invocation);
void AddServing(CLI::App& root, Invocation* invocation);
void AddAudit(CLI::App& root, Invocation* invocation);
void AddStatus(CLI::App& root, Invocation* invocation);
void AddGet(CLI::App& root, Invocation* invocation);
void AddCompletion(CLI::App& root, Invocation* invocation);

}  // namespace latchkey::cli
