#include "server/net/worker.h"

#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <ctime>
#include <thread>

#include "common/base/log.h"

namespace latchkey::net {
namespace {

namespace Polling = Pistache::Polling;

constexpr std::size_t kSweepPerWakeUp = 16;  // chains judged again, about 0.3 ms each
constexpr std::size_t kDeliveriesPerCommit =
    8;  // the first of a thousand do not wait until the last is written
constexpr std::size_t kDeliveriesPerYield = 64;
constexpr std::int64_t kTickNs = 250'000'000;
constexpr std::int64_t kBuffersKeptMs = 1000;

// Pistache wants a handler behind every transport; ours never hears of any input.
class SilentHandler final : public Pistache::Tcp::Handler {
 public:
  PROTOTYPE_OF(Pistache::Tcp::Handler, SilentHandler)
  SilentHandler() = default;
  void onInput(const char*, std::size_t, const std::shared_ptr<Pistache::Tcp::Peer>&) override {}
  void onConnection(const std::shared_ptr<Pistache::Tcp::Peer>&) override {}
  void onDisconnection(const std::shared_ptr<Pistache::Tcp::Peer>&) override {}
};

// FdSet::Entry shows no EPOLLRDHUP, which its private base class holds. A functional cast may reach
// an inaccessible base.
bool IsHalfClosed(const Pistache::Aio::FdSet::Entry& entry) {
  using BaseReference = const Polling::Event&;
  return BaseReference(entry).flags.hasFlag(Polling::NotifyOn::Shutdown);
}

}  // namespace

Worker::Worker(std::shared_ptr<Shared> shared, std::unique_ptr<net::Handler> handler,
               ReplyMemory memory, std::uint64_t id_seed, Make make)
    : Pistache::Tcp::Transport(std::make_shared<SilentHandler>()),
      shared_(std::move(shared)),
      handler_(std::move(handler)),
      make_(std::move(make)),
      timer_(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)),
      trust_(shared_->CurrentTrust()),
      memory_(std::move(memory)),
      read_buffer_(std::make_unique_for_overwrite<char[]>(kReadBytes)),
      parser_(std::make_unique<Pistache::Http::RequestParser>(limits::kMaxHeadBytes)),
      stranger_limits_(shared_->options.framer),
      id_state_(id_seed) {
  stranger_limits_.max_body_bytes =
      std::min(stranger_limits_.max_body_bytes, shared_->options.max_stranger_body_bytes);
  INVARIANT(timer_.valid());
}

Worker::~Worker() {
  mailbox_->Close();
}

void Worker::registerPoller(Polling::Epoll& poller) {
  Pistache::Tcp::Transport::registerPoller(poller);
  itimerspec interval{};
  interval.it_interval.tv_nsec = interval.it_value.tv_nsec = kTickNs;
  INVARIANT(::timerfd_settime(timer_.get(), 0, &interval, nullptr) == 0);
  for (const int fd : {mailbox_->event_fd(), timer_.get()}) {
    poller.addFd(fd, Pistache::Flags<Polling::NotifyOn>(Polling::NotifyOn::Read),
                 Polling::Tag(static_cast<std::uint64_t>(fd)));
  }
}

void Worker::CutAll() {
  cut_all_.store(true);
  mailbox_->Wake();
}

void Worker::BeginWakeUp() {
  now_ms_ = NowMs();
  first_turns_end_ = std::chrono::steady_clock::now() + limits::kMaxTurnsPerWakeUp;
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME_COARSE, &now);
  now_s_ = now.tv_sec;
  if (now_s_ != date_s_) {
    std::tm parts{};
    ::gmtime_r(&now.tv_sec, &parts);
    std::strftime(date_, sizeof date_, "%a, %d %b %Y %H:%M:%S GMT", &parts);
    date_s_ = now_s_;
  }
  if (shared_->epoch.load(std::memory_order_acquire) != trust_->epoch()) {
    trust_ = shared_->CurrentTrust();
    sweep_.clear();
    for (const auto& [fd, peer] : peers) sweep_.push_back(peer);
  }
}

// Nothing may leave this function as an exception: on a reactor thread that ends the process.
void Worker::onReady(const Pistache::Aio::FdSet& fds) {
  BeginWakeUp();
  for (const auto& event : fds) HandleEvent(event);
  Commit();
  FinishWakeUp();
}

