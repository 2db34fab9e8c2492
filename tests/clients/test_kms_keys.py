"""KMS keys: making, finding, naming, switching, tagging, their policies, and their end."""

import json
import time
import uuid

import pytest

from conftest import refused

MISSING = "1234abcd-12ab-34cd-56ef-1234567890ab"
ALIAS_HELP = (
    'Alias must start with the prefix "alias/". Please see '
    "https://docs.aws.amazon.com/kms/latest/developerguide/kms-alias.html"
)


@pytest.fixture
def key(kms):
    """The metadata of a key of the test's own."""
    return kms.create_key(Description="of a test")["KeyMetadata"]


@pytest.fixture
def service_key(kms):
    """The metadata of the AWS-managed key."""
    return kms.describe_key(KeyId="alias/aws/secretsmanager")["KeyMetadata"]


# CreateKey and DescribeKey


def test_a_new_key_is_described_as_aws_does_it(kms, appliance):
    key = kms.create_key(Description="orders")["KeyMetadata"]
    assert uuid.UUID(key["KeyId"]).version == 4
    account, region = appliance.account_id, appliance.region
    assert key.pop("CreationDate").timestamp() == pytest.approx(time.time(), abs=60)
    assert len(key.pop("CurrentKeyMaterialId")) == 64
    assert key == {
        "AWSAccountId": account,
        "KeyId": key["KeyId"],
        "Arn": f"arn:aws:kms:{region}:{account}:key/{key['KeyId']}",
        "Enabled": True,
        "Description": "orders",
        "KeyUsage": "ENCRYPT_DECRYPT",
        "KeyState": "Enabled",
        "Origin": "AWS_KMS",
        "KeyManager": "CUSTOMER",
        "CustomerMasterKeySpec": "SYMMETRIC_DEFAULT",
        "KeySpec": "SYMMETRIC_DEFAULT",
        "EncryptionAlgorithms": ["SYMMETRIC_DEFAULT"],
        "MultiRegion": False,
    }


def test_a_key_is_found_by_id_arn_alias_and_alias_arn(kms, key, name):
    kms.create_alias(AliasName=f"alias/{name}", TargetKeyId=key["Arn"])
    alias_arn = key["Arn"].partition(":key/")[0] + f":alias/{name}"
    for named in [key["KeyId"], key["Arn"], f"alias/{name}", alias_arn]:
        assert kms.describe_key(KeyId=named)["KeyMetadata"] == key


def test_two_keys_have_their_own_ids_and_material(kms, key):
    other = kms.create_key()["KeyMetadata"]
    assert other["KeyId"] != key["KeyId"]
    assert other["CurrentKeyMaterialId"] != key["CurrentKeyMaterialId"]
    assert other["Description"] == ""


def test_the_default_key_of_secrets_manager_is_aws_managed(kms, service_key):
    assert service_key["KeyManager"] == "AWS"
    assert service_key["Description"] == (
        "Default key that protects my Secrets Manager data when no other key is defined"
    )
    policy = json.loads(kms.get_key_policy(KeyId=service_key["KeyId"])["Policy"])
    assert policy["Id"] == "auto-secretsmanager-2"


@pytest.mark.parametrize(
    "arguments",
    [
        {"KeySpec": "RSA_2048", "KeyUsage": "SIGN_VERIFY"},
        {"KeySpec": "HMAC_256", "KeyUsage": "GENERATE_VERIFY_MAC"},
        {"CustomerMasterKeySpec": "ECC_NIST_P256", "KeyUsage": "SIGN_VERIFY"},
        {"Origin": "EXTERNAL"},
        {"MultiRegion": True},
    ],
)
def test_what_the_hardware_is_not_used_for_is_refused_by_profile(kms, arguments):
    assert "`softhsm2`" in refused("UnsupportedOperationException", kms.create_key, **arguments)


def test_a_spec_other_than_the_symmetric_one_needs_a_usage(kms):
    text = (
        "You must specify a KeyUsage value for all KMS keys except for symmetric encryption keys."
    )
    refused("ValidationException", kms.create_key, text, KeySpec="RSA_2048")


def test_an_unknown_spec_is_refused_before_anything_else(appliance):
    answer = appliance.raw("TrentService.CreateKey", {"KeySpec": "ROT13", "Origin": "MARS"})
    assert answer.code == "ValidationException"
    text = answer.json["message"]
    assert text.startswith("2 validation errors detected: Value 'ROT13' at 'keySpec' failed")
    assert "Value 'MARS' at 'origin' failed to satisfy constraint: Member must satisfy enum" in text


