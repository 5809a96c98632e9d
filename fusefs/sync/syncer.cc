#include "fusefs/sync/syncer.h"

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <random>

#include "common/base/log.h"
#include "common/crypto/crypto.h"
#include "common/model/limits.h"

namespace latchkey::sync {
namespace {

// One batch is parsed into locked memory of the worker before it is staged, so batches are small
// here. A listing does not tell sizes: its names count as kUnknownSizeBytes each.
constexpr std::size_t kChunkBytes = 1024 * 1024;
constexpr std::size_t kUnknownSizeBytes = 16 * 1024;

// `2011-09-29T15:46:00.000Z` to epoch seconds; 0 when it is something else.
std::int64_t ParseApiDate(const std::string& text) {
  std::tm parts{};
  int consumed = 0;
  if (std::sscanf(text.c_str(), "%4d-%2d-%2dT%2d:%2d:%2d%n", &parts.tm_year, &parts.tm_mon,
                  &parts.tm_mday, &parts.tm_hour, &parts.tm_min, &parts.tm_sec, &consumed) != 6)
    return 0;
  parts.tm_year -= 1900;
  parts.tm_mon -= 1;
  return timegm(&parts);
}

void AppendMember(std::string* out, std::string_view key, std::string_view value) {
  out->append("\"");
  AppendJsonEscaped(out, key, limits::kMaxMetadataBytes);
  out->append("\":\"");
  AppendJsonEscaped(out, value, limits::kMaxMetadataBytes);
  out->append("\"");
}

// The members of a delivery object after its content (API spec 1.5).
std::string DeliveryTail(const client::DeliveredSecret& secret, std::size_t size_bytes) {
  std::string out = "\",\"secretLength\":" + std::to_string(size_bytes) + ",";
  AppendMember(&out, "checksum", secret.checksum);
  out += ",";
  AppendMember(&out, "creationDate", secret.creation_date);
  out += ",";
  AppendMember(&out, "updateDate", secret.update_date);
  for (const auto& [key, value] : secret.metadata) {
    out += ",";
    AppendMember(&out, key, value);
  }
  return out + "}";
}

std::string DeliveryHead(const std::string& name) {
  std::string out = "{";
  AppendMember(&out, "name", name);
  return out + ",\"secret\":\"";
}

std::string ListingJson(const std::vector<client::DeliveredSecret>& listing) {
  std::string out = "[";
  for (const auto& secret : listing) {
    if (out.size() > 1) out += ",";
    out += DeliveryHead(secret.name) + DeliveryTail(secret, 0);
  }
  return out + "]";
}

// Uniform in [0, limit). Jitter only: nothing depends on its quality, but rule C7 knows one source.
std::uint64_t RandomBelow(std::uint64_t limit) {
  ByteArray<8> bytes{};
  crypto::RandomBytes(bytes);
  return limit == 0 ? 0 : GetU64(bytes.data()) % limit;
}

}  // namespace

Syncer::Syncer(Source& source, snapshot::SnapshotBuilder& builder, const Clock& clock,
               SyncOptions options, std::function<MountFacts()> facts)
    : source_(source),
      builder_(builder),
      clock_(clock),
      options_(std::move(options)),
      facts_(std::move(facts)),
      generation_(builder.server_generation()) {
  health_.started_s = EpochSeconds(clock_.Now());
  health_.generation = generation_;
  health_.secrets = builder.Mounted().size();
}

void Syncer::Run(const std::stop_token& stop) {
  const std::stop_callback cancel(stop, [this] {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    source_.Cancel();
    wake_.notify_all();
  });
  std::chrono::milliseconds delay = options_.retry_base;
  while (!stop.stop_requested()) {
    const Status status = Step();
    builder_.Sweep();
    if (status) {
      delay = options_.retry_base;
      if (has_feed_ || listing_due_) continue;
      const auto span = static_cast<std::uint64_t>(options_.poll_interval.count()) * 1000;
      if (!Pause(stop, std::chrono::milliseconds(span / 2 + RandomBelow(span)))) return;
      listing_due_ = true;
      continue;
    }
    if (stop.stop_requested()) return;
    NoteFailure(status.error());
    // Full jitter over the upper half, so that a fleet does not come back in one wave (R14, F13).
    const auto half = static_cast<std::uint64_t>(delay.count()) / 2;
    if (!Pause(stop, std::chrono::milliseconds(half + RandomBelow(half + 1)))) return;
    delay = std::min(delay * 2, options_.retry_max);
  }
}

Status Syncer::Step() {
  bool refetch = false;
  {
    const std::lock_guard lock(mutex_);
    std::swap(refetch, refetch_);
  }
  if (refetch) {
    known_.clear();
    generation_ = 0;  // nothing is taken over from what is mounted
    listing_due_ = true;
  }
  if (clock_.Monotonic() >= recheck_at_) listing_due_ = true;
  return listing_due_ ? FullListing() : FollowFeed();
}

MonotonicTime Syncer::Within(std::chrono::seconds time) const {
  const auto ms = static_cast<std::uint64_t>(std::chrono::milliseconds(time).count());
  return clock_.Monotonic() + std::chrono::milliseconds(RandomBelow(ms + 1));
}

Status Syncer::FullListing() {
  // The generation is asked before the listing: whatever changes between the two is reported once
  // more, never lost.
  std::uint64_t generation = generation_;
  bool may_adopt = false;
  if (has_feed_) {
    auto changes = source_.Changes(Generation{generation_}, std::chrono::seconds(0), std::nullopt);
    if (changes) {
      generation = changes->generation.value;
      // A worker that starts again mounts what its predecessor published: only what changed since
      // is fetched.
      may_adopt = !changes->reset && generation_ != 0;
      for (const auto& changed : changes->changed) changed_.insert(changed.name);
    } else if (changes.error().code == Errc::kNotFound) {
      has_feed_ = false;
    } else {
      return std::move(changes).error();
    }
  }
  ASSIGN_OR_RETURN(const auto listing, source_.Listing());
  if (may_adopt) Adopt(listing);
  std::set<std::string> listed;
  std::vector<Wanted> wanted;
  for (const auto& secret : listing) {
    listed.insert(secret.name);
    const auto known = known_.find(secret.name);
    if (known == known_.end() || changed_.count(secret.name) != 0 ||
        pending_.count(secret.name) != 0 || known->second.checksum != secret.checksum ||
        known->second.metadata != secret.metadata)
      wanted.push_back({secret.name, kUnknownSizeBytes});
  }
  RETURN_IF_ERROR(RemoveMissing(listed));
  RETURN_IF_ERROR(Fetch(std::move(wanted)));
  generation_ = generation;
  if (const Status put = builder_.PutControl(snapshot::ControlFile::kSecrets, ListingJson(listing));
      !put)
    Log(LogLevel::kWarn, "listing is not shown in the mount", {{"reason", put.error().message}});
  listing_due_ = false;
  changed_.clear();
  NoteSuccess();
  recheck_at_ = Within(options_.recheck_interval);
  return Publish();
}

void Syncer::Adopt(const std::vector<client::DeliveredSecret>& listing) {
  std::map<std::string, snapshot::MountedSecret> mounted;
  for (auto& secret : builder_.Mounted()) mounted.emplace(secret.name, std::move(secret));
  for (const auto& secret : listing) {
    const auto found = mounted.find(secret.name);
    if (known_.count(secret.name) != 0 || found == mounted.end()) continue;
    FileOwner owner = ResolveOwner(secret.metadata, options_.defaults);
    const auto& now = found->second;
    if (now.checksum == secret.checksum && now.mode == owner.mode && now.uid == owner.uid &&
        now.gid == owner.gid)
      known_[secret.name] = Known{secret.metadata, secret.checksum, std::move(owner)};
  }
}

Status Syncer::RemoveMissing(const std::set<std::string>& listed) {
  std::vector<std::string> missing;
  const auto mounted = builder_.Mounted();
  for (const auto& secret : mounted)
    if (listed.count(secret.name) == 0) missing.push_back(secret.name);
  const bool suspicious =
      missing.size() > 1 && missing.size() * 100 > mounted.size() * options_.shrink_percent;
  for (const std::string& name : missing) {
    if (suspicious) {
      // An empty list by accident must not wipe a fleet (R13): each name has to be refused by
      // itself.
      auto one = source_.One(name);
      if (one) {
        Log(LogLevel::kWarn, "secret is missing from the listing but still granted, kept",
            {{"secret", name}});
        continue;
      }
      if (one.error().code != Errc::kNotFound && one.error().code != Errc::kForbidden)
        return std::move(one).error();
    }
    Forget(name);
  }
  // What is not mounted, and why, is of no interest once it is not granted.
  std::set<std::string> unmounted;
  for (const auto& [name, known] : known_) unmounted.insert(name);
  for (const auto& [name, reason] : pending_) unmounted.insert(name);
  for (const auto& problem : builder_.Problems()) unmounted.insert(problem.name);
  for (const auto& secret : mounted) unmounted.erase(secret.name);
  for (const std::string& name : unmounted)
    if (listed.count(name) == 0) Forget(name);
  return {};
}

std::chrono::seconds Syncer::FeedWait() const {
  const MonotonicTime now = clock_.Monotonic();
  const auto until = [now](MonotonicTime at) {
    return std::chrono::ceil<std::chrono::seconds>(at - now);
  };
  auto wait = std::min(options_.feed_wait, std::max(std::chrono::seconds(1), until(recheck_at_)));
  if (!pending_.empty()) wait = std::min(wait, std::max(std::chrono::seconds(0), until(retry_at_)));
  return wait;
}

Status Syncer::FollowFeed() {
  if (!BeginWait()) return {};
  auto changes = source_.Changes(Generation{generation_}, FeedWait(), serving_);
  const bool interrupted = EndWait();
  if (!changes) {
    if (interrupted) return {};                     // no failure of the server
    if (changes.error().code == Errc::kNotFound) {  // the server was replaced by one without a feed
      has_feed_ = false;
      listing_due_ = true;
      return {};
    }
    return std::move(changes).error();
  }
  if (changes->reset) {
    serving_.reset();  // its generations may be counted anew
    listing_due_ = true;
    return {};
  }
  for (const std::string& name : changes->gone) Forget(name);
  RETURN_IF_ERROR(Fetch(WantedAfter(*changes)));
  generation_ = changes->generation.value;
  NoteSuccess();
  return Publish();
}

std::vector<Syncer::Wanted> Syncer::WantedAfter(const client::ChangeSet& changes) {
  std::map<std::string, std::size_t> sizes;
  for (Wanted& want : OwnersThatMoved()) sizes[want.name] = want.size_bytes;
  if (RetryDue() || !changes.gone.empty())  // what is gone leaves room
    for (const auto& [name, reason] : pending_) sizes[name] = kUnknownSizeBytes;
  for (const auto& changed : changes.changed)
    sizes[changed.name] = static_cast<std::size_t>(changed.size_bytes);
  std::vector<Wanted> wanted;
  for (const auto& [name, size] : sizes) wanted.push_back({name, size});
  return wanted;
}

std::vector<Syncer::Wanted> Syncer::OwnersThatMoved() {
  std::vector<Wanted> moved;
  if (clock_.Monotonic() - owners_resolved_ < options_.owner_refresh) return moved;
  owners_resolved_ = clock_.Monotonic();
  for (const auto& [name, known] : known_)
    if (!(ResolveOwner(known.metadata, options_.defaults) == known.owner))
      moved.push_back({name, kUnknownSizeBytes});
  return moved;
}

Status Syncer::Fetch(std::vector<Wanted> wanted) {
  std::vector<std::string> chunk;
  std::size_t bytes = 0;
  for (auto& want : wanted) {
    if (!chunk.empty() &&
        (chunk.size() >= limits::kMaxBatchNames || bytes + want.size_bytes > kChunkBytes)) {
      RETURN_IF_ERROR(FetchChunk(chunk));
      chunk.clear();
      bytes = 0;
    }
    bytes += want.size_bytes;
    chunk.push_back(std::move(want.name));
  }
  return chunk.empty() ? Status() : FetchChunk(chunk);
}

Status Syncer::FetchChunk(const std::vector<std::string>& names) {
  if (names.size() == 1) return FetchEach(names);
  auto batch = source_.Batch(names);
  if (batch) {
    for (const auto& secret : *batch) Put(secret);
    return {};
  }
  switch (batch.error().code) {
    case Errc::kNotFound:
    case Errc::kForbidden:
      // All or nothing on the wire: one that went away meanwhile must not cost the others (R22).
      return FetchEach(names);
    case Errc::kTooLarge:
    case Errc::kInternal:  // one that the server cannot deliver must not cost the others (R22)
      break;
    default:
      return std::move(batch).error();
  }
  const auto middle = names.begin() + static_cast<std::ptrdiff_t>(names.size() / 2);
  RETURN_IF_ERROR(FetchChunk({names.begin(), middle}));
  return FetchChunk({middle, names.end()});
}

Status Syncer::FetchEach(const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    auto one = source_.One(name);
    if (one) {
      Put(*one);
      continue;
    }
    if (one.error().code == Errc::kNotFound || one.error().code == Errc::kForbidden) {
      Forget(name);
    } else if (one.error().code == Errc::kTooLarge || one.error().code == Errc::kInternal) {
      // This one cannot be had; the rest can, and its old version stays.
      NotePending(name, "cannot be fetched; what was served before stays: " + one.error().message);
    } else {
      return std::move(one).error();
    }
  }
  return {};
}

