"""Seeds of `strongroom dev`: what docs/dev.md promises, on real appliances."""

import base64
import hashlib
import hmac
import json
import os
import subprocess
import time
import uuid
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from conftest import ROOT, Appliance

KEY = "1234abcd-12ab-34cd-56ef-1234567890ab"
MADE = "0badc0de-0000-4000-8000-000000000001"
MATERIAL = bytes(range(32))
VERSION = "11111111-2222-4333-8444-555555555555"
SEED = {
    "Keys": [
        {
            "KeyId": KEY,
            "KeyMaterial": MATERIAL.hex(),
            "Description": "orders",
            "Aliases": ["alias/orders", "alias/shop/orders"],
            "Tags": {"team": "shop"},
        },
        {"KeyId": MADE, "Aliases": ["alias/retired"], "Enabled": False},
    ],
    "Secrets": [
        {
            "Name": "prod/database",
            "SecretString": '{"password": "correct horse"}',
            "Description": "the database",
            "KmsKeyId": "alias/orders",
            "Tags": {"team": "shop"},
            "ArnSuffix": "AbCdEf",
            "VersionId": VERSION,
        },
        {"Name": "prod/certificate", "SecretBinary": base64.b64encode(b"\x00\xff").decode()},
        {"Name": "prod/later"},
    ],
}


@pytest.fixture
def seed(tmp_path):
    """Writes a seed file: `seed(SEED)` or `seed("Keys: ...")`; answers the arguments to use it."""

    def write(content):
        file = tmp_path / f"seed-{uuid.uuid4()}.yaml"
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        return "--seed", str(file)

    return write


@pytest.fixture
def appliances(tmp_path):
    """Several appliances for one test: `appliances("one", "--seed", file)`."""
    started = []

    def start(name, *arguments):
        folder = tmp_path / name
        folder.mkdir()
        started.append(Appliance(folder, *arguments))
        return started[-1]

    yield start
    for running in started:
        running.stop()


def everything(appliance):
    """All that the API tells of keys, aliases, tags and secrets; values included."""
    kms, secrets = appliance.client("kms"), appliance.client("secretsmanager")
    keys = [key["KeyId"] for key in kms.list_keys()["Keys"]]
    found = {
        "keys": [kms.describe_key(KeyId=key)["KeyMetadata"] for key in keys],
        "tags": [
            kms.list_resource_tags(KeyId=key)["Tags"]
            for key in keys
            if kms.describe_key(KeyId=key)["KeyMetadata"]["KeyManager"] == "CUSTOMER"
        ],
        "aliases": kms.list_aliases()["Aliases"],
        "secrets": secrets.list_secrets()["SecretList"],
    }
    return json.dumps(found, default=str, sort_keys=True)


def log_of(appliance):
    return appliance.log.read_text(errors="replace")


def code_of(failure):
    return failure.value.response["Error"]["Code"]


def refused(seed_arguments, directory):
    """Starts with a seed that is wrong; answers what is said on standard error."""
    binary = ROOT / Path(os.environ.get("STRONGROOM_BIN", "target/debug/strongroom"))
    command = [binary, "dev", "--dir", directory, "--json", *seed_arguments]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode != 0 and ran.stdout == "", "served in spite of its seed"
    return ran.stderr


def test_keys_have_the_given_ids_names_tags_and_states(own_appliance, seed):
    kms = own_appliance(*seed(SEED)).client("kms")
    told = kms.describe_key(KeyId="alias/orders")["KeyMetadata"]
    assert told["KeyId"] == KEY
    assert told["Arn"] == f"arn:aws:kms:us-east-1:000000000000:key/{KEY}"
    assert (told["Description"], told["KeyState"]) == ("orders", "Enabled")
    assert (told["Origin"], told["KeyManager"]) == ("AWS_KMS", "CUSTOMER")
    assert kms.describe_key(KeyId="alias/shop/orders")["KeyMetadata"]["KeyId"] == KEY
    tags = kms.list_resource_tags(KeyId=KEY)["Tags"]
    assert tags == [{"TagKey": "team", "TagValue": "shop"}]


