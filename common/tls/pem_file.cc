#include "common/tls/pem_file.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>

#include "common/base/unique_fd.h"
#include "common/model/limits.h"

namespace latchkey::tls {
namespace {

// The bytes of a file, cleansed when they go: one of the files is a private key.
class FileBytes {
 public:
  explicit FileBytes(ByteVector bytes) : bytes_(std::move(bytes)) {}
  FileBytes(FileBytes&&) noexcept = default;
  FileBytes& operator=(FileBytes&&) = delete;
  ~FileBytes() {
    if (!bytes_.empty()) OPENSSL_cleanse(bytes_.data(), bytes_.size());
  }
  BioHandle Open() const {
    return BioHandle(BIO_new_mem_buf(bytes_.data(), static_cast<int>(bytes_.size())));
  }

 private:
  ByteVector bytes_;
};

enum class Secrecy { kPublic, kPrivate };

std::string Named(const std::string& path, const std::string& problem) {
  return "file " + path + ": " + problem;
}

Result<FileBytes> ReadFile(const std::string& path, Secrecy secrecy) {
  if (path.empty())
    return Error{Errc::kInvalidArgument, "a file name of the TLS configuration is empty"};
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  struct stat info {};
  if (!fd.valid() || ::fstat(fd.get(), &info) != 0) {
    return Error{Errc::kUnavailable, Named(path, std::string(std::strerror(errno)) +
                                                     ": make it readable for the server")};
  }
  if (!S_ISREG(info.st_mode))
    return Error{Errc::kInvalidArgument, Named(path, "is not a regular file")};
  if (secrecy == Secrecy::kPrivate && (info.st_mode & S_IRWXO) != 0) {
    return Error{
        Errc::kPermissionDenied,
        Named(path, "private key is open to every user: chmod 0600 it and replace the key")};
  }
  const auto size_bytes = static_cast<std::size_t>(info.st_size);
  if (size_bytes > limits::kMaxTrustFileBytes) {
    return Error{
        Errc::kTooLarge,
        Named(path, "is larger than " + std::to_string(limits::kMaxTrustFileBytes) + " bytes")};
  }
  ByteVector bytes(size_bytes);
  std::size_t done = 0;
  while (done < size_bytes) {
    const ssize_t got = ::read(fd.get(), bytes.data() + done, size_bytes - done);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      OPENSSL_cleanse(bytes.data(), bytes.size());
      return Error{Errc::kUnavailable, Named(path, "changed while it was read: try again")};
    }
    done += static_cast<std::size_t>(got);
  }
  return FileBytes(std::move(bytes));
}

// True when the last PEM call failed only because the file had ended.
bool AtEndOfPem() {
  const unsigned long code = ERR_peek_last_error();
  return ERR_GET_LIB(code) == ERR_LIB_PEM && ERR_GET_REASON(code) == PEM_R_NO_START_LINE;
}

int RefusePassword(char*, int, int, void*) {
  return -1;
}

}  // namespace

Result<X509StackHandle> ReadCertificateFile(const std::string& path, OSSL_LIB_CTX* library) {
  InitOpenSsl();
  ERR_clear_error();
  ASSIGN_OR_RETURN(const FileBytes bytes, ReadFile(path, Secrecy::kPublic));
  const BioHandle in = bytes.Open();
  X509StackHandle stack(sk_X509_new_null());
  for (;;) {
    X509* certificate = X509_new_ex(library, nullptr);
    INVARIANT(certificate != nullptr);
    if (PEM_read_bio_X509(in.get(), &certificate, RefusePassword, nullptr) == nullptr) {
      X509_free(certificate);
      break;
    }
    INVARIANT(sk_X509_push(stack.get(), certificate) > 0);
  }
  const bool ended = AtEndOfPem();
  const std::string detail = DrainOpenSslErrors();
  const int count = sk_X509_num(stack.get());
  if (!ended) {
    return Error{Errc::kInvalidArgument, Named(path, "certificate " + std::to_string(count + 1) +
                                                         " is malformed: " + detail)};
  }
  if (count == 0) return Error{Errc::kInvalidArgument, Named(path, "holds no PEM certificate")};
  return stack;
}

Result<KeyHandle> ReadPrivateKeyFile(const std::string& path) {
  InitOpenSsl();
  ERR_clear_error();
  ASSIGN_OR_RETURN(const FileBytes bytes, ReadFile(path, Secrecy::kPrivate));
  const BioHandle in = bytes.Open();
  KeyHandle key(PEM_read_bio_PrivateKey(in.get(), nullptr, RefusePassword, nullptr));
  if (!key) {
    DrainOpenSslErrors();
    return Error{Errc::kInvalidArgument, Named(path, "holds no unencrypted PEM private key")};
  }
  return key;
}

Result<std::vector<X509CrlHandle>> ReadCrlFile(const std::string& path, OSSL_LIB_CTX* library) {
  InitOpenSsl();
  ERR_clear_error();
  ASSIGN_OR_RETURN(const FileBytes bytes, ReadFile(path, Secrecy::kPublic));
  const BioHandle in = bytes.Open();
  std::vector<X509CrlHandle> crls;
  for (;;) {
    X509_CRL* crl = X509_CRL_new_ex(library, nullptr);
    INVARIANT(crl != nullptr);
    if (PEM_read_bio_X509_CRL(in.get(), &crl, RefusePassword, nullptr) == nullptr) {
      X509_CRL_free(crl);
      break;
    }
    crls.emplace_back(crl);
  }
  const bool ended = AtEndOfPem();
  const std::string detail = DrainOpenSslErrors();
  if (!ended) return Error{Errc::kInvalidArgument, Named(path, "holds a malformed CRL: " + detail)};
  if (crls.empty()) return Error{Errc::kInvalidArgument, Named(path, "holds no PEM CRL")};
  return crls;
}

}  // namespace latchkey::tls
