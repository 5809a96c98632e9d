// Reading use cases of clients (API spec 1.6, 3.1): decided on the newest catalog, for each request anew (rule T7).
//
// Nothing here formats an answer. Refusals and deliveries are recorded by the caller of these functions through
// AccessRecorder, in the batch that is written before the first byte of an answer (rule A1).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "server/service/services.h"

namespace latchkey::service {

// The sealed row of a version: from the cache, else from the store. kNotFound when it was pruned meanwhile, kUnavailable,
// kCorrupt.
Result<SealedRef> FetchSealed(const Services& services, VersionId id);

// Opens the current version of `secret` into `out`, which has secret.size_bytes() bytes of locked memory. kCorrupt when
// the row is not the one that the catalog speaks of, or does not open (rule C8).
Status OpenCurrentInto(const Services& services, const catalog::Secret& secret, MutableBytes out);

enum class BatchRefusal { kNone, kMissing, kForbidden, kTooManyNames, kTooMuchContent };
struct Batch {
  BatchRefusal refusal = BatchRefusal::kNone;
  std::vector<const catalog::Secret*> secrets;  // of `root`; each once, in the order asked for
  struct Refused {
    std::string name;
    bool exists = false;
  };
  std::vector<Refused> refused;  // kMissing: the first; kForbidden: all of them
};
// All or nothing: the first unknown name refuses at once (API spec), then any ungranted one. With `hide_names` unknown
// names are refused like ungranted ones, after the same work and with as many records: else the time of an answer, or the
// names behind a guess, would tell which it was. Pointers live as long as `root`.
Batch DecideBatch(const catalog::Root& root, ClientId client, const std::vector<std::string>& names,
                  bool hide_names);

// Up or down, for /_status (rule P5): whether the store can be read, and whether the newest write was committed.
bool StoreReadable(const Services& services);
bool StoreWritable(const Services& services);

}  // namespace latchkey::service
