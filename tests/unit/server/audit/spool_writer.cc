// Appends three events after the other to a spool until it is killed, and writes the last position
// to stdout after each append: what a server that dies had acknowledged.
#include "tests/unit/server/audit/audit_fixture.h"

int main(int argc, char** argv) {
  using namespace latchkey::audit;
  if (argc != 2) return 2;
  auto log = AccessLog::Open(TestKey(), SmallLog(argv[1]));
  if (!log) return 1;
  EventBatch batch;
  for (std::uint64_t i = 0;; i += 3) {
    batch.Clear();
    for (std::uint64_t j = 0; j < 3; ++j) batch.Add(ReadEvent(i + j));
    if (!(*log)->Append(batch)) continue;  // full until the sync thread has added a segment
    const std::uint64_t seq = (*log)->Last().head.seq;
    if (::write(STDOUT_FILENO, &seq, sizeof seq) != sizeof seq) return 3;
  }
}
