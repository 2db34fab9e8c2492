"""Grants: making, listing and ending them, and what they allow to whom."""

import json
import time
import uuid

import pytest
from botocore.credentials import Credentials

from conftest import refused

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


# ---- What grants allow -----------------------------------------------------------------------

# The keys of these tests have a policy for the administrator alone, so that others have nothing but
# grants.


@pytest.fixture(scope="session")
def iam(appliance):
    """A checked boto3 client for IAM."""
    return appliance.client("iam")


def document(*statements):
    """A policy."""
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def statement(action, effect="Allow", **more):
    """A statement on every resource."""
    return {"Effect": effect, "Action": action, "Resource": "*", **more}


class Person:
    """A user without any policy."""

    def __init__(self, appliance, iam, name=None):
        self.iam, self.name = iam, name or f"user-{uuid.uuid4()}"
        user = iam.create_user(UserName=self.name)["User"]
        self.arn, self.id = user["Arn"], user["UserId"]
        made = iam.create_access_key(UserName=self.name)["AccessKey"]
        self.key_id = made["AccessKeyId"]
        self.credentials = Credentials(self.key_id, made["SecretAccessKey"])
        self.kms = appliance.client("kms", credentials=self.credentials)
        self.secretsmanager = appliance.client("secretsmanager", credentials=self.credentials)

    def may(self, *statements):
        """Replaces the policy."""
        self.iam.put_user_policy(
            UserName=self.name, PolicyName="p", PolicyDocument=document(*statements)
        )

    def leave(self):
        """Deletes the user."""
        self.iam.delete_access_key(UserName=self.name, AccessKeyId=self.key_id)
        self.iam.delete_user(UserName=self.name)


@pytest.fixture
def person(appliance, iam):
    return Person(appliance, iam)


@pytest.fixture
def other(appliance, iam):
    return Person(appliance, iam)


@pytest.fixture
def locked(appliance, kms):
    """The ARN of a key that is the administrator's alone."""
    administrator = appliance.client("sts").get_caller_identity()["Arn"]
    policy = document(statement("kms:*", Principal={"AWS": administrator}))
    return kms.create_key(Policy=policy)["KeyMetadata"]["Arn"]


@pytest.fixture
def give(kms, locked):
    """Makes a grant on the locked key and answers its id."""

    def grant(to, *operations, **more):
        wanted = {"KeyId": locked, "GranteePrincipal": to, "Operations": list(operations)}
        return kms.create_grant(**wanted, **more)["GrantId"]

    return grant


def denied(call, **arguments):
    """Makes the call, which nobody must allow."""
    return refused("AccessDeniedException", call, **arguments)


def test_a_grant_allows_its_operations_to_its_grantee_until_it_ends(
    kms, locked, give, person, other
):
    sealed = kms.encrypt(KeyId=locked, Plaintext=b"x")["CiphertextBlob"]
    denied(person.kms.decrypt, CiphertextBlob=sealed)
    made = give(person.arn, "Decrypt", "GenerateDataKey")
    assert person.kms.decrypt(CiphertextBlob=sealed)["Plaintext"] == b"x"
    person.kms.decrypt(CiphertextBlob=sealed, KeyId=locked)
    person.kms.generate_data_key(KeyId=locked, KeySpec="AES_256")
    denied(person.kms.encrypt, KeyId=locked, Plaintext=b"x")
    denied(person.kms.generate_data_key_without_plaintext, KeyId=locked, KeySpec="AES_256")
    denied(person.kms.describe_key, KeyId=locked)
    denied(person.kms.list_grants, KeyId=locked)
    denied(other.kms.decrypt, CiphertextBlob=sealed)
    kms.revoke_grant(KeyId=locked, GrantId=made)
    denied(person.kms.decrypt, CiphertextBlob=sealed)
    give(person.arn, "Decrypt")
    person.kms.decrypt(CiphertextBlob=sealed)


def test_a_grant_on_one_key_is_none_on_another(kms, give, person):
    give(person.arn, "DescribeKey", "Encrypt", "ReEncryptTo")
    other = kms.create_key()["KeyMetadata"]["Arn"]
    denied(person.kms.describe_key, KeyId=other)
    denied(person.kms.encrypt, KeyId=other, Plaintext=b"x")


