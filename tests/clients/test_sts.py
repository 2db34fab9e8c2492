"""STS and the Query protocol, as the AWS CLI, boto3 and a hand that types forms see them."""

import json
import os
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlencode
from xml.etree import ElementTree

import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from conftest import QUERY_MODELS, error_of

STS_VERSION = "2011-06-15"


@pytest.fixture(scope="session")
def sts(appliance):
    """A checked boto3 client for STS."""
    return appliance.client("sts")


def form(appliance, parameters, *, credentials=None, signing="sts", region=None, sign=True):
    """Sends a form, signed as asked, and returns the raw answer."""
    data = parameters if isinstance(parameters, bytes) else urlencode(parameters).encode()
    request = AWSRequest(method="POST", url=appliance.endpoint + "/", data=data)
    request.headers["Content-Type"] = "application/x-www-form-urlencoded; charset=utf-8"
    if sign:
        given = credentials or appliance.credentials
        SigV4Auth(given, signing, region or appliance.region).add_auth(request)
    return appliance.post(data, dict(request.headers.items()))


def code(answer):
    """Code and text of an XML error."""
    error = ElementTree.fromstring(answer.body)[0]
    return error.findtext("{*}Code"), error.findtext("{*}Message")


def caller_identity(**more):
    """The form of GetCallerIdentity."""
    return {"Action": "GetCallerIdentity", "Version": STS_VERSION, **more}


def test_a_user_is_told_who_it_is(appliance, sts):
    answer = sts.get_caller_identity()
    account = appliance.account_id
    assert answer["Account"] == account
    assert answer["Arn"] == f"arn:aws:iam::{account}:user/administrator"
    assert answer["UserId"].startswith("AIDA")
    ran = appliance.aws("sts", "get-caller-identity")
    assert ran.code == 0, ran.err
    assert ran.out == {key: answer[key] for key in ("Account", "Arn", "UserId")}


def test_a_scope_of_the_global_endpoint_is_taken_by_sts_and_no_other_service(own_appliance):
    appliance = own_appliance("--region", "eu-central-1")
    assert form(appliance, caller_identity(), region="us-east-1").status == 200
    assert form(appliance, caller_identity(), region="eu-central-1").status == 200
    answer = form(appliance, caller_identity(), region="eu-west-1")
    assert (answer.status, code(answer)[0]) == (403, "SignatureDoesNotMatch")
    answer = appliance.raw("TrentService.ListKeys", {}, region="us-east-1")
    assert answer.code == "InvalidSignatureException"


def test_a_presigned_url_works_for_whoever_gets_it(appliance):
    request = AWSRequest("GET", f"{appliance.endpoint}/?{urlencode(caller_identity())}")
    SigV4QueryAuth(appliance.credentials, "sts", appliance.region, expires=60).add_auth(request)
    path = request.url.removeprefix(appliance.endpoint)
    answer = appliance.post(b"", {}, path=path, method="GET")
    assert answer.status == 200
    QUERY_MODELS["sts"].check("GetCallerIdentity", *answer)
    altered = appliance.post(b"", {}, path=path + "&Extra=1", method="GET")
    assert (altered.status, code(altered)[0]) == (403, "SignatureDoesNotMatch")


@pytest.mark.parametrize(
    ("how", "status", "expected"),
    [
        ({"sign": False}, 403, "MissingAuthenticationToken"),
        ({"credentials": Credentials("AKIAIOSFODNN7EXAMPLE", "x")}, 403, "InvalidClientTokenId"),
        ({"signing": "kms"}, 403, "SignatureDoesNotMatch"),
    ],
)
def test_a_caller_who_is_not_proved_gets_the_query_protocols_codes(appliance, how, status, expected):
    answer = form(appliance, caller_identity(), **how)
    assert (answer.status, code(answer)[0]) == (status, expected)
    QUERY_MODELS["sts"].check("GetCallerIdentity", *answer)


