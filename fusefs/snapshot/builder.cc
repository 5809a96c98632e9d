#include <algorithm>
#include <cstring>
#include <set>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/model/metadata.h"
#include "fusefs/snapshot/memory.h"
#include "fusefs/snapshot/snapshot.h"
#include "fusefs/snapshot/store.h"

namespace latchkey::snapshot {
namespace {

constexpr std::uint32_t kReadBits = 0444;
constexpr std::size_t kMaxProblems = 256;

constexpr std::array<std::pair<ControlFile, const char*>, 8> kControlNames = {{
    {ControlFile::kVersion, ".version"},
    {ControlFile::kRunning, ".running"},
    {ControlFile::kClearCache, ".clear_cache"},
    {ControlFile::kStatus, "status"},
    {ControlFile::kServerStatus, "server_status"},
    {ControlFile::kMetrics, "metrics"},
    {ControlFile::kSecrets, "secrets"},
    {ControlFile::kThreads, "threads"},
}};

std::uint32_t ControlMode(ControlFile file) {
  if (file == ControlFile::kSecrets) return 0400;
  return file == ControlFile::kClearCache ? 0440 : 0444;
}

bool SameMetadata(const VersionRecord& a, const VersionRecord& b) {
  return a.mode == b.mode && a.uid == b.uid && a.gid == b.gid;
}

std::uint64_t WallNs() {
  return static_cast<std::uint64_t>(SystemClock().Now().time_since_epoch().count());
}

}  // namespace

// One batch and what must be remembered between batches.
class SnapshotBuilder::Impl {
 public:
  explicit Impl(SnapshotStore& store) : store_(store), memory_(*store.memory_) { LoadNames(); }
  ~Impl() { DropStaged(); }

  Status Put(const SecretVersion& version) {
    const std::string_view file = version.filename.empty() ? version.name : version.filename;
    if (Status named = CheckNames(version.name, file); !named) {
      NoteProblem(version.name, named.error().message);
      return named;
    }
    const std::string name(version.name);
    const auto before = file_of_.find(name);
    if (before != file_of_.end() && before->second != file) Release(name);
    problems_.erase(name);
    std::set<std::string>& rivals = wanted_[std::string(file)];
    rivals.insert(name);
    file_of_[name] = std::string(file);
    if (rivals.size() > 1) {
      if (const auto node = NodeOf(file); node != 0) StageEnd(node);
      for (const std::string& rival : rivals)
        NoteProblem(rival,
                    "two secrets want the file name " + std::string(file) + "; neither is mounted");
      return Error{Errc::kConflict, "two secrets want the file name \"" + std::string(file) + "\""};
    }
    Status staged = StageVersion(version, file);
    if (!staged) NoteProblem(name, staged.error().message);
    return staged;
  }

  void Remove(const std::string& name) {
    problems_.erase(name);
    Release(name);
  }

  Status PutControl(ControlFile file, std::string_view text) {
    if (text.size() > limits::kMaxControlFileBytes)
      return Error{Errc::kTooLarge, "control file is larger than " +
                                        std::to_string(limits::kMaxControlFileBytes) + " bytes"};
    SecretVersion version;
    version.mode = ControlMode(file);
    version.mtime_s = EpochSeconds(SystemClock().Now());
    version.content = AsBytes(text);
    return Stage(static_cast<NodeIndex>(file), version);
  }

  void Discard() {
    DropStaged();
    refetch_.clear();
    LoadNames();
  }

  Result<PublishResult> Publish(std::uint64_t server_generation) {
    Sweep();
    const auto before = store_.Current();
    DropUnchanged(*before);
    PublishResult result;
    result.changed = staged_.size();
    result.refetch.swap(refetch_);
    for (const auto& [file, rivals] : wanted_)
      if (rivals.size() > 1)
        result.refused.insert(result.refused.end(), rivals.begin(), rivals.end());
    StageSizes();
    if (store_.hooks_ != nullptr) {
      for (const auto& [node, record] : staged_) store_.hooks_->InvalidateAttributes(node);
      if (NamesChange(*before)) store_.hooks_->InvalidateAttributes(kPubNode);
    }
    const bool names_changed = NamesChange(*before);
    const auto next = BuildNext(*before, server_generation, names_changed);
    Commit(*next);
    store_.current_.With([&](auto& current) { current = next; });
    ClearStagedSizes();
    result.mount_generation = next->generation;
    Announce(*next, names_changed);
    retired_.push_back(before);
    staged_.clear();
    Sweep();
    return result;
  }