def test_a_seeded_key_encrypts_and_rotates_like_any_other(own_appliance, seed):
    kms = own_appliance(*seed(SEED)).client("kms")
    sealed = kms.encrypt(KeyId="alias/orders", Plaintext=b"milk")
    assert sealed["KeyId"].endswith(KEY)
    assert kms.decrypt(CiphertextBlob=sealed["CiphertextBlob"])["Plaintext"] == b"milk"
    kms.rotate_key_on_demand(KeyId=KEY)
    assert kms.decrypt(CiphertextBlob=sealed["CiphertextBlob"])["Plaintext"] == b"milk"


def test_a_key_without_material_is_made_by_the_token_and_may_be_disabled(own_appliance, seed):
    kms = own_appliance(*seed(SEED)).client("kms")
    assert kms.describe_key(KeyId="alias/retired")["KeyMetadata"]["KeyState"] == "Disabled"
    with pytest.raises(ClientError) as failure:
        kms.encrypt(KeyId=MADE, Plaintext=b"x")
    assert code_of(failure) == "DisabledException"
    kms.enable_key(KeyId=MADE)
    sealed = kms.encrypt(KeyId=MADE, Plaintext=b"x")["CiphertextBlob"]
    assert kms.decrypt(CiphertextBlob=sealed)["Plaintext"] == b"x"


def test_a_secret_has_the_given_arn_version_value_key_and_tags(own_appliance, seed):
    secrets = own_appliance(*seed(SEED)).client("secretsmanager")
    arn = "arn:aws:secretsmanager:us-east-1:000000000000:secret:prod/database-AbCdEf"
    read = secrets.get_secret_value(SecretId=arn)
    assert read["ARN"] == arn
    assert (read["Name"], read["VersionId"]) == ("prod/database", VERSION)
    assert read["SecretString"] == '{"password": "correct horse"}'
    assert read["VersionStages"] == ["AWSCURRENT"]
    told = secrets.describe_secret(SecretId="prod/database")
    assert (told["Description"], told["KmsKeyId"]) == ("the database", "alias/orders")
    assert told["Tags"] == [{"Key": "team", "Value": "shop"}]


def test_a_secret_may_be_binary_or_empty(own_appliance, seed):
    secrets = own_appliance(*seed(SEED)).client("secretsmanager")
    assert secrets.get_secret_value(SecretId="prod/certificate")["SecretBinary"] == b"\x00\xff"
    with pytest.raises(ClientError) as failure:
        secrets.get_secret_value(SecretId="prod/later")
    assert code_of(failure) == "ResourceNotFoundException"
    assert "VersionIdsToStages" not in secrets.describe_secret(SecretId="prod/later")


def test_a_second_start_with_the_same_seed_changes_nothing(own_appliance, seed):
    appliance = own_appliance(*seed(SEED))
    assert "of the 5 keys and secrets of the seed 5 were made now" in log_of(appliance)
    before = everything(appliance)
    appliance.stop()
    appliance.start()
    assert everything(appliance) == before
    assert "of the 5 keys and secrets of the seed 0 were made now" in log_of(appliance)
    assert "WARN" not in log_of(appliance)


