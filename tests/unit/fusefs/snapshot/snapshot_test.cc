#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstddef>
#include <cstring>
#include <random>
#include <set>

#include "common/base/unique_fd.h"
#include "common/model/limits.h"
#include "fusefs/snapshot/memory.h"
#include "fusefs/snapshot/snapshot.h"
#include "fusefs/snapshot/store.h"

using namespace latchkey;
using namespace latchkey::snapshot;

namespace {

UniqueFd NewMemory() {
  UniqueFd fd(memfd_create("content", MFD_CLOEXEC));
  REQUIRE(ftruncate(fd.get(), static_cast<off_t>(ContentMemoryBytes())) == 0);
  return fd;
}

std::unique_ptr<SnapshotStore> Attach(const UniqueFd& memory) {
  auto store = SnapshotStore::Attach(memory.get());
  REQUIRE(store.has_value());
  return std::move(store).value();
}

// A view of the memory behind the store's back, as an attacker or a bug would have it.
struct Raw {
  explicit Raw(const UniqueFd& memory)
      : layout(static_cast<ContentLayout*>(mmap(
            nullptr, sizeof(ContentLayout), PROT_READ | PROT_WRITE, MAP_SHARED, memory.get(), 0))) {
  }
  ~Raw() { munmap(layout, sizeof(ContentLayout)); }
  // The tests that ask keep their blocks within the first MiB.
  bool Holds(std::string_view text) const {
    return memmem(layout->content.data(), 1024 * 1024, text.data(), text.size()) != nullptr;
  }
  ContentLayout* layout;
};

SecretVersion Version(std::string_view name, std::uint64_t number, std::string_view content) {
  SecretVersion version;
  version.name = name;
  version.number = number;
  version.content = AsBytes(content);
  return version;
}

std::string ReadHandle(const SnapshotStore& store, VersionHandle handle,
                       View view = View::kContent) {
  std::string out(4096, '\0');
  std::size_t count = 0;
  const ReadOutcome outcome =
      store.ReadVersion(handle, view, 0, {reinterpret_cast<std::uint8_t*>(out.data()), out.size()},
                        &count, MonotonicNs());
  if (outcome == ReadOutcome::kStale) return "!stale";
  if (outcome == ReadOutcome::kGone) return "!gone";
  out.resize(count);
  return out;
}

std::string ReadName(const SnapshotStore& store, std::string_view name) {
  const auto now = store.Current();
  const NodeView* view = now->Lookup(name);
  return view == nullptr ? "!none" : ReadHandle(store, store.HandleOf(view->record));
}

VersionHandle HandleOf(const SnapshotStore& store, std::string_view name) {
  const auto now = store.Current();
  return store.HandleOf(now->Lookup(name)->record);
}

std::uint64_t SizeOf(const SnapshotStore& store, std::string_view name,
                     std::uint64_t later_ns = 0) {
  std::shared_ptr<const Snapshot> used;
  const auto size = store.SizeOf(store.Current()->Lookup(name)->node, View::kContent,
                                 MonotonicNs() + later_ns, &used);
  return size.has_value() ? size->bytes : 0;
}

struct Call {
  std::string what;
  std::uint64_t seen_size;
};

// Records what a publication asks for and what handlers see at that moment.
class RecordingHooks : public PublishHooks {
 public:
  explicit RecordingHooks(SnapshotStore* store) : store_(store) {}
  void InvalidateAttributes(NodeIndex node) override {
    calls.push_back("inval " + std::to_string(node) + " serving " +
                    std::to_string(store_->Current()->generation));
    if (node == watched) {
      std::shared_ptr<const Snapshot> used;
      staged_size = store_->SizeOf(node, View::kContent, MonotonicNs(), &used);
    }
  }
  void Acknowledge(std::uint64_t generation) override {
    calls.push_back("ack " + std::to_string(generation) + " serving " +
                    std::to_string(store_->Current()->generation));
  }
  void QueueEvent(NodeIndex node, std::string_view filename, ChangeKind kind,
                  std::uint64_t generation) override {
    calls.push_back("event " + std::string(filename) + " " +
                    std::to_string(static_cast<unsigned>(kind)));
    queued[node] = generation;
  }
  std::uint64_t QueuedGeneration(NodeIndex node) const override {
    const auto found = queued.find(node);
    return found == queued.end() ? 0 : found->second;
  }
  void Announce(bool names_changed) override {
    calls.push_back(names_changed ? "announce names" : "announce");
  }

  std::vector<std::string> calls;
  std::map<NodeIndex, std::uint64_t> queued;
  NodeIndex watched = 0;
  std::optional<SizeAnswer> staged_size;

 private:
  SnapshotStore* store_;
};

constexpr std::uint64_t kLongAfterNs = 3'000'000'000;

}  // namespace

