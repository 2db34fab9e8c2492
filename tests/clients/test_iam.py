"""IAM, as boto3 and the AWS CLI see it."""

import json
import sqlite3
import uuid
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import ANY

import pytest
from botocore.credentials import Credentials

from conftest import error_of

ADMINISTRATOR = "arn:aws:iam::aws:policy/AdministratorAccess"
READ = {"Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": "*"}


def document(*statements, **more):
    """A policy."""
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements or [READ]), **more})


def trust(principal):
    """A trust policy."""
    statement = {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}
    return document(statement)


@pytest.fixture(scope="session")
def iam(appliance):
    """A checked boto3 client for IAM."""
    return appliance.client("iam")


@pytest.fixture(scope="session")
def careless(appliance):
    """A checked boto3 client for IAM that sends what it is given."""
    return appliance.client("iam", validate=False)


@pytest.fixture
def user(iam, name):
    """A user of this test's own."""
    iam.create_user(UserName=name)
    return name


@pytest.fixture
def role(iam, appliance):
    """A role of this test's own."""
    name = f"role-{uuid.uuid4()}"
    principal = {"AWS": appliance.account_id}
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust(principal))
    return name


@pytest.fixture
def group(iam):
    """A group of this test's own."""
    name = f"group-{uuid.uuid4()}"
    iam.create_group(GroupName=name)
    return name


@pytest.fixture
def policy(iam):
    """A managed policy of this test's own: its ARN."""
    made = iam.create_policy(PolicyName=f"policy-{uuid.uuid4()}", PolicyDocument=document())
    return made["Policy"]["Arn"]


class Kind:
    """The operations on users, groups or roles, by what they do."""

    def __init__(self, iam, kind, name):
        self.iam, self.kind, self.name = iam, kind, name
        self.naming = {f"{kind.capitalize()}Name": name}

    def __call__(self, operation, **parameters):
        call = getattr(self.iam, operation.format(self.kind))
        return call(**self.naming, **parameters)


@pytest.fixture(params=["user", "group", "role"])
def holder(request, iam):
    """One of each kind that policies hang on."""
    return Kind(iam, request.param, request.getfixturevalue(request.param))


@pytest.fixture(params=["user", "role"])
def principal(request, iam):
    """One of each kind that acts."""
    return Kind(iam, request.param, request.getfixturevalue(request.param))


def test_a_user_lives_from_creation_to_deletion(iam, appliance, name):
    made = iam.create_user(UserName=name, Path="/a/b/", Tags=[{"Key": "Team", "Value": "x y"}])["User"]
    assert made["Arn"] == f"arn:aws:iam::{appliance.account_id}:user/a/b/{name}"
    assert made["UserId"].startswith("AIDA") and len(made["UserId"]) == 20
    assert made["Tags"] == [{"Key": "Team", "Value": "x y"}]
    assert iam.get_user(UserName=name)["User"] == made
    assert iam.get_user(UserName=name.upper())["User"] == made, "letter case makes no other name"
    assert error_of(iam.create_user, UserName=name.upper()) == (
        "EntityAlreadyExists",
        f"User with name {name.upper()} already exists.",
    )
    listed = iam.list_users(PathPrefix="/a/b/")["Users"]
    assert [one["UserId"] for one in listed if one["UserName"] == name] == [made["UserId"]]
    assert all("Tags" not in one for one in listed)
    iam.update_user(UserName=name, NewUserName=f"{name}-2", NewPath="/c/")
    moved = iam.get_user(UserName=f"{name}-2")["User"]
    assert moved["UserId"] == made["UserId"] and moved["Path"] == "/c/"
    missing = ("NoSuchEntity", f"The user with name {name} cannot be found.")
    assert error_of(iam.get_user, UserName=name) == missing
    iam.delete_user(UserName=f"{name}-2")
    assert error_of(iam.delete_user, UserName=name) == missing


def test_the_caller_is_the_user_where_none_is_named(iam, appliance):
    user = iam.get_user()["User"]
    assert user["UserName"] == "administrator"
    keys = iam.list_access_keys()["AccessKeyMetadata"]
    assert appliance.credentials.access_key in [key["AccessKeyId"] for key in keys]


def test_a_user_is_renamed_onto_no_other(iam, user):
    other = f"other-{uuid.uuid4()}"
    iam.create_user(UserName=other)
    code, _ = error_of(iam.update_user, UserName=user, NewUserName=other.upper())
    assert code == "EntityAlreadyExists"
    iam.update_user(UserName=user, NewUserName=user.upper())
    assert iam.get_user(UserName=user)["User"]["UserName"] == user.upper()


def test_a_user_is_deleted_only_when_nothing_hangs_on_it(iam, user, group, policy):
    iam.add_user_to_group(UserName=user, GroupName=group)
    iam.attach_user_policy(UserName=user, PolicyArn=policy)
    iam.put_user_policy(UserName=user, PolicyName="inline", PolicyDocument=document())
    key = iam.create_access_key(UserName=user)["AccessKey"]["AccessKeyId"]

    def refused():
        code, text = error_of(iam.delete_user, UserName=user)
        assert code == "DeleteConflict"
        return text.removeprefix("Cannot delete entity, must ")

    assert refused() == "delete access keys first."
    iam.delete_access_key(UserName=user, AccessKeyId=key)
    assert refused() == "detach all policies first."
    iam.detach_user_policy(UserName=user, PolicyArn=policy)
    assert refused() == "delete policies first."
    iam.delete_user_policy(UserName=user, PolicyName="inline")
    assert refused() == "remove users from group first."
    iam.remove_user_from_group(UserName=user, GroupName=group)
    iam.delete_user(UserName=user)