  std::vector<MountedSecret> Mounted() const {
    std::vector<MountedSecret> list;
    const auto now = store_.Current();
    for (const auto& view : now->nodes) {
      if (view == nullptr || view->record == kNoRecord || IsControlNode(view->node)) continue;
      const VersionRecord& at = memory_.record(view->record);
      list.push_back({at.secret, std::string(store_.FileName(view->node)), at.number, at.id,
                      static_cast<std::size_t>(at.content_bytes), at.mode, at.uid, at.gid,
                      std::string(at.checksum, at.checksum_bytes)});
    }
    return list;
  }

  std::vector<Problem> Problems() const {
    std::vector<Problem> list;
    for (const auto& [name, reason] : problems_) list.push_back({name, reason});
    return list;
  }

  std::uint64_t server_generation() const { return store_.Current()->server_generation; }

  void SetFreshness(const Freshness& freshness) {
    ContentHeader& header = memory_.layout->header;
    header.last_success_s.store(static_cast<std::uint64_t>(freshness.last_success_s));
    header.stale_since_s.store(static_cast<std::uint64_t>(freshness.stale_since_s));
  }

  // Ends superseded versions: those that nobody has open any more, and of the others, beyond the
  // limits of F4 and F7, the content.
  void Sweep() {
    std::erase_if(retired_, [](const auto& snapshot) { return snapshot.use_count() == 1; });
    // While a handler still holds an old snapshot it may be about to count an open on one of its
    // versions.
    if (!retired_.empty()) return;
    std::atomic_thread_fence(std::memory_order_acquire);
    const auto now = store_.Current();
    const Endings endings = FindEndings(*now);
    // Nobody opens a superseded version anew, and readers look at the record again after copying.
    for (const std::uint32_t record : endings.emptied) memory_.Empty(record);
    if (endings.freed.empty()) return;
    auto next = std::make_shared<Snapshot>(*now);
    for (const auto& [node, records] : endings.freed) {
      auto view = std::make_shared<NodeView>(*now->nodes[node]);
      std::erase_if(view->superseded,
                    [&records = records](std::uint32_t at) { return records.count(at) != 0; });
      if (endings.forgotten.count(node) != 0) Forget(view.get());
      next->nodes[node] = view;
    }
    store_.current_.With([&](auto& current) { current = next; });
    retired_.push_back(now);
    for (const auto& [node, records] : endings.freed)
      for (const std::uint32_t record : records) memory_.Free(record);
  }

 private:
  void DropStaged() {
    for (const auto& [node, record] : staged_)
      if (record != kNoRecord) memory_.Free(record);
    staged_.clear();
  }

  // Who wants which file name, as far as it is mounted.
  void LoadNames() {
    wanted_.clear();
    file_of_.clear();
    const auto now = store_.Current();
    for (const auto& view : now->nodes) {
      if (view == nullptr || view->record == kNoRecord || IsControlNode(view->node)) continue;
      const std::string file(store_.FileName(view->node));
      const std::string secret = memory_.record(view->record).secret;
      wanted_[file].insert(secret);
      file_of_[secret] = file;
    }
  }

  static Status CheckNames(std::string_view name, std::string_view file) {
    const char* rule = " must match [A-Za-z0-9_.:-]{1,195} without leading dot to be mounted";
    if (!IsMountableName(name))
      return Error{Errc::kInvalidArgument, std::string("secret name") + rule};
    if (!IsMountableName(file))
      return Error{Errc::kInvalidArgument, std::string("file name") + rule};
    return {};
  }

