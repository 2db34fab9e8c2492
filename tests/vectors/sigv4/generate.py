#!/usr/bin/env python3
"""Writes botocore.json: requests as botocore really builds and signs them, nothing sent.

Run by hand after an upgrade of botocore: python3 tests/vectors/sigv4/generate.py
"""
import datetime
import json
import pathlib
from unittest import mock

import botocore
import botocore.auth
import botocore.awsrequest
import botocore.credentials
import botocore.session

ACCESS_KEY, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
REGION = "eu-central-1"
WHEN = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
NOW = int(WHEN.timestamp() * 1000)


def text(value):
    return value.decode() if isinstance(value, bytes) else value


def vector(name, why, service, request, authority=None, drop=(), expected="ok"):
    url = botocore.compat.urlsplit(request.url)
    drop = {*drop, "user-agent", "amz-sdk-invocation-id"}  # unsigned, and other on every machine
    headers = [[text(n), text(v)] for n, v in request.headers.items() if text(n).lower() not in drop]
    if not authority and not any(n.lower() == "host" for n, _ in headers):
        headers.append(["Host", botocore.auth._host_from_url(request.url)])
    return {
        "name": name, "why": why, "now": NOW, "region": REGION, "service": service,
        "method": request.method, "path": url.path or "/", "query": url.query, "headers": headers,
        "authority": authority, "body": text(request.body or b"") or "", "canonical": None,
        "expected": expected,
    }


def called(service, operation, parameters, token=None, endpoint="http://127.0.0.1:8443"):
    """The request that a botocore client would have sent."""
    session = botocore.session.Session()
    session.set_credentials(ACCESS_KEY, SECRET, token)
    client = session.create_client(service, region_name=REGION, endpoint_url=endpoint)
    caught = []

    def catch(request, **_):
        caught.append(request)
        return botocore.awsrequest.AWSResponse(request.url, 200, {}, mock.Mock(stream=lambda: [b"{}"]))

    client.meta.events.register("before-send", catch)
    getattr(client, operation)(**parameters)
    return caught[0]


def raw(method, url, body=b"", headers=None, token=None, query_for=None, service="secretsmanager"):
    """A request of our own, signed by SigV4Auth or (query_for seconds) SigV4QueryAuth."""
    credentials = botocore.credentials.Credentials(ACCESS_KEY, SECRET, token)
    request = botocore.awsrequest.AWSRequest(method, url, headers or {}, body)
    if query_for:
        botocore.auth.SigV4QueryAuth(credentials, service, REGION, query_for).add_auth(request)
    else:
        botocore.auth.SigV4Auth(credentials, service, REGION).add_auth(request)
    return request.prepare()


def vectors():
    get = called("secretsmanager", "get_secret_value", {"SecretId": "prod/db"})
    yield vector("GetSecretValue", "what boto3 and the AWS CLI v1 send", "secretsmanager", get)
    yield vector(
        "GetSecretValue over HTTP/2", "the name stands in :authority, there is no Host header",
        "secretsmanager", get, authority="127.0.0.1:8443", drop=("host",))
    yield vector(
        "GetSecretValue to another name", "the name that was signed is not the one that was asked",
        "secretsmanager", get, authority="localhost:8443", drop=("host",),
        expected="InvalidSignatureException")
    yield vector(
        "GetSecretValue at the KMS door", "a signature for one service is none for another", "kms",
        get, expected="InvalidSignatureException")
    yield vector(
        "Encrypt with temporary credentials", "the session token is a signed header", "kms",
        called("kms", "encrypt", {"KeyId": "alias/a", "Plaintext": b"\0\xff"}, token="T/o+k=="))
    yield vector(
        "ListSecrets with a non-ASCII filter", "the body is bytes, however they read",
        "secretsmanager",
        called("secretsmanager", "list_secrets", {"Filters": [{"Key": "name", "Values": ["gr\u00fc\u00df"]}]}))
    yield vector(
        "ListKeys over TLS", "the payload is signed here too, and a default port is no part of the name",
        "kms", called("kms", "list_keys", {}, endpoint="https://kms.example:443"))
    yield vector(
        "REST path with escapes", "the percent signs of what is sent are encoded once more",
        "secretsmanager", raw("GET", "http://127.0.0.1:8443/v1/secrets/prod%2Fdb%20one/value"))
    yield vector(
        "REST path with odd characters", "everything outside the unreserved set is encoded",
        "secretsmanager", raw("POST", "http://127.0.0.1:8443/v1/keys/a~b_c-d.e:wrap@(x)!*'$", b"{}"))
    yield vector(
        "REST path to normalise", "empty and dot segments go, as botocore signs them", "secretsmanager",
        raw("GET", "http://127.0.0.1:8443//v1/./secrets/x/../y/"))
    yield vector(
        "REST query", "parameters are sorted by name, then value", "secretsmanager",
        raw("GET", "http://127.0.0.1:8443/v1/secrets?b=2&a=%C3%A9&b=1&B=%20&flag="))
    yield vector(
        "Date header", "a request with a Date header is signed by it", "secretsmanager",
        raw("GET", "http://127.0.0.1:8443/v1/secrets", headers={"Date": "x"}))
    yield vector(
        "folded header", "inner blanks fold to one", "secretsmanager",
        raw("GET", "http://127.0.0.1:8443/v1/secrets", headers={"My-Header": "  a   b  c "}))
    yield vector(
        "payload hash header", "the header holds the body's own digest", "secretsmanager",
        raw("POST", "http://127.0.0.1:8443/v1/secrets", b"{}", headers={
            "X-Amz-Content-SHA256":
            "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}))
    yield vector(
        "unsigned payload", "signed with the words UNSIGNED-PAYLOAD, which these services refuse",
        "secretsmanager",
        raw("POST", "http://127.0.0.1:8443/v1/secrets", b"{}",
            headers={"X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"}),
        expected="InvalidSignatureException")
    presigned = raw("GET", "http://127.0.0.1:8443/v1/secrets?name=a%20b", query_for=900)
    yield vector("presigned URL", "the claims stand in the query", "secretsmanager", presigned)
    yield vector(
        "presigned URL over HTTP/2", "the name stands in :authority", "secretsmanager", presigned,
        authority="127.0.0.1:8443", drop=("host",))
    yield vector(
        "presigned URL with a token", "the session token is a signed parameter", "kms",
        raw("GET", "http://127.0.0.1:8443/", token="T/o+k==", query_for=60, service="kms"))


def main():
    with mock.patch("botocore.auth.get_current_datetime", lambda: WHEN):
        document = {
            "source": f"made by generate.py with botocore {botocore.__version__}",
            "secret": SECRET, "vectors": list(vectors()),
        }
    target = pathlib.Path(__file__).with_name("botocore.json")
    target.write_text(json.dumps(document, indent=1) + "\n")


main()