TEST_CASE("what was published is there for the next worker, by the same node and the same handle",
          "[snapshot][R7][R8]") {
  const UniqueFd memory = NewMemory();
  VersionHandle handle = 0;
  NodeIndex node = 0;
  {
    const auto store = Attach(memory);
    SnapshotBuilder builder(*store);
    CHECK(store->Current()->generation == 0);
    REQUIRE(builder.Put(Version("alpha", 1, "one")));
    REQUIRE(builder.Put(Version("beta", 7, "two")));
    CHECK(ReadName(*store, "alpha") == "!none");  // nothing shows before Publish
    const auto result = builder.Publish(99);
    REQUIRE(result.has_value());
    CHECK(result->mount_generation == 1);
    CHECK(result->changed == 2);
    handle = HandleOf(*store, "beta");
    node = store->Current()->Lookup("beta")->node;
  }
  const auto store = Attach(memory);
  SnapshotBuilder builder(*store);
  CHECK(builder.server_generation() == 99);
  CHECK(ReadName(*store, "alpha") == "one");
  CHECK(HandleOf(*store, "beta") == handle);
  CHECK(store->Current()->Lookup("beta")->node == node);
  CHECK(ReadHandle(*store, handle) == "two");
  const auto mounted = builder.Mounted();
  REQUIRE(mounted.size() == 2);
  CHECK(mounted[1].name == "beta");
  CHECK(mounted[1].number == 7);
  CHECK(store->total_content_bytes() == 6);
}

TEST_CASE("a publication tells the kernel first, swaps, acknowledges, then queues events",
          "[snapshot]") {
  const UniqueFd memory = NewMemory();
  const auto store = Attach(memory);
  RecordingHooks hooks(store.get());
  store->SetHooks(&hooks);
  SnapshotBuilder builder(*store);
  REQUIRE(builder.Put(Version("alpha", 1, "old")));
  REQUIRE(builder.Publish(1));
  const NodeIndex node = store->Current()->Lookup("alpha")->node;
  hooks.calls.clear();
  hooks.watched = node;
  REQUIRE(builder.Put(Version("alpha", 2, "the longer new one")));
  REQUIRE(builder.Publish(2));
  CHECK(hooks.calls == std::vector<std::string>{"inval " + std::to_string(node) + " serving 1",
                                                "ack 2 serving 2", "event alpha 0", "announce"});
  REQUIRE(hooks.staged_size.has_value());
  CHECK(hooks.staged_size->bytes == 18);  // the next size shows before the next content does
  CHECK_FALSE(hooks.staged_size->settled);
  hooks.calls.clear();
  builder.Remove("alpha");
  REQUIRE(builder.Publish(3));
  CHECK(hooks.calls.back() == "announce names");
  CHECK(hooks.calls[hooks.calls.size() - 2] == "event alpha 3");
}

TEST_CASE("a batch that brings what is served already makes no event", "[snapshot]") {
  const UniqueFd memory = NewMemory();
  const auto store = Attach(memory);
  RecordingHooks hooks(store.get());
  store->SetHooks(&hooks);
  SnapshotBuilder builder(*store);
  REQUIRE(builder.Put(Version("alpha", 1, "same")));
  REQUIRE(builder.Publish(1));
  const VersionHandle handle = HandleOf(*store, "alpha");
  hooks.calls.clear();
  REQUIRE(builder.Put(Version("alpha", 1, "same")));
  builder.Remove("unknown");
  const auto result = builder.Publish(2);
  REQUIRE(result.has_value());
  CHECK(result->changed == 0);
  CHECK(builder.server_generation() == 2);
  CHECK(HandleOf(*store, "alpha") == handle);
  CHECK(hooks.calls == std::vector<std::string>{"ack 2 serving 2", "announce"});
  // A change of mode alone is a change.
  SecretVersion narrower = Version("alpha", 1, "same");
  narrower.mode = 0400;
  REQUIRE(builder.Put(narrower));
  CHECK(builder.Publish(3)->changed == 1);
}

TEST_CASE("a worker killed anywhere inside a publication leaves the old batch or the new one",
          "[snapshot]") {
  const UniqueFd memory = NewMemory();
  constexpr int kSecrets = 24;
  const auto name_of = [](int i) { return "secret" + std::to_string(i); };
  // The same number in every secret of a batch, content that names it, and lengths that change.
  const auto content_of = [](std::uint64_t number, int i) {
    std::string text = std::to_string(number) + "/" + std::to_string(i) + "/";
    while (text.size() < 40 + number % 7 * 300) text += static_cast<char>('a' + number % 26);
    return text;
  };
  const auto publish = [&](SnapshotBuilder& builder, std::uint64_t number) {
    for (int i = 0; i < kSecrets; ++i) {
      const std::string content = content_of(number, i);
      if (!builder.Put(Version(name_of(i), number, content))) _exit(1);
    }
    if (!builder.Publish(number)) _exit(2);
  };
  std::mt19937 random(Catch::rngSeed());
  std::uint64_t last = 0;
  int advanced = 0;
  for (int round = 0; round < 60; ++round) {
    const pid_t child = fork();
    if (child == 0) {
      auto store = SnapshotStore::Attach(memory.get());
      if (!store) _exit(3);
      SnapshotBuilder builder(**store);
      for (std::uint64_t number = builder.server_generation() + 1;; ++number)
        publish(builder, number);
    }
    usleep(500 + random() % 4000);
    kill(child, SIGKILL);
    int status = 0;
    waitpid(child, &status, 0);
    REQUIRE(WIFSIGNALED(status));
    const auto store = Attach(memory);
    const std::uint64_t number = store->Current()->server_generation;
    CAPTURE(round, number);
    REQUIRE(number >= last);
    if (number > last) ++advanced;
    last = number;
    for (int i = 0; number > 0 && i < kSecrets; ++i)
      REQUIRE(ReadName(*store, name_of(i)) == content_of(number, i));
    // What the dead worker had staged is wiped, and its room is free again.
    REQUIRE(Raw(memory).layout->indexes[Raw(memory).layout->header.root.load() & 1].node_count <=
            kFirstSecretNode + kSecrets);
    if (number > 0) {
      const Raw raw(memory);
      CHECK_FALSE(raw.Holds(content_of(number + 1, 0)));
    }
  }
  CHECK(advanced > 10);
}

