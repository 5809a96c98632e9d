#include "fusefs/snapshot/store.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>

#include "common/base/log.h"
#include "common/model/metadata.h"
#include "fusefs/snapshot/memory.h"

namespace latchkey::snapshot {
namespace {

constexpr std::uint64_t kGraceNs = std::chrono::nanoseconds(limits::kSizeGrace).count();

// Reads a stored name that may be damaged.
std::string_view StoredText(const char* text, std::size_t limit) {
  const std::size_t length = strnlen(text, limit);
  return length == limit ? std::string_view{} : std::string_view(text, length);
}

bool BlockIsSane(const VersionRecord& record) {
  return record.block_bytes <= limits::kContentAreaBytes &&
         record.content_offset <= limits::kContentAreaBytes - record.block_bytes &&
         record.content_offset % kBlockBytes == 0;
}

// Everything that a handler will use of a record without looking again.
bool RecordIsSane(const VersionRecord& record, NodeIndex node) {
  return record.serial.load() != 0 && record.node == node && BlockIsSane(record) &&
         record.content_bytes <= record.block_bytes &&
         record.block_bytes == record.content_bytes + record.head_bytes + record.tail_bytes &&
         record.checksum_bytes <= kMaxChecksumBytes && (record.mode & ~0777U) == 0 &&
         (IsControlNode(node) || IsMountableName(StoredText(record.secret, kStoredNameBytes)));
}

std::uint32_t UsedRecords(const ContentLayout& layout) {
  return static_cast<std::uint32_t>(
      std::min<std::uint64_t>(layout.header.record_limit.load(), limits::kMaxVersionRecords));
}

void Initialise(ContentLayout& layout) {
  layout.header.memory_bytes = sizeof(ContentLayout);
  layout.header.layout_bytes = sizeof(ContentLayout);
  layout.header.next_serial.store(1);
  layout.header.magic = kContentMagic;
}

Status CheckHeader(const ContentLayout& layout) {
  const ContentHeader& header = layout.header;
  if (header.magic != kContentMagic || header.memory_bytes != sizeof(ContentLayout) ||
      header.layout_bytes != sizeof(ContentLayout))
    return Error{Errc::kCorrupt,
                 "the content memory was made by another version; restart latchkey-fs"};
  const std::uint64_t root = header.root.load();
  const Index& index = layout.indexes[root & 1];
  if (root != 0 && (index.generation != root >> 1 || index.node_count > limits::kMaxMountNodes))
    return Error{Errc::kCorrupt, "the content memory is damaged; restart latchkey-fs"};
  return {};
}

// One store both counts and says for which request: a worker that dies beside it counts once. The
// slot's thread is the only one that counts in this word; the exchange fails when the record was
// freed meanwhile, for a new version starts with words that no earlier one had (InitialCount).
bool AddCount(Word& word, std::uint64_t sequence, std::uint64_t delta) {
  std::uint64_t before = word.load(std::memory_order_acquire);
  if (before >> kCountBits == CountTag(sequence)) return true;
  return word.compare_exchange_strong(
      before, CountTag(sequence) << kCountBits | ((before + delta) & kCountMask),
      std::memory_order_seq_cst);
}

// What a new worker finds out about the memory before it serves it.
class Recovery {
 public:
  Recovery(ContentLayout& layout, BlockAllocator& blocks, std::set<std::uint32_t>& free_records)
      : layout_(layout), blocks_(blocks), free_records_(free_records) {}

  std::shared_ptr<const Snapshot> Run(std::uint64_t* total_bytes) {
    auto snapshot = std::make_shared<Snapshot>();
    auto names = std::make_shared<NameTable>();
    const std::uint64_t root = layout_.header.root.load();
    if (root != 0) LoadIndex(layout_.indexes[root & 1], snapshot.get(), names.get());
    LoadSuperseded(root == 0 ? nullptr : &layout_.indexes[root & 1]);
    for (auto& [node, view] : views_) {
      if (view->record != kNoRecord && !IsControlNode(node))
        *total_bytes += layout_.records[view->record].content_bytes;
      std::sort(view->superseded.begin(), view->superseded.end(), [this](auto a, auto b) {
        return layout_.records[a].serial.load() < layout_.records[b].serial.load();
      });
      snapshot->nodes[node] = view;
    }
    snapshot->names = names;
    return snapshot;
  }

