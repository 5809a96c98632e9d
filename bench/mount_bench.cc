// Cost of the mount as its users see it: open+read+close, read to end of file, stat, readdir, reads per second, with audit on, against
// tmpfs in the same run. Prints one JSON object. Needs root and /dev/fuse.
//
//   mount_bench [--secrets N] [--rounds N] [--seconds S]
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

#include "common/base/unique_fd.h"
#include "fusefs/keeper/keeper.h"
#include "fusefs/mount/session.h"
#include "fusefs/reads/ring.h"
#include "fusefs/wake/wake.h"

namespace latchkey::bench {
namespace {

using Clock = std::chrono::steady_clock;

struct Settings {
  int secrets = 1000;
  int rounds = 20'000;
  int seconds = 3;
};

std::string NameOf(int i) {
  std::array<char, 32> name{};
  std::snprintf(name.data(), name.size(), "secret_%04d", i);
  return name.data();
}

// The worker of the bench: all secrets once, then it only serves. The server is not there at all.
int Worker(const journal::Handover& handover, const Settings& settings) {
  auto session = mount::Session::Open(handover, {});
  if (!session) return 1;
  snapshot::SnapshotBuilder builder((*session)->store());
  const std::string content(1024, 'k');
  for (int i = 0; i < settings.secrets; ++i) {
    const std::string name = NameOf(i);
    snapshot::SecretVersion version;
    version.name = name;
    version.number = 1;
    version.mode = 0444;
    version.content = AsBytes(content);
    if (!builder.Put(version)) return 1;
  }
  if (!mount::PutFixedControlFiles(builder, (*session)->region()) || !builder.Publish(1) ||
      !(*session)->Start())
    return 1;
  const reads::ReadConsumer consumer(
      (*session)->region(), [](std::uint32_t) { return std::string("x"); },
      [](const std::string&) { return true; }, std::chrono::milliseconds(200));
  (*session)->Wait();
  return 0;
}

struct Quantiles {
  double p50_us;
  double p99_us;
};

Quantiles Measure(int rounds, const std::function<void(int)>& step) {
  std::vector<double> times(static_cast<std::size_t>(rounds));
  for (int i = 0; i < rounds / 10; ++i) step(i);
  for (int i = 0; i < rounds; ++i) {
    const auto start = Clock::now();
    step(i);
    times[static_cast<std::size_t>(i)] =
        std::chrono::duration<double, std::micro>(Clock::now() - start).count();
  }
  std::sort(times.begin(), times.end());
  return {times[times.size() / 2], times[times.size() * 99 / 100]};
}

void Check(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "mount_bench: %s: %s\n", what, std::strerror(errno));
  _exit(1);
}

void ReadOnce(const std::string& path, bool to_end) {
  std::array<char, 4096> buffer;
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  Check(fd.valid() && read(fd.get(), buffer.data(), buffer.size()) == 1024, "read");
  if (to_end) Check(read(fd.get(), buffer.data(), buffer.size()) == 0, "end of file");
}

long ReadsPerSecond(const std::string& directory, const Settings& settings, int readers) {
  std::atomic<long> count{0};
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int t = 0; t < readers; ++t)
    threads.emplace_back([&, t] {
      long own = 0;
      for (int i = t; !stop; ++i, ++own)
        ReadOnce(directory + "/" + NameOf(i % settings.secrets), false);
      count += own;
    });
  std::this_thread::sleep_for(std::chrono::seconds(settings.seconds));
  stop = true;
  for (std::thread& thread : threads) thread.join();
  return count / settings.seconds;
}

void Report(const char* name, const std::string& directory, const Settings& settings) {
  const auto path = [&](int i) { return directory + "/" + NameOf(i * 7 % settings.secrets); };
  const Quantiles once = Measure(settings.rounds, [&](int i) { ReadOnce(path(i), false); });
  const Quantiles whole = Measure(settings.rounds, [&](int i) { ReadOnce(path(i), true); });
  struct stat info {};
  const Quantiles stat_cost =
      Measure(settings.rounds, [&](int i) { Check(stat(path(i).c_str(), &info) == 0, "stat"); });
  const Quantiles list = Measure(std::max(10, settings.rounds / 200), [&](int) {
    DIR* all = opendir(directory.c_str());
    while (readdir(all) != nullptr) {
    }
    closedir(all);
  });
  std::printf(
      "\"%s\":{\"open_read_close_us\":{\"p50\":%.1f,\"p99\":%.1f},\"to_end_of_file_us\":{\"p50\":%."
      "1f,\"p99\":%.1f},"
      "\"stat_us\":{\"p50\":%.2f,\"p99\":%.2f},\"readdir_us\":{\"p50\":%.0f,\"p99\":%.0f},"
      "\"reads_per_s_1\":%ld,\"reads_per_s_2\":%ld}",
      name, once.p50_us, once.p99_us, whole.p50_us, whole.p99_us, stat_cost.p50_us,
      stat_cost.p99_us, list.p50_us, list.p99_us, ReadsPerSecond(directory, settings, 1),
      ReadsPerSecond(directory, settings, 2));
}