void Worker::HandleEvent(const Pistache::Aio::FdSet::Entry& event) {
  const auto fd = static_cast<int>(event.getTag().value());
  if (fd == mailbox_->event_fd()) return TakeLetters();
  if (fd == timer_.get()) {
    std::uint64_t expirations = 0;
    if (::read(timer_.get(), &expirations, sizeof expirations) == sizeof expirations) Tick();
    return;
  }
  const auto found = peers.find(fd);
  if (found == peers.end()) {
    if (event.isReadable())
      PassToBase(event.getTag());  // the base class's own queues; else a stale event
    return;
  }
  const Peer peer = found->second;  // keeps it alive whatever happens below
  Connection* c = Of(peer);
  const bool half_closed = IsHalfClosed(event);
  if (event.isWritable()) {
    c->Pump();
    if (!c->dead) PlanResume(peer, c);
  }
  c->BeginTurn();
  // A hang-up or an error alone is seen by reading.
  if (!c->dead && (event.isReadable() || half_closed || !event.isWritable())) {
    if (MustQueue(*c)) {
      c->readable = true;
      PlanResume(peer, c);
    } else {
      ReadFrom(peer, c, half_closed);
    }
  }
  c->half_closed = c->half_closed || half_closed;
  HeedHangUp(*c);
  if (c->dead || c->closing || c->eof || c->armed_for_write || c->backlog_bytes() > 0) Touch(peer);
}

// Whether what it sent waits until the others had their first turn: always that of a stranger, and everybody's once
// the wake-up has taken long.
bool Worker::MustQueue(const Connection& c) const {
  return MayParse(c) && (!c.certificate || std::chrono::steady_clock::now() >= first_turns_end_);
}

// A request that was kept back may begin to wait after the hang-up was seen.
void Worker::HeedHangUp(const Connection& c) {
  if (c.half_closed && c.waiting) c.control->gone.Happen();
}

void Worker::PassToBase(Polling::Tag tag) {
  Polling::Event event(tag);
  event.flags.setFlag(Polling::NotifyOn::Read);
  std::vector<Polling::Event> one;
  one.push_back(std::move(event));
  try {
    Pistache::Tcp::Transport::onReady(Pistache::Aio::FdSet(std::move(one)));
  } catch (const std::exception& error) {
    Log(LogLevel::kError, "pistache's transport failed", {{"error", error.what()}});
  }
}

void Worker::FinishWakeUp() {
  TakeSecondTurns();
  SweepSome();
  std::vector<Peer> settling;
  settling.swap(touched_);
  for (const Peer& peer : settling) Settle(peer, Of(peer));
  settling.clear();
  FlushCounters();
  touched_.swap(settling);  // keeps the capacity
}

// Connections that were left off go on, each once and all together for a moment only: what is left waits until those that
// have something new had their turn. So clients with long pipelines do not keep the others waiting.
void Worker::TakeSecondTurns() {
  if (resume_.empty() && strangers_.empty()) return;
  TakeTurns(&resume_, limits::kMaxTurnsPerWakeUp);
  TakeTurns(&strangers_, limits::kMaxStrangerTurnsPerWakeUp);
  Commit();
  if (!resume_.empty() || !strangers_.empty()) mailbox_->Wake();
}

// Each once, and at least one, for as long as `time` lasts.
void Worker::TakeTurns(std::deque<Peer>* queue, std::chrono::milliseconds time) {
  const auto end = std::chrono::steady_clock::now() + time;
  for (std::size_t left = queue->size(); left > 0; --left) {
    const Peer peer = std::move(queue->front());
    queue->pop_front();
    Resume(peer, Of(peer));
    if (std::chrono::steady_clock::now() >= end) break;
  }
}

void Worker::FlushCounters() {
  Counters& counters = shared_->counters;
  if (requests_ > 0) Count(counters.requests, std::exchange(requests_, 0));
  if (traffic_.received_bytes > 0) Count(counters.bytes_received, traffic_.received_bytes);
  if (traffic_.sent_bytes > 0) Count(counters.bytes_sent, traffic_.sent_bytes);
  traffic_ = {};
}

void Worker::Touch(const Peer& peer) {
  touched_.push_back(peer);
}

