"""KMS: custom key stores, whose keys are in a token besides the default one."""

import base64
import hashlib
import json
import tomllib
from datetime import UTC, datetime

import pytest

from conftest import error_of
from two_tokens import clusters, with_two_tokens

PASSWORD = "hunter2-planted"
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nplanted\n-----END CERTIFICATE-----"


@pytest.fixture(scope="module")
def appliance(tmp_path_factory):
    """An appliance of this file's own, with two tokens."""
    running = with_two_tokens(tmp_path_factory.mktemp("stores"))
    yield running
    running.stop()


@pytest.fixture
def kms(appliance):
    """A client; custom key stores of earlier tests are gone."""
    client = appliance.client("kms")
    for store in client.describe_custom_key_stores()["CustomKeyStores"]:
        if store["ConnectionState"] != "DISCONNECTED":
            client.disconnect_custom_key_store(CustomKeyStoreId=store["CustomKeyStoreId"])
        client.delete_custom_key_store(CustomKeyStoreId=store["CustomKeyStoreId"])
    return client


@pytest.fixture
def store(appliance, kms, name):
    """The id of a custom key store that was never connected."""
    return made(kms, appliance, name)


@pytest.fixture(scope="module")
def furnished(tmp_path_factory):
    """An appliance of its own with a connected custom key store, which keys may be made in: such a
    store can't be deleted for a week."""
    running = with_two_tokens(tmp_path_factory.mktemp("furnished"))
    kms = running.client("kms")
    store = made(kms, running, "furnished")
    kms.connect_custom_key_store(CustomKeyStoreId=store)
    yield running, store
    running.stop()


def made(kms, appliance, name):
    given = {"CloudHsmClusterId": appliance.cluster, "KeyStorePassword": PASSWORD}
    given["TrustAnchorCertificate"] = CERTIFICATE
    return kms.create_custom_key_store(CustomKeyStoreName=name, **given)["CustomKeyStoreId"]


def described(kms, store):
    (entry,) = kms.describe_custom_key_stores(CustomKeyStoreId=store)["CustomKeyStores"]
    return entry


def test_the_command_tells_what_a_token_is_called(appliance):
    configuration = appliance.directory / "appliance" / "strongroom.toml"
    tokens = tomllib.loads(configuration.read_text())["token"]
    told = clusters(appliance)
    assert list(told) == ["main", "spare"]
    for token in tokens:
        digest = hashlib.sha256(token["serial"].encode()).digest()
        letters = base64.b32encode(digest).decode().lower()[:11]
        assert told[token.get("name", "main")] == f"cluster-{letters}"


def test_a_custom_key_store_is_made_described_renamed_and_deleted(appliance, kms, name):
    before = datetime.now(UTC)
    store = made(kms, appliance, name)
    assert store.startswith("cks-") and len(store) == 21
    entry = described(kms, store)
    created = entry.pop("CreationDate")
    assert abs((created - before).total_seconds()) < 60
    assert entry == {
        "CustomKeyStoreId": store,
        "CustomKeyStoreName": name,
        "CloudHsmClusterId": appliance.cluster,
        "TrustAnchorCertificate": CERTIFICATE,
        "ConnectionState": "DISCONNECTED",
        "CustomKeyStoreType": "AWS_CLOUDHSM",
    }
    kms.update_custom_key_store(CustomKeyStoreId=store, NewCustomKeyStoreName=f"{name}-new")
    named = kms.describe_custom_key_stores(CustomKeyStoreName=f"{name}-new")
    assert [entry["CustomKeyStoreId"] for entry in named["CustomKeyStores"]] == [store]
    assert named["Truncated"] is False
    code, _ = error_of(kms.describe_custom_key_stores, CustomKeyStoreName=name)
    assert code == "CustomKeyStoreNotFoundException"
    kms.delete_custom_key_store(CustomKeyStoreId=store)
    code, _ = error_of(kms.describe_custom_key_stores, CustomKeyStoreId=store)
    assert code == "CustomKeyStoreNotFoundException"
    assert kms.describe_custom_key_stores()["CustomKeyStores"] == []


