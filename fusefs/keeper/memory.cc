#include "fusefs/keeper/memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "common/base/log.h"

namespace latchkey::keeper {
namespace {

constexpr std::size_t kPageBytes = 4096;

// memfd_secret may exist and still refuse: one page is mapped and written before it is relied on.
UniqueFd TrySecretMemory(std::size_t bytes) {
  UniqueFd fd(static_cast<int>(syscall(SYS_memfd_secret, O_CLOEXEC)));
  if (!fd.valid() || ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) return {};
  void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (at == MAP_FAILED) return {};
  *static_cast<volatile std::uint8_t*>(at) = 0;
  munmap(at, bytes);
  return fd;
}

}  // namespace

Result<ContentMemory> ContentMemory::Make(std::size_t bytes, bool try_secret_memory,
                                          bool allow_unlocked) {
  bytes = (bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
  if (try_secret_memory) {
    if (UniqueFd fd = TrySecretMemory(bytes); fd.valid())
      return ContentMemory(std::move(fd), bytes);
    Log(LogLevel::kInfo, "memfd_secret is not to be had; content memory is a locked memfd", {});
  }
  UniqueFd fd(memfd_create("latchkey-content", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid() || ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0 ||
      fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
    return Error{Errc::kUnavailable,
                 std::string("cannot make the content memory: ") + std::strerror(errno)};
  ContentMemory memory(std::move(fd), bytes);
  void* at = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, memory.fd_.get(), 0);
  if (at == MAP_FAILED)
    return Error{Errc::kUnavailable,
                 std::string("cannot map the content memory: ") + std::strerror(errno)};
  memory.at_ = static_cast<std::uint8_t*>(at);
  madvise(at, bytes, MADV_DONTFORK);
  madvise(at, bytes, MADV_DONTDUMP);
  memory.held_.resize(bytes / kPageBytes);
  memory.locked_ = mlock2(at, bytes, MLOCK_ONFAULT) == 0;
  if (!memory.locked_ && !allow_unlocked)
    return Error{
        Errc::kUnavailable,
        "cannot lock " + std::to_string(bytes) +
            " bytes of content memory; give the keeper CAP_IPC_LOCK or set allow_unlocked"};
  if (!memory.locked_) Log(LogLevel::kWarn, "content memory is not locked and may reach swap", {});
  return memory;
}

ContentMemory::ContentMemory(ContentMemory&& other) noexcept
    : fd_(std::move(other.fd_)),
      bytes_(other.bytes_),
      at_(std::exchange(other.at_, nullptr)),
      locked_(other.locked_),
      held_(std::move(other.held_)) {}

ContentMemory::~ContentMemory() {
  if (at_ != nullptr) munmap(at_, bytes_);
}

void ContentMemory::LockUsedPages() {
  if (at_ == nullptr || !locked_) return;
  std::vector<unsigned char> used(held_.size());
  if (mincore(at_, bytes_, used.data()) != 0) return;
  for (std::size_t page = 0; page < used.size(); ++page) {
    if ((used[page] & 1U) == 0 || held_[page]) continue;
    // A read through this mapping is what locks the page (MLOCK_ONFAULT). The byte itself is of no
    // interest.
    [[maybe_unused]] const std::uint8_t byte =
        *static_cast<volatile std::uint8_t*>(at_ + page * kPageBytes);
    held_[page] = true;
  }
}

}  // namespace latchkey::keeper