  void NoteProblem(std::string_view name, std::string reason) {
    if (problems_.size() >= kMaxProblems) return;
    problems_[std::string(name.substr(0, limits::kMaxNameBytes))] = std::move(reason);
  }

  // Node of a file name, known or staged in this batch; 0 when it was never seen.
  NodeIndex NodeOf(std::string_view file) const {
    if (const auto it = new_names_.find(file); it != new_names_.end()) return it->second;
    const auto now = store_.Current();
    const auto it = now->names->find(file);
    return it == now->names->end() ? 0 : it->second;
  }

  // The secret no longer wants its file name: the file ends, and a single rival left may have it.
  void Release(const std::string& name) {
    const auto it = file_of_.find(name);
    if (it == file_of_.end()) return;
    const std::string file = it->second;
    file_of_.erase(it);
    std::set<std::string>& rivals = wanted_[file];
    const bool was_alone = rivals.size() == 1;
    rivals.erase(name);
    if (was_alone) {
      wanted_.erase(file);
      if (const auto node = NodeOf(file); node != 0) StageEnd(node);
    } else if (rivals.size() == 1) {
      problems_.erase(*rivals.begin());
      refetch_.push_back(*rivals.begin());
    }
  }

  void StageEnd(NodeIndex node) {
    const auto it = staged_.find(node);
    if (it != staged_.end() && it->second != kNoRecord) memory_.Free(it->second);
    staged_[node] = kNoRecord;
  }

  Status StageVersion(const SecretVersion& version, std::string_view file) {
    NodeIndex node = NodeOf(file);
    if (node == 0) {
      ASSIGN_OR_RETURN(node, NewNode(file));
    }
    if (version.content.size() > limits::kHardMaxContentBytes)
      return Error{Errc::kTooLarge, "content is larger than " +
                                        std::to_string(limits::kHardMaxContentBytes) + " bytes"};
    const auto now = store_.Current();
    const NodeView* at = now->Find(node);
    const bool live = at != nullptr && at->record != kNoRecord;
    const std::uint64_t before = live ? memory_.record(at->record).content_bytes : 0;
    if (NextTotal(node) + version.content.size() > limits::kMaxSnapshotBytes)
      return Error{Errc::kTooLarge, "all secrets together are larger than " +
                                        std::to_string(limits::kMaxSnapshotBytes) + " bytes; " +
                                        (before > 0 ? "the old version stays" : "not mounted")};
    if (!live && staged_.count(node) == 0 && LiveSecrets() >= limits::kMaxMountedSecrets)
      return Error{Errc::kTooLarge, "more than " + std::to_string(limits::kMaxMountedSecrets) +
                                        " secrets; not mounted"};
    return Stage(node, version);
  }

  // Bytes of all secrets as the batch stands, without `except`.
  std::uint64_t NextTotal(NodeIndex except) const {
    std::uint64_t sum = store_.total_bytes_.load();
    const auto now = store_.Current();
    const auto size_now = [&](NodeIndex node) -> std::uint64_t {
      const NodeView* view = now->Find(node);
      return view == nullptr || view->record == kNoRecord
                 ? 0
                 : memory_.record(view->record).content_bytes;
    };
    for (const auto& [node, record] : staged_) {
      if (IsControlNode(node) || node == except) continue;
      sum -= size_now(node);
      if (record != kNoRecord) sum += memory_.record(record).content_bytes;
    }
    return sum - size_now(except);
  }

  std::size_t LiveSecrets() const {
    std::size_t count = 0;
    const auto now = store_.Current();
    for (const auto& view : now->nodes)
      if (view != nullptr && view->record != kNoRecord && !IsControlNode(view->node)) ++count;
    for (const auto& [node, record] : staged_) {
      const NodeView* view = now->Find(node);
      const bool live = view != nullptr && view->record != kNoRecord;
      if (!IsControlNode(node) && !live && record != kNoRecord) ++count;
    }
    return count;
  }

