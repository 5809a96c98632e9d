// The change feed: what changed for one client since a generation, long waits for it, and who
// serves what.
//
// A client learns names only of secrets that it can read now or could read through a group it is a
// member of. A waiter costs memory, not a thread; one thread of the feed wakes them. Thread-safe.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/result.h"
#include "common/model/ids.h"
#include "server/catalog/catalog.h"
#include "server/store/rows.h"
#include "server/store/store.h"

namespace latchkey::feed {

struct Changed {
  std::string name;
  VersionNumber version;
  std::uint64_t size_bytes = 0;
  friend bool operator==(const Changed&, const Changed&) = default;
};

// `generation` is what the client passes as `since` next. `reset`: forget everything and take a
// full listing; the lists are then empty. Each name is in one of the lists at most.
struct Answer {
  Generation generation;
  bool reset = false;
  std::vector<Changed> changed;
  std::vector<std::string> gone;
  bool empty() const { return !reset && changed.empty() && gone.empty(); }
};

struct Question {
  ClientId client;
  Generation since;  // 0: reset at once
  std::optional<Generation>
      serving;  // acknowledgement: everything up to it is what the client now serves
  std::chrono::milliseconds wait{
      0};  // cut at limits::kMaxFeedWait; 0: answer at once, even with nothing
};

// Called once, outside all locks, on the feed's thread; it must not block.
using Reply = std::function<void(Answer)>;

struct Asked {
  std::optional<Answer> answer;  // there is one at once: `reply` is never called
  std::uint64_t ticket = 0;      // else: names the waiter, for Cancel
};

// What one client is known to serve of one secret.
struct Serving {
  ClientId client;
  std::optional<VersionNumber>
      version;            // nullopt: never acknowledged, or older than the change log can tell
  Generation generation;  // it last acknowledged; 0: never
  std::int64_t served_since =
      0;  // seconds since 1970: when it first acknowledged that generation; 0: never
  std::int64_t last_seen = 0;  // when it last asked; 0: never
};

class Feed {
 public:
  // Reads the change log and the acknowledgements; `root` is the catalog of the same state.
  // Acknowledgements are written to `store` each kServingFlushInterval as bookkeeping jobs, and at
  // Stop. `store` and `clock` outlive the feed.
  static Result<std::unique_ptr<Feed>> Load(store::Store* store, catalog::RootRef root,
                                            const Clock& clock);
  ~Feed();
  Feed(const Feed&) = delete;
  Feed& operator=(const Feed&) = delete;

  // Called by the writer thread after the catalog was published: `root` carries `newest`; `changes`
  // are those of the batch. Returns without waiting for the waiters that it wakes.
  void Publish(catalog::RootRef root, Generation newest, std::span<const store::ChangeRow> changes);

  // Errors: kUnavailable when kMaxFeedWaiters wait. Of one client at most kMaxFeedWaitersPerClient
  // wait: the oldest is answered with nothing, on the caller's thread. The caller checks who asks; a client that is
  // unknown or disabled is answered with reset.
  Result<Asked> Ask(const Question& question, Reply reply);
  // Forgets a waiter whose connection is gone. Its reply may still be on its way. Unknown tickets
  // are ignored.
  void Cancel(std::uint64_t ticket);

  // Which version this client serves, as far as acknowledgements tell.
  Serving ServedBy(ClientId client, const catalog::Secret& secret) const;
  // The same for every client that can read the secret, by client name.
  std::vector<Serving> ServingOf(const catalog::Root& root, const catalog::Secret& secret) const;

  std::size_t waiters() const;
  Generation generation() const;

  // Answers every waiter with nothing (200, no changes), writes the acknowledgements and stops the
  // thread. Idempotent. The order at shutdown: Feed::Stop, Store::Stop, then destroy the feed. A
  // bookkeeping job that was submitted before still commits, and its commit is published to the feed.
  void Stop();

 private:
  class Impl;
  explicit Feed(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace latchkey::feed