def test_re_encryption_needs_both_halves(kms, locked, give, person, key, root):
    sealed = kms.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]
    arguments = {"CiphertextBlob": sealed, "DestinationKeyId": locked}
    source = {"KeyId": key, "GranteePrincipal": person.arn, "Operations": ["ReEncryptFrom"]}
    made = kms.create_grant(**source)["GrantId"]
    denied(person.kms.re_encrypt, **arguments)
    give(person.arn, "ReEncryptTo")
    assert person.kms.re_encrypt(**arguments)["KeyId"] == locked
    kms.revoke_grant(KeyId=key, GrantId=made)
    denied(person.kms.re_encrypt, **arguments)


def test_an_explicit_denial_goes_before_a_grant(kms, locked, give, person):
    give(person.arn, "Encrypt")
    wanted = {"KeyId": locked, "Plaintext": b"x"}
    person.kms.encrypt(**wanted)
    person.may(statement("kms:Encrypt", "Deny"))
    assert "explicit deny in an identity-based policy" in denied(person.kms.encrypt, **wanted)
    person.may(statement("s3:*"))
    person.kms.encrypt(**wanted)
    policy = json.loads(kms.get_key_policy(KeyId=locked)["Policy"])
    policy["Statement"].append(statement("kms:Encrypt", "Deny", Principal={"AWS": person.arn}))
    kms.put_key_policy(KeyId=locked, Policy=json.dumps(policy))
    assert "explicit deny in a resource-based policy" in denied(person.kms.encrypt, **wanted)


@pytest.mark.parametrize(
    "kind, constraint, context, allowed",
    [
        ("Subset", {"a": "1"}, {"a": "1"}, True),
        ("Subset", {"a": "1"}, {"a": "1", "b": "2"}, True),
        ("Subset", {"a": "1"}, {"a": "2"}, False),
        ("Subset", {"a": "1"}, {"b": "1"}, False),
        ("Subset", {"a": "1"}, {}, False),
        ("Subset", {"a": "1", "b": "2"}, {"a": "1"}, False),
        ("Subset", {"Dept": "IT"}, {"dept": "IT"}, True),
        ("Subset", {"Dept": "IT"}, {"Dept": "it"}, False),
        ("Equals", {"a": "1"}, {"a": "1"}, True),
        ("Equals", {"a": "1"}, {"a": "1", "b": "2"}, False),
        ("Equals", {"a": "1", "b": "2"}, {"b": "2", "a": "1"}, True),
        ("Equals", {"a": "1", "b": "2"}, {"a": "1"}, False),
        ("Equals", {"a": "1"}, {}, False),
    ],
)
def test_constraints_on_the_encryption_context(
    kms, locked, give, person, kind, constraint, context, allowed
):
    constraints = {f"EncryptionContext{kind}": constraint}
    operations = ["Encrypt", "Decrypt", "GenerateDataKey", "DescribeKey"]
    give(person.arn, *operations, Constraints=constraints)
    sealed = kms.encrypt(KeyId=locked, Plaintext=b"x", EncryptionContext=context)
    calls = [
        (person.kms.encrypt, {"KeyId": locked, "Plaintext": b"x"}),
        (person.kms.decrypt, {"CiphertextBlob": sealed["CiphertextBlob"]}),
        (person.kms.generate_data_key, {"KeyId": locked, "KeySpec": "AES_256"}),
    ]
    for call, arguments in calls:
        (call if allowed else lambda call=call, **a: denied(call, **a))(
            **arguments, EncryptionContext=context
        )
    person.kms.describe_key(KeyId=locked)


def test_a_source_that_no_request_has_allows_nothing(appliance, locked, give, person):
    source = f"arn:aws:rds:{appliance.region}:{appliance.account_id}:db:orders"
    give(person.arn, "Encrypt", "DescribeKey", Constraints={"SourceArn": source})
    denied(person.kms.encrypt, KeyId=locked, Plaintext=b"x")
    denied(person.kms.describe_key, KeyId=locked)


