// Rotates one secret again and again and measures when who learns of it. One thread, one epoll.
//
//   rotate_latency --connect 127.0.0.1:4444 --ca ca.crt --ca-key ca.key
//                  --writer admin.crt admin.key --secret NAME
//                  [--waiters N --prefix bench] [--holders N] [--rotations N] [--pause-ms N]
//                  [--body-bytes N]
//
// `--waiters` clients PREFIX0.. wait in the change feed; the first `--holders` of them are expected
// to hold the secret. For each rotation one JSON line goes to stdout,
// {"sha256":..,"sent_ns":..,"acked_ns":..,"first_ns":..}, to be joined with what a watcher saw (CLOCK_MONOTONIC
// in both; first_ns is when the first holder had its answer, 0 for none); at the end one line {"summary":..}:
//   ack              the writer's own wait, from sending to the answer
//   holders_latency  from the acknowledgement to the arrival of the feed's answer at each holder
//                    (0 when it arrived before)
//   first            the same for the first holder of each rotation
//   others           answers with the secret's name that a client without it got: must be 0
#include <sodium.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "bench/https_client.h"

namespace latchkey::bench {
namespace {

struct Options {
  std::string connect, ca, ca_key, writer_certificate, writer_key, secret, prefix = "bench";
  std::size_t waiters = 0, holders = 0, rotations = 100, pause_ms = 50, body_bytes = 1024;
};

[[noreturn]] void Die(const std::string& what) {
  std::fprintf(stderr, "rotate_latency: %s\n", what.c_str());
  std::exit(2);
}

template <class T>
T Take(Result<T> result) {
  if (!result.has_value()) Die(result.error().message);
  return std::move(result).value();
}

Options ParseOptions(int argc, char** argv) {
  Options o;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    const auto value = [&]() -> std::string {
      if (i + 1 >= argc) Die(name + " needs a value");
      return argv[++i];
    };
    const auto number = [&] {
      return static_cast<std::size_t>(std::strtoull(value().c_str(), nullptr, 10));
    };
    if (name == "--connect") {
      o.connect = value();
    } else if (name == "--ca") {
      o.ca = value();
    } else if (name == "--ca-key") {
      o.ca_key = value();
    } else if (name == "--writer") {
      o.writer_certificate = value();
      o.writer_key = value();
    } else if (name == "--secret") {
      o.secret = value();
    } else if (name == "--prefix") {
      o.prefix = value();
    } else if (name == "--waiters") {
      o.waiters = number();
    } else if (name == "--holders") {
      o.holders = number();
    } else if (name == "--rotations") {
      o.rotations = number();
    } else if (name == "--pause-ms") {
      o.pause_ms = number();
    } else if (name == "--body-bytes") {
      o.body_bytes = number();
    } else {
      Die("unknown option " + name);
    }
  }
  if (o.connect.empty() || o.ca.empty() || o.secret.empty() || o.writer_key.empty()) {
    Die("needs --connect, --ca, --writer and --secret");
  }
  return o;
}

std::string Sha256(const std::string& data) {
  std::array<unsigned char, crypto_hash_sha256_BYTES> digest{};
  crypto_hash_sha256(digest.data(), reinterpret_cast<const unsigned char*>(data.data()),
                     data.size());
  std::array<char, 2 * crypto_hash_sha256_BYTES + 1> hex{};
  sodium_bin2hex(hex.data(), hex.size(), digest.data(), digest.size());
  return hex.data();
}

std::string Base64(const std::string& data) {
  std::string out(sodium_base64_encoded_len(data.size(), sodium_base64_VARIANT_ORIGINAL), '\0');
  sodium_bin2base64(out.data(), out.size(), reinterpret_cast<const unsigned char*>(data.data()),
                    data.size(), sodium_base64_VARIANT_ORIGINAL);
  out.pop_back();
  return out;
}

// The number behind "name": in a small JSON object of known shape; -1 when it is not there.
long long NumberAfter(std::string_view json, std::string_view name) {
  const std::size_t at = json.find(name);
  if (at == std::string_view::npos) return -1;
  const std::size_t digit = json.find_first_of("0123456789", at + name.size());
  long long value = -1;
  if (digit != std::string_view::npos)
    std::from_chars(json.data() + digit, json.data() + json.size(), value);
  return value;
}

class Bench {
 public:
  explicit Bench(const Options& options)
      : options_(options),
        endpoint_(Take(ParseEndpoint(options.connect))),
        context_(Take(MakeContext(options.ca, "TLS_AES_128_GCM_SHA256"))),
        writer_identity_(Take(LoadIdentity(options.writer_certificate, options.writer_key))),
        epoll_(epoll_create1(EPOLL_CLOEXEC)),
        writer_(context_.get(), &writer_identity_, &endpoint_) {
    if (options.waiters > 0) {
      identities_ =
          Take(GenerateIdentities(options.ca, options.ca_key, options.waiters, options.prefix));
    }
    for (const Identity& identity : identities_) {
      waiters_.push_back(
          Waiter{std::make_unique<Connection>(context_.get(), &identity, &endpoint_)});
    }
  }
  ~Bench() {
    waiters_.clear();
    close(epoll_);
  }
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  int Run() {
    ConnectWriter();
    // A few at a time: the server holds the handshakes in flight of one address to a limit.
    for (std::size_t i = 0; i < waiters_.size(); ++i) {
      Connect(i);
      if (i % 32 == 31) Pump([this, i] { return ready_ > i; }, 30);
    }
    Pump([this] { return ready_ >= waiters_.size(); }, 30);
    // Everybody has had its first answer and waits again before the first rotation.
    Pump([] { return false; }, 1);
    for (std::size_t i = 0; i < options_.rotations; ++i) Rotate(i);
    Pump([this] { return told_ >= expected_; }, 10);
    Report();
    return errors_ == 0 && others_ == 0 && told_ == expected_ ? 0 : 1;
  }

