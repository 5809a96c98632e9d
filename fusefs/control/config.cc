#include "fusefs/control/config.h"

#include <toml++/toml.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <functional>

namespace latchkey::control {
namespace {

Error Bad(const std::string& where, const std::string& what) {
  return {Errc::kInvalidArgument, where + ": " + what};
}

using Setter = std::function<Status(Config&, const toml::node&, const std::string& where)>;

Setter Text(std::string Config::*member) {
  return [member](Config& config, const toml::node& node, const std::string& where) -> Status {
    const auto value = node.value_exact<std::string>();
    if (!value) return Bad(where, "must be a string");
    config.*member = *value;
    return {};
  };
}

Setter Flag(bool Config::*member) {
  return [member](Config& config, const toml::node& node, const std::string& where) -> Status {
    const auto value = node.value_exact<bool>();
    if (!value) return Bad(where, "must be true or false");
    config.*member = *value;
    return {};
  };
}

Setter Seconds(std::chrono::seconds Config::*member, std::int64_t least, std::int64_t most) {
  return [=](Config& config, const toml::node& node, const std::string& where) -> Status {
    const auto value = node.value_exact<std::int64_t>();
    if (!value || *value < least || *value > most)
      return Bad(where, "must be a number of seconds from " + std::to_string(least) + " to " +
                            std::to_string(most));
    config.*member = std::chrono::seconds(*value);
    return {};
  };
}

Status SetMode(Config& config, const toml::node& node, const std::string& where) {
  const auto text = node.value_exact<std::string>();
  if (!text || text->empty() || text->size() > 4 ||
      text->find_first_not_of("01234567") != std::string::npos)
    return Bad(where, "must be a string of octal digits such as \"0440\"");
  const auto mode = static_cast<std::uint32_t>(std::stoul(*text, nullptr, 8));
  if ((mode & ~0444U) != 0) return Bad(where, "may hold read bits only (0444)");
  config.default_mode = mode;
  return {};
}

Status SetLogLevel(Config& config, const toml::node& node, const std::string& where) {
  const auto text = node.value_exact<std::string>();
  if (!text || !ParseLogLevel(*text, &config.log_level))
    return Bad(where, "must be error, warn, info or debug");
  return {};
}

Status SetLogFormat(Config& config, const toml::node& node, const std::string& where) {
  const auto text = node.value_exact<std::string>();
  if (!text || (*text != "text" && *text != "json")) return Bad(where, "must be text or json");
  config.log_format = *text == "json" ? LogFormat::kJson : LogFormat::kText;
  return {};
}

struct Key {
  const char* section;
  const char* name;
  const char* help;
  Setter set;
};

const std::vector<Key>& Keys() {
  static const std::vector<Key> keys = {
      {"server", "address", "host:port of latchkeyd; required", Text(&Config::server_address)},
      {"server", "ca", "PEM file of the CAs that the server's certificate may come from; required",
       Text(&Config::ca_file)},
      {"identity", "certificate", "PEM file of this machine's client certificate; required",
       Text(&Config::certificate_file)},
      {"identity", "key", "PEM file of its private key; required", Text(&Config::key_file)},
      {"mount", "target", "empty directory, owned by root, where the secrets appear; required",
       Text(&Config::target)},
      {"mount", "private_dir",
       "0700 directory of the keeper; default /run/latchkey-fs/TARGET with dashes",
       Text(&Config::private_dir)},
      {"mount", "worker_user",
       "user that the worker becomes; must be able to read the key; default root without "
       "capabilities",
       Text(&Config::worker_user)},
      {"mount", "default_mode",
       "mode of secrets without metadata mode; read bits only; default \"0440\"", SetMode},
      {"mount", "default_owner", "user that owns secrets without metadata owner; default root",
       Text(&Config::default_owner)},
      {"mount", "default_group", "group of secrets without metadata group; default root",
       Text(&Config::default_group)},
      {"mount", "revoke_grace_seconds",
       "how long a descriptor opened before a revocation may still be read; default 60",
       Seconds(&Config::revoke_grace, 0, 86'400)},
      {"mount", "max_stale_seconds",
       "refuse to serve secrets older than this; 0 serves them for ever; default 0",
       Seconds(&Config::max_stale, 0, 31'536'000)},
      {"mount", "audit_required", "refuse OPEN when its record cannot be kept; default false",
       Flag(&Config::audit_required)},
      {"mount", "allow_unlocked", "go on when memory cannot be locked; default false",
       Flag(&Config::allow_unlocked)},
      {"sync", "poll_interval_seconds",
       "poll interval with a server that has no change feed; default 10",
       Seconds(&Config::poll_interval, 1, 86'400)},
      {"log", "level", "error, warn, info or debug; default info", SetLogLevel},
      {"log", "format", "text or json; default text", SetLogFormat},
  };
  return keys;
}

const Key* FindKey(std::string_view section, std::string_view name) {
  for (const Key& key : Keys())
    if (section == key.section && name == key.name) return &key;
  return nullptr;
}

std::string Where(const std::string& path, const toml::node& node, const std::string& key) {
  return path + ":" + std::to_string(node.source().begin.line) + ": " + key;
}

Status ReadSection(const std::string& path, const std::string& section, const toml::table& table,
                   Config* config) {
  for (const auto& [name, node] : table) {
    const std::string full = section + "." + std::string(name.str());
    const Key* key = FindKey(section, name.str());
    if (key == nullptr)
      return Bad(Where(path, node, full),
                 "unknown key; remove it, `latchkey-fs mount --help` lists the known ones");
    RETURN_IF_ERROR(key->set(*config, node, Where(path, node, full)));
  }
  return {};
}

}  // namespace

Result<Config> LoadConfig(const std::string& path) {
  if (::access(path.c_str(), R_OK) != 0) {
    return Bad(path, std::string("cannot be read: ") + std::strerror(errno) +
                         "; name the configuration with --config");
  }
  toml::table root;
  try {
    root = toml::parse_file(path);
  } catch (const toml::parse_error& problem) {
    return Bad(path + ":" + std::to_string(problem.source().begin.line),
               std::string(problem.description()));
  }
  Config config;
  for (const auto& [name, node] : root) {
    const toml::table* table = node.as_table();
    if (table == nullptr)
      return Bad(Where(path, node, std::string(name.str())),
                 "unknown key outside a section; put it under [server], "
                 "[identity], [mount], [sync] or [log]");
    RETURN_IF_ERROR(ReadSection(path, std::string(name.str()), *table, &config));
  }
  if (const Status complete = CheckConfig(config); !complete)
    return Bad(path, complete.error().message);
  return config;
}

Status CheckConfig(const Config& config) {
  const std::array<std::pair<const char*, const std::string*>, 5> required = {
      {{"server.address", &config.server_address},
       {"server.ca", &config.ca_file},
       {"identity.certificate", &config.certificate_file},
       {"identity.key", &config.key_file},
       {"mount.target", &config.target}}};
  for (const auto& [name, value] : required)
    if (value->empty())
      return Error{Errc::kInvalidArgument, std::string(name) + " is required and not set"};
  for (const std::string* path : {&config.target, &config.private_dir}) {
    if (!path->empty() && path->front() != '/')
      return Error{Errc::kInvalidArgument,
                   "mount.target and mount.private_dir must be absolute paths"};
  }
  return {};
}

std::string DefaultPrivateDir(const std::string& target) {
  std::string name;
  for (const char c : target) {
    if (c == '-' || c == '\\') {  // keeps /a-b and /a/b apart
      name += c == '-' ? "\\x2d" : "\\x5c";
    } else if (c != '/') {
      name += c;
    } else if (!name.empty() && name.back() != '-') {
      name += '-';
    }
  }
  while (!name.empty() && name.back() == '-') name.pop_back();
  return "/run/latchkey-fs/" + (name.empty() ? std::string("root") : name);
}

std::string ConfigHelp() {
  std::string out = "Keys of the configuration file (TOML):\n";
  for (const Key& key : Keys())
    out += "  " + std::string(key.section) + "." + key.name + ": " + key.help + "\n";
  return out;
}

}  // namespace latchkey::control
