// Writing use cases: each runs once, on the store's writer thread, in one savepoint, with its audit events in it (rule A1).
//
// A use case changes the store, the catalog's editor and the audit chain together; when it fails all three are put back. The
// Writer publishes after the commit (catalog, then feed), and only then the replies go out. What a use case refuses is recorded
// in the access chain before its reply.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "common/base/clock.h"
#include "common/base/result.h"
#include "server/audit/access_log.h"
#include "server/audit/store_chain.h"
#include "server/catalog/catalog.h"
#include "server/feed/feed.h"
#include "server/keys/keyring.h"
#include "server/service/actor.h"
#include "server/service/settings.h"
#include "server/store/store.h"

namespace latchkey::service {

// One use case's hands. Every helper makes the row's MAC, writes the row and then mirrors it in the editor, in this order, so
// that no caller can forget one of them. Failures of the store come back with messages that may be shown to a caller.
class WriteContext {
 public:
  WriteContext(store::Savepoint& savepoint, catalog::Editor& working_copy,
               const keys::Keyring& keyring, audit::StoreChain& store_chain, const Settings& rules,
               const Actor& who, WallTime time)
      : tx(savepoint),
        editor(working_copy),
        keys(keyring),
        settings(rules),
        actor(who),
        now(EpochSeconds(time)),
        chain_(store_chain),
        now_ns_(time.time_since_epoch().count()) {}

  store::Savepoint& tx;
  catalog::Editor& editor;
  const keys::Keyring& keys;
  const Settings& settings;
  const Actor& actor;
  const std::int64_t now;  // seconds since 1970

  const catalog::Root& root() const { return editor.root(); }

  // Appends to the store chain; who, when and outcome are filled in.
  Status Audit(audit::EventType type, const std::function<void(audit::Event&)>& fill);
  Status Change(store::ChangeRow row);

  Status InsertClient(store::ClientRow row);
  Status UpdateClient(store::ClientRow row);
  Status DeleteClient(ClientId id);
  Status InsertGroup(store::GroupRow row);
  Status UpdateGroup(store::GroupRow row);
  Status DeleteGroup(GroupId id);
  Status AddMembership(ClientId client, GroupId group);
  Status RemoveMembership(ClientId client, GroupId group);
  Status AddGrant(GroupId group, SecretId secret);
  Status RemoveGrant(GroupId group, SecretId secret);
  // A new secret with its first version.
  Status InsertSecret(store::SecretRow row, const store::VersionRow& first);
  // A secret with the version that is or becomes its current one, which is already written.
  Status UpdateSecret(store::SecretRow row, const store::VersionInfo& current);
  Status DeleteSecret(SecretId id);

  // Seals `content` as version 1 of a secret that InsertSecret will write.
  Result<store::VersionRow> SealFirst(SecretId secret, Bytes content, std::string metadata,
                                      std::int64_t expiry) {
    return SealNew(secret, VersionNumber{1}, content, std::move(metadata), expiry);
  }
  // Seals `content` as a further version of `secret` and writes it. The secret's row still has to be pointed at it.
  Result<store::VersionInfo> AddVersion(SecretId secret, VersionNumber number, Bytes content,
                                        std::string metadata, std::int64_t expiry);
  // Content of a version, opened into locked memory.
  Result<SecretBuffer> OpenVersion(VersionId id);

 private:
  Result<store::VersionRow> SealNew(SecretId secret, VersionNumber number, Bytes content,
                                    std::string metadata, std::int64_t expiry);

