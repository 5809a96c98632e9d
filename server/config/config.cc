#include "server/config/config.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <optional>
#include <set>
#include <sstream>

#include <toml++/toml.h>

#include "common/base/log.h"
#include "common/base/suggest.h"
#include "common/base/unique_fd.h"
#include "common/base/utf8.h"

namespace latchkey::config {
namespace {

constexpr std::size_t kMaxConfigBytes = 1024 * 1024;

// What is wrong with one value; empty: nothing. Position and key are added by the caller.
using Problem = std::string;
using Assign = std::function<Problem(const toml::node&, Config*)>;

struct Key {
  KeyDoc doc;
  Assign assign;
};

// --- kinds of values
// ------------------------------------------------------------------------------------------------

template <class Get>
Assign Text(Get get, std::function<Problem(const std::string&)> check) {
  return [get, check](const toml::node& node, Config* config) -> Problem {
    const auto text = node.value_exact<std::string>();
    if (!text) return "must be a text in quotes";
    if (Problem problem = check(*text); !problem.empty()) return problem;
    get(config) = *text;
    return {};
  };
}

template <class Get>
Assign Flag(Get get) {
  return [get](const toml::node& node, Config* config) -> Problem {
    const auto flag = node.value_exact<bool>();
    if (!flag) return "must be true or false";
    get(config) = *flag;
    return {};
  };
}

template <class Get>
Assign Number(Get get, std::int64_t least, std::int64_t most) {
  return [get, least, most](const toml::node& node, Config* config) -> Problem {
    const auto number = node.value_exact<std::int64_t>();
    if (!number || *number < least || *number > most) {
      return "must be a number from " + std::to_string(least) + " to " + std::to_string(most);
    }
    auto& target = get(config);
    target = static_cast<std::remove_reference_t<decltype(target)>>(*number);
    return {};
  };
}

// One text or a list of texts.
template <class Get>
Assign Texts(Get get, std::function<Problem(const std::string&)> check) {
  return [get, check](const toml::node& node, Config* config) -> Problem {
    std::vector<std::string> texts;
    if (const toml::array* list = node.as_array()) {
      for (const toml::node& element : *list) {
        const auto text = element.value_exact<std::string>();
        if (!text) return "must be a list of texts in quotes";
        texts.push_back(*text);
      }
    } else if (const auto text = node.value_exact<std::string>()) {
      if (!text->empty()) texts.push_back(*text);
    } else {
      return "must be a text or a list of texts in quotes";
    }
    for (const std::string& text : texts) {
      if (Problem problem = check(text); !problem.empty()) return problem;
    }
    get(config) = std::move(texts);
    return {};
  };
}

// --- checks of texts
// ------------------------------------------------------------------------------------------------

bool HasControl(const std::string& text) {
  return std::any_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

Problem AbsolutePath(const std::string& text) {
  if (text.empty() || text.front() != '/' || text.back() == '/' || HasControl(text)) {
    return "must be an absolute path of a file or directory, such as \"/etc/latchkey/name\"";
  }
  return {};
}
Problem AbsolutePathOrEmpty(const std::string& text) {
  return text.empty() ? Problem() : AbsolutePath(text);
}

Problem ServerId(const std::string& text) {
  const bool good =
      !text.empty() && text.size() <= 32 && std::all_of(text.begin(), text.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
      });
  return good ? Problem() : "must be 1 to 32 of a-z, 0-9, '-', '_' and '.'";
}

Problem CredentialName(const std::string& text) {
  const bool good = text.size() <= 255 && text != "." && text != ".." &&
                    text.find('/') == std::string::npos && !HasControl(text);
  return good ? Problem() : "must be the name of a systemd credential, without '/'";
}

bool IsAddress(const std::string& text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F') || c == '.' ||
           c == ':';
  });
}
Problem Address(const std::string& text) {
  return IsAddress(text) ? Problem()
                         : "must be an IPv4 or IPv6 address, such as \"127.0.0.1\", without port";
}
Problem AddressOrEmpty(const std::string& text) {
  return text.empty() ? Problem() : Address(text);
}

