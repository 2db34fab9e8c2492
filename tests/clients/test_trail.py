"""Events of the audit log looked up as with CloudTrail, and what decided a request."""

import json
import os
import subprocess
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from conftest import ROOT, Appliance

# How far the index may be behind the log, and a change's record behind its answer, on a busy machine.
LAG_SECONDS = 20

TARGETS = ["CloudTrail_20131101", "com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101"]
NOBODY = "11111111-2222-4333-8444-555555555555"


@pytest.fixture(scope="module")
def appliance(tmp_path_factory):
    """An appliance of this file's own, so that its audit log is short."""
    running = Appliance(tmp_path_factory.mktemp("trail"))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def secret(appliance):
    """A secret that was made, read twice and once not found."""
    made = appliance.raw("secretsmanager.CreateSecret", {
        "Name": "trail/demo", "SecretString": "x", "ClientRequestToken": NOBODY,
    }).json["ARN"]
    for name in [made, made, "no-such-secret"]:
        appliance.raw("secretsmanager.GetSecretValue", {"SecretId": name})
    return made


def lookup(appliance, key=None, value=None, **more):
    """The events that the AWS CLI finds."""
    arguments = ["cloudtrail", "lookup-events"]
    if key:
        arguments += ["--lookup-attributes", f"AttributeKey={key},AttributeValue={value}"]
    for name, given in more.items():
        arguments += [f"--{name.replace('_', '-')}", given]
    ran = appliance.aws(*arguments)
    assert ran.code == 0, ran.err
    return ran.out["Events"]


