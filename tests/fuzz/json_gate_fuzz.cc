// The JSON gate on arbitrary bytes: it must answer, keep its limits, and read back what our own
// writer makes of the result.
#include <cstdlib>

#include "common/wire/json_gate.h"
#include "common/wire/json_out.h"
#include "common/wire/requests.h"

using namespace latchkey;
using namespace latchkey::wire;

namespace {

void Write(const JsonValue& value, JsonOut* out) {
  switch (value.kind()) {
    case JsonValue::Kind::kObject:
      out->BeginObject();
      for (const auto& member : value.members()) {
        out->Key(member.key);
        Write(member.value, out);
      }
      out->EndObject();
      return;
    case JsonValue::Kind::kArray:
      out->BeginArray();
      for (const auto& element : value.elements()) Write(element, out);
      out->EndArray();
      return;
    case JsonValue::Kind::kNull:
      out->Null();
      return;
    case JsonValue::Kind::kBool:
    case JsonValue::Kind::kInteger:
    case JsonValue::Kind::kUnsigned:
    case JsonValue::Kind::kFloat:
      out->Raw(value.AsText().value());
      return;
    case JsonValue::Kind::kText:
      out->Text(value.AsText().value());
      return;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto parsed = ParseJson(Bytes(data, size));
  if (!parsed) return 0;
  std::string text;
  JsonOut out(&text);
  Write(*parsed, &out);
  if (!ParseJson(text).has_value()) std::abort();
  (void)CreateSecretRequest::Parse(*parsed);
  (void)PartialUpdateRequest::Parse(*parsed);
  (void)ModifyGroupsRequest::Parse(*parsed);
  (void)ContentsAtVersionRequest::Parse(*parsed);
  (void)ClientStateRequest::Parse(*parsed);
  return 0;
}
