#include "fusefs/mount/session.h"

#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <thread>

#include "common/base/c_handle.h"
#include "common/base/log.h"
#include "fusefs/journal/events.h"
#include "fusefs/journal/privileges.h"
#include "fusefs/mount/handlers.h"

namespace latchkey::mount {
namespace {

// A request that killed or stuck two workers in a row is not given to a third (R5).
constexpr std::uint32_t kMaxStrikes = 2;
constexpr std::uint64_t kNobodysUnique = 1ULL << 62;
constexpr int kInterruptSignal = SIGUSR1;
constexpr std::uint64_t kLingerNs = 25'000;
constexpr auto kSweepInterval = std::chrono::milliseconds(1000);

static_assert(journal::kSlots == limits::kMaxHandlerThreads);
static_assert(journal::kNodes == limits::kMaxMountNodes);
static_assert(journal::kSlotBytes == limits::kRequestSlotBytes);
static_assert(journal::kSlots * journal::kRecordsPerSlot == limits::kReadRingRecords);
static_assert(journal::kReadShares == limits::kMaxReadShares);
static_assert(journal::kReadCounts == limits::kMaxReadCounts);
static_assert(journal::kFirstTwinnedNode == snapshot::kFirstSecretNode);

using SessionHandle = CHandle<fuse_session, fuse_session_destroy>;

bool ExpectsReply(std::uint32_t opcode) {
  return opcode != FUSE_FORGET && opcode != FUSE_BATCH_FORGET && opcode != FUSE_INTERRUPT;
}

// libfuse ties the largest READ to max_write, which must be small here for the slots. They are
// independent in the protocol.
void WidenReads(fuse_init_out* answer) {
  if ((answer->flags & FUSE_MAX_PAGES) != 0) answer->max_pages = kMaxReadPages;
}

std::size_t TotalBytes(const iovec* parts, int count) {
  std::size_t sum = 0;
  for (int at = 0; at < count; ++at) sum += parts[at].iov_len;
  return sum;
}

// All replies of libfuse pass here.
ssize_t WriteReply(int fd, iovec* parts, int count, void* /*context*/) {
  const ThreadState* thread = CurrentThread();
  if (thread == nullptr || count < 2 || thread->init_unique == 0 ||
      static_cast<fuse_out_header*>(parts[0].iov_base)->unique != thread->init_unique)
    return writev(fd, parts, count);
  if (thread->swallow_reply) return static_cast<ssize_t>(TotalBytes(parts, count));
  fuse_init_out answer{};
  const std::size_t size = std::min(sizeof answer, parts[1].iov_len);
  std::memcpy(&answer, parts[1].iov_base, size);
  WidenReads(&answer);
  std::array<iovec, 2> changed = {parts[0], iovec{&answer, size}};
  return writev(fd, changed.data(), 2);
}

// Required by libfuse beside the writer; our threads read into their slots themselves.
ssize_t ReadNothing(int /*fd*/, void* /*buffer*/, std::size_t /*size*/, void* /*context*/) {
  errno = ENOSYS;
  return -1;
}

void OnInterrupt(int /*signal*/) {}

// The sync side's publications, told to the kernel and to the helper processes.
class Hooks : public snapshot::PublishHooks {
 public:
  Hooks(const journal::Region& region, const journal::Handover& handover)
      : region_(region), handover_(handover) {}

  void InvalidateAttributes(snapshot::NodeIndex node) override {
    Notice(node);
    if (node >= snapshot::kFirstSecretNode) Notice(journal::kTwinBit | node);
  }
  void Acknowledge(std::uint64_t generation) override {
    region_.layout().acknowledged.store(generation, std::memory_order_release);
    if (region_.layout().snapshot_ready.load() == 0)
      journal::Raise(region_.layout().snapshot_ready, 1);
  }
  void QueueEvent(snapshot::NodeIndex node, std::string_view filename, snapshot::ChangeKind kind,
                  std::uint64_t generation) override {
    journal::Layout& layout = region_.layout();
    const auto event = static_cast<journal::EventKind>(kind);
    // The page drop first: QueuedGeneration looks at the waker's queue, and a new worker repeats
    // both.
    if (kind == snapshot::ChangeKind::kRevoked)
      journal::MarkEvent(layout, layout.notify, node, filename, event, generation);
    journal::MarkEvent(layout, layout.wake, node, filename, event, generation);
  }
  std::uint64_t QueuedGeneration(snapshot::NodeIndex node) const override {
    return journal::MarkedGeneration(region_.layout().wake, node);
  }
  void Announce(bool names_changed) override {
    journal::Layout& layout = region_.layout();
    if (names_changed)
      journal::MarkEvent(layout, layout.notify, snapshot::kPubNode, "pub",
                         journal::EventKind::kRotated, layout.acknowledged.load());
    journal::Poke(handover_.wake_fd);
    journal::Poke(handover_.notify_fd);
  }

