// The store of the golden vectors, and a fresh one, for the tests of this folder.
#pragma once

#include <catch2/catch.hpp>

#include "server/keys/keyring.h"
#include "tests/support/vectors.h"

namespace latchkey::keys {

inline constexpr std::uint32_t kTestKekId = 7;

inline crypto::Kek CopyOf(const crypto::Kek& kek) {
  return crypto::Kek::FromBytes(kek.bytes()).value();
}
inline crypto::Kek KekOf(std::uint8_t fill) {
  return crypto::Kek::FromBytes(ByteVector(32, fill)).value();
}

inline NewKeyring FreshKeyring(std::uint8_t store = 1, std::uint8_t kek = 9) {
  auto made = Keyring::Create(crypto::StoreId{store}, kTestKekId, KekOf(kek), 1700000000);
  REQUIRE(made.has_value());
  return std::move(made).value();
}

inline std::unique_ptr<Keyring> VectorKeyring() {
  const auto records = tests::LoadVectors("keyring.txt");
  std::vector<store::KeyringRow> rows;
  for (const auto& record : records) {
    rows.push_back({record.Text("purpose"), static_cast<std::uint32_t>(record.Unsigned("kek_id")),
                    record.Hex("wrapped")});
  }
  const store::KekRow kek{rows.front().kek_id, records.front().Array<16>("kcv"), 0, true};
  auto loaded =
      Keyring::Load(records.front().Array<16>("store_id"), kek.kek_id,
                    crypto::Kek::FromBytes(records.front().Hex("kek")).value(), {&kek, 1}, rows);
  REQUIRE(loaded.has_value());
  return std::move(loaded).value();
}

inline store::VersionInfo InfoFor(std::int64_t secret, std::int64_t version) {
  store::VersionInfo info;
  info.id = {version};
  info.secret = {secret};
  info.number = {3};
  info.created_at = 1700000000;
  info.created_by = "deploy";
  info.metadata = R"({"mode":"0440"})";
  info.expiry = 1800000000;
  return info;
}

}  // namespace latchkey::keys
