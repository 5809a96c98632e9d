// latchkey secret rollback NAME VERSION: an older version becomes the current one again.
#include "client/cli/command.h"
#include "client/cli/exit_codes.h"
#include "client/cli/show_secret.h"
#include "client/cli/wait.h"

namespace latchkey::cli {
namespace {

struct Options {
  std::string name;
  std::uint64_t version = 0;
  bool yes = false;
  int wait_s = 0;
  CLI::Option* wait = nullptr;
};

Result<client::HistoryEntry> FindVersion(const std::vector<client::HistoryEntry>& history,
                                         const Options& options) {
  for (const client::HistoryEntry& entry : history) {
    if (entry.number == options.version) return entry;
  }
  return Error{Errc::kNotFound, Named(NameKind::kSecret, options.name) + " has no version " +
                                    std::to_string(options.version) +
                                    ": see `latchkey secret versions`"};
}

Result<int> Run(Session& session, const Options& options) {
  RETURN_IF_ERROR(session.About(NameKind::kSecret, options.name));
  ASSIGN_OR_RETURN(client::ApiClient* const api, session.Api());
  ASSIGN_OR_RETURN(const auto history, FetchHistory(*api, options.name));
  ASSIGN_OR_RETURN(const client::HistoryEntry target, FindVersion(history, options));
  const std::string named = Named(NameKind::kSecret, options.name);
  const std::string to = " to version " + std::to_string(target.number);
  if (target.current) {
    return Error{Errc::kConflict,
                 named + " is at version " + std::to_string(target.number) + " already"};
  }
  RETURN_IF_ERROR(session.Confirm("roll " + named + " back" + to + "?", options.yes));
  WriteReport report{.action = "secret.rollback",
                     .name = options.name,
                     .done = "rolled " + named + " back" + to,
                     .would = "roll " + named + " back" + to};
  if (session.dry_run) {
    session.Report(report);
    return kExitDone;
  }
  ASSIGN_OR_RETURN(report.receipt, api->SetVersion(options.name, target.version_id));
  report.receipt.version = target.number;
  if (options.wait->count() == 0) {
    session.Report(report);
    return kExitDone;
  }
  return FinishWithWait(session, std::move(report), options.name,
                        std::chrono::seconds(options.wait_s));
}

}  // namespace

void AddSecretRollback(CLI::App& secret, Invocation* invocation) {
  auto options = std::make_shared<Options>();
  CLI::App* command = AddCommand(secret, invocation, "rollback",
                                 "Make an older version the current one", options, Run);
  command->add_option("name", options->name, "secret to roll back")
      ->required()
      ->type_name(kSecretArgument);
  command
      ->add_option("version", options->version,
                   "number of the version, as `secret versions` shows it")
      ->required()
      ->type_name("VERSION")
      ->check(CLI::PositiveNumber.description(""));
  command->add_flag("-y,--yes", options->yes, "do not ask on a terminal");
  options->wait = AddWait(command, &options->wait_s);
  AddDryRun(command, invocation);
}

}  // namespace latchkey::cli