def test_names_and_paths_are_refused_in_aws_s_words(careless):
    code, text = error_of(careless.create_user, UserName="a b")
    assert code == "ValidationError"
    assert text == (
        "The specified value for userName is invalid. It must contain only alphanumeric characters "
        "and/or the following: +=,.@_-"
    )
    code, text = error_of(careless.create_user, UserName="a" * 65, Path="x" * 513)
    assert code == "ValidationError" and text.startswith("2 validation errors detected: ")
    assert "at 'userName' failed to satisfy constraint: Member must have length less" in text
    code, text = error_of(careless.create_user)
    assert text.endswith("Value null at 'userName' failed to satisfy constraint: Member must not be null")
    code, text = error_of(careless.create_role, RoleName="x", Path="a", AssumeRolePolicyDocument="{}")
    assert text.startswith("The specified value for path is invalid. It must begin and end with /")
    code, _ = error_of(careless.list_users, MaxItems=1001)
    assert code == "ValidationError"
    code, text = error_of(careless.list_users, Marker="forged")
    assert (code, text) == ("ValidationError", "Invalid Marker.")
    code, text = error_of(careless.get_policy, PolicyArn="x" * 20)
    assert code == "InvalidInput" and text.endswith("is not valid.")


def test_lists_go_page_by_page(iam, name):
    path = f"/{name}/"
    names = {f"{name}-{n}" for n in range(5)}
    for one in names:
        iam.create_user(UserName=one, Path=path)
    pages = list(iam.get_paginator("list_users").paginate(
        PathPrefix=path, PaginationConfig={"PageSize": 2}))
    assert [len(page["Users"]) for page in pages] == [2, 2, 1]
    assert [page["IsTruncated"] for page in pages] == [True, True, False]
    assert {user["UserName"] for page in pages for user in page["Users"]} == names
    marker = pages[0]["Marker"]
    assert error_of(iam.list_users, PathPrefix="/", Marker=marker)[0] == "ValidationError"
    assert error_of(iam.list_roles, PathPrefix=path, Marker=marker)[0] == "ValidationError"


def test_access_keys_are_two_and_tell_their_secret_once(iam, user):
    one = iam.create_access_key(UserName=user)["AccessKey"]
    assert len(one["SecretAccessKey"]) == 40 and one["Status"] == "Active"
    two = iam.create_access_key(UserName=user)["AccessKey"]
    assert error_of(iam.create_access_key, UserName=user) == (
        "LimitExceeded",
        "Cannot exceed quota for AccessKeysPerUser: 2",
    )
    listed = iam.list_access_keys(UserName=user)["AccessKeyMetadata"]
    assert {key["AccessKeyId"] for key in listed} == {one["AccessKeyId"], two["AccessKeyId"]}
    assert not any("SecretAccessKey" in key for key in listed)
    iam.update_access_key(UserName=user, AccessKeyId=two["AccessKeyId"], Status="Inactive")
    by_id = {key["AccessKeyId"]: key for key in iam.list_access_keys(UserName=user)["AccessKeyMetadata"]}
    assert by_id[two["AccessKeyId"]]["Status"] == "Inactive"
    iam.delete_access_key(UserName=user, AccessKeyId=two["AccessKeyId"])
    assert error_of(iam.delete_access_key, UserName=user, AccessKeyId=two["AccessKeyId"]) == (
        "NoSuchEntity",
        f"The Access Key with id {two['AccessKeyId']} cannot be found.",
    )
    assert error_of(iam.update_access_key, UserName="administrator", AccessKeyId=one["AccessKeyId"],
                 Status="Inactive")[0] == "NoSuchEntity", "another user's key"


def credentials_of(iam, user):
    """A new access key of a user."""
    key = iam.create_access_key(UserName=user)["AccessKey"]
    return Credentials(key["AccessKeyId"], key["SecretAccessKey"])


def test_an_access_key_works_until_it_is_inactive_and_follows_its_user(iam, appliance, user):
    credentials = credentials_of(iam, user)
    sts = appliance.client("sts", credentials=credentials)
    before = sts.get_caller_identity()
    assert before["Arn"].endswith(f":user/{user}")
    used = iam.get_access_key_last_used(AccessKeyId=credentials.access_key)
    assert used["UserName"] == user
    assert used["AccessKeyLastUsed"]["ServiceName"] == "sts"
    assert used["AccessKeyLastUsed"]["Region"] == appliance.region
    iam.update_user(UserName=user, NewUserName=f"{user}-2", NewPath="/p/")
    after = sts.get_caller_identity()
    assert after["Arn"].endswith(f":user/p/{user}-2") and after["UserId"] == before["UserId"]
    naming = {"UserName": f"{user}-2", "AccessKeyId": credentials.access_key}
    iam.update_access_key(**naming, Status="Inactive")
    assert error_of(sts.get_caller_identity)[0] == "InvalidClientTokenId"
    iam.update_access_key(**naming, Status="Active")
    assert sts.get_caller_identity() ["Arn"] == after["Arn"]
    iam.delete_access_key(**naming)
    assert error_of(sts.get_caller_identity)[0] == "InvalidClientTokenId"


def test_an_unused_key_was_never_used(iam, user):
    key = iam.create_access_key(UserName=user)["AccessKey"]["AccessKeyId"]
    used = iam.get_access_key_last_used(AccessKeyId=key)["AccessKeyLastUsed"]
    assert used == {"ServiceName": "N/A", "Region": "N/A"}
    assert error_of(iam.get_access_key_last_used, AccessKeyId="AKIA" + "Z" * 16)[0] == "AccessDenied"


