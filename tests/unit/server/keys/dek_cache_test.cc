#include "server/keys/dek_cache.h"

#include <catch2/catch.hpp>

namespace latchkey::keys {
namespace {

ByteVector Wrapped(std::int64_t version) {
  ByteVector out(crypto::kWrappedKeyBytes, 1);
  for (std::size_t i = 0; i < 8; ++i) out[i] = static_cast<std::uint8_t>(version >> (8 * i));
  return out;
}
crypto::Dek DekFor(std::int64_t version) {
  return crypto::Dek::FromBytes(ByteVector(32, static_cast<std::uint8_t>(version))).value();
}
std::unique_ptr<DekCache> Cache(std::size_t entries) {
  auto made = DekCache::Make(entries);
  REQUIRE(made.has_value());
  return std::move(made).value();
}

TEST_CASE("A cached key is found by its version and its wrapped bytes alone", "[keys]") {
  const auto cache = Cache(64);
  CHECK_FALSE(cache->Find({5}, Wrapped(5)).has_value());
  cache->Put({5}, Wrapped(5), DekFor(5));
  const auto found = cache->Find({5}, Wrapped(5));
  REQUIRE(found.has_value());
  CHECK(crypto::EqualsConstantTime(found->bytes(), DekFor(5).bytes()));
  CHECK(InSecretArena(found->bytes().data()));
  CHECK_FALSE(cache->Find({6}, Wrapped(5)).has_value());
  CHECK_FALSE(cache->Find({5}, Wrapped(6)).has_value());
  CHECK_FALSE(cache->Find({5}, Bytes(Wrapped(5)).first(10)).has_value());
  cache->Put({5}, Wrapped(6), DekFor(6));  // sealed anew: replaces
  CHECK_FALSE(cache->Find({5}, Wrapped(5)).has_value());
  CHECK(cache->Find({5}, Wrapped(6)).has_value());
  cache->Forget({5});
  CHECK_FALSE(cache->Find({5}, Wrapped(6)).has_value());
}

TEST_CASE("An empty place answers for no version", "[keys]") {
  const auto cache = Cache(64);
  cache->Put({0}, ByteVector(crypto::kWrappedKeyBytes), DekFor(1));
  CHECK_FALSE(cache->Find({0}, ByteVector(crypto::kWrappedKeyBytes)).has_value());
}

TEST_CASE(
    "A full cache drops old keys, keeps its bound and never answers with another version's key",
    "[keys]") {
  const auto cache = Cache(64);
  const std::size_t free_before = SecretArenaFreeBytes();
  for (std::int64_t version = 1; version <= 1000; ++version) {
    cache->Put({version}, Wrapped(version), DekFor(version));
    CHECK(cache->Find({version}, Wrapped(version)).has_value());
  }
  std::size_t kept = 0;
  for (std::int64_t version = 1; version <= 1000; ++version) {
    const auto found = cache->Find({version}, Wrapped(version));
    if (!found.has_value()) continue;
    ++kept;
    REQUIRE(crypto::EqualsConstantTime(found->bytes(), DekFor(version).bytes()));
  }
  CHECK(kept > 0);
  CHECK(kept <= 64);
  CHECK(SecretArenaFreeBytes() == free_before);
}

TEST_CASE("The cache gives its memory back", "[keys]") {
  const std::size_t before = SecretArenaFreeBytes();
  {
    const auto cache = Cache(4096);
    CHECK(SecretArenaFreeBytes() <= before - 4096 * 32);
  }
  CHECK(SecretArenaFreeBytes() == before);
}

}  // namespace
}  // namespace latchkey::keys
