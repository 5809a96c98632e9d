// The keyring as the catalog's loader wants it: verifies each row's MAC (rules G1, G2).
#pragma once

#include "server/catalog/catalog.h"
#include "server/keys/keyring.h"

namespace latchkey::service {

// Thread-safe. The keyring outlives it.
class CatalogVerifier final : public catalog::RowVerifier {
 public:
  explicit CatalogVerifier(const keys::Keyring& keys) : keys_(keys) {}
  bool Verify(const store::ClientRow& row) const override { return keys_.Verify(row).has_value(); }
  bool Verify(const store::GroupRow& row) const override { return keys_.Verify(row).has_value(); }
  bool Verify(const store::MembershipRow& row) const override {
    return keys_.Verify(row).has_value();
  }
  bool Verify(const store::GrantRow& row) const override { return keys_.Verify(row).has_value(); }
  bool Verify(const store::SecretRow& row) const override { return keys_.Verify(row).has_value(); }
  bool Verify(const store::VersionInfo& row) const override {
    return keys_.Verify(row).has_value();
  }

 private:
  const keys::Keyring& keys_;
};

}  // namespace latchkey::service