 private:
  static constexpr std::uint64_t kWriterTag = ~std::uint64_t{0};
  struct Waiter {
    std::unique_ptr<Connection> connection;
    long long generation = 0;
    bool first_answer = false;
    bool waits = false;  // a request is at the server
  };

  void ConnectWriter() {
    writer_.Open(epoll_, kWriterTag);
    Pump([this] { return writer_.connected(); }, 10);
    if (!writer_.connected()) Die("the writer cannot connect: " + writer_.failure());
  }

  void Connect(std::size_t index) {
    waiters_[index].waits = false;
    if (!waiters_[index].connection->Open(epoll_, index)) Die("no socket");
  }

  void Wait(std::size_t index) {
    Waiter& waiter = waiters_[index];
    const std::string generation = std::to_string(waiter.generation);
    waiter.connection->Send(BuildRequest("GET",
                                         "/changes?since=" + generation + "&serving=" + generation +
                                             "&wait=" + (waiter.first_answer ? "60" : "0"),
                                         endpoint_, "", false));
    waiter.waits = true;
  }

  void OnWaiter(std::size_t index) {
    Waiter& waiter = waiters_[index];
    for (;;) {
      switch (waiter.connection->Advance()) {
        case Connection::Event::kNone:
          return;
        case Connection::Event::kConnected:
          Wait(index);
          break;
        case Connection::Event::kResponse:
          OnAnswer(index);
          Wait(index);
          break;
        case Connection::Event::kClosed:
          Connect(index);
          return;
        case Connection::Event::kFailed:
          ++errors_;
          if (first_error_.empty()) first_error_ = waiter.connection->failure();
          if (errors_ < 100) Connect(index);
          return;
      }
    }
  }

  void OnAnswer(std::size_t index) {
    const std::int64_t now = NowNs();
    Waiter& waiter = waiters_[index];
    const Response& response = waiter.connection->response();
    if (response.status != 200) {
      ++errors_;
      if (first_error_.empty()) first_error_ = "status " + std::to_string(response.status);
      if (errors_ > 100) Die(first_error_);
      return;
    }
    waiter.generation = NumberAfter(response.body, "\"generation\"");
    if (!waiter.first_answer) {
      waiter.first_answer = true;
      ++ready_;
      return;
    }
    if (response.body.find("\"" + options_.secret + "\"") == std::string_view::npos) return;
    if (index >= options_.holders) {
      ++others_;
      return;
    }
    ++told_;
    arrivals_.push_back(now);
  }

