// Audit events (rules A3, A4): what may be recorded, its canonical bytes and its JSON.
//
// An event is an allow-list of fields: who, from where, what, on which object, how it ended. There
// is no field for content, checksum, token, cookie, certificate or header value, so none can slip
// in. Empty texts and zero numbers mean "not there". docs/audit-events.md lists the types with the
// tags that Keywhiz used for them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/bytes.h"
#include "common/base/result.h"

namespace latchkey::audit {

// X(enumerator, stable code, dotted name). Codes are in stored events: never reuse one, never
// renumber. 1xx reads and refusals (access chain), 2xx-5xx mutations (store chain), 9xx the server
// itself.
#define LATCHKEY_AUDIT_EVENT_TYPES(X)               \
  X(kSecretRead, 101, "secret.read")                \
  X(kSecretList, 102, "secret.list")                \
  X(kSecretsBatch, 103, "secrets.batch")            \
  X(kSecretReadContent, 104, "secret.read_content") \
  X(kAuditRead, 105, "audit.read")                  \
  X(kAccessDenied, 120, "access.denied")            \
  X(kAuthRefused, 121, "auth.refused")              \
  X(kIntegrityFailure, 122, "integrity_failure")    \
  X(kMutationFailed, 123, "mutation.failed")        \
  X(kAuthRefusedMany, 124, "auth.refused_many")     \
  X(kSecretCreate, 201, "secret.create")            \
  X(kSecretUpdate, 202, "secret.update")            \
  X(kSecretRotate, 203, "secret.rotate")            \
  X(kSecretRename, 204, "secret.rename")            \
  X(kSecretDelete, 205, "secret.delete")            \
  X(kSecretUndelete, 206, "secret.undelete")        \
  X(kSecretRollback, 207, "secret.rollback")        \
  X(kSecretPrune, 208, "secret.prune")              \
  X(kGroupCreate, 301, "group.create")              \
  X(kGroupDelete, 302, "group.delete")              \
  X(kGroupUpdate, 303, "group.update")              \
  X(kClientCreate, 401, "client.create")            \
  X(kClientDelete, 402, "client.delete")            \
  X(kClientAutoCreate, 403, "client.auto_create")   \
  X(kClientSet, 404, "client.set")                  \
  X(kGrantAdd, 501, "grant.add")                    \
  X(kGrantRemove, 502, "grant.remove")              \
  X(kMembershipAdd, 503, "membership.add")          \
  X(kMembershipRemove, 504, "membership.remove")    \
  X(kServerStart, 901, "server.start")              \
  X(kServerStop, 902, "server.stop")                \
  X(kServerReload, 903, "server.reload")            \
  X(kRollbackAccepted, 904, "rollback.accepted")    \
  X(kInit, 905, "init")                             \
  X(kBackup, 906, "backup")                         \
  X(kHeads, 907, "heads")                           \
  X(kTailCut, 908, "audit.tail_cut")

enum class EventType : std::uint16_t {
#define LATCHKEY_X(name, code, text) name = code,
  LATCHKEY_AUDIT_EVENT_TYPES(LATCHKEY_X)
#undef LATCHKEY_X
};

enum class Outcome : std::uint8_t { kAllowed = 1, kDenied = 2, kFailed = 3 };

// Who acted. kOperator: a person at the server's shell, through an offline command. kServer: the
// server by itself.
enum class ActorKind : std::uint8_t {
  kNone = 0,
  kClient = 1,
  kAutomation = 2,
  kOperator = 3,
  kServer = 4
};

// Bits of a client after the event, for client.create, client.auto_create and client.set.
inline constexpr std::uint64_t kBitsKnown =
    1;  // set whenever the field is meant, so that "no bit" can be said
inline constexpr std::uint64_t kBitEnabled = 2;
inline constexpr std::uint64_t kBitAutomation = 4;
inline constexpr std::uint64_t kBitContent = 8;

// Borrows every text: valid only as long as what it points into.
struct Event {
  EventType type = EventType::kSecretRead;
  Outcome outcome = Outcome::kAllowed;
  std::int64_t time_ns = 0;      // wall clock, nanoseconds since 1970
  std::uint64_t request_id = 0;  // net::RequestId::value; 0 outside requests
  ActorKind actor = ActorKind::kNone;
  std::int64_t actor_id = 0;  // ClientId of the caller
  std::string_view actor_name;
  std::string_view address;  // "127.0.0.1"
  std::int64_t secret_id = 0;
  std::string_view secret_name;
  std::string_view previous_name;             // secret.rename: the name before
  std::uint64_t version_number = 0;           // delivered, added or made current
  std::uint64_t previous_version_number = 0;  // secret.rollback: the current one before
  std::int64_t group_id = 0;
  std::string_view group_name;
  std::int64_t client_id = 0;  // a client that is acted on, never the caller
  std::string_view client_name;
  std::string_view
      detail;  // a constant of the program, such as "not_granted"; never text of a caller
  // Listed names, delivered secrets, pruned versions, records cut, refusals.
  std::uint64_t count = 0;
  std::uint64_t missing_count = 0;  // asked for and not delivered
  std::uint64_t client_bits = 0;
  std::uint64_t generation = 0;  // of the store, in server, heads and rollback events
  // heads and rollback.accepted: position of the other chain ("store", "access:main").
  std::string_view head_chain;
  std::uint64_t head_seq = 0;
  Bytes head_hash;            // 32 bytes or none
  std::int64_t since_ns = 0;  // auth.refused_many: time of the first; time_ns is the last
};

// Dotted name ("secret.read"); "unknown" never occurs for a decoded event.
std::string_view EventTypeName(EventType type);
std::optional<EventType> ParseEventType(std::string_view name);
std::string_view OutcomeName(Outcome outcome);
std::string_view ActorKindName(ActorKind kind);

// Longest encoding of an event. Longer texts than limits allow are a bug of the caller (INVARIANT).
inline constexpr std::size_t kMaxEventBytes = 8 * 1024;

// Appends the canonical bytes: per field that is there, in ascending order of field number,
// `field number u8 | u32 BE length | value` (numbers 8 bytes BE, type 2, outcome and actor 1).
// Distinct events have distinct bytes. Allocates nothing besides the growth of `out`. Texts are cut
// at 512 bytes (names are limited to less).
void EncodeEvent(const Event& event, ByteVector* out);
// The inverse; texts borrow from `encoded`. kCorrupt for anything that EncodeEvent would not have
// written.
Result<Event> DecodeEvent(Bytes encoded);

// Type and outcome alone, in constant time, from bytes that EncodeEvent wrote.
struct EventKind {
  EventType type;
  Outcome outcome;
};
EventKind PeekKind(Bytes encoded);

// One JSON object on one line, no newline: the form of GET /automation/v2/audit, of logs and of
// `check`. `chain` and `seq` come first; absent fields are left out. Valid JSON for any bytes in
// any field (rule O1).
std::string EventToJson(std::string_view chain, std::uint64_t seq, const Event& event);

// The events of one batch, encoded one after the other in memory that is kept for the next batch.
// Not thread-safe.
class EventBatch {
 public:
  void Add(const Event& event);
  void Clear();
  bool empty() const { return ends_.empty(); }
  std::size_t size() const { return ends_.size(); }
  Bytes operator[](std::size_t index) const;

 private:
  ByteVector bytes_;
  std::vector<std::size_t> ends_;
};

}  // namespace latchkey::audit
