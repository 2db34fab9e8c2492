"""Recorded requests judged by a policy that is only proposed."""

import json
import time
import uuid

import pytest

from conftest import Appliance
from operations import target_of
from test_authorization import Person, document, statement
from test_trail import records, soon, strongroom


@pytest.fixture(scope="module")
def appliance(tmp_path_factory):
    """An appliance of this file's own, so that its audit log is short."""
    running = Appliance(tmp_path_factory.mktemp("replay"))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def iam(appliance):
    return appliance.client("iam")


@pytest.fixture
def person(appliance, iam):
    return Person(appliance, iam)


def secret(appliance, **more):
    """The ARN of a new secret."""
    given = {"Name": f"replay-{uuid.uuid4()}", "SecretString": "x", **more}
    given["ClientRequestToken"] = str(uuid.uuid4())
    return appliance.raw("secretsmanager.CreateSecret", given).json["ARN"]


def settled(appliance):
    """Waits until the log has all that was answered and the index all that is in the log."""
    answer = appliance.raw("TrentService.ListKeys", {})
    request = answer.headers["x-amzn-requestid"]
    ran = strongroom(appliance, "policy", "explain", request)
    assert ran.returncode == 0, ran.stderr
    # A change's record is moved from the database to the log.
    time.sleep(0.3)
    ran = strongroom(appliance, "policy", "explain", request)
    assert ran.returncode == 0, ran.stderr


def replay(appliance, tmp_path, policy, *place, code=0):
    """What the command line says of a proposed policy."""
    settled(appliance)
    file = tmp_path / f"{uuid.uuid4()}.json"
    file.write_text(policy)
    arguments = ["policy", "replay", "--policy-document", file, "--json", *place]
    ran = strongroom(appliance, *arguments)
    assert ran.returncode == code, ran.stderr
    return json.loads(ran.stdout) if code == 0 else ran.stderr


def groups(found, principal):
    """Action, resource and count of each group of this principal."""
    return {(g["Action"], g["Resource"], g["Count"]) for g in found
            if g["PrincipalArn"] == principal}


def test_what_a_user_s_policy_would_change_is_listed_and_nothing_is_done(
    appliance, person, tmp_path
):
    mine, other = secret(appliance), secret(appliance)
    person.may(statement(action="secretsmanager:GetSecretValue"))
    read = [person.raw("secretsmanager", "GetSecretValue", {"SecretId": arn})
            for arn in (mine, other, other)]
    assert [answer.status for answer in read] == [200, 200, 200]
    denied = person.raw("secretsmanager", "DescribeSecret", {"SecretId": mine})
    assert denied.code == "AccessDeniedException"
    settled(appliance)
    before = len(records(appliance))
    proposed = document(statement(action="secretsmanager:*", resource=mine))
    told = replay(appliance, tmp_path, proposed, "--user", person.name, "--policy-name", "p")
    assert groups(told["NewlyDenied"], person.arn) == {
        ("secretsmanager:GetSecretValue", other, 2)
    }
    assert groups(told["NewlyAllowed"], person.arn) == {
        ("secretsmanager:DescribeSecret", mine, 1)
    }
    assert told["NotJudged"] == []
    assert told["Decisions"] == 4
    (fails,) = told["NewlyDenied"]
    assert fails["Reason"] == (
        "because no identity-based policy allows the secretsmanager:GetSecretValue action"
    )
    assert fails["ExampleRequestId"] == read[2].headers["x-amzn-requestid"], "the newest"
    settled(appliance)
    made = records(appliance)[before:]
    assert [r["eventName"] for r in made].count("ReplayPolicy") == 1
    assert {r["eventName"] for r in made} <= {"ReplayPolicy", "ListKeys", "ExplainRequest"}
    assert person.raw("secretsmanager", "GetSecretValue", {"SecretId": other}).status == 200


def test_the_same_policy_changes_nothing(appliance, person, tmp_path):
    policy = statement(action="secretsmanager:GetSecretValue")
    person.may(policy)
    person.raw("secretsmanager", "GetSecretValue", {"SecretId": secret(appliance)})
    place = ["--user", person.name, "--policy-name", "p"]
    told = replay(appliance, tmp_path, document(policy), *place)
    assert (told["NewlyDenied"], told["NewlyAllowed"], told["NotJudged"]) == ([], [], [])


