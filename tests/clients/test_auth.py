"""Who is calling: signatures as AWS checks them, with AWS's codes and texts."""

import hashlib
import json
import re
import shutil
import subprocess
import uuid
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import botocore.auth
import pytest
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from conftest import CALL_SECONDS

TARGET = "TrentService.ListKeys"
MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your "
    "AWS Secret Access Key and signing method. Consult the service documentation for details."
)


def refusal(answer):
    """Status, code and text of a refusal."""
    body = answer.json
    return answer.status, answer.code, body.get("message", body.get("Message"))


@pytest.fixture
def signed_at(monkeypatch):
    """Sets the signer's clock: `signed_at(minutes)` from now."""

    def shift(minutes):
        moment = datetime.now(timezone.utc) + timedelta(minutes=minutes)
        monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_, **__: moment)
        return moment.strftime("%Y%m%dT%H%M%SZ")

    return shift


@pytest.mark.parametrize("minutes", [-4, 4])
def test_a_clock_within_five_minutes_is_good_enough(appliance, signed_at, minutes):
    signed_at(minutes)
    assert appliance.raw(TARGET, {}).status == 200


def test_a_signature_of_six_minutes_ago_has_expired(appliance, signed_at):
    stamp = signed_at(-6)
    status, code, text = refusal(appliance.raw(TARGET, {}))
    assert (status, code) == (400, "InvalidSignatureException")
    basic = r"\d{8}T\d{6}Z"
    pattern = rf"Signature expired: {stamp} is now earlier than {basic} \({basic} - 5 min\.\)"
    assert re.fullmatch(pattern, text)


def test_a_signature_of_six_minutes_ahead_is_not_yet_current(appliance, signed_at):
    stamp = signed_at(6)
    status, code, text = refusal(appliance.raw(TARGET, {}))
    assert (status, code) == (400, "InvalidSignatureException")
    basic = r"\d{8}T\d{6}Z"
    pattern = rf"Signature not yet current: {stamp} is still later than {basic} \({basic} \+ 5 min\.\)"
    assert re.fullmatch(pattern, text)


def altered_target(headers):
    headers["X-Amz-Target"] = "TrentService.ListAliases"


def altered_media_type(headers):
    headers["Content-Type"] = "application/x-amz-json-1.0"


