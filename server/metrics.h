// Metrics of the server as Prometheus text, gathered from the parts when they are asked for.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "common/tls/context.h"
#include "server/assembly.h"
#include "server/net/server.h"

namespace latchkey {

// What the page is made of. All of it outlives the page; thread-safe parts only.
struct MetricsSources {
  Assembly* assembly = nullptr;
  std::string audit_directory;
  net::Server* server = nullptr;
  std::function<std::shared_ptr<const tls::TlsContext>()> trust;
  std::atomic<std::uint64_t>* reloads_ok = nullptr;
  std::atomic<std::uint64_t>* reloads_failed = nullptr;
};

// The text exposition format 0.0.4.
std::string MetricsText(const MetricsSources& sources);

}  // namespace latchkey
