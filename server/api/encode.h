// JSON of catalog objects, exactly as API spec 1.5 lists their members.
#pragma once

#include <string>

#include "common/wire/json_out.h"
#include "server/service/services.h"

namespace latchkey::api {

// Objects, appended as one value.
void EncodeSanitizedSecret(wire::JsonOut* out, const catalog::Root& root,
                           const catalog::Secret& secret);
void EncodeSecretDetailV2(wire::JsonOut* out, const catalog::Root& root,
                          const catalog::Secret& secret);
// A version in a version list: the series' members are the current ones (Appendix C).
void EncodeVersionDetailV2(wire::JsonOut* out, const catalog::Root& root,
                           const catalog::Secret& secret, const store::VersionInfo& version);
void EncodeSecretSeries(wire::JsonOut* out, const catalog::Root& root,
                        const catalog::Secret& secret);
void EncodeSecretWithGroups(wire::JsonOut* out, const catalog::Root& root,
                            const catalog::Secret& secret);
void EncodeGroup(wire::JsonOut* out, const catalog::Root& root, const catalog::Group& group);
void EncodeGroupDetailV2(wire::JsonOut* out, const catalog::Root& root,
                         const catalog::Group& group);
void EncodeClient(wire::JsonOut* out, const catalog::Root& root, const catalog::Client& client);
void EncodeClientDetailV2(wire::JsonOut* out, const catalog::Root& root,
                          const catalog::Client& client);

// Members of a delivery object before and behind its content; together with base64 in between they are the object
// (API spec 1.5, SecretDelivery). `with_version` adds the member `version`, and drops a metadata pair of that name.
std::string DeliveryPrefix(const catalog::Secret& secret);
std::string DeliverySuffix(const catalog::Secret& secret, std::uint64_t content_bytes,
                           bool with_version);

// The JSON array of some texts.
std::string EncodeTexts(const std::vector<std::string>& texts);

}  // namespace latchkey::api
