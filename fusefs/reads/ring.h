// OPEN records (R23): written by the handlers into rings of the keeper's memory, read by one
// consumer as JSON Lines.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "common/base/unique_fd.h"
#include "fusefs/journal/region.h"
#include "fusefs/reads/tally.h"

namespace latchkey::reads {

struct Reader {
  std::uint32_t uid;
  std::uint32_t gid;
  std::uint32_t pid;
  std::array<char, 16> comm{};  // as in ReadRecord
};

// Names of programs, asked while the caller waits for its OPEN: a short-lived one is gone before any consumer can look. One thread
// uses it. It keeps the /proc files of the last few callers open: such a file belongs to one process, whoever gets its number
// later, and reading it again is a microsecond.
class CallerNames {
 public:
  std::array<char, 16> Comm(std::uint32_t pid);

 private:
  struct Entry {
    std::uint32_t pid = 0;
    UniqueFd comm;
  };
  std::array<Entry, 8> entries_;  // by pid modulo size
};

// Producer side, one per request slot; never blocks, allocates nothing. The region must outlive it.
class ReadWriter {
 public:
  ReadWriter(const journal::Region& region, std::size_t slot);
  // False when the ring is full: the record is dropped and counted. Idempotent for one `request`
  // sequence (replay).
  bool Append(std::uint32_t node, std::uint64_t version, std::uint64_t request,
              const Reader& reader);
  bool full() const;

 private:
  journal::ReadRing* ring_;
};

// Records lost because a ring was full, over the life of the keeper (R38).
std::uint64_t DroppedRecords(const journal::Region& region);
// Records in the rings that no consumer has taken yet.
std::uint64_t WaitingRecords(const journal::Region& region);

// Name of the secret behind a node for the line; empty when unknown.
using NameOfNode = std::function<std::string(std::uint32_t node)>;
// Takes one JSON object without newline. False: not taken, offered again later (the ring fills,
// then drops).
using LineSink = std::function<bool(const std::string& line)>;

// Takes all records that are waiting, oldest first, and hands each to `sink` as
//   {"time":"...Z","secret":"db_password","version":3,"uid":1000,"gid":1000,"pid":42,"comm":"app","exe":"/bin/app","cgroup":"..."}
// `comm` was written with the record. `exe` and `cgroup`, and `comm` if it was not, come from /proc through a pidfd, so never from a process that reused
// the pid after the look-up began; they are left out when the process is gone or the consumer may
// not see them. Beyond the share of its uid (`tally`) an open is counted, and when the window ends one line tells for each
// uid, secret and version how many opens there were beside those with a line, the last (`time`) and the first (`since`):
//   {"time":"...Z","since":"...Z","count":148976,"secret":"db_password","version":3,"uid":1000}
// `null` as uid, secret or version: several, there were too many to count apart. While the counts of an ended window are not
// taken, no record is: the rings fill, as with lines. Returns the number of records taken.
std::size_t DrainReads(const journal::Region& region, const NameOfNode& name_of,
                       const LineSink& sink, ReadTally* tally);
// Before a stop: drains, then writes all counts, of the running window too. Returns how many opens have found no line or
// count that was taken.
std::uint64_t DrainAll(const journal::Region& region, const NameOfNode& name_of,
                       const LineSink& sink, ReadTally* tally);

// One thread that drains every `interval`, and all at its end. Owns its thread; the region and what the functions
// capture must outlive it.
class ReadConsumer {
 public:
  ReadConsumer(const journal::Region& region, NameOfNode name_of, LineSink sink,
               std::chrono::milliseconds interval = std::chrono::milliseconds(100));
  ~ReadConsumer();
  ReadConsumer(const ReadConsumer&) = delete;
  ReadConsumer& operator=(const ReadConsumer&) = delete;

 private:
  std::jthread thread_;
};

}  // namespace latchkey::reads
