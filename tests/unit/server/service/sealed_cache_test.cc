#include "server/service/sealed_cache.h"

#include <catch2/catch.hpp>
#include <random>
#include <thread>

using namespace latchkey;
using service::SealedCache;

namespace {

service::SealedRef Row(std::int64_t id, std::size_t size_bytes) {
  auto row = std::make_shared<store::VersionRow>();
  row->info.id = VersionId{id};
  row->sealed.assign(size_bytes, static_cast<std::uint8_t>(id));
  return row;
}

}  // namespace

TEST_CASE("the cache gives back what was put and forgets on demand", "[service]") {
  SealedCache cache(64 * 1024);
  cache.Put(Row(1, 100));
  REQUIRE(cache.Find(VersionId{1}) != nullptr);
  CHECK(cache.Find(VersionId{1})->sealed.size() == 100);
  CHECK(cache.Find(VersionId{2}) == nullptr);
  cache.Put(Row(1, 50));
  CHECK(cache.Find(VersionId{1})->sealed.size() == 50);
  cache.Forget(VersionId{1});
  cache.Forget(VersionId{1});
  CHECK(cache.Find(VersionId{1}) == nullptr);
  CHECK(cache.bytes() == 0);
}

TEST_CASE("the cache never holds more than its capacity and drops the least recently used",
          "[service]") {
  constexpr std::size_t kCapacity = 256 * 1024;
  SealedCache cache(kCapacity);
  std::mt19937_64 random(Catch::rngSeed());
  for (std::int64_t id = 1; id < 3000; ++id) {
    cache.Put(Row(id, random() % 2000));
    REQUIRE(cache.bytes() <= kCapacity);
    (void)cache.Find(VersionId{1});  // used all the time: stays
  }
  CHECK(cache.Find(VersionId{1}) != nullptr);
  CHECK(cache.Find(VersionId{2}) == nullptr);
  CHECK(cache.Find(VersionId{2999}) != nullptr);
  cache.Put(Row(5000, kCapacity));
  CHECK(cache.Find(VersionId{5000}) == nullptr);
}

TEST_CASE("the cache is used from many threads", "[service]") {
  SealedCache cache(64 * 1024);
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&cache, &wrong, t] {
      std::mt19937_64 random(static_cast<unsigned>(t));
      for (int i = 0; i < 5000; ++i) {
        const auto id = static_cast<std::int64_t>(random() % 100 + 1);
        if (random() % 3 == 0) cache.Put(Row(id, 500));
        if (random() % 7 == 0) cache.Forget(VersionId{id});
        const auto found = cache.Find(VersionId{id});
        if (found != nullptr && found->info.id != VersionId{id}) ++wrong;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(wrong == 0);
}
