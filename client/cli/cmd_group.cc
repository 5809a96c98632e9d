// latchkey group create|list|show|delete|add|remove.
#include "client/cli/command.h"
#include "client/cli/exit_codes.h"
#include "client/cli/show_secret.h"

namespace latchkey::cli {
namespace {

struct Name {
  std::string name;
  std::string description;
  bool yes = false;
};
struct Membership {
  std::string group;
  std::vector<std::string> clients;
};
struct None {};

Result<int> RunCreate(Session& session, const Name& options) {
  RETURN_IF_ERROR(CheckName(NameKind::kGroup, options.name));
  ASSIGN_OR_RETURN(client::ApiClient* const api, session.Api());
  const std::string named = Named(NameKind::kGroup, options.name);
  const Error taken{Errc::kConflict, named + " exists already"};
  WriteReport report{.action = "group.create",
                     .name = options.name,
                     .done = "created " + named,
                     .would = "create " + named};
  if (session.dry_run) {
    ASSIGN_OR_RETURN(const auto known, session.LiveNames(NameKind::kGroup));
    if (std::find(known.begin(), known.end(), options.name) != known.end()) return taken;
  } else {
    auto receipt = api->CreateGroup(options.name, options.description, {});
    if (!receipt.has_value() && receipt.error().code == Errc::kConflict) return taken;
    ASSIGN_OR_RETURN(report.receipt, std::move(receipt));
  }
  session.Report(report);
  return kExitDone;
}

Result<int> RunList(Session& session, const None& /*options*/) {
  ASSIGN_OR_RETURN(const auto names, session.LiveNames(NameKind::kGroup));
  PrintNames(session, names);
  return kExitDone;
}

Result<int> RunShow(Session& session, const Name& options) {
  RETURN_IF_ERROR(session.About(NameKind::kGroup, options.name));
  ASSIGN_OR_RETURN(client::ApiClient* const api, session.Api());
  ASSIGN_OR_RETURN(client::GroupInfo info, api->GetGroup(options.name));
  std::sort(info.clients.begin(), info.clients.end());
  std::sort(info.secrets.begin(), info.secrets.end());
  if (session.json) {
    session.PrintJson([&](wire::JsonOut& out) {
      out.BeginObject()
          .Text("name", info.name)
          .Text("description", info.description)
          .Text("owner", info.owner);
      out.Raw("metadata", wire::EncodeMetadata(info.metadata));
      out.Int("createdAtSeconds", info.created_at_s).Text("createdBy", info.created_by);
      out.Int("updatedAtSeconds", info.updated_at_s).Text("updatedBy", info.updated_by);
      WriteTexts(out, "clients", info.clients);
      WriteTexts(out, "secrets", info.secrets);
      out.EndObject();
    });
    return kExitDone;
  }
  Fields fields;
  fields.Add("name", info.name);
  fields.Add("description", info.description);
  fields.Add("owner", info.owner);
  fields.Add("metadata", ShowMetadata(info.metadata));
  fields.Add("clients", info.clients.empty() ? "none" : JoinQuoted(info.clients));
  fields.Add("secrets", info.secrets.empty() ? "none" : JoinQuoted(info.secrets));
  fields.Add("created", ShowTime(info.created_at_s) + " by " + info.created_by);
  fields.Add("updated", ShowTime(info.updated_at_s) + " by " + info.updated_by);
  session.Print(fields.Text());
  return kExitDone;
}

Result<int> RunDelete(Session& session, const Name& options) {
  RETURN_IF_ERROR(session.About(NameKind::kGroup, options.name));
  ASSIGN_OR_RETURN(client::ApiClient* const api, session.Api());
  ASSIGN_OR_RETURN(const client::GroupInfo info, api->GetGroup(options.name));
  const std::string named = Named(NameKind::kGroup, options.name);
  const std::string with = " with " + Counted(info.clients.size(), "client") + " and " +
                           Counted(info.secrets.size(), "grant");
  RETURN_IF_ERROR(session.Confirm("delete " + named + with + "?", options.yes));
  WriteReport report{.action = "group.delete",
                     .name = options.name,
                     .done = "deleted " + named + with,
                     .would = "delete " + named + with};
  if (!session.dry_run) {
    ASSIGN_OR_RETURN(report.receipt, api->DeleteGroup(options.name));
  }
  session.Report(report);
  return kExitDone;
}

// Adds or removes each client. The server ignores unknown groups silently: its answer tells, and the group is asked for first.
Result<int> Change(Session& session, const Membership& options, bool add) {
  RETURN_IF_ERROR(session.About(NameKind::kGroup, options.group));
  for (const std::string& client : options.clients)
    RETURN_IF_ERROR(session.About(NameKind::kClient, client));
  ASSIGN_OR_RETURN(client::ApiClient* const api, session.Api());
  RETURN_IF_ERROR(api->GetGroup(options.group));
  for (const std::string& client : options.clients) RETURN_IF_ERROR(api->GetClient(client));
  for (const std::string& client : options.clients) {
    const std::string both = Named(NameKind::kClient, client) + (add ? " to " : " from ") +
                             Named(NameKind::kGroup, options.group);
    WriteReport report{.action = add ? "group.add" : "group.remove",
                       .name = options.group,
                       .done = (add ? "added " : "removed ") + both,
                       .would = (add ? "add " : "remove ") + both};
    std::string client_json;
    wire::JsonOut(&client_json).Text(client);
    report.more.emplace_back("client", client_json);
    if (!session.dry_run) {
      const std::vector<std::string> group{options.group}, nothing;
      ASSIGN_OR_RETURN(const auto groups, api->ModifyClientGroups(client, add ? group : nothing,
                                                                  add ? nothing : group));
      const bool member = std::find(groups.begin(), groups.end(), options.group) != groups.end();
      if (member != add) {
        return Error{Errc::kConflict, Named(NameKind::kGroup, options.group) +
                                          " changed at the same time: try again"};
      }
    }
    session.Report(report);
  }
  return kExitDone;
}

Result<int> RunAdd(Session& session, const Membership& options) {
  return Change(session, options, true);
}
Result<int> RunRemove(Session& session, const Membership& options) {
  return Change(session, options, false);
}

void AddMembership(CLI::App& group, Invocation* invocation, const char* word,
                   const char* description, Result<int> (*run)(Session&, const Membership&)) {
  auto options = std::make_shared<Membership>();
  CLI::App* command = AddCommand(group, invocation, word, description, options, run);
  command->add_option("group", options->group, "the group")->required()->type_name(kGroupArgument);
  command->add_option("clients", options->clients, "one or more clients")
      ->required()
      ->type_name(kClientArgument);
  AddDryRun(command, invocation);
}

}  // namespace

void AddGroupCommands(CLI::App& root, Invocation* invocation) {
  CLI::App* group = root.add_subcommand("group", "Groups: clients that share grants");
  group->require_subcommand(1)->fallthrough();

  auto create_options = std::make_shared<Name>();
  CLI::App* create =
      AddCommand(*group, invocation, "create", "Create a group", create_options, RunCreate);
  create->add_option("name", create_options->name, "name of the new group")
      ->required()
      ->type_name("NAME");
  create->add_option("--description", create_options->description, "what it is for")
      ->type_name("TEXT");
  AddDryRun(create, invocation);

  AddCommand(*group, invocation, "list", "List groups, one name a line", std::make_shared<None>(),
             RunList);

  auto show_options = std::make_shared<Name>();
  CLI::App* show = AddCommand(*group, invocation, "show",
                              "Show a group, its clients and its secrets", show_options, RunShow);
  show->add_option("name", show_options->name, "group to show")
      ->required()
      ->type_name(kGroupArgument);

  auto delete_options = std::make_shared<Name>();
  CLI::App* remove =
      AddCommand(*group, invocation, "delete", "Delete a group with its memberships and grants",
                 delete_options, RunDelete);
  remove->add_option("name", delete_options->name, "group to delete")
      ->required()
      ->type_name(kGroupArgument);
  remove->add_flag("-y,--yes", delete_options->yes, "do not ask on a terminal");
  AddDryRun(remove, invocation);

  AddMembership(*group, invocation, "add", "Put clients into a group", RunAdd);
  AddMembership(*group, invocation, "remove", "Take clients out of a group", RunRemove);
}

}  // namespace latchkey::cli
