#include "fusefs/sync/owner.h"

#include <grp.h>
#include <pwd.h>

#include <optional>
#include <vector>

namespace latchkey::sync {
namespace {

constexpr std::uint32_t kReadBits = 0444;
constexpr std::size_t kNssBufferBytes = 64 * 1024;

std::optional<std::uint32_t> UidOf(const std::string& name) {
  std::vector<char> buffer(kNssBufferBytes);
  passwd entry{};
  passwd* found = nullptr;
  if (getpwnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found) != 0 ||
      found == nullptr)
    return std::nullopt;
  return found->pw_uid;
}

std::optional<std::uint32_t> GidOf(const std::string& name) {
  std::vector<char> buffer(kNssBufferBytes);
  group entry{};
  group* found = nullptr;
  if (getgrnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found) != 0 ||
      found == nullptr)
    return std::nullopt;
  return found->gr_gid;
}

std::optional<std::uint32_t> ParseMode(const std::string& text) {
  if (text.empty() || text.size() > 6) return std::nullopt;
  std::uint32_t mode = 0;
  for (const char c : text) {
    if (c < '0' || c > '7') return std::nullopt;
    mode = mode * 8 + static_cast<std::uint32_t>(c - '0');
  }
  return mode;
}

FileOwner Refused(std::string why) {
  return {0400, 0, 0, std::move(why)};
}

}  // namespace

FileOwner ResolveOwner(const Metadata& metadata, const OwnerDefaults& defaults) {
  FileOwner out{defaults.mode & kReadBits, defaults.uid, defaults.gid, {}};
  if (const std::string* text = FindMetadata(metadata, "mode")) {
    const auto mode = ParseMode(*text);
    if (!mode) return Refused("mode is not octal; mounted as 0400 root");
    out.mode = *mode & kReadBits;
  }
  if (const std::string* name = FindMetadata(metadata, "owner")) {
    const auto uid = UidOf(*name);
    if (!uid)
      return Refused("owner \"" + *name + "\" is no user of this host; mounted as 0400 root");
    out.uid = *uid;
  }
  if (const std::string* name = FindMetadata(metadata, "group")) {
    const auto gid = GidOf(*name);
    if (!gid)
      return Refused("group \"" + *name + "\" is no group of this host; mounted as 0400 root");
    out.gid = *gid;
  }
  return out;
}

}  // namespace latchkey::sync
