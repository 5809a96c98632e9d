#include "server/api/reply.h"

#include <cstring>

#include "common/base/bytes.h"
#include "common/base/log.h"
#include "common/wire/json_out.h"
#include "server/service/writer.h"

namespace latchkey::api {
namespace {

constexpr std::string_view kJson = "application/json";
constexpr std::string_view kAuditUnavailable = "audit_unavailable";

std::string HexId(net::RequestId id) {
  ByteArray<8> bytes{};
  for (std::size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<std::uint8_t>(id.value >> (56 - 8 * i));
  return HexLower(bytes);
}

Reply ServerFault(const Error& error, net::RequestId request) {
  const std::string id = HexId(request);
  Log(LogLevel::kError, "request failed",
      {{"request", id}, {"code", ErrcName(error.code)}, {"error", error.message}});
  return ErrorReply(
      500, "There was an error processing your request. It has been logged (ID " + id + ").");
}

Reply Unavailable(const Error& error, net::RequestId request) {
  Log(LogLevel::kWarn, "request refused for now",
      {{"request", HexId(request)}, {"error", error.message}});
  std::string_view message;
  if (error.message.starts_with(kAuditUnavailable)) message = kAuditUnavailable;
  if (error.message == service::kDiskFullReason || error.message == service::kNotWritableReason)
    message = error.message;
  return ErrorReply(503, message).With("Retry-After", "1");
}

bool StaysInLocation(char c) {
  const bool alphanumeric =
      (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
  return alphanumeric || std::string_view("-._~!$&'()*+,;=:@/").find(c) != std::string_view::npos;
}

}  // namespace

std::string_view ReasonPhrase(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 201:
      return "Created";
    case 204:
      return "No Content";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 406:
      return "Not Acceptable";
    case 409:
      return "Conflict";
    case 413:
      return "Request Entity Too Large";
    case 415:
      return "Unsupported Media Type";
    case 500:
      return "Internal Server Error";
    case 503:
      return "Service Unavailable";
    default:
      return "Status";
  }
}

Reply JsonReply(int status, std::string body) {
  return Reply{status, std::string(kJson), {}, std::move(body)};
}

Reply EmptyReply(int status) {
  return Reply{status, "", {}, ""};
}

Reply ErrorReply(int status, std::string_view message) {
  std::string body;
  wire::JsonOut out(&body);
  out.BeginObject().Int("code", status);
  if (message.empty()) {
    out.Text("message", "HTTP " + std::to_string(status) + " " + std::string(ReasonPhrase(status)));
  } else {
    out.Text("message", message);
  }
  out.EndObject();
  return JsonReply(status, std::move(body));
}

Reply ReplyOf(const Error& error, net::RequestId request) {
  switch (error.code) {
    case Errc::kInvalidArgument:
    case Errc::kTooLarge:
    case Errc::kPermissionDenied:
    case Errc::kNotFound:
    case Errc::kForbidden:
    case Errc::kConflict:
      return ErrorReply(HttpStatusOf(error.code), error.message);
    case Errc::kUnauthenticated:
      return ErrorReply(401);
    case Errc::kUnavailable:
      return Unavailable(error, request);
    case Errc::kCorrupt:
    case Errc::kInternal:
      break;
  }
  return ServerFault(error, request);
}

void Send(net::Responder& responder, const Reply& reply) {
  std::vector<net::Header> headers;
  headers.reserve(reply.headers.size());
  for (const auto& [name, value] : reply.headers) headers.push_back({name, value});
  const std::span<char> body =
      responder.Start(reply.status, reply.content_type, headers, reply.body.size());
  if (body.size() >= reply.body.size() && !reply.body.empty())
    std::memcpy(body.data(), reply.body.data(), reply.body.size());
}

void Complete(net::DeferredReply& deferred, Reply reply) {
  net::DeferredResponse response;
  response.status = reply.status;
  response.headers = std::move(reply.headers);
  if (!reply.content_type.empty())
    response.headers.emplace_back("Content-Type", std::move(reply.content_type));
  response.body = std::move(reply.body);
  deferred.Complete(std::move(response));
}

std::string LocationOf(std::string_view host, std::string_view prefix, std::string_view name) {
  constexpr char kHex[] = "0123456789ABCDEF";
  std::string location = "https://";
  location.append(host).append(prefix);
  for (const char c : name) {
    if (StaysInLocation(c)) {
      location.push_back(c);
      continue;
    }
    const auto byte = static_cast<unsigned char>(c);
    location.push_back('%');
    location.push_back(kHex[byte >> 4]);
    location.push_back(kHex[byte & 15]);
  }
  return location;
}

}  // namespace latchkey::api
