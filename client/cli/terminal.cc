#include "client/cli/terminal.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "common/base/clock.h"
#include "common/base/utf8.h"

namespace latchkey::cli {
namespace {

bool WriteAll(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t wrote = ::write(fd, text.data(), text.size());
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return false;
    text.remove_prefix(static_cast<std::size_t>(wrote));
  }
  return true;
}

constexpr char kHex[] = "0123456789abcdef";

// All that are escaped have four digits.
void AppendEscape(std::string* out, char32_t c) {
  *out += "\\u";
  for (int shift = 12; shift >= 0; shift -= 4) *out += kHex[(c >> shift) & 0xf];
}

bool ConfusesTerminals(char32_t c) {
  const bool control = c < 0x20 || (c >= 0x7f && c < 0xa0);
  const bool separator_or_bidi = c == 0x2028 || c == 0x2029 || c == 0x200e || c == 0x200f ||
                                 c == 0x061c || (c >= 0x202a && c <= 0x202e) ||
                                 (c >= 0x2066 && c <= 0x2069);
  return control || separator_or_bidi;
}

std::size_t Width(std::string_view text) {
  std::size_t width = 0;
  while (!text.empty()) {
    const Utf8Step step = DecodeUtf8(text);
    text.remove_prefix(step.valid ? step.length : 1);
    ++width;
  }
  return width;
}

}  // namespace

std::string Counted(std::size_t count, std::string_view noun) {
  return std::to_string(count) + " " + std::string(noun) + (count == 1 ? "" : "s");
}

std::string Printable(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Utf8Step step = DecodeUtf8(text);
    if (!step.valid) {
      const auto byte = static_cast<unsigned char>(text.front());
      out += "\\x";
      out += kHex[byte >> 4];
      out += kHex[byte & 0xf];
      text.remove_prefix(1);
      continue;
    }
    if (ConfusesTerminals(step.code_point)) {
      AppendEscape(&out, step.code_point);
    } else {
      out += text.substr(0, step.length);
    }
    text.remove_prefix(step.length);
  }
  return out;
}

std::string JsonPrintable(std::string_view json) {
  std::string out;
  out.reserve(json.size());
  while (!json.empty()) {
    const Utf8Step step = DecodeUtf8(json);
    const std::size_t length = step.valid ? step.length : 1;
    // Outside of its texts JSON is ASCII, and inside of them the characters below a blank are escaped already: whatever is
    // found from DEL on stands in a text. An invalid byte would be a control character to an eight-bit terminal.
    if (!step.valid) {
      AppendEscape(&out, 0xfffd);
    } else if (step.code_point >= 0x7f && ConfusesTerminals(step.code_point)) {
      AppendEscape(&out, step.code_point);
    } else {
      out += json.substr(0, length);
    }
    json.remove_prefix(length);
  }
  return out;
}

Terminal::Terminal(int in_fd, int out_fd, int err_fd)
    : in_fd_(in_fd),
      out_fd_(out_fd),
      err_fd_(err_fd),
      in_is_terminal_(::isatty(in_fd) == 1),
      out_is_terminal_(::isatty(out_fd) == 1),
      err_is_terminal_(::isatty(err_fd) == 1) {}

void Terminal::Out(std::string_view text) {
  ClearProgress();
  if (!WriteAll(out_fd_, text)) out_failed_ = true;
}

void Terminal::OutBytes(Bytes bytes) {
  Out(AsText(bytes));
}

void Terminal::Line(std::string_view kind, std::string_view text) {
  ClearProgress();
  std::string line("latchkey: ");
  line.append(kind).append(": ").append(Printable(text)).append("\n");
  WriteAll(err_fd_, line);
}

void Terminal::ErrorLine(std::string_view text) {
  Line("error", text);
}
void Terminal::WarningLine(std::string_view text) {
  Line("warning", text);
}
void Terminal::HintLine(std::string_view text) {
  Line("hint", text);
}
void Terminal::NoteLine(std::string_view text) {
  Line("note", text);
}

void Terminal::OutJson(std::string_view json) {
  Out(JsonPrintable(json) + "\n");
}

void Terminal::ErrJson(std::string_view json) {
  ClearProgress();
  WriteAll(err_fd_, JsonPrintable(json) + "\n");
}

void Terminal::Progress(std::string_view text) {
  if (!err_is_terminal_) return;
  WriteAll(err_fd_, "\r\x1b[K" + Printable(text));
  progress_shown_ = true;
}

void Terminal::ClearProgress() {
  if (!progress_shown_) return;
  progress_shown_ = false;
  WriteAll(err_fd_, "\r\x1b[K");
}

void Table::Add(std::vector<std::string> row) {
  INVARIANT(row.size() == rows_.front().size());
  for (std::string& cell : row) cell = Printable(cell);
  rows_.push_back(std::move(row));
}

std::string Table::Text() const {
  std::vector<std::size_t> widths(rows_.front().size(), 0);
  for (const auto& row : rows_) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], Width(row[i]));
  }
  std::string text;
  for (const auto& row : rows_) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      line += row[i];
      if (i + 1 < row.size()) line.append(widths[i] - Width(row[i]) + 2, ' ');
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

void Fields::Add(std::string name, std::string value) {
  if (!value.empty()) fields_.emplace_back(std::move(name), Printable(value));
}

std::string Fields::Text() const {
  std::size_t width = 0;
  for (const auto& [name, value] : fields_) width = std::max(width, Width(name));
  std::string text;
  for (const auto& [name, value] : fields_) {
    text += name + ":" + std::string(width - Width(name) + 2, ' ') + value + "\n";
  }
  return text;
}

std::string ShowTime(std::int64_t epoch_seconds) {
  if (epoch_seconds == 0) return "never";
  std::string text = ApiDate(epoch_seconds);  // 2011-09-29T15:46:00.000Z
  const std::size_t fraction = text.find('.');
  text.erase(fraction, 4);
  text[text.find('T')] = ' ';
  return text;
}

}  // namespace latchkey::cli