 private:
  void Notice(Inode inode) const {
    if (region_.layout().mounted.load() != 0) ForgetAttributes(handover_.fuse_fd, inode);
  }

  const journal::Region& region_;
  const journal::Handover& handover_;
};

Error Failed(const char* what) {
  return Error{Errc::kUnavailable, std::string(what) + ": " + std::strerror(errno)};
}

Status DropPrivileges(const SessionOptions& options, const journal::Layout& layout) {
  if (options.gid.has_value() &&
      (setgroups(0, nullptr) != 0 || setresgid(*options.gid, *options.gid, *options.gid) != 0))
    return Failed("cannot change the worker's group");
  if (options.drop_privileges && !options.uid.has_value())
    RETURN_IF_ERROR(journal::KeepCapabilities({}));
  if (options.uid.has_value()) {
    // Bounding set first (needs CAP_SETPCAP), the identity last; changing it clears the other sets.
    RETURN_IF_ERROR(journal::KeepCapabilities({6, 7}));  // CAP_SETGID, CAP_SETUID
    if (setresuid(*options.uid, *options.uid, *options.uid) != 0)
      return Failed("cannot change the worker's user");
    RETURN_IF_ERROR(journal::KeepCapabilities({}));
  }
  prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  // A change of identity clears it, and the keeper may have died in between.
  prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  const auto keeper = static_cast<pid_t>(layout.keeper_pid.load());
  if (keeper != 0 && getppid() != keeper) return Error{Errc::kUnavailable, "the keeper is gone"};
  return {};
}

}  // namespace

class Session::Impl {
 public:
  Impl(journal::Handover handover, SessionOptions options, journal::Region region,
       std::unique_ptr<snapshot::SnapshotStore> store)
      : handover_(std::move(handover)),
        options_(std::move(options)),
        region_(std::move(region)),
        store_(std::move(store)),
        hooks_(region_, handover_),
        context_{*store_, region_, options_, Tree(*store_, options_), handover_.fuse_fd} {
    store_->SetHooks(&hooks_);
    store_->SetRevokeGrace(options_.revoke_grace);
  }
  ~Impl() { Stop(); }

  Status Prepare() {
    if (options_.threads == 0 || options_.threads > journal::kSlots)
      return Error{Errc::kInvalidArgument,
                   "handler threads must be 1 to " + std::to_string(journal::kSlots)};
    for (std::size_t slot = 0; slot < journal::kSlots; ++slot) {
      ASSIGN_OR_RETURN(BounceBuffer bounce, BounceBuffer::Make(!handover_.content_locked));
      threads_.push_back(std::make_unique<ThreadState>(
          ThreadState{journal::RequestSlot(region_, slot), std::move(bounce),
                      reads::ReadWriter(region_, slot)}));
      if (slot + 1 == options_.threads && !HasPendingBeyond(slot)) break;
    }
    if (options_.drop_privileges || options_.uid.has_value())
      RETURN_IF_ERROR(DropPrivileges(options_, region_.layout()));
    return MakeLibfuse();
  }

  Status Start() {
    struct sigaction action {};
    action.sa_handler = OnInterrupt;
    sigaction(kInterruptSignal, &action, nullptr);
    running_.store(options_.threads);
    for (unsigned index = 0; index < options_.threads; ++index)
      handlers_.emplace_back([this, index] { Serve(index); });
    store_->QueueMissedEvents();
    return {};
  }

  void Wait() {
    journal::HalfWord& running = running_;
    for (std::uint32_t left = running.load(); left != 0; left = running.load())
      journal::WaitWhile(running, left, kSweepInterval);
  }

  void Stop() {
    stopping_.store(true);
    // A thread may be between its look at `stopping_` and the read: signal until all have left.
    while (running_.load() != 0) {
      for (std::thread& handler : handlers_)
        pthread_kill(handler.native_handle(), kInterruptSignal);
      journal::WaitWhile(running_, running_.load(), std::chrono::milliseconds(10));
    }
    for (std::thread& handler : handlers_) handler.join();
    handlers_.clear();
  }

  snapshot::SnapshotStore& store() { return *store_; }
  const journal::Region& region() const { return region_; }
  bool has_snapshot() const { return store_->Current()->generation != 0; }
  bool serving() const { return running_.load() != 0 && region_.layout().mounted.load() != 0; }

 private:
  bool HasPendingBeyond(std::size_t slot) const {
    for (std::size_t at = slot + 1; at < journal::kSlots; ++at)
      if (!journal::RequestSlot(region_, at).request().empty()) return true;
    return false;
  }

