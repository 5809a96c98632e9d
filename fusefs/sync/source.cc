#include "fusefs/sync/source.h"

#include <sys/stat.h>

#include "client/lib/key_file.h"
#include "common/base/log.h"

namespace latchkey::sync {
namespace {

// Changes whenever one of the files is replaced or written.
std::string StampOf(const client::TlsFiles& files) {
  std::string stamp;
  for (const std::string& path : {files.ca_file, files.cert_file, files.key_file}) {
    struct stat info {};
    if (::stat(path.c_str(), &info) != 0) {
      stamp += "-;";
      continue;
    }
    stamp += std::to_string(info.st_ino) + "." + std::to_string(info.st_size) + "." +
             std::to_string(info.st_mtim.tv_sec) + "." + std::to_string(info.st_mtim.tv_nsec) + ";";
  }
  return stamp;
}

Result<std::shared_ptr<client::ApiClient>> OpenApi(const client::HttpOptions& options) {
  ASSIGN_OR_RETURN(auto api, client::ApiClient::Open(options));
  if (const std::string warning = client::KeyFileWarning(options.tls.key_file); !warning.empty())
    Log(LogLevel::kWarn, "the key is not the mount's alone", {{"reason", warning}});
  return std::shared_ptr<client::ApiClient>(std::move(api));
}

}  // namespace

Result<std::unique_ptr<ServerSource>> ServerSource::Open(client::HttpOptions options) {
  std::string stamp = StampOf(options.tls);
  ASSIGN_OR_RETURN(auto api, OpenApi(options));
  return std::unique_ptr<ServerSource>(
      new ServerSource(std::move(options), std::move(api), std::move(stamp)));
}

std::shared_ptr<client::ApiClient> ServerSource::Current() {
  const std::string stamp = StampOf(options_.tls);
  if (stamp != stamp_) {
    auto fresh = OpenApi(options_);
    if (fresh) {
      const auto next = std::move(fresh).value();
      api_.With([&](auto& api) {
        if (api->cancelled()) next->Cancel();  // meant for whichever runs the next request
        api = next;
      });
      stamp_ = stamp;
      Log(LogLevel::kInfo, "tls files changed, using the new ones");
    } else {
      Log(LogLevel::kWarn, "tls files changed and do not load, keeping the old ones",
          {{"reason", fresh.error().message}});
    }
  }
  return api_.With([](const auto& api) { return api; });
}

Result<std::vector<client::DeliveredSecret>> ServerSource::Listing() {
  return Current()->Secrets();
}

Result<std::vector<client::DeliveredSecret>> ServerSource::Batch(
    const std::vector<std::string>& names) {
  return Current()->BatchSecrets(names);
}

Result<client::DeliveredSecret> ServerSource::One(const std::string& name) {
  return Current()->Secret(name);
}

Result<client::ChangeSet> ServerSource::Changes(Generation since, std::chrono::seconds wait,
                                                std::optional<Generation> serving) {
  return Current()->Changes(since, wait, serving);
}

void ServerSource::Cancel() {
  api_.With([](const auto& api) { api->Cancel(); });
}

void ServerSource::Rearm() {
  api_.With([](const auto& api) { api->Rearm(); });
}

}  // namespace latchkey::sync
