#include "common/secret/secret_buffer.h"

#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstring>
#include <nlohmann/json.hpp>
#include <ranges>
#include <thread>

namespace latchkey {
namespace {

// None of these may creep back (rule O2): such a type would become JSON or print itself in a failed
// comparison.
template <class T>
concept Printable = requires(std::ostream& out, const T& value) {
  out << value;
};
template <class T>
concept Comparable = requires(const T& a, const T& b) {
  a == b;
};
static_assert(!std::ranges::range<SecretBuffer>);
static_assert(!std::is_constructible_v<nlohmann::json, const SecretBuffer&>);
static_assert(!std::is_convertible_v<const SecretBuffer&, std::string>);
static_assert(!std::is_convertible_v<const SecretBuffer&, Bytes>);
static_assert(!Printable<SecretBuffer>);
static_assert(!Comparable<SecretBuffer>);
static_assert(!std::is_copy_constructible_v<SecretBuffer> &&
              !std::is_copy_assignable_v<SecretBuffer>);
static_assert(std::is_nothrow_move_constructible_v<SecretBuffer>);
static_assert(std::is_nothrow_move_assignable_v<SecretBuffer>);

SecretBuffer Copy(std::string_view text) {
  auto made = SecretBuffer::CopyOf(AsBytes(text));
  REQUIRE(made.has_value());
  return std::move(made).value();
}

TEST_CASE("A secret buffer holds its bytes inside the arena", "[secret]") {
  const SecretBuffer buffer = Copy("correct horse");
  CHECK(AsText(buffer.bytes()) == "correct horse");
  CHECK(InSecretArena(buffer.bytes().data()));
  CHECK(InSecretArena(buffer.bytes().data() + buffer.size() - 1));
  CHECK(reinterpret_cast<std::uintptr_t>(buffer.bytes().data()) % 16 == 0);
  int outside = 0;
  CHECK_FALSE(InSecretArena(&outside));
  CHECK_FALSE(InSecretArena(nullptr));
}

TEST_CASE("A secret buffer of a size is zero-filled even in memory used before", "[secret]") {
  for (int round = 0; round < 3; ++round) {
    auto made = SecretBuffer::OfSize(5000);
    REQUIRE(made.has_value());
    bool all_zero = true;
    for (const std::uint8_t byte : made.value().bytes()) all_zero = all_zero && byte == 0;
    CHECK(all_zero);
    std::memset(made.value().mutable_bytes().data(), 0xab, 5000);
  }
}

TEST_CASE("Zero bytes are a valid secret and take no memory", "[secret]") {
  const std::size_t before = SecretArenaFreeBytes();
  const auto copied = SecretBuffer::CopyOf({});
  const auto sized = SecretBuffer::OfSize(0);
  REQUIRE(copied.has_value());
  REQUIRE(sized.has_value());
  CHECK(copied.value().empty());
  CHECK(copied.value().EqualsConstantTime(sized.value()));
  CHECK(SecretArenaFreeBytes() == before);
}

TEST_CASE("Moving a secret buffer leaves the source empty and frees the target's old memory",
          "[secret]") {
  const std::size_t before = SecretArenaFreeBytes();
  {
    SecretBuffer first = Copy("first");
    SecretBuffer second = Copy("second");
    const std::uint8_t* address = first.bytes().data();
    second = std::move(first);
    CHECK(second.bytes().data() == address);
    CHECK(AsText(second.bytes()) == "first");
    CHECK(first.empty());  // NOLINT: the moved-from state is part of the contract
    SecretBuffer third(std::move(second));
    CHECK(AsText(third.bytes()) == "first");
    SecretBuffer& same = third;
    third = std::move(same);
    CHECK(AsText(third.bytes()) == "first");
  }
  CHECK(SecretArenaFreeBytes() == before);
}

TEST_CASE("The bytes of a destroyed secret buffer are wiped", "[secret]") {
  // The memory stays mapped and is ours: reading it after the free is defined, and only ASan has it
  // poisoned.
#ifndef LATCHKEY_SANITIZED
  const std::uint8_t* address = nullptr;
  {
    SecretBuffer buffer = Copy(std::string(4096, 'S'));
    address = buffer.bytes().data();
  }
  REQUIRE(InSecretArena(address));
  std::size_t left = 0;
  for (std::size_t i = 0; i < 4096; ++i) left += address[i] == 'S' ? 1 : 0;
  CHECK(left == 0);
#endif
}

TEST_CASE("Shrink wipes and gives back the tail and keeps the head", "[secret]") {
  const std::size_t before = SecretArenaFreeBytes();
  SecretBuffer buffer = Copy(std::string(8192, 'T'));
  const std::size_t with_all = SecretArenaFreeBytes();
  const std::uint8_t* address = buffer.bytes().data();
  buffer.Shrink(10);
  CHECK(AsText(buffer.bytes()) == std::string(10, 'T'));
  CHECK(SecretArenaFreeBytes() > with_all + 8000);
#ifndef LATCHKEY_SANITIZED
  std::size_t left = 0;
  for (std::size_t i = 10; i < 8192; ++i) left += address[i] == 'T' ? 1 : 0;
  CHECK(left == 0);
#endif
  CHECK(buffer.bytes().data() == address);
  buffer.Shrink(0);
  CHECK(buffer.empty());
  CHECK(SecretArenaFreeBytes() == before);
}

TEST_CASE("Secret buffers compare by content and length", "[secret]") {
  CHECK(Copy("same").EqualsConstantTime(Copy("same")));
  CHECK_FALSE(Copy("same").EqualsConstantTime(Copy("sama")));
  CHECK_FALSE(Copy("same").EqualsConstantTime(Copy("same ")));
}

TEST_CASE("A second arena and an arena after the first use are refused", "[secret]") {
  const SecretBuffer first_use = Copy("x");
  const auto again = InitSecretArena({.size_bytes = 4096});
  REQUIRE_FALSE(again.has_value());
  CHECK(again.error().code == Errc::kInternal);
}

TEST_CASE("More secret memory than the arena has is refused and the error names the sizes",
          "[secret]") {
  const auto made = SecretBuffer::OfSize(64 * 1024 * 1024);
  REQUIRE_FALSE(made.has_value());
  CHECK(made.error().code == Errc::kUnavailable);
  CHECK(made.error().message.find("67108864") != std::string::npos);
}

TEST_CASE("Memory of kSecretMemory cannot be read through the kernel by another mapping",
          "[secret]") {
  const SecretBuffer buffer = Copy("not for the debugger");
  if (SecretArenaBacking() != ArenaBacking::kSecretMemory) {
    WARN("memfd_secret is not available: the property cannot be shown on this kernel");
    return;
  }
  char out[32] = {};
  const iovec local{out, buffer.size()};
  const iovec remote{const_cast<std::uint8_t*>(buffer.bytes().data()), buffer.size()};
  CHECK(::process_vm_readv(::getpid(), &local, 1, &remote, 1, 0) < 0);
}

TEST_CASE("A forked child has none of the secrets and starts an arena of its own", "[secret]") {
  SecretBuffer inherited = Copy("parent only");
  const std::uint8_t* address = inherited.bytes().data();
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    int answer = 0;
    if (InSecretArena(address)) answer |= 1;
    // Not mapped: write(2) reports EFAULT instead of a signal. A sanitizer may have put memory of its own there.
    int ends[2];
    char there[8] = {};
    if (::pipe(ends) != 0) answer |= 2;
    if (::write(ends[1], address, sizeof(there)) > 0 && ::read(ends[0], there, sizeof(there)) > 0 &&
        std::memcmp(there, "parent o", sizeof(there)) == 0) {
      answer |= 4;
    }
    inherited = SecretBuffer();  // must neither crash nor touch the parent's memory
    auto own = SecretBuffer::CopyOf(AsBytes("child"));
    if (!own.has_value() || AsText(own.value().bytes()) != "child") answer |= 8;
    ::_exit(answer);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  CHECK(AsText(inherited.bytes()) == "parent only");
}

TEST_CASE("WipeMemory clears exactly the range it is given", "[secret]") {
  char text[] = "abcdef";
  WipeMemory(text + 1, 3);
  CHECK(std::memcmp(text, "a\0\0\0ef", 7) == 0);
  WipeMemory(text, 0);
  CHECK(text[0] == 'a');
}

TEST_CASE("Many threads can make and drop secret buffers", "[secret]") {
  const std::size_t before = SecretArenaFreeBytes();
  std::atomic<int> mistakes{0};
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([t, &mistakes] {
        std::vector<SecretBuffer> held(16);
        for (std::size_t i = 0; i < 4000; ++i) {
          const std::size_t size = (i * 37 + static_cast<std::size_t>(t)) % 3000 + 1;
          auto made = SecretBuffer::OfSize(size);
          if (!made.has_value()) {
            ++mistakes;
            continue;
          }
          std::memset(made.value().mutable_bytes().data(), t + 1, size);
          SecretBuffer& slot = held[i % held.size()];
          for (const std::uint8_t byte : slot.bytes()) mistakes += byte == t + 1 ? 0 : 1;
          slot = std::move(made).value();
        }
      });
    }
  }
  CHECK(mistakes == 0);
  CHECK(SecretArenaFreeBytes() == before);
}

}  // namespace
}  // namespace latchkey