def test_a_wrong_secret_is_a_signature_that_does_not_match(appliance):
    wrong = Credentials(appliance.credentials.access_key, "wrong")
    answer = form(appliance, caller_identity(), credentials=wrong)
    assert (answer.status, code(answer)[0]) == (403, "SignatureDoesNotMatch")
    with pytest.raises(ClientError) as caught:
        appliance.client("sts", credentials=wrong).get_caller_identity()
    assert caught.value.response["Error"]["Code"] == "SignatureDoesNotMatch"


def test_an_incomplete_signature_is_a_bad_request(appliance):
    data = urlencode(caller_identity()).encode()
    headers = {
        "Content-Type": "application/x-www-form-urlencoded",
        "Authorization": "AWS4-HMAC-SHA256 Credential=x",
    }
    answer = appliance.post(data, headers)
    assert (answer.status, code(answer)[0]) == (400, "IncompleteSignature")


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"Version": STS_VERSION}, "MissingAction"),
        ({"Action": "", "Version": STS_VERSION}, "MissingAction"),
        ({"Action": "MakeCoffee", "Version": STS_VERSION}, "InvalidAction"),
        ({"Action": "GetCallerIdentity"}, "InvalidAction"),
        ({"Action": "GetCallerIdentity", "Version": "2010-05-08"}, "InvalidAction"),
        ({"Action": "GetCallerIdentity", "Version": "2099-01-01"}, "InvalidAction"),
        (b"Action=GetCallerIdentity&Action=x&Version=2011-06-15", "MalformedInput"),
        (b"Action=GetCallerIdentity&Version=2011-06-15&a=%ff", "MalformedInput"),
        (b"\xff\xfe", "MalformedInput"),
        (b"&".join(b"p%d=1" % i for i in range(5000)), "MalformedInput"),
        (b"x" * 600 + b"=1", "MalformedInput"),
        (b".".join([b"a"] * 40) + b"=1", "MalformedInput"),
        (b"", "MissingAction"),
    ],
)
def test_a_form_that_means_nothing_is_refused_as_xml(appliance, parameters, expected):
    answer = form(appliance, parameters)
    assert answer.status == 400
    assert code(answer)[0] == expected
    assert answer.headers["content-type"] == "text/xml"


def test_an_unknown_action_is_named_in_awss_words(appliance):
    answer = form(appliance, {"Action": "<b>&\x01", "Version": STS_VERSION})
    text = "Could not find operation <b>&\ufffd for version 2011-06-15"
    assert code(answer) == ("InvalidAction", text)


def temporary(answer):
    """The credentials of an answer, for botocore."""
    given = answer["Credentials"]
    return Credentials(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])


def test_a_users_session_is_the_user_for_every_service_and_in_every_form(appliance, sts, name):
    answer = sts.get_session_token(DurationSeconds=900)
    given = answer["Credentials"]
    assert given["AccessKeyId"].startswith("ASIA") and len(given["AccessKeyId"]) == 20
    left = (given["Expiration"] - answer_time(answer)).total_seconds()
    assert 895 <= left <= 905
    credentials = temporary(answer)
    who = appliance.client("sts", credentials=credentials).get_caller_identity()
    assert who["Arn"] == sts.get_caller_identity()["Arn"]
    secrets = appliance.client("secretsmanager", credentials=credentials)
    secrets.create_secret(Name=name, SecretString="by a session")
    assert secrets.get_secret_value(SecretId=name)["SecretString"] == "by a session"
    request = AWSRequest("GET", f"{appliance.endpoint}/?{urlencode(caller_identity())}")
    SigV4QueryAuth(credentials, "sts", appliance.region, expires=60).add_auth(request)
    path = request.url.removeprefix(appliance.endpoint)
    assert appliance.post(b"", {}, path=path, method="GET").status == 200


def answer_time(answer):
    """When the server says that it answered."""
    return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])


