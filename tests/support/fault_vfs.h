// A SQLite VFS between the store and the disk that fails chosen calls (F04, F05) and remembers what
// was synced, so that a test can make the files that a power loss would leave (F02). Test only.
#pragma once

#include <cstdint>
#include <filesystem>
#include <random>

namespace latchkey::testing {

// kSyncDatabase: of the database file itself, which only checkpoints sync; kSync counts those of
// all files.
enum class FaultOp { kRead, kWrite, kSync, kTruncate, kSyncDatabase };
enum class FaultSpan { kOnce, kForEver };

// One per process; all functions are thread-safe.
class FaultVfs {
 public:
  // Registers it on first use.
  static const char* Name();

  // From now on the n-th call (1 = the next) of that kind fails with SQLite's result `code`, and
  // with kForEver all after it.
  static void FailAt(FaultOp op, std::uint64_t n, FaultSpan span, int code);
  // No more faults; counting starts anew.
  static void Heal();
  // Calls of a kind since Heal.
  static std::uint64_t Count(FaultOp op);
  // True once a fault was given.
  static bool Struck();

  // Begins to record the files that are opened from now on.
  static void Record();
  // `honest` false: a sync does nothing, as on a disk that lies. For showing that a test can fail.
  static void SetHonest(bool honest);
  // Writes each recorded file to `directory` as a power loss now could leave it: everything synced,
  // and of what was not, each 512-byte sector of each write or not, as `random` says.
  static void WriteCrashImage(const std::filesystem::path& directory, std::mt19937_64& random);
};

}  // namespace latchkey::testing
