#include "server/service/rules.h"

#include "common/base/utf8.h"

namespace latchkey::service {
namespace {

std::size_t Characters(std::string_view text) {
  std::size_t units = 0;
  while (!text.empty()) {
    const Utf8Step step = DecodeUtf8(text);
    units += step.valid && step.code_point > 0xffff ? 2 : 1;
    text.remove_prefix(step.valid ? step.length : 1);
  }
  return units;
}

Status CheckText(std::string_view what, std::string_view text, std::size_t max_characters) {
  if (Characters(text) > max_characters)
    return Error{Errc::kInvalidArgument, std::string(what) + " is longer than " +
                                             std::to_string(max_characters) + " characters"};
  if (text.find('\0') != std::string_view::npos)
    return Error{Errc::kInvalidArgument, std::string(what) + " holds a NUL byte"};
  return {};
}

}  // namespace

Status CheckStillAutomation(const WriteContext& context) {
  if (context.actor.kind != audit::ActorKind::kAutomation &&
      context.actor.kind != audit::ActorKind::kClient)
    return {};
  const catalog::Client* client = context.root().FindClient(context.actor.client);
  if (client == nullptr || !client->row.enabled || !client->row.automation)
    return Error{Errc::kPermissionDenied, "the caller is no longer an enabled automation client"};
  return {};
}

Result<SecretName> CheckedSecretName(const Settings& settings, std::string_view name,
                                     std::string_view owner) {
  const std::string opening = "secret cannot be created with name `" + std::string(name) + "` - ";
  auto parsed = SecretName::Parse(name);
  // Too long in bytes is too long in characters as well, or nearly: one message for both.
  const bool too_long =
      name.size() > limits::kMaxNameBytes || Characters(name) > limits::kMaxSecretNameChars;
  if (too_long)
    return Error{Errc::kInvalidArgument, opening + "secret names must be " +
                                             std::to_string(limits::kMaxSecretNameChars) +
                                             " characters or less"};
  if (!parsed) return Error{Errc::kInvalidArgument, parsed.error().message};
  if (name.front() == '.')
    return Error{Errc::kInvalidArgument, opening + "secret names cannot begin with a period"};
  for (const ReservedPrefix& reserved : settings.reserved_prefixes) {
    if (name.starts_with(reserved.prefix) && owner != reserved.owner)
      return Error{Errc::kInvalidArgument, opening + "the prefix " + reserved.prefix +
                                               " is reserved for the owner " + reserved.owner};
  }
  return std::move(*parsed);
}

Status CheckContent(const Settings& settings, std::size_t size_bytes) {
  if (size_bytes == 0) return Error{Errc::kInvalidArgument, "secret content may not be empty"};
  if (size_bytes > settings.max_content_bytes)
    return Error{Errc::kTooLarge, "secret content is larger than " +
                                      std::to_string(settings.max_content_bytes) + " bytes"};
  return {};
}

Status CheckDescription(std::string_view description) {
  return CheckText("description", description, limits::kMaxDescriptionChars);
}

Status CheckType(std::string_view type) {
  return CheckText("type", type, limits::kMaxTypeChars);
}

Result<std::optional<GroupId>> OwnerNamed(const catalog::Root& root, std::string_view name) {
  if (name.empty()) return std::optional<GroupId>{};
  const catalog::Group* group = root.FindGroup(name);
  if (group == nullptr) return Error{Errc::kInvalidArgument, "owner is not the name of a group"};
  return std::optional<GroupId>(group->row.id);
}

std::string_view GroupNameOf(const catalog::Root& root, std::optional<GroupId> group) {
  if (!group) return {};
  const catalog::Group* found = root.FindGroup(*group);
  return found == nullptr ? std::string_view{} : std::string_view(found->row.name);
}

}  // namespace latchkey::service
