"""STS and the Query protocol, as the AWS CLI, boto3 and a hand that types forms see them."""

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
