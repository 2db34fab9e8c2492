"""Callers without credentials: tokens of an issuer, certificates, connections with certificates."""

import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, urlencode

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.credentials import Credentials

from conftest import Answer, Appliance, check_boto3_answer, free_port
from issuer import Authority, Issuer, pem, sign_x509
from test_sts import allow, caller_identity, code, error_of, form, policy, temporary, trust

ISSUER = "https://oidc.example.com/id/CAFE"
PROVIDER = "oidc.example.com/id/CAFE"
ANCHOR = "11111111-2222-4333-8444-555555555555"
PROFILE = "66666666-7777-4888-9999-aaaaaaaaaaaa"
REVOKING = "bbbbbbbb-cccc-4ddd-8eee-ffffffffffff"


class Federated(NamedTuple):
    """An appliance that believes an issuer and a CA."""

    appliance: Appliance
    issuer: Issuer
    authority: Authority
    tls_port: int
    ca: Path
    revoking: Authority
    below: Authority

    def publish(self):
        """Writes the revocation lists of the second trust anchor, and has them read."""
        lists = self.revoking.revocations() + self.below.revocations()
        fresh = self.ca.with_name("crl.pem.new")
        fresh.write_text(lists)
        fresh.rename(self.ca.with_name("crl.pem"))
        if self.appliance.process.poll() is None:
            self.appliance.process.send_signal(signal.SIGHUP)


@pytest.fixture(scope="module")
def federated(tmp_path_factory):
    """An appliance with an issuer, a trust anchor, a profile, a rule and TLS."""
    directory = tmp_path_factory.mktemp("federated")
    appliance = Appliance(directory)
    appliance.stop()
    issuer, authority = Issuer(ISSUER), Authority()
    (directory / "jwks.json").write_text(issuer.jwks)
    (directory / "ca.pem").write_text(pem(authority.certificate))
    certificate, key = authority.issue("appliance", server=True)
    (directory / "server.pem").write_text(pem(certificate))
    (directory / "server.key").write_text(pem(key))
    (directory / "server.key").chmod(0o600)
    revoking = Authority("Revoking CA")
    below = Authority("Intermediate CA", parent=revoking)
    (directory / "revoking.pem").write_text(pem(revoking.certificate))
    port, account = free_port(), appliance.account_id
    running = Federated(appliance, issuer, authority, port, directory / "ca.pem", revoking, below)
    running.publish()
    config = directory / "appliance" / "strongroom.toml"
    text = config.read_text()
    assert "[front]\n" in text
    text = text.replace("[front]\n", f'[front]\nlisten = ["127.0.0.1:{port}"]\n', 1)
    text += f"""
[front.tls]
certificate = "{directory}/server.pem"
key = "{directory}/server.key"

[[identity.issuer]]
url = "{ISSUER}"
audiences = ["sts.amazonaws.com", "other"]
jwks = "{directory}/jwks.json"

[[identity.issuer]]
url = "https://unreachable.example.com"
audiences = ["sts.amazonaws.com"]
jwks = "http://127.0.0.1:{free_port()}/keys"

[[identity.trust_anchor]]
id = "{ANCHOR}"
account = "{account}"
name = "test"
certificates = "{directory}/ca.pem"

[[identity.trust_anchor]]
id = "{REVOKING}"
account = "{account}"
name = "with revocation lists"
certificates = "{directory}/revoking.pem"
crl = "{directory}/crl.pem"

[[identity.profile]]
id = "{PROFILE}"
account = "{account}"
name = "test"
role_arns = ["arn:aws:iam::{account}:role/anywhere", "arn:aws:iam::{account}:role/gone"]
session_policy = '{policy(allow("secretsmanager:*"))}'

[[identity.client_certificate]]
trust_anchor = "{ANCHOR}"
match = {{ "x509Subject/CN" = "web-*" }}
role_arn = "arn:aws:iam::{account}:role/mutual"
session_name = "{{x509Subject/CN}}"

[[identity.client_certificate]]
trust_anchor = "{REVOKING}"
match = {{ "x509Subject/CN" = "web-*" }}
role_arn = "arn:aws:iam::{account}:role/mutual"
"""
    config.write_text(text)
    appliance.start()
    yield running
    appliance.stop()


@pytest.fixture(scope="module")
def iam(federated):
    """A checked boto3 client for IAM."""
    return federated.appliance.client("iam")


