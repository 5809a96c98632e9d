// stdout is data, stderr is conversation. Whatever came from outside is escaped before a terminal can interpret it.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/bytes.h"
#include "common/base/result.h"

namespace latchkey::cli {

// Not thread-safe. Borrows its descriptors.
class Terminal {
 public:
  Terminal(int in_fd, int out_fd, int err_fd);

  bool in_is_terminal() const { return in_is_terminal_; }
  bool out_is_terminal() const { return out_is_terminal_; }
  bool err_is_terminal() const { return err_is_terminal_; }
  int in_fd() const { return in_fd_; }

  // Data, as it is. A failed write is remembered: out_failed() decides the exit code.
  void Out(std::string_view text);
  // Bytes of a content: one write after the other from the borrowed memory, no copy.
  void OutBytes(Bytes bytes);
  bool out_failed() const { return out_failed_; }

  // `latchkey: error: ...`, `latchkey: warning: ...`, `latchkey: hint: ...`, `latchkey: note: ...`, each one line.
  void ErrorLine(std::string_view text);
  void WarningLine(std::string_view text);
  void HintLine(std::string_view text);
  void NoteLine(std::string_view text);
  // One line of JSON, made harmless as by JsonPrintable.
  void OutJson(std::string_view json);
  void ErrJson(std::string_view json);

  // A line that replaces itself; nothing where stderr is no terminal. Any other line on stderr clears it first.
  void Progress(std::string_view text);
  void ClearProgress();

 private:
  void Line(std::string_view kind, std::string_view text);

  int in_fd_, out_fd_, err_fd_;
  bool in_is_terminal_, out_is_terminal_, err_is_terminal_;
  bool out_failed_ = false;
  bool progress_shown_ = false;
};

// Control bytes, bidi controls, line separators and invalid UTF-8 become visible escapes.
std::string Printable(std::string_view text);

// Valid JSON text with the same characters as JSON escapes: no terminal obeys it, and parsed it is the same. What the server
// sends is not touched, so this belongs here and not in common/wire.
std::string JsonPrintable(std::string_view json);

// "1 client", "2 clients".
std::string Counted(std::size_t count, std::string_view noun);

// Columns of text, left-aligned, two blanks apart; the last is not padded. Cells are made printable.
class Table {
 public:
  explicit Table(std::vector<std::string> head) : rows_{std::move(head)} {}
  void Add(std::vector<std::string> row);
  std::string Text() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

// `name:  value` lines with aligned values; empty values are left out.
class Fields {
 public:
  void Add(std::string name, std::string value);
  std::string Text() const;

 private:
  std::vector<std::pair<std::string, std::string>> fields_;
};

// "2026-11-24 12:00:00Z" for seconds since 1970; "never" for nothing and 0.
std::string ShowTime(std::int64_t epoch_seconds);

}  // namespace latchkey::cli
