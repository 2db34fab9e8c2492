"""Every promised operation is there, at both doors, behind a signature, and in the audit log."""

import json
import re
import time

import pytest
from botocore.credentials import Credentials

from conftest import MODELS
from inputs import good_input, meaningful
from operations import OPERATIONS, OWN_OPERATIONS, QUERY_OPERATIONS, target_of
from two_tokens import with_two_tokens

# How long a change's record may take from the database to the log.
SETTLE_SECONDS = 10

OTHER_SERVICE = {"kms": "secretsmanager", "secretsmanager": "kms", "cloudtrail": "kms"}

# Refusals before it is known who calls.
UNPROVED = {
    "InvalidSignatureException",
    "MissingAuthenticationTokenException",
    "UnrecognizedClientException",
}

# An operation whose name begins otherwise changes something.
READS = ("BatchGet", "Decrypt", "Describe", "Encrypt", "Generate", "Get", "List", "ReEncrypt")
READS += ("Lookup", "Validate")

# What must have happened before.
FIRST = {
    # The token is in another custom key store.
    "CreateCustomKeyStore": ["DeleteCustomKeyStore"],
    "DisconnectCustomKeyStore": ["ConnectCustomKeyStore"],
    "GetSecretRotation": ["RotateSecret"],
    "UpdateAlias": ["CreateAlias"],
    "DeleteAlias": ["CreateAlias"],
    "CancelKeyDeletion": ["ScheduleKeyDeletion"],
    "RestoreSecret": ["DeleteSecret"],
    "UntagResource": ["TagResource"],
}


@pytest.fixture(scope="module")
def appliance(tmp_path_factory):
    """An appliance of this file's own, so that its audit log is short."""
    running = with_two_tokens(tmp_path_factory.mktemp("operations"))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def document(appliance):
    """The OpenAPI document."""
    return json.loads(appliance.post(b"", {}, path="/v1/openapi.json", method="GET").body)


@pytest.fixture(scope="module")
def routes(document):
    """Method and path of each operation of the JSON protocol."""
    return {key: route for key, route in every_route(document).items() if key[0] in MODELS}


