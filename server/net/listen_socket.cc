#include "server/net/listen_socket.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

namespace latchkey::net {
namespace {

constexpr int kListenBacklog = 1024;

}  // namespace

Result<UniqueFd> ListenOn(const std::string& address, std::uint16_t port,
                          std::uint16_t* bound_port) {
  sockaddr_storage at{};
  socklen_t size = 0;
  auto* v4 = reinterpret_cast<sockaddr_in*>(&at);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&at);
  if (::inet_pton(AF_INET, address.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    size = sizeof *v4;
  } else if (::inet_pton(AF_INET6, address.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    size = sizeof *v6;
  } else {
    return Error{Errc::kInvalidArgument,
                 "listen address " + address + " is not a numeric IPv4 or IPv6 address"};
  }
  const std::string where = "cannot listen on " + address + " port " + std::to_string(port) + ": ";
  UniqueFd fd(::socket(at.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const int one = 1;
  if (!fd.valid() || ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
      ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) !=
          0 ||  // accepted sockets inherit it
      ::bind(fd.get(), reinterpret_cast<sockaddr*>(&at), size) != 0 ||
      ::listen(fd.get(), kListenBacklog) != 0 ||
      ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&at), &size) != 0) {
    return Error{Errc::kUnavailable, where + std::strerror(errno)};
  }
  *bound_port = ntohs(at.ss_family == AF_INET ? v4->sin_port : v6->sin6_port);
  return fd;
}

}  // namespace latchkey::net
