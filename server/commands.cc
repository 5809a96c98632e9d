#include "server/commands.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "common/base/log.h"
#include "common/base/unique_fd.h"
#include "server/audit/anchor.h"
#include "server/audit/spool.h"
#include "server/serve.h"
#include "server/service/check.h"
#include "server/service/maintenance.h"
#include "server/store/replacement.h"

namespace latchkey {
namespace {

constexpr int kRecoveryTries = 3;

void Print(const std::string& text) {
  std::fputs(text.c_str(), stdout);
  std::fputc('\n', stdout);
}

Refusal Unavailable(const std::string& message) {
  return Refusal{1, message};
}

std::string ErrnoText() {
  return std::strerror(errno);
}

// --- init -----------------------------------------------------------------------------------------------------------

bool Exists(const std::string& path) {
  struct stat info {};
  return ::lstat(path.c_str(), &info) == 0;
}

std::optional<std::string> SomethingInTheWay(const config::Config& config) {
  for (const std::string& path :
       {config.store.path, config.store.path + "-wal", config.keys.kek_file, config.anchor.path}) {
    if (!path.empty() && Exists(path)) return path;
  }
  if (!Exists(config.audit.dir)) return std::nullopt;
  const auto segments = audit::spool::ListSegments(config.audit.dir);
  if (segments && segments->empty()) return std::nullopt;
  return config.audit.dir;
}

std::string DirectoryOf(const std::string& path) {
  return std::filesystem::path(path).parent_path().string();
}

// The umask is 077: what is made here belongs to this user alone.
Status MakeDirectory(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error)
    return Error{Errc::kUnavailable, "cannot make the directory " + path + ": " + error.message()};
  return {};
}

Status MakeDirectories(const config::Config& config) {
  RETURN_IF_ERROR(MakeDirectory(DirectoryOf(config.store.path)));
  RETURN_IF_ERROR(MakeDirectory(DirectoryOf(config.anchor.path)));
  return MakeDirectory(config.audit.dir);
}

Status WriteAll(int fd, Bytes bytes) {
  while (!bytes.empty()) {
    const ssize_t put = ::write(fd, bytes.data(), bytes.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return Error{Errc::kUnavailable, "cannot write to the terminal: " + ErrnoText()};
    bytes = bytes.subspan(static_cast<std::size_t>(put));
  }
  return {};
}

// The copy goes to the terminal itself, never through a stream of ours that might be redirected into a file.
Status ShowRecoveryCopy(int terminal, const SecretBuffer& line) {
  RETURN_IF_ERROR(WriteAll(
      terminal, AsBytes("This is the recovery copy of the key. Without it, losing the key file "
                        "means losing every secret.\n"
                        "Write it down, or store it where this machine cannot reach it:\n\n    ")));
  RETURN_IF_ERROR(WriteAll(terminal, line.bytes()));
  return WriteAll(terminal, AsBytes("\n\n"));
}

Result<bool> AskForCharacters(int terminal, const SecretBuffer& line) {
  const keys::RecoveryQuestion question = keys::DrawRecoveryQuestion();
  const std::string text = "Type characters " + std::to_string(question.first + 1) + " to " +
                           std::to_string(question.first + keys::RecoveryQuestion::kChars) +
                           " of its third part (between the second and the third dot): ";
  RETURN_IF_ERROR(WriteAll(terminal, AsBytes(text)));
  ASSIGN_OR_RETURN(SecretBuffer typed, SecretBuffer::OfSize(64));
  const ssize_t got = ::read(terminal, typed.mutable_bytes().data(), typed.size());
  if (got <= 0) return Error{Errc::kUnavailable, "nothing was typed"};
  Bytes answer = typed.bytes().first(static_cast<std::size_t>(got));
  while (!answer.empty() && (answer.back() == '\n' || answer.back() == '\r'))
    answer = answer.first(answer.size() - 1);
  return keys::RecoveryAnswerIs(line, question, answer);
}

Status ConfirmRecoveryCopy(const keys::NumberedKek& key) {
  const UniqueFd terminal(::open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY));
  if (::isatty(STDIN_FILENO) != 1 || !terminal.valid()) {
    return Error{Errc::kInvalidArgument,
                 "there is no terminal to show the recovery copy of the key on; run init on one, "
                 "or say --no-recovery"};
  }
  ASSIGN_OR_RETURN(const SecretBuffer line, keys::FormatKek(key.kek_id, key.kek));
  RETURN_IF_ERROR(ShowRecoveryCopy(terminal.get(), line));
  for (int i = 0; i < kRecoveryTries; ++i) {
    ASSIGN_OR_RETURN(const bool right, AskForCharacters(terminal.get(), line));
    if (right) return {};
    RETURN_IF_ERROR(WriteAll(terminal.get(), AsBytes("That is not what the copy says.\n")));
  }
  return Error{Errc::kInvalidArgument, "the recovery copy was not confirmed; nothing was made"};
}

// A key of its own for a file; for a credential the one that is there.
Result<keys::NumberedKek> KeyForNewStore(const config::Config& config,
                                         const std::string& credentials_directory) {
  if (config.keys.kek_file.empty())
    return MakeKekProvider(config, credentials_directory)->LoadAny();
  std::uint32_t kek_id = 0;
  while (kek_id == 0) {
    ByteArray<4> bytes{};
    crypto::RandomBytes(bytes);
    kek_id = GetU32(bytes.data()) & 0x7fffffff;
  }
  ASSIGN_OR_RETURN(crypto::Kek kek, crypto::Kek::Random());
  return keys::NumberedKek{kek_id, std::move(kek)};
}

Status FillStore(const config::Config& config, const keys::NewKeyring& keyring,
                 const InitOptions& options) {
  ASSIGN_OR_RETURN(const auto store,
                   store::Store::Open(config.store.path, store::OpenMode::kExclusive, {}));
  store->Start(nullptr);
  audit::StoreChain chain(keyring.keyring->audit_key(), {});
  const service::NewStore what{options.admin, options.no_recovery,
                               service::OperatorActor(::getuid())};
  RETURN_IF_ERROR(service::FillNewStore(*store, keyring, chain, what, SystemClock()));
  store->Stop();
  audit::Anchor anchor;
  anchor.store_id = store->store_id();
  anchor.generation = chain.Last().generation;
  anchor.store = chain.Last().head;
  anchor.access_chain = audit::AccessChainId(config.server_id);
  return audit::WriteAnchor(config.anchor.path, keyring.keyring->audit_key(), anchor);
}

Status MakeEverything(const config::Config& config, keys::NumberedKek key,
                      const InitOptions& options) {
  const std::uint32_t kek_id = key.kek_id;
  if (!config.keys.kek_file.empty()) {
    RETURN_IF_ERROR(MakeDirectory(DirectoryOf(config.keys.kek_file)));
    RETURN_IF_ERROR(keys::CreateKekFile(config.keys.kek_file, kek_id, key.kek));
  }
  RETURN_IF_ERROR(MakeDirectories(config));
  crypto::StoreId store_id{};
  crypto::RandomBytes(store_id);
  const std::int64_t now = EpochSeconds(SystemClock().Now());
  ASSIGN_OR_RETURN(const keys::NewKeyring keyring,
                   keys::Keyring::Create(store_id, kek_id, std::move(key.kek), now));
  RETURN_IF_ERROR(store::Store::Create(config.store.path, store_id, now));
  return FillStore(config, keyring, options);
}

// Only called after SomethingInTheWay found nothing: all of these are ours.
void RemoveAll(const config::Config& config) {
  for (const char* suffix : {"", "-wal", "-shm", ".lock"})
    ::unlink((config.store.path + suffix).c_str());
  ::unlink(config.anchor.path.c_str());
  if (!config.keys.kek_file.empty()) ::unlink(config.keys.kek_file.c_str());
}

// --- check ----------------------------------------------------------------------------------------------------------

Result<keys::NumberedKek> KeyForCheck(const CheckCommandOptions& options) {
  if (!options.kek.empty()) return keys::FileKekProvider(options.kek).LoadAny();
  return LoadConfiguredKek(*options.config, options.credentials_directory);
}

void PrintDamage(const std::string& finding) {
  std::string line = "damaged: ";
  AppendJsonEscaped(&line, finding, 2048);
  Print(line);
}

void PrintCounts(const service::CheckCounts& counts, bool is_backup) {
  const auto line = [](std::string what, std::uint64_t count) {
    what.resize(22, ' ');
    Print("  " + what + " " + std::to_string(count));
  };
  Print("checked, at generation " + std::to_string(counts.generation.value) + ":");
  line("clients", counts.clients);
  line("groups", counts.groups);
  line("memberships", counts.memberships);
  line("grants", counts.grants);
  line("secrets", counts.live_secrets);
  line("deleted secrets", counts.deleted_secrets);
  line("versions opened", counts.versions);
  line("content bytes", counts.content_bytes);
  line("store audit events", counts.store_events);
  if (is_backup) {
    Print("  the access chain and the anchor are not part of a backup and were not checked");
  } else {
    line("access audit events", counts.access_events);
  }
  line("damaged", counts.damaged);
}

// --- restore --------------------------------------------------------------------------------------------------------

struct RestoredStore {
  service::CheckCounts counts;
  bool is_behind_anchor = false;
};

// The copy is verified, not the backup: what is found good is what is put in place.
Result<RestoredStore> VerifyCopy(const config::Config& config, const std::filesystem::path& copy,
                                 keys::NumberedKek key, bool* key_trouble) {
  ASSIGN_OR_RETURN(const auto store, store::Store::Open(copy, store::OpenMode::kSnapshot, {}));
  *key_trouble = true;
  ASSIGN_OR_RETURN(const auto keyring, LoadKeyring(*store, std::move(key)));
  *key_trouble = false;
  RestoredStore restored;
  ASSIGN_OR_RETURN(restored.counts, service::CheckStore(*store, *keyring, {}, PrintDamage));
  ASSIGN_OR_RETURN(store::Reader reader, store->Read());
  restored.is_behind_anchor =
      !JudgeByAnchor(config.anchor.path, keyring->audit_key(), *store, reader).status;
  return restored;
}

void PrintRestored(const RestoredStore& restored, const std::string& source,
                   const std::string& kept) {
  const service::CheckCounts& counts = restored.counts;
  Print("restored " + source + ": generation " + std::to_string(counts.generation.value) + ", " +
        std::to_string(counts.clients) + " clients, " + std::to_string(counts.live_secrets) +
        " secrets, " + std::to_string(counts.versions) + " versions");
  if (!kept.empty())
    Print("the store that was there before is kept as " + kept +
          "; remove it once the restored one serves well");
  if (restored.is_behind_anchor)
    Print(
        "the anchor knows another state than this one: start once with latchkeyd serve "
        "--accept-rollback, which is recorded");
}

std::string BitsText(const service::ClientBits& bits) {
  return std::string(bits.enabled ? "enabled" : "disabled") +
         (bits.automation ? ", automation" : ", no automation") +
         (bits.content ? ", content" : ", no content");
}

// --- client ---------------------------------------------------------------------------------------------------------

Result<service::ClientBits> ChangeClient(service::WriteContext& context,
                                         const ClientOptions& options) {
  if (options.create)
    RETURN_IF_ERROR(service::CreateClient(context, {options.name, "made at the server", "", {}}));
  return service::SetClientState(context, options.name, options.changes);
}

Refusal ClientRefusal(const ClientOptions& options, const Error& error) {
  if (options.create && error.code == Errc::kConflict)
    return Refusal{1, "there is a client " + options.name +
                          " already; change it with: latchkeyd client set " + options.name +
                          " --automation --enable"};
  if (error.code == Errc::kNotFound)
    return {ExitCodeOf(error.code), "there is no client " + options.name +
                                        "; the CLI lists them: latchkey client list; make one "
                                        "with: latchkeyd client create " +
                                        options.name};
  return RefusalOf(error);
}

}  // namespace