// Private memory of a process and the pages of the shared regions that it uses, in KiB.
std::pair<long, long> MemoryOf(pid_t pid) {
  std::ifstream in("/proc/" + std::to_string(pid) + "/smaps_rollup");
  long private_kib = 0;
  long rss_kib = 0;
  for (std::string line; std::getline(in, line);) {
    const auto value = [&](const char* key) {
      return line.rfind(key, 0) == 0 ? std::atol(line.c_str() + std::strlen(key)) : 0L;
    };
    private_kib += value("Private_Dirty:") + value("Private_Clean:");
    rss_kib += value("Rss:");
  }
  return {private_kib, rss_kib};
}

void ReportMemory(pid_t keeper) {
  std::printf("\"memory_kib\":[");
  const char* comma = "";
  std::vector<pid_t> pids = {keeper};
  std::ifstream children("/proc/" + std::to_string(keeper) + "/task/" + std::to_string(keeper) +
                         "/children");
  for (pid_t pid = 0; children >> pid;) pids.push_back(pid);
  for (const pid_t pid : pids) {
    const auto [private_kib, rss_kib] = MemoryOf(pid);
    std::printf("%s{\"private\":%ld,\"rss\":%ld}", comma, private_kib, rss_kib);
    comma = ",";
  }
  std::printf("]");
}

int Main(int argc, char** argv) {
  Settings settings;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string key = argv[i];
    const int value = std::atoi(argv[i + 1]);
    if (key == "--secrets") settings.secrets = value;
    if (key == "--rounds") settings.rounds = value;
    if (key == "--seconds") settings.seconds = value;
  }
  errno = EINVAL;
  Check(settings.secrets > 0 && settings.rounds > 0 && settings.seconds > 0,
        "each of --secrets, --rounds and --seconds wants a number above 0");
  std::string root = "/tmp/latchkey-mount-bench.XXXXXX";
  Check(mkdtemp(root.data()) != nullptr, "scratch directory");
  const std::string target = root + "/target";
  const std::string plain = root + "/tmpfs";
  mkdir(target.c_str(), 0755);
  mkdir(plain.c_str(), 0755);
  Check(::mount("tmpfs", plain.c_str(), "tmpfs", 0, "mode=755") == 0, "tmpfs");
  const std::string content(1024, 'k');
  for (int i = 0; i < settings.secrets; ++i) std::ofstream(plain + "/" + NameOf(i)) << content;
  std::array<int, 2> ready{};
  Check(pipe(ready.data()) == 0, "pipe");
  const pid_t child = fork();
  if (child == 0) {
    keeper::KeeperOptions options;
    options.target = target;
    options.private_dir = root + "/private";
    options.content_bytes = snapshot::ContentMemoryBytes();
    options.worker = [&](const journal::Handover& handover) { return Worker(handover, settings); };
    options.waker = [](const journal::Handover& handover) { return wake::RunWaker(handover, {}); };
    options.notifier = [](const journal::Handover& handover) {
      return wake::RunNotifier(handover);
    };
    options.on_ready = [&] { Check(write(ready[1], "r", 1) == 1, "ready"); };
    auto keeper = keeper::Keeper::Prepare(options);
    if (!keeper) std::cerr << keeper.error().message << "\n";
    _exit(keeper && (*keeper)->Run() ? 0 : 1);
  }
  close(ready[1]);
  char byte = 0;
  const bool mounted = read(ready[0], &byte, 1) == 1;
  if (mounted) {
    // Attributes are not cached in the first two seconds of a version; what is measured is the steady state.
    std::this_thread::sleep_for(std::chrono::milliseconds(2500));
    std::printf("{\"secrets\":%d,\"rounds\":%d,", settings.secrets, settings.rounds);
    Report("mount", target, settings);
    std::printf(",");
    ReportMemory(child);
    std::printf(",");
    Report("tmpfs", plain, settings);
    std::printf("}\n");
  }
  kill(child, SIGTERM);
  waitpid(child, nullptr, 0);
  umount2(plain.c_str(), MNT_DETACH);
  std::filesystem::remove_all(root);
  return mounted ? 0 : 1;
}

}  // namespace
}  // namespace latchkey::bench

int main(int argc, char** argv) {
  return latchkey::bench::Main(argc, argv);
}