namespace {

// The part of the memory that a few small secrets use, as it is at this moment.
void CopyUsedPart(const ContentLayout& from, ContentLayout* into) {
  constexpr std::size_t kNodesUsed = kFirstSecretNode + 16;
  constexpr std::size_t kRecordsUsed = 64;
  std::memcpy(static_cast<void*>(&into->header), &from.header, sizeof from.header);
  std::memcpy(into->names.data(), from.names.data(), kNodesUsed * sizeof(StoredName));
  for (int i = 0; i < 2; ++i)
    std::memcpy(static_cast<void*>(&into->indexes[i]), &from.indexes[i],
                offsetof(Index, entries) + kNodesUsed * sizeof(IndexEntry));
  std::memcpy(static_cast<void*>(into->records.data()), from.records.data(),
              kRecordsUsed * sizeof(VersionRecord));
  std::memcpy(into->content.data(), from.content.data(), 16 * 1024);
}

// The batch that a worker finds which starts on these bytes, or "mixed".
std::string BatchIn(const UniqueFd& memory) {
  const auto store = SnapshotStore::Attach(memory.get());
  if (!store.has_value()) return "damaged";
  const std::string batch = std::to_string((*store)->Current()->server_generation);
  for (int i = 0; i < 6; ++i) {
    const std::string name = "secret" + std::to_string(i);
    const std::string expected = batch == "3" && i == 5 ? "!none" : batch + "/" + name;
    if (ReadName(**store, name) != expected) return "mixed";
  }
  return batch;
}

}  // namespace

TEST_CASE(
    "a worker that dies at any instruction of a publication leaves the old batch or the new one",
    "[snapshot]") {
  const UniqueFd memory = NewMemory();
  const pid_t child = fork();
  if (child == 0) {
    auto store = SnapshotStore::Attach(memory.get());
    if (!store) _exit(1);
    SnapshotBuilder builder(**store);
    for (std::uint64_t batch = 1; batch <= 3; ++batch) {
      for (int i = 0; i < 6; ++i) {
        const std::string name = "secret" + std::to_string(i);
        const std::string content = std::to_string(batch) + "/" + name;
        if (batch == 3 && i == 5)
          builder.Remove(name);
        else if (!builder.Put(Version(name, batch, content)))
          _exit(2);
      }
      if (batch == 3 && (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0 || raise(SIGSTOP) != 0))
        _exit(3);
      if (!builder.Publish(batch)) _exit(4);
    }
    raise(SIGSTOP);
    _exit(0);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  REQUIRE(WIFSTOPPED(status));
  const Raw raw(memory);
  const UniqueFd scratch = NewMemory();
  const Raw copy(scratch);
  std::mt19937 random(Catch::rngSeed());
  std::map<std::string, int> seen;
  std::uint64_t sum = 0;
  const auto checksum = [&] {  // of what a commit writes, so that every change is looked at
    std::uint64_t value = raw.layout->header.root.load();
    for (const Index& index : raw.layout->indexes) {
      value = value * 31 + index.generation + index.server_generation * 7 + index.node_count;
      for (NodeIndex node = kFirstSecretNode; node < kFirstSecretNode + 8; ++node)
        value = value * 31 + index.entries[node].record + index.entries[node].changed_generation;
    }
    return value;
  };
  long steps = 0;
  for (unsigned until = 0;; ++steps) {
    REQUIRE(ptrace(PTRACE_SINGLESTEP, child, nullptr, nullptr) == 0);
    REQUIRE(waitpid(child, &status, 0) == child);
    if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGTRAP) break;
    const std::uint64_t now = checksum();
    if (now == sum && until-- != 0) continue;
    until = 50 + static_cast<unsigned>(random() % 400);
    sum = now;
    CopyUsedPart(*raw.layout, copy.layout);
    ++seen[BatchIn(scratch)];
  }
  kill(child, SIGKILL);
  waitpid(child, &status, 0);
  CAPTURE(steps);
  CHECK(seen["mixed"] == 0);
  CHECK(seen["damaged"] == 0);
  CHECK(seen["2"] > 10);
  CHECK(seen["3"] > 10);
}

