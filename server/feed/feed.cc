#include "server/feed/feed.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <set>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "common/base/guarded.h"
#include "common/base/log.h"
#include "common/model/limits.h"
#include "server/feed/evaluate.h"

namespace latchkey::feed {
namespace {

using store::ChangeKind;

// Replies are sent in rounds of this size, so that the first ones do not wait for the rest to be
// worked out.
constexpr std::size_t kRepliesPerRound = 16;
// After the first round, and each time after so many clients, the core is offered to whoever waits for it. Not after each
// round: on a busy machine the kernel takes a yield as a slice of some milliseconds given up.
constexpr std::size_t kClientsPerYield = 64;

}  // namespace

class Feed::Impl {
 public:
  Impl(store::Store* store, catalog::RootRef root, const Clock& clock)
      : store_(store), clock_(clock), root_(std::move(root)) {}
  ~Impl() { Stop(); }

  Status Load();
  void Start() {
    thread_ = std::jthread([this] { Loop(); });
  }
  void Publish(catalog::RootRef root, Generation newest, std::span<const store::ChangeRow> changes);
  Result<Asked> Ask(const Question& question, Reply reply);
  void Cancel(std::uint64_t ticket);
  Serving ServedBy(ClientId client, const catalog::Secret& secret) const;
  std::vector<Serving> ServingOf(const catalog::Root& root, const catalog::Secret& secret) const;
  std::size_t waiters() const;
  Generation generation() const;
  void Stop();

 private:
  struct Waiter {
    ClientId client;
    Generation since;
    MonotonicTime deadline;
    Reply reply;
  };
  struct Acknowledged {
    Generation generation;
    std::int64_t since = 0;
    std::int64_t last_seen = 0;
    bool dirty = false;
  };
  // Whom a part of the log concerns; each group is looked at once.
  struct Affected {
    std::unordered_set<ClientId> clients;
    std::unordered_set<std::uint32_t> groups;
  };
  using Due = std::pair<Reply, Answer>;
  using Lock = std::unique_lock<std::mutex>;

  // All below run with the lock held; those that take it let it go meanwhile. An answer is worked out
  // without it.
  State Now() const { return {root_, newest_, log_.view()}; }
  void Acknowledge(const Question& question);
  void Loop();
  void WakeAffected(Lock& lock);
  Affected CollectAffected(const LogView& log) const;
  void CollectOf(const LogEntry& entry, Affected* affected) const;
  void CollectMembers(std::uint32_t group, Affected* affected) const;
  void WakeRound(const State& seen, Generation before, std::span<const ClientId> clients,
                 Lock& lock);
  void WakeExpired(Lock& lock);
  void AnswerAll(Lock& lock);
  Reply Remove(std::uint64_t ticket);
  static void Send(std::vector<Due>* due, Lock& lock);
  std::vector<store::ServingRow> TakeDirty();
  void FlushIfDue(Lock& lock);
  MonotonicTime NextWake() const;
  Serving AcknowledgedBy(ClientId client) const;  // `version` stays empty

  store::Store* const store_;
  const Clock& clock_;

  // No other lock is taken while it is held. It guards everything down to the thread.
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  catalog::RootRef root_;
  Generation newest_;
  ChangeLog log_{limits::kFeedLogEntries};
  std::uint64_t woken_for_ = 0;  // entries of the log below it have woken whom they concern
  Generation woken_up_to_;       // of the last of them: who still waits has no news up to here
  std::uint64_t last_ticket_ = 0;
  std::unordered_map<std::uint64_t, Waiter> waiters_;
  std::unordered_map<ClientId, std::vector<std::uint64_t>> tickets_of_;  // never an empty list
  std::set<std::pair<MonotonicTime, std::uint64_t>> deadlines_;
  std::unordered_map<ClientId, Acknowledged> acknowledged_;
  bool dirty_ = false;  // an acknowledgement is not yet written
  MonotonicTime next_flush_;
  bool stopping_ = false;

