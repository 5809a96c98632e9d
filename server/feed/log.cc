#include "server/feed/log.h"

#include <algorithm>
#include <limits>

namespace latchkey::feed {
namespace {

std::uint32_t Saturate(std::uint64_t value) {
  constexpr std::uint64_t kMax = std::numeric_limits<std::uint32_t>::max();
  return static_cast<std::uint32_t>(std::min(value, kMax));
}

}  // namespace

void ChangeLog::Append(const store::ChangeRow& row) {
  using store::ChangeKind;
  const bool of_client = row.kind == ChangeKind::kMembership || row.kind == ChangeKind::kClient;
  Entry entry;
  entry.generation = row.generation;
  entry.object = of_client ? row.client.value : row.secret.value;
  entry.group = static_cast<std::uint32_t>(row.group.value);
  entry.version = Saturate(row.version.value);
  entry.previous = Saturate(row.previous.value);
  entry.kind = row.kind;
  if (row.kind == ChangeKind::kSecretGone || row.kind == ChangeKind::kRevoke) {
    entry.name = std::make_unique<const std::string>(row.name);
  }
  entries_.push_back(std::move(entry));
  if (entries_.size() <= max_entries_) return;
  complete_since_ = entries_.front().generation;
  entries_.pop_front();
  ++trimmed_;
}

void ChangeLog::AssumeTrimmed() {
  if (entries_.size() < max_entries_ || trimmed_ > 0) return;
  complete_since_ = entries_.front().generation;
}

std::uint64_t ChangeLog::After(Generation generation) const {
  const auto at = std::upper_bound(
      entries_.begin(), entries_.end(), generation,
      [](Generation wanted, const Entry& entry) { return wanted < entry.generation; });
  return trimmed_ + static_cast<std::uint64_t>(at - entries_.begin());
}

ServedVersions::ServedVersions(const ChangeLog& log, const catalog::Secret& secret)
    : secret_(secret), complete_since_(log.complete_since()) {
  using store::ChangeKind;
  for (std::uint64_t i = log.first(); i < log.end(); ++i) {
    const ChangeLog::Entry& entry = log.at(i);
    if (entry.kind == ChangeKind::kMembership) {
      joined_[entry.client()] = entry.generation;
    } else if (entry.secret() != secret.id()) {
      continue;
    } else if (entry.kind == ChangeKind::kSecret) {
      marks_.push_back({entry.generation, entry.version, entry.previous});
    } else if (entry.kind == ChangeKind::kGrant) {
      granted_.push_back({entry.generation, entry.group});
    }
  }
}

std::optional<VersionNumber> ServedVersions::At(Generation generation,
                                                const catalog::Client& client) const {
  if (generation.value == 0 || generation < complete_since_) return std::nullopt;
  const auto after = [generation](const auto& item) { return generation < item.generation; };
  // A grant or a membership that came later may be what lets the client read: then it has not said
  // yet that it serves it.
  const auto joined = joined_.find(client.row.id);
  if (joined != joined_.end() && generation < joined->second) return std::nullopt;
  for (const Granted& granted : granted_) {
    if (after(granted) &&
        std::binary_search(client.groups.begin(), client.groups.end(), granted.group)) {
      return std::nullopt;
    }
  }
  const auto next = std::find_if(marks_.begin(), marks_.end(), after);
  if (next != marks_.begin()) return VersionNumber{std::prev(next)->version};
  if (next == marks_.end()) return secret_.version();
  if (next->previous == 0) return std::nullopt;
  return VersionNumber{next->previous};
}

}  // namespace latchkey::feed
