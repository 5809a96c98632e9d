// A Terminal whose output a test reads, and whose input it gives. Both through files, so that nothing can block.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <string>
#include <string_view>

#include "client/cli/terminal.h"

namespace latchkey::test {

class Captured {
 public:
  explicit Captured(std::string_view input = "")
      : in_(::memfd_create("in", MFD_CLOEXEC)),
        out_(::memfd_create("out", MFD_CLOEXEC)),
        err_(::memfd_create("err", MFD_CLOEXEC)),
        terminal_(in_, out_, err_) {
    for (std::string_view rest = input; !rest.empty();) {
      rest.remove_prefix(static_cast<std::size_t>(::write(in_, rest.data(), rest.size())));
    }
    ::lseek(in_, 0, SEEK_SET);
  }
  ~Captured() {
    ::close(in_);
    ::close(out_);
    ::close(err_);
  }
  Captured(const Captured&) = delete;
  Captured& operator=(const Captured&) = delete;

  cli::Terminal& terminal() { return terminal_; }
  int in_fd() const { return in_; }
  std::string Out() const { return All(out_); }
  std::string Err() const { return All(err_); }

 private:
  static std::string All(int fd) {
    std::string text(static_cast<std::size_t>(::lseek(fd, 0, SEEK_END)), '\0');
    text.resize(static_cast<std::size_t>(::pread(fd, text.data(), text.size(), 0)));
    return text;
  }
  int in_, out_, err_;
  cli::Terminal terminal_;
};

}  // namespace latchkey::test
