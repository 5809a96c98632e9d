// Who else may use a private key file.
#pragma once

#include <string>

namespace latchkey::client {

// One line that names file, mode and remedy when others than its owner may use the key; empty when none may, or when there
// is no such file. Symbolic links are followed, for Kubernetes mounts keys behind them. A group may read what root owns
// (0640, how a key is given to an account that does not own it), but not write it. Only a warning: which accounts are
// trusted is the machine's affair.
std::string KeyFileWarning(const std::string& path);

}  // namespace latchkey::client
