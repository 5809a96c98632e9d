#include "fusefs/keeper/fusectl.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>

namespace latchkey::keeper {

Result<FuseControl> FuseControl::Open(dev_t connection) {
  const UniqueFd context(fsopen("fusectl", FSOPEN_CLOEXEC));
  if (!context.valid() || fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0)
    return Error{Errc::kUnavailable, std::string("no fusectl: ") + std::strerror(errno)};
  const UniqueFd root(fsmount(context.get(), FSMOUNT_CLOEXEC,
                              MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC));
  FuseControl control;
  // Directories are named by the device number of the connection's superblock, whose major is 0.
  control.directory_.Reset(openat(root.get(), std::to_string(minor(connection)).c_str(),
                                  O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!control.directory_.valid())
    return Error{Errc::kUnavailable, "the connection is not in fusectl"};
  return control;
}

std::optional<std::uint64_t> FuseControl::Waiting() const {
  if (!directory_.valid()) return std::nullopt;
  const UniqueFd file(openat(directory_.get(), "waiting", O_RDONLY | O_CLOEXEC));
  std::array<char, 32> text{};
  if (!file.valid() || read(file.get(), text.data(), text.size() - 1) <= 0) return std::nullopt;
  return std::strtoull(text.data(), nullptr, 10);
}

void FuseControl::Abort() const {
  if (!directory_.valid()) return;
  const UniqueFd file(openat(directory_.get(), "abort", O_WRONLY | O_CLOEXEC));
  if (file.valid()) [[maybe_unused]]
    const ssize_t written = write(file.get(), "1", 1);
}

}  // namespace latchkey::keeper
