#include "server/feed/log.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace latchkey::feed {
namespace {

std::uint32_t Saturate(std::uint64_t value) {
  constexpr std::uint64_t kMax = std::numeric_limits<std::uint32_t>::max();
  return static_cast<std::uint32_t>(std::min(value, kMax));
}

}  // namespace

LogEntry& ChangeLog::NewEntry() {
  constexpr std::size_t kChunk = LogView::kChunk;
  if (view_.end_ % kChunk == 0) {
    // Views hold the list that they were taken with: a new one takes its place.
    LogView::Chunks chunks(*view_.chunks_);
    chunks.push_back(std::make_shared<LogView::Chunk>());
    view_.chunks_ = std::make_shared<const LogView::Chunks>(std::move(chunks));
  }
  // No view shows this entry yet, so none reads what is written here.
  return (*view_.chunks_->back())[view_.end_++ % kChunk];
}

void ChangeLog::Append(const store::ChangeRow& row) {
  using store::ChangeKind;
  const bool of_client = row.kind == ChangeKind::kMembership || row.kind == ChangeKind::kClient;
  LogEntry& entry = NewEntry();
  entry.generation = row.generation;
  entry.object = of_client ? row.client.value : row.secret.value;
  entry.group = static_cast<std::uint32_t>(row.group.value);
  entry.version = Saturate(row.version.value);
  entry.previous = Saturate(row.previous.value);
  entry.kind = row.kind;
  if (row.kind == ChangeKind::kSecretGone || row.kind == ChangeKind::kRevoke) {
    entry.name = std::make_unique<const std::string>(row.name);
  }
  if (view_.end_ - view_.first_ <= max_entries_) return;
  view_.complete_since_ = view_.at(view_.first_).generation;
  if (++view_.first_ % LogView::kChunk != 0) return;
  LogView::Chunks chunks(view_.chunks_->begin() + 1, view_.chunks_->end());
  view_.chunks_ = std::make_shared<const LogView::Chunks>(std::move(chunks));
}

void ChangeLog::AssumeTrimmed() {
  if (view_.end_ < max_entries_ || view_.first_ > 0) return;
  view_.complete_since_ = view_.at(0).generation;
}

std::uint64_t LogView::After(Generation generation) const {
  std::uint64_t low = first_;
  std::uint64_t high = end_;
  while (low < high) {
    const std::uint64_t middle = low + (high - low) / 2;
    if (generation < at(middle).generation) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

ServedVersions::ServedVersions(const LogView& log, const catalog::Secret& secret)
    : secret_(secret), complete_since_(log.complete_since()) {
  using store::ChangeKind;
  for (std::uint64_t i = log.first(); i < log.end(); ++i) {
    const LogEntry& entry = log.at(i);
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
