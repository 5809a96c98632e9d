#include "server/serve.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>

#include "common/base/guarded.h"
#include "common/base/log.h"
#include "common/base/process.h"
#include "common/base/unique_fd.h"
#include "server/api/handler.h"
#include "server/commands.h"
#include "server/metrics.h"
#include "server/net/plain_listener.h"
#include "server/service/maintenance.h"

namespace latchkey {
namespace {

constexpr std::chrono::hours kCrlAlarm{24};
constexpr std::chrono::seconds kTick{5};
constexpr std::chrono::seconds kWatchInterval{60};
// Worth a pause of the allocator; a busy server has less than this lying free.
constexpr std::size_t kFreeMemoryWorthReturning = 4 * 1024 * 1024;
constexpr std::uint64_t kClosedConnectionsWorthALook = 256;  // each left some 25 KiB

// Rule P4: what is on the disk is what counts. No destructor runs: nothing is answered or written after this.
[[noreturn]] void Fatal(const char* what) {
  Log(LogLevel::kError, "fatal: the server stops at once and recovers from disk at its next start",
      {{"what", what}});
  ::_exit(1);
}

tls::TrustOptions TrustOptionsOf(const config::Config& config) {
  tls::TrustOptions options;
  options.certificate_file = config.tls.certificate;
  options.key_file = config.tls.key;
  options.client_ca_file = config.tls.client_ca;
  options.crl_files = config.tls.crl;
  options.legacy_pki = config.tls.legacy_pki;
  options.names.cn_characters = config.CnCharacters();
  options.names.trust_domains = config.identity.trust_domains;
  options.names.keywhiz_compat = config.identity.keywhiz_compat;
  return options;
}

net::ServerOptions ServerOptionsOf(const config::Config& config) {
  net::ServerOptions options;
  options.address = config.listen.address;
  options.port = config.listen.port;
  options.workers =
      config.workers != 0 ? config.workers : std::max(1u, std::thread::hardware_concurrency());
  options.acceptors = config.acceptors;
  options.framer.max_body_bytes = limits::MaxBodyBytes(config.limits.max_content_bytes);
  options.max_connections = config.limits.max_connections;
  options.max_connections_per_identity = config.limits.max_connections_per_identity;
  options.max_handshakes = config.limits.max_handshakes;
  options.max_handshakes_per_address = config.limits.max_handshakes_per_address;
  return options;
}

// Written beside and renamed: whoever waits for the file never reads half a number.
Status WritePortFile(const std::string& path, std::uint16_t port) {
  if (path.empty()) return {};
  const std::string temporary = path + ".new";
  const std::string text = std::to_string(port) + "\n";
  const UniqueFd fd(
      ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644));
  const bool written =
      fd.valid() && ::fchmod(fd.get(), 0644) == 0 &&
      ::write(fd.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()) &&
      ::rename(temporary.c_str(), path.c_str()) == 0;
  if (written) return {};
  return Error{Errc::kUnavailable,
               "cannot write the port file " + path + ": " + std::strerror(errno)};
}

// Rule Y3: swapped memory may reach a disk. Only a warning: the pages of keys themselves are locked.
void WarnAboutSwap() {
  std::ifstream swaps("/proc/swaps");
  std::string line;
  int areas = -1;  // the first line is a heading
  while (std::getline(swaps, line)) ++areas;
  if (areas <= 0) return;
  std::ifstream self("/proc/self/cgroup");
  std::string group;
  while (std::getline(self, line)) {
    if (line.starts_with("0::")) group = line.substr(3);
  }
  std::ifstream limit("/sys/fs/cgroup" + group + "/memory.swap.max");
  if (std::getline(limit, line) && line == "0") return;
  Log(LogLevel::kWarn,
      "swap is on and not forbidden for this service; set MemorySwapMax=0 in its unit");
}

class Service {
 public:
  explicit Service(const ServeOptions& options) : options_(options) {}

  int Run();

 private:
  bool Start(Refusal* refusal);
  Status StartListeners();
  Status StartPlainListener();
  net::PlainAnswer Answer(std::string_view path);
  void WaitForSignals();
  void Watch();
  void ReturnMemoryOfConnections();
  void Reload();
  Status TryReload();
  void WatchExpiry();
  void WatchAuditDisk();
  Status RecordStop();
  int Stop();

