// What both audit chains have in common (rule A3): h_n = BLAKE2b-256(K_audit; h_(n-1), chain_id,
// seq, event), h_0 = zeros.
#pragma once

#include <string>
#include <string_view>

#include "common/base/result.h"
#include "common/crypto/crypto.h"

namespace latchkey::audit {

inline constexpr std::string_view kStoreChainId = "store";
inline std::string AccessChainId(std::string_view server_id) {
  return std::string("access:").append(server_id);
}

// Position of a chain: its last record. seq 0 with a zero hash is the empty chain; records are
// numbered from 1.
struct ChainHead {
  std::uint64_t seq = 0;
  crypto::Hash hash{};
  friend bool operator==(const ChainHead&, const ChainHead&) = default;
};

// One record as it is stored, behind the record whose hash is `before`. What somebody wrote who has
// not got the key, or moved, is not continued by it.
inline bool IsLinked(const crypto::AuditKey& key, std::string_view chain_id,
                     const crypto::Hash& before, std::uint64_t seq, Bytes event, Bytes hash) {
  return crypto::EqualsConstantTime(crypto::ChainHash(key, before, chain_id, seq, event), hash);
}

// What a reader of the chain says instead of showing such a record.
inline Error RecordIsDamaged(std::string_view chain_id, std::uint64_t seq) {
  return Error{Errc::kCorrupt, "record " + std::to_string(seq) + " of the audit chain " +
                                   std::string(chain_id) +
                                   " is not the one that was written; run latchkeyd check"};
}

}  // namespace latchkey::audit
