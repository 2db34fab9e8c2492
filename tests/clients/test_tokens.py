"""The appliance on every token that it can be made on, across restarts; the suites use the default."""

import contextlib
import json
import os
import shutil
import socket
import subprocess

import pytest

from conftest import ROOT, free_port

BINARY = ROOT / os.environ.get("STRONGROOM_BIN", "target/debug/strongroom")
# Where scripts/kryoptic puts it.
KRYOPTIC = BINARY.parents[1] / "kryoptic" / "debug" / "libkryoptic_pkcs11.so"
# Where scripts/piv-card puts it.
CARD = BINARY.parents[1] / "piv-card" / "debug" / "piv-card"

TOKENS = {
    "softhsm2": ("--token", "softhsm2"),
    "kryoptic": ("--token", "kryoptic", "--token-module", KRYOPTIC),
    "swtpm": ("--token", "swtpm"),
    "piv": ("--token", "piv", "--token-module", CARD),
}
PROFILES = {"piv": "virtual-piv"}


def run(*arguments):
    """The command line: its exit code and what it says."""
    ran = subprocess.run([BINARY, *map(str, arguments)], capture_output=True, text=True, timeout=60)
    return ran.returncode, ran.stdout, ran.stderr


def verified(appliance, keep):
    """Looks at a copy of a stopped appliance's log with its public key; what the verifier says."""
    data, copy = appliance.directory / "appliance", keep / "copy"
    shutil.copytree(data / "audit", copy / "audit")
    shutil.copy(data / "audit.jsonl", copy)
    shutil.copy(data / "audit" / "checkpoint.pub", keep / "key")
    code, out, err = run("audit", "verify", "--json", "--dir", copy, "--key", keep / "key")
    assert code == 0, (out, err)
    return json.loads(out)


@pytest.mark.parametrize("token", TOKENS)
def test_the_appliance_keeps_what_it_was_told_on_each_token(own_appliance, tmp_path, name, token):
    appliance = own_appliance(*TOKENS[token])
    kms, secrets = appliance.client("kms"), appliance.client("secretsmanager")
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    secrets.create_secret(Name=name, SecretString="of the default key")
    secrets.create_secret(Name=f"{name}-own", SecretString="of its own", KmsKeyId=key)
    context = {"for": "a test"}
    before = kms.encrypt(KeyId=key, Plaintext=b"before", EncryptionContext=context)
    kms.rotate_key_on_demand(KeyId=key)
    after = kms.encrypt(KeyId=key, Plaintext=b"after", EncryptionContext=context)
    assert before["CiphertextBlob"] != after["CiphertextBlob"]

    for _ in range(2):
        for sealed, text in ((before, b"before"), (after, b"after")):
            opened = kms.decrypt(CiphertextBlob=sealed["CiphertextBlob"], EncryptionContext=context)
            assert opened["Plaintext"] == text
        read = secrets.get_secret_value(SecretId=name)
        assert read["SecretString"] == "of the default key"
        assert secrets.get_secret_value(SecretId=f"{name}-own")["SecretString"] == "of its own"
        appliance.stop()
        appliance.start()
        kms, secrets = appliance.client("kms"), appliance.client("secretsmanager")
    assert len(kms.list_key_rotations(KeyId=key)["Rotations"]) == 1
    # Whether the token has a generator or not.
    assert len(kms.generate_random(NumberOfBytes=40)["Plaintext"]) == 40
    ready = appliance.post(b"", {}, path="/readyz", method="GET")
    assert ready.json == {"ready": True, "tokens": {"main": True}}
    appliance.stop()

    verdict = verified(appliance, tmp_path)
    assert (verdict["findings"], verdict["doubts"]) == ([], [])
    configuration = (tmp_path / "appliance" / "strongroom.toml").read_text()
    assert f'profile = "{PROFILES.get(token, token)}"' in configuration


def test_an_appliance_keeps_the_token_that_it_was_made_with(own_appliance, tmp_path):
    appliance = own_appliance(*TOKENS["kryoptic"])
    appliance.stop()
    code, _, err = run("dev", "--dir", tmp_path / "appliance", "--token", "softhsm2")
    assert code == 78 and "a token of profile `kryoptic`" in err
    # Without being told again it is found again.
    appliance.arguments = ()
    appliance.start()
    appliance.client("kms").list_keys()


def test_an_appliance_is_made_on_each_module_for_good(tmp_path):
    for token in ("softhsm2", "kryoptic"):
        where = tmp_path / token
        module = TOKENS[token][2:]
        code, out, err = run("init", "--dir", where, "--profile", token, *module)
        assert code == 0, err
        assert "proves nothing about the safety of keys" in out


@contextlib.contextmanager
def swtpm(state):
    """A TPM that somebody else has started; how it is reached."""
    port, local = free_port(2), "type=tcp,bindaddr=127.0.0.1,port="
    state.mkdir()
    tpm = subprocess.Popen(
        ["swtpm", "socket", "--tpm2", "--flags", "not-need-init,startup-clear"]
        + ["--tpmstate", f"dir={state}", "--ctrl", f"{local}{port + 1}"]
        + ["--server", f"{local}{port},disconnect"]
    )
    try:
        while tpm.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
        yield f"swtpm:host=127.0.0.1,port={port}"
    finally:
        tpm.terminate()
        tpm.wait()


def test_an_appliance_is_made_on_a_tpm_for_good(tmp_path):
    where = tmp_path / "appliance"
    hardware = ("--profile", "tpm2", "--no-recovery", "--token-device")
    code, _, err = run("init", "--dir", where, *hardware, "it's")
    assert code == 78 and "can't stand in a configuration file" in err
    with swtpm(tmp_path / "state") as device:
        code, out, err = run("init", "--dir", where, "--profile", "swtpm", "--token-device", device)
        assert code == 0, err
    assert "proves nothing about the safety of keys" in out
    configuration = (where / "strongroom.toml").read_text()
    assert f"device = '{device}'" in configuration
    # Without its TPM it is not to be served, and not even begun.
    code, _, err = run("init", "--dir", tmp_path / "gone", *hardware, device)
    assert code != 0 and "is unavailable" in err


def test_a_token_that_can_not_be_made_is_told(tmp_path):
    where = tmp_path / "none"
    code, _, err = run("init", "--dir", where, "--profile", "moon")
    assert code == 78 and "there is no profile `moon`" in err
    code, _, err = run("init", "--dir", where, "--token-module", tmp_path / "none.so")
    assert code == 1 and "can't be loaded" in err
    odd = tmp_path / "it's"
    odd.mkdir()
    for arguments in (("--dir", odd / "here"), ("--dir", where, "--token-module", odd / "a.so")):
        code, _, err = run("init", *arguments)
        assert code == 78 and "can't stand in a configuration file" in err