@pytest.fixture(scope="module")
def unsigned(federated):
    """A checked boto3 client for STS that signs nothing."""
    client = boto3.session.Session().client(
        "sts",
        endpoint_url=federated.appliance.endpoint,
        region_name=federated.appliance.region,
        config=Config(signature_version=UNSIGNED, retries={"total_max_attempts": 1}),
    )
    client.meta.events.register("after-call", check_boto3_answer)
    return client


# ---- AssumeRoleWithWebIdentity ----


def web_trust(federated, actions=("sts:AssumeRoleWithWebIdentity",), **conditions):
    """A trust policy for the issuer's tokens."""
    provider = f"arn:aws:iam::{federated.appliance.account_id}:oidc-provider/{PROVIDER}"
    more = {"Condition": conditions} if conditions else {}
    return trust({"Federated": provider}, actions, **more)


@pytest.fixture
def web_role(federated, iam, name):
    """Makes a role for the issuer's tokens; answers its ARN."""

    def make(trusted, allowed=None):
        made = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trusted)["Role"]
        if allowed:
            iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=allowed)
        return made["Arn"]

    return make


def test_a_service_account_gets_the_credentials_of_its_role(federated, web_role, unsigned, name):
    subject = "system:serviceaccount:default:app"
    fits = {f"{PROVIDER}:sub": subject, f"{PROVIDER}:aud": "sts.amazonaws.com"}
    trusted = web_trust(federated, StringEquals=fits)
    arn = web_role(trusted, policy(allow("secretsmanager:ListSecrets")))
    answer = unsigned.assume_role_with_web_identity(
        RoleArn=arn, RoleSessionName="pod", WebIdentityToken=federated.issuer.token()
    )
    assert answer["SubjectFromWebIdentityToken"] == subject
    assert (answer["Provider"], answer["Audience"]) == (ISSUER, "sts.amazonaws.com")
    credentials = temporary(answer)
    federated.appliance.client("secretsmanager", credentials=credentials).list_secrets()
    who = federated.appliance.client("sts", credentials=credentials).get_caller_identity()
    account = federated.appliance.account_id
    assert who["Arn"] == f"arn:aws:sts::{account}:assumed-role/{name}/pod"
    other = federated.issuer.token("system:serviceaccount:default:other")
    asked = {"RoleArn": arn, "RoleSessionName": "pod", "WebIdentityToken": other}
    text = "Not authorized to perform sts:AssumeRoleWithWebIdentity"
    assert error_of(unsigned.assume_role_with_web_identity, **asked) == ("AccessDenied", text)


