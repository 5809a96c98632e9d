#include "fusefs/journal/region.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace latchkey::journal {
namespace {

constexpr std::uint64_t kMagic = 0x4c4b4a524e4c3031ULL;  // "LKJRNL01"

Error Unavailable(const char* what) {
  return Error{Errc::kUnavailable, std::string(what) + ": " + std::strerror(errno)};
}

Result<Layout*> Map(int fd) {
  void* at = mmap(nullptr, sizeof(Layout), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) return Unavailable("cannot map the journal");
  madvise(at, sizeof(Layout), MADV_DONTDUMP);
  return static_cast<Layout*>(at);
}

long Futex(const HalfWord* word, int op, std::uint32_t value, const timespec* limit) {
  return syscall(SYS_futex, word, op, value, limit, nullptr, 0);
}

}  // namespace

Result<Region> Region::Create() {
  UniqueFd fd(memfd_create("latchkey-journal", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid()) return Unavailable("cannot make the journal");
  if (ftruncate(fd.get(), sizeof(Layout)) != 0) return Unavailable("cannot size the journal");
  if (fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
    return Unavailable("cannot seal the journal");
  ASSIGN_OR_RETURN(Layout * layout, Map(fd.get()));
  layout->magic = kMagic;
  layout->layout_bytes = sizeof(Layout);
  return Region(std::move(fd), layout);
}

Result<Region> Region::Attach(int fd) {
  struct stat info {};
  if (fstat(fd, &info) != 0) return Unavailable("cannot look at the journal");
  if (info.st_size != static_cast<off_t>(sizeof(Layout)))
    return Error{Errc::kCorrupt, "the journal has the wrong size; restart latchkey-fs"};
  UniqueFd own(fcntl(fd, F_DUPFD_CLOEXEC, 3));
  if (!own.valid()) return Unavailable("cannot duplicate the journal");
  ASSIGN_OR_RETURN(Layout * layout, Map(own.get()));
  Region region(std::move(own), layout);
  if (layout->magic != kMagic || layout->layout_bytes != sizeof(Layout))
    return Error{Errc::kCorrupt, "the journal was made by another version; restart latchkey-fs"};
  return region;
}

Region::Region(Region&& other) noexcept
    : fd_(std::move(other.fd_)), layout_(std::exchange(other.layout_, nullptr)) {}

Region& Region::operator=(Region&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(layout_, other.layout_);
  return *this;
}

Region::~Region() {
  if (layout_ != nullptr) munmap(layout_, sizeof(Layout));
}

void Region::SaveInit(Bytes request) const {
  if (request.size() > kInitBytes) return;
  std::copy(request.begin(), request.end(), layout_->init.begin());
  layout_->init_bytes.store(static_cast<std::uint32_t>(request.size()), std::memory_order_release);
}

ByteVector Region::SavedInit() const {
  const std::size_t size =
      std::min<std::size_t>(layout_->init_bytes.load(std::memory_order_acquire), kInitBytes);
  return {layout_->init.begin(), layout_->init.begin() + static_cast<std::ptrdiff_t>(size)};
}

void Raise(HalfWord& word, std::uint32_t value) {
  word.store(value, std::memory_order_seq_cst);
  WakeAll(word);
}

void WakeAll(HalfWord& word) {
  Futex(&word, FUTEX_WAKE, 0x7fffffff, nullptr);
}

bool WaitWhile(const HalfWord& word, std::uint32_t value, std::chrono::milliseconds limit) {
  const auto end = std::chrono::steady_clock::now() + limit;
  while (word.load(std::memory_order_seq_cst) == value) {
    const auto left =
        std::chrono::duration_cast<std::chrono::nanoseconds>(end - std::chrono::steady_clock::now())
            .count();
    if (left <= 0) return false;
    timespec wait{};
    wait.tv_sec = static_cast<time_t>(left / 1'000'000'000);
    wait.tv_nsec = static_cast<long>(left % 1'000'000'000);
    Futex(&word, FUTEX_WAIT, value, &wait);
  }
  return true;
}

}  // namespace latchkey::journal
