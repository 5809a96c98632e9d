// A base64 loop as one would write it without thinking: its jumps depend on the bytes. The
// object-code test must find it.
#include <cstddef>
#include <cstdint>

extern "C" void LeakyControlEncode(const std::uint8_t* in, char* out, std::size_t count);

extern "C" void LeakyControlEncode(const std::uint8_t* in, char* out, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    const int v = in[i] & 63;
    if (v < 26) {
      out[i] = static_cast<char>('A' + v);
    } else if (v < 52) {
      out[i] = static_cast<char>('a' + v - 26);
    } else if (v < 62) {
      out[i] = static_cast<char>('0' + v - 52);
    } else if (v == 62) {
      out[i] = '+';
    } else {
      out[i] = '/';
    }
  }
}
