#include "server/service/read_delivery.h"

#include <unordered_set>

#include "common/base/log.h"

namespace latchkey::service {

Result<SealedRef> FetchSealed(const Services& services, VersionId id) {
  if (SealedRef cached = services.cache->Find(id)) return cached;
  ASSIGN_OR_RETURN(store::VersionRow row, services.store->LoadVersion(id));
  auto loaded = std::make_shared<const store::VersionRow>(std::move(row));
  services.cache->Put(loaded);
  return SealedRef(std::move(loaded));
}

Status OpenCurrentInto(const Services& services, const catalog::Secret& secret, MutableBytes out) {
  ASSIGN_OR_RETURN(const SealedRef sealed, FetchSealed(services, secret.current()));
  const store::VersionInfo& info = sealed->info;
  // The catalog's head is authentic by the secret's MAC, the row by its own: they must speak of the same version, or
  // a row was put in the place of another (rules C5, G1).
  if (info.id != secret.current() || info.secret != secret.id() || info.size != out.size()) {
    services.cache->Forget(secret.current());
    return Error{Errc::kCorrupt, "the current version's row belongs to something else"};
  }
  auto opened = services.keys->OpenVersionInto(info, sealed->sealed, sealed->wrapped, out);
  if (opened) return {};
  services.cache->Forget(secret.current());
  return std::move(opened).error();
}

Batch DecideBatch(const catalog::Root& root, ClientId client, const std::vector<std::string>& names,
                  bool hide_names) {
  Batch batch;
  if (names.size() > limits::kMaxBatchNames) {
    batch.refusal = BatchRefusal::kTooManyNames;
    return batch;
  }
  std::unordered_set<std::string_view> seen;
  std::size_t content_bytes = 0;
  for (const std::string& name : names) {
    if (!seen.insert(name).second) continue;
    const catalog::Root::Found found = root.FindForClient(client, name);
    if (found.secret != nullptr) {
      batch.secrets.push_back(found.secret);
      content_bytes += found.secret->size_bytes();
      continue;
    }
    const bool exists = found.decision.reason == catalog::acl::Reason::kNoGroupInCommon;
    if (!exists && !hide_names) {
      batch.refusal = BatchRefusal::kMissing;
      batch.refused = {{name, false}};
      return batch;
    }
    batch.refused.push_back({name, exists});
  }
  if (!batch.refused.empty()) {
    batch.refusal = BatchRefusal::kForbidden;
  } else if (content_bytes > limits::kMaxBatchContentBytes) {
    batch.refusal = BatchRefusal::kTooMuchContent;
  }
  return batch;
}

bool StoreWritable(const Services& services) {
  return !services.store->write_trouble();
}

bool StoreReadable(const Services& services) {
  auto reader = services.store->Read();
  if (!reader) return false;
  return reader->Info().has_value();
}

}  // namespace latchkey::service
