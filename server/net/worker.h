// One worker thread: established connections on a Pistache reactor. Reads, frames, asks the
// handler, holds the replies of a wake-up back until its audit records are written (rule A1),
// sends, keeps the deadlines.
#pragma once

#include <pistache/http.h>
#include <pistache/peer.h>
#include <pistache/transport.h>

#include <deque>
#include <functional>
#include <optional>
#include <unordered_map>
#include <vector>

#include "server/net/connection.h"
#include "server/net/mailbox.h"
#include "server/net/reply_memory.h"
#include "server/net/response.h"

namespace latchkey::net {

// A subclass of Pistache's transport that shares the reactor but none of its data path: peers are
// read here and answered here, the base class sees only its own queues. All private functions run
// on the worker's thread.
class Worker final : public Pistache::Tcp::Transport, private Responder {
 public:
  using Peer = std::shared_ptr<Pistache::Tcp::Peer>;
  using Make = std::function<std::shared_ptr<Worker>()>;

  // `make` makes the workers proper: the reactor keeps the first object as a pattern and runs
  // copies of it.
  Worker(std::shared_ptr<Shared> shared, std::unique_ptr<net::Handler> handler, ReplyMemory memory,
         std::uint64_t id_seed, Make make);
  ~Worker() override;

  void registerPoller(Pistache::Polling::Epoll& poller) override;
  void onReady(const Pistache::Aio::FdSet& fds) override;
  std::shared_ptr<Pistache::Aio::Handler> clone() const override { return make_(); }

  // Any thread.
  const std::shared_ptr<Mailbox>& mailbox() const { return mailbox_; }
  std::size_t connections() const { return connections_.load(std::memory_order_relaxed); }
  // Cuts every connection, soon; `connections()` tells when it is done.
  void CutAll();

 private:
  static constexpr std::size_t kReadBytes = 16 * 1024;  // one TLS record

  // One answer of the batch. The order of the vector is the order on the wire.
  struct Queued {
    Connection* connection;
    ReplyBlock block;
    std::size_t send_bytes;  // 0 < send_bytes <= block.size: a HEAD leaves its body behind
    bool audited;  // goes out whatever Commit() says: it was committed elsewhere, or tells nothing
    bool closes;   // the last answer of its connection
    bool head_only;
    RequestId id;
    std::string_view constant;  // sent in place of the block when not empty
  };

  // Wake-ups, and the life of connections (worker.cc).
  void BeginWakeUp();
  void HandleEvent(const Pistache::Aio::FdSet::Entry& event);
  void PassToBase(Pistache::Polling::Tag tag);
  void FinishWakeUp();
  bool MustQueue(const Connection& c) const;
  void TakeSecondTurns();
  void TakeTurns(std::deque<Peer>* queue, std::chrono::milliseconds time);
  void FlushCounters();
  void TakeLetters();
  void Adopt(const Peer& peer);
  void Deliver(Delivery* delivery);
  void Displace(const ConnectionControl& control);
  void Tick();
  void CheckDeadlines(const Peer& peer, Connection* c);
  void SweepSome();
  void Settle(const Peer& peer, Connection* c);
  void Drop(const Peer& peer, Connection* c, bool graceful);
  void Touch(const Peer& peer);

  // Reading (worker_read.cc).
  bool MayParse(const Connection& c) const;
  static void HeedHangUp(const Connection& c);
  void ReadFrom(const Peer& peer, Connection* c, bool half_closed);
  void Swallow(const Peer& peer, Connection* c);
  void Feed(const Peer& peer, Connection* c, char* data, std::size_t size);
  static void NoteBusy(Connection* c);
  std::size_t Process(const Peer& peer, Connection* c, std::string_view input);
  // Both return how much of the input they took.
  const FramerLimits& LimitsFor(const Connection& c) const;
  std::size_t ProcessHead(const Peer& peer, Connection* c, std::string_view input);
  std::size_t ProcessBody(const Peer& peer, Connection* c, std::string_view input);
  void ProcessInput(const Peer& peer, Connection* c);
  void Resume(const Peer& peer, Connection* c);
  void PlanResume(const Peer& peer, Connection* c);

  // Answering (worker_answer.cc).
  void HandleRequest(const Peer& peer, Connection* c, const RequestHead& head,
                     std::string_view body);
  void AskHandler(const Peer& peer, Connection* c, const RequestHead& head, std::string_view body);
  bool ParserAgrees(const RequestHead& head);
  bool IsJudged(Connection* c);
  bool StillKept(const Connection& c) const;
  void Refuse(Connection* c, int status);  // closes after the answer
  void Answer(Connection* c, int status, std::string_view content_type,
              std::span<const Header> headers, std::string_view body, bool audited, RequestId id);
  Result<ReplyBlock> BuildHead(const Connection& c, int status, std::string_view content_type,
                               std::span<const Header> headers, std::size_t body_bytes,
                               RequestId id, std::size_t* head_bytes);
  void Enqueue(Connection* c, ReplyBlock block, std::size_t send_bytes, bool audited, RequestId id);
  std::string UnauditedReply(const Queued& queued) const;
  void Write(Connection* c, std::string_view bytes);
  void Commit();
  void SendQueued(Queued* queued, bool audit_written);
  RequestId NextId();

  // Responder, for the request under way.
  std::span<char> Discard(std::size_t body_bytes, std::string_view why);
  std::span<char> Start(int status, std::string_view content_type, std::span<const Header> headers,
                        std::size_t body_bytes) override;
  std::shared_ptr<DeferredReply> Defer() override;

  static Connection* Of(const Peer& peer) {
    return Connection::Of(static_cast<const SSL*>(peer->ssl()));
  }

  const std::shared_ptr<Shared> shared_;
  const std::unique_ptr<net::Handler> handler_;
  const Make make_;
  const std::shared_ptr<Mailbox> mailbox_ = std::make_shared<Mailbox>();
  UniqueFd timer_;
  std::atomic<std::size_t> connections_{0};
  std::atomic<bool> cut_all_{false};
  std::shared_ptr<const tls::TlsContext> trust_;
  std::vector<std::weak_ptr<Pistache::Tcp::Peer>>
      sweep_;  // connections of older epochs that were not yet judged again

  // Of the wake-up.
  std::int64_t now_ms_ = 0;
  std::int64_t now_s_ = 0;
  std::int64_t date_s_ = -1;
  char date_[32] = {};
  std::vector<Peer> touched_;
  std::chrono::steady_clock::time_point first_turns_end_;
  std::deque<Peer> resume_;
  std::deque<Peer> strangers_;  // likewise, without a certificate: after all others
  std::vector<Queued> queue_;
  std::size_t queue_bytes_ = 0;
  std::size_t handled_ = 0;     // requests since the last Commit()
  Traffic traffic_;             // of this wake-up
  std::uint64_t requests_ = 0;  // likewise
  ReplyMemory memory_;
  std::unique_ptr<char[]> read_buffer_;
  std::string discarded_;  // room for a body that cannot be sent
  std::unique_ptr<Pistache::Http::RequestParser> parser_;
  FramerLimits stranger_limits_;
  std::uint64_t id_state_;

  // The request under way, while the handler runs.
  struct UnderWay {
    const Peer* peer = nullptr;
    Connection* connection = nullptr;
    RequestId id;
    bool started = false;
    bool deferred = false;
    ReplyBlock block;
    std::size_t head_bytes = 0;
  } current_;
};

}  // namespace latchkey::net
