// Yardsticks of store, catalog and feed in one process (architecture.md, "Figures to hold").
//
//   store_bench load DIR [SECRETS GRANTS]  cold start: makes a store once, then opens and loads it; memory; cost of a change
//   store_bench commits DIR [SECONDS]      rotations a second by 8 threads against bare one-row commits of SQLite
//   store_bench wake DIR [WAITERS HOLDERS] from the commit to the first and the last woken waiter
#include <malloc.h>
#include <sqlite3.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "common/crypto/crypto.h"
#include "server/catalog/catalog.h"
#include "server/feed/feed.h"
#include "server/keys/keyring.h"
#include "server/store/store.h"

namespace latchkey {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double CpuSeconds() {
  return static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
}

[[noreturn]] void Die(const std::string& what) {
  std::fprintf(stderr, "store_bench: %s\n", what.c_str());
  std::exit(1);
}
template <class T>
T Must(Result<T> result) {
  if (!result.has_value()) Die(result.error().message);
  return std::move(result).value();
}
void Must(const Status& status) {
  if (!status.has_value()) Die(status.error().message);
}

double ResidentMib() {
  std::ifstream statm("/proc/self/statm");
  long size = 0;
  long resident = 0;
  statm >> size >> resident;
  return static_cast<double>(resident) * static_cast<double>(::sysconf(_SC_PAGESIZE)) / 1048576.0;
}

class Verifier final : public catalog::RowVerifier {
 public:
  explicit Verifier(const keys::Keyring& keys) : keys_(keys) {}
  bool Verify(const store::ClientRow& row) const override { return Check(row); }
  bool Verify(const store::GroupRow& row) const override { return Check(row); }
  bool Verify(const store::MembershipRow& row) const override { return Check(row); }
  bool Verify(const store::GrantRow& row) const override { return Check(row); }
  bool Verify(const store::SecretRow& row) const override { return Check(row); }
  bool Verify(const store::VersionInfo& row) const override { return Check(row); }

