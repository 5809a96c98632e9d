#include "server/config/config.h"

#include <catch2/catch.hpp>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>

namespace latchkey::config {
namespace {

const std::string kMinimal = R"(
[keys]
kek_file = "/etc/latchkey/kek"
[tls]
certificate = "/c.pem"
key = "/k.pem"
client_ca = "/ca.pem"
)";

std::string RefusalOf(const std::string& text) {
  const Result<Config> config = ParseConfig(text, "x.toml");
  if (config) FAIL("was accepted: " << text);
  CHECK(config.error().message.find('\n') == std::string::npos);
  return config.error().message;
}

std::string SampleText() {
  std::ifstream in(std::string(TESTS_SOURCE_DIR) + "/../packaging/config/latchkeyd.toml");
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace

TEST_CASE("A minimal file gets the documented defaults", "[config]") {
  const Result<Config> config = ParseConfig(kMinimal, "x.toml");
  REQUIRE(config.has_value());
  CHECK(config->listen.address == "127.0.0.1");
  CHECK(config->listen.port == 4444);
  CHECK(config->metrics.port == 9444);
  CHECK(config->tls.certificate == "/c.pem");
  CHECK_FALSE(config->tls.legacy_pki);
  CHECK_FALSE(config->memory.allow_unlocked);
  CHECK_FALSE(config->identity.create_missing_clients);
  CHECK(config->identity.trust_domains.empty());
  CHECK(config->limits.max_content_bytes == 1024 * 1024);
  CHECK(config->CnCharacters() == "A-Za-z0-9_.:=-");
}

TEST_CASE("The annotated sample is accepted, names every key, and shows the defaults", "[config]") {
  const std::string sample = SampleText();
  const Result<Config> config = ParseConfig(sample, "sample");
  if (!config) FAIL(config.error().message);
  // Names of keys as the file has them, section by section, commented ones included.
  std::set<std::string> named;
  std::string section;
  std::istringstream lines(sample);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("[")) {
      const std::string name = line.substr(1, line.find(']') - 1);
      section = name + ".";
      named.insert(name);
      continue;
    }
    if (line.starts_with("# ")) line.erase(0, 2);
    const std::size_t end = line.find_first_not_of("abcdefghijklmnopqrstuvwxyz_");
    if (end != 0 && end != std::string::npos && line.substr(end).starts_with(" = ")) {
      named.insert(section + line.substr(0, end));
    }
  }
  for (const KeyDoc& doc : KeyDocs()) {
    CAPTURE(std::string(doc.key));
    CHECK(named.count(std::string(doc.key)) == 1);
    // A default is written as it stands in the sample.
    const std::string last(doc.key.substr(doc.key.rfind('.') + 1));
    if (!doc.default_value.empty() && doc.key != "reserved_prefixes") {
      CHECK(sample.find(last + " = " + std::string(doc.default_value)) != std::string::npos);
    }
  }
}

TEST_CASE("Each documented default is what a file without the key gets", "[config]") {
  const Config defaults = ParseConfig(kMinimal, "x.toml").value();
  std::string text = kMinimal;
  std::string root;
  for (const KeyDoc& doc : KeyDocs()) {
    if (doc.default_value.empty()) continue;
    const std::string line = std::string(doc.key) + " = " + std::string(doc.default_value) + "\n";
    root += line;
  }
  const Result<Config> spelled = ParseConfig(root + R"(keys.kek_file = "/etc/latchkey/kek"
tls.certificate = "/c.pem"
tls.key = "/k.pem"
tls.client_ca = "/ca.pem"
)",
                                             "x.toml");
  if (!spelled) FAIL(spelled.error().message);
  CHECK(spelled->server_id == defaults.server_id);
  CHECK(spelled->workers == defaults.workers);
  CHECK(spelled->acceptors == defaults.acceptors);
  CHECK(spelled->store.path == defaults.store.path);
  CHECK(spelled->audit.dir == defaults.audit.dir);
  CHECK(spelled->anchor.path == defaults.anchor.path);
  CHECK(spelled->listen.address == defaults.listen.address);
  CHECK(spelled->listen.port == defaults.listen.port);
  CHECK(spelled->tls.crl == defaults.tls.crl);
  CHECK(spelled->tls.legacy_pki == defaults.tls.legacy_pki);
  CHECK(spelled->identity.cn_pattern == defaults.identity.cn_pattern);
  CHECK(spelled->identity.trust_domains == defaults.identity.trust_domains);
  CHECK(spelled->identity.keywhiz_compat == defaults.identity.keywhiz_compat);
  CHECK(spelled->identity.create_missing_clients == defaults.identity.create_missing_clients);
  CHECK(spelled->delivery.hide_names == defaults.delivery.hide_names);
  CHECK(spelled->limits.max_content_bytes == defaults.limits.max_content_bytes);
  CHECK(spelled->limits.max_connections == defaults.limits.max_connections);
  CHECK(spelled->limits.max_connections_per_identity ==
        defaults.limits.max_connections_per_identity);
  CHECK(spelled->limits.max_handshakes == defaults.limits.max_handshakes);
  CHECK(spelled->limits.max_handshakes_per_address == defaults.limits.max_handshakes_per_address);
  CHECK(spelled->metrics.address == defaults.metrics.address);
  CHECK(spelled->metrics.port == defaults.metrics.port);
  CHECK(spelled->log.level == defaults.log.level);
  CHECK(spelled->log.format == defaults.log.format);
  CHECK(spelled->memory.allow_unlocked == defaults.memory.allow_unlocked);
}

