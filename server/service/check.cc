#include "server/service/check.h"

#include <map>
#include <unordered_map>

#include "server/audit/anchor.h"
#include "server/audit/verify.h"
#include "server/service/catalog_verifier.h"

namespace latchkey::service {
namespace {

constexpr std::size_t kAuditPage = 1000;

class Checker {
 public:
  Checker(store::Store& store, const keys::Keyring& keys, const CheckOptions& options,
          const Finding& report)
      : store_(store), keys_(keys), options_(options), report_(report) {}

  Result<CheckCounts> Run();

 private:
  void Damage(const std::string& where, const std::string& what) {
    ++counts_.damaged;
    report_(where + ": " + what);
  }
  // A walk that ends early hides the rows behind it: that is damage too, named by the reader.
  Status Walked(const char* table, Status status) {
    if (status) return {};
    if (status.error().code == Errc::kUnavailable) return status;
    Damage(table, status.error().message + "; rows behind it were not checked");
    return {};
  }
  // Reports a row whose MAC is wrong; `name` is what people call it.
  template <class Row>
  void VerifyRow(const char* table, const Row& row, const std::string& name) {
    if (keys_.Verify(row)) return;
    std::string where = std::string(table) + ": " + keys::RowName(row);
    if (!name.empty()) where += " (" + name + ")";
    Damage(where, "the row was changed outside the server");
  }

  Status CheckFile(store::Reader& reader);
  Status CheckPrincipals(store::Reader& reader);
  Status CheckEdges(store::Reader& reader);
  Status CheckSecrets(store::Reader& reader);
  Status CheckVersions(store::Reader& reader);
  Status CheckSettings(store::Reader& reader);
  Status CheckReferences(store::Reader& reader);
  void CheckVersion(const store::VersionRow& row);

  Status ReadAnchorFile();
  Status CollectFromSpool();
  Status CheckStoreChain(store::Reader& reader);
  Status CheckSpool();
  void CompareWithAnchor(const store::StoreInfo& info, const audit::ChainHead& head);
  void Take(const std::vector<audit::Damage>& damage);

  std::string SecretNameOf(SecretId id) const {
    const auto found = secrets_.find(id);
    return found == secrets_.end() ? "no such secret" : found->second;
  }

  store::Store& store_;
  const keys::Keyring& keys_;
  const CheckOptions& options_;
  const Finding& report_;
  CheckCounts counts_;

  std::unordered_map<SecretId, std::string> secrets_;
  std::unordered_map<ClientId, std::string> clients_;
  std::unordered_map<GroupId, std::string> groups_;

