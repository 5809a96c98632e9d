// Services: what the use cases stand on, put together by main and handed to server/api. Thread-safe as its parts are.
#pragma once

#include "server/audit/refusal_tally.h"
#include "server/service/sealed_cache.h"
#include "server/service/writer.h"

namespace latchkey::service {

// Borrows everything; the order of construction in main is store, keys, catalog, feed, chains, writer, services.
struct Services {
  store::Store* store = nullptr;
  catalog::Catalog* catalog = nullptr;
  feed::Feed* feed = nullptr;
  const keys::Keyring* keys = nullptr;
  audit::StoreChain* chain = nullptr;
  audit::AccessLog* access = nullptr;
  audit::RefusalTally* refusals = nullptr;
  Writer* writer = nullptr;
  SealedCache* cache = nullptr;
  const Clock* clock = nullptr;
  const Settings* settings = nullptr;

  Writer::Parts WriterParts() const {
    return {store, catalog, feed, keys, chain, access, clock, settings};
  }
};

}  // namespace latchkey::service