 private:
  void LoadIndex(const Index& index, Snapshot* snapshot, NameTable* names) {
    snapshot->generation = index.generation;
    snapshot->server_generation = index.server_generation;
    snapshot->structure_ns = index.structure_ns;
    snapshot->nodes.resize(index.node_count);
    for (NodeIndex node = kFirstControlNode; node < index.node_count; ++node) {
      const IndexEntry& entry = index.entries[node];
      if (entry.changed_generation == 0) continue;
      if (!IsControlNode(node)) {
        const std::string_view name = StoredText(layout_.names[node].text, kStoredNameBytes);
        if (!IsMountableName(name)) continue;
        names->emplace(std::string(name), node);
      }
      auto view = std::make_shared<NodeView>();
      view->node = node;
      view->changed_generation = entry.changed_generation;
      view->changed_ns = entry.changed_ns;
      view->narrowed_ns = entry.narrowed_ns;
      view->forgotten = (entry.change & kForgotten) != 0;
      if (entry.record != kNoRecord) view->record = Adopt(entry.record, node);
      views_.emplace(node, view);
    }
  }

  std::uint32_t Adopt(std::uint32_t at, NodeIndex node) {
    if (at < limits::kMaxVersionRecords) {
      const VersionRecord& record = layout_.records[at];
      if (RecordIsSane(record, node) && blocks_.TakeAt(record.content_offset, record.block_bytes)) {
        kept_.insert(at);
        return at;
      }
    }
    Log(LogLevel::kError, "a damaged version in the content memory is not served",
        {{"node", node}});
    return kNoRecord;
  }

  // Versions that only descriptors hold are kept; the rest is what a dead worker staged or was about to wipe.
  void LoadSuperseded(const Index* index) {
    const std::uint64_t now_ns = MonotonicNs();
    for (std::uint32_t at = 0; at < UsedRecords(layout_); ++at) {
      VersionRecord& record = layout_.records[at];
      if (kept_.count(at) != 0) continue;
      if (record.serial.load() == 0 && record.block_bytes == 0) {
        free_records_.insert(at);
        continue;
      }
      const auto view = index == nullptr ? views_.end() : views_.find(record.node);
      const bool held = view != views_.end() && OpenCount(record) > 0;
      if (held && record.emptied.load() != 0) {
        WipeBlock(record);
        view->second->superseded.push_back(at);
        kept_.insert(at);
      } else if (held && RecordIsSane(record, record.node) &&
                 blocks_.TakeAt(record.content_offset, record.block_bytes)) {
        // A worker that died between the commit and this stamp left it 0.
        if (record.superseded_ns.load() == 0) {
          record.superseded_ns.store(now_ns);
          record.revoked.store(view->second->record == kNoRecord ? 1 : 0);
        }
        view->second->superseded.push_back(at);
        kept_.insert(at);
      } else {
        garbage_.push_back(at);
      }
    }
    for (const std::uint32_t at : garbage_) {
      WipeGarbage(layout_.records[at]);
      free_records_.insert(at);
    }
  }

  // Only a block that no kept record shares is wiped: a damaged record must not destroy a good one.
  void WipeBlock(VersionRecord& record) {
    if (BlockIsSane(record) && blocks_.TakeAt(record.content_offset, record.block_bytes)) {
      Wipe({layout_.content.data() + record.content_offset, record.block_bytes});
      blocks_.Give(record.content_offset, record.block_bytes);
    }
    record.block_bytes = 0;
  }

  void WipeGarbage(VersionRecord& record) {
    WipeBlock(record);
    record.serial.store(0);
    for (Word& word : record.opens) word.store(0);
  }

