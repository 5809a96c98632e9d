#include "common/tls/filter_provider.h"

#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/params.h>
#include <openssl/provider.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

namespace latchkey::tls {
namespace {

constexpr const char* kName = "latchkey-tls";

// By operation, the algorithms that stay. An entry of the default provider has several names, "AES-128-GCM:id-aes128-GCM:…";
// it stays when one of them is listed.
struct Permitted {
  int operation;
  std::vector<std::string_view> names;  // empty: all of the operation
};

const std::vector<Permitted>& PermittedAlgorithms() {
  static const std::vector<Permitted> permitted = {
      // SHA-1 only because OpenSSL fingerprints certificates with it; a signature with it is refused by the security level.
      {OSSL_OP_DIGEST, {"SHA1", "SHA2-256", "SHA2-384", "SHA2-512"}},
      {OSSL_OP_CIPHER, {"AES-128-GCM", "AES-256-GCM", "ChaCha20-Poly1305"}},
      {OSSL_OP_MAC, {"HMAC"}},
      {OSSL_OP_KDF, {"HKDF", "TLS13-KDF", "TLS1-PRF"}},
      {OSSL_OP_RAND, {}},
      {OSSL_OP_KEYMGMT, {"EC", "X25519", "RSA", "RSA-PSS", "ED25519", "HMAC"}},
      {OSSL_OP_KEYEXCH, {"ECDH", "X25519"}},
      {OSSL_OP_SIGNATURE, {"ECDSA", "RSA", "ED25519", "HMAC"}},
      {OSSL_OP_DECODER, {"EC", "RSA", "RSA-PSS", "ED25519", "DER"}}};
  return permitted;
}

bool HasName(std::string_view names, const std::vector<std::string_view>& wanted) {
  while (!names.empty()) {
    const std::size_t colon = std::min(names.find(':'), names.size());
    const std::string_view name = names.substr(0, colon);
    if (std::find(wanted.begin(), wanted.end(), name) != wanted.end()) return true;
    names.remove_prefix(std::min(colon + 1, names.size()));
  }
  return false;
}

bool Stays(const OSSL_ALGORITHM& algorithm, const Permitted& permitted) {
  if (!permitted.names.empty() && !HasName(algorithm.algorithm_names, permitted.names))
    return false;
  if (permitted.operation != OSSL_OP_DECODER) return true;
  // Of all encodings of keys a certificate holds just one.
  const std::string_view properties = algorithm.property_definition;
  return properties.find("input=der") != std::string_view::npos &&
         properties.find("structure=SubjectPublicKeyInfo") != std::string_view::npos;
}

// The default provider in a context of its own, and the short lists of its algorithms. Made once, then only read.
struct Filter {
  OSSL_LIB_CTX* inner = nullptr;
  OSSL_PROVIDER* provider = nullptr;
  std::vector<std::pair<int, std::vector<OSSL_ALGORITHM>>>
      lists;  // each ends with an entry of nulls

