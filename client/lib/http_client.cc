#include "client/lib/http_client.h"

#include <curl/curl.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <charconv>
#include <utility>

#include "client/lib/http_errors.h"
#include "common/base/c_handle.h"
#include "common/base/unique_fd.h"
#include "common/crypto/crypto.h"
#include "common/secret/wiping_new.h"
#include "common/tls/client_context.h"

namespace latchkey::client {
namespace {

Status CheckReadable(const std::string& path, const char* what) {
  if (path.empty()) return Error{Errc::kInvalidArgument, std::string("no ") + what + " is given"};
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file.valid()) {
    const int error = errno;
    return Error{Errc::kInvalidArgument,
                 std::string(what) + " \"" + path + "\" cannot be read: " +
                     (error == ENOENT   ? "no such file"
                      : error == EACCES ? "permission denied, use the account that owns it"
                                        : "error " + std::to_string(error))};
  }
  struct stat info {};
  if (::fstat(file.get(), &info) != 0 || !S_ISREG(info.st_mode)) {
    return Error{Errc::kInvalidArgument,
                 std::string(what) + " \"" + path + "\" is not a regular file"};
  }
  return {};
}

std::string PrintableAscii(std::string_view text, std::size_t limit_bytes) {
  std::string clean;
  for (const char c : text.substr(0, limit_bytes)) {
    if (c >= 0x20 && c < 0x7f) clean.push_back(c);
  }
  return clean;
}

bool EqualsIgnoringCase(std::string_view a, std::string_view b) {
  return a.size() == b.size() && ::strncasecmp(a.data(), b.data(), a.size()) == 0;
}

std::optional<std::uint64_t> ParseNumber(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// What the callbacks of one transfer fill.
struct Transfer {
  HttpResponse response;
  std::size_t max_body_bytes = 0;
  std::size_t header_bytes = 0;
  bool too_large = false;
};

std::size_t OnBody(char* data, std::size_t size, std::size_t count, void* context) {
  auto* transfer = static_cast<Transfer*>(context);
  const std::size_t bytes = size * count;
  if (bytes > transfer->max_body_bytes - transfer->response.body.size()) {
    transfer->too_large = true;
    return 0;  // makes curl end the transfer
  }
  transfer->response.body.Append(std::string_view(data, bytes));
  return bytes;
}

std::size_t OnHeader(char* data, std::size_t size, std::size_t count, void* context) {
  constexpr std::size_t kMaxResponseHeaderBytes = 64 * 1024;
  constexpr std::size_t kMaxValueBytes = 200;
  auto* transfer = static_cast<Transfer*>(context);
  const std::size_t bytes = size * count;
  transfer->header_bytes += bytes;
  if (transfer->header_bytes > kMaxResponseHeaderBytes) {
    transfer->too_large = true;
    return 0;
  }
  std::string_view line(data, bytes);
  const std::size_t colon = line.find(':');
  if (colon == std::string_view::npos) return bytes;
  const std::string_view name = line.substr(0, colon);
  std::string_view value = line.substr(colon + 1);
  while (!value.empty() && (value.front() == ' ' || value.front() == '\t')) value.remove_prefix(1);
  while (!value.empty() && (value.back() == '\r' || value.back() == '\n' || value.back() == ' ')) {
    value.remove_suffix(1);
  }
  HttpResponse& response = transfer->response;
  if (EqualsIgnoringCase(name, "X-Request-Id")) {
    response.request_id = PrintableAscii(value, kMaxValueBytes);
  } else if (EqualsIgnoringCase(name, "WWW-Authenticate")) {
    response.www_authenticate = PrintableAscii(value, kMaxValueBytes);
  } else if (EqualsIgnoringCase(name, "X-Latchkey-Version")) {
    response.version = ParseNumber(value);
  } else if (EqualsIgnoringCase(name, "X-Latchkey-Generation")) {
    response.generation = ParseNumber(value);
  } else if (EqualsIgnoringCase(name, "Date")) {
    const time_t date = curl_getdate(PrintableAscii(value, kMaxValueBytes).c_str(), nullptr);
    if (date > 0) response.server_time_s = date;
  } else if (EqualsIgnoringCase(name, "Content-Length")) {
    // One allocation of the right size: no copies of a content while the buffer grows.
    const auto length = ParseNumber(value);
    if (length && *length <= transfer->max_body_bytes) response.body.Reserve(*length);
  }
  return bytes;
}

CURLcode OnContext(CURL* /*easy*/, void* context, void* user) {
  const auto* host = static_cast<const std::string*>(user);
  return tls::HardenClientContext(context, *host) ? CURLE_OK : CURLE_ABORTED_BY_CALLBACK;
}

TransportFailure FailureOf(CURLcode code, bool connected) {
  switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
      return TransportFailure::kResolve;
    case CURLE_COULDNT_CONNECT:
      return TransportFailure::kConnect;
    case CURLE_OPERATION_TIMEDOUT:
      return connected ? TransportFailure::kTotalTimeout : TransportFailure::kConnectTimeout;
    case CURLE_PEER_FAILED_VERIFICATION:
      return TransportFailure::kServerUntrusted;
    case CURLE_SSL_CACERT_BADFILE:
      return TransportFailure::kCaFile;
    case CURLE_SSL_CERTPROBLEM:
      return TransportFailure::kClientFiles;
    case CURLE_SSL_CONNECT_ERROR:
      return TransportFailure::kHandshake;
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_PARTIAL_FILE:
      return TransportFailure::kConnectionLost;
    default:
      return TransportFailure::kOther;  // an open set of the library's: its text is quoted
  }
}

// Worth another attempt: nothing says that the next one would fail the same way.
bool IsPassing(TransportFailure failure, Errc code) {
  return code == Errc::kUnavailable &&
         (failure == TransportFailure::kConnect || failure == TransportFailure::kConnectionLost);
}

using EasyHandle = CHandle<CURL, curl_easy_cleanup>;
using MultiHandle = CHandle<CURLM, curl_multi_cleanup>;
using HeaderList = CHandle<curl_slist, curl_slist_free_all>;

}  // namespace

