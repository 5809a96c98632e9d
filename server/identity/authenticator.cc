#include "server/identity/authenticator.h"

namespace latchkey::identity {
namespace {

constexpr std::size_t kMaxSubjectBytes = 256;

// The subject comes from the peer: only what may stand in a header line goes back, and not at any length.
std::string HeaderSafe(std::string_view text) {
  std::string safe(text.substr(0, kMaxSubjectBytes));
  for (char& c : safe)
    if (c < 0x20 || c > 0x7e) c = '?';
  return safe;
}

// Unknown, disabled and doubtful get one and the same text: the answer tells nothing about rows (rule I4).
Refusal NotAuthorized(const tls::PeerCertificate& certificate, const char* detail) {
  return {"No authorized Client for connection using principal " + HeaderSafe(certificate.subject),
          detail};
}

}  // namespace

Identified Authenticator::Identify(const catalog::Root& root,
                                   const Credentials& credentials) const {
  Identified result;
  if (credentials.forwarded_identity) {
    result.refusal = {
        "Port " + std::to_string(credentials.local_port) +
            " is configured to never receive traffic with the X-Forwarded-Client-Cert header set",
        "forwarded_identity_on_direct_port"};
    return result;
  }
  if (credentials.certificate == nullptr) {
    result.refusal = {"Not authorized as Keywhiz client", "no_certificate"};
    return result;
  }
  const tls::PeerCertificate& certificate = *credentials.certificate;
  const tls::CertificateNames& names = certificate.names;
  if (!names.error.empty()) {
    result.refusal = NotAuthorized(certificate, "doubtful_certificate_names");
    return result;
  }
  const bool by_name_on = options_.use_common_name && names.common_name.has_value();
  const bool by_spiffe_on = options_.use_spiffe_id && names.spiffe_id.has_value();
  const catalog::Client* by_name =
      by_name_on ? root.FindClient(std::string_view(*names.common_name)) : nullptr;
  const catalog::Client* by_spiffe =
      by_spiffe_on ? root.FindClientBySpiffe(*names.spiffe_id) : nullptr;
  if (by_name != nullptr && by_spiffe != nullptr && by_name->row.id != by_spiffe->row.id) {
    result.refusal = NotAuthorized(certificate, "names_two_clients");
    return result;
  }
  const catalog::Client* client = by_name != nullptr ? by_name : by_spiffe;
  if (client == nullptr) {
    result.refusal = NotAuthorized(certificate, "unknown_client");
    if (options_.create_missing_clients && names.common_name.has_value())
      result.missing = MissingClient{*names.common_name, names.spiffe_id};
    return result;
  }
  const std::int64_t now = EpochSeconds(clock_.Now());
  const auto& last_seen = client->row.last_seen;
  if (!last_seen || now - *last_seen > limits::kLastSeenGranularitySeconds) {
    result.sighting = Sighting{client->row.id, std::nullopt};
    if (certificate.earliest_not_after != 0)
      result.sighting->expiration = certificate.earliest_not_after;
  }
  if (!client->row.enabled) {
    result.refusal = NotAuthorized(certificate, "client_disabled");
    return result;
  }
  result.principal = Principal(client->row.id, client->row.name, client->row.automation,
                               client->row.content, std::string(credentials.address));
  return result;
}

bool Authenticator::AdmitCreation() {
  const MonotonicTime now = clock_.Monotonic();
  return window_.With([now](Window& window) {
    if (window.created == 0 || now - window.begin >= std::chrono::minutes(1)) window = {now, 0};
    if (window.created >= limits::kMaxAutoCreatedPerMinute) return false;
    ++window.created;
    return true;
  });
}

}  // namespace latchkey::identity
