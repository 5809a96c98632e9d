// From JSON answers to the types of api_types.h. Texts are kept as they came: whoever shows one on
// a terminal escapes it. Errors: kInvalidArgument naming the member; ApiClient makes kInternal of
// it.
#pragma once

#include <string>
#include <vector>

#include "client/lib/api_types.h"
#include "common/base/result.h"
#include "common/wire/json_gate.h"

namespace latchkey::client {

Result<ChangeSet> DecodeChangeSet(const wire::JsonValue& json);
// SecretDetailV2 or SanitizedSecret: the members that we read are the same.
Result<SecretInfo> DecodeSecretInfo(const wire::JsonValue& json);
Result<ClientInfo> DecodeClientInfo(const wire::JsonValue& json);
Result<ClientState> DecodeClientState(const wire::JsonValue& json);
Result<GroupInfo> DecodeGroupInfo(const wire::JsonValue& json);
Result<HistoryEntry> DecodeHistoryEntry(const wire::JsonValue& json);
Result<Reader> DecodeReader(const wire::JsonValue& json);
Result<ServingEntry> DecodeServingEntry(const wire::JsonValue& json);
Result<AccessAnswer> DecodeAccessAnswer(const wire::JsonValue& json);
Result<AuditEvent> DecodeAuditEvent(const wire::JsonValue& json);
Result<ServerStatus> DecodeServerStatus(const wire::JsonValue& json);
Result<std::string> DecodeName(const wire::JsonValue& json);

template <class T>
Result<std::vector<T>> DecodeList(const wire::JsonValue& json,
                                  Result<T> (*decode)(const wire::JsonValue&)) {
  if (!json.is_array()) return Error{Errc::kInvalidArgument, "an array is expected"};
  std::vector<T> list;
  list.reserve(json.elements().size());
  for (const wire::JsonValue& element : json.elements()) {
    ASSIGN_OR_RETURN(T item, decode(element));
    list.push_back(std::move(item));
  }
  return list;
}

}  // namespace latchkey::client
