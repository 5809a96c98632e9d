#include "client/cli/terminal.h"

#include <catch2/catch.hpp>

#include "tests/unit/client/cli/captured.h"

namespace latchkey::cli {

TEST_CASE("A count agrees with its noun", "[cli]") {
  CHECK(Counted(0, "client") == "0 clients");
  CHECK(Counted(1, "grant") == "1 grant");
  CHECK(Counted(2, "grant") == "2 grants");
}

TEST_CASE("What a terminal would interpret is shown, not sent", "[cli]") {
  CHECK(Printable("plain \xc3\xa9 \xf0\x9f\x98\x80") == "plain \xc3\xa9 \xf0\x9f\x98\x80");
  CHECK(Printable("a\x1b[2Jb\nc\x7f") == "a\\u001b[2Jb\\u000ac\\u007f");
  CHECK(Printable("\xe2\x80\xae\xe2\x80\xa8\xc2\x9b") == "\\u202e\\u2028\\u009b");
  CHECK(Printable("\xff\xc0\xaf") == "\\xff\\xc0\\xaf");
}

TEST_CASE("JSON keeps its meaning and loses what a terminal would interpret", "[cli]") {
  CHECK(JsonPrintable("{\"a\":\"\xc3\xa9\\n\\u001b \xf0\x9f\x98\x80\"}") ==
        "{\"a\":\"\xc3\xa9\\n\\u001b \xf0\x9f\x98\x80\"}");
  CHECK(JsonPrintable("[\"\x7f\xc2\x80\xc2\x9b\xc2\x9f\xc2\xa0\"]") ==
        "[\"\\u007f\\u0080\\u009b\\u009f\xc2\xa0\"]");
  // 202A, 202E, 2066, 2069, 200E, 200F, 061C
  CHECK(
      JsonPrintable(
          "\"\xe2\x80\xaa\xe2\x80\xae\xe2\x81\xa6\xe2\x81\xa9\xe2\x80\x8e\xe2\x80\x8f\xd8\x9c\"") ==
      "\"\\u202a\\u202e\\u2066\\u2069\\u200e\\u200f\\u061c\"");
  CHECK(JsonPrintable("\"\x9b\"") == "\"\\ufffd\"");
}

TEST_CASE("A table is aligned and its cells are printable", "[cli]") {
  Table table({"NAME", "BY", "NOTE"});
  table.Add({"a", "somebody", ""});
  table.Add({"l\xc3\xa4nger", "x", "n\x1b"});
  CHECK(table.Text() ==
        "NAME    BY        NOTE\n"
        "a       somebody\n"
        "l\xc3\xa4nger  x         n\\u001b\n");
}

TEST_CASE("Fields are aligned and leave out what is empty", "[cli]") {
  Fields fields;
  fields.Add("name", "a");
  fields.Add("description", "");
  fields.Add("long name", "b\n");
  CHECK(fields.Text() == "name:       a\nlong name:  b\\u000a\n");
}

TEST_CASE("Times are shown in UTC to the second, and none as never", "[cli]") {
  CHECK(ShowTime(1317311160) == "2011-09-29 15:46:00Z");
  CHECK(ShowTime(0) == "never");
}

TEST_CASE("Errors, hints and notes are one line each on stderr, data goes to stdout", "[cli]") {
  test::Captured captured;
  captured.terminal().ErrorLine("bad\nthing");
  captured.terminal().HintLine("try");
  captured.terminal().NoteLine("so");
  captured.terminal().Progress("not on a pipe");
  captured.terminal().Out("data\n");
  CHECK(captured.Err() ==
        "latchkey: error: bad\\u000athing\nlatchkey: hint: try\nlatchkey: note: so\n");
  CHECK(captured.Out() == "data\n");
  CHECK_FALSE(captured.terminal().out_failed());
}

TEST_CASE("A write that fails is not forgotten", "[cli]") {
  const int full = ::open("/dev/full", O_WRONLY | O_CLOEXEC);
  REQUIRE(full >= 0);
  Terminal terminal(0, full, full);
  terminal.Out("x");
  CHECK(terminal.out_failed());
  ::close(full);
}

}  // namespace latchkey::cli