def test_a_session_asks_for_no_other_session_token(appliance, sts):
    client = appliance.client("sts", credentials=temporary(sts.get_session_token()))
    text = "Cannot call GetSessionToken with session credentials"
    assert error_of(client.get_session_token) == ("AccessDenied", text)


def test_a_users_session_may_call_nothing_of_iam_and_little_of_sts(appliance, sts, role, account):
    session = temporary(sts.get_session_token())
    text = "The security token included in the request is invalid."
    iam = appliance.client("iam", credentials=session)
    for call in (iam.list_users, iam.get_account_summary):
        assert error_of(call) == ("InvalidClientTokenId", text)
    answer = appliance.rest("POST", "/iam/ListUsers", {}, signing="iam", credentials=session)
    assert (answer.status, answer.json["title"]) == (403, "InvalidClientTokenId")
    client = appliance.client("sts", credentials=session)
    for operation, given in (
        ("GetAccessKeyInfo", {"AccessKeyId": session.access_key}),
        ("DecodeAuthorizationMessage", {"EncodedMessage": "x"}),
        ("RevokeSession", {"AccessKeyId": session.access_key}),
    ):
        asked = {"Action": operation, "Version": STS_VERSION, **given}
        answer = form(appliance, asked, credentials=session)
        refused = ("AccessDenied", f"Cannot call {operation} with session credentials")
        assert (answer.status, code(answer)) == (403, refused)
    client.get_caller_identity()
    arn = role(trust(account), policy(allow("iam:ListUsers")))
    given = temporary(client.assume_role(RoleArn=arn, RoleSessionName="me"))
    # A role's session is under no such restriction.
    appliance.client("iam", credentials=given).list_users()


def test_a_session_without_a_second_factor_is_not_had_with_one(sts):
    serial = "arn:aws:iam::000000000000:mfa/x"
    code_, _ = error_of(sts.get_session_token, SerialNumber=serial, TokenCode="123456")
    assert code_ == "AccessDenied"


def test_a_token_that_is_forged_altered_or_missing_is_refused(appliance, sts):
    one, two = (temporary(sts.get_session_token()) for _ in range(2))
    first, last = one.token[:40], one.token[41:]
    bad = {
        "altered": Credentials(one.access_key, one.secret_key, f"{first}{'A' if one.token[40] != 'A' else 'B'}{last}"),
        "of another session": Credentials(one.access_key, one.secret_key, two.token),
        "none": Credentials(one.access_key, one.secret_key),
        "no token": Credentials(one.access_key, one.secret_key, "x" * 20_000),
        "invented": Credentials("ASIAIOSFODNN7EXAMPLE", one.secret_key, one.token),
        "of a long-term key": Credentials(
            appliance.credentials.access_key, appliance.credentials.secret_key, one.token
        ),
    }
    for what, credentials in bad.items():
        answer = form(appliance, caller_identity(), credentials=credentials)
        text = "The security token included in the request is invalid."
        assert (answer.status, code(answer)) == (403, ("InvalidClientTokenId", text)), what
        answer = appliance.raw("TrentService.ListKeys", {}, credentials=credentials)
        assert (answer.status, answer.code) == (400, "UnrecognizedClientException"), what
    wrong = Credentials(one.access_key, two.secret_key, one.token)
    answer = form(appliance, caller_identity(), credentials=wrong)
    assert code(answer)[0] == "SignatureDoesNotMatch"


def test_a_token_of_another_appliance_is_refused(appliance, sts, own_appliance):
    other = own_appliance()
    answer = form(other, caller_identity(), credentials=temporary(sts.get_session_token()))
    assert code(answer)[0] == "InvalidClientTokenId"


def test_a_session_outlives_a_restart(own_appliance):
    appliance = own_appliance()
    credentials = temporary(appliance.client("sts").get_session_token())
    appliance.stop()
    appliance.start()
    assert form(appliance, caller_identity(), credentials=credentials).status == 200


