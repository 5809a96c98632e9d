// The rules that several writing use cases share (API spec 6.1, rules I3, I5). Messages are the answer's body.
#pragma once

#include <string_view>

#include "common/model/metadata.h"
#include "server/service/writer.h"

namespace latchkey::service {

// The caller of an automation use case as the catalog has it *now*, in the savepoint: kPermissionDenied when it was deleted,
// disabled or lost the bit since it was identified. Offline operators and the server itself pass.
Status CheckStillAutomation(const WriteContext& context);

// A new name: dots, length, bytes. `owner` is the name of the owning group or empty, for reserved prefixes.
Result<SecretName> CheckedSecretName(const Settings& settings, std::string_view name,
                                     std::string_view owner);
// Content of a new version: not empty, within the limit (kTooLarge names it).
Status CheckContent(const Settings& settings, std::size_t size_bytes);
Status CheckDescription(std::string_view description);
Status CheckType(std::string_view type);

// The group of that name; kInvalidArgument when there is none ("" is no owner).
Result<std::optional<GroupId>> OwnerNamed(const catalog::Root& root, std::string_view name);
std::string_view GroupNameOf(const catalog::Root& root, std::optional<GroupId> group);

}  // namespace latchkey::service
