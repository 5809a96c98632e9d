#include "server/net/server.h"

#include <pistache/reactor.h>
#include <sys/random.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <thread>

#include "common/base/unique_fd.h"
#include "server/net/acceptor.h"
#include "server/net/listen_socket.h"
#include "server/net/worker.h"

namespace latchkey::net {
namespace {

constexpr std::chrono::milliseconds kPoll{5};

std::uint64_t RandomSeed() {
  std::uint64_t seed = 0;
  INVARIANT(::getrandom(&seed, sizeof seed, 0) == sizeof seed);
  return seed;
}

class ServerImpl final : public Server {
 public:
  ~ServerImpl() override { Stop(); }

  Status Begin(const ServerOptions& options, const HandlerFactory& factory,
               std::shared_ptr<const tls::TlsContext> trust);

  std::uint16_t port() const override { return shared_->port; }
  void Reload(std::shared_ptr<const tls::TlsContext> trust) override;
  bool Drain(std::chrono::milliseconds timeout) override;
  ServerStats stats() const override;

 private:
  Result<std::vector<std::shared_ptr<Worker>>> MakeWorkers(const HandlerFactory& factory);
  Status StartReactor(std::vector<std::shared_ptr<Worker>> ready);
  void StopAccepting();
  bool WaitForNoConnections(std::chrono::milliseconds timeout) const;
  void Stop();