TEST_CASE("The help names every key with its meaning", "[config]") {
  const std::string help = KeyHelp();
  for (const KeyDoc& doc : KeyDocs()) {
    CHECK(help.find(std::string(doc.key) + "  (") != std::string::npos);
    CHECK(help.find(std::string(doc.text)) != std::string::npos);
  }
}

TEST_CASE("An unknown key is refused with file, line and the nearest known key", "[config]") {
  CHECK(RefusalOf(kMinimal + "[log]\nlevl = \"info\"\n") ==
        "x.toml:9: unknown key \"log.levl\"; did you mean \"log.level\"?");
  CHECK(RefusalOf("port = 1\n" + kMinimal) ==
        "x.toml:1: unknown key \"port\"; did you mean \"listen.port\"?");
  CHECK_THAT(RefusalOf(kMinimal + "[colours]\nsky = 1\n"),
             Catch::StartsWith("x.toml:8: unknown key \"colours\"; remove it"));
  CHECK_THAT(RefusalOf(kMinimal + "[tls.deep]\nx = 1\n"),
             Catch::Contains("unknown key \"tls.deep\""));
}

TEST_CASE("Values of the wrong type or out of range are refused by key and line", "[config]") {
  const auto [line, expected] = GENERATE(table<std::string, std::string>({
      {"listen.port = \"4444\"", "\"listen.port\" must be a number from 0 to 65535"},
      {"listen.port = 65536", "\"listen.port\" must be a number from 0 to 65535"},
      {"listen.port = -1", "\"listen.port\" must be a number"},
      {"listen.port = 1.5", "\"listen.port\" must be a number"},
      {"listen.address = \"localhost\"", "must be an IPv4 or IPv6 address"},
      {"listen.address = \"\"", "must be an IPv4 or IPv6 address"},
      {"store.path = \"latchkey.db\"", "must be an absolute path"},
      {"store.path = \"\"", "must be an absolute path"},
      {"audit.dir = \"/var/x/\"", "must be an absolute path"},
      {"log.level = \"trace\"", "must be one of error, warn, info, debug"},
      {"log.format = true", "must be a text in quotes"},
      {"memory.allow_unlocked = 1", "must be true or false"},
      {"identity.cn_pattern = \"A-Z\"", "in brackets"},
      {"identity.cn_pattern = \"[]\"", "in brackets"},
      {"identity.cn_pattern = \"[^a]\"", "that are allowed"},
      {"identity.cn_pattern = \"[z-a]\"", "range"},
      {"identity.cn_pattern = \"[a b]\"", "in brackets"},
      {"identity.trust_domains = [\"Example.org\"]", "lower case"},
      {"identity.trust_domains = [1]", "list of texts"},
      {"limits.max_content_bytes = 8388609", "must be a number from 1 to 8388608"},
      {"limits.max_content_bytes = 0", "must be a number from 1"},
      {"server_id = \"a b\"", "must be 1 to 32"},
      {"workers = 65", "must be a number from 0 to 64"},
      {"reserved_prefixes = [1]", "must be a table"},
      {"reserved_prefixes = {team = 1}", "prefix in quotes"},
      {"reserved_prefixes = {team = \"\"}", "prefix in quotes"},
      {"metrics.address = \"*\"", "must be an IPv4"},
      {"tls = 1", "unknown key \"tls\""},
  }));
  CAPTURE(line);
  const std::string without_tls = line.starts_with("tls") ? line + "\n" : line + "\n" + kMinimal;
  const std::string message = RefusalOf(without_tls);
  CHECK_THAT(message, Catch::StartsWith("x.toml:1: "));
  CHECK_THAT(message, Catch::Contains(expected));
}