@pytest.mark.parametrize("seconds", [0, -1, 899, 129_601, 2**31 - 1])
def test_a_duration_out_of_bounds_is_refused(appliance, seconds):
    client = appliance.client("sts", validate=False)
    code_, text = error_of(client.get_session_token, DurationSeconds=seconds)
    assert code_ == "ValidationError"
    assert "durationSeconds" in text


def test_an_access_key_tells_its_account(appliance, sts):
    for id_ in (
        appliance.credentials.access_key,
        sts.get_session_token()["Credentials"]["AccessKeyId"],
    ):
        assert sts.get_access_key_info(AccessKeyId=id_)["Account"] == appliance.account_id
    for id_ in ("AKIAIOSFODNN7EXAMPLE", "ASIA77777777AAAAAAAA", "ASIAAAAAAAABAAAAAAAA"):
        assert error_of(sts.get_access_key_info, AccessKeyId=id_)[0] == "ValidationError"


def test_no_credential_that_was_given_out_is_in_the_audit_log(appliance, sts):
    given = sts.get_session_token()["Credentials"]
    (path,) = appliance.directory.rglob("audit.jsonl")
    log = path.read_text()
    assert given["AccessKeyId"] in log
    assert given["SecretAccessKey"] not in log
    assert given["SessionToken"] not in log


# ---- AssumeRole ----


def policy(*statements):
    """A policy document."""
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def allow(action, resource="*", **more):
    """A statement that allows."""
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def trust(principal, action=("sts:AssumeRole",), **more):
    """A trust policy of one statement."""
    return policy({"Effect": "Allow", "Principal": principal, "Action": list(action), **more})


@pytest.fixture(scope="session")
def iam(appliance):
    """A checked boto3 client for IAM."""
    return appliance.client("iam")


@pytest.fixture
def account(appliance):
    """The principal that is the whole account."""
    return {"AWS": f"arn:aws:iam::{appliance.account_id}:root"}


@pytest.fixture
def role(iam, name):
    """Makes a role: `role(trust_policy, identity_policy)`; answers its ARN."""

    def make(trusted, allowed=None, **more):
        made = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trusted, **more)["Role"]
        if allowed:
            iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=allowed)
        return made["Arn"]

    return make


@pytest.fixture
def user(iam, appliance):
    """Makes a user with an identity policy; answers the name and the credentials."""

    def make(allowed=None):
        user_name = f"user-{uuid.uuid4()}"
        iam.create_user(UserName=user_name)
        if allowed:
            iam.put_user_policy(UserName=user_name, PolicyName="p", PolicyDocument=allowed)
        key = iam.create_access_key(UserName=user_name)["AccessKey"]
        return user_name, Credentials(key["AccessKeyId"], key["SecretAccessKey"])

    return make


def assumed(appliance, arn, credentials=None, **more):
    """The credentials of a session."""
    client = appliance.client("sts", credentials=credentials)
    return temporary(client.assume_role(RoleArn=arn, RoleSessionName="me", **more))


def test_a_role_is_assumed_and_its_session_may_what_the_role_may(appliance, role, sts, account, name):
    arn = role(trust(account), policy(allow("secretsmanager:CreateSecret")))
    answer = sts.assume_role(RoleArn=arn, RoleSessionName="me@x.y")
    session = f"arn:aws:sts::{appliance.account_id}:assumed-role/{name}/me@x.y"
    assert answer["AssumedRoleUser"]["Arn"] == session
    assert "PackedPolicySize" not in answer
    credentials = temporary(answer)
    who = appliance.client("sts", credentials=credentials).get_caller_identity()
    assert who["Arn"] == session
    assert who["UserId"] == answer["AssumedRoleUser"]["AssumedRoleId"]
    assert who["UserId"].startswith("AROA") and who["UserId"].endswith(":me@x.y")
    secrets = appliance.client("secretsmanager", credentials=credentials)
    secrets.create_secret(Name=name, SecretString="x")
    code_, text = error_of(secrets.get_secret_value, SecretId=name)
    assert code_ == "AccessDeniedException"
    assert text.startswith(f"User: {session} is not authorized to perform: secretsmanager:GetSecretValue")


