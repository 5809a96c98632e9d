// Every number that is a limit, in one place (security rules, section 10; API spec; mount rules). Units are in the names.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace latchkey::limits {

// Names and metadata.
inline constexpr std::size_t kMaxSecretNameChars =
    195;  // UTF-16 units, as Keywhiz counted (API spec 6.1)
inline constexpr std::size_t kMaxNameBytes = 255;  // clients, groups, any looked-up name
inline constexpr std::size_t kMaxDescriptionChars = 255;
inline constexpr std::size_t kMaxTypeChars = 20;
inline constexpr std::size_t kMaxSpiffeIdBytes = 2048;
inline constexpr std::size_t kMaxMetadataEntries = 64;
inline constexpr std::size_t kMaxMetadataBytes = 64 * 1024;
inline constexpr std::size_t kMaxCommonNameBytes = 255;

// Content.
inline constexpr std::size_t kDefaultMaxContentBytes = 1024 * 1024;
inline constexpr std::size_t kHardMaxContentBytes = 8 * 1024 * 1024;
inline constexpr std::size_t kMaxBatchNames = 1000;
inline constexpr std::size_t kMaxBatchContentBytes = 16 * 1024 * 1024;
inline constexpr std::size_t kMaxPageEntries = 1000;

// HTTP (rule H1 and the table of section 10).
inline constexpr std::size_t kMaxTargetBytes = 2048;
inline constexpr std::size_t kMaxHeadBytes = 16 * 1024;
inline constexpr std::size_t kMaxHeaderFields = 64;
inline constexpr std::size_t kBodySlackBytes = 64 * 1024;
// A body may be 1.4 times the content limit (base64) plus the slack.
inline constexpr std::size_t MaxBodyBytes(std::size_t max_content_bytes) {
  return max_content_bytes + max_content_bytes * 2 / 5 + kBodySlackBytes;
}
inline constexpr std::size_t kMaxBodiesInFlightBytes = 64 * 1024 * 1024;
inline constexpr std::size_t kMaxBodiesInFlightBytesPerIdentity = kMaxBodiesInFlightBytes / 4;
inline constexpr std::size_t kMaxStrangerBodyBytes = 64 * 1024;  // of a peer without a certificate
inline constexpr std::chrono::seconds kHandshakeTimeout{5};
inline constexpr std::chrono::seconds kHeadTimeout{10};
inline constexpr std::chrono::seconds kBodyTimeout{30};
inline constexpr std::chrono::seconds kReplyStallTimeout{30};
inline constexpr std::chrono::seconds kKeepAliveIdle{120};
inline constexpr std::chrono::hours kMaxConnectionAge{1};
inline constexpr std::uint32_t kMaxRequestsPerConnection = 10'000;
inline constexpr std::size_t kMaxHandshakesInFlight = 1024;
inline constexpr std::size_t kMaxHandshakesPerAddress = 64;
inline constexpr std::size_t kMaxConnections = 16'384;
inline constexpr std::size_t kMaxConnectionsPerIdentity = 64;
// The record buffers of OpenSSL, two a connection, are 16 KiB and a little. Between the sessions of a thousand waiting
// connections, which are smaller and stay, they would leave as much memory in holes as the sessions take.
inline constexpr std::size_t kOwnPagesFromBytes = 16 * 1024;
inline constexpr std::size_t kMaxBlocksWithOwnPages =
    2 * kMaxConnections;  // half of what a process may map
// Who shows no certificate is nobody, from however many addresses: at most this part of all connections, the longest idle
// stranger makes room for the next. Handshakes under way have a part of their own, so that most is left to clients.
inline constexpr std::size_t kStrangerShare = 8;   // one in so many
inline constexpr std::size_t kHandshakeShare = 4;  // likewise
inline constexpr std::size_t kLeastShare = 16;     // connections
// What a peer sends in a handshake, and the messages of the TLS protocol that it may send afterwards: an honest client
// sends none, or a new key after some gigabytes.
inline constexpr std::size_t kMaxHandshakeBytes = 128 * 1024;
inline constexpr std::uint32_t kMaxProtocolMessages = 64;
// One connection's turn: then the others have theirs, however long its pipeline is. Bytes as built, whether or not sent.
inline constexpr std::uint32_t kMaxRequestsPerTurn = 16;
inline constexpr std::size_t kMaxBuiltBytesPerTurn = 256 * 1024;
inline constexpr std::chrono::milliseconds kMaxTurn{1};
// One wake-up of a worker: what is left then waits for the next one, behind what that one brings.
inline constexpr std::chrono::milliseconds kMaxTurnsPerWakeUp{
    2};  // all first turns; all second ones