  ContentLayout& layout_;
  BlockAllocator& blocks_;
  std::set<std::uint32_t>& free_records_;
  std::map<NodeIndex, std::shared_ptr<NodeView>> views_;
  std::set<std::uint32_t> kept_;
  std::vector<std::uint32_t> garbage_;
};

}  // namespace

std::size_t ContentMemoryBytes() {
  return sizeof(ContentLayout);
}

std::uint64_t MonotonicNs() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000ULL +
         static_cast<std::uint64_t>(now.tv_nsec);
}

const NodeView* Snapshot::Find(NodeIndex node) const {
  return node < nodes.size() ? nodes[node].get() : nullptr;
}

const NodeView* Snapshot::Lookup(std::string_view filename) const {
  const auto found = names->find(filename);
  if (found == names->end()) return nullptr;
  const NodeView* view = Find(found->second);
  return view != nullptr && view->record != kNoRecord ? view : nullptr;
}

SnapshotStore::SnapshotStore(std::unique_ptr<Memory> memory)
    : memory_(std::move(memory)),
      revoke_grace_ns_(std::chrono::nanoseconds(limits::kDefaultRevokeGrace).count()) {}
SnapshotStore::~SnapshotStore() = default;

Result<std::unique_ptr<SnapshotStore>> SnapshotStore::Attach(int content_fd) {
  struct stat info {};
  if (fstat(content_fd, &info) != 0 || info.st_size < static_cast<off_t>(sizeof(ContentLayout)))
    return Error{Errc::kCorrupt, "the content memory has the wrong size; restart latchkey-fs"};
  auto memory = std::make_unique<Memory>();
  memory->fd.Reset(fcntl(content_fd, F_DUPFD_CLOEXEC, 3));
  void* at =
      mmap(nullptr, sizeof(ContentLayout), PROT_READ | PROT_WRITE, MAP_SHARED, memory->fd.get(), 0);
  if (at == MAP_FAILED)
    return Error{Errc::kUnavailable,
                 std::string("cannot map the content memory: ") + std::strerror(errno) +
                     "; the worker needs CAP_IPC_LOCK or a higher RLIMIT_MEMLOCK at its start"};
  memory->layout = static_cast<ContentLayout*>(at);
  madvise(at, sizeof(ContentLayout), MADV_DONTDUMP);
  if (memory->layout->header.magic == 0) Initialise(*memory->layout);
  RETURN_IF_ERROR(CheckHeader(*memory->layout));
  std::uint64_t total_bytes = 0;
  auto snapshot = Recovery(*memory->layout, memory->blocks, memory->free_records).Run(&total_bytes);
  auto store = std::unique_ptr<SnapshotStore>(new SnapshotStore(std::move(memory)));
  store->total_bytes_.store(total_bytes);
  store->current_.With([&](auto& current) { current = std::move(snapshot); });
  return store;
}

void SnapshotStore::QueueMissedEvents() {
  if (hooks_ == nullptr) return;
  const auto now = Current();
  if (now->generation == 0) return;
  const Index& index = memory_->index();
  bool names_changed = false;
  for (NodeIndex node = kFirstSecretNode; node < now->nodes.size(); ++node) {
    const IndexEntry& entry = index.entries[node];
    if (now->Find(node) == nullptr || hooks_->QueuedGeneration(node) >= entry.changed_generation)
      continue;
    const auto kind = static_cast<ChangeKind>(entry.change & 3U);
    names_changed = names_changed || kind != ChangeKind::kRotated;
    hooks_->QueueEvent(node, FileName(node), kind, entry.changed_generation);
  }
  hooks_->Acknowledge(now->generation);
  hooks_->Announce(names_changed);
}

std::shared_ptr<const Snapshot> SnapshotStore::Current() const {
  return current_.With([](const auto& snapshot) { return snapshot; });
}

VersionHandle SnapshotStore::HandleOf(std::uint32_t record) const {
  return MakeHandle(record, memory_->record(record).serial.load(std::memory_order_acquire));
}

VersionInfo SnapshotStore::Info(std::uint32_t record) const {
  const VersionRecord& at = memory_->record(record);
  return VersionInfo{HandleOf(record),
                     at.number,
                     at.mtime_s,
                     at.mode,
                     at.uid,
                     at.gid,
                     static_cast<std::size_t>(at.content_bytes),
                     static_cast<std::size_t>(JsonBytes(at))};
}