  void Rotate(std::size_t number) {
    std::string content =
        "rotation " + std::to_string(number) + " of this run " + std::to_string(NowNs()) + "\n";
    content.resize(std::max(content.size(), options_.body_bytes), 'x');
    if (!writer_.connected()) ConnectWriter();
    arrivals_.clear();
    acked_ns_ = 0;
    writer_.Send(BuildRequest(
        "POST", "/automation/v2/secrets/" + options_.secret + "/partialupdate", endpoint_,
        "{\"contentPresent\":true,\"content\":\"" + Base64(content) + "\"}", false));
    const std::int64_t sent = NowNs();
    expected_ += options_.holders;
    OnWriter();
    const std::uint64_t wanted = expected_;
    Pump([this, wanted] { return acked_ns_ != 0 && told_ >= wanted; }, 10);
    if (acked_ns_ == 0) Die("a rotation was not acknowledged: " + writer_.failure());
    const std::int64_t first =
        arrivals_.empty() ? 0 : *std::min_element(arrivals_.begin(), arrivals_.end());
    std::printf("{\"sha256\":\"%s\",\"sent_ns\":%lld,\"acked_ns\":%lld,\"first_ns\":%lld}\n",
                Sha256(content).c_str(), static_cast<long long>(sent),
                static_cast<long long>(acked_ns_), static_cast<long long>(first));
    std::fflush(stdout);
    ack_.Record(acked_ns_ - sent);
    for (const std::int64_t arrival : arrivals_) holders_latency_.Record(arrival - acked_ns_);
    if (first != 0) first_.Record(first - acked_ns_);
    const std::int64_t next = NowNs() + static_cast<std::int64_t>(options_.pause_ms) * 1'000'000;
    Pump([next] { return NowNs() >= next; }, 60);
  }

  void OnWriter() {
    const Connection::Event event = writer_.Advance();
    if (event == Connection::Event::kResponse) {
      acked_ns_ = NowNs();
      if (writer_.response().status != 201) {
        Die("a rotation was answered " + std::to_string(writer_.response().status) + ": " +
            std::string(writer_.response().body.substr(0, 200)));
      }
      if (writer_.response().close) writer_.Close();
    } else if (event == Connection::Event::kFailed) {
      Die("the writer's connection: " + writer_.failure());
    }
  }

  template <class Condition>
  void Pump(Condition condition, int seconds) {
    const std::int64_t end = NowNs() + static_cast<std::int64_t>(seconds) * 1'000'000'000;
    std::array<epoll_event, 256> events{};
    while (!condition() && NowNs() < end) {
      const int n = epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), 1);
      for (int i = 0; i < n; ++i) {
        const std::uint64_t tag = events[static_cast<std::size_t>(i)].data.u64;
        if (tag == kWriterTag) {
          OnWriter();
        } else {
          OnWaiter(static_cast<std::size_t>(tag));
        }
      }
    }
  }

  void Report() const {
    std::printf(
        "{\"summary\":{\"rotations\":%zu,\"waiters\":%zu,\"ready\":%zu,\"holders\":%zu,"
        "\"expected\":%llu,"
        "\"told\":%llu,\"others\":%llu,\"errors\":%llu,\"first_error\":\"%s\",\"ack\":%s,\"holders_"
        "latency\":%s,"
        "\"first\":%s}}\n",
        options_.rotations, options_.waiters, ready_, options_.holders,
        static_cast<unsigned long long>(expected_), static_cast<unsigned long long>(told_),
        static_cast<unsigned long long>(others_), static_cast<unsigned long long>(errors_),
        first_error_.c_str(), ack_.Json().c_str(), holders_latency_.Json().c_str(),
        first_.Json().c_str());
  }

  const Options& options_;
  Endpoint endpoint_;
  SslContextHandle context_;
  Identity writer_identity_;
  std::vector<Identity> identities_;
  int epoll_;
  Connection writer_;
  std::vector<Waiter> waiters_;
  std::size_t ready_ = 0;
  std::uint64_t expected_ = 0, told_ = 0, others_ = 0, errors_ = 0;
  std::string first_error_;
  std::int64_t acked_ns_ = 0;
  std::vector<std::int64_t> arrivals_;
  Histogram ack_, holders_latency_, first_;
};

}  // namespace
}  // namespace latchkey::bench

int main(int argc, char** argv) {
  if (sodium_init() < 0) return 1;
  const auto options = latchkey::bench::ParseOptions(argc, argv);
  latchkey::bench::Bench bench(options);
  return bench.Run();
}
