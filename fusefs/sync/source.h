// Where secrets come from: the four calls of the server that the sync thread needs.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "client/lib/api_client.h"
#include "common/base/guarded.h"

namespace latchkey::sync {

// Not thread-safe, except Cancel and Rearm. Errors as of client::ApiClient.
class Source {
 public:
  virtual ~Source() = default;
  virtual Result<std::vector<client::DeliveredSecret>> Listing() = 0;
  virtual Result<std::vector<client::DeliveredSecret>> Batch(
      const std::vector<std::string>& names) = 0;
  virtual Result<client::DeliveredSecret> One(const std::string& name) = 0;
  // kNotFound: the server has no feed (a Keywhiz, R28).
  virtual Result<client::ChangeSet> Changes(Generation since, std::chrono::seconds wait,
                                            std::optional<Generation> serving) = 0;
  // The running and every later call return kUnavailable at once, until Rearm.
  virtual void Cancel() = 0;
  virtual void Rearm() = 0;
};

// The real one. Opens its connection anew when a TLS file changed on disk (R37); files that do not
// load leave the old client in use.
class ServerSource final : public Source {
 public:
  // Errors as of client::ApiClient::Open.
  static Result<std::unique_ptr<ServerSource>> Open(client::HttpOptions options);

  Result<std::vector<client::DeliveredSecret>> Listing() override;
  Result<std::vector<client::DeliveredSecret>> Batch(
      const std::vector<std::string>& names) override;
  Result<client::DeliveredSecret> One(const std::string& name) override;
  Result<client::ChangeSet> Changes(Generation since, std::chrono::seconds wait,
                                    std::optional<Generation> serving) override;
  void Cancel() override;
  void Rearm() override;

 private:
  ServerSource(client::HttpOptions options, std::shared_ptr<client::ApiClient> api,
               std::string stamp)
      : options_(std::move(options)), api_(std::move(api)), stamp_(std::move(stamp)) {}
  std::shared_ptr<client::ApiClient> Current();

  client::HttpOptions options_;
  Guarded<std::shared_ptr<client::ApiClient>> api_;  // the lock is never held over a request
  std::string stamp_;  // identity of the TLS files that api_ was opened with
};

}  // namespace latchkey::sync
