#include "common/secret/arena.h"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <csignal>
#include <cstring>
#include <fstream>
#include <random>
#include <vector>

namespace latchkey {
namespace {

std::unique_ptr<LockedArena> Small(std::size_t bytes = 64 * 1024) {
  auto made = LockedArena::Make({.size_bytes = bytes});
  REQUIRE(made.has_value());
  return std::move(made).value();
}

// Runs `body` in a child; true when it died by SIGABRT, which is how a broken invariant ends.
template <class Body>
bool Aborts(Body&& body) {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    if (std::freopen("/dev/null", "w", stderr) == nullptr) ::_exit(1);
    ::signal(SIGABRT, SIG_DFL);  // Catch2 would report the signal as its own failure
    body();
    ::_exit(0);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

TEST_CASE("Random allocation and freeing keeps blocks apart and gives everything back",
          "[secret]") {
  const auto arena = Small();
  const std::size_t all = arena->FreeBytes();
  struct Block {
    std::uint8_t* at;
    std::size_t size;
    std::uint8_t fill;
  };
  std::vector<Block> live;
  std::mt19937 random(Catch::rngSeed());
  std::size_t refused = 0;
  for (int step = 0; step < 20000; ++step) {
    if (live.empty() || random() % 5 < 3) {
      const std::size_t size = 1 + random() % (random() % 8 == 0 ? 6000 : 200);
      std::size_t capacity = 0;
      std::uint8_t* at = arena->Allocate(size, &capacity);
      if (at == nullptr) {
        ++refused;
      } else {
        REQUIRE(capacity >= size);
        REQUIRE(reinterpret_cast<std::uintptr_t>(at) % 16 == 0);
        live.push_back({at, size, static_cast<std::uint8_t>(step)});
        std::memset(at, live.back().fill, size);
      }
    }
    if (!live.empty() && (random() % 5 < 2 || live.size() > 120)) {
      const std::size_t pick = random() % live.size();
      Block& block = live[pick];
      for (std::size_t i = 0; i < block.size; ++i) REQUIRE(block.at[i] == block.fill);
      if (random() % 4 == 0 && block.size > 1) {
        block.size = 1 + random() % (block.size - 1);
        REQUIRE(arena->ShrinkTo(block.at, block.size) >= block.size);
      } else {
        arena->Free(block.at);
        live[pick] = live.back();
        live.pop_back();
      }
    }
  }
  CHECK(refused > 0);  // the run has also seen a full arena
  for (const Block& block : live) arena->Free(block.at);
  CHECK(arena->FreeBytes() == all);
  std::size_t capacity = 0;
  CHECK(arena->Allocate(all, &capacity) != nullptr);  // one piece again: everything was coalesced
}

TEST_CASE("A full arena refuses and serves again after a free", "[secret]") {
  const auto arena = Small(4096);
  std::size_t capacity = 0;
  std::uint8_t* whole = arena->Allocate(arena->FreeBytes(), &capacity);
  REQUIRE(whole != nullptr);
  CHECK(arena->FreeBytes() == 0);
  CHECK(arena->Allocate(1, &capacity) == nullptr);
  arena->Free(whole);
  CHECK(arena->Allocate(1, &capacity) != nullptr);
  CHECK(arena->Allocate(0, &capacity) == nullptr);
  CHECK(arena->Allocate(SIZE_MAX, &capacity) == nullptr);
}

TEST_CASE("Neither 0 bytes nor more than 4 GiB make an arena", "[secret]") {
  for (const std::size_t size : {std::size_t{0}, (std::size_t{4} << 30) + 1}) {
    const auto made = LockedArena::Make({.size_bytes = size});
    REQUIRE_FALSE(made.has_value());
    CHECK(made.error().code == Errc::kInvalidArgument);
  }
}

// Children have no arena mapping (MADV_DONTFORK): each makes its own.
TEST_CASE("A double free aborts", "[secret]") {
  CHECK(Aborts([] {
    auto arena = LockedArena::Make({.size_bytes = 4096}).value().release();
    std::size_t capacity = 0;
    std::uint8_t* block = arena->Allocate(32, &capacity);
    arena->Free(block);
    arena->Free(block);
  }));
}

TEST_CASE("An address that is no block aborts", "[secret]") {
  CHECK(Aborts([] {
    auto arena = LockedArena::Make({.size_bytes = 4096}).value().release();
    std::size_t capacity = 0;
    std::uint8_t* block = arena->Allocate(64, &capacity);
    arena->Free(block + 16);
  }));
  CHECK(Aborts([] {
    auto arena = LockedArena::Make({.size_bytes = 4096}).value().release();
    static std::uint8_t outside[64];
    arena->Free(outside);
  }));
}

#ifndef LATCHKEY_SANITIZED
TEST_CASE("An overrun into the next block's header aborts when that block is freed", "[secret]") {
  CHECK(Aborts([] {
    auto arena = LockedArena::Make({.size_bytes = 4096}).value().release();
    std::size_t capacity = 0;
    std::uint8_t* first = arena->Allocate(32, &capacity);
    std::uint8_t* second = arena->Allocate(32, &capacity);
    volatile std::uint8_t* overrun = first;
    overrun[33] = static_cast<std::uint8_t>(overrun[33] ^ 1);
    arena->Free(second);
  }));
}
#endif

TEST_CASE("Without secret memory the arena is locked and left out of core dumps", "[secret]") {
  const auto made = LockedArena::Make({.size_bytes = 64 * 1024, .try_secret_memory = false});
  REQUIRE(made.has_value());
  CHECK(made.value()->backing() == ArenaBacking::kLocked);
  std::size_t capacity = 0;
  const auto at = reinterpret_cast<std::uintptr_t>(made.value()->Allocate(16, &capacity));
  std::ifstream maps("/proc/self/smaps");
  std::string line;
  bool inside = false;
  std::string locked, flags;
  while (std::getline(maps, line)) {
    unsigned long from = 0, to = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx ", &from, &to) == 2) inside = at >= from && at < to;
    if (inside && line.rfind("Locked:", 0) == 0) locked = line;
    if (inside && line.rfind("VmFlags:", 0) == 0) flags = line + " ";
  }
  CHECK(locked.find(" 64 kB") != std::string::npos);
  CHECK(flags.find(" dd ") != std::string::npos);  // VM_DONTDUMP
  CHECK(flags.find(" dc ") != std::string::npos);  // VM_DONTCOPY
}

// Lowers the limit for good and drops root's right to pass it, in a child.
template <class Body>
int InChildWithoutLockedMemory(Body&& body) {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    const rlimit none{0, 0};
    if (::setrlimit(RLIMIT_MEMLOCK, &none) != 0) ::_exit(100);
    if (::geteuid() == 0 && ::setresuid(65534, 65534, 65534) != 0) ::_exit(101);
    ::_exit(body());
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  return WEXITSTATUS(status);
}

TEST_CASE("Memory that cannot be locked is refused with advice unless unlocked memory is allowed",
          "[secret]") {
  CHECK(InChildWithoutLockedMemory([] {
          const auto refused = LockedArena::Make({.size_bytes = 64 * 1024});
          if (refused.has_value()) return 1;
          if (refused.error().code != Errc::kUnavailable) return 2;
          // Both ways out, by the names that unit and configuration have for them.
          for (const char* advice :
               {"LimitMEMLOCK", "latchkeyd: in [memory]", "latchkey-fs: in [mount]"}) {
            if (refused.error().message.find(advice) == std::string::npos) return 3;
          }
          return 0;
        }) == 0);
  CHECK(InChildWithoutLockedMemory([] {
          const auto allowed = LockedArena::Make({.size_bytes = 64 * 1024, .allow_unlocked = true});
          if (!allowed.has_value()) return 1;
          return allowed.value()->backing() == ArenaBacking::kUnlocked ? 0 : 2;
        }) == 0);
}

}  // namespace
}  // namespace latchkey
