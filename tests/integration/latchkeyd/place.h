// A scratch installation of latchkeyd and the means to run the real program in it.
#pragma once

#include <sys/types.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/base/bytes.h"
#include "common/base/unique_fd.h"

namespace latchkey {

struct Outcome {
  int exit_code = -1;  // 128 + signal when it was killed
  std::string out;
  std::string err;
};

// Runs a program to its end with empty stdin and no controlling terminal.
Outcome RunProgram(const std::vector<std::string>& argv);
Outcome Latchkeyd(const std::vector<std::string>& arguments);

// A running server. Ended by its own process id when the object goes.
class RunningServer {
 public:
  // Returns once the server said READY=1 through NOTIFY_SOCKET, or ended.
  explicit RunningServer(const std::string& directory, const std::vector<std::string>& extra = {},
                         const std::vector<std::string>& environment = {});
  ~RunningServer();
  RunningServer(const RunningServer&) = delete;
  RunningServer& operator=(const RunningServer&) = delete;

  bool ready() const { return ready_; }
  pid_t pid() const { return pid_; }
  void Signal(int signal) const;
  // Waits for a message of the service protocol that holds `text`; false when the server ended before.
  bool AwaitNotice(const std::string& text);
  // Exit code; waits for the end.
  int Wait();
  std::string log() const;

 private:
  std::string directory_;
  UniqueFd notify_;
  pid_t pid_ = -1;
  int exit_code_ = -1;
  bool ready_ = false;
};

class Place {
 public:
  // `with_certificates`: makes a CA, a server certificate and client certificates for admin and web-1.
  explicit Place(bool with_certificates = false);
  ~Place();
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;

  std::string Path(const std::string& name) const { return directory_ + "/" + name; }
  std::string config() const { return Path("latchkeyd.toml"); }
  std::string store() const { return Path("state/latchkey.db"); }
  // Writes the configuration; `changes` replaces or adds lines "key = value" by dotted key.
  void WriteConfig(const std::map<std::string, std::string>& changes = {}) const;
  Outcome Command(std::vector<std::string> arguments) const;  // adds --config
  void Init() const;
  // Fills an initialised store through the use cases: clients, groups, memberships, grants, secrets with several versions,
  // a deleted secret, owners, types, SPIFFE ids. No server may run.
  void Populate() const;
  const std::string& directory() const { return directory_; }

 private:
  std::string directory_;
};

// One request to the server of `place` with a client's certificate, through curl; `out` ends with a newline and the status.
Outcome Curl(const Place& place, const std::string& client, const std::string& path,
             const std::vector<std::string>& more = {});
// Creates a secret as `admin`; the status of the answer, "000" when there was none.
std::string CreateSecret(const Place& place, const std::string& name);
std::string Trimmed(std::string text);  // without trailing newlines

ByteVector ReadBytes(const std::string& path);
void WriteBytes(const std::string& path, Bytes bytes);
std::string ReadText(const std::string& path);

// Runs SQL on a store file as someone with write access would; checks of the schema are off.
void Sql(const std::string& path, const std::string& sql);
std::vector<std::string> SqlColumn(const std::string& path, const std::string& sql);

}  // namespace latchkey
