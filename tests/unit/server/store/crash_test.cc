// The store when its process is killed (F01, F29).
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <mutex>
#include <random>
#include <set>
#include <thread>

#include "common/base/unique_fd.h"
#include "server/store/store.h"
#include "tests/support/store_fixture.h"

namespace latchkey::store {
namespace {

using testing::kTestStoreId;
using testing::Must;
using testing::TempDir;

constexpr int kThreads = 8;

// The child: eight threads write whole use cases for ever and tell each acknowledged id through the
// pipe. Never returns.
[[noreturn]] void WriteUntilKilled(const std::filesystem::path& path, int pipe,
                                   std::int64_t first_id) {
  auto opened = Store::Open(path, OpenMode::kExclusive, {});
  if (!opened.has_value()) ::_exit(3);
  Store& store = *opened.value();
  store.Start(nullptr);
  std::atomic<std::int64_t> next = first_id;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      for (;;) {
        const std::int64_t id = next++;
        const auto written = store.RunJob([id](Savepoint& s) -> Status {
          RETURN_IF_ERROR(testing::InsertSecretWithVersion(s, id, "s" + std::to_string(id)));
          ASSIGN_OR_RETURN(const auto last, s.reader().LastAudit());
          const std::uint64_t seq = last.has_value() ? last->seq + 1 : 1;
          RETURN_IF_ERROR(s.AppendAudit({seq, {static_cast<std::uint8_t>(id)}, {}}));
          return s.AppendChange({{}, ChangeKind::kSecret, {id}, {}, {}, "", {}, {}});
        });
        if (!written.has_value()) ::_exit(4);
        // Less than PIPE_BUF: whole or not at all.
        if (::write(pipe, &id, sizeof id) != sizeof id) ::_exit(5);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  ::_exit(6);
}

// Reads acknowledged ids until `wanted` were seen, kills the child, and reads what it had still
// said.
std::set<std::int64_t> KillAfter(pid_t child, int pipe, std::size_t wanted) {
  std::set<std::int64_t> acknowledged;
  std::int64_t id = 0;
  bool killed = false;
  while (::read(pipe, &id, sizeof id) == sizeof id) {
    acknowledged.insert(id);
    if (acknowledged.size() < wanted || killed) continue;
    ::kill(child, SIGKILL);
    killed = true;
  }
  return acknowledged;
}

TEST_CASE("After kill -9 under eight writers every acknowledged job is there and whole",
          "[store][crash]") {
  std::mt19937_64 random(Catch::rngSeed());
  const TempDir dir;
  const auto path = dir / "s.db";
  Must(Store::Create(path, kTestStoreId, 0));
  std::set<std::int64_t> acknowledged;
  std::int64_t first_id = 1;
  for (int round = 0; round < 5; ++round) {
    int ends[2];
    REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      ::close(ends[0]);
      WriteUntilKilled(path, ends[1], first_id);
    }
    UniqueFd reader(ends[0]);
    ::close(ends[1]);
    // Past the first checkpoint (1000 pages) in most rounds.
    const auto said = KillAfter(child, reader.get(), 50 + random() % 1000);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    REQUIRE(WIFSIGNALED(status));
    CHECK(said.size() >= 50);
    acknowledged.insert(said.begin(), said.end());

    // No lock and no manual step is left behind.
    const auto store = Must(Store::Open(path, OpenMode::kExclusive, {}));
    Reader after = Must(store->Read());
    std::set<std::int64_t> found;
    Must(after.ForEachSecret([&](SecretRow&& row, VersionInfo&& current) -> Status {
      found.insert(row.id.value);
      ASSIGN_OR_RETURN([[maybe_unused]] const VersionRow version, after.LoadVersion(current.id));
      return {};
    }));
    std::size_t lost = 0;
    for (const auto id : acknowledged) lost += found.contains(id) ? 0 : 1;
    CHECK(lost == 0);
    const Counts counts = Must(after.Count());
    CHECK(counts.versions == found.size());
    CHECK(counts.audit_rows == found.size());
    std::uint64_t changes = 0;
    Generation newest;
    Must(after.ForEachChange([&](ChangeRow&& row) {
      ++changes;
      newest = row.generation;
      return Status();
    }));
    CHECK(changes == found.size());
    CHECK(Must(after.Info()).generation == newest);
    CHECK(Must(after.CheckIntegrity()).empty());
    first_id = *found.rbegin() + 1000;
  }
}

TEST_CASE("Another process is refused while the first lives, and its death frees the store",
          "[store][crash]") {
  const TempDir dir;
  const auto path = dir / "s.db";
  Must(Store::Create(path, kTestStoreId, 0));
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    const auto held = Store::Open(path, OpenMode::kExclusive, {});
    const char ready = held.has_value() ? 'y' : 'n';
    if (::write(ends[1], &ready, 1) != 1) ::_exit(1);
    for (;;) ::pause();
  }
  UniqueFd reader(ends[0]);
  ::close(ends[1]);
  char ready = 0;
  REQUIRE(::read(reader.get(), &ready, 1) == 1);
  CHECK(ready == 'y');
  const auto second = Store::Open(path, OpenMode::kExclusive, {});
  REQUIRE_FALSE(second.has_value());
  CHECK(second.error().code == Errc::kConflict);
  CHECK_THAT(second.error().message, Catch::Contains("in use by process " + std::to_string(child)));
  CHECK(Store::Open(path, OpenMode::kSnapshot, {}).has_value());
  ::kill(child, SIGKILL);
  REQUIRE(::waitpid(child, nullptr, 0) == child);
  CHECK(Store::Open(path, OpenMode::kExclusive, {}).has_value());
}

}  // namespace
}  // namespace latchkey::store