Problem CnPattern(const std::string& text) {
  constexpr const char* kForm =
      "must be one set of characters in brackets, such as \"[A-Za-z0-9_.-]\"";
  if (text.size() < 3 || text.front() != '[' || text.back() != ']') return kForm;
  const std::string inner = text.substr(1, text.size() - 2);
  if (inner.front() == '^')
    return "must name the characters that are allowed, not those that are not";
  for (std::size_t i = 0; i < inner.size(); ++i) {
    const char c = inner[i];
    if (c <= 0x20 || c >= 0x7f || c == '[' || c == ']' || c == '\\') return kForm;
    const bool is_range = c == '-' && i > 0 && i + 1 < inner.size();
    if (is_range && inner[i - 1] > inner[i + 1])
      return "has a range whose end comes before its beginning";
  }
  return {};
}

Problem TrustDomain(const std::string& text) {
  const bool good =
      !text.empty() && text.size() <= 255 && std::all_of(text.begin(), text.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
      });
  return good ? Problem() : "must be a SPIFFE trust domain in lower case, such as \"example.org\"";
}

std::function<Problem(const std::string&)> OneOf(std::vector<std::string> choices) {
  return [choices = std::move(choices)](const std::string& text) -> Problem {
    if (std::find(choices.begin(), choices.end(), text) != choices.end()) return {};
    std::string list;
    for (const std::string& choice : choices) list += (list.empty() ? "" : ", ") + choice;
    return "must be one of " + list;
  };
}

Problem ReservedPrefixes(const toml::node& node, Config* config) {
  const toml::table* table = node.as_table();
  if (table == nullptr) return "must be a table of owner = \"prefix\"";
  for (const auto& [owner, value] : *table) {
    const auto prefix = value.value_exact<std::string>();
    if (!prefix || prefix->empty() || !IsValidUtf8(*prefix))
      return "must give each owner a prefix in quotes";
    config->reserved_prefixes.push_back(ReservedPrefix{std::string(owner.str()), *prefix});
  }
  return {};
}

// --- the keys
// -------------------------------------------------------------------------------------------------------

#define LATCHKEY_FIELD(path)     \
  [](Config * config) -> auto& { \
    return config->path;         \
  }

std::vector<Key> KeysOfProcess() {
  return {
      {{"server_id", "text", "\"main\"",
        "names this server's audit chain, access:<server_id>; never change it"},
       Text(LATCHKEY_FIELD(server_id), ServerId)},
      {{"workers", "number 0-64", "0", "network threads; 0: one per processor"},
       Number(LATCHKEY_FIELD(workers), 0, 64)},
      {{"acceptors", "number 1-16", "1", "threads that accept connections and do handshakes"},
       Number(LATCHKEY_FIELD(acceptors), 1, 16)},
      {{"store.path", "path", "\"/var/lib/latchkey/latchkey.db\"",
        "the database; its directory belongs to the server alone, mode 0700"},
       Text(LATCHKEY_FIELD(store.path), AbsolutePath)},
      {{"keys.kek_file", "path", "",
        "the key-encryption key: mode 0600 or 0400, owned by root or the server, no link; keep a "
        "copy elsewhere"},
       Text(LATCHKEY_FIELD(keys.kek_file), AbsolutePathOrEmpty)},
      {{"keys.kek_credential", "text", "", "instead of kek_file: the name of a systemd credential"},
       Text(LATCHKEY_FIELD(keys.kek_credential), CredentialName)},
      {{"audit.dir", "path", "\"/var/lib/latchkey/audit\"",
        "spool of the access chain; 128 MiB are kept allocated ahead; nothing in it is ever "
        "deleted"},
       Text(LATCHKEY_FIELD(audit.dir), AbsolutePath)},
      {{"anchor.path", "path", "\"/var/lib/latchkey/anchor\"",
        "what the store had reached, outside the database: an older store is noticed at start; "
        "another disk is better"},
       Text(LATCHKEY_FIELD(anchor.path), AbsolutePath)},
      {{"log.level", "text", "\"info\"", "error, warn, info or debug; read again at SIGHUP"},
       Text(LATCHKEY_FIELD(log.level), OneOf({"error", "warn", "info", "debug"}))},
      {{"log.format", "text", "\"text\"", "text or json, one line per event on stderr"},
       Text(LATCHKEY_FIELD(log.format), OneOf({"text", "json"}))},
      {{"memory.allow_unlocked", "flag", "false",
        "true starts even when memory for keys cannot be locked: development only"},
       Flag(LATCHKEY_FIELD(memory.allow_unlocked))},
  };
}

