#include "client/cli/show_secret.h"

#include "common/model/limits.h"

namespace latchkey::cli {

void PrintNames(Session& session, const std::vector<std::string>& names) {
  if (session.json) {
    session.PrintJson([&](wire::JsonOut& out) {
      out.BeginArray();
      for (const std::string& name : names) out.BeginObject().Text("name", name).EndObject();
      out.EndArray();
    });
    return;
  }
  std::string text;
  for (const std::string& name : names) text += Printable(name) + "\n";
  session.Print(text);
}

void WriteSecretMembers(wire::JsonOut& out, const client::SecretInfo& info) {
  out.Text("name", info.name)
      .Text("description", info.description)
      .Text("type", info.type)
      .Text("owner", info.owner);
  out.Raw("metadata", wire::EncodeMetadata(info.metadata)).Int("expirySeconds", info.expiry_s);
  out.Text("checksum", info.checksum);
  out.Int("createdAtSeconds", info.created_at_s).Text("createdBy", info.created_by);
  out.Int("updatedAtSeconds", info.updated_at_s).Text("updatedBy", info.updated_by);
  WriteOptionalInt(out, "contentCreatedAtSeconds", info.content_created_at_s);
  out.Text("contentCreatedBy", info.content_created_by);
  WriteOptionalInt(out, "versionId", info.version_id);
}

std::string ShowMetadata(const Metadata& metadata) {
  std::string text;
  for (const auto& [key, value] : metadata) text += (text.empty() ? "" : " ") + key + "=" + value;
  return text;
}

Result<std::vector<client::HistoryEntry>> FetchHistory(client::ApiClient& api,
                                                       const std::string& name) {
  std::vector<client::HistoryEntry> all;
  std::uint64_t after = 0;
  for (;;) {
    ASSIGN_OR_RETURN(const auto page, api.History(name, after, limits::kMaxPageEntries));
    all.insert(all.end(), page.begin(), page.end());
    if (page.size() < limits::kMaxPageEntries) return all;
    // A page that does not go on would be asked for without end.
    if (after != 0 && page.back().number >= after) {
      return Error{Errc::kInternal,
                   "history of " + Named(NameKind::kSecret, name) + " does not end"};
    }
    after = page.back().number;
  }
}

}  // namespace latchkey::cli