def test_an_unknown_usage_is_refused(appliance):
    answer = appliance.raw("TrentService.CreateKey", {"KeyUsage": "RANDOM"})
    assert answer.code == "ValidationException"
    assert "at 'keyUsage' failed to satisfy constraint" in answer.json["message"]


def test_a_description_has_at_most_8192_characters(appliance, kms, key):
    long = "d" * 8193
    answer = appliance.raw("TrentService.CreateKey", {"Description": long})
    assert answer.code == "ValidationException"
    kms.update_key_description(KeyId=key["KeyId"], Description="d" * 8192)
    assert len(kms.describe_key(KeyId=key["KeyId"])["KeyMetadata"]["Description"]) == 8192


# How keys are named


@pytest.mark.parametrize(
    "named", ["fake-key-id", MISSING.replace("-", ""), "mrk-fake-key-id", MISSING.upper()]
)
def test_a_malformed_key_id(kms, named):
    refused("NotFoundException", kms.describe_key, f"Invalid keyId '{named}'", KeyId=named)


@pytest.mark.parametrize("named", [MISSING, "mrk-" + MISSING.replace("-", "")])
def test_a_well_formed_key_id_of_no_key(kms, appliance, named):
    arn = f"arn:aws:kms:{appliance.region}:{appliance.account_id}:key/{named}"
    for key_id in [named, arn]:
        refused(
            "NotFoundException", kms.describe_key, f"Key '{arn}' does not exist", KeyId=key_id
        )


def test_an_alias_that_is_not_there(kms, appliance, name):
    arn = f"arn:aws:kms:{appliance.region}:{appliance.account_id}:alias/{name}"
    text = f"Alias {arn} is not found."
    refused("NotFoundException", kms.describe_key, text, KeyId=f"alias/{name}")


def test_an_arn_of_another_region(kms, key, appliance):
    arn = key["Arn"].replace(appliance.region, "ap-southeast-9")
    refused("NotFoundException", kms.describe_key, "Invalid arn ap-southeast-9", KeyId=arn)


def test_an_arn_of_another_service_or_shape(kms, key):
    for arn in [key["Arn"].replace(":kms:", ":sns:"), key["Arn"].replace(":key/", ":grant/")]:
        refused("NotFoundException", kms.describe_key, f"Invalid keyId '{arn}'", KeyId=arn)


def test_a_key_of_another_account_is_none_of_the_caller_s_business(kms, key, appliance):
    arn = key["Arn"].replace(appliance.account_id, "999999999999")
    refused("AccessDeniedException", kms.describe_key, KeyId=arn)


@pytest.mark.parametrize(
    "operation",
    ["enable_key", "disable_key", "schedule_key_deletion", "get_key_policy", "list_resource_tags"],
)
def test_management_takes_no_aliases(kms, key, name, operation):
    kms.create_alias(AliasName=f"alias/{name}", TargetKeyId=key["KeyId"])
    text = "Key Aliases are not supported for this operation."
    alias_arn = key["Arn"].partition(":key/")[0] + f":alias/{name}"
    for named in [f"alias/{name}", alias_arn]:
        refused("InvalidArnException", getattr(kms, operation), text, KeyId=named)


def test_a_missing_key_id(appliance):
    answer = appliance.raw("TrentService.DescribeKey", {})
    assert answer.code == "ValidationException"
    assert answer.json["message"] == (
        "1 validation error detected: Value null at 'keyId' failed to satisfy constraint: "
        "Member must not be null"
    )


# ListKeys


def test_keys_are_listed_page_by_page(kms):
    made = {kms.create_key()["KeyMetadata"]["Arn"] for _ in range(3)}
    found, marker, pages = [], {}, 0
    while True:
        page = kms.list_keys(Limit=2, **marker)
        assert len(page["Keys"]) <= 2
        found += [entry["KeyArn"] for entry in page["Keys"]]
        pages += 1
        if not page["Truncated"]:
            assert "NextMarker" not in page
            break
        marker = {"Marker": page["NextMarker"]}
    assert pages >= 2
    assert made <= set(found)
    assert len(found) == len(set(found))