def test_a_group_lives_from_creation_to_deletion(iam, appliance, user):
    name = f"group-{uuid.uuid4()}"
    made = iam.create_group(GroupName=name, Path="/g/")["Group"]
    assert made["Arn"] == f"arn:aws:iam::{appliance.account_id}:group/g/{name}"
    assert error_of(iam.create_group, GroupName=name)[0] == "EntityAlreadyExists"
    iam.add_user_to_group(GroupName=name, UserName=user)
    iam.add_user_to_group(GroupName=name, UserName=user)
    got = iam.get_group(GroupName=name)
    assert got["Group"] == made and [one["UserName"] for one in got["Users"]] == [user]
    assert iam.list_groups_for_user(UserName=user)["Groups"] == [made]
    assert made in iam.list_groups(PathPrefix="/g/")["Groups"]
    iam.update_group(GroupName=name, NewGroupName=f"{name}-2", NewPath="/h/")
    assert error_of(iam.get_group, GroupName=name) == (
        "NoSuchEntity", f"The group with name {name} cannot be found.")
    (renamed,) = iam.list_groups_for_user(UserName=user)["Groups"]
    assert renamed["GroupName"] == f"{name}-2" and renamed["GroupId"] == made["GroupId"]
    assert error_of(iam.delete_group, GroupName=f"{name}-2")[0] == "DeleteConflict"
    iam.update_user(UserName=user, NewUserName=f"{user}-2")
    iam.remove_user_from_group(GroupName=f"{name}-2", UserName=f"{user}-2")
    assert error_of(iam.remove_user_from_group, GroupName=f"{name}-2", UserName=f"{user}-2")[0] == (
        "NoSuchEntity")
    assert error_of(iam.add_user_to_group, GroupName=f"{name}-2", UserName="no-such")[0] == "NoSuchEntity"
    iam.delete_group(GroupName=f"{name}-2")


def test_a_user_is_in_ten_groups_at_most(iam, user, name):
    for n in range(11):
        iam.create_group(GroupName=f"{name}-{n}")
    for n in range(10):
        iam.add_user_to_group(GroupName=f"{name}-{n}", UserName=user)
    assert error_of(iam.add_user_to_group, GroupName=f"{name}-10", UserName=user) == (
        "LimitExceeded", "Cannot exceed quota for GroupsPerUser: 10")
    assert len(iam.list_groups_for_user(UserName=user)["Groups"]) == 10


def test_a_role_lives_from_creation_to_deletion(iam, appliance, name):
    account = appliance.account_id
    trusting = trust({"AWS": f"arn:aws:iam::{account}:root"})
    made = iam.create_role(
        RoleName=name, AssumeRolePolicyDocument=trusting, Description="d", MaxSessionDuration=7200,
        Path="/r/", Tags=[{"Key": "a", "Value": ""}],
    )["Role"]
    assert made["Arn"] == f"arn:aws:iam::{account}:role/r/{name}"
    assert made["RoleId"].startswith("AROA")
    assert made["AssumeRolePolicyDocument"] == json.loads(trusting)
    assert iam.get_role(RoleName=name)["Role"] == made
    assert name in [role["RoleName"] for role in iam.list_roles(PathPrefix="/r/")["Roles"]]
    iam.update_role(RoleName=name, Description="e")
    changed = iam.get_role(RoleName=name)["Role"]
    assert (changed["Description"], changed["MaxSessionDuration"]) == ("e", 3600)
    assert iam.update_role_description(RoleName=name, Description="f")["Role"]["Description"] == "f"
    other = trust({"Service": "ec2.amazonaws.com"})
    iam.update_assume_role_policy(RoleName=name, PolicyDocument=other)
    assert iam.get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"] == json.loads(other)
    assert error_of(iam.create_role, RoleName=name, AssumeRolePolicyDocument=other) == (
        "EntityAlreadyExists", f"Role with name {name} already exists.")
    iam.delete_role(RoleName=name)
    assert error_of(iam.get_role, RoleName=name) == (
        "NoSuchEntity", f"The role with name {name} cannot be found.")


def test_a_trust_policy_must_be_one(iam, careless, role):
    broken = [
        "{",
        document(),
        document({**READ, "Principal": "*"}),
        trust({"AWS": "nobody"}),
        document({"Effect": "Allow", "Principal": "*", "Action": "kms:Decrypt"}),
        document({"Effect": "Allow", "Action": "sts:AssumeRole"}),
    ]
    for text in broken:
        code, _ = error_of(iam.update_assume_role_policy, RoleName=role, PolicyDocument=text)
        assert code == "MalformedPolicyDocument", text
    long = document({"Sid": "x" * 8192, "Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole"})
    assert error_of(iam.update_assume_role_policy, RoleName=role, PolicyDocument=long) == (
        "LimitExceeded", "Cannot exceed quota for ACLSizePerRole: 8192")
    code, _ = error_of(careless.create_role, RoleName="x", AssumeRolePolicyDocument=trust("*"),
                    MaxSessionDuration=60)
    assert code == "ValidationError"


def test_a_managed_policy_has_versions(iam, appliance, name):
    made = iam.create_policy(PolicyName=name, PolicyDocument=document(), Path="/p/", Description="d",
                             Tags=[{"Key": "a", "Value": "b"}])["Policy"]
    arn = made["Arn"]
    assert arn == f"arn:aws:iam::{appliance.account_id}:policy/p/{name}"
    assert made["PolicyId"].startswith("ANPA") and made["DefaultVersionId"] == "v1"
    got = iam.get_policy(PolicyArn=arn)["Policy"]
    assert got == made and got["Description"] == "d" and got["IsAttachable"]
    assert error_of(iam.create_policy, PolicyName=name, PolicyDocument=document())[0] == "EntityAlreadyExists"
    second = document(READ, READ)
    version = iam.create_policy_version(PolicyArn=arn, PolicyDocument=second)["PolicyVersion"]
    assert (version["VersionId"], version["IsDefaultVersion"]) == ("v2", False)
    got = iam.get_policy_version(PolicyArn=arn, VersionId="v2")["PolicyVersion"]
    assert got["Document"] == json.loads(second)
    iam.set_default_policy_version(PolicyArn=arn, VersionId="v2")
    for _ in range(3):
        iam.create_policy_version(PolicyArn=arn, PolicyDocument=second, SetAsDefault=True)
    assert error_of(iam.create_policy_version, PolicyArn=arn, PolicyDocument=second)[0] == "LimitExceeded"
    listed = iam.list_policy_versions(PolicyArn=arn)["Versions"]
    assert [v["VersionId"] for v in listed] == ["v5", "v4", "v3", "v2", "v1"]
    assert [v["IsDefaultVersion"] for v in listed] == [True, False, False, False, False]
    assert error_of(iam.delete_policy_version, PolicyArn=arn, VersionId="v5") == (
        "DeleteConflict", "Cannot delete the default version of a policy.")
    assert error_of(iam.delete_policy, PolicyArn=arn)[1].startswith("This policy has more than one version.")
    for number in (1, 2, 3, 4):
        iam.delete_policy_version(PolicyArn=arn, VersionId=f"v{number}")
    assert error_of(iam.get_policy_version, PolicyArn=arn, VersionId="v1")[0] == "NoSuchEntity"
    assert iam.create_policy_version(PolicyArn=arn, PolicyDocument=second)["PolicyVersion"]["VersionId"] == "v6"
    iam.delete_policy_version(PolicyArn=arn, VersionId="v6")
    iam.delete_policy(PolicyArn=arn)
    assert error_of(iam.get_policy, PolicyArn=arn) == ("NoSuchEntity", f"Policy {arn} was not found.")