  Result<NodeIndex> NewNode(std::string_view file) {
    const NodeIndex node =
        std::max<NodeIndex>(kFirstSecretNode,
                            static_cast<NodeIndex>(store_.Current()->nodes.size())) +
        static_cast<NodeIndex>(new_names_.size());
    if (node >= limits::kMaxMountNodes)
      return Error{Errc::kTooLarge, "more than " + std::to_string(limits::kMaxMountNodes) +
                                        " names were mounted since the start; restart latchkey-fs"};
    char* stored = memory_.layout->names[node].text;
    std::memcpy(stored, file.data(), file.size());
    stored[file.size()] = '\0';
    new_names_.emplace(std::string(file), node);
    return node;
  }

  Status Stage(NodeIndex node, const SecretVersion& given) {
    SecretVersion version = given;
    const std::string head = "{\"name\":\"" + std::string(given.name) + "\",\"secret\":\"";
    if (!IsControlNode(node) && given.delivery_head.empty() && given.delivery_tail.empty()) {
      version.delivery_head = head;
      version.delivery_tail = "\"}";
    }
    const std::size_t bytes =
        version.content.size() + version.delivery_head.size() + version.delivery_tail.size();
    if (version.checksum.size() > kMaxChecksumBytes)
      return Error{Errc::kInvalidArgument,
                   "checksum is longer than " + std::to_string(kMaxChecksumBytes) + " bytes"};
    const std::optional<std::uint32_t> at = FreeRecord();
    if (!at)
      return Error{Errc::kUnavailable,
                   "too many versions are held open; close some of their readers"};
    const std::optional<std::uint64_t> offset = memory_.blocks.Take(bytes);
    if (!offset) {
      memory_.free_records.insert(*at);
      return Error{Errc::kUnavailable,
                   "no room for the new version in locked memory; the old one stays"};
    }
    Fill(*at, node, version, *offset, bytes);
    const auto before = staged_.find(node);
    if (before != staged_.end() && before->second != kNoRecord) memory_.Free(before->second);
    staged_[node] = *at;
    return {};
  }

  // The lowest free one, so that memory that was touched once is used again.
  std::optional<std::uint32_t> FreeRecord() {
    if (!memory_.free_records.empty()) {
      const std::uint32_t at = *memory_.free_records.begin();
      memory_.free_records.erase(memory_.free_records.begin());
      return at;
    }
    Word& limit = memory_.layout->header.record_limit;
    const std::uint64_t used = limit.load();
    if (used >= limits::kMaxVersionRecords) return std::nullopt;
    limit.store(used + 1);
    return static_cast<std::uint32_t>(used);
  }

  void Fill(std::uint32_t at, NodeIndex node, const SecretVersion& version, std::uint64_t offset,
            std::size_t bytes) {
    VersionRecord& record = memory_.record(at);
    const std::uint64_t serial = memory_.layout->header.next_serial.fetch_add(1);
    record.number = version.number;
    record.id = version.id;
    record.mtime_s = version.mtime_s;
    record.content_offset = offset;
    record.content_bytes = version.content.size();
    record.head_bytes = static_cast<std::uint32_t>(version.delivery_head.size());
    record.tail_bytes = static_cast<std::uint32_t>(version.delivery_tail.size());
    record.superseded_ns.store(0);
    record.revoked.store(0);
    record.emptied.store(0);
    record.node = node;
    record.mode = version.mode & kReadBits;
    record.uid = version.uid;
    record.gid = version.gid;
    record.checksum_bytes = static_cast<std::uint32_t>(version.checksum.size());
    std::copy(version.checksum.begin(), version.checksum.end(), record.checksum);
    std::fill(std::begin(record.secret), std::end(record.secret), '\0');
    std::copy(version.name.begin(), version.name.end(), record.secret);
    for (Word& word : record.opens) word.store(InitialCount(serial));
    // From here on a next worker knows that the block may hold content, and wipes it.
    __atomic_store_n(&record.block_bytes, static_cast<std::uint64_t>(bytes), __ATOMIC_RELEASE);
    const MutableBytes block = memory_.Block(record);
    std::copy(version.content.begin(), version.content.end(), block.begin());
    auto rest = block.subspan(version.content.size());
    std::copy(version.delivery_head.begin(), version.delivery_head.end(), rest.begin());
    rest = rest.subspan(version.delivery_head.size());
    std::copy(version.delivery_tail.begin(), version.delivery_tail.end(), rest.begin());
    record.serial.store(serial, std::memory_order_seq_cst);
  }

