// What changed for one client, worked out from an immutable state. Internal to the feed.
#pragma once

#include "common/model/ids.h"
#include "server/catalog/catalog.h"
#include "server/feed/feed.h"
#include "server/feed/log.h"

namespace latchkey::feed {

// Everything that an answer is worked out from, of one moment. A copy is cheap and never changes, so
// nobody holds the feed's lock while walking up to 100 000 entries.
struct State {
  catalog::RootRef root;
  Generation newest;
  LogView log;
};

// What concerns the client in the changes after `since`. Reset when the log does not reach back so
// far, when `since` is 0 or of the future, or when the client is unknown or disabled. Any thread.
Answer Evaluate(const State& state, ClientId client, Generation since);

}  // namespace latchkey::feed
