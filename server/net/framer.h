// Strict HTTP/1.x framing (rule H1): where a request begins and ends, and nothing about what it
// means.
//
// One byte string has exactly one reading: CRLF only, HTTP/1.0 and 1.1, one Host, one
// Content-Length of digits, no folded lines, no blank before a colon, no NUL, never Content-Length
// with Transfer-Encoding, no chunk extension, no trailer. Pure functions of their input; no I/O, no
// allocation but for a repeated Accept. Fuzzed against a second, slow framer (Z2).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "common/model/limits.h"
#include "server/net/http.h"

namespace latchkey::net {

struct FramerLimits {
  std::size_t max_target_bytes = limits::kMaxTargetBytes;  // 414
  std::size_t max_head_bytes =
      limits::kMaxHeadBytes;  // 431; request line, fields and the empty line
  std::size_t max_header_fields = limits::kMaxHeaderFields;  // 431
  std::size_t max_body_bytes =
      limits::MaxBodyBytes(limits::kDefaultMaxContentBytes);  // 413; after decoding
};

// A head whose framing is good. All views borrow from the input that was parsed.
struct RequestHead {
  Method method = Method::kOther;
  std::string_view target;
  std::string_view host;
  std::string_view content_type;
  std::string_view first_accept;
  std::string joined_accept;  // only when several Accept lines were sent
  std::string_view forwarded_identity;
  std::size_t forwarded_identity_count = 0;
  bool has_content_type = false;
  bool has_accept = false;
  bool double_slash = false;  // "//" in the path: 404 without asking a handler
  bool http10 = false;
  bool keep_alive = true;
  bool expect_continue = false;
  bool chunked = false;
  std::uint64_t content_length = 0;  // meaningless when chunked
  std::size_t head_bytes = 0;        // up to and with the empty line

  std::string_view accept() const {
    return joined_accept.empty() ? first_accept : std::string_view(joined_accept);
  }
  bool has_body() const { return chunked || content_length > 0; }
};

// kNeedMore: incomplete so far. kComplete: `head` is filled. Anything else is the status of the
// refusal, after which the connection must be closed: 400, 413, 414, 415, 417, 431, 501 or 505.
inline constexpr int kNeedMore = 0;
inline constexpr int kComplete = 1;

// Parses the head at the beginning of `input`. `*scanned` is how much an earlier call with a
// shorter input has looked at already (0 at first); it makes a head that trickles in byte by byte
// linear. Leaves it at 0 unless kNeedMore.
int ParseHead(std::string_view input, const FramerLimits& limits, std::size_t* scanned,
              RequestHead* head);

// Decodes a body piece by piece, whatever the pieces are.
class BodyDecoder {
 public:
  explicit BodyDecoder(const RequestHead& head, const FramerLimits& limits)
      : state_(head.chunked ? State::kSize
                            : (head.content_length > 0 ? State::kPlain : State::kDone)),
        left_(head.chunked ? 0 : head.content_length),
        max_bytes_(limits.max_body_bytes) {}

  struct Step {
    std::size_t consumed_bytes = 0;  // of the input
    std::string_view data;           // content bytes, within the consumed ones
    int status = kNeedMore;          // as for ParseHead; 400 or 413 when refused
  };
  // Takes what can be taken in one piece; call again with the rest while it consumes something and
  // needs more.
  Step Next(std::string_view input);

 private:
  enum class State { kPlain, kSize, kSizeLf, kData, kDataCr, kDataLf, kEndCr, kEndLf, kDone };
  Step TakeData(std::string_view input, State after);
  int TakeControl(char c);

  State state_;
  std::uint64_t left_;       // bytes of the body (plain) or of the current chunk
  std::uint64_t total_ = 0;  // content bytes announced so far by chunk sizes
  std::uint64_t max_bytes_;
  int digits_ = 0;  // of the current chunk size
};

}  // namespace latchkey::net