  audit::StoreChain& chain_;
  const std::int64_t now_ns_;
};

// What callers may know of a storage that fails; the rest is for the log (rule O3).
inline constexpr std::string_view kDiskFullReason =
    "disk full: free space where store.path lies, at the server";
inline constexpr std::string_view kNotWritableReason =
    "the store cannot be written to: the log of the server says why";
// The same error, with one of these as its message when it is kUnavailable by the storage.
Error StorageReason(const Error& error);

// What a refused or failed write was about, for its record in the access chain.
struct Intent {
  audit::EventType attempted = audit::EventType::kSecretCreate;
  std::string secret_name;
  std::string group_name;
  std::string client_name;
};

template <class T>
using Work = std::function<Result<T>(WriteContext&)>;
// Called once on the writer thread after the commit, or with the failure; the generation is that of the commit.
template <class T>
using Done = std::function<void(Result<T>, Generation)>;

class Writer final : public store::CommitObserver {
 public:
  struct Parts {
    store::Store* store;
    catalog::Catalog* catalog;
    feed::Feed* feed;
    const keys::Keyring* keys;
    audit::StoreChain* chain;
    audit::AccessLog* access;
    const Clock* clock;
    const Settings* settings;
  };
  // All parts outlive it. Pass it to Store::Start as the observer before the first Submit.
  explicit Writer(const Parts& parts);

  // Queues a use case. Errors: kUnavailable, and `done` is not called, when too many writes wait. Thread-safe.
  template <class T>
  Status Submit(Actor actor, Intent intent, Work<T> work, Done<T> done) {
    struct State {
      Actor actor;
      Intent intent;
      Work<T> work;
      Done<T> done;
      std::optional<Result<T>> result;
    };
    auto state = std::make_shared<State>(
        State{std::move(actor), std::move(intent), std::move(work), std::move(done), std::nullopt});
    store::Job job;
    job.run = [this, state](store::Savepoint& savepoint) {
      WriteContext context = ContextFor(savepoint, state->actor);
      state->result = state->work(context);
      state->work = nullptr;  // lets go of the content it carried
      return state->result->has_value() ? Status{} : Status(state->result->error());
    };
    job.done = [this, state](const Status& status, Generation generation) {
      // A commit that failed takes the whole batch with it, whatever this job had made of it.
      if (!status && (!state->result || state->result->has_value()))
        state->result = StorageReason(status.error());
      if (!state->result->has_value()) {
        Error error = state->result->error();
        const Status recorded = RecordFailure(state->actor, state->intent, error);
        if (!recorded) error = recorded.error();
        state->result.emplace(std::move(error));
      }
      if (state->done) state->done(std::move(*state->result), generation);
    };
    return parts_.store->Submit(std::move(job));
  }

  // Waits for the commit; for tests and programs, never from a network or the writer thread.
  template <class T>
  Result<T> Run(Actor actor, Intent intent, Work<T> work);

  // Bookkeeping: sets last-seen and expiration of a client, at most one such job per client in the queue. Never blocks;
  // silently given up when the queue is full, for the next request brings it again.
  void RecordSighting(ClientId client, std::optional<std::int64_t> expiration);

  void BatchBegin() override;
  void JobBegin() override;
  void JobRolledBack() override;
  void Committed(Generation newest, std::span<const store::ChangeRow> changes) override;
  void BatchFailed(const Error& error) override;

 private:
  struct Mark {
    catalog::Root root;
    audit::StoreChain::Position chain;
  };

  WriteContext ContextFor(store::Savepoint& savepoint, const Actor& actor);
  Status RecordFailure(const Actor& actor, const Intent& intent, const Error& error);
  Mark Here() const { return {editor_.root(), parts_.chain->Mark()}; }
  void GoBackTo(const Mark& mark);

  const Parts parts_;
  catalog::Editor editor_;  // writer thread only, as are the marks
  Mark batch_;
  Mark job_;
  Guarded<std::vector<ClientId>> sightings_;  // queued
};

template <class T>
Result<T> Writer::Run(Actor actor, Intent intent, Work<T> work) {
  std::optional<Result<T>> result;
  std::mutex mutex;
  std::condition_variable ready;
  RETURN_IF_ERROR(Submit<T>(std::move(actor), std::move(intent), std::move(work),
                            [&](Result<T> outcome, Generation) {
                              const std::lock_guard lock(mutex);
                              result = std::move(outcome);
                              ready.notify_one();
                            }));
  std::unique_lock lock(mutex);
  ready.wait(lock, [&] { return result.has_value(); });
  return std::move(*result);
}

// Stands for "nothing to return" in Submit and Run.
struct Nothing {};

}  // namespace latchkey::service
