// Delivery objects (API spec 1.5, SecretDelivery) parsed straight from the answer into
// SecretBuffers: no DOM, no std::string on the way of a content (rules Y4, Y5), and the limits
// applied to what the server says (rule F7).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/base/bytes.h"
#include "common/base/result.h"
#include "common/model/metadata.h"
#include "common/secret/secret_buffer.h"

namespace latchkey::client {

struct DeliveredSecret {
  std::string name;
  SecretBuffer content;  // empty in a listing
  std::string checksum;
  std::string creation_date;  // ApiDate texts of the series, as sent
  std::string update_date;
  std::optional<std::uint64_t> version;  // only with ?versions=true
  Metadata metadata;                     // the flattened members, in the order of the answer
};

struct DeliveryLimits {
  std::size_t max_secrets;
  std::size_t max_content_bytes;  // of one secret
  std::size_t max_total_bytes;    // of all contents together
};

// One object, or an array of them; nothing but blanks may follow. `json` is the answer and is
// changed while it is parsed (escapes are undone in place); its owner wipes it. Every object needs
// name, secret and checksum. Refused: nested values, duplicate members or names, escapes or white
// space in a content, content whose size differs from secretLength, bad base64, invalid UTF-8,
// control bytes, metadata over the limits of the model. Errors: kInternal when it is malformed
// (position named, never bytes), kTooLarge over a limit, kUnavailable when secret memory is
// exhausted.
Result<DeliveredSecret> ParseDelivery(MutableBytes json, const DeliveryLimits& limits);
Result<std::vector<DeliveredSecret>> ParseDeliveries(MutableBytes json,
                                                     const DeliveryLimits& limits);

}  // namespace latchkey::client
