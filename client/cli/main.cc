// latchkey: the CLI of admins, scripts and programs. docs/cli.md describes every command.
#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "client/cli/app.h"
#include "client/cli/session.h"
#include "client/cli/terminal.h"
#include "client/lib/http_client.h"
#include "common/base/process.h"
#include "common/secret/secret_buffer.h"
#include "common/tls/wiping_memory.h"

namespace {

using namespace latchkey;  // NOLINT: the composition root speaks of everything

// Descriptors that the command line names, as a shell's <(command) does: they must survive the hardening.
std::vector<int> NamedDescriptors(const std::vector<std::string>& words) {
  std::vector<int> fds;
  for (const std::string& word : words) {
    for (const std::string_view prefix : {"/dev/fd/", "/proc/self/fd/"}) {
      const std::size_t at = word.find(prefix);
      if (at == std::string::npos) continue;
      int fd = -1;
      std::from_chars(word.data() + at + prefix.size(), word.data() + word.size(), fd);
      if (fd > 2) fds.push_back(fd);
    }
  }
  return fds;
}

std::string FromEnvironment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : std::string(value);
}

Status Prepare(const std::vector<std::string>& words) {
  RETURN_IF_ERROR(HardenProcess(
      {.keep_environment = {"LATCHKEY_ADDR", "LATCHKEY_CA", "LATCHKEY_CERT", "LATCHKEY_KEY"},
       .keep_fds = NamedDescriptors(words)}));
  RETURN_IF_ERROR(tls::UseWipingMemory());
  // Room for the largest content and what surrounds it. Where the limit on locked memory does not
  // allow it, an admin's machine goes without the lock: the process lives for a second.
  constexpr std::size_t kCliArenaBytes = 12 * 1024 * 1024;
  ArenaOptions arena;
  arena.size_bytes = kCliArenaBytes;
  arena.allow_unlocked = true;
  arena.prefault = false;
  return InitSecretArena(arena);
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + (argc > 0 ? 1 : 0), argv + argc);
  cli::Terminal terminal(STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO);
  if (const Status prepared = Prepare(words); !prepared.has_value()) {
    terminal.ErrorLine(prepared.error().message);
    return ExitCodeOf(prepared.error().code);
  }
  const cli::ConnectionOptions environment{.address = FromEnvironment("LATCHKEY_ADDR"),
                                           .ca_file = FromEnvironment("LATCHKEY_CA"),
                                           .cert_file = FromEnvironment("LATCHKEY_CERT"),
                                           .key_file = FromEnvironment("LATCHKEY_KEY")};
  return cli::RunProgram(words, environment, terminal);
}
