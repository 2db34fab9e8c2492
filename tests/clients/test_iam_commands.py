"""`strongroom user`, `role`, `policy`, `session` and `account`."""

import copy
import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from conftest import ROOT, error_of

ADMINISTRATOR = "arn:aws:iam::aws:policy/AdministratorAccess"
SECONDS = 60


def run(appliance, *arguments, credentials=None, online=True):
    """Runs `strongroom`; its exit code, standard output and standard error."""
    binary = ROOT / Path(os.environ.get("STRONGROOM_BIN", "target/debug/strongroom"))
    given = (credentials or appliance.credentials).get_frozen_credentials()
    environment = {"PATH": os.environ["PATH"], "HOME": str(appliance.directory)}
    if online:
        environment |= {
            "AWS_ENDPOINT_URL": appliance.endpoint,
            "AWS_REGION": appliance.region,
            "AWS_ACCESS_KEY_ID": given.access_key,
            "AWS_SECRET_ACCESS_KEY": given.secret_key,
        }
    return subprocess.run([binary, *map(str, arguments)], env=environment, capture_output=True,
                          text=True, timeout=SECONDS)


def done(appliance, *arguments, **more):
    """The output of a command that must succeed."""
    ran = run(appliance, *arguments, **more)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def told(text):
    """The access key in an output."""
    found = dict(re.findall(r"export (AWS_\w+)=(\S+)", text))
    return Credentials(found["AWS_ACCESS_KEY_ID"], found["AWS_SECRET_ACCESS_KEY"])


def test_users_are_kept(appliance, name):
    out = done(appliance, "user", "add", name, "--path", "/cli/", "--policy", ADMINISTRATOR, "--key")
    credentials = told(out)
    assert appliance.client("sts", credentials=credentials).get_caller_identity()["Arn"].endswith(
        f":user/cli/{name}")
    lines = done(appliance, "user", "list", "--path-prefix", "/cli/").splitlines()
    (line,) = [line for line in lines if line.startswith(f"{name}\t")]
    assert line.split("\t")[1].endswith(f":user/cli/{name}")
    shown = json.loads(done(appliance, "user", "show", name))
    assert shown["User"]["UserName"] == name
    assert [p["PolicyArn"] for p in shown["AttachedPolicies"]] == [ADMINISTRATOR]
    (key,) = shown["AccessKeyMetadata"]
    assert key["AccessKeyId"] == credentials.access_key
    second = told(done(appliance, "user", "key-add", name))
    refused = run(appliance, "user", "delete", name)
    assert refused.returncode == 1
    assert "DeleteConflict: Cannot delete entity, must delete access keys first." in refused.stderr
    done(appliance, "user", "key-delete", name, second.access_key)
    done(appliance, "user", "key-delete", name, credentials.access_key)
    done(appliance, "user", "detach", name, ADMINISTRATOR)
    done(appliance, "user", "attach", name, ADMINISTRATOR)
    done(appliance, "user", "detach", name, ADMINISTRATOR)
    done(appliance, "user", "delete", name)
    missing = run(appliance, "user", "show", name)
    assert missing.returncode == 1 and "NoSuchEntity" in missing.stderr


def test_a_session_is_ended_from_the_next_request_on(appliance):
    given = appliance.client("sts").get_session_token()["Credentials"]
    session = Credentials(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])
    kms = appliance.client("kms", credentials=session)
    kms.list_keys()
    done(appliance, "session", "end", session.access_key)
    with pytest.raises(ClientError) as error:
        kms.list_keys()
    assert error.value.response["Error"]["Code"] == "ExpiredTokenException"
    refused = run(appliance, "session", "end", "AKIAIOSFODNN7EXAMPLE")
    assert refused.returncode == 1 and "is no temporary access key" in refused.stderr


