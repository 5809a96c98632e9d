#include "fusefs/journal/privileges.h"

#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>

namespace latchkey::journal {

Status KeepCapabilities(std::initializer_list<unsigned> kept) {
  std::uint64_t bits = 0;
  for (const unsigned capability : kept) bits |= 1ULL << capability;
  // The bounding set too, so that nothing executed later could have more.
  for (unsigned capability = 0; prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0; ++capability)
    if ((bits >> capability & 1U) == 0) prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, 2> data{};
  for (std::size_t word = 0; word < data.size(); ++word) {
    const auto part = static_cast<std::uint32_t>(bits >> (32 * word));
    data[word] = {part, part, 0};
  }
  if (syscall(SYS_capset, &header, data.data()) != 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
    return Error{Errc::kUnavailable,
                 std::string("cannot drop capabilities: ") + std::strerror(errno)};
  return {};
}

}  // namespace latchkey::journal
