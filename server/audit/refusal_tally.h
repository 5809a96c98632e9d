// RefusalTally: what callers without an identity may cost the access chain (rules A1, A2).
//
// Anybody who reaches the port can be refused, as fast as the network carries it. One record for each would let a stranger
// fill the disk of the spool and so, by rule A2, stop everybody's reads. So per source (address, name in the certificate,
// reason) the first limits::kRefusalsWrittenSingly of a window are records of their own (auth.refused), and the rest are
// counted and written as one auth.refused_many: how many, of what kind, from where, between which two times. A record or
// a count: nothing is left out.
//
// Sources are bounded, callers with and without a certified name apart, so that addresses, which cost nothing, cannot push
// names out. What does not fit goes into a source with the address "other": one per certified name and reason, and when
// there are too many names as well, one per reason.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include "common/base/clock.h"
#include "server/audit/access_log.h"

namespace latchkey::audit {

inline constexpr std::string_view kOtherAddresses = "other";

struct RefusalStats {
  std::uint64_t counted = 0;  // refusals that did not get a record of their own, since start
  std::uint64_t pending = 0;  // of these, not yet in an auth.refused_many
};

// Thread-safe: one lock.
class RefusalTally {
 public:
  explicit RefusalTally(const Clock& clock) : clock_(clock) {}

  // True when `refusal` (an auth.refused with address, actor_name and detail) is to be written by the caller. Else it was
  // counted here.
  bool IsWrittenSingly(const Event& refusal);

  // Appends the counts of the windows that have ended, or of all (before a stop), and forgets them. On an error of Append
  // every count is kept for the next call. Not synced here.
  Status WriteEnded(AccessLog& log) { return Write(log, false); }
  Status WriteAll(AccessLog& log) { return Write(log, true); }

  RefusalStats Stats() const;

 private:
  using Key = std::tuple<std::string, std::string, std::string>;  // address, name, reason
  using KeyView = std::tuple<std::string_view, std::string_view, std::string_view>;
  struct Source {
    MonotonicTime begin{};  // of the window
    std::uint32_t singly = 0;
    std::uint64_t counted = 0;
    std::int64_t first_ns = 0;  // wall clock of the first and the last that were counted
    std::int64_t last_ns = 0;
  };
  using Sources = std::map<Key, Source, std::less<>>;

  Source& SourceOf(const Event& refusal, MonotonicTime now);
  Status Write(AccessLog& log, bool all);

  const Clock& clock_;
  // Held over Append, so that no count is in two places; taken before the log's own lock, never while that is held.
  mutable std::mutex mutex_;
  Sources anonymous_;
  Sources named_;
  RefusalStats stats_;
};

}  // namespace latchkey::audit
