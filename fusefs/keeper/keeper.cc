#include "fusefs/keeper/keeper.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <deque>
#include <optional>

#include "common/base/log.h"
#include "common/base/unique_fd.h"
#include "fusefs/journal/events.h"
#include "fusefs/journal/region.h"
#include "fusefs/keeper/child.h"
#include "fusefs/keeper/fusectl.h"
#include "fusefs/keeper/memory.h"
#include "fusefs/keeper/paths.h"

namespace latchkey::keeper {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kTick{100};
constexpr milliseconds kTickCallback{250};
constexpr milliseconds kWorkerFarewell{1000};  // for a worker to end once its mount is gone
constexpr milliseconds kKilledPatience{1000};  // for a killed worker to become a zombie
constexpr milliseconds kStatusPatience{50};
constexpr milliseconds kHelperTimeout{5000};
constexpr milliseconds kSpacing{1000};  // between workers that keep crashing
constexpr milliseconds kShortLife{20};  // a worker that lived less waits that long
constexpr std::size_t kMaxCrashes = 5;  // in kCrashWindow, then restarts are spaced out
constexpr milliseconds kCrashWindow{10'000};
constexpr int kConfigurationExit = 78;  // EX_CONFIG: starting again would not help

Error Failed(const std::string& what) {
  return Error{Errc::kUnavailable, what + ": " + std::strerror(errno)};
}

bool IsCrash(int signal_number) {
  return signal_number == SIGSEGV || signal_number == SIGBUS || signal_number == SIGABRT ||
         signal_number == SIGILL || signal_number == SIGFPE || signal_number == SIGSYS ||
         signal_number == SIGTRAP;
}

std::uint32_t LengthIn(const journal::Layout& layout, std::size_t slot) {
  return __atomic_load_n(reinterpret_cast<const std::uint32_t*>(layout.requests[slot].data()),
                         __ATOMIC_ACQUIRE);
}

// One helper or worker process and when it last showed progress.
struct Process {
  pid_t pid = -1;
  Clock::time_point started;
  Clock::time_point not_before;  // earliest start of the next one
  Clock::time_point killed;      // set while a kill is on its way
  bool killing = false;
  std::optional<Clock::time_point> dead_since;  // first seen killed and not yet reaped
  std::uint64_t progress = 0;                   // any number that changes when it works
  Clock::time_point progress_at;
  std::array<std::uint64_t, journal::kSlots>
      held{};  // worker: sequence of the request in each slot, 0 = none
  std::array<Clock::time_point, journal::kSlots> held_since;
};

}  // namespace

class Keeper::Impl {
 public:
  explicit Impl(KeeperOptions options, journal::Region region, ContentMemory memory)
      : options_(std::move(options)), region_(std::move(region)), memory_(std::move(memory)) {}
  ~Impl() { Teardown(); }

