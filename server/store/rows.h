// Rows of the store as plain values. What authorises or routes carries a MAC (rule G1), made and
// verified by server/keys: the store only keeps it. Times are seconds since 1970; texts are UTF-8.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "common/base/bytes.h"
#include "common/model/ids.h"

namespace latchkey::store {

using MacBytes = ByteArray<32>;

struct ClientRow {
  ClientId id;
  std::string name;
  std::string description;
  std::optional<std::string> spiffe_id;
  std::int64_t created_at = 0;
  std::string created_by;
  std::int64_t updated_at = 0;
  std::string updated_by;
  bool enabled = true;
  bool automation = false;
  bool content = false;  // may read contents through /automation/* (rule I5)
  std::optional<GroupId> owner;
  std::optional<std::int64_t> last_seen;  // bookkeeping: outside the MAC
  std::optional<std::int64_t>
      expiration;  // earliest notAfter of the chain last seen: outside the MAC
  MacBytes mac{};
};

struct GroupRow {
  GroupId id;
  std::string name;
  std::string description;
  std::int64_t created_at = 0;
  std::string created_by;
  std::int64_t updated_at = 0;
  std::string updated_by;
  std::string metadata;  // compact JSON object, members in the order given
  std::optional<GroupId> owner;
  MacBytes mac{};
};

struct MembershipRow {
  ClientId client;
  GroupId group;
  std::int64_t created_at = 0;
  MacBytes mac{};
};

// Grants of a soft-deleted secret stay, without effect, and work again after undelete; deleting the
// group removes them.
struct GrantRow {
  GroupId group;
  SecretId secret;
  std::int64_t created_at = 0;
  MacBytes mac{};
};

enum class SecretState : std::uint8_t { kLive = 1, kDeleted = 2 };

struct SecretRow {
  SecretId id;
  std::string name;  // unique among live secrets; a deleted one keeps its name
  std::string description;
  std::int64_t created_at = 0;
  std::string created_by;
  std::int64_t updated_at = 0;
  std::string updated_by;
  std::optional<std::string> type;
  std::optional<GroupId> owner;
  VersionId current;
  std::int64_t expiry = 0;  // copy of the current version's; 0 = never
  SecretState state = SecretState::kLive;
  std::uint64_t newest_number = 0;  // highest version number ever given
  std::uint64_t sequence = 0;       // order of creation among secrets created in one second
  MacBytes mac{};
};

// What may be listed and logged of a version. Its content columns follow in VersionRow.
struct VersionInfo {
  VersionId id;
  SecretId secret;
  VersionNumber number;
  std::int64_t created_at = 0;
  std::string created_by;
  std::string metadata;  // compact JSON object; bound to the content as AAD (rule C5)
  std::int64_t expiry = 0;
  ByteArray<32> checksum{};  // rule C6
  std::uint64_t size = 0;    // bytes of plaintext
  MacBytes mac{};  // over all of the above: listings show metadata without opening the content
};

struct VersionRow {
  VersionInfo info;
  ByteVector sealed;   // docs/formats.md, "Sealing a version"
  ByteVector wrapped;  // the DEK, wrapped
};

// Keys of the store, wrapped by a KEK (rule K2).
struct KeyringRow {
  std::string purpose;  // "mac", "audit", "sum", "session", "state"
  std::uint32_t kek_id = 0;
  ByteVector wrapped;
};

struct KekRow {
  std::uint32_t kek_id = 0;
  ByteArray<16> check_value{};  // rule K3
  std::int64_t created_at = 0;
  bool active = true;
};

// One event of the `store` audit chain: canonical bytes and the chain hash after it (rule A3).
struct AuditRow {
  std::uint64_t seq = 0;
  ByteVector event;
  ByteArray<32> hash{};
};

// One entry of the change log. What the objects mean depends on the kind.
enum class ChangeKind : std::uint8_t {
  kSecret = 1,  // secret created, rotated, renamed, undeleted, or its metadata changed: `secret`
  kSecretGone = 2,  // deleted, or renamed away: `secret`, `name` the name that is gone, `group` one
                    // group that could read it (one entry each)
  kGrant = 3,       // `group`, `secret`
  kRevoke = 4,      // `group`, `secret`, `name`
  kMembership = 5,  // `client` joined or left `group`: that client takes a full listing
  kClient = 6,      // `client` created, deleted, or its bits changed
};

struct ChangeRow {
  Generation generation;
  ChangeKind kind = ChangeKind::kSecret;
  SecretId secret;
  GroupId group;
  ClientId client;
  std::string name;
  // Of kSecret, filled in by the store and ignored when given: the current version after this
  // change and, when this change moved it, the one before (0: there was none). What a client serves
  // is derived from them.
  VersionNumber version;
  VersionNumber previous;
};

// What a client said last about the generation it serves (`serving` of the change feed).
// Bookkeeping: no MAC.
struct ServingRow {
  ClientId client;
  Generation generation;
  std::int64_t since = 0;      // when it first said this generation
  std::int64_t last_seen = 0;  // when it last said anything
};

}  // namespace latchkey::store
