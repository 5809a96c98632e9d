#include "server/audit/access_log.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <deque>
#include <tuple>

#include "common/base/guarded.h"
#include "common/base/log.h"
#include "common/base/trusted_path.h"
#include "common/model/limits.h"
#include "server/audit/spool.h"

namespace latchkey::audit {
namespace {

constexpr std::uint64_t kIndexEvery = 1024;  // records between two entries of the position index
constexpr std::size_t kReadChunkBytes = 1024 * 1024;
static_assert(kReadChunkBytes > kMaxEventBytes + spool::kRecordOverheadBytes);

struct SegmentFile {
  std::uint32_t ordinal = 0;
  UniqueFd fd;
};
using SegmentPtr = std::shared_ptr<SegmentFile>;

struct UsedSegment {
  std::uint32_t ordinal = 0;
  std::uint64_t first_seq = 0;
};

struct IndexEntry {
  std::uint64_t seq = 0;
  std::size_t offset = 0;  // in the segment
  crypto::Hash before{};   // hash of the record before
};

Error IoError(const std::string& what) {
  return Error{Errc::kUnavailable, what + ": " + std::strerror(errno)};
}

Status WriteAt(int fd, Bytes bytes, std::size_t offset) {
  while (!bytes.empty()) {
    const ssize_t put = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return IoError("cannot write the audit spool");
    bytes = bytes.subspan(static_cast<std::size_t>(put));
    offset += static_cast<std::size_t>(put);
  }
  return {};
}

Status ZeroRange(int fd, std::size_t from, std::size_t to) {
  const ByteVector zeros(std::min<std::size_t>(to > from ? to - from : 0, kReadChunkBytes));
  while (from < to) {
    const std::size_t part = std::min(zeros.size(), to - from);
    RETURN_IF_ERROR(WriteAt(fd, Bytes(zeros).first(part), from));
    from += part;
  }
  return {};
}

bool IsHeadRecord(Bytes event) {
  const Result<Event> decoded = DecodeEvent(event);
  return decoded && decoded->type == EventType::kHeads;
}

}  // namespace

class AccessLog::Impl {
 public:
  Impl(const crypto::AuditKey& key, AccessLogOptions options)
      : key_(key), options_(std::move(options)), chain_id_(AccessChainId(options_.server_id)) {}
  ~Impl();

  Status Open(Recovery* recovery);
  void StartSyncThread();
  Status Append(std::span<const Bytes> events, bool is_head_record, std::uint64_t* last_seq);
  Status Sync(std::uint64_t until_seq);
  Result<std::vector<StoredEvent>> Read(std::uint64_t after_seq, std::size_t limit) const;
  Position Last() const;
  Position LastSynced() const;
  AccessLogStats Stats() const;
  const std::string& chain_id() const { return chain_id_; }

 private:
  struct Walk;  // state of the recovery at open

  std::string PathOf(std::uint32_t ordinal) const {
    return options_.directory + "/" + spool::SegmentName(ordinal);
  }
  Status LockDirectory();
  Result<std::vector<std::uint32_t>> SplitSegments(std::vector<std::uint32_t>* spares, Walk* walk);
  Status FollowSegment(std::uint32_t ordinal, Bytes bytes, Walk* walk);
  Status AcceptOrRefuse(const Walk& walk, Recovery* recovery) const;
  Status CutBehind(const std::vector<std::uint32_t>& used, const Walk& walk, Recovery* recovery);
  Result<SegmentPtr> OpenSegment(std::uint32_t ordinal) const;
  Result<SegmentPtr> AllocateSegment(std::uint32_t ordinal) const;
  Result<IndexEntry> StartOf(int fd, std::uint64_t first_seq) const;
  void TopUpReserve();
  std::uint64_t ReserveLeft() const;
  Status Rotate();
  Status Flush();
  void Count(std::span<const Bytes> events);
  void RunSyncThread(const std::stop_token& stop);
  void Fatal(const char* what) const;

  const crypto::AuditKey& key_;
  const AccessLogOptions options_;
  const std::string chain_id_;
  UniqueFd lock_file_;

