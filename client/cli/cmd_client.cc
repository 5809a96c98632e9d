// latchkey client create|list|show|enable|disable|delete.
#include "client/cli/command.h"
#include "client/cli/exit_codes.h"
#include "client/cli/show_secret.h"

namespace latchkey::cli {
namespace {

struct Name {
  std::string name;
  bool yes = false;
};
struct New {
  client::NewClient client;
};
struct None {};

Result<int> RunCreate(Session& session, const New& options) {
  const client::NewClient& client = options.client;
  RETURN_IF_ERROR(CheckName(NameKind::kClient, client.name));
  // The server takes any URI, as Keywhiz did; another than this can be in no certificate that gets in.
  if (!client.spiffe_id.empty() && !client.spiffe_id.starts_with("spiffe://")) {
    return Error{Errc::kInvalidArgument,
                 Quoted(client.spiffe_id) +
                     " is no SPIFFE id: it begins with spiffe:// and the trust domain, as in "
                     "spiffe://example.org/app"};
  }
  for (const std::string& group : client.groups)
    RETURN_IF_ERROR(session.About(NameKind::kGroup, group));
  ASSIGN_OR_RETURN(client::ApiClient* const api, session.Api());
  if (!client.groups.empty()) {
    ASSIGN_OR_RETURN(const auto known, session.LiveNames(NameKind::kGroup));
    for (const std::string& group : client.groups) {
      if (std::find(known.begin(), known.end(), group) == known.end()) {
        return Error{Errc::kNotFound, Named(NameKind::kGroup, group) + " not found"};
      }
    }
  }
  const std::string named = Named(NameKind::kClient, client.name);
  const Error taken{Errc::kConflict,
                    named + " exists already, or another client has this SPIFFE id"};
  const std::string in_groups = client.groups.empty() ? "" : ", in " + JoinQuoted(client.groups);
  WriteReport report{.action = "client.create",
                     .name = client.name,
                     .done = "created " + named + in_groups,
                     .would = "create " + named + in_groups};
  report.more.emplace_back("groups", JsonTexts(client.groups));
  if (session.dry_run) {
    ASSIGN_OR_RETURN(const auto known, session.LiveNames(NameKind::kClient));
    if (std::find(known.begin(), known.end(), client.name) != known.end()) return taken;
  } else {
    auto receipt = api->CreateClient(client);
    if (!receipt.has_value() && receipt.error().code == Errc::kConflict) return taken;
    ASSIGN_OR_RETURN(report.receipt, std::move(receipt));
  }
  session.Report(report);
  return kExitDone;
}

Result<int> RunList(Session& session, const None& /*options*/) {
  ASSIGN_OR_RETURN(const auto names, session.LiveNames(NameKind::kClient));
  PrintNames(session, names);
  return kExitDone;
}

void WriteOptionalBool(wire::JsonOut& out, std::string_view key, const std::optional<bool>& value) {
  if (value) out.Bool(key, *value);
}

std::string YesNo(const std::optional<bool>& value) {
  return value ? (*value ? "yes" : "no") : "";
}

Result<int> RunShow(Session& session, const Name& options) {
  RETURN_IF_ERROR(session.About(NameKind::kClient, options.name));
  ASSIGN_OR_RETURN(client::ApiClient* const api, session.Api());
  ASSIGN_OR_RETURN(const client::ClientInfo info, api->GetClient(options.name));
  ASSIGN_OR_RETURN(const client::ClientState state, api->GetClientState(options.name));
  ASSIGN_OR_RETURN(const auto groups, api->ClientGroups(options.name));
  ASSIGN_OR_RETURN(const auto secrets, api->ClientSecrets(options.name));
  if (session.json) {
    session.PrintJson([&](wire::JsonOut& out) {
      out.BeginObject().Text("name", info.name).Text("description", info.description);
      out.Text("spiffeId", info.spiffe_id).Text("owner", info.owner);
      WriteOptionalBool(out, "enabled", state.enabled);
      WriteOptionalBool(out, "automation", state.automation);
      WriteOptionalBool(out, "content", state.content);
      WriteOptionalInt(out, "lastSeenSeconds", info.last_seen_s);
      out.Int("createdAtSeconds", info.created_at_s).Text("createdBy", info.created_by);
      out.Int("updatedAtSeconds", info.updated_at_s).Text("updatedBy", info.updated_by);
      WriteTexts(out, "groups", groups);
      WriteTexts(out, "secrets", secrets);
      out.EndObject();
    });
    return kExitDone;
  }
  Fields fields;
  fields.Add("name", info.name);
  fields.Add("description", info.description);
  fields.Add("SPIFFE id", info.spiffe_id);
  fields.Add("owner", info.owner);
  fields.Add("enabled", YesNo(state.enabled));
  fields.Add("automation", YesNo(state.automation));
  fields.Add("may read contents there", YesNo(state.content));
  fields.Add("last seen", ShowTime(info.last_seen_s.value_or(0)));
  fields.Add("created", ShowTime(info.created_at_s) + " by " + info.created_by);
  fields.Add("updated", ShowTime(info.updated_at_s) + " by " + info.updated_by);
  fields.Add("groups", groups.empty() ? "none" : JoinQuoted(groups));
  fields.Add("secrets", secrets.empty() ? "none" : JoinQuoted(secrets));
  session.Print(fields.Text());
  return kExitDone;
}

Result<int> SetEnabled(Session& session, const Name& options, bool enabled) {
  RETURN_IF_ERROR(session.About(NameKind::kClient, options.name));
  ASSIGN_OR_RETURN(client::ApiClient* const api, session.Api());
  const std::string named = Named(NameKind::kClient, options.name);
  WriteReport report{.action = enabled ? "client.enable" : "client.disable",
                     .name = options.name,
                     .done = (enabled ? "enabled " : "disabled ") + named,
                     .would = (enabled ? "enable " : "disable ") + named};
  if (session.dry_run) {
    RETURN_IF_ERROR(api->GetClient(options.name));
  } else {
    client::ClientState state;
    state.enabled = enabled;
    ASSIGN_OR_RETURN(report.receipt, api->SetClientState(options.name, state));
  }
  session.Report(report);
  return kExitDone;
}

Result<int> RunEnable(Session& session, const Name& options) {
  return SetEnabled(session, options, true);
}
Result<int> RunDisable(Session& session, const Name& options) {
  return SetEnabled(session, options, false);
}

Result<int> RunDelete(Session& session, const Name& options) {
  RETURN_IF_ERROR(session.About(NameKind::kClient, options.name));
  ASSIGN_OR_RETURN(client::ApiClient* const api, session.Api());
  const std::string named = Named(NameKind::kClient, options.name);
  RETURN_IF_ERROR(
      session.Confirm("delete " + named + "? It loses its secrets at once", options.yes));
  WriteReport report{.action = "client.delete",
                     .name = options.name,
                     .done = "deleted " + named,
                     .would = "delete " + named};
  if (session.dry_run) {
    RETURN_IF_ERROR(api->GetClient(options.name));
  } else {
    ASSIGN_OR_RETURN(report.receipt, api->DeleteClient(options.name));
  }
  session.Report(report);
  return kExitDone;
}

CLI::App* AddNamed(CLI::App& parent, Invocation* invocation, const char* word,
                   const char* description, std::shared_ptr<Name> options,
                   Result<int> (*run)(Session&, const Name&)) {
  CLI::App* command = AddCommand(parent, invocation, word, description, options, run);
  command->add_option("name", options->name, "name of the client")
      ->required()
      ->type_name(kClientArgument);
  return command;
}

}  // namespace

void AddClientCommands(CLI::App& root, Invocation* invocation) {
  CLI::App* client = root.add_subcommand("client", "Machines: who may ask for secrets");
  client->require_subcommand(1)->fallthrough();

  auto create_options = std::make_shared<New>();
  CLI::App* create =
      AddCommand(*client, invocation, "create",
                 "Create a client; its name is that of its certificate", create_options, RunCreate);
  create->add_option("name", create_options->client.name, "name of the new client")
      ->required()
      ->type_name("NAME");
  create->add_option("--description", create_options->client.description, "what it is")
      ->type_name("TEXT");
  create->add_option("--spiffe", create_options->client.spiffe_id, "SPIFFE id of its certificate")
      ->type_name("URI");
  create
      ->add_option("--group", create_options->client.groups,
                   "put it into this group; may be repeated")
      ->type_name(kGroupArgument)
      ->allow_extra_args(false);
  AddDryRun(create, invocation);

  AddCommand(*client, invocation, "list", "List clients, one name a line", std::make_shared<None>(),
             RunList);
  AddNamed(*client, invocation, "show", "Show a client, its groups and its secrets",
           std::make_shared<Name>(), RunShow);
  AddDryRun(AddNamed(*client, invocation, "enable", "Let a client in again",
                     std::make_shared<Name>(), RunEnable),
            invocation);
  AddDryRun(AddNamed(*client, invocation, "disable", "Refuse a client from its next request on",
                     std::make_shared<Name>(), RunDisable),
            invocation);
  auto delete_options = std::make_shared<Name>();
  CLI::App* remove =
      AddNamed(*client, invocation, "delete", "Delete a client", delete_options, RunDelete);
  remove->add_flag("-y,--yes", delete_options->yes, "do not ask on a terminal");
  AddDryRun(remove, invocation);
}

}  // namespace latchkey::cli