  Status MakeLibfuse() {
    static char name[] = "latchkey-fs";
    char* argv[] = {name, nullptr};
    fuse_args args = FUSE_ARGS_INIT(1, argv);
    session_.reset(fuse_session_new(&args, &Operations(), sizeof(fuse_lowlevel_ops), &context_));
    static const fuse_custom_io io = {WriteReply, ReadNothing, nullptr, nullptr};
    if (session_ == nullptr || fuse_session_custom_io(session_.get(), &io, handover_.fuse_fd) != 0)
      return Error{Errc::kUnavailable,
                   "libfuse refuses the session; is libfuse 3.13 or newer installed?"};
    // fuse_session_destroy closes the session's descriptor, which is the keeper's to close.
    return {};
  }

  void Serve(unsigned index) {
    pthread_setname_np(pthread_self(), ("fuse" + std::to_string(index)).c_str());
    journal::Layout& layout = region_.layout();
    while (layout.mounted.load() == 0 && !stopping_.load())
      journal::WaitWhile(layout.mounted, 0, std::chrono::milliseconds(100));
    // The first thread brings the session up for all; the others wait for it.
    if (index == 0) {
      if (!stopping_.load()) TakeOver();
      journal::Raise(taken_over_, 1);
    } else {
      while (taken_over_.load() == 0) journal::WaitWhile(taken_over_, 0, kSweepInterval);
    }
    ThreadState& thread = *threads_[index];
    CurrentThread() = &thread;
    while (!stopping_.load() && !fuse_session_exited(session_.get())) {
      Linger();
      const long count = thread.slot.Read(handover_.fuse_fd);
      if (count == -EINTR || count == -EAGAIN || count == -ENOENT) continue;
      if (count < 0) break;  // ENODEV: unmounted
      Handle(thread);
    }
    running_.fetch_sub(1);
    journal::WakeAll(running_);
  }

  // After a request the next one of the same reader is microseconds away (open, read, read, close). Waking a thread on an idle
  // processor costs several times the request itself, so one thread looks around for a moment before it sleeps.
  void Linger() {
    if (processors_ < 2 || lingering_.exchange(true, std::memory_order_acquire)) return;
    const std::uint64_t end_ns = snapshot::MonotonicNs() + kLingerNs;
    pollfd wait{handover_.fuse_fd, POLLIN, 0};
    while (poll(&wait, 1, 0) == 0 && snapshot::MonotonicNs() < end_ns) sched_yield();
    lingering_.store(false, std::memory_order_release);
  }

  // What the last worker left: INIT, which the kernel sends once, and the requests that it read and
  // did not answer.
  void TakeOver() {
    journal::Layout& layout = region_.layout();
    const bool blame = layout.blame.exchange(0) != 0;
    std::array<std::uint32_t, journal::kSlots> strikes{};
    bool init_in_slot = false;
    for (std::size_t at = 0; at < threads_.size(); ++at) {
      journal::RequestSlot& slot = threads_[at]->slot;
      strikes[at] = slot.TakeOver(blame);
      init_in_slot = init_in_slot || OpcodeIn(slot) == FUSE_INIT;
    }
    if (!init_in_slot) ReplayInit();
    for (const bool init_turn : {true, false}) {
      for (std::size_t at = 0; at < threads_.size(); ++at) {
        ThreadState& thread = *threads_[at];
        if (thread.slot.request().empty() || (OpcodeIn(thread.slot) == FUSE_INIT) != init_turn)
          continue;
        CurrentThread() = &thread;
        if (strikes[at] >= kMaxStrikes)
          Refuse(thread);
        else
          Handle(thread);
        layout.replayed.fetch_add(1);
      }
    }
  }

  static std::uint32_t OpcodeIn(const journal::RequestSlot& slot) {
    const Bytes request = slot.request();
    fuse_in_header header{};
    if (request.empty()) return 0;
    std::memcpy(&header, request.data(), sizeof header);
    return header.opcode;
  }

  void ReplayInit() {
    ByteVector init = region_.SavedInit();
    if (init.size() < sizeof(fuse_in_header)) return;
    ThreadState& thread = *threads_[0];
    CurrentThread() = &thread;
    fuse_in_header header{};
    std::memcpy(&header, init.data(), sizeof header);
    header.unique = kNobodysUnique;
    std::memcpy(init.data(), &header, sizeof header);
    thread.swallow_reply = true;
    Process(thread, init);
    thread.swallow_reply = false;
  }

  void Handle(ThreadState& thread) {
    const Bytes request = thread.slot.request();
    thread.slot.Begin();
    if (!request.empty()) {
      fuse_in_header header{};
      std::memcpy(&header, request.data(), sizeof header);
      if (header.opcode == FUSE_INIT) region_.SaveInit(request);
      if (options_.before_handler) options_.before_handler(header.opcode);
      // A copy, so that libfuse parses bytes that nobody else can change.
      thread_local std::vector<std::uint64_t> copy(journal::kSlotBytes / sizeof(std::uint64_t));
      std::memcpy(copy.data(), request.data(), request.size());
      Process(thread, {reinterpret_cast<std::uint8_t*>(copy.data()), request.size()});
    }
    thread.slot.Finish();
  }

