// Format of the segments of the access spool, shared by the log that writes them and the verifier
// that reads them.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "common/base/result.h"
#include "common/base/unique_fd.h"
#include "server/audit/chain.h"

namespace latchkey::audit::spool {

// magic "LKSPOOL1" | first seq u64 BE | hash before it 32 | length u8 | chain id | zeros up to 128.
inline constexpr std::size_t kHeaderBytes = 128;
inline constexpr std::size_t kMaxChainIdBytes = 72;
// Length in front of each event and hash behind it.
inline constexpr std::size_t kRecordOverheadBytes = 4 + crypto::kHashBytes;

struct Header {
  std::string chain_id;
  ChainHead before;  // the first record is before.seq + 1
};
void AppendHeader(const Header& header, ByteVector* out);
// nullopt for anything that AppendHeader would not have written.
std::optional<Header> ParseHeader(Bytes segment);

enum class RecordState { kRecord, kEnd, kTorn };
struct Record {
  Bytes event;
  Bytes hash;
  std::size_t end = 0;  // offset of the next record
};
// Reads the record at `at`. kEnd when only zeros follow; kTorn when what is there cannot be a whole
// record.
RecordState ReadRecord(Bytes segment, std::size_t at, Record* record);
// Offset behind the last byte that is not zero.
std::size_t UsedBytes(Bytes segment);

std::string SegmentName(std::uint32_t ordinal);  // "access-000001.spool"
// Ordinals of the segments in `directory`, ascending. kUnavailable when it cannot be read.
Result<std::vector<std::uint32_t>> ListSegments(const std::string& directory);
// Opens a segment, O_RDONLY or O_RDWR. Whatever else lies in its place is kUnavailable, as everything is that keeps a record
// from being written or read.
Result<UniqueFd> OpenSegment(const std::string& path, int flags);
// The whole file; kUnavailable names it.
Result<ByteVector> ReadWhole(const std::string& path);

}  // namespace latchkey::audit::spool