def test_state_outlives_a_restart_and_what_differs_is_said(own_appliance, seed):
    appliance = own_appliance(*seed(SEED))
    kms, secrets = appliance.client("kms"), appliance.client("secretsmanager")
    secrets.put_secret_value(SecretId="prod/database", SecretString="changed")
    secrets.delete_secret(SecretId="prod/later")
    kms.delete_alias(AliasName="alias/orders")
    kms.create_alias(AliasName="alias/orders", TargetKeyId=MADE)
    kms.delete_alias(AliasName="alias/shop/orders")
    kms.enable_key(KeyId=MADE)
    kms.update_key_description(KeyId=KEY, Description="changed")
    kms.tag_resource(KeyId=KEY, Tags=[{"TagKey": "more", "TagValue": "1"}])
    before = everything(appliance)
    appliance.stop()
    appliance.start()
    assert everything(appliance) == before
    log = log_of(appliance)
    for what, difference in [
        ("secret `prod/database`", "has another value"),
        ("secret `prod/later`", "waits for its deletion"),
        (f"key `{KEY}`", "has another description"),
        (f"key `{KEY}`", "has other tags"),
        (f"key `{KEY}`", f"has not the alias `alias/orders`, which names key `{MADE}`"),
        (f"key `{KEY}`", "has not the alias `alias/shop/orders`"),
        (f"key `{MADE}`", "is enabled"),
    ]:
        said = f"{what} of the seed was there already and stays as it is: it {difference}"
        assert said in log, f"{said}\n{log}"
    assert "correct horse" not in log and "changed" not in log


def test_other_material_for_a_key_that_is_there_is_said_and_not_used(appliances, seed):
    appliance = appliances("one", *seed(SEED))
    sealed = appliance.client("kms").encrypt(KeyId=KEY, Plaintext=b"milk")["CiphertextBlob"]
    appliance.stop()
    other = base64.b64encode(bytes(32)).decode()
    keys = [{"KeyId": KEY, "KeyMaterial": other, "Description": "orders", "Tags": {"team": "shop"}}]
    appliance.arguments = seed({"Keys": keys})
    appliance.start()
    assert f"key `{KEY}` of the seed was there already" in log_of(appliance)
    assert "it has other key material" in log_of(appliance)
    assert appliance.client("kms").decrypt(CiphertextBlob=sealed)["Plaintext"] == b"milk"


def test_what_one_appliance_seals_another_with_the_same_material_opens(appliances, seed):
    hexadecimal = seed({"Keys": [{"KeyId": KEY, "KeyMaterial": MATERIAL.hex()}]})
    text = base64.b64encode(MATERIAL).decode()
    base64ed = seed(f"Keys:\n  - KeyId: {KEY}\n    KeyMaterial: {text}\n")
    context = {"purpose": "test"}
    one = appliances("one", *hexadecimal).client("kms")
    two = appliances("two", *base64ed).client("kms")
    sealed = one.encrypt(KeyId=KEY, Plaintext=b"milk", EncryptionContext=context)["CiphertextBlob"]
    opened = two.decrypt(CiphertextBlob=sealed, EncryptionContext=context)
    assert opened["Plaintext"] == b"milk"
    with pytest.raises(ClientError) as failure:
        two.decrypt(CiphertextBlob=sealed)
    assert code_of(failure) == "InvalidCiphertextException"


def test_other_material_or_another_account_opens_nothing(appliances, seed):
    same = seed({"Keys": [{"KeyId": KEY, "KeyMaterial": MATERIAL.hex()}]})
    other = seed({"Keys": [{"KeyId": KEY, "KeyMaterial": bytes(32).hex()}]})
    one = appliances("one", *same).client("kms")
    sealed = one.encrypt(KeyId=KEY, Plaintext=b"milk")["CiphertextBlob"]
    for name, arguments in [
        ("material", other),
        ("account", (*same, "--account", "111111111111")),
        ("region", (*same, "--region", "eu-central-1")),
    ]:
        elsewhere = appliances(name, *arguments).client("kms")
        with pytest.raises(ClientError) as failure:
            elsewhere.decrypt(CiphertextBlob=sealed)
        assert code_of(failure) in ("InvalidCiphertextException", "AccessDeniedException"), name


