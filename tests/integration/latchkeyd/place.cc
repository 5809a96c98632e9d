#include "tests/integration/latchkeyd/place.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "common/base/c_handle.h"
#include "common/base/check.h"
#include "server/assembly.h"
#include "server/service/write_clients.h"
#include "server/service/write_secrets.h"

namespace latchkey {
namespace {

constexpr int kPatienceMs = 60'000;  // a bound for a hang, never a measure

std::string Drain(int fd) {
  std::string text;
  char chunk[4096];
  ssize_t got;
  while ((got = ::read(fd, chunk, sizeof chunk)) > 0)
    text.append(chunk, static_cast<std::size_t>(got));
  return text;
}

std::vector<char*> Pointers(const std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (const std::string& text : texts) pointers.push_back(const_cast<char*>(text.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

int ExitCode(int status) {
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace

Outcome RunProgram(const std::vector<std::string>& argv) {
  // Files, not pipes: neither end waits for the other.
  std::FILE* out = std::tmpfile();
  std::FILE* err = std::tmpfile();
  INVARIANT(out != nullptr && err != nullptr);
  std::vector<char*> pointers = Pointers(argv);
  const pid_t child = ::fork();
  INVARIANT(child >= 0);
  if (child == 0) {
    ::setsid();
    const int null = ::open("/dev/null", O_RDONLY);
    ::dup2(null, STDIN_FILENO);
    ::dup2(::fileno(out), STDOUT_FILENO);
    ::dup2(::fileno(err), STDERR_FILENO);
    ::execv(pointers[0], pointers.data());
    ::_exit(127);
  }
  int status = 0;
  INVARIANT(::waitpid(child, &status, 0) == child);
  Outcome outcome;
  outcome.exit_code = ExitCode(status);
  ::lseek(::fileno(out), 0, SEEK_SET);
  ::lseek(::fileno(err), 0, SEEK_SET);
  outcome.out = Drain(::fileno(out));
  outcome.err = Drain(::fileno(err));
  std::fclose(out);
  std::fclose(err);
  return outcome;
}

Outcome Latchkeyd(const std::vector<std::string>& arguments) {
  std::vector<std::string> argv;
  argv.push_back(BUILD_BIN_DIR "/latchkeyd");
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  return RunProgram(argv);
}

RunningServer::RunningServer(const std::string& directory, const std::vector<std::string>& extra,
                             const std::vector<std::string>& environment)
    : directory_(directory) {
  const std::string socket_path = directory + "/notify";
  ::unlink(socket_path.c_str());
  notify_.Reset(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  INVARIANT(socket_path.size() < sizeof address.sun_path);
  std::memcpy(address.sun_path, socket_path.c_str(), socket_path.size() + 1);
  INVARIANT(::bind(notify_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);

  std::vector<std::string> argv{BUILD_BIN_DIR "/latchkeyd", "serve", "--config",
                                directory + "/latchkeyd.toml"};
  argv.insert(argv.end(), extra.begin(), extra.end());
  std::vector<char*> pointers = Pointers(argv);
  std::vector<std::string> variables = environment;
  variables.push_back("NOTIFY_SOCKET=" + socket_path);
  std::vector<char*> environment_pointers = Pointers(variables);
  const int log =
      ::open((directory + "/server.log").c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  pid_ = ::fork();
  INVARIANT(pid_ >= 0 && log >= 0);
  if (pid_ == 0) {
    ::dup2(log, STDOUT_FILENO);
    ::dup2(log, STDERR_FILENO);
    ::execve(pointers[0], pointers.data(), environment_pointers.data());
    ::_exit(127);
  }
  ::close(log);
  ready_ = AwaitNotice("READY=1");
}

RunningServer::~RunningServer() {
  if (exit_code_ < 0 && pid_ > 0) {
    ::kill(pid_, SIGKILL);
    Wait();
  }
}

void RunningServer::Signal(int signal) const {
  INVARIANT(::kill(pid_, signal) == 0);
}

bool RunningServer::AwaitNotice(const std::string& text) {
  int waited_ms = 0;
  char message[512];
  while (waited_ms < kPatienceMs) {
    pollfd poll_fd{notify_.get(), POLLIN, 0};
    if (::poll(&poll_fd, 1, 100) == 1) {
      const ssize_t got = ::recv(notify_.get(), message, sizeof message, 0);
      if (got > 0 && std::string_view(message, static_cast<std::size_t>(got)).find(text) !=
                         std::string_view::npos)
        return true;
      continue;
    }
    waited_ms += 100;
    int status = 0;
    if (::waitpid(pid_, &status, WNOHANG) == pid_) {
      exit_code_ = ExitCode(status);
      return false;
    }
  }
  return false;
}

int RunningServer::Wait() {
  if (exit_code_ >= 0) return exit_code_;
  int status = 0;
  INVARIANT(::waitpid(pid_, &status, 0) == pid_);
  return exit_code_ = ExitCode(status);
}

std::string RunningServer::log() const {
  return ReadText(directory_ + "/server.log");
}

Place::Place(bool with_certificates) {
  std::string pattern = (std::filesystem::temp_directory_path() / "latchkeyd-XXXXXX").string();
  INVARIANT(::mkdtemp(pattern.data()) != nullptr);
  directory_ = pattern;
  WriteConfig();
  if (!with_certificates) return;
  const Outcome made = RunProgram({TESTS_SOURCE_DIR "/../certs/make-dev-certs", "all", "--out",
                                   Path("pki"), "--automation", "admin", "--client", "web-1"});
  if (made.exit_code != 0) std::fputs(made.err.c_str(), stderr);
  INVARIANT(made.exit_code == 0);
}

Place::~Place() {
  std::filesystem::remove_all(directory_);
}

void Place::WriteConfig(const std::map<std::string, std::string>& changes) const {
  const auto quoted = [&](const std::string& name) { return "\"" + Path(name) + "\""; };
  std::map<std::string, std::string> lines{{"store.path", quoted("state/latchkey.db")},
                                           {"keys.kek_file", quoted("kek")},
                                           {"audit.dir", quoted("audit")},
                                           {"anchor.path", quoted("anchor")},
                                           {"listen.port", "0"},
                                           {"listen.port_file", quoted("port")},
                                           {"tls.certificate", quoted("pki/server.crt")},
                                           {"tls.key", quoted("pki/server.key")},
                                           {"tls.client_ca", quoted("pki/ca.crt")},
                                           {"metrics.port", "0"},
                                           {"metrics.port_file", quoted("metrics-port")}};
  for (const auto& [key, value] : changes) lines[key] = value;
  std::ofstream out(config(), std::ios::trunc);
  for (const auto& [key, value] : lines) {
    if (!value.empty()) out << key << " = " << value << "\n";
  }
}

Outcome Place::Command(std::vector<std::string> arguments) const {
  arguments.push_back("--config");
  arguments.push_back(config());
  return Latchkeyd(arguments);
}

void Place::Init() const {
  const Outcome outcome = Command({"init", "--admin", "admin", "--no-recovery"});
  if (outcome.exit_code != 0) std::fputs(outcome.err.c_str(), stderr);
  INVARIANT(outcome.exit_code == 0);
}

void Place::Populate() const {
  const config::Config config = config::LoadConfig(this->config()).value();
  AssemblyOptions options;
  options.config = &config;
  options.fatal = [](const char*) { std::abort(); };
  Refusal refusal;
  const auto assembly = Assembly::Open(options, &refusal);
  INVARIANT(assembly != nullptr);
  const service::Actor actor = service::Actor::Server("test", "", 0);
  const auto work = [&](service::WriteContext& context) -> Result<service::Nothing> {
    for (const char* name : {"web", "ops"}) {
      service::NewGroup group;
      group.name = name;
      group.metadata_json = "{\"team\":\"a\"}";
      group.metadata = {{"team", "a"}};
      RETURN_IF_ERROR([&]() -> Status {
        ASSIGN_OR_RETURN([[maybe_unused]] const GroupId id, service::CreateGroup(context, group));
        return {};
      }());
    }
    for (const char* name : {"web-1", "web-2"}) {
      service::NewClient client;
      client.name = name;
      client.spiffe_id = std::string("spiffe://example.org/") + name;
      client.groups = {"web"};
      ASSIGN_OR_RETURN([[maybe_unused]] const ClientId id, service::CreateClient(context, client));
    }
    for (const char* name : {"db_password", "api_key", "gone"}) {
      service::NewSecret secret;
      secret.name = name;
      ASSIGN_OR_RETURN(secret.content,
                       SecretBuffer::CopyOf(AsBytes(std::string("first of ") + name)));
      secret.description = "a secret";
      secret.metadata = {{"mode", "0400"}};
      secret.metadata_json = "{\"mode\":\"0400\"}";
      secret.expiry = 4'000'000'000;
      secret.type = "password";
      secret.owner = "ops";
      secret.groups = {"web"};
      ASSIGN_OR_RETURN([[maybe_unused]] const service::Written created,
                       service::CreateSecret(context, secret));
      for (const char* content : {"second", "third"}) {
        service::SecretChanges changes;
        ASSIGN_OR_RETURN(changes.content, SecretBuffer::CopyOf(AsBytes(content)));
        ASSIGN_OR_RETURN([[maybe_unused]] const service::Written added,
                         service::UpdateSecretPartly(context, name, changes));
      }
    }
    return service::DeleteSecret(context, "gone", service::DeletionMode::kSoft);
  };
  const auto result = assembly->writer().Run<service::Nothing>(actor, {}, work);
  if (!result) std::fputs(result.error().message.c_str(), stderr);
  INVARIANT(result.has_value());
  INVARIANT(assembly->Stop().has_value());
}

std::string Trimmed(std::string text) {
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

Outcome Curl(const Place& place, const std::string& client, const std::string& path,
             const std::vector<std::string>& more) {
  std::vector<std::string> argv{
      "/usr/bin/curl",          "--silent",    "--show-error",  "--max-time", "30", "--cacert",
      place.Path("pki/ca.crt"), "--write-out", "\n%{http_code}"};
  if (!client.empty()) {
    argv.insert(argv.end(), {"--cert", place.Path("pki/" + client + ".crt"), "--key",
                             place.Path("pki/" + client + ".key")});
  }
  argv.insert(argv.end(), more.begin(), more.end());
  argv.push_back("https://127.0.0.1:" + Trimmed(ReadText(place.Path("port"))) + path);
  return RunProgram(argv);
}

std::string CreateSecret(const Place& place, const std::string& name) {
  const Outcome outcome =
      Curl(place, "admin", "/automation/v2/secrets",
           {"--header", "Content-Type: application/json", "--data",
            "{\"name\":\"" + name + "\",\"content\":\"c2VjcmV0\",\"groups\":[\"web\"]}"});
  return outcome.out.size() < 3 ? outcome.out : outcome.out.substr(outcome.out.size() - 3);
}

ByteVector ReadBytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return ByteVector(std::istreambuf_iterator<char>(in), {});
}
void WriteBytes(const std::string& path, Bytes bytes) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(reinterpret_cast<const char*>(bytes.data()),
            static_cast<std::streamsize>(bytes.size()));
  INVARIANT(out.good());
}
std::string ReadText(const std::string& path) {
  const ByteVector bytes = ReadBytes(path);
  return std::string(AsText(bytes));
}

std::vector<std::string> SqlColumn(const std::string& path, const std::string& sql) {
  sqlite3* raw = nullptr;
  const int rc = sqlite3_open_v2(path.c_str(), &raw, SQLITE_OPEN_READWRITE, nullptr);
  const CHandle<sqlite3, sqlite3_close_v2> db(raw);
  INVARIANT(rc == SQLITE_OK);
  sqlite3_exec(raw, "PRAGMA ignore_check_constraints = 1; PRAGMA foreign_keys = 0", nullptr,
               nullptr, nullptr);
  std::vector<std::string> values;
  const auto take = [](void* into, int columns, char** texts, char**) {
    static_cast<std::vector<std::string>*>(into)->push_back(
        columns > 0 && texts[0] != nullptr ? texts[0] : "");
    return 0;
  };
  char* error = nullptr;
  if (sqlite3_exec(raw, sql.c_str(), take, &values, &error) != SQLITE_OK) {
    std::fprintf(stderr, "%s: %s\n", sql.c_str(), error);
    INVARIANT(false);
  }
  return values;
}
void Sql(const std::string& path, const std::string& sql) {
  SqlColumn(path, sql);
}

}  // namespace latchkey
