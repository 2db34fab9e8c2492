"""Secrets described, listed, filtered, deleted, restored, tagged; passwords; resource policies."""

import json
import string
import time
import uuid
from datetime import datetime, timedelta, timezone

import pytest
from botocore.exceptions import ClientError

PREFIX = "secretsmanager."


def refusal(call, **arguments):
    """The code and text with which a boto3 call is refused."""
    with pytest.raises(ClientError) as refused:
        call(**arguments)
    error = refused.value.response["Error"]
    return error["Code"], error["Message"]


def raw_refusal(appliance, operation, body):
    """The code and text with which a raw request is refused."""
    answer = appliance.raw(PREFIX + operation, body)
    body = answer.json
    return answer.code, body.get("Message", body.get("message"))


@pytest.fixture
def secret(secretsmanager, name):
    """A secret with a value, by its name."""
    secretsmanager.create_secret(Name=name, SecretString="hunter2")
    return name


def names(secretsmanager, *filters, **arguments):
    """The names of all secrets that pass these `(key, value, ...)` filters, page by page."""
    filters = [{"Key": key, "Values": list(values)} for key, *values in filters]
    pages = secretsmanager.get_paginator("list_secrets").paginate(Filters=filters, **arguments)
    return [entry["Name"] for page in pages for entry in page["SecretList"]]


PENDING = "You can't perform this operation on the secret because it was marked for deletion."
MISSING = "Secrets Manager can't find the specified secret."


class TestDescribe:
    def test_a_bare_secret_has_no_member_that_says_nothing(self, secretsmanager, name):
        made = secretsmanager.create_secret(Name=name)
        seen = secretsmanager.describe_secret(SecretId=name)
        seen.pop("ResponseMetadata")
        assert sorted(seen) == ["ARN", "CreatedDate", "LastChangedDate", "Name"]
        assert (seen["ARN"], seen["Name"]) == (made["ARN"], name)

    def test_labels_stand_by_version(self, secretsmanager, name):
        first = secretsmanager.create_secret(Name=name, SecretString="1")["VersionId"]
        second = secretsmanager.put_secret_value(SecretId=name, SecretString="2")["VersionId"]
        seen = secretsmanager.describe_secret(SecretId=name)
        assert seen["VersionIdsToStages"] == {first: ["AWSPREVIOUS"], second: ["AWSCURRENT"]}

    def test_a_read_shows_as_midnight_utc_of_its_day_and_not_before(self, secretsmanager, secret):
        assert "LastAccessedDate" not in secretsmanager.describe_secret(SecretId=secret)
        before = datetime.now(timezone.utc).date()
        secretsmanager.get_secret_value(SecretId=secret)
        for _ in range(100):
            seen = secretsmanager.describe_secret(SecretId=secret).get("LastAccessedDate")
            if seen:
                break
            time.sleep(0.1)
        seen = seen.astimezone(timezone.utc)
        assert (seen.hour, seen.minute, seen.second, seen.microsecond) == (0, 0, 0, 0)
        assert before <= seen.date() <= datetime.now(timezone.utc).date()

    def test_the_key_is_named_as_its_owner_named_it(self, secretsmanager, kms, name):
        key = kms.create_key()["KeyMetadata"]["KeyId"]
        secretsmanager.create_secret(Name=name, SecretString="x", KmsKeyId=key)
        assert secretsmanager.describe_secret(SecretId=name)["KmsKeyId"] == key

    def test_it_is_found_by_name_arn_and_arn_without_suffix(self, secretsmanager, secret):
        arn = secretsmanager.describe_secret(SecretId=secret)["ARN"]
        for named in (secret, arn, arn[:-7]):
            assert secretsmanager.describe_secret(SecretId=named)["ARN"] == arn

    def test_one_that_is_not_there_and_a_name_that_is_none(self, secretsmanager, name):
        call = secretsmanager.describe_secret
        assert refusal(call, SecretId=name) == ("ResourceNotFoundException", MISSING)
        assert refusal(call, SecretId="not a name")[0] == "ValidationException"

    def test_every_change_moves_last_changed_date(self, secretsmanager, secret):
        changed = lambda: secretsmanager.describe_secret(SecretId=secret)["LastChangedDate"]
        before = changed()
        secretsmanager.tag_resource(SecretId=secret, Tags=[{"Key": "a", "Value": "1"}])
        tagged = changed()
        assert tagged > before
        secretsmanager.tag_resource(SecretId=secret, Tags=[{"Key": "a", "Value": "1"}])
        assert changed() == tagged, "nothing changed"


