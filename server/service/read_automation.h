// Reading use cases of automation clients (API spec 1.14-1.16 and the additions). Metadata comes from the catalog, versions
// from the store; every row from the store is verified before it is used (rule G2).
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/service/services.h"

namespace latchkey::service {

// Live secrets by creation, newest first or last; ties by the order of insertion. `from` and `count` cut a slice.
std::vector<const catalog::Secret*> SecretsByCreation(const catalog::Root& root, std::size_t from,
                                                      std::size_t count, bool newest_first);
// All live secrets, by expiry and then by name.
std::vector<const catalog::Secret*> SecretsByExpiry(const catalog::Root& root);
// Live secrets that the group owns, by name.
std::vector<const catalog::Secret*> SecretsOwnedBy(const catalog::Root& root, GroupId owner);
// Live secrets granted to the group, by name; its members, by name.
std::vector<const catalog::Secret*> SecretsGrantedTo(const catalog::Root& root,
                                                     const catalog::Group& group);
std::vector<const catalog::Client*> MembersOf(const catalog::Root& root,
                                              const catalog::Group& group);

// Versions of one secret, newest first, verified. `offset` and `limit` cut a slice of the list.
Result<std::vector<store::VersionInfo>> ListVersions(const Services& services,
                                                     const catalog::Secret& secret,
                                                     std::size_t offset, std::size_t limit);
// The same by number, below `below` (nullopt: from the newest).
Result<std::vector<store::VersionInfo>> VersionsBelow(const Services& services,
                                                      const catalog::Secret& secret,
                                                      std::optional<VersionNumber> below,
                                                      std::size_t limit);

// Content of any version of `secret`. kNotFound when the version does not exist (any more) or belongs to another secret.
struct OpenedVersion {
  SecretBuffer content;
  VersionNumber number;
};
Result<OpenedVersion> OpenVersionOf(const Services& services, const catalog::Secret& secret,
                                    VersionId version);

struct Access {
  catalog::acl::Decision decision;
  std::vector<std::string> groups;  // all groups in common, by id
};
Access ExplainAccess(const catalog::Root& root, std::string_view client, std::string_view secret);

// Events of one chain as JSON objects, ascending: after a position, or the newest `limit`. `besides_reads` counts those that
// are neither readings of the audit nor the heads that follow upon them: whoever follows a chain must not keep it growing
// by following it.
enum class ChainName { kStore, kAccess };
struct AuditPage {
  std::vector<std::string> events;
  std::size_t besides_reads = 0;
};
Result<AuditPage> ReadAudit(const Services& services, ChainName chain,
                            std::optional<std::uint64_t> after, std::size_t limit);

}  // namespace latchkey::service
