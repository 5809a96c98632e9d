// Writing use cases on clients and groups (API spec 1.14, 1.15; rules I3-I5). Each is run by Writer::Submit.
//
// Errors of all: kPermissionDenied, kInvalidArgument (name or SPIFFE id), kNotFound, kConflict (taken), kUnavailable.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "common/model/metadata.h"
#include "server/service/writer.h"

namespace latchkey::service {

struct NewClient {
  std::string name;
  std::string description;
  std::string spiffe_id;            // empty: none
  std::vector<std::string> groups;  // unknown ones are passed over
};
// Enabled, without automation or content bit.
Result<ClientId> CreateClient(WriteContext& context, const NewClient& client);
// A client that showed a trusted certificate and had no row (API spec 2.4, rule I4): no membership, no bit. When another
// request was faster the existing row is found.
Result<ClientId> AutoCreateClient(WriteContext& context, const std::string& name,
                                  const std::optional<std::string>& spiffe_id);
// kConflict for the last enabled client with the automation bit: nobody could administer any more.
Result<Nothing> DeleteClient(WriteContext& context, const std::string& name);
// As for secrets: unknown groups and no-op changes are passed over, removal wins. Gives the resulting group names.
Result<std::vector<std::string>> ModifyClientGroups(WriteContext& context, const std::string& name,
                                                    const std::vector<std::string>& add,
                                                    const std::vector<std::string>& remove);

struct ClientBits {
  bool enabled = false;
  bool automation = false;
  bool content = false;
};
struct ClientBitChanges {
  std::optional<bool> enabled;
  std::optional<bool> automation;
  std::optional<bool> content;
};
// kPermissionDenied for one's own row, and for giving the content bit without having it (rule I5); kConflict for
// taking it from the last enabled client with the automation bit, or disabling that.
Result<ClientBits> SetClientState(WriteContext& context, const std::string& name,
                                  const ClientBitChanges& changes);

struct NewGroup {
  std::string name;
  std::string description;
  Metadata metadata;
  std::string metadata_json;
};
Result<GroupId> CreateGroup(WriteContext& context, const NewGroup& group);
// Removes memberships and grants, and clears the owner of whatever it owned, deleted secrets included.
Result<Nothing> DeleteGroup(WriteContext& context, const std::string& name);

}  // namespace latchkey::service
