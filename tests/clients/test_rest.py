"""The REST door: the same operations as plain JSON, with statuses and problem details of HTTP."""

import base64
import json
import re
from urllib.parse import quote, urlencode

import pytest

from conftest import MODELS, QUERY_MODELS
from operations import OPERATIONS, OWN_OPERATIONS, QUERY_OPERATIONS

# One type describes a secret and an entry of ListSecrets, which names its labels otherwise.
SHARED = {"DescribeSecret": {"SecretVersionsToStages"}}

PROBLEM_MEMBERS = {"type", "title", "status", "detail", "instance"}


def segment(text):
    """A text as one segment of a path."""
    return quote(text, safe="")


def done(answer):
    """The value of a successful answer."""
    assert answer.status == 200, answer
    assert answer.headers["content-type"] == "application/json"
    return answer.json


def problem(answer):
    """Status and code of a refusal, which must be problem details (RFC 9457)."""
    assert answer.headers["content-type"] == "application/problem+json", answer
    body = answer.json
    assert set(body) == PROBLEM_MEMBERS
    assert body["status"] == answer.status
    assert body["type"] == f"urn:strongroom:problem:{body['title']}"
    assert body["instance"] == f"urn:uuid:{answer.headers['x-amzn-requestid']}"
    return answer.status, body["title"]


@pytest.fixture
def rest(appliance):
    """Signed requests to the REST door: `rest("GET", "/secrets")`."""
    return appliance.rest


@pytest.fixture
def wrap(appliance):
    """Signed requests to the keys of the REST door."""
    return lambda *arguments: appliance.rest(*arguments, signing="kms")


@pytest.fixture
def token(name):
    """A ClientRequestToken."""
    return name[-36:]


def made(rest, name, token, text="hunter2"):
    body = {"Name": name, "SecretString": text, "ClientRequestToken": token}
    return done(rest("POST", "/secrets", body))


def test_a_secret_is_made_read_changed_and_deleted(rest, name, token):
    created = made(rest, name, token)
    assert created["Name"] == name
    assert created["VersionId"] == token
    place = f"/secrets/{name}"
    assert done(rest("GET", f"{place}/value"))["SecretString"] == "hunter2"
    new = {"SecretString": "hunter3", "ClientRequestToken": f"x{token[1:]}"}
    done(rest("PUT", f"{place}/value", new))
    assert done(rest("GET", f"{place}/value"))["SecretString"] == "hunter3"
    before = done(rest("GET", f"{place}/value?VersionStage=AWSPREVIOUS"))
    assert (before["SecretString"], before["VersionId"]) == ("hunter2", token)
    assert done(rest("GET", f"{place}/value?VersionId={token}"))["SecretString"] == "hunter2"
    done(rest("PATCH", place, {"Description": "of a test", "ClientRequestToken": token}))
    assert done(rest("GET", place))["Description"] == "of a test"
    done(rest("DELETE", f"{place}?RecoveryWindowInDays=7"))
    assert problem(rest("GET", f"{place}/value")) == (400, "InvalidRequestException")
    done(rest("POST", f"{place}:restore"))
    done(rest("DELETE", f"{place}?ForceDeleteWithoutRecovery=true"))
    assert problem(rest("GET", place)) == (404, "ResourceNotFoundException")


def test_what_aws_made_rest_reads(secretsmanager, rest, name):
    arn = secretsmanager.create_secret(Name=name, SecretBinary=b"\0\1\2")["ARN"]
    read = done(rest("GET", f"/secrets/{segment(arn)}/value"))
    assert base64.b64decode(read["SecretBinary"]) == b"\0\1\2"
    assert read["ARN"] == arn


@pytest.mark.parametrize("odd", ["a/b", "a/b/c", "a+b", "a=b@c", "value", "a.b_c", "a/value"])
def test_a_name_of_any_characters_stands_percent_encoded_in_a_path(rest, name, token, odd):
    name = f"{name}/{odd}"
    arn = made(rest, name, token)["ARN"]
    for given in (name, arn, arn[:-7]):
        read = done(rest("GET", f"/secrets/{segment(given)}/value"))
        assert (read["Name"], read["SecretString"]) == (name, "hunter2")
    done(rest("DELETE", f"/secrets/{segment(name)}?ForceDeleteWithoutRecovery=true"))


