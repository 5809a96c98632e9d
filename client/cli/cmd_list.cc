// latchkey secret list: the secrets that exist.
#include "client/cli/command.h"
#include "client/cli/exit_codes.h"
#include "client/cli/show_secret.h"

namespace latchkey::cli {
namespace {

struct Options {
  bool details = false;
};

void PrintDetails(Session& session, const std::vector<client::SecretInfo>& secrets) {
  if (session.json) {
    session.PrintJson([&](wire::JsonOut& out) {
      out.BeginArray();
      for (const client::SecretInfo& info : secrets) {
        out.BeginObject();
        WriteSecretMembers(out, info);
        out.EndObject();
      }
      out.EndArray();
    });
    return;
  }
  Table table({"NAME", "UPDATED", "EXPIRES", "DESCRIPTION"});
  for (const client::SecretInfo& info : secrets) {
    table.Add({info.name, ShowTime(info.updated_at_s), ShowTime(info.expiry_s), info.description});
  }
  session.Print(table.Text());
}

Result<int> Run(Session& session, const Options& options) {
  ASSIGN_OR_RETURN(client::ApiClient* const api, session.Api());
  if (options.details) {
    ASSIGN_OR_RETURN(auto secrets, api->ListSecretInfos());
    std::sort(secrets.begin(), secrets.end(),
              [](const auto& a, const auto& b) { return a.name < b.name; });
    PrintDetails(session, secrets);
    return kExitDone;
  }
  ASSIGN_OR_RETURN(const auto names, session.LiveNames(NameKind::kSecret));
  PrintNames(session, names);
  return kExitDone;
}

}  // namespace

void AddSecretList(CLI::App& secret, Invocation* invocation) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      AddCommand(secret, invocation, "list", "List secrets, one name a line", options, Run);
  command->add_flag("-l,--long", options->details, "with times and descriptions");
}

}  // namespace latchkey::cli
