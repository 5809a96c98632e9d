// Replays tests/vectors/keywhiz_replay.txt: what existing clients met, in the order they met it.
#include <algorithm>
#include <catch2/catch.hpp>
#include <fstream>

#include "common/wire/json_gate.h"
#include "common/wire/json_out.h"
#include "tests/support/server_fixture.h"

using namespace latchkey;
using namespace latchkey::testing;
using wire::JsonValue;

namespace {

struct RecordedExchange {
  std::string name;
  std::string caller;
  TestRequest request;
  bool ordered = false;
  int status = 0;
  std::string content_type;
  std::map<std::string, std::string> headers;
  std::optional<std::string> json;
  std::vector<std::string> contains;  // elements of the answered array
};

// Every line of the file is known, or the test fails.
std::vector<RecordedExchange> ReadExchanges() {
  std::ifstream file(TESTS_SOURCE_DIR "/vectors/keywhiz_replay.txt");
  REQUIRE(file.good());
  std::vector<RecordedExchange> exchanges;
  std::string line;
  while (std::getline(file, line)) {
    if (line.empty() || line[0] == '#') continue;
    const std::size_t blank = line.find(' ');
    REQUIRE(blank != std::string::npos);
    const std::string field = line.substr(0, blank);
    const std::string value = line.substr(blank + 1);
    if (field == "exchange") {
      exchanges.emplace_back();
      exchanges.back().name = value;
      continue;
    }
    REQUIRE_FALSE(exchanges.empty());
    RecordedExchange& exchange = exchanges.back();
    if (field == "caller") {
      exchange.caller = value;
    } else if (field == "request") {
      exchange.request.method = value.substr(0, value.find(' '));
      exchange.request.target = value.substr(value.find(' ') + 1);
    } else if (field == "content-type") {
      exchange.request.no_content_type = value == "-";
      if (value != "-") exchange.request.content_type = value;
    } else if (field == "accept") {
      exchange.request.accept = value;
    } else if (field == "forwarded") {
      exchange.request.forwarded_identity = true;
    } else if (field == "body") {
      exchange.request.body = value;
    } else if (field == "ordered") {
      exchange.ordered = true;
    } else if (field == "status") {
      exchange.status = std::stoi(value);
    } else if (field == "answers") {
      exchange.content_type = value;
    } else if (field == "header") {
      exchange.headers.emplace(value.substr(0, value.find(": ")),
                               value.substr(value.find(": ") + 2));
    } else if (field == "json") {
      exchange.json = value;
    } else if (field == "contains") {
      exchange.contains.push_back(value);
    } else if (field != "differs") {
      FAIL("unknown field " << field << " in exchange " << exchange.name);
    }
  }
  return exchanges;
}

TestCaller CallerOf(const std::string& name) {
  if (name == "none") return TestCaller::Nobody();
  if (name == "nocn") return {true, std::nullopt, std::nullopt, ""};
  if (name == "unknown") return {true, "unknownClient", "spiffe://example.org/unknown", ""};
  return TestCaller::Named(name);
}

bool IsThisRun(std::int64_t seconds) {
  return seconds > 1'795'000'000 && seconds < 1'796'000'000;
}

// One text for one meaning: members sorted, arrays sorted unless their order counts, and what differs from run to run
// replaced by its kind.
std::string Normal(const JsonValue& value, const std::string& key, bool ordered) {
  std::string text;
  wire::JsonOut out(&text);
  switch (value.kind()) {
    case JsonValue::Kind::kObject:
    case JsonValue::Kind::kArray: {
      std::vector<std::string> parts;
      for (const auto& member : value.members())
        parts.push_back("\"" + member.key + "\":" + Normal(member.value, member.key, ordered));
      for (const auto& element : value.elements()) parts.push_back(Normal(element, "", ordered));
      if (value.is_object() || !ordered) std::sort(parts.begin(), parts.end());
      text = value.is_object() ? "{" : "[";
      for (const auto& part : parts) text.append(part).append(" ");
      return text;
    }
    case JsonValue::Kind::kInteger:
    case JsonValue::Kind::kUnsigned: {
      const std::int64_t number = value.AsInt().value();
      if (number > 1'000'000'000'000 || number < -1'000'000'000'000) return "ID";
      return IsThisRun(number) ? "NOW" : std::to_string(number);
    }
    case JsonValue::Kind::kText: {
      const std::string written = value.AsText().value();
      if (key == "checksum") return "CHECKSUM";
      if (written.compare(0, 9, "2026-11-2") == 0) return "NOW";
      out.Text(written);
      return text;
    }
    case JsonValue::Kind::kBool:
    case JsonValue::Kind::kFloat:
      return value.AsText().value();
    case JsonValue::Kind::kNull:
      break;
  }
  return "null";
}

std::string Normal(const std::string& json, bool ordered) {
  const auto value = wire::ParseJson(json);
  return value ? Normal(*value, "", ordered) : "not JSON: " + json;
}

// The answer of /_status has times and durations of its own.
std::string WithoutTimes(std::string json) {
  for (const char* key : {"\"time\":", "\"duration\":", "\"timestamp\":\""}) {
    for (std::size_t at = json.find(key); at != std::string::npos; at = json.find(key, at + 1)) {
      const std::size_t begin = at + std::string(key).size();
      json.replace(begin, json.find_first_of(",}\"", begin) - begin,
                   key[1] == 't' && key[5] == 's' ? "x" : "0");
    }
  }
  return json;
}

void Substitute(std::string* body, const ServerFixture& server) {
  const std::string placeholder = "${t1:1}";
  const std::size_t at = body->find(placeholder);
  if (at == std::string::npos) return;
  const catalog::Secret* secret = server.root()->FindSecret(std::string_view("t1"));
  REQUIRE(secret != nullptr);
  auto versions = Must(service::VersionsBelow(server.services(), *secret, VersionNumber{2}, 1));
  REQUIRE(versions.size() == 1);
  body->replace(at, placeholder.size(), std::to_string(versions[0].id.value));
}

}  // namespace

TEST_CASE("existing clients meet the answers that they are used to", "[api][replay]") {
  ServerFixture server;
  const auto exchanges = ReadExchanges();
  REQUIRE(exchanges.size() > 190);
  for (RecordedExchange exchange : exchanges) {
    INFO("exchange " << exchange.name << ": " << exchange.request.method << " "
                     << exchange.request.target);
    Substitute(&exchange.request.body, server);
    server.clock().Advance(std::chrono::milliseconds(200));
    const TestReply reply = server.Send(CallerOf(exchange.caller), exchange.request);
    INFO("answered " << reply.status << " " << reply.body);
    CHECK(reply.status == exchange.status);
    CHECK(reply.content_type == exchange.content_type);
    for (const auto& [name, value] : exchange.headers) CHECK(reply.Header(name) == value);
    for (const std::string& element : exchange.contains) {
      const auto list = Must(wire::ParseJson(reply.body));
      const std::string wanted = Normal(element, exchange.ordered);
      CHECK(std::any_of(
          list.elements().begin(), list.elements().end(),
          [&](const JsonValue& value) { return Normal(value, "", exchange.ordered) == wanted; }));
    }
    if (!exchange.json) continue;
    const bool status = exchange.request.target == "/_status";
    const std::string expected = status ? WithoutTimes(*exchange.json) : *exchange.json;
    const std::string answered = status ? WithoutTimes(reply.body) : reply.body;
    CHECK(Normal(answered, exchange.ordered) == Normal(expected, exchange.ordered));
  }
}