  bool Open() {
    inner = OSSL_LIB_CTX_new();
    provider = inner != nullptr ? OSSL_PROVIDER_load(inner, "default") : nullptr;
    if (provider == nullptr) return false;
    for (const Permitted& permitted : PermittedAlgorithms()) {
      int no_cache = 0;
      const OSSL_ALGORITHM* all =
          OSSL_PROVIDER_query_operation(provider, permitted.operation, &no_cache);
      std::vector<OSSL_ALGORITHM> list;
      for (; all != nullptr && all->algorithm_names != nullptr; ++all) {
        if (Stays(*all, permitted)) list.push_back(*all);
      }
      if (list.empty()) return false;
      list.push_back(OSSL_ALGORITHM{nullptr, nullptr, nullptr, nullptr});
      lists.emplace_back(permitted.operation, std::move(list));
    }
    return true;
  }
};

Filter& TheFilter() {
  static Filter filter;
  return filter;
}

const OSSL_ALGORITHM* Query(void*, int operation, int* no_cache) {
  *no_cache = 0;
  for (const auto& [known, list] : TheFilter().lists) {
    if (known == operation) return list.data();
  }
  return nullptr;
}

// The groups of TLS; which of them are used is the context's setting.
int Capabilities(void*, const char* capability, OSSL_CALLBACK* callback, void* argument) {
  return OSSL_PROVIDER_get_capabilities(TheFilter().provider, capability, callback, argument);
}

const OSSL_PARAM* GettableParams(void*) {
  return OSSL_PROVIDER_gettable_params(TheFilter().provider);
}
int GetParams(void*, OSSL_PARAM params[]) {
  return OSSL_PROVIDER_get_params(TheFilter().provider, params);
}
void Teardown(void*) {}

template <class Function>
OSSL_DISPATCH Entry(int id, Function* function) {
  return {id, reinterpret_cast<void (*)(void)>(function)};
}

int Init(const OSSL_CORE_HANDLE*, const OSSL_DISPATCH*, const OSSL_DISPATCH** out,
         void** provider_context) {
  static const std::array<OSSL_DISPATCH, 6> kDispatch = {
      Entry(OSSL_FUNC_PROVIDER_GETTABLE_PARAMS, GettableParams),
      Entry(OSSL_FUNC_PROVIDER_GET_PARAMS, GetParams),
      Entry(OSSL_FUNC_PROVIDER_QUERY_OPERATION, Query),
      Entry(OSSL_FUNC_PROVIDER_GET_CAPABILITIES, Capabilities),
      Entry(OSSL_FUNC_PROVIDER_TEARDOWN, Teardown),
      OSSL_DISPATCH{0, nullptr}};
  *out = kDispatch.data();
  // The algorithms are the default provider's own functions and expect its context.
  *provider_context = OSSL_PROVIDER_get0_provider_ctx(TheFilter().provider);
  return 1;
}

OSSL_LIB_CTX* MakeLibrary() {
  InitOpenSsl();
  if (!TheFilter().Open()) return nullptr;
  OSSL_LIB_CTX* library = OSSL_LIB_CTX_new();
  if (library == nullptr || OSSL_PROVIDER_add_builtin(library, kName, Init) != 1 ||
      OSSL_PROVIDER_load(library, kName) == nullptr) {
    OSSL_LIB_CTX_free(library);
    return nullptr;
  }
  return library;
}

// Wiped on the way out: among the parameters is the private key.
void FreeKeyParams(OSSL_PARAM* params) {
  for (OSSL_PARAM* p = params; p != nullptr && p->key != nullptr; ++p) {
    if (p->data != nullptr && p->data_size > 0) OPENSSL_cleanse(p->data, p->data_size);
  }
  OSSL_PARAM_free(params);
}

}  // namespace

Result<OSSL_LIB_CTX*> TlsLibrary() {
  static OSSL_LIB_CTX* const library = MakeLibrary();
  if (library == nullptr)
    return Error{Errc::kInternal,
                 "openssl cannot make the TLS library context: " + DrainOpenSslErrors()};
  return library;
}

Result<KeyHandle> MoveKey(const EVP_PKEY* key, OSSL_LIB_CTX* library) {
  ERR_clear_error();
  OSSL_PARAM* raw = nullptr;
  if (EVP_PKEY_todata(key, EVP_PKEY_KEYPAIR, &raw) != 1) {
    return Error{Errc::kInvalidArgument, "private key cannot be exported: " + DrainOpenSslErrors()};
  }
  const CHandle<OSSL_PARAM, FreeKeyParams> params(raw);
  const CHandle<EVP_PKEY_CTX, EVP_PKEY_CTX_free> context(
      EVP_PKEY_CTX_new_from_name(library, EVP_PKEY_get0_type_name(key), nullptr));
  EVP_PKEY* moved = nullptr;
  if (!context || EVP_PKEY_fromdata_init(context.get()) != 1 ||
      EVP_PKEY_fromdata(context.get(), &moved, EVP_PKEY_KEYPAIR, params.get()) != 1) {
    return Error{Errc::kInvalidArgument,
                 "private key is of a kind that TLS here cannot use: " + DrainOpenSslErrors()};
  }
  return KeyHandle(moved);
}

}  // namespace latchkey::tls
