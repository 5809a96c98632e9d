// The text of a key encryption key (rule K1): `lkkek1.<id>.<base64url of 32 bytes>.<check of 16 hex
// digits>`, one line.
//
// The same line is the key file, the systemd credential, the bytes on an inherited descriptor, and
// the recovery copy: a recovery copy becomes a key file by writing it into one with mode 0600. The
// check finds typing mistakes. Key text exists in the locked arena alone. Source: docs/formats.md,
// "Key file".
#pragma once

#include <cstdint>
#include <filesystem>

#include "common/crypto/crypto.h"
#include "common/secret/secret_buffer.h"

namespace latchkey::keys {

struct NumberedKek {
  std::uint32_t kek_id;
  crypto::Kek kek;
};

// The line without its newline.
Result<SecretBuffer> FormatKek(std::uint32_t kek_id, const crypto::Kek& kek);
// Accepts the line with or without one newline. kInvalidArgument for anything else; the message
// says which part is wrong and never repeats a byte of it.
Result<NumberedKek> ParseKek(Bytes text);

// Writes a new key file with mode 0600, fsyncs it and its directory. Errors: kConflict when the
// path exists, whatever it is; kUnavailable for other failures, after which no file is left.
Status CreateKekFile(const std::filesystem::path& path, std::uint32_t kek_id,
                     const crypto::Kek& kek);

// Rule K5: init asks for 8 characters of the exported recovery copy, at a place drawn for this
// question.
struct RecoveryQuestion {
  static constexpr std::size_t kChars = 8;
  std::size_t first =
      0;  // counted from 0 within the third part of the line (the key's base64url text)
};
RecoveryQuestion DrawRecoveryQuestion();
// True when `typed` is exactly those characters of `line` (a FormatKek line). Takes the same time
// for every wrong answer of the right length.
bool RecoveryAnswerIs(const SecretBuffer& line, RecoveryQuestion question, Bytes typed);

}  // namespace latchkey::keys
