#include <catch2/catch.hpp>

#include "common/base/log.h"

using namespace latchkey;

namespace {
std::string Line(LogFormat format, const std::string& value) {
  return EncodeLogLine(format, "T", LogLevel::kInfo, "secret read",
                       {{"name", value}, {"size", 12}});
}
}  // namespace

TEST_CASE("A log line is one line whatever a value holds (O1)", "[log]") {
  const std::string hostile =
      GENERATE(as<std::string>{}, "a\nb", "a\r\nb", "\x1b[31m", "\xe2\x80\xa8", "\xe2\x80\xae",
               "\xff\xfe", std::string("a\0b", 3), "\"quoted\" \\", "\xe2\x81\xa6x");
  for (const LogFormat format : {LogFormat::kText, LogFormat::kJson}) {
    const std::string line = Line(format, hostile);
    CAPTURE(line);
    for (const char c : line) CHECK(static_cast<unsigned char>(c) >= 0x20);
    CHECK(line.find('\x7f') == std::string::npos);
    CHECK(line.find("\xe2\x80\xa8") == std::string::npos);
    CHECK(line.find("\xe2\x80\xae") == std::string::npos);
    CHECK(line.find("\xff") == std::string::npos);
  }
}

TEST_CASE("Values are cut at 256 bytes and numbers stay numbers", "[log]") {
  const std::string line = Line(LogFormat::kJson, std::string(1000, 'x'));
  CHECK(line.find(std::string(257, 'x')) == std::string::npos);
  CHECK(line.find(std::string(256, 'x') + "...") != std::string::npos);
  CHECK(line.find("\"size\":12}") != std::string::npos);
  CHECK(Line(LogFormat::kText, "plain") == "T info secret read name=plain size=12");
  CHECK(Line(LogFormat::kText, "two words") == "T info secret read name=\"two words\" size=12");
}

TEST_CASE("Log levels parse by name only", "[log]") {
  LogLevel level = LogLevel::kInfo;
  CHECK(ParseLogLevel("debug", &level));
  CHECK(level == LogLevel::kDebug);
  CHECK_FALSE(ParseLogLevel("DEBUG", &level));
  CHECK_FALSE(ParseLogLevel("", &level));
}
