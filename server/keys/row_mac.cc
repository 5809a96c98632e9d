#include "server/keys/row_mac.h"

#include <array>

namespace latchkey::keys {
namespace {

using crypto::Canonical;

// The two sinks of a description: one encodes the values, the other collects the names.
class EncodingSink {
 public:
  EncodingSink(std::string_view label, const crypto::StoreId& store_id) : message_(label) {
    message_.Raw(store_id);
  }
  void I64(const char*, std::int64_t value) { message_.I64(value); }
  void U64(const char*, std::uint64_t value) { message_.U64(value); }
  void Bool(const char*, bool value) { message_.Bool(value); }
  void Text(const char*, const std::string& value) { message_.Text(value); }
  void Raw(const char*, Bytes value) { message_.Raw(value); }
  void OptionalText(const char*, const std::optional<std::string>& value) {
    message_.OptionalText(value);
  }
  void OptionalGroup(const char*, const std::optional<GroupId>& value) {
    if (value) {
      message_.I64(value->value);
    } else {
      message_.Null();
    }
  }
  Canonical Take() { return std::move(message_); }

 private:
  Canonical message_;
};

class NameSink {
 public:
  template <class Value>
  void I64(const char* name, const Value&) {
    names_.emplace_back(name);
  }
  template <class Value>
  void U64(const char* name, const Value&) {
    names_.emplace_back(name);
  }
  template <class Value>
  void Bool(const char* name, const Value&) {
    names_.emplace_back(name);
  }
  template <class Value>
  void Text(const char* name, const Value&) {
    names_.emplace_back(name);
  }
  template <class Value>
  void Raw(const char* name, const Value&) {
    names_.emplace_back(name);
  }
  template <class Value>
  void OptionalText(const char* name, const Value&) {
    names_.emplace_back(name);
  }
  template <class Value>
  void OptionalGroup(const char* name, const Value&) {
    names_.emplace_back(name);
  }
  std::vector<std::string> Take() { return std::move(names_); }

