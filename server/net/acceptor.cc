#include "server/net/acceptor.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "common/base/log.h"
#include "common/tls/openssl.h"

namespace latchkey::net {
namespace {

constexpr std::uint64_t kListenerTag = 0;  // handshakes have ids from 1
constexpr std::uint64_t kWakeTag = ~std::uint64_t{0};
constexpr int kAcceptsPerWakeUp = 16;
constexpr std::int64_t kPauseMs = 100;  // without descriptors
constexpr int kFailuresLoggedPerSecond = 10;
constexpr int kFirstHighFd = 256;
constexpr int kLastHighFd = 48 * 1024;

AddressKey KeyOf(const sockaddr_storage& address) {
  AddressKey key{};
  if (address.ss_family == AF_INET6) {
    const in6_addr& ip = reinterpret_cast<const sockaddr_in6&>(address).sin6_addr;
    // Whoever has one address of a /64 has them all.
    std::memcpy(key.data(), &ip, IN6_IS_ADDR_V4MAPPED(&ip) ? key.size() : key.size() / 2);
  } else {
    key[10] = key[11] = 0xff;
    std::memcpy(key.data() + 12, &reinterpret_cast<const sockaddr_in&>(address).sin_addr, 4);
  }
  return key;
}

std::string TextOf(const sockaddr_storage& address) {
  char text[INET6_ADDRSTRLEN] = "";
  const void* bytes =
      address.ss_family == AF_INET6
          ? static_cast<const void*>(&reinterpret_cast<const sockaddr_in6&>(address).sin6_addr)
          : static_cast<const void*>(&reinterpret_cast<const sockaddr_in&>(address).sin_addr);
  ::inet_ntop(address.ss_family, bytes, text, sizeof text);
  return text;
}

int LastHighFd() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return kFirstHighFd;
  const auto all = static_cast<int>(std::min<rlim_t>(limit.rlim_cur, 2 * kLastHighFd));
  return std::clamp(all - all / 4, kFirstHighFd, kLastHighFd);
}

// A number that was just closed is not used again soon: should anything ever keep a stale number,
// it will not find another client's socket behind it (network.md, section 2, item 2).
int Renumber(int fd) {
  static std::atomic<int> next{kFirstHighFd};
  static const int last = LastHighFd();
  int lowest = next.fetch_add(1, std::memory_order_relaxed);
  if (lowest > last) {
    next.store(kFirstHighFd, std::memory_order_relaxed);
    lowest = kFirstHighFd;
  }
  const int moved = ::fcntl(fd, F_DUPFD_CLOEXEC, lowest);
  if (moved < 0) return fd;  // RLIMIT_NOFILE is lower than that
  ::close(fd);
  return moved;
}

std::string IdentityOf(const Connection& c) {
  if (c.certificate && c.certificate->names.spiffe_id)
    return "spiffe " + *c.certificate->names.spiffe_id;
  if (c.certificate && c.certificate->names.common_name)
    return "cn " + *c.certificate->names.common_name;
  return "address " + c.peer_network;  // nobody yet: all of one address together
}

}  // namespace

// ---- HandshakeTable
// --------------------------------------------------------------------------------------------------------

std::size_t HandshakeTable::AddressHash::operator()(const AddressKey& key) const {
  return std::hash<std::string_view>{}({reinterpret_cast<const char*>(key.data()), key.size()});
}

void HandshakeTable::Erase(std::list<Entry>::iterator entry) {
  const auto count = per_address_.find(entry->address);
  if (--count->second == 0) per_address_.erase(count);
  by_id_.erase(entry->id);
  order_.erase(entry);
}

