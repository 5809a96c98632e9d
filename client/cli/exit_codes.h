// Exit codes of `latchkey`: a contract with scripts (docs/cli.md). Errors map through ExitCodeOf (common/base/result.h):
//
//   0 done, or allowed      4 known, but not allowed; `can` says no      7 try again later; `--wait` timed out
//   1 a bug of ours         5 not found                                  8 stored data is damaged
//   2 wrong usage or input  6 name taken, or a race was lost
//   3 not authenticated, on either side
#pragma once

namespace latchkey::cli {

inline constexpr int kExitDone = 0;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitNotAllowed = 4;

}  // namespace latchkey::cli
