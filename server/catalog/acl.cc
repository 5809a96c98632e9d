#include "server/catalog/acl.h"

#include <algorithm>

namespace latchkey::catalog::acl {

const char* ReasonText(Reason reason) {
  switch (reason) {
    case Reason::kGranted:
      return "granted through a group";
    case Reason::kNoSuchClient:
      return "no such client";
    case Reason::kClientDisabled:
      return "client disabled";
    case Reason::kNoSuchSecret:
      return "no such secret";
    case Reason::kSecretDeleted:
      return "secret deleted";
    case Reason::kNoGroupInCommon:
      return "no group in common";
  }
  return "unknown reason";
}

std::optional<GroupId> FirstCommonGroup(GroupList a, GroupList b) {
  // One list is usually short: O(short * log long).
  if (a.size() > b.size()) std::swap(a, b);
  auto from = b.begin();
  for (const std::uint32_t group : a) {
    from = std::lower_bound(from, b.end(), group);
    if (from == b.end()) return std::nullopt;
    if (*from == group) return GroupId{group};
  }
  return std::nullopt;
}

Decision DecideRead(const std::optional<ClientView>& client,
                    const std::optional<SecretView>& secret) {
  if (!client.has_value()) return {Reason::kNoSuchClient, {}};
  if (!client->enabled) return {Reason::kClientDisabled, {}};
  if (!secret.has_value()) return {Reason::kNoSuchSecret, {}};
  if (!secret->live) return {Reason::kSecretDeleted, {}};
  const auto through = FirstCommonGroup(client->groups, secret->groups);
  if (!through.has_value()) return {Reason::kNoGroupInCommon, {}};
  return {Reason::kGranted, *through};
}

}  // namespace latchkey::catalog::acl