def test_a_marker_that_was_not_given_out(kms, key):
    for _ in range(2):
        kms.create_key()
    marker = kms.list_keys(Limit=1)["NextMarker"]
    refused("InvalidMarkerException", kms.list_aliases, Marker=marker)
    refused("InvalidMarkerException", kms.list_keys, Marker="AAAA" + marker)
    refused("InvalidMarkerException", kms.list_keys, Marker="?")


def test_a_limit_is_1_to_1000(appliance):
    for limit in [0, 1001]:
        answer = appliance.raw("TrentService.ListKeys", {"Limit": limit})
        assert answer.code == "ValidationException"
        assert f"Value '{limit}' at 'limit' failed" in answer.json["message"]


# Aliases


def test_an_alias_is_listed_with_its_dates(kms, key, name):
    kms.create_alias(AliasName=f"alias/{name}", TargetKeyId=key["KeyId"])
    [alias] = kms.list_aliases(KeyId=key["KeyId"])["Aliases"]
    assert alias["AliasName"] == f"alias/{name}"
    assert alias["AliasArn"] == key["Arn"].partition(":key/")[0] + f":alias/{name}"
    assert alias["TargetKeyId"] == key["KeyId"]
    assert alias["CreationDate"] == alias["LastUpdatedDate"]
    assert alias in kms.get_paginator("list_aliases").paginate().build_full_result()["Aliases"]


def test_an_alias_moves_to_another_key(kms, key, name):
    kms.create_alias(AliasName=f"alias/{name}", TargetKeyId=key["KeyId"])
    other = kms.create_key()["KeyMetadata"]
    time.sleep(0.01)
    kms.update_alias(AliasName=f"alias/{name}", TargetKeyId=other["Arn"])
    assert kms.describe_key(KeyId=f"alias/{name}")["KeyMetadata"]["KeyId"] == other["KeyId"]
    assert kms.list_aliases(KeyId=key["KeyId"])["Aliases"] == []
    [alias] = kms.list_aliases(KeyId=other["KeyId"])["Aliases"]
    assert alias["LastUpdatedDate"] > alias["CreationDate"]


def test_an_alias_is_gone_once_deleted(kms, key, name, appliance):
    kms.create_alias(AliasName=f"alias/{name}", TargetKeyId=key["KeyId"])
    kms.delete_alias(AliasName=f"alias/{name}")
    text = f"Alias arn:aws:kms:{appliance.region}:{appliance.account_id}:alias/{name} is not found."
    refused("NotFoundException", kms.describe_key, text, KeyId=f"alias/{name}")
    refused("NotFoundException", kms.encrypt, text, KeyId=f"alias/{name}", Plaintext=b"x")
    refused("NotFoundException", kms.delete_alias, text, AliasName=f"alias/{name}")
    update = {"AliasName": f"alias/{name}", "TargetKeyId": key["KeyId"]}
    refused("NotFoundException", kms.update_alias, text, **update)


def test_an_alias_name_is_taken_once(kms, key, name, appliance):
    arguments = {"AliasName": f"alias/{name}", "TargetKeyId": key["KeyId"]}
    kms.create_alias(**arguments)
    arn = f"arn:aws:kms:{appliance.region}:{appliance.account_id}:alias/{name}"
    text = f"An alias with the name {arn} already exists"
    refused("AlreadyExistsException", kms.create_alias, text, **arguments)


def test_an_alias_without_its_prefix(kms, key):
    arguments = {"AliasName": "orders", "TargetKeyId": key["KeyId"]}
    refused("ValidationException", kms.create_alias, ALIAS_HELP, **arguments)
    refused("ValidationException", kms.update_alias, ALIAS_HELP, **arguments)
    refused("ValidationException", kms.delete_alias, ALIAS_HELP, AliasName="orders")


def test_an_alias_name_of_bad_characters(kms, key, appliance):
    body = {"AliasName": "alias/a b", "TargetKeyId": key["KeyId"]}
    answer = appliance.raw("TrentService.CreateAlias", body)
    assert answer.code == "ValidationException"
    assert "regular expression pattern: ^[a-zA-Z0-9:/_-]+$" in answer.json["message"]
    text = "alias/a:b contains invalid characters for an alias"
    named = {"AliasName": "alias/a:b", "TargetKeyId": key["KeyId"]}
    refused("ValidationException", kms.create_alias, text, **named)


def test_an_alias_needs_a_name(kms, key):
    named = {"AliasName": "alias/", "TargetKeyId": key["KeyId"]}
    refused("InvalidAliasNameException", kms.create_alias, **named)