  const ServeOptions& options_;
  std::unique_ptr<Assembly> assembly_;
  std::unique_ptr<identity::Authenticator> authenticator_;
  Guarded<std::shared_ptr<const tls::TlsContext>> trust_;
  std::unique_ptr<net::Server> server_;
  std::unique_ptr<net::PlainListener> plain_;
  std::atomic<bool> ready_{false};
  std::atomic<std::uint64_t> reloads_ok_{0};
  std::atomic<std::uint64_t> reloads_failed_{0};
  bool crl_alarm_raised_ = false;
  bool disk_alarm_raised_ = false;
  std::uint64_t most_connections_ = 0;  // since memory was last given back
};

Status Service::StartListeners() {
  const config::Config& config = options_.config;
  ASSIGN_OR_RETURN(const std::shared_ptr<const tls::TlsContext> trust,
                   tls::LoadTrust(TrustOptionsOf(config)));
  trust_.With([&](auto& current) { current = trust; });
  identity::Options identity;
  identity.create_missing_clients = config.identity.create_missing_clients;
  authenticator_ = std::make_unique<identity::Authenticator>(identity, SystemClock());
  const api::Dependencies dependencies{assembly_->services(), authenticator_.get()};
  ASSIGN_OR_RETURN(server_, net::Server::Start(ServerOptionsOf(config),
                                               api::MakeHandlerFactory(dependencies), trust));
  RETURN_IF_ERROR(StartPlainListener());
  RETURN_IF_ERROR(WritePortFile(config.listen.port_file, server_->port()));
  if (plain_) RETURN_IF_ERROR(WritePortFile(config.metrics.port_file, plain_->port()));
  return {};
}

Status Service::StartPlainListener() {
  const config::Config& config = options_.config;
  if (config.metrics.address.empty()) return {};
  net::PlainListenerOptions plain;
  plain.address = config.metrics.address;
  plain.port = config.metrics.port;
  ASSIGN_OR_RETURN(plain_, net::PlainListener::Start(
                               plain, [this](std::string_view path) { return Answer(path); }));
  return {};
}

// /healthz: the process answers. /readyz: it also serves, and could record what it serves.
net::PlainAnswer Service::Answer(std::string_view path) {
  if (path == "/healthz") return {200, "text/plain; charset=utf-8", "ok\n"};
  if (path == "/readyz") {
    const bool audit_works = assembly_->access().Stats().reserve_left_bytes > 0;
    if (ready_.load() && audit_works) return {200, "text/plain; charset=utf-8", "ready\n"};
    return {503, "text/plain; charset=utf-8",
            audit_works ? "not ready\n" : "not ready: audit_unavailable\n"};
  }
  if (path != "/metrics") return {404, "text/plain; charset=utf-8", "not found\n"};
  MetricsSources sources;
  sources.assembly = assembly_.get();
  sources.audit_directory = options_.config.audit.dir;
  sources.server = server_.get();
  sources.trust = [this] { return trust_.With([](const auto& trust) { return trust; }); };
  sources.reloads_ok = &reloads_ok_;
  sources.reloads_failed = &reloads_failed_;
  return {200, "text/plain; version=0.0.4; charset=utf-8", MetricsText(sources)};
}

bool Service::Start(Refusal* refusal) {
  AssemblyOptions parts;
  parts.config = &options_.config;
  parts.credentials_directory = options_.credentials_directory;
  parts.accept_rollback = options_.accept_rollback;
  parts.fatal = [](const char* what) { Fatal(what); };
  assembly_ = Assembly::Open(parts, refusal);
  if (!assembly_) return false;
  Status status = StartListeners();
  if (status) {
    status = service::RecordServerEvent(assembly_->access(), audit::EventType::kServerStart,
                                        audit::Outcome::kAllowed, LATCHKEY_VERSION,
                                        assembly_->store().generation(), SystemClock());
  }
  if (status) return true;
  *refusal = RefusalOf(status.error());
  return false;
}

void Service::Reload() {
  options_.notify("RELOADING=1");
  const Status status = TryReload();
  ++(status ? reloads_ok_ : reloads_failed_);
  if (status) {
    Log(LogLevel::kInfo, "reloaded certificates, client CAs, revocation lists and log level");
  } else {
    Log(LogLevel::kError, "reload refused: everything stays as it was",
        {{"reason", status.error().message}});
  }
  const Status recorded =
      service::RecordServerEvent(assembly_->access(), audit::EventType::kServerReload,
                                 status ? audit::Outcome::kAllowed : audit::Outcome::kFailed, "",
                                 assembly_->store().generation(), SystemClock());
  if (!recorded)
    Log(LogLevel::kError, "reload could not be recorded", {{"reason", recorded.error().message}});
  options_.notify("READY=1");
}

// Everything is read and found good before anything is swapped.
Status Service::TryReload() {
  ASSIGN_OR_RETURN(const config::Config config, config::LoadConfig(options_.config_path));
  LogLevel level;
  INVARIANT(ParseLogLevel(config.log.level, &level));
  ASSIGN_OR_RETURN(const std::shared_ptr<const tls::TlsContext> trust,
                   tls::LoadTrust(TrustOptionsOf(config)));
  SetLogLevel(level);
  trust_.With([&](auto& current) { current = trust; });
  server_->Reload(trust);
  crl_alarm_raised_ = false;
  WatchExpiry();
  return {};
}

// Rule T5: when a list runs out nobody gets in; say so a day before, once.
void Service::WatchExpiry() {
  const std::int64_t next =
      trust_.With([](const auto& trust) { return trust->earliest_crl_next_update(); });
  if (next == 0 || crl_alarm_raised_) return;
  const std::int64_t left = next - EpochSeconds(SystemClock().Now());
  if (left >= std::chrono::seconds(kCrlAlarm).count()) return;
  Log(LogLevel::kWarn,
      "a revocation list runs out; afterwards no client gets in: renew it and send SIGHUP",
      {{"seconds_left", left}});
  crl_alarm_raised_ = true;
}

// Rule A2: when this disk is full reads stop. Said once, while there still is time to move segments away.
void Service::WatchAuditDisk() {
  const auto usage = audit::ReadSpoolUsage(options_.config.audit.dir);
  if (!usage) return;  // what writes there says so itself
  if (audit::IsLow(*usage) && !disk_alarm_raised_) {
    Log(LogLevel::kWarn,
        "the disk of the audit spool fills up; reads stop when it is full: archive old segments",
        {{"free_bytes", usage->free_bytes}, {"spool_bytes", usage->bytes}});
  }
  disk_alarm_raised_ = audit::IsLow(*usage);
}

// After a storm, and not each minute only: who looks at the server then wants to see what it needs.
void Service::ReturnMemoryOfConnections() {
  const std::uint64_t now = server_->stats().connections;
  most_connections_ = std::max(most_connections_, now);
  if (most_connections_ - now < kClosedConnectionsWorthALook) return;
  most_connections_ = now;
  ReturnFreeMemory(kFreeMemoryWorthReturning);
}

void Service::Watch() {
  WatchExpiry();
  WatchAuditDisk();
  trust_.With([](const auto& trust) { return trust; })->ForgetExpired();
  ReturnFreeMemory(kFreeMemoryWorthReturning);
}

void Service::WaitForSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, signal);
  const timespec tick{kTick.count(), 0};
  MonotonicTime next_watch = SystemClock().Monotonic() + kWatchInterval;
  for (;;) {
    const int signal = ::sigtimedwait(&signals, nullptr, &tick);
    if (signal == SIGHUP) Reload();
    if (signal == SIGTERM || signal == SIGINT) return;
    ReturnMemoryOfConnections();
    if (SystemClock().Monotonic() < next_watch) continue;
    next_watch = SystemClock().Monotonic() + kWatchInterval;
    Watch();
  }
}

