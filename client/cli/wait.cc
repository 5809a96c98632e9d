#include "client/cli/wait.h"

#include <algorithm>
#include <cstdio>
#include <thread>

#include "client/cli/exit_codes.h"
#include "common/base/clock.h"

namespace latchkey::cli {
namespace {

using std::chrono::milliseconds;

constexpr std::int64_t kUnseenAfterSeconds = 300;

bool Serves(const client::ServingEntry& entry, std::uint64_t target) {
  return entry.current || (entry.version && *entry.version >= target);
}

std::string Tenths(milliseconds time) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f s", static_cast<double>(time.count()) / 1000);
  return text;
}

}  // namespace

std::vector<std::string> ClientsOf(const client::ServingReport& report) {
  std::vector<std::string> clients;
  for (const client::ServingEntry& entry : report.entries) clients.push_back(entry.client);
  return clients;
}

WaitResult Judge(const client::ServingReport& report, const std::vector<std::string>& waited,
                 std::uint64_t target, std::int64_t now_s) {
  WaitResult result;
  for (const client::ServingEntry& entry : report.entries) {
    if (std::find(waited.begin(), waited.end(), entry.client) == waited.end()) continue;
    if (Serves(entry, target)) {
      result.serving.push_back(entry.client);
    } else if (!entry.last_seen_s || now_s - *entry.last_seen_s > kUnseenAfterSeconds) {
      result.unseen.push_back(entry.client);
    } else {
      result.pending.push_back(entry.client);
    }
  }
  return result;
}

Result<WaitResult> WaitUntilServed(Session& session, const std::string& secret,
                                   std::uint64_t target, std::chrono::seconds timeout) {
  constexpr milliseconds kFirstPause{20}, kLongestPause{500};
  ASSIGN_OR_RETURN(client::ApiClient* const api, session.Api());
  const Clock& clock = SystemClock();
  const MonotonicTime start = clock.Monotonic();
  ASSIGN_OR_RETURN(client::ServingReport report, api->Serving(secret));
  // Who holds the grant now held it at the commit, but for a change within the last milliseconds.
  const std::vector<std::string> waited = ClientsOf(report);
  milliseconds pause = kFirstPause;
  for (;;) {
    WaitResult result =
        Judge(report, waited, target, report.server_time_s.value_or(EpochSeconds(clock.Now())));
    result.elapsed = std::chrono::duration_cast<milliseconds>(clock.Monotonic() - start);
    if (result.pending.empty() || result.elapsed >= timeout) {
      session.terminal().ClearProgress();
      return result;
    }
    session.terminal().Progress("waiting: " + std::to_string(result.serving.size()) + " of " +
                                std::to_string(result.serving.size() + result.pending.size()) +
                                " clients serve version " + std::to_string(target) + " (" +
                                Tenths(result.elapsed) + ")");
    std::this_thread::sleep_for(std::min<milliseconds>(pause, timeout - result.elapsed));
    pause = std::min(pause * 3 / 2, kLongestPause);
    auto next = api->Serving(secret);
    if (next.has_value()) {
      report = std::move(*next);
    } else if (next.error().code != Errc::kUnavailable) {
      session.terminal().ClearProgress();
      return std::move(next).error();
    }
  }
}

Status ReportWait(Session& session, const WaitResult& result, std::uint64_t target) {
  if (!result.unseen.empty()) {
    session.terminal().NoteLine("not waited for, unseen for 5 minutes: " +
                                JoinQuoted(result.unseen));
  }
  if (result.pending.empty()) return {};
  const std::size_t all = result.serving.size() + result.pending.size();
  return Error{Errc::kUnavailable, std::to_string(result.pending.size()) + " of " +
                                       std::to_string(all) + " clients do not serve version " +
                                       std::to_string(target) + " after " + Tenths(result.elapsed) +
                                       ": " + JoinQuoted(result.pending)};
}

CLI::Option* AddWait(CLI::App* command, int* seconds) {
  *seconds = kDefaultWaitSeconds;
  return command
      ->add_option("--wait", *seconds,
                   "wait until every client that holds it serves it, at most SECONDS (default 60); "
                   "exit 7 when not")
      ->type_name("[=SECONDS]")
      ->check(CLI::Range(1, 86'400).description(""));
}

Result<int> FinishWithWait(Session& session, WriteReport report, const std::string& secret,
                           std::chrono::seconds timeout) {
  if (!report.receipt.version) {
    return Error{Errc::kInternal,
                 "server did not say which version it wrote: it is done, but cannot be waited for"};
  }
  const std::uint64_t target = *report.receipt.version;
  auto waited = WaitUntilServed(session, secret, target, timeout);
  if (!waited.has_value()) {
    session.Report(report);  // the write itself is done
    return std::move(waited).error();
  }
  report.more.emplace_back("wait", WaitJson(*waited));
  // Nobody to wait for is no success of the wait: a script that reads this line has to see the difference.
  report.done += waited->serving.empty() && waited->pending.empty()
                     ? ", but no client that was seen in the last 5 minutes holds it"
                     : ", served by " + Counted(waited->serving.size(), "client");
  session.Report(report);
  RETURN_IF_ERROR(ReportWait(session, *waited, target));
  return kExitDone;
}

std::string WaitJson(const WaitResult& result) {
  std::string text;
  wire::JsonOut out(&text);
  out.BeginObject();
  WriteTexts(out, "serving", result.serving);
  WriteTexts(out, "unseen", result.unseen);
  WriteTexts(out, "pending", result.pending);
  out.Int("elapsedMilliseconds", result.elapsed.count()).EndObject();
  return text;
}

}  // namespace latchkey::cli
