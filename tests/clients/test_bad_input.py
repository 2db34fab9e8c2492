"""Bad input to every operation: the service's error for it, never a fault, a hang or an echo."""

import base64
import http.client
import json
import re
import time
import uuid
from urllib.parse import urlsplit

import pytest

import faults
from conftest import CALL_SECONDS, MODELS, Answer, Appliance, check_answer
from faults import PLANTED, PLANTED_BLOB, Literal
from inputs import good_input, meaningful
from operations import OPERATIONS, target_of

# Members that the appliance leaves out, so that it passes over whatever stands in them.
LEFT_OUT = {
    # Keys that other accounts share by Resource Access Manager: there are none.
    ("kms", "ListKeys"): {"ResourceOwners"},
    # Without replicas there is nothing to overwrite.
    ("secretsmanager", "CreateSecret"): {"ForceOverwriteReplicaSecret"},
}
# Members that are refused as soon as they are there, whatever stands in them.
REFUSED_WHOLE = {"Recipient", "AddReplicaRegions", "XksProxyAuthenticationCredential"}

# Names that lead nowhere, in every way that a name can.
BAD_IDS = [
    "arn:aws:kms:eu-west-9:{account}:key/1234abcd-12ab-34cd-56ef-1234567890ab",
    "arn:aws:secretsmanager:eu-west-9:{account}:secret:a-AbCdEf",
    "arn:aws:kms:{region}:999999999999:key/1234abcd-12ab-34cd-56ef-1234567890ab",
    "arn:aws:secretsmanager:{region}:999999999999:secret:a-AbCdEf",
    "arn:aws:s3:{region}:{account}:secret:a-AbCdEf",
    "arn:aws-cn:kms:{region}:{account}:key/1234abcd-12ab-34cd-56ef-1234567890ab",
    "arn:aws:kms:{region}:{account}:key/",
    "arn:aws:kms:{region}:{account}:alias/",
    "arn:aws:kms:{region}:{account}:nothing/x",
    "arn:aws:kms:{region}:{account}:",
    "arn:aws:secretsmanager:{region}:{account}:secret:",
    "arn:",
    "arn:::::",
    "arn:aws",
    ":",
    "alias/",
    "alias/no such",
    "key/1234abcd-12ab-34cd-56ef-1234567890ab",
    "mrk-",
    "../{account}",
    "1234abcd-12ab-34cd-56ef-1234567890ab\n",
    "1234ABCD-12AB-34CD-56EF-1234567890AB",
    "\N{SNOWMAN}",
]
ID_MEMBERS = {"KeyId", "SecretId", "TargetKeyId", "SourceKeyId", "DestinationKeyId", "KmsKeyId"}

class Line:
    """A connection that is kept: one that the server drops without an answer is a failure."""

    def __init__(self, appliance):
        self.appliance = appliance
        url = urlsplit(appliance.endpoint)
        self.connection = http.client.HTTPConnection(url.hostname, url.port, timeout=CALL_SECONDS)

    def send(self, target, body, **signing):
        """Signs and sends a body and checks the answer against the model."""
        data, headers = self.appliance.signed(target, body, **signing)
        return self.post(target, data, headers)

    def post(self, target, data, headers):
        """Sends what was signed and checks the answer against the model."""
        self.connection.request("POST", "/", body=data, headers=headers)
        answer = self.connection.getresponse()
        names = {name.lower(): value for name, value in answer.getheaders()}
        answer = Answer(answer.status, names, answer.read())
        assert answer.status < 500, answer
        if answer.status != 413:
            check_answer(target, answer)
        return answer


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    """An appliance for this file alone; at its end it has said nothing of a fault of its own."""
    running = Appliance(tmp_path_factory.mktemp("bad-input"))
    yield running
    assert running.raw("TrentService.ListKeys", {}).status == 200, "alive after all of it"
    running.stop()
    log = running.log.read_text(errors="replace")
    for words in ("panicked", "internal fault", "RUST_BACKTRACE", PLANTED, PLANTED_BLOB):
        assert words not in log, log[-4000:]
    audit = "".join(path.read_text() for path in running.directory.rglob("audit*.jsonl"))
    assert "ListKeys" in audit
    assert PLANTED not in audit
    assert PLANTED_BLOB not in audit


