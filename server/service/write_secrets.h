// Writing use cases on secrets (API spec 1.16, 5.3-5.6; Appendix C). Each is run by Writer::Submit in its own savepoint.
//
// Errors of all: kPermissionDenied (the caller lost its bit), kInvalidArgument (a rule of rules.h, unknown owner), kTooLarge,
// kNotFound (no such live secret), kConflict (the name is taken), kUnavailable, kCorrupt.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/model/metadata.h"
#include "common/secret/secret_buffer.h"
#include "server/service/writer.h"

namespace latchkey::service {

// What a write left behind: for the headers of the answer.
struct Written {
  SecretId secret;
  VersionNumber version;  // now current
};

// `metadata_json` is the stored form of `metadata`, made by the caller who speaks JSON.
struct NewSecret {
  std::string name;
  SecretBuffer content;
  std::string description;
  Metadata metadata;
  std::string metadata_json;
  std::int64_t expiry = 0;
  std::string type;
  std::string owner;  // group name; empty: none, or the present one when the secret exists
  std::vector<std::string> groups;  // unknown ones are passed over
};

// Absent members stay as they are.
struct SecretChanges {
  std::optional<SecretBuffer> content;
  std::optional<std::string> description;
  std::optional<Metadata> metadata;
  std::string metadata_json;  // of `metadata`
  std::optional<std::int64_t> expiry;
  std::optional<std::string> type;
  std::optional<std::string> owner;  // "" clears it
};

Result<Written> CreateSecret(WriteContext& context, const NewSecret& secret);
// Replaces everything but the owner when the secret exists, else creates it.
Result<Written> CreateOrUpdateSecret(WriteContext& context, const NewSecret& secret);
// Always writes a new version; without content the present one is opened and sealed anew (rule C6).
Result<Written> UpdateSecretPartly(WriteContext& context, const std::string& name,
                                   const SecretChanges& changes);
Result<Written> RenameSecret(WriteContext& context, const std::string& name,
                             const std::string& new_name);
// Moves the current pointer to another version of the same secret: kInvalidArgument for a version of another one.
Result<Written> SetSecretVersion(WriteContext& context, const std::string& name, VersionId version);

enum class DeletionMode { kSoft, kHard };
Result<Nothing> DeleteSecret(WriteContext& context, const std::string& name, DeletionMode mode);
// The newest deleted series of that name, with its grants.
Result<Written> UndeleteSecret(WriteContext& context, const std::string& name);

// Grants and revokes; unknown groups and what is already so are passed over; a name in both lists ends up removed.
// Gives the names of the groups that are granted it afterwards.
Result<std::vector<std::string>> ModifySecretGroups(WriteContext& context, const std::string& name,
                                                    const std::vector<std::string>& add,
                                                    const std::vector<std::string>& remove);

}  // namespace latchkey::service