def test_roles_and_policies_are_kept(appliance, name, tmp_path):
    read = {"Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": "*"}
    document = {"Version": "2012-10-17", "Statement": [read]}
    (tmp_path / "policy.json").write_text(json.dumps(document))
    made = json.loads(done(appliance, "policy", "add", name, "--document", tmp_path / "policy.json",
                           "--description", "d"))
    arn = made["Policy"]["Arn"]
    assert f"{name}\t{arn}\tv1" in done(appliance, "policy", "list").splitlines()
    assert json.loads(done(appliance, "policy", "show", arn))["Document"] == document
    trust = {"Effect": "Allow", "Principal": {"AWS": appliance.account_id}, "Action": "sts:AssumeRole"}
    (tmp_path / "trust.json").write_text(json.dumps({"Version": "2012-10-17", "Statement": [trust]}))
    done(appliance, "role", "add", name, "--trust", tmp_path / "trust.json", "--policy", arn)
    shown = json.loads(done(appliance, "role", "show", name))
    assert shown["Role"]["RoleName"] == name
    assert [p["PolicyArn"] for p in shown["AttachedPolicies"]] == [arn]
    assert any(line.startswith(f"{name}\t") for line in done(appliance, "role", "list").splitlines())
    assert "DeleteConflict" in run(appliance, "policy", "delete", arn).stderr
    done(appliance, "role", "detach", name, arn)
    done(appliance, "role", "delete", name)
    done(appliance, "policy", "delete", arn)
    broken = run(appliance, "policy", "add", name, "--document", "/dev/null")
    assert broken.returncode == 1 and "ValidationError" in broken.stderr
    assert run(appliance, "role", "add", name, "--trust", tmp_path / "none").returncode == 1


def test_commands_need_the_rights_of_the_operations(appliance, name):
    credentials = told(done(appliance, "user", "add", name, "--key"))
    refused = run(appliance, "user", "list", credentials=credentials)
    assert refused.returncode == 1 and "AccessDenied" in refused.stderr
    assert "is not authorized to perform: iam:ListUsers" in refused.stderr
    nobody = run(appliance, "user", "list", online=False)
    assert nobody.returncode == 1 and "--endpoint-url" in nobody.stderr


def test_accounts_are_added_listed_and_apart(own_appliance):
    appliance = own_appliance()
    config = appliance.directory / "appliance" / "strongroom.toml"
    served = run(appliance, "account", "list", "--config", config, online=False)
    assert served.returncode != 0, "another process serves it"
    appliance.client("secretsmanager").create_secret(Name="mine", SecretString="s")
    appliance.stop()
    added = done(appliance, "account", "add", "--config", config, "--account", "111122223333",
                 online=False)
    again = run(appliance, "account", "add", "--config", config, "--account", "111122223333",
                online=False)
    assert again.returncode != 0 and "111122223333 already" in again.stderr
    assert run(appliance, "account", "add", "--config", config, "--account", "1",
               online=False).returncode == 78
    listed = done(appliance, "account", "list", "--config", config, online=False).splitlines()
    assert [line.split("\t")[0] for line in listed] == [appliance.account_id, "111122223333"]
    appliance.start()
    tenant = appliance.client("secretsmanager", credentials=told(added))
    assert tenant.list_secrets()["SecretList"] == []
    arn = tenant.create_secret(Name="theirs", SecretString="t")["ARN"]
    assert ":111122223333:" in arn
    assert tenant.get_secret_value(SecretId="theirs")["SecretString"] == "t"
    with pytest.raises(ClientError):
        appliance.client("secretsmanager").get_secret_value(SecretId=arn)
    users = appliance.client("iam", credentials=told(added)).list_users()["Users"]
    assert [user["Arn"] for user in users] == ["arn:aws:iam::111122223333:user/administrator"]


def test_who_locked_everybody_out_gets_in_again(own_appliance):
    appliance = own_appliance()
    config = appliance.directory / "appliance" / "strongroom.toml"
    iam = appliance.client("iam")
    iam.detach_user_policy(UserName="administrator", PolicyArn=ADMINISTRATOR)
    with pytest.raises(ClientError):
        iam.attach_user_policy(UserName="administrator", PolicyArn=ADMINISTRATOR)
    appliance.stop()
    credentials = told(done(appliance, "user", "recover", "--config", config, online=False))
    missing = run(appliance, "user", "recover", "--config", config, "--account", "999999999999",
                  online=False)
    assert missing.returncode != 0 and "no account 999999999999" in missing.stderr
    appliance.start()
    appliance.client("iam", credentials=credentials).attach_user_policy(
        UserName="administrator", PolicyArn=ADMINISTRATOR)
    assert len(appliance.client("iam").list_users()["Users"]) == 2
    (log,) = appliance.directory.rglob("audit.jsonl")
    assert '"RecoverAccount"' in log.read_text()


