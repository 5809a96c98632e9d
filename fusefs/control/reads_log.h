// Where the lines of the read records go: two files in the keeper's private directory (tmpfs on a
// normal host), so that they survive the worker. Names, numbers and processes only; never content
// (R23).
#pragma once

#include <functional>
#include <string>

#include "common/base/result.h"
#include "common/base/unique_fd.h"

namespace latchkey::control {

// Appends lines; the older half is dropped when the newer one reaches limits::kReadLogBytes. One
// thread.
class ReadsLog {
 public:
  // Errors: kUnavailable, naming the directory.
  static Result<ReadsLog> Open(const std::string& private_dir);
  // False when the line could not be written whole.
  bool Append(const std::string& line);

 private:
  ReadsLog(UniqueFd dir, UniqueFd file, std::size_t size_bytes)
      : dir_(std::move(dir)), file_(std::move(file)), size_bytes_(size_bytes) {}
  bool Rotate();

  UniqueFd dir_;
  UniqueFd file_;
  std::size_t size_bytes_;
};

// Prints what is kept, oldest first; with `follow` goes on until `print` returns false. Errors:
// kNotFound when there is no mount with this private directory.
Status PrintReads(const std::string& private_dir, bool follow,
                  const std::function<bool(std::string_view)>& print);

}  // namespace latchkey::control