def soon(look):
    """What `look` answers once it is not empty; the index follows the log."""
    deadline = time.monotonic() + LAG_SECONDS
    while not (found := look()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def records(appliance):
    """The audit log's records."""
    (path,) = appliance.directory.rglob("audit.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def strongroom(appliance, *arguments, **environment):
    """Runs a command of the command line as the appliance's administrator."""
    given = appliance.credentials.get_frozen_credentials()
    binary = ROOT / Path(os.environ.get("STRONGROOM_BIN", "target/debug/strongroom"))
    return subprocess.run(
        [binary, *map(str, arguments)],
        env={
            "AWS_ACCESS_KEY_ID": given.access_key,
            "AWS_SECRET_ACCESS_KEY": given.secret_key,
            "AWS_ENDPOINT_URL": appliance.endpoint,
            "AWS_REGION": appliance.region,
        } | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("EventName", "GetSecretValue"),
        ("ReadOnly", "false"),
        ("Username", "administrator"),
        ("ResourceType", "AWS::SecretsManager::Secret"),
        ("ResourceName", "{secret}"),
        ("EventSource", "secretsmanager.amazonaws.com"),
        ("AccessKeyId", "{key}"),
    ],
)
def test_each_attribute_finds_the_events_that_the_log_has(appliance, secret, key, value):
    value = value.format(secret=secret, key=appliance.credentials.access_key)
    speaks = {
        "EventName": lambda r: r["eventName"] == value,
        "ReadOnly": lambda r: json.dumps(r["readOnly"]) == value,
        "Username": lambda r: r["userIdentity"].get("userName") == value,
        "ResourceType": lambda r: any(x.get("type") == value for x in r.get("resources", [])),
        "ResourceName": lambda r: any(x["ARN"] == value for x in r.get("resources", [])),
        "EventSource": lambda r: r["eventSource"] == value,
        "AccessKeyId": lambda r: r["userIdentity"].get("accessKeyId") == value,
    }[key]
    wanted = {r["eventID"] for r in records(appliance) if speaks(r)}
    assert wanted

    def look():
        found = {event["EventId"] for event in lookup(appliance, key, value)}
        return found if wanted <= found else None

    found = soon(look)
    assert found, "the index did not follow the log"
    known = {r["eventID"] for r in records(appliance) if speaks(r)}
    assert found <= known


def test_an_event_is_what_its_record_says(appliance, secret):
    made = soon(lambda: lookup(appliance, "EventName", "CreateSecret"))[0]
    record = json.loads(made["CloudTrailEvent"])
    assert record in records(appliance)
    assert made["EventId"] == record["eventID"]
    assert made["ReadOnly"] == "false"
    assert made["AccessKeyId"] == appliance.credentials.access_key
    assert made["Username"] == "administrator"
    assert made["EventSource"] == "secretsmanager.amazonaws.com"
    assert made["Resources"] == [
        {"ResourceType": "AWS::SecretsManager::Secret", "ResourceName": secret}
    ]
    (again,) = lookup(appliance, "EventId", made["EventId"])
    assert again == made
    assert lookup(appliance, "EventId", NOBODY) == []
    assert lookup(appliance, "ResourceName", secret.rpartition(":")[2]), "by its name as well"


def test_pages_follow_each_other_newest_first_and_leave_nothing_out(appliance, secret):
    client = appliance.client("cloudtrail")
    end = datetime.now(timezone.utc) - timedelta(seconds=1)
    soon(lambda: len(lookup(appliance, "EventName", "GetSecretValue")) >= 3)
    pages = client.get_paginator("lookup_events").paginate(
        EndTime=end, PaginationConfig={"PageSize": 2}
    )
    events = [event for page in pages for event in page["Events"]]
    assert all(len(page["Events"]) <= 2 for page in pages)
    times = [event["EventTime"] for event in events]
    assert times == sorted(times, reverse=True)
    ids = [event["EventId"] for event in events]
    assert len(set(ids)) == len(ids)
    last = int(end.timestamp()) + 1
    due = {
        r["eventID"] for r in records(appliance)
        if "recipientAccountId" in r
        and datetime.fromisoformat(r["eventTime"]).timestamp() < last
    }
    assert due <= set(ids)


def test_a_time_range_counts_the_seconds_at_both_ends(appliance, secret):
    event = soon(lambda: lookup(appliance, "EventName", "CreateSecret"))[0]
    second = int(event["EventTime"])
    within = lookup(appliance, "EventName", "CreateSecret", start_time=second, end_time=second)
    assert [found["EventId"] for found in within] == [event["EventId"]]
    assert lookup(appliance, "EventName", "CreateSecret", end_time=second - 1) == []
    assert lookup(appliance, "EventName", "CreateSecret", start_time=second + 1) == []


def test_there_are_no_insight_events(appliance, secret):
    assert lookup(appliance, event_category="insight") == []


@pytest.mark.parametrize("prefix", TARGETS)
def test_both_targets_are_the_same_operation(appliance, prefix):
    answer = appliance.raw(f"{prefix}.LookupEvents", {}, signing="cloudtrail", check=False)
    assert answer.status == 200, answer


EVENT_NAME = {"AttributeKey": "EventName", "AttributeValue": "x"}


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"LookupAttributes": [EVENT_NAME, EVENT_NAME]}, "InvalidLookupAttributesException"),
        (
            {"LookupAttributes": [EVENT_NAME | {"AttributeKey": "Colour"}]},
            "InvalidLookupAttributesException",
        ),
        (
            {"LookupAttributes": [EVENT_NAME | {"AttributeValue": ""}]},
            "InvalidLookupAttributesException",
        ),
        (
            {"LookupAttributes": [EVENT_NAME | {"AttributeValue": "x" * 2001}]},
            "InvalidLookupAttributesException",
        ),
        ({"LookupAttributes": [{"AttributeKey": "EventName"}]}, "ValidationException"),
        ({"StartTime": 2, "EndTime": 1}, "InvalidTimeRangeException"),
        ({"StartTime": -1}, "InvalidTimeRangeException"),
        ({"EndTime": 1e300}, "InvalidTimeRangeException"),
        ({"StartTime": "yesterday"}, "SerializationException"),
        ({"MaxResults": 0}, "InvalidMaxResultsException"),
        ({"MaxResults": 51}, "InvalidMaxResultsException"),
        ({"NextToken": "bm9uc2Vuc2U"}, "InvalidNextTokenException"),
        ({"EventCategory": "Data"}, "InvalidEventCategoryException"),
    ],
)
def test_bad_input_has_cloudtrail_s_own_codes(appliance, given, code):
    answer = appliance.raw("CloudTrail_20131101.LookupEvents", given)
    assert (answer.status, answer.code) == (400, code)