int Refuse(const Refusal& refusal) {
  std::string line = "latchkeyd: error: ";
  AppendJsonEscaped(&line, refusal.message, 2048);
  line += "\n";
  std::fputs(line.c_str(), stderr);
  return refusal.exit_code;
}

int RunInit(const config::Config& config, const std::string& credentials_directory,
            const InitOptions& options) {
  if (const auto path = SomethingInTheWay(config)) {
    return Refuse(Unavailable(*path + " is already there; init never overwrites. " +
                              (Exists(config.store.path)
                                   ? "A store opens with its own key only: put that key back, and "
                                     "move nothing away that is still needed"
                                   : "Move it away, or use the store that it belongs to")));
  }
  if (const auto name = ClientName::Parse(options.admin); !name) {
    return Refuse({kUsageExitCode, "--admin: " + name.error().message});
  }
  Result<keys::NumberedKek> key = KeyForNewStore(config, credentials_directory);
  if (!key) return Refuse({keys::kKeyExitCode, key.error().message});
  const std::uint32_t kek_id = key->kek_id;
  if (!options.no_recovery) {
    if (const Status confirmed = ConfirmRecoveryCopy(*key); !confirmed) {
      return Refuse({confirmed.error().code == Errc::kInvalidArgument ? kUsageExitCode : 1,
                     confirmed.error().message});
    }
  }
  if (const Status made = MakeEverything(config, std::move(key).value(), options); !made) {
    RemoveAll(config);
    return Refuse(RefusalOf(made.error()));
  }
  Print("made the store " + config.store.path + " with the automation client " + options.admin +
        ", key id " + std::to_string(kek_id));
  if (!config.keys.kek_file.empty())
    Print("the key is in " + config.keys.kek_file +
          "; keep a copy of it away from this machine and from backups");
  if (options.no_recovery)
    Print(
        "no recovery copy was confirmed (--no-recovery): losing that file means losing every "
        "secret");
  return 0;
}

