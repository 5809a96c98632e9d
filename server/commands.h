// The commands of latchkeyd besides `serve`. Each prints its result to stdout, its refusal to stderr (one line), and
// returns the exit code (docs/messages.md).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "server/assembly.h"
#include "server/config/config.h"
#include "server/service/write_clients.h"

namespace latchkey {

// Prints "latchkeyd: error: ..." and returns the exit code.
int Refuse(const Refusal& refusal);

struct InitOptions {
  std::string admin;
  bool no_recovery = false;
};
// Makes key file, store, first automation client and anchor; refuses when one of them exists. Without no_recovery it shows
// the recovery copy on the terminal and asks for 8 characters of it first (rule K5).
int RunInit(const config::Config& config, const std::string& credentials_directory,
            const InitOptions& options);

struct CheckCommandOptions {
  std::optional<config::Config> config;  // absent: store and kek are given
  std::string store;                     // a backup, instead of the configured store
  std::string kek;                       // key file, instead of the configured one
  std::vector<std::string> archives;     // directories with older segments of the spool
  std::string credentials_directory;
};
int RunCheck(const CheckCommandOptions& options);

struct ClientOptions {
  std::string name;
  bool create = false;  // with these bits, instead of changing those of one that is there
  service::ClientBitChanges changes;
};
// `client create` and `client set`. Works on the store itself; refused while a server holds it.
int RunClient(const config::Config& config, const std::string& credentials_directory,
              const ClientOptions& options);

// Whether `serve` would take what the configuration names: certificates, lists, and the key file if there is one already.
int RunConfigCheck(const config::Config& config, const std::string& credentials_directory,
                   const std::string& path);

// Beside a running server too. The key is never in a backup.
int RunBackup(const config::Config& config, const std::string& target);

// Puts the backup `source` in the place of the configured store, of which a copy is kept beside it; refused while a server
// holds the store, and (exit 8) when anything in the backup is damaged. Leaves the anchor alone.
int RunRestore(const config::Config& config, const std::string& credentials_directory,
               const std::string& source);

}  // namespace latchkey