struct HttpClient::Impl {
  // The multi handle owns the connection; it goes after the easy handle.
  MultiHandle multi;
  EasyHandle easy;
  HeaderList plain_headers;
  HeaderList json_headers;
  char detail[CURL_ERROR_SIZE] = {};
  std::atomic<bool> cancelled{false};

  bool SetConstantOptions(const HttpOptions& options);
  bool SetRequestOptions(const HttpOptions& options, const HttpRequest& request,
                         Transfer* transfer);
  // Runs the prepared transfer to its end. nullopt: cancelled.
  std::optional<CURLcode> Run();
};

Status InitHttpLibrary() {
  static const Status result = []() -> Status {
    RETURN_IF_ERROR(tls::InitClientTls());
    // libcurl keeps what it read in buffers of its own: each is zeroed before it goes back to the
    // heap (rule Y4).
    if (curl_global_init_mem(CURL_GLOBAL_DEFAULT, WipingMallocPlain, WipingFreePlain,
                             WipingReallocPlain, WipingStrdupPlain,
                             WipingCallocPlain) != CURLE_OK) {
      return Error{Errc::kInternal, "libcurl cannot be initialised"};
    }
    return {};
  }();
  return result;
}

bool HttpClient::Impl::SetConstantOptions(const HttpOptions& options) {
  CURL* handle = easy.get();
  curl_slist* headers = curl_slist_append(nullptr, "Accept: application/json");
  plain_headers.reset(headers);
  headers = curl_slist_append(nullptr, "Accept: application/json");
  json_headers.reset(headers);
  if (headers == nullptr ||
      curl_slist_append(headers, "Content-Type: application/json") == nullptr ||
      curl_slist_append(headers, "Expect:") == nullptr) {
    return false;
  }
  bool good = true;
  const auto set = [&](CURLoption option, auto value) {
    good = good && curl_easy_setopt(handle, option, value) == CURLE_OK;
  };
  set(CURLOPT_NOSIGNAL, 1L);
  set(CURLOPT_ERRORBUFFER, detail);
  set(CURLOPT_PROTOCOLS_STR, "https");
  set(CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
  set(CURLOPT_FOLLOWLOCATION, 0L);
  set(CURLOPT_PROXY, "");  // no proxy, and none from the environment
  set(CURLOPT_NETRC, static_cast<long>(CURL_NETRC_IGNORED));
  set(CURLOPT_SSL_VERIFYPEER, 1L);
  set(CURLOPT_SSL_VERIFYHOST, 2L);
  set(CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
  set(CURLOPT_SSL_SESSIONID_CACHE, 0L);
  set(CURLOPT_CA_CACHE_TIMEOUT, 0L);  // a renewed CA file counts from the next connection on
  set(CURLOPT_CAINFO, options.tls.ca_file.c_str());
  set(CURLOPT_CAPATH,
      static_cast<const char*>(nullptr));  // else the system store is trusted as well
  set(CURLOPT_SSLCERT, options.tls.cert_file.c_str());
  set(CURLOPT_SSLKEY, options.tls.key_file.c_str());
  set(CURLOPT_KEYPASSWD, "");  // an encrypted key fails instead of asking on the terminal
  set(CURLOPT_SSL_CTX_FUNCTION, OnContext);
  set(CURLOPT_SSL_CTX_DATA, static_cast<void*>(const_cast<std::string*>(&options.server.host)));
  set(CURLOPT_USERAGENT, options.user_agent.c_str());
  set(CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(options.connect_timeout.count()));
  set(CURLOPT_TCP_KEEPALIVE, 1L);
  set(CURLOPT_WRITEFUNCTION, OnBody);
  set(CURLOPT_HEADERFUNCTION, OnHeader);
  good = good && curl_multi_setopt(multi.get(), CURLMOPT_MAXCONNECTS, 1L) == CURLM_OK;
  return good;
}

bool HttpClient::Impl::SetRequestOptions(const HttpOptions& options, const HttpRequest& request,
                                         Transfer* transfer) {
  CURL* handle = easy.get();
  bool good = true;
  const auto set = [&](CURLoption option, auto value) {
    good = good && curl_easy_setopt(handle, option, value) == CURLE_OK;
  };
  const std::string url = options.server.Url() + request.target;
  set(CURLOPT_URL, url.c_str());
  const bool head = request.method == "HEAD";
  const std::string method(request.method);
  set(CURLOPT_HTTPGET, 1L);  // resets what an earlier request left
  if (request.json_body) {
    set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.json_body->size()));
    set(CURLOPT_POSTFIELDS, reinterpret_cast<const char*>(request.json_body->data()));
    set(CURLOPT_HTTPHEADER, json_headers.get());
  } else {
    set(CURLOPT_HTTPHEADER, plain_headers.get());
  }
  set(CURLOPT_NOBODY, head ? 1L : 0L);
  set(CURLOPT_CUSTOMREQUEST, head ? static_cast<const char*>(nullptr) : method.c_str());
  set(CURLOPT_FRESH_CONNECT, request.idempotent ? 0L : 1L);
  set(CURLOPT_TIMEOUT_MS, static_cast<long>((options.total_timeout + request.extra_wait).count()));
  set(CURLOPT_WRITEDATA, static_cast<void*>(transfer));
  set(CURLOPT_HEADERDATA, static_cast<void*>(transfer));
  return good;
}

