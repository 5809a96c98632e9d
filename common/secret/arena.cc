#include "common/secret/arena.h"

#include <fcntl.h>
#include <sodium.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <string>

#include "common/base/unique_fd.h"

#if defined(__SANITIZE_ADDRESS__)
#define LATCHKEY_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define LATCHKEY_ASAN 1
#endif
#endif
#ifdef LATCHKEY_ASAN
extern "C" void __asan_poison_memory_region(const volatile void*,
                                            std::size_t);  // NOLINT: the compiler's names
extern "C" void __asan_unpoison_memory_region(const volatile void*, std::size_t);  // NOLINT
#define ASAN_POISON_MEMORY_REGION(address, size) __asan_poison_memory_region(address, size)
#define ASAN_UNPOISON_MEMORY_REGION(address, size) __asan_unpoison_memory_region(address, size)
#else
#define ASAN_POISON_MEMORY_REGION(address, size) \
  (static_cast<void>(address), static_cast<void>(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) \
  (static_cast<void>(address), static_cast<void>(size))
#endif

namespace latchkey {
namespace {

constexpr std::uint32_t kUsed = 0x55534544;  // "USED"
constexpr std::uint32_t kFree = 0x46524545;  // "FREE"
constexpr long kMemfdSecret =
    447;  // the number is the same on every architecture that has the call
constexpr int kBinScan = 16;

// The locked pages of a memfd_secret mapping count against RLIMIT_MEMLOCK too, so both ways need
// the limit.
void RaiseMemlockLimit(std::size_t size) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_MEMLOCK, &limit) != 0) return;
  constexpr rlim_t kSlack = 1024 * 1024;
  if (limit.rlim_max != RLIM_INFINITY && limit.rlim_max < size + kSlack) {
    const rlimit wider{size + kSlack, size + kSlack};
    if (::setrlimit(RLIMIT_MEMLOCK, &wider) == 0) return;  // only with CAP_SYS_RESOURCE
  }
  if (limit.rlim_cur == limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  static_cast<void>(
      ::setrlimit(RLIMIT_MEMLOCK, &limit));  // mlock itself reports what is still missing
}

std::uint8_t* MapSecretMemory(std::size_t size) {
  const UniqueFd fd(static_cast<int>(::syscall(kMemfdSecret, O_CLOEXEC)));
  if (!fd.valid() || ::ftruncate(fd.get(), static_cast<off_t>(size)) != 0) return nullptr;
  void* at = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  return at == MAP_FAILED ? nullptr : static_cast<std::uint8_t*>(at);
}

std::uint8_t* MapAnonymous(std::size_t size) {
  void* at = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return at == MAP_FAILED ? nullptr : static_cast<std::uint8_t*>(at);
}

std::string MemlockHint(std::size_t size, int error) {
  rlimit limit{};
  static_cast<void>(::getrlimit(RLIMIT_MEMLOCK, &limit));
  return "cannot lock " + std::to_string(size) + " bytes of memory for secrets (" +
         std::strerror(error) + "); the hard limit RLIMIT_MEMLOCK is " +
         std::to_string(limit.rlim_max) +
         " bytes: raise it (LimitMEMLOCK= in the unit, ulimit -l in a shell) or, for development "
         "only, set allow_unlocked = true (latchkeyd: in [memory], latchkey-fs: in [mount])";
}

}  // namespace

// `units` counts the whole block, header included; prev_units is that of the block before it, 0 for
// the first.
struct LockedArena::Header {
  std::uint32_t units;
  std::uint32_t prev_units;
  std::uint32_t state;
  std::uint32_t check;
};
// Lives in the payload of a free block.
struct LockedArena::Links {
  std::uint32_t next;
  std::uint32_t prev;
};

Result<std::unique_ptr<LockedArena>> LockedArena::Make(const ArenaOptions& options) {
  constexpr std::size_t kMaxArenaBytes = std::size_t{4} << 30;
  if (options.size_bytes == 0 || options.size_bytes > kMaxArenaBytes) {
    return Error{Errc::kInvalidArgument, "secret arena of " + std::to_string(options.size_bytes) +
                                             " bytes: choose 1 byte to 4 GiB"};
  }
  if (sodium_init() < 0) return Error{Errc::kInternal, "libsodium cannot start"};
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const std::size_t size = (options.size_bytes + page - 1) / page * page;
  RaiseMemlockLimit(size);

  ArenaBacking backing = ArenaBacking::kSecretMemory;
  std::uint8_t* base = options.try_secret_memory ? MapSecretMemory(size) : nullptr;
  if (base == nullptr) {
    backing = ArenaBacking::kLocked;
    base = MapAnonymous(size);
    if (base == nullptr) {
      return Error{Errc::kUnavailable, "cannot map " + std::to_string(size) +
                                           " bytes of memory for secrets: " + std::strerror(errno)};
    }
    static_cast<void>(::madvise(base, size, MADV_DONTDUMP));
    // The system call itself: the sanitizers' own mlock does nothing and says that it worked.
    if (::syscall(SYS_mlock, base, size) != 0) {
      const int error = errno;
      if (!options.allow_unlocked) {
        ::munmap(base, size);
        return Error{Errc::kUnavailable, MemlockHint(size, error)};
      }
      backing = ArenaBacking::kUnlocked;
    }
  }
  // A child would share secret memory with its parent, and would not inherit the lock of the other
  // kind: it gets neither.
  static_cast<void>(::madvise(base, size, MADV_DONTFORK));
  ASAN_UNPOISON_MEMORY_REGION(base, size);  // marks of an earlier mapping at this address
  // Fresh pages read as zero. Touching them all shows a shortage of memory at the start and not as
  // SIGBUS in a read; memory that mlock has locked is populated already.
  if (options.prefault) std::memset(base, 0, size);
  return std::unique_ptr<LockedArena>(new LockedArena(base, size, backing));
}

