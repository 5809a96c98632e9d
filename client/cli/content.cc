#include "client/cli/content.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <optional>

#include "client/cli/generator.h"
#include "client/lib/wiped_bytes.h"
#include "common/base/unique_fd.h"
#include "common/crypto/crypto.h"
#include "common/model/limits.h"

namespace latchkey::cli {
namespace {

using client::WipedBytes;

std::string Quoted(const std::string& text) {
  return "\"" + text + "\"";
}

const char* Reason(int error) {
  switch (error) {
    case ENOENT:
      return "no such file or directory";
    case EACCES:
      return "permission denied";
    case EISDIR:
      return "it is a directory";
    case ENOSPC:
      return "no space left on the disk";
    case EDQUOT:
      return "disk quota exceeded";
    case EROFS:
      return "the file system is read-only";
    case ENOTDIR:
      return "a part of the path is not a directory";
    case EIO:
      return "input/output error";
    default:
      return "system error";
  }
}

Errc CodeOf(int error) {
  return error == ENOSPC || error == EDQUOT || error == EIO ? Errc::kUnavailable
                                                            : Errc::kInvalidArgument;
}

Error FileError(const char* verb, const std::string& path, int error) {
  std::string message = std::string("cannot ") + verb + " " + Quoted(path) + ": " + Reason(error);
  if (std::strcmp(Reason(error), "system error") == 0) message += " " + std::to_string(error);
  return Error{CodeOf(error), std::move(message)};
}

Result<SecretBuffer> ReadToEnd(int fd, const std::string& name) {
  constexpr std::size_t kPortionBytes = 64 * 1024;
  WipedBytes read, portion;
  const MutableBytes room = portion.Extend(kPortionBytes);
  for (;;) {
    const ssize_t got = ::read(fd, room.data(), room.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return FileError("read", name, errno);
    if (got == 0) break;
    read.Append(room.first(static_cast<std::size_t>(got)));
    if (read.size() > limits::kHardMaxContentBytes) {
      return Error{Errc::kTooLarge, "content of " + Quoted(name) + " is larger than " +
                                        std::to_string(limits::kHardMaxContentBytes) + " bytes"};
    }
  }
  if (read.empty())
    return Error{Errc::kInvalidArgument, "content of " + Quoted(name) + " is empty"};
  return SecretBuffer::CopyOf(read.bytes());
}

// The process is not dumpable, so its own /proc/self/fd belongs to root: a path there is used by its number.
std::optional<int> DescriptorOf(const std::string& path) {
  for (const std::string_view prefix : {"/dev/fd/", "/proc/self/fd/"}) {
    if (!path.starts_with(prefix)) continue;
    int fd = -1;
    const char* end = path.data() + path.size();
    const auto [stop, error] = std::from_chars(path.data() + prefix.size(), end, fd);
    if (error == std::errc() && stop == end && fd >= 0) return fd;
  }
  if (path == "-" || path == "/dev/stdin") return 0;
  return std::nullopt;
}

Result<SecretBuffer> ReadFile(const std::string& path) {
  if (const auto fd = DescriptorOf(path)) return ReadToEnd(*fd, path);
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) return FileError("read", path, errno);
  return ReadToEnd(file.get(), path);
}

// Echo is off while it lives. Signals from keys are off too, so that no key can end the program before echo is back.
class EchoOff {
 public:
  explicit EchoOff(int fd) : fd_(fd) {
    if (::tcgetattr(fd_, &before_) != 0) return;
    termios quiet = before_;
    quiet.c_lflag &= ~static_cast<tcflag_t>(ECHO | ECHONL | ISIG);
    quiet.c_lflag |= ICANON;
    good_ = ::tcsetattr(fd_, TCSAFLUSH, &quiet) == 0;
  }
  ~EchoOff() {
    if (good_) ::tcsetattr(fd_, TCSAFLUSH, &before_);
  }
  EchoOff(const EchoOff&) = delete;
  EchoOff& operator=(const EchoOff&) = delete;
  bool good() const { return good_; }