def test_an_account_as_grantee_leaves_it_to_its_own_policies(locked, give, person, other, root):
    wanted = {"KeyId": locked, "Plaintext": b"x"}
    person.may(statement("kms:Encrypt"))
    denied(person.kms.encrypt, **wanted)
    give(root, "Encrypt")
    person.kms.encrypt(**wanted)
    denied(other.kms.encrypt, **wanted)


def test_a_user_s_session_has_the_user_s_grants(appliance, locked, give, person):
    give(person.arn, "Encrypt")
    sts = appliance.client("sts", credentials=person.credentials)
    given = sts.get_session_token()["Credentials"]
    session = Credentials(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])
    kms = appliance.client("kms", credentials=session)
    kms.encrypt(KeyId=locked, Plaintext=b"x")
    denied(kms.describe_key, KeyId=locked)


@pytest.fixture
def role(appliance, iam):
    """The ARN of a role that has no policies and that its account may assume."""
    trusted = {"AWS": appliance.account_id}
    trust = {"Effect": "Allow", "Principal": trusted, "Action": "sts:AssumeRole"}
    made = iam.create_role(
        RoleName=f"role-{uuid.uuid4()}", AssumeRolePolicyDocument=document(trust)
    )
    return made["Role"]["Arn"]


@pytest.fixture
def assume(appliance, role):
    """A KMS client of a session of the role."""

    def client(name, **more):
        sts = appliance.client("sts")
        given = sts.assume_role(RoleArn=role, RoleSessionName=name, **more)["Credentials"]
        session = (given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])
        return appliance.client("kms", credentials=Credentials(*session))

    return client


def session_arn(role, name):
    """The ARN of a role session."""
    return role.replace(":iam:", ":sts:").replace(":role/", ":assumed-role/") + f"/{name}"


def test_a_grant_to_a_role_is_every_session_s_as_far_as_its_policies_go(
    iam, locked, give, role, assume
):
    wanted = {"KeyId": locked, "Plaintext": b"x"}
    denied(assume("one").encrypt, **wanted)
    give(role, "Encrypt")
    assume("one").encrypt(**wanted)
    assume("two").encrypt(**wanted)
    denied(assume("three").describe_key, KeyId=locked)
    denied(assume("four", Policy=document(statement("s3:*"))).encrypt, **wanted)
    assume("five", Policy=document(statement("kms:Encrypt"))).encrypt(**wanted)
    boundary = iam.create_policy(
        PolicyName=f"boundary-{uuid.uuid4()}", PolicyDocument=document(statement("s3:*"))
    )["Policy"]["Arn"]
    name = role.rpartition("/")[2]
    iam.put_role_permissions_boundary(RoleName=name, PermissionsBoundary=boundary)
    denied(assume("six").encrypt, **wanted)


def test_a_grant_to_a_session_is_that_session_s_alone(kms, locked, give, role, assume):
    arn = session_arn(role, "one")
    give(arn, "Encrypt")
    assume("one").encrypt(KeyId=locked, Plaintext=b"x")
    denied(assume("two").encrypt, KeyId=locked, Plaintext=b"x")
    (listed,) = kms.list_grants(KeyId=locked, GranteePrincipal=arn)["Grants"]
    assert listed["GranteePrincipal"] == arn


def test_a_role_retires_as_far_as_its_sessions_policies_go(locked, give, person, role, assume):
    made = give(person.arn, "Encrypt", RetiringPrincipal=role)
    limited = assume("one", Policy=document(statement("kms:Encrypt")))
    denied(limited.retire_grant, KeyId=locked, GrantId=made)
    assume("two").retire_grant(KeyId=locked, GrantId=made)


def test_a_user_made_again_has_nothing_of_the_old_one_s(
    appliance, iam, kms, locked, give, person
):
    made = give(person.arn, "Encrypt", RetiringPrincipal=person.arn)
    person.leave()
    (gone,) = kms.list_grants(KeyId=locked)["Grants"]
    assert (gone["GranteePrincipal"], gone["RetiringPrincipal"]) == (person.id, person.id)
    again = Person(appliance, iam, person.name)
    assert again.arn == person.arn
    denied(again.kms.encrypt, KeyId=locked, Plaintext=b"x")
    denied(again.kms.retire_grant, KeyId=locked, GrantId=made)
    (old,) = kms.list_grants(KeyId=locked)["Grants"]
    assert old["GranteePrincipal"] == person.id
    assert ids(kms.list_grants(KeyId=locked, GranteePrincipal=again.arn)) == []
    assert ids(kms.list_retirable_grants(RetiringPrincipal=again.arn)) == []


