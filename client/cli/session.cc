#include "client/cli/session.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "client/lib/endpoint.h"
#include "client/lib/key_file.h"

namespace latchkey::cli {

std::string Quoted(std::string_view text) {
  return "\"" + std::string(text) + "\"";
}

std::string Named(NameKind kind, std::string_view name) {
  return std::string(KindWord(kind)) + " " + Quoted(name);
}

std::string JoinQuoted(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + Quoted(name);
  return text;
}

void WriteTexts(wire::JsonOut& out, std::string_view key, const std::vector<std::string>& texts) {
  out.Key(key).BeginArray();
  for (const std::string& text : texts) out.Text(text);
  out.EndArray();
}

std::string JsonTexts(const std::vector<std::string>& texts) {
  std::string text;
  wire::JsonOut out(&text);
  out.BeginArray();
  for (const std::string& item : texts) out.Text(item);
  out.EndArray();
  return text;
}

void WriteOptionalInt(wire::JsonOut& out, std::string_view key,
                      const std::optional<std::int64_t>& value) {
  if (value) {
    out.Int(key, *value);
  } else {
    out.Null(key);
  }
}

Result<client::ApiClient*> Session::Api() {
  if (api_ != nullptr) return api_.get();
  const std::pair<const std::string*, const char*> needed[] = {
      {&connection_.address, "server address is given: set LATCHKEY_ADDR or --addr to host:port"},
      {&connection_.ca_file, "CA file is given: set LATCHKEY_CA or --ca"},
      {&connection_.cert_file, "certificate is given: set LATCHKEY_CERT or --cert"},
      {&connection_.key_file, "key is given: set LATCHKEY_KEY or --key"}};
  for (const auto& [value, what] : needed) {
    if (value->empty()) return Error{Errc::kInvalidArgument, std::string("no ") + what};
  }
  client::HttpOptions options;
  ASSIGN_OR_RETURN(options.server, client::ParseEndpoint(connection_.address));
  options.tls = {connection_.ca_file, connection_.cert_file, connection_.key_file};
  options.user_agent = "latchkey-cli/" LATCHKEY_VERSION;
  if (quick) {
    options.connect_timeout = std::chrono::milliseconds(1000);
    options.total_timeout = std::chrono::milliseconds(2000);
    options.max_attempts = 1;
  }
  ASSIGN_OR_RETURN(api_, client::ApiClient::Open(std::move(options)));
  const std::string warning = client::KeyFileWarning(connection_.key_file);
  if (!warning.empty() && !quick) terminal_.WarningLine(warning);  // never into a completion
  return api_.get();
}

Status Session::About(NameKind kind, const std::string& name) {
  RETURN_IF_ERROR(CheckName(kind, name));
  subjects_.push_back({kind, name, /*own=*/false});
  return {};
}

Status Session::AboutOwn(const std::string& name) {
  RETURN_IF_ERROR(CheckName(NameKind::kSecret, name));
  subjects_.push_back({NameKind::kSecret, name, /*own=*/true});
  return {};
}

Result<std::vector<std::string>> Session::LiveNames(NameKind kind) {
  ASSIGN_OR_RETURN(client::ApiClient* const api, Api());
  auto names = kind == NameKind::kSecret   ? api->ListSecrets()
               : kind == NameKind::kClient ? api->ListClients()
                                           : api->ListGroups();
  if (names.has_value()) std::sort(names->begin(), names->end());
  return names;
}

Result<std::vector<std::string>> Session::OwnNames() {
  ASSIGN_OR_RETURN(client::ApiClient* const api, Api());
  ASSIGN_OR_RETURN(const auto secrets, api->Secrets());
  std::vector<std::string> names;
  for (const client::DeliveredSecret& secret : secrets) names.push_back(secret.name);
  std::sort(names.begin(), names.end());
  return names;
}

void Session::PrintJson(const std::function<void(wire::JsonOut&)>& write) {
  std::string text;
  wire::JsonOut out(&text);
  write(out);
  terminal_.OutJson(text);
}

void Session::Report(const WriteReport& report) {
  if (!json) {
    terminal_.Out(Printable(dry_run ? "would " + report.would : report.done) + "\n");
    return;
  }
  PrintJson([&](wire::JsonOut& out) {
    out.BeginObject()
        .Text("action", report.action)
        .Text("name", report.name)
        .Bool("dryRun", dry_run);
    if (report.receipt.version) out.Unsigned("version", *report.receipt.version);
    if (report.receipt.generation) out.Unsigned("generation", *report.receipt.generation);
    for (const auto& [key, value] : report.more) out.Raw(key, value);
    out.EndObject();
  });
}

Status Session::Confirm(const std::string& question, bool yes) {
  if (yes || dry_run || !terminal_.in_is_terminal() || !terminal_.err_is_terminal()) return {};
  terminal_.Progress(question + " [y/N] ");
  char answer[64];
  ssize_t got = ::read(terminal_.in_fd(), answer, sizeof answer);
  while (got < 0 && errno == EINTR) got = ::read(terminal_.in_fd(), answer, sizeof answer);
  terminal_.ClearProgress();
  if (got > 0 && (answer[0] == 'y' || answer[0] == 'Y')) return {};
  return Error{Errc::kInvalidArgument, "not confirmed: nothing was changed"};
}

std::optional<std::pair<Session::Subject, std::vector<std::string>>> Session::FindMissing() {
  for (const Subject& subject : subjects_) {
    const auto names = subject.own ? OwnNames() : LiveNames(subject.kind);
    if (!names.has_value()) continue;  // the error that is shown is the first one
    if (std::find(names->begin(), names->end(), subject.name) != names->end()) continue;
    return std::pair(subject, Suggest(subject.name, *names));
  }
  return std::nullopt;
}

int Session::Fail(const Error& error) {
  std::string message = error.message;
  std::vector<std::string> meant;
  if (error.code == Errc::kNotFound || error.code == Errc::kForbidden) {
    if (const auto missing = FindMissing()) {
      if (error.code == Errc::kNotFound) {
        message = Named(missing->first.kind, missing->first.name) + " not found";
      }
      meant = missing->second;
    }
  }
  const std::string hint = meant.empty() ? hint_ : DidYouMean(meant);
  if (json) {
    std::string text;
    wire::JsonOut out(&text);
    out.BeginObject().Text("error", ErrcName(error.code)).Text("message", message);
    WriteTexts(out, "didYouMean", meant);
    out.EndObject();
    terminal_.ErrJson(text);
  } else {
    terminal_.ErrorLine(message);
    if (!hint.empty()) terminal_.HintLine(hint);
  }
  return ExitCodeOf(error.code);
}

}  // namespace latchkey::cli
