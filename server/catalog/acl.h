// The pure decisions on the catalog (API spec 3.1): values in, decision out; no state, no I/O, no
// errors. Fail closed: anything absent is a refusal.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "common/model/ids.h"

namespace latchkey::catalog::acl {

// Ids of groups in 32 bits (limits::kMaxGroupId), ascending, each once.
using GroupList = std::span<const std::uint32_t>;

// What of a client and of a secret the decision looks at.
struct ClientView {
  bool enabled = false;
  GroupList groups;  // it is a member of
};
struct SecretView {
  bool live = false;
  GroupList groups;  // that are granted it
};

enum class Reason {
  kGranted,
  kNoSuchClient,
  kClientDisabled,
  kNoSuchSecret,
  kSecretDeleted,
  kNoGroupInCommon,
};
// Stable text of a reason: "granted through a group", "client disabled", "no group in common" ...
const char* ReasonText(Reason reason);

struct Decision {
  Reason reason = Reason::kNoGroupInCommon;
  GroupId through;  // kGranted only: the common group with the lowest id
  bool allowed() const { return reason == Reason::kGranted; }
};

// The lowest group in both lists.
std::optional<GroupId> FirstCommonGroup(GroupList a, GroupList b);

// May this client read this secret? Absent ones are nullopt. Ownership gives no read access.
// O(groups of both).
Decision DecideRead(const std::optional<ClientView>& client,
                    const std::optional<SecretView>& secret);

}  // namespace latchkey::catalog::acl