  std::shared_ptr<Shared> shared_;
  UniqueFd listener_;
  std::unique_ptr<HandshakeTable> handshakes_;
  std::unique_ptr<Pistache::Aio::Reactor> reactor_;
  std::vector<std::shared_ptr<Worker>> workers_;
  std::vector<std::unique_ptr<Acceptor>> acceptors_;
};

// The workers are made first, so that a failure is an error and not an exception inside the
// reactor.
Result<std::vector<std::shared_ptr<Worker>>> ServerImpl::MakeWorkers(
    const HandlerFactory& factory) {
  std::vector<std::shared_ptr<Worker>> ready;
  for (std::size_t i = 0; i < shared_->options.workers; ++i) {
    ASSIGN_OR_RETURN(ReplyMemory memory, ReplyMemory::Make(limits::kReplySlabBytes));
    ready.push_back(
        std::make_shared<Worker>(shared_, factory(), std::move(memory), RandomSeed(), nullptr));
  }
  return ready;
}

Status ServerImpl::StartReactor(std::vector<std::shared_ptr<Worker>> ready) {
  ASSIGN_OR_RETURN(ReplyMemory memory, ReplyMemory::Make(0));
  // The reactor runs copies of a pattern; ours hands out the workers made before.
  auto give = [stock = std::make_shared<std::vector<std::shared_ptr<Worker>>>(std::move(ready))] {
    INVARIANT(!stock->empty());
    auto worker = std::move(stock->back());
    stock->pop_back();
    return worker;
  };
  auto pattern = std::make_shared<Worker>(shared_, nullptr, std::move(memory), 0, std::move(give));
  try {
    reactor_ = std::make_unique<Pistache::Aio::Reactor>();
    reactor_->init(Pistache::Aio::AsyncContext(shared_->options.workers, "http"));
    const auto key =
        reactor_->addHandler(pattern);  // exactly one handler: the path for several throws
    for (const auto& handler : reactor_->handlers(key))
      workers_.push_back(std::static_pointer_cast<Worker>(handler));
    reactor_->run();
  } catch (const std::exception& error) {
    return Error{Errc::kUnavailable,
                 std::string("cannot start the network threads: ") + error.what()};
  }
  return {};
}

Status ServerImpl::Begin(const ServerOptions& options, const HandlerFactory& factory,
                         std::shared_ptr<const tls::TlsContext> trust) {
  INVARIANT(options.workers > 0 && options.acceptors > 0);
  shared_ = std::make_shared<Shared>(options, std::move(trust));
  ASSIGN_OR_RETURN(listener_, ListenOn(options.address, options.port, &shared_->port));
  ASSIGN_OR_RETURN(auto ready, MakeWorkers(factory));
  RETURN_IF_ERROR(StartReactor(std::move(ready)));
  handshakes_ = std::make_unique<HandshakeTable>(
      std::min(options.max_handshakes, ShareOf(options.max_connections, limits::kHandshakeShare)),
      options.max_handshakes_per_address);
  for (std::size_t i = 0; i < options.acceptors; ++i) {
    acceptors_.push_back(std::make_unique<Acceptor>(i, listener_.get(), shared_, handshakes_.get(),
                                                    workers_, &acceptors_));
  }
  for (const auto& acceptor : acceptors_) acceptor->Start();
  return {};
}

void ServerImpl::Reload(std::shared_ptr<const tls::TlsContext> trust) {
  const std::uint64_t epoch = trust->epoch();
  shared_->trust.With([&](auto& current) { current = std::move(trust); });
  shared_->epoch.store(epoch, std::memory_order_release);
  for (const auto& worker : workers_) worker->mailbox()->Wake();
}

void ServerImpl::StopAccepting() {
  for (const auto& acceptor : acceptors_) acceptor->Stop();
  acceptors_.clear();
  listener_.Reset();
}

bool ServerImpl::WaitForNoConnections(std::chrono::milliseconds timeout) const {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (shared_->counters.connections.load() > 0) {
    if (std::chrono::steady_clock::now() >= deadline) return false;
    std::this_thread::sleep_for(kPoll);
  }
  return true;
}

bool ServerImpl::Drain(std::chrono::milliseconds timeout) {
  shared_->draining.store(true);
  StopAccepting();
  for (const auto& worker : workers_) worker->mailbox()->Wake();
  const bool ended = WaitForNoConnections(timeout);
  Stop();
  return ended;
}

void ServerImpl::Stop() {
  StopAccepting();
  for (const auto& worker : workers_) worker->CutAll();
  // Bounded: a worker that hangs inside a handler must not keep the process from ending.
  if (!workers_.empty()) WaitForNoConnections(std::chrono::seconds(5));
  if (reactor_) reactor_->shutdown();
  reactor_.reset();  // joins the worker threads
  workers_.clear();
}

ServerStats ServerImpl::stats() const {
  const Counters& c = shared_->counters;
  ServerStats s;
  s.accepted = c.accepted;
  s.handshakes_ok = c.handshakes_ok;
  s.handshakes_failed = c.handshakes_failed;
  s.handshakes_timed_out = c.handshakes_timed_out;
  s.handshakes_displaced = c.handshakes_displaced;
  s.handshakes_in_flight = handshakes_->size();
  s.connections = c.connections;
  s.connections_refused = c.connections_refused;
  s.descriptors_exhausted = c.descriptors_exhausted;
  s.identity_displaced = c.identity_displaced;
  s.requests = c.requests;
  s.batches = c.batches;
  s.batches_unaudited = c.batches_unaudited;
  s.framing_refused = c.framing_refused;
  s.bodies_overloaded = c.bodies_overloaded;
  s.replies_overloaded = c.replies_overloaded;
  s.body_bytes_in_flight = c.body_bytes_in_flight;
  s.timed_out = c.timed_out;
  s.idle_closed = c.idle_closed;
  s.stalled_closed = c.stalled_closed;
  s.trust_closed = c.trust_closed;
  s.protocol_closed = c.protocol_closed;
  s.strangers_displaced = c.strangers_displaced;
  s.bytes_received = c.bytes_received;
  s.bytes_sent = c.bytes_sent;
  s.handler_silent = c.handler_silent;
  return s;
}

}  // namespace

Result<std::unique_ptr<Server>> Server::Start(const ServerOptions& options,
                                              const HandlerFactory& factory,
                                              std::shared_ptr<const tls::TlsContext> trust) {
  auto server = std::make_unique<ServerImpl>();
  RETURN_IF_ERROR(server->Begin(options, factory, std::move(trust)));
  return std::unique_ptr<Server>(std::move(server));
}

}  // namespace latchkey::net
