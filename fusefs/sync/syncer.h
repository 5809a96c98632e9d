// Follows the server and publishes what this machine may have (R11-R18, R22, R28). One thread;
// handlers never wait for it.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <stop_token>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "fusefs/snapshot/snapshot.h"
#include "fusefs/sync/owner.h"
#include "fusefs/sync/source.h"

namespace latchkey::sync {

struct SyncOptions {
  OwnerDefaults defaults;
  std::chrono::seconds feed_wait{55};      // how long the server may hold one feed request
  std::chrono::seconds poll_interval{10};  // with a server that has no feed; jittered up to twice
  std::chrono::milliseconds retry_base{1000};
  std::chrono::milliseconds retry_max{60'000};
  // Between two attempts at secrets that could not be fetched or had no room, while the feed goes on.
  std::chrono::milliseconds refetch_base{2000};
  std::chrono::milliseconds refetch_max{60'000};
  std::chrono::seconds owner_refresh{60};  // names are resolved again this often (R21)
  // What is mounted is compared with a full listing this often, and within recheck_spread after an
  // outage: the feed's log in the server's database is not authenticated, so whoever can write there
  // while the server is stopped can make it silent about a revocation. Both jittered: a fleet does not
  // come in one wave.
  std::chrono::seconds recheck_interval{3600};
  std::chrono::seconds recheck_spread{60};
  // A listing that lost more than this share at once is believed only name by name (R13).
  unsigned shrink_percent = 50;
  std::string server_text;  // for the status
  std::string certificate_file, key_file, ca_file;
};

// What an operator asks first. Times are wall clock seconds since 1970; 0: never.
struct SyncHealth {
  std::int64_t started_s = 0;
  std::int64_t last_success_s = 0;
  std::int64_t stale_since_s = 0;  // 0: fresh
  std::string last_error;          // empty after a success
  std::uint64_t generation = 0;    // of the server
  bool has_feed = true;
  std::size_t secrets = 0;
};

// Facts of other parts for the status file (R38).
struct MountFacts {
  std::uint64_t worker_starts = 0;
  std::uint64_t dropped_reads = 0;
};

class Syncer {
 public:
  // All references must outlive it. `facts` is called on any thread.
  Syncer(Source& source, snapshot::SnapshotBuilder& builder, const Clock& clock,
         SyncOptions options, std::function<MountFacts()> facts = {});

  // Runs until `stop`: after each failure it waits, exponentially and jittered, at most retry_max.
  void Run(const std::stop_token& stop);
  // One step: one feed request, or one full listing. Exposed for tests.
  Status Step();

  // From any thread: take a full listing now and fetch everything again. A feed request that waits is ended for it.
  void RequestRefetch();
  SyncHealth health() const;
  // The status document of `.json/status`: facts of 1.1 and 6.8, never content.
  std::string StatusJson() const;

 private:
  struct Known {
    Metadata metadata;
    std::string checksum;
    FileOwner owner;
  };
  struct Wanted {
    std::string name;
    std::size_t size_bytes;
  };

  Status FullListing();
  Status FollowFeed();
  // Jittered within the time from now on.
  MonotonicTime Within(std::chrono::seconds time) const;
  // Takes over from the mount what an earlier worker published and the listing confirms.
  void Adopt(const std::vector<client::DeliveredSecret>& listing);
  Status RemoveMissing(const std::set<std::string>& listed);
  Status Fetch(std::vector<Wanted> wanted);
  Status FetchChunk(const std::vector<std::string>& names);
  Status FetchEach(const std::vector<std::string>& names);
  void Put(const client::DeliveredSecret& secret);
  // What the builder said to it: served, refused for good, or to be tried again.
  void NotePut(const std::string& name, const Status& put);
  void Forget(const std::string& name);
  // The secret is granted and not served as the server has it now: tried again soon.
  void NotePending(const std::string& name, const std::string& reason);
  bool RetryDue() const { return !pending_.empty() && clock_.Monotonic() >= retry_at_; }
  void PlanRetry();
  // How long the server may hold the next feed request.
  std::chrono::seconds FeedWait() const;
  // What the next feed request says is served.
  void Acknowledge(const std::vector<std::string>& refused);
  std::vector<Wanted> OwnersThatMoved();
  std::vector<Wanted> WantedAfter(const client::ChangeSet& changes);
  Status Publish();
  // Publishes what is staged, then whatever got its file name by that.
  Status PublishStaged(std::vector<std::string>* refused);
  // Around a request that the server may hold. BeginWait: false when a refetch is due instead. EndWait: whether a refetch
  // ended the request.
  bool BeginWait();
  bool EndWait();
  void NoteSuccess();
  void NoteFailure(const Error& error);
  // After a Discard: what is not mounted, or has a problem, is fetched with the next listing.
  void DoubtUnmounted();
  // Sleeps; false when stopped. A refetch request ends the sleep early.
  bool Pause(const std::stop_token& stop, std::chrono::milliseconds time);

  Source& source_;
  snapshot::SnapshotBuilder& builder_;
  const Clock& clock_;
  const SyncOptions options_;
  std::function<MountFacts()> facts_;

  // Sync thread only.
  std::map<std::string, Known> known_;
  std::map<std::string, std::string> owner_problems_;
  std::set<std::string> changed_;               // to be fetched with the next listing
  std::vector<std::string> staged_;             // put or removed since the last publication
  std::set<std::string> put_;                   // of these, what was put and not refused at once
  std::map<std::string, std::string> pending_;  // secret -> why it is not served as it is now
  std::chrono::milliseconds retry_delay_{0};
  MonotonicTime retry_at_{};
  std::uint64_t generation_ = 0;
  std::optional<Generation> serving_;  // acknowledged; the feed itself goes on from generation_
  bool served_new_ = false;  // a secret that was put since the last acknowledgement is served
  bool listing_due_ = true;
  bool has_feed_ = true;
  MonotonicTime owners_resolved_{};
  MonotonicTime recheck_at_ = MonotonicTime::max();  // set by the first listing
  std::string status_published_;

  // Guards what follows. Of other locks only the source's own, in Cancel and Rearm, is taken while it is held.
  mutable std::mutex mutex_;
  std::condition_variable_any wake_;
  bool refetch_ = false;
  bool waiting_ = false;      // in a request that a refetch may end
  bool interrupted_ = false;  // and has ended
  bool stopped_ = false;      // the source stays cancelled
  SyncHealth health_;
  std::vector<snapshot::Problem> problems_;
};

}  // namespace latchkey::sync
