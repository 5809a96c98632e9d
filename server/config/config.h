// Config: the server's settings, read once from one TOML file and immutable afterwards.
//
// Unknown keys, wrong types and values outside their range refuse to start: a typing error must not
// silently switch a protection off. Every error is one line `FILE:LINE: what is wrong and what to
// do`; values of keys.* are never repeated. The only module that reads TOML.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.h"
#include "common/model/limits.h"

namespace latchkey::config {

struct ReservedPrefix {
  std::string owner;  // name of a group
  std::string prefix;
};

// Paths are absolute. Ports: 0 takes a free one. Empty text: not set.
struct Config {
  std::string server_id = "main";  // names the audit chain access:<server_id>
  std::uint32_t workers = 0;       // network threads; 0: one per processor
  std::uint32_t acceptors = 1;

  struct {
    std::string path = "/var/lib/latchkey/latchkey.db";
  } store;
  struct {
    std::string kek_file;
    std::string kek_credential;
  } keys;  // exactly one is set
  struct {
    std::string dir = "/var/lib/latchkey/audit";
  } audit;
  struct {
    std::string path = "/var/lib/latchkey/anchor";
  } anchor;
  struct {
    std::string address = "127.0.0.1";
    std::uint16_t port = 4444;
    std::string port_file;
  } listen;
  struct {
    std::string certificate;
    std::string key;
    std::string client_ca;
    std::vector<std::string> crl;
    bool legacy_pki = false;
  } tls;
  struct {
    std::string cn_pattern = "[A-Za-z0-9_.:=-]";
    std::vector<std::string> trust_domains;
    bool keywhiz_compat = false;
    bool create_missing_clients = false;
  } identity;
  struct {
    bool hide_names = false;
  } delivery;
  struct {
    std::size_t max_content_bytes = limits::kDefaultMaxContentBytes;
    std::size_t max_connections = limits::kMaxConnections;
    std::size_t max_connections_per_identity = limits::kMaxConnectionsPerIdentity;
    std::size_t max_handshakes = limits::kMaxHandshakesInFlight;
    std::size_t max_handshakes_per_address = limits::kMaxHandshakesPerAddress;
  } limits;
  std::vector<ReservedPrefix> reserved_prefixes;
  struct {
    std::string address = "127.0.0.1";  // empty: no metrics and health listener
    std::uint16_t port = 9444;
    std::string port_file;
  } metrics;
  struct {
    std::string level = "info";
    std::string format = "text";
  } log;
  struct {
    bool allow_unlocked = false;
  } memory;

  // The characters inside the brackets of identity.cn_pattern.
  std::string CnCharacters() const {
    return identity.cn_pattern.substr(1, identity.cn_pattern.size() - 2);
  }
};

// `file` only names the text in messages. Errors: kInvalidArgument.
Result<Config> ParseConfig(std::string_view text, const std::string& file);
// kNotFound and kUnavailable when the file cannot be read; else as ParseConfig.
Result<Config> LoadConfig(const std::string& path);

// One key for --help, the annotated sample and its test.
struct KeyDoc {
  std::string_view key;            // "listen.port"
  std::string_view type;           // "number 0-65535"
  std::string_view default_value;  // as it stands in a file; empty: must be set or is off
  std::string_view text;
};
const std::vector<KeyDoc>& KeyDocs();
// All of them as text, one or two lines each.
std::string KeyHelp();

}  // namespace latchkey::config