std::vector<HandshakeTable::Entry> HandshakeTable::Enter(std::size_t acceptor,
                                                         const AddressKey& address,
                                                         std::uint64_t* id) {
  const std::lock_guard lock(mutex_);
  std::vector<Entry> displaced;
  const auto displace = [&](std::list<Entry>::iterator oldest) {
    displaced.push_back(*oldest);
    Erase(oldest);
  };
  const auto of_address = per_address_.find(address);
  if (of_address != per_address_.end() && of_address->second >= limit_per_address_) {
    const auto oldest = std::find_if(order_.begin(), order_.end(),
                                     [&](const Entry& e) { return e.address == address; });
    if (oldest != order_.end()) displace(oldest);
  }
  if (order_.size() >= limit_ && !order_.empty()) displace(order_.begin());
  *id = next_id_++;
  order_.push_back({*id, acceptor, address});
  by_id_[*id] = std::prev(order_.end());
  ++per_address_[address];
  return displaced;
}

void HandshakeTable::Leave(std::uint64_t id) {
  const std::lock_guard lock(mutex_);
  if (const auto found = by_id_.find(id); found != by_id_.end()) Erase(found->second);
}

std::size_t HandshakeTable::size() const {
  const std::lock_guard lock(mutex_);
  return order_.size();
}

// ---- Acceptor
// ----------------------------------------------------------------------------------------------------------------

Acceptor::Acceptor(std::size_t index, int listen_fd, std::shared_ptr<Shared> shared,
                   HandshakeTable* table, std::vector<std::shared_ptr<Worker>> workers,
                   const std::vector<std::unique_ptr<Acceptor>>* peers)
    : index_(index),
      listen_fd_(listen_fd),
      shared_(std::move(shared)),
      table_(table),
      workers_(std::move(workers)),
      peers_(peers),
      epoll_(::epoll_create1(EPOLL_CLOEXEC)),
      wake_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)),
      spare_(::open("/dev/null", O_RDONLY | O_CLOEXEC)) {
  INVARIANT(epoll_.valid() && wake_.valid());
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = kWakeTag;
  INVARIANT(::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, wake_.get(), &event) == 0);
  WatchListener(true);
}

Acceptor::~Acceptor() {
  Stop();
}

void Acceptor::Start() {
  thread_ = std::jthread([this] {
    ::pthread_setname_np(::pthread_self(), "tls-accept");
    Run();
  });
}

void Acceptor::Stop() {
  stopping_.store(true);
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(wake_.get(), &one, sizeof one);
  if (thread_.joinable()) thread_.join();
}

void Acceptor::WatchListener(bool on) {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLEXCLUSIVE;
  event.data.u64 = kListenerTag;
  ::epoll_ctl(epoll_.get(), on ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, listen_fd_, &event);
}

void Acceptor::Run() {
  epoll_event events[256];
  while (!stopping_.load()) {
    constexpr int kWaitMs = 50;
    const int count = ::epoll_wait(epoll_.get(), events, std::size(events),
                                   order_.empty() && paused_until_ms_ == 0 ? -1 : kWaitMs);
    for (int i = 0; i < count; ++i) {
      const std::uint64_t tag = events[i].data.u64;
      if (tag == kListenerTag) {
        AcceptSome();
      } else if (tag == kWakeTag) {
        DropDisplaced();
      } else {
        Step(tag);
      }
    }
    DropOverdue();
    if (paused_until_ms_ != 0 && NowMs() >= paused_until_ms_) {
      paused_until_ms_ = 0;
      WatchListener(true);
    }
  }
  while (!order_.empty()) Abort(order_.front());
}

void Acceptor::AcceptSome() {
  for (int i = 0; i < kAcceptsPerWakeUp; ++i) {
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    const int fd = ::accept4(listen_fd_, reinterpret_cast<sockaddr*>(&address), &size,
                             SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
      Count(shared_->counters.accepted);
      AcceptOne(fd, KeyOf(address), TextOf(address));
      continue;
    }
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) return ShedOne();
    if (errno != EINTR && errno != ECONNABORTED) return;
  }
}

