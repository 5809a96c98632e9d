#include "server/catalog/persistent_map.h"

#include <catch2/catch.hpp>
#include <map>
#include <random>
#include <string>

namespace latchkey::catalog {
namespace {

template <class K, class V>
std::map<K, V> Contents(const PersistentMap<K, V>& map) {
  std::map<K, V> out;
  const K* last = nullptr;
  bool ascending = true;
  map.ForEach([&](const K& key, const V& value) {
    ascending = ascending && (last == nullptr || *last < key);
    out.emplace(key, value);
    last = &out.find(key)->first;
    return true;
  });
  CHECK(ascending);
  CHECK(out.size() == map.size());
  return out;
}

TEST_CASE("A persistent map agrees with std::map under random edits, and its copies never change",
          "[catalog][property]") {
  std::mt19937_64 random(Catch::rngSeed());
  const auto range = GENERATE(20, 300, 20'000);
  PersistentMap<std::int64_t, std::string> map;
  std::map<std::int64_t, std::string> reference;
  std::vector<
      std::pair<PersistentMap<std::int64_t, std::string>, std::map<std::int64_t, std::string>>>
      copies;
  for (int step = 0; step < 20'000; ++step) {
    const auto key = static_cast<std::int64_t>(random() % static_cast<unsigned>(range)) - range / 2;
    // Phases of growth and of shrinking, so that nodes split and merge.
    const bool grow = random() % 10 < ((step / 4000) % 2 == 0 ? 8u : 2u);
    if (grow) {
      const std::string value = std::to_string(step) + "-long-enough-to-be-allocated";
      map.Set(key, value);
      reference[key] = value;
    } else {
      CHECK(map.Erase(key) == (reference.erase(key) == 1));
    }
    if (step % 2500 == 0) copies.emplace_back(map, reference);
    const std::int64_t probe = static_cast<std::int64_t>(random() % 20'000) - 10'000;
    const std::string* found = map.Find(probe);
    const auto expected = reference.find(probe);
    if ((found != nullptr) != (expected != reference.end()) ||
        (found != nullptr && *found != expected->second)) {
      FAIL("differs at step " << step << " for key " << probe);
    }
  }
  CHECK(Contents(map) == reference);
  for (const auto& [copy, expected] : copies) CHECK(Contents(copy) == expected);
  while (!reference.empty()) {
    const auto at = std::next(
        reference.begin(),
        static_cast<std::ptrdiff_t>(random() % std::min<std::size_t>(reference.size(), 50)));
    REQUIRE(map.Erase(at->first));
    reference.erase(at);
  }
  CHECK(map.empty());
  CHECK(map.Find(0) == nullptr);
}

TEST_CASE("A map built from sorted entries equals one built one by one", "[catalog]") {
  const auto count = GENERATE(0, 1, 47, 48, 49, 64, 65, 2304, 2305, 10'000);
  std::vector<PersistentMap<int, int>::Entry> entries;
  PersistentMap<int, int> one_by_one;
  for (int i = 0; i < count; ++i) {
    entries.push_back({i * 3, i});
    one_by_one.Set(i * 3, i);
  }
  auto built = PersistentMap<int, int>::FromSorted(entries);
  CHECK(built.size() == static_cast<std::size_t>(count));
  CHECK(Contents(built) == Contents(one_by_one));
  for (int i = 0; i < count; ++i) {
    if (built.Find(i * 3) == nullptr || built.Find(i * 3 + 1) != nullptr) FAIL(i);
  }
  // Every key is a place to insert before and after.
  for (int i = 0; i < count; ++i) built.Set(i * 3 + 1, -i);
  CHECK(built.size() == static_cast<std::size_t>(2 * count));
}

TEST_CASE("A walk begins at the first key not below its start and stops when told", "[catalog]") {
  PersistentMap<int, int> map;
  for (int i = 0; i < 1000; ++i) map.Set(i * 2, i);
  for (const int from : {-5, 0, 1, 2, 777, 1996, 1997, 1998, 1999}) {
    CAPTURE(from);
    std::vector<int> seen;
    const bool completed = map.ForEachFrom(from, [&seen](int key, int) {
      seen.push_back(key);
      return seen.size() < 3;
    });
    std::vector<int> expected;
    for (int key = std::max(0, (from + 1) / 2 * 2); key < 2000 && expected.size() < 3; key += 2) {
      expected.push_back(key);
    }
    CHECK(seen == expected);
    CHECK(completed == (expected.size() < 3));
  }
}

TEST_CASE("A persistent set adds and erases once", "[catalog]") {
  PersistentSet<std::int64_t> set;
  for (std::int64_t i = 0; i < 500; ++i) CHECK(set.Add(i * 7 % 500));
  CHECK_FALSE(set.Add(3));
  CHECK(set.size() == 500);
  const PersistentSet<std::int64_t> copy = set;
  for (std::int64_t i = 0; i < 500; i += 2) CHECK(set.Erase(i));
  CHECK_FALSE(set.Erase(0));
  CHECK(set.size() == 250);
  CHECK(copy.size() == 500);
  CHECK(copy.Contains(0));
  CHECK_FALSE(set.Contains(0));
}

}  // namespace
}  // namespace latchkey::catalog
