#include "server/audit/event.h"

#include <catch2/catch.hpp>

#include "common/base/utf8.h"
#include "common/wire/json_gate.h"
#include "tests/unit/server/audit/audit_fixture.h"

namespace latchkey::audit {
namespace {

constexpr EventType kAllTypes[] = {
#define LATCHKEY_X(name, code, text) EventType::name,
    LATCHKEY_AUDIT_EVENT_TYPES(LATCHKEY_X)
#undef LATCHKEY_X
};

// Texts of a random event live here: an event only borrows.
struct OwnedEvent {
  std::string texts[8];
  ByteArray<32> hash{};
  Event event;
};

std::mt19937_64& Rng() {
  static std::mt19937_64 rng(Catch::rngSeed());
  return rng;
}
std::uint64_t Random(std::uint64_t below) {
  return Rng()() % below;
}

std::string RandomText(bool with_nul) {
  std::string text(Random(3) == 0 ? 0 : Random(64), '\0');
  const std::uint64_t flavour = Random(3);
  for (char& c : text) {
    if (flavour == 0) c = static_cast<char>('a' + Random(26));
    if (flavour == 1) c = static_cast<char>(Random(256));
    if (flavour == 2) c = static_cast<char>(Random(40));
    if (c == '\0' && !with_nul) c = '\n';
  }
  return text;
}

std::uint64_t RandomNumber() {
  return Random(3) == 0 ? 0 : Rng()() >> Random(64);
}

void FillRandomly(OwnedEvent* owned, bool with_nul) {
  for (std::string& text : owned->texts) text = RandomText(with_nul);
  for (std::uint8_t& byte : owned->hash) byte = static_cast<std::uint8_t>(Random(256));
  Event& event = owned->event;
  event.type = kAllTypes[Random(std::size(kAllTypes))];
  event.outcome = static_cast<Outcome>(1 + Random(3));
  event.time_ns = static_cast<std::int64_t>(RandomNumber() >> 1);
  event.request_id = RandomNumber();
  event.actor = static_cast<ActorKind>(Random(5));
  event.actor_id = static_cast<std::int64_t>(RandomNumber());
  event.actor_name = owned->texts[0];
  event.address = owned->texts[1];
  event.secret_id = static_cast<std::int64_t>(RandomNumber());
  event.secret_name = owned->texts[2];
  event.previous_name = owned->texts[3];
  event.version_number = RandomNumber();
  event.previous_version_number = RandomNumber();
  event.group_id = static_cast<std::int64_t>(RandomNumber());
  event.group_name = owned->texts[4];
  event.client_id = static_cast<std::int64_t>(RandomNumber());
  event.client_name = owned->texts[5];
  event.detail = owned->texts[6];
  event.count = RandomNumber();
  event.missing_count = RandomNumber();
  event.client_bits = Random(16);
  event.generation = RandomNumber();
  event.head_chain = owned->texts[7];
  event.head_seq = RandomNumber();
  if (Random(2) == 0) event.head_hash = owned->hash;
  event.since_ns = static_cast<std::int64_t>(RandomNumber() >> 1);
}

ByteVector Encode(const Event& event) {
  ByteVector bytes;
  EncodeEvent(event, &bytes);
  return bytes;
}

}  // namespace

TEST_CASE("Decoding gives back every field of a random event, and encoding it again the same bytes",
          "[audit]") {
  for (int round = 0; round < 3000; ++round) {
    OwnedEvent owned;
    FillRandomly(&owned, true);
    const Event& event = owned.event;
    const ByteVector bytes = Encode(event);
    REQUIRE(bytes.size() <= kMaxEventBytes);
    const Result<Event> back = DecodeEvent(bytes);
    REQUIRE(back.has_value());
    REQUIRE(back->type == event.type);
    REQUIRE(back->outcome == event.outcome);
    REQUIRE(back->time_ns == event.time_ns);
    REQUIRE(back->request_id == event.request_id);
    REQUIRE(back->actor == event.actor);
    REQUIRE(back->actor_id == event.actor_id);
    REQUIRE(back->actor_name == event.actor_name);
    REQUIRE(back->address == event.address);
    REQUIRE(back->secret_id == event.secret_id);
    REQUIRE(back->secret_name == event.secret_name);
    REQUIRE(back->previous_name == event.previous_name);
    REQUIRE(back->version_number == event.version_number);
    REQUIRE(back->previous_version_number == event.previous_version_number);
    REQUIRE(back->group_id == event.group_id);
    REQUIRE(back->group_name == event.group_name);
    REQUIRE(back->client_id == event.client_id);
    REQUIRE(back->client_name == event.client_name);
    REQUIRE(back->detail == event.detail);
    REQUIRE(back->count == event.count);
    REQUIRE(back->missing_count == event.missing_count);
    REQUIRE(back->client_bits == event.client_bits);
    REQUIRE(back->generation == event.generation);
    REQUIRE(back->head_chain == event.head_chain);
    REQUIRE(back->head_seq == event.head_seq);
    REQUIRE(AsText(back->head_hash) == AsText(event.head_hash));
    REQUIRE(back->since_ns == event.since_ns);
    REQUIRE(Encode(*back) == bytes);
    REQUIRE(PeekKind(bytes).type == event.type);
    REQUIRE(PeekKind(bytes).outcome == event.outcome);
  }
}

TEST_CASE("Whatever decodes encodes to the same bytes: no event has two encodings", "[audit]") {
  std::size_t decoded = 0;
  for (int round = 0; round < 20'000; ++round) {
    OwnedEvent owned;
    FillRandomly(&owned, true);
    ByteVector bytes = Encode(owned.event);
    const std::uint64_t changes = 1 + Random(3);
    for (std::uint64_t i = 0; i < changes; ++i) {
      const std::size_t at = Random(bytes.size());
      if (Random(4) == 0)
        bytes.erase(bytes.begin() + static_cast<std::ptrdiff_t>(at));
      else
        bytes[at] = static_cast<std::uint8_t>(Random(256));
      if (bytes.empty()) bytes.push_back(1);
    }
    const Result<Event> back = DecodeEvent(bytes);
    if (!back) {
      REQUIRE(back.error().code == Errc::kCorrupt);
      continue;
    }
    ++decoded;
    REQUIRE(Encode(*back) == bytes);
  }
  CHECK(decoded > 100);  // else the property was never tried
}

TEST_CASE("An event becomes one valid line of JSON whatever its texts hold", "[audit]") {
  for (int round = 0; round < 3000; ++round) {
    OwnedEvent owned;
    FillRandomly(&owned, false);
    const std::string json = EventToJson("store", static_cast<std::uint64_t>(round), owned.event);
    CAPTURE(json);
    const bool printable = std::all_of(json.begin(), json.end(), [](char c) {
      return static_cast<unsigned char>(c) >= 0x20 && c != 0x7f;
    });
    REQUIRE(printable);
    REQUIRE(IsValidUtf8(json));
    const Result<wire::JsonValue> parsed = wire::ParseJson(json);
    REQUIRE(parsed.has_value());
    REQUIRE(parsed->is_object());
    REQUIRE(parsed->OptionalText("chain").value() == std::string("store"));
    REQUIRE(parsed->OptionalInt("seq").value() == round);
    REQUIRE(parsed->OptionalText("type").value() == std::string(EventTypeName(owned.event.type)));
  }
}

TEST_CASE("Control characters, separators and bidi marks are escaped in JSON", "[audit]") {
  Event event = ReadEvent(0);
  event.secret_name = std::string_view("a\0\r\n\x1b\xe2\x80\xa8\xe2\x80\xae\xff\"\\z", 15);
  const std::string json = EventToJson("access:test", 9, event);
  CHECK(json ==
        "{\"chain\":\"access:test\",\"seq\":9,\"type\":\"secret.read\",\"outcome\":\"allowed\","
        "\"time\":\"2023-11-14T22:13:20.000000Z\",\"requestId\":\"0000000000000001\",\"actor\":"
        "\"client\","
        "\"actorId\":42,\"actorName\":\"web-1.example\",\"address\":\"127.0.0.1\",\"secretId\":1,"
        "\"secret\":\"a\\u0000\\u000d\\u000a\\u001b\\u2028\\u202e\\\\xff\\\"\\\\z\",\"number\":1}");
}

TEST_CASE("An encoded event has the bytes that docs/formats.md shows", "[audit]") {
  Event event;
  event.type = EventType::kSecretRead;
  event.outcome = Outcome::kDenied;
  event.secret_name = "ab";
  CHECK(HexLower(Encode(event)) ==
        "01"
        "01"
        "00000002"
        "0065"
        "02"
        "00000001"
        "02"
        "0a"
        "00000002"
        "6162");
}

TEST_CASE("Texts longer than 512 bytes are cut before they are stored", "[audit]") {
  const std::string exact(512, 'n');
  const std::string longer(513, 'n');
  Event event = ReadEvent(0);
  event.secret_name = exact;
  const ByteVector of_exact = Encode(event);
  CHECK(DecodeEvent(of_exact)->secret_name == exact);
  event.secret_name = longer;
  CHECK(Encode(event) == of_exact);
}

TEST_CASE("Truncated events do not decode, nor does an event without type or outcome", "[audit]") {
  const ByteVector whole = Encode(ReadEvent(1));
  REQUIRE(DecodeEvent(whole).has_value());
  std::size_t shorter_ones_that_decode = 0;
  for (std::size_t size = 0; size < whole.size(); ++size) {
    // Cut exactly between two fields it is another, smaller event: the chain's hash and length tell
    // those apart.
    if (DecodeEvent(Bytes(whole).first(size))) ++shorter_ones_that_decode;
  }
  CHECK(shorter_ones_that_decode == 9);
  Event event = ReadEvent(1);
  event.outcome = Outcome{};
  CHECK_FALSE(DecodeEvent(Encode(event)).has_value());
  event = ReadEvent(1);
  event.type = EventType{};
  CHECK_FALSE(DecodeEvent(Encode(event)).has_value());
  event.type = static_cast<EventType>(199);
  CHECK_FALSE(DecodeEvent(Encode(event)).has_value());
}

TEST_CASE("Every event type has a name of its own that leads back to it", "[audit]") {
  std::set<std::string_view> names;
  for (const EventType type : kAllTypes) {
    CHECK(names.insert(EventTypeName(type)).second);
    CHECK(ParseEventType(EventTypeName(type)) == type);
  }
  CHECK_FALSE(ParseEventType("secret.reed").has_value());
  CHECK_FALSE(ParseEventType("").has_value());
}

TEST_CASE("A batch hands out its events one by one and is empty after Clear", "[audit]") {
  EventBatch batch;
  CHECK(batch.empty());
  for (std::uint64_t i = 0; i < 3; ++i) batch.Add(ReadEvent(i));
  REQUIRE(batch.size() == 3);
  for (std::uint64_t i = 0; i < 3; ++i) {
    const ByteVector alone = Encode(ReadEvent(i));
    CHECK(AsText(batch[i]) == AsText(alone));
  }
  batch.Clear();
  CHECK(batch.empty());
}

}  // namespace latchkey::audit
