// Where the lines of the read records go: two files in the keeper's private directory (tmpfs on a
// normal host), so that they survive the worker. Names, numbers and processes only; never content
// (R23).
#pragma once

#include <functional>
#include <string>

#include "common/base/result.h"
#include "common/base/unique_fd.h"

namespace latchkey::control {

// Appends lines; the older half is dropped when the newer one reaches limits::kReadLogBytes. A line that cannot be written
// whole, on a full disk, leaves nothing behind, so no other runs into it. The log tells once when lines begin to fail and
// when they are written again. One thread.
class ReadsLog {
 public:
  // Cuts off what a predecessor that was killed left of a line. Errors: kUnavailable, naming the directory.
  static Result<ReadsLog> Open(const std::string& private_dir);
  // False when the line could not be written: it is to be offered again.
  bool Append(const std::string& line);

 private:
  ReadsLog(UniqueFd dir, UniqueFd file, std::size_t size_bytes)
      : dir_(std::move(dir)), file_(std::move(file)), size_bytes_(size_bytes) {}
  bool Rotate();
  bool WriteWhole(const std::string& text);

  UniqueFd dir_;
  UniqueFd file_;
  std::size_t size_bytes_;  // of whole lines
  bool torn_ = false;       // there is more than that in the file
  bool failing_ = false;
};

// Prints what is kept, whole lines only, oldest first; with `follow` goes on until `print` returns false. Errors:
// kNotFound when there is no mount with this private directory.
Status PrintReads(const std::string& private_dir, bool follow,
                  const std::function<bool(std::string_view)>& print);

}  // namespace latchkey::control