std::vector<Key> KeysOfListeners() {
  return {
      {{"listen.address", "address", "\"127.0.0.1\"",
        "where clients and the CLI connect, with mTLS"},
       Text(LATCHKEY_FIELD(listen.address), Address)},
      {{"listen.port", "number 0-65535", "4444", "0 takes a free one; see port_file"},
       Number(LATCHKEY_FIELD(listen.port), 0, 65535)},
      {{"listen.port_file", "path", "", "the port is written here once the server is ready"},
       Text(LATCHKEY_FIELD(listen.port_file), AbsolutePathOrEmpty)},
      {{"tls.certificate", "path", "",
        "PEM: the server's certificate, then its intermediates; read again at SIGHUP, as are key, "
        "client_ca and crl"},
       Text(LATCHKEY_FIELD(tls.certificate), AbsolutePath)},
      {{"tls.key", "path", "", "PEM, unencrypted, mode 0600 or 0400"},
       Text(LATCHKEY_FIELD(tls.key), AbsolutePath)},
      {{"tls.client_ca", "path", "",
        "PEM: who may issue client certificates; never the system's own list"},
       Text(LATCHKEY_FIELD(tls.client_ca), AbsolutePath)},
      {{"tls.crl", "path or list of paths", "[]",
        "PEM revocation lists; once set, every issuer needs one that is in date, or nobody gets "
        "in"},
       Texts(LATCHKEY_FIELD(tls.crl), AbsolutePath)},
      {{"tls.legacy_pki", "flag", "false",
        "true admits client certificates without extended key usage and chains that are not "
        "strict: old PKIs only"},
       Flag(LATCHKEY_FIELD(tls.legacy_pki))},
      {{"metrics.address", "address", "\"127.0.0.1\"",
        "plain HTTP with /metrics, /healthz and /readyz: keep it on loopback; \"\" switches it "
        "off"},
       Text(LATCHKEY_FIELD(metrics.address), AddressOrEmpty)},
      {{"metrics.port", "number 0-65535", "9444", "0 takes a free one; see port_file"},
       Number(LATCHKEY_FIELD(metrics.port), 0, 65535)},
      {{"metrics.port_file", "path", "", "the port is written here once the server is ready"},
       Text(LATCHKEY_FIELD(metrics.port_file), AbsolutePathOrEmpty)},
  };
}

