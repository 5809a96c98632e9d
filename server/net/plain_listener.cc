#include "server/net/plain_listener.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <list>
#include <thread>
#include <vector>

#include "common/base/clock.h"
#include "common/base/unique_fd.h"
#include "server/net/framer.h"
#include "server/net/listen_socket.h"

namespace latchkey::net {
namespace {

constexpr std::size_t kMaxHeadBytes = 4096;

const char* Reason(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 503:
      return "Service Unavailable";
    default:
      return status < 500 ? "Bad Request" : "Not Implemented";
  }
}

std::string Serialise(const PlainAnswer& answer, bool with_body) {
  std::string text =
      "HTTP/1.1 " + std::to_string(answer.status) + " " + Reason(answer.status) + "\r\n";
  if (!answer.content_type.empty()) text += "Content-Type: " + answer.content_type + "\r\n";
  text +=
      "Content-Length: " + std::to_string(answer.body.size()) +
      "\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n";
  if (with_body) text += answer.body;
  return text;
}

struct Connection {
  UniqueFd fd;
  MonotonicTime deadline;
  std::string input;
  std::size_t scanned = 0;
  std::string output;  // empty: still reading
  std::size_t sent = 0;
};

class Impl final : public PlainListener {
 public:
  Impl(UniqueFd listener, std::uint16_t port, UniqueFd stop, PlainHandler handler)
      : listener_(std::move(listener)),
        port_(port),
        stop_(std::move(stop)),
        handler_(std::move(handler)) {
    thread_ = std::jthread([this] { Run(); });
  }
  ~Impl() override {
    const std::uint64_t one = 1;
    INVARIANT(::write(stop_.get(), &one, sizeof one) == sizeof one);
    thread_.join();
  }
  std::uint16_t port() const override { return port_; }

 private:
  void Run();
  void Accept();
  bool Advance(Connection* connection);  // false: close it
  bool Read(Connection* connection);
  bool Write(Connection* connection);
  void Answer(Connection* connection, int framing, const RequestHead& head);
  int PollTimeoutMs() const;

  const UniqueFd listener_;
  const std::uint16_t port_;
  const UniqueFd stop_;
  const PlainHandler handler_;
  std::list<Connection> open_;  // its thread's alone; oldest first
  std::jthread thread_;
};

void Impl::Accept() {
  UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (!fd.valid()) return;
  // The one that waits longest makes room: silent peers cannot keep the next scrape out.
  if (open_.size() >= limits::kMaxPlainConnections) open_.pop_front();
  open_.push_back(
      {std::move(fd), SystemClock().Monotonic() + limits::kPlainDeadline, {}, 0, {}, 0});
}

void Impl::Answer(Connection* connection, int framing, const RequestHead& head) {
  PlainAnswer answer{400, "text/plain; charset=utf-8", "bad request\n"};
  const bool is_head = framing == kComplete && head.method == Method::kHead;
  if (framing != kComplete) {
    answer.status = framing;
  } else if (head.method != Method::kGet && !is_head) {
    answer = {405, "text/plain; charset=utf-8", "method not allowed\n"};
  } else if (!head.has_body()) {
    answer = handler_(head.target.substr(0, head.target.find('?')));
  }
  connection->output = Serialise(answer, !is_head);
}

bool Impl::Read(Connection* connection) {
  char chunk[kMaxHeadBytes];
  const ssize_t got = ::recv(connection->fd.get(), chunk, sizeof chunk, 0);
  if (got < 0) return errno == EAGAIN || errno == EINTR;
  if (got == 0) return false;
  connection->input.append(chunk, static_cast<std::size_t>(got));
  FramerLimits limits;
  limits.max_head_bytes = kMaxHeadBytes;
  RequestHead head;
  const int framing = ParseHead(connection->input, limits, &connection->scanned, &head);
  if (framing == kNeedMore) return true;
  Answer(connection, framing, head);
  return Write(connection);
}

bool Impl::Write(Connection* connection) {
  while (connection->sent < connection->output.size()) {
    const ssize_t put = ::send(connection->fd.get(), connection->output.data() + connection->sent,
                               connection->output.size() - connection->sent, MSG_NOSIGNAL);
    if (put < 0) return errno == EAGAIN || errno == EINTR;
    connection->sent += static_cast<std::size_t>(put);
  }
  // Half-closed first: a reset would throw away what the peer has not read yet.
  ::shutdown(connection->fd.get(), SHUT_WR);
  return false;
}

bool Impl::Advance(Connection* connection) {
  return connection->output.empty() ? Read(connection) : Write(connection);
}

int Impl::PollTimeoutMs() const {
  if (open_.empty()) return -1;
  const auto left = open_.front().deadline - SystemClock().Monotonic();
  return static_cast<int>(
      std::max<std::int64_t>(0, std::chrono::ceil<std::chrono::milliseconds>(left).count()));
}

void Impl::Run() {
  std::vector<pollfd> polled;
  for (;;) {
    polled.assign({{stop_.get(), POLLIN, 0}, {listener_.get(), POLLIN, 0}});
    for (const Connection& connection : open_) {
      polled.push_back({connection.fd.get(),
                        static_cast<short>(connection.output.empty() ? POLLIN : POLLOUT), 0});
    }
    if (::poll(polled.data(), polled.size(), PollTimeoutMs()) < 0 && errno != EINTR) return;
    if (polled[0].revents != 0) return;
    const MonotonicTime now = SystemClock().Monotonic();
    std::size_t i = 2;
    for (auto at = open_.begin(); at != open_.end(); ++i) {
      const bool keep = (polled[i].revents == 0 || Advance(&*at)) && now < at->deadline;
      at = keep ? std::next(at) : open_.erase(at);
    }
    if (polled[1].revents != 0) Accept();
  }
}

}  // namespace

Result<std::unique_ptr<PlainListener>> PlainListener::Start(const PlainListenerOptions& options,
                                                            PlainHandler handler) {
  std::uint16_t port = 0;
  ASSIGN_OR_RETURN(UniqueFd listener, ListenOn(options.address, options.port, &port));
  UniqueFd stop(::eventfd(0, EFD_CLOEXEC));
  if (!stop.valid())
    return Error{Errc::kUnavailable, "cannot make the metrics listener: out of descriptors"};
  return std::unique_ptr<PlainListener>(
      new Impl(std::move(listener), port, std::move(stop), std::move(handler)));
}

}  // namespace latchkey::net
