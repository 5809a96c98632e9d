#include "server/audit/event.h"

#include <array>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <type_traits>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/log.h"

namespace latchkey::audit {
namespace {

constexpr std::uint8_t kFormat = 0x01;
constexpr std::size_t kMaxTextBytes = 512;
constexpr std::size_t kHashBytes = 32;

// The one list of fields: encoder, decoder and JSON walk it, so that they cannot disagree. Numbers
// are stored: append only. Visitors are called in ascending order with (field number, JSON key,
// member).
template <class E, class Visit>
void VisitFields(E& event, Visit&& visit) {
  visit(1, "type", event.type);
  visit(2, "outcome", event.outcome);
  visit(3, "time", event.time_ns);
  visit(4, "requestId", event.request_id);
  visit(5, "actor", event.actor);
  visit(6, "actorId", event.actor_id);
  visit(7, "actorName", event.actor_name);
  visit(8, "address", event.address);
  visit(9, "secretId", event.secret_id);
  visit(10, "secret", event.secret_name);
  visit(11, "previousName", event.previous_name);
  visit(12, "number", event.version_number);
  visit(13, "previousNumber", event.previous_version_number);
  visit(14, "groupId", event.group_id);
  visit(15, "group", event.group_name);
  visit(16, "clientId", event.client_id);
  visit(17, "client", event.client_name);
  visit(18, "detail", event.detail);
  visit(19, "count", event.count);
  visit(20, "missing", event.missing_count);
  visit(21, "bits", event.client_bits);
  visit(22, "generation", event.generation);
  visit(23, "headChain", event.head_chain);
  visit(24, "headSeq", event.head_seq);
  visit(25, "headHash", event.head_hash);
  visit(26, "since", event.since_ns);
}
constexpr std::size_t kNumberOfFields = 26;
static_assert(1 + kNumberOfFields * 5 + 8 * kMaxTextBytes + kNumberOfFields * 8 < kMaxEventBytes);

// Length of the value of a number-like field.
template <class T>
constexpr std::size_t WidthOf() {
  if constexpr (std::is_enum_v<T>) return sizeof(std::underlying_type_t<T>);
  return sizeof(std::uint64_t);
}

template <class T>
std::uint64_t ToNumber(const T& value) {
  return static_cast<std::uint64_t>(value);
}

// Writes into room that was made before, so that the hot path grows the vector once per event.
class Writer {
 public:
  explicit Writer(std::uint8_t* at) : at_(at) {}

  template <class T>
  void operator()(int number, const char*, const T& value) {
    if constexpr (std::is_same_v<T, std::string_view>) {
      PutBytes(number, AsBytes(value.substr(0, kMaxTextBytes)));
    } else if constexpr (std::is_same_v<T, Bytes>) {
      INVARIANT(value.empty() || value.size() == kHashBytes);
      PutBytes(number, value);
    } else {
      const std::uint64_t plain = ToNumber(value);
      if (plain == 0) return;
      PutHead(number, WidthOf<T>());
      for (std::size_t i = WidthOf<T>(); i > 0; --i) {
        *at_++ = static_cast<std::uint8_t>(plain >> (8 * (i - 1)));
      }
    }
  }
  void PutFormat() { *at_++ = kFormat; }
  const std::uint8_t* at() const { return at_; }

 private:
  void PutHead(int number, std::size_t length) {
    *at_++ = static_cast<std::uint8_t>(number);
    for (int shift = 24; shift >= 0; shift -= 8)
      *at_++ = static_cast<std::uint8_t>(length >> shift);
  }
  void PutBytes(int number, Bytes value) {
    if (value.empty()) return;
    PutHead(number, value.size());
    std::memcpy(at_, value.data(), value.size());
    at_ += value.size();
  }

  std::uint8_t* at_;
};

bool IsKnownType(std::uint64_t code) {
  switch (code) {
#define LATCHKEY_X(name, number, text) case number:
    LATCHKEY_AUDIT_EVENT_TYPES(LATCHKEY_X)
#undef LATCHKEY_X
    return true;
    default:
      return false;
  }
}

// Takes the fields off the front in the order of VisitFields; whatever does not fit that order is
// left over.
class Reader {
 public:
  explicit Reader(Bytes rest) : rest_(rest) {}