  std::optional<audit::Anchor> anchor_;
  audit::ExpectedHeads expected_of_store_;
  audit::ExpectedHeads expected_of_access_;
};

Status Checker::CheckFile(store::Reader& reader) {
  const Result<std::vector<std::string>> findings = reader.CheckIntegrity();
  if (!findings) return Walked("database file", findings.error());
  for (const std::string& finding : *findings) Damage("database file", finding);
  return {};
}

Status Checker::CheckPrincipals(store::Reader& reader) {
  RETURN_IF_ERROR(Walked("clients", reader.ForEachClient([this](store::ClientRow&& row) -> Status {
    ++counts_.clients;
    clients_.emplace(row.id, row.name);
    VerifyRow("clients", row, row.name);
    return {};
  })));
  return Walked("groups", reader.ForEachGroup([this](store::GroupRow&& row) -> Status {
    ++counts_.groups;
    groups_.emplace(row.id, row.name);
    VerifyRow("groups", row, row.name);
    return {};
  }));
}

Status Checker::CheckEdges(store::Reader& reader) {
  const auto name_of = [](const auto& names, auto id) {
    const auto found = names.find(id);
    return found == names.end() ? std::string("unknown") : found->second;
  };
  RETURN_IF_ERROR(
      Walked("memberships", reader.ForEachMembership([&](store::MembershipRow&& row) -> Status {
        ++counts_.memberships;
        VerifyRow("memberships", row,
                  name_of(clients_, row.client) + " in " + name_of(groups_, row.group));
        return {};
      })));
  return Walked("grants", reader.ForEachGrant([&](store::GrantRow&& row) -> Status {
    ++counts_.grants;
    VerifyRow("grants", row, SecretNameOf(row.secret) + " to " + name_of(groups_, row.group));
    return {};
  }));
}

Status Checker::CheckSecrets(store::Reader& reader) {
  return Walked("secrets", reader.ForEachSecret([this](store::SecretRow&& row,
                                                       store::VersionInfo&& current) -> Status {
    ++(row.state == store::SecretState::kLive ? counts_.live_secrets : counts_.deleted_secrets);
    secrets_.emplace(row.id, row.name);
    VerifyRow("secrets", row, row.name);
    if (current.secret != row.id) {
      Damage("secrets: " + keys::RowName(row) + " (" + row.name + ")",
             "its current version belongs to another secret");
    }
    return {};
  }));
}

void Checker::CheckVersion(const store::VersionRow& row) {
  ++counts_.versions;
  const std::string where = "versions: " + keys::RowName(row.info) + " (" +
                            SecretNameOf(row.info.secret) + " number " +
                            std::to_string(row.info.number.value) + ")";
  if (!keys_.Verify(row.info)) return Damage(where, "the row was changed outside the server");
  const Result<SecretBuffer> content = keys_.OpenVersion(row.info, row.sealed, row.wrapped);
  if (!content) {
    return Damage(
        where,
        content.error().code == Errc::kCorrupt
            ? "the sealed content or its wrapped key was changed, or belongs to another version"
            : content.error().message);
  }
  counts_.content_bytes += content->size();
  if (content->size() != row.info.size)
    return Damage(where, "the content has another length than the row says");
  if (!crypto::EqualsConstantTime(keys_.Checksum(row.info.secret, content->bytes()),
                                  row.info.checksum)) {
    Damage(where, "the checksum does not belong to the content");
  }
}

Status Checker::CheckVersions(store::Reader& reader) {
  return Walked("versions", reader.ForEachVersion([this](store::VersionRow&& row) -> Status {
    CheckVersion(row);
    return {};
  }));
}

Status Checker::CheckSettings(store::Reader& reader) {
  return Walked("settings",
                reader.ForEachSetting([this](std::string&& name, ByteVector&& value) -> Status {
                  ++counts_.settings;
                  if (!keys_.OpenSetting(name, value))
                    Damage("settings: " + name, "the row was changed outside the server");
                  return {};
                }));
}

// Dangling references and names that two live secrets share: what the server itself refuses when it loads.
Status Checker::CheckReferences(store::Reader& reader) {
  if (counts_.damaged != 0) return {};
  const Result<catalog::RootRef> root = catalog::LoadRoot(reader, CatalogVerifier(keys_));
  return root ? Status() : Walked("references", root.error());
}

void Checker::Take(const std::vector<audit::Damage>& damage) {
  for (const audit::Damage& one : damage) {
    Damage("audit chain " + one.chain + ", record " + std::to_string(one.seq), one.what);
  }
}

Status Checker::ReadAnchorFile() {
  if (options_.anchor_path.empty()) return {};
  Result<std::optional<audit::Anchor>> anchor =
      audit::ReadAnchor(options_.anchor_path, keys_.audit_key());
  if (!anchor && anchor.error().code != Errc::kCorrupt) return anchor.error();
  if (!anchor) {
    Damage("anchor", anchor.error().message);
    return {};
  }
  if (!anchor->has_value()) {
    Damage("anchor", options_.anchor_path + " is missing: an older store could not be noticed");
    return {};
  }
  anchor_ = **anchor;
  if (anchor_->store.seq != 0)
    expected_of_store_[anchor_->store.seq] = {anchor_->store.hash, "the anchor"};
  if (anchor_->access.seq != 0 && anchor_->access_chain == options_.chain_id) {
    expected_of_access_[anchor_->access.seq] = {anchor_->access.hash, "the anchor"};
  }
  return {};
}

// First pass over the spool: what it says about the store chain. Its own damage is reported by the second pass.
Status Checker::CollectFromSpool() {
  if (options_.spool_directories.empty()) return {};
  audit::ChainVerifier verifier(keys_.audit_key(), options_.chain_id, {});
  const auto add = [&](std::uint64_t seq, Bytes event, Bytes hash) {
    return verifier.Add(seq, event, hash);
  };
  const auto read = audit::ReadSpool(options_.spool_directories, options_.chain_id, add);
  if (!read) return read.error();
  for (const auto& [seq, head] : verifier.RecordedHeads(std::string(audit::kStoreChainId))) {
    expected_of_store_.emplace(seq, head);
  }
  return {};
}

Status Checker::CheckStoreChain(store::Reader& reader) {
  ASSIGN_OR_RETURN(const store::StoreInfo info, reader.Info());
  audit::ChainVerifier verifier(keys_.audit_key(), std::string(audit::kStoreChainId),
                                expected_of_store_);
  bool more = true;
  std::uint64_t after = 0;
  while (more) {
    Result<std::vector<store::AuditRow>> rows = reader.ListAudit(after, kAuditPage);
    if (!rows) {
      RETURN_IF_ERROR(Walked("audit chain store", rows.error()));
      break;
    }
    more = rows->size() == kAuditPage;
    for (const store::AuditRow& row : *rows) {
      after = row.seq;
      if (!verifier.Add(row.seq, row.event, row.hash)) more = false;
    }
  }
  verifier.Finish();
  counts_.store_events = verifier.records();
  Take(verifier.damage());
  for (const auto& [seq, head] : verifier.RecordedHeads(options_.chain_id))
    expected_of_access_.emplace(seq, head);
  CompareWithAnchor(info, verifier.head());
  return {};
}

void Checker::CompareWithAnchor(const store::StoreInfo& info, const audit::ChainHead& head) {
  counts_.generation = info.generation;
  if (!anchor_) return;
  if (anchor_->store_id != info.store_id) return Damage("anchor", "it belongs to another store");
  if (info.generation < anchor_->generation || head.seq < anchor_->store.seq) {
    Damage("anchor", "the store is older than its anchor: generation " +
                         std::to_string(info.generation.value) + " of " +
                         std::to_string(anchor_->generation.value) + ", audit record " +
                         std::to_string(head.seq) + " of " + std::to_string(anchor_->store.seq));
  }
}

Status Checker::CheckSpool() {
  if (options_.spool_directories.empty()) return {};
  audit::ChainVerifier verifier(keys_.audit_key(), options_.chain_id, expected_of_access_);
  const auto add = [&](std::uint64_t seq, Bytes event, Bytes hash) {
    return verifier.Add(seq, event, hash);
  };
  ASSIGN_OR_RETURN(const std::vector<audit::Damage> files,
                   audit::ReadSpool(options_.spool_directories, options_.chain_id, add));
  // Damaged files end the chain early: that is one damage, not two.
  if (files.empty()) verifier.Finish();
  counts_.access_events = verifier.records();
  Take(files);
  Take(verifier.damage());
  return {};
}

// The order makes it safe beside a running server: each chain is read after whatever vouches for it.
Result<CheckCounts> Checker::Run() {
  RETURN_IF_ERROR(ReadAnchorFile());
  RETURN_IF_ERROR(CollectFromSpool());
  {
    ASSIGN_OR_RETURN(store::Reader reader, store_.Read());
    RETURN_IF_ERROR(CheckFile(reader));
    RETURN_IF_ERROR(CheckPrincipals(reader));
    RETURN_IF_ERROR(CheckSecrets(reader));
    RETURN_IF_ERROR(CheckEdges(reader));
    RETURN_IF_ERROR(CheckVersions(reader));
    RETURN_IF_ERROR(CheckSettings(reader));
    RETURN_IF_ERROR(CheckReferences(reader));
    RETURN_IF_ERROR(CheckStoreChain(reader));
  }
  RETURN_IF_ERROR(CheckSpool());
  return counts_;
}

}  // namespace

Result<CheckCounts> CheckStore(store::Store& store, const keys::Keyring& keys,
                               const CheckOptions& options, const Finding& report) {
  return Checker(store, keys, options, report).Run();
}

}  // namespace latchkey::service
