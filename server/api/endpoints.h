// The endpoints, one function for each row of the route table (routes.cc).
#pragma once

#include "server/api/exchange.h"

namespace latchkey::api {

// delivery.cc (API spec 1.6 and the additions)
void GetSecret(Exchange& exchange);
void ListSecrets(Exchange& exchange);
void BatchSecrets(Exchange& exchange);
void GetChanges(Exchange& exchange);

// status.cc (API spec 1.7)
void GetStatus(Exchange& exchange);

// automation_secrets.cc (API spec 1.16)
void ListSecretNames(Exchange& exchange);
void ListSanitizedSecrets(Exchange& exchange);
void CreateSecret(Exchange& exchange);
void CreateOrUpdateSecret(Exchange& exchange);
void PartialUpdateSecret(Exchange& exchange);
void RenameSecret(Exchange& exchange);
void SetSecretVersion(Exchange& exchange);
void DeleteSecret(Exchange& exchange);
void UndeleteSecret(Exchange& exchange);
void HeadSecret(Exchange& exchange);
void GetSecretDetail(Exchange& exchange);
void GetSanitizedSecret(Exchange& exchange);
void ListDeletedSecrets(Exchange& exchange);
void ListSecretGroups(Exchange& exchange);
void ModifySecretGroups(Exchange& exchange);

// automation_versions.cc (API spec 1.16 and the additions)
void RequestContents(Exchange& exchange);
void RequestContentsAtVersion(Exchange& exchange);
void ListSecretVersions(Exchange& exchange);
void GetSecretHistory(Exchange& exchange);

// automation_clients.cc (API spec 1.14, 1.15)
void CreateClient(Exchange& exchange);
void ListClients(Exchange& exchange);
void GetClient(Exchange& exchange);
void RenameClient(Exchange& exchange);
void DeleteClient(Exchange& exchange);
void ListClientGroups(Exchange& exchange);
void ModifyClientGroups(Exchange& exchange);
void ListClientSecrets(Exchange& exchange);
void GetClientState(Exchange& exchange);
void SetClientState(Exchange& exchange);
void CreateGroup(Exchange& exchange);
void ListGroups(Exchange& exchange);
void GetGroup(Exchange& exchange);
void DeleteGroup(Exchange& exchange);
void ListGroupSecrets(Exchange& exchange);
void ListGroupSecretsAndGroups(Exchange& exchange);
void ListGroupOwnedSecrets(Exchange& exchange);
void ListGroupClients(Exchange& exchange);

// automation_insight.cc (the additions)
void ListSecretClients(Exchange& exchange);
void ListSecretServing(Exchange& exchange);
void GetAccess(Exchange& exchange);
void GetAudit(Exchange& exchange);

}  // namespace latchkey::api