  Status Prepare(UniqueFd target, UniqueFd private_mount, std::vector<UniqueFd> locks) {
    target_ = std::move(target);
    private_mount_ = std::move(private_mount);
    locks_ = std::move(locks);
    fuse_.Reset(open("/dev/fuse", O_RDWR | O_CLOEXEC));
    if (!fuse_.valid())
      return Failed("cannot open /dev/fuse; load the fuse module or allow the device");
    for (auto& pair : sockets_) {
      std::array<int, 2> ends{};
      if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()) != 0)
        return Failed("cannot make a socket pair");
      pair[0].Reset(ends[0]);
      pair[1].Reset(ends[1]);
    }
    region_.layout().keeper_pid.store(static_cast<std::uint32_t>(getpid()));
    return {};
  }

  Status Run() {
    RETURN_IF_ERROR(CatchSignals());
    RETURN_IF_ERROR(WaitForSnapshot());
    if (stop_) return {};
    RETURN_IF_ERROR(Mount());
    RETURN_IF_ERROR(Expose());
    Supervise();
    Log(LogLevel::kInfo, "secrets are mounted", {{"target", options_.target}});
    if (options_.on_ready) options_.on_ready();
    while (!stop_) {
      Pause(kTick);
      Supervise();
      if (failed_.has_value()) break;
    }
    Teardown();
    if (failed_.has_value()) return *failed_;
    return {};
  }

 private:
  // ---- starting ----

  Status CatchSignals() {
    sigset_t set;
    sigemptyset(&set);
    for (const int number : {SIGTERM, SIGINT, SIGHUP, SIGCHLD}) sigaddset(&set, number);
    if (sigprocmask(SIG_BLOCK, &set, nullptr) != 0) return Failed("cannot block signals");
    signals_.Reset(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!signals_.valid()) return Failed("cannot watch signals");
    return {};
  }

  // The mount appears only once there is something to serve (R2).
  Status WaitForSnapshot() {
    const auto end = Clock::now() + options_.snapshot_wait;
    while (!stop_ && region_.layout().snapshot_ready.load() == 0) {
      if (options_.snapshot_wait.count() != 0 && Clock::now() > end)
        return Error{Errc::kUnavailable,
                     "no snapshot within " + std::to_string(options_.snapshot_wait.count()) +
                         " ms: nothing is mounted; see the worker's messages above"};
      SuperviseWorker();
      if (failed_.has_value()) return *failed_;
      if (journal::WaitWhile(region_.layout().snapshot_ready, 0, milliseconds(20))) break;
      Pause(milliseconds(0));
    }
    return {};
  }

  Status Mount() {
    const std::string data = "fd=" + std::to_string(fuse_.get()) +
                             ",rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions";
    const std::string through_fd = "/proc/self/fd/" + std::to_string(private_mount_.get());
    if (mount("latchkey-fs", through_fd.c_str(), kFuseType, MS_NOSUID | MS_NODEV | MS_NOEXEC,
              data.c_str()) != 0)
      return Failed("cannot mount on " + PrivatePath());
    private_mounted_ = true;
    // Without this the private mount would be copied into every namespace that shares its parent,
    // where nobody may enter it.
    [[maybe_unused]] const int isolated =
        mount(nullptr, PrivatePath().c_str(), nullptr, MS_PRIVATE, nullptr);
    journal::Raise(region_.layout().mounted, 1);
    if (const auto entry = MountOn(PrivatePath()); entry.has_value()) {
      auto control = FuseControl::Open(entry->device);
      if (control.has_value())
        control_ = std::move(control).value();
      else
        Log(LogLevel::kWarn, "the watchdog works without fusectl",
            {{"error", control.error().message}});
    }
    return {};
  }

  // A child does the walk into the mount, so that a stuck worker cannot stop the keeper. It has no
  // /dev/fuse.
  Status Expose() {
    const std::string pub = PrivatePath() + "/pub";
    const int target = target_.get();
    const pid_t child = StartChild({target}, [&] {
      const UniqueFd tree(open_tree(AT_FDCWD, pub.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));
      if (!tree.valid()) return errno;
      mount_attr attributes{};
      attributes.attr_set =
          MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
      if (mount_setattr(tree.get(), "", AT_EMPTY_PATH, &attributes, sizeof attributes) != 0)
        return errno;
      if (move_mount(tree.get(), "", target, "",
                     MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) != 0)
        return errno;
      return 0;
    });
    std::optional<int> code;
    for (const auto end = Clock::now() + kHelperTimeout; !code.has_value() && Clock::now() < end;) {
      code = WaitForExit(child, milliseconds(10));
      SuperviseWorker();
    }
    if (!code.has_value()) kill(child, SIGKILL);
    if (code.value_or(ETIMEDOUT) != 0)
      return Error{Errc::kUnavailable, "cannot expose the mount at " + options_.target + ": " +
                                           std::strerror(code.value_or(ETIMEDOUT))};
    exposed_ = true;
    return {};
  }

  std::string PrivatePath() const { return options_.private_dir + "/mnt"; }

  // ---- children ----

  journal::Handover Common() const {
    journal::Handover handover;
    handover.region_fd = region_.fd();
    handover.private_path = PrivatePath();
    handover.content_locked = memory_.locked();
    return handover;
  }

  void StartWorker() {
    journal::Handover handover = Common();
    handover.fuse_fd = fuse_.get();
    handover.content_fd = memory_.fd();
    handover.wake_fd = sockets_[0][0].get();
    handover.notify_fd = sockets_[1][0].get();
    worker_ = Process{};
    worker_.started = worker_.progress_at = Clock::now();
    worker_.pid = StartChild({handover.fuse_fd, handover.region_fd, handover.content_fd,
                              handover.wake_fd, handover.notify_fd},
                             [&] { return options_.worker(handover); });
    region_.layout().worker_pid.store(static_cast<std::uint32_t>(std::max(worker_.pid, 0)));
    region_.layout().worker_starts.fetch_add(1);
  }

  void StartWaker() {
    journal::Handover handover = Common();
    handover.wake_fd = sockets_[0][1].get();
    waker_ = Process{};
    waker_.started = waker_.progress_at = Clock::now();
    waker_.pid = StartChild({handover.region_fd, handover.wake_fd},
                            [&] { return options_.waker(handover); });
    region_.layout().waker_pid.store(static_cast<std::uint32_t>(std::max(waker_.pid, 0)));
  }

  void StartNotifier() {
    journal::Handover handover = Common();
    handover.fuse_fd = fuse_.get();
    handover.notify_fd = sockets_[1][1].get();
    notifier_ = Process{};
    notifier_.started = notifier_.progress_at = Clock::now();
    notifier_.pid = StartChild({handover.fuse_fd, handover.region_fd, handover.notify_fd},
                               [&] { return options_.notifier(handover); });
    region_.layout().notifier_pid.store(static_cast<std::uint32_t>(std::max(notifier_.pid, 0)));
  }

  // ---- watching ----

  void Supervise() {
    SuperviseWorker();
    SuperviseHelper(&waker_, region_.layout().wake, "waker", [this] { StartWaker(); });
    SuperviseHelper(&notifier_, region_.layout().notify, "notifier", [this] { StartNotifier(); });
    std::erase_if(unreaped_,
                  [](pid_t pid) { return LookAt(pid).kind == ChildState::Kind::kReaped; });
    const auto now = Clock::now();
    if (now - last_callback_ < kTickCallback) return;
    last_callback_ = now;
    memory_.LockUsedPages();
    if (options_.on_tick) options_.on_tick();
  }

  void SuperviseWorker() {
    const auto now = Clock::now();
    if (worker_.pid <= 0) {
      if (now >= worker_.not_before) StartWorker();
      return;
    }
    const ChildState state = LookAt(worker_.pid);
    if (state.kind == ChildState::Kind::kRuns) {
      if (!worker_.killing)
        WatchForStuck(now);
      else if (now - worker_.killed > kKilledPatience)
        ReplaceWorker(now, true);  // all it could do now is to leave a system call and die
      return;
    }
    if (state.kind == ChildState::Kind::kDead &&
        now - worker_.dead_since.value_or(now) < kStatusPatience) {
      // Its threads are about to leave, and then the status tells whether it crashed; one that cannot leave is not waited for.
      if (!worker_.dead_since.has_value()) worker_.dead_since = now;
      return;
    }
    bool to_blame = worker_.killing;
    bool crash = worker_.killing;
    if (state.kind == ChildState::Kind::kReaped) {
      const bool by_signal = WIFSIGNALED(state.status);
      to_blame = to_blame || (by_signal && IsCrash(WTERMSIG(state.status)));
      // SIGKILL comes from outside: it says nothing about the worker, and somebody wants the next
      // one at once.
      crash = crash || !by_signal || WTERMSIG(state.status) != SIGKILL;
      if (WIFEXITED(state.status) && WEXITSTATUS(state.status) == kConfigurationExit &&
          region_.layout().snapshot_ready.load() == 0)
        failed_ = Error{Errc::kInvalidArgument,
                        "the worker refuses its configuration; see its message above"};
      if (WIFEXITED(state.status) && WEXITSTATUS(state.status) == 0) crash = false;
    } else {
      unreaped_.push_back(worker_.pid);
    }
    if (to_blame) region_.layout().blame.store(1);
    if (crash) crashes_.push_back(now);
    Log(LogLevel::kWarn, "the worker ended; starting the next",
        {{"pid", worker_.pid}, {"status", state.status}});
    ReplaceWorker(now, false);
  }

  void ReplaceWorker(Clock::time_point now, bool abandoned) {
    if (abandoned) {
      region_.layout().blame.store(1);
      crashes_.push_back(now);
      unreaped_.push_back(worker_.pid);
      Log(LogLevel::kError, "the killed worker does not end; starting the next beside it",
          {{"pid", worker_.pid}});
    }
    while (!crashes_.empty() && now - crashes_.front() > kCrashWindow) crashes_.pop_front();
    const bool short_life = now - worker_.started < kShortLife;
    worker_.pid = -1;
    worker_.killing = false;
    worker_.not_before = crashes_.size() >= kMaxCrashes ? now + kSpacing
                         : short_life                   ? now + kShortLife
                                                        : now;
    if (now >= worker_.not_before) StartWorker();
  }

  // R5: a slot that has held the same request too long, or requests that wait while no slot
  // changes.
  void WatchForStuck(Clock::time_point now) {
    const journal::Layout& layout = region_.layout();
    if (layout.mounted.load() == 0) return;
    std::uint64_t sum = 0;
    bool stuck = false;
    for (std::size_t slot = 0; slot < journal::kSlots; ++slot) {
      const std::uint64_t sequence = layout.slots[slot].sequence.load(std::memory_order_acquire);
      sum += sequence;
      const std::uint64_t held = LengthIn(layout, slot) == 0 ? 0 : sequence;
      if (held == 0 || held != worker_.held[slot]) {
        worker_.held[slot] = held;
        worker_.held_since[slot] = now;
      } else if (now - worker_.held_since[slot] > options_.stuck_after) {
        stuck = true;
      }
    }
    const auto waiting = control_.Waiting();
    if (sum != worker_.progress || waiting.value_or(0) == 0) {
      worker_.progress = sum;
      worker_.progress_at = now;
    } else if (now - worker_.progress_at > options_.stuck_after) {
      stuck = true;
    }
    if (!stuck) return;
    Log(LogLevel::kError, "the worker is stuck and is replaced", {{"pid", worker_.pid}});
    kill(worker_.pid, SIGKILL);
    worker_.killing = true;
    worker_.killed = now;
  }

  // A helper that does not get on with pending events is replaced; the next one makes up what is
  // pending. Never a reason to touch the worker (5.2).
  void SuperviseHelper(Process* helper, const journal::EventQueue& queue, const char* name,
                       const std::function<void()>& start) {
    const auto now = Clock::now();
    if (helper->pid <= 0) {
      if (now >= helper->not_before) start();
      return;
    }
    const ChildState state = LookAt(helper->pid);
    bool replace = state.kind != ChildState::Kind::kRuns;
    const std::uint64_t finished = queue.finished.load(std::memory_order_acquire);
    if (finished != helper->progress || !journal::HasPending(queue)) {
      helper->progress = finished;
      helper->progress_at = now;
    } else if (!replace && now - helper->progress_at > options_.stuck_after) {
      kill(helper->pid, SIGKILL);
      replace = true;
    }
    if (!replace) return;
    Log(LogLevel::kWarn, "a helper process is replaced", {{"helper", name}, {"pid", helper->pid}});
    if (state.kind != ChildState::Kind::kReaped) unreaped_.push_back(helper->pid);
    const bool short_life = now - helper->started < kSpacing;
    helper->pid = -1;
    helper->not_before = short_life ? helper->started + kSpacing : now;
    if (now >= helper->not_before) start();
  }

  // Waits for a signal, a child or the time.
  void Pause(milliseconds limit) {
    pollfd wait{signals_.get(), POLLIN, 0};
    poll(&wait, 1, static_cast<int>(limit.count()));
    signalfd_siginfo info{};
    while (read(signals_.get(), &info, sizeof info) == sizeof info) {
      if (info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT) stop_ = true;
      // A new worker, e.g. after an upgrade: the old one finishes what it has in hand, then ends.
      if (info.ssi_signo == SIGHUP && worker_.pid > 0) kill(worker_.pid, SIGTERM);
    }
  }

  // ---- stopping: waker, notifier, unmount, worker (5.2) ----

  void Teardown() {
    if (torn_down_) return;
    torn_down_ = true;
    region_.layout().stopping.store(1);
    for (const Process* helper : {&waker_, &notifier_})
      if (helper->pid > 0) End(helper->pid);
    // The worker serves on: whoever is still in the mount gets answers until it is gone.
    if (exposed_) Unmount(options_.target);
    if (private_mounted_) Unmount(PrivatePath());
    // It writes the last read records (R23), and ends by itself unless a container still holds the mount.
    region_.layout().stopping.store(2);
    if (worker_.pid > 0 && !WaitForExit(worker_.pid, kWorkerFarewell).has_value()) End(worker_.pid);
    bool alive = false;
    for (const pid_t pid : unreaped_)
      alive = alive || LookAt(pid).kind != ChildState::Kind::kReaped;
    // Somebody hangs in a request that nobody will answer.
    if (alive) control_.Abort();
    for (const pid_t pid : unreaped_) WaitForExit(pid, kKilledPatience);
    fuse_.Reset();
  }

  void End(pid_t pid) {
    kill(pid, SIGKILL);
    if (!WaitForExit(pid, milliseconds(500)).has_value()) unreaped_.push_back(pid);
  }

  // A child unmounts: taking the superblock down can wait for a page that a dead worker never filled, and then only the next
  // worker or the abort helps. While it waits, workers are looked after as ever.
  void Unmount(const std::string& path) {
    const auto end = Clock::now() + options_.lazy_unmount_after;
    std::optional<int> error = EBUSY;
    for (int flags = UMOUNT_NOFOLLOW; error == EBUSY; poll(nullptr, 0, 10)) {
      if (Clock::now() >= end) {
        Log(LogLevel::kWarn, "the mount is in use; it goes when its last user ends",
            {{"path", path}});
        flags |= MNT_DETACH;
      }
      error = UnmountInChild(path, flags, std::max(end, Clock::now() + kKilledPatience));
    }
  }

  // The errno of umount2, nullopt when it had to be left behind.
  std::optional<int> UnmountInChild(const std::string& path, int flags,
                                    Clock::time_point patience) {
    const pid_t child =
        StartChild({}, [&] { return umount2(path.c_str(), flags) == 0 ? 0 : errno; });
    std::optional<int> code;
    while (!code.has_value() && Clock::now() < patience) {
      code = WaitForExit(child, milliseconds(10));
      SuperviseWorker();
    }
    if (code.has_value() || child <= 0) return code;
    Log(LogLevel::kError, "the unmount hangs; aborting the connection", {{"path", path}});
    control_.Abort();
    code = WaitForExit(child, kKilledPatience);
    if (!code.has_value()) unreaped_.push_back(child);
    return code;
  }

  KeeperOptions options_;
  journal::Region region_;
  ContentMemory memory_;
  UniqueFd target_;
  UniqueFd private_mount_;
  std::vector<UniqueFd> locks_;
  UniqueFd fuse_;
  UniqueFd signals_;
  std::array<std::array<UniqueFd, 2>, 2> sockets_;  // waker, notifier: worker's end, helper's end
  FuseControl control_;
  Process worker_;
  Process waker_;
  Process notifier_;
  std::vector<pid_t> unreaped_;
  std::deque<Clock::time_point> crashes_;
  Clock::time_point last_callback_;
  std::optional<Error> failed_;
  bool stop_ = false;
  bool private_mounted_ = false;
  bool exposed_ = false;
  bool torn_down_ = false;
};