def test_versions_that_come_at_once_have_each_its_own_number(iam, policy):
    def add(_):
        return iam.create_policy_version(PolicyArn=policy, PolicyDocument=document())

    with ThreadPoolExecutor(4) as pool:
        made = [answer["PolicyVersion"]["VersionId"] for answer in pool.map(add, range(4))]
    assert sorted(made) == ["v2", "v3", "v4", "v5"]


def test_a_policy_must_be_one(iam, name):
    def refusal(text):
        code, message = error_of(iam.create_policy, PolicyName=name, PolicyDocument=text)
        assert code == "MalformedPolicyDocument", text
        return message

    assert refusal("{").startswith("Syntax errors in policy. ")
    assert refusal(document({**READ, "Effect": "Perhaps"})) == (
        "Syntax errors in policy. `Perhaps` is not an effect")
    assert refusal(json.dumps({"Statement": [READ]})) == (
        "Policy document must be version 2012-10-17 or greater.")
    assert refusal(document({**READ, "Principal": "*"})) == (
        "Policy document should not specify a principal.")
    assert refusal(document({**READ, "Action": "nothing"})) == (
        "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.")
    refusal(document({**READ, "Condition": {"StringLooksLike": {"aws:username": "x"}}}))
    assert refusal(document({**READ, "Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/99"}}})) == (
        "The policy failed legacy parsing")
    long = document({**READ, "Resource": ["arn:aws:secretsmanager:*:*:secret:" + "x" * 6200]})
    assert error_of(iam.create_policy, PolicyName=name, PolicyDocument=long) == (
        "LimitExceeded", "Cannot exceed quota for PolicySize: 6144")
    spaced = json.dumps(json.loads(document()), indent=1000)
    iam.create_policy(PolicyName=name, PolicyDocument=spaced)


def test_policies_of_ours_are_there_and_nobody_changes_them(iam, careless):
    policy = iam.get_policy(PolicyArn=ADMINISTRATOR)["Policy"]
    assert policy["PolicyName"] == "AdministratorAccess" and policy["AttachmentCount"] >= 1
    (version,) = iam.list_policy_versions(PolicyArn=ADMINISTRATOR)["Versions"]
    got = iam.get_policy_version(PolicyArn=ADMINISTRATOR, VersionId=version["VersionId"])
    assert got["PolicyVersion"]["Document"]["Statement"][0]["Action"] == "*"
    arns = {p["Arn"] for p in iam.list_policies(Scope="AWS")["Policies"]}
    assert ADMINISTRATOR in arns
    local = {p["Arn"] for p in iam.list_policies(Scope="Local", MaxItems=1000)["Policies"]}
    assert not local & arns
    for call, more in [
        (iam.delete_policy, {}),
        (iam.create_policy_version, {"PolicyDocument": document()}),
        (iam.set_default_policy_version, {"VersionId": "v1"}),
        (iam.tag_policy, {"Tags": [{"Key": "a", "Value": "b"}]}),
    ]:
        assert error_of(call, PolicyArn=ADMINISTRATOR, **more)[0] == "AccessDenied"


def test_policies_are_attached_and_detached(iam, holder, policy):
    holder("attach_{}_policy", PolicyArn=policy)
    holder("attach_{}_policy", PolicyArn=policy)
    holder("attach_{}_policy", PolicyArn=ADMINISTRATOR)
    listed = holder("list_attached_{}_policies")["AttachedPolicies"]
    assert {one["PolicyArn"] for one in listed} == {policy, ADMINISTRATOR}
    assert {one["PolicyName"] for one in listed} == {policy.rpartition("/")[2], "AdministratorAccess"}
    assert holder("list_attached_{}_policies", PathPrefix="/none/")["AttachedPolicies"] == []
    page = holder("list_attached_{}_policies", MaxItems=1)
    rest = holder("list_attached_{}_policies", MaxItems=1, Marker=page["Marker"])
    assert page["IsTruncated"] and not rest["IsTruncated"]
    assert page["AttachedPolicies"] + rest["AttachedPolicies"] == listed
    assert iam.get_policy(PolicyArn=policy)["Policy"]["AttachmentCount"] == 1
    entities = iam.list_entities_for_policy(PolicyArn=policy)
    (entity,) = entities["PolicyGroups"] + entities["PolicyUsers"] + entities["PolicyRoles"]
    assert holder.name in entity.values()
    kind = {"user": "Role"}.get(holder.kind, "User")
    none = iam.list_entities_for_policy(PolicyArn=policy, EntityFilter=kind)
    assert none["PolicyGroups"] + none["PolicyUsers"] + none["PolicyRoles"] == []
    assert error_of(iam.delete_policy, PolicyArn=policy) == (
        "DeleteConflict", "Cannot delete a policy attached to entities.")
    holder("detach_{}_policy", PolicyArn=policy)
    assert error_of(lambda: holder("detach_{}_policy", PolicyArn=policy)) == (
        "NoSuchEntity", f"Policy {policy} was not found.")
    missing = policy + "-missing"
    assert error_of(lambda: holder("attach_{}_policy", PolicyArn=missing)) == (
        "NoSuchEntity", f"Policy {missing} does not exist or is not attachable.")
    iam.delete_policy(PolicyArn=policy)


