// The worker process of latchkey-fs: serves the mount, follows the server, answers the control
// socket.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "fusefs/control/config.h"
#include "fusefs/journal/handover.h"
#include "fusefs/sync/owner.h"

namespace latchkey {

struct WorkerSetup {
  control::Config config;
  std::string private_dir;
  sync::OwnerDefaults defaults;           // names of the configuration, resolved by main
  std::optional<std::uint32_t> uid, gid;  // of worker_user
};

// Runs in a child of the keeper until the mount ends; returns the exit code.
int RunWorker(const WorkerSetup& setup, const journal::Handover& handover);

}  // namespace latchkey