int RunCheck(const CheckCommandOptions& options) {
  const bool is_backup = !options.store.empty();
  const std::string path = is_backup ? options.store : options.config->store.path;
  Result<keys::NumberedKek> key = KeyForCheck(options);
  if (!key) return Refuse({keys::kKeyExitCode, key.error().message});
  const auto store = store::Store::Open(path, store::OpenMode::kSnapshot, {});
  if (!store) return Refuse(RefusalOf(store.error()));
  const auto keyring = LoadKeyring(**store, std::move(key).value());
  if (!keyring) return Refuse({keys::kKeyExitCode, keyring.error().message});

  service::CheckOptions check;
  check.chain_id = audit::AccessChainId(options.config ? options.config->server_id : "main");
  if (!is_backup) {
    check.spool_directories = options.archives;
    check.spool_directories.push_back(options.config->audit.dir);
    check.anchor_path = options.config->anchor.path;
  }
  const auto counts = service::CheckStore(**store, **keyring, check, PrintDamage);
  if (!counts) return Refuse(RefusalOf(counts.error()));
  PrintCounts(*counts, is_backup);
  if (counts->damaged != 0) return ExitCodeOf(Errc::kCorrupt);
  Print("everything is as this server wrote it");
  return 0;
}

int RunClient(const config::Config& config, const std::string& credentials_directory,
              const ClientOptions& options) {
  AssemblyOptions parts;
  parts.config = &config;
  parts.credentials_directory = credentials_directory;
  parts.fatal = [](const char* what) {
    Log(LogLevel::kError, "fatal", {{"what", what}});
    ::_exit(1);
  };
  Refusal refusal;
  const std::unique_ptr<Assembly> assembly = Assembly::Open(parts, &refusal);
  if (!assembly) return Refuse(refusal);
  service::Intent intent;
  intent.attempted =
      options.create ? audit::EventType::kClientCreate : audit::EventType::kClientSet;
  intent.client_name = options.name;
  const Result<service::ClientBits> bits = assembly->writer().Run<service::ClientBits>(
      service::OperatorActor(::getuid()), intent,
      [&options](service::WriteContext& context) { return ChangeClient(context, options); });
  const Status stopped = assembly->Stop();
  if (!bits) return Refuse(ClientRefusal(options, bits.error()));
  if (!stopped) return Refuse(RefusalOf(stopped.error()));
  Print("client " + options.name + ": " + BitsText(*bits));
  return 0;
}

