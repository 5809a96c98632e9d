// The catalog: clients, groups, memberships, grants and secret heads in memory, every row's MAC
// verified when it was loaded.
//
// Readers take an immutable Root and work on it unlocked; the writer thread changes an Editor and
// publishes its root after the commit. Roots share structure: a change costs O(log n) and copies
// only the path to it.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/guarded.h"
#include "common/base/result.h"
#include "common/model/ids.h"
#include "server/catalog/acl.h"
#include "server/catalog/persistent_map.h"
#include "server/catalog/secret.h"
#include "server/store/reader.h"
#include "server/store/rows.h"

namespace latchkey::catalog {

// Verifies the MAC of one row as it is loaded (rules G1, G2): true when it is right. Implemented by
// server/keys. Thread-safe: loading calls it from several threads.
class RowVerifier {
 public:
  virtual ~RowVerifier() = default;
  virtual bool Verify(const store::ClientRow& row) const = 0;
  virtual bool Verify(const store::GroupRow& row) const = 0;
  virtual bool Verify(const store::MembershipRow& row) const = 0;
  virtual bool Verify(const store::GrantRow& row) const = 0;
  virtual bool Verify(const store::SecretRow& row) const = 0;
  virtual bool Verify(const store::VersionInfo& row) const = 0;
};

// Immutable once published. `row.mac` of entries is zero: MACs are not kept in memory; make a new
// one for every row written.
struct Client {
  store::ClientRow row;
  std::vector<std::uint32_t> groups;  // ascending

  acl::ClientView view() const { return {row.enabled, groups}; }
};
struct Group {
  store::GroupRow row;
  PersistentSet<ClientId> clients;
  PersistentSet<SecretId> secrets;  // granted to it, live and deleted
};

// One state of the catalog. Copying costs a few reference counts. Pointers that it returns live as
// long as the root (or a copy of it) does. const methods are thread-safe.
class Root {
 public:
  Generation generation() const { return generation_; }

  // All return null when absent. Names compare byte for byte (rule I3).
  const Client* FindClient(ClientId id) const;
  const Client* FindClient(std::string_view name) const;
  const Client* FindClientBySpiffe(std::string_view spiffe_id) const;
  const Group* FindGroup(GroupId id) const;
  const Group* FindGroup(std::string_view name) const;
  const Secret* FindSecret(SecretId id) const;            // live ones
  const Secret* FindSecret(std::string_view name) const;  // live ones
  const Secret* FindDeletedSecret(SecretId id) const;
  // Deleted series of that name, newest deletion first.
  std::vector<const Secret*> FindDeletedSecrets(std::string_view name) const;

  // The delivery lookup: the secret of that name if this client can read it, else null and the
  // reason. An ungranted secret is unreachable this way, not filtered out afterwards.
  struct Found {
    const Secret* secret = nullptr;
    acl::Decision decision;
  };
  Found FindForClient(ClientId client, std::string_view name) const;
  acl::Decision DecideRead(ClientId client, std::string_view secret_name) const;
  bool CanRead(ClientId client, SecretId secret) const;
  // Every live secret that the client can read, each once, by name. Empty for an unknown or
  // disabled client.
  std::vector<const Secret*> SecretsOf(ClientId client) const;
  // Every enabled client that can read the secret and the first group through which, by client
  // name.
  struct Holder {
    const Client* client;
    GroupId through;
  };
  std::vector<Holder> HoldersOf(const Secret& secret) const;

  // Walks by id; the visitor returns false to stop.
  void ForEachClient(const std::function<bool(const Client&)>& visit) const;
  void ForEachGroup(const std::function<bool(const Group&)>& visit) const;
  void ForEachSecret(const std::function<bool(const Secret&)>& visit) const;  // live ones
  void ForEachDeletedSecret(const std::function<bool(const Secret&)>& visit) const;
  std::size_t client_count() const { return clients_.size(); }
  std::size_t group_count() const { return groups_.size(); }
  std::size_t secret_count() const { return secrets_.size(); }
  std::size_t deleted_secret_count() const { return deleted_.size(); }

 private:
  friend class Editor;
  friend class Loader;

  // Names are found through their hash; entries of one hash differ by id and are told apart by
  // comparing the names.
  struct NameKey {
    std::uint64_t hash;
    std::int64_t id;
    friend auto operator<=>(const NameKey&, const NameKey&) = default;
  };
  using ClientRef = std::shared_ptr<const Client>;
  using GroupRef = std::shared_ptr<const Group>;

  Generation generation_;
  PersistentMap<ClientId, ClientRef> clients_;
  PersistentMap<NameKey, ClientRef> clients_by_name_;
  PersistentMap<NameKey, ClientRef> clients_by_spiffe_;
  PersistentMap<GroupId, GroupRef> groups_;
  PersistentMap<NameKey, GroupRef> groups_by_name_;
  PersistentMap<SecretId, SecretRef> secrets_;
  PersistentMap<NameKey, SecretRef> secrets_by_name_;
  PersistentMap<SecretId, SecretRef> deleted_;
  PersistentMap<NameKey, SecretRef> deleted_by_name_;
};
using RootRef = std::shared_ptr<const Root>;

// The writer thread's working copy. Its mutators mirror those of store::Savepoint; call them after
// the store's succeeded, with the same row: a name that is taken or an object that is absent is
// then our own bug (INVARIANT). Not thread-safe.
class Editor {
 public:
  explicit Editor(RootRef root) : working_(*root) {}

  // The state with all changes so far: jobs of one batch see the effects of the earlier ones
  // through it. Pointers into it die with the next change.
  const Root& root() const { return working_; }
  // An immutable copy, to publish or to come back to.
  RootRef Snapshot() const { return std::make_shared<const Root>(working_); }
  void Reset(const Root& root) { working_ = root; }

  // Insert or update by id; memberships and grants stay as they are.
  void PutClient(const store::ClientRow& row);
  void RemoveClient(ClientId id);
  void PutGroup(const store::GroupRow& row);
  void RemoveGroup(GroupId id);
  void AddMembership(ClientId client, GroupId group);
  void RemoveMembership(ClientId client, GroupId group);
  void AddGrant(GroupId group, SecretId secret);
  void RemoveGrant(GroupId group, SecretId secret);
  // Live or deleted by row.state; `current` is the info of row.current.
  void PutSecret(const store::SecretRow& row, const store::VersionInfo& current);
  void RemoveSecret(SecretId id);
  void SetGeneration(Generation generation) { working_.generation_ = generation; }

 private:
  void ReplaceClient(const Root::ClientRef& client);
  void ReplaceGroup(const Root::GroupRef& group);
  void ReplaceSecret(const SecretRef& secret);
  void EraseSecret(const Secret& secret);

  Root working_;
};

// Reads and verifies everything. Errors: kCorrupt, naming the object, for a MAC that does not
// match, a dangling reference or two live secrets of one name; those of the reader. Nothing is ever
// skipped (rules G2, C8).
Result<RootRef> LoadRoot(store::Reader& reader, const RowVerifier& verifier);

// Where readers find the newest published root. Thread-safe.
class Catalog {
 public:
  explicit Catalog(RootRef root) : current_(std::move(root)) {}

  RootRef Current() const {
    return current_.With([](const RootRef& root) { return root; });
  }
  // Called by the writer thread after the commit.
  void Publish(RootRef root) {
    // The old root is let go after the lock: it may be the last reference to much.
    current_.With([&root](RootRef& current) { current.swap(root); });
  }

 private:
  Guarded<RootRef> current_;
};

}  // namespace latchkey::catalog
