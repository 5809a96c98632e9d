// `--wait`: until the clients that hold a secret serve what was just written.
#pragma once

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "client/cli/session.h"
#include "client/lib/api_types.h"
#include "common/base/result.h"

namespace latchkey::cli {

struct WaitResult {
  std::vector<std::string> serving;  // acknowledged
  std::vector<std::string> unseen;   // not seen by the server for five minutes: not waited for
  std::vector<std::string> pending;  // still missing when the time was over
  std::chrono::milliseconds elapsed{0};
};

// Sorts one report of the server. `waited` is the set that is waited for; clients outside of it, and clients that lost
// their grant meanwhile, do not count. A client serves `target` when it serves that number, a later one, or what is current.
WaitResult Judge(const client::ServingReport& report, const std::vector<std::string>& waited,
                 std::uint64_t target, std::int64_t now_s);
// The clients that can read the secret at the time of the report.
std::vector<std::string> ClientsOf(const client::ServingReport& report);

// Asks until nobody is pending or `timeout` is over; shows progress on a terminal. A server that is away for a moment does
// not end it. Errors: what the first question gives; a time-out is a value with `pending`.
Result<WaitResult> WaitUntilServed(Session& session, const std::string& secret,
                                   std::uint64_t target, std::chrono::seconds timeout);

// Adds `--wait[=SECONDS]`. The program writes a bare `--wait` as `--wait=60` before it parses (app.cc).
inline constexpr int kDefaultWaitSeconds = 60;
CLI::Option* AddWait(CLI::App* command, int* seconds);

// Waits for the version of the receipt, shows the report with who serves it, and gives exit code or time-out.
Result<int> FinishWithWait(Session& session, WriteReport report, const std::string& secret,
                           std::chrono::seconds timeout);

// kUnavailable (exit 7) naming who is pending; done otherwise. `unseen` become a note.
Status ReportWait(Session& session, const WaitResult& result, std::uint64_t target);
// The JSON object of a result.
std::string WaitJson(const WaitResult& result);

}  // namespace latchkey::cli