@pytest.mark.parametrize("operation", ["CreateAlias", "UpdateAlias", "DeleteAlias"])
def test_aliases_of_aws_are_reserved(appliance, key, operation):
    body = {"AliasName": "alias/aws/secretsmanager"}
    if operation != "DeleteAlias":
        body["TargetKeyId"] = key["KeyId"]
    answer = appliance.raw(f"TrentService.{operation}", body, check=False)
    assert (answer.status, answer.code) == (400, "NotAuthorizedException")


def test_an_alias_names_keys_not_aliases(kms, key, name):
    kms.create_alias(AliasName=f"alias/{name}", TargetKeyId=key["KeyId"])
    text = "Aliases must refer to keys. Not aliases"
    arguments = {"AliasName": f"alias/{name}-2", "TargetKeyId": f"alias/{name}"}
    refused("ValidationException", kms.create_alias, text, **arguments)


def test_a_key_has_at_most_50_aliases(kms, key, name):
    for n in range(50):
        kms.create_alias(AliasName=f"alias/{name}/{n:02}", TargetKeyId=key["KeyId"])
    more = {"AliasName": f"alias/{name}/more", "TargetKeyId": key["KeyId"]}
    refused("LimitExceededException", kms.create_alias, **more)
    first = kms.list_aliases(KeyId=key["KeyId"], Limit=30)
    rest = kms.list_aliases(KeyId=key["KeyId"], Limit=30, Marker=first["NextMarker"])
    names = [alias["AliasName"] for alias in first["Aliases"] + rest["Aliases"]]
    assert names == [f"alias/{name}/{n:02}" for n in range(50)]
    assert not rest["Truncated"]


# Key states


def test_a_disabled_key_is_not_used_and_works_again_once_enabled(kms, key):
    kms.disable_key(KeyId=key["KeyId"])
    found = kms.describe_key(KeyId=key["KeyId"])["KeyMetadata"]
    assert (found["KeyState"], found["Enabled"]) == ("Disabled", False)
    text = f"{key['Arn']} is disabled."
    refused("DisabledException", kms.encrypt, text, KeyId=key["KeyId"], Plaintext=b"x")
    kms.disable_key(KeyId=key["Arn"])
    kms.enable_key(KeyId=key["KeyId"])
    kms.enable_key(KeyId=key["KeyId"])
    assert kms.encrypt(KeyId=key["KeyId"], Plaintext=b"x")["KeyId"] == key["Arn"]


def test_a_key_waits_30_days_for_its_deletion(kms, key):
    answer = kms.schedule_key_deletion(KeyId=key["KeyId"])
    assert answer["KeyId"] == key["Arn"]
    assert (answer["KeyState"], answer["PendingWindowInDays"]) == ("PendingDeletion", 30)
    assert answer["DeletionDate"].timestamp() == pytest.approx(time.time() + 30 * 86400, abs=60)
    found = kms.describe_key(KeyId=key["KeyId"])["KeyMetadata"]
    assert (found["KeyState"], found["Enabled"]) == ("PendingDeletion", False)
    assert found["DeletionDate"] == answer["DeletionDate"]


def test_the_window_is_7_to_30_days(kms, key, appliance):
    for days in [0, 6, 31, 366]:
        body = {"KeyId": key["KeyId"], "PendingWindowInDays": days}
        answer = appliance.raw("TrentService.ScheduleKeyDeletion", body)
        assert answer.code == "ValidationException"
        assert f"Value '{days}' at 'pendingWindowInDays' failed" in answer.json["message"]
    answer = kms.schedule_key_deletion(KeyId=key["KeyId"], PendingWindowInDays=7)
    assert answer["PendingWindowInDays"] == 7


def test_a_key_that_waits_for_its_deletion_is_left_alone(kms, key, name):
    kms.schedule_key_deletion(KeyId=key["KeyId"])
    text = f"{key['Arn']} is pending deletion."
    by_id = {"KeyId": key["KeyId"]}
    policy = kms.get_key_policy(**by_id)["Policy"]
    for call, more in [
        (kms.encrypt, {"Plaintext": b"x"}),
        (kms.enable_key, {}),
        (kms.disable_key, {}),
        (kms.schedule_key_deletion, {}),
        (kms.update_key_description, {"Description": "d"}),
        (kms.tag_resource, {"Tags": [{"TagKey": "a", "TagValue": "b"}]}),
        (kms.untag_resource, {"TagKeys": ["a"]}),
        (kms.put_key_policy, {"PolicyName": "default", "Policy": policy}),
    ]:
        refused("KMSInvalidStateException", call, text, **by_id, **more)
    named = {"AliasName": f"alias/{name}", "TargetKeyId": key["KeyId"]}
    refused("KMSInvalidStateException", kms.create_alias, text, **named)


