// latchkey serving SECRET: which version each client shows to its processes.
#include "client/cli/command.h"
#include "client/cli/exit_codes.h"

namespace latchkey::cli {
namespace {

struct Options {
  std::string secret;
};

void WriteJson(Session& session, const client::ServingReport& report) {
  session.PrintJson([&](wire::JsonOut& out) {
    out.BeginArray();
    for (const client::ServingEntry& entry : report.entries) {
      out.BeginObject().Text("client", entry.client);
      if (entry.version) {
        out.Unsigned("version", *entry.version);
      } else {
        out.Null("version");
      }
      out.Bool("current", entry.current);
      WriteOptionalInt(out, "servedSinceSeconds", entry.served_since_s);
      WriteOptionalInt(out, "lastSeenSeconds", entry.last_seen_s);
      out.EndObject();
    }
    out.EndArray();
  });
}

Result<int> Run(Session& session, const Options& options) {
  RETURN_IF_ERROR(session.About(NameKind::kSecret, options.secret));
  ASSIGN_OR_RETURN(client::ApiClient* const api, session.Api());
  ASSIGN_OR_RETURN(const client::ServingReport report, api->Serving(options.secret));
  if (session.json) {
    WriteJson(session, report);
    return kExitDone;
  }
  if (report.entries.empty()) {
    session.terminal().NoteLine("no client can read " + Named(NameKind::kSecret, options.secret));
    return kExitDone;
  }
  Table table({"CLIENT", "VERSION", "CURRENT", "SINCE", "LAST SEEN"});
  for (const client::ServingEntry& entry : report.entries) {
    table.Add({entry.client, entry.version ? std::to_string(*entry.version) : "unknown",
               entry.current ? "yes" : "no", ShowTime(entry.served_since_s.value_or(0)),
               ShowTime(entry.last_seen_s.value_or(0))});
  }
  session.Print(table.Text());
  return kExitDone;
}

}  // namespace

void AddServing(CLI::App& root, Invocation* invocation) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      AddCommand(root, invocation, "serving",
                 "Show which version each client serves, and since when", options, Run);
  command->add_option("secret", options->secret, "the secret")
      ->required()
      ->type_name(kSecretArgument);
}

}  // namespace latchkey::cli
