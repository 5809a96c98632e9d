#include <linux/fuse.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common/base/log.h"
#include "fusefs/journal/events.h"
#include "fusefs/journal/privileges.h"
#include "fusefs/wake/process.h"
#include "fusefs/wake/wake.h"

namespace latchkey::wake {
namespace {

constexpr int kLookAroundMs = 1000;

// Drops the pages and attributes of one inode. ENOENT: the kernel does not know it, so there is
// nothing to drop.
void DropPages(int fuse_fd, std::uint64_t node) {
  fuse_notify_inval_inode_out body{};
  body.ino = node;
  fuse_out_header head{};
  head.len = sizeof head + sizeof body;
  head.error = FUSE_NOTIFY_INVAL_INODE;
  iovec parts[2] = {{&head, sizeof head}, {&body, sizeof body}};
  [[maybe_unused]] const ssize_t written = writev(fuse_fd, parts, 2);
}

}  // namespace

int RunNotifier(const journal::Handover& handover) {
  const auto region = journal::Region::Attach(handover.region_fd);
  if (!region.has_value()) return 1;
  if (const Status kept = journal::KeepCapabilities({}); !kept) {
    Log(LogLevel::kError, "the notifier cannot start", {{"error", kept.error().message}});
    return 1;
  }
  journal::Layout& layout = region.value().layout();
  const auto make = [&](const journal::Event& event) {
    DropPages(handover.fuse_fd, event.node);
    if (event.node >= journal::kFirstTwinnedNode)
      DropPages(handover.fuse_fd, journal::kTwinBit | event.node);
  };
  journal::MakeEvents(layout, layout.notify, true, make);
  while (WaitForPoke(handover.notify_fd, kLookAroundMs))
    journal::MakeEvents(layout, layout.notify, false, make);
  return 0;
}

}  // namespace latchkey::wake
