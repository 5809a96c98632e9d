// One log line per event (rules O1, O3): a constant message and key=value fields, written to stderr in one write(2).
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <type_traits>

namespace latchkey {

enum class LogLevel { kError = 0, kWarn = 1, kInfo = 2, kDebug = 3 };
enum class LogFormat { kText, kJson };

// One key with a value that is text or a number. Types that may hold content have no conversion to it (rule O2).
class LogField {
 public:
  LogField(std::string_view key, std::string_view value) : key_(key), text_(value) {}
  LogField(std::string_view key, const char* value) : key_(key), text_(value) {}
  LogField(std::string_view key, const std::string& value) : key_(key), text_(value) {}
  template <class T>
  requires std::is_integral_v<T> LogField(std::string_view key, T value)
      : key_(key), text_(std::to_string(value)), number_(true) {}

  std::string_view key() const { return key_; }
  const std::string& text() const { return text_; }
  bool is_number() const { return number_; }

 private:
  std::string_view key_;
  std::string text_;
  bool number_ = false;
};

// Process-wide sink settings, set by main before threads start and by a reload. Thread-safe.
void SetLogLevel(LogLevel level);
void SetLogFormat(LogFormat format);
LogLevel GetLogLevel();
// Parses "error", "warn", "info", "debug"; false when it is none of these.
bool ParseLogLevel(std::string_view text, LogLevel* level);

// Writes one line. `message` is a constant of the program. Values are cut at 256 bytes; control bytes, U+2028/2029,
// bidi controls and invalid UTF-8 are escaped. Thread-safe; never blocks longer than a write to stderr.
void Log(LogLevel level, std::string_view message, std::initializer_list<LogField> fields = {});

// The encoder itself, for tests and other sinks: the line without a newline.
std::string EncodeLogLine(LogFormat format, std::string_view timestamp, LogLevel level,
                          std::string_view message, std::initializer_list<LogField> fields);
// Appends `text` as the inside of a JSON string, escaped as above, cut at `limit_bytes`.
void AppendJsonEscaped(std::string* out, std::string_view text, std::size_t limit_bytes);

}  // namespace latchkey
