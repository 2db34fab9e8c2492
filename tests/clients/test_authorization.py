"""Who may do what: every operation has a case that allows it and one that denies it; and the rules
between policies, on the real thing."""

import json
import time
import uuid

import pytest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from inputs import good_input, meaningful
from operations import OPERATIONS, target_of
from test_iam_commands import done, told
from test_operations import FIRST, records
from two_tokens import with_two_tokens

# Operations whose IAM action has another name, and what they need besides.
ACTIONS = {
    ("kms", "ReEncrypt"): ["kms:ReEncryptFrom", "kms:ReEncryptTo"],
    ("secretsmanager", "RotateSecret"): ["secretsmanager:RotateSecret", "lambda:InvokeFunction"],
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
    running = with_two_tokens(tmp_path_factory.mktemp("authorization"))
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


# Strongroom's own operations on a resource, which no model has.
OWN = [("kms", "GetKeyAttestation"), ("kms", "ListKeyHolders")]
OWN += [("secretsmanager", "GetSecretRotation"), ("secretsmanager", "GetSecretProbe")]


@pytest.mark.parametrize("service, operation", [*OPERATIONS, *OWN], ids=lambda value: value)
def test_what_one_action_allows_is_one_operation_and_its_denial_stops_it(
    appliance, iam, service, operation
):
    """The table walked: allowed by its own action alone, refused without any policy, refused by
    everything but that action, and refused by an explicit denial beside an administrator's right."""
    person, given = Person(appliance, iam), meaningful(appliance)
    for first in FIRST.get(operation, []):
        answer = appliance.raw(target_of(service, first), good_input(service, first, given))
        assert answer.status == 200, answer
    own = (service, operation) in OWN
    member = "KeyId" if service == "kms" else "SecretId"
    body = {member: given[member]} if own else good_input(service, operation, given)
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
    answer = person.raw(service, operation, body, check=not own)
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


def test_conditions_narrow_who_rotates_what_and_how(appliance, person):
    secret = make_secret(appliance)
    own = f"arn:aws:lambda:{appliance.region}:{appliance.account_id}:function:strongroom-password"
    call = {"SecretId": secret["ARN"], "RotationLambdaARN": own, "RotateImmediately": False}
    client, action = person.client("secretsmanager"), "secretsmanager:RotateSecret"
    invoke = statement(action="lambda:InvokeFunction", Resource=own)
    # The last ones answer once the secret is set up.
    for condition, allowed in [
        ({"StringEquals": {"secretsmanager:RotationLambdaARN": f"{own}-2"}}, False),
        ({"Bool": {"secretsmanager:RotateImmediately": "true"}}, False),
        ({"Bool": {"secretsmanager:ModifyRotationRules": "true"}}, False),
        ({"StringEquals": {"secretsmanager:resource/AllowRotationLambdaArn": own}}, False),
        ({"StringEquals": {"secretsmanager:RotationLambdaARN": own}}, True),
    ]:
        person.may(statement(action=action, Condition=condition), invoke)
        if allowed:
            client.rotate_secret(**call)
        else:
            refused(client.rotate_secret, **call)
    condition = {"StringEquals": {"secretsmanager:resource/AllowRotationLambdaArn": own}}
    person.may(statement(action="secretsmanager:*", Condition=condition))
    client.describe_secret(SecretId=secret["ARN"])
    client.cancel_rotate_secret(SecretId=secret["ARN"])
    refused(client.describe_secret, SecretId=make_secret(appliance)["ARN"])
    text = refused(client.rotate_secret, **call)
    assert "lambda:InvokeFunction" in text


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


def test_who_makes_something_with_tags_needs_the_right_to_tag_it(appliance, person):
    """CreateSecret with tags asked for no right to tag, and CreateKey's saw none of the tags:
    where tags give rights, whoever may make something could give them to himself."""
    red = {"StringEquals": {"aws:RequestTag/team": "red"}}
    secrets, kms = person.client("secretsmanager"), person.client("kms")
    for service, make in [
        ("secretsmanager", lambda tag: secrets.create_secret(
            Name=f"s-{uuid.uuid4()}", Tags=[{"Key": "team", "Value": tag}])),
        ("kms", lambda tag: kms.create_key(Tags=[{"TagKey": "team", "TagValue": tag}])),
    ]:
        create = statement(action=f"{service}:Create*")
        person.may(create)
        assert f"perform: {service}:TagResource on" in refused(make, tag="red")
        person.may(create, statement(action=f"{service}:TagResource", Condition=red))
        make(tag="red")
        refused(make, tag="blue")


def test_values_by_filter_need_the_right_to_list(appliance, person):
    """The errors of what may not be read name it: without this right a batch was a list."""
    arn = make_secret(appliance)["ARN"]
    client, batch = person.client("secretsmanager"), "secretsmanager:BatchGetSecretValue"
    by_name = {"Filters": [{"Key": "name", "Values": ["s-"]}]}
    person.may(statement(action=batch))
    assert "secretsmanager:ListSecrets" in refused(client.batch_get_secret_value, **by_name)
    assert client.batch_get_secret_value(SecretIdList=[arn])["Errors"][0]["SecretId"] == arn
    person.may(statement(action=[batch, "secretsmanager:ListSecrets"]))
    assert client.batch_get_secret_value(**by_name)["Errors"]


def test_a_secret_s_key_is_known_by_its_arn_however_it_is_named(appliance, person):
    """A denial of a key by its ARN was got round by naming it by its id or an alias."""
    admin = appliance.client("kms")
    key = admin.create_key()["KeyMetadata"]
    alias = f"alias/{uuid.uuid4()}"
    admin.create_alias(AliasName=alias, TargetKeyId=key["KeyId"])
    client, secret = person.client("secretsmanager"), make_secret(appliance)["ARN"]
    not_that = {"ArnEquals": {"secretsmanager:KmsKeyArn": key["Arn"]}}
    person.may(statement(), statement("Deny", "secretsmanager:*", Condition=not_that))
    for named in (key["Arn"], key["KeyId"], alias):
        refused(client.create_secret, Name=f"s-{uuid.uuid4()}", KmsKeyId=named)
        refused(client.update_secret, SecretId=secret, KmsKeyId=named)
    client.create_secret(Name=f"s-{uuid.uuid4()}", KmsKeyId="alias/aws/secretsmanager")
    client.update_secret(SecretId=secret, Description="of another key")


def test_both_halves_of_a_re_encryption_know_whether_the_key_is_the_same(appliance, person):
    """AWS's example allows `kms:ReEncrypt*` under the condition, which half of it did not meet; and
    a source key's policy could not forbid that what it sealed goes to another key."""
    admin, kms = appliance.client("kms"), person.client("kms")
    one, two = (admin.create_key()["KeyMetadata"]["Arn"] for _ in range(2))
    sealed = admin.encrypt(KeyId=one, Plaintext=b"x")["CiphertextBlob"]
    same = {"Bool": {"kms:ReEncryptOnSameKey": "true"}}
    person.may(statement(action="kms:ReEncrypt*", Condition=same))
    kms.re_encrypt(CiphertextBlob=sealed, DestinationKeyId=one)
    refused(kms.re_encrypt, CiphertextBlob=sealed, DestinationKeyId=two)
    other = {"Bool": {"kms:ReEncryptOnSameKey": "false"}}
    person.may(statement(), statement("Deny", "kms:ReEncryptFrom", Condition=other))
    kms.re_encrypt(CiphertextBlob=sealed, SourceKeyId=one, DestinationKeyId=one)
    refused(kms.re_encrypt, CiphertextBlob=sealed, SourceKeyId=one, DestinationKeyId=two)


def test_every_request_knows_the_caller_s_account(appliance, person):
    """`kms:CallerAccount` had no value at all."""
    for account, allowed in [(appliance.account_id, True), ("999999999999", False)]:
        condition = {"StringEquals": {"kms:CallerAccount": account}}
        person.may(statement(action="kms:*", Condition=condition))
        call = person.client("kms").describe_key
        key = {"KeyId": "alias/aws/secretsmanager"}
        call(**key) if allowed else refused(call, **key)


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


def with_tenant(own_appliance):
    """An appliance with a second account, and the keys of that one's administrator."""
    appliance = own_appliance()
    config = appliance.directory / "appliance" / "strongroom.toml"
    appliance.stop()
    tenant = told(done(appliance, "account", "add", "--config", config, "--account",
                       "111122223333", online=False))
    appliance.start()
    return appliance, tenant


def test_across_accounts_both_sides_must_allow(own_appliance):
    appliance, tenant = with_tenant(own_appliance)
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


def test_a_key_is_managed_by_its_own_account_alone(own_appliance):
    """Another account that a key policy lets do everything could delete the key and take its policy
    over; in AWS such a right has no effect."""
    appliance, tenant = with_tenant(own_appliance)
    kms, theirs = appliance.client("kms"), appliance.client("kms", credentials=tenant)
    key = kms.create_key()["KeyMetadata"]["Arn"]
    accounts = (appliance.account_id, "111122223333")
    both = {"AWS": [f"arn:aws:iam::{account}:root" for account in accounts]}
    policy = document(statement(action="kms:*", Principal=both))
    kms.put_key_policy(KeyId=key, Policy=policy)
    theirs.encrypt(KeyId=key, Plaintext=b"x")
    theirs.describe_key(KeyId=key)
    theirs.get_key_rotation_status(KeyId=key)
    theirs.list_grants(KeyId=key)
    for call, more in [
        (theirs.schedule_key_deletion, {}),
        (theirs.put_key_policy, {"Policy": policy}),
        (theirs.get_key_policy, {}),
        (theirs.disable_key, {}),
        (theirs.enable_key_rotation, {}),
        (theirs.rotate_key_on_demand, {}),
        (theirs.update_key_description, {"Description": "ours"}),
        (theirs.tag_resource, {"Tags": [{"TagKey": "a", "TagValue": "b"}]}),
        (theirs.list_resource_tags, {}),
        (theirs.list_key_rotations, {}),
    ]:
        assert "because no resource-based policy allows" in refused(call, KeyId=key, **more)
    refused(theirs.create_alias, AliasName="alias/ours", TargetKeyId=key)


def test_a_secret_s_key_is_one_of_its_own_account_whoever_writes(own_appliance):
    """Where a secret names its key by an alias, another account that may write it sealed the new
    version under the key that the alias named in *its* account: the owner lost the secret."""
    appliance, tenant = with_tenant(own_appliance)
    kms, theirs = appliance.client("kms"), appliance.client("kms", credentials=tenant)
    keys = {}
    for client in (kms, theirs):
        keys[client] = client.create_key()["KeyMetadata"]["Arn"]
        client.create_alias(AliasName="alias/app", TargetKeyId=keys[client])
    other = {"AWS": "arn:aws:iam::111122223333:root"}
    own = {"AWS": f"arn:aws:iam::{appliance.account_id}:root"}
    through = statement(action=["kms:GenerateDataKey", "kms:Decrypt"], Principal=other)
    kms.put_key_policy(KeyId=keys[kms],
                       Policy=document(statement(action="kms:*", Principal=own), through))
    secret = make_secret(appliance, KmsKeyId="alias/app")["ARN"]
    owner = appliance.client("secretsmanager")
    owner.put_resource_policy(
        SecretId=secret,
        ResourcePolicy=document(statement(action="secretsmanager:PutSecretValue", Principal=other)),
    )
    writer = appliance.client("secretsmanager", credentials=tenant)
    writer.put_secret_value(SecretId=secret, SecretString="theirs")
    assert owner.get_secret_value(SecretId=secret)["SecretString"] == "theirs"
