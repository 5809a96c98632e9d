// The change log in memory, compact: 100 000 entries of 48 bytes. Internal to the feed.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "common/model/ids.h"
#include "server/catalog/catalog.h"
#include "server/store/rows.h"

namespace latchkey::feed {

struct LogEntry {
  Generation generation;
  std::int64_t object = 0;     // the client of kMembership and kClient, else the secret
  std::uint32_t group = 0;     // of kSecretGone, kGrant and kRevoke
  std::uint32_t version = 0;   // of kSecret: current after it
  std::uint32_t previous = 0;  // of kSecret: current before it, 0: none
  store::ChangeKind kind = store::ChangeKind::kSecret;
  std::unique_ptr<const std::string> name;  // of kSecretGone and kRevoke

  SecretId secret() const { return SecretId{object}; }
  ClientId client() const { return ClientId{object}; }
};

// The log as it was at one moment. Copied in a few nanoseconds, and read without a lock while the
// log goes on: what it shows never changes.
class LogView {
 public:
  // Every change after this generation is in the log.
  Generation complete_since() const { return complete_since_; }
  // Entries count from 0 over the life of the log; those before first() are gone.
  std::uint64_t first() const { return first_; }
  std::uint64_t end() const { return end_; }
  const LogEntry& at(std::uint64_t index) const {
    return (*(*chunks_)[index / kChunk - first_ / kChunk])[index % kChunk];
  }
  // The first entry of a later generation.
  std::uint64_t After(Generation generation) const;

 private:
  friend class ChangeLog;
  static constexpr std::size_t kChunk = 512;
  using Chunk = std::array<LogEntry, kChunk>;
  using Chunks = std::vector<std::shared_ptr<Chunk>>;

  std::shared_ptr<const Chunks> chunks_ = std::make_shared<const Chunks>();
  std::uint64_t first_ = 0;
  std::uint64_t end_ = 0;
  Generation complete_since_;
};

// Appends; not thread-safe, but its views may be read meanwhile when they were taken under the lock
// under which it appends.
class ChangeLog {
 public:
  explicit ChangeLog(std::size_t max_entries) : max_entries_(max_entries) {}

  void Append(const store::ChangeRow& row);
  // After loading from the store: a full log may have lost entries before its first one.
  void AssumeTrimmed();
  const LogView& view() const { return view_; }

 private:
  LogEntry& NewEntry();

  const std::size_t max_entries_;
  LogView view_;
};

// What the log and the acknowledgements tell about one secret, gathered in one pass over the log.
class ServedVersions {
 public:
  ServedVersions(const LogView& log, const catalog::Secret& secret);

  // The version that a client serves which acknowledged `generation`; nullopt when the log cannot
  // tell, or when the client was given the secret only after that generation.
  std::optional<VersionNumber> At(Generation generation, const catalog::Client& client) const;

 private:
  struct Mark {
    Generation generation;
    std::uint32_t version;
    std::uint32_t previous;
  };
  struct Granted {
    Generation generation;
    std::uint32_t group;
  };
  const catalog::Secret& secret_;
  Generation complete_since_;
  std::vector<Mark> marks_;
  std::vector<Granted> granted_;
  std::unordered_map<ClientId, Generation> joined_;  // when it last joined or left a group
};

}  // namespace latchkey::feed
