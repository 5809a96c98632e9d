#include "tests/support/fault_vfs.h"

#include <sqlite3.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace latchkey::testing {
namespace {

constexpr std::size_t kOps = 5;
constexpr std::size_t kSector = 512;

struct Change {
  std::uint64_t offset;             // of a write; the new size of a truncation
  std::vector<std::uint8_t> bytes;  // empty: a truncation
};
struct Recorded {
  std::vector<std::uint8_t> durable;
  std::vector<Change> pending;
};
struct Fault {
  std::uint64_t at = 0;  // 0: none
  FaultSpan span = FaultSpan::kOnce;
  int code = SQLITE_OK;
};
struct State {
  std::mutex mutex;
  Fault faults[kOps];
  std::uint64_t counts[kOps] = {};
  bool struck = false;
  bool recording = false;
  bool honest = true;
  std::map<std::string, Recorded> files;
};

State& TheState() {
  static State state;
  return state;
}

// The wrapped file stands behind ours, in the memory that SQLite gave for both.
struct File {
  sqlite3_file base;
  const char* path;
  bool recorded;
  bool database;
  sqlite3_file* inner() { return reinterpret_cast<sqlite3_file*>(this + 1); }
};
File* Of(sqlite3_file* file) {
  return reinterpret_cast<File*>(file);
}

sqlite3_vfs* Inner() {
  static sqlite3_vfs* const inner = sqlite3_vfs_find(nullptr);
  return inner;
}

// The code to fail with, or SQLITE_OK.
int Strike(FaultOp op) {
  State& state = TheState();
  const std::lock_guard lock(state.mutex);
  const auto index = static_cast<std::size_t>(op);
  const std::uint64_t count = ++state.counts[index];
  const Fault& fault = state.faults[index];
  if (fault.at == 0 || count < fault.at) return SQLITE_OK;
  if (fault.span == FaultSpan::kOnce && count != fault.at) return SQLITE_OK;
  state.struck = true;
  return fault.code;
}

void Apply(const Change& change, std::vector<std::uint8_t>* image) {
  if (change.bytes.empty()) {
    image->resize(change.offset);
    return;
  }
  image->resize(
      std::max(image->size(), static_cast<std::size_t>(change.offset) + change.bytes.size()));
  std::copy(change.bytes.begin(), change.bytes.end(),
            image->begin() + static_cast<std::ptrdiff_t>(change.offset));
}

void Note(File* file, Change change) {
  State& state = TheState();
  const std::lock_guard lock(state.mutex);
  if (file->recorded) state.files[file->path].pending.push_back(std::move(change));
}

int Close(sqlite3_file* file) {
  return Of(file)->inner()->pMethods->xClose(Of(file)->inner());
}

int Read(sqlite3_file* file, void* out, int size, sqlite3_int64 offset) {
  if (const int code = Strike(FaultOp::kRead); code != SQLITE_OK) return code;
  return Of(file)->inner()->pMethods->xRead(Of(file)->inner(), out, size, offset);
}

int Write(sqlite3_file* file, const void* data, int size, sqlite3_int64 offset) {
  const auto* bytes = static_cast<const std::uint8_t*>(data);
  const int fault = Strike(FaultOp::kWrite);
  // A write that fails may have written a part.
  const int written = fault == SQLITE_OK ? size : size / 2;
  if (written > 0) {
    Note(Of(file), {static_cast<std::uint64_t>(offset), {bytes, bytes + written}});
    const int code = Of(file)->inner()->pMethods->xWrite(Of(file)->inner(), data, written, offset);
    if (code != SQLITE_OK) return code;
  }
  return fault;
}

int Truncate(sqlite3_file* file, sqlite3_int64 size) {
  if (const int code = Strike(FaultOp::kTruncate); code != SQLITE_OK) return code;
  Note(Of(file), {static_cast<std::uint64_t>(size), {}});
  return Of(file)->inner()->pMethods->xTruncate(Of(file)->inner(), size);
}

int Sync(sqlite3_file* file, int flags) {
  if (const int code = Strike(FaultOp::kSync); code != SQLITE_OK) return code;
  if (Of(file)->database) {
    if (const int code = Strike(FaultOp::kSyncDatabase); code != SQLITE_OK) return code;
  }
  {
    State& state = TheState();
    const std::lock_guard lock(state.mutex);
    if (Of(file)->recorded && state.honest) {
      Recorded& recorded = state.files[Of(file)->path];
      for (const Change& change : recorded.pending) Apply(change, &recorded.durable);
      recorded.pending.clear();
    }
  }
  return Of(file)->inner()->pMethods->xSync(Of(file)->inner(), flags);
}

#define FORWARD(name, call, ...)                            \
  int name(sqlite3_file* file __VA_OPT__(, ) __VA_ARGS__) { \
    return Of(file)->inner()->pMethods->call;               \
  }
FORWARD(FileSize, xFileSize(Of(file)->inner(), size), sqlite3_int64* size)
FORWARD(LockFile, xLock(Of(file)->inner(), level), int level)
FORWARD(UnlockFile, xUnlock(Of(file)->inner(), level), int level)
FORWARD(CheckReserved, xCheckReservedLock(Of(file)->inner(), out), int* out)
FORWARD(Control, xFileControl(Of(file)->inner(), op, arg), int op, void* arg)
FORWARD(SectorSize, xSectorSize(Of(file)->inner()))
FORWARD(ShmMap, xShmMap(Of(file)->inner(), page, size, extend, out), int page, int size, int extend,
        void volatile** out)
FORWARD(ShmLock, xShmLock(Of(file)->inner(), offset, n, flags), int offset, int n, int flags)
FORWARD(ShmUnmap, xShmUnmap(Of(file)->inner(), remove), int remove)
#undef FORWARD

// Those of the real file: powersafe overwrite above all. Without it SQLite pads a commit with
// copies of its last frame, and a failed write of the padding comes after a commit that is valid
// already.
int Characteristics(sqlite3_file* file) {
  return Of(file)->inner()->pMethods->xDeviceCharacteristics(Of(file)->inner());
}
void ShmBarrier(sqlite3_file* file) {
  Of(file)->inner()->pMethods->xShmBarrier(Of(file)->inner());
}

const sqlite3_io_methods kMethods = {
    2,          Close,         Read,    Write,      Truncate,        Sync,   FileSize, LockFile,
    UnlockFile, CheckReserved, Control, SectorSize, Characteristics, ShmMap, ShmLock,  ShmBarrier,
    ShmUnmap,   nullptr,       nullptr};

int Open(sqlite3_vfs*, sqlite3_filename name, sqlite3_file* file, int flags, int* out_flags) {
  std::memset(file, 0, sizeof(File));
  const int code = Inner()->xOpen(Inner(), name, Of(file)->inner(), flags, out_flags);
  if (code != SQLITE_OK) return code;
  Of(file)->base.pMethods = &kMethods;
  Of(file)->path = name;
  Of(file)->database = (flags & SQLITE_OPEN_MAIN_DB) != 0;
  State& state = TheState();
  const std::lock_guard lock(state.mutex);
  constexpr int kOurs = SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_WAL;
  if (!state.recording || name == nullptr || (flags & kOurs) == 0) return SQLITE_OK;
  Of(file)->recorded = true;
  if (state.files.contains(name)) return SQLITE_OK;
  // What the file holds at first sight counts as synced.
  std::ifstream in(name, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(in)), {});
  state.files[name].durable.assign(text.begin(), text.end());
  return SQLITE_OK;
}