def every_route(document):
    """Method and path of each operation."""
    return {
        (operation["tags"][0], operation["summary"]): (method.upper(), path)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def filled(path):
    """A path below /v1 with a name for every member."""
    return re.sub(r"\{\w+\}", "no-such-thing", path).removeprefix("/v1")


def records(appliance):
    """The audit log by request id; one record for each request."""
    (path,) = appliance.directory.rglob("audit.jsonl")
    found = {}
    for line in path.read_text().splitlines():
        record = json.loads(line)
        found.setdefault(record["requestID"], []).append(record)
    return found


def assert_audited(appliance, expected):
    """Each (answer, service, operation, code) has one record, and it says the same."""
    deadline = time.monotonic() + SETTLE_SECONDS
    wanted = {answer.headers["x-amzn-requestid"] for answer, *_ in expected}
    assert len(wanted) == len(expected), "request ids are unique"
    while not wanted <= set(found := records(appliance)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for answer, service, operation, code in expected:
        (record,) = found[answer.headers["x-amzn-requestid"]]
        assert record["eventSource"] == f"{service}.amazonaws.com", record
        assert record["eventName"] == operation
        assert record.get("errorCode") == code
        assert record["sourceIPAddress"] == "127.0.0.1"
        assert record["awsRegion"] == appliance.region
        proved = code not in UNPROVED
        kind = record["userIdentity"]["type"]
        assert (kind != "Unknown") == proved
        key = record["userIdentity"].get("accessKeyId")
        assert key == (appliance.credentials.access_key if proved else None)


def test_what_is_promised_is_served_and_nothing_else(appliance, document):
    assert set(every_route(document)) == {*OPERATIONS, *QUERY_OPERATIONS, *OWN_OPERATIONS}
    for service, model in MODELS.items():
        for name in model.service.operation_names:
            answer = appliance.raw(target_of(service, name), b"[", check=False)
            there = answer.code != "UnknownOperationException"
            assert there == ((service, name) in OPERATIONS), (name, answer)


def test_an_unsigned_request_is_refused_and_recorded(appliance):
    expected = []
    for service, operation in OPERATIONS:
        headers = {
            "X-Amz-Target": target_of(service, operation),
            "Content-Type": "application/x-amz-json-1.1",
        }
        answer = appliance.post(b"{}", headers)
        code = "MissingAuthenticationTokenException"
        assert (answer.status, answer.code) == (400, code)
        expected.append((answer, service, operation, code))
    assert_audited(appliance, expected)


def test_an_unsigned_rest_request_is_refused_and_recorded(appliance, routes):
    expected = []
    for (service, operation), (method, path) in routes.items():
        answer = appliance.post(b"{}", {}, path=f"/v1{filled(path)}", method=method)
        code = "MissingAuthenticationTokenException"
        assert (answer.status, answer.json["title"]) == (400, code)
        expected.append((answer, service, operation, code))
    assert_audited(appliance, expected)


@pytest.mark.parametrize("scope", ["service", "region"])
def test_a_request_that_is_signed_for_elsewhere_is_refused_and_recorded(appliance, routes, scope):
    expected = []
    for (service, operation), (method, path) in routes.items():
        signing = OTHER_SERVICE[service] if scope == "service" else service
        region = "eu-west-9" if scope == "region" else appliance.region
        target = target_of(service, operation)
        by_aws = appliance.raw(target, {}, signing=signing, region=region)
        by_rest = appliance.rest(method, filled(path), signing=signing, region=region)
        code = "InvalidSignatureException"
        assert (by_aws.status, by_aws.code) == (400, code)
        assert (by_rest.status, by_rest.json["title"]) == (400, code)
        expected += [(answer, service, operation, code) for answer in (by_aws, by_rest)]
    assert_audited(appliance, expected)


def test_an_unknown_key_and_a_wrong_secret_are_refused_and_recorded(appliance):
    known, expected = appliance.credentials, []
    wrong = {
        "UnrecognizedClientException": Credentials("AKIAIOSFODNN7EXAMPLE", known.secret_key),
        "InvalidSignatureException": Credentials(known.access_key, "wrong"),
    }
    for service, operation in OPERATIONS:
        for code, credentials in wrong.items():
            target = target_of(service, operation)
            answer = appliance.raw(target, {}, credentials=credentials)
            assert (answer.status, answer.code) == (400, code)
            expected.append((answer, service, operation, code))
    assert_audited(appliance, expected)


def test_every_operation_succeeds_and_is_recorded(appliance):
    expected = []
    for service, operation in OPERATIONS:
        given = meaningful(appliance)
        for name in [*FIRST.get(operation, []), operation]:
            answer = appliance.raw(target_of(service, name), good_input(service, name, given))
            assert answer.status == 200, (operation, answer)
            expected.append((answer, service, name, None))
    assert_audited(appliance, expected)
    found = records(appliance)
    for answer, _, operation, _ in expected:
        (record,) = found[answer.headers["x-amzn-requestid"]]
        assert record["readOnly"] == operation.startswith(READS), record


def test_an_operation_s_own_refusal_is_recorded_with_its_code_and_the_caller(appliance):
    expected = []
    for service, operation, code in [
        ("kms", "DescribeKey", "NotFoundException"),
        ("secretsmanager", "GetSecretValue", "ResourceNotFoundException"),
    ]:
        member = {"kms": "KeyId", "secretsmanager": "SecretId"}[service]
        thing = "1234abcd-12ab-34cd-56ef-1234567890ab"
        answer = appliance.raw(target_of(service, operation), {member: thing})
        assert answer.code == code
        expected.append((answer, service, operation, code))
    assert_audited(appliance, expected)
