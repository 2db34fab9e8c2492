"""The checker itself: it accepts what AWS answers and names each thing that AWS would not."""

import json

import pytest

from model import COMMON_ERRORS, Model, ModelMismatch

HEADERS = {
    "x-amzn-requestid": "7d5b1c5e-2f0b-4f6c-9a49-0e1f6ad5d8a1",
    "date": "Tue, 05 May 2026 10:00:00 GMT",
    "content-type": "application/x-amz-json-1.1",
}
KEY = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
SECRET = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:db-Abc123"

KMS = Model("kms")
SECRETS = Model("secretsmanager")


def check(model, operation, answer, status=200, headers=HEADERS):
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    model.check(operation, status, headers, body)


def secret_value(**changes):
    answer = {
        "ARN": SECRET,
        "Name": "db",
        "VersionId": "a" * 36,
        "SecretString": "hunter2",
        "VersionStages": ["AWSCURRENT"],
        "CreatedDate": 1777975200.123,
    }
    return {**answer, **changes}


GOOD = [
    (KMS, "Encrypt", {"CiphertextBlob": "AQID", "KeyId": KEY, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}),
    (KMS, "ListKeys", {"Keys": [{"KeyId": "k", "KeyArn": KEY}], "Truncated": False}),
    (KMS, "DisableKey", b""),
    (KMS, "DisableKey", b"{}"),
    (KMS, "DescribeKey", {"KeyMetadata": {"KeyId": "k", "CreationDate": 1777975200}}),
    (SECRETS, "GetSecretValue", secret_value()),
    (SECRETS, "DescribeSecret", {"VersionIdsToStages": {"a" * 36: ["AWSCURRENT"]}}),
    (SECRETS, "DeleteSecret", {"ARN": SECRET, "Name": "db", "DeletionDate": 1777975200}),
]


@pytest.mark.parametrize(("model", "operation", "answer"), GOOD)
def test_an_answer_as_aws_gives_it_passes(model, operation, answer):
    check(model, operation, answer)


BAD = [
    (KMS, "Encrypt", {"CiphertextBlob": "not base64!"}, r"\$\.CiphertextBlob: not base64"),
    (KMS, "Encrypt", {"CiphertextBlob": 7}, r"\$\.CiphertextBlob: not base64"),
    (KMS, "Encrypt", {"CiphertextBlob": ""}, r"0 is not within 1 to"),
    (KMS, "Encrypt", {"EncryptionAlgorithm": "ROT13"}, r"'ROT13' is not one of"),
    (KMS, "Encrypt", {"Extra": 1}, r"\$\.Extra: unknown to EncryptResponse"),
    (KMS, "Encrypt", {"KeyId": None}, r"\$\.KeyId: null"),
    (KMS, "Encrypt", {"KeyId": 5}, r"\$\.KeyId: 5 is not a text"),
    (KMS, "ListKeys", {"Keys": {}}, r"\$\.Keys: \{\} is not a list"),
    (KMS, "ListKeys", {"Keys": [7]}, r"\$\.Keys\[0\]: 7 is not an object"),
    (KMS, "ListKeys", {"Truncated": 0}, r"\$\.Truncated: 0 is not true or false"),
    (KMS, "DescribeKey", {"KeyMetadata": {}}, r"\$\.KeyMetadata\.KeyId: missing"),
    (KMS, "DisableKey", {"KeyId": "k"}, r"the operation has no output"),
    (KMS, "NoSuchThing", {}, r"does not exist"),
    (KMS, "ListKeys", b"", r"not JSON"),
    (KMS, "ListKeys", b'{"Truncated": true, "Truncated": true}', r"`Truncated` twice"),
    (KMS, "ListKeys", b'{"Truncated": NaN}', r"NaN is not JSON"),
    (KMS, "ListKeys", b"\xff", r"not JSON"),
    (KMS, "ScheduleKeyDeletion", {"PendingWindowInDays": 7.0}, r"7\.0 is not a whole number"),
    (KMS, "ScheduleKeyDeletion", {"PendingWindowInDays": True}, r"True is not a whole number"),
    (KMS, "ScheduleKeyDeletion", {"PendingWindowInDays": 2**31}, r"more than 32 bits"),
    (SECRETS, "GetSecretValue", secret_value(CreatedDate="2026-05-05"), r"not a number of seconds"),
    (SECRETS, "GetSecretValue", secret_value(CreatedDate=1777975200123), r"no likely moment"),
    (SECRETS, "GetSecretValue", secret_value(VersionStages=[]), r"VersionStages: 0 is not within"),
    (SECRETS, "GetSecretValue", secret_value(VersionId="short"), r"VersionId: 5 is not within"),
    (SECRETS, "DescribeSecret", {"VersionIdsToStages": {"a" * 36: "AWSCURRENT"}}, r"not a list"),
]


