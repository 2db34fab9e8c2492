"""Secrets' values and versions: CreateSecret, GetSecretValue, BatchGetSecretValue, PutSecretValue,
UpdateSecret, UpdateSecretVersionStage, ListSecretVersionIds."""

import concurrent.futures
import time
import uuid

import pytest
from botocore.exceptions import ClientError

from conftest import error_of

NOT_FOUND = "Secrets Manager can't find the specified secret."
DELETED = "You can't perform this operation on the secret because it was marked for deletion."


def told(answer):
    """Status, code and text of a raw error; whose text it is decides how its member is written."""
    body = answer.json
    return answer.status, answer.code, body.get("Message", body.get("message"))


def token():
    return str(uuid.uuid4())


def stages(client, name):
    """Versions and their labels, oldest first, deprecated ones with none."""
    listed = client.list_secret_version_ids(SecretId=name, IncludeDeprecated=True)
    return [(v["VersionId"], v.get("VersionStages")) for v in listed["Versions"]]


@pytest.fixture
def put(secretsmanager, name):
    """Puts a value into the secret of this test; answers the new version's id."""

    def put(value, **members):
        made = secretsmanager.put_secret_value(SecretId=name, SecretString=value, **members)
        return made["VersionId"]

    return put


@pytest.fixture
def first(secretsmanager, name):
    """The first version of this test's secret."""
    return secretsmanager.create_secret(Name=name, SecretString="one")["VersionId"]


@pytest.fixture
def customer_key(kms):
    """A key of the customer's own."""
    return kms.create_key()["KeyMetadata"]


# CreateSecret


def test_an_arn_ends_in_six_letters_and_digits(secretsmanager, appliance, name):
    arn = secretsmanager.create_secret(Name=name)["ARN"]
    stem = f"arn:aws:secretsmanager:{appliance.region}:{appliance.account_id}:secret:{name}-"
    assert arn.startswith(stem)
    suffix = arn.removeprefix(stem)
    assert len(suffix) == 6 and suffix.isascii() and suffix.isalnum()


def test_a_secret_without_a_value_has_no_version(secretsmanager, name):
    assert "VersionId" not in secretsmanager.create_secret(Name=name)
    assert secretsmanager.list_secret_version_ids(SecretId=name)["Versions"] == []
    assert error_of(secretsmanager.get_secret_value, SecretId=name) == (
        "ResourceNotFoundException",
        "Secrets Manager can't find the specified secret value for staging label: AWSCURRENT",
    )
    made = secretsmanager.put_secret_value(SecretId=name, SecretString="a")
    assert made["VersionStages"] == ["AWSCURRENT"]


def test_a_secret_is_found_by_name_arn_and_arn_without_suffix(secretsmanager, name):
    arn = secretsmanager.create_secret(Name=name, SecretString="a")["ARN"]
    for named in (name, arn, arn[:-7]):
        read = secretsmanager.get_secret_value(SecretId=named)
        assert (read["ARN"], read["Name"], read["SecretString"]) == (arn, name, "a")
    assert error_of(secretsmanager.get_secret_value, SecretId=arn[:-6] + "abcdef")[1] == NOT_FOUND
    elsewhere = arn.replace(arn.split(":")[3], "xx-other-9")
    assert error_of(secretsmanager.get_secret_value, SecretId=elsewhere)[1] == NOT_FOUND


def test_a_name_of_512_characters_is_found_by_its_arn(appliance):
    """The model lets requests carry longer names than answers, so the answers are not checked."""
    body = {"Name": uuid.uuid4().hex * 16, "ClientRequestToken": token(), "SecretString": "a"}
    made = appliance.raw("secretsmanager.CreateSecret", body, check=False).json
    read = {"SecretId": made["ARN"]}
    read = appliance.raw("secretsmanager.GetSecretValue", read, check=False).json
    assert (read["Name"], read["SecretString"]) == (body["Name"], "a")


def test_a_name_that_looks_like_one_with_a_suffix_is_a_name(secretsmanager, name):
    secretsmanager.create_secret(Name=name + "-abcdef", SecretString="a")
    arn = secretsmanager.create_secret(Name=name, SecretString="b")["ARN"]
    read = secretsmanager.get_secret_value
    assert read(SecretId=name + "-abcdef")["SecretString"] == "a"
    assert read(SecretId=arn)["SecretString"] == "b"


