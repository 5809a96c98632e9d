// The one writer thread of a store: runs jobs in savepoints and commits all that wait with one
// fsync. Internal to the store.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "common/base/guarded.h"
#include "server/store/sqlite.h"
#include "server/store/store.h"

namespace latchkey::store {

// Thread-safe. The connection is used by the writer thread alone.
class Writer {
 public:
  Writer(std::unique_ptr<Connection> connection, std::filesystem::path path, Generation newest,
         CommitObserver* observer);
  ~Writer();

  Status Submit(Job job);
  void Stop();
  Generation generation() const { return Generation{generation_.load(std::memory_order_acquire)}; }
  std::size_t queued() const;
  std::optional<Error> trouble() const {
    return trouble_.With([](const auto& trouble) { return trouble; });
  }

 private:
  // What became of one job of the batch in hand.
  struct Outcome {
    Status status;
    Generation generation;
  };

  void Loop();
  void RunBatch(std::vector<Job>& jobs);
  // Runs the jobs and commits. An error: nothing of the batch happened (or, after fatal trouble,
  // nobody knows).
  Status WriteBatch(std::vector<Job>& jobs, std::vector<Outcome>* outcomes);
  Status RunInSavepoint(Job& job, Outcome* outcome);
  Status Finish(Generation newest);
  void AbandonBatch();
  // Of the batch in hand, before its generation is the newest.
  void NoteSuccess();
  bool HasRoomAgain() const;
  void CheckpointIfDue();
  bool dead() const { return connection_->trouble() == Trouble::kFatal; }

  const std::unique_ptr<Connection> connection_;
  const std::filesystem::path path_;
  CommitObserver* const observer_;  // may be null
  std::atomic<std::uint64_t> generation_;
  std::vector<ChangeRow> changes_;         // of the batch in hand
  Generation batch_newest_;                // newest generation released in the batch in hand
  bool batch_released_ = false;            // a job of the batch in hand has something to commit
  Guarded<std::optional<Error>> trouble_;  // why the newest commit failed

  mutable std::mutex mutex_;  // guards the three below; no lock is taken under it
  std::condition_variable wake_;
  std::deque<Job> queue_;
  bool stopping_ = false;
  std::jthread thread_;  // last: starts when everything above stands
};

}  // namespace latchkey::store