inline constexpr std::chrono::milliseconds kMaxStrangerTurnsPerWakeUp{1};  // without a certificate
inline constexpr std::size_t kMaxQueuedWrites = 1024;
inline constexpr std::size_t kMaxBatchReplies = 64;  // replies held back for one audit commit
inline constexpr std::size_t kReplyBacklogPauseBytes = 256 * 1024;
// A reader takes this much, or all that is left, within each kReplyStallTimeout: 8 KiB/s.
inline constexpr std::size_t kMinReplyProgressBytes = 256 * 1024;
// Answers that the readers of one identity have not taken: beyond it the next request gets 503.
inline constexpr std::size_t kMaxWaitingReplyBytesPerIdentity = 64 * 1024 * 1024;
inline constexpr std::size_t kReplySlabBytes =
    256 * 1024;  // locked memory of one worker for the replies of a batch
inline constexpr std::size_t kMaxBatchBytes =
    1024 * 1024;  // replies held back beyond this are committed at once
// After a refusal the rest of an upload is swallowed, or closing would reset the connection and with it the answer: until
// the peer pauses for so long, for so long altogether, and so many bytes.
inline constexpr std::chrono::milliseconds kLingerPause{1000};
inline constexpr std::chrono::milliseconds kLingerTimeout{10'000};
inline constexpr std::size_t kMaxSwallowedBytes = 32 * 1024 * 1024;
inline constexpr std::chrono::seconds kDrainTimeout{10};
// The metrics and health listener.
inline constexpr std::size_t kMaxPlainConnections = 32;
inline constexpr std::chrono::seconds kPlainDeadline{5};

// TLS (rules T4, T6).
inline constexpr int kMaxChainDepth = 3;
inline constexpr int kMinRsaBits = 2048;
inline constexpr std::chrono::seconds kVerifiedChainCache{60};
inline constexpr std::size_t kMaxVerifiedChains =
    8192;  // remembered verdicts; the map is emptied beyond
// The bytes of their certificates: one chain, all chains. A peer decides what it presents besides what is needed.
inline constexpr std::size_t kMaxRememberedChainBytes = 8 * 1024;
inline constexpr std::size_t kMaxVerifiedChainBytes = 8 * 1024 * 1024;
inline constexpr int kMaxPeerCertificates =
    8;  // presented; each that is not needed costs the search for a chain
inline constexpr std::size_t kMaxPeerChainBytes =
    16 * 1024;  // certificates a peer may send in one handshake
inline constexpr std::size_t kMaxTrustFileBytes =
    32 * 1024 * 1024;  // a PEM file of certificates, keys or CRLs

// JSON (rule H2).
inline constexpr std::size_t kMaxJsonDepth = 16;
inline constexpr std::size_t kMaxJsonNodes = 20'000;
inline constexpr std::size_t kMaxJsonKeyBytes = 512;
inline constexpr std::size_t kMaxJsonNumberBytes = 64;
// Of what is no automation client: the names of a batch, and a few members around them.
inline constexpr std::size_t kMaxJsonNodesOfClient = kMaxBatchNames + 64;

// Change feed.
inline constexpr std::size_t kMaxFeedWaiters = 12'000;
inline constexpr std::size_t kMaxFeedWaitersPerClient = kMaxConnectionsPerIdentity;  // one each
inline constexpr std::chrono::seconds kMaxFeedWait{60};
inline constexpr std::size_t kFeedLogEntries = 100'000;
inline constexpr std::chrono::seconds kServingFlushInterval{1};

// Store and catalog.
inline constexpr std::int64_t kMaxGroupId =
    0xffff'ffff;                                       // random; the catalog keeps them in 32 bits
inline constexpr int kMaxRowBytes = 32 * 1024 * 1024;  // of one value or row of the store
// A disk that was full counts as full until it has room for the largest row again, or a change went through: the small
// records of every second fit into gaps that no secret fits into.
inline constexpr std::uint64_t kRoomAgainBytes = kMaxRowBytes;
inline constexpr std::size_t kMaxIdleReaders = 8;  // read connections kept open for the next reader
inline constexpr std::size_t kCheckpointPages =
    1000;  // pages of write-ahead log that start a checkpoint

// Caches and memory.
inline constexpr std::size_t kSealedCacheBytes = 16 * 1024 * 1024;
inline constexpr std::size_t kArenaBytes =
    16 * 1024 * 1024;  // locked memory of the server for keys and replies
inline constexpr std::size_t kDekCacheEntries = 4096;  // unwrapped DEKs kept in locked memory
inline constexpr std::size_t kMaxKekFileBytes = 128;   // the longest valid one has 79

// Audit (rules A1-A3).
inline constexpr std::size_t kSpoolBytes = 128 * 1024 * 1024;
inline constexpr std::size_t kSpoolSegmentBytes = 16 * 1024 * 1024;
inline constexpr std::uint64_t kAuditDiskLowBytes =
    1024ULL * 1024 * 1024;  // less left: the log says so
inline constexpr std::chrono::seconds kAuditSyncInterval{1};
inline constexpr std::chrono::seconds kHeadLogInterval{60};
// Refusals of callers without an identity: per source and window so many records of their own, then a count.
inline constexpr std::chrono::seconds kRefusalWindow{60};
inline constexpr std::uint32_t kRefusalsWrittenSingly = 4;
inline constexpr std::size_t kMaxRefusalSources =
    256;  // with, and as many without a certified name; then as many names again, without addresses

// Version pruning (API spec 5.5).
inline constexpr std::chrono::hours kPruneAge{15 * 24};
inline constexpr std::size_t kPruneKeep = 10;
inline constexpr std::size_t kPruneLookAhead =
    16;  // young versions in a row that end the search for old ones

// Identity (rule I4).
inline constexpr std::size_t kMaxAutoCreatedPerMinute = 100;
inline constexpr std::int64_t kLastSeenGranularitySeconds = 86'400;

// Mount (rules F3, F4, F7; fuse-client 5.2).
inline constexpr std::size_t kMaxSnapshotBytes = 64 * 1024 * 1024;
inline constexpr std::size_t kMaxMountedSecrets = 4096;
inline constexpr std::size_t kMaxPinnedVersionsPerSecret = 4;
inline constexpr std::size_t kMaxPinnedBytes = 16 * 1024 * 1024;
// Versions whose content is gone and whose descriptors are not: their rights are remembered.
inline constexpr std::size_t kMaxEmptiedVersions = 4096;
inline constexpr std::chrono::seconds kSizeGrace{2};
inline constexpr std::chrono::seconds kDefaultRevokeGrace{60};
inline constexpr std::size_t kReadRingRecords = 65'536;
inline constexpr std::size_t kMountArenaBytes =
    12 * 1024 * 1024;  // locked memory of the worker for contents on their way
inline constexpr std::size_t kReadLogBytes =
    8 * 1024 * 1024;  // each of the two files of read records
// Read records (R23): in each window a uid writes so many bytes of lines of its own, some 900 opens, then its opens are
// counted. So it takes a uid half an hour at least to push a record of another out of the two files.
inline constexpr std::chrono::seconds kReadWindow{60};
inline constexpr std::size_t kReadShareBytes = 256 * 1024;
// Uids with a share of their own in a window, and counters: of each for uids of the host, and as many for those above.
inline constexpr std::size_t kMaxReadShares = 8;
inline constexpr std::size_t kMaxReadCounts = 2048;
inline constexpr std::uint32_t kFirstNamespaceUid =
    65'536;  // from here on uids are handed out in ranges, to containers
inline constexpr std::size_t kMaxHandlerThreads = 4;  // request slots; a default worker uses two
inline constexpr std::size_t kMaxMountNodes =
    16'384;  // names a keeper may see in its life; ids are never reused
inline constexpr std::size_t kMaxVersionRecords =
    16'384;  // current, staged and pinned versions together
inline constexpr std::size_t kRequestSlotBytes = 16 * 1024;
inline constexpr std::size_t kMaxControlFileBytes = 4 * 1024 * 1024;
// Room for the current versions, a whole staged batch and the pinned ones, plus what the allocator rounds up.
inline constexpr std::size_t kContentAreaBytes =
    2 * kMaxSnapshotBytes + kMaxPinnedBytes + 4 * 1024 * 1024;
inline constexpr std::chrono::seconds kWorkerStuckAfter{2};
inline constexpr std::chrono::seconds kWakerStuckAfter{2};
inline constexpr std::size_t kMaxCrashesInWindow = 5;
inline constexpr std::chrono::seconds kCrashWindow{10};
inline constexpr std::chrono::seconds kLazyUnmountAfter{5};

}  // namespace latchkey::limits
