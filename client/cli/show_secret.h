// What several commands print: lists of names, and a secret's metadata.
#pragma once

#include <string>
#include <vector>

#include "client/cli/session.h"
#include "client/lib/api_types.h"

namespace latchkey::cli {

// One name a line, or an array of {"name"}.
void PrintNames(Session& session, const std::vector<std::string>& names);

// The members of a secret in --json output; stable names and order.
void WriteSecretMembers(wire::JsonOut& out, const client::SecretInfo& info);

// `mode=0440 owner=app`.
std::string ShowMetadata(const Metadata& metadata);

// Every version, newest first. Errors: as History.
Result<std::vector<client::HistoryEntry>> FetchHistory(client::ApiClient& api,
                                                       const std::string& name);

}  // namespace latchkey::cli