  // A batch may end what is not there, or bring a control file that says the same: no event, no
  // work.
  void DropUnchanged(const Snapshot& now) {
    for (auto it = staged_.begin(); it != staged_.end();) {
      const NodeView* view = now.Find(it->first);
      const bool live = view != nullptr && view->record != kNoRecord;
      const bool same =
          it->second == kNoRecord ? !live : live && SameVersion(it->second, view->record);
      if (!same) {
        ++it;
        continue;
      }
      if (it->second != kNoRecord) memory_.Free(it->second);
      it = staged_.erase(it);
    }
  }

  bool SameVersion(std::uint32_t a, std::uint32_t b) const {
    const VersionRecord& one = memory_.record(a);
    const VersionRecord& two = memory_.record(b);
    if (!IsControlNode(one.node) &&
        (one.number != two.number || one.id != two.id || one.mtime_s != two.mtime_s))
      return false;
    const auto first = memory_.Block(one);
    const auto second = memory_.Block(two);
    return SameMetadata(one, two) && one.content_bytes == two.content_bytes &&
           first.size() == second.size() && std::string_view(one.secret) == two.secret &&
           std::string_view(one.checksum, one.checksum_bytes) ==
               std::string_view(two.checksum, two.checksum_bytes) &&
           std::equal(first.begin(), first.end(), second.begin());
  }

  bool NamesChange(const Snapshot& before) const {
    return std::any_of(staged_.begin(), staged_.end(), [&](const auto& change) {
      const NodeView* view = before.Find(change.first);
      const bool live = view != nullptr && view->record != kNoRecord;
      return live != (change.second != kNoRecord);
    });
  }

  void StageSizes() {
    for (const auto& [node, at] : staged_) {
      const std::uint64_t content = at == kNoRecord ? 0 : memory_.record(at).content_bytes;
      const std::uint64_t json = at == kNoRecord ? 0 : JsonBytes(memory_.record(at));
      memory_.staged_content[node].store(content + 1, std::memory_order_seq_cst);
      memory_.staged_json[node].store(json + 1, std::memory_order_seq_cst);
    }
  }
  void ClearStagedSizes() {
    for (const auto& [node, at] : staged_) {
      memory_.staged_content[node].store(0, std::memory_order_seq_cst);
      memory_.staged_json[node].store(0, std::memory_order_seq_cst);
    }
  }

  std::shared_ptr<const Snapshot> BuildNext(const Snapshot& before, std::uint64_t server_generation,
                                            bool names_changed) {
    auto next = std::make_shared<Snapshot>(before);
    next->generation = before.generation + 1;
    next->server_generation = server_generation;
    if (names_changed || before.generation == 0) next->structure_ns = WallNs();
    const std::uint64_t now_ns = MonotonicNs();
    for (const auto& [node, record] : staged_) {
      if (next->nodes.size() <= node) next->nodes.resize(node + 1);
      auto view = next->nodes[node] == nullptr ? std::make_shared<NodeView>()
                                               : std::make_shared<NodeView>(*next->nodes[node]);
      view->node = node;
      view->changed_generation = next->generation;
      view->changed_ns = now_ns;
      if (view->record != kNoRecord) {
        if (record == kNoRecord ||
            !SameMetadata(memory_.record(view->record), memory_.record(record)))
          view->narrowed_ns = now_ns;
        view->superseded.push_back(view->record);
      }
      view->record = record;
      next->nodes[node] = view;
    }
    if (!new_names_.empty()) {
      auto names = std::make_shared<NameTable>(*before.names);
      for (const auto& [name, node] : new_names_) {
        names->emplace(name, node);
        if (next->nodes.size() <= node) next->nodes.resize(node + 1);
      }
      next->names = names;
      new_names_.clear();
    }
    return next;
  }