def test_a_page_token_is_good_for_its_own_question_alone(appliance, secret):
    target = "CloudTrail_20131101.LookupEvents"
    question = {"LookupAttributes": [EVENT_NAME | {"AttributeValue": "GetSecretValue"}]}
    soon(lambda: len(lookup(appliance, "EventName", "GetSecretValue")) >= 3)
    token = appliance.raw(target, question | {"MaxResults": 1}).json["NextToken"]
    start = {"StartTime": int(time.time()) - 86400}
    for other in [{}, question | start]:
        answer = appliance.raw(target, other | {"NextToken": token})
        assert answer.code == "InvalidNextTokenException"
    assert appliance.raw(target, question | {"NextToken": token}).status == 200


def test_an_index_that_is_lost_or_damaged_is_made_anew(own_appliance):
    running = own_appliance()
    running.raw("TrentService.CreateKey", {})
    assert soon(lambda: lookup(running, "EventName", "CreateKey"))
    running.stop()
    (index,) = running.directory.rglob("audit-index.sqlite")
    assert index.stat().st_mode & 0o777 == 0o600
    index.write_bytes(b"no database at all" * 1000)
    running.start()
    assert len(soon(lambda: lookup(running, "Username", "administrator"))) >= 1
    found = {event["EventId"] for event in soon(lambda: lookup(running, "EventName", "CreateKey"))}
    assert found == {r["eventID"] for r in records(running) if r["eventName"] == "CreateKey"}


def test_look_ups_can_be_switched_off(own_appliance):
    running = own_appliance()
    running.stop()
    (file,) = running.directory.rglob("strongroom.toml")
    file.write_text(file.read_text().replace("# lookup = true", "lookup = false"))
    for index in running.directory.rglob("audit-index.sqlite*"):
        index.unlink()
    running.start()
    answer = running.raw("CloudTrail_20131101.LookupEvents", {})
    assert answer.code == "UnsupportedOperationException"
    assert not list(running.directory.rglob("audit-index.sqlite*"))
    ran = strongroom(running, "policy", "explain", NOBODY)
    assert ran.returncode == 1
    assert "switched off" in ran.stderr


def test_a_request_is_explained_down_to_the_statement(appliance, secret):
    answer = appliance.raw("secretsmanager.GetSecretValue", {"SecretId": secret})
    request = answer.headers["x-amzn-requestid"]
    ran = strongroom(appliance, "policy", "explain", request, "--json")
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert told["RequestId"] == request
    assert told["Outcome"] == "Done"
    assert told["Principal"]["Arn"].endswith(":user/administrator")
    (decision,) = told["Decisions"]
    assert decision["Action"] == "secretsmanager:GetSecretValue"
    assert decision["Resource"] == secret
    assert decision["Effect"] == "Allow"
    assert decision["Policy"] == "arn:aws:iam::aws:policy/AdministratorAccess"
    assert decision["StatementNumber"] == 1
    (now,) = decision["Now"]
    assert now["State"] == "Unchanged"
    assert now["Statement"] == {"Effect": "Allow", "Action": "*", "Resource": "*"}
    text = strongroom(appliance, "policy", "explain", request).stdout
    assert "1. ALLOWED  secretsmanager:GetSecretValue" in text
    assert "by statement 1 of the identity-based policy" in text