def test_boto3_and_the_cli_find_the_token_in_its_file(federated, web_role, tmp_path):
    arn = web_role(web_trust(federated), policy(allow("secretsmanager:ListSecrets")))
    (tmp_path / "token").write_text(federated.issuer.token())
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "AWS_ROLE_ARN": arn,
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"),
        "AWS_ROLE_SESSION_NAME": "pod",
        "AWS_ENDPOINT_URL": federated.appliance.endpoint,
        "AWS_DEFAULT_REGION": federated.appliance.region,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    command = [Path(sys.executable).parent / "aws", "secretsmanager", "list-secrets"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    script = "import boto3; print(boto3.client('sts').get_caller_identity()['Arn'])"
    command = [sys.executable, "-c", script]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip().endswith("/pod")


def test_a_role_that_does_not_trust_the_provider_or_is_not_there_is_refused(federated, web_role, unsigned):
    account = federated.appliance.account_id
    arn = web_role(trust({"AWS": f"arn:aws:iam::{account}:root"}, ["sts:*"]))
    text = "Not authorized to perform sts:AssumeRoleWithWebIdentity"
    for role_arn in (arn, arn + "x"):
        asked = {"RoleArn": role_arn, "RoleSessionName": "pod"}
        asked["WebIdentityToken"] = federated.issuer.token()
        assert error_of(unsigned.assume_role_with_web_identity, **asked) == ("AccessDenied", text)


def bad_tokens(issuer):
    """What proves nothing, by what is wrong with it."""
    now = int(time.time())
    header, body, signature = issuer.token().split(".")
    stranger = Issuer(ISSUER)
    return {
        "alg none": (issuer.token(header={"alg": "none"}), "InvalidIdentityToken"),
        "HS256": (issuer.token(header={"alg": "HS256"}), "InvalidIdentityToken"),
        "another audience": (issuer.token(aud="elsewhere"), "InvalidIdentityToken"),
        "no audience": (issuer.token(aud=None), "InvalidIdentityToken"),
        "an unknown key": (stranger.token(), "InvalidIdentityToken"),
        "another's key": (stranger.token(header={"kid": issuer.kid}), "InvalidIdentityToken"),
        "another body": (f"{header}.{issuer.token('x').split('.')[1]}.{signature}", "InvalidIdentityToken"),
        "an unknown issuer": (Issuer("https://evil.example").token(), "InvalidIdentityToken"),
        "expired": (issuer.token(exp=now - 1, iat=now - 600), "ExpiredTokenException"),
        "not yet": (issuer.token(nbf=now + 600), "IDPRejectedClaim"),
        "no subject": (issuer.token(sub=None), "InvalidIdentityToken"),
        "no JWT": ("not a token", "InvalidIdentityToken"),
        "huge": ("x" * 20_001, "ValidationError"),
        "keys that can't be had": (
            Issuer("https://unreachable.example.com").token(),
            "IDPCommunicationError",
        ),
    }


def test_a_token_that_proves_nothing_is_refused_in_sts_s_own_words(federated, web_role, unsigned):
    arn = web_role(web_trust(federated))
    for what, (token, expected) in bad_tokens(federated.issuer).items():
        asked = {"RoleArn": arn, "RoleSessionName": "pod", "WebIdentityToken": token}
        form_ = {"Action": "AssumeRoleWithWebIdentity", "Version": "2011-06-15", **asked}
        answer = form(federated.appliance, form_, sign=False)
        assert code(answer)[0] == expected, what
        assert answer.status == (403 if expected == "IDPRejectedClaim" else 400), what


def test_a_form_without_role_or_token_says_what_is_missing(federated):
    for given, missing in (
        ({}, "roleArn"),
        ({"RoleArn": "arn:aws:iam::000000000000:role/x", "RoleSessionName": "pod"}, "webIdentityToken"),
        ({"WebIdentityToken": federated.issuer.token()}, "roleSessionName"),
    ):
        asked = {"Action": "AssumeRoleWithWebIdentity", "Version": "2011-06-15", **given}
        answer = form(federated.appliance, asked, sign=False)
        assert code(answer)[0] == "ValidationError" and missing in code(answer)[1]


def test_a_role_that_can_be_none_is_named_in_the_refusal(federated, unsigned):
    for role_arn in ("x" * 30, "arn:aws:iam::elsewhere:role/x", "arn:aws:iam::000000000000:user/x"):
        asked = {"RoleArn": role_arn, "RoleSessionName": "pod"}
        asked["WebIdentityToken"] = federated.issuer.token()
        refused = error_of(unsigned.assume_role_with_web_identity, **asked)
        assert refused == ("ValidationError", f"{role_arn} is invalid")


def test_tags_may_be_bound_to_the_sessions_name(federated, web_role, unsigned):
    actions = ("sts:AssumeRoleWithWebIdentity", "sts:TagSession")
    trusted = web_trust(federated, actions, StringEquals={"sts:RoleSessionName": "pod"})
    claims = {"https://aws.amazon.com/tags": {"principal_tags": {"team": ["blue"]}}}
    asked = {"RoleArn": web_role(trusted), "WebIdentityToken": federated.issuer.token(**claims)}
    unsigned.assume_role_with_web_identity(RoleSessionName="pod", **asked)
    refused = error_of(unsigned.assume_role_with_web_identity, RoleSessionName="other", **asked)
    assert refused[0] == "AccessDenied"


def test_the_issuers_tags_and_source_identity_need_their_rights_and_come_along(
    federated, iam, web_role, unsigned, name
):
    team = {"StringEquals": {"aws:PrincipalTag/team": "blue", "aws:SourceIdentity": "alice"}}
    arn = web_role(web_trust(federated), policy(allow("kms:ListKeys", Condition=team)))
    claims = {
        "https://aws.amazon.com/tags": {"principal_tags": {"team": ["blue"]}},
        "https://aws.amazon.com/source_identity": "alice",
    }
    token = federated.issuer.token(**claims)
    asked = {"RoleArn": arn, "RoleSessionName": "pod", "WebIdentityToken": token}
    assert error_of(unsigned.assume_role_with_web_identity, **asked)[0] == "AccessDenied"
    actions = ("sts:AssumeRoleWithWebIdentity", "sts:TagSession", "sts:SetSourceIdentity")
    trusted = web_trust(federated, actions)
    iam.update_assume_role_policy(RoleName=name, PolicyDocument=trusted)
    answer = unsigned.assume_role_with_web_identity(**asked)
    assert answer["SourceIdentity"] == "alice"
    federated.appliance.client("kms", credentials=temporary(answer)).list_keys()


def test_the_token_is_not_in_the_audit_log_and_its_subject_is(federated, web_role, unsigned):
    arn = web_role(web_trust(federated))
    subject = f"subject-{uuid.uuid4()}"
    token = federated.issuer.token(subject)
    unsigned.assume_role_with_web_identity(RoleArn=arn, RoleSessionName="pod", WebIdentityToken=token)
    (path,) = federated.appliance.directory.rglob("audit.jsonl")
    log = path.read_text()
    assert subject in log and token not in log and token.split(".")[1] not in log


# ---- CreateSession ----


def create_session(federated, certificate, key, *, role="anywhere", how="query", alter=None, **more):
    """Sends CreateSession as the signing helper does, and returns the raw answer."""
    appliance = federated.appliance
    account, region = appliance.account_id, appliance.region
    arns = {
        "profileArn": f"arn:aws:rolesanywhere:{region}:{account}:profile/{PROFILE}",
        "roleArn": f"arn:aws:iam::{account}:role/{role}",
        "trustAnchorArn": f"arn:aws:rolesanywhere:{region}:{account}:trust-anchor/{ANCHOR}",
    }
    arns |= {name: more.pop(name) for name in list(more) if name in arns}
    headers = more.pop("headers", {})
    signing = {name: more.pop(name) for name in ("when", "chain") if name in more}
    query = "" if how == "body" else urlencode(arns, quote_via=quote, safe="")
    body = json.dumps({**(arns if how == "body" else {}), **more}).encode()
    host = appliance.endpoint.removeprefix("http://")
    signed = sign_x509(
        certificate, key, path="/sessions", query=query, body=body, host=host, region=region, **signing
    )
    path = f"/sessions?{query}" if query else "/sessions"
    return appliance.post(alter or body, {**signed, **headers}, path=path)


def anywhere_trust(*actions, **conditions):
    """A trust policy for the holders of certificates."""
    actions = actions or ("sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity")
    more = {"Condition": conditions} if conditions else {}
    return trust({"Service": "rolesanywhere.amazonaws.com"}, actions, **more)


@pytest.fixture(scope="module")
def anywhere(federated, iam):
    """The role that the profile names."""
    trusted = anywhere_trust(StringLike={"aws:PrincipalTag/x509Subject/CN": "batch-*"})
    iam.create_role(RoleName="anywhere", AssumeRolePolicyDocument=trusted)
    allowed = policy(allow(["secretsmanager:ListSecrets", "kms:ListKeys"]))
    iam.put_role_policy(RoleName="anywhere", PolicyName="p", PolicyDocument=allowed)


@pytest.mark.parametrize("kind", ["ec", "rsa"])
@pytest.mark.parametrize("how", ["query", "body"])
def test_a_certificate_gets_the_credentials_of_its_role(federated, anywhere, kind, how):
    certificate, key = federated.authority.issue("batch-1", kind=kind)
    answer = create_session(federated, certificate, key, how=how, durationSeconds=900)
    assert answer.status == 201, answer
    (given,) = answer.json["credentialSet"]
    account = federated.appliance.account_id
    assert answer.json["subjectArn"].startswith(f"arn:aws:rolesanywhere:us-east-1:{account}:subject/")
    assert given["roleArn"] == f"arn:aws:iam::{account}:role/anywhere"
    assert given["sourceIdentity"] == "CN=batch-1"
    serial = f"{certificate.serial_number:x}"
    serial = serial.zfill(len(serial) + len(serial) % 2)
    arn = f"arn:aws:sts::{account}:assumed-role/anywhere/{serial}"
    assert given["assumedRoleUser"]["arn"] == arn
    told = given["credentials"]
    left = datetime.fromisoformat(told["expiration"]) - datetime.now(UTC)
    assert timedelta(seconds=890) < left <= timedelta(seconds=900)
    credentials = Credentials(told["accessKeyId"], told["secretAccessKey"], told["sessionToken"])
    who = federated.appliance.client("sts", credentials=credentials).get_caller_identity()
    assert who["Arn"] == arn
    federated.appliance.client("secretsmanager", credentials=credentials).list_secrets()
    # The role may, the profile's session policy may not.
    kms = federated.appliance.client("kms", credentials=credentials)
    assert error_of(kms.list_keys)[0] == "AccessDeniedException"


def test_a_certificate_or_request_that_proves_nothing_is_refused(federated, anywhere):
    certificate, key = federated.authority.issue("batch-1")
    stranger, strange_key = Authority("Stranger").issue("batch-1")
    wrong_name, wrong_key = federated.authority.issue("web-1")
    expired, expired_key = federated.authority.issue("batch-1", days=-1)
    account = federated.appliance.account_id
    unknown = f"arn:aws:rolesanywhere:us-east-1:{account}:trust-anchor/{uuid.uuid4()}"
    profile = f"arn:aws:rolesanywhere:us-east-1:{account}:profile/{uuid.uuid4()}"
    late = datetime.now(UTC) - timedelta(minutes=10)
    cases = {
        "a stranger's": (create_session(federated, stranger, strange_key), 403),
        "of a name that is not trusted": (create_session(federated, wrong_name, wrong_key), 403),
        "expired": (create_session(federated, expired, expired_key), 403),
        "another key": (create_session(federated, certificate, strange_key), 403),
        "an altered body": (create_session(federated, certificate, key, alter=b"{ }"), 403),
        "signed long ago": (create_session(federated, certificate, key, when=late), 403),
        "another role": (create_session(federated, certificate, key, role="other"), 403),
        "a role that is gone": (create_session(federated, certificate, key, role="gone"), 403),
        "no such anchor": (create_session(federated, certificate, key, trustAnchorArn=unknown), 404),
        "no such profile": (create_session(federated, certificate, key, profileArn=profile), 404),
        "a name of its own": (create_session(federated, certificate, key, roleSessionName="me"), 403),
        "too short": (create_session(federated, certificate, key, durationSeconds=1), 400),
        "no certificate": (federated.appliance.post(b"{}", {}, path="/sessions"), 403),
    }
    for what, (answer, status) in cases.items():
        assert answer.status == status, (what, answer)
        assert answer.json["message"], what
        expected = {400: "Validation", 403: "AccessDenied", 404: "ResourceNotFound"}[status]
        assert answer.headers["x-amzn-errortype"] == f"{expected}Exception", what


def message(answer):
    """Status and text of a refusal."""
    return answer.status, answer.json.get("message")


def eventually(ask, expected):
    """Asks until the answer is the expected one; revocation lists are read on a signal."""
    deadline = time.monotonic() + 20
    while (answer := ask()) != expected and time.monotonic() < deadline:
        time.sleep(0.1)
    assert answer == expected


def test_a_certificate_below_an_intermediate_counts_until_one_of_the_chain_is_revoked(federated, anywhere):
    account = federated.appliance.account_id
    anchor = f"arn:aws:rolesanywhere:us-east-1:{account}:trust-anchor/{REVOKING}"
    chain = [federated.below.certificate]

    def ask(certificate, key, **more):
        more = {"chain": chain, **more}
        return message(create_session(federated, certificate, key, trustAnchorArn=anchor, **more))

    one, other = federated.below.issue("batch-1"), federated.below.issue("batch-2")
    good = (201, None)
    assert ask(*one) == ask(*other) == good
    assert ask(*one, chain=())[0] == 403
    assert ask(*one, chain=[Authority("Intermediate CA").certificate])[0] == 403
    assert ask(*one, chain=chain * 6)[0] == 400
    revoked = (403, "the certificate, or one that it depends on, has been revoked")
    federated.below.revoke(one[0])
    federated.publish()
    eventually(lambda: ask(*one), revoked)
    assert ask(*other) == good
    federated.revoking.revoke(federated.below.certificate)
    federated.publish()
    eventually(lambda: ask(*other), revoked)
    federated.revoking.revoked.clear()
    federated.publish()
    eventually(lambda: ask(*other), good)


# ---- mutual TLS ----


@pytest.fixture(scope="module")
def mutual(federated, iam):
    """The role that the rule names."""
    trusted = trust({"AWS": f"arn:aws:iam::{federated.appliance.account_id}:root"})
    iam.create_role(RoleName="mutual", AssumeRolePolicyDocument=trusted)
    allowed = policy(allow("secretsmanager:ListSecrets"))
    iam.put_role_policy(RoleName="mutual", PolicyName="p", PolicyDocument=allowed)


def over_tls(federated, tmp_path, certificate=None, key=None, target="secretsmanager.ListSecrets", **headers):
    """Sends an unsigned request over TLS, with a certificate if there is one."""
    context = ssl.create_default_context(cafile=federated.ca)
    if certificate:
        (tmp_path / "client.pem").write_text(pem(certificate) + pem(key))
        context.load_cert_chain(tmp_path / "client.pem")
    connection = http.client.HTTPSConnection("127.0.0.1", federated.tls_port, context=context, timeout=30)
    sent = {"X-Amz-Target": target, "Content-Type": "application/x-amz-json-1.1", **headers}
    try:
        connection.request("POST", "/", body=b"{}", headers=sent)
        answer = connection.getresponse()
        names = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, names, answer.read())
    finally:
        connection.close()


