// Actor: who a use case acts for, as the audit names him. Requests have one made from their Principal.
#pragma once

#include <cstdint>
#include <string>

#include "common/model/principal.h"
#include "server/audit/event.h"

namespace latchkey::service {

struct Actor {
  audit::ActorKind kind = audit::ActorKind::kNone;
  ClientId client;
  std::string name;  // goes into createdBy and updatedBy
  std::string address;
  std::uint64_t request_id = 0;

  static Actor Of(const Principal& principal, std::uint64_t request_id) {
    return {principal.automation() ? audit::ActorKind::kAutomation : audit::ActorKind::kClient,
            principal.client(), principal.name(), principal.address(), request_id};
  }
  // The server by itself, for what a request sets off before it has a principal.
  static Actor Server(std::string name, std::string address, std::uint64_t request_id) {
    return {audit::ActorKind::kServer, ClientId{}, std::move(name), std::move(address), request_id};
  }

  // The fields of an event that say who and from where; `this` must outlive the event.
  audit::Event Event(audit::EventType type, audit::Outcome outcome, std::int64_t time_ns) const {
    audit::Event event;
    event.type = type;
    event.outcome = outcome;
    event.time_ns = time_ns;
    event.request_id = request_id;
    event.actor = kind;
    event.actor_id = client.value;
    event.actor_name = name;
    event.address = address;
    return event;
  }
};

}  // namespace latchkey::service
