#include "fusefs/mount/handlers.h"

#include <fcntl.h>
#include <linux/fuse.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "common/base/clock.h"
#include "fusefs/journal/events.h"

namespace latchkey::mount {
namespace {

using snapshot::ReadOutcome;
using snapshot::VersionHandle;
using snapshot::View;

constexpr double kEntryTimeoutS = 3600;
constexpr std::uint64_t kNarrowingNs = std::chrono::nanoseconds(limits::kSizeGrace).count();
constexpr std::size_t kMaxGroups = 1024;
constexpr std::size_t kStatBlockBytes = 4096;
constexpr std::uint32_t kMaxWriteBytes = 4096;

HandlerContext& Context(fuse_req_t request) {
  return *static_cast<HandlerContext*>(fuse_req_userdata(request));
}

void OnInit(void* /*context*/, fuse_conn_info* connection) noexcept {
  connection->want |= connection->capable &
                      (FUSE_CAP_READDIRPLUS | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_AUTO_INVAL_DATA);
  connection->want &= ~static_cast<unsigned>(
      FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_WRITEBACK_CACHE |
      FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE | FUSE_CAP_ASYNC_DIO);
  connection->max_write = kMaxWriteBytes;  // requests, and so the slots, stay small
}

// The waker's unlink must find the name that everybody else is told is gone, or no watcher sees the
// DELETE. Only the waker, only while that event is pending, and never cached: anyone else is asked
// again and answered ENOENT.
bool WakerMayFind(HandlerContext& context, fuse_req_t request, std::string_view name,
                  Inode* inode) {
  const journal::Layout& layout = context.region.layout();
  const auto pid = static_cast<std::uint32_t>(fuse_req_ctx(request)->pid);
  if (pid == 0 || pid != layout.waker_pid.load(std::memory_order_relaxed)) return false;
  const auto now = context.store.Current();
  const auto found = now->names->find(name);
  if (found == now->names->end()) return false;
  const std::uint64_t want = layout.wake.want[found->second].load(std::memory_order_acquire);
  if (want == layout.wake.done[found->second].load(std::memory_order_acquire)) return false;
  *inode = found->second;
  return true;
}

// For a reply that only fills the kernel's own attributes; whoever then calls stat is answered by OnGetattr, since the time-out
// is 0 as long as the two sizes differ.
struct stat ForPageCache(const Attributes& attributes) {
  struct stat info = attributes.stat;
  if (S_ISREG(info.st_mode)) info.st_size = attributes.open_bytes;
  return info;
}

void OnLookup(fuse_req_t request, fuse_ino_t parent, const char* name) noexcept {
  HandlerContext& context = Context(request);
  fuse_entry_param entry{};
  Inode inode = 0;
  int error = context.tree.Lookup(parent, name, &inode);
  Attributes attributes{};
  if (error == 0) error = context.tree.Stat(inode, &attributes);
  if (error == ENOENT && parent == snapshot::kPubNode &&
      WakerMayFind(context, request, name, &inode)) {
    entry.ino = inode;
    entry.attr.st_ino = inode;
    entry.attr.st_mode = S_IFREG | 0400;
    entry.attr.st_nlink = 1;
    fuse_reply_entry(request, &entry);
    return;
  }
  if (error != 0) {
    // No negative entry is cached: a new secret is there for the next open, whatever the waker does
    // (R18).
    fuse_reply_err(request, error);
    return;
  }
  entry.ino = inode;
  entry.attr = ForPageCache(attributes);
  entry.attr_timeout = attributes.timeout_s;
  entry.entry_timeout = parent == snapshot::kNewNode ? 0 : kEntryTimeoutS;
  fuse_reply_entry(request, &entry);
}

// The size rule (5.2 point 4) is for the caller of stat. The kernel would take the larger size for that of the file, and sendfile,
// which reads through the page cache, would pad the shorter content with zeros up to it. A notice while the request is under way
// makes the kernel hand the answer to the caller and keep its own size. That size must not be too small for a new open, and nobody
// but the waker can set it without being told it as well: so this waits for the waker's second touch of the generation, which proves
// that the kernel has taken in the answer to the first. Before that a size too large is the lesser evil.
//
// lseek to the end names its descriptor, and takes the size from the kernel's attributes: it gets what that descriptor can read.
void OnGetattr(fuse_req_t request, fuse_ino_t inode, fuse_file_info* file) noexcept {
  const HandlerContext& context = Context(request);
  Attributes attributes{};
  const int error = context.tree.Stat(inode, &attributes);
  if (error != 0) {
    fuse_reply_err(request, error);
    return;
  }
  if (file != nullptr && file->fh == attributes.current)
    attributes.stat.st_size = attributes.open_bytes;
  if (file == nullptr && attributes.touched_as != 0 &&
      attributes.stat.st_size != attributes.open_bytes &&
      context.region.layout().settled[inode].load(std::memory_order_acquire) ==
          attributes.touched_as)
    ForgetAttributes(context.fuse_fd, inode);
  fuse_reply_attr(request, &attributes.stat, attributes.timeout_s);
}

// Reachable on the private mount only, by the waker: says yes and changes nothing (5.2 point 5).
void OnSetattr(fuse_req_t request, fuse_ino_t inode, struct stat* /*wish*/, int which,
               fuse_file_info* /*file*/) noexcept {
  const HandlerContext& context = Context(request);
  Attributes attributes{};
  const int error = context.tree.Stat(inode, &attributes);
  if (error != 0) {
    fuse_reply_err(request, error);
    return;
  }
  if (attributes.touched_as != 0) {
    journal::Layout& layout = context.region.layout();
    if ((which & FUSE_SET_ATTR_ATIME) != 0)
      layout.offered[inode].store(attributes.touched_as, std::memory_order_release);
    else if (layout.offered[inode].load(std::memory_order_acquire) == attributes.touched_as)
      layout.settled[inode].store(attributes.touched_as, std::memory_order_release);
  }
  const struct stat info = ForPageCache(attributes);
  fuse_reply_attr(request, &info, attributes.timeout_s);
}

// Point 9: for two seconds after a change of mode or owner the kernel may have checked the
// attributes of another version.
bool CallerMayRead(fuse_req_t request, const snapshot::VersionInfo& version) {
  const fuse_ctx* caller = fuse_req_ctx(request);
  if (caller->uid == 0) return true;
  if (caller->uid == version.uid) return (version.mode & 0400U) != 0;
  if (caller->gid == version.gid) return (version.mode & 0040U) != 0;
  std::array<gid_t, kMaxGroups> groups;
  const int count = fuse_req_getgroups(request, static_cast<int>(groups.size()), groups.data());
  const auto end = groups.begin() + std::clamp<int>(count, 0, static_cast<int>(groups.size()));
  if (std::find(groups.begin(), end, version.gid) != end) return (version.mode & 0040U) != 0;
  return (version.mode & 0004U) != 0;
}

bool TooStale(HandlerContext& context) {
  const auto limit = context.options.max_stale.count();
  if (limit == 0) return false;
  return EpochSeconds(SystemClock().Now()) - context.store.GetFreshness().last_success_s > limit;
}

// `counted_now`: this very call counted the descriptor, and takes it back when the kernel does not
// want it any more. After a replay the kernel may have the first worker's reply: then the count
// stands.
void ReplyOpened(fuse_req_t request, fuse_file_info* file, VersionHandle handle, bool counted_now) {
  HandlerContext& context = Context(request);
  ThreadState& thread = *CurrentThread();
  file->fh = handle;
  file->direct_io = 1;
  file->keep_cache = 0;
  file->noflush = 1;
  if (fuse_reply_open(request, file) == -ENOENT && counted_now)
    context.store.UndoOpen(thread.slot.index(), thread.slot.sequence(), handle);
}

// Whether the version that was chosen from `chosen_from` may still be given to the caller now that it
// is counted. From the count on no page of a narrower version comes into the page cache (MappedBy);
// one that was published before it may be in there already, and this descriptor would show it.
bool StillMayRead(fuse_req_t request, const Place& place, const snapshot::Snapshot& chosen_from) {
  const auto now = Context(request).store.Current();
  if (now->generation == chosen_from.generation) return true;
  const snapshot::NodeView* view = now->Find(place.node);
  const snapshot::NodeView* before = chosen_from.Find(place.node);
  if (view == nullptr || view->narrowed_ns == before->narrowed_ns) return true;
  if (view->record == snapshot::kNoRecord) return true;  // nothing is there that could be shown
  return CallerMayRead(request, Context(request).store.Info(view->record));
}

// Chooses, records and counts the version that the descriptor will read for its life. 0 or an
// errno.
int OpenCurrent(fuse_req_t request, const Place& place, VersionHandle* handle) {
  HandlerContext& context = Context(request);
  ThreadState& thread = *CurrentThread();
  const bool secret = place.node >= snapshot::kFirstSecretNode;
  const auto now = context.store.Current();
  if (now->generation == 0) return EIO;
  const snapshot::NodeView* view = now->Find(place.node);
  if (view == nullptr || view->record == snapshot::kNoRecord) return ENOENT;
  if (secret && TooStale(context)) return EIO;
  const snapshot::VersionInfo version = context.store.Info(view->record);
  const bool changed =
      view->narrowed_ns != 0 && snapshot::MonotonicNs() < view->narrowed_ns + kNarrowingNs;
  if (changed && place.view == View::kContent && !CallerMayRead(request, version)) return EACCES;
  if (secret) {
    const fuse_ctx* caller = fuse_req_ctx(request);
    const auto pid = static_cast<std::uint32_t>(caller->pid);
    const bool kept =
        thread.audit.Append(place.node, version.number, thread.slot.sequence(),
                            {caller->uid, caller->gid, pid, thread.callers.Comm(pid)});
    if (!kept && context.options.audit_required) return EACCES;
  }
  *handle = version.handle;
  thread.slot.SetNote(version.handle);
  if (!context.store.CountOpen(thread.slot.index(), thread.slot.sequence(), version.handle))
    return ESTALE;
  if (!secret || place.view != View::kContent || StillMayRead(request, place, *now)) return 0;
  context.store.UndoOpen(thread.slot.index(), thread.slot.sequence(), version.handle);
  return EACCES;
}

void OnOpen(fuse_req_t request, fuse_ino_t inode, fuse_file_info* file) noexcept {
  HandlerContext& context = Context(request);
  const auto place = PlaceOf(inode);
  if (!place.has_value()) {
    fuse_reply_err(request, ENOENT);
    return;
  }
  if (place->directory) {
    fuse_reply_err(request, EISDIR);
    return;
  }
  const bool for_writing = (file->flags & O_ACCMODE) != O_RDONLY;
  if (for_writing || !place->has_content) {
    // The waker's touch (private mount only). Such a descriptor has no version and reads nothing.
    ReplyOpened(request, file, 0, false);
    return;
  }
  // A replay of a request that was counted already: the same answer, nothing counted
  // (fuse-client 5.1).
  const ThreadState& thread = *CurrentThread();
  const auto note = thread.slot.Note();
  if (note.has_value() &&
      context.store.AlreadyCounted(thread.slot.index(), thread.slot.sequence(), *note)) {
    ReplyOpened(request, file, *note, false);
    return;
  }
  VersionHandle handle = 0;
  const int error = OpenCurrent(request, *place, &handle);
  if (error != 0)
    fuse_reply_err(request, error);
  else
    ReplyOpened(request, file, handle, true);
}

void OnRelease(fuse_req_t request, fuse_ino_t /*inode*/, fuse_file_info* file) noexcept {
  const ThreadState& thread = *CurrentThread();
  if (file->fh != 0)
    Context(request).store.CountRelease(thread.slot.index(), thread.slot.sequence(), file->fh);
  fuse_reply_err(request, 0);
}

int ErrorOf(ReadOutcome outcome) {
  switch (outcome) {
    case ReadOutcome::kOk:
      return 0;
    case ReadOutcome::kStale:
      return ESTALE;
    case ReadOutcome::kGone:
      return ENOENT;
  }
  return EIO;
}

void OnRead(fuse_req_t request, fuse_ino_t inode, std::size_t size, off_t offset,
            fuse_file_info* file) noexcept {
  HandlerContext& context = Context(request);
  const auto place = PlaceOf(inode);
  if (!place.has_value() || !place->has_content || offset < 0) {
    fuse_reply_err(request, EIO);
    return;
  }
  // A descriptor reads its own version. The fill of a page (no lock owner: a mapping, sendfile)
  // belongs to the inode and shows to all who have it open: the current one, unless one of these
  // could not open it. EINVAL: sendfile(2) says to fall back to read(2) then.
  VersionHandle handle = file->fh;
  std::shared_ptr<const snapshot::Snapshot> held;
  if (file->lock_owner == 0) {
    held = context.store.Current();
    const snapshot::NodeView* view = held->Find(place->node);
    handle = view != nullptr ? context.store.MappedBy(file->fh, *view) : 0;
  }
  if (handle == 0) {
    fuse_reply_err(request, file->fh == 0 ? EBADF : EINVAL);
    return;
  }
  const MutableBytes out = CurrentThread()->bounce.bytes().first(std::min(size, kBounceBytes));
  std::size_t count = 0;
  const ReadOutcome outcome =
      context.store.ReadVersion(handle, place->view, static_cast<std::uint64_t>(offset), out,
                                &count, snapshot::MonotonicNs());
  const int error = ErrorOf(outcome);
  if (error != 0)
    fuse_reply_err(request, error);
  else
    fuse_reply_buf(request, reinterpret_cast<const char*>(out.data()), count);
  explicit_bzero(out.data(), count);
}

void OnOpendir(fuse_req_t request, fuse_ino_t inode, fuse_file_info* file) noexcept {
  if (!Context(request).tree.IsDirectory(inode)) {
    fuse_reply_err(request, ENOTDIR);
    return;
  }
  file->cache_readdir = inode == snapshot::kPubNode ? 1 : 0;
  file->keep_cache = file->cache_readdir;
  fuse_reply_open(request, file);
}

// Fills a directory buffer entry by entry; says no when the next one does not fit.
class DirectoryWriter {
 public:
  DirectoryWriter(fuse_req_t request, MutableBytes buffer, bool plus)
      : request_(request), buffer_(buffer), plus_(plus) {}