def test_a_connection_with_a_certificate_is_a_session_of_its_role(federated, mutual, tmp_path):
    certificate, key = federated.authority.issue("web-1")
    answer = over_tls(federated, tmp_path, certificate, key)
    assert answer.status == 200, answer
    denied = over_tls(federated, tmp_path, certificate, key, target="TrentService.ListKeys")
    account = federated.appliance.account_id
    session = f"arn:aws:sts::{account}:assumed-role/mutual/web-1"
    assert denied.code == "AccessDeniedException"
    assert denied.json["Message"].startswith(f"User: {session} is not authorized")
    # A signature goes before the certificate.
    _, signed = federated.appliance.signed("TrentService.ListKeys", {})
    assert signed  # signed for another host
    answer = over_tls(federated, tmp_path, certificate, key, Authorization="AWS4-HMAC-SHA256 x=y")
    assert answer.code == "IncompleteSignatureException"


def test_a_connection_whose_certificate_is_nobodys_needs_a_signature(federated, mutual, tmp_path):
    missing = "MissingAuthenticationTokenException"
    assert over_tls(federated, tmp_path).code == missing
    for authority, common_name, days in (
        (federated.authority, "batch-1", 30),
        (federated.authority, "web-1", -1),
        (Authority("Stranger"), "web-1", 30),
    ):
        certificate, key = authority.issue(common_name, days=days)
        answer = over_tls(federated, tmp_path, certificate, key)
        assert answer.code == missing, (authority, common_name, days)


