// A small honest load generator for mTLS HTTP servers: many client certificates, closed loop or
// fixed rate, kept-alive connections or a full handshake for each request, every answer checked,
// every error counted, server CPU measured.
//
//   load_gen --connect 127.0.0.1:4444 --ca ca.crt --certs DIR --connections 64 --get /secret/one
//
//   --certs DIR             every NAME.crt with its NAME.key; or made on the spot:
//   --ca-key FILE --generate N --prefix P       N client certificates P0, P1, ...
//   --handshake             a new connection with a full handshake for each request
//   --rate N                fixed rate: a request's latency counts from when it was due, not from
//                           when it could be sent, so a stall of the server is seen in full
//   --get PATH | --delete PATH | --post PATH BODY | --put PATH BODY      several take turns
//   --requests N --first K  stop after N requests; their numbers begin at K
//   --seconds S --warmup S --threads N --expect-status N --expect-bytes N
//   --pid N                 measure the CPU of process N and its children (several allowed)
//
// In PATH and BODY {c} becomes the number of the connection, {n} that of the request, {n+K%M} the
// same plus K modulo M, {name} the name of the certificate.
//
// Prints one JSON object. Exit status 1 when a request failed or was answered otherwise than
// expected.
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <atomic>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "bench/https_client.h"

namespace latchkey::bench {
namespace {

struct RequestTemplate {
  std::string method, path, body;
};

struct Options {
  std::string connect, ca, ca_key, certs, prefix = "bench", cipher = "TLS_AES_128_GCM_SHA256";
  std::size_t generate = 0, connections = 1, threads = 1, requests = 0, first = 0, expect_bytes = 0;
  double seconds = 10, warmup_s = 1, rate = 0;
  bool handshake = false;
  int expect_status = 200;
  std::vector<RequestTemplate> mix;
  std::vector<int> pids;
};

[[noreturn]] void Die(const std::string& what) {
  std::fprintf(stderr, "load_gen: %s\n", what.c_str());
  std::exit(2);
}

template <class T>
T Take(Result<T> result) {
  if (!result.has_value()) Die(result.error().message);
  return std::move(result).value();
}

Options ParseOptions(int argc, char** argv) {
  Options o;
  const std::map<std::string_view, std::string*> texts = {
      {"--connect", &o.connect}, {"--ca", &o.ca},         {"--ca-key", &o.ca_key},
      {"--certs", &o.certs},     {"--prefix", &o.prefix}, {"--cipher", &o.cipher}};
  const std::map<std::string_view, std::size_t*> numbers = {
      {"--generate", &o.generate}, {"--connections", &o.connections},
      {"--threads", &o.threads},   {"--requests", &o.requests},
      {"--first", &o.first},       {"--expect-bytes", &o.expect_bytes}};
  const std::map<std::string_view, double*> reals = {
      {"--seconds", &o.seconds}, {"--warmup", &o.warmup_s}, {"--rate", &o.rate}};
  for (int i = 1; i < argc; ++i) {
    const std::string_view name = argv[i];
    const auto value = [&]() -> const char* {
      if (i + 1 >= argc) Die(std::string(name) + " needs a value");
      return argv[++i];
    };
    if (const auto text = texts.find(name); text != texts.end()) {
      *text->second = value();
    } else if (const auto number = numbers.find(name); number != numbers.end()) {
      *number->second = std::strtoull(value(), nullptr, 10);
    } else if (const auto real = reals.find(name); real != reals.end()) {
      *real->second = std::strtod(value(), nullptr);
    } else if (name == "--handshake") {
      o.handshake = true;
    } else if (name == "--expect-status") {
      o.expect_status = static_cast<int>(std::strtol(value(), nullptr, 10));
    } else if (name == "--pid") {
      o.pids.push_back(static_cast<int>(std::strtol(value(), nullptr, 10)));
    } else if (name == "--get" || name == "--delete") {
      o.mix.push_back({name == "--get" ? "GET" : "DELETE", value(), ""});
    } else if (name == "--post" || name == "--put") {
      const std::string path = value();
      o.mix.push_back({name == "--post" ? "POST" : "PUT", path, value()});
    } else {
      Die("unknown option " + std::string(name));
    }
  }
  if (o.connect.empty() || o.ca.empty() || o.mix.empty())
    Die("needs --connect, --ca and a request");
  if (o.threads < 1 || o.threads > 8 || o.connections < o.threads)
    Die("needs threads in 1..8, a connection for each");
  return o;
}

void Replace(std::string* text, std::string_view mark, const std::string& value) {
  for (std::size_t at = text->find(mark); at != std::string::npos;
       at = text->find(mark, at + value.size())) {
    text->replace(at, mark.size(), value);
  }
}

// {n+K%M} becomes (number + K) modulo M: many objects that refer to a smaller set of others.
void ReplaceModulo(std::string* text, std::uint64_t number) {
  for (std::size_t at = text->find("{n+"); at != std::string::npos; at = text->find("{n+", at)) {
    char* rest = nullptr;
    const std::uint64_t offset = std::strtoull(text->c_str() + at + 3, &rest, 10);
    if (*rest != '%') Die("{n+K%M} is malformed");
    const std::uint64_t modulus = std::strtoull(rest + 1, &rest, 10);
    if (*rest != '}' || modulus == 0) Die("{n+K%M} is malformed");
    const auto end = static_cast<std::size_t>(rest - text->c_str()) + 1;
    text->replace(at, end - at, std::to_string((number + offset) % modulus));
  }
}

// The clock and the counters that all threads share.
struct Run {
  std::int64_t measure_from_ns = 0, end_ns = 0;
  std::atomic<std::uint64_t> next_request{0};
};

// One thread: its connections, one epoll, one histogram. No other thread touches it before it has
// ended.
class Worker {
 public:
  Worker(const Options& options, Run& run, SSL_CTX* context, const Endpoint& endpoint,
         const std::vector<Identity>& identities, std::size_t first, std::size_t count)
      : options_(options),
        run_(run),
        endpoint_(endpoint),
        first_(first),
        epoll_(epoll_create1(EPOLL_CLOEXEC)),
        timer_(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)) {
    for (std::size_t i = 0; i < count; ++i) {
      slots_.push_back(Slot{std::make_unique<Connection>(
          context, &identities[(first + i) % identities.size()], &endpoint)});
    }
  }
  ~Worker() {
    slots_.clear();
    close(timer_);
    close(epoll_);
  }
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  void Go() {
    if (options_.rate > 0) StartTimer();
    for (std::size_t i = 0; i < slots_.size(); ++i) Prepare(i);
    std::vector<epoll_event> events(256);
    while (!Over()) {
      const int n = epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), 20);
      for (int i = 0; i < n; ++i) {
        if (events[static_cast<std::size_t>(i)].data.u64 == kTimerTag) {
          OnTimer();
        } else {
          OnReady(events[static_cast<std::size_t>(i)].data.u64);
        }
      }
    }
    for (const Slot& slot : slots_) in_flight_ += slot.connection->busy() ? 1 : 0;
  }

  Histogram latency;
  std::uint64_t done = 0, errors = 0, wrong_status = 0, connects = 0, reconnects = 0, bytes = 0;
  std::string first_error;
  std::map<int, std::uint64_t> statuses;
  std::uint64_t in_flight_ = 0;
  std::int64_t last_done_ns = 0;

 private:
  static constexpr std::uint64_t kTimerTag = ~std::uint64_t{0};
  struct Slot {
    std::unique_ptr<Connection> connection;
    std::int64_t started_ns = 0;
    std::uint64_t number = 0;
    bool wants = false;  // a request is due on it as soon as it is connected
  };

  bool Over() const {
    if (options_.requests > 0 && outstanding_ == 0 && run_.next_request.load() >= options_.requests)
      return true;
    return NowNs() >= run_.end_ns;
  }

  void StartTimer() {
    interval_ns_ =
        static_cast<std::int64_t>(1e9 * static_cast<double>(options_.threads) / options_.rate);
    next_due_ns_ = NowNs() + 50'000'000;
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = kTimerTag;
    epoll_ctl(epoll_, EPOLL_CTL_ADD, timer_, &event);
    ArmTimer();
  }

  void ArmTimer() {
    itimerspec when{};
    when.it_value.tv_sec = next_due_ns_ / 1'000'000'000;
    when.it_value.tv_nsec = next_due_ns_ % 1'000'000'000;
    timerfd_settime(timer_, TFD_TIMER_ABSTIME, &when, nullptr);
  }

  void OnTimer() {
    std::uint64_t expirations = 0;
    if (read(timer_, &expirations, sizeof(expirations)) < 0) return;
    for (const std::int64_t now = NowNs(); next_due_ns_ <= now; next_due_ns_ += interval_ns_)
      due_.push_back(next_due_ns_);
    ArmTimer();
    while (!due_.empty() && !free_.empty()) {
      const std::size_t index = free_.front();
      free_.pop_front();
      StartRequest(index);
    }
  }

  // Brings a slot to where it can send: connected, or in handshake mode about to connect with the
  // clock running.
  void Prepare(std::size_t index) {
    Slot& slot = slots_[index];
    if (options_.rate > 0) {
      if (due_.empty()) {
        free_.push_back(index);
        return;
      }
      StartRequest(index);
      return;
    }
    slot.wants = true;
    StartRequest(index);
  }

  void StartRequest(std::size_t index) {
    Slot& slot = slots_[index];
    // The number is taken here, not when it is sent: never more than the wanted requests go out.
    const std::uint64_t taken = run_.next_request.fetch_add(1);
    if (options_.requests > 0 && taken >= options_.requests) return;
    slot.number = options_.first + taken;
    slot.wants = true;
    slot.started_ns = NowNs();
    if (!due_.empty()) {
      slot.started_ns = due_.front();
      due_.pop_front();
    }
    ++outstanding_;
    if (!slot.connection->connected()) {
      Connect(index);
      return;
    }
    SendOn(index);
  }

  void Connect(std::size_t index) {
    ++connects;
    if (!slots_[index].connection->Open(epoll_, index)) Failed(index);
  }

  void SendOn(std::size_t index) {
    Slot& slot = slots_[index];
    // On a kept connection the handshake is not part of the request's latency.
    if (!options_.handshake && options_.rate <= 0) slot.started_ns = NowNs();
    slot.wants = false;
    const std::uint64_t number = slot.number;
    const RequestTemplate& chosen = options_.mix[number % options_.mix.size()];
    std::string path = chosen.path;
    std::string body = chosen.body;
    for (std::string* text : {&path, &body}) {
      ReplaceModulo(text, number);
      Replace(text, "{c}", std::to_string(first_ + index));
      Replace(text, "{n}", std::to_string(number));
      Replace(text, "{name}", slot.connection->identity().name);
    }
    slot.connection->Send(BuildRequest(chosen.method, path, endpoint_, body, options_.handshake));
    OnReady(index);
  }

  void OnReady(std::uint64_t tag) {
    const auto index = static_cast<std::size_t>(tag);
    Slot& slot = slots_[index];
    switch (slot.connection->Advance()) {
      case Connection::Event::kNone:
        return;
      case Connection::Event::kConnected:
        if (slot.wants) SendOn(index);
        return;
      case Connection::Event::kResponse:
        OnResponse(index);
        return;
      case Connection::Event::kClosed:
        ++reconnects;
        if (slot.wants) Connect(index);
        return;
      case Connection::Event::kFailed:
        Failed(index);
        return;
    }
  }

  void OnResponse(std::size_t index) {
    Slot& slot = slots_[index];
    const Response& response = slot.connection->response();
    const std::int64_t now = NowNs();
    --outstanding_;
    if (now >= run_.measure_from_ns && now < run_.end_ns) {
      ++done;
      last_done_ns = now;
      bytes += response.body.size();
      ++statuses[response.status];
      latency.Record(now - slot.started_ns);
      const bool right_size =
          options_.expect_bytes == 0 || response.body.size() == options_.expect_bytes;
      if (response.status != options_.expect_status || !right_size) {
        ++wrong_status;
        if (first_error.empty())
          first_error = "status " + std::to_string(response.status) + ": " +
                        std::string(response.body.substr(0, 120));
      }
    }
    if (options_.handshake || response.close) slot.connection->Close();
    Prepare(index);
  }

  void Failed(std::size_t index) {
    ++errors;
    --outstanding_;
    if (first_error.empty()) first_error = slots_[index].connection->failure();
    slots_[index].connection->Close();
    // A server that refuses everything must not be hammered without end.
    if (errors < 1000) Prepare(index);
  }

  const Options& options_;
  Run& run_;
  const Endpoint& endpoint_;
  std::size_t first_;
  int epoll_;
  int timer_;
  std::vector<Slot> slots_;
  std::int64_t interval_ns_ = 0, next_due_ns_ = 0;
  std::deque<std::int64_t> due_;
  std::deque<std::size_t> free_;
  std::uint64_t outstanding_ = 0;
};

