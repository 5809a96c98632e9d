// PersistentMap and PersistentSet: ordered maps whose copies share structure. Copying costs one
// reference count; a change copies the path to the changed leaf (O(log n), some hundred bytes) and
// leaves all other copies as they were.
//
// A B+ tree of immutable nodes, each allocated for exactly what it holds: a set of ids costs
// about 8.5 bytes a member. Reading one map from many threads is safe; changing one needs it to
// oneself. Pointers to values live as long as the map (or any copy made before the change that
// replaced them).
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <utility>
#include <vector>

#include "common/base/check.h"

namespace latchkey::catalog {

template <class K, class V>
class PersistentMap {
 public:
  struct Entry {
    K key;
    [[no_unique_address]] V value;
  };

  PersistentMap() = default;

  // Builds from entries in strictly ascending order of their keys in O(n): the cold start.
  static PersistentMap FromSorted(std::span<const Entry> entries) {
    PersistentMap map;
    map.size_ = entries.size();
    if (entries.empty()) return map;
    std::vector<Child> level;
    ForEachRun(entries, [&level](std::span<const Entry> run) {
      for (std::size_t i = 1; i < run.size(); ++i) INVARIANT(run[i - 1].key < run[i].key);
      INVARIANT(level.empty() || LastKey(*level.back().node.template As<Entry>()) < run[0].key);
      level.push_back({run[0].key, Ref::template Make<Entry>(run)});
    });
    while (level.size() > 1) {
      std::vector<Child> above;
      ForEachRun(std::span<const Child>(level), [&above](std::span<const Child> run) {
        above.push_back({run[0].least, Ref::template Make<Child>(run)});
      });
      level = std::move(above);
    }
    map.root_ = level[0].node;
    return map;
  }

  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }

  // Null when absent.
  const V* Find(const K& key) const {
    if (!root_) return nullptr;
    const Ref* at = &root_;
    while (!at->leaf()) {
      const auto children = at->template As<Child>()->items();
      at = &children[ChildFor(children, key)].node;
    }
    const auto entries = at->template As<Entry>()->items();
    const std::size_t index = LowerBound(entries, key);
    return index < entries.size() && !(key < entries[index].key) ? &entries[index].value : nullptr;
  }
  bool Contains(const K& key) const { return Find(key) != nullptr; }

  // Inserts, or replaces the value of an equal key.
  void Set(K key, V value) {
    const Entry entry{std::move(key), std::move(value)};
    if (!root_) {
      root_ = Ref::template Make<Entry>(std::span(&entry, 1));
      size_ = 1;
      return;
    }
    Grown grown = SetIn(root_, entry);
    size_ += grown.added ? 1 : 0;
    if (!grown.second) {
      root_ = std::move(grown.first);
      return;
    }
    const Child children[] = {{LeastOf(grown.first), grown.first},
                              {LeastOf(grown.second), grown.second}};
    root_ = Ref::template Make<Child>(std::span<const Child>(children));
  }

  // False, and nothing changed, when the key is absent.
  bool Erase(const K& key) {
    if (!Contains(key)) return false;
    root_ = EraseIn(root_, key);
    --size_;
    while (root_ && !root_.leaf() && root_.template As<Child>()->items().size() == 1) {
      root_ = Ref(root_.template As<Child>()->items()[0].node);
    }
    return true;
  }

  // Walks in ascending order, optionally from the first key >= `from`; `visit(key, value)` returns
  // false to stop. False when stopped.
  template <class Visit>
  bool ForEach(const Visit& visit) const {
    return !root_ || Walk(root_, nullptr, visit);
  }
  template <class Visit>
  bool ForEachFrom(const K& from, const Visit& visit) const {
    return !root_ || Walk(root_, &from, visit);
  }

 private:
  static constexpr std::size_t kMaxItems = 64;
  static constexpr std::size_t kMinItems = 16;

  struct Header {
    mutable std::atomic<std::uint32_t> references{1};
    std::uint16_t count = 0;
    bool leaf = false;
  };
  // The items stand behind the header, in the same allocation.
  template <class Item>
  struct Node {
    Header header;
    static constexpr std::size_t kItemsAt =
        (sizeof(Header) + alignof(Item) - 1) / alignof(Item) * alignof(Item);
    const Item* data() const {
      return std::launder(
          reinterpret_cast<const Item*>(reinterpret_cast<const std::byte*>(this) + kItemsAt));
    }
    std::span<const Item> items() const { return {data(), header.count}; }
  };

  class Ref;
  struct Child;