  // Clients whose acknowledgement a failed job did not write. Shared with the jobs, which may
  // outlive the feed.
  const std::shared_ptr<Guarded<std::vector<ClientId>>> unwritten_ =
      std::make_shared<Guarded<std::vector<ClientId>>>();
  std::jthread thread_;
};

Status Feed::Impl::Load() {
  ASSIGN_OR_RETURN(store::Reader reader, store_->Read());
  ASSIGN_OR_RETURN(const store::StoreInfo info, reader.Info());
  newest_ = info.generation;
  RETURN_IF_ERROR(reader.ForEachChange([this](store::ChangeRow&& row) {
    log_.Append(row);
    return Status();
  }));
  log_.AssumeTrimmed();
  woken_for_ = log_.view().end();
  woken_up_to_ = newest_;
  next_flush_ = clock_.Monotonic();
  return reader.ForEachServing([this](store::ServingRow&& row) {
    // A restored store may be older than what was acknowledged: such words mean nothing in it.
    if (row.generation <= newest_) {
      acknowledged_[row.client] = {row.generation, row.since, row.last_seen, false};
    }
    return Status();
  });
}

void Feed::Impl::Publish(catalog::RootRef root, Generation newest,
                         std::span<const store::ChangeRow> changes) {
  {
    const std::lock_guard lock(mutex_);
    root_.swap(root);  // the old one is let go after the lock
    newest_ = newest;
    for (const store::ChangeRow& change : changes) {
      log_.Append(change);
      if (change.kind == ChangeKind::kClient && root_->FindClient(change.client) == nullptr) {
        acknowledged_.erase(change.client);
      }
    }
    if (waiters_.empty()) {
      woken_for_ = log_.view().end();
      woken_up_to_ = newest_;
    }
    if (woken_for_ == log_.view().end()) return;
  }
  wake_.notify_one();
}

void Feed::Impl::Acknowledge(const Question& question) {
  Acknowledged& known = acknowledged_[question.client];
  known.last_seen = EpochSeconds(clock_.Now());
  if (question.serving && *question.serving <= newest_ && *question.serving != known.generation) {
    known.generation = *question.serving;
    known.since = known.last_seen;
  }
  known.dirty = true;
  if (dirty_) return;
  dirty_ = true;
  wake_.notify_one();
}

Result<Asked> Feed::Impl::Ask(const Question& question, Reply reply) {
  std::vector<Due> displaced;  // goes after the lock, as does the state
  State seen;
  Lock lock(mutex_);
  if (root_->FindClient(question.client) != nullptr) Acknowledge(question);
  Generation since = question.since;
  do {
    if (stopping_) return Error{Errc::kUnavailable, "feed: stopping"};
    State now = Now();
    lock.unlock();
    seen = std::move(now);
    Answer answer = Evaluate(seen, question.client, since);
    if (!answer.empty() || question.wait.count() <= 0) return Asked{std::move(answer), 0};
    since = seen.newest;
    lock.lock();
    // What was published meanwhile is looked at before it waits: far less than the first time.
  } while (newest_ != since);
  // A client has one connection for each of its waiters, so what is over that waits for nobody: its
  // peer hung up. Nobody may fill the feed by asking and hanging up.
  if (const auto own = tickets_of_.find(question.client);
      own != tickets_of_.end() && own->second.size() >= limits::kMaxFeedWaitersPerClient) {
    Answer nothing;
    nothing.generation = waiters_.at(own->second.front()).since;
    displaced.emplace_back(Remove(own->second.front()), std::move(nothing));
  }
  if (waiters_.size() >= limits::kMaxFeedWaiters) {
    return Error{Errc::kUnavailable, "feed: " + std::to_string(limits::kMaxFeedWaiters) +
                                         " clients are waiting; try again"};
  }
  const std::chrono::milliseconds wait =
      std::min<std::chrono::milliseconds>(question.wait, limits::kMaxFeedWait);
  const MonotonicTime deadline = clock_.Monotonic() + wait;
  const std::uint64_t ticket = ++last_ticket_;
  // Nothing concerned it up to now: later looks begin here.
  waiters_.emplace(ticket, Waiter{question.client, since, deadline, std::move(reply)});
  tickets_of_[question.client].push_back(ticket);
  const bool first = deadlines_.emplace(deadline, ticket).first == deadlines_.begin();
  if (first) wake_.notify_one();
  Send(&displaced, lock);
  return Asked{std::nullopt, ticket};
}

Reply Feed::Impl::Remove(std::uint64_t ticket) {
  const auto found = waiters_.find(ticket);
  if (found == waiters_.end()) return {};
  Waiter waiter = std::move(found->second);
  waiters_.erase(found);
  deadlines_.erase({waiter.deadline, ticket});
  const auto tickets = tickets_of_.find(waiter.client);
  std::erase(tickets->second, ticket);
  if (tickets->second.empty()) tickets_of_.erase(tickets);
  return std::move(waiter.reply);
}

void Feed::Impl::Cancel(std::uint64_t ticket) {
  Reply dropped;  // let go after the lock: it may own a connection
  const std::lock_guard lock(mutex_);
  dropped = Remove(ticket);
}

void Feed::Impl::Send(std::vector<Due>* due, Lock& lock) {
  if (due->empty()) return;
  lock.unlock();
  for (auto& [reply, answer] : *due) {
    if (reply) reply(std::move(answer));
  }
  due->clear();
  lock.lock();
}

void Feed::Impl::CollectMembers(std::uint32_t group_id, Affected* affected) const {
  if (!affected->groups.insert(group_id).second) return;
  const catalog::Group* group = root_->FindGroup(GroupId{group_id});
  if (group == nullptr) return;
  if (group->clients.size() <= tickets_of_.size()) {
    group->clients.ForEach([&](ClientId client) {
      if (tickets_of_.contains(client)) affected->clients.insert(client);
      return true;
    });
    return;
  }
  for (const auto& [client, tickets] : tickets_of_) {
    if (group->clients.Contains(client)) affected->clients.insert(client);
  }
}

void Feed::Impl::CollectOf(const LogEntry& entry, Affected* affected) const {
  switch (entry.kind) {
    case ChangeKind::kSecret: {
      const catalog::Secret* secret = root_->FindSecret(entry.secret());
      if (secret == nullptr) return;
      for (const std::uint32_t group : secret->groups()) CollectMembers(group, affected);
      return;
    }
    case ChangeKind::kSecretGone:
    case ChangeKind::kGrant:
    case ChangeKind::kRevoke:
      CollectMembers(entry.group, affected);
      return;
    case ChangeKind::kMembership:
    case ChangeKind::kClient:
      if (tickets_of_.contains(entry.client())) affected->clients.insert(entry.client());
      return;
  }
}

// Every waiting client that Evaluate would answer with something, and maybe more.
Feed::Impl::Affected Feed::Impl::CollectAffected(const LogView& log) const {
  Affected affected;
  if (woken_for_ < log.first()) {  // what is gone may have concerned anybody
    for (const auto& [client, tickets] : tickets_of_) affected.clients.insert(client);
  }
  for (std::uint64_t i = std::max(woken_for_, log.first());
       i < log.end() && affected.clients.size() < tickets_of_.size(); ++i) {
    CollectOf(log.at(i), &affected);
  }
  return affected;
}

void Feed::Impl::WakeAffected(Lock& lock) {
  State seen = Now();
  const Generation before = woken_up_to_;
  const Affected affected = CollectAffected(seen.log);
  woken_for_ = seen.log.end();
  woken_up_to_ = seen.newest;
  const std::vector<ClientId> clients(affected.clients.begin(), affected.clients.end());
  for (std::size_t i = 0; i < clients.size(); i += kRepliesPerRound) {
    WakeRound(seen, before,
              std::span(clients).subspan(i, std::min(kRepliesPerRound, clients.size() - i)), lock);
    if (i % kClientsPerYield != 0) continue;
    lock.unlock();
    // Whom the replies have woken may wait for this very core; a thousand answers take milliseconds.
    std::this_thread::yield();
    lock.lock();
  }
  lock.unlock();
  seen = State();  // it may be the last to hold an old catalog
  lock.lock();
}

// Waiters had no news up to `before`, so that only what came after it is walked.
void Feed::Impl::WakeRound(const State& seen, Generation before, std::span<const ClientId> clients,
                           Lock& lock) {
  struct Look {
    ClientId client;
    std::uint64_t ticket;
    Generation since;
    Answer answer;
  };
  std::vector<Look> looks;
  for (const ClientId client : clients) {
    // Looked up anew each round: the lock was let go in between.
    const auto found = tickets_of_.find(client);
    if (found == tickets_of_.end()) continue;
    for (const std::uint64_t ticket : found->second) {
      const Generation since = std::max(waiters_.at(ticket).since, before);
      if (since < seen.newest) looks.push_back({client, ticket, since, {}});
    }
  }
  lock.unlock();
  for (Look& look : looks) look.answer = Evaluate(seen, look.client, look.since);
  lock.lock();
  std::vector<Due> due;
  for (Look& look : looks) {
    if (look.answer.empty()) continue;
    due.emplace_back(Remove(look.ticket), std::move(look.answer));
  }
  Send(&due, lock);
}

// What was published since the waiters were last woken is left to the next wake-up, or to the
// client's next question.
void Feed::Impl::WakeExpired(Lock& lock) {
  std::vector<Due> due;
  const MonotonicTime now = clock_.Monotonic();
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    const std::uint64_t ticket = deadlines_.begin()->second;
    Answer nothing;
    nothing.generation = std::max(waiters_.at(ticket).since, woken_up_to_);
    due.emplace_back(Remove(ticket), std::move(nothing));
    if (due.size() >= kRepliesPerRound) Send(&due, lock);
  }
  Send(&due, lock);
}

