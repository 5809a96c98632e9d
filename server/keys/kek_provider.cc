#include "server/keys/kek_provider.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "common/base/trusted_path.h"
#include "common/model/limits.h"

namespace latchkey::keys {
namespace {

constexpr mode_t kForbiddenBits = 077;
constexpr mode_t kForbiddenBitsOfCredential = 037;

// One byte more than allowed is asked for, so that a longer source is seen as such. The text goes
// straight into the arena.
Result<SecretBuffer> ReadToEnd(int fd, const std::string& what) {
  ASSIGN_OR_RETURN(SecretBuffer text, SecretBuffer::OfSize(limits::kMaxKekFileBytes + 1));
  std::size_t size = 0;
  while (size < text.size()) {
    const ssize_t got = ::read(fd, text.mutable_bytes().data() + size, text.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0)
      return Error{Errc::kUnavailable, "cannot read " + what + ": " + std::strerror(errno)};
    if (got == 0) break;
    size += static_cast<std::size_t>(got);
  }
  text.Shrink(size);
  return text;
}

Result<NumberedKek> ParseFrom(const SecretBuffer& text, const std::string& what) {
  if (text.empty()) {
    return Error{Errc::kInvalidArgument,
                 what + " is empty: put the file or its recovery copy back"};
  }
  auto parsed = ParseKek(text.bytes());
  if (!parsed.has_value()) return Error{parsed.error().code, what + ": " + parsed.error().message};
  return parsed;
}

Error Refused(const std::string& what, const std::string& why) {
  return Error{Errc::kPermissionDenied, what + " " + why};
}

Status CheckRules(const struct stat& file, mode_t forbidden, const std::string& what,
                  const std::string& path) {
  if (file.st_nlink != 1) {
    return Refused(what, "has " + std::to_string(file.st_nlink) +
                             " links: remove the other names of the file");
  }
  RETURN_IF_ERROR(CheckOwner(file, path, what));
  // The wider mask of a credential is for files of root alone.
  const mode_t mask = file.st_uid == 0 ? forbidden : kForbiddenBits;
  if ((file.st_mode & mask) != 0) {
    return Refused(what, "can be reached by group or others: run chmod 0600 " + path);
  }
  return {};
}

Result<NumberedKek> LoadFile(const std::filesystem::path& path, mode_t forbidden,
                             const std::string& what) {
  const Result<UniqueFd> opened = OpenRegularFile(path.string(), O_RDONLY, what);
  if (!opened && opened.error().code == Errc::kNotFound) {
    return Error{Errc::kNotFound, what + " does not exist: put it or its recovery copy back"};
  }
  if (!opened) return opened.error();
  const UniqueFd& fd = *opened;
  struct stat file {};
  if (::fstat(fd.get(), &file) != 0) {
    return Error{Errc::kUnavailable, "cannot examine " + what + ": " + std::strerror(errno)};
  }
  RETURN_IF_ERROR(CheckRules(file, forbidden, what, path.string()));
  ASSIGN_OR_RETURN(const SecretBuffer text, ReadToEnd(fd.get(), what));
  return ParseFrom(text, what);
}

}  // namespace

Result<crypto::Kek> SingleKekProvider::Load(std::uint32_t kek_id) {
  ASSIGN_OR_RETURN(NumberedKek held, LoadAny());
  if (held.kek_id != kek_id) {
    return Error{Errc::kNotFound, Describe() + " holds key " + std::to_string(held.kek_id) +
                                      ", but the store needs key " + std::to_string(kek_id) +
                                      ": provide key " + std::to_string(kek_id)};
  }
  return std::move(held.kek);
}

Result<NumberedKek> FileKekProvider::LoadAny() {
  return LoadFile(path_, kForbiddenBits, Describe());
}

Result<NumberedKek> CredentialKekProvider::LoadAny() {
  if (name_.empty() || name_.find('/') != std::string::npos || name_.front() == '.') {
    return Error{Errc::kInvalidArgument,
                 "the name of a credential is one file name without a leading dot"};
  }
  if (directory_.empty()) {
    return Error{Errc::kNotFound,
                 "CREDENTIALS_DIRECTORY is not set: run as a systemd unit with LoadCredential=" +
                     name_ + ":FILE, or name a key file"};
  }
  return LoadFile(directory_ / name_, kForbiddenBitsOfCredential, Describe());
}

Result<NumberedKek> FdKekProvider::LoadAny() {
  if (!fd_.valid()) {
    return Error{Errc::kUnavailable, Describe() + " was read already or is not open: pass it once"};
  }
  const UniqueFd fd = std::move(fd_);
  ASSIGN_OR_RETURN(const SecretBuffer text, ReadToEnd(fd.get(), Describe()));
  return ParseFrom(text, Describe());
}

}  // namespace latchkey::keys
