#include "common/wire/base64_kernels.h"

#include <tmmintrin.h>

#include <cstring>

// A choice written with ?: is compiled into jumps by gcc 12, so every choice here is arithmetic on
// masks.
namespace {

constexpr std::uint64_t Lanes(std::uint64_t byte) {
  return byte * 0x0101010101010101ULL;
}

// Per lane 1 when the lane is at least `bound`; lanes must be below 128 and 1 <= bound <= 128, so
// that no lane carries over.
constexpr std::uint64_t AtLeast(std::uint64_t lanes, std::uint64_t bound) {
  return ((lanes + Lanes(128 - bound)) >> 7) & Lanes(1);
}

// Six-bit values, one per lane, to characters: 'A' + v, and at 26, 52, 62 and 63 the distance to
// the next range.
constexpr std::uint64_t ToCharacters(std::uint64_t values) {
  std::uint64_t characters = values + Lanes('A');
  characters += AtLeast(values, 26) * 6;
  characters -= AtLeast(values, 52) * 75;
  characters -= AtLeast(values, 62) * 15;
  characters += AtLeast(values, 63) * 3;
  return characters;
}

// 48 bits, first byte highest, to eight lanes of six bits, first value highest.
constexpr std::uint64_t Spread(std::uint64_t bits) {
  bits = ((bits << 8) & 0x00ffffff00000000ULL) | (bits & 0x0000000000ffffffULL);
  bits = ((bits << 4) & 0x0fff00000fff0000ULL) | (bits & 0x00000fff00000fffULL);
  return ((bits << 2) & 0x3f003f003f003f00ULL) | (bits & 0x003f003f003f003fULL);
}

constexpr std::uint64_t Gather(std::uint64_t lanes) {
  lanes = ((lanes & 0x3f003f003f003f00ULL) >> 2) | (lanes & 0x003f003f003f003fULL);
  lanes = ((lanes & 0x0fff00000fff0000ULL) >> 4) | (lanes & 0x00000fff00000fffULL);
  return ((lanes & 0x00ffffff00000000ULL) >> 8) | (lanes & 0x0000000000ffffffULL);
}

// Per lane 0xff when first <= lane <= last.
constexpr std::uint64_t InRange(std::uint64_t lanes, std::uint64_t first, std::uint64_t last) {
  return (AtLeast(lanes, first) & ~AtLeast(lanes, last + 1)) * 0xff;
}

}  // namespace

extern "C" {

void LatchkeyBase64EncodeSwar(const std::uint8_t* in, char* out, std::size_t blocks) {
  const char* const end = out + blocks * 8;
  while (out != end) {
    std::uint64_t word;
    std::memcpy(&word, in, 8);
    word = __builtin_bswap64(word) >> 16;
    const std::uint64_t characters = __builtin_bswap64(ToCharacters(Spread(word)));
    std::memcpy(out, &characters, 8);
    in += 6;
    out += 8;
  }
}

// The register shuffle is the lookup: pshufb reads no memory. Method: W. Mula, "SIMD base64
// encoding".
__attribute__((target("ssse3"))) void LatchkeyBase64EncodeSsse3(const std::uint8_t* in, char* out,
                                                                std::size_t blocks) {
  const __m128i order = _mm_setr_epi8(1, 0, 2, 1, 4, 3, 5, 4, 7, 6, 8, 7, 10, 9, 11, 10);
  const __m128i shifts =
      _mm_setr_epi8('a' - 26, '0' - 52, '0' - 52, '0' - 52, '0' - 52, '0' - 52, '0' - 52, '0' - 52,
                    '0' - 52, '0' - 52, '0' - 52, '+' - 62, '/' - 63, 'A', 0, 0);
  const char* const end = out + blocks * 16;
  while (out != end) {
    const __m128i bytes =
        _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in)), order);
    const __m128i ac = _mm_mulhi_epu16(_mm_and_si128(bytes, _mm_set1_epi32(0x0fc0fc00)),
                                       _mm_set1_epi32(0x04000040));
    const __m128i bd = _mm_mullo_epi16(_mm_and_si128(bytes, _mm_set1_epi32(0x003f03f0)),
                                       _mm_set1_epi32(0x01000010));
    const __m128i values = _mm_or_si128(ac, bd);
    // 0 for a..z, 1..10 for digits, 11 '+', 12 '/', and 13 for A..Z.
    const __m128i capital =
        _mm_and_si128(_mm_cmpgt_epi8(_mm_set1_epi8(26), values), _mm_set1_epi8(13));
    const __m128i range = _mm_or_si128(_mm_subs_epu8(values, _mm_set1_epi8(51)), capital);
    const __m128i text = _mm_add_epi8(values, _mm_shuffle_epi8(shifts, range));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), text);
    in += 12;
    out += 16;
  }
}

std::uint64_t LatchkeyBase64DecodeSwar(const char* in, std::uint8_t* out, std::size_t blocks) {
  std::uint64_t wrong = 0;
  const char* const end = in + blocks * 8;
  while (in != end) {
    std::uint64_t word;
    std::memcpy(&word, in, 8);
    word = __builtin_bswap64(word);
    const std::uint64_t ascii = word & Lanes(0x7f);
    const std::uint64_t high =
        ascii | Lanes(0x80);  // room to subtract from without borrowing across lanes
    const std::uint64_t upper = InRange(ascii, 'A', 'Z');
    const std::uint64_t lower = InRange(ascii, 'a', 'z');
    const std::uint64_t digit = InRange(ascii, '0', '9');
    const std::uint64_t plus = InRange(ascii, '+', '+');
    const std::uint64_t slash = InRange(ascii, '/', '/');
    const std::uint64_t values =
        ((high - Lanes('A')) & upper) | ((high - Lanes('a' - 26)) & lower) |
        ((ascii + Lanes(52 - '0')) & digit) | (Lanes(62) & plus) | (Lanes(63) & slash);
    wrong |= (word & Lanes(0x80)) | ~(upper | lower | digit | plus | slash);
    const std::uint64_t bits = __builtin_bswap64(Gather(values & Lanes(0x3f)) << 16);
    std::memcpy(out, &bits, 4);
    const auto rest = static_cast<std::uint16_t>(bits >> 32);
    std::memcpy(out + 4, &rest, 2);
    in += 8;
    out += 6;
  }
  return wrong;
}

}  // extern "C"