def test_who_is_not_trusted_is_refused_as_if_the_role_were_not_there(appliance, role, user):
    arn = role(trust({"AWS": f"arn:aws:iam::{appliance.account_id}:user/administrator"}))
    user_name, credentials = user(policy(allow("sts:AssumeRole")))
    client = appliance.client("sts", credentials=credentials)
    who = f"arn:aws:iam::{appliance.account_id}:user/{user_name}"
    for missing in (arn, arn + "x", "arn:aws:iam::999999999999:role/r"):
        text = f"User: {who} is not authorized to perform: sts:AssumeRole on resource: {missing}"
        asked = error_of(client.assume_role, RoleArn=missing, RoleSessionName="me")
        assert asked == ("AccessDenied", text)


def test_an_account_that_is_trusted_must_let_its_user_and_a_trusted_user_needs_no_more(
    appliance, iam, role, user, account, name
):
    arn = role(trust(account))
    without, with_ = user(), user(policy(allow("sts:AssumeRole", arn)))
    client = appliance.client("sts", credentials=without[1])
    assert error_of(client.assume_role, RoleArn=arn, RoleSessionName="me")[0] == "AccessDenied"
    assert assumed(appliance, arn, with_[1])
    by_name = {"AWS": f"arn:aws:iam::{appliance.account_id}:user/{without[0]}"}
    iam.update_assume_role_policy(RoleName=name, PolicyDocument=trust(by_name))
    assert assumed(appliance, arn, without[1])


def test_an_external_id_is_asked_for(appliance, role, sts, account):
    arn = role(trust(account, Condition={"StringEquals": {"sts:ExternalId": "secret-7"}}))
    assert error_of(sts.assume_role, RoleArn=arn, RoleSessionName="me")[0] == "AccessDenied"
    wrong = {"RoleArn": arn, "RoleSessionName": "me", "ExternalId": "secret-8"}
    assert error_of(sts.assume_role, **wrong)[0] == "AccessDenied"
    assert assumed(appliance, arn, ExternalId="secret-7")


def test_a_session_policy_takes_away_and_adds_nothing(appliance, role, sts, account, name):
    arn = role(trust(account), policy(allow("secretsmanager:*")))
    only = policy(allow(["secretsmanager:CreateSecret", "kms:ListKeys"]))
    answer = sts.assume_role(RoleArn=arn, RoleSessionName="me", Policy=only)
    assert 0 < answer["PackedPolicySize"] <= 100
    secrets = appliance.client("secretsmanager", credentials=temporary(answer))
    secrets.create_secret(Name=name, SecretString="x")
    code_, text = error_of(secrets.get_secret_value, SecretId=name)
    assert code_ == "AccessDeniedException" and "no session policy allows" in text
    kms = appliance.client("kms", credentials=temporary(answer))
    assert error_of(kms.list_keys)[0] == "AccessDeniedException"


def test_a_managed_policy_bounds_a_session(appliance, iam, role, account, name):
    arn = role(trust(account), policy(allow("secretsmanager:*")))
    made = iam.create_policy(PolicyName=name, PolicyDocument=policy(allow("secretsmanager:List*")))
    credentials = assumed(appliance, arn, PolicyArns=[{"arn": made["Policy"]["Arn"]}])
    secrets = appliance.client("secretsmanager", credentials=credentials)
    secrets.list_secrets(Filters=[{"Key": "name", "Values": ["no-such"]}])
    denied = error_of(secrets.create_secret, Name=name, SecretString="x")
    assert denied[0] == "AccessDeniedException"