def test_a_page_in_a_browser_can_not_use_the_browsers_certificate(federated, mutual, tmp_path):
    certificate, key = federated.authority.issue("web-1")
    for header in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = over_tls(federated, tmp_path, certificate, key, **header)
        assert answer.code == "MissingAuthenticationTokenException"


def test_a_revoked_certificate_makes_no_connection_a_session(federated, mutual, tmp_path):
    certificate, key = federated.revoking.issue("web-1")
    other, other_key = federated.revoking.issue("web-2")
    ask = lambda *pair: over_tls(federated, tmp_path, *pair).status  # noqa: E731
    assert ask(certificate, key) == ask(other, other_key) == 200
    federated.revoking.revoke(certificate)
    federated.publish()
    eventually(lambda: ask(certificate, key), 400)
    assert over_tls(federated, tmp_path, certificate, key).code == "MissingAuthenticationTokenException"
    assert ask(other, other_key) == 200


def test_a_connection_loses_its_role_with_the_role(federated, iam, mutual, tmp_path):
    certificate, key = federated.authority.issue("web-2")
    iam.delete_role_policy(RoleName="mutual", PolicyName="p")
    answer = over_tls(federated, tmp_path, certificate, key)
    assert answer.code == "AccessDeniedException"
    iam.delete_role(RoleName="mutual")
    answer = over_tls(federated, tmp_path, certificate, key)
    assert answer.code == "MissingAuthenticationTokenException"


def test_who_has_no_signature_and_asks_for_something_else_is_refused(federated):
    answer = form(federated.appliance, caller_identity(), sign=False)
    assert code(answer)[0] == "MissingAuthenticationToken"


def test_requests_that_prove_nothing_can_not_fill_the_audit_log(federated):
    """They had records of their own, whatever their rate, where the token was left out."""
    (path,) = federated.appliance.directory.rglob("audit.jsonl")
    size, count = path.stat().st_size, 1500
    asked = {"Action": "AssumeRoleWithWebIdentity", "Version": "2011-06-15"}
    body = urlencode({**asked, "RoleSessionName": "x" * 5000})
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    connection = http.client.HTTPConnection(federated.appliance.endpoint.removeprefix("http://"))
    for _ in range(count):
        connection.request("POST", "/", body=body, headers=headers)
        answer = connection.getresponse()
        assert (answer.status, b"ValidationError" in answer.read()) == (400, True)
    connection.close()
    with path.open("rb") as log:
        log.seek(size)
        lines = log.read().splitlines()
    assert len(lines) < count
    assert max(map(len, lines)) <= 4096
