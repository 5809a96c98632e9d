// latchkey-fs: mounts the secrets of one client identity. Composition root: flags, keeper, worker,
// helpers.

#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sys/stat.h>
#include <sys/wait.h>
extern "C" {  // glibc 2.36 declares these without C linkage
#include <sys/pidfd.h>
}
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <poll.h>
#include <CLI/CLI.hpp>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <iostream>

#include "common/base/log.h"
#include "common/base/process.h"
#include "common/base/unique_fd.h"
#include "common/usage/usage.h"
#include "fusefs/control/config.h"
#include "fusefs/control/control_socket.h"
#include "fusefs/control/reads_log.h"
#include "fusefs/keeper/keeper.h"
#include "fusefs/snapshot/store.h"
#include "fusefs/wake/wake.h"
#include "fusefs/worker.h"

namespace latchkey {
namespace {

constexpr std::chrono::seconds kDetachWait{120};
constexpr int kUnmountWaitMs = 20'000;

int Complain(const Error& error) {
  std::fprintf(stderr, "latchkey-fs: error: %s\n", error.message.c_str());
  return ExitCodeOf(error.code);
}

struct Flags {
  std::string config_file;
  control::Config config;  // from flags, when there is no file
  std::string target;
  bool detach = false;
  bool follow = false;
  std::string log_file;
};

Result<control::Config> ConfigOf(const Flags& flags) {
  if (!flags.config_file.empty()) return control::LoadConfig(flags.config_file);
  control::Config config = flags.config;
  config.target = flags.target;
  if (const Status complete = control::CheckConfig(config); !complete)
    return Error{complete.error().code,
                 complete.error().message +
                     "; give --config FILE, or --server, --ca, --cert, --key and a target"};
  return config;
}

// The private directory of a mount that is named by its configuration or its target.
Result<std::string> PrivateDirOf(const Flags& flags) {
  if (!flags.config_file.empty()) {
    ASSIGN_OR_RETURN(const control::Config config, control::LoadConfig(flags.config_file));
    return config.private_dir.empty() ? control::DefaultPrivateDir(config.target)
                                      : config.private_dir;
  }
  if (!flags.config.private_dir.empty()) return flags.config.private_dir;
  if (flags.target.empty())
    return Error{Errc::kInvalidArgument, "name the mount: --config FILE, or its target directory"};
  return control::DefaultPrivateDir(flags.target);
}

Result<WorkerSetup> SetupOf(control::Config config) {
  WorkerSetup setup;
  setup.private_dir =
      config.private_dir.empty() ? control::DefaultPrivateDir(config.target) : config.private_dir;
  const passwd* owner = ::getpwnam(config.default_owner.c_str());
  if (owner == nullptr)
    return Error{Errc::kInvalidArgument, "mount.default_owner is no user of this host"};
  setup.defaults.mode = config.default_mode;
  setup.defaults.uid = owner->pw_uid;
  const group* members = ::getgrnam(config.default_group.c_str());
  if (members == nullptr)
    return Error{Errc::kInvalidArgument, "mount.default_group is no group of this host"};
  setup.defaults.gid = members->gr_gid;
  if (!config.worker_user.empty()) {
    const passwd* worker = ::getpwnam(config.worker_user.c_str());
    if (worker == nullptr)
      return Error{Errc::kInvalidArgument, "mount.worker_user is no user of this host"};
    setup.uid = worker->pw_uid;
    setup.gid = worker->pw_gid;
  }
  setup.config = std::move(config);
  return setup;
}

// Goes to the background: the parent waits until the mount is there and tells how it went. Returns
// the descriptor to write one byte to when ready (in the child), or the exit code (in the parent).
struct Detached {
  bool parent;
  int exit_code;
  UniqueFd ready;
};

Detached Detach(const std::string& log_file) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return {true, 1, {}};
  UniqueFd from(ends[0]);
  UniqueFd to(ends[1]);
  const pid_t child = ::fork();
  if (child != 0) {
    to.Reset();
    char byte = 0;
    pollfd ready{from.get(), POLLIN, 0};
    const int got =
        ::poll(&ready, 1, static_cast<int>(std::chrono::milliseconds(kDetachWait).count()));
    if (got > 0 && ::read(from.get(), &byte, 1) == 1) return {true, 0, {}};
    int status = 0;
    if (got > 0 && ::waitpid(child, &status, 0) == child && WIFEXITED(status) &&
        WEXITSTATUS(status) != 0)
      return {true, WEXITSTATUS(status), {}};
    std::fprintf(stderr,
                 "latchkey-fs: error: not mounted within %d s; it goes on trying, see its log\n",
                 static_cast<int>(kDetachWait.count()));
    return {true, ExitCodeOf(Errc::kUnavailable), {}};
  }
  ::setsid();
  const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  ::dup2(null, STDIN_FILENO);
  ::dup2(null, STDOUT_FILENO);
  if (!log_file.empty()) {
    const UniqueFd log(
        ::open(log_file.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    // Errors before the mount still reach the terminal through the exit code and this file.
    if (log.valid()) ::dup2(log.get(), STDERR_FILENO);
  }
  return {false, 0, std::move(to)};
}

int Mount(const Flags& flags) {
  auto config = ConfigOf(flags);
  if (!config) return Complain(config.error());
  SetLogLevel(config->log_level);
  SetLogFormat(config->log_format);
  auto setup = SetupOf(*config);
  if (!setup) return Complain(setup.error());
  UniqueFd ready;
  if (flags.detach) {
    Detached detached = Detach(flags.log_file);
    if (detached.parent) return detached.exit_code;
    ready = std::move(detached.ready);
  }
  keeper::KeeperOptions options;
  options.target = setup->config.target;
  options.private_dir = setup->private_dir;
  options.content_bytes = snapshot::ContentMemoryBytes();
  options.allow_unlocked = setup->config.allow_unlocked;
  options.worker = [&setup](const journal::Handover& handover) {
    return RunWorker(*setup, handover);
  };
  options.waker = [](const journal::Handover& handover) { return wake::RunWaker(handover, {}); };
  options.notifier = [](const journal::Handover& handover) { return wake::RunNotifier(handover); };
  options.on_ready = [&ready, &setup] {
    Log(LogLevel::kInfo, "mounted", {{"target", setup->config.target}});
    ::sd_notify(0, "READY=1");
    if (ready.valid() && ::write(ready.get(), "r", 1) == 1) ready.Reset();
  };
  options.on_tick = [] { ::sd_notify(0, "WATCHDOG=1"); };
  auto keeper = keeper::Keeper::Prepare(std::move(options));
  if (!keeper) return Complain(keeper.error());
  auto pid_file = control::PidFile::Write(setup->private_dir);
  if (!pid_file) return Complain(pid_file.error());
  const Status ran = (*keeper)->Run();
  ::sd_notify(0, "STOPPING=1");
  if (!ran) return Complain(ran.error());
  Log(LogLevel::kInfo, "unmounted", {{"target", setup->config.target}});
  return 0;
}

int Unmount(const Flags& flags) {
  const auto private_dir = PrivateDirOf(flags);
  if (!private_dir) return Complain(private_dir.error());
  const auto pid = control::KeeperPid(*private_dir);
  if (!pid) return Complain(pid.error());
  const UniqueFd process(static_cast<int>(::pidfd_open(*pid, 0)));
  // The lock was held a moment ago by this pid; the descriptor makes sure that no later process is
  // meant.
  if (!process.valid() || !control::KeeperPid(*private_dir) ||
      ::pidfd_send_signal(process.get(), SIGTERM, nullptr, 0) != 0)
    return Complain({Errc::kPermissionDenied,
                     "cannot signal the keeper, pid " + std::to_string(*pid) + "; are you root?"});
  pollfd gone{process.get(), POLLIN, 0};
  if (::poll(&gone, 1, kUnmountWaitMs) <= 0)
    return Complain({Errc::kUnavailable, "the keeper, pid " + std::to_string(*pid) +
                                             ", has not stopped yet; see its log"});
  return 0;
}

int Ask(const Flags& flags, std::string_view command) {
  const auto private_dir = PrivateDirOf(flags);
  if (!private_dir) return Complain(private_dir.error());
  const auto answer = control::AskControl(*private_dir, command);
  if (!answer) return Complain(answer.error());
  std::fwrite(answer->data(), 1, answer->size(), stdout);
  return 0;
}

int Reads(const Flags& flags) {
  const auto private_dir = PrivateDirOf(flags);
  if (!private_dir) return Complain(private_dir.error());
  const Status printed = control::PrintReads(*private_dir, flags.follow, [](std::string_view text) {
    return std::fwrite(text.data(), 1, text.size(), stdout) == text.size() &&
           std::fflush(stdout) == 0;
  });
  return printed ? 0 : Complain(printed.error());
}

int CheckFile(const Flags& flags) {
  const auto config = control::LoadConfig(flags.config_file);
  if (!config) return Complain(config.error());
  std::printf("%s is good\n", flags.config_file.c_str());
  return 0;
}

void AddTarget(CLI::App* command, Flags* flags) {
  command->add_option("-c,--config", flags->config_file, "Configuration file (TOML)");
  command->add_option("--private-dir", flags->config.private_dir,
                      "Private directory of the keeper");
  command->add_option("target", flags->target, "Directory where the secrets are mounted");
}

int Main(int argc, char** argv) {
  Flags flags;
  CLI::App app{"latchkey-fs mounts the secrets of this machine as files that exist only in memory",
               "latchkey-fs"};
  app.set_version_flag("--version", "latchkey-fs " LATCHKEY_VERSION);
  app.require_subcommand(1);
  CLI::App* mount = app.add_subcommand("mount", "Mount and serve until unmounted (needs root)");
  AddTarget(mount, &flags);
  mount->add_option("--server", flags.config.server_address, "host:port of latchkeyd");
  mount->add_option("--ca", flags.config.ca_file, "PEM file of the CAs of the server");
  mount->add_option("--cert", flags.config.certificate_file, "PEM file of the client certificate");
  mount->add_option("--key", flags.config.key_file, "PEM file of its key");
  mount->add_flag("--detach", flags.detach, "Go to the background once mounted");
  mount->add_option("--log-file", flags.log_file, "With --detach: where the log goes");
  mount->footer(control::ConfigHelp());
  CLI::App* status = app.add_subcommand("status", "Print the state of a mount as JSON");
  AddTarget(status, &flags);
  CLI::App* unmount = app.add_subcommand("unmount", "Stop the keeper of a mount and unmount");
  AddTarget(unmount, &flags);
  CLI::App* reads = app.add_subcommand("reads", "Print who opened which secret, as JSON Lines");
  AddTarget(reads, &flags);
  reads->add_flag("-f,--follow", flags.follow, "Go on as files are opened");
  CLI::App* refetch = app.add_subcommand("refetch", "Fetch everything from the server again, now");
  AddTarget(refetch, &flags);
  CLI::App* check = app.add_subcommand("config-check", "Check a configuration file and exit");
  check->add_option("-c,--config", flags.config_file, "Configuration file (TOML)")->required();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& problem) {
    if (problem.get_exit_code() == 0) return app.exit(problem);  // help or version
    std::fputs(UsageText(app, problem).c_str(), stderr);
    return ExitCodeOf(Errc::kInvalidArgument);
  }
  if (mount->parsed()) return Mount(flags);
  if (status->parsed()) return Ask(flags, "status");
  if (unmount->parsed()) return Unmount(flags);
  if (reads->parsed()) return Reads(flags);
  if (refetch->parsed()) return Ask(flags, "refetch");
  return CheckFile(flags);
}

}  // namespace
}  // namespace latchkey

int main(int argc, char** argv) {
  latchkey::HardenOptions harden;
  harden.keep_environment = latchkey::ServiceEnvironment();
  harden.keep_environment.push_back("PATH");
  if (const latchkey::Status hardened = latchkey::HardenProcess(harden); !hardened)
    return latchkey::Complain(hardened.error());
  return latchkey::Main(argc, argv);
}