TEST_CASE("a descriptor is counted once however often its request is replayed", "[snapshot]") {
  const UniqueFd memory = NewMemory();
  auto store = Attach(memory);
  {
    SnapshotBuilder builder(*store);
    REQUIRE(builder.Put(Version("alpha", 1, "one")));
    REQUIRE(builder.Publish(1));
  }
  const VersionHandle handle = HandleOf(*store, "alpha");
  for (std::uint64_t request = 1; request <= 1000; ++request) {
    CHECK_FALSE(store->AlreadyCounted(0, request, handle));
    for (int replay = 0; replay < 3; ++replay) {
      REQUIRE(store->CountOpen(0, request, handle));
      store = Attach(memory);  // the next worker
    }
    if (request % 100 == 0) CHECK(store->OpenDescriptors(handle) == request);
  }
  // Closed by another thread than the one that opened.
  for (std::uint64_t request = 1; request <= 1000; ++request)
    for (int replay = 0; replay < 3; ++replay) store->CountRelease(1, request, handle);
  CHECK(store->OpenDescriptors(handle) == 0);
  // Request numbers that no longer fit the word's upper bits.
  for (const std::uint64_t request : {1ULL << 39, (1ULL << 39) + 1, (1ULL << 40) + 5, ~0ULL}) {
    for (int replay = 0; replay < 3; ++replay) REQUIRE(store->CountOpen(2, request, handle));
    CHECK(store->AlreadyCounted(2, request, handle));
  }
  CHECK(store->OpenDescriptors(handle) == 4);
  for (std::uint64_t request = 1; request <= 4; ++request) store->CountRelease(3, request, handle);
  REQUIRE(store->CountOpen(0, 2000, handle));
  store->UndoOpen(0, 2000, handle);
  CHECK(store->OpenDescriptors(handle) == 0);
}

TEST_CASE("a superseded version lives as long as a descriptor and is wiped after it",
          "[snapshot]") {
  const UniqueFd memory = NewMemory();
  auto store = Attach(memory);
  auto builder = std::make_unique<SnapshotBuilder>(*store);
  REQUIRE(builder->Put(Version("alpha", 1, "the first content of alpha")));
  REQUIRE(builder->Publish(1));
  const VersionHandle first = HandleOf(*store, "alpha");
  REQUIRE(store->CountOpen(0, 1, first));
  REQUIRE(builder->Put(Version("alpha", 2, "second")));
  REQUIRE(builder->Publish(2));
  builder->Sweep();
  CHECK(ReadHandle(*store, first) == "the first content of alpha");
  CHECK(SizeOf(*store, "alpha") == 26);               // within the two seconds
  CHECK(SizeOf(*store, "alpha", kLongAfterNs) == 6);  // and later
  builder.reset();
  store = Attach(memory);  // over a restart too
  builder = std::make_unique<SnapshotBuilder>(*store);
  CHECK(ReadHandle(*store, first) == "the first content of alpha");
  CHECK(Raw(memory).Holds("the first content of alpha"));
  store->CountRelease(0, 2, first);
  builder->Sweep();
  CHECK(ReadHandle(*store, first) == "!stale");
  CHECK_FALSE(Raw(memory).Holds("the first content of alpha"));
  // A late release of the ended version must not touch whoever has its record now.
  REQUIRE(builder->Put(Version("beta", 1, "b")));
  REQUIRE(builder->Publish(3));
  store->CountRelease(0, 3, first);
  CHECK(store->OpenDescriptors(HandleOf(*store, "beta")) == 0);
}

TEST_CASE("the sweep spares a version that a handler may be about to count", "[snapshot]") {
  const UniqueFd memory = NewMemory();
  const auto store = Attach(memory);
  SnapshotBuilder builder(*store);
  REQUIRE(builder.Put(Version("alpha", 1, "one")));
  REQUIRE(builder.Publish(1));
  auto held = store->Current();
  const VersionHandle handle = store->HandleOf(held->Lookup("alpha")->record);
  REQUIRE(builder.Put(Version("alpha", 2, "two")));
  REQUIRE(builder.Publish(2));
  builder.Sweep();
  REQUIRE(store->CountOpen(0, 1, handle));
  held.reset();
  builder.Sweep();
  CHECK(ReadHandle(*store, handle) == "one");
  store->CountRelease(0, 2, handle);
  builder.Sweep();
  CHECK(ReadHandle(*store, handle) == "!stale");
}

TEST_CASE("at most four old versions of a secret are held and at most sixteen MiB in all",
          "[snapshot]") {
  const UniqueFd memory = NewMemory();
  const auto store = Attach(memory);
  SnapshotBuilder builder(*store);
  std::vector<VersionHandle> handles;
  for (std::uint64_t number = 1; number <= 7; ++number) {
    REQUIRE(builder.Put(Version("alpha", number, "v" + std::to_string(number))));
    REQUIRE(builder.Publish(number));
    handles.push_back(HandleOf(*store, "alpha"));
    REQUIRE(store->CountOpen(0, number, handles.back()));
  }
  builder.Sweep();
  for (std::size_t i = 0; i < handles.size(); ++i)
    CHECK(ReadHandle(*store, handles[i]) == (i < 2 ? "!stale" : "v" + std::to_string(i + 1)));
  // Three secrets of 6 MiB, rotated while open: the oldest of the old ones goes.
  const std::string big(6 * 1024 * 1024, 'x');
  std::vector<VersionHandle> bigs;
  for (const std::uint64_t number : {1U, 2U}) {
    for (const char* name : {"b1", "b2", "b3"}) {
      SecretVersion version = Version(name, number, big);
      version.mtime_s = static_cast<std::int64_t>(number);
      REQUIRE(builder.Put(version));
      REQUIRE(builder.Publish(10 + number));
      if (number == 1) {
        bigs.push_back(HandleOf(*store, name));
        REQUIRE(store->CountOpen(0, 100 + bigs.size(), bigs.back()));
      }
    }
  }
  builder.Sweep();
  CHECK(ReadHandle(*store, bigs[0]) == "!stale");
  CHECK(ReadHandle(*store, bigs[1]).size() == 4096);
  CHECK(ReadHandle(*store, bigs[2]).size() == 4096);
}

