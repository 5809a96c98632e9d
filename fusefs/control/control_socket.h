// The unix socket in the keeper's private directory through which `latchkey-fs status` and
// `refetch` talk to the worker. One line with a command, one answer, end. Only root can reach it:
// the directory is 0700.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "common/base/result.h"
#include "common/base/unique_fd.h"

namespace latchkey::control {

// What a command answers. Called on the server's thread; must return soon.
using CommandHandler = std::function<std::string(std::string_view command)>;

class ControlServer {
 public:
  // Binds `private_dir`/control.sock, replacing what a dead worker left. Call before privileges are
  // dropped. Errors: kUnavailable.
  static Result<std::unique_ptr<ControlServer>> Bind(const std::string& private_dir);
  ~ControlServer();
  ControlServer(const ControlServer&) = delete;
  ControlServer& operator=(const ControlServer&) = delete;

  void Start(CommandHandler handler);

 private:
  explicit ControlServer(UniqueFd listener) : listener_(std::move(listener)) {}
  void Serve(const std::stop_token& stop);
  void Answer(UniqueFd peer);

  UniqueFd listener_;
  CommandHandler handler_;
  std::jthread thread_;
};

// Sends one command and returns the whole answer. Errors: kNotFound when no mount is kept there,
// kUnavailable when the worker does not answer within five seconds.
Result<std::string> AskControl(const std::string& private_dir, std::string_view command);

// The keeper's pid, for unmount: written and locked by the running keeper, so that a stale file is
// never believed.
class PidFile {
 public:
  // Errors: kConflict when another keeper holds it, kUnavailable.
  static Result<PidFile> Write(const std::string& private_dir);

 private:
  explicit PidFile(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};
// The pid of the keeper that holds the file. Errors: kNotFound when none does.
Result<int> KeeperPid(const std::string& private_dir);

}  // namespace latchkey::control