def test_session_tags_need_a_right_of_their_own_and_decide(appliance, iam, role, sts, account, name):
    team = {"StringEquals": {"aws:PrincipalTag/team": "blue"}}
    arn = role(trust(account), policy(allow("secretsmanager:ListSecrets", Condition=team)))
    blue, red = ([{"Key": "Team", "Value": value}] for value in ("blue", "red"))
    asked = {"RoleArn": arn, "RoleSessionName": "me", "Tags": blue}
    code_, text = error_of(sts.assume_role, **asked)
    assert code_ == "AccessDenied" and "sts:TagSession" in text
    trusted = trust(account, ["sts:AssumeRole", "sts:TagSession"])
    iam.update_assume_role_policy(RoleName=name, PolicyDocument=trusted)
    for tags, may in ((blue, True), (red, False), ([], False)):
        credentials = assumed(appliance, arn, Tags=tags)
        client = appliance.client("secretsmanager", credentials=credentials)
        if may:
            client.list_secrets(Filters=[{"Key": "name", "Values": ["no-such"]}])
        else:
            assert error_of(client.list_secrets)[0] == "AccessDeniedException"


def test_transitive_tags_and_the_source_identity_pass_from_role_to_role(appliance, iam, account, name):
    actions = ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"]
    may = policy(allow(actions))
    team = {"StringEquals": {"aws:PrincipalTag/team": "blue", "aws:SourceIdentity": "alice"}}
    end = policy(allow("kms:ListKeys", Condition=team))
    arns = []
    for n, allowed in enumerate((may, end)):
        made = iam.create_role(
            RoleName=f"{name}-{n}", AssumeRolePolicyDocument=trust(account, actions)
        )
        iam.put_role_policy(RoleName=f"{name}-{n}", PolicyName="p", PolicyDocument=allowed)
        arns.append(made["Role"]["Arn"])
    tags = [{"Key": "team", "Value": "blue"}, {"Key": "cost", "Value": "7"}]
    more = {"Tags": tags, "TransitiveTagKeys": ["team"], "SourceIdentity": "alice"}
    first = assumed(appliance, arns[0], **more)
    client = appliance.client("sts", credentials=first)
    asked = {"RoleArn": arns[1], "RoleSessionName": "me"}
    answer = client.assume_role(**asked)
    assert answer["SourceIdentity"] == "alice"
    appliance.client("kms", credentials=temporary(answer)).list_keys()
    changed = error_of(client.assume_role, **asked, SourceIdentity="bob")
    assert changed[0] == "AccessDenied"
    again = error_of(client.assume_role, **asked, Tags=[{"Key": "TEAM", "Value": "red"}])
    assert again[0] == "ValidationError"
    code_, text = error_of(client.assume_role, **asked, DurationSeconds=3601)
    assert code_ == "ValidationError" and "role chaining" in text


