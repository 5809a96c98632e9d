// Rules Y1, Y5 (S40, S42): after a key file was loaded and used, its key exists in the arena and nowhere else.
//
// Not in sanitizer builds, whose shadow memory is terabytes of writable mapping.
#ifndef LATCHKEY_SANITIZED
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "common/base/unique_fd.h"
#include "keys_for_test.h"
#include "server/keys/kek_file.h"
#include "server/keys/kek_provider.h"

namespace latchkey::keys {
namespace {

// How often `needle`, which lies in the arena, occurs in writable memory of this process outside of the arena. The kernel
// reads for us; of a match only the count is kept.
std::size_t CountOutsideArena(Bytes needle) {
  const UniqueFd memory(::open("/proc/self/mem", O_RDONLY | O_CLOEXEC));
  REQUIRE(memory.valid());
  std::ifstream maps("/proc/self/maps");
  std::size_t found = 0;
  static std::uint8_t chunk[1 << 16];
  for (std::string line; std::getline(maps, line);) {
    unsigned long from = 0, to = 0;
    char mode[5] = {};
    if (std::sscanf(line.c_str(), "%lx-%lx %4s", &from, &to, mode) != 3 || mode[0] != 'r' ||
        mode[1] != 'w')
      continue;
    const std::size_t step = sizeof(chunk) - needle.size();
    for (unsigned long at = from; at < to; at += step) {
      if (InSecretArena(reinterpret_cast<const void*>(at))) continue;
      // The buffer of the search is not searched: it holds copies of what was found before.
      const auto own = reinterpret_cast<unsigned long>(chunk);
      if (at + sizeof(chunk) > own && at < own + sizeof(chunk)) continue;
      const ssize_t got =
          ::pread(memory.get(), chunk, std::min<std::size_t>(sizeof(chunk), to - at),
                  static_cast<off_t>(at));
      for (std::uint8_t* hit = chunk; got > 0;) {
        hit = static_cast<std::uint8_t*>(::memmem(hit, static_cast<std::size_t>(chunk + got - hit),
                                                  needle.data(), needle.size()));
        if (hit == nullptr) break;
        ++found;
        ++hit;
      }
    }
  }
  return found;
}

TEST_CASE("The search sees a key that was copied to the heap", "[keys]") {
  const auto kek = crypto::Kek::Random().value();
  const ByteVector copy(kek.bytes().begin(), kek.bytes().end());
  CHECK(CountOutsideArena(kek.bytes()) >= 1);
  CHECK(copy.size() == 32);
}

TEST_CASE("A key that was loaded and used is nowhere outside the arena, nor is its text",
          "[keys]") {
  std::string directory =
      (std::filesystem::temp_directory_path() / "latchkey-memory-XXXXXX").string();
  REQUIRE(::mkdtemp(directory.data()) != nullptr);
  const std::filesystem::path path = directory + "/kek";
  REQUIRE(CreateKekFile(path, kTestKekId, crypto::Kek::Random().value()).has_value());

  auto loaded = FileKekProvider(path).Load(kTestKekId);
  std::filesystem::remove_all(directory);
  REQUIRE(loaded.has_value());
  const crypto::Kek kek = CopyOf(loaded.value());
  const SecretBuffer text = crypto::ToBase64Url(kek.bytes()).value();
  const auto made = Keyring::Create(crypto::StoreId{1}, kTestKekId, std::move(loaded).value(), 0);
  REQUIRE(made.has_value());
  auto content = SecretBuffer::OfSize(1000);
  REQUIRE(content.has_value());
  SecretBuffer secret = std::move(content).value();
  crypto::RandomBytes(secret.mutable_bytes());
  const auto row = made.value().keyring->SealVersion(InfoFor(1, 2), secret.bytes());
  REQUIRE(row.has_value());
  const auto opened =
      made.value().keyring->OpenVersion(row.value().info, row.value().sealed, row.value().wrapped);
  REQUIRE(opened.has_value());

  CHECK(CountOutsideArena(kek.bytes()) == 0);
  CHECK(CountOutsideArena(text.bytes()) == 0);
  CHECK(CountOutsideArena(made.value().keyring->audit_key().bytes()) == 0);
  CHECK(CountOutsideArena(secret.bytes().first(32)) == 0);
  CHECK(CountOutsideArena(secret.bytes().last(32)) == 0);
  CHECK(CountOutsideArena(secret.bytes().subspan(500, 32)) == 0);
}

}  // namespace
}  // namespace latchkey::keys
#endif