def test_no_password_and_no_certificate_are_needed(appliance, kms, name):
    given = {"CustomKeyStoreName": name, "CloudHsmClusterId": appliance.cluster}
    store = kms.create_custom_key_store(**given)["CustomKeyStoreId"]
    assert "TrustAnchorCertificate" not in described(kms, store)


def test_a_key_is_made_and_used_in_the_token_of_its_store(furnished, name):
    appliance, store = furnished
    kms = appliance.client("kms")
    assert described(kms, store)["ConnectionState"] == "CONNECTED"
    created = kms.create_key(Origin="AWS_CLOUDHSM", CustomKeyStoreId=store)["KeyMetadata"]
    assert (created["Origin"], created["KeyState"]) == ("AWS_CLOUDHSM", "Enabled")
    assert created["CustomKeyStoreId"] == store
    assert created["CloudHsmClusterId"] == appliance.cluster
    assert "CurrentKeyMaterialId" not in created
    key = created["KeyId"]
    assert kms.describe_key(KeyId=key)["KeyMetadata"] == created

    # The token's own word for where it is.
    answer = appliance.rest("GET", f"/keys/{key}/attestation", signing="kms")
    statement = answer.json["Statement"]
    configuration = appliance.directory / "appliance" / "strongroom.toml"
    main, spare = tomllib.loads(configuration.read_text())["token"]
    assert spare["serial"] in statement and main["serial"] not in statement

    sealed = kms.encrypt(KeyId=key, Plaintext=b"inside")["CiphertextBlob"]
    assert kms.decrypt(CiphertextBlob=sealed)["Plaintext"] == b"inside"
    data_key = kms.generate_data_key(KeyId=key, KeySpec="AES_256")
    assert kms.decrypt(CiphertextBlob=data_key["CiphertextBlob"])["Plaintext"] == (
        data_key["Plaintext"]
    )
    secrets = appliance.client("secretsmanager")
    secrets.create_secret(Name=name, SecretString="inside", KmsKeyId=key)
    assert secrets.get_secret_value(SecretId=name)["SecretString"] == "inside"
    assert len(kms.generate_random(NumberOfBytes=32, CustomKeyStoreId=store)["Plaintext"]) == 32

    # While it is disconnected nothing is opened, not even what was opened just now.
    kms.disconnect_custom_key_store(CustomKeyStoreId=store)
    shown = kms.describe_key(KeyId=key)["KeyMetadata"]
    assert (shown["KeyState"], shown["Enabled"]) == ("Unavailable", False)
    unavailable = ("KMSInvalidStateException", f"{created['Arn']} is unavailable.")
    assert error_of(kms.encrypt, KeyId=key, Plaintext=b"x") == unavailable
    assert error_of(kms.decrypt, CiphertextBlob=sealed) == unavailable
    assert error_of(kms.generate_data_key, KeyId=key, KeySpec="AES_256") == unavailable
    assert error_of(kms.re_encrypt, CiphertextBlob=sealed, DestinationKeyId=key) == unavailable
    assert error_of(secrets.get_secret_value, SecretId=name)[0] == "DecryptionFailure"
    put = {"SecretId": name, "SecretString": "y"}
    assert error_of(secrets.put_secret_value, **put)[0] == "EncryptionFailure"
    state = "CustomKeyStoreInvalidStateException"
    random = {"NumberOfBytes": 32, "CustomKeyStoreId": store}
    assert error_of(kms.generate_random, **random)[0] == state
    another = {"Origin": "AWS_CLOUDHSM", "CustomKeyStoreId": store}
    assert error_of(kms.create_key, **another)[0] == state

    # It can be managed; what is done takes effect when it is back.
    kms.update_key_description(KeyId=key, Description="away")
    kms.create_alias(AliasName=f"alias/{name}", TargetKeyId=key)
    kms.disable_key(KeyId=key)
    assert kms.describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "Unavailable"
    kms.connect_custom_key_store(CustomKeyStoreId=store)
    assert kms.describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "Disabled"
    kms.enable_key(KeyId=key)
    assert kms.decrypt(CiphertextBlob=sealed)["Plaintext"] == b"inside"
    assert secrets.get_secret_value(SecretId=name)["SecretString"] == "inside"

    # All of it is in the rows.
    appliance.stop()
    appliance.start()
    kms = appliance.client("kms")
    assert described(kms, store)["ConnectionState"] == "CONNECTED"
    assert kms.decrypt(CiphertextBlob=sealed)["Plaintext"] == b"inside"

    # A custom key store with keys stays, also with those that wait for their deletion.
    kms.disconnect_custom_key_store(CustomKeyStoreId=store)
    has_keys = "CustomKeyStoreHasCMKsException"
    assert error_of(kms.delete_custom_key_store, CustomKeyStoreId=store)[0] == has_keys
    kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    assert kms.describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "PendingDeletion"
    assert error_of(kms.delete_custom_key_store, CustomKeyStoreId=store)[0] == has_keys
    kms.cancel_key_deletion(KeyId=key)
    assert kms.describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "Unavailable"
    kms.connect_custom_key_store(CustomKeyStoreId=store)