  void Process(ThreadState& thread, MutableBytes request) {
    fuse_in_header header{};
    std::memcpy(&header, request.data(), sizeof header);
    thread.init_unique = header.opcode == FUSE_INIT ? header.unique : 0;
    fuse_buf buffer{};
    buffer.mem = request.data();
    buffer.size = request.size();
    fuse_session_process_buf(session_.get(), &buffer);
    thread.init_unique = 0;
  }

  // Answers EIO without looking at the request.
  void Refuse(ThreadState& thread) {
    fuse_in_header header{};
    std::memcpy(&header, thread.slot.request().data(), sizeof header);
    Log(LogLevel::kError, "a request that ended two workers is answered EIO",
        {{"opcode", header.opcode}, {"node", header.nodeid}});
    if (ExpectsReply(header.opcode)) {
      fuse_out_header answer{};
      answer.len = sizeof answer;
      answer.error = -EIO;
      answer.unique = header.unique;
      [[maybe_unused]] const ssize_t written = write(handover_.fuse_fd, &answer, sizeof answer);
    }
    region_.layout().refused.fetch_add(1);
    thread.slot.Finish();
  }

  journal::Handover handover_;
  SessionOptions options_;
  journal::Region region_;
  std::unique_ptr<snapshot::SnapshotStore> store_;
  Hooks hooks_;
  HandlerContext context_;
  SessionHandle session_;
  std::vector<std::unique_ptr<ThreadState>> threads_;
  std::vector<std::thread> handlers_;
  std::atomic<bool> stopping_{false};
  std::atomic<bool> lingering_{false};
  const unsigned processors_ = std::thread::hardware_concurrency();
  journal::HalfWord running_{0};
  journal::HalfWord taken_over_{0};
};

Session::Session(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Session::~Session() = default;

Result<std::unique_ptr<Session>> Session::Open(const journal::Handover& handover,
                                               SessionOptions options) {
  ASSIGN_OR_RETURN(journal::Region region, journal::Region::Attach(handover.region_fd));
  ASSIGN_OR_RETURN(auto store, snapshot::SnapshotStore::Attach(handover.content_fd));
  journal::Handover own = handover;
  // libfuse closes the descriptor of its session; the caller's stays.
  own.fuse_fd = fcntl(handover.fuse_fd, F_DUPFD_CLOEXEC, 3);
  if (own.fuse_fd < 0) return Failed("cannot duplicate the FUSE descriptor");
  auto impl = std::make_unique<Impl>(own, std::move(options), std::move(region), std::move(store));
  RETURN_IF_ERROR(impl->Prepare());
  return std::unique_ptr<Session>(new Session(std::move(impl)));
}

snapshot::SnapshotStore& Session::store() {
  return impl_->store();
}
const journal::Region& Session::region() const {
  return impl_->region();
}
bool Session::has_snapshot() const {
  return impl_->has_snapshot();
}
Status Session::Start() {
  return impl_->Start();
}
void Session::Wait() {
  impl_->Wait();
}
void Session::Stop() {
  impl_->Stop();
}
bool Session::serving() const {
  return impl_->serving();
}

Status PutFixedControlFiles(snapshot::SnapshotBuilder& builder, const journal::Region& region) {
  using snapshot::ControlFile;
  RETURN_IF_ERROR(builder.PutControl(ControlFile::kVersion, "2.0"));
  RETURN_IF_ERROR(builder.PutControl(ControlFile::kRunning,
                                     "pid=" + std::to_string(region.layout().keeper_pid.load())));
  RETURN_IF_ERROR(builder.PutControl(ControlFile::kClearCache, ""));
  std::string threads = "[";
  const CHandle<DIR, closedir> list(opendir("/proc/self/task"));
  while (const dirent* entry = list == nullptr ? nullptr : readdir(list.get())) {
    if (entry->d_name[0] == '.') continue;
    std::array<char, 32> name{};
    const UniqueFd comm(open(("/proc/self/task/" + std::string(entry->d_name) + "/comm").c_str(),
                             O_RDONLY | O_CLOEXEC));
    const ssize_t size = comm.valid() ? read(comm.get(), name.data(), name.size()) : 0;
    const std::string_view text(name.data(), size > 0 ? static_cast<std::size_t>(size) - 1 : 0);
    threads +=
        (threads.size() > 1 ? "," : "") + std::string("{\"tid\":") + entry->d_name + ",\"name\":\"";
    AppendJsonEscaped(&threads, text, name.size());
    threads += "\"}";
  }
  return builder.PutControl(ControlFile::kThreads, threads + "]");
}

}  // namespace latchkey::mount
