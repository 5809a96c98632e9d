#include "fusefs/reads/tally.h"

#include <algorithm>
#include <optional>

#include "common/model/limits.h"

namespace latchkey::reads {
namespace {

using journal::kReadCounts;
using journal::ReadCount;
using journal::ReadPool;
using journal::ReadRecord;
using journal::ReadShare;

// The last quarter of the counters is kept for opens that are counted without their uid, the very last for all.
constexpr std::size_t kNamedCounts = kReadCounts - kReadCounts / 4;
constexpr std::size_t kLastCount = kReadCounts - 1;

std::uint64_t NowNs(const Clock& clock) {
  return static_cast<std::uint64_t>(
      std::chrono::nanoseconds(clock.Monotonic().time_since_epoch()).count());
}

bool InUse(const ReadCount& count) {
  return count.count.load(std::memory_order_relaxed) != 0;
}

std::optional<std::size_t> FreeCount(const ReadPool& pool, std::size_t from, std::size_t to) {
  for (std::size_t at = from; at < to; ++at)
    if (!InUse(pool.counts[at])) return at;
  return std::nullopt;
}

}  // namespace

ReadTally::ReadTally(const journal::Region& region, const Clock& clock)
    : memory_(region.layout().tallies), clock_(clock) {
  for (std::size_t pool = 0; pool < memory_.pools.size(); ++pool)
    for (std::size_t at = 0; at < kReadCounts; ++at) {
      const ReadCount& count = memory_.pools[pool].counts[at];
      if (InUse(count)) index_[pool].emplace(Key{count.uid, count.node, count.version}, at);
    }
}

std::size_t ReadTally::PoolOf(std::uint32_t uid) {
  return uid < limits::kFirstNamespaceUid ? 0 : 1;
}

ReadShare& ReadTally::ShareOf(std::uint32_t uid) {
  auto& shares = memory_.pools[PoolOf(uid)].shares;
  ReadShare* unused = nullptr;
  for (std::size_t at = 0; at < journal::kReadShares; ++at) {
    if (shares[at].spent_bytes != 0 && shares[at].uid == uid) return shares[at];
    if (shares[at].spent_bytes == 0 && unused == nullptr) unused = &shares[at];
  }
  return unused != nullptr ? *unused : shares.back();
}

bool ReadTally::MayWrite(const ReadRecord& record) {
  return ShareOf(record.uid).spent_bytes < limits::kReadShareBytes;
}

void ReadTally::Charge(const ReadRecord& record, std::size_t line_bytes) {
  BeginWindow();
  ReadShare& share = ShareOf(record.uid);
  share.uid = record.uid;
  share.spent_bytes += static_cast<std::uint32_t>(line_bytes);
}

ReadCount& ReadTally::CountOf(const ReadRecord& record) {
  const std::size_t which = PoolOf(record.uid);
  ReadPool& pool = memory_.pools[which];
  auto& index = index_[which];
  const Key named{record.uid, record.node, record.version};
  const Key unnamed{kOtherUids, record.node, record.version};
  for (const auto& [key, from, to] : {std::tuple{named, std::size_t{0}, kNamedCounts},
                                      std::tuple{unnamed, kNamedCounts, kLastCount}}) {
    if (const auto known = index.find(key); known != index.end()) return pool.counts[known->second];
    // A place is looked for only while there is one: a flood would else search in vain for each of its opens.
    const bool full = index.size() >= to;
    const auto place = full ? std::nullopt : FreeCount(pool, from, to);
    if (!place) continue;
    index.emplace(key, *place);
    std::tie(pool.counts[*place].uid, pool.counts[*place].node, pool.counts[*place].version) = key;
    return pool.counts[*place];
  }
  ReadCount& last = pool.counts[kLastCount];
  std::tie(last.uid, last.node, last.version) = Key{kOtherUids, kNoNode, 0};
  return last;
}

void ReadTally::Count(const ReadRecord& record) {
  BeginWindow();
  ReadCount& count = CountOf(record);
  const std::uint64_t so_far = count.count.load(std::memory_order_relaxed);
  count.first_ns = so_far == 0 ? record.time_ns : std::min(count.first_ns, record.time_ns);
  count.last_ns = so_far == 0 ? record.time_ns : std::max(count.last_ns, record.time_ns);
  count.count.store(so_far + 1, std::memory_order_release);
}

void ReadTally::BeginWindow() {
  if (memory_.began_ns.load(std::memory_order_relaxed) == 0)
    memory_.began_ns.store(NowNs(clock_), std::memory_order_relaxed);
}

std::uint64_t ReadTally::Pending() const {
  std::uint64_t sum = 0;
  for (const ReadPool& pool : memory_.pools)
    for (const ReadCount& count : pool.counts) sum += count.count.load(std::memory_order_relaxed);
  return sum;
}

bool ReadTally::WriteEnded(const CountSink& sink) {
  const std::uint64_t began_ns = memory_.began_ns.load(std::memory_order_relaxed);
  const std::uint64_t window_ns = std::chrono::nanoseconds(limits::kReadWindow).count();
  return began_ns == 0 || NowNs(clock_) - began_ns < window_ns || WriteAll(sink);
}

bool ReadTally::WriteAll(const CountSink& sink) {
  for (std::size_t which = 0; which < memory_.pools.size(); ++which) {
    for (ReadCount& count : memory_.pools[which].counts) {
      if (!InUse(count)) continue;
      if (!sink(count)) return false;
      count.count.store(0, std::memory_order_release);
      index_[which].erase(Key{count.uid, count.node, count.version});
    }
  }
  for (ReadPool& pool : memory_.pools) pool.shares = {};
  memory_.began_ns.store(0, std::memory_order_relaxed);
  return true;
}

}  // namespace latchkey::reads
