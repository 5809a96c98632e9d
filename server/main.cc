// latchkeyd: the server and its offline commands. The composition root: reads flags, configuration and environment.
#include <signal.h>
#include <systemd/sd-daemon.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>

#include "common/base/log.h"
#include "common/base/process.h"
#include "common/secret/secret_buffer.h"
#include "common/secret/wiping_new.h"
#include "common/tls/wiping_memory.h"
#include "common/usage/usage.h"
#include "server/commands.h"
#include "server/serve.h"

namespace latchkey {
namespace {

constexpr const char* kDefaultConfig = "/etc/latchkey/latchkeyd.toml";

struct Arguments {
  std::string config = kDefaultConfig;
  InitOptions init;
  bool accept_rollback = false;
  CheckCommandOptions check;
  ClientOptions client;
  std::string backup_target;
  std::string restore_source;
};

// Yes/no pairs of `client set`: each may be said once.
void AddBit(CLI::App* command, const char* yes, const char* no, const char* help,
            std::optional<bool>* bit) {
  auto* on = command->add_flag_callback(
      yes, [bit] { *bit = true; }, help);
  auto* off = command->add_flag_callback(no, [bit] { *bit = false; });
  on->excludes(off);
}

void Describe(CLI::App* app, Arguments* arguments) {
  app->set_version_flag("--version", std::string("latchkeyd ") + LATCHKEY_VERSION);
  app->require_subcommand(1);
  app->fallthrough();
  app->add_option("--config", arguments->config, "configuration file")->capture_default_str();

  CLI::App* init =
      app->add_subcommand("init", "make a new store, its key and the first automation client");
  init->add_option("--admin", arguments->init.admin, "name (CN) of the first automation client")
      ->required();
  init->add_flag("--no-recovery", arguments->init.no_recovery,
                 "do not show a recovery copy of the key (this is recorded)");

  CLI::App* serve = app->add_subcommand(
      "serve", "serve until SIGTERM; SIGHUP reads certificates and log level again");
  serve->add_flag("--accept-rollback", arguments->accept_rollback,
                  "start although the store is older than its anchor (this is recorded)");

  CLI::App* check = app->add_subcommand(
      "check", "verify every row, every sealed version, both audit chains and the anchor");
  check->add_option("--store", arguments->check.store,
                    "check this backup instead of the configured store");
  check->add_option("--kek", arguments->check.kek, "key file to open it with");
  check->add_option("--archive", arguments->check.archives,
                    "directory with older segments of the audit spool");

  CLI::App* client = app->add_subcommand("client", "make or change clients while no server runs")
                         ->require_subcommand(1);
  CLI::App* set = client->add_subcommand("set", "set the bits of one client");
  set->fallthrough();
  set->add_option("NAME", arguments->client.name, "name of the client")->required();
  AddBit(set, "--automation", "--no-automation", "may use /automation/*",
         &arguments->client.changes.automation);
  AddBit(set, "--content", "--no-content", "may read contents through /automation/*",
         &arguments->client.changes.content);
  AddBit(set, "--enable", "--disable", "may authenticate at all",
         &arguments->client.changes.enabled);

  CLI::App* create = client->add_subcommand(
      "create", "make a client: the way in when none with the automation bit is left");
  create->fallthrough();
  create->add_option("NAME", arguments->client.name, "name (CN) of the new client")->required();
  create->add_flag_callback(
      "--automation", [arguments] { arguments->client.changes.automation = true; },
      "may use /automation/*");
  create->add_flag_callback(
      "--content", [arguments] { arguments->client.changes.content = true; },
      "may read contents through /automation/*");
  create->final_callback([arguments] { arguments->client.create = true; });

  CLI::App* backup = app->add_subcommand(
      "backup", "copy the store, also beside a running server; the key is not in it");
  backup->add_option("FILE", arguments->backup_target, "file to make; must not exist")->required();

  CLI::App* restore = app->add_subcommand(
      "restore", "verify a backup and put it in the place of the store, which is kept beside it");
  restore->add_option("FILE", arguments->restore_source, "what `backup` made")->required();

  app->add_subcommand(
      "config-check",
      "read the configuration, the key file and the files that tls.* names, say whether they are "
      "good");

  // Last: a subcommand takes over the footer that its parent has when it is added.
  app->footer("Keys of the configuration file:\n" + config::KeyHelp() +
              "\nExit codes: 0 done, 1 failed, 2 usage or configuration, 8 damage found, 78 key "
              "trouble (see docs/messages.md).");
}

// Y4 and Y1: before anything is read that could be a secret.
Status Prepare() {
  HardenOptions harden;
  harden.keep_environment = ServiceEnvironment();
  RETURN_IF_ERROR(HardenProcess(harden));
  GiveLargeBlocksTheirOwnPages(limits::kOwnPagesFromBytes, limits::kMaxBlocksWithOwnPages);
  return tls::UseWipingMemory();
}

Status MakeArena(bool allow_unlocked) {
  ArenaOptions arena;
  arena.size_bytes = limits::kArenaBytes;
  arena.allow_unlocked = allow_unlocked;
  arena.prefault = false;
  return InitSecretArena(arena);
}

// A file size limit must come back as an error of the write, as a full disk does, not as the end of the process.
void PrepareSignals() {
  ::signal(SIGXFSZ, SIG_IGN);
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, signal);
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
}

// RELOADING needs the monotonic clock beside it, else systemd cannot tell two reloads apart.
void NotifyServiceManager(const char* state) {
  std::string text = state;
  if (text == "RELOADING=1") {
    const auto now = std::chrono::duration_cast<std::chrono::microseconds>(
        SystemClock().Monotonic().time_since_epoch());
    text += "\nMONOTONIC_USEC=" + std::to_string(now.count());
  }
  ::sd_notify(0, text.c_str());
}

std::string CredentialsDirectory() {
  const char* directory = std::getenv("CREDENTIALS_DIRECTORY");
  return directory == nullptr ? std::string() : std::string(directory);
}

int RunWithConfig(const CLI::App& app, Arguments& arguments, const config::Config& config) {
  LogLevel level;
  INVARIANT(ParseLogLevel(config.log.level, &level));
  SetLogLevel(level);
  SetLogFormat(config.log.format == "json" ? LogFormat::kJson : LogFormat::kText);
  if (const Status arena = MakeArena(config.memory.allow_unlocked); !arena)
    return Refuse(RefusalOf(arena.error()));
  const std::string credentials = CredentialsDirectory();
  if (app.got_subcommand("config-check"))
    return RunConfigCheck(config, credentials, arguments.config);
  if (app.got_subcommand("init")) return RunInit(config, credentials, arguments.init);
  if (app.got_subcommand("client")) return RunClient(config, credentials, arguments.client);
  if (app.got_subcommand("backup")) return RunBackup(config, arguments.backup_target);
  if (app.got_subcommand("restore"))
    return RunRestore(config, credentials, arguments.restore_source);
  if (app.got_subcommand("check")) {
    arguments.check.config = config;
    arguments.check.credentials_directory = credentials;
    return RunCheck(arguments.check);
  }
  ServeOptions serve;
  serve.config = config;
  serve.config_path = arguments.config;
  serve.credentials_directory = credentials;
  serve.accept_rollback = arguments.accept_rollback;
  serve.notify = NotifyServiceManager;
  return RunServe(serve);
}

int Run(int argc, char** argv) {
  if (const Status prepared = Prepare(); !prepared) return Refuse(RefusalOf(prepared.error()));
  PrepareSignals();
  CLI::App app("latchkeyd, the Latchkey secrets server", "latchkeyd");
  Arguments arguments;
  Describe(&app, &arguments);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // help or version
    std::fputs(UsageText(app, error).c_str(), stderr);
    return kUsageExitCode;
  }
  const ClientOptions& client = arguments.client;
  if (app.got_subcommand("client") && !client.create && !client.changes.automation &&
      !client.changes.content && !client.changes.enabled) {
    return Refuse(
        {kUsageExitCode, "client set: say what to set, such as --automation or --disable"});
  }
  // A backup and its key say everything that checking them needs.
  if (app.got_subcommand("check") && !arguments.check.store.empty() &&
      !arguments.check.kek.empty()) {
    if (const Status arena = MakeArena(false); !arena) return Refuse(RefusalOf(arena.error()));
    return RunCheck(arguments.check);
  }
  const Result<config::Config> config = config::LoadConfig(arguments.config);
  if (!config) return Refuse({kUsageExitCode, config.error().message});
  return RunWithConfig(app, arguments, *config);
}

}  // namespace
}  // namespace latchkey

int main(int argc, char** argv) {
  return latchkey::Run(argc, argv);
}
