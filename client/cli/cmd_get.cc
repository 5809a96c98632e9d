// latchkey get NAME: a content, with a client's own certificate (rule O4).
#include "client/cli/command.h"
#include "client/cli/content.h"
#include "client/cli/exit_codes.h"

namespace latchkey::cli {
namespace {

struct Options {
  std::string name, output;
  bool reveal = false;
};

Result<int> Run(Session& session, const Options& options) {
  RETURN_IF_ERROR(session.AboutOwn(options.name));
  const bool to_stdout = options.output.empty() || options.output == "-";
  if (session.json && to_stdout) {
    return Error{Errc::kInvalidArgument,
                 "--json does not carry contents: use -o FILE, or no --json"};
  }
  if (to_stdout && session.terminal().out_is_terminal() && !options.reveal) {
    session.Hint("use --reveal, -o FILE or a pipe");
    return Error{Errc::kInvalidArgument, "content goes to a terminal only with --reveal"};
  }
  ASSIGN_OR_RETURN(client::ApiClient* const api, session.Api());
  ASSIGN_OR_RETURN(const client::DeliveredSecret secret, api->Secret(options.name));
  if (to_stdout) {
    session.terminal().OutBytes(secret.content.bytes());
    if (session.terminal().out_is_terminal()) session.terminal().Out("\n");
    return kExitDone;
  }
  RETURN_IF_ERROR(WriteFileAtomically(options.output, secret.content.bytes()));
  if (session.json) {
    session.PrintJson([&](wire::JsonOut& out) {
      out.BeginObject().Text("name", options.name).Text("file", options.output);
      if (secret.version) out.Unsigned("version", *secret.version);
      out.Unsigned("bytes", secret.content.size()).EndObject();
    });
  }
  return kExitDone;
}

}  // namespace

void AddGet(CLI::App& root, Invocation* invocation) {
  auto options = std::make_shared<Options>();
  CLI::App* command = AddCommand(root, invocation, "get",
                                 "Read a secret with a client's own certificate", options, Run);
  command->add_option("name", options->name, "secret to read")
      ->required()
      ->type_name(kSecretArgument);
  command
      ->add_option("-o,--output", options->output,
                   "write it to this file, mode 0600, whole or not at all")
      ->type_name(kFileArgument);
  command->add_flag("--reveal", options->reveal, "show it although stdout is a terminal");
}

}  // namespace latchkey::cli