def test_ten_policies_are_attached_at_most(iam, holder, name):
    arns = [iam.create_policy(PolicyName=f"{name}-{n}", PolicyDocument=document())["Policy"]["Arn"]
            for n in range(11)]
    for arn in arns[:10]:
        holder("attach_{}_policy", PolicyArn=arn)
    assert error_of(lambda: holder("attach_{}_policy", PolicyArn=arns[10])) == (
        "LimitExceeded", f"Cannot exceed quota for PoliciesPer{holder.kind.capitalize()}: 10")


def test_inline_policies_are_put_read_and_deleted(holder):
    policy = document({**READ, "Resource": "arn:aws:secretsmanager:*:*:secret:a b%2F\u00e9*"})
    holder("put_{}_policy", PolicyName="b", PolicyDocument=document())
    holder("put_{}_policy", PolicyName="a", PolicyDocument=document())
    holder("put_{}_policy", PolicyName="b", PolicyDocument=policy)
    got = holder("get_{}_policy", PolicyName="b")
    assert got["PolicyDocument"] == json.loads(policy)
    assert got[f"{holder.kind.capitalize()}Name"] == holder.name
    assert holder("list_{}_policies")["PolicyNames"] == ["a", "b"]
    assert holder("list_{}_policies", MaxItems=1)["IsTruncated"]
    holder("delete_{}_policy", PolicyName="b")
    missing = ("NoSuchEntity", f"The {holder.kind} policy with name b cannot be found.")
    assert error_of(lambda: holder("get_{}_policy", PolicyName="b")) == missing
    assert error_of(lambda: holder("delete_{}_policy", PolicyName="b")) == missing
    code, _ = error_of(lambda: holder("put_{}_policy", PolicyName="c", PolicyDocument="[]"))
    assert code == "MalformedPolicyDocument"
    sizes = {"user": 2048, "group": 5120, "role": 10240}
    long = document({**READ, "Resource": "arn:aws:secretsmanager:*:*:secret:" + "x" * sizes[holder.kind]})
    code, text = error_of(lambda: holder("put_{}_policy", PolicyName="c", PolicyDocument=long))
    assert (code, text) == (
        "LimitExceeded",
        f"Maximum policy size of {sizes[holder.kind]} bytes exceeded for {holder.kind} {holder.name}",
    )


def test_permissions_boundaries_are_put_and_deleted(iam, principal, policy):
    principal("put_{}_permissions_boundary", PermissionsBoundary=policy)
    shown = principal("get_{}")[principal.kind.capitalize()]["PermissionsBoundary"]
    assert shown == {"PermissionsBoundaryType": "PermissionsBoundaryPolicy", "PermissionsBoundaryArn": policy}
    assert iam.get_policy(PolicyArn=policy)["Policy"]["PermissionsBoundaryUsageCount"] == 1
    assert error_of(iam.delete_policy, PolicyArn=policy)[0] == "DeleteConflict"
    entities = iam.list_entities_for_policy(PolicyArn=policy, PolicyUsageFilter="PermissionsBoundary")
    assert len(entities["PolicyUsers"] + entities["PolicyRoles"]) == 1
    principal("delete_{}_permissions_boundary")
    assert "PermissionsBoundary" not in principal("get_{}")[principal.kind.capitalize()]
    assert error_of(lambda: principal("delete_{}_permissions_boundary"))[0] == "NoSuchEntity"
    missing = policy + "-missing"
    code, _ = error_of(lambda: principal("put_{}_permissions_boundary", PermissionsBoundary=missing))
    assert code == "NoSuchEntity"


def test_nobody_is_made_with_a_boundary_that_is_not_there(iam, name, policy):
    assert error_of(iam.create_user, UserName=name, PermissionsBoundary=policy + "-missing") == (
        "NoSuchEntity", f"Scope ARN: {policy}-missing does not exist or is not attachable.")
    assert error_of(iam.get_user, UserName=name)[0] == "NoSuchEntity"
    iam.create_user(UserName=name, PermissionsBoundary=policy)
    assert iam.get_user(UserName=name)["User"]["PermissionsBoundary"]["PermissionsBoundaryArn"] == policy


@pytest.mark.parametrize("kind", ["user", "role", "policy"])
def test_tags_are_put_over_each_other_and_taken_away(iam, request, kind):
    thing = request.getfixturevalue(kind)
    naming = {"PolicyArn": thing} if kind == "policy" else {f"{kind.capitalize()}Name": thing}
    tag, untag = getattr(iam, f"tag_{kind}"), getattr(iam, f"untag_{kind}")
    listed = getattr(iam, f"list_{kind}_tags")
    tag(**naming, Tags=[{"Key": "Team", "Value": "a"}, {"Key": "cost", "Value": ""}])
    tag(**naming, Tags=[{"Key": "team", "Value": "b"}])
    assert sorted(listed(**naming)["Tags"], key=lambda t: t["Key"]) == [
        {"Key": "cost", "Value": ""}, {"Key": "team", "Value": "b"}]
    assert listed(**naming, MaxItems=1)["IsTruncated"]
    untag(**naming, TagKeys=["TEAM", "none"])
    assert listed(**naming)["Tags"] == [{"Key": "cost", "Value": ""}]
    assert error_of(tag, **naming, Tags=[{"Key": "a", "Value": ""}, {"Key": "A", "Value": ""}])[0] == (
        "InvalidInput")
    many = [{"Key": str(n), "Value": ""} for n in range(50)]
    assert error_of(tag, **naming, Tags=many)[0] == "LimitExceeded"
    assert error_of(tag, **naming, Tags=[{"Key": "a*", "Value": ""}])[0] == "ValidationError"