def test_who_has_the_right_by_grant_hands_on_no_more_than_it_has(locked, give, person, other):
    constraints = {"EncryptionContextSubset": {"a": "1"}}
    give(person.arn, "CreateGrant", "Encrypt", "DescribeKey", Constraints=constraints)

    def hand_on(*operations, **more):
        wanted = {"KeyId": locked, "GranteePrincipal": other.arn, "Operations": list(operations)}
        return {**wanted, **more}

    stricter = {"EncryptionContextEquals": {"a": "1", "b": "2"}}
    person.kms.create_grant(**hand_on("Encrypt", Constraints=stricter))
    other.kms.encrypt(KeyId=locked, Plaintext=b"x", EncryptionContext={"a": "1", "b": "2"})
    denied(other.kms.encrypt, KeyId=locked, Plaintext=b"x", EncryptionContext={"a": "1"})
    for more in [
        hand_on("Encrypt"),
        hand_on("DescribeKey"),
        hand_on("Decrypt", Constraints=constraints),
        hand_on("Encrypt", "Decrypt", Constraints=constraints),
        hand_on("Encrypt", Constraints={"EncryptionContextSubset": {"b": "1"}}),
    ]:
        denied(person.kms.create_grant, **more)
    person.kms.create_grant(**hand_on("CreateGrant", Constraints=constraints))
    wanted = hand_on("CreateGrant", Constraints=constraints)
    other.kms.create_grant(**wanted)
    denied(other.kms.create_grant, **hand_on("Encrypt", Constraints=constraints))


def test_conditions_on_the_grants_that_one_may_make(locked, kms, person, other, root):
    policy = json.loads(kms.get_key_policy(KeyId=locked)["Policy"])

    def allow(condition):
        theirs = statement("kms:CreateGrant", Principal={"AWS": person.arn}, Condition=condition)
        policy["Statement"][1:] = [theirs]
        kms.put_key_policy(KeyId=locked, Policy=json.dumps(policy))

    def ask(allowed, *operations, **more):
        wanted = {"KeyId": locked, "GranteePrincipal": other.arn, "Operations": list(operations)}
        call = person.kms.create_grant
        return call(**wanted, **more) if allowed else denied(call, **wanted, **more)

    allow({"ForAllValues:StringEquals": {"kms:GrantOperations": ["Encrypt", "Decrypt"]}})
    ask(True, "Decrypt")
    ask(True, "Decrypt", "Encrypt")
    ask(False, "Decrypt", "DescribeKey")
    allow({"StringEquals": {"kms:GranteePrincipal": other.arn}})
    ask(True, "Decrypt")
    denied(
        person.kms.create_grant, KeyId=locked, GranteePrincipal=root, Operations=["Decrypt"]
    )
    allow({"StringEquals": {"kms:RetiringPrincipal": root}})
    ask(True, "Decrypt", RetiringPrincipal=root)
    ask(False, "Decrypt")
    subset = {"EncryptionContextSubset": {"Department": "IT"}}
    allow({"StringEquals": {"kms:GrantConstraintType": "EncryptionContextSubset"}})
    ask(True, "Decrypt", Constraints=subset)
    ask(False, "Decrypt", Constraints={"EncryptionContextEquals": {"Department": "IT"}})
    ask(False, "Decrypt")
    allow({"StringEquals": {"kms:EncryptionContext:Department": "IT"}})
    ask(True, "Decrypt", Constraints=subset)
    ask(False, "Decrypt", Constraints={"EncryptionContextSubset": {"Department": "HR"}})
    allow({"Bool": {"kms:GrantIsForAWSResource": "true"}})
    ask(False, "Decrypt")


