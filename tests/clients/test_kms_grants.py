"""Grants: making, listing and ending them, and what they allow to whom."""

import json
import time
import uuid

import pytest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from conftest import Appliance

MISSING = "0a" * 32


@pytest.fixture
def key(kms):
    """The ARN of a key of the test's own."""
    return kms.create_key()["KeyMetadata"]["Arn"]


@pytest.fixture
def root(appliance):
    """The account as a principal."""
    return f"arn:aws:iam::{appliance.account_id}:root"


@pytest.fixture
def make(kms, key, root):
    """Makes a grant on the test's key, for the account where nothing else is said."""

    def grant(**more):
        wanted = {"KeyId": key, "GranteePrincipal": root, "Operations": ["Decrypt"], **more}
        answer = kms.create_grant(**wanted)
        answer.pop("ResponseMetadata")
        return answer

    return grant


def refused(code, call, text=None, **arguments):
    """Makes the call, which must fail with this code and, if given, this text."""
    with pytest.raises(ClientError) as error:
        call(**arguments)
    found = error.value.response["Error"]
    assert found["Code"] == code, found
    if text is not None:
        assert found["Message"] == text
    return found["Message"]


def ids(listed):
    """The ids in a list's answer."""
    return [grant["GrantId"] for grant in listed["Grants"]]


# ---- CreateGrant and ListGrants --------------------------------------------------------------


def test_a_grant_is_listed_as_it_was_made(kms, key, root, make, name):
    constraints = {"EncryptionContextSubset": {"Department": "IT"}}
    made = make(
        Name=name,
        RetiringPrincipal=root,
        Operations=["Decrypt", "DescribeKey", "Decrypt"],
        Constraints=constraints,
    )
    assert set(made) == {"GrantId", "GrantToken"}
    assert len(made["GrantId"]) == 64 and int(made["GrantId"], 16) >= 0
    (listed,) = kms.list_grants(KeyId=key.rpartition("/")[2])["Grants"]
    assert listed.pop("CreationDate").timestamp() == pytest.approx(time.time(), abs=60)
    assert listed == {
        "KeyId": key,
        "GrantId": made["GrantId"],
        "Name": name,
        "GranteePrincipal": root,
        "RetiringPrincipal": root,
        "IssuingAccount": root,
        "Operations": ["Decrypt", "DescribeKey"],
        "Constraints": constraints,
    }


def test_what_a_grant_does_not_have_is_left_out(kms, key, make):
    make(Constraints={"EncryptionContextEquals": {}})
    (listed,) = kms.list_grants(KeyId=key)["Grants"]
    assert not {"Name", "RetiringPrincipal", "Constraints"} & set(listed)


def test_a_name_and_the_same_terms_make_the_same_grant_again(make, name):
    first = make(Name=name, Operations=["Encrypt", "Decrypt"])
    again = make(Name=name, Operations=["Decrypt", "Encrypt"])
    assert again["GrantId"] == first["GrantId"]
    assert again["GrantToken"] != first["GrantToken"]
    assert make(Name=name, Operations=["Decrypt"])["GrantId"] != first["GrantId"]
    assert make()["GrantId"] != make()["GrantId"]


def test_grants_come_in_pages_and_by_filter(kms, key, root, make):
    made = sorted(make()["GrantId"] for _ in range(5))
    pages = kms.get_paginator("list_grants").paginate(KeyId=key, PaginationConfig={"PageSize": 2})
    assert [ids(page) for page in pages] == [made[:2], made[2:4], made[4:]]
    assert ids(kms.list_grants(KeyId=key, GrantId=made[3])) == [made[3]]
    assert ids(kms.list_grants(KeyId=key, GrantId=MISSING)) == []
    assert ids(kms.list_grants(KeyId=key, GranteePrincipal=root)) == made
    other = kms.create_key()["KeyMetadata"]["KeyId"]
    assert ids(kms.list_grants(KeyId=other, GrantId=made[3])) == []
    refused("InvalidGrantIdException", kms.list_grants, KeyId=key, GrantId="x")


def test_an_alias_names_no_key_here(kms, key, root, name):
    kms.create_alias(AliasName=f"alias/{name}", TargetKeyId=key)
    text = "Key Aliases are not supported for this operation."
    terms = {"GranteePrincipal": root, "Operations": ["Decrypt"]}
    refused("InvalidArnException", kms.create_grant, text, KeyId=f"alias/{name}", **terms)
    refused("InvalidArnException", kms.list_grants, text, KeyId=f"alias/{name}")


@pytest.mark.parametrize(
    "operations, code",
    [
        ([], "ValidationException"),
        (["Decrypt", "Sign"], "ValidationException"),
        (["GenerateMac"], "ValidationException"),
        (["ReEncrypt"], "ValidationException"),
        (["kms:Decrypt"], "ValidationException"),
    ],
)
def test_operations_must_be_those_of_the_key(make, operations, code):
    refused(code, make, Operations=operations)


