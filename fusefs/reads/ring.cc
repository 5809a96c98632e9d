#include "fusefs/reads/ring.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <optional>
#include <unordered_map>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/unique_fd.h"

namespace latchkey::reads {
namespace {

constexpr std::size_t kProcFileBytes = 4096;
constexpr std::int64_t kStartSlackMs = 20;  // start times come in ticks of 10 ms
constexpr std::size_t kFieldBytes = 1024;
using journal::kRecordsPerSlot;
using journal::kSlots;
using journal::ReadRecord;
using journal::ReadRing;

// Records that may be read: `tail` is ours, `head` comes from memory that a worker wrote, so it is
// bounded.
std::uint64_t Waiting(const ReadRing& ring) {
  const std::uint64_t head = ring.head.load(std::memory_order_acquire);
  const std::uint64_t tail = ring.tail.load(std::memory_order_relaxed);
  return head < tail ? 0 : std::min<std::uint64_t>(head - tail, kRecordsPerSlot);
}

struct Caller {
  std::string comm;
  std::string exe;
  std::string cgroup;
  std::int64_t started_wall_ms =
      0;  // earliest wall-clock time at which it can have opened anything
  bool known = false;
};

std::string ReadProc(int proc_fd, const char* name) {
  const UniqueFd fd(openat(proc_fd, name, O_RDONLY | O_CLOEXEC));
  std::array<char, kProcFileBytes> text;
  const ssize_t size = fd.valid() ? read(fd.get(), text.data(), text.size()) : -1;
  return size > 0 ? std::string(text.data(), static_cast<std::size_t>(size)) : std::string();
}

bool StillRuns(int pidfd) {
  pollfd state{pidfd, POLLIN, 0};
  return poll(&state, 1, 0) == 0;
}

// When the process started, as milliseconds of wall clock; nullopt when /proc does not tell.
std::optional<std::int64_t> StartedAt(int proc_fd) {
  const std::string stat = ReadProc(proc_fd, "stat");
  std::size_t at = stat.rfind(')');
  for (int field = 2; field < 22 && at != std::string::npos; ++field) at = stat.find(' ', at + 1);
  if (at == std::string::npos) return std::nullopt;
  const auto start_ticks = static_cast<std::int64_t>(std::strtoull(stat.c_str() + at, nullptr, 10));
  timespec boot{};
  clock_gettime(CLOCK_BOOTTIME, &boot);
  const std::int64_t since_boot_ms =
      static_cast<std::int64_t>(boot.tv_sec) * 1000 + boot.tv_nsec / 1'000'000;
  const std::int64_t wall_ms = SystemClock().Now().time_since_epoch().count() / 1'000'000;
  return wall_ms - since_boot_ms + start_ticks * 1000 / sysconf(_SC_CLK_TCK) - kStartSlackMs;
}

// What /proc says, if it is the same process before and after the look: the pidfd pins the process,
// not its number.
Caller LookUp(std::uint32_t pid) {
  Caller caller;
  const UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  if (!pidfd.valid()) return caller;
  const std::string path = "/proc/" + std::to_string(pid);
  const UniqueFd proc(open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  const auto started = proc.valid() ? StartedAt(proc.get()) : std::nullopt;
  if (!started.has_value()) return caller;
  caller.started_wall_ms = *started;
  caller.comm = ReadProc(proc.get(), "comm");
  if (!caller.comm.empty() && caller.comm.back() == '\n') caller.comm.pop_back();
  caller.cgroup = ReadProc(proc.get(), "cgroup");
  if (const auto end = caller.cgroup.find('\n'); end != std::string::npos) {
    // With several hierarchies the unified one, or else the first, names the container well enough.
    const auto unified = caller.cgroup.find("0::");
    const auto from = unified == std::string::npos ? 0 : unified;
    caller.cgroup = caller.cgroup.substr(from, caller.cgroup.find('\n', from) - from);
  }
  std::array<char, kProcFileBytes> link;
  const ssize_t size = readlinkat(proc.get(), "exe", link.data(), link.size());
  if (size > 0) caller.exe.assign(link.data(), static_cast<std::size_t>(size));
  caller.known = StillRuns(pidfd.get());
  return caller;
}

// One drain's look-ups: a program that opens a thousand secrets is looked at once.
class Callers {
 public:
  // Null when the process is gone, or started after the record was made: then it is another one with the same number.
  const Caller* Find(const ReadRecord& record) {
    if (record.pid == 0) return nullptr;
    auto found = seen_.find(record.pid);
    if (found == seen_.end()) found = seen_.emplace(record.pid, LookUp(record.pid)).first;
    const auto record_ms = static_cast<std::int64_t>(record.time_ns / 1'000'000);
    const Caller& caller = found->second;
    return caller.known && caller.started_wall_ms <= record_ms ? &caller : nullptr;
  }

 private:
  std::unordered_map<std::uint32_t, Caller> seen_;
};

void AddText(std::string* line, const char* key, std::string_view text) {
  if (text.empty()) return;
  line->append(",\"").append(key).append("\":\"");
  AppendJsonEscaped(line, text, kFieldBytes);
  line->push_back('"');
}

std::string TimeOf(std::uint64_t wall_ns) {
  return LogTimestamp(WallTime{std::chrono::nanoseconds(wall_ns)});
}

void AddSecret(std::string* line, std::uint32_t node, const NameOfNode& name_of) {
  std::string name = name_of(node);
  if (name.empty()) name = "#" + std::to_string(node);
  AddText(line, "secret", name);
}

std::string LineOf(const ReadRecord& record, const NameOfNode& name_of, Callers* callers) {
  std::string line = "{\"time\":\"" + TimeOf(record.time_ns) + "\"";
  AddSecret(&line, record.node, name_of);
  for (const auto& [key, value] : {std::pair<const char*, std::uint64_t>{"version", record.version},
                                   {"uid", record.uid},
                                   {"gid", record.gid},
                                   {"pid", record.pid}})
    line.append(",\"").append(key).append("\":").append(std::to_string(value));
  const Caller* caller = callers->Find(record);
  const std::string_view comm(record.comm.data(), strnlen(record.comm.data(), record.comm.size()));
  AddText(&line, "comm", comm.empty() && caller != nullptr ? caller->comm : comm);
  if (caller != nullptr) {
    AddText(&line, "exe", caller->exe);
    AddText(&line, "cgroup", caller->cgroup);
  }
  line.push_back('}');
  return line;
}

std::string LineOf(const journal::ReadCount& count, const NameOfNode& name_of) {
  std::string line = "{\"time\":\"" + TimeOf(count.last_ns) + "\",\"since\":\"" +
                     TimeOf(count.first_ns) +
                     "\",\"count\":" + std::to_string(count.count.load(std::memory_order_relaxed));
  if (count.node == ReadTally::kNoNode)
    return line + ",\"secret\":null,\"version\":null,\"uid\":null}";
  AddSecret(&line, count.node, name_of);
  line += ",\"version\":" + std::to_string(count.version) + ",\"uid\":";
  return line + (count.uid == kOtherUids ? "null" : std::to_string(count.uid)) + "}";
}

// The ring whose next record is oldest, or null.
ReadRing* Oldest(journal::Layout& layout) {
  ReadRing* oldest = nullptr;
  std::uint64_t time = 0;
  for (ReadRing& ring : layout.reads) {
    if (Waiting(ring) == 0) continue;
    const std::uint64_t at =
        ring.records[ring.tail.load(std::memory_order_relaxed) % kRecordsPerSlot].time_ns;
    if (oldest != nullptr && at >= time) continue;
    oldest = &ring;
    time = at;
  }
  return oldest;
}

// The first line of an open /proc file, NUL-padded; false when its process is gone.
bool ReadComm(const UniqueFd& file, std::array<char, 16>* comm) {
  std::array<char, 64> text;
  const ssize_t size = file.valid() ? pread(file.get(), text.data(), text.size(), 0) : -1;
  if (size <= 0) return false;
  const std::string_view line(text.data(), static_cast<std::size_t>(size));
  line.substr(0, line.find('\n')).copy(comm->data(), comm->size() - 1);
  return true;
}

}  // namespace

std::array<char, 16> CallerNames::Comm(std::uint32_t pid) {
  std::array<char, 16> comm{};
  if (pid == 0) return comm;
  Entry& entry = entries_[pid % entries_.size()];
  if (entry.pid == pid && ReadComm(entry.comm, &comm)) return comm;
  std::array<char, 32> path;
  std::snprintf(path.data(), path.size(), "/proc/%u/comm", pid);
  entry.pid = pid;
  entry.comm.Reset(open(path.data(), O_RDONLY | O_CLOEXEC));
  ReadComm(entry.comm, &comm);
  return comm;
}

ReadWriter::ReadWriter(const journal::Region& region, std::size_t slot)
    : ring_(&region.layout().reads[slot % kSlots]) {}

bool ReadWriter::full() const {
  return ring_->head.load(std::memory_order_relaxed) -
             ring_->tail.load(std::memory_order_acquire) >=
         kRecordsPerSlot;
}

bool ReadWriter::Append(std::uint32_t node, std::uint64_t version, std::uint64_t request,
                        const Reader& reader) {
  const std::uint64_t head = ring_->head.load(std::memory_order_relaxed);
  if (head > 0 && ring_->records[(head - 1) % kRecordsPerSlot].request == request) return true;
  if (full()) {
    ring_->dropped.fetch_add(1, std::memory_order_relaxed);
    return false;
  }
  const auto now = SystemClock().Now().time_since_epoch().count();
  ring_->records[head % kRecordsPerSlot] = ReadRecord{static_cast<std::uint64_t>(now),
                                                      version,
                                                      request,
                                                      node,
                                                      reader.uid,
                                                      reader.gid,
                                                      reader.pid,
                                                      reader.comm};
  ring_->head.store(head + 1, std::memory_order_release);
  return true;
}

std::uint64_t DroppedRecords(const journal::Region& region) {
  std::uint64_t sum = 0;
  for (const ReadRing& ring : region.layout().reads)
    sum += ring.dropped.load(std::memory_order_relaxed);
  return sum;
}

std::uint64_t WaitingRecords(const journal::Region& region) {
  std::uint64_t sum = 0;
  for (const ReadRing& ring : region.layout().reads) sum += Waiting(ring);
  return sum;
}

std::size_t DrainReads(const journal::Region& region, const NameOfNode& name_of,
                       const LineSink& sink, ReadTally* tally) {
  const auto write_count = [&](const journal::ReadCount& count) {
    return sink(LineOf(count, name_of));
  };
  if (!tally->WriteEnded(write_count)) return 0;
  std::size_t taken = 0;
  Callers callers;
  // Bounded, so that a flood of opens does not keep the caller here for ever.
  for (const std::size_t limit = kSlots * kRecordsPerSlot; taken < limit; ++taken) {
    ReadRing* ring = Oldest(region.layout());
    if (ring == nullptr) break;
    const std::uint64_t tail = ring->tail.load(std::memory_order_relaxed);
    const ReadRecord& record = ring->records[tail % kRecordsPerSlot];
    if (tally->MayWrite(record)) {
      const std::string line = LineOf(record, name_of, &callers);
      if (!sink(line)) break;
      tally->Charge(record, line.size());
    } else {
      tally->Count(record);
    }
    ring->tail.store(tail + 1, std::memory_order_release);
  }
  return taken;
}

std::uint64_t DrainAll(const journal::Region& region, const NameOfNode& name_of,
                       const LineSink& sink, ReadTally* tally) {
  DrainReads(region, name_of, sink, tally);
  tally->WriteAll([&](const journal::ReadCount& count) { return sink(LineOf(count, name_of)); });
  return WaitingRecords(region) + tally->Pending();
}

ReadConsumer::ReadConsumer(const journal::Region& region, NameOfNode name_of, LineSink sink,
                           std::chrono::milliseconds interval)
    : thread_([&region, name_of = std::move(name_of), sink = std::move(sink),
               interval](const std::stop_token& stop) {
        std::mutex mutex;
        std::condition_variable_any wake;
        ReadTally tally(region, SystemClock());
        bool told_to_end = false;
        while (!stop.stop_requested()) {
          // Once: each time all shares begin anew.
          if (!told_to_end && region.layout().stopping.load() == 2) {
            told_to_end = true;
            DrainAll(region, name_of, sink, &tally);
          }
          DrainReads(region, name_of, sink, &tally);
          std::unique_lock lock(mutex);
          wake.wait_for(lock, stop, interval, [] { return false; });
        }
        if (const std::uint64_t left = DrainAll(region, name_of, sink, &tally); left != 0)
          Log(LogLevel::kWarn, "opens of secrets are not on record: their lines cannot be written",
              {{"opens", std::to_string(left)}});
      }) {}

ReadConsumer::~ReadConsumer() = default;

}  // namespace latchkey::reads
