// A whole server without its network: real store in a file, real keys, chains, feed and API handlers. Requests are handed to a
// handler as the network layer would, and the captured answers come back.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "server/api/handler.h"
#include "server/service/catalog_verifier.h"
#include "server/service/read_automation.h"
#include "server/service/services.h"
#include "tests/support/clocks.h"
#include "tests/support/store_fixture.h"

namespace latchkey::testing {

struct TestRequest {
  std::string method = "GET";
  std::string target;
  std::string body;
  std::optional<std::string> content_type;  // nullopt: application/json when there is a body
  std::optional<std::string> accept;
  bool no_content_type = false;
  bool forwarded_identity = false;
};

// Who asks: a certificate with these names, or none at all.
struct TestCaller {
  bool certificate = true;
  std::optional<std::string> common_name;
  std::optional<std::string> spiffe_id;
  std::string names_error;
  static TestCaller Named(std::string common_name) {
    return {true, std::move(common_name), std::nullopt, ""};
  }
  static TestCaller Nobody() { return {false, std::nullopt, std::nullopt, ""}; }
};

struct TestReply {
  int status = 0;
  std::string content_type;
  std::map<std::string, std::string> headers;
  std::string body;
  bool deferred = false;

  std::string Header(const std::string& name) const {
    const auto found = headers.find(name);
    return found == headers.end() ? "" : found->second;
  }
};

class ServerFixture {
 public:
  struct Config {
    service::Settings settings;
    identity::Options identity;
    bool keywhiz_data = true;  // seed the development data of API spec 7.3
  };
  ServerFixture() : ServerFixture(Config{}) {}
  explicit ServerFixture(Config config);
  ~ServerFixture();

  // Closes everything and opens it again from the files.
  void Restart();

  ManualClock& clock() { return clock_; }
  const service::Services& services() const { return services_; }
  catalog::RootRef root() const { return catalog_->Current(); }
  std::unique_ptr<net::Handler> NewHandler() const { return factory_(); }
  std::filesystem::path directory() const { return directory_.path(); }

  // Hands one request to `handler` and gives its answer, waiting at most 30 s when it is deferred. Any thread, one handler each.
  TestReply Send(net::Handler& handler, const TestCaller& caller, const TestRequest& request);
  TestReply Send(const TestCaller& caller, const TestRequest& request) {
    return Send(*handler_, caller, request);
  }
  // As client `client`, which has both bits.
  TestReply Get(const std::string& target) {
    return Send(TestCaller::Named("client"), {"GET", target, "", {}, {}});
  }
  TestReply Call(const std::string& method, const std::string& target,
                 const std::string& body = "") {
    return Send(TestCaller::Named("client"), {method, target, body, {}, {}});
  }

  // Runs a use case as the operator and waits; fails the test on an error. Main thread only.
  template <class T>
  T Run(service::Work<T> work) {
    return Must(writer_->Run<T>(Operator(), {}, std::move(work)));
  }
  static service::Actor Operator() {
    service::Actor actor;
    actor.kind = audit::ActorKind::kOperator;
    actor.name = "test";
    return actor;
  }
  void AddClient(const std::string& name, bool automation, bool content,
                 const std::vector<std::string>& groups = {});
  void AddGroup(const std::string& name);
  void AddSecret(const std::string& name, const std::string& content,
                 const std::vector<std::string>& groups = {});

  // Decoded events of a chain, all of them, as JSON lines.
  std::vector<std::string> Events(service::ChainName chain);

 private:
  void Create();
  void Open();
  void Close();
  void SeedKeywhizData();

  Config config_;
  TempDir directory_;
  ManualClock clock_;
  std::unique_ptr<SecretBuffer> kek_;
  std::vector<store::KekRow> kek_rows_;
  std::vector<store::KeyringRow> keyring_rows_;

  std::unique_ptr<store::Store> store_;
  std::unique_ptr<keys::Keyring> keyring_;
  std::unique_ptr<catalog::Catalog> catalog_;
  std::unique_ptr<feed::Feed> feed_;
  std::unique_ptr<audit::StoreChain> chain_;
  std::unique_ptr<audit::AccessLog> access_;
  audit::RefusalTally refusals_{clock_};
  std::unique_ptr<service::SealedCache> cache_;
  std::unique_ptr<service::Writer> writer_;
  std::unique_ptr<identity::Authenticator> authenticator_;
  service::Services services_;
  net::HandlerFactory factory_;
  std::unique_ptr<net::Handler> handler_;
  std::atomic<std::uint64_t> next_request_{1};
};

}  // namespace latchkey::testing