  class Ref {
   public:
    Ref() = default;
    Ref(const Ref& other) noexcept : header_(other.header_) {
      if (header_ != nullptr) header_->references.fetch_add(1, std::memory_order_relaxed);
    }
    Ref(Ref&& other) noexcept : header_(std::exchange(other.header_, nullptr)) {}
    Ref& operator=(Ref other) noexcept {
      std::swap(header_, other.header_);
      return *this;
    }
    ~Ref() {
      if (header_ == nullptr) return;
      if (header_->references.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
      if (header_->leaf) {
        Destroy<Entry>();
      } else {
        Destroy<Child>();
      }
    }

    // A node of the items of up to three runs, in order.
    template <class Item>
    static Ref Make(std::span<const Item> a, std::span<const Item> b = {},
                    std::span<const Item> c = {}) {
      const std::size_t count = a.size() + b.size() + c.size();
      INVARIANT(count >= 1 && count <= kMaxItems);
      static_assert(alignof(Item) <= __STDCPP_DEFAULT_NEW_ALIGNMENT__);
      void* memory = ::operator new(Node<Item>::kItemsAt + count * sizeof(Item));
      auto* node = ::new (memory) Node<Item>;
      node->header.count = static_cast<std::uint16_t>(count);
      node->header.leaf = std::is_same_v<Item, Entry>;
      auto* out = reinterpret_cast<Item*>(static_cast<std::byte*>(memory) + Node<Item>::kItemsAt);
      for (const auto run : {a, b, c}) out = std::uninitialized_copy(run.begin(), run.end(), out);
      return Ref(&node->header);
    }

    explicit operator bool() const { return header_ != nullptr; }
    bool leaf() const { return header_->leaf; }
    template <class Item>
    const Node<Item>* As() const {
      return reinterpret_cast<const Node<Item>*>(header_);
    }

   private:
    explicit Ref(const Header* adopted) : header_(adopted) {}

    template <class Item>
    void Destroy() noexcept {
      const Node<Item>* node = As<Item>();
      std::destroy_n(node->data(), node->header.count);
      node->~Node<Item>();
      ::operator delete(const_cast<void*>(static_cast<const void*>(node)));
    }

    const Header* header_ = nullptr;
  };

  // `least` is at most the smallest key below `node`, and above every key of the child before.
  struct Child {
    K least;
    Ref node;
  };
  struct Grown {
    Ref first;
    Ref second;  // null unless the node was split
    bool added = false;
  };

  template <class Item, class Use>
  static void ForEachRun(std::span<const Item> items, const Use& use) {
    // Even runs, so that the last node is not a scrap: at most kMaxItems each, three quarters full.
    constexpr std::size_t kRun = kMaxItems * 3 / 4;
    const std::size_t runs = (items.size() + kRun - 1) / kRun;
    for (std::size_t i = 0; i < runs; ++i) {
      const std::size_t begin = items.size() * i / runs;
      use(items.subspan(begin, items.size() * (i + 1) / runs - begin));
    }
  }

  static const K& LastKey(const Node<Entry>& leaf) { return leaf.items().back().key; }

  static const K& LeastOf(const Ref& node) {
    return node.leaf() ? node.template As<Entry>()->items()[0].key
                       : node.template As<Child>()->items()[0].least;
  }

  static std::size_t LowerBound(std::span<const Entry> entries, const K& key) {
    const auto at = std::lower_bound(entries.begin(), entries.end(), key,
                                     [](const Entry& entry, const K& k) { return entry.key < k; });
    return static_cast<std::size_t>(at - entries.begin());
  }
  // The last child whose `least` is not above the key; the first one for keys below all.
  static std::size_t ChildFor(std::span<const Child> children, const K& key) {
    const auto at =
        std::upper_bound(children.begin() + 1, children.end(), key,
                         [](const K& k, const Child& child) { return k < child.least; });
    return static_cast<std::size_t>(at - children.begin()) - 1;
  }

  // Items [0, index) + middle + items [index + skip, end) as one node, or as two when they are too
  // many.
  template <class Item>
  static Grown Splice(std::span<const Item> items, std::size_t index, std::size_t skip,
                      std::span<const Item> middle) {
    const auto before = items.first(index);
    const auto after = items.subspan(index + skip);
    if (before.size() + middle.size() + after.size() <= kMaxItems) {
      return {Ref::template Make<Item>(before, middle, after), Ref(), false};
    }
    std::vector<Item> all(before.begin(), before.end());
    all.insert(all.end(), middle.begin(), middle.end());
    all.insert(all.end(), after.begin(), after.end());
    const std::span<const Item> whole(all);
    const std::size_t half = whole.size() / 2;
    return {Ref::template Make<Item>(whole.first(half)),
            Ref::template Make<Item>(whole.subspan(half)), false};
  }

