#include <algorithm>
#include <string>
#include <unordered_map>
#include <utility>

#include "common/model/limits.h"
#include "server/catalog/catalog.h"
#include "server/catalog/name_hash.h"

namespace latchkey::catalog {
namespace {

template <class Tag>
std::string Number(Id<Tag> id) {
  return std::to_string(id.value);
}

Error BadMac(const std::string& object) {
  return Error{Errc::kCorrupt,
               "catalog: the mac of " + object + " does not match; run latchkeyd check"};
}
Error Dangling(const std::string& object, const std::string& missing) {
  return Error{Errc::kCorrupt, "catalog: " + object + " refers to " + missing +
                                   ", which does not exist; run latchkeyd check"};
}

// The walks are ordered by keys that the schema makes unique.
Error Disorder(const char* table) {
  return Error{Errc::kCorrupt, std::string("catalog: the table ") + table +
                                   " is not in the order of its key; restore a backup"};
}

}  // namespace

// Builds a root from sorted walks of the tables, each map in one go. Memberships and grants come
// before what they are built into, so that nothing but the result is ever in memory in full, except
// the grants as pairs of numbers.
class Loader {
 public:
  Loader(store::Reader& reader, const RowVerifier& verifier)
      : reader_(reader), verifier_(verifier), root_(std::make_shared<Root>()) {}

  Result<RootRef> Load() {
    ASSIGN_OR_RETURN(const store::StoreInfo info, reader_.Info());
    root_->generation_ = info.generation;
    RETURN_IF_ERROR(LoadGroups());
    RETURN_IF_ERROR(LoadClients());
    RETURN_IF_ERROR(LoadMemberships());
    RETURN_IF_ERROR(LoadGrants());
    RETURN_IF_ERROR(LoadSecrets());
    BuildClients();
    BuildGroups();
    return RootRef(root_);
  }

 private:
  Status LoadGroups() {
    RETURN_IF_ERROR(reader_.ForEachGroup([this](store::GroupRow&& row) -> Status {
      if (!verifier_.Verify(row)) return BadMac("group " + Number(row.id));
      if (row.id.value <= 0 || row.id.value > limits::kMaxGroupId) {
        return Error{Errc::kCorrupt, "catalog: group id " + Number(row.id) + " is out of range"};
      }
      row.mac = {};
      auto group = std::make_shared<Group>();
      group->row = std::move(row);
      groups_.emplace(group->row.id, group);
      return {};
    }));
    for (const auto& [id, group] : groups_) {
      RETURN_IF_ERROR(CheckOwner(group->row.owner, "group " + Number(id)));
    }
    return {};
  }

  Status LoadClients() {
    return reader_.ForEachClient([this](store::ClientRow&& row) -> Status {
      if (!verifier_.Verify(row)) return BadMac("client " + Number(row.id));
      RETURN_IF_ERROR(CheckOwner(row.owner, "client " + Number(row.id)));
      row.mac = {};
      auto client = std::make_shared<Client>();
      client->row = std::move(row);
      clients_.emplace(client->row.id, client);
      return {};
    });
  }

  Status LoadMemberships() {
    std::unordered_map<GroupId, std::vector<ClientId>> members;
    RETURN_IF_ERROR(reader_.ForEachMembership([&](store::MembershipRow&& row) -> Status {
      const std::string name = Number(row.client) + " in " + Number(row.group);
      if (!verifier_.Verify(row)) return BadMac("membership " + name);
      const auto client = clients_.find(row.client);
      if (client == clients_.end() || !groups_.contains(row.group)) {
        return Dangling("membership " + name, "a client or group");
      }
      const auto group = static_cast<std::uint32_t>(row.group.value);
      std::vector<std::uint32_t>& of_client = client->second->groups;
      std::vector<ClientId>& of_group = members[row.group];
      if ((!of_client.empty() && of_client.back() >= group) ||
          (!of_group.empty() && of_group.back() >= row.client)) {
        return Disorder("memberships");
      }
      of_client.push_back(group);
      of_group.push_back(row.client);
      return {};
    }));
    for (const auto& [id, clients] : members) {
      groups_[id]->clients = PersistentSet<ClientId>::FromSorted(clients);
    }
    return {};
  }

  Status LoadGrants() {
    ASSIGN_OR_RETURN(const std::uint64_t count, reader_.CountGrants());
    grants_.reserve(count);
    std::vector<SecretId> of_group;
    GroupId group;
    const auto finish = [&] {
      if (!of_group.empty()) {
        groups_[group]->secrets = PersistentSet<SecretId>::FromSorted(of_group);
      }
      of_group.clear();
    };
    RETURN_IF_ERROR(reader_.ForEachGrant([&](store::GrantRow&& row) -> Status {
      if (!verifier_.Verify(row)) {
        return BadMac("grant of secret " + Number(row.secret) + " to group " + Number(row.group));
      }
      if (row.group != group) {
        finish();
        if (row.group < group) return Disorder("grants");
        group = row.group;
        if (!groups_.contains(group)) {
          return Dangling("grant of secret " + Number(row.secret), "group " + Number(group));
        }
      }
      if (!of_group.empty() && of_group.back() >= row.secret) return Disorder("grants");
      of_group.push_back(row.secret);
      grants_.emplace_back(row.secret, static_cast<std::uint32_t>(row.group.value));
      return {};
    }));
    finish();
    std::sort(grants_.begin(), grants_.end());
    return {};
  }