def test_an_invalid_name_is_refused_before_anything_else(appliance, name):
    text = (
        "Invalid name. Must be a valid name containing alphanumeric characters, or any of the "
        "following: -/_+=.@!"
    )
    made = {"Name": name + "?", "ClientRequestToken": token()}
    answer = appliance.raw("secretsmanager.CreateSecret", made)
    assert told(answer) == (400, "ValidationException", text)
    read = appliance.raw("secretsmanager.GetSecretValue", {"SecretId": "a b"})
    assert told(read) == (400, "ValidationException", text)


@pytest.mark.parametrize("operation", ["CreateSecret", "PutSecretValue", "UpdateSecret"])
def test_the_token_must_be_there_on_the_wire(appliance, operation):
    body = {"SecretString": "a"}
    body["Name" if operation == "CreateSecret" else "SecretId"] = "no-such-secret"
    answer = appliance.raw(f"secretsmanager.{operation}", body)
    assert (answer.status, answer.code) == (400, "InvalidRequestException")
    text = "You must provide a ClientRequestToken value. We recommend a UUID-type value."
    assert answer.json["Message"] == text


def test_creating_the_same_again_with_the_same_token_repeats_the_answer(secretsmanager, name):
    same = {"Name": name, "ClientRequestToken": token(), "SecretString": "a"}
    made = secretsmanager.create_secret(**same)
    again = secretsmanager.create_secret(**same)
    assert (made["ARN"], made["VersionId"]) == (again["ARN"], again["VersionId"])
    code, text = error_of(secretsmanager.create_secret, **{**same, "SecretString": "b"})
    assert (code, text) == (
        "ResourceExistsException",
        f"You can't use ClientRequestToken {same['ClientRequestToken']} because that value is "
        f"already in use for a version of secret {made['ARN']}.",
    )
    code, text = error_of(secretsmanager.create_secret, Name=name, SecretString="a")
    assert code == "ResourceExistsException"
    assert text == f"The operation failed because the secret {name} already exists."


def test_one_of_many_simultaneous_creations_wins(appliance, name):
    def create(_):
        try:
            client = appliance.client("secretsmanager")
            return client.create_secret(Name=name, SecretString="a")["VersionId"]
        except ClientError as error:
            return error.response["Error"]["Code"]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(create, range(8)))
    assert outcomes.count("ResourceExistsException") == 7


def test_text_and_bytes_exclude_each_other(secretsmanager, name):
    code, text = error_of(
        secretsmanager.create_secret, Name=name, SecretString="a", SecretBinary=b"a"
    )
    assert code == "InvalidParameterException"
    assert "both a binary secret value and a string secret value" in text


def test_a_value_has_up_to_65536_bytes_and_no_refusal_shows_it(secretsmanager, appliance, name):
    largest = "é" * 32_768
    secretsmanager.create_secret(Name=name, SecretString=largest)
    assert secretsmanager.get_secret_value(SecretId=name)["SecretString"] == largest
    secretsmanager.put_secret_value(SecretId=name, SecretBinary=b"\0" * 65_536)
    assert secretsmanager.get_secret_value(SecretId=name)["SecretBinary"] == b"\0" * 65_536
    body = {"SecretId": name, "ClientRequestToken": token(), "SecretString": largest + "x"}
    answer = appliance.raw("secretsmanager.PutSecretValue", body)
    assert (answer.status, answer.code) == (400, "ValidationException")
    assert told(answer)[2].endswith(
        "Value at 'secretString' failed to satisfy constraint: Member must have length less than "
        "or equal to 65536"
    )


def test_replicas_are_refused_and_not_forgotten(secretsmanager, name):
    code, _ = error_of(
        secretsmanager.create_secret, Name=name, AddReplicaRegions=[{"Region": "eu-west-1"}]
    )
    assert code == "InvalidParameterException"
    assert error_of(secretsmanager.get_secret_value, SecretId=name)[1] == NOT_FOUND


def test_a_name_is_blocked_while_its_deletion_is_pending(secretsmanager, first, name):
    secretsmanager.delete_secret(SecretId=name)
    assert error_of(secretsmanager.create_secret, Name=name, SecretString="a") == (
        "InvalidRequestException",
        "You can't create this secret because a secret with this name is already scheduled for "
        "deletion.",
    )
    for call in (
        lambda: secretsmanager.get_secret_value(SecretId=name),
        lambda: secretsmanager.put_secret_value(SecretId=name, SecretString="b"),
        lambda: secretsmanager.update_secret(SecretId=name, Description="b"),
        lambda: secretsmanager.update_secret_version_stage(
            SecretId=name, VersionStage="a", MoveToVersionId=first
        ),
    ):
        assert error_of(call) == ("InvalidRequestException", DELETED)


# GetSecretValue


