#include "server/audit/verify.h"

#include <fcntl.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <map>
#include <span>
#include <thread>

#include "common/base/unique_fd.h"
#include "server/audit/spool.h"

namespace latchkey::audit {
namespace {

constexpr int kSettleRounds = 50;
constexpr std::chrono::milliseconds kSettlePause{20};

struct Segment {
  std::uint32_t ordinal = 0;
  std::vector<std::string> copies;  // paths; one, unless an archive holds it too
};

Result<std::vector<Segment>> FindSegments(const std::vector<std::string>& directories) {
  std::map<std::uint32_t, Segment> found;
  for (const std::string& directory : directories) {
    ASSIGN_OR_RETURN(const std::vector<std::uint32_t> ordinals, spool::ListSegments(directory));
    for (const std::uint32_t ordinal : ordinals) {
      found[ordinal].ordinal = ordinal;
      found[ordinal].copies.push_back(directory + "/" + spool::SegmentName(ordinal));
    }
  }
  std::vector<Segment> segments;
  for (auto& [ordinal, segment] : found) segments.push_back(std::move(segment));
  return segments;
}

Result<bool> IsBegun(const Segment& segment) {
  for (const std::string& path : segment.copies) {
    ASSIGN_OR_RETURN(const UniqueFd fd, spool::OpenSegment(path, O_RDONLY));
    std::array<std::uint8_t, spool::kHeaderBytes> head{};
    if (::pread(fd.get(), head.data(), head.size(), 0) < 0)
      return Error{Errc::kUnavailable, "cannot read " + path};
    if (spool::UsedBytes(head) != 0) return true;
  }
  return false;
}

// Offset behind the last whole record that both reads of a segment show alike.
std::size_t SettledEnd(Bytes first, Bytes second) {
  std::size_t at = std::min<std::size_t>(spool::kHeaderBytes, second.size());
  spool::Record record;
  while (spool::ReadRecord(second, at, &record) == spool::RecordState::kRecord &&
         record.end <= first.size() &&
         std::equal(second.begin() + static_cast<std::ptrdiff_t>(at),
                    second.begin() + static_cast<std::ptrdiff_t>(record.end),
                    first.begin() + static_cast<std::ptrdiff_t>(at))) {
    at = record.end;
  }
  return at;
}

// A writer that lost its processor in the middle of a record leaves the end of it zero. One record
// in 256 ends in a zero
// byte of its own, which costs a pause and no more.
bool MayBeUnfinished(Bytes segment) {
  std::size_t at = spool::kHeaderBytes;
  spool::Record record;
  spool::RecordState state;
  while ((state = spool::ReadRecord(segment, at, &record)) == spool::RecordState::kRecord)
    at = record.end;
  return state == spool::RecordState::kTorn || (at > spool::kHeaderBytes && segment[at - 1] == 0);
}

// Beside a running server the last record may be half written, but appends never change what is
// before them. So the segment is read twice: where the reads differ behind a whole record, what
// follows is work in progress and left out; damage is what stays.
Result<ByteVector> ReadSettled(const std::string& path) {
  ASSIGN_OR_RETURN(ByteVector first, spool::ReadWhole(path));
  for (int round = 0;; ++round) {
    ASSIGN_OR_RETURN(ByteVector second, spool::ReadWhole(path));
    if (first == second) {
      if (round == kSettleRounds || !MayBeUnfinished(second)) return second;
    } else {
      const std::size_t settled = SettledEnd(first, second);
      spool::Record record;
      if (spool::ReadRecord(second, settled, &record) != spool::RecordState::kTorn ||
          round == kSettleRounds) {
        std::fill(second.begin() + static_cast<std::ptrdiff_t>(settled), second.end(),
                  std::uint8_t{0});
        return second;
      }
    }
    first = std::move(second);
    std::this_thread::sleep_for(kSettlePause);
  }
}

// The longest of the copies. One that was made while the segment grew may end early; `odd_one` is
// set to one that says something else, for neither may hide what was done to the other.
Result<ByteVector> ReadCopies(const Segment& segment, std::string* odd_one) {
  ByteVector longest;
  std::size_t longest_bytes = 0;
  for (const std::string& path : segment.copies) {
    ASSIGN_OR_RETURN(ByteVector bytes, ReadSettled(path));
    const std::size_t used = spool::UsedBytes(bytes);
    const auto common = static_cast<std::ptrdiff_t>(std::min(used, longest_bytes));
    if (!std::equal(bytes.begin(), bytes.begin() + common, longest.begin())) *odd_one = path;
    if (used < longest_bytes) continue;
    longest_bytes = used;
    longest = std::move(bytes);
  }
  return longest;
}

}  // namespace

ChainVerifier::ChainVerifier(const crypto::AuditKey& key, std::string chain_id,
                             ExpectedHeads expected)
    : key_(key), chain_id_(std::move(chain_id)), expected_(std::move(expected)) {}

bool ChainVerifier::Break(std::uint64_t seq, std::string what) {
  damage_.push_back(Damage{chain_id_, seq, std::move(what)});
  broken_ = true;
  return false;
}

void ChainVerifier::Record(std::uint64_t seq, Bytes event) {
  const Result<Event> decoded = DecodeEvent(event);
  if (!decoded) {
    damage_.push_back(
        Damage{chain_id_, seq, "the event cannot be decoded: " + decoded.error().message});
    return;
  }
  const bool accepts_rollback = decoded->type == EventType::kRollbackAccepted;
  if ((decoded->type != EventType::kHeads && !accepts_rollback) || decoded->head_chain.empty())
    return;
  ExpectedHeads& heads = recorded_[std::string(decoded->head_chain)];
  // From an accepted rollback on, the other chain goes on from the position named here.
  if (accepts_rollback) heads.erase(heads.upper_bound(decoded->head_seq), heads.end());
  if (decoded->head_seq == 0 || decoded->head_hash.size() != crypto::kHashBytes) return;
  ExpectedHead head;
  std::copy(decoded->head_hash.begin(), decoded->head_hash.end(), head.hash.begin());
  head.source = "record " + std::to_string(seq) + " of " + chain_id_;
  heads[decoded->head_seq] = std::move(head);
}

bool ChainVerifier::Add(std::uint64_t seq, Bytes event, Bytes hash) {
  if (broken_) return false;
  const std::uint64_t next = head_.seq + 1;
  if (seq < next)
    return Break(seq, "record " + std::to_string(seq) + " is there twice or out of order");
  if (seq > next) {
    return Break(next, "record " + std::to_string(next) + " is missing: record " +
                           std::to_string(seq) + " follows");
  }
  const crypto::Hash expected = crypto::ChainHash(key_, head_.hash, chain_id_, seq, event);
  if (!crypto::EqualsConstantTime(expected, hash)) {
    return Break(seq, "record " + std::to_string(seq) +
                          " was changed, moved, or stands behind a removed one");
  }
  head_ = ChainHead{seq, expected};
  ++records_;
  if (const auto known = expected_.find(seq);
      known != expected_.end() && known->second.hash != expected) {
    damage_.push_back(Damage{
        chain_id_, seq,
        "record " + std::to_string(seq) + " is not the one that " + known->second.source + " saw"});
  }
  Record(seq, event);
  return true;
}

void ChainVerifier::Finish() {
  if (broken_ || expected_.empty()) return;
  const auto& [seq, last] = *expected_.rbegin();
  if (seq <= head_.seq) return;
  Break(head_.seq + 1, "the chain ends at record " + std::to_string(head_.seq) + ", but " +
                           last.source + " saw record " + std::to_string(seq));
}

const ExpectedHeads& ChainVerifier::RecordedHeads(const std::string& other) const {
  static const ExpectedHeads kNone;
  const auto found = recorded_.find(other);
  return found == recorded_.end() ? kNone : found->second;
}

Result<std::vector<Damage>> ReadSpool(const std::vector<std::string>& directories,
                                      const std::string& chain_id, const AddRecord& add) {
  ASSIGN_OR_RETURN(const std::vector<Segment> segments, FindSegments(directories));
  std::vector<Damage> damage;
  std::uint64_t seq = 0;
  crypto::Hash hash{};  // as stored: `add` judges it
  std::uint32_t previous = 0;
  const auto report = [&](const std::string& what) {
    damage.push_back(Damage{chain_id, seq + 1, what});
  };
  // What is in use now: all of these but the last are closed. A segment that a running server
  // begins from here on is not looked at; nothing that others vouched for before this moment can be
  // in it.
  std::size_t used = 0;
  for (std::size_t i = 0; i < segments.size(); ++i) {
    ASSIGN_OR_RETURN(const bool begun, IsBegun(segments[i]));
    if (begun) used = i + 1;
  }
  for (const Segment& segment : std::span(segments).first(used)) {
    std::string odd_one;
    const std::string& path = segment.copies.front();
    ASSIGN_OR_RETURN(const ByteVector bytes, ReadCopies(segment, &odd_one));
    if (!odd_one.empty()) report("the copies " + path + " and " + odd_one + " differ");
    const auto header = spool::ParseHeader(bytes);
    // Nothing can be missing in front of the chain's first record, whatever number its segment has: a chain that was
    // begun anew goes on with the next spare.
    const bool begins_here = previous == 0 && header && header->before == ChainHead{};
    if ((segment.ordinal != previous + 1 && !begins_here) || spool::UsedBytes(bytes) == 0) {
      report("the segment " + spool::SegmentName(previous + 1) + " is missing or empty, but " +
             path + " is there (name its directory with --archive if it was moved)");
      return damage;
    }
    previous = segment.ordinal;
    if (!header || header->chain_id != chain_id || header->before != ChainHead{seq, hash}) {
      report("the header of " + path + " is damaged or of another chain");
      return damage;
    }
    spool::Record record;
    std::size_t at = spool::kHeaderBytes;
    spool::RecordState state;
    while ((state = spool::ReadRecord(bytes, at, &record)) == spool::RecordState::kRecord) {
      if (!add(seq + 1, record.event, record.hash)) return damage;
      ++seq;
      std::copy(record.hash.begin(), record.hash.end(), hash.begin());
      at = record.end;
    }
    if (state == spool::RecordState::kTorn) {
      report("the record at byte " + std::to_string(at) + " of " + path + " is damaged");
      return damage;
    }
  }
  return damage;
}

}  // namespace latchkey::audit