def test_a_cancelled_deletion_leaves_the_key_disabled(kms, key):
    kms.schedule_key_deletion(KeyId=key["KeyId"])
    assert kms.cancel_key_deletion(KeyId=key["KeyId"])["KeyId"] == key["Arn"]
    found = kms.describe_key(KeyId=key["KeyId"])["KeyMetadata"]
    assert (found["KeyState"], found["Enabled"]) == ("Disabled", False)
    assert "DeletionDate" not in found
    text = f"{key['Arn']} is not pending deletion."
    refused("KMSInvalidStateException", kms.cancel_key_deletion, text, KeyId=key["KeyId"])


def test_a_description_is_changed(kms, key):
    kms.update_key_description(KeyId=key["KeyId"], Description="other")
    assert kms.describe_key(KeyId=key["KeyId"])["KeyMetadata"]["Description"] == "other"
    kms.update_key_description(KeyId=key["KeyId"], Description="")
    assert kms.describe_key(KeyId=key["KeyId"])["KeyMetadata"]["Description"] == ""


def test_an_aws_managed_key_is_changed_by_nobody(kms, service_key):
    by_id = {"KeyId": service_key["KeyId"]}
    policy = kms.get_key_policy(**by_id)["Policy"]
    for call, more in [
        (kms.disable_key, {}),
        (kms.schedule_key_deletion, {}),
        (kms.update_key_description, {"Description": "mine"}),
        (kms.tag_resource, {"Tags": [{"TagKey": "a", "TagValue": "b"}]}),
        (kms.put_key_policy, {"PolicyName": "default", "Policy": policy}),
    ]:
        assert "because no resource-based policy allows" in refused(
            "AccessDeniedException", call, **by_id, **more
        )
    assert kms.describe_key(**by_id)["KeyMetadata"] == service_key


# Tags


def tags_of(kms, key):
    tags = kms.list_resource_tags(KeyId=key["KeyId"])
    assert tags["Truncated"] is False
    return {tag["TagKey"]: tag["TagValue"] for tag in tags["Tags"]}


def tags(**pairs):
    return [{"TagKey": key, "TagValue": value} for key, value in pairs.items()]


def test_tags_are_put_changed_and_taken_away(kms):
    key = kms.create_key(Tags=tags(a="1", b="2"))["KeyMetadata"]
    assert tags_of(kms, key) == {"a": "1", "b": "2"}
    kms.tag_resource(KeyId=key["Arn"], Tags=tags(b="", c="3"))
    assert tags_of(kms, key) == {"a": "1", "b": "", "c": "3"}
    kms.untag_resource(KeyId=key["KeyId"], TagKeys=["a", "c", "never there"])
    assert tags_of(kms, key) == {"b": ""}


def test_a_key_without_tags_has_an_empty_list(kms, key):
    assert tags_of(kms, key) == {}


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (tags(a="1") + tags(a="2"), "Duplicate tag keys"),
        (tags(**{"AwS:a": "1"}), "Tags beginning with aws: are reserved"),
        (tags(**{str(n): "" for n in range(51)}), "Too many tags"),
    ],
)
def test_tags_that_aws_refuses(kms, key, bad, text):
    refused("TagException", kms.create_key, text, Tags=bad)
    refused("TagException", kms.tag_resource, text, KeyId=key["KeyId"], Tags=bad)


def test_a_key_has_at_most_50_tags(kms, key):
    kms.tag_resource(KeyId=key["KeyId"], Tags=tags(**{str(n): "" for n in range(50)}))
    more = {"KeyId": key["KeyId"], "Tags": tags(more="")}
    refused("TagException", kms.tag_resource, "Too many tags", **more)
    first = kms.list_resource_tags(KeyId=key["KeyId"], Limit=20)
    rest = kms.list_resource_tags(KeyId=key["KeyId"], Marker=first["NextMarker"])
    keys = [tag["TagKey"] for tag in first["Tags"] + rest["Tags"]]
    assert keys == [str(n) for n in range(50)]


