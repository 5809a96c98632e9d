// latchkey can CLIENT SECRET: exit 0 when it may read it, 4 when not.
#include "client/cli/command.h"
#include "client/cli/exit_codes.h"

namespace latchkey::cli {
namespace {

struct Options {
  std::string client, secret;
};

Result<int> Run(Session& session, const Options& options) {
  RETURN_IF_ERROR(session.About(NameKind::kClient, options.client));
  RETURN_IF_ERROR(session.About(NameKind::kSecret, options.secret));
  ASSIGN_OR_RETURN(client::ApiClient* const api, session.Api());
  ASSIGN_OR_RETURN(const client::AccessAnswer answer, api->Access(options.client, options.secret));
  if (session.json) {
    session.PrintJson([&](wire::JsonOut& out) {
      out.BeginObject().Text("client", options.client).Text("secret", options.secret);
      out.Bool("allowed", answer.allowed).Text("reason", answer.reason);
      WriteTexts(out, "groups", answer.groups);
      out.EndObject();
    });
  } else {
    std::string line = answer.allowed ? "yes" : "no";
    if (answer.allowed && !answer.groups.empty()) line += ", through " + JoinQuoted(answer.groups);
    if (!answer.allowed && !answer.reason.empty()) line += ": " + answer.reason;
    session.Print(Printable(line) + "\n");
  }
  return answer.allowed ? kExitDone : kExitNotAllowed;
}

}  // namespace

void AddCan(CLI::App& root, Invocation* invocation) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      AddCommand(root, invocation, "can",
                 "Tell whether a client can read a secret: exit 0 yes, 4 no", options, Run);
  command->add_option("client", options->client, "the client")
      ->required()
      ->type_name(kClientArgument);
  command->add_option("secret", options->secret, "the secret")
      ->required()
      ->type_name(kSecretArgument);
}

}  // namespace latchkey::cli