sqlite3_vfs MakeVfs() {
  sqlite3_vfs vfs = *Inner();
  vfs.zName = "latchkey-fault";
  vfs.szOsFile = static_cast<int>(sizeof(File)) + Inner()->szOsFile;
  vfs.xOpen = Open;
  return vfs;
}

}  // namespace

const char* FaultVfs::Name() {
  static sqlite3_vfs vfs = MakeVfs();
  static const int registered = sqlite3_vfs_register(&vfs, 0);
  return registered == SQLITE_OK ? vfs.zName : "";
}

void FaultVfs::FailAt(FaultOp op, std::uint64_t n, FaultSpan span, int code) {
  State& state = TheState();
  const std::lock_guard lock(state.mutex);
  const auto index = static_cast<std::size_t>(op);
  state.faults[index] = {state.counts[index] + n, span, code};
  state.struck = false;
}

void FaultVfs::Heal() {
  State& state = TheState();
  const std::lock_guard lock(state.mutex);
  for (std::size_t i = 0; i < kOps; ++i) {
    state.faults[i] = {};
    state.counts[i] = 0;
  }
}

std::uint64_t FaultVfs::Count(FaultOp op) {
  State& state = TheState();
  const std::lock_guard lock(state.mutex);
  return state.counts[static_cast<std::size_t>(op)];
}

bool FaultVfs::Struck() {
  State& state = TheState();
  const std::lock_guard lock(state.mutex);
  return state.struck;
}

void FaultVfs::Record() {
  State& state = TheState();
  const std::lock_guard lock(state.mutex);
  state.files.clear();
  state.recording = true;
}

void FaultVfs::SetHonest(bool honest) {
  State& state = TheState();
  const std::lock_guard lock(state.mutex);
  state.honest = honest;
}

void FaultVfs::WriteCrashImage(const std::filesystem::path& directory, std::mt19937_64& random) {
  State& state = TheState();
  const std::lock_guard lock(state.mutex);
  // Between nothing and everything of what was not synced reached the disk.
  const std::uint64_t percent = random() % 5 * 25;
  for (const auto& [path, recorded] : state.files) {
    std::vector<std::uint8_t> image = recorded.durable;
    for (const Change& change : recorded.pending) {
      if (change.bytes.empty()) {
        if (random() % 100 < percent) Apply(change, &image);
        continue;
      }
      for (std::size_t at = 0; at < change.bytes.size();) {
        const std::uint64_t offset = change.offset + at;
        const std::size_t size =
            std::min<std::size_t>(kSector - offset % kSector, change.bytes.size() - at);
        const auto begin = change.bytes.begin() + static_cast<std::ptrdiff_t>(at);
        if (random() % 100 < percent) {
          Apply({offset, {begin, begin + static_cast<std::ptrdiff_t>(size)}}, &image);
        }
        at += size;
      }
    }
    const auto target = directory / std::filesystem::path(path).filename();
    std::ofstream(target, std::ios::binary)
        .write(reinterpret_cast<const char*>(image.data()),
               static_cast<std::streamsize>(image.size()));
    std::filesystem::permissions(target, std::filesystem::perms(0600));
  }
}

}  // namespace latchkey::testing