void Worker::TakeLetters() {
  Letters letters = mailbox_->Take();
  for (const Peer& peer : letters.peers) Adopt(peer);
  for (std::size_t i = 0; i < letters.deliveries.size(); ++i) {
    Deliver(&letters.deliveries[i]);
    if (i % kDeliveriesPerCommit != kDeliveriesPerCommit - 1) continue;
    Commit();
    // To a peer, or another worker, that waits for this very core.
    if (i % kDeliveriesPerYield < kDeliveriesPerCommit) std::this_thread::yield();
  }
  for (const auto& control : letters.displaced) Displace(*control);
  if (cut_all_.load()) {
    for (const auto& [fd, peer] : peers) {
      Of(peer)->dead = true;
      Touch(peer);
    }
  }
  // Connections that were left off last time are continued after this wake-up's commit.
}

void Worker::Adopt(const Peer& peer) {
  Connection* c = Of(peer);
  c->in_worker = true;
  c->traffic = &traffic_;
  c->born_ms = c->phase_ms = now_ms_;
  c->control->last_active_ms.store(now_ms_);
  connections_.fetch_add(1, std::memory_order_relaxed);
  try {
    handleNewPeer(peer);  // on this thread: registers at once and stays clear of Pistache's queue
  } catch (const std::exception& error) {
    Log(LogLevel::kError, "connection cannot be registered", {{"error", error.what()}});
    peers.erase(c->fd);
    connections_.fetch_sub(1, std::memory_order_relaxed);
    ::close(c->fd);
    return;
  }
  if (c->control->displaced.load() || cut_all_.load() || !IsJudged(c)) c->dead = true;
  if (c->dead) return Touch(peer);
  // Bytes may lie in our own buffer since the handshake, where no edge of epoll will announce them.
  ReadFrom(peer, c, false);
  Touch(peer);
}

void Worker::Deliver(Delivery* delivery) {
  const Peer peer = delivery->peer.lock();
  Connection* c = peer ? Of(peer) : nullptr;
  const auto found = c != nullptr ? peers.find(c->fd) : peers.end();
  DeferredResponse& response = delivery->response;
  const bool expected = found != peers.end() && found->second == peer && c->waiting &&
                        c->ticket == delivery->ticket && !c->dead;
  if (expected && !IsJudged(c)) {
    c->dead = true;
    Touch(peer);
  } else if (expected) {
    std::vector<Header> headers;
    headers.reserve(response.headers.size());
    std::string_view content_type = response.body.empty() ? std::string_view() : kJsonType;
    for (const auto& [name, value] : response.headers) {
      if (name == "Content-Type") {
        content_type = value;
      } else {
        headers.push_back({name, value});
      }
    }
    c->waiting = false;
    c->phase_ms = now_ms_;
    if (!StillKept(*c)) c->keep = false;
    Answer(c, response.status, content_type, headers, response.body, true, c->request_id);
    if (!c->keep) c->closing = true;
    c->control->busy.store(false, std::memory_order_relaxed);
    PlanResume(peer, c);
    Touch(peer);
  }
  WipeMemory(response.body.data(), response.body.size());
}

void Worker::Displace(const ConnectionControl& control) {
  const auto found = peers.find(control.fd);
  if (found == peers.end() || Of(found->second)->control.get() != &control) return;
  Connection* c = Of(found->second);
  // One that lingers has had its answer.
  if (c->idle() && c->linger_until_ms == 0) {
    c->closing = true;
  } else {
    c->dead = true;
  }
  Touch(found->second);
}

void Worker::Tick() {
  for (const auto& [fd, peer] : peers) CheckDeadlines(peer, Of(peer));
}