  template <class T>
  void operator()(int number, const char*, T& value) {
    const std::optional<Bytes> field = Take(number);
    if (!field) return;
    if constexpr (std::is_same_v<T, std::string_view>) {
      good_ = good_ && !field->empty() && field->size() <= kMaxTextBytes;
      value = AsText(*field);
    } else if constexpr (std::is_same_v<T, Bytes>) {
      good_ = good_ && field->size() == kHashBytes;
      value = *field;
    } else {
      good_ = good_ && field->size() == WidthOf<T>();
      if (!good_) return;
      std::uint64_t plain = 0;
      for (const std::uint8_t byte : *field) plain = plain << 8 | byte;
      good_ = plain != 0 && IsValid<T>(plain);
      value = static_cast<T>(plain);
    }
  }
  bool Finished() const { return good_ && rest_.empty(); }

 private:
  template <class T>
  static bool IsValid(std::uint64_t plain) {
    if constexpr (std::is_same_v<T, EventType>) return IsKnownType(plain);
    if constexpr (std::is_same_v<T, Outcome>) return plain <= ToNumber(Outcome::kFailed);
    if constexpr (std::is_same_v<T, ActorKind>) return plain <= ToNumber(ActorKind::kServer);
    return true;
  }
  std::optional<Bytes> Take(int number) {
    if (!good_ || rest_.size() < 5 || rest_[0] != number) return std::nullopt;
    const std::size_t length = GetU32(rest_.data() + 1);
    if (length > rest_.size() - 5) {
      good_ = false;
      return std::nullopt;
    }
    const Bytes field = rest_.subspan(5, length);
    rest_ = rest_.subspan(5 + length);
    return field;
  }

  Bytes rest_;
  bool good_ = true;
};

void AppendText(std::string* out, std::string_view text) {
  out->push_back('"');
  AppendJsonEscaped(out, text, kMaxTextBytes);
  out->push_back('"');
}

class JsonWriter {
 public:
  explicit JsonWriter(std::string* out) : out_(out) {}

  template <class T>
  void operator()(int number, const char* key, const T& value) {
    if constexpr (std::is_same_v<T, std::string_view>) {
      if (value.empty()) return;
      Key(key);
      AppendText(out_, value);
    } else if constexpr (std::is_same_v<T, Bytes>) {
      if (value.empty()) return;
      Key(key);
      AppendText(out_, HexLower(value));
    } else {
      if (ToNumber(value) == 0) return;
      Key(key);
      Number(number, value);
    }
  }

 private:
  void Key(const char* key) { out_->append(",\"").append(key).append("\":"); }
  void Number(int, EventType type) { AppendText(out_, EventTypeName(type)); }
  void Number(int, Outcome outcome) { AppendText(out_, OutcomeName(outcome)); }
  void Number(int, ActorKind kind) { AppendText(out_, ActorKindName(kind)); }
  void Number(int number, std::int64_t value) {
    if (number != 3 && number != 26) {  // all but the times
      out_->append(std::to_string(value));
      return;
    }
    AppendText(out_, LogTimestamp(WallTime(std::chrono::nanoseconds(value))));
  }
  void Number(int number, std::uint64_t value) {
    if (number == 4) {
      char hex[17];
      std::snprintf(hex, sizeof hex, "%016llx", static_cast<unsigned long long>(value));
      AppendText(out_, hex);
    } else if (number == 21) {
      Bits(value);
    } else {
      out_->append(std::to_string(value));
    }
  }
  void Bits(std::uint64_t bits) {
    const char* separator = "";
    out_->push_back('[');
    for (const auto& [bit, name] :
         {std::pair{kBitEnabled, "enabled"}, std::pair{kBitAutomation, "automation"},
          std::pair{kBitContent, "content"}}) {
      if ((bits & bit) == 0) continue;
      out_->append(separator).append("\"").append(name).append("\"");
      separator = ",";
    }
    out_->push_back(']');
  }

