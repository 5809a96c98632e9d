#include "server/net/worker.h"

#include <openssl/err.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <ctime>

#include "common/base/log.h"

namespace latchkey::net {
namespace {

namespace Polling = Pistache::Polling;

constexpr std::size_t kReadBytes = 16 * 1024;  // one TLS record
constexpr int kReadsPerWakeUp = 16;            // then the others get their turn
constexpr std::size_t kSweepPerWakeUp = 16;    // chains judged again, about 0.3 ms each
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

Pistache::Http::Method ParserMethod(Method method) {
  switch (method) {
    case Method::kGet:
      return Pistache::Http::Method::Get;
    case Method::kHead:
      return Pistache::Http::Method::Head;
    case Method::kPost:
      return Pistache::Http::Method::Post;
    case Method::kPut:
      return Pistache::Http::Method::Put;
    case Method::kDelete:
      return Pistache::Http::Method::Delete;
    case Method::kOptions:
      return Pistache::Http::Method::Options;
    case Method::kPatch:
      return Pistache::Http::Method::Patch;
    case Method::kOther:
      break;
  }
  return Pistache::Http::Method::Trace;
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

// ---- wake-up
// -------------------------------------------------------------------------------------------------------------

void Worker::BeginWakeUp() {
  now_ms_ = NowMs();
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
  // A hang-up or an error alone is seen by reading.
  if (!c->dead && (event.isReadable() || half_closed || !event.isWritable()))
    ReadFrom(peer, c, half_closed);
  c->half_closed = c->half_closed || half_closed;
  HeedHangUp(*c);
  if (c->dead || c->closing || c->eof || c->armed_for_write || c->backlog_bytes() > 0) Touch(peer);
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
  // Each connection that was left off gets one more turn now; what is left even then waits for the
  // next wake-up, so that one client with a long pipeline does not keep the others waiting.
  if (!resume_.empty()) {
    std::vector<Peer> again;
    again.swap(resume_);
    for (const Peer& peer : again) Resume(peer, Of(peer));
    Commit();
    if (!resume_.empty()) mailbox_->Wake();
  }
  SweepSome();
  std::vector<Peer> settling;
  settling.swap(touched_);
  for (const Peer& peer : settling) Settle(peer, Of(peer));
  settling.clear();
  FlushCounters();
  touched_.swap(settling);  // keeps the capacity
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
  for (Delivery& delivery : letters.deliveries) Deliver(&delivery);
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
  if (c->idle()) {
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

// ---- reading
// -------------------------------------------------------------------------------------------------------------

bool Worker::MayParse(const Connection& c) const {
  return !c.dead && !c.closing && !c.waiting &&
         c.backlog_bytes() + c.queued_bytes <= shared_->options.reply_backlog_pause_bytes;
}

void Worker::ReadFrom(const Peer& peer, Connection* c, bool half_closed) {
  if (c->linger_until_ms != 0) return Swallow(c);
  c->readable = false;
  for (int reads = 0; !c->dead && !c->closing && !c->eof; ++reads) {
    // A connection that waits is read on for as long as its input is small: that is how a hang-up
    // is noticed.
    const bool may_buffer = c->waiting && c->in.size() < shared_->options.framer.max_head_bytes;
    if (reads == kReadsPerWakeUp || !(MayParse(*c) || may_buffer)) {
      c->readable = true;
      if (MayParse(*c)) PlanResume(peer, c);
      return;
    }
    c->drained = false;
    c->holds_buffers = true;
    ERR_clear_error();
    const int got = SSL_read(c->ssl, read_buffer_.get(), kReadBytes);
    if (got > 0) {
      Feed(peer, c, read_buffer_.get(), static_cast<std::size_t>(got));
      // A short read emptied the socket (epoll(7)); only a half-close that came along with it gives
      // no edge of its own.
      if (c->drained && !half_closed && SSL_has_pending(c->ssl) == 0) return;
      continue;
    }
    const int error = SSL_get_error(c->ssl, got);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return;
    if (error == SSL_ERROR_ZERO_RETURN) {
      c->eof = true;
      c->control->gone.Happen();
    } else {
      c->dead = true;
    }
    Touch(peer);
  }
  if (c->closing && !c->dead) Touch(peer);
}

// After a refusal: reads and forgets what the peer was still sending, so that closing does not
// reset the connection and with it the answer. Encrypted bytes, never decrypted.
void Worker::Swallow(Connection* c) {
  for (int reads = 0; reads < kReadsPerWakeUp; ++reads) {
    const ssize_t got = ::recv(c->fd, read_buffer_.get(), kReadBytes, MSG_DONTWAIT);
    if (got > 0) continue;
    if (got == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) c->dead = true;
    return;
  }
  c->dead = true;  // it floods: let it have its reset
}

void Worker::Feed(const Peer& peer, Connection* c, char* data, std::size_t size) {
  if (c->in.empty()) {
    const std::size_t used = MayParse(*c) ? Process(peer, c, {data, size}) : 0;
    if (used < size && !c->closing) c->in.append(data + used, size - used);
  } else {
    c->in.append(data, size);
    ProcessInput(peer, c);
  }
  WipeMemory(data, size);  // a body holds content
  c->control->last_active_ms.store(now_ms_, std::memory_order_relaxed);
  c->control->busy.store(c->waiting || c->phase != Connection::Phase::kIdle,
                         std::memory_order_relaxed);
}

std::size_t Worker::Process(const Peer& peer, Connection* c, std::string_view input) {
  std::size_t at = 0;
  while (MayParse(*c)) {
    const std::string_view rest = input.substr(at);
    if (rest.empty()) break;
    const std::size_t taken = c->body ? ProcessBody(peer, c, rest) : ProcessHead(peer, c, rest);
    if (taken == 0) break;
    at += taken;
  }
  return at;
}

// Who is nobody is refused whatever it sends: no room for that.
const FramerLimits& Worker::LimitsFor(const Connection& c) const {
  return c.certificate ? shared_->options.framer : stranger_limits_;
}

std::size_t Worker::ProcessHead(const Peer& peer, Connection* c, std::string_view input) {
  if (c->phase == Connection::Phase::kIdle) {
    c->phase = Connection::Phase::kHead;
    c->phase_ms = now_ms_;
  }
  RequestHead head;
  const FramerLimits& limits = LimitsFor(*c);
  const int status = ParseHead(input, limits, &c->scanned, &head);
  if (status == kNeedMore) return 0;
  if (status != kComplete) {
    Count(shared_->counters.framing_refused);
    Refuse(c, status);
    return input.size();
  }
  const std::string_view after = input.substr(head.head_bytes);
  if (!head.has_body()) {
    HandleRequest(peer, c, head, {});
    return head.head_bytes;
  }
  if (!head.chunked && after.size() >= head.content_length) {  // all here: no copy
    const auto body_bytes = static_cast<std::size_t>(head.content_length);
    HandleRequest(peer, c, head, after.substr(0, body_bytes));
    return head.head_bytes + body_bytes;
  }
  c->body = std::make_unique<IncomingBody>(input.substr(0, head.head_bytes), shared_.get(),
                                           c->control->account, limits);
  c->phase = Connection::Phase::kBody;
  c->phase_ms = now_ms_;
  if (head.expect_continue && after.empty()) {
    queue_.push_back({c, {}, 0, true, false, false, {}, kContinue});
    ++c->queued_replies;
  }
  return head.head_bytes;
}

std::size_t Worker::ProcessBody(const Peer& peer, Connection* c, std::string_view input) {
  std::size_t at = 0;
  for (;;) {
    const BodyDecoder::Step step = c->body->decoder.Next(input.substr(at));
    at += step.consumed_bytes;
    if (!c->body->content.Append(step.data)) {
      Count(shared_->counters.bodies_overloaded);
      Refuse(c, 503);
      return input.size();
    }
    if (step.status == kNeedMore) {
      if (step.consumed_bytes == 0 || at == input.size()) return at;
      continue;
    }
    if (step.status != kComplete) {
      Count(shared_->counters.framing_refused);
      Refuse(c, step.status);
      return input.size();
    }
    // Ours from here on: a refusal lets go of the connection's, and the head lies in it.
    const std::unique_ptr<IncomingBody> body = std::move(c->body);
    HandleRequest(peer, c, body->head, body->content.view());
    return at;
  }
}

void Worker::PlanResume(const Peer& peer, Connection* c) {
  if (c->resuming || !MayParse(*c) || (c->in.empty() && !c->readable)) return;
  c->resuming = true;
  resume_.push_back(peer);
}

// Frames what was kept back, and wipes what of it is done with.
void Worker::ProcessInput(const Peer& peer, Connection* c) {
  if (c->in.empty() || !MayParse(*c)) return;
  const std::size_t used = Process(peer, c, c->in);
  if (used == 0 || c->in.empty()) return;  // a refusal has emptied it
  const std::size_t left = c->in.size() - used;
  std::memmove(c->in.data(), c->in.data() + used, left);
  WipeMemory(c->in.data() + left, used);
  c->in.resize(left);
}

// Goes on with input that was kept back, then with the socket.
void Worker::Resume(const Peer& peer, Connection* c) {
  c->resuming = false;
  if (!MayParse(*c)) return;
  ProcessInput(peer, c);
  c->control->busy.store(c->waiting || c->phase != Connection::Phase::kIdle,
                         std::memory_order_relaxed);
  if (c->readable && MayParse(*c)) ReadFrom(peer, c, true);
  HeedHangUp(*c);
  if (c->closing || c->dead || c->eof) Touch(peer);
}

// ---- answering
// -----------------------------------------------------------------------------------------------------------

// The finaliser of splitmix64 over a counter: unique within a worker, and tells nothing about how
// many came before.
RequestId Worker::NextId() {
  std::uint64_t z = (id_state_ += 0x9e3779b97f4a7c15ULL);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return {z ^ (z >> 31)};
}

bool Worker::StillKept(const Connection& c) const {
  return !shared_->draining.load(std::memory_order_relaxed) &&
         c.requests < shared_->options.max_requests_per_connection &&
         now_ms_ - c.born_ms <= shared_->options.max_connection_age.count();
}

// A connection that was accepted under an older trust epoch is judged again before anything of it
// is answered (rule T7).
bool Worker::IsJudged(Connection* c) {
  if (c->trust->epoch() == trust_->epoch()) return true;
  if (!c->certificate) {
    if (trust_->require_client_certificate()) return false;
  } else {
    auto verdict = trust_->VerifyPresented(c->certificate->chain_der);
    if (!verdict.has_value()) {
      Count(shared_->counters.trust_closed);
      Log(LogLevel::kInfo, "connection closed: its certificate is refused after a reload",
          {{"peer", c->peer_address},
           {"subject", c->certificate->subject},
           {"reason", verdict.error().message}});
      return false;
    }
    c->certificate = std::move(verdict).value();
  }
  c->trust = trust_;
  return true;
}

void Worker::HandleRequest(const Peer& peer, Connection* c, const RequestHead& head,
                           std::string_view body) {
  if (queue_.size() >= shared_->options.max_batch_replies ||
      queue_bytes_ > limits::kMaxBatchBytes ||
      memory_.used_bytes() > limits::kReplySlabBytes * 3 / 4) {
    Commit();
  }
  c->phase = Connection::Phase::kIdle;
  c->phase_ms = now_ms_;
  if (!IsJudged(c)) {
    c->dead = true;
    return Touch(peer);
  }
  if (c->certificate && now_s_ > c->certificate->earliest_not_after) {
    Count(shared_->counters.trust_closed);
    c->dead = true;
    return Touch(peer);
  }
  ++c->requests;
  ++requests_;
  c->http10 = head.http10;
  c->head_only = head.method == Method::kHead;
  c->keep = head.keep_alive && StillKept(*c);
  c->request_id = NextId();
  if (head.method == Method::kOther) {
    Answer(c, 405, {}, {}, {}, true, c->request_id);  // empty body: API spec, Appendix C, item 3
  } else if (head.double_slash) {
    Answer(c, 404, kJsonType, {}, ErrorBody(404), true, c->request_id);
  } else if (head.has_body() && !ParserAgrees(head)) {
    Refuse(c, 400);
  } else if (c->control->account->reply_bytes.load(std::memory_order_relaxed) >
             shared_->options.max_waiting_reply_bytes_per_identity) {
    Count(shared_->counters.replies_overloaded);
    Refuse(c, 503);
  } else {
    AskHandler(peer, c, head, body);
  }
  if (!c->keep)
    c->linger = head.keep_alive;  // we end it, and the peer may be sending its next request
  if (!c->keep && !c->waiting) {
    c->closing = true;
    Touch(peer);
  }
}

// A request with a body is shown to Pistache's parser as well: two parsers must read the same
// request. It gets the request line and nothing that holds content, because its buffers cannot be
// wiped (rules Y4, Y5).
bool Worker::ParserAgrees(const RequestHead& head) {
  try {
    const std::string line = std::string(Pistache::Http::methodString(ParserMethod(head.method))) +
                             " " + std::string(head.target) + " HTTP/1.1\r\n\r\n";
    parser_->reset();
    if (!parser_->feed(line.data(), line.size())) return false;
    if (parser_->parse() != Pistache::Http::Private::State::Done) return false;
    return parser_->request.method() == ParserMethod(head.method) &&
           parser_->request.resource() == head.target.substr(0, head.target.find('?'));
  } catch (const std::exception&) {
    return false;  // it throws on what it does not like; its text stays here (rule O3)
  }
}

void Worker::AskHandler(const Peer& peer, Connection* c, const RequestHead& head,
                        std::string_view body) {
  Request request;
  request.method = head.method;
  request.target = head.target;
  request.host = head.host;
  request.content_type = head.content_type;
  request.accept = head.accept();
  request.has_content_type = head.has_content_type;
  request.has_accept = head.has_accept;
  request.has_body = !body.empty();
  request.has_forwarded_identity = head.forwarded_identity_count > 0;
  request.forwarded_identity_count = head.forwarded_identity_count;
  request.forwarded_identity = head.forwarded_identity;
  request.body = AsBytes(body);
  request.certificate = c->certificate.get();
  request.peer_address = c->peer_address;
  request.local_port = shared_->port;
  request.id = c->request_id;

  current_ = UnderWay{};
  current_.peer = &peer;
  current_.connection = c;
  current_.id = c->request_id;
  ++handled_;
  handler_->Handle(request, *this);
  if (!discarded_.empty()) {
    WipeMemory(discarded_.data(), discarded_.size());
    discarded_.clear();
  }
  if (current_.deferred) {
    c->waiting = true;
    c->control->busy.store(true, std::memory_order_relaxed);
  } else if (current_.started) {
    const std::size_t body_end = c->head_only ? current_.head_bytes : current_.block.size;
    Enqueue(c, std::move(current_.block), body_end, false, current_.id);
  } else {
    Count(shared_->counters.handler_silent);
    Answer(c, 500, kJsonType, {}, ErrorBody(500), false, current_.id);
  }
  current_ = UnderWay{};
}

Result<ReplyBlock> Worker::BuildHead(const Connection& c, int status, std::string_view content_type,
                                     std::span<const Header> headers, std::size_t body_bytes,
                                     RequestId id, std::size_t* head_bytes) {
  ResponseHead head;
  head.status = status;
  head.date = {date_, std::strlen(date_)};
  head.content_type = content_type;
  head.headers = headers;
  head.id = id;
  head.content_length = body_bytes;
  head.connection = !c.keep ? ConnectionHeader::kClose
                            : (c.http10 ? ConnectionHeader::kKeepAlive : ConnectionHeader::kNone);
  *head_bytes = HeadBytes(head);
  ASSIGN_OR_RETURN(ReplyBlock block, memory_.Take(*head_bytes + body_bytes));
  WriteHead(head, block.data);
  return block;
}

// The handler cannot be told that its answer will not do: it writes into room that is thrown away,
// and the peer gets 500.
std::span<char> Worker::Discard(std::size_t body_bytes, std::string_view why) {
  Log(LogLevel::kError, "reply cannot be built",
      {{"error", why}, {"request_id", FormatRequestId(current_.id)}});
  discarded_.assign(body_bytes, '\0');
  return discarded_;
}

std::span<char> Worker::Start(int status, std::string_view content_type,
                              std::span<const Header> headers, std::size_t body_bytes) {
  INVARIANT(current_.connection != nullptr);
  if (current_.started) memory_.Undo(std::move(current_.block));
  current_.started = false;
  if (!AreSafeHeaders(content_type, headers))
    return Discard(body_bytes, "a header holds a control byte");
  if (!MayHaveBody(status)) body_bytes = 0;
  auto block = BuildHead(*current_.connection, status, content_type, headers, body_bytes,
                         current_.id, &current_.head_bytes);
  if (!block.has_value()) return Discard(body_bytes, block.error().message);
  current_.block = std::move(block).value();
  current_.started = true;
  return {current_.block.data + current_.head_bytes, body_bytes};
}

std::shared_ptr<DeferredReply> Worker::Defer() {
  INVARIANT(current_.connection != nullptr);
  if (current_.started) memory_.Undo(std::move(current_.block));
  current_.started = false;
  current_.deferred = true;
  Connection* c = current_.connection;
  return std::make_shared<MailedReply>(mailbox_, *current_.peer, ++c->ticket, c->control);
}

void Worker::Enqueue(Connection* c, ReplyBlock block, std::size_t send_bytes, bool audited,
                     RequestId id) {
  ++c->queued_replies;
  c->queued_bytes += send_bytes;
  queue_bytes_ += block.size;
  queue_.push_back({c, std::move(block), send_bytes, audited, !c->keep, c->head_only, id, {}});
}

void Worker::Answer(Connection* c, int status, std::string_view content_type,
                    std::span<const Header> headers, std::string_view body, bool audited,
                    RequestId id) {
  std::string replacement;
  if (!AreSafeHeaders(content_type, headers)) {
    Log(LogLevel::kError, "reply cannot be built",
        {{"error", "a header holds a control byte"}, {"request_id", FormatRequestId(id)}});
    status = 500;
    content_type = kJsonType;
    headers = {};
    body = replacement = ErrorBody(500);
  }
  if (!MayHaveBody(status)) body = {};
  std::size_t head_bytes = 0;
  auto block = BuildHead(*c, status, content_type, headers, body.size(), id, &head_bytes);
  if (!block.has_value()) {
    Log(LogLevel::kError, "reply cannot be built",
        {{"error", block.error().message}, {"request_id", FormatRequestId(id)}});
    c->dead = true;
    return;
  }
  if (!body.empty()) std::memcpy(block->data + head_bytes, body.data(), body.size());
  Enqueue(c, std::move(block).value(), c->head_only ? head_bytes : head_bytes + body.size(),
          audited, id);
}

void Worker::Refuse(Connection* c, int status) {
  c->keep = false;
  c->head_only = false;
  constexpr Header kRetry[] = {{"Retry-After", "1"}};
  const std::span<const Header> headers =
      status == 503 ? std::span<const Header>(kRetry) : std::span<const Header>();
  Answer(c, status, kJsonType, headers, ErrorBody(status), true, NextId());
  c->closing = true;
  c->linger = true;
  c->phase = Connection::Phase::kIdle;
  c->phase_ms = now_ms_;
  c->body.reset();
  WipeMemory(c->in.data(), c->in.size());
  c->in.clear();
}

// The audit bytes of all requests since the last call reach write() here; only then do their
// replies leave (rule A1).
void Worker::Commit() {
  if (handled_ == 0 && queue_.empty()) return;
  FlushCounters();  // before the replies: who has an answer finds it counted
  bool written = true;
  if (handled_ > 0) {
    Count(shared_->counters.batches);
    written = handler_->Commit();
    handled_ = 0;
    if (!written) Count(shared_->counters.batches_unaudited);
  }
  for (Queued& queued : queue_) SendQueued(&queued, written);
  queue_.clear();
  queue_bytes_ = 0;
  memory_.Reset();
}

// What a peer gets when the audit record of its request could not be written (rule A2).
std::string Worker::UnauditedReply(const Queued& queued) const {
  constexpr std::string_view kBody = R"({"code":503,"message":"audit_unavailable"})";
  constexpr Header kRetry[] = {{"Retry-After", "1"}};
  ResponseHead head;
  head.status = 503;
  head.date = {date_, std::strlen(date_)};
  head.content_type = kJsonType;
  head.headers = kRetry;
  head.id = queued.id;
  head.content_length = kBody.size();
  head.connection = queued.closes ? ConnectionHeader::kClose : ConnectionHeader::kNone;
  std::string reply(HeadBytes(head), '\0');
  WriteHead(head, reply.data());
  if (!queued.head_only) reply += kBody;
  return reply;
}

void Worker::Write(Connection* c, std::string_view bytes) {
  constexpr std::size_t kPieceBytes = 1 << 20;
  c->holds_buffers = true;
  ERR_clear_error();
  while (!bytes.empty() && !c->dead) {
    const std::size_t piece = std::min(bytes.size(), kPieceBytes);
    if (SSL_write(c->ssl, bytes.data(), static_cast<int>(piece)) <= 0) c->dead = true;
    bytes.remove_prefix(piece);
  }
}

void Worker::SendQueued(Queued* queued, bool audit_written) {
  Connection* c = queued->connection;
  --c->queued_replies;
  c->queued_bytes -= queued->send_bytes;
  const bool last = c->queued_replies == 0;
  if (!c->dead) {
    // Several records, several answers, or an answer and the end of the session leave in one send.
    const std::size_t bytes = std::max(queued->send_bytes, queued->constant.size());
    c->corked = !last || queued->closes || bytes > kReadBytes;
    if (!queued->constant.empty()) {
      Write(c, queued->constant);
    } else if (audit_written || queued->audited) {
      Write(c, {queued->block.data, queued->send_bytes});
    } else {
      Write(c, UnauditedReply(*queued));
    }
    if (queued->closes && last && !c->dead && !c->shut_down) {
      c->shut_down = true;
      SSL_shutdown(c->ssl);
    }
    if (last && c->corked) {
      c->corked = false;
      c->Pump();
    }
  }
  if (!last) return;
  const bool goes_on = !c->in.empty() || c->readable;
  if (!(c->dead || c->closing || goes_on || c->backlog_bytes() > 0)) return;
  const Peer& peer = peers.at(c->fd);  // nothing is removed before Settle
  PlanResume(peer, c);
  Touch(peer);
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
    c->linger_until_ms = now_ms_ + limits::kLingerTimeout.count();
    Swallow(c);
    if (c->dead) return Drop(peer, c, false);
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
