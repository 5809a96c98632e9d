// HttpClient: one mTLS connection to one server (libcurl). Typed calls are in api_client.h; this is
// the transport.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "client/lib/endpoint.h"
#include "client/lib/wiped_bytes.h"
#include "common/base/bytes.h"
#include "common/base/result.h"

namespace latchkey::client {

// The identity of this side and the trust in the other. Paths of PEM files; all three are required.
// They are read again for every new connection, so a renewed certificate is used without a restart.
struct TlsFiles {
  std::string ca_file;    // trusts exactly these CAs, never the system store
  std::string cert_file;  // leaf first, then intermediates
  std::string key_file;   // not encrypted; readable by this process only, preferably
};

struct HttpOptions {
  Endpoint server;
  TlsFiles tls;
  std::chrono::milliseconds connect_timeout{5000};  // TCP and TLS handshake together
  std::chrono::milliseconds total_timeout{30'000};  // one attempt, from first to last byte
  std::chrono::milliseconds retry_base{
      100};  // before the second attempt; doubles, with full jitter
  int max_attempts = 3;
  std::string user_agent = "latchkey/" LATCHKEY_VERSION;
};

struct HttpRequest {
  std::string_view method;         // GET, HEAD, POST, PUT or DELETE
  std::string target;              // path and query, already percent-encoded, starts with '/'
  std::optional<Bytes> json_body;  // borrowed until Send returns
  // True when sending it twice does what sending it once does. Only these are tried again, and only
  // these may go out on a kept-alive connection, where curl itself would repeat a request whose
  // connection turned out to be dead.
  bool idempotent = false;
  std::chrono::milliseconds extra_wait{
      0};  // added to total_timeout: the server may hold a feed request this long
  std::size_t max_response_bytes;
};

struct HttpResponse {
  int status = 0;
  WipedBytes body;
  std::string request_id;                     // X-Request-Id, printable ASCII only
  std::string www_authenticate;               // the reason of a 401, printable ASCII only
  std::optional<std::uint64_t> version;       // X-Latchkey-Version
  std::optional<std::uint64_t> generation;    // X-Latchkey-Generation
  std::optional<std::int64_t> server_time_s;  // Date, seconds since 1970
};

// TLS 1.2 or newer, chain and name of the server verified (rule T4), HTTP/1.1 kept alive, no
// redirects, no proxies (not from the environment either), no compression. Not thread-safe, except
// Cancel.
class HttpClient {
 public:
  // Makes no connection. Errors: kInvalidArgument when a file is missing or unreadable (the message
  // names it); kInternal when libcurl cannot be initialised.
  static Result<std::unique_ptr<HttpClient>> Open(HttpOptions options);
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  // Any HTTP status is a value; an Error means that no complete answer came. Idempotent requests
  // are repeated after a transport error or a 503, at most max_attempts times in all, with jittered
  // back-off. Errors: kUnavailable (no connection, no answer in time, cancelled), kUnauthenticated
  // (one side does not accept the certificate of the other), kTooLarge (answer above
  // max_response_bytes), kInvalidArgument (files do not fit).
  Result<HttpResponse> Send(const HttpRequest& request);

  // From any thread: the running and every later Send return kUnavailable at once, until Rearm.
  void Cancel();
  void Rearm();
  bool cancelled() const;

  const HttpOptions& options() const { return options_; }

 private:
  struct Impl;
  HttpClient(HttpOptions options, std::unique_ptr<Impl> impl);
  Result<HttpResponse> SendOnce(const HttpRequest& request, bool* may_retry);
  // Waits before attempt `attempt` (2, 3 ...); false when cancelled meanwhile.
  bool BackOff(int attempt);

  HttpOptions options_;
  std::unique_ptr<Impl> impl_;
};

// Makes libcurl wipe what it frees, once per process; Open calls it. Programs call it earlier,
// before threads start.
Status InitHttpLibrary();

}  // namespace latchkey::client
