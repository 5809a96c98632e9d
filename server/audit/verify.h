// Verification of audit chains end to end (rule A3): edit, removal, reorder, duplication and
// truncation are found, and the report names chain and position.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "server/audit/anchor.h"
#include "server/audit/chain.h"
#include "server/audit/event.h"

namespace latchkey::audit {

struct Damage {
  std::string chain;
  std::uint64_t seq = 0;  // the first record that is wrong
  std::string what;       // one line, for people
};

// Heads of one chain that others vouch for: seq -> hash, and who says so.
struct ExpectedHead {
  crypto::Hash hash{};
  std::string source;  // "the anchor", "record 17 of access:main"
};
using ExpectedHeads = std::map<std::uint64_t, ExpectedHead>;

// Fed with the records of one chain in stored order. Not thread-safe.
class ChainVerifier {
 public:
  ChainVerifier(const crypto::AuditKey& key, std::string chain_id, ExpectedHeads expected);

  // False when the chain cannot be followed further: damage() says where.
  bool Add(std::uint64_t seq, Bytes event, Bytes hash);
  // Call once at the end: finds truncation.
  void Finish();

  const std::vector<Damage>& damage() const { return damage_; }
  ChainHead head() const { return head_; }
  std::uint64_t records() const { return records_; }
  // What this chain says about `other`, after taking back what a rollback.accepted made void.
  const ExpectedHeads& RecordedHeads(const std::string& other) const;

 private:
  bool Break(std::uint64_t seq, std::string what);
  void Record(std::uint64_t seq, Bytes event);

  const crypto::AuditKey& key_;
  std::string chain_id_;
  ExpectedHeads expected_;
  ChainHead head_;
  std::uint64_t records_ = 0;
  bool broken_ = false;
  std::map<std::string, ExpectedHeads> recorded_;
  std::vector<Damage> damage_;
};

// Reads the spool in `directories` (archived segments first) without locking it, also beside a
// running server, and feeds every record to `add` until that returns false. Damage of the files
// themselves (missing segment, bad header, torn record) is returned; it names chain and position.
using AddRecord = std::function<bool(std::uint64_t seq, Bytes event, Bytes hash)>;
Result<std::vector<Damage>> ReadSpool(const std::vector<std::string>& directories,
                                      const std::string& chain_id, const AddRecord& add);

}  // namespace latchkey::audit
