"""Inputs that an operation accepts, made from its model and from resources made for them."""

import json
import uuid

import faults
from conftest import MODELS
from faults import PLANTED_BLOB

KEY_POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"AWS": "arn:aws:iam::{account}:root"},
            "Action": "kms:*",
            "Resource": "*",
        }
    ],
}


def meaningful(appliance):
    """Values of members that mean something there: fresh keys, a secret, a ciphertext; a custom key
    store if there is a second token."""
    key = appliance.raw("TrentService.CreateKey", {}).json["KeyMetadata"]["KeyId"]
    other = appliance.raw("TrentService.CreateKey", {}).json["KeyMetadata"]["KeyId"]
    name = f"bad-input-{uuid.uuid4()}"
    new = {"Name": name, "SecretString": "x", "ClientRequestToken": str(uuid.uuid4())}
    secret = appliance.raw("secretsmanager.CreateSecret", new).json
    sealed = appliance.raw("TrentService.Encrypt", {"KeyId": key, "Plaintext": PLANTED_BLOB})
    root = f"arn:aws:iam::{appliance.account_id}:root"
    grant = {"KeyId": key, "GranteePrincipal": root, "Operations": ["Decrypt"]}
    granted = appliance.raw("TrentService.CreateGrant", grant).json
    policy = json.dumps(KEY_POLICY).replace("{account}", appliance.account_id)
    cluster = getattr(appliance, "cluster", None)
    store = custom_key_store(appliance, name, cluster) if cluster else {}
    return {
        **store,
        "KeyId": key,
        "TargetKeyId": key,
        "SourceKeyId": key,
        "DestinationKeyId": other,
        "AliasName": f"alias/{name}",
        "SecretId": secret["ARN"],
        "SecretIdList": [secret["ARN"]],
        "Name": f"{name}-2",
        "CiphertextBlob": sealed.json["CiphertextBlob"],
        "GrantId": granted["GrantId"],
        "GranteePrincipal": root,
        "RetiringPrincipal": root,
        "Operations": ["Decrypt"],
        "Plaintext": PLANTED_BLOB,
        "KeySpec": "AES_256",
        "Policy": policy,
        "ResourcePolicy": policy.replace("kms:*", "secretsmanager:*"),
        "PolicyName": "default",
        "NumberOfBytes": 32,
        "PendingWindowInDays": 7,
        "RecoveryWindowInDays": 7,
        "RotationPeriodInDays": 90,
        "RotationLambdaARN": (
            f"arn:aws:lambda:{appliance.region}:{appliance.account_id}:function:strongroom-password"
        ),
        "VersionStage": "blue",
        "MoveToVersionId": secret["VersionId"],
        "ClientRequestToken": str(uuid.uuid4()),
    }


def custom_key_store(appliance, name, cluster):
    """A fresh custom key store over the token: there is one at a time."""
    kms = appliance.client("kms")
    for known in kms.describe_custom_key_stores()["CustomKeyStores"]:
        store = known["CustomKeyStoreId"]
        if known["ConnectionState"] != "DISCONNECTED":
            kms.disconnect_custom_key_store(CustomKeyStoreId=store)
        kms.delete_custom_key_store(CustomKeyStoreId=store)
    given = {"CustomKeyStoreName": name, "CloudHsmClusterId": cluster}
    return {**given, **kms.create_custom_key_store(**given)}


def good_input(service, name, given):
    """An input with the required members and those without which an operation makes no sense."""
    shape = MODELS[service].operation(name).input_shape
    given = dict(given)
    more = {
        "BatchGetSecretValue": ["SecretIdList"],
        "CreateCustomKeyStore": ["CloudHsmClusterId"],
        "CreateGrant": ["GranteePrincipal"],
        "CreateSecret": ["ClientRequestToken"],
        "Decrypt": ["CiphertextBlob", "KeyId"],
        "GenerateDataKey": ["KeySpec"],
        "GenerateDataKeyWithoutPlaintext": ["KeySpec"],
        "GenerateRandom": ["NumberOfBytes"],
        "ListRetirableGrants": ["RetiringPrincipal"],
        "ReEncrypt": ["CiphertextBlob"],
        "RetireGrant": ["KeyId", "GrantId"],
        "PutSecretValue": ["ClientRequestToken", "SecretString"],
        "RotateSecret": ["ClientRequestToken", "RotationLambdaARN"],
        "UpdateSecret": ["ClientRequestToken"],
        "UpdateSecretVersionStage": ["MoveToVersionId"],
    }
    wanted = [*shape.required_members, *more.get(name, [])]
    return {key: faults.sample(shape.members[key], key, given) for key in wanted}