void Syncer::Put(const client::DeliveredSecret& secret) {
  const FileOwner owner = ResolveOwner(secret.metadata, options_.defaults);
  const std::string* filename = FindMetadata(secret.metadata, "filename");
  const std::string head = DeliveryHead(secret.name);
  const std::string tail = DeliveryTail(secret, secret.content.size());
  snapshot::SecretVersion version;
  version.name = secret.name;
  if (filename != nullptr) version.filename = *filename;
  version.number = secret.version.value_or(0);
  version.checksum = secret.checksum;
  version.mode = owner.mode;
  version.uid = owner.uid;
  version.gid = owner.gid;
  version.mtime_s = ParseApiDate(secret.update_date);
  version.content = secret.content.bytes();
  version.delivery_head = head;
  version.delivery_tail = tail;
  NotePut(secret.name, builder_.Put(version));
  if (!owner.problem.empty()) {
    owner_problems_[secret.name] = owner.problem;
  } else {
    owner_problems_.erase(secret.name);
  }
  known_[secret.name] = Known{secret.metadata, secret.checksum, owner};
  staged_.push_back(secret.name);
}

void Syncer::NotePut(const std::string& name, const Status& put) {
  if (put) put_.insert(name);
  const bool for_good =
      !put && (put.error().code == Errc::kConflict || put.error().code == Errc::kInvalidArgument);
  if (!put && !for_good) return NotePending(name, put.error().message);
  pending_.erase(name);
  if (!for_good) return;
  Log(LogLevel::kWarn, "secret is not mounted",
      {{"secret", name}, {"reason", put.error().message}});
}

