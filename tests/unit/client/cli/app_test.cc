#include "client/cli/app.h"

#include <CLI/CLI.hpp>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <fstream>

#include "client/cli/command.h"
#include "tests/unit/client/cli/captured.h"

namespace latchkey::cli {
namespace {

struct Ran {
  int code;
  std::string out, err;
};

// Without a server: whatever these tests see was decided before any request.
Ran Run(const std::vector<std::string>& words, const ConnectionOptions& environment = {}) {
  test::Captured captured("content");
  const int code = RunProgram(words, environment, captured.terminal());
  return {code, captured.Out(), captured.Err()};
}

bool Has(const std::string& text, const std::string& part) {
  UNSCOPED_INFO(text);
  return text.find(part) != std::string::npos;
}

std::vector<std::vector<std::string>> AllCommands(const CLI::App& app,
                                                  const std::vector<std::string>& before = {}) {
  std::vector<std::vector<std::string>> all;
  for (const std::string& name : CommandNames(app)) {
    std::vector<std::string> words = before;
    words.push_back(name);
    all.push_back(words);
    const auto below = AllCommands(*app.get_subcommand(name), words);
    all.insert(all.end(), below.begin(), below.end());
  }
  return all;
}

}  // namespace

TEST_CASE("Version and help are data and succeed", "[cli]") {
  const auto version = Run({"--version"});
  CHECK(version.code == 0);
  CHECK(version.out == "latchkey " LATCHKEY_VERSION "\n");
  CHECK(Run({"--version", "--json"}).out == "{\"version\":\"" LATCHKEY_VERSION "\"}\n");
  const auto help = Run({"secret", "rotate", "--help"});
  CHECK(help.code == 0);
  CHECK(Has(help.out, "Usage: latchkey secret rotate"));
  CHECK(help.err.empty());
}

TEST_CASE("Every command of the issue exists and has help", "[cli]") {
  CLI::App root;
  Invocation invocation;
  BuildCommands(root, &invocation);
  const auto all = AllCommands(root);
  for (const char* wanted : {"secret create",
                             "secret rotate",
                             "secret list",
                             "secret show",
                             "secret versions",
                             "secret rollback",
                             "secret rename",
                             "secret delete",
                             "secret undelete",
                             "client create",
                             "client list",
                             "client show",
                             "client enable",
                             "client disable",
                             "client delete",
                             "group create",
                             "group list",
                             "group show",
                             "group delete",
                             "group add",
                             "group remove",
                             "grant",
                             "revoke",
                             "who",
                             "can",
                             "serving",
                             "audit tail",
                             "status",
                             "get",
                             "completion"}) {
    CAPTURE(wanted);
    const bool found = std::any_of(all.begin(), all.end(), [wanted](const auto& words) {
      std::string joined;
      for (const auto& word : words) joined += (joined.empty() ? "" : " ") + word;
      return joined == wanted;
    });
    CHECK(found);
  }
  for (auto words : all) {
    words.push_back("--help");
    const auto ran = Run(words);
    CHECK(ran.code == 0);
    CHECK_FALSE(ran.out.empty());
  }
}

TEST_CASE("Every writing command knows --dry-run, and no reading one does", "[cli]") {
  CLI::App root;
  Invocation invocation;
  BuildCommands(root, &invocation);
  const std::set<std::string> reading{"list",    "show", "versions", "who", "can",
                                      "serving", "tail", "status",   "get", "completion"};
  for (const auto& words : AllCommands(root)) {
    const CLI::App* app = &root;
    for (const auto& word : words) app = app->get_subcommand(word);
    if (!CommandNames(*app).empty()) continue;
    CAPTURE(words);
    CHECK((app->get_option_no_throw("--dry-run") == nullptr) == reading.contains(words.back()));
  }
}

TEST_CASE("A misspelt command is usage, with what was probably meant", "[cli]") {
  const auto [words, hint] = GENERATE(table<std::vector<std::string>, std::string>({
      {{"secrt", "list"}, "did you mean \"secret\"?"},
      {{"secret", "rotat", "x"}, "did you mean \"rotate\"?"},
      {{"--json", "--addr", "secret", "secret", "lst"}, "list"},
      {{"frobnicate"}, "see `latchkey --help`"},
      {{"__compete"}, "see `latchkey --help`"},
  }));
  CAPTURE(words);
  const auto ran = Run(words);
  CHECK(ran.code == 2);
  CHECK(ran.out.empty());
  CHECK(Has(ran.err, hint));
}

TEST_CASE("Wrong usage ends with 2, an error and a hint, and no output", "[cli]") {
  const auto words = GENERATE(values<std::vector<std::string>>({
      {},
      {"secret"},
      {"secret", "rotate"},
      {"secret", "rotate", "a", "b"},
      {"secret", "rotate", "a", "--content", "hunter2"},
      {"secret", "rotate", "a", "--wait", "30"},
      {"secret", "rotate", "a", "--wait=0"},
      {"secret", "rotate", "a", "--wait=x"},
      {"secret", "rollback", "a", "x"},
      {"secret", "rollback", "a", "-1"},
      {"secret", "list", "--dry-run"},
      {"audit", "tail", "-n", "0"},
      {"audit", "tail", "--chain", "all"},
      {"completion", "tcsh"},
      {"group", "add", "g"},
      {"can", "a"},
  }));
  CAPTURE(words);
  const auto ran = Run(words);
  CHECK(ran.code == 2);
  CHECK(ran.out.empty());
  CHECK(Has(ran.err, "latchkey: error: "));
  CHECK(Has(ran.err, "latchkey: hint: "));
}

TEST_CASE("A content cannot be given on the command line", "[cli]") {
  for (const auto& words :
       std::vector<std::vector<std::string>>{{"secret", "create", "a", "hunter2"},
                                             {"secret", "create", "a", "--content", "hunter2"},
                                             {"secret", "rotate", "a", "hunter2"}}) {
    CHECK(Run(words).code == 2);
  }
}

TEST_CASE("Names are checked before any connection is tried", "[cli]") {
  const auto words =
      GENERATE(values<std::vector<std::string>>({{"secret", "create", "a b"},
                                                 {"secret", "rotate", ".a"},
                                                 {"secret", "show", "a/b"},
                                                 {"secret", "versions", "a\n"},
                                                 {"secret", "rollback", "a b", "1"},
                                                 {"secret", "rename", "a", "b c"},
                                                 {"secret", "rename", "a b", "c"},
                                                 {"secret", "delete", "a b"},
                                                 {"secret", "undelete", "a b"},
                                                 {"client", "create", "a b"},
                                                 {"client", "show", "a b"},
                                                 {"client", "enable", "a b"},
                                                 {"client", "disable", "a b"},
                                                 {"client", "delete", "a b"},
                                                 {"group", "create", "a b"},
                                                 {"group", "show", "a b"},
                                                 {"group", "delete", "a b"},
                                                 {"group", "add", "a", "b c"},
                                                 {"group", "remove", "a b", "c"},
                                                 {"grant", "a", "b c"},
                                                 {"revoke", "a b", "c"},
                                                 {"who", "a b"},
                                                 {"can", "a", "b c"},
                                                 {"can", "a b", "c"},
                                                 {"serving", "a b"},
                                                 {"get", "a b"},
                                                 {"secret", "create", "a", "--group", "b c"}}));
  CAPTURE(words);
  const auto ran =
      Run(words, {.address = "127.0.0.1:1", .ca_file = "/x", .cert_file = "/x", .key_file = "/x"});
  CHECK(ran.code == 2);
  CHECK(Has(ran.err, "name \""));
}

TEST_CASE("What is missing of the connection is named with the way to give it", "[cli]") {
  ConnectionOptions environment{
      .address = "127.0.0.1:1", .ca_file = "/x", .cert_file = "/x", .key_file = "/x"};
  std::string wanted;
  SECTION("address") {
    environment.address = "";
    wanted = "LATCHKEY_ADDR";
  }
  SECTION("CA") {
    environment.ca_file = "";
    wanted = "LATCHKEY_CA";
  }
  SECTION("certificate") {
    environment.cert_file = "";
    wanted = "LATCHKEY_CERT";
  }
  SECTION("key") {
    environment.key_file = "";
    wanted = "LATCHKEY_KEY";
  }
  SECTION("a wrong address") {
    environment.address = "http://x";
    wanted = "https";
  }
  SECTION("a file that is not there") {
    wanted = "CA file \"/x\"";
  }
  const auto ran = Run({"secret", "list"}, environment);
  CHECK(ran.code == 2);
  CHECK(Has(ran.err, wanted));
}

TEST_CASE("help before a command is --help behind it", "[cli]") {
  CHECK(Run({"help"}).out == Run({"--help"}).out);
  const auto rotate = Run({"help", "secret", "rotate"});
  CHECK(rotate.code == 0);
  CHECK(rotate.out == Run({"secret", "rotate", "--help"}).out);
  CHECK(Has(rotate.out, "--generate SPEC"));
  CHECK(Has(rotate.out, "Also taken: --json, --addr,"));
  CHECK(Run({"help", "secrets"}).code == 2);
}

TEST_CASE("A flag wins over the environment", "[cli]") {
  const auto ran = Run({"--ca", "/from/flag", "secret", "list"}, {.address = "127.0.0.1:1",
                                                                  .ca_file = "/from/environment",
                                                                  .cert_file = "/x",
                                                                  .key_file = "/x"});
  CHECK(Has(ran.err, "/from/flag"));
}

TEST_CASE("With --json an error is one JSON object on stderr", "[cli]") {
  CHECK(Run({"--json", "secret", "list"}).err ==
        "{\"error\":\"invalid_argument\",\"message\":\"no server address is given: set "
        "LATCHKEY_ADDR or --addr to "
        "host:port\",\"didYouMean\":[]}\n");
  CHECK(Run({"secret", "lst", "--json"}).err ==
        "{\"error\":\"usage\",\"message\":\"latchkey secret has no command "
        "\\\"lst\\\"\",\"didYouMean\":[\"list\"]}\n");
}

TEST_CASE("Completion offers commands, options and fixed values without a server", "[cli]") {
  CHECK(Has(Run({"__complete", "--", ""}).out, "secret\tSecrets and their versions\n"));
  CHECK_FALSE(Has(Run({"__complete", "--", ""}).out, "__complete"));
  CHECK(Run({"__complete", "--", "secret", "ro"}).out ==
        "rotate\tAdd a version; clients see it within milliseconds\n"
        "rollback\tMake an older version the current one\n");
  CHECK(Has(Run({"__complete", "--", "secret", "rotate", "--ge"}).out, "--generate\t"));
  CHECK(Has(Run({"__complete", "--", "secret", "rotate", "--js"}).out, "--json\t"));
  CHECK(Run({"__complete", "--", "completion", "b"}).out == "bash\n");
  CHECK(Run({"__complete", "--", "secret", "create", "x", "--from-file", ""}).out == ":files\n");
  CHECK(Run({"__complete", "--", "--ca", ""}).out == ":files\n");
  CHECK(Run({"__complete", "--", "nonsense", ""}).out.empty());
  CHECK(Run({"__complete", "--", "secret", "list", ""}).out.empty());
  // No server answers: nothing is offered, and nothing is said.
  const auto silent =
      Run({"__complete", "--", "secret", "show", ""},
          {.address = "127.0.0.1:1", .ca_file = "", .cert_file = "", .key_file = ""});
  CHECK(silent.out.empty());
  CHECK(silent.err.empty());
  CHECK(silent.code == 0);
}

TEST_CASE("Completion scripts are valid in their shells", "[cli]") {
  const auto shell = GENERATE(as<std::string>{}, "bash", "zsh", "fish");
  const auto ran = Run({"completion", shell});
  REQUIRE(ran.code == 0);
  CHECK(Has(ran.out, "latchkey __complete -- "));
  if (std::system(("command -v " + shell + " >/dev/null").c_str()) != 0)
    return;  // not installed here
  char path[] = "/tmp/latchkey-completion.XXXXXX";
  const int fd = ::mkstemp(path);
  REQUIRE(fd >= 0);
  ::close(fd);
  std::ofstream(path) << ran.out;
  CHECK(std::system((shell + " -n " + path).c_str()) == 0);
  ::unlink(path);
}

TEST_CASE("A walk over the words knows options with values from commands", "[cli]") {
  CLI::App root;
  Invocation invocation;
  BuildCommands(root, &invocation);
  auto walk =
      Walk(root, {"--addr", "secret", "secret", "--json", "rotate", "name", "--generate", "uuid"});
  CHECK(walk.command->get_name() == "rotate");
  CHECK(walk.arguments == 1);
  CHECK(walk.option == nullptr);
  CHECK(Walk(root, {"secret", "rotate", "--generate"}).option != nullptr);
  CHECK(Walk(root, {"secret", "rotate", "--generate=uuid"}).option == nullptr);
  CHECK(Walk(root, {"secret", "rotate", "--wait"}).option == nullptr);
  CHECK(Walk(root, {"--", "secret"}).unknown.empty());
  CHECK(Walk(root, {"secret", "nope"}).unknown == "nope");
}

}  // namespace latchkey::cli