def test_the_material_of_a_key_in_a_store_is_not_rotated(furnished):
    appliance, store = furnished
    kms = appliance.client("kms")
    created = kms.create_key(Origin="AWS_CLOUDHSM", CustomKeyStoreId=store)["KeyMetadata"]
    text = f"{created['Arn']} origin is AWS_CLOUDHSM which is not valid for this operation."
    for call in (
        kms.enable_key_rotation,
        kms.disable_key_rotation,
        kms.get_key_rotation_status,
        kms.rotate_key_on_demand,
        kms.list_key_rotations,
    ):
        assert error_of(call, KeyId=created["KeyId"]) == ("UnsupportedOperationException", text)


def test_the_origin_is_a_condition_key_of_policies(furnished):
    appliance, store = furnished
    kms = appliance.client("kms")
    root = f"arn:aws:iam::{appliance.account_id}:root"
    within = {"StringEquals": {"kms:KeyOrigin": "AWS_CLOUDHSM"}}
    allow = {"Effect": "Allow", "Principal": {"AWS": root}, "Action": "kms:*", "Resource": "*"}
    deny = {**allow, "Effect": "Deny", "Action": "kms:Encrypt", "Condition": within}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allow, deny]})
    theirs = kms.create_key(Origin="AWS_CLOUDHSM", CustomKeyStoreId=store, Policy=policy)
    ours = kms.create_key(Policy=policy)["KeyMetadata"]["KeyId"]
    kms.encrypt(KeyId=ours, Plaintext=b"x")
    key = theirs["KeyMetadata"]["KeyId"]
    assert error_of(kms.encrypt, KeyId=key, Plaintext=b"x")[0] == "AccessDeniedException"


def test_what_goes_together_with_a_store(furnished):
    appliance, store = furnished
    kms = appliance.client("kms")
    here = {"Origin": "AWS_CLOUDHSM", "CustomKeyStoreId": store}
    nowhere = {"Origin": "AWS_CLOUDHSM", "CustomKeyStoreId": "cks-1234567890abcdef0"}
    for given, code in (
        ({"CustomKeyStoreId": store}, "ValidationException"),
        ({"Origin": "AWS_CLOUDHSM"}, "ValidationException"),
        ({**here, "Origin": "AWS_KMS"}, "ValidationException"),
        ({**here, "MultiRegion": True}, "UnsupportedOperationException"),
        ({**here, "KeySpec": "HMAC_256", "KeyUsage": "GENERATE_VERIFY_MAC"},
         "UnsupportedOperationException"),
        (nowhere, "CustomKeyStoreNotFoundException"),
    ):
        assert error_of(kms.create_key, **given)[0] == code, given