// Nobody is served any more: what was only counted so far goes in front of the record of the stop.
Status Service::RecordStop() {
  audit::AccessLog& access = assembly_->access();
  if (const Status counts = assembly_->refusals().WriteAll(access); !counts) {
    return Error{counts.error().code,
                 std::to_string(assembly_->refusals().Stats().pending) +
                     " refusals could not be recorded: " + counts.error().message};
  }
  return service::RecordServerEvent(access, audit::EventType::kServerStop, audit::Outcome::kAllowed,
                                    "", assembly_->store().generation(), SystemClock());
}

int Service::Stop() {
  ready_ = false;
  options_.notify("STOPPING=1");
  Log(LogLevel::kInfo, "stopping: answering what is under way");
  assembly_->feed().Stop();
  if (!server_->Drain(limits::kDrainTimeout))
    Log(LogLevel::kWarn, "connections were cut at the end of the drain");
  server_.reset();
  plain_.reset();
  Status status = RecordStop();
  if (Status stopped = assembly_->Stop(); status) status = stopped;
  if (!status) return Refuse(RefusalOf(status.error()));
  Log(LogLevel::kInfo, "stopped");
  return 0;
}

int Service::Run() {
  Refusal refusal;
  if (!Start(&refusal)) {
    // The listeners go first: a handler may not outlive what it serves from.
    server_.reset();
    plain_.reset();
    return Refuse(refusal);
  }
  ReturnFreeMemory();  // loading leaves more holes than data
  WarnAboutSwap();
  WatchExpiry();
  WatchAuditDisk();
  assembly_->StartHeads();
  ready_ = true;
  Log(LogLevel::kInfo, "serving",
      {{"address", options_.config.listen.address},
       {"port", server_->port()},
       {"metrics_port", plain_ ? plain_->port() : 0},
       {"generation", assembly_->store().generation().value},
       {"version", LATCHKEY_VERSION}});
  options_.notify("READY=1");
  WaitForSignals();
  return Stop();
}

}  // namespace

Status CheckTrust(const config::Config& config) {
  const auto trust = tls::LoadTrust(TrustOptionsOf(config));
  return trust ? Status() : Status(trust.error());
}

int RunServe(const ServeOptions& options) {
  return Service(options).Run();
}

}  // namespace latchkey
