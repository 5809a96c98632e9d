// Children of the keeper: started with exactly the descriptors that they may have, looked at
// without ever blocking.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <optional>
#include <vector>

namespace latchkey::keeper {

// Forks. The child dies with this process, has default signals, no descriptors but 0-2 and
// `descriptors`, runs `body` and exits with what it returns. -1: the fork failed. The caller must
// be single-threaded.
pid_t StartChild(std::vector<int> descriptors, const std::function<int()>& body);

struct ChildState {
  enum class Kind {
    kRuns,
    kDead,
    kReaped
  } kind;      // kDead: killed or a zombie whose threads have not all left yet
  int status;  // of waitpid, when reaped
};
// Never blocks, even on a child with a thread in uninterruptible sleep (5.2, first deadlock).
ChildState LookAt(pid_t child);
// Exit code of a child, or nullopt when it did not end in time. A signal counts as 128 + its
// number.
std::optional<int> WaitForExit(pid_t child, std::chrono::milliseconds limit);

}  // namespace latchkey::keeper
