// Configuration of latchkey-fs: one TOML file, or flags for one identity. Every key is in
// ConfigHelp() and in packaging/config/latchkey-fs.toml; unknown keys refuse to start.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "common/base/log.h"
#include "common/base/result.h"

namespace latchkey::control {

struct Config {
  // [server]
  std::string server_address;  // host:port
  std::string ca_file;
  // [identity]
  std::string certificate_file;
  std::string key_file;
  // [mount]
  std::string target;
  std::string private_dir;  // empty: DefaultPrivateDir(target)
  std::string worker_user;  // empty: root without capabilities
  std::uint32_t default_mode = 0440;
  std::string default_owner = "root";
  std::string default_group = "root";
  std::chrono::seconds revoke_grace{60};
  std::chrono::seconds max_stale{0};  // 0: a stale secret is served for ever
  bool audit_required = false;
  bool allow_unlocked = false;
  // [sync]
  std::chrono::seconds poll_interval{10};
  // [log]
  LogLevel log_level = LogLevel::kInfo;
  LogFormat log_format = LogFormat::kText;
};

// Errors: kInvalidArgument with file, line and what to do; values are never quoted.
Result<Config> LoadConfig(const std::string& path);
// What LoadConfig also checks, for a Config made from flags: everything that is required is there.
Status CheckConfig(const Config& config);
// `/run/latchkey-fs/` and the target with its slashes turned into dashes: two mounts never share
// one.
std::string DefaultPrivateDir(const std::string& target);
// One line per key: name, meaning, default.
std::string ConfigHelp();

}  // namespace latchkey::control
