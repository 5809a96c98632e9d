#include "server/metrics.h"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include "common/secret/secret_buffer.h"

namespace latchkey {
namespace {

class Page {
 public:
  void Counter(const char* name, const char* help, std::uint64_t value) {
    prometheus::ClientMetric metric;
    metric.counter.value = static_cast<double>(value);
    Add(name, help, prometheus::MetricType::Counter, std::move(metric));
  }
  void Gauge(const char* name, const char* help, double value) {
    prometheus::ClientMetric metric;
    metric.gauge.value = value;
    Add(name, help, prometheus::MetricType::Gauge, std::move(metric));
  }
  void Gauge(const char* name, const char* help, std::uint64_t value) {
    Gauge(name, help, static_cast<double>(value));
  }
  std::string Text() const { return prometheus::TextSerializer().Serialize(families_); }

 private:
  void Add(const char* name, const char* help, prometheus::MetricType type,
           prometheus::ClientMetric metric) {
    prometheus::MetricFamily family;
    family.name = std::string("latchkey_") + name;
    family.help = help;
    family.type = type;
    family.metric.push_back(std::move(metric));
    families_.push_back(std::move(family));
  }

  std::vector<prometheus::MetricFamily> families_;
};

void AddNetwork(const net::ServerStats& stats, Page* page) {
  page->Counter("connections_accepted_total", "TCP connections accepted", stats.accepted);
  page->Counter("handshakes_total", "TLS handshakes that succeeded", stats.handshakes_ok);
  page->Counter("handshakes_failed_total", "TLS handshakes that failed", stats.handshakes_failed);
  page->Counter("handshakes_timed_out_total", "TLS handshakes that took too long",
                stats.handshakes_timed_out);
  page->Counter("handshakes_displaced_total", "handshakes closed for a newer one at a limit",
                stats.handshakes_displaced);
  page->Gauge("handshakes_in_flight", "handshakes under way", stats.handshakes_in_flight);
  page->Gauge("connections", "open connections, handshakes included", stats.connections);
  page->Counter("connections_refused_total", "connections refused at the limit of all",
                stats.connections_refused);
  page->Counter("descriptors_exhausted_total",
                "accepts that failed for want of descriptors or memory",
                stats.descriptors_exhausted);
  page->Counter("connections_identity_displaced_total",
                "idle connections closed for a newer one of the same identity",
                stats.identity_displaced);
  page->Counter("requests_total", "requests answered", stats.requests);
  page->Counter("request_batches_total", "batches of requests with one audit commit",
                stats.batches);
  page->Counter("request_batches_unaudited_total",
                "batches answered 503 because the audit could not be written",
                stats.batches_unaudited);
  page->Counter("requests_framing_refused_total", "requests refused by the framer",
                stats.framing_refused);
  page->Counter("requests_overloaded_total",
                "requests answered 503 at the limit of bodies in flight", stats.bodies_overloaded);
  page->Counter("requests_refused_slow_reader_total",
                "requests answered 503 because their identity does not take its answers",
                stats.replies_overloaded);
  page->Gauge("request_body_bytes_in_flight", "bytes of request bodies held",
              stats.body_bytes_in_flight);
  page->Counter("connections_timed_out_total", "connections closed in the middle of a request",
                stats.timed_out);
  page->Counter("connections_idle_closed_total", "connections closed idle or too old",
                stats.idle_closed);
  page->Counter("connections_stalled_closed_total", "peers that did not read their answer",
                stats.stalled_closed);
  page->Counter("connections_trust_closed_total",
                "connections closed by a reload or past the certificate's end", stats.trust_closed);
  page->Counter("connections_protocol_closed_total",
                "connections closed because their peer went on with the TLS protocol",
                stats.protocol_closed);
  page->Counter("connections_strangers_displaced_total",
                "connections without a certificate closed for a newer one",
                stats.strangers_displaced);
  page->Counter("received_bytes_total", "bytes received on the wire", stats.bytes_received);
  page->Counter("sent_bytes_total", "bytes sent on the wire", stats.bytes_sent);
  page->Counter("handler_silent_total", "requests that no handler answered: a bug",
                stats.handler_silent);
}

void AddStore(Assembly& assembly, Page* page) {
  const catalog::RootRef root = assembly.catalog().Current();
  page->Gauge("store_generation", "generation of the newest commit", root->generation().value);
  page->Gauge("store_queued_writes", "writes that wait for the writer",
              static_cast<std::uint64_t>(assembly.store().queued_writes()));
  page->Gauge("store_writable", "0: the newest commit failed, writes are answered 503; reads go on",
              assembly.store().write_trouble() ? 0.0 : 1.0);
  page->Gauge("clients", "clients in the catalog",
              static_cast<std::uint64_t>(root->client_count()));
  page->Gauge("groups", "groups in the catalog", static_cast<std::uint64_t>(root->group_count()));
  page->Gauge("secrets", "live secrets in the catalog",
              static_cast<std::uint64_t>(root->secret_count()));
  page->Gauge("deleted_secrets", "soft-deleted secrets in the catalog",
              static_cast<std::uint64_t>(root->deleted_secret_count()));
  page->Gauge("feed_waiters", "clients that wait for a change",
              static_cast<std::uint64_t>(assembly.feed().waiters()));
  page->Gauge("feed_generation", "generation that the feed has announced",
              assembly.feed().generation().value);
  page->Gauge("sealed_cache_bytes", "sealed bytes in the cache",
              static_cast<std::uint64_t>(assembly.cache().bytes()));
}

void AddAudit(Assembly& assembly, const std::string& directory, Page* page) {
  const audit::AccessLogStats stats = assembly.access().Stats();
  page->Counter("audit_access_events_total", "events appended to the access chain since start",
                stats.events);
  const audit::RefusalStats refusals = assembly.refusals().Stats();
  page->Counter("audit_denied_events_total",
                "requests refused for want of identity, right or grant",
                stats.denied + refusals.counted);
  page->Counter("audit_refusals_counted_total",
                "of these, refusals of strangers that were counted instead of written one by one",
                refusals.counted);
  page->Counter("integrity_failures_total",
                "stored data that was not what this server wrote: run latchkeyd check",
                stats.integrity_failures);
  page->Counter("audit_refused_batches_total", "batches that could not be appended",
                stats.refused_batches);
  page->Gauge("audit_reserve_bytes", "bytes of spool that are left allocated; reads stop at none",
              stats.reserve_left_bytes);
  // Left out when the disk cannot be asked: an absent gauge raises an alarm, a made up one does not.
  if (const auto usage = audit::ReadSpoolUsage(directory)) {
    page->Gauge("audit_spool_bytes", "bytes of the audit spool on its disk, the reserve included",
                usage->bytes);
    page->Gauge("audit_disk_free_bytes", "bytes left on the disk of the audit spool",
                usage->free_bytes);
  }
  page->Gauge("audit_access_seq", "last record of the access chain",
              assembly.access().Last().head.seq);
  page->Gauge("audit_store_seq", "last record of the store chain",
              assembly.chain().Last().head.seq);
}

}  // namespace

std::string MetricsText(const MetricsSources& sources) {
  Page page;
  AddNetwork(sources.server->stats(), &page);
  AddStore(*sources.assembly, &page);
  AddAudit(*sources.assembly, sources.audit_directory, &page);
  const std::shared_ptr<const tls::TlsContext> trust = sources.trust();
  page.Gauge("tls_certificate_not_after_seconds",
             "end of the server's certificate, seconds since 1970",
             static_cast<double>(trust->server_not_after()));
  page.Gauge("tls_crl_next_update_seconds",
             "when the first revocation list runs out; 0 without lists",
             static_cast<double>(trust->earliest_crl_next_update()));
  page.Counter("tls_verdicts_remembered_total", "chains whose verdict came from the cache",
               trust->verdicts_remembered());
  page.Counter("reloads_total", "reloads that took effect", sources.reloads_ok->load());
  page.Counter("reloads_failed_total", "reloads that kept the old state",
               sources.reloads_failed->load());
  page.Gauge("secret_memory_free_bytes", "locked memory that is free",
             static_cast<std::uint64_t>(SecretArenaFreeBytes()));
  page.Gauge("secret_memory_locked", "1: keys are in locked memory",
             SecretArenaBacking() == ArenaBacking::kUnlocked ? 0.0 : 1.0);
  return page.Text();
}

}  // namespace latchkey
