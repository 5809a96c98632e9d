// OpenSSL's memory, zeroed when it is freed (rule Y4).
#pragma once

#include "common/base/result.h"

namespace latchkey::tls {

// Gives OpenSSL the allocators of common/secret/wiping_new.h; the program links common_wiping_new. Call it before the first
// use of OpenSSL in the process. kInternal when OpenSSL already took memory: the program must not go on.
Status UseWipingMemory();

}  // namespace latchkey::tls
