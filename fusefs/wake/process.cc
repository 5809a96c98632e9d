#include "fusefs/wake/process.h"

#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>

namespace latchkey::wake {

bool WaitForPoke(int socket_fd, int limit_ms) {
  pollfd wait{socket_fd, POLLIN, 0};
  const int ready = poll(&wait, 1, limit_ms);
  if (ready < 0) return errno == EINTR;
  if (ready == 0) return true;
  std::array<char, 256> pokes;
  const ssize_t count = recv(socket_fd, pokes.data(), pokes.size(), MSG_DONTWAIT);
  return count > 0 || (count < 0 && (errno == EAGAIN || errno == EINTR));
}

}  // namespace latchkey::wake