 private:
  int fd_;
  termios before_{};
  bool good_ = false;
};

Result<SecretBuffer> PromptOnce(Terminal& terminal, const std::string& question) {
  constexpr std::size_t kMaxLineBytes = 4096;  // what a terminal in line mode can hold
  ASSIGN_OR_RETURN(SecretBuffer line, SecretBuffer::OfSize(kMaxLineBytes));
  const EchoOff quiet(terminal.in_fd());
  if (!quiet.good())
    return Error{Errc::kUnavailable, "cannot switch off the echo of the terminal: use --from-file"};
  terminal.Progress(
      question);  // only now: what is typed before echo is off would be shown, and is thrown away
  ssize_t got = ::read(terminal.in_fd(), line.mutable_bytes().data(), line.size());
  while (got < 0 && errno == EINTR)
    got = ::read(terminal.in_fd(), line.mutable_bytes().data(), line.size());
  terminal.ClearProgress();
  if (got <= 0) return Error{Errc::kInvalidArgument, "no content was typed"};
  auto size = static_cast<std::size_t>(got);
  constexpr std::uint8_t kCtrlC = 3;
  for (std::size_t i = 0; i < size; ++i) {
    if (line.bytes()[i] == kCtrlC) return Error{Errc::kInvalidArgument, "cancelled at the prompt"};
  }
  if (line.bytes()[size - 1] != '\n') {
    return Error{Errc::kTooLarge, "a typed line is cut at " + std::to_string(kMaxLineBytes) +
                                      " bytes: use --from-file"};
  }
  line.Shrink(size - 1);
  return line;
}

Result<SecretBuffer> Prompt(Terminal& terminal, const std::string& what) {
  ASSIGN_OR_RETURN(SecretBuffer first,
                   PromptOnce(terminal, "content of " + what + " (not shown): "));
  if (first.empty()) return Error{Errc::kInvalidArgument, "no content was typed"};
  ASSIGN_OR_RETURN(const SecretBuffer second, PromptOnce(terminal, "the same again: "));
  if (!first.EqualsConstantTime(second)) {
    return Error{Errc::kInvalidArgument, "the two contents differ: nothing was changed"};
  }
  return first;
}

// Whether somebody pipes something in. A silent pipe is what a service manager or a remote shell may leave open, so it is
// not waited for longer than a program at its other end needs to begin; a file is what a loop reads its names from.
bool ContentIsPiped(int fd) {
  constexpr int kPipedWaitMs = 200;
  struct stat info {};
  if (::fstat(fd, &info) != 0 || !S_ISFIFO(info.st_mode)) return false;
  pollfd wanted{fd, POLLIN, 0};
  return ::poll(&wanted, 1, kPipedWaitMs) > 0 && (wanted.revents & POLLIN) != 0;
}

Status WriteAll(int fd, Bytes content, const std::string& path) {
  while (!content.empty()) {
    const ssize_t wrote = ::write(fd, content.data(), content.size());
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return FileError("write", path, errno);
    content = content.subspan(static_cast<std::size_t>(wrote));
  }
  if (::fsync(fd) != 0) return FileError("write", path, errno);
  return {};
}

// A file that goes away again unless it was renamed.
struct Scratch {
  std::string path;
  UniqueFd fd;
  ~Scratch() {
    if (!path.empty()) ::unlink(path.c_str());
  }
};

Status MakeScratch(const std::string& path, Scratch* scratch) {
  ByteArray<8> random;
  crypto::RandomBytes(random);
  const std::size_t slash = path.rfind('/');
  const std::string directory = slash == std::string::npos ? "" : path.substr(0, slash + 1);
  const std::string candidate = directory + ".latchkey." + HexLower(random);
  scratch->fd.Reset(
      ::open(candidate.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!scratch->fd.valid()) return FileError("write", path, errno);
  scratch->path = candidate;
  return {};
}

}  // namespace

Result<SecretBuffer> ReadContent(Terminal& terminal, const ContentSource& source,
                                 const std::string& what) {
  if (!source.generate.empty() && !source.from_file.empty()) {
    return Error{Errc::kInvalidArgument, "--generate and --from-file exclude each other"};
  }
  if (!source.generate.empty()) {
    ASSIGN_OR_RETURN(const GeneratorSpec spec, ParseGeneratorSpec(source.generate));
    if (ContentIsPiped(terminal.in_fd())) {
      return Error{Errc::kInvalidArgument,
                   "content is piped in, and --generate draws another: leave one of them out (in a "
                   "loop: </dev/null)"};
    }
    constexpr double kWeakBits = 64;
    if (spec.Bits() < kWeakBits)
      terminal.NoteLine("generated content has fewer than 64 bits of entropy");
    return Generate(spec);
  }
  if (!source.from_file.empty()) return ReadFile(source.from_file);
  if (terminal.in_is_terminal()) return Prompt(terminal, what);
  return ReadToEnd(terminal.in_fd(), "standard input");
}

Status WriteFileAtomically(const std::string& path, Bytes content) {
  struct stat existing {};
  if (::lstat(path.c_str(), &existing) == 0 && !S_ISREG(existing.st_mode)) {
    return Error{Errc::kInvalidArgument,
                 "cannot write " + Quoted(path) + ": it exists and is not a regular file"};
  }
  Scratch scratch;
  RETURN_IF_ERROR(MakeScratch(path, &scratch));
  RETURN_IF_ERROR(WriteAll(scratch.fd.get(), content, path));
  if (::rename(scratch.path.c_str(), path.c_str()) != 0) return FileError("write", path, errno);
  scratch.path.clear();
  return {};
}

}  // namespace latchkey::cli
