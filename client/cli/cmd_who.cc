// latchkey who SECRET: every client that can read it, and through which groups.
#include <map>

#include "client/cli/command.h"
#include "client/cli/exit_codes.h"

namespace latchkey::cli {
namespace {

struct Options {
  std::string secret;
};

Result<int> Run(Session& session, const Options& options) {
  RETURN_IF_ERROR(session.About(NameKind::kSecret, options.secret));
  ASSIGN_OR_RETURN(client::ApiClient* const api, session.Api());
  ASSIGN_OR_RETURN(const auto readers, api->SecretReaders(options.secret));
  std::map<std::string, std::vector<std::string>> groups_of;
  for (const client::Reader& reader : readers) groups_of[reader.client].push_back(reader.group);
  if (session.json) {
    session.PrintJson([&](wire::JsonOut& out) {
      out.BeginArray();
      for (const auto& [client, groups] : groups_of) {
        out.BeginObject().Text("client", client);
        WriteTexts(out, "groups", groups);
        out.EndObject();
      }
      out.EndArray();
    });
    return kExitDone;
  }
  if (groups_of.empty()) {
    session.terminal().NoteLine("no client can read " + Named(NameKind::kSecret, options.secret));
    return kExitDone;
  }
  Table table({"CLIENT", "GROUPS"});
  for (const auto& [client, groups] : groups_of) {
    std::string list;
    for (const std::string& group : groups) list += (list.empty() ? "" : ", ") + group;
    table.Add({client, list});
  }
  session.Print(table.Text());
  return kExitDone;
}

}  // namespace

void AddWho(CLI::App& root, Invocation* invocation) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      AddCommand(root, invocation, "who", "List who can read a secret, and through which groups",
                 options, Run);
  command->add_option("secret", options->secret, "the secret")
      ->required()
      ->type_name(kSecretArgument);
}

}  // namespace latchkey::cli
