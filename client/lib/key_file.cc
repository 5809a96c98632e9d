#include "client/lib/key_file.h"

#include <sys/stat.h>

#include <array>
#include <cstdio>

namespace latchkey::client {

std::string KeyFileWarning(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return "";
  const auto mode = static_cast<unsigned>(info.st_mode) & 07777U;
  const unsigned harmless = info.st_uid == 0 ? 0740U : 0700U;
  if ((mode & 0777U & ~harmless) == 0) return "";
  std::array<char, 8> octal{};
  std::snprintf(octal.data(), octal.size(), "%04o", mode);
  return "key file \"" + path + "\" has mode " + octal.data() +
         ": others than its owner may use it; run chmod 600 " + path;
}

}  // namespace latchkey::client
