// From a verified certificate to a Principal, or a refusal with its reason (rules I1-I4, X1, X3; API spec 2.1 step D).
//
// Decided anew for every request on the newest catalog: nothing of a decision is kept with the connection (rule T7).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "common/base/clock.h"
#include "common/base/guarded.h"
#include "common/model/limits.h"
#include "common/model/principal.h"
#include "common/tls/certificate.h"
#include "server/catalog/catalog.h"

namespace latchkey::identity {

struct Options {
  bool use_common_name = true;
  bool use_spiffe_id = true;
  bool create_missing_clients = false;  // delivery endpoints only
};

// What identification looks at of one request.
struct Credentials {
  const tls::PeerCertificate* certificate = nullptr;
  bool forwarded_identity = false;  // the request carries a header with a forwarded identity
  std::uint16_t local_port = 0;
  std::string_view address;
};

// `challenge` is the text of WWW-Authenticate; `detail` a constant for the audit.
struct Refusal {
  std::string challenge;
  const char* detail = "";
};

// A client row that is to be made before the request can be answered.
struct MissingClient {
  std::string name;
  std::optional<std::string> spiffe_id;
};

// What a request brings to the bookkeeping of its client: due at most once in 24 hours.
struct Sighting {
  ClientId client;
  std::optional<std::int64_t> expiration;  // earliest notAfter of the chain, seconds since 1970
};

struct Identified {
  std::optional<Principal> principal;  // authenticated
  Refusal refusal;                     // else why not: always 401
  std::optional<MissingClient>
      missing;  // unknown, and may be created (Authenticator::AdmitCreation)
  std::optional<Sighting>
      sighting;  // last-seen of the row is due; a disabled client is sighted too
};

// Thread-safe.
class Authenticator {
 public:
  Authenticator(const Options& options, const Clock& clock) : options_(options), clock_(clock) {}

  Identified Identify(const catalog::Root& root, const Credentials& credentials) const;

  // True when one more client may be created now: at most limits::kMaxAutoCreatedPerMinute (rule I4). Counts it.
  bool AdmitCreation();

 private:
  struct Window {
    MonotonicTime begin{};
    std::size_t created = 0;
  };

  const Options options_;
  const Clock& clock_;
  Guarded<Window> window_;
};

}  // namespace latchkey::identity