class TestDelete:
    def test_the_window_is_30_days_if_nothing_is_said(self, secretsmanager, secret):
        asked = datetime.now(timezone.utc)
        answer = secretsmanager.delete_secret(SecretId=secret)
        assert abs(answer["DeletionDate"] - asked - timedelta(days=30)) < timedelta(minutes=1)
        deleted = secretsmanager.describe_secret(SecretId=secret)["DeletedDate"]
        assert abs(deleted - asked) < timedelta(minutes=1), "when it was asked for"

    @pytest.mark.parametrize("days", [7, 30])
    def test_a_window_of_7_to_30_days(self, secretsmanager, secret, days):
        asked = datetime.now(timezone.utc)
        answer = secretsmanager.delete_secret(SecretId=secret, RecoveryWindowInDays=days)
        assert abs(answer["DeletionDate"] - asked - timedelta(days=days)) < timedelta(minutes=1)

    @pytest.mark.parametrize("days", [-1, 0, 6, 31])
    def test_no_other_window(self, secretsmanager, secret, days):
        code, text = refusal(
            secretsmanager.delete_secret, SecretId=secret, RecoveryWindowInDays=days
        )
        assert code == "InvalidParameterException"
        assert "7 and 30 days" in text

    def test_a_window_and_force_exclude_each_other(self, secretsmanager, secret):
        assert refusal(
            secretsmanager.delete_secret,
            SecretId=secret,
            RecoveryWindowInDays=7,
            ForceDeleteWithoutRecovery=True,
        ) == (
            "InvalidParameterException",
            "You can't use ForceDeleteWithoutRecovery in conjunction with RecoveryWindowInDays.",
        )

    def test_force_deletes_at_once_and_frees_the_name(self, secretsmanager, secret):
        first = secretsmanager.describe_secret(SecretId=secret)["ARN"]
        gone = secretsmanager.delete_secret(SecretId=secret, ForceDeleteWithoutRecovery=True)
        assert (gone["ARN"], gone["Name"]) == (first, secret)
        assert refusal(secretsmanager.get_secret_value, SecretId=secret)[0] == (
            "ResourceNotFoundException"
        )
        again = secretsmanager.create_secret(Name=secret, SecretString="new")
        assert again["ARN"] != first
        assert secretsmanager.get_secret_value(SecretId=secret)["SecretString"] == "new"

    def test_force_takes_a_pending_one_too(self, secretsmanager, secret):
        secretsmanager.delete_secret(SecretId=secret)
        secretsmanager.delete_secret(SecretId=secret, ForceDeleteWithoutRecovery=True)
        assert refusal(secretsmanager.describe_secret, SecretId=secret)[1] == MISSING

    def test_force_on_an_unknown_name_succeeds(self, secretsmanager, name):
        gone = secretsmanager.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)
        assert gone["Name"] == name
        assert name in gone["ARN"]
        assert refusal(secretsmanager.delete_secret, SecretId=name) == (
            "ResourceNotFoundException",
            MISSING,
        )

    def test_a_pending_one_is_described_and_no_more(self, secretsmanager, secret):
        secretsmanager.delete_secret(SecretId=secret)
        secretsmanager.describe_secret(SecretId=secret)
        tags = [{"Key": "a", "Value": "1"}]
        policy = policy_for("111122223333")
        for call, more in [
            (secretsmanager.get_secret_value, {}),
            (secretsmanager.tag_resource, {"Tags": tags}),
            (secretsmanager.untag_resource, {"TagKeys": ["a"]}),
            (secretsmanager.put_resource_policy, {"ResourcePolicy": policy}),
            (secretsmanager.get_resource_policy, {}),
            (secretsmanager.delete_resource_policy, {}),
        ]:
            assert refusal(call, SecretId=secret, **more) == ("InvalidRequestException", PENDING)
        code, text = refusal(secretsmanager.delete_secret, SecretId=secret)
        assert (code, "already scheduled for deletion" in text) == ("InvalidRequestException", True)
        code, text = refusal(secretsmanager.create_secret, Name=secret, SecretString="x")
        assert (code, "already scheduled for deletion." in text) == (
            "InvalidRequestException",
            True,
        )

    def test_a_restored_one_is_as_it_was(self, secretsmanager, secret):
        before = secretsmanager.describe_secret(SecretId=secret)
        secretsmanager.delete_secret(SecretId=secret)
        restored = secretsmanager.restore_secret(SecretId=secret)
        assert (restored["ARN"], restored["Name"]) == (before["ARN"], secret)
        seen = secretsmanager.describe_secret(SecretId=secret)
        assert "DeletedDate" not in seen
        assert seen["VersionIdsToStages"] == before["VersionIdsToStages"]
        assert secretsmanager.get_secret_value(SecretId=secret)["SecretString"] == "hunter2"

    def test_restoring_one_that_is_not_deleted_changes_nothing(self, secretsmanager, secret):
        before = secretsmanager.describe_secret(SecretId=secret)["LastChangedDate"]
        assert secretsmanager.restore_secret(SecretId=secret)["Name"] == secret
        assert secretsmanager.describe_secret(SecretId=secret)["LastChangedDate"] == before
        assert refusal(secretsmanager.restore_secret, SecretId=str(uuid.uuid4()))[1] == MISSING