  bool Add(const char* name, const fuse_entry_param& entry, off_t cookie) {
    char* at = reinterpret_cast<char*>(buffer_.data()) + used_;
    const std::size_t room = buffer_.size() - used_;
    const std::size_t need = plus_
                                 ? fuse_add_direntry_plus(request_, at, room, name, &entry, cookie)
                                 : fuse_add_direntry(request_, at, room, name, &entry.attr, cookie);
    if (need > room) return false;
    used_ += need;
    return true;
  }
  void Reply() const {
    fuse_reply_buf(request_, reinterpret_cast<const char*>(buffer_.data()), used_);
  }

 private:
  fuse_req_t request_;
  MutableBytes buffer_;
  bool plus_;
  std::size_t used_ = 0;
};

bool AddDots(DirectoryWriter* writer, fuse_ino_t inode, off_t offset) {
  fuse_entry_param dot{};
  dot.attr.st_ino = inode;
  dot.attr.st_mode = S_IFDIR;
  return (offset >= 1 || writer->Add(".", dot, 1)) && (offset >= 2 || writer->Add("..", dot, 2));
}

void ListDirectory(fuse_req_t request, fuse_ino_t inode, std::size_t size, off_t offset,
                   bool plus) {
  constexpr std::size_t kSmallestEntryBytes = 32;
  HandlerContext& context = Context(request);
  if (!context.tree.IsDirectory(inode)) {
    fuse_reply_err(request, ENOTDIR);
    return;
  }
  const MutableBytes buffer = CurrentThread()->bounce.bytes().first(std::min(size, kBounceBytes));
  DirectoryWriter writer(request, buffer, plus);
  if (!AddDots(&writer, inode, offset)) return writer.Reply();
  for (const Child& child :
       context.tree.Children(inode, offset, buffer.size() / kSmallestEntryBytes)) {
    fuse_entry_param entry{};
    Attributes attributes{};
    entry.attr.st_ino = child.inode;
    entry.attr.st_mode = child.directory ? S_IFDIR : S_IFREG;
    // A name that ended since the list was made is still listed, without an inode.
    if (plus && context.tree.Stat(child.inode, &attributes) == 0) {
      entry.ino = child.inode;
      entry.attr = ForPageCache(attributes);
      entry.attr_timeout = attributes.timeout_s;
      entry.entry_timeout = kEntryTimeoutS;
    }
    if (!writer.Add(child.name.c_str(), entry, child.cookie)) break;
  }
  writer.Reply();
}

void OnReaddir(fuse_req_t request, fuse_ino_t inode, std::size_t size, off_t offset,
               fuse_file_info* /*file*/) noexcept {
  ListDirectory(request, inode, size, offset, false);
}

void OnReaddirplus(fuse_req_t request, fuse_ino_t inode, std::size_t size, off_t offset,
                   fuse_file_info* /*file*/) noexcept {
  ListDirectory(request, inode, size, offset, true);
}

// Only the waker's rename, /new/xNAME to /pub/NAME: any other would make the kernel show a secret
// under another name.
void OnRename(fuse_req_t request, fuse_ino_t from, const char* old_name, fuse_ino_t to,
              const char* new_name, unsigned flags) noexcept {
  const std::string_view source(old_name);
  const bool waker_like = from == snapshot::kNewNode && to == snapshot::kPubNode && flags == 0 &&
                          source.size() > 1 && source.front() == 'x' &&
                          source.substr(1) == new_name;
  fuse_reply_err(request, waker_like ? 0 : EROFS);
}

void OnUnlink(fuse_req_t request, fuse_ino_t parent, const char* /*name*/) noexcept {
  fuse_reply_err(request, parent == snapshot::kPubNode ? 0 : EROFS);
}

void OnStatfs(fuse_req_t request, fuse_ino_t /*inode*/) noexcept {
  const HandlerContext& context = Context(request);
  struct statvfs info {};
  const auto now = context.store.Current();
  info.f_bsize = info.f_frsize = kStatBlockBytes;
  info.f_blocks = limits::kMaxSnapshotBytes / kStatBlockBytes;
  const std::uint64_t used =
      (context.store.total_content_bytes() + kStatBlockBytes - 1) / kStatBlockBytes;
  info.f_bfree = info.f_bavail = info.f_blocks - std::min<std::uint64_t>(used, info.f_blocks);
  info.f_files = limits::kMaxMountNodes;
  info.f_ffree =
      limits::kMaxMountNodes - std::min<std::size_t>(now->nodes.size(), limits::kMaxMountNodes);
  info.f_namemax = 255;
  fuse_reply_statfs(request, &info);
}

constexpr std::string_view kVersionXattr = "user.latchkey.version";
constexpr std::string_view kChecksumXattr = "user.latchkey.checksum";
constexpr std::string_view kAgeXattr = "user.latchkey.age";
constexpr std::string_view kStaleXattr = "user.latchkey.stale_since";

std::optional<std::string> XattrValue(HandlerContext& context, const Place& place,
                                      std::string_view name) {
  const auto now = context.store.Current();
  const snapshot::NodeView* view = now->Find(place.node);
  if (view == nullptr || view->record == snapshot::kNoRecord) return std::nullopt;
  const snapshot::Freshness fresh = context.store.GetFreshness();
  if (name == kVersionXattr) return std::to_string(context.store.Info(view->record).number);
  if (name == kChecksumXattr) return std::string(context.store.Checksum(view->record));
  if (name == kAgeXattr && fresh.last_success_s != 0)
    return std::to_string(
        std::max<std::int64_t>(0, EpochSeconds(SystemClock().Now()) - fresh.last_success_s));
  if (name == kStaleXattr && fresh.stale_since_s != 0) return ApiDate(fresh.stale_since_s);
  return std::nullopt;
}

void ReplyXattr(fuse_req_t request, const std::string& value, std::size_t size) {
  if (size == 0)
    fuse_reply_xattr(request, value.size());
  else if (size < value.size())
    fuse_reply_err(request, ERANGE);
  else
    fuse_reply_buf(request, value.data(), value.size());
}

bool HasXattrs(const std::optional<Place>& place) {
  return place.has_value() && place->node >= snapshot::kFirstSecretNode;
}

void OnGetxattr(fuse_req_t request, fuse_ino_t inode, const char* name, std::size_t size) noexcept {
  const auto place = PlaceOf(inode);
  const auto value = HasXattrs(place) ? XattrValue(Context(request), *place, name) : std::nullopt;
  if (value.has_value())
    ReplyXattr(request, *value, size);
  else
    fuse_reply_err(request, ENODATA);
}

void OnListxattr(fuse_req_t request, fuse_ino_t inode, std::size_t size) noexcept {
  const auto place = PlaceOf(inode);
  std::string list;
  for (const std::string_view name : {kVersionXattr, kChecksumXattr, kAgeXattr, kStaleXattr})
    if (HasXattrs(place) && XattrValue(Context(request), *place, name).has_value())
      list.append(name).push_back('\0');
  ReplyXattr(request, list, size);
}

// The kernel forgets an inode: ids are stable for the life of the keeper, so there is nothing to do
// (R8).
void OnForget(fuse_req_t request, fuse_ino_t /*inode*/, std::uint64_t /*count*/) noexcept {
  fuse_reply_none(request);
}
void OnForgetMulti(fuse_req_t request, std::size_t /*count*/, fuse_forget_data* /*list*/) noexcept {
  fuse_reply_none(request);
}

// Every other change (rule F1).
template <class... Arguments>
void Refuse(fuse_req_t request, Arguments... /*rest*/) noexcept {
  fuse_reply_err(request, EROFS);
}

fuse_lowlevel_ops MakeOperations() {
  fuse_lowlevel_ops ops{};
  ops.init = OnInit;
  ops.lookup = OnLookup;
  ops.forget = OnForget;
  ops.forget_multi = OnForgetMulti;
  ops.getattr = OnGetattr;
  ops.setattr = OnSetattr;
  ops.open = OnOpen;
  ops.read = OnRead;
  ops.release = OnRelease;
  ops.opendir = OnOpendir;
  ops.readdir = OnReaddir;
  ops.readdirplus = OnReaddirplus;
  ops.rename = OnRename;
  ops.unlink = OnUnlink;
  ops.statfs = OnStatfs;
  ops.getxattr = OnGetxattr;
  ops.listxattr = OnListxattr;
  ops.setxattr = Refuse;
  ops.removexattr = Refuse;
  ops.mknod = Refuse;
  ops.mkdir = Refuse;
  ops.rmdir = Refuse;
  ops.symlink = Refuse;
  ops.link = Refuse;
  ops.create = Refuse;
  ops.write = Refuse;
  ops.fallocate = Refuse;
  ops.copy_file_range = Refuse;
  return ops;
}

}  // namespace

Result<BounceBuffer> BounceBuffer::Make(bool allow_unlocked) {
  void* at =
      mmap(nullptr, kBounceBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) return Error{Errc::kUnavailable, "no memory for a reply buffer"};
  BounceBuffer buffer(static_cast<std::uint8_t*>(at));
  madvise(at, kBounceBytes, MADV_DONTDUMP);
  madvise(at, kBounceBytes, MADV_DONTFORK);
  if (mlock(at, kBounceBytes) != 0 && !allow_unlocked)
    return Error{Errc::kUnavailable, "cannot lock a reply buffer of " +
                                         std::to_string(kBounceBytes) +
                                         " bytes; raise RLIMIT_MEMLOCK or set allow_unlocked"};
  return buffer;
}
BounceBuffer::BounceBuffer(BounceBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)) {}
BounceBuffer& BounceBuffer::operator=(BounceBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  return *this;
}
BounceBuffer::~BounceBuffer() {
  if (data_ != nullptr) munmap(data_, kBounceBytes);
}

ThreadState*& CurrentThread() {
  thread_local ThreadState* state = nullptr;
  return state;
}

void ForgetAttributes(int fuse_fd, Inode inode) {
  fuse_notify_inval_inode_out body{};
  body.ino = inode;
  body.off = -1;
  fuse_out_header head{};
  head.len = sizeof head + sizeof body;
  head.error = FUSE_NOTIFY_INVAL_INODE;
  std::array<iovec, 2> parts = {iovec{&head, sizeof head}, iovec{&body, sizeof body}};
  [[maybe_unused]] const ssize_t written = writev(fuse_fd, parts.data(), 2);
}

const fuse_lowlevel_ops& Operations() {
  static const fuse_lowlevel_ops ops = MakeOperations();
  return ops;
}

}  // namespace latchkey::mount