  ChangeKind KindOf(NodeIndex node, const Index& from, std::uint32_t had) const {
    if (staged_.at(node) == kNoRecord) return ChangeKind::kRevoked;
    const IndexEntry& was = from.entries[node];
    if (node >= had || was.changed_generation == 0) return ChangeKind::kNew;
    return was.record == kNoRecord ? ChangeKind::kRevived : ChangeKind::kRotated;
  }

  // The one place where the shared truth changes: everything before the store of `root` can be lost
  // without harm.
  void Commit(const Snapshot& next) {
    ContentLayout& layout = *memory_.layout;
    const std::uint64_t root = layout.header.root.load();
    const Index& from = layout.indexes[root & 1];
    const std::uint64_t spare = (root & 1) ^ 1U;
    Index& into = layout.indexes[spare];
    const std::uint32_t had = root == 0 ? 0 : from.node_count;
    into.generation = next.generation;
    into.server_generation = next.server_generation;
    into.structure_ns = next.structure_ns;
    into.node_count = static_cast<std::uint32_t>(next.nodes.size());
    std::copy_n(from.entries.begin(), had, into.entries.begin());
    for (std::uint32_t node = had; node < into.node_count; ++node)
      into.entries[node] = IndexEntry{kNoRecord, 0, 0, 0, 0};
    for (const auto& [node, record] : staged_) {
      const NodeView& view = *next.nodes[node];
      const std::uint32_t flag = view.forgotten ? kForgotten : 0;
      into.entries[node] =
          IndexEntry{record, static_cast<std::uint32_t>(KindOf(node, from, had)) | flag,
                     next.generation, view.changed_ns, view.narrowed_ns};
    }
    layout.header.root.store(next.generation << 1 | spare, std::memory_order_seq_cst);
    std::uint64_t total = store_.total_bytes_.load();
    for (const auto& [node, record] : staged_) {
      const NodeView& view = *next.nodes[node];
      const bool counts = !IsControlNode(node);
      if (!view.superseded.empty() && had > node &&
          from.entries[node].record == view.superseded.back()) {
        VersionRecord& old = memory_.record(view.superseded.back());
        old.superseded_ns.store(view.changed_ns, std::memory_order_release);
        old.revoked.store(record == kNoRecord ? 1 : 0, std::memory_order_release);
        if (counts) total -= old.content_bytes;
      }
      if (counts && record != kNoRecord) total += memory_.record(record).content_bytes;
    }
    store_.total_bytes_.store(total);
  }

  void Announce(const Snapshot& next, bool names_changed) {
    if (store_.hooks_ == nullptr) return;
    store_.hooks_->Acknowledge(next.generation);
    const Index& index = memory_.index();
    for (const auto& [node, record] : staged_) {
      if (IsControlNode(node)) continue;
      store_.hooks_->QueueEvent(node, store_.FileName(node),
                                static_cast<ChangeKind>(index.entries[node].change & 3U),
                                next.generation);
    }
    store_.hooks_->Announce(names_changed);
  }

  struct Endings {
    std::set<std::uint32_t> emptied;  // lose their content
    std::map<NodeIndex, std::set<std::uint32_t>> freed;
    std::set<NodeIndex> forgotten;  // of these a version is freed that is open
  };
  struct Held {  // a version that only descriptors hold; the oldest sort first
    std::uint64_t serial;
    NodeIndex node;
    std::uint32_t record;
    auto operator<=>(const Held&) const = default;
  };

