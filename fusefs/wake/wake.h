// The two helper processes of 5.2: the waker makes inotify watchers fire, the notifier drops pages
// of mappings.
#pragma once

#include "fusefs/journal/handover.h"

namespace latchkey::wake {

struct WakerOptions {
  bool drop_capabilities = true;  // keeps CAP_DAC_OVERRIDE and CAP_FOWNER only
};

// Runs until its socket closes or SIGTERM. Does ordinary system calls on the private mount: for a
// rotation utimensat of mtime only, then open(O_WRONLY) + close; for a new secret rename of
// /new/xNAME to /pub/NAME; for a revocation unlink. It may hang inside the mount (that is why it is
// a process of its own): the keeper kills it then, and the next one makes up what is still pending.
// Returns the exit code.
int RunWaker(const journal::Handover& handover, const WakerOptions& options);

// Runs until its socket closes or SIGTERM. Writes INVAL_INODE(node, 0, 0) for each pending event
// and nothing else.
int RunNotifier(const journal::Handover& handover);

}  // namespace latchkey::wake