  std::string* out_;
};

}  // namespace

std::string_view EventTypeName(EventType type) {
  switch (type) {
#define LATCHKEY_X(name, code, text) \
  case EventType::name:              \
    return text;
    LATCHKEY_AUDIT_EVENT_TYPES(LATCHKEY_X)
#undef LATCHKEY_X
  }
  return "unknown";
}

std::optional<EventType> ParseEventType(std::string_view name) {
#define LATCHKEY_X(enumerator, code, text) \
  if (name == text) return EventType::enumerator;
  LATCHKEY_AUDIT_EVENT_TYPES(LATCHKEY_X)
#undef LATCHKEY_X
  return std::nullopt;
}

std::string_view OutcomeName(Outcome outcome) {
  switch (outcome) {
    case Outcome::kAllowed:
      return "allowed";
    case Outcome::kDenied:
      return "denied";
    case Outcome::kFailed:
      return "failed";
  }
  return "unknown";
}

std::string_view ActorKindName(ActorKind kind) {
  switch (kind) {
    case ActorKind::kNone:
      return "none";
    case ActorKind::kClient:
      return "client";
    case ActorKind::kAutomation:
      return "automation";
    case ActorKind::kOperator:
      return "operator";
    case ActorKind::kServer:
      return "server";
  }
  return "unknown";
}

void EncodeEvent(const Event& event, ByteVector* out) {
  const std::size_t start = out->size();
  const std::size_t texts = event.actor_name.size() + event.address.size() +
                            event.secret_name.size() + event.previous_name.size() +
                            event.group_name.size() + event.client_name.size() +
                            event.detail.size() + event.head_chain.size() + event.head_hash.size();
  out->resize(start + 1 + kNumberOfFields * (5 + sizeof(std::uint64_t)) + texts);
  Writer writer(out->data() + start);
  writer.PutFormat();
  VisitFields(event, writer);
  out->resize(static_cast<std::size_t>(writer.at() - out->data()));
}

Result<Event> DecodeEvent(Bytes encoded) {
  if (encoded.empty() || encoded[0] != kFormat || encoded.size() > kMaxEventBytes) {
    return Error{Errc::kCorrupt, "not an audit event of format 1"};
  }
  Event event;
  event.type = EventType{};
  event.outcome = Outcome{};
  Reader reader(encoded.subspan(1));
  VisitFields(event, reader);
  if (!reader.Finished() || event.type == EventType{} || event.outcome == Outcome{}) {
    return Error{Errc::kCorrupt, "audit event is not in canonical form"};
  }
  return event;
}

EventKind PeekKind(Bytes encoded) {
  // Type and outcome are always there and come first: format u8, number u8, length u32, u16; number u8, length u32, u8.
  constexpr std::size_t kTypeAt = 6;
  constexpr std::size_t kOutcomeAt = 13;
  INVARIANT(encoded.size() > kOutcomeAt);
  return {static_cast<EventType>(encoded[kTypeAt] << 8 | encoded[kTypeAt + 1]),
          static_cast<Outcome>(encoded[kOutcomeAt])};
}

std::string EventToJson(std::string_view chain, std::uint64_t seq, const Event& event) {
  std::string json;
  json.reserve(512);
  json.append("{\"chain\":");
  AppendText(&json, chain);
  json.append(",\"seq\":").append(std::to_string(seq));
  VisitFields(event, JsonWriter(&json));
  json.push_back('}');
  return json;
}

void EventBatch::Add(const Event& event) {
  EncodeEvent(event, &bytes_);
  ends_.push_back(bytes_.size());
}

void EventBatch::Clear() {
  bytes_.clear();
  ends_.clear();
}

Bytes EventBatch::operator[](std::size_t index) const {
  const std::size_t begin = index == 0 ? 0 : ends_[index - 1];
  return Bytes(bytes_).subspan(begin, ends_[index] - begin);
}

}  // namespace latchkey::audit