  Endings FindEndings(const Snapshot& now) const {
    Endings endings;
    std::vector<Held> full;
    std::vector<Held> empty;
    const std::uint64_t now_ns = MonotonicNs();
    const std::uint64_t grace_ns = store_.revoke_grace_ns_.load();
    for (const auto& view : now.nodes) {
      if (view == nullptr) continue;
      std::vector<Held> own;
      for (const std::uint32_t at : view->superseded) {
        const VersionRecord& record = memory_.record(at);
        const Held held{record.serial.load(), view->node, at};
        if (OpenCount(record) == 0)
          endings.freed[view->node].insert(at);
        else if (record.emptied.load() != 0)
          empty.push_back(held);
        else if (record.revoked.load() != 0 && now_ns >= record.superseded_ns.load() + grace_ns)
          EmptyOne(held, &endings, &empty);
        else
          own.push_back(held);
      }
      const std::size_t most = std::min(own.size(), limits::kMaxPinnedVersionsPerSecret);
      for (const Held& held : std::span(own).first(own.size() - most))
        EmptyOne(held, &endings, &empty);
      full.insert(full.end(), own.end() - static_cast<std::ptrdiff_t>(most), own.end());
    }
    KeepWithinLimits(std::move(full), std::move(empty), &endings);
    return endings;
  }

  static void EmptyOne(const Held& held, Endings* endings, std::vector<Held>* empty) {
    endings->emptied.insert(held.record);
    empty->push_back(held);
  }

  void KeepWithinLimits(std::vector<Held> full, std::vector<Held> empty, Endings* endings) const {
    std::sort(full.begin(), full.end());
    std::uint64_t bytes = 0;
    for (const Held& held : full) bytes += memory_.record(held.record).block_bytes;
    for (const Held& held : full) {
      if (bytes <= limits::kMaxPinnedBytes) break;
      bytes -= memory_.record(held.record).block_bytes;
      EmptyOne(held, endings, &empty);
    }
    std::sort(empty.begin(), empty.end());
    const std::size_t most = std::min(empty.size(), limits::kMaxEmptiedVersions);
    for (const Held& held : std::span(empty).first(empty.size() - most)) {
      endings->freed[held.node].insert(held.record);
      endings->forgotten.insert(held.node);
    }
  }

  // Before the record is freed: a worker that dies in between has forgotten too much, not too
  // little.
  void Forget(NodeView* view) {
    view->forgotten = true;
    ContentLayout& layout = *memory_.layout;
    layout.indexes[layout.header.root.load() & 1].entries[view->node].change |= kForgotten;
  }

  SnapshotStore& store_;
  SnapshotStore::Memory& memory_;
  std::map<NodeIndex, std::uint32_t> staged_;  // kNoRecord: ends
  std::map<std::string, NodeIndex, std::less<>> new_names_;
  std::map<std::string, std::set<std::string>> wanted_;  // file name -> secrets that want it
  std::map<std::string, std::string> file_of_;           // secret -> file name
  std::map<std::string, std::string> problems_;
  std::vector<std::string> refetch_;
  std::vector<std::shared_ptr<const Snapshot>> retired_;
};

SnapshotBuilder::SnapshotBuilder(SnapshotStore& store) : impl_(std::make_unique<Impl>(store)) {}
SnapshotBuilder::~SnapshotBuilder() = default;
Status SnapshotBuilder::Put(const SecretVersion& version) {
  return impl_->Put(version);
}
void SnapshotBuilder::Remove(std::string_view secret_name) {
  impl_->Remove(std::string(secret_name));
}
Status SnapshotBuilder::PutControl(ControlFile file, std::string_view text) {
  return impl_->PutControl(file, text);
}
void SnapshotBuilder::Discard() {
  impl_->Discard();
}
Result<PublishResult> SnapshotBuilder::Publish(std::uint64_t server_generation) {
  return impl_->Publish(server_generation);
}
std::vector<MountedSecret> SnapshotBuilder::Mounted() const {
  return impl_->Mounted();
}
std::vector<Problem> SnapshotBuilder::Problems() const {
  return impl_->Problems();
}
std::uint64_t SnapshotBuilder::server_generation() const {
  return impl_->server_generation();
}
void SnapshotBuilder::SetFreshness(const Freshness& freshness) {
  impl_->SetFreshness(freshness);
}
void SnapshotBuilder::Sweep() {
  impl_->Sweep();
}

const char* ControlFileName(ControlFile file) {
  for (const auto& [known, name] : kControlNames)
    if (known == file) return name;
  return "";
}

}  // namespace latchkey::snapshot
