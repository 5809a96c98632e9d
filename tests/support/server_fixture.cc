#include "tests/support/server_fixture.h"

#include <sys/stat.h>

#include <condition_variable>
#include <mutex>

#include "common/wire/json_out.h"
#include "server/service/write_clients.h"
#include "server/service/write_secrets.h"

namespace latchkey::testing {
namespace {

constexpr std::uint32_t kKekId = 1;

class CapturedDeferred final : public net::DeferredReply {
 public:
  void Complete(net::DeferredResponse response) override {
    const std::lock_guard lock(mutex_);
    INVARIANT(!response_.has_value());
    response_ = std::move(response);
    ready_.notify_all();
  }
  bool Alive() const override { return true; }
  void OnGone(std::function<void()>) override {}

  std::optional<net::DeferredResponse> Wait() {
    std::unique_lock lock(mutex_);
    ready_.wait_for(lock, std::chrono::seconds(30), [this] { return response_.has_value(); });
    return response_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable ready_;
  std::optional<net::DeferredResponse> response_;
};

class CapturingResponder final : public net::Responder {
 public:
  std::span<char> Start(int status, std::string_view content_type,
                        std::span<const net::Header> headers, std::size_t body_bytes) override {
    INVARIANT(deferred_ == nullptr);
    reply_ = {};
    reply_.status = status;
    reply_.content_type = content_type;
    for (const net::Header& header : headers) reply_.headers.emplace(header.name, header.value);
    reply_.body.assign(body_bytes, '\0');
    return {reply_.body.data(), reply_.body.size()};
  }
  std::shared_ptr<net::DeferredReply> Defer() override {
    INVARIANT(deferred_ == nullptr);
    deferred_ = std::make_shared<CapturedDeferred>();
    return deferred_;
  }

  TestReply Take(bool committed) {
    if (deferred_ == nullptr) {
      if (!committed) return {503, "", {}, "", false};
      return std::move(reply_);
    }
    const auto response = deferred_->Wait();
    TestReply reply;
    reply.deferred = true;
    if (!response) return reply;
    reply.status = response->status;
    reply.body = response->body;
    for (const auto& [name, value] : response->headers) {
      if (name == "Content-Type") {
        reply.content_type = value;
      } else {
        reply.headers.emplace(name, value);
      }
    }
    return reply;
  }