void Syncer::Forget(const std::string& name) {
  builder_.Remove(name);
  known_.erase(name);
  put_.erase(name);
  pending_.erase(name);
  staged_.push_back(name);
  owner_problems_.erase(name);
}

void Syncer::NotePending(const std::string& name, const std::string& reason) {
  std::string& noted = pending_[name];
  if (noted.empty()) {  // the first attempts come soon
    retry_delay_ = {};
    retry_at_ = {};
  }
  if (noted == reason) return;
  noted = reason;
  Log(LogLevel::kError, "secret is not served as it is now, trying again",
      {{"secret", name}, {"reason", reason}});
}

void Syncer::PlanRetry() {
  if (pending_.empty() || !RetryDue()) return;
  retry_delay_ = std::clamp(retry_delay_ * 2, options_.refetch_base, options_.refetch_max);
  const auto half = static_cast<std::uint64_t>(retry_delay_.count()) / 2;
  retry_at_ = clock_.Monotonic() + std::chrono::milliseconds(half + RandomBelow(half + 1));
}

// The server takes one generation for all secrets of the client. One that can still be had holds it
// back. One that is refused for good (another one wants its file name too, or it cannot be a file
// name) holds it back only until something else changes: otherwise no rotation of any other secret
// would ever be acknowledged.
void Syncer::Acknowledge(const std::vector<std::string>& refused) {
  std::set<std::string> unserved(refused.begin(), refused.end());
  for (const auto& problem : builder_.Problems()) unserved.insert(problem.name);
  for (const std::string& name : put_)
    if (unserved.count(name) == 0) served_new_ = true;
  put_.clear();
  if (!pending_.empty()) return;
  if (!unserved.empty() && serving_ && !served_new_) return;
  served_new_ = false;
  serving_ = Generation{generation_};
}

