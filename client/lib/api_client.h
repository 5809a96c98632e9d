// ApiClient: the server's API as typed calls. Errors say what to do next; codes as in
// common/base/result.h.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "client/lib/api_types.h"
#include "client/lib/delivery.h"
#include "client/lib/http_client.h"
#include "common/base/result.h"
#include "common/model/ids.h"
#include "common/secret/secret_buffer.h"

namespace latchkey::client {

// Not thread-safe, except Cancel. One connection, kept alive. Contents exist only in SecretBuffers
// and in buffers that are wiped (Y4, Y5). Names are encoded into paths, so any name is safe to
// pass.
//
// Every call: kUnavailable (no connection, no answer in time, server busy, cancelled),
// kUnauthenticated (certificate not accepted, or the client is unknown or disabled), kTooLarge and
// kInternal (the answer is over a limit or malformed).
class ApiClient {
 public:
  static Result<std::unique_ptr<ApiClient>> Open(HttpOptions options);

  // From any thread: the running and every later call return kUnavailable at once, until Rearm.
  void Cancel() { http_->Cancel(); }
  void Rearm() { http_->Rearm(); }
  bool cancelled() const { return http_->cancelled(); }
  const HttpOptions& options() const { return http_->options(); }

  // ---- Delivery: what a client's own certificate may do.
  // Metadata of everything that is granted; contents are empty.
  Result<std::vector<DeliveredSecret>> Secrets();
  // kNotFound: unknown (or hidden); kForbidden: not granted.
  Result<DeliveredSecret> Secret(std::string_view name);
  // With `version` in each. All or nothing: kNotFound as soon as one is gone, kForbidden when one
  // is not granted. At most kMaxBatchNames names and kMaxBatchContentBytes of content: split by the
  // sizes of the feed. No names: no request.
  Result<std::vector<DeliveredSecret>> BatchSecrets(const std::vector<std::string>& names);
  // Returns as soon as something changed after `since`, else after `wait` (at most kMaxFeedWait)
  // with nothing changed. `serving` acknowledges that this generation is what the mount shows.
  Result<ChangeSet> Changes(Generation since, std::chrono::seconds wait,
                            std::optional<Generation> serving);

  // ---- Status, anonymous: an unhealthy server is a value, not an error.
  Result<ServerStatus> Status();

  // ---- Automation: kPermissionDenied when the client lacks the automation bit, kNotFound for
  // unknown names.
  Result<std::vector<std::string>> ListSecrets();
  Result<std::vector<SecretInfo>> ListSecretInfos();
  Result<SecretInfo> GetSecret(std::string_view name);
  Result<bool> SecretExists(std::string_view name);
  Result<std::vector<std::string>> SecretGroups(std::string_view name);
  Result<std::vector<HistoryEntry>> History(std::string_view name, std::uint64_t after,
                                            std::size_t limit);
  Result<std::vector<Reader>> SecretReaders(std::string_view name);
  Result<ServingReport> Serving(std::string_view name);
  // Writes. kConflict: the name is taken, or a race was lost. They are sent once, never repeated.
  Result<WriteReceipt> CreateSecret(const NewSecret& secret, const SecretBuffer& content);
  Result<WriteReceipt> UpdateSecret(std::string_view name, const SecretChange& change,
                                    const SecretBuffer* content);
  Result<WriteReceipt> SetVersion(std::string_view name, std::int64_t version_id);
  Result<WriteReceipt> RenameSecret(std::string_view name, std::string_view new_name);
  Result<WriteReceipt> DeleteSecret(std::string_view name);
  Result<WriteReceipt> UndeleteSecret(std::string_view name);
  // The groups afterwards. The server ignores names that do not exist: look at the answer.
  Result<std::vector<std::string>> ModifySecretGroups(std::string_view name,
                                                      const std::vector<std::string>& add,
                                                      const std::vector<std::string>& remove);

  Result<std::vector<std::string>> ListClients();
  Result<ClientInfo> GetClient(std::string_view name);
  Result<std::vector<std::string>> ClientGroups(std::string_view name);
  Result<std::vector<std::string>> ClientSecrets(std::string_view name);
  Result<WriteReceipt> CreateClient(const NewClient& client);
  // All three are there.
  Result<ClientState> GetClientState(std::string_view name);
  Result<WriteReceipt> SetClientState(std::string_view name, const ClientState& state);
  Result<WriteReceipt> DeleteClient(std::string_view name);
  Result<std::vector<std::string>> ModifyClientGroups(std::string_view name,
                                                      const std::vector<std::string>& add,
                                                      const std::vector<std::string>& remove);

  Result<std::vector<std::string>> ListGroups();
  Result<GroupInfo> GetGroup(std::string_view name);
  Result<WriteReceipt> CreateGroup(std::string_view name, std::string_view description,
                                   const Metadata& metadata);
  Result<WriteReceipt> DeleteGroup(std::string_view name);

  Result<AccessAnswer> Access(std::string_view client, std::string_view secret);
  // `after` 0: the newest window. Events in ascending order of seq.
  Result<std::vector<AuditEvent>> Audit(std::string_view chain, std::optional<std::uint64_t> after,
                                        std::size_t limit);

 private:
  explicit ApiClient(std::unique_ptr<HttpClient> http) : http_(std::move(http)) {}

  std::unique_ptr<HttpClient> http_;
};

}  // namespace latchkey::client
