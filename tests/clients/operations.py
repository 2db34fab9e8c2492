"""Every operation that the appliance promises; a test holds it against what is served."""

SECRETS_MANAGER = """
    BatchGetSecretValue CancelRotateSecret CreateSecret DeleteResourcePolicy DeleteSecret
    DescribeSecret GetRandomPassword GetResourcePolicy GetSecretValue ListSecretVersionIds ListSecrets
    PutResourcePolicy PutSecretValue RestoreSecret RotateSecret TagResource UntagResource UpdateSecret
    UpdateSecretVersionStage ValidateResourcePolicy
""".split()

KMS = """
    CancelKeyDeletion ConnectCustomKeyStore CreateAlias CreateCustomKeyStore CreateGrant CreateKey
    Decrypt DeleteAlias DeleteCustomKeyStore DescribeCustomKeyStores DescribeKey DisableKey
    DisableKeyRotation DisconnectCustomKeyStore EnableKey EnableKeyRotation Encrypt GenerateDataKey
    GenerateDataKeyWithoutPlaintext GenerateRandom GetKeyPolicy GetKeyRotationStatus ListAliases
    ListGrants ListKeyPolicies ListKeyRotations ListKeys ListResourceTags ListRetirableGrants
    PutKeyPolicy ReEncrypt RetireGrant RevokeGrant RotateKeyOnDemand ScheduleKeyDeletion
    TagResource UntagResource UpdateAlias UpdateCustomKeyStore UpdateKeyDescription
""".split()

CLOUDTRAIL = """
    LookupEvents
""".split()

OPERATIONS = [("kms", name) for name in KMS]
OPERATIONS += [("cloudtrail", name) for name in CLOUDTRAIL]
OPERATIONS += [("secretsmanager", name) for name in SECRETS_MANAGER]

# These speak the Query protocol.
IAM = """
    AddUserToGroup AttachGroupPolicy AttachRolePolicy AttachUserPolicy CreateAccessKey CreateGroup
    CreatePolicy CreatePolicyVersion CreateRole CreateUser DeleteAccessKey DeleteGroup
    DeleteGroupPolicy DeletePolicy DeletePolicyVersion DeleteRole DeleteRolePermissionsBoundary
    DeleteRolePolicy DeleteUser DeleteUserPermissionsBoundary DeleteUserPolicy DetachGroupPolicy
    DetachRolePolicy DetachUserPolicy GetAccessKeyLastUsed
    GetAccountAuthorizationDetails GetAccountSummary GetGroup GetGroupPolicy
    GetPolicy GetPolicyVersion GetRole GetRolePolicy GetUser GetUserPolicy ListAccessKeys
    ListAccountAliases ListAttachedGroupPolicies ListAttachedRolePolicies ListAttachedUserPolicies
    ListEntitiesForPolicy ListGroupPolicies ListGroups ListGroupsForUser ListPolicies ListPolicyTags
    ListPolicyVersions ListRolePolicies ListRoleTags ListRoles ListUserPolicies ListUserTags
    ListUsers PutGroupPolicy PutRolePermissionsBoundary PutRolePolicy PutUserPermissionsBoundary
    PutUserPolicy RemoveUserFromGroup SetDefaultPolicyVersion SimulateCustomPolicy
    SimulatePrincipalPolicy TagPolicy TagRole TagUser UntagPolicy
    UntagRole UntagUser UpdateAccessKey UpdateAssumeRolePolicy UpdateGroup UpdateRole
    UpdateRoleDescription UpdateUser
""".split()

STS = """
    AssumeRole AssumeRoleWithWebIdentity DecodeAuthorizationMessage GetAccessKeyInfo
    GetCallerIdentity GetSessionToken
""".split()

QUERY_OPERATIONS = [("iam", name) for name in IAM]
QUERY_OPERATIONS += [("sts", name) for name in STS]

# In no model that botocore has: Strongroom's own, and one with a protocol of its own.
OWN_OPERATIONS = [("iam", "ExplainRequest"), ("iam", "ReplayPolicy")]
OWN_OPERATIONS += [("kms", "GetKeyAttestation")]
OWN_OPERATIONS += [("kms", "AddKeyHolder"), ("kms", "AddStoreKeyHolder")]
OWN_OPERATIONS += [("kms", "RemoveKeyHolder"), ("kms", "RemoveStoreKeyHolder")]
OWN_OPERATIONS += [("kms", "ListKeyHolders"), ("kms", "ListStoreKeyHolders")]
OWN_OPERATIONS += [("secretsmanager", "GetSecretRotation"), ("secretsmanager", "GetSecretProbe")]
OWN_OPERATIONS += [("secretsmanager", "CreateRotationFunction")]
OWN_OPERATIONS += [("secretsmanager", "ListRotationFunctions")]
OWN_OPERATIONS += [("secretsmanager", "DeleteRotationFunction")]
OWN_OPERATIONS += [("rolesanywhere", "CreateSession")]
OWN_OPERATIONS += [("sts", "RevokeSession")]

PREFIXES = {
    "kms": "TrentService",
    "secretsmanager": "secretsmanager",
    "cloudtrail": "CloudTrail_20131101",
}


def target_of(service, operation):
    """The value of X-Amz-Target."""
    return f"{PREFIXES[service]}.{operation}"
