// latchkey secret show NAME: everything about a secret but its content.
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
  ASSIGN_OR_RETURN(const client::SecretInfo info, api->GetSecret(options.name));
  ASSIGN_OR_RETURN(const auto groups, api->SecretGroups(options.name));
  ASSIGN_OR_RETURN(const auto history, FetchHistory(*api, options.name));
  std::optional<std::int64_t> current;
  for (const client::HistoryEntry& entry : history) {
    if (entry.current) current = static_cast<std::int64_t>(entry.number);
  }
  if (session.json) {
    session.PrintJson([&](wire::JsonOut& out) {
      out.BeginObject();
      WriteSecretMembers(out, info);
      WriteOptionalInt(out, "version", current);
      out.Unsigned("versions", history.size());
      WriteTexts(out, "groups", groups);
      out.EndObject();
    });
    return kExitDone;
  }
  Fields fields;
  fields.Add("name", info.name);
  fields.Add("description", info.description);
  fields.Add("type", info.type);
  fields.Add("owner", info.owner);
  fields.Add("version", (current ? std::to_string(*current) : "none") + " (of " +
                            std::to_string(history.size()) + ")");
  fields.Add("checksum", info.checksum);
  fields.Add("metadata", ShowMetadata(info.metadata));
  fields.Add("groups", groups.empty() ? "none" : JoinQuoted(groups));
  fields.Add("expires", ShowTime(info.expiry_s));
  fields.Add("created", ShowTime(info.created_at_s) + " by " + info.created_by);
  fields.Add("updated", ShowTime(info.updated_at_s) + " by " + info.updated_by);
  session.Print(fields.Text());
  return kExitDone;
}

}  // namespace

void AddSecretShow(CLI::App& secret, Invocation* invocation) {
  auto options = std::make_shared<Options>();
  CLI::App* command = AddCommand(secret, invocation, "show",
                                 "Show everything about a secret but its content", options, Run);
  command->add_option("name", options->name, "secret to show")
      ->required()
      ->type_name(kSecretArgument);
}

}  // namespace latchkey::cli