 private:
  std::vector<std::string> names_;
};

// --- the descriptions: the order is the format
// --------------------------------------------------------------------------
template <class Sink>
void Describe(const store::ClientRow& row, Sink& sink) {
  sink.I64("id", row.id.value);
  sink.Text("name", row.name);
  sink.OptionalText("spiffe_id", row.spiffe_id);
  sink.Bool("enabled", row.enabled);
  sink.Bool("automation", row.automation);
  sink.Bool("content", row.content);
  sink.OptionalGroup("owner", row.owner);
  sink.Text("description", row.description);
  sink.I64("created_at", row.created_at);
  sink.Text("created_by", row.created_by);
  sink.I64("updated_at", row.updated_at);
  sink.Text("updated_by", row.updated_by);
}

template <class Sink>
void Describe(const store::GroupRow& row, Sink& sink) {
  sink.I64("id", row.id.value);
  sink.Text("name", row.name);
  sink.OptionalGroup("owner", row.owner);
  sink.Text("description", row.description);
  sink.I64("created_at", row.created_at);
  sink.Text("created_by", row.created_by);
  sink.I64("updated_at", row.updated_at);
  sink.Text("updated_by", row.updated_by);
  sink.Text("metadata", row.metadata);
}

template <class Sink>
void Describe(const store::MembershipRow& row, Sink& sink) {
  sink.I64("client_id", row.client.value);
  sink.I64("group_id", row.group.value);
  sink.I64("created_at", row.created_at);
}

template <class Sink>
void Describe(const store::GrantRow& row, Sink& sink) {
  sink.I64("group_id", row.group.value);
  sink.I64("secret_id", row.secret.value);
  sink.I64("created_at", row.created_at);
}

template <class Sink>
void Describe(const store::SecretRow& row, Sink& sink) {
  sink.I64("id", row.id.value);
  sink.Text("name", row.name);
  sink.OptionalGroup("owner", row.owner);
  sink.I64("current_version", row.current.value);
  sink.I64("expiry", row.expiry);
  sink.OptionalText("type", row.type);
  sink.U64("state", static_cast<std::uint64_t>(row.state));
  sink.U64("newest_number", row.newest_number);
  sink.U64("sequence", row.sequence);
  sink.Text("description", row.description);
  sink.I64("created_at", row.created_at);
  sink.Text("created_by", row.created_by);
  sink.I64("updated_at", row.updated_at);
  sink.Text("updated_by", row.updated_by);
}

template <class Sink>
void Describe(const store::VersionInfo& row, Sink& sink) {
  sink.I64("id", row.id.value);
  sink.I64("secret_id", row.secret.value);
  sink.U64("number", row.number.value);
  sink.I64("created_at", row.created_at);
  sink.Text("created_by", row.created_by);
  sink.Text("metadata", row.metadata);
  sink.I64("expiry", row.expiry);
  sink.Raw("checksum", row.checksum);
  sink.U64("size", row.size);
}

template <class Row>
Canonical Encode(std::string_view label, const crypto::StoreId& store_id, const Row& row) {
  EncodingSink sink(label, store_id);
  Describe(row, sink);
  return sink.Take();
}

template <class Row>
std::vector<std::string> Names() {
  NameSink sink;
  Describe(Row{}, sink);
  return sink.Take();
}

std::string Numbered(const char* what, std::int64_t id) {
  return what + std::to_string(id);
}

}  // namespace

Canonical RowMessage(const crypto::StoreId& store_id, const store::ClientRow& row) {
  return Encode("lk/v1/row/clients", store_id, row);
}
Canonical RowMessage(const crypto::StoreId& store_id, const store::GroupRow& row) {
  return Encode("lk/v1/row/groups", store_id, row);
}
Canonical RowMessage(const crypto::StoreId& store_id, const store::MembershipRow& row) {
  return Encode("lk/v1/row/memberships", store_id, row);
}
Canonical RowMessage(const crypto::StoreId& store_id, const store::GrantRow& row) {
  return Encode("lk/v1/row/grants", store_id, row);
}
Canonical RowMessage(const crypto::StoreId& store_id, const store::SecretRow& row) {
  return Encode("lk/v1/row/secrets", store_id, row);
}
Canonical RowMessage(const crypto::StoreId& store_id, const store::VersionInfo& row) {
  return Encode("lk/v1/row/versions", store_id, row);
}

std::string RowName(const store::ClientRow& row) {
  return Numbered("client ", row.id.value);
}
std::string RowName(const store::GroupRow& row) {
  return Numbered("group ", row.id.value);
}
std::string RowName(const store::MembershipRow& row) {
  return Numbered("membership of client ", row.client.value) +
         Numbered(" in group ", row.group.value);
}
std::string RowName(const store::GrantRow& row) {
  return Numbered("grant of secret ", row.secret.value) + Numbered(" to group ", row.group.value);
}
std::string RowName(const store::SecretRow& row) {
  return Numbered("secret ", row.id.value);
}
std::string RowName(const store::VersionInfo& row) {
  return Numbered("version ", row.id.value) + Numbered(" of secret ", row.secret.value);
}

std::span<const std::string_view> MacTables() {
  static constexpr std::array<std::string_view, 6> kTables = {"clients", "groups",  "memberships",
                                                              "grants",  "secrets", "versions"};
  return kTables;
}

std::vector<std::string> MacColumns(std::string_view table) {
  if (table == "clients") return Names<store::ClientRow>();
  if (table == "groups") return Names<store::GroupRow>();
  if (table == "memberships") return Names<store::MembershipRow>();
  if (table == "grants") return Names<store::GrantRow>();
  if (table == "secrets") return Names<store::SecretRow>();
  if (table == "versions") return Names<store::VersionInfo>();
  return {};
}

std::vector<std::string> MacExemptColumns(std::string_view table) {
  if (table == "clients") return {"last_seen", "expiration", "mac"};
  return MacColumns(table).empty() ? std::vector<std::string>() : std::vector<std::string>{"mac"};
}

}  // namespace latchkey::keys