LockedArena::LockedArena(std::uint8_t* base, std::size_t size, ArenaBacking backing)
    : base_(base),
      size_(size),
      backing_(backing),
      total_units_(static_cast<std::uint32_t>(size / kUnit)),
      cookie_(randombytes_random()) {
  static_assert(sizeof(Header) == kUnit && sizeof(Links) <= kUnit);
  bins_.fill(kNone);
  Write(0, total_units_, 0, false);
  Insert(0);
}

LockedArena::~LockedArena() {
  ASAN_UNPOISON_MEMORY_REGION(base_, size_);
  sodium_memzero(base_, size_);
  ::munmap(base_, size_);
}

void LockedArena::ForgetMapping() const {
  ASAN_UNPOISON_MEMORY_REGION(base_, size_);
}

LockedArena::Header* LockedArena::At(std::uint32_t unit) const {
  auto* header = reinterpret_cast<Header*>(base_ + std::size_t{unit} * kUnit);
  INVARIANT(header->check == CheckWord(*header));
  return header;
}

LockedArena::Header* LockedArena::HeaderOf(std::uint8_t* block) const {
  INVARIANT(Contains(block) && block != base_);
  const auto offset = static_cast<std::size_t>(block - base_);
  INVARIANT(offset % kUnit == 0);
  Header* header = At(static_cast<std::uint32_t>(offset / kUnit - 1));
  INVARIANT(header->state == kUsed);
  return header;
}

std::uint32_t LockedArena::UnitOf(const Header* header) const {
  return static_cast<std::uint32_t>(
      static_cast<std::size_t>(reinterpret_cast<const std::uint8_t*>(header) - base_) / kUnit);
}

std::uint32_t LockedArena::CheckWord(const Header& header) const {
  std::uint32_t word = cookie_ + UnitOf(&header);
  for (const std::uint32_t part : {header.units, header.prev_units, header.state}) {
    word = (word ^ part) * 0x9e3779b1u;
    word = std::rotl(word, 13);
  }
  return word;
}

void LockedArena::Write(std::uint32_t unit, std::uint32_t units, std::uint32_t prev_units,
                        bool used) {
  auto* header = reinterpret_cast<Header*>(base_ + std::size_t{unit} * kUnit);
  ASAN_UNPOISON_MEMORY_REGION(header, sizeof(Header));
  *header = Header{units, prev_units, used ? kUsed : kFree, 0};
  header->check = CheckWord(*header);
}

void LockedArena::Insert(std::uint32_t unit) {
  const Header* header = At(unit);
  const int bin = std::bit_width(header->units) - 1;
  auto* payload = base_ + (std::size_t{unit} + 1) * kUnit;
  ASAN_UNPOISON_MEMORY_REGION(payload, kUnit);
  ASAN_POISON_MEMORY_REGION(payload + kUnit, (std::size_t{header->units} - 2) * kUnit);
  const std::uint32_t head = bins_[static_cast<std::size_t>(bin)];
  *reinterpret_cast<Links*>(payload) = Links{head, kNone};
  if (head != kNone) reinterpret_cast<Links*>(base_ + (std::size_t{head} + 1) * kUnit)->prev = unit;
  bins_[static_cast<std::size_t>(bin)] = unit;
  bin_bits_ |= 1u << bin;
  free_units_ += header->units;
}

void LockedArena::Remove(std::uint32_t unit) {
  const Header* header = At(unit);
  INVARIANT(header->state == kFree);
  const int bin = std::bit_width(header->units) - 1;
  const auto links_of = [this](std::uint32_t at) {
    return reinterpret_cast<Links*>(base_ + (std::size_t{at} + 1) * kUnit);
  };
  const Links links = *links_of(unit);
  // A dangling write into freed memory shows here: the neighbours must point back.
  INVARIANT(links.next == kNone ||
            (links.next < total_units_ && links_of(links.next)->prev == unit));
  INVARIANT(links.prev == kNone ||
            (links.prev < total_units_ && links_of(links.prev)->next == unit));
  if (links.next != kNone) links_of(links.next)->prev = links.prev;
  if (links.prev != kNone) {
    links_of(links.prev)->next = links.next;
  } else {
    INVARIANT(bins_[static_cast<std::size_t>(bin)] == unit);
    bins_[static_cast<std::size_t>(bin)] = links.next;
    if (links.next == kNone) bin_bits_ &= ~(1u << bin);
  }
  free_units_ -= header->units;
}

