// Reply: an answer without content of secrets, as bytes. Given at once through a Responder, or later through a DeferredReply.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/result.h"
#include "server/net/http.h"

namespace latchkey::api {

struct Reply {
  int status = 200;
  std::string content_type;  // empty: none
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;

  Reply& With(std::string name, std::string value) {
    headers.emplace_back(std::move(name), std::move(value));
    return *this;
  }
};

Reply JsonReply(int status, std::string body);
Reply EmptyReply(int status);
// `{"code":N,"message":"..."}`; an empty message becomes `HTTP N <reason>` (API spec 1.4).
Reply ErrorReply(int status, std::string_view message = {});
// The one mapping of use-case errors to answers. Messages of storage, crypto and bugs never get out (rule O3): those are
// logged here with the request id, which the body of a 500 repeats.
Reply ReplyOf(const Error& error, net::RequestId request);

// "Not Found" for 404; "Status" for codes that are never sent.
std::string_view ReasonPhrase(int status);

void Send(net::Responder& responder, const Reply& reply);
void Complete(net::DeferredReply& deferred, Reply reply);

// `https://<host><prefix><name>`, the name percent-encoded (API spec 1.1 and Appendix C 1): '/' stays as it is.
std::string LocationOf(std::string_view host, std::string_view prefix, std::string_view name);

}  // namespace latchkey::api
