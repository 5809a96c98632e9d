#include "server/audit/spool.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "common/base/c_handle.h"
#include "common/base/trusted_path.h"
#include "common/base/unique_fd.h"
#include "server/audit/event.h"

namespace latchkey::audit::spool {
namespace {

constexpr std::string_view kMagic = "LKSPOOL1";
constexpr std::string_view kPrefix = "access-";
constexpr std::string_view kSuffix = ".spool";
constexpr std::size_t kOrdinalDigits = 6;

bool AllZero(Bytes bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::uint8_t byte) { return byte == 0; });
}

std::optional<std::uint32_t> ParseSegmentName(std::string_view name) {
  if (!name.starts_with(kPrefix) || !name.ends_with(kSuffix)) return std::nullopt;
  const std::string_view digits =
      name.substr(kPrefix.size(), name.size() - kPrefix.size() - kSuffix.size());
  if (digits.size() < kOrdinalDigits || digits.size() > 9) return std::nullopt;
  std::uint32_t ordinal = 0;
  for (const char c : digits) {
    if (c < '0' || c > '9') return std::nullopt;
    ordinal = ordinal * 10 + static_cast<std::uint32_t>(c - '0');
  }
  if (ordinal == 0 || SegmentName(ordinal) != name) return std::nullopt;
  return ordinal;
}

Error IoError(const std::string& what) {
  return Error{Errc::kUnavailable, what + ": " + std::strerror(errno)};
}

}  // namespace

void AppendHeader(const Header& header, ByteVector* out) {
  INVARIANT(header.chain_id.size() <= kMaxChainIdBytes);
  const std::size_t start = out->size();
  out->insert(out->end(), kMagic.begin(), kMagic.end());
  PutU64(out, header.before.seq + 1);
  out->insert(out->end(), header.before.hash.begin(), header.before.hash.end());
  out->push_back(static_cast<std::uint8_t>(header.chain_id.size()));
  out->insert(out->end(), header.chain_id.begin(), header.chain_id.end());
  out->resize(start + kHeaderBytes);
}

std::optional<Header> ParseHeader(Bytes segment) {
  if (segment.size() < kHeaderBytes) return std::nullopt;
  constexpr std::size_t kHashAt = 16;
  constexpr std::size_t kIdAt = kHashAt + crypto::kHashBytes + 1;
  if (AsText(segment.first(kMagic.size())) != kMagic) return std::nullopt;
  const std::uint64_t first_seq = GetU64(segment.data() + kMagic.size());
  const std::size_t id_bytes = segment[kIdAt - 1];
  if (first_seq == 0 || id_bytes > kMaxChainIdBytes) return std::nullopt;
  if (!AllZero(segment.subspan(kIdAt + id_bytes, kHeaderBytes - kIdAt - id_bytes)))
    return std::nullopt;
  Header header;
  header.chain_id = std::string(AsText(segment.subspan(kIdAt, id_bytes)));
  header.before.seq = first_seq - 1;
  std::copy_n(segment.begin() + kHashAt, crypto::kHashBytes, header.before.hash.begin());
  return header;
}

RecordState ReadRecord(Bytes segment, std::size_t at, Record* record) {
  const Bytes rest = segment.subspan(std::min(at, segment.size()));
  const std::size_t length = rest.size() < 4 ? 0 : GetU32(rest.data());
  if (length == 0) return AllZero(rest) ? RecordState::kEnd : RecordState::kTorn;
  if (length > kMaxEventBytes || length + kRecordOverheadBytes > rest.size())
    return RecordState::kTorn;
  record->event = rest.subspan(4, length);
  record->hash = rest.subspan(4 + length, crypto::kHashBytes);
  record->end = at + length + kRecordOverheadBytes;
  return RecordState::kRecord;
}

std::size_t UsedBytes(Bytes segment) {
  std::size_t used = segment.size();
  while (used > 0 && segment[used - 1] == 0) --used;
  return used;
}

std::string SegmentName(std::uint32_t ordinal) {
  char digits[16];
  std::snprintf(digits, sizeof digits, "%06u", ordinal);
  return std::string(kPrefix).append(digits).append(kSuffix);
}

Result<std::vector<std::uint32_t>> ListSegments(const std::string& directory) {
  const CHandle<DIR, ::closedir> dir(::opendir(directory.c_str()));
  if (!dir) return IoError("cannot read the audit directory " + directory);
  std::vector<std::uint32_t> ordinals;
  while (const dirent* entry = ::readdir(dir.get())) {
    if (const auto ordinal = ParseSegmentName(entry->d_name)) ordinals.push_back(*ordinal);
  }
  std::sort(ordinals.begin(), ordinals.end());
  return ordinals;
}

Result<UniqueFd> OpenSegment(const std::string& path, int flags) {
  Result<UniqueFd> fd = OpenRegularFile(path, flags, path);
  if (!fd) return Error{Errc::kUnavailable, fd.error().message};
  return fd;
}

Result<ByteVector> ReadWhole(const std::string& path) {
  ASSIGN_OR_RETURN(const UniqueFd fd, OpenSegment(path, O_RDONLY));
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return IoError("cannot stat " + path);
  ByteVector bytes(static_cast<std::size_t>(info.st_size));
  for (std::size_t done = 0; done < bytes.size();) {
    const ssize_t got =
        ::pread(fd.get(), bytes.data() + done, bytes.size() - done, static_cast<off_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return IoError("cannot read " + path);
    if (got == 0) {
      bytes.resize(done);
      break;
    }
    done += static_cast<std::size_t>(got);
  }
  return bytes;
}

}  // namespace latchkey::audit::spool
