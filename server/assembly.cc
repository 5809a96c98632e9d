#include "server/assembly.h"

#include <unistd.h>

#include <filesystem>

#include "common/base/log.h"
#include "common/base/trusted_path.h"
#include "server/service/catalog_verifier.h"
#include "server/service/maintenance.h"

namespace latchkey {
namespace {

constexpr const char* kAcceptAdvice =
    "; put the right one back, or start with --accept-rollback if the loss is known and accepted";

service::Settings SettingsOf(const config::Config& config) {
  service::Settings settings;
  settings.max_content_bytes = config.limits.max_content_bytes;
  settings.hide_names = config.delivery.hide_names;
  for (const config::ReservedPrefix& reserved : config.reserved_prefixes) {
    settings.reserved_prefixes.push_back({reserved.owner, reserved.prefix});
  }
  return settings;
}

// `--accept-rollback` is said after somebody exchanged files by hand. A database that lies beside the write-ahead log of
// another one is read as a mix of both, and rows that no start reads would be found missing much later. Opened for itself:
// what is found here is an answer, not the end of the process (rule P4), and nothing is written back to the file.
Status RefuseMixedFile(const std::string& path) {
  const auto is_whole = [&]() -> Result<bool> {
    ASSIGN_OR_RETURN(const auto store, store::Store::Open(path, store::OpenMode::kSnapshot, {}));
    ASSIGN_OR_RETURN(store::Reader reader, store->Read());
    ASSIGN_OR_RETURN(const std::vector<std::string> findings, reader.CheckIntegrity());
    return findings.empty();
  };
  const Result<bool> whole = is_whole();
  if (whole && *whole) return {};
  if (!whole && whole.error().code != Errc::kCorrupt) return whole.error();
  return Error{Errc::kCorrupt,
               "the database file is not whole, perhaps a mix of two stores: put a backup in its "
               "place with latchkeyd restore, not by copying; latchkeyd check lists the damage"};
}

}  // namespace

Refusal RefusalOf(const Error& error) {
  return Refusal{error.code == Errc::kCorrupt ? ExitCodeOf(Errc::kCorrupt) : 1, error.message};
}

std::unique_ptr<keys::KekProvider> MakeKekProvider(const config::Config& config,
                                                   const std::string& credentials_directory) {
  if (!config.keys.kek_credential.empty()) {
    return std::make_unique<keys::CredentialKekProvider>(credentials_directory,
                                                         config.keys.kek_credential);
  }
  return std::make_unique<keys::FileKekProvider>(config.keys.kek_file);
}

Result<std::unique_ptr<keys::Keyring>> LoadKeyring(store::Store& store, keys::NumberedKek key) {
  ASSIGN_OR_RETURN(store::Reader reader, store.Read());
  std::vector<store::KekRow> keks;
  std::vector<store::KeyringRow> rows;
  RETURN_IF_ERROR(reader.ForEachKek([&](store::KekRow&& row) -> Status {
    keks.push_back(std::move(row));
    return {};
  }));
  RETURN_IF_ERROR(reader.ForEachKeyring([&](store::KeyringRow&& row) -> Status {
    rows.push_back(std::move(row));
    return {};
  }));
  return keys::Keyring::Load(store.store_id(), key.kek_id, std::move(key.kek), keks, rows);
}

AnchorVerdict JudgeByAnchor(const std::string& anchor_path, const crypto::AuditKey& key,
                            store::Store& store, store::Reader& reader) {
  Result<std::optional<audit::Anchor>> anchor = audit::ReadAnchor(anchor_path, key);
  if (!anchor && anchor.error().code != Errc::kCorrupt) return {std::nullopt, anchor.error()};
  if (!anchor)
    return {std::nullopt, Error{Errc::kConflict, anchor.error().message + kAcceptAdvice}};
  if (!anchor->has_value()) {
    return {std::nullopt,
            Error{Errc::kConflict, "the anchor " + anchor_path + " is missing" + kAcceptAdvice}};
  }
  const Result<std::optional<store::AuditRow>> last = reader.LastAudit();
  if (!last) return {std::nullopt, last.error()};
  audit::StorePosition position{store.store_id(), store.generation(), {}};
  if (*last) position.head = audit::ChainHead{(*last)->seq, (*last)->hash};
  const auto hash_at = [&](std::uint64_t seq) -> Result<std::optional<crypto::Hash>> {
    ASSIGN_OR_RETURN(const std::vector<store::AuditRow> rows, reader.ListAudit(seq - 1, 1));
    if (rows.empty() || rows[0].seq != seq) return std::optional<crypto::Hash>();
    return std::optional<crypto::Hash>(rows[0].hash);
  };
  return {**anchor, audit::CheckAgainstAnchor(**anchor, position, hash_at)};
}

Assembly::~Assembly() {
  // A stop that was asked for reports its error; this one is the way out after an earlier failure.
  [[maybe_unused]] const Status stopped = Stop();
}

// `init` makes key and store: it is the advice for a new server, and the loss of every secret where a store is waiting for
// its key.
Result<keys::NumberedKek> LoadConfiguredKek(const config::Config& config,
                                            const std::string& credentials_directory) {
  Result<keys::NumberedKek> key = MakeKekProvider(config, credentials_directory)->LoadAny();
  if (key || key.error().code != Errc::kNotFound) return key;
  std::error_code error;
  const bool store_exists =
      std::filesystem::exists(std::filesystem::symlink_status(config.store.path, error));
  return Error{
      key.error().code,
      key.error().message +
          (store_exists ? "; the store " + config.store.path +
                              " is there and opens with its own key only: do not move it away"
                        : "; for a new server run latchkeyd init")};
}

std::unique_ptr<Assembly> Assembly::Open(const AssemblyOptions& options, Refusal* refusal) {
  std::unique_ptr<Assembly> assembly(new Assembly());
  if (Status status = assembly->OpenParts(options); !status) {
    *refusal = RefusalOf(status.error());
    if (assembly->key_trouble_) refusal->exit_code = keys::kKeyExitCode;
    return nullptr;
  }
  return assembly;
}

// The key is read first: a bad key file is refused before the store is touched (rule K3).
Status Assembly::OpenKeys(const AssemblyOptions& options) {
  key_trouble_ = true;
  ASSIGN_OR_RETURN(keys::NumberedKek key,
                   LoadConfiguredKek(*options.config, options.credentials_directory));
  key_trouble_ = false;
  if (options.accept_rollback) RETURN_IF_ERROR(RefuseMixedFile(options.config->store.path));
  store::Options store_options;
  store_options.fatal = [fatal = options.fatal](const Error& error) {
    fatal(error.message.c_str());
  };
  ASSIGN_OR_RETURN(store_, store::Store::Open(options.config->store.path,
                                              store::OpenMode::kExclusive, store_options));
  key_trouble_ = true;
  ASSIGN_OR_RETURN(keyring_, LoadKeyring(*store_, std::move(key)));
  key_trouble_ = false;
  return {};
}

Status Assembly::CheckAnchor(const AssemblyOptions& options, store::Reader& reader) {
  // Whoever can exchange files here can put an anchor back together with the store that it belongs to.
  const std::filesystem::path anchor_path = options.config->anchor.path;
  const std::string folder =
      anchor_path.has_parent_path() ? anchor_path.parent_path().string() : ".";
  RETURN_IF_ERROR(CheckOwnDirectory(folder, "the directory of the anchor " + anchor_path.string()));
  AnchorVerdict verdict =
      JudgeByAnchor(options.config->anchor.path, keyring_->audit_key(), *store_, reader);
  anchor_ = std::move(verdict.anchor);
  if (verdict.status) return {};
  const Error& error = verdict.status.error();
  if (error.code != Errc::kConflict || !options.accept_rollback) return error;
  Log(LogLevel::kWarn, "rollback accepted", {{"reason", error.message}});
  rolled_back_ = true;
  return {};
}

Status Assembly::OpenAudit(const AssemblyOptions& options, store::Reader& reader) {
  ASSIGN_OR_RETURN(const std::optional<store::AuditRow> last, reader.LastAudit());
  const audit::ChainHead head = last ? audit::ChainHead{last->seq, last->hash} : audit::ChainHead{};
  RETURN_IF_ERROR(CheckAnchor(options, reader));
  chain_ = std::make_unique<audit::StoreChain>(keyring_->audit_key(), head, store_->generation());

  audit::AccessLogOptions log;
  log.directory = options.config->audit.dir;
  log.server_id = options.config->server_id;
  log.accept_rollback = options.accept_rollback;
  log.segment_bytes = limits::kSpoolSegmentBytes;
  log.reserve_bytes = limits::kSpoolBytes;
  log.on_fatal = options.fatal;
  if (anchor_ && anchor_->access_chain == audit::AccessChainId(log.server_id))
    log.durable = anchor_->access;
  ASSIGN_OR_RETURN(access_, audit::AccessLog::Open(keyring_->audit_key(), std::move(log)));
  rolled_back_ = rolled_back_ || access_->recovery().behind_durable;
  return {};
}

Status Assembly::RecordStart(const AssemblyOptions& options) {
  if (access_->recovery().cut) {
    Log(LogLevel::kWarn, "the torn tail of the audit spool was cut",
        {{"bytes", access_->recovery().cut_bytes},
         {"head_seq", access_->recovery().head_after.seq}});
    RETURN_IF_ERROR(service::RecordTailCut(*access_, SystemClock()));
  }
  if (options.accept_rollback && !rolled_back_) {
    Log(LogLevel::kWarn,
        "--accept-rollback was given, but the store did not go back; a restore had no effect",
        {{"generation", store_->generation().value}});
  }
  if (!rolled_back_) return {};
  return service::RecordAcceptedRollback(*store_, *chain_, *access_,
                                         service::OperatorActor(::getuid()), SystemClock());
}

Status Assembly::OpenParts(const AssemblyOptions& options) {
  settings_ = SettingsOf(*options.config);
  RETURN_IF_ERROR(OpenKeys(options));
  catalog::RootRef root;
  {
    ASSIGN_OR_RETURN(store::Reader reader, store_->Read());
    ASSIGN_OR_RETURN(root, catalog::LoadRoot(reader, service::CatalogVerifier(*keyring_)));
    RETURN_IF_ERROR(OpenAudit(options, reader));
  }
  catalog_ = std::make_unique<catalog::Catalog>(root);
  ASSIGN_OR_RETURN(feed_, feed::Feed::Load(store_.get(), root, SystemClock()));
  cache_ = std::make_unique<service::SealedCache>();
  writer_ = std::make_unique<service::Writer>(services().WriterParts());
  store_->Start(writer_.get());

  audit::HeadKeeperOptions heads;
  heads.store_id = store_->store_id();
  heads.anchor_path = options.config->anchor.path;
  heads.record_in_store = [this](const audit::Event& event) {
    return service::AppendToStoreChain(*store_, *chain_, event);
  };
  heads.on_fatal = options.fatal;
  heads.clock = &SystemClock();
  heads.refusals = &refusals_;
  heads_ = std::make_unique<audit::HeadKeeper>(keyring_->audit_key(), *chain_, *access_,
                                               std::move(heads));
  if (Status recorded = RecordStart(options); !recorded) {
    // The anchor must not move on: the next start has to ask again.
    heads_.reset();
    return recorded;
  }
  return heads_->RunOnce();
}

void Assembly::StartHeads() {
  heads_->Start();
}

Status Assembly::Stop() {
  if (stopped_) return {};
  stopped_ = true;
  if (feed_) feed_->Stop();
  Status heads;
  if (heads_) heads = heads_->Stop();
  if (store_) store_->Stop();
  return heads;
}

service::Services Assembly::services() {
  service::Services services;
  services.store = store_.get();
  services.catalog = catalog_.get();
  services.feed = feed_.get();
  services.keys = keyring_.get();
  services.chain = chain_.get();
  services.access = access_.get();
  services.refusals = &refusals_;
  services.writer = writer_.get();
  services.cache = cache_.get();
  services.clock = &SystemClock();
  services.settings = &settings_;
  return services;
}

}  // namespace latchkey
