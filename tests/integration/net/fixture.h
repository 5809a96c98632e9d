// A running server with a handler of known behaviour, and clients for it.
#pragma once

#include <atomic>
#include <catch2/catch.hpp>
#include <condition_variable>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "server/net/server.h"
#include "tests/support/pki.h"
#include "tests/support/tls_client.h"

namespace latchkey::net {

// Runs deferred replies after a delay, all on one thread.
class Later {
 public:
  Later() : thread_([this](const std::stop_token& stop) { Run(stop); }) {}
  ~Later() {
    thread_.request_stop();
    wake_.notify_all();
  }
  void After(std::chrono::milliseconds delay, std::function<void()> what) {
    const std::lock_guard lock(mutex_);
    tasks_.emplace(std::chrono::steady_clock::now() + delay, std::move(what));
    wake_.notify_all();
  }

 private:
  void Run(const std::stop_token& stop) {
    std::unique_lock lock(mutex_);
    while (!stop.stop_requested()) {
      if (tasks_.empty()) {
        wake_.wait_for(lock, std::chrono::milliseconds(20));
        continue;
      }
      const auto due = tasks_.begin()->first;
      if (std::chrono::steady_clock::now() < due) {
        wake_.wait_until(lock, due);
        continue;
      }
      auto what = std::move(tasks_.begin()->second);
      tasks_.erase(tasks_.begin());
      lock.unlock();
      what();
      what = nullptr;  // a reply handle that is dropped here answers by itself
      lock.lock();
    }
  }
  std::mutex mutex_;
  std::condition_variable wake_;
  std::multimap<std::chrono::steady_clock::time_point, std::function<void()>> tasks_;
  std::jthread thread_;
};

// What all handlers of one test server share.
struct Stage {
  std::atomic<bool> audit_works{true};
  std::atomic<int> handled{0};
  std::atomic<int> commits{0};
  std::mutex mutex;
  std::vector<std::string> targets;     // in the order in which they were handled
  std::shared_ptr<DeferredReply> held;  // by /hold
  std::condition_variable changed;
  std::atomic<bool> gate_open{false};
  Later later;

  void OpenGate() {
    gate_open = true;
    gate_open.notify_all();
  }

  std::shared_ptr<DeferredReply> WaitForHeld() {
    std::unique_lock lock(mutex);
    changed.wait_for(lock, std::chrono::seconds(10), [this] { return held != nullptr; });
    return std::exchange(held, nullptr);
  }
};

// Routes:
//   /who          the names of the certificate        /echo        the body, and its content type
//   in X-Type /big/N        N bytes                              /later/MS/T  T, after MS
//   milliseconds, from another thread /silent       no answer at all                     /twice two
//   answers begun, the second counts /hold         deferred until the test completes    /forget
//   deferred, then dropped /inject       a header with a line break           /both        begun
//   and then deferred /empty        204                                  /host        the Host of
//   the request       /gate         204 once the test opens the gate; its worker stands still till then
class StageHandler final : public Handler {
 public:
  explicit StageHandler(Stage* stage) : stage_(stage) {}

  void Handle(const Request& request, Responder& responder) noexcept override {
    ++stage_->handled;
    const std::string target(request.target);
    {
      const std::lock_guard lock(stage_->mutex);
      stage_->targets.push_back(target);
    }
    const auto is = [&](std::string_view prefix) { return target.starts_with(prefix); };
    if (is("/who")) return Text(responder, 200, Who(request));
    if (is("/host")) return Text(responder, 200, std::string(request.host));
    if (is("/echo")) return Echo(request, responder);
    if (is("/big/")) return Text(responder, 200, std::string(std::stoul(target.substr(5)), 'b'));
    if (is("/later/")) return AnswerLater(target, responder);
    if (is("/silent")) return;
    if (is("/gate")) {
      stage_->gate_open.wait(false);
      return static_cast<void>(responder.Start(204, "", {}, 0));
    }
    if (is("/empty")) return static_cast<void>(responder.Start(204, "", {}, 0));
    if (is("/twice")) {
      Text(responder, 500, "first attempt, with something secret in it");
      return Text(responder, 200, "second");
    }
    if (is("/hold")) return Hold(responder.Defer());
    if (is("/forget")) return static_cast<void>(responder.Defer());
    if (is("/both")) {
      Text(responder, 200, "begun");
      return Hold(responder.Defer());
    }
    if (is("/inject")) {
      const Header bad[] = {{"Location", "x\r\nX-Injected: y"}};
      const auto room = responder.Start(200, "text/plain", bad, 4);
      std::memcpy(room.data(), "body", 4);
      return;
    }
    Text(responder, 404, "no such route");
  }
  bool Commit() noexcept override {
    ++stage_->commits;
    return stage_->audit_works;
  }