std::string_view SnapshotStore::Checksum(std::uint32_t record) const {
  const VersionRecord& at = memory_->record(record);
  return {at.checksum, at.checksum_bytes};
}

std::string_view SnapshotStore::SecretName(NodeIndex node) const {
  const auto now = Current();
  const NodeView* view = now->Find(node);
  if (view == nullptr || view->record == kNoRecord || IsControlNode(node)) return {};
  return StoredText(memory_->record(view->record).secret, kStoredNameBytes);
}

std::string_view SnapshotStore::FileName(NodeIndex node) const {
  return node < limits::kMaxMountNodes
             ? StoredText(memory_->layout->names[node].text, kStoredNameBytes)
             : std::string_view{};
}

std::optional<SizeAnswer> SnapshotStore::SizeOf(NodeIndex node, View view, std::uint64_t now_ns,
                                                std::shared_ptr<const Snapshot>* used) const {
  if (node >= limits::kMaxMountNodes) return std::nullopt;
  // The staged size first, the snapshot second: whoever sees it cleared also sees the snapshot that
  // was swapped in before.
  const auto& staged = view == View::kJson ? memory_->staged_json : memory_->staged_content;
  const std::uint64_t staged_plus_one = staged[node].load(std::memory_order_seq_cst);
  *used = Current();
  const NodeView* at = (*used)->Find(node);
  if (at == nullptr || at->record == kNoRecord) return std::nullopt;
  const auto size_of = [&](std::uint32_t record) {
    const VersionRecord& version = memory_->record(record);
    return view == View::kJson ? JsonBytes(version) : version.content_bytes;
  };
  SizeAnswer answer{size_of(at->record), size_of(at->record), staged_plus_one != 0, true};
  if (answer.staged) {
    answer.settled = false;
    answer.bytes = answer.open_bytes = std::max(answer.bytes, staged_plus_one - 1);
  }
  if (now_ns < at->changed_ns + kGraceNs) {
    answer.settled = false;
    for (const std::uint32_t record : at->superseded)
      if (OpenCount(memory_->record(record)) > 0 && memory_->record(record).emptied.load() == 0)
        answer.bytes = std::max(answer.bytes, size_of(record));
  }
  return answer;
}

bool SnapshotStore::CountOpen(std::size_t slot, std::uint64_t sequence, VersionHandle handle) {
  VersionRecord* record = memory_->Find(handle);
  return record != nullptr && AddCount(record->opens[slot], sequence, 1);
}

bool SnapshotStore::AlreadyCounted(std::size_t slot, std::uint64_t sequence,
                                   VersionHandle handle) const {
  const VersionRecord* record = memory_->Find(handle);
  return record != nullptr &&
         record->opens[slot].load(std::memory_order_acquire) >> kCountBits == CountTag(sequence);
}

void SnapshotStore::CountRelease(std::size_t slot, std::uint64_t sequence, VersionHandle handle) {
  VersionRecord* record = memory_->Find(handle);
  if (record != nullptr) AddCount(record->opens[slot], sequence, kCountMask);
}

void SnapshotStore::UndoOpen(std::size_t slot, std::uint64_t sequence, VersionHandle handle) {
  VersionRecord* record = memory_->Find(handle);
  if (record == nullptr) return;
  std::uint64_t before = record->opens[slot].load(std::memory_order_acquire);
  if (before >> kCountBits != CountTag(sequence)) return;
  record->opens[slot].compare_exchange_strong(
      before, CountTag(sequence) << kCountBits | ((before - 1) & kCountMask),
      std::memory_order_seq_cst);
}

std::uint32_t SnapshotStore::OpenDescriptors(VersionHandle handle) const {
  const VersionRecord* record = memory_->Find(handle);
  return record == nullptr ? 0 : OpenCount(*record);
}