def test_the_account_is_summed_up(iam, user, group, role, policy):
    summary = iam.get_account_summary()["SummaryMap"]
    assert min(summary[kind] for kind in ("Users", "Groups", "Roles", "Policies")) >= 1
    assert summary["UsersQuota"] == 5000 and summary["AccessKeysPerUserQuota"] == 2
    assert iam.list_account_aliases()["AccountAliases"] == []


def test_the_command_line_does_it_too(appliance, name):
    ran = appliance.aws("iam", "create-user", "--user-name", name, "--tags", "Key=a,Value=b")
    assert ran.code == 0, ran.err
    assert ran.out["User"]["UserName"] == name
    ran = appliance.aws("iam", "attach-user-policy", "--user-name", name, "--policy-arn", ADMINISTRATOR)
    assert (ran.code, ran.out) == (0, None), ran.err
    ran = appliance.aws("iam", "list-attached-user-policies", "--user-name", name)
    assert ran.out["AttachedPolicies"] == [
        {"PolicyName": "AdministratorAccess", "PolicyArn": ADMINISTRATOR}]
    ran = appliance.aws("iam", "delete-user", "--user-name", name)
    assert ran.code != 0 and "(DeleteConflict)" in ran.err
    ran = appliance.aws("iam", "get-user", "--user-name", f"{name}-2")
    assert ran.code != 0 and "(NoSuchEntity)" in ran.err


@pytest.fixture
def secret(appliance, secretsmanager, name):
    """A secret of this test's own: its ARN."""
    return secretsmanager.create_secret(Name=f"{name}-secret", SecretString="s")["ARN"]


def test_a_user_may_do_what_its_policies_say_from_the_next_request_on(
    iam, appliance, secretsmanager, user, group, policy, secret
):
    credentials = credentials_of(iam, user)
    reader = appliance.client("secretsmanager", credentials=credentials)

    def denied():
        code, text = error_of(reader.get_secret_value, SecretId=secret)
        assert code == "AccessDeniedException"
        who = f"arn:aws:iam::{appliance.account_id}:user/{user}"
        assert text.startswith(
            f"User: {who} is not authorized to perform: secretsmanager:GetSecretValue on resource: {secret}")

    def allowed():
        assert reader.get_secret_value(SecretId=secret)["SecretString"] == "s"

    denied()
    iam.attach_user_policy(UserName=user, PolicyArn=policy)
    allowed()
    assert error_of(reader.delete_secret, SecretId=secret)[0] == "AccessDeniedException"
    assert error_of(appliance.client("iam", credentials=credentials).create_user, UserName="x")[0] == (
        "AccessDenied")
    iam.detach_user_policy(UserName=user, PolicyArn=policy)
    denied()
    iam.put_user_policy(UserName=user, PolicyName="p", PolicyDocument=document({**READ, "Resource": secret}))
    allowed()
    iam.delete_user_policy(UserName=user, PolicyName="p")
    denied()
    iam.attach_group_policy(GroupName=group, PolicyArn=policy)
    denied()
    iam.add_user_to_group(GroupName=group, UserName=user)
    allowed()
    iam.update_group(GroupName=group, NewGroupName=f"{group}-2")
    allowed()
    denial = document({**READ, "Effect": "Deny"})
    iam.create_policy_version(PolicyArn=policy, PolicyDocument=denial)
    allowed()
    iam.set_default_policy_version(PolicyArn=policy, VersionId="v2")
    denied()
    iam.set_default_policy_version(PolicyArn=policy, VersionId="v1")
    allowed()
    other = document({**READ, "Action": "secretsmanager:ListSecrets"})
    boundary = iam.create_policy(PolicyName=f"bound-{uuid.uuid4()}", PolicyDocument=other)["Policy"]["Arn"]
    iam.put_user_permissions_boundary(UserName=user, PermissionsBoundary=boundary)
    denied()
    iam.delete_user_permissions_boundary(UserName=user)
    allowed()
    iam.remove_user_from_group(GroupName=f"{group}-2", UserName=user)
    denied()


def test_tags_of_users_decide(iam, appliance, user, secret):
    tagged = {"StringEquals": {"aws:PrincipalTag/Team": "blue"}}
    iam.put_user_policy(UserName=user, PolicyName="p", PolicyDocument=document({**READ, "Condition": tagged}))
    reader = appliance.client("secretsmanager", credentials=credentials_of(iam, user))
    assert error_of(reader.get_secret_value, SecretId=secret)[0] == "AccessDeniedException"
    iam.tag_user(UserName=user, Tags=[{"Key": "Team", "Value": "blue"}])
    assert reader.get_secret_value(SecretId=secret)["SecretString"] == "s"
    iam.untag_user(UserName=user, TagKeys=["Team"])
    assert error_of(reader.get_secret_value, SecretId=secret)[0] == "AccessDeniedException"


def test_administrators_of_a_part_stay_in_it(iam, appliance, user, name):
    """A delegated administrator: own path, bounded users, some policies, no renaming out of it."""
    account = appliance.account_id
    ours = f"arn:aws:iam::{account}:user/{name}/*"
    bound = iam.create_policy(PolicyName=f"{name}-bound", PolicyDocument=document())["Policy"]["Arn"]
    iam.put_user_policy(UserName=user, PolicyName="p", PolicyDocument=document(
        {"Effect": "Allow", "Action": "iam:CreateUser", "Resource": ours,
         "Condition": {"StringEquals": {"iam:PermissionsBoundary": bound}}},
        {"Effect": "Allow", "Action": ["iam:UpdateUser", "iam:GetUser"], "Resource": ours},
        {"Effect": "Allow", "Action": "iam:AttachUserPolicy", "Resource": ours,
         "Condition": {"ArnEquals": {"iam:PolicyARN": bound}}},
    ))
    delegate = appliance.client("iam", credentials=credentials_of(iam, user))
    new, path = f"{name}-new", f"/{name}/"
    assert error_of(delegate.create_user, UserName=new, Path=path)[0] == "AccessDenied"
    assert error_of(delegate.create_user, UserName=new, PermissionsBoundary=bound)[0] == "AccessDenied"
    assert error_of(delegate.create_user, UserName=new, Path=path, PermissionsBoundary=bound,
                 Tags=[{"Key": "a", "Value": "b"}])[0] == "AccessDenied", "iam:TagUser is missing"
    delegate.create_user(UserName=new, Path=path, PermissionsBoundary=bound)
    delegate.attach_user_policy(UserName=new, PolicyArn=bound)
    assert error_of(delegate.attach_user_policy, UserName=new, PolicyArn=ADMINISTRATOR)[0] == "AccessDenied"
    assert error_of(delegate.update_user, UserName=new, NewPath="/")[0] == "AccessDenied"
    delegate.update_user(UserName=new, NewPath=f"/{name}/deeper/")
    assert error_of(delegate.get_user, UserName="administrator")[0] == "AccessDenied"
    assert error_of(delegate.get_user, UserName="no-such-user")[0] == "AccessDenied", "and is told no more"


