"""STS and the Query protocol, as the AWS CLI, boto3 and a hand that types forms see them."""

from email.utils import parsedate_to_datetime
from urllib.parse import urlencode
from xml.etree import ElementTree

import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from conftest import QUERY_MODELS

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


def error_of(call, **parameters):
    """Code and text of the error that a boto3 call ends with."""
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


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
