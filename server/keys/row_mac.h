// What the MAC of each row covers (rule G1): `lk/v1/row/<table>`, store_id, then the columns in the
// order below.
//
// One description per table feeds both the encoding and the list of names, so that they cannot
// differ; a test compares the list with the schema. docs/formats.md, "Row MACs".
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/crypto/crypto.h"
#include "server/store/rows.h"

namespace latchkey::keys {

crypto::Canonical RowMessage(const crypto::StoreId& store_id, const store::ClientRow& row);
crypto::Canonical RowMessage(const crypto::StoreId& store_id, const store::GroupRow& row);
crypto::Canonical RowMessage(const crypto::StoreId& store_id, const store::MembershipRow& row);
crypto::Canonical RowMessage(const crypto::StoreId& store_id, const store::GrantRow& row);
crypto::Canonical RowMessage(const crypto::StoreId& store_id, const store::SecretRow& row);
crypto::Canonical RowMessage(const crypto::StoreId& store_id, const store::VersionInfo& row);

// How messages name a row: "client 17", "grant of secret 5 to group 3". Ids only.
std::string RowName(const store::ClientRow& row);
std::string RowName(const store::GroupRow& row);
std::string RowName(const store::MembershipRow& row);
std::string RowName(const store::GrantRow& row);
std::string RowName(const store::SecretRow& row);
std::string RowName(const store::VersionInfo& row);

// Tables with a MAC in each row.
std::span<const std::string_view> MacTables();
// Names of the columns that the MAC of a table covers, in the order of the encoding; empty for a
// table without one.
std::vector<std::string> MacColumns(std::string_view table);
// Columns of such a table that are left out on purpose: the MAC itself and bookkeeping that
// authorises nothing.
std::vector<std::string> MacExemptColumns(std::string_view table);

}  // namespace latchkey::keys