@pytest.mark.parametrize(
    "principal",
    [
        "arn:aws:iam::{account}:user/nobody",
        "arn:aws:iam::{account}:role/nobody",
        "arn:aws:iam::{account}:group/admins",
        "arn:aws:sts::{account}:assumed-role/nobody/session",
        "arn:aws:s3:::{account}",
        "{account}",
        "AIDAEXAMPLE",
    ],
)
def test_a_principal_must_be_there(appliance, make, root, principal):
    principal = principal.replace("{account}", appliance.account_id)
    text = f"ARN does not refer to a valid principal: {principal}"
    refused("InvalidArnException", make, text, GranteePrincipal=principal)
    refused("InvalidArnException", make, text, RetiringPrincipal=principal)


def test_a_principal_of_an_account_elsewhere_is_taken_by_its_form(kms, key, make):
    principal = "arn:aws:iam::999999999999:role/elsewhere"
    made = make(GranteePrincipal=principal)
    (listed,) = kms.list_grants(KeyId=key, GranteePrincipal=principal)["Grants"]
    assert (listed["GrantId"], listed["GranteePrincipal"]) == (made["GrantId"], principal)


def test_a_grantee_is_needed_and_services_are_none(kms, key):
    terms = {"KeyId": key, "Operations": ["Decrypt"]}
    refused("ValidationException", kms.create_grant, **terms)
    service = {"GranteeServicePrincipal": "rds.eu-central-1.amazonaws.com"}
    assert "rds." in refused("ValidationException", kms.create_grant, **terms, **service)


def test_constraints_have_bounds(make):
    pairs = {str(n): "x" for n in range(9)}
    refused("ValidationException", make, Constraints={"EncryptionContextEquals": pairs})
    long = {"a": "x" * 384}
    refused("ValidationException", make, Constraints={"EncryptionContextSubset": long})
    refused("ValidationException", make, Constraints={"SourceArn": "arn:aws:s3:::the-bucket"})


@pytest.mark.parametrize("body", [[{}, {}, "a"], "x", [[]]])
def test_constraints_are_an_object(appliance, key, root, body):
    wanted = {"KeyId": key, "GranteePrincipal": root, "Operations": ["Decrypt"]}
    answer = appliance.raw("TrentService.CreateGrant", {**wanted, "Constraints": body})
    assert answer.code == "SerializationException"


def test_a_key_that_is_not_enabled_takes_no_grant_and_keeps_those_it_has(kms, key, make):
    made = [make()["GrantId"] for _ in range(3)]
    kms.disable_key(KeyId=key)
    refused("DisabledException", make, f"{key} is disabled.")
    kms.revoke_grant(KeyId=key, GrantId=made[0])
    kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    refused("KMSInvalidStateException", make, f"{key} is pending deletion.")
    assert ids(kms.list_grants(KeyId=key)) == sorted(made[1:])
    kms.retire_grant(KeyId=key, GrantId=made[1])
    kms.revoke_grant(KeyId=key, GrantId=made[2])
    assert ids(kms.list_grants(KeyId=key)) == []


def test_the_service_s_own_key_takes_no_grant(kms, make):
    arn = kms.describe_key(KeyId="alias/aws/secretsmanager")["KeyMetadata"]["Arn"]
    refused("AccessDeniedException", make, KeyId=arn)
    assert ids(kms.list_grants(KeyId=arn)) == []


def test_a_dry_run_makes_and_ends_nothing(kms, key, make):
    refused("DryRunOperationException", make, DryRun=True)
    assert ids(kms.list_grants(KeyId=key)) == []
    made = make()["GrantId"]
    for call in (kms.revoke_grant, kms.retire_grant):
        refused("DryRunOperationException", call, KeyId=key, GrantId=made, DryRun=True)
        refused("NotFoundException", call, KeyId=key, GrantId=MISSING, DryRun=True)
    assert ids(kms.list_grants(KeyId=key)) == [made]


# ---- Tokens ----------------------------------------------------------------------------------


def test_a_token_that_was_given_out_is_taken_and_no_other(kms, key, make):
    made = make()
    token, data = made["GrantToken"], b"x"
    sealed = kms.encrypt(KeyId=key, Plaintext=data, GrantTokens=[token])["CiphertextBlob"]
    other = {"SourceKeyId": key, "DestinationKeyId": key, "CiphertextBlob": sealed}
    calls = [
        (kms.encrypt, {"KeyId": key, "Plaintext": data}),
        (kms.decrypt, {"CiphertextBlob": sealed}),
        (kms.re_encrypt, other),
        (kms.generate_data_key, {"KeyId": key, "KeySpec": "AES_256"}),
        (kms.generate_data_key_without_plaintext, {"KeyId": key, "KeySpec": "AES_256"}),
        (make, {}),
    ]
    forged = [token[:-1] + ("A" if token[-1] != "A" else "Q"), "token", made["GrantId"]]
    for call, arguments in calls:
        call(**arguments, GrantTokens=[token])
        for bad in forged:
            refused("InvalidGrantTokenException", call, **arguments, GrantTokens=[token, bad])
    # DescribeKey takes tokens, and its model knows no error for them.
    kms.describe_key(KeyId=key, GrantTokens=[token, "token"])