 private:
  TestReply reply_;
  std::shared_ptr<CapturedDeferred> deferred_;
};

net::Method MethodOf(const std::string& text) {
  static const std::map<std::string, net::Method> kMethods = {
      {"GET", net::Method::kGet},       {"HEAD", net::Method::kHead},
      {"POST", net::Method::kPost},     {"PUT", net::Method::kPut},
      {"DELETE", net::Method::kDelete}, {"OPTIONS", net::Method::kOptions},
      {"PATCH", net::Method::kPatch}};
  const auto found = kMethods.find(text);
  return found == kMethods.end() ? net::Method::kOther : found->second;
}

struct SeedSecret {
  std::int64_t id;
  const char* name;
  std::vector<std::int64_t> versions;
  const char* content;
  const char* metadata;
  std::vector<std::int64_t> groups;
};

}  // namespace

ServerFixture::ServerFixture(Config config) : config_(std::move(config)) {
  Create();
  Open();
  if (config_.keywhiz_data) SeedKeywhizData();
}

ServerFixture::~ServerFixture() {
  Close();
}

void ServerFixture::Create() {
  crypto::Kek kek = Must(crypto::Kek::Random());
  kek_ = std::make_unique<SecretBuffer>(Must(SecretBuffer::CopyOf(kek.bytes())));
  auto made = Must(keys::Keyring::Create(kTestStoreId, kKekId, std::move(kek), clock_.Seconds()));
  kek_rows_ = {made.kek};
  keyring_rows_ = made.rows;
  Must(store::Store::Create(directory_ / "store.db", kTestStoreId, clock_.Seconds()));
  auto store = Must(store::Store::Open(directory_ / "store.db", store::OpenMode::kExclusive, {}));
  store->Start(nullptr);
  Must(store->RunJob([&](store::Savepoint& savepoint) -> Status {
    for (const auto& row : kek_rows_) RETURN_IF_ERROR(savepoint.PutKek(row));
    for (const auto& row : keyring_rows_) RETURN_IF_ERROR(savepoint.PutKeyring(row));
    return {};
  }));
  INVARIANT(::mkdir((directory_ / "audit").c_str(), 0700) == 0);
}

void ServerFixture::Open() {
  store_ = Must(store::Store::Open(directory_ / "store.db", store::OpenMode::kExclusive, {}));
  keyring_ = Must(keys::Keyring::Load(
      kTestStoreId, kKekId, Must(crypto::Kek::FromBytes(kek_->bytes())), kek_rows_, keyring_rows_));
  const service::CatalogVerifier verifier(*keyring_);
  audit::ChainHead head;
  {
    auto reader = Must(store_->Read());
    catalog_ = std::make_unique<catalog::Catalog>(Must(catalog::LoadRoot(reader, verifier)));
    if (const auto last = Must(reader.LastAudit())) head = {last->seq, last->hash};
  }
  feed_ = Must(feed::Feed::Load(store_.get(), catalog_->Current(), clock_));
  chain_ = std::make_unique<audit::StoreChain>(keyring_->audit_key(), head);
  audit::AccessLogOptions options;
  options.directory = (directory_ / "audit").string();
  options.server_id = "test";
  options.segment_bytes = 256 * 1024;
  options.reserve_bytes = 512 * 1024;
  access_ = Must(audit::AccessLog::Open(keyring_->audit_key(), std::move(options)));
  cache_ = std::make_unique<service::SealedCache>();
  services_ = {store_.get(), catalog_.get(), feed_.get(),      keyring_.get(),
               chain_.get(), access_.get(),  &refusals_,       nullptr,
               cache_.get(), &clock_,        &config_.settings};
  writer_ = std::make_unique<service::Writer>(services_.WriterParts());
  services_.writer = writer_.get();
  store_->Start(writer_.get());
  authenticator_ = std::make_unique<identity::Authenticator>(config_.identity, clock_);
  factory_ = api::MakeHandlerFactory({services_, authenticator_.get()});
  handler_ = factory_();
}

void ServerFixture::Close() {
  if (feed_ != nullptr) feed_->Stop();
  if (store_ != nullptr) store_->Stop();
  handler_.reset();
  feed_.reset();
  store_.reset();
  access_.reset();
}

void ServerFixture::Restart() {
  Close();
  Open();
}

TestReply ServerFixture::Send(net::Handler& handler, const TestCaller& caller,
                              const TestRequest& spec) {
  tls::PeerCertificate certificate;
  certificate.names.common_name = caller.common_name;
  certificate.names.spiffe_id = caller.spiffe_id;
  certificate.names.error = caller.names_error;
  certificate.subject = caller.common_name ? "CN=" + *caller.common_name : "O=Acme";
  certificate.earliest_not_after = certificate.not_after = 2'376'326'683;

  net::Request request;
  request.method = MethodOf(spec.method);
  request.target = spec.target;
  request.host = "localhost:4444";
  request.has_body = !spec.body.empty();
  request.body = AsBytes(spec.body);
  request.has_content_type =
      !spec.no_content_type && (spec.content_type.has_value() || request.has_body);
  const std::string content_type = spec.content_type.value_or("application/json");
  if (request.has_content_type) request.content_type = content_type;
  request.has_accept = spec.accept.has_value();
  if (spec.accept) request.accept = *spec.accept;
  request.has_forwarded_identity = spec.forwarded_identity;
  request.certificate = caller.certificate ? &certificate : nullptr;
  request.peer_address = "127.0.0.1";
  request.local_port = 4444;
  request.id = net::RequestId{next_request_++};

  CapturingResponder responder;
  handler.Handle(request, responder);
  const bool committed = handler.Commit();
  return responder.Take(committed);
}

void ServerFixture::AddClient(const std::string& name, bool automation, bool content,
                              const std::vector<std::string>& groups) {
  Run<ClientId>([&](service::WriteContext& context) -> Result<ClientId> {
    ASSIGN_OR_RETURN(const ClientId id, service::CreateClient(context, {name, "", "", groups}));
    RETURN_IF_ERROR(service::SetClientState(context, name, {true, automation, content}).has_value()
                        ? Status{}
                        : Status(Error{Errc::kInternal, "bits"}));
    return id;
  });
}

void ServerFixture::AddGroup(const std::string& name) {
  Run<GroupId>([&](service::WriteContext& context) {
    return service::CreateGroup(context, {name, "", {}, "{}"});
  });
}

void ServerFixture::AddSecret(const std::string& name, const std::string& content,
                              const std::vector<std::string>& groups) {
  auto secret = std::make_shared<service::NewSecret>();
  secret->name = name;
  secret->content = Must(SecretBuffer::CopyOf(AsBytes(content)));
  secret->metadata_json = "{}";
  secret->groups = groups;
  Run<service::Written>(
      [secret](service::WriteContext& context) { return service::CreateSecret(context, *secret); });
}

std::vector<std::string> ServerFixture::Events(service::ChainName chain) {
  std::vector<std::string> events;
  for (;;) {
    auto page = Must(service::ReadAudit(services_, chain, events.size(), 500));
    if (page.events.empty()) return events;
    events.insert(events.end(), page.events.begin(), page.events.end());
  }
}

// API spec 7.3. Ids and times are those of Keywhiz; the contents are sealed with our own keys.
void ServerFixture::SeedKeywhizData() {
  constexpr std::int64_t kGroupTime = 1'340'289'489;
  constexpr std::int64_t kSecretTime = 1'317'311'160;
  const std::vector<std::tuple<std::int64_t, std::string, std::string>> groups = {
      {916, "Blackops", R"({"app":"Blackops"})"},
      {917, "Security", R"({"app":"Security"})"},
      {918, "Web", R"({"app":"Web"})"},
      {919, "iOS", R"({"app":"iOSDev"})"},
      {920, "DeprecatedGroup", R"({"app":"DeprecatedApp"})"}};
  const std::vector<std::tuple<std::int64_t, std::string, std::vector<std::int64_t>>> clients = {
      {768, "client", {917}},
      {769, "CN=User1", {918, 916, 917}},
      {770, "CN=User2", {919, 917}},
      {771, "CN=User3", {918, 919}},
      {772, "CN=User4", {918, 917}}};
  const std::vector<SeedSecret> secrets = {
      {737,
       "Nobody_PgPass",
       {937},
       "somehost.someplace.com:5432:somedatabase:misterawesome:hell0McFly\n",
       R"({"mode":"0400","owner":"nobody"})",
       {918, 917}},
      {738, "Hacking_Password", {938}, "1337", "{}", {916}},
      {739, "Database_Password", {939}, "12345", "{}", {918, 917}},
      {740, "General_Password", {940}, "asddas", "{}", {918, 919, 916, 917}},
      {741,
       "NonexistentOwner_Pass",
       {941},
       "12345",
       R"({"owner":"NonExistant","mode":"0400"})",
       {918, 917}},
      {742, "Versioned_Password", {942, 943, 944, 945}, "1234\x03\x1b", "{}", {}},
      {743, "Deleted_Secret", {946}, "gone", "{}", {}}};

  Run<service::Nothing>([&](service::WriteContext& context) -> Result<service::Nothing> {
    for (const auto& [id, name, metadata] : groups) {
      store::GroupRow row;
      row.id = GroupId{id};
      row.name = name;
      row.metadata = metadata;
      row.created_at = row.updated_at = id == 920 ? 1'363'087'423 : kGroupTime;
      RETURN_IF_ERROR(context.InsertGroup(row));
    }
    for (const auto& [id, name, member_of] : clients) {
      store::ClientRow row;
      row.id = ClientId{id};
      row.name = name;
      row.created_at = row.updated_at = kGroupTime;
      row.automation = row.content = id == 768;
      RETURN_IF_ERROR(context.InsertClient(row));
      for (const std::int64_t group : member_of)
        RETURN_IF_ERROR(context.AddMembership(row.id, GroupId{group}));
    }
    for (const SeedSecret& seed : secrets) {
      store::SecretRow row;
      row.id = SecretId{seed.id};
      row.name = seed.name;
      row.created_at = row.updated_at = kSecretTime;
      row.current = VersionId{seed.versions.front()};
      row.newest_number = seed.versions.size();
      row.state = seed.id == 743 ? store::SecretState::kDeleted : store::SecretState::kLive;
      ASSIGN_OR_RETURN(row.sequence, context.tx.NextSecretSequence());
      std::vector<store::VersionRow> versions;
      for (std::size_t i = 0; i < seed.versions.size(); ++i) {
        store::VersionInfo info;
        info.id = VersionId{seed.versions[i]};
        info.secret = row.id;
        info.number = VersionNumber{i + 1};
        info.created_at = kSecretTime + 3600 * static_cast<std::int64_t>(i);
        info.metadata = seed.metadata;
        ASSIGN_OR_RETURN(store::VersionRow version,
                         context.keys.SealVersion(info, AsBytes(seed.content)));
        versions.push_back(std::move(version));
      }
      RETURN_IF_ERROR(context.InsertSecret(row, versions.front()));
      for (std::size_t i = 1; i < versions.size(); ++i)
        RETURN_IF_ERROR(context.tx.InsertVersion(versions[i]));
      for (const std::int64_t group : seed.groups)
        RETURN_IF_ERROR(context.AddGrant(GroupId{group}, row.id));
    }
    return service::Nothing{};
  });
}

}  // namespace latchkey::testing
