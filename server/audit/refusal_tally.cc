#include "server/audit/refusal_tally.h"

#include "common/model/limits.h"

namespace latchkey::audit {
namespace {

bool HasEnded(MonotonicTime begin, MonotonicTime now) {
  return now - begin >= limits::kRefusalWindow;
}

}  // namespace

RefusalTally::Source& RefusalTally::SourceOf(const Event& refusal, MonotonicTime now) {
  Sources& sources = refusal.actor_name.empty() ? anonymous_ : named_;
  const auto known = sources.find(KeyView(refusal.address, refusal.actor_name, refusal.detail));
  if (known != sources.end()) return known->second;
  Key key(refusal.address, refusal.actor_name, refusal.detail);
  if (sources.size() >= limits::kMaxRefusalSources) {
    std::get<0>(key) = kOtherAddresses;
    // Addresses cost nothing and certified names do: a name that moves about stays one source. Only
    // too many names are dropped too. Reasons are constants of the program: a handful of sources
    // beyond the limit, whoever calls.
    if (sources.size() >= 2 * limits::kMaxRefusalSources && !sources.contains(key))
      std::get<1>(key).clear();
  }
  return sources.try_emplace(std::move(key), Source{now}).first->second;
}

bool RefusalTally::IsWrittenSingly(const Event& refusal) {
  const MonotonicTime now = clock_.Monotonic();
  const std::lock_guard lock(mutex_);
  Source& source = SourceOf(refusal, now);
  // With something counted the window goes on until that is written.
  if (source.counted == 0 && HasEnded(source.begin, now)) source = Source{now};
  if (source.counted == 0 && source.singly < limits::kRefusalsWrittenSingly) {
    ++source.singly;
    return true;
  }
  if (source.counted == 0) source.first_ns = refusal.time_ns;
  source.last_ns = refusal.time_ns;
  ++source.counted;
  ++stats_.counted;
  ++stats_.pending;
  return false;
}

Status RefusalTally::Write(AccessLog& log, bool all) {
  const MonotonicTime now = clock_.Monotonic();
  const std::lock_guard lock(mutex_);
  const auto is_due = [&](const auto& entry) { return all || HasEnded(entry.second.begin, now); };
  EventBatch batch;
  std::uint64_t written = 0;
  for (const Sources* sources : {&anonymous_, &named_}) {
    for (const auto& entry : *sources) {
      const Source& source = entry.second;
      if (!is_due(entry) || source.counted == 0) continue;
      Event event;
      event.type = EventType::kAuthRefusedMany;
      event.outcome = Outcome::kDenied;
      event.time_ns = source.last_ns;
      event.since_ns = source.first_ns;
      event.count = source.counted;
      std::tie(event.address, event.actor_name, event.detail) = entry.first;
      batch.Add(event);
      written += source.counted;
    }
  }
  RETURN_IF_ERROR(log.Append(batch));
  stats_.pending -= written;
  std::erase_if(anonymous_, is_due);
  std::erase_if(named_, is_due);
  return {};
}

RefusalStats RefusalTally::Stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

}  // namespace latchkey::audit
