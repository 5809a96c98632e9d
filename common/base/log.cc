#include "common/base/log.h"

#include <unistd.h>

#include <atomic>
#include <cstdio>

#include "common/base/clock.h"
#include "common/base/utf8.h"

namespace latchkey {
namespace {

constexpr std::size_t kMaxValueBytes = 256;

std::atomic<LogLevel> level_now{LogLevel::kInfo};
std::atomic<LogFormat> format_now{LogFormat::kText};

const char* LevelName(LogLevel level) {
  switch (level) {
    case LogLevel::kError:
      return "error";
    case LogLevel::kWarn:
      return "warn";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kDebug:
      return "debug";
  }
  return "error";
}

bool IsBidiOrSeparator(char32_t c) {
  return c == 0x2028 || c == 0x2029 || c == 0x061c || c == 0x200e || c == 0x200f ||
         (c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069);
}

bool NeedsQuotes(std::string_view text) {
  if (text.empty()) return true;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '_' || c == '-' || c == '.' || c == ':' || c == '/' || c == '@' ||
                       c == '+';
    if (!plain) return true;
  }
  return false;
}

void AppendField(std::string* out, LogFormat format, const LogField& field) {
  if (format == LogFormat::kJson) {
    out->append(",\"").append(field.key()).append("\":");
    if (field.is_number()) {
      out->append(field.text());
      return;
    }
    out->push_back('"');
    AppendJsonEscaped(out, field.text(), kMaxValueBytes);
    out->push_back('"');
    return;
  }
  out->push_back(' ');
  out->append(field.key()).push_back('=');
  if (!NeedsQuotes(field.text())) {
    out->append(field.text().substr(0, kMaxValueBytes));
    return;
  }
  out->push_back('"');
  AppendJsonEscaped(out, field.text(), kMaxValueBytes);
  out->push_back('"');
}

}  // namespace

void SetLogLevel(LogLevel level) {
  level_now.store(level, std::memory_order_relaxed);
}
void SetLogFormat(LogFormat format) {
  format_now.store(format, std::memory_order_relaxed);
}
LogLevel GetLogLevel() {
  return level_now.load(std::memory_order_relaxed);
}

bool ParseLogLevel(std::string_view text, LogLevel* level) {
  for (const LogLevel known :
       {LogLevel::kError, LogLevel::kWarn, LogLevel::kInfo, LogLevel::kDebug}) {
    if (text == LevelName(known)) {
      *level = known;
      return true;
    }
  }
  return false;
}

void AppendJsonEscaped(std::string* out, std::string_view text, std::size_t limit_bytes) {
  const bool cut = text.size() > limit_bytes;
  if (cut) text = text.substr(0, limit_bytes);
  char escape[16];
  for (std::size_t at = 0; at < text.size();) {
    const Utf8Step step = DecodeUtf8(text.substr(at));
    if (!step.valid) {
      std::snprintf(escape, sizeof escape, "\\\\x%02x", static_cast<unsigned char>(text[at]));
      out->append(escape);
      ++at;
      continue;
    }
    const char32_t c = step.code_point;
    if (c == '"' || c == '\\') {
      out->push_back('\\');
      out->push_back(static_cast<char>(c));
    } else if (c < 0x20 || (c >= 0x7f && c < 0xa0) || IsBidiOrSeparator(c)) {
      std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(c));
      out->append(escape);
    } else {
      out->append(text.substr(at, step.length));
    }
    at += step.length;
  }
  if (cut) out->append("...");
}

std::string EncodeLogLine(LogFormat format, std::string_view timestamp, LogLevel level,
                          std::string_view message, std::initializer_list<LogField> fields) {
  std::string line;
  line.reserve(256);
  if (format == LogFormat::kJson) {
    line.append("{\"time\":\"")
        .append(timestamp)
        .append("\",\"level\":\"")
        .append(LevelName(level));
    line.append("\",\"message\":\"");
    AppendJsonEscaped(&line, message, kMaxValueBytes);
    line.push_back('"');
  } else {
    line.append(timestamp).append(" ").append(LevelName(level)).append(" ");
    AppendJsonEscaped(&line, message, kMaxValueBytes);
  }
  for (const LogField& field : fields) AppendField(&line, format, field);
  if (format == LogFormat::kJson) line.push_back('}');
  return line;
}

void Log(LogLevel level, std::string_view message, std::initializer_list<LogField> fields) {
  if (level > GetLogLevel()) return;
  std::string line = EncodeLogLine(format_now.load(std::memory_order_relaxed),
                                   LogTimestamp(SystemClock().Now()), level, message, fields);
  line.push_back('\n');
  // A lost log line must never stop the service; the audit chain is what may (rule A2).
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace latchkey
