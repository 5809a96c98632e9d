// Contents on their way in and out of the program (rules O4, Y5): from stdin, a file, a prompt without echo or the
// generator, never from argv; to a file 0600 that appears whole or not at all, or to stdout.
#pragma once

#include <string>

#include "client/cli/terminal.h"
#include "common/base/result.h"
#include "common/secret/secret_buffer.h"

namespace latchkey::cli {

struct ContentSource {
  std::string
      from_file;         // "-": stdin; /dev/fd/N: that descriptor, as a shell's <(command) gives it
  std::string generate;  // a generator's SPEC
};

// Bytes are taken as they are, the newline at the end included; a prompt's line has none. Without file and generator:
// stdin, or, when that is a terminal, a prompt that asks twice. `what` is shown in the prompt.
// Errors: kInvalidArgument for an empty content, an unreadable file, two answers that differ, or a generator beside content
// that is piped in; kTooLarge above
// kHardMaxContentBytes; kUnavailable when secret memory is exhausted.
Result<SecretBuffer> ReadContent(Terminal& terminal, const ContentSource& source,
                                 const std::string& what);

// Writes `path` anew: mode 0600, flushed to disk, then put in place with one rename; a failure leaves what was there and
// no other file. Errors: kInvalidArgument when the directory or the target cannot take it; kUnavailable when the disk is full.
Status WriteFileAtomically(const std::string& path, Bytes content);

}  // namespace latchkey::cli