def test_texts_tell_a_missing_secret_label_and_version_apart(secretsmanager, first, put, name):
    second = put("two")
    get = secretsmanager.get_secret_value
    assert error_of(get, SecretId=name + "x") == ("ResourceNotFoundException", NOT_FOUND)
    assert error_of(get, SecretId=name, VersionStage="AWSPENDING") == (
        "ResourceNotFoundException",
        "Secrets Manager can't find the specified secret value for staging label: AWSPENDING",
    )
    other = token()
    assert error_of(get, SecretId=name, VersionId=other) == (
        "ResourceNotFoundException",
        f"Secrets Manager can't find the specified secret value for VersionId: {other}",
    )
    assert error_of(get, SecretId=name, VersionId=first, VersionStage="AWSCURRENT") == (
        "InvalidRequestException",
        "You provided a VersionStage that is not associated to the provided VersionId.",
    )
    read = get(SecretId=name, VersionId=second, VersionStage="AWSCURRENT")
    assert read["SecretString"] == "two"


def test_bytes_come_back_as_bytes(secretsmanager, name):
    secretsmanager.create_secret(Name=name, SecretBinary=b"\0\xff")
    read = secretsmanager.get_secret_value(SecretId=name)
    assert read["SecretBinary"] == b"\0\xff"
    assert "SecretString" not in read


def test_a_version_shows_the_day_of_its_last_read_once_it_was_read(secretsmanager, first, name):
    def accessed():
        [version] = secretsmanager.list_secret_version_ids(SecretId=name)["Versions"]
        return version.get("LastAccessedDate")

    assert accessed() is None
    secretsmanager.get_secret_value(SecretId=name)
    deadline = time.monotonic() + 10
    while accessed() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    day = accessed()
    assert day is not None and day.timestamp() % 86_400 == 0
    assert abs(time.time() - day.timestamp()) < 2 * 86_400


# PutSecretValue


def test_a_put_moves_awscurrent_and_leaves_awsprevious(secretsmanager, first, put, name):
    second, third = put("two"), put("three")
    assert stages(secretsmanager, name) == [
        (first, None),
        (second, ["AWSPREVIOUS"]),
        (third, ["AWSCURRENT"]),
    ]
    listed = secretsmanager.list_secret_version_ids(SecretId=name)["Versions"]
    assert [v["VersionId"] for v in listed] == [second, third]
    assert all(v["KmsKeyIds"] == ["DefaultEncryptionKey"] for v in listed)
    read = secretsmanager.get_secret_value(SecretId=name, VersionId=first)
    assert read["SecretString"] == "one" and "VersionStages" not in read


def test_own_labels_leave_awscurrent_alone_and_are_answered_in_order(
    secretsmanager, first, put, name
):
    second = put("two", VersionStages=["one", "two", "three"])
    third = put("three", VersionStages=["one", "two", "four"])
    assert stages(secretsmanager, name) == [
        (first, ["AWSCURRENT"]),
        (second, ["three"]),
        (third, ["four", "one", "two"]),
    ]
    assert secretsmanager.get_secret_value(SecretId=name)["SecretString"] == "one"
    read = secretsmanager.get_secret_value(SecretId=name, VersionStage="four")
    assert read["VersionStages"] == ["four", "one", "two"]


def test_the_same_put_again_changes_nothing_and_another_value_is_refused(
    secretsmanager, first, put, name
):
    mine = token()
    assert put("two", ClientRequestToken=mine) == mine
    third = put("three")
    assert put("two", ClientRequestToken=mine) == mine
    assert secretsmanager.get_secret_value(SecretId=name)["VersionId"] == third
    arn = secretsmanager.get_secret_value(SecretId=name)["ARN"]
    for other in ({"SecretString": "2"}, {"SecretBinary": b"two"}):
        assert error_of(
            secretsmanager.put_secret_value, SecretId=name, ClientRequestToken=mine, **other
        ) == (
            "ResourceExistsException",
            f"You can't use ClientRequestToken {mine} because that value is already in use for a "
            f"version of secret {arn}.",
        )


def test_a_put_needs_a_value(secretsmanager, first, name):
    code, text = error_of(secretsmanager.put_secret_value, SecretId=name)
    assert code == "InvalidRequestException"
    assert text.startswith("You must provide either SecretString or SecretBinary")


def test_a_put_into_nothing_finds_nothing(secretsmanager, name):
    outcome = error_of(secretsmanager.put_secret_value, SecretId=name, SecretString="a")
    assert outcome == ("ResourceNotFoundException", NOT_FOUND)


