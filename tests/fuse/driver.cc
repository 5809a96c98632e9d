// Test driver: the real keeper, worker, waker and notifier, fed over a unix socket instead of the
// network.
//
//   fuse_driver TARGET PRIVATE_DIR SOCKET [key=value ...]
//     stuck_ms=2000 lazy_ms=5000 wait_ms=0 grace_s=60 threads=2 secret_memory=1 uid=N reads=FILE
//     audit=0 max_stale=0
//
// Prints "ready" when the mount is exposed. Commands arrive as lines on SOCKET, `put` and `control`
// followed by raw bytes; each is answered by one line. A worker that was killed is followed by one
// that listens on the same socket.
#include <fcntl.h>
#include <linux/fuse.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <sstream>
#include <thread>

#include "common/base/log.h"
#include "common/base/unique_fd.h"
#include "fusefs/journal/events.h"
#include "fusefs/keeper/keeper.h"
#include "fusefs/mount/handlers.h"
#include "fusefs/mount/session.h"
#include "fusefs/reads/ring.h"
#include "fusefs/wake/wake.h"
#include "tests/fuse/protocol.h"

namespace latchkey::fusetest {
namespace {

using Options = std::map<std::string, std::string>;

long Number(const Options& options, const char* key, long fallback) {
  const auto found = options.find(key);
  return found == options.end() ? fallback : std::stol(found->second);
}

bool ReadExactly(int fd, std::string* out, std::size_t size) {
  out->resize(size);
  for (std::size_t done = 0; done < size;) {
    const ssize_t count = read(fd, out->data() + done, size - done);
    if (count <= 0) return false;
    done += static_cast<std::size_t>(count);
  }
  return true;
}

bool ReadLine(int fd, std::string* line) {
  line->clear();
  for (char c = 0; read(fd, &c, 1) == 1;) {
    if (c == '\n') return true;
    line->push_back(c);
  }
  return false;
}

class Feeder {
 public:
  Feeder(mount::Session& session, const journal::Handover& handover, Switches* switches)
      : session_(session), handover_(handover), switches_(switches), builder_(session.store()) {}

  bool PutFixed() { return mount::PutFixedControlFiles(builder_, session_.region()).has_value(); }

