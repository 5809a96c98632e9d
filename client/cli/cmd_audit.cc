// latchkey audit tail [-f]: both chains of the audit log, merged by time.
#include <algorithm>
#include <chrono>
#include <iterator>
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
  bool all = false;
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

// Links of one chain to the other: one a second beside a busy chain, and nothing that anybody did.
bool IsWanted(const client::AuditEvent& event, bool all) {
  return all || event.type != "heads";
}

// What the newest pages of one chain held, without what is not wanted.
struct Past {
  std::vector<client::AuditEvent> events;
  std::uint64_t first = 0;  // the lowest number that was looked at
  std::string first_time;   // and its time
  bool from_start = false;  // nothing older is to be had
};

void Prepend(std::vector<client::AuditEvent> page, bool all, Past* past) {
  std::erase_if(page,
                [past](const auto& event) { return past->first > 0 && event.seq >= past->first; });
  past->from_start = page.empty() || page.front().seq <= 1;
  if (page.empty()) return;
  past->first = page.front().seq;
  past->first_time = page.front().time;
  std::erase_if(page, [all](const auto& event) { return !IsWanted(event, all); });
  page.insert(page.end(), std::move_iterator(past->events.begin()),
              std::move_iterator(past->events.end()));
  past->events = std::move(page);
}

// The chain that must be looked at further back before the newest `lines` events of all are known.
std::optional<std::size_t> NeedsOlder(const std::vector<Past>& pasts, std::size_t lines) {
  std::vector<std::string> times;
  for (const Past& past : pasts) {
    for (const client::AuditEvent& event : past.events) times.push_back(event.time);
  }
  std::sort(times.rbegin(), times.rend());
  for (std::size_t i = 0; i < pasts.size(); ++i) {
    const bool may_hide_one = times.size() < lines || pasts[i].first_time > times[lines - 1];
    if (!pasts[i].from_start && may_hide_one) return i;
  }
  return std::nullopt;
}

// The newest events of every chain, merged; `chains` get their ends.
Result<std::vector<client::AuditEvent>> Newest(Session& session, client::ApiClient& api,
                                               const Options& options, std::vector<Chain>* chains) {
  constexpr std::size_t kMostPages = 20;  // of them: more are not read for a glance
  std::vector<Past> pasts(chains->size());
  for (std::size_t i = 0; i < chains->size(); ++i) {
    Chain& chain = (*chains)[i];
    ASSIGN_OR_RETURN(auto page, api.Audit(chain.name, std::nullopt, options.lines));
    // A chain without events is followed from its beginning.
    chain.after = page.empty() ? 0 : page.back().seq;
    Prepend(std::move(page), options.all, &pasts[i]);
  }
  std::size_t pages = 0;
  for (auto older = NeedsOlder(pasts, options.lines); older; ++pages) {
    if (pages == kMostPages) {
      session.terminal().NoteLine("older events lie behind many heads: see --all");
      break;
    }
    const std::uint64_t before = pasts[*older].first - 1;
    const std::uint64_t size = std::min<std::uint64_t>(before, limits::kMaxPageEntries);
    ASSIGN_OR_RETURN(auto page, api.Audit((*chains)[*older].name, before - size, size));
    Prepend(std::move(page), options.all, &pasts[*older]);
    older = NeedsOlder(pasts, options.lines);
  }
  std::vector<client::AuditEvent> merged;
  for (Past& past : pasts) merged = MergeByTime(std::move(merged), std::move(past.events));
  return merged;
}

// Our own questions are events too: shown, each would cause the next.
bool IsAuditRead(const client::AuditEvent& event) {
  return event.type == "audit.read";
}

Result<int> Follow(Session& session, client::ApiClient& api, std::vector<Chain>* chains, bool all) {
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
        if (!IsAuditRead(event) && IsWanted(event, all)) Show(session, event);
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
  ASSIGN_OR_RETURN(const auto events, Newest(session, *api, options, &chains));
  const std::size_t skipped = events.size() > options.lines ? events.size() - options.lines : 0;
  for (std::size_t i = skipped; i < events.size(); ++i) Show(session, events[i]);
  return options.follow ? Follow(session, *api, &chains, options.all) : kExitDone;
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
  tail->add_flag("--all", options->all,
                 "show heads too: records by which the two chains note each other's end");
}

}  // namespace latchkey::cli
