// `latchkeyd serve`: puts listeners on an Assembly, waits for signals, drains.
#pragma once

#include <functional>
#include <string>

#include "common/base/result.h"
#include "server/config/config.h"

namespace latchkey {

// What only main may touch: the environment and the service manager.
struct ServeOptions {
  config::Config config;
  std::string config_path;  // read again at SIGHUP
  std::string credentials_directory;
  bool accept_rollback = false;
  std::function<void(const char* state)> notify;  // sd_notify; never null
};

// Reads and judges certificate, key, client CAs and revocation lists as `serve` and a reload do: config-check.
Status CheckTrust(const config::Config& config);

// Returns the exit code. Signals SIGTERM, SIGINT and SIGHUP must be blocked in the calling thread before any other thread
// starts: they are taken by this one with sigtimedwait.
int RunServe(const ServeOptions& options);

}  // namespace latchkey
