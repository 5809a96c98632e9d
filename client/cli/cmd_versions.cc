// latchkey secret versions NAME: the versions that are kept, newest first, by number.
#include "client/cli/command.h"
#include "client/cli/exit_codes.h"
#include "client/cli/show_secret.h"

namespace latchkey::cli {
namespace {

struct Options {
  std::string name;
};

Result<int> Run(Session& session, const Options& options) {
  RETURN_IF_ERROR(session.About(NameKind::kSecret, options.name));
  ASSIGN_OR_RETURN(client::ApiClient* const api, session.Api());
  ASSIGN_OR_RETURN(const auto history, FetchHistory(*api, options.name));
  if (session.json) {
    session.PrintJson([&](wire::JsonOut& out) {
      out.BeginArray();
      for (const client::HistoryEntry& entry : history) {
        out.BeginObject().Unsigned("version", entry.number).Int("versionId", entry.version_id);
        out.Bool("current", entry.current).Int("createdAtSeconds", entry.created_at_s);
        out.Text("createdBy", entry.created_by).Text("checksum", entry.checksum).EndObject();
      }
      out.EndArray();
    });
    return kExitDone;
  }
  Table table({"VERSION", "CREATED", "BY", "CHECKSUM", "CURRENT"});
  constexpr std::size_t kShownChecksum = 16;
  for (const client::HistoryEntry& entry : history) {
    table.Add({std::to_string(entry.number), ShowTime(entry.created_at_s), entry.created_by,
               entry.checksum.substr(0, kShownChecksum), entry.current ? "yes" : ""});
  }
  session.Print(table.Text());
  return kExitDone;
}

}  // namespace

void AddSecretVersions(CLI::App& secret, Invocation* invocation) {
  auto options = std::make_shared<Options>();
  CLI::App* command = AddCommand(secret, invocation, "versions",
                                 "List the versions of a secret, newest first", options, Run);
  command->add_option("name", options->name, "secret whose versions to list")
      ->required()
      ->type_name(kSecretArgument);
}

}  // namespace latchkey::cli