Status Syncer::Publish() {
  std::string status = StatusJson();
  if (status != status_published_) {
    if (builder_.PutControl(snapshot::ControlFile::kStatus, status))
      status_published_ = std::move(status);
  }
  std::vector<std::string> refused;
  RETURN_IF_ERROR(PublishStaged(&refused));
  PlanRetry();
  Acknowledge(refused);
  std::vector<snapshot::Problem> problems = builder_.Problems();
  for (const auto& [name, reason] : owner_problems_) problems.push_back({name, reason});
  std::set<std::string> told;
  for (const auto& problem : problems) told.insert(problem.name);
  for (const auto& [name, reason] : pending_)
    if (told.count(name) == 0) problems.push_back({name, reason});
  const std::lock_guard lock(mutex_);
  health_.generation = generation_;
  health_.has_feed = has_feed_;
  health_.secrets = builder_.Mounted().size();
  problems_ = std::move(problems);
  return {};
}

Status Syncer::PublishStaged(std::vector<std::string>* refused) {
  ASSIGN_OR_RETURN(auto published, builder_.Publish(generation_));
  staged_.clear();
  *refused = published.refused;
  if (published.refetch.empty()) return {};
  // A file name became free: a secret that was refused can be mounted now.
  std::vector<Wanted> wanted;
  for (const std::string& name : published.refetch) {
    pending_.emplace(name, "its file name is free now");  // if the fetch fails it is tried again
    wanted.push_back({name, kUnknownSizeBytes});
  }
  RETURN_IF_ERROR(Fetch(std::move(wanted)));
  ASSIGN_OR_RETURN(published, builder_.Publish(generation_));
  staged_.clear();
  *refused = published.refused;
  return {};
}