int RunConfigCheck(const config::Config& config, const std::string& credentials_directory,
                   const std::string& path) {
  if (const Status trust = CheckTrust(config); !trust) return Refuse(RefusalOf(trust.error()));
  // Only the service manager can show a credential, and before init there is no key to look at.
  const bool visible = config.keys.kek_credential.empty() || !credentials_directory.empty();
  if (visible) {
    const auto key = LoadConfiguredKek(config, credentials_directory);
    const bool before_init =
        !key && key.error().code == Errc::kNotFound && !Exists(config.store.path);
    if (!key && !before_init) return Refuse({keys::kKeyExitCode, key.error().message});
  }
  Print(path + " is good");
  return 0;
}

int RunBackup(const config::Config& config, const std::string& target) {
  const auto store = store::Store::Open(config.store.path, store::OpenMode::kSnapshot, {});
  if (!store) return Refuse(RefusalOf(store.error()));
  const Result<Generation> generation = (*store)->Backup(target);
  if (!generation) return Refuse(RefusalOf(generation.error()));
  Print("copied the store as of generation " + std::to_string(generation->value) + " to " + target);
  Print("the key is not in it; check it with: latchkeyd check --store " + target +
        " --kek KEYFILE");
  return 0;
}

int RunRestore(const config::Config& config, const std::string& credentials_directory,
               const std::string& source) {
  Result<keys::NumberedKek> key = MakeKekProvider(config, credentials_directory)->LoadAny();
  if (!key) return Refuse({keys::kKeyExitCode, key.error().message});
  if (!Exists(source)) return Refuse(Unavailable("there is no backup " + source));
  if (const Status made = MakeDirectories(config); !made) return Refuse(RefusalOf(made.error()));
  const auto replacement = store::Replacement::Prepare(config.store.path, source);
  if (!replacement) return Refuse(RefusalOf(replacement.error()));
  bool key_trouble = false;
  const Result<RestoredStore> restored =
      VerifyCopy(config, (*replacement)->copy(), std::move(key).value(), &key_trouble);
  if (!restored) {
    Refusal refusal = RefusalOf(restored.error());
    if (key_trouble) refusal.exit_code = keys::kKeyExitCode;
    return Refuse(refusal);
  }
  if (restored->counts.damaged != 0) {
    return Refuse({ExitCodeOf(Errc::kCorrupt),
                   source + " is damaged in " + std::to_string(restored->counts.damaged) +
                       " places and was not restored; the store is as it was"});
  }
  const Result<bool> kept = (*replacement)->Commit();
  if (!kept) return Refuse(RefusalOf(kept.error()));
  PrintRestored(*restored, source,
                *kept ? store::Replacement::KeptName(config.store.path).string() : "");
  return 0;
}

}  // namespace latchkey