  Status LoadSecrets() {
    std::vector<PersistentMap<SecretId, SecretRef>::Entry> live;
    std::vector<PersistentMap<SecretId, SecretRef>::Entry> deleted;
    std::vector<std::uint32_t> groups;
    auto grant = grants_.begin();
    const auto visit = [&](store::SecretRow&& row, store::VersionInfo&& current) -> Status {
      const std::string name = "secret " + Number(row.id);
      if (!verifier_.Verify(row)) return BadMac(name);
      if (!verifier_.Verify(current)) {
        return BadMac("version " + Number(current.id) + " of " + name);
      }
      RETURN_IF_ERROR(CheckOwner(row.owner, name));
      groups.clear();
      // A grant of a secret that does not exist stops here and is found below.
      for (; grant != grants_.end() && grant->first == row.id; ++grant) {
        groups.push_back(grant->second);
      }
      SecretRef secret = Secret::Make(row, current, groups);
      auto& entries = secret->live() ? live : deleted;
      if (!entries.empty() && entries.back().key >= row.id) return Disorder("secrets");
      entries.push_back({row.id, std::move(secret)});
      return {};
    };
    RETURN_IF_ERROR(reader_.ForEachSecret(visit));
    if (grant != grants_.end()) {
      return Dangling("grant to group " + std::to_string(grant->second),
                      "secret " + Number(grant->first));
    }
    grants_ = {};
    root_->secrets_ = PersistentMap<SecretId, SecretRef>::FromSorted(live);
    root_->deleted_ = PersistentMap<SecretId, SecretRef>::FromSorted(deleted);
    ASSIGN_OR_RETURN(root_->secrets_by_name_, IndexByName(live, true));
    ASSIGN_OR_RETURN(root_->deleted_by_name_, IndexByName(deleted, false));
    return {};
  }

  using NameIndex = PersistentMap<Root::NameKey, SecretRef>;
  static Result<NameIndex> IndexByName(
      const std::vector<PersistentMap<SecretId, SecretRef>::Entry>& secrets, bool unique) {
    std::vector<NameIndex::Entry> entries;
    entries.reserve(secrets.size());
    for (const auto& [id, secret] : secrets) {
      entries.push_back({{NameHash(secret->name()), id.value}, secret});
    }
    std::sort(entries.begin(), entries.end(),
              [](const auto& a, const auto& b) { return a.key < b.key; });
    for (std::size_t i = 1; unique && i < entries.size(); ++i) {
      for (std::size_t j = i; j > 0 && entries[j - 1].key.hash == entries[i].key.hash; --j) {
        if (entries[j - 1].value->name() != entries[i].value->name()) continue;
        return Error{Errc::kCorrupt, "catalog: secrets " + std::to_string(entries[j - 1].key.id) +
                                         " and " + std::to_string(entries[i].key.id) +
                                         " have one name"};
      }
    }
    return NameIndex::FromSorted(entries);
  }

  // The schema makes names of clients and groups unique, and their order here is that of the hash
  // table: set one by one.
  void BuildClients() {
    for (const auto& [id, client] : clients_) {
      root_->clients_.Set(id, client);
      root_->clients_by_name_.Set({NameHash(client->row.name), id.value}, client);
      if (client->row.spiffe_id) {
        root_->clients_by_spiffe_.Set({NameHash(*client->row.spiffe_id), id.value}, client);
      }
    }
  }

  void BuildGroups() {
    for (const auto& [id, group] : groups_) {
      root_->groups_.Set(id, group);
      root_->groups_by_name_.Set({NameHash(group->row.name), id.value}, group);
    }
  }

  Status CheckOwner(const std::optional<GroupId>& owner, const std::string& object) const {
    if (!owner.has_value() || groups_.contains(*owner)) return {};
    return Dangling(object, "group " + Number(*owner));
  }

  store::Reader& reader_;
  const RowVerifier& verifier_;
  const std::shared_ptr<Root> root_;
  std::unordered_map<ClientId, std::shared_ptr<Client>> clients_;
  std::unordered_map<GroupId, std::shared_ptr<Group>> groups_;
  std::vector<std::pair<SecretId, std::uint32_t>> grants_;  // by secret, then group
};

Result<RootRef> LoadRoot(store::Reader& reader, const RowVerifier& verifier) {
  return Loader(reader, verifier).Load();
}

}  // namespace latchkey::catalog