def test_twenty_labels_fit_on_a_version_and_no_more(secretsmanager, first, put, name):
    version = put("two", VersionStages=[f"label-{n}" for n in range(20)])
    code, _ = error_of(
        secretsmanager.update_secret_version_stage,
        SecretId=name,
        VersionStage="one-more",
        MoveToVersionId=version,
    )
    assert code == "LimitExceededException"


def test_a_rotation_token_is_taken_and_its_form_is_checked(appliance, first, put, name):
    put("two", RotationToken=token())
    body = {"SecretId": name, "ClientRequestToken": token(), "SecretString": "a"}
    answer = appliance.raw("secretsmanager.PutSecretValue", {**body, "RotationToken": "x y" * 20})
    assert answer.code == "ValidationException"
    assert "Value at 'rotationToken' failed" in told(answer)[2]


def test_simultaneous_puts_all_stand_and_one_is_current(appliance, secretsmanager, first, name):
    def put(n):
        client = appliance.client("secretsmanager")
        return client.put_secret_value(SecretId=name, SecretString=str(n))["VersionId"]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        made = set(pool.map(put, range(16)))
    seen = dict(stages(secretsmanager, name))
    assert made | {first} == set(seen)
    assert sorted(label for labels in seen.values() for label in labels or []) == [
        "AWSCURRENT",
        "AWSPREVIOUS",
    ]


# UpdateSecret


def test_an_update_of_metadata_alone_makes_no_version(secretsmanager, first, name):
    assert "VersionId" not in secretsmanager.update_secret(SecretId=name, Description="new")
    assert stages(secretsmanager, name) == [(first, ["AWSCURRENT"])]
    assert secretsmanager.describe_secret(SecretId=name)["Description"] == "new"


def test_an_update_of_the_value_makes_a_version(secretsmanager, first, name):
    second = secretsmanager.update_secret(SecretId=name, SecretString="two")["VersionId"]
    assert stages(secretsmanager, name) == [(first, ["AWSPREVIOUS"]), (second, ["AWSCURRENT"])]


def test_a_new_kms_key_seals_the_versions_in_use(secretsmanager, kms, put, first, customer_key, name):
    second, third = put("two"), put("three")
    arn = customer_key["Arn"]
    secretsmanager.update_secret(SecretId=name, KmsKeyId=customer_key["KeyId"])
    listed = secretsmanager.list_secret_version_ids(SecretId=name, IncludeDeprecated=True)
    keys = {v["VersionId"]: v["KmsKeyIds"] for v in listed["Versions"]}
    assert keys == {first: ["DefaultEncryptionKey"], second: [arn], third: [arn]}
    get = secretsmanager.get_secret_value
    assert get(SecretId=name)["SecretString"] == "three"
    kms.disable_key(KeyId=arn)
    code, text = error_of(get, SecretId=name)
    assert code == "DecryptionFailure"
    assert text.startswith("Secrets Manager can't decrypt the protected secret text")
    code, _ = error_of(secretsmanager.put_secret_value, SecretId=name, SecretString="four")
    assert code == "EncryptionFailure"
    assert get(SecretId=name, VersionId=first)["SecretString"] == "one", "sealed as before"
    kms.enable_key(KeyId=arn)
    secretsmanager.update_secret(SecretId=name, KmsKeyId="alias/aws/secretsmanager")
    kms.disable_key(KeyId=arn)
    assert get(SecretId=name)["SecretString"] == "three", "back under the default key"
    assert "KmsKeyId" not in secretsmanager.describe_secret(SecretId=name)


@pytest.mark.parametrize("form", ["id", "arn", "alias name", "alias ARN"])
def test_a_kms_key_can_be_named_in_four_ways(
    secretsmanager, kms, appliance, customer_key, name, form
):
    alias = f"alias/{name}"
    kms.create_alias(AliasName=alias, TargetKeyId=customer_key["KeyId"])
    named = {
        "id": customer_key["KeyId"],
        "arn": customer_key["Arn"],
        "alias name": alias,
        "alias ARN": customer_key["Arn"].split(":key/")[0] + ":" + alias,
    }[form]
    secretsmanager.create_secret(Name=name, SecretString="a", KmsKeyId=named)
    [version] = secretsmanager.list_secret_version_ids(SecretId=name)["Versions"]
    assert version["KmsKeyIds"] == [customer_key["Arn"]]
    assert secretsmanager.get_secret_value(SecretId=name)["SecretString"] == "a"


def test_an_unknown_kms_key_is_refused(secretsmanager, name):
    for named in (token(), "no-such-key", "alias/no-such-alias"):
        code, text = error_of(
            secretsmanager.create_secret, Name=name, SecretString="a", KmsKeyId=named
        )
        assert code == "InvalidParameterException"
        assert text.startswith("The operation failed because of an invalid KMS key: ")


