#include "server/net/plain_listener.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "common/base/unique_fd.h"
#include "common/model/limits.h"

namespace latchkey::net {
namespace {

std::unique_ptr<PlainListener> Listener() {
  const auto handler = [](std::string_view path) -> PlainAnswer {
    if (path == "/big") return {200, "text/plain", std::string(3'000'000, 'b')};
    if (path == "/healthz") return {200, "text/plain", "ok\n"};
    return {404, "text/plain", "no " + std::string(path) + "\n"};
  };
  return PlainListener::Start({}, handler).value();
}

UniqueFd Connect(const PlainListener& listener) {
  UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = ::htonl(INADDR_LOOPBACK);
  address.sin_port = ::htons(listener.port());
  REQUIRE(::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  return fd;
}
void Send(const UniqueFd& fd, std::string_view text) {
  REQUIRE(::send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL) ==
          static_cast<ssize_t>(text.size()));
}
// Everything until the listener closes.
std::string Receive(const UniqueFd& fd) {
  std::string text;
  char chunk[65536];
  ssize_t got;
  while ((got = ::recv(fd.get(), chunk, sizeof chunk, 0)) > 0)
    text.append(chunk, static_cast<std::size_t>(got));
  return text;
}
std::string Ask(const PlainListener& listener, std::string_view request) {
  const UniqueFd fd = Connect(listener);
  Send(fd, request);
  return Receive(fd);
}

}  // namespace

TEST_CASE("The plain listener answers GET and HEAD and refuses other methods", "[net]") {
  const auto listener = Listener();
  const std::string get = Ask(*listener, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
  CHECK_THAT(get, Catch::StartsWith("HTTP/1.1 200 OK\r\n") && Catch::EndsWith("\r\n\r\nok\n"));
  CHECK_THAT(get, Catch::Contains("Content-Length: 3\r\n"));
  const std::string head = Ask(*listener, "HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
  CHECK_THAT(head, Catch::Contains("Content-Length: 3\r\n") && Catch::EndsWith("\r\n\r\n"));
  CHECK_THAT(Ask(*listener, "GET /x?y=1 HTTP/1.1\r\nHost: x\r\n\r\n"), Catch::EndsWith("no /x\n"));
  CHECK_THAT(Ask(*listener, "POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"),
             Catch::StartsWith("HTTP/1.1 405 "));
  CHECK_THAT(Ask(*listener, "GET /healthz HTTP/1.1\nHost: x\n\n"),
             Catch::StartsWith("HTTP/1.1 400 "));
}

TEST_CASE("A big answer arrives whole at a slow reader, and pieces of a request are put together",
          "[net]") {
  const auto listener = Listener();
  const UniqueFd fd = Connect(*listener);
  for (const char c : std::string_view("GET /big HTTP/1.1\r\nHost: x\r\n\r\n"))
    Send(fd, std::string_view(&c, 1));
  // Others are served while the big one waits for its reader.
  CHECK_THAT(Ask(*listener, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"), Catch::EndsWith("ok\n"));
  const std::string big = Receive(fd);
  CHECK(big.size() - big.find("\r\n\r\n") - 4 == 3'000'000);
}

TEST_CASE("More silent peers than the listener holds do not keep the next request out", "[net]") {
  const auto listener = Listener();
  std::vector<UniqueFd> silent;
  for (std::size_t i = 0; i < limits::kMaxPlainConnections + 5; ++i)
    silent.push_back(Connect(*listener));
  CHECK_THAT(Ask(*listener, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"), Catch::EndsWith("ok\n"));
  CHECK(Receive(silent.front()).empty());  // the one that waited longest was closed
}

TEST_CASE("A port that is taken and an address that is none are refused by name", "[net]") {
  const auto first = Listener();
  const auto second = PlainListener::Start({"127.0.0.1", first->port()},
                                           [](std::string_view) { return PlainAnswer{}; });
  REQUIRE_FALSE(second.has_value());
  CHECK_THAT(second.error().message, Catch::Contains("port " + std::to_string(first->port())));
  const auto third =
      PlainListener::Start({"localhost", 0}, [](std::string_view) { return PlainAnswer{}; });
  REQUIRE_FALSE(third.has_value());
  CHECK(third.error().code == Errc::kInvalidArgument);
}

}  // namespace latchkey::net