def test_a_ciphertext_names_the_backing_key_that_the_documentation_says(own_appliance, seed):
    kms = own_appliance(*seed(SEED)).client("kms")
    sealed = kms.encrypt(KeyId=KEY, Plaintext=b"milk")["CiphertextBlob"]
    check = hmac.digest(MATERIAL, b"strongroom key check v1", "sha256")[:8]
    named = b"strongroom imported backing key v1" + KEY.encode() + b"\0" + check
    assert sealed[19:35] == hashlib.sha256(named).digest()[:16]


def test_seeded_things_stand_in_the_audit_log(own_appliance, seed):
    appliance = own_appliance(*seed(SEED))
    log = appliance.directory / "appliance" / "audit.jsonl"
    # A change's record commits with it and moves to the log a moment later.
    until = time.monotonic() + 10
    while "prod/later" not in log.read_text() and time.monotonic() < until:
        time.sleep(0.05)
    lines = log.read_text()
    events = [json.loads(line) for line in lines.splitlines()]
    made = [(e["eventName"], r["ARN"]) for e in events for r in e.get("resources") or []]
    assert ("CreateKey", f"arn:aws:kms:us-east-1:000000000000:key/{KEY}") in made
    assert ("CreateKey", "arn:aws:kms:us-east-1:000000000000:alias/orders") in made
    secret = "arn:aws:secretsmanager:us-east-1:000000000000:secret:prod/database-AbCdEf"
    assert ("CreateSecret", secret) in made
    assert "correct horse" not in lines and MATERIAL.hex() not in lines


def test_starts_that_are_killed_leave_no_key_behind_half_made(own_appliance, seed):
    appliance = own_appliance()
    appliance.stop()
    keys = [{"KeyId": str(uuid.UUID(int=n)), "KeyMaterial": MATERIAL.hex()} for n in range(60)]
    appliance.arguments = seed({"Keys": keys})
    binary = ROOT / Path(os.environ.get("STRONGROOM_BIN", "target/debug/strongroom"))
    command = [binary, "dev", "--dir", appliance.directory / "appliance", *appliance.arguments]
    for wait in (0.2, 0.3, 0.4, 0.5):
        killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(wait)
        killed.kill()
        killed.wait()
    appliance.start()
    kms = appliance.client("kms")
    for key in keys:
        sealed = kms.encrypt(KeyId=key["KeyId"], Plaintext=b"x")["CiphertextBlob"]
        assert kms.decrypt(CiphertextBlob=sealed)["Plaintext"] == b"x"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("Keys:\n  - KeyId: x\n    Colour: red\n", "line 3"),
        ({"Keys": [{"KeyId": "X"}]}, "key id `X` is not a UUID in lower case"),
        ({"Keys": [{"KeyId": KEY, "KeyMaterial": "00"}]}, "key material is 32 bytes"),
        ({"Secrets": [{"Name": "a", "ArnSuffix": "abc"}]}, "an ArnSuffix is six letters and digits"),
        ({"Secrets": [{"Name": "a b"}]}, "secret `a b`: Invalid name"),
        ({"Secrets": [{"Name": "a"}, {"Name": "a"}]}, "secret `a` stands in it twice"),
    ],
)
def test_a_seed_that_is_wrong_is_refused_before_anything_is_made(tmp_path, seed, content, said):
    directory = tmp_path / "appliance"
    error = refused(seed(content), directory)
    assert said in error
    assert not (directory / "strongroom.toml").exists()


def test_a_secret_under_a_key_that_is_not_there_is_refused_and_nothing_is_served(tmp_path, seed):
    secrets = [{"Name": "a", "SecretString": "hunter2", "KmsKeyId": "alias/nobody"}]
    error = refused(seed({"Secrets": secrets}), tmp_path / "appliance")
    assert "secret `a` of the seed can't be made" in error and "alias/nobody" in error
    assert "hunter2" not in error


def test_a_seed_that_is_not_there_is_named(tmp_path):
    error = refused(("--seed", str(tmp_path / "nothing.yaml")), tmp_path / "appliance")
    assert "nothing.yaml" in error
