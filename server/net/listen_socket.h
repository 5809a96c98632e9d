// A listening TCP socket on a numeric address.
#pragma once

#include <cstdint>
#include <string>

#include "common/base/result.h"
#include "common/base/unique_fd.h"

namespace latchkey::net {

// Non-blocking, close-on-exec. Port 0 takes a free one; `*bound_port` is the one that was taken. Errors: kInvalidArgument
// when `address` is not numeric; kUnavailable with address, port and what failed.
Result<UniqueFd> ListenOn(const std::string& address, std::uint16_t port,
                          std::uint16_t* bound_port);

}  // namespace latchkey::net