@pytest.fixture
def given(target):
    """Values of members that mean something: a key, an alias and a secret for one test."""
    return meaningful(target)


def encoded(value):
    """The JSON of an input; literals stand in it as they are."""
    literals = {}

    def marked(inner):
        if isinstance(inner, Literal):
            mark = f"literal-{len(literals)}-mark"
            literals[json.dumps(mark)] = str(inner)
            return mark
        if isinstance(inner, dict):
            return {key: marked(item) for key, item in inner.items()}
        return [marked(item) for item in inner] if isinstance(inner, list) else inner

    text = json.dumps(marked(value))
    for mark, literal in literals.items():
        text = text.replace(mark, literal)
    return text.encode()


def codes_of(fault, service, operation):
    """The codes that may refuse a fault, after what is special to a member."""
    found = re.match(r"\.(\w+)", fault.what)
    member = found[1] if found else ""
    if fault.codes is None or member in LEFT_OUT.get((service, operation), ()):
        return None
    if member in REFUSED_WHOLE:
        return fault.codes | faults.BOUND_CODES
    if member.endswith("EncryptionContext") and fault.codes == faults.TYPE_CODES:
        # As in AWS KMS numbers and truth values stand for their text, and `null` is invalid.
        scalar = "{}" in fault.what
        return None if scalar else fault.codes | {"ValidationException"}
    return fault.codes


def sweep(line, service, operation, inputs):
    """Sends every fault and gathers what was not answered as it must be."""
    wrong = []
    for fault in inputs:
        try:
            answer = line.send(target_of(service, operation), encoded(fault.value))
        except (AssertionError, http.client.HTTPException, OSError) as error:
            wrong.append(f"{fault.what}: {type(error).__name__} {str(error)[:600]}")
            line = Line(line.appliance)
            continue
        codes = codes_of(fault, service, operation)
        if codes is not None and answer.code not in codes:
            wrong.append(f"{fault.what}: {answer.code} {answer.body[:200]!r}")
        if answer.code and (PLANTED.encode() in answer.body or PLANTED_BLOB.encode() in answer.body):
            wrong.append(f"{fault.what}: an error repeats what is secret: {answer.body[:400]!r}")
    assert not wrong, f"{len(wrong)} answers\n" + "\n".join(wrong)


@pytest.mark.parametrize(("service", "operation"), OPERATIONS)
def test_every_bad_member_brings_its_error(target, given, service, operation):
    good = good_input(service, operation, given)
    shape = MODELS[service].operation(operation).input_shape
    sweep(Line(target), service, operation, faults.faults(shape, good, "", given))


BODIES = {
    "empty, as if it were {}": b"",
    "a list": b"[]",
    "a text": b'"x"',
    "a number": b"1",
    "null": b"null",
    "true": b"true",
    "cut off": b'{"KeyId": "a',
    "not closed": b'{"KeyId": "a"',
    "single quotes": b"{'KeyId': 'a'}",
    "a comma too many": b'{"KeyId": "a",}',
    "something behind": b'{"KeyId": "a"} x',
    "two values": b"{}{}",
    "a comment": b"{} // a",
    "a byte-order mark": b"\xef\xbb\xbf{}",
    "not UTF-8": b'{"KeyId": "\xff"}',
    "UTF-16": '{"KeyId": "a"}'.encode("utf-16"),
    "half a surrogate pair": b'{"KeyId": "\\ud800"}',
    "a control character": b'{"KeyId": "\n"}',
    "nothing but spaces": b"   ",
    "binary": bytes(range(256)),
    "deep lists": b"[" * 200_000,
    "deep objects": b'{"a":' * 100_000,
    "deep lists in an unknown member": b'{"x":' + b"[" * 400_000 + b"]" * 400_000 + b"}",
    "XML": b"<KeyId>a</KeyId>",
    "a form": b"KeyId=a",
}
# What these bring depends on whether an operation has members that must be there.
AS_AN_EMPTY_OBJECT = {"empty, as if it were {}", "deep lists in an unknown member"}


@pytest.mark.parametrize(("service", "operation"), OPERATIONS)
def test_a_body_that_is_no_object_is_refused(target, service, operation):
    line, wrong = Line(target), []
    member = next(iter(MODELS[service].operation(operation).input_shape.members))
    for what, body in BODIES.items():
        body = body.replace(b"KeyId", member.encode())
        answer = line.send(target_of(service, operation), body)
        if what not in AS_AN_EMPTY_OBJECT and answer.code != "SerializationException":
            wrong.append(f"{what}: {answer.code}")
    assert not wrong, wrong


