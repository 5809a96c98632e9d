// The verifier behind `latchkeyd check` (rules C8, G1, G2, A3, G6): reads one consistent state of the store and says of
// every row whether it is what this server wrote. Works beside a running server and on a backup; writes nothing.
//
// What it cannot see: a row that was deleted whole, or an old grant put back, with its old MAC, in place of nothing
// (rule G3 is a later step).
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "common/base/result.h"
#include "server/keys/keyring.h"
#include "server/store/store.h"

namespace latchkey::service {

struct CheckOptions {
  std::string chain_id;  // of the access chain, "access:main"
  // Where the spool is, archived segments first. Empty: a backup, whose access chain lies elsewhere and is not checked.
  std::vector<std::string> spool_directories;
  std::string anchor_path;  // empty: not checked
};

struct CheckCounts {
  std::uint64_t clients = 0, groups = 0, memberships = 0, grants = 0;
  std::uint64_t live_secrets = 0, deleted_secrets = 0, versions = 0, settings = 0;
  std::uint64_t store_events = 0, access_events = 0;
  std::uint64_t content_bytes = 0;
  std::uint64_t damaged = 0;
  Generation generation;
};

// One line per damaged thing, as it is found: "clients: client 17 (web-1): ...".
using Finding = std::function<void(const std::string& line)>;

// Errors only when the check itself cannot be done (kUnavailable); damage is counted and reported, not returned.
// `store` is open in any mode.
Result<CheckCounts> CheckStore(store::Store& store, const keys::Keyring& keys,
                               const CheckOptions& options, const Finding& report);

}  // namespace latchkey::service
