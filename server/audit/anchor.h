// The anchor (rule G6): what the store had reached, kept in a file outside the database, so that an
// older copy of the store put in its place is noticed at start.
//
// The file is text, one `key value` per line, and ends with a MAC under K_audit; docs/formats.md
// has an example.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "common/model/ids.h"
#include "server/audit/chain.h"

namespace latchkey::audit {

struct Anchor {
  crypto::StoreId store_id{};
  Generation generation;
  ChainHead store;
  std::string access_chain;  // "access:main"
  ChainHead access;
  friend bool operator==(const Anchor&, const Anchor&) = default;
};

std::string EncodeAnchor(const crypto::AuditKey& key, const Anchor& anchor);
// kCorrupt for anything that EncodeAnchor with this key would not have written.
Result<Anchor> DecodeAnchor(const crypto::AuditKey& key, std::string_view text);

// Replaces the file: temporary file beside it, fsync, rename, fsync of the directory. kUnavailable
// names the step.
Status WriteAnchor(const std::string& path, const crypto::AuditKey& key, const Anchor& anchor);
// nullopt when there is no file; kCorrupt when it is damaged or of another key.
Result<std::optional<Anchor>> ReadAnchor(const std::string& path, const crypto::AuditKey& key);

// What of the store must not lie behind the anchor. `hash_at` gives the hash of one record of the
// store chain, nullopt when there is none. Ok, or kConflict whose message says what is older and
// how to accept it.
struct StorePosition {
  crypto::StoreId store_id{};
  Generation generation;
  ChainHead head;
};
Status CheckAgainstAnchor(
    const Anchor& anchor, const StorePosition& store,
    const std::function<Result<std::optional<crypto::Hash>>(std::uint64_t seq)>& hash_at);

}  // namespace latchkey::audit
