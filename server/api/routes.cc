#include "server/api/endpoints.h"
#include "server/api/route_table.h"

namespace latchkey::api {
namespace {

using net::Method;

#define SECRETS "/automation/v2/secrets"
#define CLIENTS "/automation/v2/clients"
#define GROUPS "/automation/v2/groups"

constexpr Route kRoutes[] = {
    {Method::kGet, "/_status", Caller::kAnyone, BodyRule::kIgnored, false, GetStatus},

    {Method::kGet, "/secrets", Caller::kClient, BodyRule::kIgnored, false, ListSecrets},
    {Method::kGet, "/secret/{}", Caller::kClient, BodyRule::kIgnored, false, GetSecret},
    {Method::kPost, "/batchsecret", Caller::kClient, BodyRule::kJson, false, BatchSecrets},
    {Method::kGet, "/changes", Caller::kClient, BodyRule::kIgnored, false, GetChanges},

    {Method::kGet, SECRETS, Caller::kAutomation, BodyRule::kIgnored, false, ListSecretNames},
    {Method::kPost, SECRETS, Caller::kAutomation, BodyRule::kJson, true, CreateSecret},
    {Method::kGet, SECRETS "/v2", Caller::kAutomation, BodyRule::kIgnored, false,
     ListSanitizedSecrets},
    {Method::kGet, SECRETS "/deleted/{}", Caller::kAutomation, BodyRule::kIgnored, true,
     ListDeletedSecrets},
    {Method::kPost, SECRETS "/request/contents", Caller::kAutomation, BodyRule::kJsonAfterAuth,
     false, RequestContents},
    {Method::kPost, SECRETS "/request/contents-at-version", Caller::kAutomation,
     BodyRule::kJsonAfterAuth, false, RequestContentsAtVersion},
    {Method::kHead, SECRETS "/{}", Caller::kAutomation, BodyRule::kIgnored, false, HeadSecret},
    {Method::kGet, SECRETS "/{}", Caller::kAutomation, BodyRule::kIgnored, false, GetSecretDetail},
    {Method::kPost, SECRETS "/{}", Caller::kAutomation, BodyRule::kJson, true,
     CreateOrUpdateSecret},
    {Method::kDelete, SECRETS "/{}", Caller::kAutomation, BodyRule::kIgnored, false, DeleteSecret},
    {Method::kGet, SECRETS "/{}/sanitized", Caller::kAutomation, BodyRule::kIgnored, false,
     GetSanitizedSecret},
    {Method::kPost, SECRETS "/{}/partialupdate", Caller::kAutomation, BodyRule::kJson, true,
     PartialUpdateSecret},
    {Method::kPost, SECRETS "/{}/rename/{}", Caller::kAutomation, BodyRule::kJsonUnread, false,
     RenameSecret},
    {Method::kPost, SECRETS "/{}/setversion", Caller::kAutomation, BodyRule::kJsonAfterAuth, true,
     SetSecretVersion},
    {Method::kPost, SECRETS "/{}/undelete", Caller::kAutomation, BodyRule::kIgnored, false,
     UndeleteSecret},
    {Method::kGet, SECRETS "/{}/versions", Caller::kAutomation, BodyRule::kIgnored, false,
     ListSecretVersions},
    {Method::kGet, SECRETS "/{}/history", Caller::kAutomation, BodyRule::kIgnored, false,
     GetSecretHistory},
    {Method::kGet, SECRETS "/{}/groups", Caller::kAutomation, BodyRule::kIgnored, false,
     ListSecretGroups},
    {Method::kPut, SECRETS "/{}/groups", Caller::kAutomation, BodyRule::kJson, false,
     ModifySecretGroups},
    {Method::kGet, SECRETS "/{}/clients", Caller::kAutomation, BodyRule::kIgnored, false,
     ListSecretClients},
    {Method::kGet, SECRETS "/{}/serving", Caller::kAutomation, BodyRule::kIgnored, false,
     ListSecretServing},

    {Method::kGet, CLIENTS, Caller::kAutomation, BodyRule::kIgnored, false, ListClients},
    {Method::kPost, CLIENTS, Caller::kAutomation, BodyRule::kJson, false, CreateClient},
    {Method::kGet, CLIENTS "/{}", Caller::kAutomation, BodyRule::kIgnored, false, GetClient},
    {Method::kPost, CLIENTS "/{}", Caller::kAutomation, BodyRule::kJson, false, RenameClient},
    {Method::kDelete, CLIENTS "/{}", Caller::kAutomation, BodyRule::kIgnored, false, DeleteClient},
    {Method::kGet, CLIENTS "/{}/groups", Caller::kAutomation, BodyRule::kIgnored, false,
     ListClientGroups},
    {Method::kPut, CLIENTS "/{}/groups", Caller::kAutomation, BodyRule::kJsonAfterAuth, false,
     ModifyClientGroups},
    {Method::kGet, CLIENTS "/{}/secrets", Caller::kAutomation, BodyRule::kIgnored, false,
     ListClientSecrets},
    {Method::kGet, CLIENTS "/{}/state", Caller::kAutomation, BodyRule::kIgnored, false,
     GetClientState},
    {Method::kPut, CLIENTS "/{}/state", Caller::kAutomation, BodyRule::kJson, false,
     SetClientState},

    {Method::kGet, GROUPS, Caller::kAutomation, BodyRule::kIgnored, false, ListGroups},
    {Method::kPost, GROUPS, Caller::kAutomation, BodyRule::kJson, false, CreateGroup},
    {Method::kGet, GROUPS "/{}", Caller::kAutomation, BodyRule::kIgnored, false, GetGroup},
    {Method::kDelete, GROUPS "/{}", Caller::kAutomation, BodyRule::kIgnored, false, DeleteGroup},
    {Method::kGet, GROUPS "/{}/secrets", Caller::kAutomation, BodyRule::kIgnored, false,
     ListGroupSecrets},
    {Method::kGet, GROUPS "/{}/secretsandgroups", Caller::kAutomation, BodyRule::kIgnored, false,
     ListGroupSecretsAndGroups},
    {Method::kGet, GROUPS "/{}/ownedsecretsandgroups", Caller::kAutomation, BodyRule::kIgnored,
     false, ListGroupOwnedSecrets},
    {Method::kGet, GROUPS "/{}/clients", Caller::kAutomation, BodyRule::kIgnored, false,
     ListGroupClients},

    {Method::kGet, "/automation/v2/access", Caller::kAutomation, BodyRule::kIgnored, false,
     GetAccess},
    {Method::kGet, "/automation/v2/audit", Caller::kAutomation, BodyRule::kIgnored, false,
     GetAudit},
};

#undef SECRETS
#undef CLIENTS
#undef GROUPS

}  // namespace

std::span<const Route> AllRoutes() {
  return kRoutes;
}

}  // namespace latchkey::api
