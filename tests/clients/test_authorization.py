"""Who may do what: every operation has a case that allows it and one that denies it; and the rules
between policies, on the real thing."""

import json
import time
import uuid

import pytest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from conftest import Appliance
from inputs import good_input, meaningful
from operations import OPERATIONS, target_of
from test_iam_commands import done, told
from test_operations import FIRST, records

# Operations whose IAM action has another name, and what they need besides.
ACTIONS = {
    ("kms", "ReEncrypt"): ["kms:ReEncryptFrom", "kms:ReEncryptTo"],
    ("secretsmanager", "ValidateResourcePolicy"): [
        "secretsmanager:ValidateResourcePolicy",
        "secretsmanager:PutResourcePolicy",
    ],
    ("secretsmanager", "BatchGetSecretValue"): [
        "secretsmanager:BatchGetSecretValue",
        "secretsmanager:GetSecretValue",
    ],
}


@pytest.fixture(scope="module")
def appliance(tmp_path_factory):
    """An appliance of this file's own: it makes many users."""
    running = Appliance(tmp_path_factory.mktemp("authorization"))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def iam(appliance):
    return appliance.client("iam")


def statement(effect="Allow", action="*", resource="*", **more):
    return {"Effect": effect, "Action": action, "Resource": resource, **more}