def test_a_list_goes_page_by_page_with_filters_in_the_query(rest, name, token):
    names = [f"{name}-{n}" for n in range(3)]
    for n, each in enumerate(names):
        made(rest, each, f"{n}{token[1:]}")
    filters = json.dumps([{"Key": "name", "Values": [name]}])
    found, query = [], {"Filters": filters, "MaxResults": 2, "SortOrder": "asc"}
    while True:
        page = done(rest("GET", f"/secrets?{urlencode(query, quote_via=quote)}"))
        found += [secret["Name"] for secret in page["SecretList"]]
        assert len(page["SecretList"]) <= 2
        if "NextToken" not in page:
            break
        query["NextToken"] = page["NextToken"]
    assert sorted(found) == names
    forged = {**query, "NextToken": "AAAA"}
    answer = rest("GET", f"/secrets?{urlencode(forged, quote_via=quote)}")
    assert problem(answer) == (400, "InvalidNextTokenException")


def test_a_list_in_a_query_is_a_parameter_that_is_repeated(rest, name, token):
    made(rest, name, token)
    tags = [{"Key": key, "Value": "v"} for key in ("a", "b c", "d&e")]
    done(rest("POST", f"/secrets/{name}/tags", {"Tags": tags}))
    query = urlencode([("TagKeys", "a"), ("TagKeys", "d&e")], quote_via=quote)
    done(rest("DELETE", f"/secrets/{name}/tags?{query}"))
    assert [tag["Key"] for tag in done(rest("GET", f"/secrets/{name}"))["Tags"]] == ["b c"]


def test_a_key_wraps_and_unwraps_under_its_context_alone(wrap, name):
    key = done(wrap("POST", "/keys", {"Description": name}))["KeyMetadata"]
    secret, context = base64.b64encode(b"k" * 32).decode(), {"purpose": "backup", "é": "ü"}
    place = f"/keys/{key['KeyId']}"
    body = {"Plaintext": secret, "EncryptionContext": context}
    sealed = done(wrap("POST", f"{place}:wrap", body))
    assert sealed["KeyId"] == key["Arn"]
    blob = {"CiphertextBlob": sealed["CiphertextBlob"]}
    opened = done(wrap("POST", f"{place}:unwrap", {**blob, "EncryptionContext": context}))
    assert opened["Plaintext"] == secret
    for other in ({}, {"EncryptionContext": {"purpose": "other"}}):
        answer = wrap("POST", f"{place}:unwrap", {**blob, **other})
        assert problem(answer) == (400, "InvalidCiphertextException")
    stranger = done(wrap("POST", "/keys"))["KeyMetadata"]["KeyId"]
    body = {**blob, "EncryptionContext": context}
    answer = wrap("POST", f"/keys/{stranger}:unwrap", body)
    assert problem(answer) == (400, "IncorrectKeyException")


def test_a_key_is_named_by_its_arn_and_its_alias_in_a_path(wrap, name):
    key = done(wrap("POST", "/keys"))["KeyMetadata"]
    alias = f"alias/{name}"
    done(wrap("POST", "/aliases", {"AliasName": alias, "TargetKeyId": key["KeyId"]}))
    for given in (key["Arn"], alias, key["Arn"].replace(f"key/{key['KeyId']}", alias)):
        seen = done(wrap("GET", f"/keys/{segment(given)}"))
        assert seen["KeyMetadata"]["KeyId"] == key["KeyId"]
    done(wrap("POST", f"/keys/{segment(alias)}:wrap", {"Plaintext": "aGk="}))
    done(wrap("DELETE", f"/aliases/{segment(alias)}"))
    assert problem(wrap("GET", f"/keys/{segment(alias)}")) == (404, "NotFoundException")


def test_a_disabled_key_is_a_conflict_and_a_deleted_one_too(wrap):
    key = done(wrap("POST", "/keys"))["KeyMetadata"]["KeyId"]
    done(wrap("POST", f"/keys/{key}:disable"))
    answer = wrap("POST", f"/keys/{key}:wrap", {"Plaintext": "aGk="})
    assert problem(answer) == (409, "DisabledException")
    done(wrap("DELETE", f"/keys/{key}?PendingWindowInDays=7"))
    answer = wrap("POST", f"/keys/{key}:enable")
    assert problem(answer) == (409, "KMSInvalidStateException")
    done(wrap("POST", f"/keys/{key}:cancelDeletion"))


