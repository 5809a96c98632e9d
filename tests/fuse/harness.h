// A mounted driver in a directory of its own: started, fed, and cleaned up even when a test fails in the middle.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "common/base/unique_fd.h"
#include "tests/fuse/protocol.h"

namespace latchkey::fusetest {

// Polls `done` until it is true or ten seconds are over.
bool Eventually(const std::function<bool()>& done);
// Whole file, or "!" and the name of the errno.
std::string ReadFile(const std::string& path);
std::string ReadAll(int fd);
int ErrnoOfOpen(const std::string& path, int flags);
long SizeOf(const std::string& path);
bool ProcessExists(pid_t pid);
// 'R', 'S', 'D', 'Z' ..., 0 when it is gone.
char ProcessState(pid_t pid);

struct DriverResult {
  int exit_code;
  std::string errors;
};

class TempDirectory {
 public:
  TempDirectory();
  ~TempDirectory();  // unmounts whatever is mounted below, then removes
  TempDirectory(const TempDirectory&) = delete;
  TempDirectory& operator=(const TempDirectory&) = delete;
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }
  // A directory fit to be a mount point.
  std::string MakeTarget(const std::string& name) const;

 private:
  std::string path_;
};

class Driver {
 public:
  // Does not wait. `directory` must outlive it.
  Driver(const TempDirectory& directory, const std::vector<std::string>& options,
         const std::string& target = "target", const std::string& private_dir = "private");
  ~Driver();
  Driver(const Driver&) = delete;
  Driver& operator=(const Driver&) = delete;

  const std::string& target() const { return target_; }
  std::string private_mount() const { return private_dir_ + "/mnt"; }
  pid_t pid() const { return pid_; }

  // One command, with the bytes that follow it; again with the next worker when one is killed in the middle.
  std::string Command(const std::string& line, const std::string& body = {});
  // Puts `text` as version `number` of `name`, mode 0444 root unless told otherwise.
  std::string Put(const std::string& name, std::uint32_t number, const std::string& text,
                  const std::string& mode = "0444", uid_t uid = 0, gid_t gid = 0);
  void Publish();
  // Put and publish the self-describing content of this version.
  void Rotate(const std::string& name, std::uint32_t version);
  std::map<std::string, long> Stats();
  pid_t worker() { return static_cast<pid_t>(Stats()["worker"]); }
  // Waits until users can see the mount.
  void WaitReady();
  // Waits until the waker and the notifier have made all that was published.
  void WaitSettled();
  // SIGTERM and its end; the exit code and what it said.
  DriverResult Stop();
  // The end of a driver that stops by itself.
  DriverResult WaitForEnd();
  void Kill(int signal_number) const;

 private:
  std::string target_;
  std::string private_dir_;
  std::string socket_;
  std::string error_file_;
  UniqueFd output_;
  pid_t pid_ = -1;
};

// The usual case: temporary directory, driver, one secret per name at version 1, mounted.
struct Mounted {
  explicit Mounted(const std::vector<std::string>& names,
                   const std::vector<std::string>& options = {});
  std::string operator/(const std::string& name) const { return driver.target() + "/" + name; }
  // A read-only bind of `what` (a path below the target, "" for all of it) at a new place; its path.
  std::string Bind(const std::string& what);
  TempDirectory directory;
  Driver driver;
  int binds = 0;
};

// inotify on one path.
class Watcher {
 public:
  Watcher(const std::string& path, std::uint32_t mask);
  // True when an event with any of `mask` (and this name, if given) arrives or has arrived; it is consumed, others are not.
  bool Sees(std::uint32_t mask, const std::string& name = {});
  // Forgets what has arrived.
  void Clear();

 private:
  void Collect();
  UniqueFd fd_;
  std::vector<std::pair<std::uint32_t, std::string>> events_;
};

}  // namespace latchkey::fusetest