def test_a_root_has_its_account_to_itself_as_far_as_key_policies_let_it(own_appliance, name):
    appliance = own_appliance()
    first, second = appliance.account_id, "222233334444"
    config = appliance.directory / "appliance" / "strongroom.toml"
    appliance.stop()
    offline = {"online": False}
    root = told(done(appliance, "user", "recover", "--root", "--config", config, **offline))
    added = done(appliance, "account", "add", "--root", "--account", second, "--config", config, **offline)
    assert f"arn:aws:iam::{second}:root" in added
    other = told(added)
    appliance.start()
    who = [appliance.client("sts", credentials=c).get_caller_identity() for c in (root, other)]
    assert [(w["Arn"], w["UserId"]) for w in who] == [
        (f"arn:aws:iam::{account}:root", account) for account in (first, second)
    ]
    # Everything in its own account, with no policy at all: keys, principals, its own access keys.
    kms, iam = (appliance.client(s, credentials=root) for s in ("kms", "iam"))
    key = kms.create_key()["KeyMetadata"]["Arn"]
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps({
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"AWS": first}, "Action": "sts:AssumeRole"}],
    }))["Role"]
    assert [k["AccessKeyId"] for k in iam.list_access_keys()["AccessKeyMetadata"]] == [root.access_key]
    assert appliance.client("iam", credentials=other).list_users()["Users"] == []
    # By the AWS CLI: the model has no answer without a user's name, and a root has none.
    by_root = copy.copy(appliance)
    by_root.credentials = root
    made = by_root.aws("iam", "create-access-key")
    assert made.code == 0, made.err
    assert set(made.out["AccessKey"]) == {"AccessKeyId", "SecretAccessKey", "Status", "CreateDate"}
    second_key = made.out["AccessKey"]
    assert error_of(iam.create_access_key)[0] == "LimitExceeded"
    both = {root.access_key, second_key["AccessKeyId"]}
    assert {k["AccessKeyId"] for k in iam.list_access_keys()["AccessKeyMetadata"]} == both
    # An administrator has no hand in it.
    refused = error_of(appliance.client("iam").delete_access_key, AccessKeyId=root.access_key)
    assert refused[0] == "NoSuchEntity"
    # Nothing in another's.
    foreign = appliance.client("kms", credentials=other)
    assert error_of(foreign.describe_key, KeyId=key)[0] == "AccessDeniedException"
    # No role.
    sts = appliance.client("sts", credentials=root)
    refused = error_of(sts.assume_role, RoleArn=role["Arn"], RoleSessionName="me")
    assert refused == ("AccessDenied", "Roles may not be assumed by root accounts.")
    # No key whose policy does not name it.
    document = {"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Action": "kms:*", "Resource": "*",
        "Principal": {"AWS": f"arn:aws:iam::{first}:user/administrator"},
    }]}
    kms.put_key_policy(KeyId=key, Policy=json.dumps(document), BypassPolicyLockoutSafetyCheck=True)
    assert error_of(kms.describe_key, KeyId=key)[0] == "AccessDeniedException"
    appliance.client("kms").describe_key(KeyId=key)
    # Its session lasts an hour at most, and is the root too.
    given = sts.get_session_token(DurationSeconds=7200)["Credentials"]
    session = Credentials(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])
    appliance.client("kms", credentials=session).list_keys()
    (log,) = appliance.directory.rglob("audit.jsonl")
    records = [json.loads(line) for line in log.read_text().splitlines()]
    types = {r["userIdentity"]["type"] for r in records if r["userIdentity"].get("accessKeyId")
             in (root.access_key, other.access_key, session.access_key)}
    assert types == {"Root"}
    made = {r["eventName"]: r["resources"][0]["ARN"] for r in records
            if r["eventName"] in ("RecoverAccount", "CreateAccount") and r.get("resources")}
    assert made == {
        "RecoverAccount": f"arn:aws:iam::{first}:root",
        "CreateAccount": f"arn:aws:iam::{second}:root",
    }
    # Who lost both gets in, and the oldest is good for nothing any more.
    appliance.stop()
    out = done(appliance, "user", "recover", "--root", "--config", config, **offline)
    third = told(out)
    assert f"its oldest, {root.access_key}, is gone: there may be two" in out
    appliance.start()
    kept = appliance.client("iam", credentials=third).list_access_keys()["AccessKeyMetadata"]
    assert {k["AccessKeyId"] for k in kept} == {third.access_key, second_key["AccessKeyId"]}
    refused = error_of(appliance.client("sts", credentials=root).get_caller_identity)
    assert refused[0] == "InvalidClientTokenId"
