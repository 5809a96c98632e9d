// What went wrong between us and the server, in words that say what to do next.
#pragma once

#include <string>
#include <string_view>

#include "client/lib/http_client.h"
#include "common/base/result.h"

namespace latchkey::client {

// How libcurl's codes read to a person; curl's own types stay in http_client.cc.
enum class TransportFailure {
  kResolve,
  kConnect,
  kConnectTimeout,
  kTotalTimeout,
  kServerUntrusted,  // chain or name of the server
  kCaFile,
  kClientFiles,  // certificate or key cannot be used
  kHandshake,
  kConnectionLost,
  kOther,
};

// `detail` is library text: only known phrases are looked for in it and only a cleaned excerpt is
// quoted.
Error TransportError(TransportFailure failure, std::string_view detail, const HttpOptions& options);

// Which code a 403 becomes: the delivery refuses a secret (kForbidden), the automation API a right
// (kPermissionDenied).
enum class Surface { kDelivery, kAutomation };

// The error for an answer with a status outside 200-299. Takes the server's own message when it
// says more than the status; it is cleaned and cut, since a server is not trusted blindly (rule
// F7).
Error StatusError(const HttpResponse& response, Surface surface, const HttpOptions& options);

// Printable one-line excerpt of foreign text: control bytes, bidi controls and invalid UTF-8
// escaped, cut at 256 bytes.
std::string CleanExcerpt(std::string_view text);

}  // namespace latchkey::client