// Without descriptors the listener stays readable: taking nothing would spin. One connection is
// taken and closed, so that its client hears at once, and the listener rests for a moment.
void Acceptor::ShedOne() {
  Count(shared_->counters.descriptors_exhausted);
  spare_.Reset();
  const int taken = ::accept4(listen_fd_, nullptr, nullptr, SOCK_CLOEXEC);
  if (taken >= 0) ::close(taken);
  spare_.Reset(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  WatchListener(false);
  paused_until_ms_ = NowMs() + kPauseMs;
}

void Acceptor::AcceptOne(int fd, const AddressKey& address, std::string address_text) {
  if (shared_->counters.connections.load(std::memory_order_relaxed) >=
      shared_->options.max_connections) {
    Count(shared_->counters.connections_refused);
    ::close(fd);
    return;
  }
  fd = Renumber(fd);
  const int one = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
  SSL* ssl = Connection::NewSsl(fd, shared_, shared_->CurrentTrust());
  if (ssl == nullptr) {
    tls::DrainOpenSslErrors();
    ::close(fd);
    return;
  }
  Connection* c = Connection::Of(ssl);
  c->peer_address = std::move(address_text);
  c->peer_network.assign(address.begin(), address.end());
  std::uint64_t id = 0;
  const auto displaced = table_->Enter(index_, address, &id);
  const auto place = order_.insert(order_.end(), id);
  handshakes_[id] = {id,   ssl, c, address, NowMs() + shared_->options.handshake_timeout.count(),
                     place};
  epoll_event event{};
  event.events = EPOLLIN | EPOLLRDHUP | EPOLLET;
  event.data.u64 = id;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) Abort(id);
  for (const auto& entry : displaced) {
    Count(shared_->counters.handshakes_displaced);
    if (entry.acceptor == index_) {
      Abort(entry.id);
    } else {
      (*peers_)[entry.acceptor]->Displace(entry.id);
    }
  }
}

void Acceptor::Displace(std::uint64_t id) {
  {
    const std::lock_guard lock(displaced_mutex_);
    displaced_.push_back(id);
  }
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(wake_.get(), &one, sizeof one);
}

void Acceptor::DropDisplaced() {
  std::uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = ::read(wake_.get(), &count, sizeof count);
  std::vector<std::uint64_t> ids;
  {
    const std::lock_guard lock(displaced_mutex_);
    ids.swap(displaced_);
  }
  for (const std::uint64_t id : ids) Abort(id);
}

void Acceptor::DropOverdue() {
  const std::int64_t now_ms = NowMs();
  while (!order_.empty()) {
    const std::uint64_t id = order_.front();
    if (handshakes_.at(id).deadline_ms > now_ms) return;
    Count(shared_->counters.handshakes_timed_out);
    Abort(id);
  }
}

void Acceptor::Step(std::uint64_t id) {
  const auto found = handshakes_.find(id);
  if (found == handshakes_.end()) return;  // aborted earlier in this round
  Handshake& handshake = found->second;
  ERR_clear_error();
  const int result = SSL_do_handshake(handshake.ssl);
  const int error = SSL_get_error(handshake.ssl, result);
  handshake.connection->Pump();  // our flight, or the alert
  if (!handshake.connection->dead && result == 1) return Finish(id);
  if (!handshake.connection->dead &&
      (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE)) {
    if (handshake.connection->backlog_bytes() == 0) return;
    epoll_event event{};  // rare: our flight is larger than the socket's buffer
    event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
    event.data.u64 = id;
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, handshake.connection->fd, &event);
    return;
  }
  Count(shared_->counters.handshakes_failed);
  LogFailure(handshake);
  Abort(id);
}

// A refused chain is worth a line: someone's certificate is wrong. Mere noise on the port is not.
// Bounded, because a stranger decides how often it happens.
void Acceptor::LogFailure(const Handshake& handshake) {
  const std::string detail = tls::DrainOpenSslErrors();
  const std::string refusal = tls::ChainRefusalOf(handshake.ssl);
  const std::int64_t second = NowMs() / 1000;
  if (second != log_second_) logged_in_second_ = noise_in_second_ = 0;
  log_second_ = second;
  // Noise does not use up what is kept for refused chains.
  int& logged = refusal.empty() ? noise_in_second_ : logged_in_second_;
  if (++logged > kFailuresLoggedPerSecond) return;
  Log(refusal.empty() ? LogLevel::kDebug : LogLevel::kInfo, "tls handshake failed",
      {{"peer", handshake.connection->peer_address},
       {"reason", refusal.empty() ? detail : refusal}});
}

