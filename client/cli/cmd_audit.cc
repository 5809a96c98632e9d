// latchkey audit tail [-f]: both chains of the audit log, merged by time.
#include <chrono>
#include <thread>

#include "client/cli/command.h"
#include "client/cli/exit_codes.h"
#include "common/model/limits.h"

namespace latchkey::cli {
namespace {

struct Options {
  std::size_t lines = 20;
  std::string chain = "both";
  bool follow = false;
};

struct Chain {
  std::string name;
  std::optional<std::uint64_t> after;  // the last event that was shown
};

std::vector<Chain> ChainsOf(const Options& options) {
  std::vector<Chain> chains;
  // Access first: our own question about the store is an event of that chain.
  for (const char* name : {"access", "store"}) {
    if (options.chain == "both" || options.chain == name) chains.push_back({name, std::nullopt});
  }
  return chains;
}

void Show(Session& session, const client::AuditEvent& event) {
  if (session.json) {
    session.terminal().OutJson(event.json);
    return;
  }
  std::string line = event.time + "  " + event.chain + "#" + std::to_string(event.seq) + "  " +
                     event.outcome + "  " + event.type;
  if (!event.actor.empty()) line += "  by " + event.actor;
  if (!event.address.empty()) line += " from " + event.address;
  for (const auto& [key, value] : event.details) {
    if (key.ends_with("Id") || key == "headHash") continue;  // for machines: --json has them
    line += "  " + key + "=" + value;
  }
  if (!event.request_id.empty()) line += "  request=" + event.request_id;
  session.Print(Printable(line) + "\n");
}

// Whichever comes first by time goes first; each of the two keeps its order, also when a clock was
// set back.
std::vector<client::AuditEvent> MergeByTime(std::vector<client::AuditEvent> a,
                                            std::vector<client::AuditEvent> b) {
  std::vector<client::AuditEvent> merged;
  merged.reserve(a.size() + b.size());
  auto left = a.begin();
  auto right = b.begin();
  while (left != a.end() || right != b.end()) {
    const bool take_left = right == b.end() || (left != a.end() && !(right->time < left->time));
    merged.push_back(std::move(take_left ? *left++ : *right++));
  }
  return merged;
}

// The next events of every chain, merged. All or nothing: when one chain cannot be asked, the events
// of the other are asked for again next time.
Result<std::vector<client::AuditEvent>> Fetch(client::ApiClient& api, std::vector<Chain>* chains,
                                              std::size_t limit) {
  std::vector<client::AuditEvent> merged;
  std::vector<Chain> ahead = *chains;
  for (Chain& chain : ahead) {
    ASSIGN_OR_RETURN(auto events, api.Audit(chain.name, chain.after, limit));
    for (const client::AuditEvent& event : events) {
      // A server that went back would be shown again and again.
      if (chain.after && event.seq <= *chain.after) {
        return Error{Errc::kInternal,
                     "audit chain " + chain.name + " went back to " + std::to_string(event.seq)};
      }
      chain.after = event.seq;
    }
    merged = MergeByTime(std::move(merged), std::move(events));
  }
  *chains = std::move(ahead);
  return merged;
}

// Our own questions are events too: shown, each would cause the next.
bool IsAuditRead(const client::AuditEvent& event) {
  return event.type == "audit.read";
}

Result<int> Follow(Session& session, client::ApiClient& api, std::vector<Chain>* chains) {
  using std::chrono::milliseconds;
  constexpr milliseconds kPause{1000}, kLongestPause{15'000};
  milliseconds pause = kPause;
  bool away = false;
  while (!session.terminal().out_failed()) {
    std::this_thread::sleep_for(pause);
    auto events = Fetch(api, chains, limits::kMaxPageEntries);
    if (events.has_value()) {
      if (away) session.terminal().NoteLine("the server is back");
      away = false;
      pause = kPause;
      for (const client::AuditEvent& event : *events) {
        if (!IsAuditRead(event)) Show(session, event);
      }
    } else if (events.error().code == Errc::kUnavailable) {
      if (!away) session.terminal().NoteLine(events.error().message + "; still trying");
      away = true;
      pause = std::min(pause * 2, kLongestPause);
    } else {
      return std::move(events).error();
    }
  }
  return kExitDone;
}

Result<int> Run(Session& session, const Options& options) {
  ASSIGN_OR_RETURN(client::ApiClient* const api, session.Api());
  std::vector<Chain> chains = ChainsOf(options);
  ASSIGN_OR_RETURN(auto events, Fetch(*api, &chains, options.lines));
  const std::size_t skipped = events.size() > options.lines ? events.size() - options.lines : 0;
  for (std::size_t i = skipped; i < events.size(); ++i) Show(session, events[i]);
  // A chain without events is followed from its beginning.
  for (Chain& chain : chains) chain.after = chain.after.value_or(0);
  return options.follow ? Follow(session, *api, &chains) : kExitDone;
}

}  // namespace

void AddAudit(CLI::App& root, Invocation* invocation) {
  CLI::App* audit = root.add_subcommand("audit", "The audit log");
  audit->require_subcommand(1)->fallthrough();
  auto options = std::make_shared<Options>();
  CLI::App* tail =
      AddCommand(*audit, invocation, "tail",
                 "Show the newest audit events of both chains, merged by time", options, Run);
  tail->add_option("-n,--lines", options->lines, "how many, default 20")
      ->type_name("N")
      ->check(CLI::Range(std::size_t{1}, limits::kMaxPageEntries).description(""));
  tail->add_option("--chain", options->chain,
                   "store (changes), access (reads and refusals) or both")
      ->type_name("CHAIN")
      ->check(CLI::IsMember({"store", "access", "both"}).description(""));
  tail->add_flag("-f,--follow", options->follow,
                 "go on with new events as they come (without reads of the audit log)");
}

}  // namespace latchkey::cli
