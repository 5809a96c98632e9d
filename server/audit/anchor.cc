#include "server/audit/anchor.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>

#include "common/base/trusted_path.h"
#include "common/base/unique_fd.h"

namespace latchkey::audit {
namespace {

constexpr std::string_view kFirstLine = "latchkey-anchor 1";
constexpr std::string_view kMacLabel =
    "anchor";  // stands where a chain id stands: no chain has this name
constexpr std::size_t kMaxAnchorBytes = 4096;

Error IoError(const std::string& what) {
  return Error{Errc::kUnavailable, what + ": " + std::strerror(errno)};
}
Error Malformed() {
  return Error{Errc::kCorrupt, "the anchor file is not in the form that this server writes"};
}

std::string HeadText(const ChainHead& head) {
  return std::to_string(head.seq) + " " + HexLower(head.hash);
}

crypto::Hash AnchorMac(const crypto::AuditKey& key, std::string_view body) {
  return crypto::ChainHash(key, crypto::Hash{}, kMacLabel, 0, AsBytes(body));
}

// Takes `prefix value\n` off the front of `text`.
bool TakeLine(std::string_view* text, std::string_view prefix, std::string_view* value) {
  if (!text->starts_with(prefix)) return false;
  text->remove_prefix(prefix.size());
  const std::size_t end = text->find('\n');
  if (end == std::string_view::npos) return false;
  *value = text->substr(0, end);
  text->remove_prefix(end + 1);
  return true;
}

bool ParseNumber(std::string_view text, std::uint64_t* value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *value);
  return error == std::errc{} && end == text.data() + text.size();
}

template <std::size_t N>
bool ParseHexArray(std::string_view text, ByteArray<N>* out) {
  ByteVector bytes;
  if (!ParseHex(text, &bytes) || bytes.size() != N) return false;
  std::copy(bytes.begin(), bytes.end(), out->begin());
  return true;
}

bool ParseHead(std::string_view text, ChainHead* head) {
  const std::size_t space = text.find(' ');
  return space != std::string_view::npos && ParseNumber(text.substr(0, space), &head->seq) &&
         ParseHexArray(text.substr(space + 1), &head->hash);
}

std::string AnchorBody(const Anchor& anchor) {
  std::string body(kFirstLine);
  body.append("\nstore_id ").append(HexLower(anchor.store_id));
  body.append("\ngeneration ").append(std::to_string(anchor.generation.value));
  body.append("\nstore ").append(HeadText(anchor.store));
  body.append("\naccess_chain ").append(anchor.access_chain);
  body.append("\naccess ").append(HeadText(anchor.access));
  body.append("\n");
  return body;
}

Status WriteTemporary(const std::string& path, std::string_view text) {
  const Result<UniqueFd> fd = OpenRegularFile(path, O_WRONLY | O_CREAT | O_TRUNC, "it");
  if (!fd) {
    return Error{Errc::kUnavailable, "cannot write the anchor " + path + ": " + fd.error().message};
  }
  while (!text.empty()) {
    const ssize_t put = ::write(fd->get(), text.data(), text.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return IoError("cannot write the anchor " + path);
    text.remove_prefix(static_cast<std::size_t>(put));
  }
  if (::fsync(fd->get()) == 0) return {};
  // Where space is only claimed at this point a full disk shows here; the anchor in force is untouched.
  if (errno == ENOSPC || errno == EDQUOT) return IoError("cannot write the anchor " + path);
  return Error{Errc::kInternal, "fsync of the anchor failed"};
}

}  // namespace

std::string EncodeAnchor(const crypto::AuditKey& key, const Anchor& anchor) {
  std::string text = AnchorBody(anchor);
  const std::string mac = HexLower(AnchorMac(key, text));
  return text.append("mac ").append(mac).append("\n");
}

Result<Anchor> DecodeAnchor(const crypto::AuditKey& key, std::string_view text) {
  Anchor anchor;
  std::string_view rest = text;
  std::string_view first, store_id, generation, store, access_chain, access, mac;
  if (!TakeLine(&rest, kFirstLine, &first) || !first.empty() ||
      !TakeLine(&rest, "store_id ", &store_id) || !TakeLine(&rest, "generation ", &generation) ||
      !TakeLine(&rest, "store ", &store) || !TakeLine(&rest, "access_chain ", &access_chain) ||
      !TakeLine(&rest, "access ", &access)) {
    return Malformed();
  }
  const std::string_view body = text.substr(0, text.size() - rest.size());
  crypto::Hash stored_mac{};
  if (!TakeLine(&rest, "mac ", &mac) || !rest.empty() || !ParseHexArray(mac, &stored_mac))
    return Malformed();
  if (!crypto::EqualsConstantTime(stored_mac, AnchorMac(key, body))) {
    return Error{Errc::kCorrupt, "the anchor file was changed, or belongs to another store"};
  }
  anchor.access_chain = std::string(access_chain);
  if (!ParseHexArray(store_id, &anchor.store_id) ||
      !ParseNumber(generation, &anchor.generation.value) || !ParseHead(store, &anchor.store) ||
      !ParseHead(access, &anchor.access)) {
    return Malformed();
  }
  return anchor;
}

Status WriteAnchor(const std::string& path, const crypto::AuditKey& key, const Anchor& anchor) {
  const std::string temporary = path + ".new";
  RETURN_IF_ERROR(WriteTemporary(temporary, EncodeAnchor(key, anchor)));
  if (::rename(temporary.c_str(), path.c_str()) != 0)
    return IoError("cannot replace the anchor " + path);
  const std::size_t slash = path.rfind('/');
  const std::string directory = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const UniqueFd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) return IoError("cannot open the directory of the anchor " + path);
  if (::fsync(fd.get()) != 0)
    return Error{Errc::kInternal, "fsync of the anchor's directory failed"};
  return {};
}