def test_a_denial_by_a_key_policy_is_explained_and_its_later_change_is_told(appliance):
    key = appliance.raw("TrentService.CreateKey", {}).json["KeyMetadata"]
    account = {"AWS": f"arn:aws:iam::{appliance.account_id}:root"}
    allow = {"Effect": "Allow", "Principal": account, "Action": "kms:*", "Resource": "*"}
    deny = {"Sid": "NoMore", "Effect": "Deny", "Principal": "*", "Action": "kms:Encrypt",
            "Resource": "*"}

    def put(*statements):
        policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
        given = {"KeyId": key["KeyId"], "Policy": policy, "PolicyName": "default"}
        assert appliance.raw("TrentService.PutKeyPolicy", given).status == 200

    put(allow, deny)
    answer = appliance.raw("TrentService.Encrypt", {"KeyId": key["KeyId"], "Plaintext": "eA=="})
    assert answer.code == "AccessDeniedException"
    request = answer.headers["x-amzn-requestid"]

    def explained():
        ran = strongroom(appliance, "policy", "explain", request, "--json")
        assert ran.returncode == 0, ran.stderr
        told = json.loads(ran.stdout)
        assert told["Outcome"] == "Denied"
        (decision,) = told["Decisions"]
        assert decision["Effect"] == "ExplicitDeny"
        assert decision["Kind"] == "resource-based policy"
        assert (decision["StatementNumber"], decision["Sid"]) == (2, "NoMore")
        (now,) = decision["Now"]
        assert now["Holder"] == key["Arn"]
        return now

    now = explained()
    assert now["Statement"] == deny
    time.sleep(0.01)
    put(allow, deny | {"Sid": "Other"})
    soon(lambda: explained()["State"] != "Unchanged")
    now = explained()
    assert (now["State"], now["Statement"]["Sid"]) == ("Changed", "Other")
    assert now["LastChange"]["EventName"] == "PutKeyPolicy"
    put(allow)
    soon(lambda: explained()["State"] == "Gone")
    assert "Statement" not in explained()


def test_a_request_is_explained_from_a_copied_log_without_a_server(appliance, secret, tmp_path):
    answer = appliance.raw("secretsmanager.GetSecretValue", {"SecretId": secret})
    request = answer.headers["x-amzn-requestid"]
    (path,) = appliance.directory.rglob("audit.jsonl")
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(path.read_bytes())
    offline = {"AWS_ENDPOINT_URL": "", "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    ran = strongroom(appliance, "policy", "explain", request, "--log", copy, "--json", **offline)
    assert ran.returncode == 0, ran.stderr
    (decision,) = json.loads(ran.stdout)["Decisions"]
    assert decision["StatementNumber"] == 1
    assert "Now" not in decision


def test_a_request_that_got_no_further_than_the_door_is_explained_as_that(appliance):
    answer = appliance.post(b"{}", {
        "X-Amz-Target": "TrentService.ListKeys", "Content-Type": "application/x-amz-json-1.1",
    })
    ran = strongroom(appliance, "policy", "explain", answer.headers["x-amzn-requestid"])
    assert ran.returncode == 0, ran.stderr
    assert "not proved" in ran.stdout
    assert "refused before any policy was asked (MissingAuthenticationTokenException)" in ran.stdout


@pytest.mark.parametrize(
    ("arguments", "environment", "text"),
    [
        ([NOBODY], {}, "NoSuchEntity"),
        (["nonsense"], {}, "is no id of a request"),
        ([NOBODY, "--log", "/nonexistent"], {}, "/nonexistent"),
        ([NOBODY], {"AWS_ENDPOINT_URL": ""}, "--endpoint-url"),
        ([NOBODY], {"AWS_ENDPOINT_URL": "ftp://x"}, "no URL"),
        ([NOBODY], {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "127.0.0.1:1"),
        ([NOBODY], {"AWS_ENDPOINT_URL": "https://127.0.0.1:1"}, "AWS_CA_BUNDLE"),
        ([NOBODY], {"AWS_REGION": ""}, "--region"),
        ([NOBODY], {"AWS_ACCESS_KEY_ID": ""}, "AWS_ACCESS_KEY_ID"),
        ([NOBODY], {"AWS_SECRET_ACCESS_KEY": "wrong"}, "SignatureDoesNotMatch"),
    ],
)
def test_what_can_t_be_explained_is_said_in_one_sentence(appliance, arguments, environment, text):
    ran = strongroom(appliance, "policy", "explain", *arguments, **environment)
    assert ran.returncode == 1
    assert ran.stdout == ""
    assert ran.stderr.startswith("strongroom: ")
    assert ran.stderr.count("\n") == 1
    assert text in ran.stderr