void Feed::Impl::AnswerAll(Lock& lock) {
  std::vector<Due> due;
  while (!waiters_.empty()) {
    Answer answer;
    answer.generation = waiters_.begin()->second.since;
    due.emplace_back(Remove(waiters_.begin()->first), std::move(answer));
  }
  Send(&due, lock);
}

std::vector<store::ServingRow> Feed::Impl::TakeDirty() {
  const std::vector<ClientId> failed =
      unwritten_->With([](std::vector<ClientId>& clients) { return std::exchange(clients, {}); });
  for (const ClientId client : failed) {
    const auto known = acknowledged_.find(client);
    if (known != acknowledged_.end()) known->second.dirty = true;
  }
  std::vector<store::ServingRow> rows;
  for (auto& [client, known] : acknowledged_) {
    if (!std::exchange(known.dirty, false)) continue;
    rows.push_back({client, known.generation, known.since, known.last_seen});
  }
  dirty_ = false;
  return rows;
}

void Feed::Impl::FlushIfDue(Lock& lock) {
  if (!dirty_ || clock_.Monotonic() < next_flush_) return;
  next_flush_ = clock_.Monotonic() + limits::kServingFlushInterval;
  auto rows = std::make_shared<const std::vector<store::ServingRow>>(TakeDirty());
  lock.unlock();
  const auto give_back = [rows, unwritten = unwritten_] {
    unwritten->With([&rows](std::vector<ClientId>& clients) {
      for (const store::ServingRow& row : *rows) clients.push_back(row.client);
    });
  };
  store::Job job;
  job.bookkeeping = true;
  job.run = [rows](store::Savepoint& savepoint) { return savepoint.PutServing(*rows); };
  job.done = [give_back](const Status& status, Generation) {
    if (!status.has_value()) give_back();
  };
  const Status submitted = store_->Submit(std::move(job));
  if (!submitted.has_value()) give_back();
  lock.lock();
}

