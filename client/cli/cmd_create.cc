// latchkey secret create NAME: a new secret with its first version.
#include "client/cli/command.h"
#include "client/cli/content.h"
#include "client/cli/exit_codes.h"
#include "client/cli/metadata_options.h"

namespace latchkey::cli {
namespace {

struct Options {
  std::string name;
  ContentSource source;
  MetadataOptions metadata;
  std::vector<std::string> groups;
};

// What reading can tell before anything is written: the server ignores groups that do not exist, we do not.
Status CheckGroups(Session& session, const std::vector<std::string>& groups) {
  if (groups.empty()) return {};
  ASSIGN_OR_RETURN(const auto known, session.LiveNames(NameKind::kGroup));
  for (const std::string& group : groups) {
    if (std::find(known.begin(), known.end(), group) == known.end()) {
      return Error{Errc::kNotFound, Named(NameKind::kGroup, group) + " not found"};
    }
  }
  return {};
}

Result<int> Run(Session& session, const Options& options) {
  RETURN_IF_ERROR(CheckName(NameKind::kSecret, options.name));
  for (const std::string& group : options.groups)
    RETURN_IF_ERROR(session.About(NameKind::kGroup, group));
  client::NewSecret secret;
  secret.name = options.name;
  secret.description = options.metadata.description.value_or("");
  secret.type = options.metadata.type.value_or("");
  secret.groups = options.groups;
  ASSIGN_OR_RETURN(secret.metadata, options.metadata.ApplyTo({}));
  ASSIGN_OR_RETURN(const auto expiry, options.metadata.ExpirySeconds());
  secret.expiry_s = expiry.value_or(0);

  ASSIGN_OR_RETURN(client::ApiClient* const api, session.Api());
  ASSIGN_OR_RETURN(const SecretBuffer content, ReadContent(session.terminal(), options.source,
                                                           Named(NameKind::kSecret, options.name)));
  RETURN_IF_ERROR(CheckGroups(session, options.groups));
  const std::string with_groups =
      options.groups.empty() ? "" : ", granted to " + JoinQuoted(options.groups);
  WriteReport report{
      .action = "secret.create",
      .name = options.name,
      .done = "created " + Named(NameKind::kSecret, options.name) + ", version 1" + with_groups,
      .would = "create " + Named(NameKind::kSecret, options.name) + " of " +
               Counted(content.size(), "byte") + with_groups};
  report.more.emplace_back("groups", JsonTexts(options.groups));
  if (session.dry_run) {
    ASSIGN_OR_RETURN(const bool taken, api->SecretExists(options.name));
    if (taken)
      return Error{Errc::kConflict,
                   Named(NameKind::kSecret, options.name) + " exists already: rotate it"};
  } else {
    auto receipt = api->CreateSecret(secret, content);
    if (!receipt.has_value() && receipt.error().code == Errc::kConflict) {
      return Error{Errc::kConflict,
                   Named(NameKind::kSecret, options.name) + " exists already: rotate it"};
    }
    ASSIGN_OR_RETURN(report.receipt, std::move(receipt));
  }
  session.Report(report);
  return kExitDone;
}

}  // namespace

void AddSecretCreate(CLI::App& secret, Invocation* invocation) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      AddCommand(secret, invocation, "create",
                 "Create a secret; its content comes from stdin, a file or a prompt", options, Run);
  command->add_option("name", options->name, "name of the new secret")
      ->required()
      ->type_name("NAME");
  command
      ->add_option("--from-file", options->source.from_file,
                   "read the content from this file; - is stdin")
      ->type_name(kFileArgument);
  command
      ->add_option("--generate", options->source.generate,
                   "draw the content: alnum:N, hex:N, base64:N (bytes), uuid, charset:CHARS:N")
      ->type_name("SPEC");
  command->add_option("--group", options->groups, "grant it to this group at once; may be repeated")
      ->type_name(kGroupArgument)
      ->allow_extra_args(false);
  options->metadata.AddTo(command);
  AddDryRun(command, invocation);
  command->footer(
      "Example: printf %s \"$PASSWORD\" | latchkey secret create db_password --group web --mode "
      "0400");
}

}  // namespace latchkey::cli
