// How a worker answers: a request to the handler, its reply through the batch to the socket.
#include <openssl/err.h>

#include <algorithm>
#include <cstring>

#include "common/base/log.h"
#include "server/net/worker.h"

namespace latchkey::net {
namespace {

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
  ++c->turn_requests;
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
  c->turn_bytes += block.size;
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
    c->ChargeBacklog();  // the next request of this wake-up must see it
  }
  if (!last) return;
  const bool goes_on = !c->in.empty() || c->readable;
  if (!(c->dead || c->closing || goes_on || c->backlog_bytes() > 0)) return;
  const Peer& peer = peers.at(c->fd);  // nothing is removed before Settle
  PlanResume(peer, c);
  Touch(peer);
}

}  // namespace latchkey::net