@pytest.mark.parametrize(("model", "operation", "answer", "fault"), BAD)
def test_an_answer_that_aws_would_not_give_is_named(model, operation, answer, fault):
    with pytest.raises(ModelMismatch, match=fault):
        check(model, operation, answer)


@pytest.mark.parametrize("absent", ["x-amzn-requestid", "date", "content-type"])
def test_every_answer_needs_its_headers(absent):
    headers = {name: value for name, value in HEADERS.items() if name != absent}
    with pytest.raises(ModelMismatch, match=absent.replace("-", ".")):
        check(KMS, "ListKeys", {"Keys": []}, headers=headers)


def test_modelled_and_common_errors_pass():
    check(KMS, "Decrypt", {"__type": "InvalidCiphertextException"}, 400)
    check(KMS, "Decrypt", {"__type": "KMSInternalException", "message": "later"}, 500)
    check(SECRETS, "GetSecretValue", {"__type": "ResourceNotFoundException", "Message": "no"}, 400)
    check(SECRETS, "GetSecretValue", {"__type": "com.amazon#AccessDeniedException"}, 400)
    check(SECRETS, None, {"__type": "UnknownOperationException"}, 400)
    typed = {**HEADERS, "x-amzn-errortype": "ValidationException:http://internal.amazon.com/"}
    check(KMS, "Decrypt", {"__type": "ValidationException", "message": "m"}, 400, typed)


BAD_ERRORS = [
    ("ListKeys", {"__type": "InvalidCiphertextException"}, 400, "not among the errors of ListKeys"),
    (None, {"__type": "InvalidCiphertextException"}, 400, "not among the errors of None"),
    ("Decrypt", {"__type": "Oops"}, 400, "Oops is not among"),
    ("Decrypt", {"__type": "InvalidCiphertextException"}, 500, "the caller's fault"),
    ("Decrypt", {"__type": "KMSInternalException"}, 400, "the server's fault"),
    ("Decrypt", {"__type": "ValidationException"}, 500, "the caller's fault"),
    ("Decrypt", {"__type": "NotFoundException", "Message": "n"}, 400, r"\$\.Message: unknown"),
    ("Decrypt", {"__type": "ValidationException", "text": "n"}, 400, r"\$\.text: not a text"),
    ("Decrypt", {"message": "n"}, 400, "without `__type`"),
    ("Decrypt", b"<html>", 503, "not JSON"),
]


@pytest.mark.parametrize(("operation", "answer", "status", "fault"), BAD_ERRORS)
def test_an_error_that_aws_would_not_give_is_named(operation, answer, status, fault):
    with pytest.raises(ModelMismatch, match=fault):
        check(KMS, operation, answer, status)


def test_an_error_type_header_must_agree_with_the_body():
    headers = {**HEADERS, "x-amzn-errortype": "NotFoundException"}
    with pytest.raises(ModelMismatch, match="x-amzn-errortype says NotFoundException"):
        check(KMS, "Decrypt", {"__type": "DisabledException"}, 400, headers)


def test_every_shape_of_both_models_has_a_check():
    from model import CHECKS

    for model in (KMS, SECRETS):
        kinds = {model.service.shape_for(name).type_name for name in model.service.shape_names}
        assert kinds <= set(CHECKS)


def test_no_common_error_hides_one_that_a_model_describes():
    for model in (KMS, SECRETS):
        assert not {shape.name for shape in model.service.error_shapes} & set(COMMON_ERRORS)