def test_a_token_that_is_gone_fails_the_connection_and_comes_back(furnished):
    appliance, store = furnished
    kms = appliance.client("kms")
    key = kms.create_key(Origin="AWS_CLOUDHSM", CustomKeyStoreId=store)["KeyMetadata"]["KeyId"]
    sealed = kms.encrypt(KeyId=key, Plaintext=b"kept")["CiphertextBlob"]
    kms.disconnect_custom_key_store(CustomKeyStoreId=store)
    appliance.stop()
    token = appliance.directory / "spare" / "tokens" / "token.sql"
    token.rename(token.with_suffix(".away"))
    appliance.start()
    kms = appliance.client("kms")
    kms.connect_custom_key_store(CustomKeyStoreId=store)
    entry = described(kms, store)
    assert entry["ConnectionState"] == "FAILED"
    assert entry["ConnectionErrorCode"] == "INSUFFICIENT_CLOUDHSM_HSMS"
    assert kms.describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "Unavailable"
    state = "CustomKeyStoreInvalidStateException"
    assert error_of(kms.connect_custom_key_store, CustomKeyStoreId=store)[0] == state
    # What is in the default token goes on.
    ours = kms.create_key()["KeyMetadata"]["KeyId"]
    kms.encrypt(KeyId=ours, Plaintext=b"x")

    kms.disconnect_custom_key_store(CustomKeyStoreId=store)
    appliance.stop()
    token.with_suffix(".away").rename(token)
    appliance.start()
    kms = appliance.client("kms")
    kms.connect_custom_key_store(CustomKeyStoreId=store)
    assert described(kms, store)["ConnectionState"] == "CONNECTED"
    assert kms.decrypt(CiphertextBlob=sealed)["Plaintext"] == b"kept"


def test_a_token_that_is_configured_no_more_is_no_cluster(appliance, kms, store):
    configuration = appliance.directory / "appliance" / "strongroom.toml"
    text = configuration.read_text()
    appliance.stop()
    configuration.write_text(text[: text.rindex("[[token]]")])
    appliance.start()
    kms = appliance.client("kms")
    kms.connect_custom_key_store(CustomKeyStoreId=store)
    assert described(kms, store)["ConnectionErrorCode"] == "CLUSTER_NOT_FOUND"
    appliance.stop()
    configuration.write_text(text)
    appliance.start()


def test_states_forbid_what_aws_s_do(kms, store):
    state = "CustomKeyStoreInvalidStateException"
    by_id = {"CustomKeyStoreId": store}
    assert error_of(kms.disconnect_custom_key_store, **by_id)[0] == state
    kms.update_custom_key_store(**by_id, KeyStorePassword=PASSWORD)
    kms.connect_custom_key_store(**by_id)
    kms.connect_custom_key_store(**by_id)
    assert error_of(kms.delete_custom_key_store, **by_id)[0] == state
    changed = {"KeyStorePassword": PASSWORD}
    assert error_of(kms.update_custom_key_store, **by_id, **changed)[0] == state
    kms.update_custom_key_store(**by_id, NewCustomKeyStoreName="while connected")
    kms.disconnect_custom_key_store(**by_id)
    assert described(kms, store)["CustomKeyStoreName"] == "while connected"
    for call in (
        kms.connect_custom_key_store,
        kms.disconnect_custom_key_store,
        kms.update_custom_key_store,
        kms.delete_custom_key_store,
    ):
        unknown = {"CustomKeyStoreId": "cks-1234567890abcdef0"}
        assert error_of(call, **unknown)[0] == "CustomKeyStoreNotFoundException"


