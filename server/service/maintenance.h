// Use cases of the offline commands: what a new store holds, and the records of a start, a stop, a reload and an accepted
// rollback.
#pragma once

#include <string>

#include "common/base/clock.h"
#include "server/audit/access_log.h"
#include "server/audit/store_chain.h"
#include "server/keys/keyring.h"
#include "server/service/actor.h"
#include "server/store/store.h"

namespace latchkey::service {

// The person who runs a command on the server's machine.
Actor OperatorActor(unsigned uid);

struct NewStore {
  std::string admin;  // name of the first automation client: enabled, no content bit (rule I5)
  bool no_recovery = false;  // recorded: there is no recovery copy of the key (rule K5)
  Actor actor;
};
// Writes keys, first client and the init event in one commit. `store` is new, started and without observer; `chain` is
// empty. Errors: kInvalidArgument for a bad name; those of the store.
Status FillNewStore(store::Store& store, const keys::NewKeyring& keyring, audit::StoreChain& chain,
                    const NewStore& what, const Clock& clock);

// Appends one event to the store chain in a job of its own that takes no generation, and waits for its commit. The
// writer's observer keeps the chain's head (see Writer).
Status AppendToStoreChain(store::Store& store, audit::StoreChain& chain, const audit::Event& event);

// server.start, server.stop or server.reload in the access chain, on disk when it returns.
Status RecordServerEvent(audit::AccessLog& access, audit::EventType type, audit::Outcome outcome,
                         const char* detail, Generation generation, const Clock& clock);

// Rule G6: an older store was accepted. Each chain records where the other goes on from; heads recorded for later
// positions are void from here on.
Status RecordAcceptedRollback(store::Store& store, audit::StoreChain& chain,
                              audit::AccessLog& access, const Actor& actor, const Clock& clock);

// The tail that a power cut tore off the access chain (AccessLog::Recovery): on record, with the bytes lost.
Status RecordTailCut(audit::AccessLog& access, const Clock& clock);

}  // namespace latchkey::service