class TestList:
    def test_an_entry_says_what_describe_says(self, secretsmanager, secret):
        described = secretsmanager.describe_secret(SecretId=secret)
        described.pop("ResponseMetadata")
        described["SecretVersionsToStages"] = described.pop("VersionIdsToStages")
        page = secretsmanager.list_secrets(Filters=[{"Key": "name", "Values": [secret]}])
        assert page["SecretList"] == [described]
        assert "NextToken" not in page

    def test_pending_ones_are_listed_on_request(self, secretsmanager, secret):
        secretsmanager.delete_secret(SecretId=secret)
        assert names(secretsmanager, ("name", secret)) == []
        assert names(secretsmanager, ("name", secret), IncludePlannedDeletion=True) == [secret]

    @pytest.mark.parametrize("order", ["created-date", "last-changed-date", "name"])
    def test_orders_in_both_directions_in_pages_of_any_size(self, secretsmanager, name, order):
        all_of_them = [f"{name}/{i}" for i in "cab"]
        for each in all_of_them:
            secretsmanager.create_secret(Name=each)
            time.sleep(0.005)
        secretsmanager.update_secret(SecretId=f"{name}/c", Description="changed last")
        expected = {
            "created-date": all_of_them,
            "last-changed-date": [f"{name}/{i}" for i in "abc"],
            "name": [f"{name}/{i}" for i in "abc"],
        }[order]
        for size in (1, 2, 3, 100):
            page = {"PaginationConfig": {"PageSize": size}, "SortBy": order}
            listed = lambda way: names(secretsmanager, ("name", name), SortOrder=way, **page)
            assert listed("asc") == expected
            assert listed("desc") == expected[::-1]

    def test_never_read_comes_before_read(self, secretsmanager, name):
        for each in "ab":
            secretsmanager.create_secret(Name=name + each, SecretString="x")
        secretsmanager.get_secret_value(SecretId=name + "a")
        for _ in range(100):
            if "LastAccessedDate" in secretsmanager.describe_secret(SecretId=name + "a"):
                break
            time.sleep(0.1)
        for way, expected in [("asc", "ba"), ("desc", "ab")]:
            for size in (1, 100):
                listed = names(
                    secretsmanager,
                    ("name", name),
                    SortBy="last-accessed-date",
                    SortOrder=way,
                    PaginationConfig={"PageSize": size},
                )
                assert listed == [name + each for each in expected]

    def test_created_first_comes_first_if_nothing_is_said(self, secretsmanager, name):
        for each in "ba":
            secretsmanager.create_secret(Name=name + each)
            time.sleep(0.005)
        assert names(secretsmanager, ("name", name)) == [name + "b", name + "a"]

    def test_a_token_is_good_for_its_own_list_only(self, secretsmanager, name):
        for each in "ab":
            secretsmanager.create_secret(Name=name + each)
        own = {"Filters": [{"Key": "name", "Values": [name]}], "MaxResults": 1}
        token = secretsmanager.list_secrets(**own)["NextToken"]
        listed = secretsmanager.list_secrets(NextToken=token, **own)
        assert [entry["Name"] for entry in listed["SecretList"]] == [name + "b"]
        assert "NextToken" not in listed
        forged = token[:-1] + ("A" if token[-1] != "A" else "B")
        for other in [
            {**own, "NextToken": forged},
            {**own, "NextToken": "x"},
            {**own, "NextToken": token, "SortOrder": "desc"},
            {**own, "NextToken": token, "SortBy": "name"},
            {**own, "NextToken": token, "IncludePlannedDeletion": True},
            {**own, "NextToken": token, "Filters": []},
        ]:
            assert refusal(secretsmanager.list_secrets, **other)[0] == "InvalidNextTokenException"

    def test_a_token_survives_a_restart(self, own_appliance, name):
        appliance = own_appliance()
        client = appliance.client("secretsmanager")
        for each in "ab":
            client.create_secret(Name=name + each)
        token = client.list_secrets(MaxResults=1)["NextToken"]
        appliance.stop()
        appliance.start()
        listed = appliance.client("secretsmanager").list_secrets(MaxResults=1, NextToken=token)
        assert [entry["Name"] for entry in listed["SecretList"]] == [name + "b"]

    @pytest.mark.parametrize(
        "body",
        [
            {"MaxResults": 0},
            {"MaxResults": 101},
            {"SortBy": "size"},
            {"SortOrder": "up"},
            {"NextToken": ""},
            {"Filters": [{"Key": "colour", "Values": ["red"]}]},
            {"Filters": [{"Key": "name", "Values": []}]},
            {"Filters": [{"Key": "name", "Values": ["a#b"]}]},
            {"Filters": [{"Key": "name", "Values": ["a" * 513]}]},
            {"Filters": [{"Key": "name", "Values": ["a"] * 11}]},
            {"Filters": [{"Key": "name", "Values": ["a"]}] * 11},
        ],
    )
    def test_members_out_of_bounds(self, appliance, body):
        assert raw_refusal(appliance, "ListSecrets", body)[0] == "ValidationException"

    def test_a_filter_without_key_or_values(self, appliance):
        refused = lambda f: raw_refusal(appliance, "ListSecrets", {"Filters": [f]})
        assert refused({"Values": ["a"]}) == ("InvalidParameterException", "Invalid filter key")
        assert refused({"Key": "description"}) == (
            "InvalidParameterException",
            "Invalid filter values for key: description",
        )


