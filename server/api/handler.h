// The API: decodes a framed request, calls one use case, encodes its answer (API spec 1; architecture, "A read").
//
// One handler per network worker, made by the factory; handlers share nothing but the services. A request is judged in the order
// of API spec 1.2. Deliveries and refusals are recorded in the worker's batch, which Commit() appends to the access chain
// before any answer of the batch is sent (rules A1, A2).
#pragma once

#include <memory>

#include "server/identity/authenticator.h"
#include "server/net/http.h"
#include "server/service/services.h"

namespace latchkey::api {

struct Dependencies {
  service::Services services;
  identity::Authenticator* authenticator = nullptr;
};

// Everything that `dependencies` names must outlive the handlers.
net::HandlerFactory MakeHandlerFactory(const Dependencies& dependencies);

}  // namespace latchkey::api
