// ReadTally: what one uid may cost the two files of read records (R23).
//
// The files are shared by all who open secrets, and whoever may open one may do it as fast as the machine goes. One line for
// each would let any user push the lines of all others out within seconds. So in each window of limits::kReadWindow a uid
// writes lines of its own up to limits::kReadShareBytes; its further opens are counted per uid, secret and version, and each
// count becomes one line when the window ends. A line or a count: nothing is left out.
//
// Shares and counts are bounded, those of host accounts and of namespace uids (from limits::kFirstNamespaceUid) apart:
// whoever makes a user namespace has tens of thousands of uids for nothing, and must not take the places of the accounts.
// Uids that find no share use one together. Where no counter is left, opens are counted per secret and version without
// the uid, and when that is too much as well, in one counter for all.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <tuple>

#include "common/base/clock.h"
#include "fusefs/journal/region.h"

namespace latchkey::reads {

inline constexpr std::uint32_t kOtherUids = 0xffff'ffff;  // (uid_t)-1 is nobody's

// One thread, and one at a time for a region. The counts live in the region: a new worker goes on where its predecessor
// was killed, and at most the open it was at is counted twice.
class ReadTally {
 public:
  // Node kNoNode: opens of secrets for which no counter was left. False: not taken, keep it.
  static constexpr std::uint32_t kNoNode = 0;
  using CountSink = std::function<bool(const journal::ReadCount& count)>;

  // Both must outlive it.
  ReadTally(const journal::Region& region, const Clock& clock);

  // True when the open is to be written as a line of its own, and the line then charged. Else Count() it.
  bool MayWrite(const journal::ReadRecord& record);
  void Charge(const journal::ReadRecord& record, std::size_t line_bytes);
  void Count(const journal::ReadRecord& record);

  // Hands out the counts of the window if it has ended, or in any case (before a stop), forgets them and begins a new one.
  // False when `sink` took not all: the window then goes on until it does.
  bool WriteEnded(const CountSink& sink);
  bool WriteAll(const CountSink& sink);
  // Opens in counts that are not written yet.
  std::uint64_t Pending() const;

 private:
  using Key = std::tuple<std::uint32_t, std::uint32_t, std::uint64_t>;  // uid, node, version

  static std::size_t PoolOf(std::uint32_t uid);
  journal::ReadShare& ShareOf(std::uint32_t uid);
  journal::ReadCount& CountOf(const journal::ReadRecord& record);
  void BeginWindow();

  journal::ReadTallies& memory_;
  const Clock& clock_;
  std::array<std::map<Key, std::size_t>, 2> index_;  // of the counts in use, by pool
};

}  // namespace latchkey::reads
