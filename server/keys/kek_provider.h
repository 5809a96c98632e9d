// Where the key encryption key comes from (rule K1): a file, a systemd credential or an inherited
// descriptor; never the environment, argv, a configuration value or a URL.
//
// Every error of a provider, and of Keyring::Load, is one line that says what to do; main prints it
// and ends with kKeyExitCode before any listener is opened (rule K3).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "common/base/unique_fd.h"
#include "common/crypto/crypto.h"
#include "server/keys/kek_file.h"

namespace latchkey::keys {

inline constexpr int kKeyExitCode = 78;  // EX_CONFIG of sysexits.h

class KekProvider {
 public:
  virtual ~KekProvider() = default;
  // The key with this id. kNotFound when the source holds another id; kPermissionDenied,
  // kInvalidArgument, kUnavailable when the source itself is refused. Not thread-safe.
  virtual Result<crypto::Kek> Load(std::uint32_t kek_id) = 0;
  // Whatever key the source holds: for offline commands that are told the store's id only
  // afterwards.
  virtual Result<NumberedKek> LoadAny() = 0;
};

// Common to all sources here, which hold one key each.
class SingleKekProvider : public KekProvider {
 public:
  Result<crypto::Kek> Load(std::uint32_t kek_id) final;

 protected:
  virtual std::string Describe() const = 0;
};

// A file: opened without following a last symbolic link, regular, one link, owned by root or by the
// effective user, no bit for group or others, at most limits::kMaxKekFileBytes. Read anew at each
// Load.
class FileKekProvider final : public SingleKekProvider {
 public:
  explicit FileKekProvider(std::filesystem::path path) : path_(std::move(path)) {}
  Result<NumberedKek> LoadAny() override;

 private:
  std::string Describe() const override { return "key file " + path_.string(); }
  std::filesystem::path path_;
};

// The systemd credential `name` in `directory` (main reads $CREDENTIALS_DIRECTORY; empty = not
// set). The rules of a file, except that a file of root may have the group read bit: systemd 252
// grants the service user by an ACL, whose mask shows there.
class CredentialKekProvider final : public SingleKekProvider {
 public:
  CredentialKekProvider(std::filesystem::path directory, std::string name)
      : directory_(std::move(directory)), name_(std::move(name)) {}
  Result<NumberedKek> LoadAny() override;

 private:
  std::string Describe() const override { return "credential " + name_; }
  std::filesystem::path directory_;
  std::string name_;
};

// An inherited descriptor (a pipe, a memfd, a file): read to its end and closed at the first Load,
// which is the only one; whoever passes it answers for its protection.
class FdKekProvider final : public SingleKekProvider {
 public:
  explicit FdKekProvider(UniqueFd fd) : fd_(std::move(fd)) {}
  Result<NumberedKek> LoadAny() override;

 private:
  std::string Describe() const override { return "key from the inherited descriptor"; }
  UniqueFd fd_;
};

}  // namespace latchkey::keys
