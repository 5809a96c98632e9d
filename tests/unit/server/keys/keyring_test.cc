#include "server/keys/keyring.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <thread>

#include "keys_for_test.h"

namespace latchkey::keys {
namespace {

template <class T>
bool Is(const Result<T>& result, Errc code) {
  return !result.has_value() && result.error().code == code;
}

std::unique_ptr<Keyring> Reload(const NewKeyring& made, std::uint8_t store = 1,
                                std::uint8_t kek = 9) {
  auto loaded =
      Keyring::Load(crypto::StoreId{store}, kTestKekId, KekOf(kek), {&made.kek, 1}, made.rows);
  REQUIRE(loaded.has_value());
  return std::move(loaded).value();
}

TEST_CASE("The keyring of the golden vectors loads and holds the keys they name", "[keys]") {
  const auto records = tests::LoadVectors("keyring.txt");
  const auto keyring = VectorKeyring();
  for (const auto& record : records) {
    CAPTURE(record.name());
    const std::string key = HexLower(record.Hex("key"));
    const std::string purpose = record.Text("purpose");
    CHECK(record.Array<16>("store_id") == keyring->store_id());
    CHECK(record.Unsigned("kek_id") == keyring->kek_id());
    CHECK(HexLower(record.Hex("kcv")) == HexLower(records.front().Hex("kcv")));
    CHECK(HexLower(record.Hex("kek")) == HexLower(records.front().Hex("kek")));
    CHECK(HexLower(Bytes(record.Hex("wrapped")).subspan(6, 24)) == HexLower(record.Hex("nonce")));
    if (purpose == "audit") CHECK(HexLower(keyring->audit_key().bytes()) == key);
    if (purpose == "session") CHECK(HexLower(keyring->session_key().bytes()) == key);
    if (purpose == "state") CHECK(HexLower(keyring->state_key().bytes()) == key);
    if (purpose == "sum") {
      const auto sum = crypto::SumKey::FromBytes(record.Hex("key")).value();
      CHECK(keyring->Checksum({5}, AsBytes("x")) == crypto::ContentChecksum(sum, 5, AsBytes("x")));
    }
    if (purpose == "mac") {
      store::GrantRow row{.group = {1}, .secret = {2}, .created_at = 3};
      keyring->Sign(&row);
      const auto mac = crypto::MacKey::FromBytes(record.Hex("key")).value();
      CHECK(row.mac == crypto::Mac(mac, RowMessage(keyring->store_id(), row)));
    }
  }
  tests::CheckAllRead(records);
}

TEST_CASE("Versions of the golden vectors open", "[keys]") {
  const auto records = tests::LoadVectors("version.txt");
  const auto keyring = VectorKeyring();
  for (const auto& record : records) {
    CAPTURE(record.name());
    store::VersionInfo info;
    info.id = {record.Signed("version_id")};
    info.secret = {record.Signed("secret_id")};
    info.number = {1};
    info.created_at = record.Signed("created_at");
    info.created_by = record.Text("created_by");
    info.expiry = record.Signed("expiry");
    info.metadata = record.Text("metadata");
    info.checksum = record.Array<32>("checksum");
    const ByteVector content = record.Hex("content");
    info.size = content.size();
    keyring->Sign(&info);
    CHECK(keyring->Checksum(info.secret, content) == info.checksum);
    const auto opened = keyring->OpenVersion(info, record.Hex("sealed"), record.Hex("wrapped"));
    REQUIRE(opened.has_value());
    CHECK(HexLower(opened.value().bytes()) == HexLower(content));
    const auto dek = crypto::Dek::FromBytes(record.Hex("dek"));
    REQUIRE(dek.has_value());
  }
  tests::CheckAllRead(records);
}

TEST_CASE("A keyring that was made loads again with the same keys", "[keys]") {
  const NewKeyring made = FreshKeyring();
  CHECK(made.rows.size() == 5);
  CHECK(made.kek.kek_id == kTestKekId);
  CHECK(made.kek.active);
  CHECK(made.kek.created_at == 1700000000);
  const auto loaded = Reload(made);
  CHECK(crypto::EqualsConstantTime(loaded->audit_key().bytes(), made.keyring->audit_key().bytes()));
  const auto row = made.keyring->SealVersion(InfoFor(1, 2), AsBytes("content"));
  REQUIRE(row.has_value());
  const auto opened =
      loaded->OpenVersion(row.value().info, row.value().sealed, row.value().wrapped);
  REQUIRE(opened.has_value());
  CHECK(AsText(opened.value().bytes()) == "content");
  // Two stores never share a key.
  CHECK_FALSE(crypto::EqualsConstantTime(FreshKeyring().keyring->audit_key().bytes(),
                                         loaded->audit_key().bytes()));
}

TEST_CASE("The wrong key is refused by its check value and the message names its id", "[keys]") {
  const NewKeyring made = FreshKeyring();
  const auto wrong =
      Keyring::Load(crypto::StoreId{1}, kTestKekId, KekOf(10), {&made.kek, 1}, made.rows);
  REQUIRE(Is(wrong, Errc::kInvalidArgument));
  CHECK(wrong.error().message.find("key 7 ") != std::string::npos);
  // The same key for another store: the check value is bound to the store.
  CHECK(Is(Keyring::Load(crypto::StoreId{2}, kTestKekId, KekOf(9), {&made.kek, 1}, made.rows),
           Errc::kInvalidArgument));
  const auto unknown = Keyring::Load(crypto::StoreId{1}, 8, KekOf(9), {&made.kek, 1}, made.rows);
  REQUIRE(Is(unknown, Errc::kNotFound));
  CHECK(unknown.error().message.find("key 8:") != std::string::npos);
  CHECK(
      Is(Keyring::Load(crypto::StoreId{1}, kTestKekId, KekOf(9), {}, made.rows), Errc::kNotFound));
}

TEST_CASE("A keyring with a missing, doubled, exchanged, foreign or damaged key is refused",
          "[keys]") {
  const NewKeyring made = FreshKeyring();
  const auto load = [&](const std::vector<store::KeyringRow>& rows) {
    return Keyring::Load(crypto::StoreId{1}, kTestKekId, KekOf(9), {&made.kek, 1}, rows);
  };
  for (std::size_t i = 0; i < made.rows.size(); ++i) {
    CAPTURE(made.rows[i].purpose);
    auto rows = made.rows;
    rows.erase(rows.begin() + static_cast<std::ptrdiff_t>(i));
    CHECK(Is(load(rows), Errc::kCorrupt));
    rows.push_back(rows.front());
    CHECK(Is(load(rows), Errc::kCorrupt));
    rows = made.rows;
    std::swap(rows[i].wrapped, rows[(i + 1) % rows.size()].wrapped);  // bound to its purpose
    CHECK(Is(load(rows), Errc::kCorrupt));
    rows = made.rows;
    rows[i].kek_id = 8;
    CHECK(Is(load(rows), Errc::kCorrupt));
    rows = made.rows;
    rows[i].wrapped.back() = static_cast<std::uint8_t>(rows[i].wrapped.back() ^ 1);
    CHECK(Is(load(rows), Errc::kCorrupt));
    rows = made.rows;
    rows[i].purpose = "other";
    CHECK(Is(load(rows), Errc::kCorrupt));
  }
  auto reversed = made.rows;
  std::reverse(reversed.begin(), reversed.end());
  CHECK(load(reversed).has_value());
}

TEST_CASE("A sealed version opens with its own row, cached or not", "[keys]") {
  const auto size = GENERATE(as<std::size_t>{}, 0, 1, 1024, 100000);
  CAPTURE(size);
  const NewKeyring made = FreshKeyring();
  const ByteVector content(size, 0x5a);
  const auto row = made.keyring->SealVersion(InfoFor(1, 2), content);
  REQUIRE(row.has_value());
  const auto& [info, sealed, wrapped] = row.value();
  CHECK(info.size == size);
  CHECK(info.checksum == made.keyring->Checksum({1}, content));
  CHECK(made.keyring->Verify(info).has_value());
  CHECK(wrapped.size() == crypto::kWrappedKeyBytes);
  for (int i = 0; i < 3; ++i) {
    if (i == 2) made.keyring->ForgetDek(info.id);
    auto out = SecretBuffer::OfSize(size + 5);
    REQUIRE(out.has_value());
    const auto opened =
        made.keyring->OpenVersionInto(info, sealed, wrapped, out.value().mutable_bytes());
    REQUIRE(opened.has_value());
    CHECK(opened.value() == size);
    CHECK(crypto::EqualsConstantTime(out.value().bytes().first(size), content));
  }
  if (size > 0) {
    ByteVector small(size - 1);
    CHECK(Is(made.keyring->OpenVersionInto(info, sealed, wrapped, small), Errc::kTooLarge));
  }
}

TEST_CASE(
    "Content moved to another row, secret, store or metadata does not open, even by a store's own "
    "signature",
    "[keys]") {
  const NewKeyring made = FreshKeyring();
  const Keyring& keyring = *made.keyring;
  const store::VersionRow row = keyring.SealVersion(InfoFor(1, 2), AsBytes("content")).value();
  const bool cached = GENERATE(false, true);
  CAPTURE(cached);
  if (cached) REQUIRE(keyring.OpenVersion(row.info, row.sealed, row.wrapped).has_value());
  const auto opens = [&](auto change) {
    store::VersionInfo info = row.info;
    change(&info);
    // Unsigned, the MAC refuses; signed anew, the seal must refuse by itself (rule C5).
    const bool unsigned_opens = keyring.OpenVersion(info, row.sealed, row.wrapped).has_value();
    keyring.Sign(&info);
    const auto opened = keyring.OpenVersion(info, row.sealed, row.wrapped);
    if (!opened.has_value()) CHECK(opened.error().code == Errc::kCorrupt);
    return unsigned_opens || opened.has_value();
  };
  CHECK_FALSE(opens([](auto* info) { info->id.value = 3; }));
  CHECK_FALSE(opens([](auto* info) { info->secret.value = 3; }));
  CHECK_FALSE(opens([](auto* info) { info->created_at += 1; }));
  CHECK_FALSE(opens([](auto* info) { info->created_by = "deploy2"; }));
  CHECK_FALSE(opens([](auto* info) { info->created_by = ""; }));
  CHECK_FALSE(opens([](auto* info) { info->expiry = 0; }));
  CHECK_FALSE(opens([](auto* info) { info->metadata = R"({"mode":"0444"})"; }));
  CHECK_FALSE(opens([](auto* info) { info->checksum[0] ^= 1; }));
  CHECK_FALSE(opens([](auto* info) { info->size += 1; }));
  CHECK_FALSE(opens([](auto* info) { info->size = UINT64_MAX; }));
  CHECK(opens([](auto*) {}));
}

TEST_CASE("A version whose row MAC does not match is not opened, though its seal would open",
          "[keys]") {
  const NewKeyring made = FreshKeyring();
  const store::VersionRow row =
      made.keyring->SealVersion(InfoFor(1, 2), AsBytes("content")).value();
  store::VersionInfo renumbered = row.info;  // the number is outside the seal
  renumbered.number.value += 1;
  CHECK(Is(made.keyring->OpenVersion(renumbered, row.sealed, row.wrapped), Errc::kCorrupt));
  store::VersionInfo unsigned_row = row.info;
  unsigned_row.mac = {};
  CHECK(Is(made.keyring->OpenVersion(unsigned_row, row.sealed, row.wrapped), Errc::kCorrupt));
  ByteVector out(7);
  CHECK(
      Is(made.keyring->OpenVersionInto(renumbered, row.sealed, row.wrapped, out), Errc::kCorrupt));
  CHECK(out == ByteVector(7));
}

TEST_CASE("Exchanged contents and keys of two versions do not open", "[keys]") {
  const NewKeyring made = FreshKeyring();
  const Keyring& keyring = *made.keyring;
  const store::VersionRow a = keyring.SealVersion(InfoFor(1, 2), AsBytes("content")).value();
  const store::VersionRow b = keyring.SealVersion(InfoFor(1, 3), AsBytes("content")).value();
  for (int round = 0; round < 2; ++round) {  // without and with cached keys
    CHECK(Is(keyring.OpenVersion(a.info, b.sealed, b.wrapped), Errc::kCorrupt));
    CHECK(Is(keyring.OpenVersion(a.info, a.sealed, b.wrapped), Errc::kCorrupt));
    CHECK(Is(keyring.OpenVersion(a.info, b.sealed, a.wrapped), Errc::kCorrupt));
    CHECK(keyring.OpenVersion(a.info, a.sealed, a.wrapped).has_value());
    CHECK(keyring.OpenVersion(b.info, b.sealed, b.wrapped).has_value());
  }
}

TEST_CASE("A wrapped key that names another key is refused without trying it", "[keys]") {
  const NewKeyring made = FreshKeyring();
  store::VersionRow row = made.keyring->SealVersion(InfoFor(1, 2), AsBytes("content")).value();
  REQUIRE(made.keyring->OpenVersion(row.info, row.sealed, row.wrapped).has_value());
  row.wrapped[5] = 8;
  const auto refused = made.keyring->OpenVersion(row.info, row.sealed, row.wrapped);
  REQUIRE(Is(refused, Errc::kCorrupt));
  CHECK(refused.error().message.find("names key 8, not key 7") != std::string::npos);
}

TEST_CASE("A version sealed anew under the same id opens although its old key was cached",
          "[keys]") {
  const NewKeyring made = FreshKeyring();
  const store::VersionRow old = made.keyring->SealVersion(InfoFor(1, 2), AsBytes("old")).value();
  REQUIRE(made.keyring->OpenVersion(old.info, old.sealed, old.wrapped).has_value());
  store::VersionInfo changed = InfoFor(1, 2);
  changed.metadata = "{}";
  const store::VersionRow fresh = made.keyring->SealVersion(changed, AsBytes("old")).value();
  CHECK(fresh.sealed != old.sealed);
  for (int i = 0; i < 2; ++i) {
    CHECK(made.keyring->OpenVersion(fresh.info, fresh.sealed, fresh.wrapped).has_value());
    CHECK(made.keyring->OpenVersion(old.info, old.sealed, old.wrapped).has_value());
  }
}

TEST_CASE("Content over the hard limit is refused by size", "[keys]") {
  const NewKeyring made = FreshKeyring();
  CHECK(Is(made.keyring->SealVersion(InfoFor(1, 2), ByteVector(8 * 1024 * 1024 + 1)),
           Errc::kTooLarge));
}

TEST_CASE("Settings carry a MAC that binds name, value and store", "[keys]") {
  const auto keyring = FreshKeyring().keyring;
  const ByteVector stored = keyring->SignSetting("a", AsBytes("value"));
  CHECK(stored.size() == 5 + 32);
  const auto value = keyring->OpenSetting("a", stored);
  REQUIRE(value.has_value());
  CHECK(AsText(value.value()) == "value");
  CHECK(Is(keyring->OpenSetting("b", stored), Errc::kCorrupt));
  CHECK(Is(FreshKeyring(2).keyring->OpenSetting("a", stored), Errc::kCorrupt));
  for (std::size_t i = 0; i < stored.size(); ++i) {
    ByteVector changed = stored;
    changed[i] ^= 1;
    CHECK(Is(keyring->OpenSetting("a", changed), Errc::kCorrupt));
    CHECK(Is(keyring->OpenSetting("a", Bytes(stored).first(i)), Errc::kCorrupt));
  }
}

TEST_CASE("Many threads seal and open at once", "[keys]") {
  const NewKeyring made = FreshKeyring();
  std::vector<store::VersionRow> rows;
  for (std::int64_t i = 1; i <= 50; ++i) {
    rows.push_back(
        made.keyring->SealVersion(InfoFor(i, i), AsBytes("content " + std::to_string(i))).value());
  }
  std::atomic<int> wrong{0};
  {
    std::vector<std::jthread> threads;
    for (std::size_t t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        for (std::size_t i = 0; i < 400; ++i) {
          const store::VersionRow& row = rows[(i * 7 + t) % rows.size()];
          const auto opened = made.keyring->OpenVersion(row.info, row.sealed, row.wrapped);
          const std::string expected = "content " + std::to_string(row.info.id.value);
          if (!opened.has_value() || AsText(opened.value().bytes()) != expected) ++wrong;
          if (i % 10 == t) made.keyring->ForgetDek(row.info.id);
        }
      });
    }
  }
  CHECK(wrong == 0);
}

}  // namespace
}  // namespace latchkey::keys