@pytest.mark.parametrize(("service", "operation"), OPERATIONS)
def test_a_member_that_stands_twice_is_refused(target, given, service, operation):
    good = good_input(service, operation, given)
    line = Line(target)
    for member, value in good.items():
        pair = f"{json.dumps(member)}: {json.dumps(value)}"
        answer = line.send(target_of(service, operation), f"{{{pair}, {pair}}}".encode())
        assert answer.code == "SerializationException", member


@pytest.mark.parametrize(("service", "operation"), OPERATIONS)
def test_an_id_that_leads_nowhere_brings_no_success(target, given, service, operation):
    good = good_input(service, operation, given)
    shape = MODELS[service].operation(operation).input_shape
    line, wrong = Line(target), []
    for member in ID_MEMBERS & set(shape.members):
        for bad in BAD_IDS:
            bad = bad.replace("{account}", target.account_id).replace("{region}", target.region)
            answer = line.send(target_of(service, operation), {**good, member: bad})
            if answer.code is None:
                wrong.append(f"{member} {bad!r}: {answer.body[:200]!r}")
    assert not wrong, "\n".join(wrong)


def test_a_body_beyond_the_limit_is_refused_without_being_read(target):
    body = b'{"KeyId": "' + b"a" * (2 << 20) + b'"}'
    answer = target.raw("TrentService.DescribeKey", body, check=False)
    assert (answer.status, answer.code) == (413, "RequestEntityTooLargeException")


UNKNOWN = [
    "",
    ".",
    "TrentService",
    "TrentService.",
    ".ListKeys",
    "TrentService.listkeys",
    "trentservice.ListKeys",
    "TrentService.ListKeys.x",
    "TrentService.ListSecrets",
    "secretsmanager.ListKeys",
    "AWSSecurityTokenServiceV20110615.GetCallerIdentity",
    "TrentService." + "A" * 8000,
    "TrentService.ListKeys\tx",
]


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_target_is_no_operation(target, name):
    assert target.raw(name, {}).code == "UnknownOperationException"


@pytest.mark.parametrize("media_type", ["", "application/json", "text/xml", "\xff"])
def test_another_content_type_is_no_operation(target, media_type):
    body, headers = target.signed("TrentService.ListKeys", {}, headers={"Content-Type": media_type})
    answer = target.post(body, headers)
    check_answer("TrentService.NoSuch", answer)
    assert answer.code == "UnknownOperationException"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"])
def test_another_method_is_no_operation(target, method):
    body, headers = target.signed("TrentService.ListKeys", {})
    answer = target.post(body, headers, method=method)
    assert (answer.status, answer.code) == (400, "UnknownOperationException")


def test_unknown_members_are_ignored(target):
    junk = {"NoSuch": {"deep": [[[{"x": None}]]]}, "": 1, "limit": "not the member Limit"}
    assert target.raw("TrentService.ListKeys", {"Limit": 1, **junk}).status == 200