# UpdateSecretVersionStage


def test_moving_awscurrent_back_swaps_it_with_awsprevious(secretsmanager, first, put, name):
    second = put("two")
    move = secretsmanager.update_secret_version_stage
    members = {"SecretId": name, "VersionStage": "AWSCURRENT", "MoveToVersionId": first}
    code, text = error_of(move, **members)
    assert (code, text) == (
        "InvalidParameterException",
        "The parameter RemoveFromVersionId can't be empty. Staging label AWSCURRENT is currently "
        f"attached to version {second}, so you must explicitly reference that version in "
        "RemoveFromVersionId.",
    )
    move(**members, RemoveFromVersionId=second)
    assert stages(secretsmanager, name) == [(first, ["AWSCURRENT"]), (second, ["AWSPREVIOUS"])]


def test_awscurrent_can_only_move(secretsmanager, first, name):
    code, text = error_of(
        secretsmanager.update_secret_version_stage,
        SecretId=name,
        VersionStage="AWSCURRENT",
        RemoveFromVersionId=first,
    )
    assert code == "InvalidParameterException"
    assert text.startswith("You can only move staging label AWSCURRENT to a different secret")


def test_an_own_label_comes_and_goes(secretsmanager, first, name):
    move = secretsmanager.update_secret_version_stage
    move(SecretId=name, VersionStage="mine", MoveToVersionId=first)
    assert stages(secretsmanager, name) == [(first, ["AWSCURRENT", "mine"])]
    move(SecretId=name, VersionStage="mine", RemoveFromVersionId=first)
    assert stages(secretsmanager, name) == [(first, ["AWSCURRENT"])]
    code, _ = error_of(move, SecretId=name, VersionStage="mine", MoveToVersionId=token())
    assert code == "ResourceNotFoundException"


# ListSecretVersionIds


def test_versions_are_listed_page_by_page_and_a_token_fits_its_list_only(
    secretsmanager, first, put, name
):
    made = [first] + [put(str(n)) for n in range(6)]
    listing = {"SecretId": name, "IncludeDeprecated": True, "MaxResults": 3}
    seen, pages = [], 0
    page = secretsmanager.list_secret_version_ids(**listing)
    while True:
        seen += [v["VersionId"] for v in page["Versions"]]
        pages += 1
        if "NextToken" not in page:
            break
        following = page["NextToken"]
        page = secretsmanager.list_secret_version_ids(**listing, NextToken=following)
    assert (seen, pages) == (made, 3)
    for other in ({"IncludeDeprecated": False}, {"NextToken": following[:-1]}):
        code, _ = error_of(
            secretsmanager.list_secret_version_ids,
            **{**listing, "NextToken": following, **other},
        )
        assert code == "InvalidNextTokenException"


# BatchGetSecretValue


def test_a_batch_answers_values_and_an_error_for_each_that_it_lacks(secretsmanager, first, name):
    missing = name + "-missing"
    answer = secretsmanager.batch_get_secret_value(SecretIdList=[name, missing, "a b"])
    assert [v["SecretString"] for v in answer["SecretValues"]] == ["one"]
    assert answer["SecretValues"][0]["VersionId"] == first
    errors = {e["SecretId"]: (e["ErrorCode"], e["Message"]) for e in answer["Errors"]}
    assert errors[missing] == ("ResourceNotFoundException", NOT_FOUND)
    assert errors["a b"][0] == "ValidationException"


def test_a_batch_takes_a_list_or_filters(secretsmanager, first, name):
    by_name = [{"Key": "name", "Values": [name]}]
    batch = secretsmanager.batch_get_secret_value
    for members in ({}, {"SecretIdList": [name], "Filters": by_name}):
        assert error_of(batch, **members)[0] == "InvalidParameterException"
    assert error_of(batch, SecretIdList=[name], MaxResults=1)[0] == "InvalidParameterException"


def test_a_batch_by_filters_goes_page_by_page(secretsmanager, name):
    made = {f"{name}-{n}" for n in range(5)}
    for each in made:
        secretsmanager.create_secret(Name=each, SecretString=each)
    listing = {"Filters": [{"Key": "name", "Values": [name]}], "MaxResults": 2}
    seen, pages, page = set(), 0, secretsmanager.batch_get_secret_value(**listing)
    while True:
        seen |= {v["SecretString"] for v in page["SecretValues"]}
        pages += 1
        if "NextToken" not in page:
            break
        page = secretsmanager.batch_get_secret_value(**listing, NextToken=page["NextToken"])
    assert (seen, pages) == (made, 3)
