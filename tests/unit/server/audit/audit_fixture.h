// What the tests of the audit module share: a key, a scratch directory, events.
#pragma once

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <set>
#include <string>

#include "common/crypto/crypto.h"
#include "server/audit/access_log.h"
#include "server/audit/spool.h"

namespace latchkey::audit {

inline const crypto::AuditKey& TestKey() {
  static const crypto::AuditKey key = [] {
    ByteArray<32> bytes;
    bytes.fill(0x5a);
    return crypto::AuditKey::FromBytes(bytes).value();
  }();
  return key;
}

class ScratchDir {
 public:
  ScratchDir() {
    std::string pattern =
        (std::filesystem::temp_directory_path() / "latchkey-audit-XXXXXX").string();
    INVARIANT(::mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ~ScratchDir() { std::filesystem::remove_all(path_); }
  ScratchDir(const ScratchDir&) = delete;
  ScratchDir& operator=(const ScratchDir&) = delete;
  const std::string& path() const { return path_; }
  std::string File(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

inline ByteVector ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return ByteVector(std::istreambuf_iterator<char>(in), {});
}
inline void WriteFile(const std::string& path, Bytes bytes) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(reinterpret_cast<const char*>(bytes.data()),
            static_cast<std::streamsize>(bytes.size()));
  INVARIANT(out.good());
}

// A read event whose numbers tell it apart from others.
inline Event ReadEvent(std::uint64_t i) {
  Event event;
  event.type = EventType::kSecretRead;
  event.time_ns = 1'700'000'000'000'000'000 + static_cast<std::int64_t>(i);
  event.request_id = i + 1;
  event.actor = ActorKind::kClient;
  event.actor_id = 42;
  event.actor_name = "web-1.example";
  event.address = "127.0.0.1";
  event.secret_id = static_cast<std::int64_t>(i % 7 + 1);
  event.secret_name = "db_password";
  event.version_number = i % 3 + 1;
  return event;
}

// Segments of 16 KiB hold some 85 of these events, so that few events cross many segments.
inline AccessLogOptions SmallLog(const std::string& directory, std::size_t segments = 4) {
  AccessLogOptions options;
  options.directory = directory;
  options.server_id = "test";
  options.segment_bytes = 16 * 1024;
  options.reserve_bytes = segments * options.segment_bytes;
  return options;
}

inline void AppendReads(AccessLog& log, std::uint64_t from, std::uint64_t count) {
  EventBatch batch;
  for (std::uint64_t i = from; i < from + count; ++i) batch.Add(ReadEvent(i));
  INVARIANT(log.Append(batch).has_value());
}

}  // namespace latchkey::audit