def document(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


class Person:
    """A user with one inline policy."""

    def __init__(self, appliance, iam, name=None):
        self.appliance, self.iam = appliance, iam
        self.name = name or f"user-{uuid.uuid4()}"
        self.arn = iam.create_user(UserName=self.name)["User"]["Arn"]
        key = iam.create_access_key(UserName=self.name)["AccessKey"]
        self.credentials = Credentials(key["AccessKeyId"], key["SecretAccessKey"])

    def may(self, *statements):
        """Replaces the policy."""
        self.iam.put_user_policy(
            UserName=self.name, PolicyName="p", PolicyDocument=document(*statements)
        )
        return self

    def client(self, service):
        return self.appliance.client(service, credentials=self.credentials)

    def raw(self, service, operation, body, **more):
        return self.appliance.raw(
            target_of(service, operation), body, credentials=self.credentials, **more
        )


@pytest.fixture
def person(appliance, iam):
    return Person(appliance, iam)


def actions(service, operation):
    return ACTIONS.get((service, operation), [f"{service}:{operation}"])


@pytest.mark.parametrize("service, operation", OPERATIONS, ids=lambda value: value)
def test_what_one_action_allows_is_one_operation_and_its_denial_stops_it(
    appliance, iam, service, operation
):
    """The table walked: allowed by its own action alone, refused without any policy, refused by
    everything but that action, and refused by an explicit denial beside an administrator's right."""
    person, given = Person(appliance, iam), meaningful(appliance)
    for first in FIRST.get(operation, []):
        answer = appliance.raw(target_of(service, first), good_input(service, first, given))
        assert answer.status == 200, answer
    body = good_input(service, operation, given)
    wanted = actions(service, operation)

    answer = person.raw(service, operation, body)
    assert answer.code == "AccessDeniedException", answer
    text = answer.json.get("Message") or answer.json.get("message")
    assert text.startswith(f"User: {person.arn} is not authorized to perform: {wanted[0]} on "), text

    person.may({"Effect": "Allow", "NotAction": wanted, "Resource": "*"})
    assert person.raw(service, operation, body).code == "AccessDeniedException"

    person.may(statement(), statement("Deny", wanted))
    answer = person.raw(service, operation, body)
    assert answer.code == "AccessDeniedException"
    text = answer.json.get("Message") or answer.json.get("message")
    assert "explicit" in text, text

    person.may(statement(action=wanted))
    answer = person.raw(service, operation, body)
    assert answer.status == 200, (wanted, answer)


def refused(call, **arguments):
    with pytest.raises(ClientError) as error:
        call(**arguments)
    assert error.value.response["Error"]["Code"] in ("AccessDeniedException", "AccessDenied")
    return error.value.response["Error"]["Message"]


def make_secret(appliance, **more):
    client = appliance.client("secretsmanager")
    return client.create_secret(Name=f"s-{uuid.uuid4()}", SecretString="x", **more)


def test_a_refusal_names_principal_action_resource_and_what_is_missing(appliance, person):
    secret = make_secret(appliance)
    message = refused(person.client("secretsmanager").get_secret_value, SecretId=secret["ARN"])
    assert message == (
        f"User: {person.arn} is not authorized to perform: secretsmanager:GetSecretValue on "
        f"resource: {secret['ARN']} because no identity-based policy allows the "
        "secretsmanager:GetSecretValue action"
    )
    person.may(statement(), statement("Deny", "secretsmanager:Get*"))
    message = refused(person.client("secretsmanager").get_secret_value, SecretId=secret["ARN"])
    assert message.endswith("with an explicit deny in an identity-based policy")


def test_a_change_of_a_policy_counts_for_the_very_next_request(appliance, iam, person):
    secret = make_secret(appliance)
    client = person.client("secretsmanager")
    for _ in range(5):
        person.may(statement(action="secretsmanager:GetSecretValue", resource=secret["ARN"]))
        client.get_secret_value(SecretId=secret["ARN"])
        iam.delete_user_policy(UserName=person.name, PolicyName="p")
        refused(client.get_secret_value, SecretId=secret["ARN"])


def test_resources_and_conditions_narrow_what_is_allowed(appliance, person):
    red = make_secret(appliance, Tags=[{"Key": "team", "Value": "red"}])
    blue = make_secret(appliance, Tags=[{"Key": "team", "Value": "blue"}])
    client = person.client("secretsmanager")
    tagged = {"StringEquals": {"aws:ResourceTag/team": "red"}}
    person.may(statement(action="secretsmanager:*", Condition=tagged))
    client.get_secret_value(SecretId=red["ARN"])
    refused(client.get_secret_value, SecretId=blue["ARN"])
    for condition, allowed in [
        ({"StringEquals": {"secretsmanager:VersionStage": "AWSCURRENT"}}, True),
        ({"StringEquals": {"secretsmanager:VersionStage": "AWSPREVIOUS"}}, False),
        ({"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}}, True),
        ({"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}}, False),
        ({"Bool": {"aws:SecureTransport": "true"}}, False),
        ({"DateGreaterThan": {"aws:CurrentTime": "2020-01-01T00:00:00Z"}}, True),
        ({"DateLessThan": {"aws:CurrentTime": "2020-01-01T00:00:00Z"}}, False),
        ({"StringLike": {"aws:username": "user-*"}}, True),
        ({"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:user/other-*"}}, False),
        ({"StringEquals": {"aws:PrincipalTag/team": "red"}}, False),
    ]:
        person.may(statement(action="secretsmanager:*", Condition=condition))
        call = {"SecretId": red["ARN"], "VersionStage": "AWSCURRENT"}
        if allowed:
            client.get_secret_value(**call)
        else:
            refused(client.get_secret_value, **call)


def test_a_resource_policy_allows_by_itself_within_an_account_and_denies_anybody(
    appliance, iam, person
):
    secret, other = make_secret(appliance), Person(appliance, iam)
    admin = appliance.client("secretsmanager")
    policy = statement(action="secretsmanager:GetSecretValue", Principal={"AWS": person.arn})
    admin.put_resource_policy(SecretId=secret["ARN"], ResourcePolicy=document(policy))
    person.client("secretsmanager").get_secret_value(SecretId=secret["ARN"])
    refused(other.client("secretsmanager").get_secret_value, SecretId=secret["ARN"])
    deny = statement("Deny", "secretsmanager:GetSecretValue", Principal="*")
    admin.put_resource_policy(SecretId=secret["ARN"], ResourcePolicy=document(deny))
    message = refused(admin.get_secret_value, SecretId=secret["ARN"])
    assert message.endswith("with an explicit deny in a resource-based policy")


def test_a_key_policy_has_the_last_word(appliance, person):
    admin, kms = appliance.client("kms"), person.client("kms")
    root = f"arn:aws:iam::{appliance.account_id}:root"
    key = admin.create_key()["KeyMetadata"]["Arn"]
    person.may(statement(action="kms:*"))
    kms.encrypt(KeyId=key, Plaintext=b"x")
    # Without the root's statement identity policies count for nothing.
    manage = statement(action="kms:*", Principal={"AWS": appliance_arn(appliance)})
    admin.put_key_policy(KeyId=key, Policy=document(manage))
    message = refused(kms.encrypt, KeyId=key, Plaintext=b"x")
    assert "because no resource-based policy allows the kms:Encrypt action" in message
    # A statement for the user alone suffices, without an identity policy.
    own = statement(action="kms:Encrypt", Principal={"AWS": person.arn})
    admin.put_key_policy(KeyId=key, Policy=document(manage, own))
    person.may(statement(action="iam:GetUser"))
    kms.encrypt(KeyId=key, Plaintext=b"x")
    refused(kms.describe_key, KeyId=key)
    # Conditions of KMS's own.
    with_context = statement(
        action="kms:Encrypt",
        Principal={"AWS": root},
        Condition={"StringEquals": {"kms:EncryptionContext:app": "web"}},
    )
    person.may(statement(action="kms:*"))
    admin.put_key_policy(KeyId=key, Policy=document(manage, with_context))
    kms.encrypt(KeyId=key, Plaintext=b"x", EncryptionContext={"app": "web"})
    refused(kms.encrypt, KeyId=key, Plaintext=b"x", EncryptionContext={"app": "mail"})
    refused(kms.encrypt, KeyId=key, Plaintext=b"x")


class Secret:
    """A secret whose policy lets a principal read it."""

    refusal = "This resource policy contains an unsupported principal."

    def __init__(self, appliance):
        self.admin = appliance.client("secretsmanager")
        self.id = self.admin.create_secret(Name=f"s-{uuid.uuid4()}", SecretString="x")["ARN"]

    def put(self, arn):
        let = statement(action="secretsmanager:GetSecretValue", Principal={"AWS": arn})
        self.admin.put_resource_policy(SecretId=self.id, ResourcePolicy=document(let))

    def policy(self):
        return self.admin.get_resource_policy(SecretId=self.id)["ResourcePolicy"]

    def use(self, person):
        person.client("secretsmanager").get_secret_value(SecretId=self.id)


class Key:
    """A key whose policy lets a principal look at it, besides its administrator."""

    refusal = "Policy contains a statement with one or more invalid principals."

    def __init__(self, appliance):
        self.admin = appliance.client("kms")
        self.mine = statement(action="kms:*", Principal={"AWS": appliance_arn(appliance)})
        self.id = self.admin.create_key(Policy=document(self.mine))["KeyMetadata"]["Arn"]

    def put(self, arn):
        let = statement(action="kms:DescribeKey", Principal={"AWS": [arn]})
        self.admin.put_key_policy(KeyId=self.id, Policy=document(let, self.mine))

    def policy(self):
        return self.admin.get_key_policy(KeyId=self.id)["Policy"]

    def use(self, person):
        person.client("kms").describe_key(KeyId=self.id)


class Role:
    """A role that trusts a principal."""

    refusal = 'Invalid principal in policy: "AWS":"{arn}"'

    def __init__(self, appliance):
        self.admin, self.id = appliance.client("iam"), f"role-{uuid.uuid4()}"
        let = {"Effect": "Deny", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}
        made = self.admin.create_role(RoleName=self.id, AssumeRolePolicyDocument=document(let))
        self.arn = made["Role"]["Arn"]

    def put(self, arn):
        let = {"Effect": "Allow", "Principal": {"AWS": arn}, "Action": "sts:AssumeRole"}
        self.admin.update_assume_role_policy(RoleName=self.id, PolicyDocument=document(let))

    def policy(self):
        got = self.admin.get_role(RoleName=self.id)["Role"]["AssumeRolePolicyDocument"]
        pages = self.admin.get_paginator("list_roles").paginate()
        listed = [role for page in pages for role in page["Roles"] if role["RoleName"] == self.id]
        assert listed[0]["AssumeRolePolicyDocument"] == got
        return json.dumps(got)

    def use(self, person):
        person.client("sts").assume_role(RoleArn=self.arn, RoleSessionName="one")


@pytest.mark.parametrize("kind", [Secret, Key, Role])
def test_a_policy_means_who_had_the_name_when_it_was_put(appliance, iam, kind):
    thing, old = kind(appliance), Person(appliance, iam)
    old_id = iam.get_user(UserName=old.name)["User"]["UserId"]
    thing.put(old.arn)
    thing.use(old)
    assert old.arn in thing.policy()
    # Another name, the same user.
    iam.update_user(UserName=old.name, NewUserName=f"{old.name}-2")
    thing.use(old)
    assert f"{old.arn}-2" in thing.policy()
    iam.update_user(UserName=f"{old.name}-2", NewUserName=old.name)
    # The same name, another user.
    iam.delete_access_key(UserName=old.name, AccessKeyId=old.credentials.access_key)
    iam.delete_user(UserName=old.name)
    assert old_id in thing.policy() and old.arn not in thing.policy()
    new = Person(appliance, iam, old.name)
    assert new.arn == old.arn
    with pytest.raises(ClientError, match="AccessDenied"):
        thing.use(new)
    assert old_id in thing.policy()
    thing.put(new.arn)
    thing.use(new)


@pytest.mark.parametrize("of_session", [False, True])
def test_a_policy_means_the_role_that_had_the_name_and_its_sessions(appliance, iam, of_session):
    secret, name, sts = Secret(appliance), f"role-{uuid.uuid4()}", appliance.client("sts")
    let = statement(action="sts:AssumeRole", Principal={"AWS": appliance.account_id})
    del let["Resource"]

    def made():
        role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=document(let))["Role"]
        given = sts.assume_role(RoleArn=role["Arn"], RoleSessionName="one")
        keys = [given["Credentials"][key] for key in ("AccessKeyId", "SecretAccessKey", "SessionToken")]
        client = appliance.client("secretsmanager", credentials=Credentials(*keys))
        arn = given["AssumedRoleUser"]["Arn"] if of_session else role["Arn"]
        shown = role["RoleId"] + (":one" if of_session else "")
        return arn, shown, lambda: client.get_secret_value(SecretId=secret.id)

    arn, shown, use = made()
    secret.put(arn)
    use()
    iam.delete_role(RoleName=name)
    assert shown in secret.policy() and arn not in secret.policy()
    again, _, use = made()
    assert again == arn
    refused(use)
    secret.put(arn)
    use()


@pytest.mark.parametrize("kind", [Secret, Key, Role])
def test_who_is_not_there_can_t_be_named(appliance, kind):
    thing, account = kind(appliance), appliance.account_id
    before = thing.policy() if kind is not Secret else None
    for arn in (
        f"arn:aws:iam::{account}:user/nobody",
        f"arn:aws:iam::{account}:role/nobody",
        f"arn:aws:iam::{account}:user/path/administrator",
        f"arn:aws:sts::{account}:assumed-role/nobody/session",
    ):
        with pytest.raises(ClientError) as caught:
            thing.put(arn)
        answer = caught.value.response["Error"]
        assert answer["Code"].startswith("MalformedPolicyDocument")
        assert answer["Message"] == kind.refusal.format(arn=arn)
    if before:
        assert thing.policy() == before
    # Of an account that is not here nobody knows who is there.
    thing.put("arn:aws:iam::999999999999:user/somebody")


def appliance_arn(appliance):
    """The administrator's ARN."""
    return appliance.client("sts").get_caller_identity()["Arn"]


def test_a_secret_under_a_customer_key_needs_the_key_too(appliance, person):
    key = appliance.client("kms").create_key()["KeyMetadata"]["Arn"]
    secret = make_secret(appliance, KmsKeyId=key)
    client = person.client("secretsmanager")
    read = statement(action="secretsmanager:GetSecretValue")
    person.may(read)
    assert "Access to KMS is not allowed" in refused(
        client.get_secret_value, SecretId=secret["ARN"]
    )
    via = {
        "StringEquals": {
            "kms:ViaService": f"secretsmanager.{appliance.region}.amazonaws.com",
            "kms:EncryptionContext:SecretARN": secret["ARN"],
        }
    }
    person.may(read, statement(action="kms:Decrypt", resource=key, Condition=via))
    client.get_secret_value(SecretId=secret["ARN"])
    # The same right does not reach KMS directly.
    sealed = appliance.client("kms").encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]
    refused(person.client("kms").decrypt, CiphertextBlob=sealed)


def test_a_ciphertext_of_a_foreign_key_tells_nothing(appliance, person):
    sealed = appliance.client("kms").encrypt(
        KeyId=appliance.client("kms").create_key()["KeyMetadata"]["Arn"], Plaintext=b"x"
    )["CiphertextBlob"]
    message = refused(person.client("kms").decrypt, CiphertextBlob=sealed)
    assert "arn:aws:kms" not in message and "does not exist in this Region" in message


def test_a_boundary_and_an_inactive_key_stop_what_policies_allow(appliance, iam, person):
    secret = make_secret(appliance)
    client = person.client("secretsmanager")
    person.may(statement())
    client.get_secret_value(SecretId=secret["ARN"])
    boundary = iam.create_policy(
        PolicyName=f"b-{uuid.uuid4()}", PolicyDocument=document(statement(action="kms:*"))
    )["Policy"]["Arn"]
    iam.put_user_permissions_boundary(UserName=person.name, PermissionsBoundary=boundary)
    message = refused(client.get_secret_value, SecretId=secret["ARN"])
    assert "because no permissions boundary allows" in message
    iam.delete_user_permissions_boundary(UserName=person.name)
    client.get_secret_value(SecretId=secret["ARN"])
    iam.update_access_key(
        UserName=person.name, AccessKeyId=person.credentials.access_key, Status="Inactive"
    )
    with pytest.raises(ClientError) as error:
        client.get_secret_value(SecretId=secret["ARN"])
    assert error.value.response["Error"]["Code"] == "UnrecognizedClientException"


def test_the_record_names_the_statement_that_decided(appliance, iam, person):
    secret = make_secret(appliance)
    person.may(
        statement(action="kms:*"), statement(action="secretsmanager:*", Sid="Secrets")
    )
    answer = person.raw("secretsmanager", "GetSecretValue", {"SecretId": secret["ARN"]})
    deadline = time.monotonic() + 10
    request = answer.headers["x-amzn-requestid"]
    while request not in (found := records(appliance)) and time.monotonic() < deadline:
        time.sleep(0.05)
    (record,) = found[request]
    (decision,) = record["additionalEventData"]["decisions"]
    assert decision == {
        "action": "secretsmanager:GetSecretValue",
        "resource": secret["ARN"],
        "effect": "Allow",
        "source": "identity-based policy",
        "policy": "p",
        "statement": 1,
        "sid": "Secrets",
    }


def test_across_accounts_both_sides_must_allow(own_appliance):
    appliance = own_appliance()
    config = appliance.directory / "appliance" / "strongroom.toml"
    appliance.stop()
    tenant = told(done(appliance, "account", "add", "--config", config, "--account",
                       "111122223333", online=False))
    appliance.start()
    kms, iam = appliance.client("kms"), appliance.client("iam")
    key = kms.create_key()["KeyMetadata"]["Arn"]
    secret = make_secret(appliance, KmsKeyId=key)["ARN"]
    theirs = appliance.client("secretsmanager", credentials=tenant)
    message = refused(theirs.get_secret_value, SecretId=secret)
    assert "because no resource-based policy allows" in message
    other = {"AWS": "arn:aws:iam::111122223333:root"}
    appliance.client("secretsmanager").put_resource_policy(
        SecretId=secret,
        ResourcePolicy=document(statement(action="secretsmanager:GetSecretValue", Principal=other)),
    )
    # The secret is theirs to read now, its key is not yet.
    assert "Access to KMS is not allowed" in refused(theirs.get_secret_value, SecretId=secret)
    own = {"AWS": f"arn:aws:iam::{appliance.account_id}:root"}
    kms.put_key_policy(
        KeyId=key,
        Policy=document(
            statement(action="kms:*", Principal=own),
            statement(action="kms:Decrypt", Principal=other),
        ),
    )
    assert theirs.get_secret_value(SecretId=secret)["SecretString"] == "x"
    # And on their side: an identity policy that does not reach over stops it.
    person = appliance.client("iam", credentials=tenant)
    person.create_user(UserName="app")
    made = person.create_access_key(UserName="app")["AccessKey"]
    app = Credentials(made["AccessKeyId"], made["SecretAccessKey"])
    reader = appliance.client("secretsmanager", credentials=app)
    assert "because no identity-based policy allows" in refused(
        reader.get_secret_value, SecretId=secret
    )
    # A role that trusts them.
    trust = {"Effect": "Allow", "Principal": other, "Action": "sts:AssumeRole"}
    role = iam.create_role(RoleName="guest", AssumeRolePolicyDocument=document(trust))["Role"]["Arn"]
    iam.put_role_policy(RoleName="guest", PolicyName="p",
                        PolicyDocument=document(statement(action="kms:ListKeys")))
    sts = appliance.client("sts", credentials=tenant)
    given = sts.assume_role(RoleArn=role, RoleSessionName="visit")["Credentials"]
    session = Credentials(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])
    visitor = appliance.client("kms", credentials=session)
    assert key in [entry["KeyArn"] for entry in visitor.list_keys()["Keys"]]
    refused(visitor.describe_key, KeyId=key)
