// What the keeper hands to a child: descriptors and paths. Borrowed; the keeper's copies outlive
// the child's.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/result.h"

namespace latchkey::journal {

struct Handover {
  int fuse_fd = -1;     // worker and notifier only; the waker must never have it (5.2, deadlocks)
  int region_fd = -1;   // journal region
  int content_fd = -1;  // worker only: content memory, memfd_secret or locked memfd
  int wake_fd = -1;     // worker: pokes the waker; waker: its end
  int notify_fd = -1;   // worker: pokes the notifier; notifier: its end
  std::string private_path;    // the private mount, as the waker sees it
  bool content_locked = true;  // false: allow_unlocked was given and locking failed
};

// Replaces the process image by `path argv...` with the descriptors of `handover` moved to fixed
// numbers from 3 on and the rest described in one extra last argument "--handover=...". Returns
// only on failure.
Error ExecWith(const Handover& handover, const std::string& path, std::vector<std::string> argv);
// The other side: parses the argument of ExecWith (without "--handover="). Errors:
// kInvalidArgument.
Result<Handover> ParseHandover(std::string_view text);

}  // namespace latchkey::journal