TEST_CASE("a revoked version is cut at the grace, a superseded one is not", "[snapshot]") {
  const UniqueFd memory = NewMemory();
  const auto store = Attach(memory);
  SnapshotBuilder builder(*store);
  REQUIRE(builder.Put(Version("alpha", 1, "one")));
  REQUIRE(builder.Publish(1));
  const VersionHandle handle = HandleOf(*store, "alpha");
  REQUIRE(store->CountOpen(0, 1, handle));
  builder.Remove("alpha");
  REQUIRE(builder.Publish(2));
  CHECK(ReadName(*store, "alpha") == "!none");
  CHECK(ReadHandle(*store, handle) == "one");
  store->SetRevokeGrace(std::chrono::seconds(0));
  CHECK(ReadHandle(*store, handle) == "!gone");
  builder.Sweep();
  CHECK_FALSE(Raw(memory).Holds("one"));
}

namespace {

// One secret "s" whose versions differ in their rights.
struct Rights {
  UniqueFd memory = NewMemory();
  std::unique_ptr<SnapshotStore> store = Attach(memory);
  std::unique_ptr<SnapshotBuilder> builder = std::make_unique<SnapshotBuilder>(*store);
  std::uint64_t number = 0;
  std::uint64_t request = 0;

  VersionHandle Publish(std::uint32_t mode, std::uint32_t uid = 1, std::uint32_t gid = 1) {
    const std::string content = "v" + std::to_string(++number);
    SecretVersion version = Version("s", number, content);
    version.mode = mode;
    version.uid = uid;
    version.gid = gid;
    REQUIRE(builder->Put(version).has_value());
    REQUIRE(builder->Publish(number).has_value());
    return HandleOf(*store, "s");
  }
  VersionHandle Open() {
    const VersionHandle handle = HandleOf(*store, "s");
    REQUIRE(store->CountOpen(0, ++request, handle));
    return handle;
  }
  void Close(VersionHandle handle) { store->CountRelease(0, ++request, handle); }
  VersionHandle Mapped(VersionHandle opened) const {
    const auto now = store->Current();
    return store->MappedBy(opened, *now->Lookup("s"));
  }
  void NextWorker() {
    builder.reset();
    store.reset();
    store = Attach(memory);
    builder = std::make_unique<SnapshotBuilder>(*store);
  }
};

}  // namespace

TEST_CASE("no page of a version that is open to fewer is cached while an older descriptor is open",
          "[snapshot][F3]") {
  Rights s;
  s.Publish(0440);
  const VersionHandle first = s.Open();
  CHECK(s.Mapped(first) == first);
  CHECK(s.Mapped(0) == 0);
  CHECK(s.Mapped(first) == s.Publish(0440));
  CHECK(s.Mapped(first) == s.Publish(0444));
  const VersionHandle wider = s.Open();
  // Not for the descriptor of before, and not for one of now: they share the pages.
  const VersionHandle narrow = s.Publish(0440);
  CHECK(s.Mapped(wider) == 0);
  CHECK(s.Mapped(first) == 0);
  CHECK(s.Mapped(narrow) == 0);
  s.Close(wider);
  CHECK(s.Mapped(first) == narrow);
  CHECK(s.Mapped(narrow) == narrow);
  CHECK(s.Mapped(s.Publish(0444, 2, 1)) == 0);
  CHECK(s.Mapped(s.Publish(0444, 1, 2)) == 0);
  s.Publish(0440);
  s.Close(first);
  s.builder->Sweep();
  CHECK(s.Mapped(first) == 0);  // not counted any more: nothing tells whom it was open to
  CHECK(s.Mapped(HandleOf(*s.store, "s")) == HandleOf(*s.store, "s"));
}

TEST_CASE("whom a version was open to is remembered when its content is gone", "[snapshot][F3]") {
  Rights s;
  s.Publish(0444);
  const VersionHandle wide = s.Open();
  std::vector<VersionHandle> others;
  for (std::size_t i = 0; i <= limits::kMaxPinnedVersionsPerSecret; ++i) {
    s.Publish(0444);
    others.push_back(s.Open());
  }
  s.Publish(0400);
  s.builder->Sweep();
  REQUIRE(ReadHandle(*s.store, wide) == "!stale");
  CHECK_FALSE(Raw(s.memory).Holds("v1"));
  for (const VersionHandle handle : others) s.Close(handle);
  s.builder->Sweep();
  CHECK(s.store->OpenDescriptors(wide) == 1);
  CHECK(s.Mapped(HandleOf(*s.store, "s")) == 0);
  s.NextWorker();
  CHECK(ReadHandle(*s.store, wide) == "!stale");
  CHECK(s.Mapped(HandleOf(*s.store, "s")) == 0);
  s.Close(wide);
  CHECK(s.Mapped(HandleOf(*s.store, "s")) == HandleOf(*s.store, "s"));
  s.builder->Sweep();
  CHECK(s.store->OpenDescriptors(wide) == 0);
}

