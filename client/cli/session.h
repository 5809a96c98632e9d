// Session: what a running command works with: the terminal, the options of every command, the connection, and how results
// and errors are shown.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "client/cli/names.h"
#include "client/cli/terminal.h"
#include "client/lib/api_client.h"
#include "common/base/result.h"
#include "common/wire/json_out.h"

namespace latchkey::cli {

// From flags, or else from the environment (main.cc reads it).
struct ConnectionOptions {
  std::string address, ca_file, cert_file, key_file;
};

// What a write did, or with --dry-run would do.
struct WriteReport {
  std::string action;  // stable: "secret.rotate"
  std::string name;    // of the object
  std::string done;    // `rotated secret "db", version 3`
  std::string would;   // `rotate secret "db"`: shown as `would ...`
  client::WriteReceipt receipt = {};
  std::vector<std::pair<std::string, std::string>> more =
      {};  // further JSON members with their JSON text
};

// Not thread-safe. One per process run.
class Session {
 public:
  Session(Terminal& terminal, ConnectionOptions connection)
      : terminal_(terminal), connection_(std::move(connection)) {}

  Terminal& terminal() { return terminal_; }
  ConnectionOptions& connection() { return connection_; }
  bool json = false;
  bool dry_run = false;
  bool quick = false;  // completion: short deadlines, no second attempt

  // Connects lazily. Errors: kInvalidArgument when an option is missing, with how to give it.
  Result<client::ApiClient*> Api();

  // Notes which object a command is about; checked against the rule of names. When the command ends with kNotFound, the
  // first noted one that does not exist is named, with names that were probably meant.
  Status About(NameKind kind, const std::string& name);
  // The same for a name that is looked up among what the own certificate may read.
  Status AboutOwn(const std::string& name);

  // The names that exist, sorted. With own certificate only: names that may be read.
  Result<std::vector<std::string>> LiveNames(NameKind kind);
  Result<std::vector<std::string>> OwnNames();

  // One JSON document and a newline on stdout.
  void PrintJson(const std::function<void(wire::JsonOut&)>& write);
  void Print(std::string_view text) { terminal_.Out(text); }
  void Report(const WriteReport& report);

  // Asks on a terminal whether to go on; without a terminal, or with `yes`, the answer is yes. kInvalidArgument: no.
  Status Confirm(const std::string& question, bool yes);

  // What to do instead: a line after the error, should the command fail and no name have been meant.
  void Hint(std::string text) { hint_ = std::move(text); }
  // Shows the error with its hints and gives the exit code.
  int Fail(const Error& error);

 private:
  struct Subject {
    NameKind kind;
    std::string name;
    bool own;
  };
  // The noted object that is missing, and what may have been meant.
  std::optional<std::pair<Subject, std::vector<std::string>>> FindMissing();

  Terminal& terminal_;
  ConnectionOptions connection_;
  std::unique_ptr<client::ApiClient> api_;
  std::vector<Subject> subjects_;
  std::string hint_;
};

// `secret "db"`.
std::string Named(NameKind kind, std::string_view name);
std::string Quoted(std::string_view text);
std::string JoinQuoted(const std::vector<std::string>& names);

// JSON members.
void WriteTexts(wire::JsonOut& out, std::string_view key, const std::vector<std::string>& texts);
void WriteOptionalInt(wire::JsonOut& out, std::string_view key,
                      const std::optional<std::int64_t>& value);
std::string JsonTexts(const std::vector<std::string>& texts);

}  // namespace latchkey::cli
