// The kernel's view of one FUSE connection, through a fusectl file system of our own that is
// mounted nowhere.
#pragma once

#include <sys/types.h>

#include <optional>

#include "common/base/result.h"
#include "common/base/unique_fd.h"

namespace latchkey::keeper {

class FuseControl {
 public:
  FuseControl() = default;
  // Errors: kUnavailable when the kernel has no fusectl; the watchdog then has the journal alone.
  static Result<FuseControl> Open(dev_t connection);
  // Requests that wait for an answer, read or not; nullopt when it cannot be told (connection
  // gone).
  std::optional<std::uint64_t> Waiting() const;
  // Ends the connection: every request in it fails. The last resort.
  void Abort() const;

 private:
  UniqueFd directory_;
};

}  // namespace latchkey::keeper