 private:
  static void Text(Responder& responder, int status, std::string_view text) {
    const auto room = responder.Start(status, "text/plain", {}, text.size());
    std::memcpy(room.data(), text.data(), text.size());
  }
  static std::string Who(const Request& request) {
    if (request.certificate == nullptr) return "nobody at " + std::string(request.peer_address);
    const auto& names = request.certificate->names;
    if (!names.error.empty()) return "error " + names.error;
    return "cn=" + names.common_name.value_or("") + " spiffe=" + names.spiffe_id.value_or("");
  }
  static void Echo(const Request& request, Responder& responder) {
    const Header type[] = {{"X-Type", request.content_type}};
    const auto room = responder.Start(200, "application/octet-stream", type, request.body.size());
    std::copy(request.body.begin(), request.body.end(), room.begin());
  }
  void AnswerLater(const std::string& target, Responder& responder) {
    const std::size_t slash = target.find('/', 7);
    const auto delay = std::chrono::milliseconds(std::stol(target.substr(7, slash - 7)));
    stage_->later.After(delay, [reply = responder.Defer(), text = target.substr(slash + 1)] {
      reply->Complete({.status = 200,
                       .headers = {{"Content-Type", "text/plain"}, {"X-Latchkey-Version", "7"}},
                       .body = text});
    });
  }
  void Hold(std::shared_ptr<DeferredReply> reply) {
    const std::lock_guard lock(stage_->mutex);
    stage_->held = std::move(reply);
    stage_->changed.notify_all();
  }
  Stage* const stage_;
};

// A server with its own PKI. The members are public: a test may look at, and spoil, each of them.
struct TestServer {
  testing::TestDirectory directory;
  testing::Authority server_ca = testing::Authority::Root("server CA");
  testing::Authority client_ca = testing::Authority::Root("client CA");
  tls::TrustOptions trust;
  ServerOptions options;
  Stage stage;
  std::unique_ptr<Server> server;

  TestServer() {
    const testing::Credential credential = server_ca.Issue(testing::ServerSpec());
    trust.certificate_file = directory.Write("server.pem", credential.certificate_pem);
    trust.key_file = directory.Write("server.key", credential.key_pem);
    trust.client_ca_file = directory.Write("clients.pem", client_ca.certificate_pem());
    trust.names.trust_domains = {"example.org"};
  }
  std::shared_ptr<const tls::TlsContext> Load() {
    auto loaded = tls::LoadTrust(trust);
    if (!loaded.has_value()) FAIL(loaded.error().message);
    return std::move(loaded).value();
  }
  void Start() {
    auto started = Server::Start(
        options, [this] { return std::make_unique<StageHandler>(&stage); }, Load());
    if (!started.has_value()) FAIL(started.error().message);
    server = std::move(started).value();
  }
  std::uint16_t port() const { return server->port(); }
  testing::ClientOptions ClientOptionsFor(const std::string& name) {
    testing::ClientOptions client;
    client.credential = client_ca.Issue(testing::ClientSpec(name));
    client.ca_pem = server_ca.certificate_pem();
    return client;
  }
  testing::TlsClient Client(const std::string& name = "client") {
    return testing::TlsClient(ClientOptionsFor(name));
  }
  testing::TlsClient Connected(const std::string& name = "client") {
    testing::TlsClient client = Client(name);
    if (!client.Connect(port())) FAIL("cannot connect: " << client.error());
    return client;
  }
};

// Waits until `done()`; false after ten seconds. For what happens on other threads, never for what
// must not happen.
inline bool Eventually(const std::function<bool()>& done) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!done()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

}  // namespace latchkey::net
