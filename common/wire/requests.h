// Bodies of the requests of /batchsecret and /automation/v2 (API spec 1.9-1.16 and Appendix C),
// read from the JSON gate.
//
// Every Parse gives kInvalidArgument for what is answered with 400 `Unable to process JSON`.
// Unknown members are ignored. Content is decoded straight into locked memory; rules on names,
// sizes and metadata are the use cases', not checked here.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "common/secret/secret_buffer.h"
#include "common/wire/json_gate.h"

namespace latchkey::wire {

// POST /batchsecret. No list, null and [] are the same: nothing is asked for (sync clients send
// null when idle).
struct BatchSecretsRequest {
  std::vector<std::string> names;
  static Result<BatchSecretsRequest> Parse(const JsonValue& body);
};

// POST /automation/v2/secrets, and POST /automation/v2/secrets/{name} (there without name and
// groups).
struct CreateSecretRequest {
  std::string name;  // not empty
  SecretBuffer content;
  std::string description;
  Metadata metadata;
  std::int64_t expiry = 0;
  std::string type;
  std::vector<std::string> groups;
  std::string owner;  // empty: none given
  static Result<CreateSecretRequest> Parse(const JsonValue& body);
  static Result<CreateSecretRequest> ParseUpdate(
      const JsonValue& body);  // name and groups stay empty
};

// POST /automation/v2/secrets/{name}/partialupdate: a member counts only when its flag is set. A
// set flag without value resets the member; for content that is refused.
struct PartialUpdateRequest {
  std::optional<SecretBuffer> content;
  std::optional<std::string> description;
  std::optional<Metadata> metadata;
  std::optional<std::int64_t> expiry;
  std::optional<std::string> type;
  std::optional<std::string> owner;  // "" clears it
  static Result<PartialUpdateRequest> Parse(const JsonValue& body);
};

struct SetVersionRequest {
  std::string name;  // not empty
  std::int64_t version = 0;
  static Result<SetVersionRequest> Parse(const JsonValue& body);
};

struct ContentsRequest {
  std::vector<std::string> names;
  static Result<ContentsRequest> Parse(const JsonValue& body);
};

struct ContentsAtVersionRequest {
  std::string name;
  std::int64_t version = 0;
  static Result<ContentsAtVersionRequest> Parse(const JsonValue& body);
};

struct CreateClientRequest {
  std::string name;  // not empty
  std::string description;
  std::string spiffe_id;  // empty: none
  std::vector<std::string> groups;
  static Result<CreateClientRequest> Parse(const JsonValue& body);
};

struct CreateGroupRequest {
  std::string name;  // not empty
  std::string description;
  Metadata metadata;
  static Result<CreateGroupRequest> Parse(const JsonValue& body);
};

// PUT .../groups of a client or a secret.
struct ModifyGroupsRequest {
  std::vector<std::string> add;
  std::vector<std::string> remove;
  static Result<ModifyGroupsRequest> Parse(const JsonValue& body);
};

// PUT /automation/v2/clients/{name}/state: members that are absent or null are left as they are.
struct ClientStateRequest {
  std::optional<bool> enabled;
  std::optional<bool> automation;
  std::optional<bool> content;
  static Result<ClientStateRequest> Parse(const JsonValue& body);
};

}  // namespace latchkey::wire