void Worker::CheckDeadlines(const Peer& peer, Connection* c) {
  const ServerOptions& options = shared_->options;
  Counters& counters = shared_->counters;
  const std::int64_t in_phase_ms = now_ms_ - c->phase_ms;
  if (c->holds_buffers &&
      now_ms_ - c->control->last_active_ms.load(std::memory_order_relaxed) > kBuffersKeptMs) {
    // Refused by OpenSSL while a record is incomplete: tried again at the next tick.
    c->holds_buffers = SSL_free_buffers(c->ssl) == 0;
  }
  if (c->certificate && now_s_ > c->certificate->earliest_not_after) {
    Count(counters.trust_closed);
    c->dead = true;  // rule T7
  } else if (c->backlog_bytes() > 0 && now_ms_ - c->sent_ms > options.reply_stall_timeout.count()) {
    Count(counters.stalled_closed);
    c->dead = true;
  } else if (c->linger_until_ms != 0) {
    if (now_ms_ < c->linger_until_ms) return;
    c->dead = true;
  } else if (c->waiting || c->closing) {
    return;
  } else if (c->phase == Connection::Phase::kIdle) {
    const bool old = now_ms_ - c->born_ms > options.max_connection_age.count();
    if (!c->idle() || !c->in.empty()) return;
    if (in_phase_ms <= options.keep_alive_idle.count() && !old &&
        !shared_->draining.load(std::memory_order_relaxed))
      return;
    Count(counters.idle_closed);
    c->closing = true;
  } else {
    const auto limit =
        c->phase == Connection::Phase::kHead ? options.head_timeout : options.body_timeout;
    if (in_phase_ms <= limit.count()) return;
    Count(counters.timed_out);
    Refuse(c, 408);
  }
  Touch(peer);
}

void Worker::SweepSome() {
  for (std::size_t i = 0; i < kSweepPerWakeUp && !sweep_.empty(); ++i) {
    const Peer peer = sweep_.back().lock();
    sweep_.pop_back();
    if (!peer) continue;
    Connection* c = Of(peer);
    if (!c->dead && !IsJudged(c)) {
      c->dead = true;
      Touch(peer);
    }
  }
  if (!sweep_.empty()) mailbox_->Wake();
}

// Brings a connection's registration in line with its state; the only place that removes one.
void Worker::Settle(const Peer& peer, Connection* c) {
  const auto found = peers.find(c->fd);
  if (found == peers.end() || found->second != peer) return;  // settled earlier in this wake-up
  if (!c->dead && c->backlog_bytes() > 0) c->Pump();
  c->ChargeBacklog();
  if (c->dead) return Drop(peer, c, false);
  // After the end of input nothing new can come: leave when all is answered.
  if (c->eof && !c->waiting && !c->resuming && c->queued_replies == 0 && c->backlog_bytes() == 0)
    c->closing = true;
  if (c->closing && c->queued_replies == 0 && c->backlog_bytes() == 0 && c->linger_until_ms == 0) {
    if (!c->linger || c->eof) return Drop(peer, c, true);
    if (!c->shut_down) {
      c->shut_down = true;
      SSL_shutdown(c->ssl);
      c->Pump();
    }
    ::shutdown(c->fd, SHUT_WR);
    c->linger_until_ms = now_ms_ + limits::kLingerPause.count();
    c->linger_end_ms = now_ms_ + limits::kLingerTimeout.count();
    Swallow(peer, c);
    if (c->dead) return Drop(peer, c, false);
    if (c->resuming) mailbox_->Wake();
  }
  const bool want_write = c->backlog_bytes() > 0;
  if (want_write == c->armed_for_write) return;
  c->armed_for_write = want_write;
  auto interest = Polling::NotifyOn::Read | Polling::NotifyOn::Shutdown;
  if (want_write) interest = interest | Polling::NotifyOn::Write;
  try {
    reactor()->modifyFd(key(), c->fd, static_cast<Polling::NotifyOn>(interest),
                        Polling::Mode::Edge);
  } catch (const std::exception& error) {
    Log(LogLevel::kError, "connection cannot be re-armed", {{"error", error.what()}});
    Drop(peer, c, false);
  }
}

void Worker::Drop(const Peer& peer, Connection* c, bool graceful) {
  if (graceful && !c->shut_down) {
    SSL_shutdown(c->ssl);
    c->Pump();
  }
  // Pistache must not try to shut the session down a second time.
  SSL_set_shutdown(c->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
  c->dead = true;
  c->control->gone.Happen();
  const Peer hold = peer;
  try {
    removePeer(hold);  // closes the descriptor
  } catch (const std::exception& error) {
    Log(LogLevel::kError, "connection cannot be removed", {{"error", error.what()}});
  }
  connections_.fetch_sub(1, std::memory_order_relaxed);
}

}  // namespace latchkey::net