std::vector<Key> KeysOfRules() {
  const auto most = [](std::size_t limit) { return static_cast<std::int64_t>(limit); };
  return {
      {{"identity.cn_pattern", "text", "\"[A-Za-z0-9_.:=-]\"",
        "characters that a common name may consist of, besides inner blanks"},
       Text(LATCHKEY_FIELD(identity.cn_pattern), CnPattern)},
      {{"identity.trust_domains", "list of texts", "[]",
        "SPIFFE trust domains that are accepted; none: SPIFFE ids are refused"},
       Texts(LATCHKEY_FIELD(identity.trust_domains), TrustDomain)},
      {{"identity.keywhiz_compat", "flag", "false",
        "true falls back to the common name when a certificate has several URI names, as Keywhiz "
        "did"},
       Flag(LATCHKEY_FIELD(identity.keywhiz_compat))},
      {{"identity.create_missing_clients", "flag", "false",
        "true makes a client row, without any right, for an unknown certificate"},
       Flag(LATCHKEY_FIELD(identity.create_missing_clients))},
      {{"delivery.hide_names", "flag", "false",
        "true answers 404 instead of 403 for a secret that is not granted"},
       Flag(LATCHKEY_FIELD(delivery.hide_names))},
      {{"limits.max_content_bytes", "number 1-8388608", "1048576", "of one secret's content"},
       Number(LATCHKEY_FIELD(limits.max_content_bytes), 1, most(limits::kHardMaxContentBytes))},
      {{"limits.max_connections", "number 1-1048576", "16384", "open connections, all together"},
       Number(LATCHKEY_FIELD(limits.max_connections), 1, 1'048'576)},
      {{"limits.max_connections_per_identity", "number 1-65536", "64",
        "beyond it the longest idle one of that identity is closed"},
       Number(LATCHKEY_FIELD(limits.max_connections_per_identity), 1, 65'536)},
      {{"limits.max_handshakes", "number 1-65536", "1024",
        "handshakes in flight; beyond it the one that waits longest is closed"},
       Number(LATCHKEY_FIELD(limits.max_handshakes), 1, 65'536)},
      {{"limits.max_handshakes_per_address", "number 1-65536", "64", "the same for one address"},
       Number(LATCHKEY_FIELD(limits.max_handshakes_per_address), 1, 65'536)},
      {{"reserved_prefixes", "table owner = \"prefix\"", "{}",
        "a secret whose name begins with the prefix must be owned by that group"},
       ReservedPrefixes},
  };
}

#undef LATCHKEY_FIELD

const std::vector<Key>& Keys() {
  static const std::vector<Key> keys = [] {
    std::vector<Key> all = KeysOfProcess();
    for (auto part : {KeysOfListeners(), KeysOfRules()}) {
      std::move(part.begin(), part.end(), std::back_inserter(all));
    }
    return all;
  }();
  return keys;
}

// --- reading
// --------------------------------------------------------------------------------------------------------

std::string Hint(const std::string& unknown) {
  std::string_view nearest;
  std::size_t best = 4;  // more than three changes is no typing error
  for (const Key& key : Keys()) {
    const std::size_t distance = EditDistance(unknown, key.doc.key);
    const bool same_last_part =
        key.doc.key.ends_with("." + unknown) || unknown.ends_with("." + std::string(key.doc.key));
    if (distance < best || (same_last_part && nearest.empty())) {
      nearest = key.doc.key;
      best = std::min(best, distance);
    }
  }
  if (nearest.empty()) return "remove it (latchkeyd --help lists every key)";
  return "did you mean \"" + std::string(nearest) + "\"?";
}

class FileReader {
 public:
  FileReader(const std::string& file, Config* config) : file_(file), config_(config) {}

  Status Read(const toml::table& table, const std::string& prefix) {
    for (const auto& [name, node] : table) {
      const std::string key = prefix + std::string(name.str());
      if (const Key* known = Find(key)) {
        if (Problem problem = known->assign(node, config_); !problem.empty())
          return Refuse(node, Quote(key) + " " + problem);
        continue;
      }
      const toml::table* inner = node.as_table();
      if (inner == nullptr || !IsSection(key))
        return Refuse(name.source().begin.line, "unknown key " + Quote(key) + "; " + Hint(key));
      RETURN_IF_ERROR(Read(*inner, key + "."));
    }
    return {};
  }

  Error Refuse(const toml::node& node, const std::string& what) const {
    return Refuse(node.source().begin.line, what);
  }
  Error Refuse(std::uint32_t line, const std::string& what) const {
    return Error{Errc::kInvalidArgument, file_ + ":" + std::to_string(line) + ": " + what};
  }

 private:
  static std::string Quote(const std::string& key) {
    std::string quoted = "\"";
    AppendJsonEscaped(&quoted, key, 128);
    return quoted + "\"";
  }
  static const Key* Find(const std::string& key) {
    for (const Key& known : Keys()) {
      if (known.doc.key == key) return &known;
    }
    return nullptr;
  }
  static bool IsSection(const std::string& key) {
    return std::any_of(Keys().begin(), Keys().end(),
                       [&](const Key& known) { return known.doc.key.starts_with(key + "."); });
  }

  const std::string& file_;
  Config* config_;
};

// What must hold between keys.
Status CheckTogether(const Config& config, const std::string& file) {
  const auto refuse = [&](const std::string& what) {
    return Error{Errc::kInvalidArgument, file + ": " + what};
  };
  if (config.keys.kek_file.empty() == config.keys.kek_credential.empty()) {
    return refuse("set exactly one of keys.kek_file and keys.kek_credential");
  }
  for (const auto& [key, value] :
       {std::pair{"tls.certificate", &config.tls.certificate},
        std::pair{"tls.key", &config.tls.key}, std::pair{"tls.client_ca", &config.tls.client_ca}}) {
    if (value->empty())
      return refuse(std::string(key) + " is not set; give the path of its PEM file");
  }
  if (config.listen.port != 0 && config.listen.port == config.metrics.port &&
      config.listen.address == config.metrics.address) {
    return refuse("listen.port and metrics.port are the same; give each listener its own");
  }
  std::set<std::string> paths;
  for (const auto& [key, value] :
       {std::pair{"store.path", &config.store.path}, std::pair{"audit.dir", &config.audit.dir},
        std::pair{"anchor.path", &config.anchor.path},
        std::pair{"keys.kek_file", &config.keys.kek_file}}) {
    if (!value->empty() && !paths.insert(*value).second)
      return refuse(std::string(key) + " names a path that another key uses");
  }
  return {};
}

// A parse error may quote its line: a key that was pasted into the file by mistake must not reach
// the log.
std::string WithoutKeyText(std::string_view text, const toml::parse_error& error) {
  const std::uint32_t line = error.source().begin.line;
  std::size_t begin = 0;
  for (std::uint32_t i = 1; i < line && begin != std::string_view::npos; ++i) {
    begin = text.find('\n', begin);
    if (begin != std::string_view::npos) ++begin;
  }
  const std::string_view content = begin == std::string_view::npos
                                       ? std::string_view()
                                       : text.substr(begin, text.find('\n', begin) - begin);
  if (content.find("kek") != std::string_view::npos ||
      content.find("lkkek1.") != std::string_view::npos) {
    return "the value of a key of [keys] cannot be read; write a path or a name in quotes";
  }
  std::string safe;
  AppendJsonEscaped(&safe, error.description(), 200);
  return safe;
}

}  // namespace

const std::vector<KeyDoc>& KeyDocs() {
  static const std::vector<KeyDoc> docs = [] {
    std::vector<KeyDoc> all;
    for (const Key& key : Keys()) all.push_back(key.doc);
    return all;
  }();
  return docs;
}

std::string KeyHelp() {
  std::string help;
  for (const KeyDoc& doc : KeyDocs()) {
    help.append("  ").append(doc.key).append("  (").append(doc.type);
    if (!doc.default_value.empty()) help.append(", default ").append(doc.default_value);
    help.append(")\n      ").append(doc.text).append("\n");
  }
  return help;
}

Result<Config> ParseConfig(std::string_view text, const std::string& file) {
  Config config;
  FileReader reader(file, &config);
  try {
    const toml::table table = toml::parse(text, file);
    RETURN_IF_ERROR(reader.Read(table, ""));
  } catch (const toml::parse_error& error) {
    return reader.Refuse(error.source().begin.line, WithoutKeyText(text, error));
  }
  RETURN_IF_ERROR(CheckTogether(config, file));
  return config;
}

Result<Config> LoadConfig(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) {
    return Error{errno == ENOENT ? Errc::kNotFound : Errc::kUnavailable,
                 "cannot read the configuration " + path + ": " + std::strerror(errno) +
                     "; give its path with --config"};
  }
  std::string text;
  char chunk[4096];
  for (;;) {
    const ssize_t got = ::read(fd.get(), chunk, sizeof chunk);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0)
      return Error{Errc::kUnavailable,
                   "cannot read the configuration " + path + ": " + std::strerror(errno)};
    if (got == 0) break;
    text.append(chunk, static_cast<std::size_t>(got));
    if (text.size() > kMaxConfigBytes) {
      return Error{Errc::kTooLarge, path + " is larger than 1 MiB; is it the configuration?"};
    }
  }
  return ParseConfig(text, path);
}

}  // namespace latchkey::config
