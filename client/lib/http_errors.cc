#include "client/lib/http_errors.h"

#include "common/base/log.h"
#include "common/wire/json_gate.h"

namespace latchkey::client {
namespace {

bool Contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

std::string Quoted(const std::string& text) {
  return "\"" + text + "\"";
}

// A TLS alert tells that the server refused *us*. In TLS 1.3 it arrives only after our side
// finished its handshake.
bool IsCertificateAlert(std::string_view detail) {
  for (const char* word : {"alert", "ALERT"}) {
    if (!Contains(detail, word)) continue;
    for (const char* why :
         {"certificate", "unknown ca", "unknown CA", "access denied", "handshake failure"}) {
      if (Contains(detail, why)) return true;
    }
  }
  return false;
}

// The reason inside OpenSSL's text: what follows the last colon.
std::string LastPart(std::string_view detail) {
  const std::size_t colon = detail.rfind(':');
  std::string_view part = colon == std::string_view::npos ? detail : detail.substr(colon + 1);
  while (part.starts_with(' ')) part.remove_prefix(1);
  const std::size_t comma = part.find(", errno");
  return CleanExcerpt(part.substr(0, comma));
}

Error ServerUntrusted(std::string_view detail, const HttpOptions& options) {
  const std::string at = options.server.Text();
  if (Contains(detail, "subject name") || Contains(detail, "ostname mismatch") ||
      Contains(detail, "address mismatch")) {
    return Error{Errc::kUnauthenticated, "server certificate of " + at + " is not for the name " +
                                             Quoted(options.server.host) +
                                             ": use the name that the certificate has"};
  }
  return Error{Errc::kUnauthenticated, "server certificate of " + at +
                                           " is not trusted by CA file " +
                                           Quoted(options.tls.ca_file) + " (" + LastPart(detail) +
                                           "): use the CA that issued it"};
}

std::string Seconds(std::chrono::milliseconds time) {
  const auto count = time.count();
  return count % 1000 == 0 ? std::to_string(count / 1000) + " s" : std::to_string(count) + " ms";
}

// The message of an error body: {"code","message"} or {"errors":[...]} (API spec 1.4); empty when
// it has none.
std::string ServerMessage(const HttpResponse& response) {
  constexpr std::size_t kMaxErrorBodyBytes = 64 * 1024;
  if (response.body.empty() || response.body.size() > kMaxErrorBodyBytes) return {};
  const auto parsed = wire::ParseJson(response.body.bytes());
  if (!parsed.has_value()) return {};
  if (const auto message = parsed->OptionalText("message"); message.has_value() && *message) {
    // "HTTP 404 Not Found" says nothing beyond the status.
    if ((*message)->starts_with("HTTP " + std::to_string(response.status))) return {};
    return CleanExcerpt(**message);
  }
  if (const auto errors = parsed->OptionalTexts("errors");
      errors.has_value() && *errors && !(*errors)->empty()) {
    return CleanExcerpt((*errors)->front());
  }
  return {};
}

Errc CodeOfStatus(int status, Surface surface) {
  switch (status) {
    case 401:
      return Errc::kUnauthenticated;
    case 403:
      return surface == Surface::kDelivery ? Errc::kForbidden : Errc::kPermissionDenied;
    case 404:
      return Errc::kNotFound;
    case 409:
      return Errc::kConflict;
    case 413:
    case 414:
    case 431:
      return Errc::kTooLarge;
    case 408:
    case 429:
    case 502:
    case 503:
    case 504:
      return Errc::kUnavailable;
    default:
      break;
  }
  return status >= 400 && status < 500 ? Errc::kInvalidArgument : Errc::kInternal;
}

std::string DefaultMessage(const HttpResponse& response, const HttpOptions& options) {
  const std::string at = options.server.Text();
  switch (response.status) {
    case 401: {
      const std::string reason = response.www_authenticate.empty()
                                     ? ""
                                     : " (" + CleanExcerpt(response.www_authenticate) + ")";
      return "server " + at + " does not know the certificate " + Quoted(options.tls.cert_file) +
             reason + ": is there an enabled client with its name?";
    }
    case 403:
      return "server " + at + " does not allow this to the client of " +
             Quoted(options.tls.cert_file);
    case 404:
      return "server " + at + " has nothing of this name";
    case 409:
      return "the name is taken, or somebody else changed it at the same time";
    case 413:
      return "server " + at + " refuses a request of this size";
    case 503:
      return "server " + at + " is busy: try again";
    default:
      break;
  }
  if (response.status >= 300 && response.status < 400) {
    return "server " + at +
           " answered with a redirect, which is never followed: is the address right?";
  }
  return "server " + at + " answered status " + std::to_string(response.status);
}

}  // namespace

std::string CleanExcerpt(std::string_view text) {
  constexpr std::size_t kMaxExcerptBytes = 256;
  // The log's encoder escapes what must not reach a terminal; quotes and backslashes it escapes
  // besides are undone for reading, which cannot bring back a control byte.
  std::string escaped;
  AppendJsonEscaped(&escaped, text, kMaxExcerptBytes);
  std::string clean;
  for (std::size_t i = 0; i < escaped.size(); ++i) {
    if (escaped[i] == '\\' && i + 1 < escaped.size() &&
        (escaped[i + 1] == '"' || escaped[i + 1] == '\\')) {
      ++i;
    }
    clean.push_back(escaped[i]);
  }
  return clean;
}

Error TransportError(TransportFailure failure, std::string_view detail,
                     const HttpOptions& options) {
  const std::string at = options.server.Text();
  const std::string cert = Quoted(options.tls.cert_file);
  if (failure == TransportFailure::kHandshake || failure == TransportFailure::kConnectionLost) {
    if (IsCertificateAlert(detail)) {
      return Error{Errc::kUnauthenticated,
                   "server " + at + " did not accept the certificate " + cert + " (" +
                       LastPart(detail) +
                       "): is it for clients, in date, and from the CA that the server trusts?"};
    }
  }
  switch (failure) {
    case TransportFailure::kResolve:
      return Error{Errc::kUnavailable,
                   "cannot resolve host " + Quoted(options.server.host) + ": check the address"};
    case TransportFailure::kConnect:
      return Error{Errc::kUnavailable, "cannot connect to " + at + ": is latchkeyd running there?"};
    case TransportFailure::kConnectTimeout:
      return Error{Errc::kUnavailable, "no connection to " + at + " within " +
                                           Seconds(options.connect_timeout) +
                                           ": is the address right, and no firewall between?"};
    case TransportFailure::kTotalTimeout:
      return Error{Errc::kUnavailable, "no complete answer from " + at + " within " +
                                           Seconds(options.total_timeout) + ": try again"};
    case TransportFailure::kServerUntrusted:
      return ServerUntrusted(detail, options);
    case TransportFailure::kCaFile:
      return Error{Errc::kInvalidArgument, "CA file " + Quoted(options.tls.ca_file) +
                                               " holds no usable certificate: it must be PEM"};
    case TransportFailure::kClientFiles:
      return Error{Errc::kInvalidArgument,
                   "certificate file " + cert + " and key file " + Quoted(options.tls.key_file) +
                       " cannot be used together: both must be PEM, the key unencrypted and "
                       "the one of the certificate"};
    case TransportFailure::kHandshake:
      return Error{Errc::kUnavailable, "TLS handshake with " + at + " failed (" + LastPart(detail) +
                                           "): is latchkeyd on that port?"};
    case TransportFailure::kConnectionLost:
      return Error{Errc::kUnavailable,
                   "connection to " + at + " was lost before its answer: try again"};
    case TransportFailure::kOther:
      return Error{Errc::kUnavailable,
                   "request to " + at + " failed (" + CleanExcerpt(detail) + ")"};
  }
  INVARIANT(false);
}

Error StatusError(const HttpResponse& response, Surface surface, const HttpOptions& options) {
  const Errc code = CodeOfStatus(response.status, surface);
  std::string message = ServerMessage(response);
  if (message.empty() || response.status == 401) message = DefaultMessage(response, options);
  if (message == "audit_unavailable") {
    message =
        "audit_unavailable: the server cannot write its audit log: free space where audit.dir lies";
  }
  if (response.status >= 500 && !response.request_id.empty()) {
    message += " (request " + response.request_id + " in its log)";
  }
  return Error{code, std::move(message)};
}

}  // namespace latchkey::client