  void Listen(const std::string& path) {
    const UniqueFd socket_fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
    unlink(path.c_str());
    if (bind(socket_fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
        listen(socket_fd.get(), 8) != 0)
      _exit(3);
    for (;;) {
      const UniqueFd peer(accept4(socket_fd.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!peer.valid()) continue;
      for (std::string line; ReadLine(peer.get(), &line);) {
        const std::string reply = Run(line, peer.get()) + "\n";
        if (send(peer.get(), reply.data(), reply.size(), MSG_NOSIGNAL) < 0) break;
      }
    }
  }

 private:
  static std::string Say(const Status& status) {
    return status ? "ok"
                  : std::string("error ") + ErrcName(status.error().code) + " " +
                        status.error().message;
  }

  std::string Put(std::istringstream& words, int peer) {
    std::string name, file, mode;
    snapshot::SecretVersion version;
    std::size_t size = 0;
    words >> name >> file >> version.number >> mode >> version.uid >> version.gid >>
        version.mtime_s >> size;
    std::string content;
    if (!ReadExactly(peer, &content, size)) return "error short";
    version.name = name;
    version.filename = file == "-" ? std::string_view() : std::string_view(file);
    version.mode = static_cast<std::uint32_t>(std::stoul(mode, nullptr, 8));
    version.content = AsBytes(content);
    version.checksum = "C0FFEE";
    return Say(builder_.Put(version));
  }

  std::string Publish(std::istringstream& words) {
    std::uint64_t generation = 0;
    words >> generation;
    const auto result = builder_.Publish(generation);
    if (!result) return "error " + result.error().message;
    return "ok " + std::to_string(result->mount_generation) + " " + std::to_string(result->changed);
  }

  std::string Stats() const {
    const journal::Layout& layout = session_.region().layout();
    std::ostringstream out;
    out << "worker=" << layout.worker_pid << " waker=" << layout.waker_pid
        << " notifier=" << layout.notifier_pid << " starts=" << layout.worker_starts
        << " replayed=" << layout.replayed << " refused=" << layout.refused
        << " delayed=" << switches_->delayed
        << " dropped=" << reads::DroppedRecords(session_.region())
        << " server_generation=" << builder_.server_generation();
    return out.str();
  }

  // Whether the waker or the notifier still has something to make.
  std::string Pending() const {
    const journal::Layout& layout = session_.region().layout();
    return journal::HasPending(layout.wake) || journal::HasPending(layout.notify) ? "yes" : "no";
  }

  std::string OpenCount(std::istringstream& words) const {
    std::string file;
    words >> file;
    const auto now = session_.store().Current();
    const snapshot::NodeView* view = now->Lookup(file);
    if (view == nullptr) return "none";
    std::uint64_t sum = session_.store().OpenDescriptors(session_.store().HandleOf(view->record));
    for (const auto record : view->superseded)
      sum += session_.store().OpenDescriptors(session_.store().HandleOf(record));
    return std::to_string(sum);
  }

  void ForgetName(std::string name) const {
    name.push_back('\0');
    fuse_notify_inval_entry_out body{};
    body.parent = snapshot::kPubNode;
    body.namelen = static_cast<std::uint32_t>(name.size() - 1);
    fuse_out_header head{};
    head.len = static_cast<std::uint32_t>(sizeof head + sizeof body + name.size());
    head.error = FUSE_NOTIFY_INVAL_ENTRY;
    std::array<iovec, 3> parts = {iovec{&head, sizeof head}, iovec{&body, sizeof body},
                                  iovec{name.data(), name.size()}};
    [[maybe_unused]] const ssize_t written = writev(handover_.fuse_fd, parts.data(), 3);
  }

  // What a worker must never do: a page-dropping notice. For the test of a worker that cannot be
  // reaped.
  void HangInNotice(std::uint64_t node) const {
    fuse_notify_inval_inode_out body{};
    body.ino = node;
    fuse_out_header head{};
    head.len = sizeof head + sizeof body;
    head.error = FUSE_NOTIFY_INVAL_INODE;
    std::array<iovec, 2> parts = {iovec{&head, sizeof head}, iovec{&body, sizeof body}};
    [[maybe_unused]] const ssize_t written = writev(handover_.fuse_fd, parts.data(), 2);
  }

  std::string Run(const std::string& line, int peer) {
    std::istringstream words(line);
    std::string verb;
    words >> verb;
    if (verb == "put") return Put(words, peer);
    if (verb == "remove") {
      std::string name;
      words >> name;
      builder_.Remove(name);
      return "ok";
    }
    if (verb == "control") {
      std::uint32_t file = 0;
      std::size_t size = 0;
      words >> file >> size;
      std::string text;
      if (!ReadExactly(peer, &text, size)) return "error short";
      return Say(builder_.PutControl(static_cast<snapshot::ControlFile>(file), text));
    }
    if (verb == "publish") return Publish(words);
    if (verb == "stats") return Stats();
    if (verb == "opens") return OpenCount(words);
    if (verb == "pending") return Pending();
    if (verb == "sweep") {
      builder_.Sweep();
      return "ok";
    }
    if (verb == "fresh") {
      snapshot::Freshness fresh;
      words >> fresh.last_success_s >> fresh.stale_since_s;
      builder_.SetFreshness(fresh);
      return "ok";
    }
    if (verb == "problems") {
      std::string out;
      for (const auto& problem : builder_.Problems())
        out += problem.name + ": " + problem.reason + "; ";
      return out.empty() ? "none" : out;
    }
    if (verb == "delay") {
      std::uint32_t opcode = 0, ms = 0, times = 0;
      words >> opcode >> ms >> times;
      switches_->delay_ms = ms;
      switches_->delay_times = times;
      switches_->delay_opcode = opcode;
      return "ok";
    }
    if (verb == "crash") {
      std::uint32_t opcode = 0, times = 0;
      words >> opcode >> times;
      switches_->crash_times = times;
      switches_->crash_opcode = opcode;
      return "ok";
    }
    if (verb == "forget") {  // the kernel drops the name from its cache
      std::string name;
      words >> name;
      ForgetName(name);
      return "ok";
    }
    if (verb == "hang") {
      std::uint64_t node = 0;
      words >> node;
      std::thread([this, node] { HangInNotice(node); }).detach();
      return "ok";
    }
    if (verb == "notices") {
      // Attribute notices for the nth secret without a pause, or for none.
      mount::Inode nth = 0;
      noticing_ = std::jthread();
      if (words >> nth)
        noticing_ = std::jthread([fuse_fd = handover_.fuse_fd, nth](const std::stop_token& stop) {
          while (!stop.stop_requested())
            mount::ForgetAttributes(fuse_fd, snapshot::kFirstSecretNode + nth);
        });
      return "ok";
    }
    return "error unknown";
  }

  mount::Session& session_;
  journal::Handover handover_;
  Switches* switches_;
  snapshot::SnapshotBuilder builder_;
  std::jthread noticing_;
};

bool TakeOne(std::atomic<std::uint32_t>& times) {
  for (std::uint32_t left = times; left > 0;)
    if (times.compare_exchange_weak(left, left - 1)) return true;
  return false;
}

void BeforeHandler(Switches* switches, std::uint32_t opcode) {
  if (switches->crash_opcode == opcode && TakeOne(switches->crash_times)) abort();
  if (switches->delay_opcode != opcode || !TakeOne(switches->delay_times)) return;
  switches->delayed.fetch_add(1);
  std::this_thread::sleep_for(std::chrono::milliseconds(switches->delay_ms));
}

int Worker(const journal::Handover& handover, const Options& options, const std::string& control,
           Switches* switches) {
  mount::SessionOptions session_options;
  session_options.threads = static_cast<unsigned>(Number(options, "threads", 2));
  session_options.revoke_grace = std::chrono::seconds(Number(options, "grace_s", 60));
  session_options.max_stale = std::chrono::seconds(Number(options, "max_stale", 0));
  session_options.audit_required = Number(options, "audit", 0) != 0;
  if (options.count("uid") != 0) {
    session_options.uid = static_cast<uid_t>(Number(options, "uid", 0));
    session_options.gid = static_cast<gid_t>(Number(options, "uid", 0));
  }
  if (Number(options, "hooks", 1) != 0)
    session_options.before_handler = [switches](std::uint32_t opcode) {
      BeforeHandler(switches, opcode);
    };
  auto session = mount::Session::Open(handover, session_options);
  if (!session) {
    std::cerr << session.error().message << "\n";
    return 1;
  }
  Feeder feeder(**session, handover, switches);
  if (!feeder.PutFixed() || !(*session)->Start()) return 1;
  std::unique_ptr<reads::ReadConsumer> consumer;
  std::ofstream reads_file;
  if (options.count("reads") != 0) {
    reads_file.open(options.at("reads"), std::ios::app);
    consumer = std::make_unique<reads::ReadConsumer>(
        (*session)->region(),
        [&](std::uint32_t node) { return std::string((*session)->store().SecretName(node)); },
        [&](const std::string& line) { return static_cast<bool>(reads_file << line << std::endl); },
        std::chrono::milliseconds(10));
  }
  signal(SIGTERM, SIG_DFL);
  feeder.Listen(control);
  return 0;
}

int Main(int argc, char** argv) {
  if (argc < 4) return 2;
  Options options;
  for (int i = 4; i < argc; ++i) {
    const std::string word = argv[i];
    options[word.substr(0, word.find('='))] = word.substr(word.find('=') + 1);
  }
  void* shared =
      mmap(nullptr, sizeof(Switches), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  auto* switches = new (shared) Switches();
  keeper::KeeperOptions keeper_options;
  keeper_options.target = argv[1];
  keeper_options.private_dir = argv[2];
  keeper_options.content_bytes = snapshot::ContentMemoryBytes();
  keeper_options.try_secret_memory = Number(options, "secret_memory", 1) != 0;
  keeper_options.stuck_after = std::chrono::milliseconds(Number(options, "stuck_ms", 2000));
  keeper_options.lazy_unmount_after = std::chrono::milliseconds(Number(options, "lazy_ms", 5000));
  keeper_options.snapshot_wait = std::chrono::milliseconds(Number(options, "wait_ms", 0));
  const std::string control = argv[3];
  keeper_options.worker = [&](const journal::Handover& handover) {
    return Worker(handover, options, control, switches);
  };
  keeper_options.waker = [](const journal::Handover& handover) {
    return wake::RunWaker(handover, {});
  };
  keeper_options.notifier = [](const journal::Handover& handover) {
    return wake::RunNotifier(handover);
  };
  keeper_options.on_ready = [] { std::cout << "ready" << std::endl; };
  auto keeper = keeper::Keeper::Prepare(keeper_options);
  if (!keeper) {
    std::cerr << keeper.error().message << "\n";
    return ExitCodeOf(keeper.error().code);
  }
  const Status status = (*keeper)->Run();
  if (!status) std::cerr << status.error().message << "\n";
  return status ? 0 : ExitCodeOf(status.error().code);
}

}  // namespace
}  // namespace latchkey::fusetest

int main(int argc, char** argv) {
  return latchkey::fusetest::Main(argc, argv);
}