def evaluated(answer):
    """Decisions by action and resource."""
    return {(r["EvalActionName"], r["EvalResourceName"]): r for r in answer["EvaluationResults"]}


def test_custom_policies_are_simulated(iam, careless):
    anything = "arn:aws:secretsmanager:us-east-1:000000000000:secret:a-AbCdEf"
    denied = anything.replace(":a-", ":b-")
    policies = [
        document({**READ, "Condition": {"StringEquals": {"aws:RequestTag/Team": "blue"}}}),
        document({"Effect": "Deny", "Action": "*", "Resource": denied}),
    ]
    entry = {"ContextKeyName": "aws:requesttag/team", "ContextKeyValues": ["blue"], "ContextKeyType": "string"}
    ask = {"PolicyInputList": policies, "ResourceArns": [anything, denied],
           "ActionNames": ["secretsmanager:GetSecretValue", "kms:Decrypt"]}
    without = evaluated(iam.simulate_custom_policy(**ask))
    one = without["secretsmanager:GetSecretValue", anything]
    assert one["EvalDecision"] == "implicitDeny" and one["MatchedStatements"] == []
    assert one["MissingContextValues"] == ["aws:RequestTag/Team"]
    answer = evaluated(iam.simulate_custom_policy(**ask, ContextEntries=[entry]))
    assert {key: result["EvalDecision"] for key, result in answer.items()} == {
        ("secretsmanager:GetSecretValue", anything): "allowed",
        ("secretsmanager:GetSecretValue", denied): "explicitDeny",
        ("kms:Decrypt", anything): "implicitDeny",
        ("kms:Decrypt", denied): "explicitDeny",
    }
    (statement,) = answer["secretsmanager:GetSecretValue", anything]["MatchedStatements"]
    assert statement["SourcePolicyId"] == "PolicyInputList.1"
    bounded = iam.simulate_custom_policy(
        **ask, ContextEntries=[entry],
        PermissionsBoundaryPolicyInputList=[document({**READ, "Action": "kms:*"})])
    one = evaluated(bounded)["secretsmanager:GetSecretValue", anything]
    assert one["EvalDecision"] == "implicitDeny"
    assert one["PermissionsBoundaryDecisionDetail"] == {"AllowedByPermissionsBoundary": False}
    pages = list(iam.get_paginator("simulate_custom_policy").paginate(
        **ask, PaginationConfig={"PageSize": 3}))
    assert [len(page["EvaluationResults"]) for page in pages] == [3, 1]
    assert error_of(iam.simulate_custom_policy, PolicyInputList=["{"], ActionNames=["a:b"])[0] == "InvalidInput"
    assert error_of(careless.simulate_custom_policy, PolicyInputList=[document()])[0] == "ValidationError"


def test_a_resource_s_policy_is_simulated_with_its_owner(iam, appliance):
    key = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
    own = document({"Effect": "Allow", "Principal": {"AWS": appliance.account_id}, "Action": "kms:*",
                    "Resource": "*"})
    ask = {"PolicyInputList": [document({"Effect": "Allow", "Action": "kms:Decrypt", "Resource": key})],
           "ActionNames": ["kms:Decrypt", "kms:Encrypt"], "ResourceArns": [key],
           "ResourceOwner": "arn:aws:iam::111122223333:root"}
    decisions = lambda **more: [r["EvalDecision"] for r in
                                iam.simulate_custom_policy(**ask, **more)["EvaluationResults"]]
    assert decisions(ResourcePolicy=own) == ["allowed", "implicitDeny"]
    assert decisions() == ["implicitDeny", "implicitDeny"]


def test_a_principal_s_policies_are_simulated(iam, appliance, user, group, role, policy):
    account = appliance.account_id
    iam.add_user_to_group(UserName=user, GroupName=group)
    iam.put_group_policy(GroupName=group, PolicyName="p", PolicyDocument=document())
    iam.attach_role_policy(RoleName=role, PolicyArn=ADMINISTRATOR)
    iam.put_role_permissions_boundary(RoleName=role, PermissionsBoundary=policy)

    def decision(kind, name, action):
        arn = f"arn:aws:iam::{account}:{kind}/{name}"
        answer = iam.simulate_principal_policy(PolicySourceArn=arn, ActionNames=[action])
        (result,) = answer["EvaluationResults"]
        sources = [(s["SourcePolicyId"], s["SourcePolicyType"]) for s in result["MatchedStatements"]]
        return result["EvalDecision"], sources

    read, write = "secretsmanager:GetSecretValue", "secretsmanager:PutSecretValue"
    source = [(f"group_{group}_p", "group")]
    assert decision("user", user, read) == ("allowed", source)
    assert decision("group", group, read) == ("allowed", source)
    assert decision("user", user, write) == ("implicitDeny", [])
    assert decision("role", role, read) == ("allowed", [("AdministratorAccess", "aws-managed")])
    assert decision("role", role, write) == ("implicitDeny", [])
    missing = f"arn:aws:iam::{account}:user/no-such-user"
    assert error_of(iam.simulate_principal_policy, PolicySourceArn=missing, ActionNames=[read])[0] == (
        "NoSuchEntity")
    other = f"arn:aws:iam::111122223333:user/{user}"
    assert error_of(iam.simulate_principal_policy, PolicySourceArn=other, ActionNames=[read])[0] == (
        "InvalidInput")