TEST_CASE("a version cut at the grace of its revocation is remembered too", "[snapshot][F3]") {
  Rights s;
  s.store->SetRevokeGrace(std::chrono::seconds(0));
  s.Publish(0444);
  const VersionHandle wide = s.Open();
  s.builder->Remove("s");
  REQUIRE(s.builder->Publish(++s.number));
  s.builder->Sweep();
  REQUIRE_FALSE(Raw(s.memory).Holds("v1"));
  const VersionHandle narrow = s.Publish(0400);
  CHECK(s.Mapped(narrow) == 0);
  s.Close(wide);
  CHECK(s.Mapped(narrow) == narrow);
}

TEST_CASE("a worker that dies while it takes a content away leaves it to the next", "[snapshot]") {
  Rights s;
  s.Publish(0444);
  const VersionHandle wide = s.Open();
  s.Publish(0444);
  const Raw raw(s.memory);
  raw.layout->records[RecordOf(wide)].emptied.store(1);
  REQUIRE(raw.Holds("v1"));
  s.NextWorker();
  CHECK_FALSE(raw.Holds("v1"));
  CHECK(s.store->OpenDescriptors(wide) == 1);
  CHECK(ReadHandle(*s.store, wide) == "!stale");
  s.Publish(0400);
  CHECK(s.Mapped(HandleOf(*s.store, "s")) == 0);
  s.Close(wide);
  s.builder->Sweep();
  CHECK(s.Mapped(HandleOf(*s.store, "s")) == HandleOf(*s.store, "s"));
}

TEST_CASE("beyond the limit of remembered versions the file itself remembers", "[snapshot][F3]") {
  Rights s;
  s.Publish(0444);
  const VersionHandle wide = s.Open();
  std::vector<VersionHandle> others;
  const std::size_t most = limits::kMaxEmptiedVersions + limits::kMaxPinnedVersionsPerSecret;
  for (std::size_t i = 0; i < most; ++i) {
    s.Publish(0444);
    others.push_back(s.Open());
  }
  s.Publish(0400);
  s.builder->Sweep();
  CHECK(s.store->OpenDescriptors(wide) == 0);
  for (const VersionHandle handle : others) s.Close(handle);
  s.builder->Sweep();
  CHECK(s.Mapped(HandleOf(*s.store, "s")) == 0);
  s.Publish(0400);
  s.NextWorker();
  CHECK(s.Mapped(HandleOf(*s.store, "s")) == 0);
}

TEST_CASE("a mapping follows a secret whose mode never changed, however old its descriptor",
          "[snapshot]") {
  const UniqueFd memory = NewMemory();
  const auto store = Attach(memory);
  SnapshotBuilder builder(*store);
  REQUIRE(builder.Put(Version("s", 1, "v1")).has_value());
  REQUIRE(builder.Publish(1).has_value());
  const VersionHandle first = HandleOf(*store, "s");
  for (std::uint64_t number = 2; number < 10; ++number) {
    REQUIRE(builder.Put(Version("s", number, "v" + std::to_string(number))).has_value());
    REQUIRE(builder.Publish(number).has_value());
  }
  REQUIRE(ReadHandle(*store, first) == "!stale");
  const auto now = store->Current();
  CHECK(store->MappedBy(first, *now->Lookup("s")) == HandleOf(*store, "s"));
}

TEST_CASE("limits refuse one secret and keep the rest of the batch", "[snapshot]") {
  const UniqueFd memory = NewMemory();
  const auto store = Attach(memory);
  SnapshotBuilder builder(*store);
  const std::string eight(limits::kHardMaxContentBytes, 'x');
  CHECK(builder.Put(Version("big", 1, eight + "x")).error().code == Errc::kTooLarge);
  for (int i = 0; i < 8; ++i) REQUIRE(builder.Put(Version("full" + std::to_string(i), 1, eight)));
  CHECK(builder.Put(Version("drop", 1, "x")).error().code == Errc::kTooLarge);  // 64 MiB are staged
  CHECK(builder.Put(Version("full0", 2, "small")).has_value());  // replaces what was staged
  CHECK(builder.Put(Version("drop", 1, "x")).has_value());
  REQUIRE(builder.Publish(1));
  CHECK(store->total_content_bytes() == 7 * eight.size() + 6);
  CHECK(ReadName(*store, "full0") == "small");
  // The whole set rotates in one batch: staged beside what is served.
  for (int i = 1; i < 8; ++i) {
    std::string next = eight;
    next[0] = 'y';
    REQUIRE(builder.Put(Version("full" + std::to_string(i), 2, next)));
  }
  REQUIRE(builder.Publish(2));
  CHECK(builder.Problems().size() == 1);  // "big"
  SecretVersion long_sum = Version("sum", 1, "x");
  const std::string sum(200, 'a');
  long_sum.checksum = sum;
  CHECK(builder.Put(long_sum).error().code == Errc::kInvalidArgument);
}

