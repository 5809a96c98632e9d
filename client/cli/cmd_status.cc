// latchkey status: whether the server is up, and what it thinks of the own certificate.
#include "client/cli/command.h"
#include "client/cli/exit_codes.h"

namespace latchkey::cli {
namespace {

struct None {};

struct Rights {
  bool known = false;       // an enabled client
  bool automation = false;  // may use the commands that manage
  std::size_t readable = 0;
};

Result<Rights> AskRights(client::ApiClient& api) {
  Rights rights;
  const auto own = api.Secrets();
  if (!own.has_value()) {
    if (own.error().code == Errc::kUnauthenticated) return rights;
    return own.error();
  }
  rights.known = true;
  rights.readable = own->size();
  // Any name does: 403 tells the right is missing, whether the secret exists does not matter.
  const auto probe = api.SecretExists("latchkey-status-probe");
  if (!probe.has_value() && probe.error().code != Errc::kPermissionDenied) return probe.error();
  rights.automation = probe.has_value();
  return rights;
}

Result<int> Run(Session& session, const None& /*options*/) {
  ASSIGN_OR_RETURN(client::ApiClient* const api, session.Api());
  ASSIGN_OR_RETURN(const client::ServerStatus status, api->Status());
  ASSIGN_OR_RETURN(const Rights rights, AskRights(*api));
  const bool healthy = status.status == "ok";
  if (session.json) {
    session.PrintJson([&](wire::JsonOut& out) {
      out.BeginObject().Text("server", api->options().server.Text()).Text("status", status.status);
      out.Text("message", status.message).Key("checks").BeginObject();
      for (const auto& [name, good] : status.checks) out.Bool(name, good);
      out.EndObject().Bool("known", rights.known).Bool("automation", rights.automation);
      out.Unsigned("readableSecrets", rights.readable).EndObject();
    });
  } else {
    Fields fields;
    fields.Add("server", api->options().server.Text());
    fields.Add("status",
               status.status + (status.message.empty() || healthy ? "" : ": " + status.message));
    for (const auto& [name, good] : status.checks)
      fields.Add("check " + name, good ? "ok" : "failing");
    fields.Add("certificate", session.connection().cert_file);
    fields.Add("known client", rights.known ? "yes" : "no: unknown or disabled");
    fields.Add("automation", rights.automation ? "yes" : "no");
    fields.Add("readable secrets", std::to_string(rights.readable));
    session.Print(fields.Text());
  }
  if (!healthy)
    return Error{Errc::kUnavailable, "server " + api->options().server.Text() + " is not healthy"};
  return kExitDone;
}

}  // namespace

void AddStatus(CLI::App& root, Invocation* invocation) {
  AddCommand(root, invocation, "status", "Show whether the server is up and knows this certificate",
             std::make_shared<None>(), Run);
}

}  // namespace latchkey::cli