def test_a_tag_s_key_has_1_to_128_characters(appliance, key):
    body = {"KeyId": key["KeyId"], "Tags": tags(a="1") + tags(**{"k" * 129: "v"})}
    answer = appliance.raw("TrentService.TagResource", body)
    assert answer.code == "ValidationException"
    assert "at 'tags.2.member.tagKey' failed to satisfy constraint" in answer.json["message"]


# Key policies


def test_a_new_key_has_aws_s_default_policy(kms, key, appliance):
    answer = kms.get_key_policy(KeyId=key["KeyId"])
    assert answer["PolicyName"] == "default"
    assert json.loads(answer["Policy"]) == {
        "Version": "2012-10-17",
        "Id": "key-default-1",
        "Statement": [
            {
                "Sid": "Enable IAM User Permissions",
                "Effect": "Allow",
                "Principal": {"AWS": f"arn:aws:iam::{appliance.account_id}:root"},
                "Action": "kms:*",
                "Resource": "*",
            }
        ],
    }
    listed = kms.list_key_policies(KeyId=key["KeyId"])
    assert (listed["PolicyNames"], listed["Truncated"]) == (["default"], False)


def test_a_policy_is_kept_as_it_was_written(kms, key):
    policy = kms.get_key_policy(KeyId=key["KeyId"])["Policy"].replace("key-default-1", "mine")
    kms.put_key_policy(KeyId=key["KeyId"], PolicyName="default", Policy=policy)
    assert kms.get_key_policy(KeyId=key["KeyId"], PolicyName="default")["Policy"] == policy
    other = kms.create_key(Policy=policy)["KeyMetadata"]
    assert kms.get_key_policy(KeyId=other["KeyId"])["Policy"] == policy


def test_a_policy_that_locks_its_writer_out_needs_the_bypass(kms, key, appliance):
    policy = json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": {
                "Effect": "Allow",
                "Principal": {"AWS": f"arn:aws:iam::{appliance.account_id}:root"},
                "Action": "kms:Describe*",
                "Resource": "*",
            },
        }
    )
    text = "The new key policy will not allow you to update the key policy in the future."
    put = {"KeyId": key["KeyId"], "PolicyName": "default", "Policy": policy}
    refused("MalformedPolicyDocumentException", kms.put_key_policy, text, **put)
    refused("MalformedPolicyDocumentException", kms.create_key, text, Policy=policy)
    kms.put_key_policy(BypassPolicyLockoutSafetyCheck=True, **put)
    kms.describe_key(KeyId=key["KeyId"])
    refused("AccessDeniedException", kms.get_key_policy, KeyId=key["KeyId"])


@pytest.mark.parametrize("policy", ["{", "[]", '{"Statement": []}', '{"Version": "1999-01-01"}'])
def test_what_is_no_policy_is_refused(kms, key, policy):
    put = {"KeyId": key["KeyId"], "PolicyName": "default", "Policy": policy}
    refused("MalformedPolicyDocumentException", kms.put_key_policy, **put)


def test_a_key_has_no_policy_but_the_default_one(kms, key):
    named = {"KeyId": key["KeyId"], "PolicyName": "other"}
    refused("NotFoundException", kms.get_key_policy, "No such policy exists", **named)
    policy = kms.get_key_policy(KeyId=key["KeyId"])["Policy"]
    refused("NotFoundException", kms.put_key_policy, "No such policy exists", Policy=policy, **named)


# State survives


def test_keys_survive_a_kill(own_appliance, name):
    appliance = own_appliance()
    kms = appliance.client("kms")
    key = kms.create_key(Description="kept", Tags=tags(a="1"))["KeyMetadata"]
    kms.create_alias(AliasName=f"alias/{name}", TargetKeyId=key["KeyId"])
    sealed = kms.encrypt(KeyId=key["KeyId"], Plaintext=b"x")["CiphertextBlob"]
    appliance.kill()
    appliance.start()
    kms = appliance.client("kms")
    assert kms.describe_key(KeyId=f"alias/{name}")["KeyMetadata"] == key
    assert tags_of(kms, key) == {"a": "1"}
    assert sealed


def test_the_aws_cli_makes_a_key(appliance):
    ran = appliance.aws("kms", "create-key", "--description", "by the CLI")
    assert ran.code == 0, ran.err
    assert ran.out["KeyMetadata"]["Description"] == "by the CLI"
