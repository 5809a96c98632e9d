// What the server tells about its objects (API spec 1.5 and "Additions to the Keywhiz API").
// Metadata only, no contents.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/model/ids.h"
#include "common/model/metadata.h"

namespace latchkey::client {

// One answer of the change feed.
struct ChangeSet {
  struct Changed {
    std::string name;
    std::uint64_t version = 0;
    std::uint64_t size_bytes = 0;
  };
  Generation generation;
  bool reset = false;  // too far behind: take a full listing; the lists are empty
  std::vector<Changed> changed;
  std::vector<std::string> gone;
};

struct SecretInfo {  // SecretDetailV2
  std::string name, owner, description, checksum, type;
  std::int64_t created_at_s = 0, updated_at_s = 0;
  std::string created_by, updated_by;
  Metadata metadata;
  std::int64_t expiry_s = 0;  // 0: never
  std::optional<std::int64_t> version_id;
  std::optional<std::int64_t> content_created_at_s;
  std::string content_created_by;
};

struct ClientInfo {  // ClientDetailV2
  std::string name, owner, description, spiffe_id;
  std::int64_t created_at_s = 0, updated_at_s = 0;
  std::string created_by, updated_by;
  std::optional<std::int64_t> last_seen_s;
};

struct GroupInfo {  // GroupDetailV2
  std::string name, owner, description;
  std::int64_t created_at_s = 0, updated_at_s = 0;
  std::string created_by, updated_by;
  std::vector<std::string> secrets, clients;
  Metadata metadata;
};

struct HistoryEntry {
  std::uint64_t number = 0;     // 1, 2, 3 ... per secret
  std::int64_t version_id = 0;  // Keywhiz' version
  std::int64_t created_at_s = 0;
  std::string created_by, checksum;
  bool current = false;
};

struct Reader {  // one client that can read a secret, and one group through which it can
  std::string client, group;
};

struct ServingEntry {
  std::string client;
  std::optional<std::uint64_t> version;  // none: it never said
  bool current = false;                  // serves the version that is current now
  std::optional<std::int64_t> served_since_s, last_seen_s;
};

struct ServingReport {
  std::vector<ServingEntry> entries;
  std::optional<std::int64_t>
      server_time_s;  // by the server's clock, to judge the times in the entries
};

struct AccessAnswer {
  bool allowed = false;
  std::string reason;
  std::vector<std::string> groups;
};

struct AuditEvent {
  std::string chain;
  std::uint64_t seq = 0;
  std::string time;  // ISO 8601 in UTC: compares as text
  std::string type, outcome, actor, address, request_id;
  // The members that say what was acted on (secret, group, client, number ...), as text, in the
  // order of the answer.
  std::vector<std::pair<std::string, std::string>> details;
  std::string json;  // the whole event again, compact, in the order of the answer
};

struct ServerStatus {
  std::string status, message;
  std::vector<std::pair<std::string, bool>> checks;
};

// What a write left behind.
struct WriteReceipt {
  std::optional<std::uint64_t> version;     // number of the version written or made current
  std::optional<std::uint64_t> generation;  // of the commit
};

struct NewSecret {
  std::string name, description, type, owner;
  Metadata metadata;
  std::int64_t expiry_s = 0;
  std::vector<std::string> groups;
};

// A change to a secret: only what is set is touched.
struct SecretChange {
  std::optional<std::string> description, type;
  std::optional<Metadata> metadata;
  std::optional<std::int64_t> expiry_s;
};

struct NewClient {
  std::string name, description, spiffe_id;
  std::vector<std::string> groups;
};

struct ClientState {
  std::optional<bool> enabled, automation, content;
};

}  // namespace latchkey::client