  static Grown SetIn(const Ref& node, const Entry& entry) {
    if (node.leaf()) {
      const auto entries = node.template As<Entry>()->items();
      const std::size_t index = LowerBound(entries, entry.key);
      const bool found = index < entries.size() && !(entry.key < entries[index].key);
      Grown grown = Splice<Entry>(entries, index, found ? 1 : 0, std::span(&entry, 1));
      grown.added = !found;
      return grown;
    }
    const auto children = node.template As<Child>()->items();
    const std::size_t index = ChildFor(children, entry.key);
    Grown below = SetIn(children[index].node, entry);
    const bool split = static_cast<bool>(below.second);
    const Child middle[] = {{std::min(children[index].least, entry.key), std::move(below.first)},
                            {split ? LeastOf(below.second) : children[index].least, below.second}};
    Grown grown = Splice<Child>(children, index, 1, std::span(middle, split ? 2 : 1));
    grown.added = below.added;
    return grown;
  }

  // The node without the key, which is present; null when nothing is left.
  static Ref EraseIn(const Ref& node, const K& key) {
    if (node.leaf()) {
      const auto entries = node.template As<Entry>()->items();
      if (entries.size() == 1) return Ref();
      return Splice<Entry>(entries, LowerBound(entries, key), 1, {}).first;
    }
    const auto children = node.template As<Child>()->items();
    const std::size_t index = ChildFor(children, key);
    Ref below = EraseIn(children[index].node, key);
    if (!below) {
      if (children.size() == 1) return Ref();
      return Splice<Child>(children, index, 1, {}).first;
    }
    const std::size_t left = index > 0 ? index - 1 : 0;
    if (CountOf(below) < kMinItems && children.size() > 1) {
      const Ref& first = index > 0 ? children[left].node : below;
      const Ref& second = index > 0 ? below : children[1].node;
      if (CountOf(first) + CountOf(second) <= kMaxItems) {
        const Child merged{children[left].least, Join(first, second)};
        return Splice<Child>(children, left, 2, std::span(&merged, 1)).first;
      }
    }
    const Child changed{children[index].least, std::move(below)};
    return Splice<Child>(children, index, 1, std::span(&changed, 1)).first;
  }

  static std::size_t CountOf(const Ref& node) {
    return node.leaf() ? node.template As<Entry>()->items().size()
                       : node.template As<Child>()->items().size();
  }
  static Ref Join(const Ref& a, const Ref& b) {
    if (a.leaf()) {
      return Ref::template Make<Entry>(a.template As<Entry>()->items(),
                                       b.template As<Entry>()->items());
    }
    return Ref::template Make<Child>(a.template As<Child>()->items(),
                                     b.template As<Child>()->items());
  }

  template <class Visit>
  static bool Walk(const Ref& node, const K* from, const Visit& visit) {
    if (node.leaf()) {
      const auto entries = node.template As<Entry>()->items();
      for (std::size_t i = from ? LowerBound(entries, *from) : 0; i < entries.size(); ++i) {
        if (!visit(entries[i].key, entries[i].value)) return false;
      }
      return true;
    }
    const auto children = node.template As<Child>()->items();
    const std::size_t first = from ? ChildFor(children, *from) : 0;
    for (std::size_t i = first; i < children.size(); ++i) {
      if (!Walk(children[i].node, i == first ? from : nullptr, visit)) return false;
    }
    return true;
  }

  Ref root_;
  std::size_t size_ = 0;
};

// The same for keys alone.
template <class K>
class PersistentSet {
 public:
  // `keys` strictly ascending.
  static PersistentSet FromSorted(std::span<const K> keys) {
    std::vector<typename Map::Entry> entries;
    entries.reserve(keys.size());
    for (const K& key : keys) entries.push_back({key, {}});
    PersistentSet set;
    set.map_ = Map::FromSorted(entries);
    return set;
  }

  std::size_t size() const { return map_.size(); }
  bool empty() const { return map_.empty(); }
  bool Contains(const K& key) const { return map_.Contains(key); }
  // False when it was there already.
  bool Add(const K& key) {
    if (Contains(key)) return false;
    map_.Set(key, {});
    return true;
  }
  bool Erase(const K& key) { return map_.Erase(key); }
  // Ascending; `visit(key)` returns false to stop.
  template <class Visit>
  bool ForEach(const Visit& visit) const {
    return map_.ForEach([&visit](const K& key, const auto&) { return visit(key); });
  }

 private:
  struct Nothing {};
  using Map = PersistentMap<K, Nothing>;
  Map map_;
};

}  // namespace latchkey::catalog
