// What every program of ours does in the first lines of main, before it reads anything (rule Y4).
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.h"

namespace latchkey {

struct HardenOptions {
  // Names of environment variables that stay, with their values; all others go. systemd's variables
  // (ServiceEnvironment()) are not kept by themselves.
  std::vector<std::string_view> keep_environment;
  // Descriptors above 2 that stay open, besides those that systemd passed to this very process
  // (LISTEN_PID, LISTEN_FDS: sockets and the descriptor store).
  std::vector<int> keep_fds;
};

// The variables that a service reads through libsystemd and for the key: NOTIFY_SOCKET, LISTEN_*,
// WATCHDOG_*, CREDENTIALS_DIRECTORY, INVOCATION_ID, JOURNAL_STREAM.
std::vector<std::string_view> ServiceEnvironment();

// In this order: no core dumps (RLIMIT_CORE 0), not dumpable (no ptrace by the same user;
// /proc/self belongs to root), descriptors 0 to 2 open (on /dev/null where they were closed), all
// unknown descriptors closed, umask 077, environment reduced, SIGPIPE ignored, soft limits of open
// files and of locked memory raised to the hard ones. Call once, before any thread exists.
// Sanitizer builds stay dumpable: the leak checker attaches to its own process. Errors: kInternal,
// naming the step; the program must not go on.
Status HardenProcess(const HardenOptions& options);

// Closes every descriptor above 2 that is not in `keep`, with close_range(2) or, where a kernel or
// a seccomp profile refuses that, by the list in /proc/self/fd. Part of HardenProcess; children
// call it before they execute a program.
Status CloseUnknownFds(std::vector<int> keep);
// The second way alone, for its test.
Status CloseUnknownFdsByListing(const std::vector<int>& keep);

// Gives the kernel back what the allocator holds free: glibc keeps the holes below its newest
// block, which after a cold start or a storm of connections is more than what is in use. Takes some
// milliseconds for a large heap, during which allocations of other threads wait: call it after
// loading and once in a while. `least_bytes`: does nothing while less than this lies free.
// Thread-safe.
void ReturnFreeMemory(std::size_t least_bytes = 0);

// From now on a block of `least_bytes` or more has pages of its own: it goes back to the kernel when it is freed, holds
// no memory where nobody wrote, and leaves no hole between smaller ones that stay. Costs some microseconds a block. At most
// `most_blocks` are so at a time, since a process has 65 530 mappings (vm.max_map_count); the others lie on the
// heap, as do those for which the first thread's heap has room left. glibc only: mallopt(3), M_MMAP_THRESHOLD and
// M_MMAP_MAX. Call it before any thread exists.
void GiveLargeBlocksTheirOwnPages(std::size_t least_bytes, std::size_t most_blocks);

}  // namespace latchkey
