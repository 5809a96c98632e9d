// latchkey grant SECRET GROUP and revoke SECRET GROUP.
#include "client/cli/command.h"
#include "client/cli/exit_codes.h"

namespace latchkey::cli {
namespace {

struct Options {
  std::string secret, group;
};

Result<int> Change(Session& session, const Options& options, bool grant) {
  RETURN_IF_ERROR(session.About(NameKind::kSecret, options.secret));
  RETURN_IF_ERROR(session.About(NameKind::kGroup, options.group));
  ASSIGN_OR_RETURN(client::ApiClient* const api, session.Api());
  const std::string both = Named(NameKind::kSecret, options.secret) + (grant ? " to " : " from ") +
                           Named(NameKind::kGroup, options.group);
  WriteReport report{.action = grant ? "grant" : "revoke",
                     .name = options.secret,
                     .done = (grant ? "granted " : "revoked ") + both,
                     .would = (grant ? "grant " : "revoke ") + both};
  std::string group_json;
  wire::JsonOut(&group_json).Text(options.group);
  report.more.emplace_back("group", group_json);
  ASSIGN_OR_RETURN(const auto before, api->SecretGroups(options.secret));
  const bool granted_before =
      std::find(before.begin(), before.end(), options.group) != before.end();
  // The server ignores a group that does not exist. A revoke of what is not granted is told apart from a misspelt name.
  if (!granted_before) RETURN_IF_ERROR(api->GetGroup(options.group));
  if (granted_before == grant) {
    report.done = Named(NameKind::kSecret, options.secret) +
                  (grant ? " is granted to " : " is not granted to ") +
                  Named(NameKind::kGroup, options.group) + (grant ? " already" : "") +
                  ": nothing changed";
    report.would = "change nothing: " + report.done;
  } else if (!session.dry_run) {
    const std::vector<std::string> group{options.group}, nothing;
    ASSIGN_OR_RETURN(
        const auto groups,
        api->ModifySecretGroups(options.secret, grant ? group : nothing, grant ? nothing : group));
    const bool granted = std::find(groups.begin(), groups.end(), options.group) != groups.end();
    if (granted != grant) {
      return Error{Errc::kConflict,
                   Named(NameKind::kGroup, options.group) + " changed at the same time: try again"};
    }
  }
  session.Report(report);
  return kExitDone;
}

Result<int> RunGrant(Session& session, const Options& options) {
  return Change(session, options, true);
}
Result<int> RunRevoke(Session& session, const Options& options) {
  return Change(session, options, false);
}

void Add(CLI::App& root, Invocation* invocation, const char* word, const char* description,
         Result<int> (*run)(Session&, const Options&)) {
  auto options = std::make_shared<Options>();
  CLI::App* command = AddCommand(root, invocation, word, description, options, run);
  command->add_option("secret", options->secret, "the secret")
      ->required()
      ->type_name(kSecretArgument);
  command->add_option("group", options->group, "the group")->required()->type_name(kGroupArgument);
  AddDryRun(command, invocation);
}

}  // namespace

void AddGrant(CLI::App& root, Invocation* invocation) {
  Add(root, invocation, "grant", "Let a group read a secret", RunGrant);
}

void AddRevoke(CLI::App& root, Invocation* invocation) {
  Add(root, invocation, "revoke", "Take a secret from a group", RunRevoke);
}

}  // namespace latchkey::cli