def test_everybody_and_everything_is_told(iam, user, group, role, policy):
    iam.add_user_to_group(UserName=user, GroupName=group)
    for kind, name in [("user", user), ("group", group), ("role", role)]:
        naming = {f"{kind.capitalize()}Name": name}
        getattr(iam, f"put_{kind}_policy")(**naming, PolicyName="p", PolicyDocument=document())
        getattr(iam, f"attach_{kind}_policy")(**naming, PolicyArn=policy)
    pages = list(iam.get_paginator("get_account_authorization_details").paginate(
        PaginationConfig={"PageSize": 7}))
    def one(member, name, value):
        (found,) = [d for page in pages for d in page[member] if d[name] == value]
        return found
    attached = [{"PolicyArn": policy, "PolicyName": policy.rpartition("/")[2]}]
    inline = [{"PolicyName": "p", "PolicyDocument": json.loads(document())}]
    detail = one("UserDetailList", "UserName", user)
    assert detail["GroupList"] == [group] and detail["UserPolicyList"] == inline
    assert detail["AttachedManagedPolicies"] == attached
    detail = one("GroupDetailList", "GroupName", group)
    assert (detail["GroupPolicyList"], detail["AttachedManagedPolicies"]) == (inline, attached)
    detail = one("RoleDetailList", "RoleName", role)
    assert (detail["RolePolicyList"], detail["AttachedManagedPolicies"]) == (inline, attached)
    detail = one("Policies", "Arn", policy)
    assert detail["AttachmentCount"] == 3
    assert detail["PolicyVersionList"][0]["Document"] == json.loads(document())
    assert one("Policies", "Arn", ADMINISTRATOR)["DefaultVersionId"] == "v1"
    only = iam.get_account_authorization_details(Filter=["Role"], MaxItems=1000)
    assert not only["UserDetailList"] and not only["Policies"]
    assert role in [detail["RoleName"] for detail in only["RoleDetailList"]]


def test_the_audit_log_tells_changes_and_no_secret_access_key(own_appliance):
    appliance = own_appliance()
    iam = appliance.client("iam")
    user = iam.create_user(UserName="ada")["User"]
    key = iam.create_access_key(UserName="ada")["AccessKey"]
    group = iam.create_group(GroupName="staff")["Group"]
    role = iam.create_role(RoleName="app", AssumeRolePolicyDocument=trust({"AWS": user["Arn"]}))["Role"]
    iam.update_role_description(RoleName="app", Description="an application")
    policy = iam.create_policy(PolicyName="most", PolicyDocument=document())["Policy"]
    iam.create_policy_version(PolicyArn=policy["Arn"], PolicyDocument=document(),
                              SetAsDefault=True)
    appliance.stop()
    files = [path for path in appliance.directory.rglob("*") if path.is_file()]
    secret = key["SecretAccessKey"].encode()
    assert not [path for path in files if secret in path.read_bytes()]
    appliance.start()
    (log,) = appliance.directory.rglob("audit.jsonl")
    events = {(r := json.loads(line))["eventName"]: r for line in log.read_text().splitlines()}
    made = events["CreateAccessKey"]
    assert made["requestParameters"] == {"userName": "ada"}
    assert made["responseElements"]["accessKey"]["accessKeyId"] == key["AccessKeyId"]
    said = {name: event["responseElements"] for name, event in events.items()}
    assert said["CreateUser"]["user"]["userId"] == user["UserId"]
    assert said["CreateGroup"]["group"]["groupId"] == group["GroupId"]
    assert said["CreateRole"]["role"]["roleId"] == role["RoleId"]
    assert said["UpdateRoleDescription"]["role"]["description"] == "an application"
    assert said["CreatePolicy"]["policy"]["policyId"] == policy["PolicyId"]
    version = said["CreatePolicyVersion"]["policyVersion"]
    assert (version["versionId"], version["isDefaultVersion"]) == ("v2", True)
    assert "document" not in version
    used = appliance.client("iam").get_access_key_last_used(
        AccessKeyId=appliance.credentials.access_key)["AccessKeyLastUsed"]
    assert used["ServiceName"] == "iam", "noted before the restart"


def test_an_access_key_of_before_has_a_user_after_the_next_start(own_appliance):
    """As a data directory is that was made when there were no users: keys name no principal."""
    appliance = own_appliance()
    before = appliance.client("sts").get_caller_identity()
    appliance.stop()
    databases = [path for path in appliance.directory.rglob("*") if path.is_file()
                 and path.read_bytes()[:15] == b"SQLite format 3"]
    adopted = False
    for path in databases:
        database = sqlite3.connect(path)
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
        if "iam_user" in tables:
            with database:
                database.execute("DELETE FROM iam_user")
                database.execute("UPDATE access_key SET principal = ''")
            adopted = True
        database.close()
    assert adopted
    for _ in range(2):
        appliance.start()
        assert appliance.client("sts").get_caller_identity() == {**before, "ResponseMetadata": ANY}
        iam = appliance.client("iam")
        (user,) = iam.list_users()["Users"]
        assert user["UserName"] == "administrator" and user["UserId"] == before["UserId"]
        attached = iam.list_attached_user_policies(UserName="administrator")["AttachedPolicies"]
        assert [one["PolicyArn"] for one in attached] == [ADMINISTRATOR]
        appliance.stop()
    appliance.start()
    (log,) = appliance.directory.rglob("audit.jsonl")
    events = [json.loads(line)["eventName"] for line in log.read_text().splitlines()]
    assert events.count("CreateUser") == 1, "once"