class TestFilters:
    @pytest.fixture
    def found(self, secretsmanager, name):
        """Which of this test's secrets, by their last letters, pass these filters."""

        def find(*filters):
            listed = names(secretsmanager, ("name", name), *filters, IncludePlannedDeletion=True)
            return [each.removeprefix(name + "/") for each in listed]

        return find

    @pytest.fixture
    def make(self, secretsmanager, name):
        """Makes a secret of this test's."""

        def make(last, **more):
            secretsmanager.create_secret(Name=f"{name}/{last}", **more)

        return make

    def test_a_name_matches_by_prefix_with_letter_case(self, secretsmanager, name, make):
        make("Ab")
        assert names(secretsmanager, ("name", f"{name}/A")) == [f"{name}/Ab"]
        assert names(secretsmanager, ("name", f"{name}/a")) == []
        assert names(secretsmanager, ("name", name[1:])) == []

    def test_tag_keys_and_values_match_by_prefix(self, make, found):
        make("a", Tags=[{"Key": "Team", "Value": "Blue"}])
        make("b", Tags=[{"Key": "Owner", "Value": "Team"}])
        make("c")
        assert found(("tag-key", "Te")) == ["a"]
        assert found(("tag-value", "Te")) == ["b"]
        assert found(("tag-key", "te")) == []
        assert found(("tag-key", "!Te")) == ["b", "c"]

    def test_a_description_matches_by_the_beginnings_of_words(self, make, found):
        make("a", Description="one two")
        make("b", Description="One and TwoThree")
        make("c", Description="two")
        make("d", Description="unrelated")
        assert found(("description", "one two")) == ["a", "b"]
        assert found(("description", "o t")) == ["a", "b"]
        assert found(("description", "T")) == ["a", "b", "c"]
        assert found(("description", "three")) == ["b"]
        assert found(("description", "wo")) == []

    def test_filters_and_values_or_and_an_exclamation_mark_negates(self, make, found):
        make("a", Description="one two")
        make("b", Description="one")
        make("c", Description="two")
        assert found(("description", "one"), ("description", "two")) == ["a"]
        assert found(("description", "one", "two")) == ["a", "b", "c"]
        assert found(("description", "!one")) == ["c"]
        assert found(("description", "one", "!two")) == ["a", "b"]

    def test_all_finds_words_in_any_one_attribute(self, make, found):
        make("SecretOne")
        make("x", Description="DescTwo")
        make("y", Tags=[{"Key": "foo", "Value": "bar"}])
        make("uat_COMPANYthings")
        assert found(("all", "secret")) == ["SecretOne"]
        assert found(("all", "desc two")) == ["x"]
        assert found(("all", "FOO")) == found(("all", "bar")) == ["y"]
        assert found(("all", "foo bar")) == [], "not in one attribute"
        assert found(("all", "Ythings")) == ["uat_COMPANYthings"]
        assert found(("all", "things")) == found(("all", "+")) == []

    def test_no_secret_has_a_primary_region_or_an_owning_service(self, make, found):
        make("a")
        assert found(("owning-service", "rds")) == found(("primary-region", "eu")) == []
        assert found(("owning-service", "!rds")) == ["a"]