MonotonicTime Feed::Impl::NextWake() const {
  MonotonicTime next = MonotonicTime::max();
  if (!deadlines_.empty()) next = deadlines_.begin()->first;
  if (dirty_) next = std::min(next, next_flush_);
  return next;
}

void Feed::Impl::Loop() {
  Lock lock(mutex_);
  while (!stopping_) {
    if (woken_for_ != log_.view().end()) WakeAffected(lock);
    WakeExpired(lock);
    FlushIfDue(lock);
    if (stopping_ || woken_for_ != log_.view().end()) continue;
    const MonotonicTime next = NextWake();
    if (next == MonotonicTime::max()) {
      wake_.wait(lock);
    } else {
      wake_.wait_until(lock, next);
    }
  }
  AnswerAll(lock);
}

void Feed::Impl::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  if (!thread_.joinable()) return;
  thread_.join();
  const std::vector<store::ServingRow> rows = TakeDirty();
  if (rows.empty()) return;
  const auto written = store_->RunJob(
      [&rows](store::Savepoint& savepoint) { return savepoint.PutServing(rows); }, true);
  if (!written.has_value()) {
    Log(LogLevel::kWarn, "feed: acknowledgements were not written",
        {{"error", written.error().message}, {"clients", rows.size()}});
  }
}