ReadOutcome SnapshotStore::ReadVersion(VersionHandle handle, View view, std::uint64_t offset,
                                       MutableBytes out, std::size_t* read_bytes,
                                       std::uint64_t now_ns) const {
  *read_bytes = 0;
  const VersionRecord* record = memory_->Find(handle);
  if (record == nullptr) return ReadOutcome::kStale;
  if (record->revoked.load(std::memory_order_acquire) != 0 &&
      now_ns >= record->superseded_ns.load(std::memory_order_relaxed) +
                    revoke_grace_ns_.load(std::memory_order_relaxed))
    return ReadOutcome::kGone;
  if (record->emptied.load(std::memory_order_acquire) != 0 || !BlockIsSane(*record) ||
      record->content_bytes + record->head_bytes + record->tail_bytes > record->block_bytes)
    return ReadOutcome::kStale;
  const Bytes block{memory_->layout->content.data() + record->content_offset, record->block_bytes};
  const Bytes content = block.first(record->content_bytes);
  if (view == View::kContent) {
    if (offset < content.size()) {
      const std::size_t count = std::min<std::size_t>(out.size(), content.size() - offset);
      std::memcpy(out.data(), content.data() + offset, count);
      *read_bytes = count;
    }
  } else {
    const std::array<std::uint64_t, 3> sizes = {record->head_bytes, Base64Bytes(content.size()),
                                                record->tail_bytes};
    std::uint64_t start = 0;
    for (std::size_t part = 0; part < sizes.size(); start += sizes[part], ++part) {
      const std::uint64_t at = offset + *read_bytes;
      if (at < start || at >= start + sizes[part]) continue;
      const std::size_t count = static_cast<std::size_t>(
          std::min<std::uint64_t>(out.size() - *read_bytes, start + sizes[part] - at));
      const MutableBytes into = out.subspan(*read_bytes, count);
      if (part == 1) {
        EncodeBase64Range(content, at - start, into);
      } else {
        const std::size_t from = content.size() + (part == 0 ? 0 : record->head_bytes);
        std::memcpy(into.data(), block.data() + from + (at - start), count);
      }
      *read_bytes += count;
    }
  }
  // The version may have been evicted and wiped while it was copied (rule F7).
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (record->serial.load(std::memory_order_seq_cst) == SerialOf(handle) &&
      record->emptied.load(std::memory_order_seq_cst) == 0)
    return ReadOutcome::kOk;
  Wipe(out.first(*read_bytes));
  *read_bytes = 0;
  return ReadOutcome::kStale;
}

namespace {

// Whether somebody whom `before` was open to may not read `now`.
bool IsNarrower(const VersionRecord& now, const VersionRecord& before) {
  return now.uid != before.uid || now.gid != before.gid || (before.mode & ~now.mode) != 0;
}

}  // namespace

bool SnapshotStore::OthersMaySeePages(const NodeView& view) const {
  if (view.narrowed_ns == 0) return false;
  const VersionRecord& now = memory_->record(view.record);
  return view.forgotten ||
         std::any_of(view.superseded.begin(), view.superseded.end(), [&](std::uint32_t at) {
           const VersionRecord& before = memory_->record(at);
           return IsNarrower(now, before) && OpenCount(before) > 0;
         });
}

VersionHandle SnapshotStore::MappedBy(VersionHandle opened, const NodeView& view) const {
  if (view.record == kNoRecord || opened == 0 || OthersMaySeePages(view)) return 0;
  const VersionHandle current = HandleOf(view.record);
  if (opened == current) return current;
  // A descriptor that is not counted: the kernel took its release as done already.
  const VersionRecord* before = memory_->Find(opened);
  if (before == nullptr) return view.narrowed_ns == 0 ? current : 0;
  const bool narrower = IsNarrower(memory_->record(view.record), *before);
  // Its record may have been used again while it was looked at.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return !narrower && memory_->Find(opened) == before ? current : 0;
}

Freshness SnapshotStore::GetFreshness() const {
  const ContentHeader& header = memory_->layout->header;
  return Freshness{static_cast<std::int64_t>(header.last_success_s.load()),
                   static_cast<std::int64_t>(header.stale_since_s.load())};
}

}  // namespace latchkey::snapshot
