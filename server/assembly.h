// Assembly: everything of the server below the network, put together in order and taken apart in reverse. Used by `serve`
// and by the offline commands that write.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "common/base/clock.h"
#include "server/audit/heads.h"
#include "server/audit/refusal_tally.h"
#include "server/catalog/catalog.h"
#include "server/config/config.h"
#include "server/feed/feed.h"
#include "server/keys/kek_provider.h"
#include "server/service/services.h"

namespace latchkey {

// Why a program ends: one line for people, and the exit code (docs/messages.md).
struct Refusal {
  int exit_code = 1;
  std::string message;
};
inline constexpr int kUsageExitCode = 2;

// The exit code that an error of anything but keys and configuration gets: 8 for damage, else 1.
Refusal RefusalOf(const Error& error);

struct AssemblyOptions {
  const config::Config* config = nullptr;
  std::string credentials_directory;  // $CREDENTIALS_DIRECTORY
  bool accept_rollback = false;
  std::function<void(const char* what)> fatal;  // rule P4: must not return for long
};

// The source that the configuration names.
std::unique_ptr<keys::KekProvider> MakeKekProvider(const config::Config& config,
                                                   const std::string& credentials_directory);

// The key of the configuration, by the rules of a start (K1). kNotFound says what helps, which depends on whether the store
// is there.
Result<keys::NumberedKek> LoadConfiguredKek(const config::Config& config,
                                            const std::string& credentials_directory);

// The keyring of an open store with the key of `provider`. Any failure is one of the key (exit 78, rule K3).
Result<std::unique_ptr<keys::Keyring>> LoadKeyring(store::Store& store, keys::NumberedKek key);

// What the anchor says of a store (rule G6). The status is ok, or kConflict: the store is older than its anchor, or the
// anchor is missing or damaged, which `serve --accept-rollback` accepts. Other errors: the anchor cannot be read.
struct AnchorVerdict {
  std::optional<audit::Anchor> anchor;
  Status status;
};
AnchorVerdict JudgeByAnchor(const std::string& anchor_path, const crypto::AuditKey& key,
                            store::Store& store, store::Reader& reader);

// Owned and taken apart by one thread.
class Assembly {
 public:
  // Order: key, store, keyring, anchor, audit chains, catalog, feed, writer. Nothing is written before the key and the
  // anchor were found good. On failure `refusal` says why.
  static std::unique_ptr<Assembly> Open(const AssemblyOptions& options, Refusal* refusal);
  ~Assembly();
  Assembly(const Assembly&) = delete;
  Assembly& operator=(const Assembly&) = delete;

  // Starts recording heads and the anchor each second.
  void StartHeads();
  // Answers the feed's waiters, commits what waits, writes the last heads and the anchor. Idempotent.
  Status Stop();

  service::Services services();
  store::Store& store() { return *store_; }
  catalog::Catalog& catalog() { return *catalog_; }
  feed::Feed& feed() { return *feed_; }
  audit::AccessLog& access() { return *access_; }
  audit::RefusalTally& refusals() { return refusals_; }
  audit::StoreChain& chain() { return *chain_; }
  service::Writer& writer() { return *writer_; }
  service::SealedCache& cache() { return *cache_; }
  const keys::Keyring& keyring() const { return *keyring_; }

 private:
  Assembly() = default;
  Status OpenParts(const AssemblyOptions& options);
  Status OpenKeys(const AssemblyOptions& options);
  Status CheckAnchor(const AssemblyOptions& options, store::Reader& reader);
  Status OpenAudit(const AssemblyOptions& options, store::Reader& reader);
  Status RecordStart(const AssemblyOptions& options);

  // In order of construction; destroyed in reverse.
  bool key_trouble_ = false;
  bool rolled_back_ = false;
  bool stopped_ = false;
  std::optional<audit::Anchor> anchor_;
  service::Settings settings_;
  std::unique_ptr<keys::Keyring> keyring_;
  std::unique_ptr<store::Store> store_;
  std::unique_ptr<audit::StoreChain> chain_;
  std::unique_ptr<audit::AccessLog> access_;
  audit::RefusalTally refusals_{SystemClock()};
  std::unique_ptr<catalog::Catalog> catalog_;
  std::unique_ptr<feed::Feed> feed_;
  std::unique_ptr<service::SealedCache> cache_;
  std::unique_ptr<service::Writer> writer_;
  std::unique_ptr<audit::HeadKeeper> heads_;
};

}  // namespace latchkey