class TestTags:
    def tags(self, secretsmanager, secret):
        return secretsmanager.describe_secret(SecretId=secret).get("Tags")

    def test_tags_are_absent_until_first_tagged_then_a_list(self, secretsmanager, secret):
        assert self.tags(secretsmanager, secret) is None
        one, two = {"Key": "tag1", "Value": "value1"}, {"Key": "tag2", "Value": ""}
        secretsmanager.tag_resource(SecretId=secret, Tags=[one])
        secretsmanager.tag_resource(SecretId=secret, Tags=[two])
        assert self.tags(secretsmanager, secret) == [one, two]
        secretsmanager.tag_resource(SecretId=secret, Tags=[{"Key": "tag1", "Value": "new"}])
        assert self.tags(secretsmanager, secret) == [{"Key": "tag1", "Value": "new"}, two]
        secretsmanager.untag_resource(SecretId=secret, TagKeys=["tag1", "never-there"])
        assert self.tags(secretsmanager, secret) == [two]
        secretsmanager.untag_resource(SecretId=secret, TagKeys=["tag2"])
        assert self.tags(secretsmanager, secret) == []

    def test_reserved_tags_may_not_be_touched(self, secretsmanager, secret):
        key = "aws:cloudformation:stack-name"
        expected = ("InvalidParameterException", f"You can't modify system tags. Tag key: '{key}'.")
        tag = [{"Key": key, "Value": "x"}]
        assert refusal(secretsmanager.tag_resource, SecretId=secret, Tags=tag) == expected
        assert refusal(secretsmanager.untag_resource, SecretId=secret, TagKeys=[key]) == expected

    def test_50_tags_and_no_more(self, secretsmanager, secret):
        full = [{"Key": str(i), "Value": ""} for i in range(50)]
        secretsmanager.tag_resource(SecretId=secret, Tags=full)
        one_more = [{"Key": "50", "Value": ""}]
        call = secretsmanager.tag_resource
        assert refusal(call, SecretId=secret, Tags=one_more)[0] == "InvalidParameterException"
        assert self.tags(secretsmanager, secret) == full

    def test_a_key_stands_once_in_a_request(self, secretsmanager, secret):
        tags = [{"Key": "a", "Value": "1"}, {"Key": "a", "Value": "2"}]
        call = secretsmanager.tag_resource
        assert refusal(call, SecretId=secret, Tags=tags)[0] == "InvalidParameterException"

    @pytest.mark.parametrize("key,value", [("", ""), ("k" * 129, ""), ("k", "v" * 257)])
    def test_lengths(self, appliance, secret, key, value):
        body = {"SecretId": secret, "Tags": [{"Key": key, "Value": value}]}
        assert raw_refusal(appliance, "TagResource", body)[0] == "ValidationException"

    def test_unknown_secrets(self, secretsmanager, name):
        tags = [{"Key": "a", "Value": "1"}]
        assert refusal(secretsmanager.tag_resource, SecretId=name, Tags=tags)[1] == MISSING
        assert refusal(secretsmanager.untag_resource, SecretId=name, TagKeys=["a"])[1] == MISSING