TEST_CASE("Keys that must stand together are checked together", "[config]") {
  CHECK_THAT(RefusalOf(""),
             Catch::Contains("exactly one of keys.kek_file and keys.kek_credential"));
  CHECK_THAT(RefusalOf(kMinimal + "[metrics]\nport = 4444\n"),
             Catch::Contains("listen.port and metrics.port are the same"));
  CHECK_THAT(RefusalOf("keys.kek_credential = \"kek\"\ntls.key = \"/k\"\ntls.client_ca = \"/c\"\n"),
             Catch::Contains("tls.certificate is not set"));
  CHECK_THAT(RefusalOf("keys.kek_file = \"/k\"\nkeys.kek_credential = \"kek\"\n"),
             Catch::Contains("exactly one"));
  CHECK_THAT(RefusalOf("anchor.path = \"/var/lib/latchkey/latchkey.db\"\n" + kMinimal),
             Catch::Contains("anchor.path names a path that another key uses"));
  CHECK(ParseConfig("keys.kek_credential = \"kek\"\ntls.certificate = \"/s\"\ntls.key = "
                    "\"/k\"\ntls.client_ca = \"/c\"\n",
                    "x")
            .has_value());
  CHECK(ParseConfig(kMinimal + "[metrics]\nport = 0\n[listen]\nport = 0\n", "x").has_value());
}

TEST_CASE("A syntax error names file and line", "[config]") {
  CHECK_THAT(RefusalOf(kMinimal + "[log\n"), Catch::StartsWith("x.toml:8: "));
  CHECK_THAT(RefusalOf("a = \n"), Catch::StartsWith("x.toml:1: "));
  CHECK_THAT(RefusalOf(kMinimal + "[tls]\nkey = \"/other\"\n"), Catch::StartsWith("x.toml:"));
}

TEST_CASE("A key pasted into the file is never repeated in a message", "[config]") {
  const std::string key = "lkkek1.1.PLANTEDPLANTEDPLANTED.0011";
  for (const std::string& text :
       {"keys.kek_file = \"" + key + "\"\n" + kMinimal, "keys.kek_file = " + key + "\n",
        "[keys]\nkek_file = [\"" + key + "\"]\n", "[keys]\n" + key + "\n",
        "keys.kek_credential = \"/" + key + "\"\n", "[keys]\nkek_file = '" + key + "\n"}) {
    CHECK(RefusalOf(text).find("PLANTED") == std::string::npos);
  }
}

TEST_CASE("Lists and tables arrive as they were written", "[config]") {
  const Config config = ParseConfig(R"(
keys.kek_file = "/k"
tls.certificate = "/c"
tls.key = "/key"
tls.client_ca = "/ca"
tls.crl = "/one.crl"
identity.trust_domains = ["a.example", "b.example"]
[reserved_prefixes]
specialOwner = "sp:"
"owner two" = "x-"
)",
                                    "x")
                            .value();
  CHECK(config.tls.crl == std::vector<std::string>{"/one.crl"});
  CHECK(config.identity.trust_domains == std::vector<std::string>{"a.example", "b.example"});
  REQUIRE(config.reserved_prefixes.size() == 2);
  CHECK(config.reserved_prefixes[1].owner == "specialOwner");
  CHECK(config.reserved_prefixes[1].prefix == "sp:");
}

TEST_CASE("A file that cannot be read is named", "[config]") {
  const Result<Config> config = LoadConfig("/nonexistent/latchkeyd.toml");
  REQUIRE_FALSE(config.has_value());
  CHECK(config.error().code == Errc::kNotFound);
  CHECK_THAT(config.error().message, Catch::Contains("/nonexistent/latchkeyd.toml"));
  CHECK_FALSE(LoadConfig("/tmp").has_value());
}

}  // namespace latchkey::config