TEST_CASE("more secrets than the mount has room for are refused one by one", "[snapshot]") {
  const UniqueFd memory = NewMemory();
  const auto store = Attach(memory);
  SnapshotBuilder builder(*store);
  for (std::size_t i = 0; i < limits::kMaxMountedSecrets; ++i) {
    const std::string name = "s" + std::to_string(i);
    if (!builder.Put(Version(name, 1, "x")).has_value()) FAIL("refused " << name);
    if (i % 512 == 511) REQUIRE(builder.Publish(i));
  }
  CHECK(builder.Put(Version("one_more", 1, "x")).error().code == Errc::kTooLarge);
  builder.Remove("s0");
  REQUIRE(builder.Publish(5000));
  CHECK(builder.Put(Version("one_more", 1, "x")).has_value());
}

TEST_CASE("two secrets that want one file name are both left out until one is gone", "[snapshot]") {
  const UniqueFd memory = NewMemory();
  const auto store = Attach(memory);
  SnapshotBuilder builder(*store);
  REQUIRE(builder.Put(Version("alpha", 1, "a")));
  REQUIRE(builder.Publish(1));
  SecretVersion rival = Version("beta", 1, "b");
  rival.filename = "alpha";
  CHECK(builder.Put(rival).error().code == Errc::kConflict);
  CHECK(builder.Publish(2)->refused == std::vector<std::string>{"alpha", "beta"});
  CHECK(ReadName(*store, "alpha") == "!none");
  CHECK(builder.Problems().size() == 2);
  builder.Remove("beta");
  const auto result = builder.Publish(3);
  CHECK(result->refetch == std::vector<std::string>{"alpha"});
  CHECK(result->refused.empty());
  REQUIRE(builder.Put(Version("alpha", 1, "a")));
  REQUIRE(builder.Publish(4));
  CHECK(ReadName(*store, "alpha") == "a");
  CHECK(builder.Problems().empty());
  // A secret that changes its file name leaves the old one.
  SecretVersion moved = Version("alpha", 2, "a2");
  moved.filename = "omega";
  REQUIRE(builder.Put(moved));
  REQUIRE(builder.Publish(5));
  CHECK(ReadName(*store, "alpha") == "!none");
  CHECK(ReadName(*store, "omega") == "a2");
}

TEST_CASE("a discarded batch leaves no trace", "[snapshot]") {
  const UniqueFd memory = NewMemory();
  const auto store = Attach(memory);
  SnapshotBuilder builder(*store);
  REQUIRE(builder.Put(Version("alpha", 1, "first content")));
  REQUIRE(builder.Publish(1));
  REQUIRE(builder.Put(Version("alpha", 2, "discarded content")));
  REQUIRE(builder.Put(Version("beta", 1, "discarded too")));
  builder.Discard();
  CHECK_FALSE(Raw(memory).Holds("discarded"));
  CHECK(builder.Publish(2)->changed == 0);
  CHECK(ReadName(*store, "alpha") == "first content");
  CHECK(ReadName(*store, "beta") == "!none");
}

TEST_CASE("events that a dead worker committed and did not queue are queued by the next",
          "[snapshot]") {
  const UniqueFd memory = NewMemory();
  {
    const auto store = Attach(memory);  // without hooks: as if it died after the commit
    SnapshotBuilder builder(*store);
    REQUIRE(builder.Put(Version("alpha", 1, "a")));
    REQUIRE(builder.Put(Version("beta", 1, "b")));
    REQUIRE(builder.Publish(1));
    builder.Remove("beta");
    REQUIRE(builder.Publish(2));
  }
  const auto store = Attach(memory);
  RecordingHooks hooks(store.get());
  store->SetHooks(&hooks);
  store->QueueMissedEvents();
  CHECK(hooks.calls == std::vector<std::string>{"event alpha 1", "event beta 3", "ack 2 serving 2",
                                                "announce names"});
  hooks.calls.clear();
  store->QueueMissedEvents();
  CHECK(hooks.calls == std::vector<std::string>{"ack 2 serving 2", "announce"});
}

