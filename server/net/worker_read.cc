// How a worker reads: bytes of the socket into requests.
#include <openssl/err.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "server/net/worker.h"

namespace latchkey::net {
namespace {

constexpr int kReadsPerWakeUp = 16;  // then the others get their turn

}  // namespace

bool Worker::MayParse(const Connection& c) const {
  return !c.dead && !c.closing && !c.waiting &&
         c.backlog_bytes() + c.queued_bytes <= shared_->options.reply_backlog_pause_bytes;
}

void Worker::ReadFrom(const Peer& peer, Connection* c, bool half_closed) {
  if (c->linger_until_ms != 0) return Swallow(peer, c);
  if (c->resuming) {  // what it sent before comes first, in its turn
    c->readable = true;
    return;
  }
  c->readable = false;
  for (int reads = 0; !c->dead && !c->closing && !c->eof; ++reads) {
    // A connection that waits is read on for as long as its input is small: that is how a hang-up
    // is noticed.
    const bool may_buffer = c->waiting && c->in.size() < shared_->options.framer.max_head_bytes;
    const bool has_had_its_turn = !c->waiting && c->TurnIsOver();
    if (reads == kReadsPerWakeUp || has_had_its_turn || !(MayParse(*c) || may_buffer)) {
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
void Worker::Swallow(const Peer& peer, Connection* c) {
  c->readable = false;
  for (int reads = 0; reads < kReadsPerWakeUp; ++reads) {
    const ssize_t got = ::recv(c->fd, read_buffer_.get(), kReadBytes, MSG_DONTWAIT);
    if (got > 0) {
      c->swallowed_bytes += static_cast<std::size_t>(got);
      // A stop of the server does not wait for uploads that are refused already.
      if (!shared_->draining.load(std::memory_order_relaxed))
        c->linger_until_ms = std::min(now_ms_ + limits::kLingerPause.count(), c->linger_end_ms);
      continue;
    }
    if (got == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) c->dead = true;
    return;
  }
  if (c->swallowed_bytes > limits::kMaxSwallowedBytes) {
    c->dead = true;  // it floods: let it have its reset
    return;
  }
  c->readable = true;
  PlanResume(peer, c);
}

void Worker::Feed(const Peer& peer, Connection* c, char* data, std::size_t size) {
  if (c->in.empty()) {
    const std::size_t used = Process(peer, c, {data, size});
    if (used < size && !c->closing) c->in.append(data + used, size - used);
  } else {
    c->in.append(data, size);
    ProcessInput(peer, c);
  }
  WipeMemory(data, size);  // a body holds content
  c->control->last_active_ms.store(now_ms_, std::memory_order_relaxed);
  NoteBusy(c);
  if (c->TurnIsOver()) PlanResume(peer, c);
}

void Worker::NoteBusy(Connection* c) {
  c->control->busy.store(c->waiting || c->phase != Connection::Phase::kIdle || !c->in.empty(),
                         std::memory_order_relaxed);
}

std::size_t Worker::Process(const Peer& peer, Connection* c, std::string_view input) {
  std::size_t at = 0;
  while (MayParse(*c) && !c->TurnIsOver()) {
    const std::string_view rest = input.substr(at);
    if (rest.empty()) break;
    const std::size_t taken = c->body ? ProcessBody(peer, c, rest) : ProcessHead(peer, c, rest);
    if (taken == 0) break;
    at += taken;
    c->turn_input_bytes += taken;
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
  const bool has_more =
      c->linger_until_ms != 0 ? c->readable : MayParse(*c) && (!c->in.empty() || c->readable);
  if (c->resuming || !has_more) return;
  c->resuming = true;
  (c->certificate ? resume_ : strangers_).push_back(peer);
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
  if (c->dead) return;  // its descriptor may be closed already
  if (c->linger_until_ms != 0) {
    if (c->readable) Swallow(peer, c);
    if (c->dead) Touch(peer);
    return;
  }
  if (!MayParse(*c)) return;
  c->BeginTurn();
  ProcessInput(peer, c);
  NoteBusy(c);
  if (c->readable && MayParse(*c)) ReadFrom(peer, c, true);
  if (c->TurnIsOver()) PlanResume(peer, c);
  HeedHangUp(*c);
  if (c->closing || c->dead || c->eof) Touch(peer);
}

}  // namespace latchkey::net
