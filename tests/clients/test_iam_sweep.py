"""Every operation of IAM: refused without a right, served with it, unmoved by bad input."""

import json

import pytest
from botocore import xform_name
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from conftest import QUERY_MODELS
from operations import IAM

READ = {"Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": "*"}
TRUST = {"Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole"}


def document(statement):
    """A policy of one statement."""
    return json.dumps({"Version": "2012-10-17", "Statement": statement})


def outcome(client, operation, **members):
    """The code of the error that a call ends in; None if there is none."""
    try:
        getattr(client, xform_name(operation))(**members)
    except ClientError as error:
        return error.response["Error"]["Code"]
    return None


@pytest.fixture(scope="module")
def iam(appliance):
    """A checked client of the administrator's."""
    return appliance.client("iam")


@pytest.fixture(scope="module")
def careless(appliance):
    """The same, sending what it is given."""
    return appliance.client("iam", validate=False)


@pytest.fixture(scope="module")
def sweeper(iam):
    """A user without a right, and its access key."""
    iam.create_user(UserName="sweeper")
    key = iam.create_access_key(UserName="sweeper")["AccessKey"]
    return Credentials(key["AccessKeyId"], key["SecretAccessKey"])


@pytest.fixture
def good(appliance, sweeper, name, operation):
    """An input that fits the operation's model, of things that are not there."""
    arn = f"arn:aws:iam::{appliance.account_id}"
    members = {
        "UserName": name,
        "GroupName": name,
        "RoleName": name,
        "PolicyName": name,
        "PolicyArn": f"{arn}:policy/{name}",
        "PolicyDocument": document(READ),
        "AssumeRolePolicyDocument": document(TRUST),
        "AccessKeyId": sweeper.access_key if operation.endswith("LastUsed") else "AKIA" + "A" * 16,
        "Status": "Inactive",
        "VersionId": "v1",
        "PermissionsBoundary": f"{arn}:policy/{name}",
        "Tags": [{"Key": "a", "Value": "b"}],
        "TagKeys": ["a"],
        "Description": "d",
        "ActionNames": ["kms:Decrypt"],
        "PolicyInputList": [document(READ)],
        "PolicySourceArn": f"{arn}:user/{name}",
    }
    shape = QUERY_MODELS["iam"].operation(operation).input_shape
    return {member: members[member] for member in shape.required_members} if shape else {}


@pytest.mark.parametrize("operation", IAM)
def test_an_operation_needs_its_own_right(iam, appliance, sweeper, good, operation):
    client = appliance.client("iam", credentials=sweeper)
    assert outcome(client, operation, **good) == "AccessDenied"
    rights = {"Effect": "Allow", "Action": f"iam:{operation}", "Resource": "*"}
    iam.put_user_policy(UserName="sweeper", PolicyName="p", PolicyDocument=document(rights))
    try:
        assert outcome(client, operation, **good) in (None, "NoSuchEntity")
        denied = document([rights, {**rights, "Effect": "Deny"}])
        iam.put_user_policy(UserName="sweeper", PolicyName="p", PolicyDocument=denied)
        assert outcome(client, operation, **good) == "AccessDenied"
    finally:
        iam.delete_user_policy(UserName="sweeper", PolicyName="p")


BAD = ["", " ", "*", "../..", "a" * 3000, "\u00fc\u4e2d", "{", "[" * 500, "a\nb", "'\"<&>", "${aws:username}"]


@pytest.mark.parametrize("operation", IAM)
def test_bad_members_are_the_caller_s_fault(careless, good, operation):
    """The client's hook holds each answer against the model: no fault of the server's is in it."""
    shape = QUERY_MODELS["iam"].operation(operation).input_shape
    texts = [name for name, member in shape.members.items() if member.type_name == "string"] if shape else []
    for name in texts:
        for bad in BAD:
            code = outcome(careless, operation, **{**good, name: bad})
            assert code != "ServiceFailure", (name, bad)
    for name in good:
        code = outcome(careless, operation, **{key: value for key, value in good.items() if key != name})
        assert code == "ValidationError" or code is None, name
