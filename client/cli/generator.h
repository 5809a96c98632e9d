// Contents drawn at random: `--generate SPEC`.
//
//   alnum:N         N characters of 0-9 A-Z a-z
//   hex:N           N characters of 0-9 a-f
//   base64:N        N random bytes in base64, padded
//   uuid            a random UUID (version 4), lower case
//   charset:CHARS:N N characters of CHARS: printable ASCII, at least two, none twice; a colon among them is taken
//
// Every character is equally likely (values that would favour some are drawn again), from libsodium's generator.
#pragma once

#include <string>
#include <string_view>

#include "common/base/result.h"
#include "common/secret/secret_buffer.h"

namespace latchkey::cli {

struct GeneratorSpec {
  enum class Kind { kCharacters, kBase64, kUuid };
  Kind kind = Kind::kUuid;
  std::string alphabet;   // of kCharacters
  std::size_t count = 0;  // characters, or bytes of kBase64
  // Bits of entropy of what Generate gives.
  double Bits() const;
};

// Errors: kInvalidArgument with the forms that exist; kTooLarge above the limit of a content.
Result<GeneratorSpec> ParseGeneratorSpec(std::string_view text);

// Errors: kUnavailable when secret memory is exhausted.
Result<SecretBuffer> Generate(const GeneratorSpec& spec);

}  // namespace latchkey::cli
