#include "server/service/write_secrets.h"

#include "server/service/rules.h"

namespace latchkey::service {
namespace {

Error NoSuchSecret() {
  return Error{Errc::kNotFound, ""};
}

// A secret as the use case works on it: values, because pointers into the editor die with its next change.
struct Working {
  store::SecretRow row;
  store::VersionInfo current;
  std::vector<std::uint32_t> groups;
};

Result<Working> FindLive(const WriteContext& context, const std::string& name) {
  const catalog::Secret* secret = context.root().FindSecret(std::string_view(name));
  if (secret == nullptr) return NoSuchSecret();
  const catalog::acl::GroupList groups = secret->groups();
  return Working{secret->Row(), secret->Current(), {groups.begin(), groups.end()}};
}

Status CheckFields(const WriteContext& context, const NewSecret& secret) {
  RETURN_IF_ERROR(CheckContent(context.settings, secret.content.size()));
  RETURN_IF_ERROR(CheckMetadata(secret.metadata));
  RETURN_IF_ERROR(CheckDescription(secret.description));
  return CheckType(secret.type);
}

void Touch(const WriteContext& context, store::SecretRow* row) {
  row->updated_at = context.now;
  row->updated_by = context.actor.name;
}

Status AnnounceSecret(WriteContext& context, SecretId secret) {
  store::ChangeRow change;
  change.kind = store::ChangeKind::kSecret;
  change.secret = secret;
  return context.Change(change);
}

// One entry for each group that could read it under the name that is gone.
Status AnnounceGone(WriteContext& context, const Working& secret) {
  for (const std::uint32_t group : secret.groups) {
    store::ChangeRow change;
    change.kind = store::ChangeKind::kSecretGone;
    change.secret = secret.row.id;
    change.group = GroupId{group};
    change.name = secret.row.name;
    RETURN_IF_ERROR(context.Change(change));
  }
  return {};
}

Status AuditSecret(WriteContext& context, audit::EventType type, const Working& secret,
                   const char* detail = "") {
  return context.Audit(type, [&](audit::Event& event) {
    event.secret_id = secret.row.id.value;
    event.secret_name = secret.row.name;
    event.version_number = secret.current.number.value;
    event.detail = detail;
  });
}

// Removes what 5.5 no longer keeps, now that `secret` has a further version.
Status Prune(WriteContext& context, const Working& secret) {
  ASSIGN_OR_RETURN(
      const std::vector<VersionId> old,
      context.tx.reader().PrunableVersions(secret.row.id, secret.row.current, context.now));
  if (old.empty()) return {};
  RETURN_IF_ERROR(context.tx.DeleteVersions(old));
  for (const VersionId id : old) context.keys.ForgetDek(id);
  return context.Audit(audit::EventType::kSecretPrune, [&](audit::Event& event) {
    event.secret_id = secret.row.id.value;
    event.secret_name = secret.row.name;
    event.count = old.size();
  });
}

// Adds a version, points the row at it and tells everybody. `secret` is the row as it is to become.
Result<Written> Advance(WriteContext& context, Working* secret, Bytes content,
                        std::string metadata_json, std::int64_t expiry, audit::EventType type) {
  const VersionNumber number{secret->row.newest_number + 1};
  ASSIGN_OR_RETURN(secret->current, context.AddVersion(secret->row.id, number, content,
                                                       std::move(metadata_json), expiry));
  secret->row.current = secret->current.id;
  secret->row.newest_number = number.value;
  secret->row.expiry = expiry;
  Touch(context, &secret->row);
  RETURN_IF_ERROR(context.UpdateSecret(secret->row, secret->current));
  RETURN_IF_ERROR(AuditSecret(context, type, *secret));
  RETURN_IF_ERROR(Prune(context, *secret));
  RETURN_IF_ERROR(AnnounceSecret(context, secret->row.id));
  return Written{secret->row.id, number};
}

Status AuditGrant(WriteContext& context, audit::EventType type, const Working& secret,
                  const catalog::Group& group) {
  return context.Audit(type, [&](audit::Event& event) {
    event.secret_id = secret.row.id.value;
    event.secret_name = secret.row.name;
    event.group_id = group.row.id.value;
    event.group_name = group.row.name;
  });
}

Status Grant(WriteContext& context, const Working& secret, GroupId group) {
  RETURN_IF_ERROR(context.AddGrant(group, secret.row.id));
  return AuditGrant(context, audit::EventType::kGrantAdd, secret, *context.root().FindGroup(group));
}

Result<Written> Insert(WriteContext& context, const NewSecret& secret) {
  ASSIGN_OR_RETURN(const SecretName name,
                   CheckedSecretName(context.settings, secret.name, secret.owner));
  RETURN_IF_ERROR(CheckFields(context, secret));
  ASSIGN_OR_RETURN(const std::optional<GroupId> owner, OwnerNamed(context.root(), secret.owner));
  if (context.root().FindSecret(std::string_view(name.text())) != nullptr)
    return Error{Errc::kConflict, "Cannot create secret " + name.text() + "."};
  Working made;
  made.row.id = SecretId{crypto::RandomId()};
  made.row.name = name.text();
  made.row.description = secret.description;
  made.row.created_at = context.now;
  made.row.created_by = context.actor.name;
  Touch(context, &made.row);
  made.row.type = secret.type;
  made.row.owner = owner;
  made.row.expiry = secret.expiry;
  made.row.newest_number = 1;
  ASSIGN_OR_RETURN(made.row.sequence, context.tx.NextSecretSequence());
  ASSIGN_OR_RETURN(store::VersionRow first, context.SealFirst(made.row.id, secret.content.bytes(),
                                                              secret.metadata_json, secret.expiry));
  made.row.current = first.info.id;
  made.current = first.info;
  RETURN_IF_ERROR(context.InsertSecret(made.row, first));
  RETURN_IF_ERROR(AuditSecret(context, audit::EventType::kSecretCreate, made));
  for (const std::string& group_name : secret.groups) {
    const catalog::Group* group = context.root().FindGroup(std::string_view(group_name));
    if (group == nullptr || group->secrets.Contains(made.row.id)) continue;
    RETURN_IF_ERROR(Grant(context, made, group->row.id));
  }
  RETURN_IF_ERROR(AnnounceSecret(context, made.row.id));
  return Written{made.row.id, made.current.number};
}

}  // namespace

Result<Written> CreateSecret(WriteContext& context, const NewSecret& secret) {
  RETURN_IF_ERROR(CheckStillAutomation(context));
  return Insert(context, secret);
}

Result<Written> CreateOrUpdateSecret(WriteContext& context, const NewSecret& secret) {
  RETURN_IF_ERROR(CheckStillAutomation(context));
  auto found = FindLive(context, secret.name);
  if (!found) return Insert(context, secret);
  Working& present = *found;
  ASSIGN_OR_RETURN(const std::optional<GroupId> owner, OwnerNamed(context.root(), secret.owner));
  if (owner) present.row.owner = owner;
  ASSIGN_OR_RETURN(const SecretName name,
                   CheckedSecretName(context.settings, secret.name,
                                     GroupNameOf(context.root(), present.row.owner)));
  RETURN_IF_ERROR(CheckFields(context, secret));
  present.row.description = secret.description;
  present.row.type = secret.type;
  return Advance(context, &present, secret.content.bytes(), secret.metadata_json, secret.expiry,
                 audit::EventType::kSecretUpdate);
}

Result<Written> UpdateSecretPartly(WriteContext& context, const std::string& name,
                                   const SecretChanges& changes) {
  RETURN_IF_ERROR(CheckStillAutomation(context));
  ASSIGN_OR_RETURN(Working secret, FindLive(context, name));
  if (changes.content) RETURN_IF_ERROR(CheckContent(context.settings, changes.content->size()));
  if (changes.description) {
    RETURN_IF_ERROR(CheckDescription(*changes.description));
    secret.row.description = *changes.description;
  }
  if (changes.type) {
    RETURN_IF_ERROR(CheckType(*changes.type));
    secret.row.type = *changes.type;
  }
  if (changes.owner) {
    ASSIGN_OR_RETURN(secret.row.owner, OwnerNamed(context.root(), *changes.owner));
    ASSIGN_OR_RETURN(const SecretName checked,
                     CheckedSecretName(context.settings, name, *changes.owner));
  }
  std::string metadata_json = secret.current.metadata;
  if (changes.metadata) {
    RETURN_IF_ERROR(CheckMetadata(*changes.metadata));
    metadata_json = changes.metadata_json;
  }
  const std::int64_t expiry = changes.expiry.value_or(secret.current.expiry);
  if (changes.content)
    return Advance(context, &secret, changes.content->bytes(), std::move(metadata_json), expiry,
                   audit::EventType::kSecretRotate);
  ASSIGN_OR_RETURN(const SecretBuffer content, context.OpenVersion(secret.current.id));
  return Advance(context, &secret, content.bytes(), std::move(metadata_json), expiry,
                 audit::EventType::kSecretUpdate);
}

Result<Written> RenameSecret(WriteContext& context, const std::string& name,
                             const std::string& new_name) {
  RETURN_IF_ERROR(CheckStillAutomation(context));
  ASSIGN_OR_RETURN(Working secret, FindLive(context, name));
  ASSIGN_OR_RETURN(
      const SecretName checked,
      CheckedSecretName(context.settings, new_name, GroupNameOf(context.root(), secret.row.owner)));
  if (context.root().FindSecret(std::string_view(new_name)) != nullptr)
    return Error{Errc::kConflict, "name " + new_name + " already used by an existing secret"};
  Working renamed = secret;
  renamed.row.name = checked.text();
  Touch(context, &renamed.row);
  RETURN_IF_ERROR(context.UpdateSecret(renamed.row, renamed.current));
  RETURN_IF_ERROR(context.Audit(audit::EventType::kSecretRename, [&](audit::Event& event) {
    event.secret_id = renamed.row.id.value;
    event.secret_name = renamed.row.name;
    event.previous_name = name;
    event.version_number = renamed.current.number.value;
  }));
  RETURN_IF_ERROR(AnnounceGone(context, secret));
  RETURN_IF_ERROR(AnnounceSecret(context, renamed.row.id));
  return Written{renamed.row.id, renamed.current.number};
}

Result<Written> SetSecretVersion(WriteContext& context, const std::string& name,
                                 VersionId version) {
  RETURN_IF_ERROR(CheckStillAutomation(context));
  ASSIGN_OR_RETURN(Working secret, FindLive(context, name));
  const auto target = context.tx.reader().GetVersion(version);
  if (!target && target.error().code != Errc::kNotFound) return target.error();
  if (!target || target->secret != secret.row.id)
    return Error{Errc::kInvalidArgument, "The requested version " + std::to_string(version.value) +
                                             " is not a known version of this secret"};
  RETURN_IF_ERROR(context.keys.Verify(*target));
  const VersionNumber before = secret.current.number;
  secret.current = *target;
  secret.row.current = target->id;
  secret.row.expiry = target->expiry;
  Touch(context, &secret.row);
  RETURN_IF_ERROR(context.UpdateSecret(secret.row, secret.current));
  RETURN_IF_ERROR(context.Audit(audit::EventType::kSecretRollback, [&](audit::Event& event) {
    event.secret_id = secret.row.id.value;
    event.secret_name = secret.row.name;
    event.version_number = secret.current.number.value;
    event.previous_version_number = before.value;
  }));
  RETURN_IF_ERROR(AnnounceSecret(context, secret.row.id));
  return Written{secret.row.id, secret.current.number};
}

Result<Nothing> DeleteSecret(WriteContext& context, const std::string& name, DeletionMode mode) {
  RETURN_IF_ERROR(CheckStillAutomation(context));
  ASSIGN_OR_RETURN(Working secret, FindLive(context, name));
  if (mode == DeletionMode::kHard) {
    ASSIGN_OR_RETURN(const std::vector<store::VersionInfo> versions,
                     context.tx.reader().ListVersions(secret.row.id, 0, secret.row.newest_number));
    for (const store::VersionInfo& version : versions) context.keys.ForgetDek(version.id);
    RETURN_IF_ERROR(context.DeleteSecret(secret.row.id));
  } else {
    Working deleted = secret;
    deleted.row.state = store::SecretState::kDeleted;
    Touch(context, &deleted.row);
    RETURN_IF_ERROR(context.UpdateSecret(deleted.row, deleted.current));
  }
  RETURN_IF_ERROR(AuditSecret(context, audit::EventType::kSecretDelete, secret,
                              mode == DeletionMode::kHard ? "hard" : "soft"));
  RETURN_IF_ERROR(AnnounceGone(context, secret));
  return Nothing{};
}

Result<Written> UndeleteSecret(WriteContext& context, const std::string& name) {
  RETURN_IF_ERROR(CheckStillAutomation(context));
  const auto deleted = context.root().FindDeletedSecrets(name);
  if (context.root().FindSecret(std::string_view(name)) != nullptr)
    return Error{Errc::kConflict, "name " + name + " already used by an existing secret"};
  if (deleted.empty()) return NoSuchSecret();
  Working secret{deleted.front()->Row(), deleted.front()->Current(), {}};
  secret.row.state = store::SecretState::kLive;
  Touch(context, &secret.row);
  RETURN_IF_ERROR(context.UpdateSecret(secret.row, secret.current));
  RETURN_IF_ERROR(AuditSecret(context, audit::EventType::kSecretUndelete, secret));
  RETURN_IF_ERROR(AnnounceSecret(context, secret.row.id));
  return Written{secret.row.id, secret.current.number};
}

Result<std::vector<std::string>> ModifySecretGroups(WriteContext& context, const std::string& name,
                                                    const std::vector<std::string>& add,
                                                    const std::vector<std::string>& remove) {
  RETURN_IF_ERROR(CheckStillAutomation(context));
  ASSIGN_OR_RETURN(const Working secret, FindLive(context, name));
  const auto announce = [&](store::ChangeKind kind, GroupId group) {
    store::ChangeRow change;
    change.kind = kind;
    change.secret = secret.row.id;
    change.group = group;
    if (kind == store::ChangeKind::kRevoke) change.name = secret.row.name;
    return context.Change(change);
  };
  for (const std::string& group_name : add) {
    const catalog::Group* group = context.root().FindGroup(std::string_view(group_name));
    if (group == nullptr || group->secrets.Contains(secret.row.id)) continue;
    const GroupId id = group->row.id;
    RETURN_IF_ERROR(Grant(context, secret, id));
    RETURN_IF_ERROR(announce(store::ChangeKind::kGrant, id));
  }
  for (const std::string& group_name : remove) {
    const catalog::Group* group = context.root().FindGroup(std::string_view(group_name));
    if (group == nullptr || !group->secrets.Contains(secret.row.id)) continue;
    const GroupId id = group->row.id;
    RETURN_IF_ERROR(context.RemoveGrant(id, secret.row.id));
    RETURN_IF_ERROR(
        AuditGrant(context, audit::EventType::kGrantRemove, secret, *context.root().FindGroup(id)));
    RETURN_IF_ERROR(announce(store::ChangeKind::kRevoke, id));
  }
  std::vector<std::string> names;
  for (const std::uint32_t group : context.root().FindSecret(secret.row.id)->groups())
    names.emplace_back(GroupNameOf(context.root(), GroupId{group}));
  return names;
}

}  // namespace latchkey::service