// A block of at least `units`, or kNone. A short look into the bin of that size, then any block of
// a larger bin, and only when there is none the whole own bin.
std::uint32_t LockedArena::Find(std::uint32_t units) const {
  const int bin = std::bit_width(units) - 1;
  const auto scan = [&](int most) {
    std::uint32_t at = bins_[static_cast<std::size_t>(bin)];
    for (int i = 0; at != kNone && (most < 0 || i < most); ++i) {
      if (At(at)->units >= units) return at;
      at = reinterpret_cast<const Links*>(base_ + (std::size_t{at} + 1) * kUnit)->next;
    }
    return kNone;
  };
  if (const std::uint32_t found = scan(kBinScan); found != kNone) return found;
  const std::uint32_t larger = bin == 31 ? 0 : bin_bits_ & ~((2u << bin) - 1);
  if (larger != 0) return bins_[static_cast<std::size_t>(std::countr_zero(larger))];
  return scan(-1);
}

// Cuts the used block at `unit` down to `units`, if the rest can be a block; the rest becomes free.
void LockedArena::SplitTail(std::uint32_t unit, std::uint32_t units) {
  const Header header = *At(unit);
  if (header.units - units < 2) return;
  Write(unit, units, header.prev_units, true);
  Write(unit + units, header.units - units, units, true);
  FreeUnits(unit + units);
}

// Joins a used, wiped block with its free neighbours and files it.
void LockedArena::FreeUnits(std::uint32_t unit) {
  Header header = *At(unit);
  if (unit + header.units < total_units_) {
    const std::uint32_t next = unit + header.units;
    if (At(next)->state == kFree) {
      Remove(next);
      header.units += At(next)->units;
    }
  }
  if (header.prev_units != 0) {
    const std::uint32_t before = unit - header.prev_units;
    if (At(before)->state == kFree) {
      Remove(before);
      header.units += At(before)->units;
      header.prev_units = At(before)->prev_units;
      unit = before;
    }
  }
  Write(unit, header.units, header.prev_units, false);
  if (unit + header.units < total_units_) {
    const Header next = *At(unit + header.units);
    Write(unit + header.units, next.units, header.units, next.state == kUsed);
  }
  Insert(unit);
}

std::uint8_t* LockedArena::Allocate(std::size_t bytes, std::size_t* capacity) {
  if (bytes == 0 || bytes > size_) return nullptr;
  const auto units = static_cast<std::uint32_t>((bytes + kUnit - 1) / kUnit + 1);
  const std::lock_guard lock(mutex_);
  const std::uint32_t unit = Find(units);
  if (unit == kNone) return nullptr;
  Remove(unit);
  const Header header = *At(unit);
  Write(unit, header.units, header.prev_units, true);
  SplitTail(unit, units);
  *capacity = (std::size_t{At(unit)->units} - 1) * kUnit;
  std::uint8_t* block = base_ + (std::size_t{unit} + 1) * kUnit;
  ASAN_POISON_MEMORY_REGION(block, *capacity);
  ASAN_UNPOISON_MEMORY_REGION(block, bytes);
  return block;
}

void LockedArena::Free(std::uint8_t* block) {
  // Wiping needs no lock: nobody else may touch the block before it is filed as free.
  std::size_t capacity = 0;
  {
    const std::lock_guard lock(mutex_);
    capacity = (std::size_t{HeaderOf(block)->units} - 1) * kUnit;
  }
  ASAN_UNPOISON_MEMORY_REGION(block, capacity);
  sodium_memzero(block, capacity);
  const std::lock_guard lock(mutex_);
  FreeUnits(UnitOf(HeaderOf(block)));
}

std::size_t LockedArena::ShrinkTo(std::uint8_t* block, std::size_t bytes) {
  INVARIANT(bytes > 0);
  const std::lock_guard lock(mutex_);
  const Header* header = HeaderOf(block);
  const std::size_t capacity = (std::size_t{header->units} - 1) * kUnit;
  INVARIANT(bytes <= capacity);
  ASAN_UNPOISON_MEMORY_REGION(block, capacity);
  sodium_memzero(block + bytes, capacity - bytes);
  SplitTail(UnitOf(header), static_cast<std::uint32_t>((bytes + kUnit - 1) / kUnit + 1));
  const std::size_t left = (std::size_t{header->units} - 1) * kUnit;
  ASAN_POISON_MEMORY_REGION(block, left);
  ASAN_UNPOISON_MEMORY_REGION(block, bytes);
  return left;
}

bool LockedArena::Contains(const void* address) const {
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  const auto from = reinterpret_cast<std::uintptr_t>(base_);
  return at >= from && at - from < size_;
}

std::size_t LockedArena::FreeBytes() const {
  const std::lock_guard lock(mutex_);
  std::size_t bytes = free_units_ * kUnit;
  // Each free block keeps its header; the one that always matters is that of the next allocation.
  return bytes > kUnit ? bytes - kUnit : 0;
}

}  // namespace latchkey