void Syncer::NoteSuccess() {
  const std::int64_t now = EpochSeconds(clock_.Now());
  bool recovered = false;
  {
    const std::lock_guard lock(mutex_);
    recovered = health_.stale_since_s != 0;
    health_.last_success_s = now;
    health_.stale_since_s = 0;
    health_.last_error.clear();
  }
  builder_.SetFreshness({now, 0});
  if (!recovered) return;
  recheck_at_ = std::min(recheck_at_, Within(options_.recheck_spread));
  Log(LogLevel::kInfo, "server answers again, secrets are fresh",
      {{"server", options_.server_text}});
}

// The builder has forgotten who waits for which file name. If all of them were not put again, one of
// two rivals could be mounted alone (F2), or none of them once the other is gone.
void Syncer::DoubtUnmounted() {
  std::set<std::string> doubtful;
  for (const auto& [name, known] : known_) doubtful.insert(name);
  for (const auto& secret : builder_.Mounted()) doubtful.erase(secret.name);
  for (const auto& problem : builder_.Problems()) doubtful.insert(problem.name);
  if (!doubtful.empty()) listing_due_ = true;
  changed_.merge(doubtful);
}

void Syncer::NoteFailure(const Error& error) {
  // Nothing half-fetched is ever published: the next success starts from what the mount shows
  // (F19).
  builder_.Discard();
  for (const std::string& name : staged_) known_.erase(name);
  put_.clear();
  if (!staged_.empty()) listing_due_ = true;
  staged_.clear();
  DoubtUnmounted();
  const std::int64_t now = EpochSeconds(clock_.Now());
  bool first = false;
  snapshot::Freshness freshness;
  {
    const std::lock_guard lock(mutex_);
    first = health_.stale_since_s == 0 || health_.last_error != error.message;
    if (health_.stale_since_s == 0) health_.stale_since_s = now;
    health_.last_error = error.message;
    freshness = {health_.last_success_s, health_.stale_since_s};
  }
  builder_.SetFreshness(freshness);
  if (first) {
    Log(LogLevel::kWarn, "server cannot be followed, mounted secrets stay as they are",
        {{"server", options_.server_text}, {"reason", error.message}});
  }
}