def test_a_new_inline_policy_comes_on_top_of_the_others(appliance, person, tmp_path):
    arn = secret(appliance)
    person.may(statement(action="secretsmanager:GetSecretValue"))
    person.raw("secretsmanager", "GetSecretValue", {"SecretId": arn})
    deny = document(statement("Deny", "secretsmanager:Get*"))
    told = replay(appliance, tmp_path, deny, "--user", person.name, "--policy-name", "new")
    assert groups(told["NewlyDenied"], person.arn) == {("secretsmanager:GetSecretValue", arn, 1)}
    assert "explicit deny" in told["NewlyDenied"][0]["Reason"]


def test_conditions_are_judged_by_what_the_record_holds_of_the_input(
    appliance, person, tmp_path
):
    key = appliance.raw("TrentService.CreateKey", {}).json["KeyMetadata"]
    person.may(statement(action="kms:Encrypt"))
    for context in ({"App": "web"}, {"App": "batch"}, {"App": "batch"}):
        given = {"KeyId": key["KeyId"], "Plaintext": "eA==", "EncryptionContext": context}
        assert person.raw("kms", "Encrypt", given).status == 200
    proposed = document(statement(
        action="kms:Encrypt",
        Condition={"StringEquals": {"kms:EncryptionContext:App": "web"},
                   "IpAddress": {"aws:SourceIp": "127.0.0.0/8"}},
    ))
    told = replay(appliance, tmp_path, proposed, "--user", person.name, "--policy-name", "p")
    assert groups(told["NewlyDenied"], person.arn) == {("kms:Encrypt", key["Arn"], 2)}
    assert told["NotJudged"] == []


def test_a_key_s_policy_is_judged_for_what_secrets_manager_did_with_it(
    appliance, person, tmp_path
):
    key = appliance.raw("TrentService.CreateKey", {}).json["KeyMetadata"]
    arn = secret(appliance, KmsKeyId=key["KeyId"])
    person.may(statement(action=["secretsmanager:GetSecretValue", "kms:Decrypt"]))
    assert person.raw("secretsmanager", "GetSecretValue", {"SecretId": arn}).status == 200
    root = {"AWS": f"arn:aws:iam::{appliance.account_id}:root"}
    allow = statement(action="kms:*", Principal=root)

    def proposed(key_name, value):
        condition = {"StringEquals": {key_name: value}}
        deny = statement("Deny", "kms:Decrypt", Principal={"AWS": person.arn}, Condition=condition)
        return document(allow, deny)

    via = f"secretsmanager.{appliance.region}.amazonaws.com"
    for name, value in [("kms:ViaService", via), ("kms:EncryptionContext:SecretARN", arn)]:
        told = replay(appliance, tmp_path, proposed(name, value), "--key-id", key["KeyId"])
        assert groups(told["NewlyDenied"], person.arn) == {("kms:Decrypt", key["Arn"], 1)}, name
    version = "kms:EncryptionContext:SecretVersionId"
    told = replay(appliance, tmp_path, proposed(version, "x"), "--key-id", key["Arn"])
    assert groups(told["NewlyDenied"], person.arn) == set()
    assert groups(told["NotJudged"], person.arn) == {("kms:Decrypt", key["Arn"], 1)}
    assert "kms:encryptioncontext:secretversionid" in told["NotJudged"][0]["Reason"]


def test_a_secret_s_policy_is_judged(appliance, person, tmp_path):
    arn = secret(appliance)
    person.may(statement(action="secretsmanager:DescribeSecret"))
    denied = person.raw("secretsmanager", "GetSecretValue", {"SecretId": arn})
    assert denied.code == "AccessDeniedException"
    proposed = document(
        statement(action="secretsmanager:GetSecretValue", Principal={"AWS": person.arn})
    )
    told = replay(appliance, tmp_path, proposed, "--secret-id", arn)
    assert groups(told["NewlyAllowed"], person.arn) == {
        ("secretsmanager:GetSecretValue", arn, 1)
    }


