#include "client/cli/wait.h"

#include <catch2/catch.hpp>

namespace latchkey::cli {
namespace {

client::ServingEntry Entry(const std::string& name, std::optional<std::uint64_t> version,
                           bool current, std::optional<std::int64_t> last_seen_s) {
  client::ServingEntry entry;
  entry.client = name;
  entry.version = version;
  entry.current = current;
  entry.last_seen_s = last_seen_s;
  return entry;
}

constexpr std::int64_t kNow = 1'000'000;
using Names = std::vector<std::string>;

}  // namespace

TEST_CASE("A client serves a version when it serves it, a later one, or what is current", "[cli]") {
  const client::ServingReport report{
      {Entry("same", 7, true, kNow), Entry("later", 8, false, kNow), Entry("back", 3, true, kNow),
       Entry("older", 6, false, kNow), Entry("silent", std::nullopt, false, kNow)},
      kNow};
  const auto result = Judge(report, ClientsOf(report), 7, kNow);
  CHECK(result.serving == Names{"same", "later", "back"});
  CHECK(result.pending == Names{"older", "silent"});
  CHECK(result.unseen.empty());
}

TEST_CASE("A client that was not seen for five minutes is named and not waited for", "[cli]") {
  const client::ServingReport report{
      {Entry("just", 6, false, kNow - 300), Entry("gone", 6, false, kNow - 301),
       Entry("never", std::nullopt, false, std::nullopt),
       Entry("gone-but-serving", 7, true, kNow - 9999)},
      kNow};
  const auto result = Judge(report, ClientsOf(report), 7, kNow);
  CHECK(result.pending == Names{"just"});
  CHECK(result.unseen == Names{"gone", "never"});
  CHECK(result.serving == Names{"gone-but-serving"});
}

TEST_CASE("Only the clients that held the grant at the commit are waited for", "[cli]") {
  const client::ServingReport at_commit{
      {Entry("a", 6, false, kNow), Entry("revoked", 6, false, kNow)}, kNow};
  const client::ServingReport later{
      {Entry("a", 7, true, kNow), Entry("granted-since", 1, false, kNow)}, kNow};
  const auto result = Judge(later, ClientsOf(at_commit), 7, kNow);
  CHECK(result.serving == Names{"a"});
  CHECK(result.pending.empty());
  CHECK(result.unseen.empty());
}

TEST_CASE("The JSON of a wait is stable", "[cli]") {
  WaitResult result;
  result.serving = {"a"};
  result.pending = {"b\"c"};
  result.elapsed = std::chrono::milliseconds(1234);
  CHECK(WaitJson(result) ==
        R"({"serving":["a"],"unseen":[],"pending":["b\"c"],"elapsedMilliseconds":1234})");
}

}  // namespace latchkey::cli