bool Syncer::Pause(const std::stop_token& stop, std::chrono::milliseconds time) {
  std::unique_lock lock(mutex_);
  wake_.wait_for(lock, stop, time, [this] { return refetch_; });
  return !stop.stop_requested();
}

bool Syncer::BeginWait() {
  const std::lock_guard lock(mutex_);
  waiting_ = !refetch_;
  return waiting_;
}

bool Syncer::EndWait() {
  const std::lock_guard lock(mutex_);
  waiting_ = false;
  if (!interrupted_) return false;
  interrupted_ = false;
  if (!stopped_) source_.Rearm();
  return true;
}

void Syncer::RequestRefetch() {
  const std::lock_guard lock(mutex_);
  refetch_ = true;
  // Cancel holds until Rearm, so it does not matter whether the request has already begun. Only a wait is ended:
  // anything else is soon done, and the refetch follows it.
  if (waiting_ && !interrupted_) {
    interrupted_ = true;
    source_.Cancel();
  }
  wake_.notify_all();
}

SyncHealth Syncer::health() const {
  const std::lock_guard lock(mutex_);
  return health_;
}

std::string Syncer::StatusJson() const {
  // Asked each time: they change while the sync thread waits for the server.
  const MountFacts facts = facts_ ? facts_() : MountFacts{};
  const std::lock_guard lock(mutex_);
  std::string out = "{\"build_revision\":\"" LATCHKEY_VERSION "\",\"start_time\":\"" +
                    ApiDate(health_.started_s) + "\",";
  AppendMember(&out, "server_url", options_.server_text);
  out += ",\"client_params\":{";
  AppendMember(&out, "cert_file", options_.certificate_file);
  out += ",";
  AppendMember(&out, "key_file", options_.key_file);
  out += ",";
  AppendMember(&out, "ca_bundle", options_.ca_file);
  out += "},\"secrets\":" + std::to_string(health_.secrets);
  out += ",\"generation\":" + std::to_string(health_.generation);
  out += std::string(",\"feed\":") + (health_.has_feed ? "true" : "false");
  out += ",\"last_success_s\":" + std::to_string(health_.last_success_s);
  out += ",\"stale_since_s\":" + std::to_string(health_.stale_since_s);
  out += std::string(",\"fresh\":") +
         (health_.stale_since_s == 0 && health_.last_success_s != 0 ? "true" : "false") + ",";
  AppendMember(&out, "last_error", health_.last_error);
  out += ",\"worker_starts\":" + std::to_string(facts.worker_starts);
  out += ",\"dropped_reads\":" + std::to_string(facts.dropped_reads) + ",\"problems\":[";
  bool first = true;
  for (const auto& problem : problems_) {
    out += first ? "{" : ",{";
    first = false;
    AppendMember(&out, "name", problem.name);
    out += ",";
    AppendMember(&out, "reason", problem.reason);
    out += "}";
  }
  return out + "]}\n";
}

}  // namespace latchkey::sync
