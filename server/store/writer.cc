#include "server/store/writer.h"

#include <system_error>
#include <utility>

#include "common/base/log.h"
#include "common/model/limits.h"

namespace latchkey::store {

Writer::Writer(std::unique_ptr<Connection> connection, std::filesystem::path path,
               Generation newest, CommitObserver* observer)
    : connection_(std::move(connection)),
      path_(std::move(path)),
      observer_(observer),
      generation_(newest.value),
      thread_([this] { Loop(); }) {}

Writer::~Writer() {
  Stop();
}

Status Writer::Submit(Job job) {
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return Error{Errc::kUnavailable, "store: stopped"};
    if (queue_.size() >= limits::kMaxQueuedWrites) {
      return Error{Errc::kUnavailable, "store: " + std::to_string(limits::kMaxQueuedWrites) +
                                           " writes are waiting; try again"};
    }
    queue_.push_back(std::move(job));
  }
  wake_.notify_one();
  return {};
}

void Writer::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  if (!thread_.joinable()) return;
  thread_.join();
  // Leaves one plain file behind. When it fails, the next open recovers from the log.
  if (dead()) return;
  int pages = 0;
  const int code = sqlite3_wal_checkpoint_v2(connection_->raw(), nullptr,
                                             SQLITE_CHECKPOINT_TRUNCATE, &pages, nullptr);
  if (code != SQLITE_OK && code != SQLITE_BUSY) (void)connection_->Fail(code, "last checkpoint");
}

std::size_t Writer::queued() const {
  const std::lock_guard lock(mutex_);
  return queue_.size();
}

void Writer::Loop() {
  for (;;) {
    std::vector<Job> jobs;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
      if (queue_.empty()) return;
      jobs.assign(std::make_move_iterator(queue_.begin()), std::make_move_iterator(queue_.end()));
      queue_.clear();
    }
    RunBatch(jobs);
    if (!dead()) CheckpointIfDue();
    if (dead()) {
      // The program is about to exit (P4). Nothing more is accepted, and what came meanwhile is
      // refused.
      std::deque<Job> refused;
      {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
        refused.swap(queue_);
      }
      const Status status = Error{Errc::kUnavailable, "store: stopped after a storage failure"};
      for (Job& job : refused) {
        if (job.done) job.done(status, generation());
      }
      return;
    }
  }
}

void Writer::RunBatch(std::vector<Job>& jobs) {
  changes_.clear();
  batch_newest_ = generation();
  batch_released_ = false;
  connection_->ClearTrouble();
  std::vector<Outcome> outcomes;
  outcomes.reserve(jobs.size());
  if (observer_ != nullptr) observer_->BatchBegin();
  const Status written = WriteBatch(jobs, &outcomes);
  connection_->RequireTransaction(false);
  if (!written.has_value()) {
    AbandonBatch();
    trouble_.With([&written](auto& trouble) { trouble = written.error(); });
    if (observer_ != nullptr) observer_->BatchFailed(written.error());
    for (Job& job : jobs) {
      if (job.done) job.done(written, generation());
    }
    return;
  }
  NoteSuccess();
  generation_.store(batch_newest_.value, std::memory_order_release);
  if (observer_ != nullptr) observer_->Committed(batch_newest_, changes_);
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    const Generation at = outcomes[i].status.has_value() ? outcomes[i].generation : batch_newest_;
    if (jobs[i].done) jobs[i].done(outcomes[i].status, at);
  }
}

Status Writer::WriteBatch(std::vector<Job>& jobs, std::vector<Outcome>* outcomes) {
  RETURN_IF_ERROR(connection_->Prepare("BEGIN IMMEDIATE").Run());
  connection_->RequireTransaction(true);
  for (Job& job : jobs) {
    Outcome outcome;
    RETURN_IF_ERROR(RunInSavepoint(job, &outcome));
    outcomes->push_back(std::move(outcome));
  }
  if (!batch_released_) return connection_->Prepare("ROLLBACK").Run();
  return Finish(batch_newest_);
}

// An error is one of the whole batch; that of the job alone is in `outcome`.
Status Writer::RunInSavepoint(Job& job, Outcome* outcome) {
  RETURN_IF_ERROR(connection_->Prepare("SAVEPOINT job").Run());
  if (observer_ != nullptr) observer_->JobBegin();
  const std::size_t changes_before = changes_.size();
  outcome->generation = job.bookkeeping ? batch_newest_ : Generation{batch_newest_.value + 1};
  {
    Savepoint savepoint(connection_.get(), outcome->generation, job.bookkeeping, &changes_);
    outcome->status = job.run(savepoint);
  }
  // A full disk or a failed write may have made SQLite roll back the whole transaction, and a job
  // that swallowed such an error must not be committed: the batch ends here.
  if (connection_->trouble() != Trouble::kNone || !connection_->in_transaction()) {
    if (!outcome->status.has_value()) return outcome->status;
    return Error{Errc::kUnavailable, "store: the storage failed during a write"};
  }
  if (!outcome->status.has_value()) {
    changes_.resize(changes_before);
    RETURN_IF_ERROR(connection_->Prepare("ROLLBACK TO job").Run());
    RETURN_IF_ERROR(connection_->Prepare("RELEASE job").Run());
    if (observer_ != nullptr) observer_->JobRolledBack();
    return {};
  }
  RETURN_IF_ERROR(connection_->Prepare("RELEASE job").Run());
  batch_newest_ = outcome->generation;
  batch_released_ = true;
  return {};
}

Status Writer::Finish(Generation newest) {
  if (newest != generation()) {
    RETURN_IF_ERROR(connection_->Prepare("UPDATE store_info SET generation = ?")
                        .Bind(newest.value)
                        .RunOne("row of store_info"));
  }
  if (!changes_.empty()) {
    RETURN_IF_ERROR(
        connection_->Prepare("DELETE FROM changes WHERE seq <= (SELECT max(seq) FROM changes) - ?")
            .Bind(std::uint64_t{limits::kFeedLogEntries})
            .Run());
  }
  return connection_->Prepare("COMMIT").Run();
}

void Writer::AbandonBatch() {
  changes_.clear();
  if (connection_->in_transaction()) (void)connection_->Prepare("ROLLBACK").Run();
}

void Writer::NoteSuccess() {
  if (!batch_released_) return;  // nothing was committed
  const std::optional<Error> before = trouble();
  if (!before) return;
  const bool was_full = before->message.starts_with(kDiskFull);
  if (was_full && batch_newest_ == generation() && !HasRoomAgain()) return;
  trouble_.With([](auto& trouble) { trouble.reset(); });
}

bool Writer::HasRoomAgain() const {
  std::error_code error;
  const auto space = std::filesystem::space(path_, error);
  return !error && space.available >= limits::kRoomAgainBytes;
}

void Writer::CheckpointIfDue() {
  if (connection_->wal_pages() < static_cast<int>(limits::kCheckpointPages)) return;
  // PASSIVE waits for nobody; pages that a reader still needs stay for the next time.
  const int code = sqlite3_wal_checkpoint_v2(connection_->raw(), nullptr, SQLITE_CHECKPOINT_PASSIVE,
                                             nullptr, nullptr);
  if (code == SQLITE_OK || code == SQLITE_BUSY) return;
  (void)connection_->Fail(code, "checkpoint");
}

}  // namespace latchkey::store