Keeper::Keeper(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Keeper::~Keeper() = default;

Result<std::unique_ptr<Keeper>> Keeper::Prepare(KeeperOptions options) {
  ASSIGN_OR_RETURN(options.target, NormalPath(options.target));
  ASSIGN_OR_RETURN(options.private_dir, NormalPath(options.private_dir));
  const std::string private_path = options.private_dir + "/mnt";
  const std::string taken =
      " is used by another latchkey-fs; stop that one first: latchkey-fs unmount " + options.target;
  ASSIGN_OR_RETURN(const UniqueFd directory, OpenSafeDirectory(options.private_dir, true));
  std::vector<UniqueFd> locks;
  ASSIGN_OR_RETURN(UniqueFd private_lock,
                   LockDirectory(directory.get(), options.private_dir + taken));
  if (fchmod(private_lock.get(), 0700) != 0)
    return Failed("cannot make " + options.private_dir + " private");
  RETURN_IF_ERROR(ClearDeadMounts(private_path));
  RETURN_IF_ERROR(ClearDeadMounts(options.target));
  ASSIGN_OR_RETURN(UniqueFd private_mount, OpenSafeDirectory(private_path, true));
  ASSIGN_OR_RETURN(UniqueFd target, OpenSafeDirectory(options.target, false));
  ASSIGN_OR_RETURN(UniqueFd target_lock, LockDirectory(target.get(), options.target + taken));
  RETURN_IF_ERROR(CheckEmpty(target.get(), options.target));
  locks.push_back(std::move(private_lock));
  locks.push_back(std::move(target_lock));
  ASSIGN_OR_RETURN(journal::Region region, journal::Region::Create());
  ASSIGN_OR_RETURN(ContentMemory memory,
                   ContentMemory::Make(options.content_bytes, options.try_secret_memory,
                                       options.allow_unlocked));
  auto impl = std::make_unique<Impl>(std::move(options), std::move(region), std::move(memory));
  RETURN_IF_ERROR(impl->Prepare(std::move(target), std::move(private_mount), std::move(locks)));
  return std::unique_ptr<Keeper>(new Keeper(std::move(impl)));
}

Status Keeper::Run() {
  return impl_->Run();
}

}  // namespace latchkey::keeper
