// What both audit chains have in common (rule A3): h_n = BLAKE2b-256(K_audit; h_(n-1), chain_id,
// seq, event), h_0 = zeros.
#pragma once

#include <string>
#include <string_view>

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

}  // namespace latchkey::audit
