#include "server/service/read_automation.h"

#include <algorithm>
#include <tuple>

#include "server/service/read_delivery.h"

namespace latchkey::service {
namespace {

std::vector<const catalog::Secret*> AllSecrets(const catalog::Root& root) {
  std::vector<const catalog::Secret*> secrets;
  secrets.reserve(root.secret_count());
  root.ForEachSecret([&](const catalog::Secret& secret) {
    secrets.push_back(&secret);
    return true;
  });
  return secrets;
}

void SortByName(std::vector<const catalog::Secret*>* secrets) {
  std::sort(secrets->begin(), secrets->end(),
            [](const auto* a, const auto* b) { return a->name() < b->name(); });
}

Result<std::vector<store::VersionInfo>> Verified(const Services& services,
                                                 const catalog::Secret& secret,
                                                 Result<std::vector<store::VersionInfo>> versions) {
  if (!versions) return std::move(versions).error();
  for (const store::VersionInfo& info : *versions) {
    RETURN_IF_ERROR(services.keys->Verify(info));
    if (info.secret != secret.id())
      return Error{Errc::kCorrupt, "a version belongs to another secret"};
  }
  return versions;
}

}  // namespace

std::vector<const catalog::Secret*> SecretsByCreation(const catalog::Root& root, std::size_t from,
                                                      std::size_t count, bool newest_first) {
  std::vector<const catalog::Secret*> secrets = AllSecrets(root);
  if (from >= secrets.size()) return {};
  const std::size_t end = from + std::min(count, secrets.size() - from);
  const auto order = [](const catalog::Secret* s) {
    return std::tuple(s->created_at(), s->sequence(), s->id());
  };
  const auto before = [&](const auto* a, const auto* b) {
    return newest_first ? order(b) < order(a) : order(a) < order(b);
  };
  std::partial_sort(secrets.begin(), secrets.begin() + static_cast<std::ptrdiff_t>(end),
                    secrets.end(), before);
  return {secrets.begin() + static_cast<std::ptrdiff_t>(from),
          secrets.begin() + static_cast<std::ptrdiff_t>(end)};
}

std::vector<const catalog::Secret*> SecretsByExpiry(const catalog::Root& root) {
  std::vector<const catalog::Secret*> secrets = AllSecrets(root);
  std::sort(secrets.begin(), secrets.end(), [](const auto* a, const auto* b) {
    return std::tuple(a->expiry(), a->name()) < std::tuple(b->expiry(), b->name());
  });
  return secrets;
}

std::vector<const catalog::Secret*> SecretsOwnedBy(const catalog::Root& root, GroupId owner) {
  std::vector<const catalog::Secret*> secrets;
  root.ForEachSecret([&](const catalog::Secret& secret) {
    if (secret.owner() == owner) secrets.push_back(&secret);
    return true;
  });
  SortByName(&secrets);
  return secrets;
}

std::vector<const catalog::Secret*> SecretsGrantedTo(const catalog::Root& root,
                                                     const catalog::Group& group) {
  std::vector<const catalog::Secret*> secrets;
  group.secrets.ForEach([&](SecretId id) {
    if (const catalog::Secret* secret = root.FindSecret(id)) secrets.push_back(secret);
    return true;
  });
  SortByName(&secrets);
  return secrets;
}

std::vector<const catalog::Client*> MembersOf(const catalog::Root& root,
                                              const catalog::Group& group) {
  std::vector<const catalog::Client*> clients;
  group.clients.ForEach([&](ClientId id) {
    if (const catalog::Client* client = root.FindClient(id)) clients.push_back(client);
    return true;
  });
  std::sort(clients.begin(), clients.end(),
            [](const auto* a, const auto* b) { return a->row.name < b->row.name; });
  return clients;
}

Result<std::vector<store::VersionInfo>> ListVersions(const Services& services,
                                                     const catalog::Secret& secret,
                                                     std::size_t offset, std::size_t limit) {
  ASSIGN_OR_RETURN(store::Reader reader, services.store->Read());
  return Verified(services, secret, reader.ListVersions(secret.id(), offset, limit));
}

Result<std::vector<store::VersionInfo>> VersionsBelow(const Services& services,
                                                      const catalog::Secret& secret,
                                                      std::optional<VersionNumber> below,
                                                      std::size_t limit) {
  ASSIGN_OR_RETURN(store::Reader reader, services.store->Read());
  const VersionNumber bound = below.value_or(VersionNumber{secret.newest_number() + 1});
  return Verified(services, secret, reader.ListVersionsBelow(secret.id(), bound, limit));
}

Result<OpenedVersion> OpenVersionOf(const Services& services, const catalog::Secret& secret,
                                    VersionId version) {
  // Only current versions come from the cache: an old one may have been pruned since it was put there.
  SealedRef sealed;
  if (version == secret.current()) {
    ASSIGN_OR_RETURN(sealed, FetchSealed(services, version));
  } else {
    ASSIGN_OR_RETURN(store::VersionRow row, services.store->LoadVersion(version));
    sealed = std::make_shared<const store::VersionRow>(std::move(row));
  }
  if (sealed->info.secret != secret.id()) return Error{Errc::kNotFound, ""};
  auto opened = services.keys->OpenVersion(sealed->info, sealed->sealed, sealed->wrapped);
  if (!opened) {
    services.cache->Forget(version);
    return std::move(opened).error();
  }
  return OpenedVersion{std::move(*opened), sealed->info.number};
}

Access ExplainAccess(const catalog::Root& root, std::string_view client_name,
                     std::string_view secret_name) {
  Access access;
  const catalog::Client* client = root.FindClient(client_name);
  if (client == nullptr) {
    access.decision.reason = catalog::acl::Reason::kNoSuchClient;
    return access;
  }
  access.decision = root.DecideRead(client->row.id, secret_name);
  const catalog::Secret* secret = root.FindSecret(secret_name);
  if (secret == nullptr || !access.decision.allowed()) return access;
  for (const std::uint32_t id : secret->groups()) {
    const bool member = std::binary_search(client->groups.begin(), client->groups.end(), id);
    const catalog::Group* group = member ? root.FindGroup(GroupId{id}) : nullptr;
    if (group != nullptr) access.groups.push_back(group->row.name);
  }
  return access;
}

// Up to `limit` rows of the store chain after `after`, or the newest, each compared with the row
// before it.
Result<std::vector<store::AuditRow>> ReadStoreChain(const Services& services,
                                                    std::optional<std::uint64_t> after,
                                                    std::size_t limit) {
  ASSIGN_OR_RETURN(store::Reader reader, services.store->Read());
  if (!after) {
    ASSIGN_OR_RETURN(const auto last, reader.LastAudit());
    const std::uint64_t newest = last ? last->seq : 0;
    after = newest - std::min<std::uint64_t>(newest, limit);
  }
  const bool from_first = *after == 0;
  ASSIGN_OR_RETURN(
      auto rows, from_first ? reader.ListAudit(0, limit) : reader.ListAudit(*after - 1, limit + 1));
  audit::ChainHead before;
  std::vector<store::AuditRow> linked;
  for (store::AuditRow& row : rows) {
    const bool is_wanted = row.seq > *after;  // else it is the one in front: its hash is needed
    if (is_wanted && (row.seq != before.seq + 1 ||
                      !audit::IsLinked(services.keys->audit_key(), audit::kStoreChainId,
                                       before.hash, row.seq, row.event, row.hash)))
      return audit::RecordIsDamaged(audit::kStoreChainId, row.seq);
    before = audit::ChainHead{row.seq, row.hash};
    if (is_wanted) linked.push_back(std::move(row));
  }
  return linked;
}

Result<AuditPage> ReadAudit(const Services& services, ChainName chain,
                            std::optional<std::uint64_t> after, std::size_t limit) {
  AuditPage page;
  const auto add = [&](std::string_view chain_id, std::uint64_t seq, Bytes encoded) -> Status {
    ASSIGN_OR_RETURN(const audit::Event event, audit::DecodeEvent(encoded));
    page.events.push_back(audit::EventToJson(chain_id, seq, event));
    // Heads are the server's own echo of whatever was written, readings included.
    if (event.type != audit::EventType::kAuditRead && event.type != audit::EventType::kHeads)
      ++page.besides_reads;
    return {};
  };
  if (chain == ChainName::kStore) {
    ASSIGN_OR_RETURN(const auto rows, ReadStoreChain(services, after, limit));
    for (const store::AuditRow& row : rows)
      RETURN_IF_ERROR(add(audit::kStoreChainId, row.seq, row.event));
    return page;
  }
  const std::uint64_t last = services.access->Last().head.seq;
  const std::uint64_t from = after ? *after : last - std::min<std::uint64_t>(last, limit);
  ASSIGN_OR_RETURN(const auto records, services.access->Read(from, limit));
  for (const auto& record : records)
    RETURN_IF_ERROR(add(services.access->chain_id(), record.seq, record.event));
  return page;
}

}  // namespace latchkey::service