TEST_CASE("damaged memory costs what is damaged and nothing else", "[snapshot]") {
  const UniqueFd memory = NewMemory();
  {
    const auto store = Attach(memory);
    SnapshotBuilder builder(*store);
    for (const char* name : {"alpha", "beta", "gamma", "delta", "epsilon"})
      REQUIRE(builder.Put(Version(name, 1, name)));
    REQUIRE(builder.Publish(1));
  }
  Raw raw(memory);
  const Index& index = raw.layout->indexes[raw.layout->header.root.load() & 1];
  const auto record_of = [&](int i) -> VersionRecord& {
    return raw.layout->records[index.entries[kFirstSecretNode + static_cast<NodeIndex>(i)].record];
  };
  SECTION("records") {
    record_of(0).content_offset = limits::kContentAreaBytes + 64;
    record_of(1).content_bytes = 1ULL << 60;
    record_of(2).node = 40;
    record_of(3).content_offset =
        record_of(4).content_offset;  // shares a block: one of the two goes
    record_of(3).block_bytes = record_of(3).content_bytes = record_of(4).block_bytes;
    const auto store = Attach(memory);
    CHECK(ReadName(*store, "alpha") == "!none");
    CHECK(ReadName(*store, "beta") == "!none");
    CHECK(ReadName(*store, "gamma") == "!none");
    CHECK((ReadName(*store, "delta") == "!none" || ReadName(*store, "epsilon") == "!none"));
  }
  SECTION("names") {
    std::strcpy(raw.layout->names[kFirstSecretNode].text, "../etc");
    std::memset(raw.layout->names[kFirstSecretNode + 1].text, 'x', kStoredNameBytes);
    const auto store = Attach(memory);
    CHECK(ReadName(*store, "../etc") == "!none");
    CHECK(ReadName(*store, "gamma") == "gamma");
  }
  SECTION("record numbers") {
    raw.layout->indexes[raw.layout->header.root.load() & 1].entries[kFirstSecretNode].record =
        0x7fffffff;
    const auto store = Attach(memory);
    CHECK(ReadName(*store, "alpha") == "!none");
    CHECK(ReadName(*store, "gamma") == "gamma");
  }
  SECTION("header") {
    raw.layout->indexes[raw.layout->header.root.load() & 1].node_count = 0xffffffff;
    CHECK(SnapshotStore::Attach(memory.get()).error().code == Errc::kCorrupt);
    raw.layout->header.magic = 1;
    CHECK(SnapshotStore::Attach(memory.get()).error().code == Errc::kCorrupt);
  }
}

TEST_CASE("the JSON view is head, base64 and tail at every offset", "[snapshot]") {
  const UniqueFd memory = NewMemory();
  const auto store = Attach(memory);
  SnapshotBuilder builder(*store);
  SecretVersion version = Version("alpha", 1, std::string_view("\0\xff\x10 abc~", 8));
  version.delivery_head = "{\"h\":\"";
  version.delivery_tail = "\"}";
  REQUIRE(builder.Put(version));
  REQUIRE(builder.Publish(1));
  const std::string whole = "{\"h\":\"AP8QIGFiY34=\"}";
  CHECK(ReadHandle(*store, HandleOf(*store, "alpha"), View::kJson) == whole);
  CHECK(store->Info(store->Current()->Lookup("alpha")->record).json_bytes == whole.size());
  for (std::size_t offset = 0; offset <= whole.size() + 1; ++offset) {
    for (std::size_t size = 0; size <= whole.size() + 1; ++size) {
      std::string out(size, '?');
      std::size_t count = 0;
      store->ReadVersion(HandleOf(*store, "alpha"), View::kJson, offset,
                         {reinterpret_cast<std::uint8_t*>(out.data()), out.size()}, &count,
                         MonotonicNs());
      out.resize(count);
      REQUIRE(out == (offset >= whole.size() ? "" : whole.substr(offset, size)));
    }
  }
}

TEST_CASE("base64 agrees with the alphabet of RFC 4648 for every byte and length", "[snapshot]") {
  static const char* alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::mt19937 random(Catch::rngSeed());
  for (std::size_t length = 0; length < 200; ++length) {
    ByteVector bytes(length);
    for (auto& byte : bytes) byte = static_cast<std::uint8_t>(random());
    std::string expected;
    for (std::size_t i = 0; i < length; i += 3) {
      unsigned bits = 0;
      const std::size_t have = std::min<std::size_t>(3, length - i);
      for (std::size_t k = 0; k < 3; ++k) bits = bits << 8 | (k < have ? bytes[i + k] : 0U);
      for (std::size_t k = 0; k < 4; ++k)
        expected += k <= have ? alphabet[bits >> (18 - 6 * k) & 63U] : '=';
    }
    std::string out(expected.size(), '?');
    REQUIRE(Base64Bytes(length) == expected.size());
    EncodeBase64Range(bytes, 0, {reinterpret_cast<std::uint8_t*>(out.data()), out.size()});
    REQUIRE(out == expected);
  }
}

TEST_CASE("the allocator never gives the same byte twice and finds all room again", "[snapshot]") {
  BlockAllocator blocks;
  std::mt19937 random(Catch::rngSeed());
  std::map<std::uint64_t, std::uint64_t> taken;
  for (int step = 0; step < 20'000; ++step) {
    if (random() % 2 == 0 || taken.empty()) {
      const std::uint64_t bytes = 1 + random() % 100'000;
      const auto offset = blocks.Take(bytes);
      if (!offset.has_value()) continue;
      const auto after = taken.lower_bound(*offset);
      REQUIRE((after == taken.end() || *offset + bytes <= after->first));
      REQUIRE((after == taken.begin() ||
               std::prev(after)->first + std::prev(after)->second <= *offset));
      taken[*offset] = bytes;
    } else {
      auto it = taken.begin();
      std::advance(it, static_cast<long>(random() % taken.size()));
      blocks.Give(it->first, it->second);
      taken.erase(it);
    }
  }
  for (const auto& [offset, bytes] : taken) blocks.Give(offset, bytes);
  CHECK(blocks.TakeAt(0, limits::kContentAreaBytes));
  CHECK_FALSE(blocks.TakeAt(64, 64));
  CHECK_FALSE(blocks.Take(1).has_value());
}