std::optional<CURLcode> HttpClient::Impl::Run() {
  detail[0] = '\0';
  if (curl_multi_add_handle(multi.get(), easy.get()) != CURLM_OK) return CURLE_FAILED_INIT;
  std::optional<CURLcode> done;
  int running = 1;
  while (!cancelled.load(std::memory_order_acquire)) {
    if (curl_multi_perform(multi.get(), &running) != CURLM_OK) {
      done = CURLE_FAILED_INIT;
      break;
    }
    int left = 0;
    if (const CURLMsg* message = curl_multi_info_read(multi.get(), &left); message != nullptr) {
      if (message->msg == CURLMSG_DONE) done = message->data.result;
      break;
    }
    // curl_multi_wakeup ends the poll; a wakeup before it is not lost. curl lowers the time to its
    // own timers.
    constexpr int kLongestPollMs = 60'000;
    if (curl_multi_poll(multi.get(), nullptr, 0, kLongestPollMs, nullptr) != CURLM_OK) {
      done = CURLE_FAILED_INIT;
      break;
    }
  }
  curl_multi_remove_handle(multi.get(), easy.get());
  return done;
}

HttpClient::HttpClient(HttpOptions options, std::unique_ptr<Impl> impl)
    : options_(std::move(options)), impl_(std::move(impl)) {}