def test_group_and_managed_policies_count_for_whoever_has_them(
    appliance, iam, person, tmp_path
):
    arn = secret(appliance)
    group, policy = f"group-{uuid.uuid4()}", f"policy-{uuid.uuid4()}"
    iam.create_group(GroupName=group)
    iam.add_user_to_group(GroupName=group, UserName=person.name)
    read = document(statement(action="secretsmanager:GetSecretValue"))
    managed = iam.create_policy(PolicyName=policy, PolicyDocument=read)["Policy"]["Arn"]
    iam.attach_group_policy(GroupName=group, PolicyArn=managed)
    assert person.raw("secretsmanager", "GetSecretValue", {"SecretId": arn}).status == 200
    nothing = document(statement(action="kms:ListKeys"))
    told = replay(appliance, tmp_path, nothing, "--policy-arn", managed)
    assert groups(told["NewlyDenied"], person.arn) == {("secretsmanager:GetSecretValue", arn, 1)}
    deny = document(statement("Deny", "secretsmanager:*"))
    told = replay(appliance, tmp_path, deny, "--group", group, "--policy-name", "limits")
    assert groups(told["NewlyDenied"], person.arn) == {("secretsmanager:GetSecretValue", arn, 1)}


def test_a_session_s_denials_are_judged_and_its_allowances_are_not_guessed(
    appliance, iam, tmp_path
):
    arn, role = secret(appliance), f"role-{uuid.uuid4()}"
    account = {"AWS": f"arn:aws:iam::{appliance.account_id}:root"}
    trust = json.dumps({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Principal": account, "Action": "sts:AssumeRole"},
    ]})
    made = iam.create_role(RoleName=role, AssumeRolePolicyDocument=trust)["Role"]
    read = document(statement(action="secretsmanager:GetSecretValue"))
    iam.put_role_policy(RoleName=role, PolicyName="p", PolicyDocument=read)
    given = appliance.client("sts").assume_role(RoleArn=made["Arn"], RoleSessionName="s1")
    given = given["Credentials"]
    from botocore.credentials import Credentials

    session = Credentials(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])
    for operation in ("GetSecretValue", "DescribeSecret"):
        target = target_of("secretsmanager", operation)
        appliance.raw(target, {"SecretId": arn}, credentials=session)
    proposed = document(statement(action="secretsmanager:DescribeSecret"))
    told = replay(appliance, tmp_path, proposed, "--role", role, "--policy-name", "p")
    assert groups(told["NewlyDenied"], made["Arn"]) == {("secretsmanager:GetSecretValue", arn, 1)}
    assert groups(told["NewlyAllowed"], made["Arn"]) == set()
    assert groups(told["NotJudged"], made["Arn"]) == {("secretsmanager:DescribeSecret", arn, 1)}


def test_what_is_gone_is_not_judged(appliance, iam, person, tmp_path):
    leaver = Person(appliance, iam)
    policy = iam.create_policy(
        PolicyName=f"policy-{uuid.uuid4()}",
        PolicyDocument=document(statement(action="secretsmanager:GetSecretValue")),
    )["Policy"]["Arn"]
    arn = secret(appliance)
    for one in (leaver, person):
        iam.attach_user_policy(UserName=one.name, PolicyArn=policy)
        assert one.raw("secretsmanager", "GetSecretValue", {"SecretId": arn}).status == 200
    iam.detach_user_policy(UserName=leaver.name, PolicyArn=policy)
    for key in iam.list_access_keys(UserName=leaver.name)["AccessKeyMetadata"]:
        iam.delete_access_key(UserName=leaver.name, AccessKeyId=key["AccessKeyId"])
    iam.delete_user(UserName=leaver.name)
    nothing = document(statement(action="kms:ListKeys"))
    told = replay(appliance, tmp_path, nothing, "--policy-arn", policy)
    assert groups(told["NewlyDenied"], person.arn) == {("secretsmanager:GetSecretValue", arn, 1)}
    (gone,) = [g for g in told["NotJudged"] if g["PrincipalArn"] == leaver.arn]
    assert gone["Reason"] == "the caller is no longer there"