Serving Feed::Impl::AcknowledgedBy(ClientId client) const {
  Serving serving;
  serving.client = client;
  const auto known = acknowledged_.find(client);
  if (known == acknowledged_.end()) return serving;
  serving.generation = known->second.generation;
  serving.served_since = known->second.since;
  serving.last_seen = known->second.last_seen;
  return serving;
}

Serving Feed::Impl::ServedBy(ClientId client_id, const catalog::Secret& secret) const {
  Lock lock(mutex_);
  const State seen = Now();
  Serving serving = AcknowledgedBy(client_id);
  lock.unlock();
  const catalog::Client* client = seen.root->FindClient(client_id);
  if (client == nullptr) return Serving{client_id, {}, {}, 0, 0};
  serving.version = ServedVersions(seen.log, secret).At(serving.generation, *client);
  return serving;
}

std::vector<Serving> Feed::Impl::ServingOf(const catalog::Root& root,
                                           const catalog::Secret& secret) const {
  const auto holders = root.HoldersOf(secret);
  std::vector<Serving> result;
  result.reserve(holders.size());
  Lock lock(mutex_);
  const LogView log = log_.view();
  for (const auto& holder : holders) result.push_back(AcknowledgedBy(holder.client->row.id));
  lock.unlock();
  const ServedVersions versions(log, secret);
  for (std::size_t i = 0; i < holders.size(); ++i) {
    result[i].version = versions.At(result[i].generation, *holders[i].client);
  }
  return result;
}

std::size_t Feed::Impl::waiters() const {
  const std::lock_guard lock(mutex_);
  return waiters_.size();
}

Generation Feed::Impl::generation() const {
  const std::lock_guard lock(mutex_);
  return newest_;
}

Result<std::unique_ptr<Feed>> Feed::Load(store::Store* store, catalog::RootRef root,
                                         const Clock& clock) {
  auto impl = std::make_unique<Impl>(store, std::move(root), clock);
  RETURN_IF_ERROR(impl->Load());
  impl->Start();
  return std::unique_ptr<Feed>(new Feed(std::move(impl)));
}

Feed::Feed(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Feed::~Feed() = default;

void Feed::Publish(catalog::RootRef root, Generation newest,
                   std::span<const store::ChangeRow> changes) {
  impl_->Publish(std::move(root), newest, changes);
}
Result<Asked> Feed::Ask(const Question& question, Reply reply) {
  return impl_->Ask(question, std::move(reply));
}
void Feed::Cancel(std::uint64_t ticket) {
  impl_->Cancel(ticket);
}
Serving Feed::ServedBy(ClientId client, const catalog::Secret& secret) const {
  return impl_->ServedBy(client, secret);
}
std::vector<Serving> Feed::ServingOf(const catalog::Root& root,
                                     const catalog::Secret& secret) const {
  return impl_->ServingOf(root, secret);
}
std::size_t Feed::waiters() const {
  return impl_->waiters();
}
Generation Feed::generation() const {
  return impl_->generation();
}
void Feed::Stop() {
  impl_->Stop();
}

}  // namespace latchkey::feed