class TestPassword:
    TYPES = [string.ascii_uppercase, string.ascii_lowercase, string.digits, string.punctuation]

    def password(self, secretsmanager, **options):
        return secretsmanager.get_random_password(**options)["RandomPassword"]

    def test_32_characters_with_each_type(self, secretsmanager):
        made = {self.password(secretsmanager) for _ in range(20)}
        assert len(made) == 20
        for password in made:
            assert len(password) == 32
            assert all(set(password) & set(kind) for kind in self.TYPES)
            assert set(password) <= set("".join(self.TYPES))

    @pytest.mark.parametrize("length", [4, 5, 4096])
    def test_lengths(self, secretsmanager, length):
        password = self.password(secretsmanager, PasswordLength=length)
        assert len(password) == length
        assert all(set(password) & set(kind) for kind in self.TYPES)

    def test_excluded_types_and_characters_never_appear(self, secretsmanager):
        for option, kind in zip(
            ["ExcludeUppercase", "ExcludeLowercase", "ExcludeNumbers", "ExcludePunctuation"],
            self.TYPES,
        ):
            password = self.password(secretsmanager, PasswordLength=2000, **{option: True})
            assert not set(password) & set(kind)
        left_out = "abcXYZ123\"'\\/@"
        password = self.password(secretsmanager, PasswordLength=4096, ExcludeCharacters=left_out)
        assert not set(password) & set(left_out)

    def test_a_space_only_on_request(self, secretsmanager):
        assert " " in self.password(secretsmanager, PasswordLength=4096, IncludeSpace=True)

    @pytest.mark.parametrize(
        "options,text",
        [
            ({"PasswordLength": 3}, "Password length is too short based on the required types."),
            (
                {"ExcludeCharacters": string.digits},
                "All characters of the desired type have been excluded.",
            ),
            (
                {
                    "ExcludeUppercase": True,
                    "ExcludeLowercase": True,
                    "ExcludeNumbers": True,
                    "ExcludePunctuation": True,
                },
                "All characters have been excluded from selection.",
            ),
        ],
    )
    def test_impossible_requests(self, secretsmanager, options, text):
        refused = refusal(secretsmanager.get_random_password, **options)
        assert refused == ("InvalidParameterException", text)

    def test_types_need_not_each_appear(self, secretsmanager):
        options = {"RequireEachIncludedType": False, "ExcludeCharacters": string.digits}
        assert len(self.password(secretsmanager, PasswordLength=1, **options)) == 1

    @pytest.mark.parametrize("length", [-1, 0, 4097, 2**40])
    def test_lengths_out_of_bounds(self, appliance, length):
        refused = raw_refusal(appliance, "GetRandomPassword", {"PasswordLength": length})
        assert refused[0] == "ValidationException"