  // Lock order: sync_mutex_ before mutex_. mutex_ is never held over an fsync.
  mutable std::mutex mutex_;
  SegmentPtr current_;
  std::size_t offset_ = 0;       // end of the last record in the current segment
  std::size_t dirty_until_ = 0;  // a failed write may have left bytes up to here
  std::deque<SegmentPtr> spares_;
  std::uint32_t last_ordinal_ = 0;
  std::vector<UsedSegment> used_;
  std::vector<IndexEntry> index_;     // of the current segment
  std::vector<SegmentPtr> unsynced_;  // filled since the last sync
  Position last_;
  ByteVector buffer_;   // records of the batch that is being written
  ChainHead buffered_;  // head after the records in buffer_
  AccessLogStats stats_;
  bool reserve_warned_ = false;

  std::mutex sync_mutex_;
  Guarded<Position> synced_;

  // Lock order: wake_mutex_ after mutex_.
  std::condition_variable_any wake_;
  std::mutex wake_mutex_;
  bool segment_used_up_ = false;  // the sync thread adds another without waiting for its next round
  std::jthread sync_thread_;
};

struct AccessLog::Impl::Walk {
  ChainHead head;
  std::uint64_t last_event_seq = 0;
  std::uint32_t ordinal = 0;     // segment in which the walk ended
  std::size_t offset = 0;        // end of its last good record
  std::string damage;            // why the walk ended early; empty when it reached the end
  bool durable_differs = false;  // the record that the anchor names is another one
  std::vector<IndexEntry> index;
};

AccessLog::Impl::~Impl() {
  if (sync_thread_.joinable()) {
    sync_thread_.request_stop();
    sync_thread_.join();
  }
}

void AccessLog::Impl::Fatal(const char* what) const {
  if (options_.on_fatal) return options_.on_fatal(what);
  InvariantFailed(what, __FILE__, __LINE__);
}

Status AccessLog::Impl::LockDirectory() {
  RETURN_IF_ERROR(
      CheckOwnDirectory(options_.directory, "the audit directory " + options_.directory));
  const std::string path = options_.directory + "/lock";
  lock_file_.Reset(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!lock_file_.valid())
    return IoError("cannot open " + path + " (is the audit directory there and writable?)");
  if (::flock(lock_file_.get(), LOCK_EX | LOCK_NB) != 0) {
    return Error{Errc::kConflict, "the audit directory " + options_.directory +
                                      " is in use by another server; stop that one first"};
  }
  return {};
}

// Used segments have a header, spares are wholly zero. The walk starts in the segment that holds
// the durable head.
Result<std::vector<std::uint32_t>> AccessLog::Impl::SplitSegments(
    std::vector<std::uint32_t>* spares, Walk* walk) {
  ASSIGN_OR_RETURN(const std::vector<std::uint32_t> all, spool::ListSegments(options_.directory));
  std::vector<std::uint32_t> used;
  for (const std::uint32_t ordinal : all) {
    ASSIGN_OR_RETURN(const UniqueFd fd, spool::OpenSegment(PathOf(ordinal), O_RDONLY));
    std::array<std::uint8_t, spool::kHeaderBytes> head{};
    if (::pread(fd.get(), head.data(), head.size(), 0) < 0)
      return IoError("cannot read " + PathOf(ordinal));
    last_ordinal_ = std::max(last_ordinal_, ordinal);
    const auto header = spool::ParseHeader(head);
    if (!header) {
      spares->push_back(ordinal);
      continue;
    }
    if (header->chain_id != chain_id_) {
      return Error{Errc::kConflict, PathOf(ordinal) + " belongs to the audit chain " +
                                        header->chain_id + ", not to " + chain_id_ +
                                        "; check server_id and audit.dir"};
    }
    used.push_back(ordinal);
    used_.push_back(UsedSegment{ordinal, header->before.seq + 1});
    if (used.size() == 1 || header->before.seq < options_.durable.seq) {
      walk->head = header->before;
      walk->ordinal = ordinal;
    }
  }
  return used;
}

// Follows the records of one segment; stops at the first that is not what the chain says.
Status AccessLog::Impl::FollowSegment(std::uint32_t ordinal, Bytes bytes, Walk* walk) {
  const auto header = spool::ParseHeader(bytes);
  walk->ordinal = ordinal;
  walk->offset = 0;
  walk->index.clear();
  if (!header || header->before != walk->head) {
    walk->damage = "its header does not continue the segment before";
    return {};
  }
  walk->offset = spool::kHeaderBytes;
  spool::Record record;
  spool::RecordState state;
  while ((state = spool::ReadRecord(bytes, walk->offset, &record)) == spool::RecordState::kRecord) {
    const std::uint64_t seq = walk->head.seq + 1;
    const crypto::Hash before = walk->head.hash;
    const crypto::Hash hash = crypto::ChainHash(key_, before, chain_id_, seq, record.event);
    if (!crypto::EqualsConstantTime(hash, record.hash)) {
      walk->damage = "the hash does not match";
      return {};
    }
    if (seq == options_.durable.seq && hash != options_.durable.hash) walk->durable_differs = true;
    if (seq % kIndexEvery == 0) walk->index.push_back({seq, walk->offset, before});
    if (!IsHeadRecord(record.event)) walk->last_event_seq = seq;
    walk->head = ChainHead{seq, hash};
    walk->offset = record.end;
  }
  if (state == spool::RecordState::kTorn) walk->damage = "the record is not whole";
  return {};
}

// What was durable must be there unchanged. Behind it a torn tail is what a power cut leaves:
// replies wait for write(2), not for the disk, and reads may lose their last second (rule A1).
Status AccessLog::Impl::AcceptOrRefuse(const Walk& walk, Recovery* recovery) const {
  const bool behind = walk.head.seq < options_.durable.seq;
  if (!behind && !walk.durable_differs) return {};
  if (options_.accept_rollback) {
    recovery->behind_durable = true;
    return {};
  }
  std::string message = "audit chain " + chain_id_;
  if (walk.durable_differs) {
    message += " differs from its anchor at record " + std::to_string(options_.durable.seq);
  } else if (!walk.damage.empty()) {
    message += " is damaged at record " + std::to_string(walk.head.seq + 1) + " (" +
               PathOf(walk.ordinal) + ", byte " + std::to_string(walk.offset) + "): " + walk.damage;
  } else {
    message += " ends at record " + std::to_string(walk.head.seq) + ", but the anchor saw record " +
               std::to_string(options_.durable.seq);
  }
  return Error{
      Errc::kCorrupt,
      message + "; restore the audit directory, or accept the loss with --accept-rollback"};
}

Status AccessLog::Impl::CutBehind(const std::vector<std::uint32_t>& used, const Walk& walk,
                                  Recovery* recovery) {
  for (const std::uint32_t ordinal : used) {
    if (ordinal < walk.ordinal) continue;
    ASSIGN_OR_RETURN(const ByteVector bytes, spool::ReadWhole(PathOf(ordinal)));
    const std::size_t keep = ordinal == walk.ordinal ? walk.offset : 0;
    const std::size_t end = spool::UsedBytes(bytes);
    if (end <= keep) continue;
    ASSIGN_OR_RETURN(const UniqueFd fd, spool::OpenSegment(PathOf(ordinal), O_RDWR));
    RETURN_IF_ERROR(ZeroRange(fd.get(), keep, end));
    if (::fdatasync(fd.get()) != 0) return IoError("cannot sync " + PathOf(ordinal));
    recovery->cut = true;
    recovery->cut_bytes += end - keep;
  }
  return {};
}

Result<SegmentPtr> AccessLog::Impl::OpenSegment(std::uint32_t ordinal) const {
  auto segment = std::make_shared<SegmentFile>();
  segment->ordinal = ordinal;
  ASSIGN_OR_RETURN(segment->fd, spool::OpenSegment(PathOf(ordinal), O_RDWR));
  // A segment of a server that was killed while it allocated may be short; this is free when it is
  // whole.
  const int rc =
      ::posix_fallocate(segment->fd.get(), 0, static_cast<off_t>(options_.segment_bytes));
  if (rc != 0)
    return Error{Errc::kUnavailable,
                 "cannot allocate " + PathOf(ordinal) + ": " + std::strerror(rc)};
  return segment;
}

Result<SegmentPtr> AccessLog::Impl::AllocateSegment(std::uint32_t ordinal) const {
  const std::string path = PathOf(ordinal);
  auto segment = std::make_shared<SegmentFile>();
  segment->ordinal = ordinal;
  segment->fd.Reset(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!segment->fd.valid()) return IoError("cannot make " + path);
  const int rc =
      ::posix_fallocate(segment->fd.get(), 0, static_cast<off_t>(options_.segment_bytes));
  if (rc != 0) {
    ::unlink(path.c_str());
    return Error{Errc::kUnavailable, "cannot allocate " + path + ": " + std::strerror(rc) +
                                         "; free space for " +
                                         std::to_string(options_.segment_bytes) + " bytes"};
  }
  const UniqueFd directory(::open(options_.directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (::fsync(segment->fd.get()) != 0 || !directory.valid() || ::fsync(directory.get()) != 0) {
    const int error = errno;
    ::unlink(path.c_str());
    // Where space is only claimed at this point a full disk shows here, and nothing is lost yet.
    if (error != ENOSPC && error != EDQUOT) Fatal("fsync of a new audit segment failed");
    return Error{Errc::kUnavailable, "cannot sync " + path + ": " + std::strerror(error)};
  }
  return segment;
}

Status AccessLog::Impl::Open(Recovery* recovery) {
  RETURN_IF_ERROR(LockDirectory());
  Walk walk;
  std::vector<std::uint32_t> spares;
  ASSIGN_OR_RETURN(const std::vector<std::uint32_t> used, SplitSegments(&spares, &walk));
  walk.last_event_seq = walk.head.seq;
  // Nothing is walked before the first segment that is left: the durable record must be in front of
  // it or in it.
  walk.durable_differs = options_.durable.seq != 0 && walk.head.seq >= options_.durable.seq &&
                         walk.head != options_.durable;
  for (const std::uint32_t ordinal : used) {
    if (ordinal < walk.ordinal) continue;
    if (!walk.damage.empty()) break;
    ASSIGN_OR_RETURN(const ByteVector bytes, spool::ReadWhole(PathOf(ordinal)));
    RETURN_IF_ERROR(FollowSegment(ordinal, bytes, &walk));
  }
  RETURN_IF_ERROR(AcceptOrRefuse(walk, recovery));
  if (!walk.damage.empty()) RETURN_IF_ERROR(CutBehind(used, walk, recovery));
  // A segment between used ones whose header is gone holds the lost records; once cut it is a spare
  // like the others.
  for (const std::uint32_t ordinal : spares) {
    ASSIGN_OR_RETURN(const ByteVector bytes, spool::ReadWhole(PathOf(ordinal)));
    if (spool::UsedBytes(bytes) == 0) continue;
    Walk from_start;
    from_start.ordinal = ordinal;
    RETURN_IF_ERROR(CutBehind({ordinal}, from_start, recovery));
  }
  recovery->head_after = walk.head;
  last_ = Position{walk.head, walk.last_event_seq};
  synced_.With([&](Position& synced) { synced = last_; });
  for (const std::uint32_t ordinal : used) {
    const bool emptied = ordinal > walk.ordinal || (ordinal == walk.ordinal && walk.offset == 0);
    if (emptied) spares.push_back(ordinal);
    if (!emptied && ordinal == walk.ordinal) {
      ASSIGN_OR_RETURN(current_, OpenSegment(ordinal));
      offset_ = walk.offset;
      index_ = std::move(walk.index);
    }
    if (emptied)
      std::erase_if(used_, [&](const UsedSegment& segment) { return segment.ordinal == ordinal; });
  }
  std::sort(spares.begin(), spares.end());
  // A spare is only good behind the last used segment: order of ordinals is order of records.
  const std::uint32_t last_used = used_.empty() ? 0 : used_.back().ordinal;
  for (const std::uint32_t ordinal : spares) {
    if (ordinal < last_used) {
      ::unlink(PathOf(ordinal).c_str());
      continue;
    }
    ASSIGN_OR_RETURN(SegmentPtr spare, OpenSegment(ordinal));
    spares_.push_back(std::move(spare));
  }
  if (!current_ && spares_.empty()) {
    ASSIGN_OR_RETURN(SegmentPtr first, AllocateSegment(last_ordinal_ + 1));
    ++last_ordinal_;
    spares_.push_back(std::move(first));
  }
  TopUpReserve();
  return {};
}

std::uint64_t AccessLog::Impl::ReserveLeft() const {
  const std::uint64_t here = current_ ? options_.segment_bytes - offset_ : 0;
  return here + spares_.size() * options_.segment_bytes;
}

// Allocation happens outside the lock: it may take as long as the disk likes.
void AccessLog::Impl::TopUpReserve() {
  for (;;) {
    std::uint32_t ordinal = 0;
    {
      const std::lock_guard lock(mutex_);
      if (ReserveLeft() >= options_.reserve_bytes) {
        reserve_warned_ = false;
        return;
      }
      ordinal = last_ordinal_ + 1;
    }
    Result<SegmentPtr> segment = AllocateSegment(ordinal);
    const std::lock_guard lock(mutex_);
    if (!segment) {
      if (!reserve_warned_) {
        Log(LogLevel::kWarn, "audit spool cannot be kept in reserve; reads stop when it is used up",
            {{"reason", segment.error().message}, {"left_bytes", ReserveLeft()}});
      }
      reserve_warned_ = true;
      return;
    }
    last_ordinal_ = ordinal;
    spares_.push_back(std::move(segment).value());
  }
}

Status AccessLog::Impl::Rotate() {
  if (spares_.empty()) {
    return Error{Errc::kUnavailable,
                 "audit_unavailable: the audit spool is full; free space on the disk of " +
                     options_.directory};
  }
  if (current_) unsynced_.push_back(std::move(current_));
  current_ = std::move(spares_.front());
  spares_.pop_front();
  offset_ = 0;
  dirty_until_ = 0;
  index_.clear();
  used_.push_back(UsedSegment{current_->ordinal, buffered_.seq + 1});
  {
    const std::lock_guard lock(wake_mutex_);
    segment_used_up_ = true;
  }
  wake_.notify_one();
  return {};
}

// Writes buffer_ at the end of the current segment; only then do head and offset move.
Status AccessLog::Impl::Flush() {
  if (buffer_.empty()) return {};
  const std::size_t end = offset_ + buffer_.size();
  // A longer batch may have been written in part before it failed: cover its remains, they must not
  // look like records.
  if (dirty_until_ > end) buffer_.resize(dirty_until_ - offset_);
  if (Status written = WriteAt(current_->fd.get(), buffer_, offset_); !written) {
    dirty_until_ = std::max(dirty_until_, end);
    buffer_.clear();
    return Error{Errc::kUnavailable, "audit_unavailable: " + written.error().message};
  }
  offset_ = end;
  dirty_until_ = end;
  buffer_.clear();
  last_.head = buffered_;
  return {};
}

void AccessLog::Impl::Count(std::span<const Bytes> events) {
  stats_.events += events.size();
  for (const Bytes event : events) {
    const EventKind kind = PeekKind(event);
    // What stands for many was counted where it came from.
    const bool is_one = kind.type != EventType::kAuthRefusedMany;
    stats_.denied += kind.outcome == Outcome::kDenied && is_one ? 1 : 0;
    stats_.integrity_failures += kind.type == EventType::kIntegrityFailure ? 1 : 0;
  }
}

Status AccessLog::Impl::Append(std::span<const Bytes> events, bool is_head_record,
                               std::uint64_t* last_seq) {
  const std::lock_guard lock(mutex_);
  buffer_.clear();
  buffered_ = last_.head;
  Status status;
  for (const Bytes event : events) {
    INVARIANT(!event.empty() && event.size() <= kMaxEventBytes);
    const std::size_t record_bytes = event.size() + spool::kRecordOverheadBytes;
    if (!current_ || offset_ + buffer_.size() + record_bytes > options_.segment_bytes) {
      status = Flush();
      if (status) status = Rotate();
      if (!status) break;
    }
    if (offset_ + buffer_.size() == 0)
      spool::AppendHeader(spool::Header{chain_id_, buffered_}, &buffer_);
    const std::uint64_t seq = buffered_.seq + 1;
    if (seq % kIndexEvery == 0) index_.push_back({seq, offset_ + buffer_.size(), buffered_.hash});
    buffered_ = ChainHead{seq, crypto::ChainHash(key_, buffered_.hash, chain_id_, seq, event)};
    PutU32(&buffer_, static_cast<std::uint32_t>(event.size()));
    buffer_.insert(buffer_.end(), event.begin(), event.end());
    buffer_.insert(buffer_.end(), buffered_.hash.begin(), buffered_.hash.end());
  }
  if (status) status = Flush();
  if (!status) {
    ++stats_.refused_batches;
    std::erase_if(index_, [&](const IndexEntry& entry) { return entry.seq > last_.head.seq; });
    return status;
  }
  Count(events);
  if (!is_head_record && !events.empty()) last_.last_event_seq = last_.head.seq;
  *last_seq = last_.head.seq;
  return {};
}

Status AccessLog::Impl::Sync(std::uint64_t until_seq) {
  const std::lock_guard sync_lock(sync_mutex_);
  // Whoever held the lock before may have synced our records already.
  if (synced_.With([&](const Position& synced) { return synced.head.seq >= until_seq; })) return {};
  std::vector<SegmentPtr> files;
  Position reached;
  {
    const std::lock_guard lock(mutex_);
    files = std::move(unsynced_);
    unsynced_.clear();
    if (current_) files.push_back(current_);
    reached = last_;
  }
  for (const SegmentPtr& file : files) {
    if (::fdatasync(file->fd.get()) == 0) continue;
    Fatal("fsync of the audit spool failed");
    return IoError("cannot sync the audit spool");
  }
  synced_.With([&](Position& synced) { synced = reached; });
  return {};
}

void AccessLog::Impl::StartSyncThread() {
  sync_thread_ = std::jthread([this](const std::stop_token& stop) { RunSyncThread(stop); });
}

void AccessLog::Impl::RunSyncThread(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    {
      std::unique_lock lock(wake_mutex_);
      wake_.wait_for(lock, stop, limits::kAuditSyncInterval, [this] { return segment_used_up_; });
      segment_used_up_ = false;
    }
    const std::uint64_t seq = Last().head.seq;
    // An error has already gone to on_fatal.
    [[maybe_unused]] const Status synced = Sync(seq);
    if (!stop.stop_requested()) TopUpReserve();
  }
}

AccessLog::Position AccessLog::Impl::Last() const {
  const std::lock_guard lock(mutex_);
  return last_;
}

AccessLog::Position AccessLog::Impl::LastSynced() const {
  return synced_.With([](const Position& synced) { return synced; });
}

AccessLogStats AccessLog::Impl::Stats() const {
  const std::lock_guard lock(mutex_);
  AccessLogStats stats = stats_;
  stats.reserve_left_bytes = ReserveLeft();
  stats.segments = used_.size();
  return stats;
}

Result<IndexEntry> AccessLog::Impl::StartOf(int fd, std::uint64_t first_seq) const {
  std::array<std::uint8_t, spool::kHeaderBytes> head{};
  if (::pread(fd, head.data(), head.size(), 0) < 0)
    return IoError("cannot read a segment of the audit spool");
  const auto header = spool::ParseHeader(head);
  if (!header || header->before.seq + 1 != first_seq) return RecordIsDamaged(chain_id_, first_seq);
  return IndexEntry{first_seq, spool::kHeaderBytes, header->before.hash};
}

Result<std::vector<AccessLog::StoredEvent>> AccessLog::Impl::Read(std::uint64_t after_seq,
                                                                  std::size_t limit) const {
  std::vector<UsedSegment> segments;
  std::uint64_t last_seq = 0;
  IndexEntry start;  // nearest known position in the current segment
  {
    const std::lock_guard lock(mutex_);
    last_seq = last_.head.seq;
    segments = used_;
    for (const auto& entry : index_) {
      if (entry.seq <= after_seq + 1) start = entry;
    }
  }
  std::vector<StoredEvent> found;
  for (std::size_t i = 0; i < segments.size() && found.size() < limit; ++i) {
    const bool is_last = i + 1 == segments.size();
    if (!is_last && segments[i + 1].first_seq <= after_seq + 1) continue;
    ByteVector chunk(std::min(kReadChunkBytes, options_.segment_bytes));
    const std::string path = PathOf(segments[i].ordinal);
    const Result<UniqueFd> fd = spool::OpenSegment(path, O_RDONLY);
    if (!fd && !is_last && ::access(path.c_str(), F_OK) != 0) continue;  // archived
    if (!fd) return fd.error();
    ASSIGN_OR_RETURN(auto from, is_last&& start.seq != 0
                                    ? Result<IndexEntry>(start)
                                    : StartOf(fd->get(), segments[i].first_seq));
    auto& [seq, offset, before] = from;
    bool more = true;
    while (more && seq <= last_seq && found.size() < limit) {
      const ssize_t got =
          ::pread(fd->get(), chunk.data(), chunk.size(), static_cast<off_t>(offset));
      if (got < 0) return IoError("cannot read " + path);
      const Bytes bytes = Bytes(chunk).first(static_cast<std::size_t>(got));
      std::size_t at = 0;
      spool::Record record;
      while (seq <= last_seq && found.size() < limit &&
             spool::ReadRecord(bytes, at, &record) == spool::RecordState::kRecord) {
        if (seq > after_seq) {
          if (!IsLinked(key_, chain_id_, before, seq, record.event, record.hash))
            return RecordIsDamaged(chain_id_, seq);
          found.push_back({seq, ByteVector(record.event.begin(), record.event.end())});
        }
        std::copy(record.hash.begin(), record.hash.end(), before.begin());
        at = record.end;
        ++seq;
      }
      offset += at;
      more = at > 0;  // a chunk without one whole record is the end of the segment
    }
  }
  return found;
}

Result<SpoolUsage> ReadSpoolUsage(const std::string& directory) {
  SpoolUsage usage;
  ASSIGN_OR_RETURN(const std::vector<std::uint32_t> ordinals, spool::ListSegments(directory));
  for (const std::uint32_t ordinal : ordinals) {
    struct stat info {};
    // One that is moved away at this moment is not there any more.
    if (::stat((directory + "/" + spool::SegmentName(ordinal)).c_str(), &info) == 0)
      usage.bytes += static_cast<std::uint64_t>(info.st_blocks) * 512;
  }
  struct statvfs disk {};
  if (::statvfs(directory.c_str(), &disk) != 0)
    return IoError("cannot ask about the disk of " + directory);
  usage.free_bytes = static_cast<std::uint64_t>(disk.f_bavail) * disk.f_frsize;
  return usage;
}

bool IsLow(const SpoolUsage& usage) {
  return usage.free_bytes < limits::kAuditDiskLowBytes;
}

AccessLog::AccessLog(std::unique_ptr<Impl> impl)
    : impl_(std::move(impl)), chain_id_(impl_->chain_id()) {}

AccessLog::~AccessLog() = default;

Result<std::unique_ptr<AccessLog>> AccessLog::Open(const crypto::AuditKey& key,
                                                   AccessLogOptions options) {
  INVARIANT(options.segment_bytes >=
            spool::kHeaderBytes + kMaxEventBytes + spool::kRecordOverheadBytes);
  auto impl = std::make_unique<Impl>(key, std::move(options));
  Recovery recovery;
  RETURN_IF_ERROR(impl->Open(&recovery));
  impl->StartSyncThread();
  std::unique_ptr<AccessLog> log(new AccessLog(std::move(impl)));
  log->recovery_ = recovery;
  return log;
}

Status AccessLog::Append(std::span<const Bytes> events) {
  std::uint64_t seq = 0;
  return impl_->Append(events, false, &seq);
}

Status AccessLog::Append(const EventBatch& events) {
  // One batch is at most a few dozen events in the hot path: their views fit a buffer on the stack.
  constexpr std::size_t kOnStack = 128;
  std::array<Bytes, kOnStack> few;
  std::vector<Bytes> many;
  std::span<Bytes> views = few;
  if (events.size() > kOnStack) {
    many.resize(events.size());
    views = many;
  }
  for (std::size_t i = 0; i < events.size(); ++i) views[i] = events[i];
  return Append(std::span<const Bytes>(views.first(events.size())));
}

Status AccessLog::AppendDurable(const EventBatch& events) {
  RETURN_IF_ERROR(Append(events));
  return impl_->Sync(impl_->Last().head.seq);
}

Status AccessLog::AppendHead(const Event& heads) {
  ByteVector encoded;
  EncodeEvent(heads, &encoded);
  const Bytes one(encoded);
  std::uint64_t seq = 0;
  return impl_->Append({&one, 1}, true, &seq);
}

Status AccessLog::Sync() {
  return impl_->Sync(impl_->Last().head.seq);
}
AccessLog::Position AccessLog::Last() const {
  return impl_->Last();
}
AccessLog::Position AccessLog::LastSynced() const {
  return impl_->LastSynced();
}
Result<std::vector<AccessLog::StoredEvent>> AccessLog::Read(std::uint64_t after_seq,
                                                            std::size_t limit) const {
  return impl_->Read(after_seq, limit);
}
AccessLogStats AccessLog::Stats() const {
  return impl_->Stats();
}

}  // namespace latchkey::audit
