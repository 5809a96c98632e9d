#include <fcntl.h>
#include <linux/capability.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "common/base/log.h"
#include "common/base/unique_fd.h"
#include "fusefs/journal/events.h"
#include "fusefs/journal/privileges.h"
#include "fusefs/wake/process.h"
#include "fusefs/wake/wake.h"

namespace latchkey::wake {
namespace {

using journal::Event;
using journal::EventKind;

constexpr int kLookAroundMs = 1000;  // a poke that was lost costs at most this

// System calls on the private mount. Every one may hang when the worker is stuck.
class Toucher {
 public:
  static Result<Toucher> Open(const std::string& private_path) {
    const UniqueFd root(open(private_path.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    Toucher toucher;
    toucher.pub_.Reset(openat(root.get(), "pub", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    toucher.new_.Reset(openat(root.get(), "new", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!toucher.pub_.valid() || !toucher.new_.valid())
      return Error{Errc::kUnavailable,
                   "cannot enter the private mount " + private_path + ": " + std::strerror(errno)};
    return toucher;
  }

  void Make(const Event& event) const {
    const std::string name(event.name);
    switch (event.kind) {
      case EventKind::kRotated:
        Touch(name);
        break;
      case EventKind::kNew:
        Appear(name, false);
        break;
      case EventKind::kRevived:
        Appear(name, true);
        break;
      case EventKind::kRevoked:
        if (unlinkat(pub_.get(), name.c_str(), 0) != 0 && errno != ENOENT) Complain("unlink", name);
        break;
    }
  }

 private:
  // mtime alone is MODIFY, both times would be ATTRIB; an open for writing that is closed is
  // CLOSE_WRITE. atime before it, which is the ACCESS of any reader: the second touch tells the
  // worker that the kernel knows the size from the first (mount/handlers.cc).
  void Touch(const std::string& name) const {
    if (!SetTimes(name, UTIME_NOW, UTIME_OMIT) || !SetTimes(name, UTIME_OMIT, UTIME_NOW)) return;
    const UniqueFd file(
        openat(pub_.get(), name.c_str(), O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    if (!file.valid()) Complain("open", name);
  }

  bool SetTimes(const std::string& name, long atime_ns, long mtime_ns) const {
    const timespec times[2] = {{0, atime_ns}, {0, mtime_ns}};
    const bool done = utimensat(pub_.get(), name.c_str(), times, AT_SYMLINK_NOFOLLOW) == 0;
    if (!done) Complain("utimensat", name);
    return done;
  }

  // The rename makes MOVED_TO. It runs over the name that readers may use already, so that inode is
  // held until the kernel has been shown that it lives on; without that a watch on it would be lost
  // with its last name. A touch shows it: its answer is always taken in. That of a look-up is
  // dropped when a notice for the inode comes at the same time.
  void Appear(const std::string& name, bool rotated) const {
    const UniqueFd held(openat(pub_.get(), name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    const std::string stand_in = "x" + name;
    if (renameat(new_.get(), stand_in.c_str(), pub_.get(), name.c_str()) != 0)
      return Complain("rename", name);
    if (rotated) {
      Touch(name);
    } else {
      SetTimes(name, UTIME_NOW, UTIME_OMIT);
    }
  }

  static void Complain(const char* call, const std::string& name) {
    if (errno == ENOENT) return;  // gone again meanwhile: its own event follows
    Log(LogLevel::kWarn, "the waker could not touch a secret",
        {{"call", call}, {"name", name}, {"error", std::strerror(errno)}});
  }

  UniqueFd pub_;
  UniqueFd new_;
};

}  // namespace

int RunWaker(const journal::Handover& handover, const WakerOptions& options) {
  const auto region = journal::Region::Attach(handover.region_fd);
  if (!region.has_value()) return 1;
  journal::Layout& layout = region.value().layout();
  while (layout.mounted.load() == 0) {
    journal::WaitWhile(layout.mounted, 0, std::chrono::milliseconds(kLookAroundMs));
    if (!WaitForPoke(handover.wake_fd, 0)) return 0;
  }
  if (options.drop_capabilities)
    if (const Status kept = journal::KeepCapabilities({CAP_DAC_OVERRIDE, CAP_FOWNER}); !kept) {
      Log(LogLevel::kError, "the waker cannot start", {{"error", kept.error().message}});
      return 1;
    }
  const auto toucher = Toucher::Open(handover.private_path);
  if (!toucher.has_value()) {
    Log(LogLevel::kError, "the waker cannot start", {{"error", toucher.error().message}});
    return 1;
  }
  const auto make = [&](const Event& event) { toucher.value().Make(event); };
  journal::MakeEvents(layout, layout.wake, true, make);
  while (WaitForPoke(handover.wake_fd, kLookAroundMs))
    journal::MakeEvents(layout, layout.wake, false, make);
  return 0;
}

}  // namespace latchkey::wake