def test_a_secret_is_read_through_a_grant_on_its_key(secretsmanager, locked, give, person, name):
    new = {"Name": name, "SecretString": "x", "KmsKeyId": locked}
    secret = secretsmanager.create_secret(**new)["ARN"]
    person.may(statement("secretsmanager:GetSecretValue"))
    denied(person.secretsmanager.get_secret_value, SecretId=secret)
    elsewhere = {"EncryptionContextSubset": {"SecretARN": f"{secret}x"}}
    give(person.arn, "Decrypt", Constraints=elsewhere)
    denied(person.secretsmanager.get_secret_value, SecretId=secret)
    give(person.arn, "Decrypt", Constraints={"EncryptionContextSubset": {"SecretARN": secret}})
    assert person.secretsmanager.get_secret_value(SecretId=secret)["SecretString"] == "x"


# ---- Who may end a grant ---------------------------------------------------------------------


def test_the_retiring_principal_ends_a_grant_without_any_policy(locked, kms, give, person, other):
    made = give(other.arn, "Encrypt", RetiringPrincipal=person.arn)
    assert ids(kms.list_retirable_grants(RetiringPrincipal=person.arn)) == [made]
    denied(other.kms.retire_grant, KeyId=locked, GrantId=made)
    denied(person.kms.revoke_grant, KeyId=locked, GrantId=made)
    person.may(statement("kms:RetireGrant", "Deny"))
    denied(person.kms.retire_grant, KeyId=locked, GrantId=made)
    person.may(statement("s3:*"))
    person.kms.retire_grant(KeyId=locked, GrantId=made)
    denied(other.kms.encrypt, KeyId=locked, Plaintext=b"x")


def test_the_grantee_ends_a_grant_that_says_so(locked, give, person):
    kept = give(person.arn, "Encrypt")
    made = give(person.arn, "Encrypt", "RetireGrant")
    denied(person.kms.retire_grant, KeyId=locked, GrantId=kept)
    person.kms.retire_grant(KeyId=locked, GrantId=made)
    person.kms.encrypt(KeyId=locked, Plaintext=b"x")


def test_the_account_that_made_a_grant_hands_the_right_on_by_identity_policies(
    kms, locked, give, person, other
):
    made = give(other.arn, "Encrypt")
    # A key policy does not.
    policy = json.loads(kms.get_key_policy(KeyId=locked)["Policy"])
    policy["Statement"].append(statement("kms:RetireGrant", Principal={"AWS": person.arn}))
    kms.put_key_policy(KeyId=locked, Policy=json.dumps(policy))
    denied(person.kms.retire_grant, KeyId=locked, GrantId=made)
    person.may(statement("kms:RetireGrant"))
    person.kms.retire_grant(KeyId=locked, GrantId=made)


def test_revoking_is_for_whom_policies_let(kms, locked, give, person, other):
    made = give(other.arn, "Encrypt", "RetireGrant")
    for someone in (person, other):
        denied(someone.kms.revoke_grant, KeyId=locked, GrantId=made)
        denied(someone.kms.revoke_grant, KeyId=locked, GrantId=MISSING)
    policy = json.loads(kms.get_key_policy(KeyId=locked)["Policy"])
    policy["Statement"].append(statement("kms:RevokeGrant", Principal={"AWS": person.arn}))
    kms.put_key_policy(KeyId=locked, Policy=json.dumps(policy))
    person.kms.revoke_grant(KeyId=locked, GrantId=made)
    denied(other.kms.encrypt, KeyId=locked, Plaintext=b"x")


def test_the_record_names_the_grant_that_allowed(appliance, locked, give, person):
    made = give(person.arn, "Encrypt")
    answer = person.kms.encrypt(KeyId=locked, Plaintext=b"x")
    request = answer["ResponseMetadata"]["RequestId"]
    deadline, found = time.monotonic() + 10, []
    while not found and time.monotonic() < deadline:
        time.sleep(0.05)
        for path in appliance.directory.rglob("audit*.jsonl"):
            lines = (line for line in path.read_text().splitlines() if request in line)
            found += [json.loads(line) for line in lines]
    (record,) = found
    assert record["additionalEventData"]["decisions"] == [
        {
            "action": "kms:Encrypt",
            "resource": locked,
            "effect": "Allow",
            "source": "grant",
            "grant": made,
        }
    ]