def test_which_tokens_can_be_a_store_s(appliance, kms, name):
    def code(name, cluster):
        given = {"CustomKeyStoreName": name, "CloudHsmClusterId": cluster}
        return error_of(kms.create_custom_key_store, **given)[0]

    main, spare = clusters(appliance).values()
    assert code(name, main) == "CloudHsmClusterInvalidConfigurationException"
    assert code(name, "cluster-22222222222") == "CloudHsmClusterNotFoundException"
    assert code(name, "cluster-11111111111") == "ValidationException"
    missing = {"CustomKeyStoreName": name}
    assert error_of(kms.create_custom_key_store, **missing)[0] == "ValidationException"
    store = made(kms, appliance, name)
    assert code(f"{name}-2", spare) == "CloudHsmClusterInUseException"
    assert code(name, spare) == "CustomKeyStoreNameInUseException"
    unrelated = {"CustomKeyStoreId": store, "CloudHsmClusterId": main}
    assert error_of(kms.update_custom_key_store, **unrelated)[0] == (
        "CloudHsmClusterNotRelatedException"
    )
    kms.update_custom_key_store(CustomKeyStoreId=store, CloudHsmClusterId=spare)
    both = {"CustomKeyStoreId": store, "CustomKeyStoreName": name}
    assert error_of(kms.describe_custom_key_stores, **both)[0] == "ValidationException"


def test_external_key_stores_are_refused(kms, name):
    external = {
        "CustomKeyStoreName": name,
        "CustomKeyStoreType": "EXTERNAL_KEY_STORE",
        "XksProxyConnectivity": "PUBLIC_ENDPOINT",
        "XksProxyUriEndpoint": "https://xks.example.com",
        "XksProxyUriPath": "/kms/xks/v1",
        "XksProxyAuthenticationCredential": {
            "AccessKeyId": "A" * 20,
            "RawSecretAccessKey": "b" * 43,
        },
    }
    code, text = error_of(kms.create_custom_key_store, **external)
    assert code == "ValidationException" and text.startswith("External key stores")


def test_pages_of_stores(kms, store):
    page = kms.describe_custom_key_stores(Limit=1)
    assert page["Truncated"] is False and len(page["CustomKeyStores"]) == 1
    forged = {"Marker": "AAAA"}
    assert error_of(kms.describe_custom_key_stores, **forged)[0] == "InvalidMarkerException"


def test_rest_has_the_same_operations(appliance, kms, name):
    def rest(method, path, body=None):
        return appliance.rest(method, path, body, signing="kms")

    # The configuration's own name for the token, which is shorter than AWS's clients let through.
    given = {"CustomKeyStoreName": name, "CloudHsmClusterId": "spare"}
    answer = rest("POST", "/custom-key-stores", given)
    assert answer.status == 200, answer
    store = answer.json["CustomKeyStoreId"]
    assert described(kms, store)["CloudHsmClusterId"] == appliance.cluster
    assert rest("POST", f"/custom-key-stores/{store}:connect").status == 200
    (entry,) = rest("GET", "/custom-key-stores").json["CustomKeyStores"]
    assert entry["ConnectionState"] == "CONNECTED"
    assert rest("DELETE", f"/custom-key-stores/{store}").status == 409
    assert rest("POST", f"/custom-key-stores/{store}:disconnect").status == 200
    renamed = {"NewCustomKeyStoreName": f"{name}-2"}
    assert rest("PUT", f"/custom-key-stores/{store}", renamed).status == 200
    assert rest("DELETE", f"/custom-key-stores/{store}").status == 200
    assert rest("GET", f"/custom-key-stores?CustomKeyStoreId={store}").status == 404


def test_no_password_is_kept(appliance, kms, store):
    kms.update_custom_key_store(CustomKeyStoreId=store, KeyStorePassword=PASSWORD)
    appliance.stop()
    for path in appliance.directory.rglob("*"):
        if path.is_file():
            assert PASSWORD.encode() not in path.read_bytes(), path
    appliance.start()
