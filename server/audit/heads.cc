#include "server/audit/heads.h"

#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>

#include "common/base/log.h"
#include "common/model/limits.h"

namespace latchkey::audit {

class HeadKeeper::Impl {
 public:
  Impl(const crypto::AuditKey& key, StoreChain& store, AccessLog& access, HeadKeeperOptions options)
      : key_(key), store_(store), access_(access), options_(std::move(options)) {}
  ~Impl() { StopThread(); }

  void Start() {
    thread_ = std::jthread([this](const std::stop_token& stop) { Run(stop); });
  }
  // False when there was none: an offline command.
  bool StopThread() {
    if (!thread_.joinable()) return false;
    thread_.request_stop();
    thread_.join();
    return true;
  }
  Status RunOnce();
  void LogHeads() const;

 private:
  void Run(const std::stop_token& stop);
  Event HeadEvent(std::string_view chain, const ChainHead& head, Generation generation) const;

  const crypto::AuditKey& key_;
  StoreChain& store_;
  AccessLog& access_;
  const HeadKeeperOptions options_;

  std::mutex round_mutex_;  // one round at a time
  std::uint64_t recorded_access_event_ =
      0;  // last_event_seq when the store chain last recorded the access head
  std::uint64_t recorded_store_event_ = 0;
  std::optional<Anchor> written_;

  std::mutex wake_mutex_;
  std::condition_variable_any wake_;
  std::jthread thread_;
};

Event HeadKeeper::Impl::HeadEvent(std::string_view chain, const ChainHead& head,
                                  Generation generation) const {
  Event event;
  event.type = EventType::kHeads;
  event.time_ns = options_.clock->Now().time_since_epoch().count();
  event.actor = ActorKind::kServer;
  event.head_chain = chain;
  event.head_seq = head.seq;
  event.head_hash = head.hash;
  event.generation = generation.value;
  return event;
}

// Order matters: a chain may only vouch for records of the other one that are on the disk, else a
// power cut would make an honest store look truncated. So: sync the spool, let the store record it,
// record the store, sync again, anchor both.
Status HeadKeeper::Impl::RunOnce() {
  const std::lock_guard round(round_mutex_);
  if (options_.refusals != nullptr) RETURN_IF_ERROR(options_.refusals->WriteEnded(access_));
  RETURN_IF_ERROR(access_.Sync());
  const AccessLog::Position access = access_.LastSynced();
  if (access.last_event_seq > recorded_access_event_) {
    RETURN_IF_ERROR(
        options_.record_in_store(HeadEvent(access_.chain_id(), access.head, Generation{})));
    recorded_access_event_ = access.last_event_seq;
  }
  const StoreChain::Published store = store_.Last();
  if (store.last_event_seq > recorded_store_event_) {
    RETURN_IF_ERROR(access_.AppendHead(HeadEvent(kStoreChainId, store.head, store.generation)));
    RETURN_IF_ERROR(access_.Sync());
    recorded_store_event_ = store.last_event_seq;
  }
  const Anchor anchor{options_.store_id, store.generation, store.head, access_.chain_id(),
                      access_.LastSynced().head};
  if (written_ == anchor) return {};
  Status status = WriteAnchor(options_.anchor_path, key_, anchor);
  if (!status && status.error().code == Errc::kInternal && options_.on_fatal) {
    options_.on_fatal("fsync of the anchor failed");
  }
  RETURN_IF_ERROR(std::move(status));
  written_ = anchor;
  return {};
}

void HeadKeeper::Impl::LogHeads() const {
  const StoreChain::Published store = store_.Last();
  const AccessLog::Position access = access_.LastSynced();
  Log(LogLevel::kInfo, "audit heads",
      {{"store_seq", store.head.seq},
       {"store_hash", HexLower(store.head.hash)},
       {"access_chain", access_.chain_id()},
       {"access_seq", access.head.seq},
       {"access_hash", HexLower(access.head.hash)},
       {"generation", store.generation.value}});
}

void HeadKeeper::Impl::Run(const std::stop_token& stop) {
  MonotonicTime next_log = options_.clock->Monotonic() + limits::kHeadLogInterval;
  bool failing = false;
  while (!stop.stop_requested()) {
    {
      std::unique_lock lock(wake_mutex_);
      wake_.wait_for(lock, stop, limits::kAuditSyncInterval, [] { return false; });
    }
    if (stop.stop_requested()) return;
    const Status status = RunOnce();
    // A full disk fails every round until there is space again; one line says so, not one a second.
    if (!status && !failing) {
      Log(LogLevel::kError, "audit heads cannot be recorded", {{"reason", status.error().message}});
    }
    if (status && failing) Log(LogLevel::kInfo, "audit heads are recorded again");
    failing = !status.has_value();
    if (options_.clock->Monotonic() >= next_log) {
      LogHeads();
      next_log = options_.clock->Monotonic() + limits::kHeadLogInterval;
    }
  }
}

HeadKeeper::HeadKeeper(const crypto::AuditKey& key, StoreChain& store, AccessLog& access,
                       HeadKeeperOptions options)
    : impl_(std::make_unique<Impl>(key, store, access, std::move(options))) {}
HeadKeeper::~HeadKeeper() = default;
void HeadKeeper::Start() {
  impl_->Start();
}
Status HeadKeeper::RunOnce() {
  return impl_->RunOnce();
}
Status HeadKeeper::Stop() {
  const bool was_serving = impl_->StopThread();
  RETURN_IF_ERROR(impl_->RunOnce());
  if (was_serving) impl_->LogHeads();
  return {};
}

}  // namespace latchkey::audit