def test_a_duration_is_bounded_by_the_role(appliance, role, sts, account):
    arn = role(trust(account), MaxSessionDuration=7200)
    asked = {"RoleArn": arn, "RoleSessionName": "me"}
    sts.assume_role(**asked, DurationSeconds=7200)
    text = "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
    assert error_of(sts.assume_role, **asked, DurationSeconds=7201) == ("ValidationError", text)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"RoleSessionName": "a b"}, "ValidationError"),
        ({"RoleSessionName": "x" * 65}, "ValidationError"),
        ({"RoleArn": "arn:aws:iam::000000000000:user/x"}, "ValidationError"),
        ({"RoleArn": "x" * 30}, "ValidationError"),
        ({"ExternalId": "a b"}, "ValidationError"),
        ({"SourceIdentity": "x" * 65}, "ValidationError"),
        ({"Policy": "{}"}, "MalformedPolicyDocument"),
        ({"Policy": "{" * 2000}, "MalformedPolicyDocument"),
        ({"Policy": policy(allow("kms:*")) + " " * 2048}, "PackedPolicyTooLarge"),
        ({"PolicyArns": [{"arn": "arn:aws:iam::aws:policy/NoSuch"}]}, "ValidationError"),
        ({"PolicyArns": [{"arn": "arn:aws:iam::aws:policy/AdministratorAccess"}] * 11}, "ValidationError"),
        ({"Tags": [{"Key": "a", "Value": "b"}, {"Key": "A", "Value": "c"}]}, "ValidationError"),
        ({"Tags": [{"Key": "aws:a", "Value": "b"}]}, "ValidationError"),
        ({"Tags": [{"Key": f"k{n}", "Value": "v"} for n in range(51)]}, "ValidationError"),
        ({"Tags": [{"Key": f"k{n}", "Value": "v" * 256} for n in range(50)]}, "PackedPolicyTooLarge"),
        ({"TransitiveTagKeys": ["nothing"]}, "ValidationError"),
        ({"RoleArn": "arn:aws:iam::elsewhere:role/x"}, "ValidationError"),
        ({"SerialNumber": "arn:aws:iam::000000000000:mfa/x", "TokenCode": "123456"}, "AccessDenied"),
        ({"TokenCode": "1234567"}, "ValidationError"),
    ],
)
def test_what_a_session_can_not_have_is_refused(appliance, role, account, given, expected):
    arn = role(trust(account, ["sts:AssumeRole", "sts:TagSession"]))
    client = appliance.client("sts", validate=False)
    asked = {"RoleArn": arn, "RoleSessionName": "me", **given}
    assert error_of(client.assume_role, **asked)[0] == expected


def test_a_session_ends_with_its_role_even_if_a_new_one_has_its_name(appliance, iam, role, account, name):
    trusted = trust(account)
    arn = role(trusted)
    credentials = assumed(appliance, arn)
    assert form(appliance, caller_identity(), credentials=credentials).status == 200
    iam.delete_role(RoleName=name)
    for _ in range(2):
        answer = form(appliance, caller_identity(), credentials=credentials)
        assert code(answer)[0] == "InvalidClientTokenId"
        iam.get_paginator("list_roles")
        if name not in [made["RoleName"] for made in iam.list_roles()["Roles"]]:
            iam.create_role(RoleName=name, AssumeRolePolicyDocument=trusted)


def test_sessions_that_are_older_than_a_moment_are_denied_by_a_policy(appliance, iam, role, account, name):
    arn = role(trust(account), policy(allow("kms:ListKeys")))
    kms = appliance.client("kms", credentials=assumed(appliance, arn))
    kms.list_keys()
    later = (datetime.now(UTC) + timedelta(seconds=60)).strftime("%Y-%m-%dT%H:%M:%SZ")
    older = {"DateLessThan": {"aws:TokenIssueTime": later}}
    deny = {"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": older}
    iam.put_role_policy(RoleName=name, PolicyName="AWSRevokeOlderSessions", PolicyDocument=policy(deny))
    code_, text = error_of(kms.list_keys)
    assert code_ == "AccessDeniedException" and "explicit deny in an identity-based policy" in text


def test_a_users_session_outlives_its_access_key_and_not_the_user(appliance, iam, user):
    user_name, credentials = user()
    session = temporary(appliance.client("sts", credentials=credentials).get_session_token())
    iam.update_access_key(UserName=user_name, AccessKeyId=credentials.access_key, Status="Inactive")
    assert code(form(appliance, caller_identity(), credentials=credentials))[0] == "InvalidClientTokenId"
    assert form(appliance, caller_identity(), credentials=session).status == 200
    iam.delete_access_key(UserName=user_name, AccessKeyId=credentials.access_key)
    iam.delete_user(UserName=user_name)
    assert code(form(appliance, caller_identity(), credentials=session))[0] == "InvalidClientTokenId"