BAD = [
    ("GET", "/nothing", None, (404, "UnknownOperationException")),
    ("GET", "/", None, (404, "UnknownOperationException")),
    ("PATCH", "/secrets/a/value", {}, (405, "MethodNotAllowed")),
    ("POST", "/secrets", {}, (400, "ValidationException")),
    ("POST", "/secrets", [], (400, "SerializationException")),
    ("POST", "/secrets", {"Name": 7}, (400, "SerializationException")),
    ("GET", "/secrets?Colour=red", None, (400, "SerializationException")),
    ("GET", "/secrets?MaxResults=many", None, (400, "SerializationException")),
    ("GET", "/secrets?MaxResults=0", None, (400, "ValidationException")),
    ("GET", "/secrets?Filters=%5B", None, (400, "SerializationException")),
    ("GET", "/secrets?SortOrder=sideways", None, (400, "ValidationException")),
    ("GET", "/secrets/no-such-secret", None, (404, "ResourceNotFoundException")),
    ("GET", "/secrets/%FF", None, (404, "UnknownOperationException")),
    ("PATCH", "/secrets/a", {"SecretId": "b"}, (400, "SerializationException")),
]


@pytest.mark.parametrize(("method", "path", "body", "expected"), BAD)
def test_what_is_bad_is_told_in_http_s_words(rest, method, path, body, expected):
    assert problem(rest(method, path, body)) == expected


def test_what_is_there_already_is_a_conflict(rest, name, token):
    made(rest, name, token)
    body = {"Name": name, "SecretString": "b", "ClientRequestToken": f"x{token[1:]}"}
    assert problem(rest("POST", "/secrets", body)) == (409, "ResourceExistsException")


def test_only_a_signed_request_is_answered(appliance, name):
    answer = appliance.post(b"", {}, path=f"/v1/secrets/{name}/value", method="GET")
    assert problem(answer) == (400, "MissingAuthenticationTokenException")


@pytest.fixture(scope="module")
def document(appliance):
    """The OpenAPI document, which nobody must sign for."""
    answer = appliance.post(b"", {}, path="/v1/openapi.json", method="GET")
    return done(answer)


def nested(value, name):
    """Every value of this member name, at any depth."""
    if isinstance(value, dict):
        if name in value:
            yield value[name]
        for item in value.values():
            yield from nested(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from nested(item, name)


def test_the_openapi_document_is_whole(document):
    assert document["openapi"].startswith("3.1")
    assert {"title", "version"} <= set(document["info"])
    seen = [item for path in document["paths"].values() for item in path.values()]
    ids = [operation["operationId"] for operation in seen]
    promised = [*OPERATIONS, *QUERY_OPERATIONS, *OWN_OPERATIONS]
    assert len(set(ids)) == len(ids) == len(promised)
    for target in nested(document, "$ref"):
        if isinstance(target, str):
            place = document
            for step in target.removeprefix("#/").split("/"):
                place = place[step]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert method in ("get", "put", "post", "delete", "patch")
            assert {"200", "default"} <= set(operation["responses"])
            in_path = {p["name"] for p in operation["parameters"] if p["in"] == "path"}
            assert in_path == set(re.findall(r"\{(\w+)\}", path))
            for parameter in operation["parameters"]:
                assert parameter["required"] == (parameter["in"] == "path")
                assert ("schema" in parameter) != ("content" in parameter)


def test_the_openapi_document_knows_the_members_of_the_service_models(document):
    for path in document["paths"].values():
        for operation in path.values():
            service, name = operation["tags"][0], operation["summary"]
            if (service, name) in OWN_OPERATIONS:
                continue
            body = operation.get("requestBody", {}).get("content", {})
            schema = body.get("application/json", {}).get("schema", {})
            members = {parameter["name"] for parameter in operation["parameters"]}
            members |= set(schema.get("properties", {}))
            known = (MODELS | QUERY_MODELS)[service].operation(name)
            required = known.input_shape.required_members if known.input_shape else []
            assert set(required) <= members, name
            out = operation["responses"]["200"]["content"]["application/json"]["schema"]
            shape = known.output_shape
            known = set(shape.members) if shape else set()
            assert set(out.get("properties", {})) - SHARED.get(name, set()) <= known, name


def test_nothing_secret_is_ever_a_query_parameter(document):
    for path in document["paths"].values():
        for operation in path.values():
            for parameter in operation["parameters"]:
                assert "password" not in list(nested(parameter, "format")), operation["summary"]
