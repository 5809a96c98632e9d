// latchkey secret delete NAME and undelete NAME.
#include "client/cli/command.h"
#include "client/cli/exit_codes.h"

namespace latchkey::cli {
namespace {

struct Options {
  std::string name;
  bool yes = false;
};

Result<int> RunDelete(Session& session, const Options& options) {
  RETURN_IF_ERROR(session.About(NameKind::kSecret, options.name));
  ASSIGN_OR_RETURN(client::ApiClient* const api, session.Api());
  const std::string named = Named(NameKind::kSecret, options.name);
  RETURN_IF_ERROR(
      session.Confirm("delete " + named + "? Its clients lose it at once", options.yes));
  WriteReport report{.action = "secret.delete",
                     .name = options.name,
                     .done = "deleted " + named + "; `latchkey secret undelete` brings it back",
                     .would = "delete " + named};
  if (session.dry_run) {
    RETURN_IF_ERROR(api->GetSecret(options.name));
  } else {
    ASSIGN_OR_RETURN(report.receipt, api->DeleteSecret(options.name));
  }
  session.Report(report);
  return kExitDone;
}

Result<int> RunUndelete(Session& session, const Options& options) {
  RETURN_IF_ERROR(CheckName(NameKind::kSecret, options.name));
  ASSIGN_OR_RETURN(client::ApiClient* const api, session.Api());
  const std::string named = Named(NameKind::kSecret, options.name);
  const Error taken{Errc::kConflict, named + " exists: rename or delete it first"};
  WriteReport report{.action = "secret.undelete",
                     .name = options.name,
                     .done = "brought back " + named,
                     .would = "bring back the newest deleted " + named};
  if (session.dry_run) {
    ASSIGN_OR_RETURN(const bool exists, api->SecretExists(options.name));
    if (exists) return taken;
  } else {
    auto receipt = api->UndeleteSecret(options.name);
    if (!receipt.has_value() && receipt.error().code == Errc::kConflict) return taken;
    if (!receipt.has_value() && receipt.error().code == Errc::kNotFound) {
      return Error{Errc::kNotFound, "no deleted " + named + " found"};
    }
    ASSIGN_OR_RETURN(report.receipt, std::move(receipt));
  }
  session.Report(report);
  return kExitDone;
}

}  // namespace

void AddSecretDelete(CLI::App& secret, Invocation* invocation) {
  auto options = std::make_shared<Options>();
  CLI::App* command = AddCommand(secret, invocation, "delete",
                                 "Delete a secret; it can be brought back", options, RunDelete);
  command->add_option("name", options->name, "secret to delete")
      ->required()
      ->type_name(kSecretArgument);
  command->add_flag("-y,--yes", options->yes, "do not ask on a terminal");
  AddDryRun(command, invocation);
}

void AddSecretUndelete(CLI::App& secret, Invocation* invocation) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      AddCommand(secret, invocation, "undelete", "Bring the newest deleted secret of a name back",
                 options, RunUndelete);
  command->add_option("name", options->name, "name of the deleted secret")
      ->required()
      ->type_name("NAME");
  AddDryRun(command, invocation);
}

}  // namespace latchkey::cli
