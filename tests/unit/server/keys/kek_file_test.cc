#include "server/keys/kek_file.h"

#include <catch2/catch.hpp>
#include <set>

#include "keys_for_test.h"

namespace latchkey::keys {
namespace {

std::string LineOf(const tests::VectorRecord& record) {
  return record.Text("line");
}

TEST_CASE("Key lines equal the golden vectors both ways", "[keys]") {
  const auto records = tests::LoadVectors("kek_file.txt");
  for (const auto& record : records) {
    CAPTURE(record.name());
    const auto kek_id = static_cast<std::uint32_t>(record.Unsigned("kek_id"));
    const auto line = FormatKek(kek_id, crypto::Kek::FromBytes(record.Hex("kek")).value());
    REQUIRE(line.has_value());
    CHECK(InSecretArena(line.value().bytes().data()));
    CHECK(std::string(AsText(line.value().bytes())) == LineOf(record));
    for (const std::string end : {"", "\n"}) {
      const auto parsed = ParseKek(AsBytes(LineOf(record) + end));
      REQUIRE(parsed.has_value());
      CHECK(parsed.value().kek_id == kek_id);
      CHECK(HexLower(parsed.value().kek.bytes()) == HexLower(record.Hex("kek")));
    }
  }
  tests::CheckAllRead(records);
}

TEST_CASE("Anything but a key line is refused and not repeated", "[keys]") {
  const std::string good = LineOf(tests::LoadVectors("kek_file.txt").front());
  const std::string key = good.substr(9, 43);
  const std::string check = good.substr(53);
  REQUIRE(good == "lkkek1.1." + key + "." + check);
  const std::vector<std::string> bad = {"",
                                        "\n",
                                        good + "\n\n",
                                        good + "\r\n",
                                        " " + good,
                                        good + " ",
                                        good + ".",
                                        good + "x",
                                        "lkkek2" + good.substr(6),
                                        "LKKEK1" + good.substr(6),
                                        "lkkek1.01." + key + "." + check,
                                        "lkkek1.+1." + key + "." + check,
                                        "lkkek1.-1." + key + "." + check,
                                        "lkkek1.." + key + "." + check,
                                        "lkkek1.4294967296." + key + "." + check,
                                        "lkkek1.1x." + key + "." + check,
                                        "lkkek1.2." + key + "." + check,  // the check binds the id
                                        "lkkek1.1." + key.substr(1) + "." + check,
                                        "lkkek1.1." + key + "A." + check,
                                        "lkkek1.1." + key + "=." + check,
                                        "lkkek1.1." + key,
                                        "lkkek1.1." + key + ".",
                                        "lkkek1.1." + key + "." + check.substr(1),
                                        good + std::string(200, 'x'),
                                        std::string(60, '\0'),
                                        good.substr(0, 40)};
  for (const std::string& text : bad) {
    CAPTURE(text);
    const auto parsed = ParseKek(AsBytes(text));
    REQUIRE_FALSE(parsed.has_value());
    CHECK(parsed.error().code == Errc::kInvalidArgument);
    CHECK(parsed.error().message.find(key.substr(0, 6)) == std::string::npos);
    CHECK(parsed.error().message.find("recovery copy") != std::string::npos);
  }
}

TEST_CASE("Every single wrong character of a key line is found", "[keys]") {
  const std::string good = LineOf(tests::LoadVectors("kek_file.txt").front());
  std::size_t accepted = 0;
  for (std::size_t i = 0; i < good.size(); ++i) {
    for (const char c : std::string("Aa0-_.Zz9")) {
      std::string text = good;
      if (text[i] == c) continue;
      text[i] = c;
      accepted += ParseKek(AsBytes(text)).has_value() ? 1 : 0;
    }
  }
  CHECK(accepted == 0);
}

TEST_CASE("The recovery question accepts exactly the characters it asks for", "[keys]") {
  const auto line = FormatKek(7, KekOf(0x5e)).value();
  const std::string text(AsText(line.bytes()));
  std::set<std::size_t> places;
  for (int i = 0; i < 500; ++i) {
    const RecoveryQuestion question = DrawRecoveryQuestion();
    REQUIRE(question.first <= 35);
    places.insert(question.first);
    std::string answer = text.substr(9 + question.first, 8);
    REQUIRE(RecoveryAnswerIs(line, question, AsBytes(answer)));
    CHECK_FALSE(RecoveryAnswerIs(line, question, AsBytes(answer.substr(0, 7))));
    CHECK_FALSE(RecoveryAnswerIs(line, question, AsBytes(answer + "A")));
    answer[i % 8] = answer[i % 8] == 'A' ? 'B' : 'A';
    CHECK_FALSE(RecoveryAnswerIs(line, question, AsBytes(answer)));
  }
  CHECK(places.size() == 36);
  CHECK_FALSE(RecoveryAnswerIs(line, {36}, AsBytes("12345678")));
  CHECK_FALSE(RecoveryAnswerIs(SecretBuffer(), {0}, AsBytes("12345678")));
}

}  // namespace
}  // namespace latchkey::keys