def test_a_token_is_no_marker_and_a_marker_no_token(kms, key, make):
    make()
    token = make()["GrantToken"]
    marker = kms.list_grants(KeyId=key, Limit=1)["NextMarker"]
    refused("InvalidMarkerException", kms.list_grants, KeyId=key, Marker=token)
    refused("InvalidGrantTokenException", kms.retire_grant, GrantToken=marker)


# ---- RetireGrant and RevokeGrant -------------------------------------------------------------


def test_a_grant_ends_by_token_and_by_id_once(kms, key, make):
    by_token, by_id, revoked = make(), make(), make()
    kms.retire_grant(GrantToken=by_token["GrantToken"])
    refused("NotFoundException", kms.retire_grant, GrantToken=by_token["GrantToken"])
    kms.retire_grant(KeyId=key, GrantId=by_id["GrantId"])
    refused("NotFoundException", kms.retire_grant, KeyId=key, GrantId=by_id["GrantId"])
    kms.revoke_grant(KeyId=key, GrantId=revoked["GrantId"])
    refused("NotFoundException", kms.revoke_grant, KeyId=key, GrantId=revoked["GrantId"])
    assert ids(kms.list_grants(KeyId=key)) == []


def test_a_grant_is_found_under_its_own_key_alone(kms, key, make):
    made = make()["GrantId"]
    other = kms.create_key()["KeyMetadata"]["Arn"]
    for call in (kms.revoke_grant, kms.retire_grant):
        refused("NotFoundException", call, KeyId=other, GrantId=made)
        refused("InvalidGrantIdException", call, KeyId=key, GrantId=made.upper())
        refused("InvalidGrantIdException", call, KeyId=key, GrantId=made[1:])
    assert ids(kms.list_grants(KeyId=key)) == [made]


def test_what_to_retire_is_said_in_one_way(kms, key, make):
    made = make()
    for arguments in [
        {},
        {"KeyId": key},
        {"GrantId": made["GrantId"]},
        {"KeyId": key, "GrantId": made["GrantId"], "GrantToken": made["GrantToken"]},
    ]:
        refused("ValidationException", kms.retire_grant, **arguments)


def test_retirable_grants_are_those_of_a_principal_of_the_own_account(kms, root, make):
    made, other = make(RetiringPrincipal=root)["GrantId"], make()["GrantId"]
    found = []
    for page in kms.get_paginator("list_retirable_grants").paginate(RetiringPrincipal=root):
        found += ids(page)
    assert made in found and other not in found
    text = "arn:aws:iam::999999999999:root is no principal of account"
    foreign = {"RetiringPrincipal": "arn:aws:iam::999999999999:root"}
    assert refused("InvalidArnException", kms.list_retirable_grants, **foreign).startswith(text)
    refused("ValidationException", kms.list_retirable_grants)


def test_the_command_line_and_rest_do_the_same(appliance, key, root):
    made = appliance.aws(
        "kms", "create-grant", "--key-id", key, "--grantee-principal", root,
        "--operations", "Decrypt", "DescribeKey",
        "--constraints", "EncryptionContextSubset={Department=IT}",
    )
    assert made.code == 0, made
    path = f"/keys/{key.rpartition('/')[2]}/grants"
    listed = appliance.rest("GET", path, signing="kms")
    assert ids(listed.json) == [made.out["GrantId"]]
    ended = appliance.rest("DELETE", f"{path}/{made.out['GrantId']}", signing="kms")
    assert (ended.status, ended.json) == (200, {})
    wanted = {"GranteePrincipal": root, "Operations": ["Decrypt"]}
    again = appliance.rest("POST", path, wanted, signing="kms").json
    token = {"GrantToken": again["GrantToken"]}
    assert appliance.rest("POST", "/grants:retire", token, signing="kms").status == 200
    assert ids(appliance.rest("GET", path, signing="kms").json) == []


def test_grants_outlive_a_restart(own_appliance):
    appliance = own_appliance()
    kms = appliance.client("kms")
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    root = f"arn:aws:iam::{appliance.account_id}:root"
    made = kms.create_grant(KeyId=key, GranteePrincipal=root, Operations=["Decrypt"])
    appliance.stop()
    appliance.start()
    kms = appliance.client("kms")
    assert ids(kms.list_grants(KeyId=key)) == [made["GrantId"]]
    kms.retire_grant(GrantToken=made["GrantToken"])
    assert ids(kms.list_grants(KeyId=key)) == []