def altered_date(headers):
    stamp = datetime.strptime(headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ")
    headers["X-Amz-Date"] = (stamp + timedelta(seconds=1)).strftime("%Y%m%dT%H%M%SZ")


def altered_signature(headers):
    last = headers["Authorization"][-1]
    headers["Authorization"] = headers["Authorization"][:-1] + ("0" if last != "0" else "1")



def altered_host(headers):
    headers["Host"] = "kms.us-east-1.amazonaws.com"


@pytest.mark.parametrize(
    "alter",
    [altered_target, altered_media_type, altered_date, altered_signature, altered_host],
)
def test_whatever_was_signed_can_not_be_altered(appliance, alter):
    body, headers = appliance.signed(TARGET, {})
    alter(headers)
    expected = (400, "InvalidSignatureException", MISMATCH)
    assert refusal(appliance.post(body, headers)) == expected


@pytest.mark.parametrize("body", [b"", b"{ }", b'{"Limit": 1}', b"{}\n"])
def test_another_body_than_the_signed_one_is_refused(appliance, body):
    _, headers = appliance.signed(TARGET, {})
    expected = (400, "InvalidSignatureException", MISMATCH)
    assert refusal(appliance.post(body, headers)) == expected


@pytest.mark.parametrize("claim", ["UNSIGNED-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", ""])
def test_an_unsigned_payload_is_refused(appliance, claim):
    named = {"X-Amz-Content-SHA256": claim}
    body, headers = appliance.signed(TARGET, {}, headers=named)
    assert refusal(appliance.post(body, headers))[:2] == (400, "InvalidSignatureException")


def test_another_path_than_the_signed_one_is_refused(appliance):
    body, headers = appliance.signed(TARGET, {})
    for path in ("/x", "/x/..%2f", "/?a=b"):
        answer = appliance.post(body, headers, path=path)
        assert refusal(answer)[:2] == (400, "InvalidSignatureException"), path


def test_a_scope_of_elsewhere_is_named(appliance):
    service = "Credential should be scoped to correct service: 'kms'. "
    region = "Credential should be scoped to a valid region. "
    for arguments, text in [
        ({"signing": "secretsmanager"}, service),
        ({"region": "eu-west-9"}, region),
        ({"signing": "s3", "region": "eu-west-9"}, region + service),
    ]:
        answer = appliance.raw(TARGET, {}, **arguments)
        assert refusal(answer) == (400, "InvalidSignatureException", text)


def test_an_unknown_access_key_and_a_session_token_that_is_not_its_own(appliance):
    known = appliance.credentials
    text = "The security token included in the request is invalid."
    expected = (400, "UnrecognizedClientException", text)
    for credentials in (
        Credentials("AKIAIOSFODNN7EXAMPLE", known.secret_key),
        Credentials(known.access_key, known.secret_key, "IQoJb3JpZ2luX2VjEXAMPLE"),
        Credentials("A" * 5000, known.secret_key),
    ):
        assert refusal(appliance.raw(TARGET, {}, credentials=credentials)) == expected


def test_without_a_signature_a_token_is_missing(appliance):
    body, headers = appliance.signed(TARGET, {})
    del headers["Authorization"]
    expected = (400, "MissingAuthenticationTokenException", "Missing Authentication Token")
    assert refusal(appliance.post(body, headers)) == expected


INCOMPLETE = [
    "AWS4-HMAC-SHA256",
    "AWS4-HMAC-SHA256 x",
    "AWS4-HMAC-SHA256 Credential=a",
    "AWS4-HMAC-SHA256 Credential=a/b/c, SignedHeaders=host, Signature=00",
    "AWS4-HMAC-SHA256 Credential=, SignedHeaders=, Signature=",
    "AWS4-HMAC-SHA256 " + "Credential=a/b/c/d/aws4_request, " * 200,
    "AWS4-ECDSA-P256-SHA256 Credential=a/b/c/d/e, SignedHeaders=host, Signature=00",
    "Bearer hunter2-planted-secret",
    "Basic aHVudGVyMg==",
    "\xff\xfe",
    ",,,===",
]


@pytest.mark.parametrize("value", INCOMPLETE, ids=range(len(INCOMPLETE)))
def test_an_authorization_that_is_none_is_refused_and_not_repeated(appliance, value):
    body, headers = appliance.signed(TARGET, {})
    answer = appliance.post(body, {**headers, "Authorization": value.encode("latin-1")})
    assert answer.status == 400
    assert answer.code in ("IncompleteSignatureException", "InvalidSignatureException",
                           "MissingAuthenticationTokenException", "UnrecognizedClientException")
    assert b"hunter2" not in answer.body


class PresignedPost(SigV4QueryAuth):
    """Signs the body too: botocore presigns without one, as for a GET."""

    def __init__(self, body, *arguments):
        super().__init__(*arguments)
        self.digest = hashlib.sha256(body).hexdigest()

    def payload(self, _request):
        return self.digest


def presigned(appliance, body, expires=60):
    """Path and headers of a presigned POST."""
    request = AWSRequest(method="POST", url=appliance.endpoint + "/")
    request.headers["X-Amz-Target"] = TARGET
    request.headers["Content-Type"] = "application/x-amz-json-1.1"
    signer = PresignedPost(body, appliance.credentials, "kms", appliance.region, expires)
    signer.add_auth(request)
    url = urlsplit(request.url)
    return f"{url.path}?{url.query}", dict(request.headers.items())


def test_a_presigned_post_is_served(appliance):
    path, headers = presigned(appliance, b"{}")
    assert "Authorization" not in headers
    assert appliance.post(b"{}", headers, path=path).status == 200


def test_a_presigned_post_binds_its_body_its_time_and_its_query(appliance, signed_at):
    path, headers = presigned(appliance, b"{}")
    assert refusal(appliance.post(b"{ }", headers, path=path))[1] == "InvalidSignatureException"
    longer = path.replace("X-Amz-Expires=60", "X-Amz-Expires=600")
    assert longer != path
    assert refusal(appliance.post(b"{}", headers, path=longer))[1] == "InvalidSignatureException"
    signed_at(-2)
    path, headers = presigned(appliance, b"{}")
    status, code, text = refusal(appliance.post(b"{}", headers, path=path))
    assert (status, code) == (400, "InvalidSignatureException")
    assert text.startswith("Signature expired: ")
    path, headers = presigned(appliance, b"{}", expires=180)
    assert appliance.post(b"{}", headers, path=path).status == 200


def test_a_presigned_post_lives_a_week_at_most(appliance):
    path, headers = presigned(appliance, b"{}", expires=604801)
    status, code, text = refusal(appliance.post(b"{}", headers, path=path))
    assert (status, code) == (400, "IncompleteSignatureException")
    assert "X-Amz-Expires must be less than a week" in text


def test_both_forms_at_once_are_refused(appliance):
    path, _ = presigned(appliance, b"{}")
    body, headers = appliance.signed(TARGET, {})
    answer = appliance.post(body, headers, path=path)
    assert refusal(answer)[:2] == (400, "InvalidSignatureException")


def test_every_answer_has_a_date_and_a_request_id_of_its_own(appliance):
    body, headers = appliance.signed(TARGET, {})
    answers = [appliance.post(body, headers) for _ in range(50)]
    answers += [appliance.post(body, {}) for _ in range(50)]
    answers += [appliance.post(b"", {}, path=path, method="GET") for path in ("/healthz", "/v1/x")]
    ids = [answer.headers["x-amzn-requestid"] for answer in answers]
    assert len(set(ids)) == len(ids)
    assert all(str(uuid.UUID(request_id)) == request_id for request_id in ids)
    for answer in answers:
        moment = parsedate_to_datetime(answer.headers["date"])
        assert abs(datetime.now(timezone.utc) - moment) < timedelta(seconds=30)


def test_http2_with_prior_knowledge_signs_the_authority_as_host(appliance, tmp_path):
    curl = shutil.which("curl")
    features = subprocess.run([curl, "--version"], capture_output=True).stdout if curl else b""
    if b"HTTP2" not in features:
        pytest.skip("NOT CHECKED: no curl that speaks HTTP/2")
    for altered, code in [(b"{}", None), (b"{ }", "InvalidSignatureException")]:
        body, headers = appliance.signed(TARGET, b"{}")
        command = [curl, "--silent", "--http2-prior-knowledge", "--data-binary", altered]
        command += ["--max-time", str(CALL_SECONDS), "--dump-header", str(tmp_path / "head")]
        for header in headers.items():
            command += ["--header", ": ".join(header)]
        ran = subprocess.run([*command, appliance.endpoint + "/"], capture_output=True, check=True)
        answer, head = json.loads(ran.stdout), (tmp_path / "head").read_text().lower()
        assert answer.get("__type") == code
        assert head.startswith("http/2")
        assert "\ndate: " in head
        assert "\nx-amzn-requestid: " in head
