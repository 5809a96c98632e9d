// A small plain-HTTP listener for metrics and health (rule P5): GET and HEAD only, one answer per connection.
//
// For loopback or a guarded network: no TLS, no identity, and nothing secret is ever answered here. One thread serves all
// connections without blocking; at most kMaxPlainConnections, each closed after kPlainDeadline whatever its peer does.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "common/base/result.h"

namespace latchkey::net {

struct PlainListenerOptions {
  std::string address = "127.0.0.1";  // numeric, IPv4 or IPv6
  std::uint16_t port = 0;             // 0: any free port, see port()
};

struct PlainAnswer {
  int status = 200;
  std::string content_type;
  std::string body;
};
// Called on the listener's thread with the path, without its query. Must not block.
using PlainHandler = std::function<PlainAnswer(std::string_view path)>;

class PlainListener {
 public:
  // Errors: kInvalidArgument for the address; kUnavailable with address, port and what failed.
  static Result<std::unique_ptr<PlainListener>> Start(const PlainListenerOptions& options,
                                                      PlainHandler handler);
  virtual ~PlainListener() = default;  // cuts what is open and joins the thread
  virtual std::uint16_t port() const = 0;
};

}  // namespace latchkey::net