 private:
  template <class Row>
  bool Check(const Row& row) const {
    return keys_.Verify(row).has_value();
  }
  const keys::Keyring& keys_;
};

constexpr ByteArray<16> kStoreId = {7};

// The same keys in every run: the store outlives the process. Numbers for measuring, not secrets.
std::unique_ptr<keys::Keyring> Keys(store::Store& store, bool fresh) {
  const ByteArray<32> bytes = {42};
  auto kek = Must(crypto::Kek::FromBytes(bytes));
  if (fresh) {
    auto made = Must(keys::Keyring::Create(kStoreId, 1, std::move(kek), 1000));
    Must(store.RunJob([&made](store::Savepoint& s) -> Status {
      RETURN_IF_ERROR(s.PutKek(made.kek));
      for (const auto& row : made.rows) RETURN_IF_ERROR(s.PutKeyring(row));
      return {};
    }));
    return std::move(made.keyring);
  }
  auto reader = Must(store.Read());
  std::vector<store::KekRow> keks;
  std::vector<store::KeyringRow> rows;
  Must(reader.ForEachKek([&](store::KekRow&& row) { return keks.push_back(row), Status(); }));
  Must(reader.ForEachKeyring(
      [&](store::KeyringRow&& row) { return rows.push_back(row), Status(); }));
  return Must(keys::Keyring::Load(kStoreId, 1, std::move(kek), keks, rows));
}

struct Sizes {
  std::int64_t secrets = 100'000;
  std::int64_t clients = 1000;
  std::int64_t groups = 1000;
  std::int64_t grants = 1'000'000;
  std::int64_t memberships = 10'000;
};

template <class Row>
Row Signed(const keys::Keyring& keys, Row row) {
  keys.Sign(&row);
  return row;
}

store::SecretRow SecretOf(std::int64_t id, std::int64_t current, std::uint64_t number) {
  store::SecretRow row;
  row.id = SecretId{id};
  row.name = "team-" + std::to_string(id % 97) + ".service-" + std::to_string(id);
  row.description = "made by store_bench";
  row.created_at = row.updated_at = 1'700'000'000;
  row.created_by = row.updated_by = "automation";
  row.current = VersionId{current};
  row.newest_number = number;
  row.sequence = static_cast<std::uint64_t>(id);
  return row;
}

store::VersionRow VersionOf(const keys::Keyring& keys, std::int64_t id, std::int64_t secret,
                            std::uint64_t number) {
  store::VersionInfo info;
  info.id = VersionId{id};
  info.secret = SecretId{secret};
  info.number = VersionNumber{number};
  info.created_at = 1'700'000'000;
  info.created_by = "automation";
  info.metadata = R"({"mode":"0400","owner":"app"})";
  return Must(keys.SealVersion(info, AsBytes(std::string(1024, 'x'))));
}

void Fill(store::Store& store, const keys::Keyring& keys, const Sizes& sizes) {
  const auto in_jobs = [&store](std::int64_t count, const auto& one) {
    for (std::int64_t begin = 1; begin <= count; begin += 20'000) {
      Must(store.RunJob([&](store::Savepoint& s) -> Status {
        for (std::int64_t i = begin; i < begin + 20'000 && i <= count; ++i) {
          RETURN_IF_ERROR(one(s, i));
        }
        return {};
      }));
    }
  };
  in_jobs(sizes.groups, [&](store::Savepoint& s, std::int64_t i) {
    store::GroupRow row;
    row.id = GroupId{i};
    row.name = "group-" + std::to_string(i);
    row.created_by = row.updated_by = "automation";
    row.metadata = "{}";
    return s.InsertGroup(Signed(keys, row));
  });
  in_jobs(sizes.clients, [&](store::Savepoint& s, std::int64_t i) {
    store::ClientRow row;
    row.id = ClientId{i};
    row.name = "client-" + std::to_string(i);
    row.created_by = row.updated_by = "automation";
    return s.InsertClient(Signed(keys, row));
  });
  in_jobs(sizes.memberships, [&](store::Savepoint& s, std::int64_t i) {
    const std::int64_t client = i % sizes.clients + 1;
    const std::int64_t group = (i / sizes.clients * 101 + client) % sizes.groups + 1;
    return s.InsertMembership(Signed(keys, store::MembershipRow{{client}, {group}, 1000, {}}));
  });
  in_jobs(sizes.secrets, [&](store::Savepoint& s, std::int64_t i) -> Status {
    const std::int64_t version = crypto::RandomId();
    RETURN_IF_ERROR(s.InsertSecret(Signed(keys, SecretOf(i * 1'000'003, version, 1))));
    return s.InsertVersion(VersionOf(keys, version, i * 1'000'003, 1));
  });
  in_jobs(sizes.grants, [&](store::Savepoint& s, std::int64_t i) {
    const std::int64_t secret = (i - 1) % sizes.secrets + 1;
    const std::int64_t group = (secret * 7 + (i - 1) / sizes.secrets * 97) % sizes.groups + 1;
    return s.InsertGrant(Signed(keys, store::GrantRow{{group}, {secret * 1'000'003}, 1000, {}}));
  });
}

std::unique_ptr<store::Store> OpenStarted(const std::filesystem::path& path,
                                          store::CommitObserver* observer) {
  auto store = Must(store::Store::Open(path, store::OpenMode::kExclusive, {}));
  store->Start(observer);
  return store;
}

int BenchLoad(const std::filesystem::path& dir, const Sizes& sizes) {
  const auto path = dir / ("load-" + std::to_string(sizes.secrets) + ".db");
  if (!std::filesystem::exists(path)) {
    Must(store::Store::Create(path, kStoreId, 1000));
    auto store = OpenStarted(path, nullptr);
    const auto keys = Keys(*store, true);
    Fill(*store, *keys, sizes);
    store.reset();
    std::printf("filled; run again to measure in a fresh process\n");
    return 0;
  }
  const double before = ResidentMib();
  const double cpu_before = CpuSeconds();
  const auto start = Clock::now();
  auto store = OpenStarted(path, nullptr);
  const auto keys = Keys(*store, false);
  catalog::RootRef root;
  {
    auto reader = Must(store->Read());
    root = Must(catalog::LoadRoot(reader, Verifier(*keys)));
  }
  const double seconds = SecondsSince(start);
  const double cpu_seconds = CpuSeconds() - cpu_before;
  const double peak_mib = ResidentMib() - before;
  ::malloc_trim(0);
  const double kept_mib = ResidentMib() - before;
  std::printf(
      "cold start: %.2f s (%.2f s of CPU) for %zu secrets, %zu clients, %zu groups, %lld grants\n",
      seconds, cpu_seconds, root->secret_count(), root->client_count(), root->group_count(),
      static_cast<long long>(sizes.grants));
  std::printf("memory: %.1f MiB after loading, %.1f MiB kept: %.0f bytes a secret\n", peak_mib,
              kept_mib, kept_mib * 1048576.0 / static_cast<double>(root->secret_count()));

  std::vector<std::string> names;
  root->ForEachSecret([&](const catalog::Secret& s) { return names.emplace_back(s.name()), true; });
  std::size_t granted = 0;
  constexpr int kDecisions = 1'000'000;
  const auto decide = Clock::now();
  for (int i = 0; i < kDecisions; ++i) {
    granted += root->FindForClient(ClientId{i % sizes.clients + 1},
                                   names[static_cast<std::size_t>(i) * 7919 % names.size()])
                   .secret != nullptr;
  }
  std::printf("decision by name: %.0f ns (%zu granted)\n", SecondsSince(decide) / kDecisions * 1e9,
              granted);

  catalog::Editor editor(root);
  catalog::Catalog published(root);
  constexpr int kEdits = 20'000;
  const auto edit = Clock::now();
  for (int i = 0; i < kEdits; ++i) {
    const auto* secret =
        editor.root().FindSecret(names[static_cast<std::size_t>(i) % names.size()]);
    editor.PutSecret(secret->Row(), secret->Current());
    published.Publish(editor.Snapshot());
  }
  std::printf("change and publish of one secret: %.2f us\n", SecondsSince(edit) / kEdits * 1e6);
  const auto grant = Clock::now();
  for (int i = 0; i < kEdits; ++i) {
    const SecretId id = editor.root().FindSecret(names[static_cast<std::size_t>(i)])->id();
    const GroupId group{editor.root().FindSecret(id)->groups()[0]};
    editor.RemoveGrant(group, id);
    editor.AddGrant(group, id);
    published.Publish(editor.Snapshot());
  }
  std::printf("revoke and grant, then publish: %.2f us\n", SecondsSince(grant) / kEdits * 1e6);
  return 0;
}

double BareCommits(const std::filesystem::path& dir, double seconds) {
  const auto path = dir / "bare.db";
  std::filesystem::remove(path);
  sqlite3* db = nullptr;
  if (sqlite3_open(path.c_str(), &db) != SQLITE_OK) Die("sqlite3_open");
  sqlite3_exec(db,
               "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
               "CREATE TABLE t (id INTEGER PRIMARY KEY, value BLOB)",
               nullptr, nullptr, nullptr);
  sqlite3_stmt* insert = nullptr;
  sqlite3_prepare_v2(db, "INSERT INTO t (value) VALUES (zeroblob(1024))", -1, &insert, nullptr);
  const auto start = Clock::now();
  long count = 0;
  while (SecondsSince(start) < seconds) {
    if (sqlite3_step(insert) != SQLITE_DONE) Die("bare insert");
    sqlite3_reset(insert);
    ++count;
  }
  const double rate = static_cast<double>(count) / SecondsSince(start);
  sqlite3_finalize(insert);
  sqlite3_close(db);
  return rate;
}

int BenchCommits(const std::filesystem::path& dir, double seconds) {
  constexpr int kWriters = 8;
  constexpr int kSecretsEach = 16;
  const auto path = dir / "commits.db";
  for (const char* suffix : {"", "-wal", "-shm"}) std::filesystem::remove(path.string() + suffix);
  Must(store::Store::Create(path, kStoreId, 1000));
  auto store = OpenStarted(path, nullptr);
  const auto keys = Keys(*store, true);
  Must(store->RunJob([&](store::Savepoint& s) -> Status {
    for (std::int64_t i = 1; i <= kWriters * kSecretsEach; ++i) {
      RETURN_IF_ERROR(s.InsertSecret(Signed(*keys, SecretOf(i, i, 1))));
      RETURN_IF_ERROR(s.InsertVersion(VersionOf(*keys, i, i, 1)));
    }
    return {};
  }));
  const double bare = BareCommits(dir, seconds);
  std::atomic<long> rotations = 0;
  std::atomic<std::uint64_t> audit_seq = 0;
  std::vector<std::thread> writers;
  const auto start = Clock::now();
  for (int w = 0; w < kWriters; ++w) {
    writers.emplace_back([&, w] {
      for (std::uint64_t number = 2; SecondsSince(start) < seconds; ++number) {
        const std::int64_t secret =
            w * kSecretsEach + static_cast<std::int64_t>(number) % kSecretsEach + 1;
        const std::int64_t version = crypto::RandomId();
        Must(store->RunJob([&](store::Savepoint& s) -> Status {
          RETURN_IF_ERROR(s.InsertVersion(VersionOf(*keys, version, secret, number)));
          RETURN_IF_ERROR(s.UpdateSecret(Signed(*keys, SecretOf(secret, version, number))));
          store::AuditRow audit;
          audit.seq = ++audit_seq;
          audit.event.assign(200, 1);
          RETURN_IF_ERROR(s.AppendAudit(audit));
          return s.AppendChange({{}, store::ChangeKind::kSecret, {secret}, {}, {}, "name", {}, {}});
        }));
        ++rotations;
      }
    });
  }
  for (auto& writer : writers) writer.join();
  const double rate = static_cast<double>(rotations) / SecondsSince(start);
  std::printf("bare one-row commits: %.0f/s; rotations by %d writers: %.0f/s; ratio %.2f\n", bare,
              kWriters, rate, rate / bare);
  return 0;
}

struct Wire : store::CommitObserver {
  void Committed(Generation newest, std::span<const store::ChangeRow> changes) override {
    committed = Clock::now();
    editor->SetGeneration(newest);
    if (feed != nullptr) feed->Publish(editor->Snapshot(), newest, changes);
  }
  void BatchFailed(const Error& error) override { Die(error.message); }
  catalog::Editor* editor = nullptr;
  feed::Feed* feed = nullptr;
  Clock::time_point committed;
};

int BenchWake(const std::filesystem::path& dir, int waiters, int holders) {
  const auto path = dir / "wake.db";
  for (const char* suffix : {"", "-wal", "-shm"}) std::filesystem::remove(path.string() + suffix);
  Must(store::Store::Create(path, kStoreId, 1000));
  catalog::Editor editor(std::make_shared<const catalog::Root>());
  Wire wire;
  wire.editor = &editor;
  auto store = OpenStarted(path, &wire);
  const auto keys = Keys(*store, true);
  Must(store->RunJob([&](store::Savepoint& s) -> Status {
    for (const int group : {1, 2}) {
      store::GroupRow row;
      row.id = GroupId{group};
      row.name = "g" + std::to_string(group);
      RETURN_IF_ERROR(s.InsertGroup(row));
      editor.PutGroup(row);
    }
    for (int i = 1; i <= waiters; ++i) {
      store::ClientRow row;
      row.id = ClientId{i};
      row.name = "c" + std::to_string(i);
      RETURN_IF_ERROR(s.InsertClient(row));
      editor.PutClient(row);
      editor.AddMembership(row.id, GroupId{i <= holders ? 1 : 2});
    }
    const auto version = VersionOf(*keys, 1, 1, 1);
    RETURN_IF_ERROR(s.InsertSecret(SecretOf(1, 1, 1)));
    RETURN_IF_ERROR(s.InsertVersion(version));
    editor.PutSecret(SecretOf(1, 1, 1), version.info);
    editor.AddGrant(GroupId{1}, SecretId{1});
    return s.AppendChange({{}, store::ChangeKind::kSecret, {1}, {}, {}, "x", {}, {}});
  }));
  const auto feed = Must(feed::Feed::Load(store.get(), editor.Snapshot(), SystemClock()));
  wire.feed = feed.get();
  std::mutex mutex;
  std::condition_variable all;
  std::vector<Clock::time_point> woken;
  std::vector<double> firsts;
  std::vector<double> lasts;
  for (std::uint64_t round = 2; round < 202; ++round) {
    woken.clear();
    for (int i = 1; i <= waiters; ++i) {
      if (round > 2 && i > holders) break;  // the others still wait
      Must(feed->Ask({ClientId{i}, feed->generation(), {}, std::chrono::seconds(60)},
                     [&](feed::Answer) {
                       const std::lock_guard lock(mutex);
                       woken.push_back(Clock::now());
                       if (woken.size() == static_cast<std::size_t>(holders)) all.notify_one();
                     }));
    }
    const auto version = VersionOf(*keys, static_cast<std::int64_t>(round), 1, round);
    Must(store->RunJob([&](store::Savepoint& s) -> Status {
      const auto row = SecretOf(1, static_cast<std::int64_t>(round), round);
      RETURN_IF_ERROR(s.InsertVersion(version));
      RETURN_IF_ERROR(s.UpdateSecret(row));
      editor.PutSecret(row, version.info);
      return s.AppendChange({{}, store::ChangeKind::kSecret, {1}, {}, {}, "x", {}, {}});
    }));
    std::unique_lock lock(mutex);
    all.wait(lock, [&] { return woken.size() == static_cast<std::size_t>(holders); });
    const auto micros = [&](Clock::time_point at) {
      return std::chrono::duration<double, std::micro>(at - wire.committed).count();
    };
    firsts.push_back(micros(woken.front()));
    lasts.push_back(micros(woken.back()));
  }
  std::sort(firsts.begin(), firsts.end());
  std::sort(lasts.begin(), lasts.end());
  std::printf(
      "%d waiters, %d hold: commit to first woken p50 %.0f us p99 %.0f us; to last p50 %.0f us p99 "
      "%.0f us\n",
      waiters, holders, firsts[firsts.size() / 2], firsts[firsts.size() * 99 / 100],
      lasts[lasts.size() / 2], lasts[lasts.size() * 99 / 100]);
  feed->Stop();
  return 0;
}

int Main(int argc, char** argv) {
  const std::string mode = argc > 2 ? argv[1] : "";
  const auto number = [&](int index, int otherwise) {
    return argc > index ? std::atoi(argv[index]) : otherwise;
  };
  if (mode == "load") {
    Sizes sizes;
    sizes.secrets = number(3, 100'000);
    sizes.grants = number(4, 1'000'000);
    return BenchLoad(argv[2], sizes);
  }
  if (mode == "commits") return BenchCommits(argv[2], number(3, 5));
  if (mode == "wake") return BenchWake(argv[2], number(3, 1000), number(4, 10));
  std::fprintf(stderr, "usage: store_bench load|commits|wake DIR [numbers]\n");
  return 2;
}

}  // namespace
}  // namespace latchkey

int main(int argc, char** argv) {
  return latchkey::Main(argc, argv);
}