HttpClient::~HttpClient() = default;

Result<std::unique_ptr<HttpClient>> HttpClient::Open(HttpOptions options) {
  RETURN_IF_ERROR(InitHttpLibrary());
  RETURN_IF_ERROR(CheckReadable(options.tls.ca_file, "CA file"));
  RETURN_IF_ERROR(CheckReadable(options.tls.cert_file, "certificate file"));
  RETURN_IF_ERROR(CheckReadable(options.tls.key_file, "key file"));
  auto impl = std::make_unique<Impl>();
  impl->multi.reset(curl_multi_init());
  impl->easy.reset(curl_easy_init());
  std::unique_ptr<HttpClient> http(new HttpClient(std::move(options), std::move(impl)));
  if (http->impl_->multi == nullptr || http->impl_->easy == nullptr ||
      !http->impl_->SetConstantOptions(http->options_)) {
    return Error{Errc::kInternal, "libcurl refuses a setting that this program needs"};
  }
  return http;
}

Result<HttpResponse> HttpClient::Send(const HttpRequest& request) {
  for (int attempt = 1;; ++attempt) {
    bool may_retry = false;
    Result<HttpResponse> result = SendOnce(request, &may_retry);
    if (!may_retry || !request.idempotent || attempt >= options_.max_attempts) return result;
    if (!BackOff(attempt + 1)) return result;
  }
}

Result<HttpResponse> HttpClient::SendOnce(const HttpRequest& request, bool* may_retry) {
  Transfer transfer;
  transfer.max_body_bytes = request.max_response_bytes;
  if (!impl_->SetRequestOptions(options_, request, &transfer)) {
    return Error{Errc::kInternal, "libcurl refuses a setting of the request"};
  }
  const std::optional<CURLcode> code = impl_->Run();
  if (!code) {
    return Error{Errc::kUnavailable, "request to " + options_.server.Text() + " was cancelled"};
  }
  if (transfer.too_large) {
    return Error{Errc::kTooLarge, "answer of " + options_.server.Text() + " is larger than " +
                                      std::to_string(request.max_response_bytes) + " bytes"};
  }
  if (*code != CURLE_OK) {
    double connected_s = 0;  // of a reused connection too, unlike APPCONNECT
    curl_easy_getinfo(impl_->easy.get(), CURLINFO_PRETRANSFER_TIME, &connected_s);
    const TransportFailure failure = FailureOf(*code, connected_s > 0);
    const char* detail = impl_->detail[0] != '\0' ? impl_->detail : curl_easy_strerror(*code);
    Error error = TransportError(failure, detail, options_);
    *may_retry = IsPassing(failure, error.code);
    return error;
  }
  long status = 0;
  curl_easy_getinfo(impl_->easy.get(), CURLINFO_RESPONSE_CODE, &status);
  transfer.response.status = static_cast<int>(status);
  *may_retry = status == 503;
  return std::move(transfer.response);
}

bool HttpClient::BackOff(int attempt) {
  constexpr int kMaxDoublings = 6;
  const auto ceiling = options_.retry_base * (1 << std::min(attempt - 2, kMaxDoublings));
  // Full jitter: clients that lost the same server do not come back together. The tiny bias of the
  // remainder is no harm.
  ByteArray<8> random;
  crypto::RandomBytes(random);
  const auto wait = std::chrono::milliseconds(GetU64(random.data()) %
                                              static_cast<std::uint64_t>(ceiling.count() + 1));
  const auto until = std::chrono::steady_clock::now() + wait;
  while (!cancelled()) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
    if (left.count() <= 0) return true;
    // With no transfer it sleeps; Cancel ends it.
    if (curl_multi_poll(impl_->multi.get(), nullptr, 0, static_cast<int>(left.count()), nullptr) !=
        CURLM_OK) {
      return false;
    }
  }
  return false;
}

void HttpClient::Cancel() {
  impl_->cancelled.store(true, std::memory_order_release);
  curl_multi_wakeup(impl_->multi.get());
}

void HttpClient::Rearm() {
  impl_->cancelled.store(false, std::memory_order_release);
}

bool HttpClient::cancelled() const {
  return impl_->cancelled.load(std::memory_order_acquire);
}

}  // namespace latchkey::client