std::int64_t TotalCpuUs(const std::vector<int>& pids) {
  std::int64_t total = 0;
  for (const int pid : pids) {
    const std::int64_t one = ProcessCpuUs(pid);
    if (one < 0) Die("process " + std::to_string(pid) + " is gone");
    total += one;
  }
  return total;
}

std::string JsonEscape(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return out;
}

int Main(int argc, char** argv) {
  const Options options = ParseOptions(argc, argv);
  const Endpoint endpoint = Take(ParseEndpoint(options.connect));
  const SslContextHandle context = Take(MakeContext(options.ca, options.cipher));
  const std::vector<Identity> identities =
      options.generate > 0
          ? Take(GenerateIdentities(options.ca, options.ca_key, options.generate, options.prefix))
          : Take(LoadIdentities(options.certs));
  Run run;
  const std::int64_t start = NowNs();
  run.measure_from_ns = start + static_cast<std::int64_t>(options.warmup_s * 1e9);
  run.end_ns = run.measure_from_ns + static_cast<std::int64_t>(options.seconds * 1e9);
  std::vector<std::unique_ptr<Worker>> workers;
  for (std::size_t t = 0; t < options.threads; ++t) {
    const std::size_t first = options.connections * t / options.threads;
    const std::size_t last = options.connections * (t + 1) / options.threads;
    workers.push_back(std::make_unique<Worker>(options, run, context.get(), endpoint, identities,
                                               first, last - first));
  }
  std::int64_t cpu_before = 0;
  {
    std::vector<std::jthread> threads;
    for (auto& worker : workers) threads.emplace_back([&worker] { worker->Go(); });
    while (NowNs() < run.measure_from_ns) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    cpu_before = TotalCpuUs(options.pids);
  }
  const std::int64_t cpu_us = TotalCpuUs(options.pids) - cpu_before;

  Histogram latency;
  std::uint64_t done = 0, errors = 0, wrong = 0, connects = 0, reconnects = 0, bytes = 0,
                in_flight = 0;
  std::int64_t last_done_ns = run.measure_from_ns + 1;
  std::string first_error;
  for (const auto& worker : workers) {
    latency.Merge(worker->latency);
    done += worker->done;
    errors += worker->errors;
    wrong += worker->wrong_status;
    connects += worker->connects;
    reconnects += worker->reconnects;
    bytes += worker->bytes;
    in_flight += worker->in_flight_;
    last_done_ns = std::max(last_done_ns, worker->last_done_ns);
    if (first_error.empty()) first_error = worker->first_error;
  }
  const std::int64_t measured_end = options.requests > 0 ? last_done_ns : run.end_ns;
  const double seconds = static_cast<double>(measured_end - run.measure_from_ns) / 1e9;
  std::printf(
      "{\"requests\":%llu,\"seconds\":%.3f,\"per_second\":%.1f,\"errors\":%llu,\"wrong_answers\":%"
      "llu,"
      "\"first_error\":\"%s\",\"connects\":%llu,\"reconnects\":%llu,\"body_bytes\":%llu,\"in_"
      "flight\":%llu,"
      "\"cpu_us\":%lld,\"cpu_us_per_request\":%.2f,\"latency\":%s}\n",
      static_cast<unsigned long long>(done), seconds, static_cast<double>(done) / seconds,
      static_cast<unsigned long long>(errors), static_cast<unsigned long long>(wrong),
      JsonEscape(first_error).c_str(), static_cast<unsigned long long>(connects),
      static_cast<unsigned long long>(reconnects), static_cast<unsigned long long>(bytes),
      static_cast<unsigned long long>(in_flight), static_cast<long long>(cpu_us),
      done > 0 ? static_cast<double>(cpu_us) / static_cast<double>(done) : 0.0,
      latency.Json().c_str());
  return errors == 0 && wrong == 0 && done > 0 ? 0 : 1;
}

}  // namespace
}  // namespace latchkey::bench

int main(int argc, char** argv) {
  return latchkey::bench::Main(argc, argv);
}
