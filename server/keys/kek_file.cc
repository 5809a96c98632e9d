#include "server/keys/kek_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <limits>
#include <string>

#include "common/base/unique_fd.h"
#include "common/model/limits.h"

namespace latchkey::keys {
namespace {

constexpr std::string_view kPrefix = "lkkek1";
constexpr std::size_t kKeyChars = 43;    // base64url of 32 bytes without padding
constexpr std::size_t kCheckChars = 16;  // hex of 8 bytes

std::string CheckOf(std::uint32_t kek_id, const crypto::Kek& kek) {
  crypto::Canonical head("lk/v1/kek-file");
  head.U64(kek_id).RawHead(crypto::kKeyBytes);
  return HexLower(crypto::TypingCheck(head, kek.bytes()));
}

Error Malformed(const char* what) {
  return Error{Errc::kInvalidArgument,
               std::string("the key is not a line lkkek1.<id>.<key>.<check>: ") + what +
                   "; put the file or its recovery copy back"};
}

// Splits at the three dots; only positions of dots are looked at, which are no secret.
bool SplitParts(std::string_view text, std::array<std::string_view, 4>* parts) {
  for (std::size_t i = 0; i < 3; ++i) {
    const std::size_t dot = text.find('.');
    if (dot == std::string_view::npos) return false;
    (*parts)[i] = text.substr(0, dot);
    text.remove_prefix(dot + 1);
  }
  (*parts)[3] = text;
  return true;
}

// Decimal without sign, leading zeros or anything behind it.
bool ParseId(std::string_view text, std::uint32_t* id) {
  if (text.empty() || (text.size() > 1 && text.front() == '0')) return false;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), *id);
  return parsed.ec == std::errc() && parsed.ptr == text.data() + text.size();
}

Error FileError(const char* what, const std::filesystem::path& path, int error) {
  const Errc code = error == EEXIST ? Errc::kConflict : Errc::kUnavailable;
  std::string message =
      std::string("cannot ") + what + " key file " + path.string() + ": " + std::strerror(error);
  if (error == EEXIST) message += "; it is never overwritten: move it away or choose another path";
  return Error{code, std::move(message)};
}

Status WriteAll(int fd, Bytes bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return Error{Errc::kUnavailable, std::strerror(errno)};
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
  return {};
}

Status SyncDirectory(const std::filesystem::path& file) {
  const std::filesystem::path directory = file.has_parent_path() ? file.parent_path() : ".";
  const UniqueFd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid() || ::fsync(fd.get()) != 0) return FileError("sync the directory of", file, errno);
  return {};
}

}  // namespace

Result<SecretBuffer> FormatKek(std::uint32_t kek_id, const crypto::Kek& kek) {
  const std::string head = std::string(kPrefix) + "." + std::to_string(kek_id) + ".";
  const std::string tail = "." + CheckOf(kek_id, kek);
  ASSIGN_OR_RETURN(const SecretBuffer key, crypto::ToBase64Url(kek.bytes()));
  INVARIANT(key.size() == kKeyChars);
  ASSIGN_OR_RETURN(SecretBuffer line, SecretBuffer::OfSize(head.size() + key.size() + tail.size()));
  std::uint8_t* at = line.mutable_bytes().data();
  std::memcpy(at, head.data(), head.size());
  std::memcpy(at + head.size(), key.bytes().data(), key.size());
  std::memcpy(at + head.size() + key.size(), tail.data(), tail.size());
  return line;
}

Result<NumberedKek> ParseKek(Bytes bytes) {
  std::string_view text = AsText(bytes);
  if (text.size() > limits::kMaxKekFileBytes) return Malformed("it is too long");
  if (!text.empty() && text.back() == '\n') text.remove_suffix(1);
  std::array<std::string_view, 4> parts;
  if (!SplitParts(text, &parts)) return Malformed("it has not four parts");
  if (parts[0] != kPrefix) return Malformed("it does not begin with lkkek1");
  std::uint32_t kek_id = 0;
  if (!ParseId(parts[1], &kek_id)) return Malformed("its id is not a number of 32 bits");
  if (parts[2].size() != kKeyChars) return Malformed("its key has not 43 characters");
  auto key = crypto::FromBase64Url(AsBytes(parts[2]));
  if (!key.has_value()) {
    if (key.error().code == Errc::kUnavailable) return std::move(key).error();
    return Malformed("its key is not base64url");
  }
  ASSIGN_OR_RETURN(crypto::Kek kek, crypto::Kek::FromBuffer(std::move(key).value()));
  if (parts[3].size() != kCheckChars ||
      !crypto::EqualsConstantTime(AsBytes(parts[3]), AsBytes(CheckOf(kek_id, kek)))) {
    return Malformed("its check does not match, a character is wrong");
  }
  return NumberedKek{kek_id, std::move(kek)};
}

Status CreateKekFile(const std::filesystem::path& path, std::uint32_t kek_id,
                     const crypto::Kek& kek) {
  ASSIGN_OR_RETURN(const SecretBuffer line, FormatKek(kek_id, kek));
  UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!fd.valid()) return FileError("create", path, errno);
  Status done = WriteAll(fd.get(), line.bytes());
  if (done.has_value()) done = WriteAll(fd.get(), AsBytes("\n"));
  // fchmod: a umask may have taken bits of the owner, a default ACL may have given some to others.
  if (done.has_value() && (::fchmod(fd.get(), 0600) != 0 || ::fsync(fd.get()) != 0)) {
    done = Error{Errc::kUnavailable, std::strerror(errno)};
  }
  if (done.has_value()) return SyncDirectory(path);
  ::unlink(path.c_str());
  return Error{Errc::kUnavailable,
               "cannot write key file " + path.string() + ": " + done.error().message};
}

RecoveryQuestion DrawRecoveryQuestion() {
  constexpr std::size_t kPlaces = kKeyChars - RecoveryQuestion::kChars + 1;
  return {static_cast<std::size_t>(static_cast<std::uint64_t>(crypto::RandomId()) % kPlaces)};
}

bool RecoveryAnswerIs(const SecretBuffer& line, RecoveryQuestion question, Bytes typed) {
  std::array<std::string_view, 4> parts;
  if (!SplitParts(AsText(line.bytes()), &parts)) return false;
  if (parts[2].size() != kKeyChars || question.first > kKeyChars - RecoveryQuestion::kChars)
    return false;
  return crypto::EqualsConstantTime(
      AsBytes(parts[2].substr(question.first, RecoveryQuestion::kChars)), typed);
}

}  // namespace latchkey::keys
