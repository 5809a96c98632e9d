// latchkey secret rotate NAME: a new version. Metadata stay unless flags say otherwise (a partial update, so that file modes
// survive).
#include <charconv>

#include "client/cli/command.h"
#include "client/cli/content.h"
#include "client/cli/exit_codes.h"
#include "client/cli/metadata_options.h"
#include "client/cli/wait.h"

namespace latchkey::cli {
namespace {

struct Options {
  std::string name;
  ContentSource source;
  MetadataOptions metadata;
  int wait_s = 0;
  CLI::Option* wait = nullptr;
};

Result<client::SecretChange> ChangeOf(const Options& options, const client::SecretInfo& before) {
  client::SecretChange change;
  change.description = options.metadata.description;
  change.type = options.metadata.type;
  ASSIGN_OR_RETURN(change.expiry_s, options.metadata.ExpirySeconds());
  if (options.metadata.touches_metadata()) {
    ASSIGN_OR_RETURN(change.metadata, options.metadata.ApplyTo(before.metadata));
  }
  return change;
}

Result<int> Run(Session& session, const Options& options) {
  RETURN_IF_ERROR(session.About(NameKind::kSecret, options.name));
  RETURN_IF_ERROR(options.metadata.ApplyTo({}));  // wrong flags are told before anything is asked
  RETURN_IF_ERROR(options.metadata.ExpirySeconds());
  ASSIGN_OR_RETURN(client::ApiClient* const api, session.Api());
  // Asked before the content is: a wrong name should not cost a typed password.
  ASSIGN_OR_RETURN(const client::SecretInfo before, api->GetSecret(options.name));
  ASSIGN_OR_RETURN(const client::SecretChange change, ChangeOf(options, before));
  const std::string named = Named(NameKind::kSecret, options.name);
  ASSIGN_OR_RETURN(const SecretBuffer content,
                   ReadContent(session.terminal(), options.source, named));

  WriteReport report{.action = "secret.rotate",
                     .name = options.name,
                     .done = "rotated " + named,
                     .would = "rotate " + named + " to " + Counted(content.size(), "byte")};
  if (session.dry_run) {
    session.Report(report);
    return kExitDone;
  }
  ASSIGN_OR_RETURN(report.receipt, api->UpdateSecret(options.name, change, &content));
  if (report.receipt.version) report.done += ", version " + std::to_string(*report.receipt.version);
  if (options.wait->count() == 0) {
    session.Report(report);
    return kExitDone;
  }
  return FinishWithWait(session, std::move(report), options.name,
                        std::chrono::seconds(options.wait_s));
}

}  // namespace

void AddSecretRotate(CLI::App& secret, Invocation* invocation) {
  auto options = std::make_shared<Options>();
  CLI::App* command = AddCommand(secret, invocation, "rotate",
                                 "Add a version; clients see it within milliseconds", options, Run);
  command->add_option("name", options->name, "secret to rotate")
      ->required()
      ->type_name(kSecretArgument);
  command
      ->add_option("--from-file", options->source.from_file,
                   "read the content from this file; - is stdin")
      ->type_name(kFileArgument);
  command
      ->add_option("--generate", options->source.generate,
                   "draw the content: alnum:N, hex:N, base64:N (bytes), uuid, charset:CHARS:N")
      ->type_name("SPEC");
  options->wait = AddWait(command, &options->wait_s);
  options->metadata.AddTo(command);
  AddDryRun(command, invocation);
  command->footer("Example: latchkey secret rotate db_password --generate alnum:32 --wait=30");
}

}  // namespace latchkey::cli