void Acceptor::Finish(std::uint64_t id) {
  Handshake handshake = handshakes_.at(id);
  Connection* c = handshake.connection;
  c->certificate = tls::PeerCertificateOf(handshake.ssl);
  const bool has_certificate = SSL_get0_peer_certificate(handshake.ssl) != nullptr;
  // All of this is enforced by the context already; a mistake there must not become a connection
  // (rule T6).
  const bool good = SSL_session_reused(handshake.ssl) == 0 &&
                    SSL_get_verify_result(handshake.ssl) == X509_V_OK &&
                    has_certificate == (c->certificate != nullptr) &&
                    (has_certificate || !c->trust->require_client_certificate());
  if (!good) {
    Count(shared_->counters.handshakes_failed);
    return Abort(id);
  }
  Count(shared_->counters.handshakes_ok);
  table_->Leave(id);
  order_.erase(handshake.place);
  handshakes_.erase(id);
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, c->fd, nullptr);
  HandOver(&handshake);
}

Worker& Acceptor::QuietestWorker(std::size_t* index) const {
  *index = 0;
  for (std::size_t i = 1; i < workers_.size(); ++i) {
    if (workers_[i]->connections() < workers_[*index]->connections()) *index = i;
  }
  return *workers_[*index];
}

void Acceptor::MakeRoom(const std::shared_ptr<ConnectionControl>& victim, Counter* counter) {
  if (!victim) return;
  Count(*counter);
  victim->displaced.store(true);
  workers_[victim->worker]->mailbox()->Post(victim);
}

void Acceptor::HandOver(Handshake* handshake) {
  Connection* c = handshake->connection;
  Worker& worker = QuietestWorker(&c->control->worker);
  c->control->fd = c->fd;
  c->control->last_active_ms.store(NowMs());
  c->identity = IdentityOf(*c);
  // First: the second table sets the account, which is one address's.
  if (!c->certificate) {
    MakeRoom(shared_->strangers.Add({}, c->control), &shared_->counters.strangers_displaced);
  }
  MakeRoom(shared_->identities.Add(c->identity, c->control), &shared_->counters.identity_displaced);
  c->GuardSession();
  // What the handshake needed lay in it; the next answer may be a minute away.
  if (c->backlog_bytes() == 0) std::string().swap(c->out);
  // Only from now on: before, the first request could have hidden in OpenSSL's buffer without an
  // edge to announce it.
  SSL_set_read_ahead(handshake->ssl, 1);
  // A client without TCP_NODELAY holds its first request back until the end of its handshake is acknowledged, which else is
  // 40 ms later.
  const int one = 1;
  ::setsockopt(c->fd, IPPROTO_TCP, TCP_QUICKACK, &one, sizeof one);
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  ::getpeername(c->fd, reinterpret_cast<sockaddr*>(&address), &size);
  if (address.ss_family != AF_INET && address.ss_family != AF_INET6)
    address.ss_family = AF_INET;  // the peer has gone
  const int fd = c->fd;
  auto peer = Pistache::Tcp::Peer::CreateSSL(
      fd, Pistache::Address::fromUnix(reinterpret_cast<sockaddr*>(&address)), handshake->ssl);
  if (!worker.mailbox()->Post(std::move(peer))) ::close(fd);
}

// Sends the alert that OpenSSL has prepared and closes so that the peer sees it: unread input would
// turn the close into a reset, and the reset would overtake the alert.
void Acceptor::Abort(std::uint64_t id) {
  const auto found = handshakes_.find(id);
  if (found == handshakes_.end()) return;
  const Handshake handshake = found->second;
  const int fd = handshake.connection->fd;
  handshake.connection->Pump();
  char ignored[4096];
  for (int i = 0; i < 16 && ::recv(fd, ignored, sizeof ignored, MSG_DONTWAIT) > 0; ++i) {
  }
  ::shutdown(fd, SHUT_WR);
  table_->Leave(id);
  order_.erase(handshake.place);
  handshakes_.erase(found);
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  SSL_free(handshake.ssl);
  ::close(fd);
}

}  // namespace latchkey::net