def test_pages_add_up_to_the_whole_and_a_token_is_good_for_its_own_replay(
    appliance, person, tmp_path
):
    arn = secret(appliance)
    person.may(statement(action="secretsmanager:GetSecretValue"))
    for _ in range(5):
        person.raw("secretsmanager", "GetSecretValue", {"SecretId": arn})
    settled(appliance)
    given = {
        "PolicyDocument": document(statement(action="kms:ListKeys")),
        "UserName": person.name,
        "PolicyName": "p",
        "MaxRecords": 2,
    }
    counts, token, path = [], None, "/audit/requests:replay"
    while token or not counts:
        more = {"NextToken": token} if token else {}
        answer = appliance.rest("POST", path, given | more, signing="iam")
        assert answer.status == 200, answer
        page = answer.json
        counts.append(sum(g["Count"] for g in page["NewlyDenied"]))
        token, last = page.get("NextToken"), token
    assert counts[:3] == [2, 2, 1]
    other = given | {"PolicyDocument": document(statement()), "NextToken": last}
    answer = appliance.rest("POST", path, other, signing="iam")
    assert (answer.status, answer.json["title"]) == (400, "ValidationError")


@pytest.mark.parametrize(
    ("policy", "place", "text"),
    [
        ("{", ["--user", "administrator", "--policy-name", "p"], "MalformedPolicyDocument"),
        (document(statement(Principal="*")), ["--user", "administrator", "--policy-name", "p"],
         "MalformedPolicyDocument"),
        (document(statement()), ["--user", "nobody", "--policy-name", "p"], "NoSuchEntity"),
        (document(statement()), ["--secret-id", "nothing"], "NoSuchEntity"),
        (document(statement()), ["--key-id", str(uuid.uuid4())], "NoSuchEntity"),
        (document(statement()), ["--policy-arn", "arn:aws:iam::000000000000:policy/none"],
         "NoSuchEntity"),
    ],
)
def test_a_proposal_that_is_none_is_refused(appliance, tmp_path, policy, place, text):
    told = replay(appliance, tmp_path, policy, *place, code=1)
    assert text in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"UserName": "administrator"},
        {"PolicyName": "p"},
        {"KeyId": "alias/aws/secretsmanager", "SecretId": "x"},
    ],
)
def test_a_proposal_must_name_one_thing(appliance, given):
    body = given | {"PolicyDocument": document(statement())}
    answer = appliance.rest("POST", "/audit/requests:replay", body, signing="iam")
    assert (answer.status, answer.json["title"]) == (400, "InvalidInput")


@pytest.mark.parametrize(
    "given", [{"Days": 0}, {"Days": 91}, {"MaxRecords": 0}, {"MaxRecords": 10_001}]
)
def test_a_replay_has_bounds(appliance, given):
    body = {"PolicyDocument": document(statement()), "UserName": "administrator",
            "PolicyName": "p"}
    answer = appliance.rest("POST", "/audit/requests:replay", body | given, signing="iam")
    assert (answer.status, answer.json["title"]) == (400, "ValidationError")


def test_looking_up_explaining_and_replaying_need_rights_of_their_own(appliance, person, tmp_path):
    person.may(statement(action="kms:*"))
    key = person.credentials
    answer = person.raw("cloudtrail", "LookupEvents", {})
    assert answer.code == "AccessDeniedException"
    file = tmp_path / "policy.json"
    file.write_text(document(statement()))
    as_person = {"AWS_ACCESS_KEY_ID": key.access_key, "AWS_SECRET_ACCESS_KEY": key.secret_key}
    place = ["--user", person.name, "--policy-name", "p"]
    for action, arguments in [
        ("iam:ExplainRequest", ["explain", answer.headers["x-amzn-requestid"]]),
        ("iam:ReplayPolicy", ["replay", "--policy-document", file, *place]),
    ]:
        ran = strongroom(appliance, "policy", *arguments, **as_person)
        assert ran.returncode == 1
        assert f"not authorized to perform: {action}" in ran.stderr
        person.may(statement(action=action))
        soon(lambda: strongroom(appliance, "policy", *arguments, **as_person).returncode == 0)
        assert strongroom(appliance, "policy", *arguments, **as_person).returncode == 0
        person.may(statement(action="kms:*"))