Result<std::optional<Anchor>> ReadAnchor(const std::string& path, const crypto::AuditKey& key) {
  const Result<UniqueFd> fd = OpenRegularFile(path, O_RDONLY, "the anchor " + path);
  if (!fd && fd.error().code == Errc::kNotFound) return std::optional<Anchor>();
  if (!fd) return fd.error();
  std::string text(kMaxAnchorBytes, '\0');
  const ssize_t got = ::read(fd->get(), text.data(), text.size());
  if (got < 0) return IoError("cannot read the anchor " + path);
  text.resize(static_cast<std::size_t>(got));
  Result<Anchor> anchor = DecodeAnchor(key, text);
  if (!anchor) return Error{anchor.error().code, anchor.error().message + " (" + path + ")"};
  return std::optional<Anchor>(std::move(anchor).value());
}

Status CheckAgainstAnchor(
    const Anchor& anchor, const StorePosition& store,
    const std::function<Result<std::optional<crypto::Hash>>(std::uint64_t seq)>& hash_at) {
  constexpr const char* kAdvice =
      "; put the newer store back, or accept the older one with --accept-rollback";
  if (anchor.store_id != store.store_id) {
    return Error{Errc::kConflict, std::string("the anchor belongs to another store") + kAdvice};
  }
  if (store.generation < anchor.generation || store.head.seq < anchor.store.seq) {
    return Error{Errc::kConflict, "the store is older than its anchor: generation " +
                                      std::to_string(store.generation.value) + " of " +
                                      std::to_string(anchor.generation.value) + ", audit record " +
                                      std::to_string(store.head.seq) + " of " +
                                      std::to_string(anchor.store.seq) + kAdvice};
  }
  if (anchor.store.seq == 0) return {};
  ASSIGN_OR_RETURN(const std::optional<crypto::Hash> hash, hash_at(anchor.store.seq));
  if (!hash || *hash != anchor.store.hash) {
    return Error{Errc::kConflict, "the store's audit chain differs from its anchor at record " +
                                      std::to_string(anchor.store.seq) + kAdvice};
  }
  return {};
}

}  // namespace latchkey::audit
