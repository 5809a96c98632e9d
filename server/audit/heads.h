// HeadKeeper (rules A3, G6): each second and at stop lets each chain record the other's head when
// that has moved, writes the anchor, and prints both heads to the log every
// limits::kHeadLogInterval.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "common/base/clock.h"
#include "server/audit/access_log.h"
#include "server/audit/anchor.h"
#include "server/audit/refusal_tally.h"
#include "server/audit/store_chain.h"

namespace latchkey::audit {

struct HeadKeeperOptions {
  crypto::StoreId store_id{};
  std::string anchor_path;
  // Runs a writer job that appends `heads` to the store chain and waits for its commit.
  std::function<Status(const Event& heads)> record_in_store;
  // An anchor or spool that cannot be synced ends the process (rule P4).
  std::function<void(const char* what)> on_fatal;
  const Clock* clock = nullptr;
  // When there is one, each round first writes the counts whose window has ended. Outlives the keeper.
  RefusalTally* refusals = nullptr;
};

// Owns one thread between Start() and Stop(). Its parts must outlive it.
class HeadKeeper {
 public:
  HeadKeeper(const crypto::AuditKey& key, StoreChain& store, AccessLog& access,
             HeadKeeperOptions options);
  ~HeadKeeper();
  void Start();
  // Stops the thread, then runs one last round: both chains end with the other's head and the
  // anchor names both.
  Status Stop();
  // One round, as the thread does it. Callable without Start() (tests, init, offline commands).
  Status RunOnce();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace latchkey::audit