def test_a_profile_of_the_cli_assumes_a_role(appliance, role, user, account, tmp_path):
    arn = role(trust(account), policy(allow("secretsmanager:ListSecrets")))
    _, credentials = user(policy(allow("sts:AssumeRole")))
    config = tmp_path / "config"
    config.write_text(
        f"[profile app]\nrole_arn = {arn}\nsource_profile = base\nregion = {appliance.region}\n"
        f"[profile base]\naws_access_key_id = {credentials.access_key}\n"
        f"aws_secret_access_key = {credentials.secret_key}\n"
    )
    environment = {
        "PATH": os.environ["PATH"],
        "AWS_CONFIG_FILE": str(config),
        "AWS_ENDPOINT_URL": appliance.endpoint,
        "AWS_EC2_METADATA_DISABLED": "true",
        "HOME": str(tmp_path),
    }
    command = [Path(sys.executable).parent / "aws", "--profile", "app", "--output", "json"]
    for words, good in ((["secretsmanager", "list-secrets"], True), (["kms", "list-keys"], False)):
        ran = subprocess.run([*command, *words], env=environment, capture_output=True, text=True, timeout=60)
        assert (ran.returncode == 0) == good, ran.stderr


def test_why_a_request_was_refused_is_told_to_who_may_know(appliance, sts, user):
    user_name, credentials = user(policy({"Sid": "NoKeys", "Effect": "Deny", "Action": "kms:*", "Resource": "*"}))
    answer = appliance.raw("TrentService.ListKeys", {}, credentials=credentials)
    assert answer.code == "AccessDeniedException"
    message = answer.headers["x-strongroom-authorization-message"]
    told = json.loads(sts.decode_authorization_message(EncodedMessage=message)["DecodedMessage"])
    assert (told["allowed"], told["explicitDeny"]) == (False, True)
    assert told["matchedStatements"]["items"][0]["statementId"] == "NoKeys"
    assert told["context"]["action"] == "kms:ListKeys"
    assert told["context"]["principal"]["arn"].endswith(f":user/{user_name}")
    conditions = told["context"]["conditions"]["items"]
    values = {item["key"]: item["values"]["items"][0]["value"] for item in conditions}
    assert values["aws:SourceIp"] == "127.0.0.1"
    assert values["aws:username"] == user_name
    assert user_name not in message
    client = appliance.client("sts", credentials=credentials)
    asked = {"EncodedMessage": message}
    assert error_of(client.decode_authorization_message, **asked)[0] == "AccessDenied"
    for bad in ("x", message[:-8], "A" + message[1:] if message[0] != "A" else "B" + message[1:]):
        code_, _ = error_of(sts.decode_authorization_message, EncodedMessage=bad)
        assert code_ == "InvalidAuthorizationMessageException"
    allowed = appliance.raw("TrentService.ListKeys", {})
    assert "x-strongroom-authorization-message" not in allowed.headers


def test_one_session_is_ended_from_the_next_request_on_and_no_other(appliance, sts, user):
    ended, other = (temporary(sts.get_session_token()) for _ in range(2))
    _, nobody = user()
    path = f"/sts/sessions/{ended.access_key}"
    assert form(appliance, caller_identity(), credentials=ended).status == 200
    may_not = appliance.rest("DELETE", path, signing="sts", credentials=nobody)
    assert (may_not.status, may_not.json["title"]) == (403, "AccessDenied")
    assert appliance.rest("DELETE", path, signing="sts").status == 200
    answer = form(appliance, caller_identity(), credentials=ended)
    assert (answer.status, code(answer)[0]) == (403, "ExpiredToken")
    answer = appliance.raw("TrentService.ListKeys", {}, credentials=ended)
    assert (answer.status, answer.code) == (400, "ExpiredTokenException")
    assert form(appliance, caller_identity(), credentials=other).status == 200
    for foreign in ("ASIAAAAAAAABAAAAAAAA", appliance.credentials.access_key):
        answer = appliance.rest("DELETE", f"/sts/sessions/{foreign}", signing="sts")
        assert (answer.status, answer.json["title"]) == (400, "ValidationError")
