#include "fusefs/worker.h"

#include <sys/prctl.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <thread>

#include "client/lib/endpoint.h"
#include "client/lib/http_client.h"
#include "common/base/log.h"
#include "common/model/limits.h"
#include "common/secret/secret_buffer.h"
#include "fusefs/control/control_socket.h"
#include "fusefs/control/reads_log.h"
#include "fusefs/mount/session.h"
#include "fusefs/reads/ring.h"
#include "fusefs/snapshot/snapshot.h"
#include "fusefs/sync/syncer.h"

namespace latchkey {
namespace {

int Fail(const Error& error) {
  Log(LogLevel::kError, "worker cannot run", {{"reason", error.message}});
  return ExitCodeOf(error.code);
}

sync::SyncOptions SyncOptionsOf(const WorkerSetup& setup, const client::Endpoint& server) {
  sync::SyncOptions options;
  options.defaults = setup.defaults;
  options.poll_interval = setup.config.poll_interval;
  options.server_text = server.Url();
  options.certificate_file = setup.config.certificate_file;
  options.key_file = setup.config.key_file;
  options.ca_file = setup.config.ca_file;
  return options;
}

Result<client::HttpOptions> HttpOptionsOf(const control::Config& config) {
  client::HttpOptions options;
  ASSIGN_OR_RETURN(options.server, client::ParseEndpoint(config.server_address));
  options.tls = {config.ca_file, config.certificate_file, config.key_file};
  options.user_agent = "latchkey-fs/" LATCHKEY_VERSION;
  options.max_attempts = 1;  // the syncer backs off by itself
  return options;
}

mount::SessionOptions SessionOptionsOf(const WorkerSetup& setup) {
  mount::SessionOptions options;
  if (setup.uid) options.uid = *setup.uid;
  if (setup.gid) options.gid = *setup.gid;
  options.revoke_grace = setup.config.revoke_grace;
  options.max_stale = setup.config.max_stale;
  options.audit_required = setup.config.audit_required;
  return options;
}

// The files of 1.1 that never change while a keeper runs.
Status PutFixedFiles(snapshot::SnapshotBuilder& builder) {
  RETURN_IF_ERROR(builder.PutControl(snapshot::ControlFile::kVersion, "2.0"));
  // The keeper is what "is this mount live" means to a script; workers come and go.
  RETURN_IF_ERROR(
      builder.PutControl(snapshot::ControlFile::kRunning, "pid=" + std::to_string(::getppid())));
  return builder.PutControl(snapshot::ControlFile::kClearCache, "");
}

// Everything that runs once the session is open. Declared in the order in which it may be taken
// down in reverse.
int Serve(const WorkerSetup& setup, mount::Session& session, control::ControlServer& control,
          control::ReadsLog& reads_log) {
  auto http = HttpOptionsOf(setup.config);
  if (!http) return Fail(http.error());
  auto source = sync::ServerSource::Open(*http);
  if (!source) return Fail(source.error());
  snapshot::SnapshotBuilder builder(session.store());
  if (const Status fixed = PutFixedFiles(builder); !fixed) return Fail(fixed.error());
  const auto facts = [&session] {
    return sync::MountFacts{session.region().layout().worker_starts.load(),
                            reads::DroppedRecords(session.region())};
  };
  sync::Syncer syncer(**source, builder, SystemClock(), SyncOptionsOf(setup, http->server), facts);
  if (const Status started = session.Start(); !started) return Fail(started.error());
  const reads::ReadConsumer consumer(
      session.region(),
      [&session](std::uint32_t node) { return std::string(session.store().SecretName(node)); },
      [&reads_log](const std::string& line) { return reads_log.Append(line); });
  control.Start([&syncer](std::string_view command) -> std::string {
    if (command == "status") return syncer.StatusJson();
    if (command == "refetch") {
      syncer.RequestRefetch();
      return "ok\n";
    }
    return "error: unknown command\n";
  });
  std::jthread follower([&syncer](const std::stop_token& stop) { syncer.Run(stop); });
  session.Wait();
  return 0;
}

}  // namespace

int RunWorker(const WorkerSetup& setup, const journal::Handover& handover) {
  ::signal(SIGPIPE, SIG_IGN);
  const ArenaOptions arena{limits::kMountArenaBytes, setup.config.allow_unlocked, true,
                           /*prefault=*/false};
  if (const Status made = InitSecretArena(arena); !made) return Fail(made.error());
  if (const Status library = client::InitHttpLibrary(); !library) return Fail(library.error());
  // Both need root's directory, so they come before the session drops privileges.
  auto control = control::ControlServer::Bind(setup.private_dir);
  if (!control) return Fail(control.error());
  auto reads_log = control::ReadsLog::Open(setup.private_dir);
  if (!reads_log) return Fail(reads_log.error());
  auto session = mount::Session::Open(handover, SessionOptionsOf(setup));
  if (!session) return Fail(session.error());
  return Serve(setup, **session, **control, *reads_log);
}

}  // namespace latchkey
