#include "common/tls/wiping_memory.h"

#include <openssl/crypto.h>

#include "common/secret/wiping_new.h"

namespace latchkey::tls {

Status UseWipingMemory() {
  if (CRYPTO_set_mem_functions(WipingMalloc, WipingRealloc, WipingFree) != 1) {
    return Error{Errc::kInternal, "OpenSSL was used before its memory could be made to be wiped"};
  }
  return {};
}

}  // namespace latchkey::tls
