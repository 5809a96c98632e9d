// latchkey secret rename OLD NEW.
#include "client/cli/command.h"
#include "client/cli/exit_codes.h"

namespace latchkey::cli {
namespace {

struct Options {
  std::string name, new_name;
};

Result<int> Run(Session& session, const Options& options) {
  RETURN_IF_ERROR(session.About(NameKind::kSecret, options.name));
  RETURN_IF_ERROR(CheckName(NameKind::kSecret, options.new_name));
  ASSIGN_OR_RETURN(client::ApiClient* const api, session.Api());
  const Error taken{Errc::kConflict,
                    Named(NameKind::kSecret, options.new_name) + " exists already"};
  WriteReport report{.action = "secret.rename",
                     .name = options.name,
                     .done = "renamed " + Named(NameKind::kSecret, options.name) + " to " +
                             Quoted(options.new_name),
                     .would = "rename " + Named(NameKind::kSecret, options.name) + " to " +
                              Quoted(options.new_name)};
  std::string new_name;
  wire::JsonOut(&new_name).Text(options.new_name);
  report.more.emplace_back("newName", new_name);
  if (session.dry_run) {
    RETURN_IF_ERROR(api->GetSecret(options.name));
    ASSIGN_OR_RETURN(const bool exists, api->SecretExists(options.new_name));
    if (exists) return taken;
  } else {
    auto receipt = api->RenameSecret(options.name, options.new_name);
    if (!receipt.has_value() && receipt.error().code == Errc::kConflict) return taken;
    ASSIGN_OR_RETURN(report.receipt, std::move(receipt));
  }
  session.Report(report);
  return kExitDone;
}

}  // namespace

void AddSecretRename(CLI::App& secret, Invocation* invocation) {
  auto options = std::make_shared<Options>();
  CLI::App* command = AddCommand(secret, invocation, "rename",
                                 "Give a secret another name; grants stay", options, Run);
  command->add_option("name", options->name, "secret to rename")
      ->required()
      ->type_name(kSecretArgument);
  command->add_option("new_name", options->new_name, "its new name")
      ->required()
      ->type_name("NEW_NAME");
  AddDryRun(command, invocation);
}

}  // namespace latchkey::cli