@pytest.fixture(scope="module")
def lists(target):
    """Each paginated list: an input, and another input of the same operation."""
    def call(name, body):
        return target.raw(name, body).json

    name = f"pages-{uuid.uuid4()}"
    keys = [call("TrentService.CreateKey", {})["KeyMetadata"]["KeyId"] for _ in range(2)]
    tags = [{"TagKey": f"k{n}", "TagValue": "v"} for n in range(3)]
    for key in keys:
        call("TrentService.TagResource", {"KeyId": key, "Tags": tags})
        for n in range(2):
            alias = {"AliasName": f"alias/{name}-{n}-{key}", "TargetKeyId": key}
            target.raw("TrentService.CreateAlias", alias)
            root = f"arn:aws:iam::{target.account_id}:root"
            grant = {"KeyId": key, "GranteePrincipal": root, "RetiringPrincipal": root}
            target.raw("TrentService.CreateGrant", {**grant, "Operations": ["Decrypt"]})
            target.raw("TrentService.RotateKeyOnDemand", {"KeyId": key})
            time.sleep(0.01)
    secrets = []
    for n in range(3):
        token = str(uuid.uuid4())
        new = {"Name": f"{name}-{n}", "SecretString": "a", "ClientRequestToken": token}
        secrets.append(call("secretsmanager.CreateSecret", new)["ARN"])
    for secret in secrets[:2]:
        for _ in range(2):
            put = {"SecretId": secret, "SecretString": "b", "ClientRequestToken": str(uuid.uuid4())}
            call("secretsmanager.PutSecretValue", put)
    by_name = [{"Key": "name", "Values": [name]}]
    one, another = ({"Limit": 1, "KeyId": key} for key in keys)
    return {
        "TrentService.ListKeys": ({"Limit": 1}, None),
        "TrentService.ListAliases": ({"Limit": 1}, one),
        "TrentService.ListGrants": (one, another),
        "TrentService.ListRetirableGrants": ({"Limit": 1, "RetiringPrincipal": root}, None),
        "TrentService.ListResourceTags": (one, another),
        "TrentService.ListKeyRotations": (one, another),
        "secretsmanager.ListSecrets": (
            {"MaxResults": 1, "Filters": by_name},
            {"MaxResults": 1, "Filters": [{"Key": "name", "Values": ["pages-"]}]},
        ),
        "secretsmanager.ListSecretVersionIds": (
            {"MaxResults": 1, "SecretId": secrets[0], "IncludeDeprecated": True},
            {"MaxResults": 1, "SecretId": secrets[1], "IncludeDeprecated": True},
        ),
        "secretsmanager.BatchGetSecretValue": (
            {"MaxResults": 1, "Filters": by_name},
            {"MaxResults": 1, "Filters": [{"Key": "name", "Values": ["pages-"]}]},
        ),
        "CloudTrail_20131101.LookupEvents": (
            {"MaxResults": 1},
            {"MaxResults": 1, "LookupAttributes": [{"AttributeKey": "ReadOnly", "AttributeValue": "false"}]},
        ),
    }


def page(operation):
    """The members of input and output that carry a page token, and the code for a bad one."""
    if operation.startswith("TrentService"):
        return "Marker", "NextMarker", "InvalidMarkerException"
    return "NextToken", "NextToken", "InvalidNextTokenException"


# A single policy, or as many stores as there are spare tokens: one page, and no second one to ask for.
ONE_PAGE = {"TrentService.ListKeyPolicies", "TrentService.DescribeCustomKeyStores"}


def test_every_paginated_operation_is_among_the_lists(lists):
    paginated = {
        target_of(service, operation)
        for service, operation in OPERATIONS
        if {"Marker", "NextToken"}
        & set(MODELS[service].operation(operation).input_shape.members)
    }
    assert paginated == set(lists) | ONE_PAGE


def test_a_page_token_serves_its_own_list_alone(target, lists):
    tokens = {name: target.raw(name, one).json[page(name)[1]] for name, (one, _) in lists.items()}
    wrong = []
    for name, (one, another) in lists.items():
        member, _, code = page(name)
        assert target.raw(name, {**one, member: tokens[name]}).status == 200, name
        tried = [(one, token) for other, token in tokens.items() if other != name]
        tried += [(another, tokens[name])] if another else []
        for body, token in tried:
            answer = target.raw(name, {**body, member: token})
            if answer.code != code:
                wrong.append((name, body, token, answer.code))
    assert not wrong


def altered(token):
    """Tokens that were never given out."""
    raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    for at in range(len(raw)):
        for bit in (1, 0x80):
            other = bytearray(raw)
            other[at] ^= bit
            yield base64.urlsafe_b64encode(other).decode().rstrip("=")
    for other in (raw[:-1], raw[1:], raw + b"\0", raw[-16:], bytes(16), bytes(17), raw + raw):
        yield base64.urlsafe_b64encode(other).decode().rstrip("=")
    yield from (token + "=", token + "A", token[:-1], token.swapcase(), "AAAA", "!", "0", "null")


def test_a_forged_page_token_is_refused(target, lists):
    wrong = []
    for name, (one, _) in lists.items():
        member, out, code = page(name)
        token = target.raw(name, one).json[out]
        line = Line(target)
        for forged in altered(token):
            answer = line.send(name, {**one, member: forged})
            if answer.code != code:
                wrong.append((name, token, forged, answer.code))
    assert not wrong
