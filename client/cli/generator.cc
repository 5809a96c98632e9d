#include "client/cli/generator.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>

#include "common/crypto/crypto.h"
#include "common/model/limits.h"
#include "common/wire/base64.h"

namespace latchkey::cli {
namespace {

constexpr std::string_view kDigits = "0123456789";
constexpr std::string_view kUpper = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
constexpr std::string_view kLower = "abcdefghijklmnopqrstuvwxyz";

Error Unknown(std::string_view text) {
  return Error{Errc::kInvalidArgument,
               "generator \"" + std::string(text) +
                   "\" is not alnum:N, hex:N, base64:N, uuid or charset:CHARS:N"};
}

Result<std::size_t> ParseCount(std::string_view text, std::string_view digits) {
  std::size_t count = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), count);
  const bool over =
      error == std::errc::result_out_of_range || count > limits::kDefaultMaxContentBytes;
  if (!over && (error != std::errc() || end != digits.data() + digits.size())) return Unknown(text);
  if (over || count == 0) {
    return Error{over ? Errc::kTooLarge : Errc::kInvalidArgument,
                 "generator \"" + std::string(text) + "\": N may be from 1 to " +
                     std::to_string(limits::kDefaultMaxContentBytes)};
  }
  return count;
}

Status CheckAlphabet(std::string_view alphabet) {
  const std::set<char> distinct(alphabet.begin(), alphabet.end());
  const bool printable =
      std::all_of(alphabet.begin(), alphabet.end(), [](char c) { return c >= 0x20 && c < 0x7f; });
  if (!printable || alphabet.size() < 2) {
    return Error{Errc::kInvalidArgument,
                 "charset needs at least two characters, all printable ASCII"};
  }
  if (distinct.size() != alphabet.size()) {
    return Error{Errc::kInvalidArgument,
                 "charset names a character twice, which would make it more likely"};
  }
  return {};
}

// Random bytes in portions, in memory that is wiped: one call of the generator for each character would be slow.
class RandomStream {
 public:
  static Result<RandomStream> Make() {
    ASSIGN_OR_RETURN(SecretBuffer buffer, SecretBuffer::OfSize(256));
    return RandomStream(std::move(buffer));
  }
  std::uint8_t Next() {
    if (used_ == buffer_.size()) {
      crypto::RandomBytes(buffer_.mutable_bytes());
      used_ = 0;
    }
    return buffer_.bytes()[used_++];
  }

 private:
  explicit RandomStream(SecretBuffer buffer) : buffer_(std::move(buffer)), used_(buffer_.size()) {}
  SecretBuffer buffer_;
  std::size_t used_;
};

Result<SecretBuffer> Characters(const std::string& alphabet, std::size_t count) {
  ASSIGN_OR_RETURN(RandomStream random, RandomStream::Make());
  ASSIGN_OR_RETURN(SecretBuffer content, SecretBuffer::OfSize(count));
  // The largest multiple of the alphabet's size that a byte can hold: what lies above is drawn again, so that no
  // character is favoured.
  const std::size_t fair = 256 / alphabet.size() * alphabet.size();
  for (std::uint8_t& out : content.mutable_bytes()) {
    std::uint8_t drawn = random.Next();
    while (drawn >= fair) drawn = random.Next();
    out = static_cast<std::uint8_t>(alphabet[drawn % alphabet.size()]);
  }
  return content;
}

Result<SecretBuffer> Base64Text(std::size_t count) {
  ASSIGN_OR_RETURN(SecretBuffer bytes, SecretBuffer::OfSize(count));
  crypto::RandomBytes(bytes.mutable_bytes());
  ASSIGN_OR_RETURN(SecretBuffer text, SecretBuffer::OfSize(wire::Base64EncodedSize(count)));
  wire::Base64Encode(bytes.bytes(), reinterpret_cast<char*>(text.mutable_bytes().data()));
  return text;
}

Result<SecretBuffer> Uuid() {
  ASSIGN_OR_RETURN(SecretBuffer digits, Characters(std::string(kDigits) + "abcdef", 32));
  ASSIGN_OR_RETURN(SecretBuffer variant, Characters("89ab", 1));
  MutableBytes from = digits.mutable_bytes();
  from[12] = '4';                 // version 4
  from[16] = variant.bytes()[0];  // variant 10xx
  ASSIGN_OR_RETURN(SecretBuffer text, SecretBuffer::OfSize(36));
  MutableBytes to = text.mutable_bytes();
  std::size_t at = 0;
  for (std::size_t i = 0; i < to.size(); ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    to[i] = dash ? static_cast<std::uint8_t>('-') : from[at++];
  }
  return text;
}

}  // namespace

double GeneratorSpec::Bits() const {
  switch (kind) {
    case Kind::kCharacters:
      return static_cast<double>(count) * std::log2(static_cast<double>(alphabet.size()));
    case Kind::kBase64:
      return static_cast<double>(count) * 8;
    case Kind::kUuid:
      return 122;
  }
  INVARIANT(false);
}

Result<GeneratorSpec> ParseGeneratorSpec(std::string_view text) {
  GeneratorSpec spec;
  if (text == "uuid") return spec;
  const std::size_t first = text.find(':');
  const std::size_t last = text.rfind(':');
  if (first == std::string_view::npos) return Unknown(text);
  const std::string_view kind = text.substr(0, first);
  spec.kind = GeneratorSpec::Kind::kCharacters;
  if (kind == "alnum") {
    spec.alphabet.append(kDigits).append(kUpper).append(kLower);
  } else if (kind == "hex") {
    spec.alphabet.append(kDigits).append("abcdef");
  } else if (kind == "base64") {
    spec.kind = GeneratorSpec::Kind::kBase64;
  } else if (kind == "charset" && last > first) {
    spec.alphabet = std::string(text.substr(first + 1, last - first - 1));
    RETURN_IF_ERROR(CheckAlphabet(spec.alphabet));
  } else {
    return Unknown(text);
  }
  if (kind != "charset" && last != first) return Unknown(text);
  ASSIGN_OR_RETURN(spec.count, ParseCount(text, text.substr(last + 1)));
  return spec;
}

Result<SecretBuffer> Generate(const GeneratorSpec& spec) {
  switch (spec.kind) {
    case GeneratorSpec::Kind::kCharacters:
      return Characters(spec.alphabet, spec.count);
    case GeneratorSpec::Kind::kBase64:
      return Base64Text(spec.count);
    case GeneratorSpec::Kind::kUuid:
      return Uuid();
  }
  INVARIANT(false);
}

}  // namespace latchkey::cli