def policy_for(account, **more):
    """A policy that lets an account (or `*`) read."""
    statement = {
        "Effect": "Allow",
        "Principal": account if account == "*" else {"AWS": f"arn:aws:iam::{account}:root"},
        "Action": "secretsmanager:GetSecretValue",
        "Resource": "*",
        **more,
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


class TestPolicy:
    def test_a_policy_is_kept_as_it_was_written(self, secretsmanager, secret):
        arn = secretsmanager.describe_secret(SecretId=secret)["ARN"]
        assert "ResourcePolicy" not in secretsmanager.get_resource_policy(SecretId=secret)
        policy = policy_for("111122223333").replace(":", " :  ", 1)
        put = secretsmanager.put_resource_policy(SecretId=secret, ResourcePolicy=policy)
        assert (put["ARN"], put["Name"]) == (arn, secret)
        got = secretsmanager.get_resource_policy(SecretId=secret)
        assert (got["ARN"], got["Name"], got["ResourcePolicy"]) == (arn, secret, policy)
        gone = secretsmanager.delete_resource_policy(SecretId=secret)
        assert (gone["ARN"], gone["Name"]) == (arn, secret)
        assert "ResourcePolicy" not in secretsmanager.get_resource_policy(SecretId=secret)
        secretsmanager.delete_resource_policy(SecretId=secret)

    SYNTAX = "This resource policy contains a syntax error."

    @pytest.mark.parametrize(
        "policy,text",
        [
            ("{", SYNTAX),
            ("[]", SYNTAX),
            (policy_for("*", Effect="AllowSomething"), SYNTAX),
            (policy_for("*", Actions="*"), SYNTAX),
            (policy_for("*", Action=[]), SYNTAX),
            (policy_for("*", Condition={"StringIs": {"aws:SourceVpc": "a"}}), SYNTAX),
            (
                policy_for("*", Principal={"AWS": "arn:aws:iam::111122223333:user/a*"}),
                "This resource policy contains an unsupported principal.",
            ),
            (
                policy_for("*", Principal={"Service": "service.example.com"}),
                "This resource policy contains an invalid service principal.",
            ),
        ],
    )
    def test_malformed_policies(self, secretsmanager, secret, policy, text):
        expected = ("MalformedPolicyDocumentException", text)
        put, validate = secretsmanager.put_resource_policy, secretsmanager.validate_resource_policy
        assert refusal(put, SecretId=secret, ResourcePolicy=policy) == expected
        assert refusal(validate, ResourcePolicy=policy) == expected
        assert "ResourcePolicy" not in secretsmanager.get_resource_policy(SecretId=secret)

    def test_a_public_policy_is_blocked_on_request(self, secretsmanager, secret):
        put = secretsmanager.put_resource_policy
        public = {"SecretId": secret, "ResourcePolicy": policy_for("*")}
        assert refusal(put, BlockPublicPolicy=True, **public)[0] == "PublicPolicyException"
        put(BlockPublicPolicy=False, **public)
        put(**public)
        limit = {"StringEquals": {"aws:SourceVpc": "vpc-1"}}
        limited = policy_for("*", Condition=limit)
        put(SecretId=secret, ResourcePolicy=limited, BlockPublicPolicy=True)

    def test_20480_characters_and_no_more(self, secretsmanager, secret):
        empty = policy_for("111122223333", Sid="")
        fits = policy_for("111122223333", Sid="s" * (20480 - len(empty)))
        secretsmanager.put_resource_policy(SecretId=secret, ResourcePolicy=fits)
        assert secretsmanager.get_resource_policy(SecretId=secret)["ResourcePolicy"] == fits
        put = secretsmanager.put_resource_policy
        refused = refusal(put, SecretId=secret, ResourcePolicy=fits + " ")
        assert refused[0] == "ValidationException"

    def test_validation_tells_what_is_the_matter(self, secretsmanager, secret, name):
        validate = secretsmanager.validate_resource_policy
        good = validate(SecretId=secret, ResourcePolicy=policy_for("111122223333"))
        assert (good["PolicyValidationPassed"], good["ValidationErrors"]) == (True, [])
        public = validate(ResourcePolicy=policy_for("*"))
        assert not public["PolicyValidationPassed"]
        assert "broad access" in public["ValidationErrors"][0]["ErrorMessage"]
        lockout = validate(ResourcePolicy=policy_for("*", Effect="Deny", Action="secretsmanager:*"))
        assert not lockout["PolicyValidationPassed"]
        assert "will not allow you" in lockout["ValidationErrors"][0]["ErrorMessage"]
        unknown = {"SecretId": name + "-not-there", "ResourcePolicy": policy_for("111122223333")}
        assert refusal(validate, **unknown)[1] == MISSING


def test_the_aws_cli_lists_deletes_and_restores(appliance, secret):
    run = lambda *arguments: appliance.aws("secretsmanager", *arguments)
    listed = run("list-secrets", "--filters", f"Key=name,Values={secret}")
    assert [entry["Name"] for entry in listed.out["SecretList"]] == [secret]
    gone = run("delete-secret", "--secret-id", secret, "--recovery-window-in-days", "7")
    assert gone.out["Name"] == secret
    assert run("restore-secret", "--secret-id", secret).code == 0
    assert run("tag-resource", "--secret-id", secret, "--tags", "Key=a,Value=1").code == 0
    assert run("describe-secret", "--secret-id", secret).out["Tags"] == [{"Key": "a", "Value": "1"}]
    assert len(run("get-random-password", "--password-length", "9").out["RandomPassword"]) == 9


def test_secrets_of_one_letter_case_do_not_answer_for_the_other(secretsmanager, name):
    secretsmanager.create_secret(Name=name + "a")
    assert refusal(secretsmanager.describe_secret, SecretId=name + "A")[1] == MISSING
