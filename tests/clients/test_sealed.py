"""A PIN that is sealed to a TPM, and a TPM's keys, in boot states that an operator has approved."""

import base64
import contextlib
import json
import os
import pty
import re
import signal
import socket
import subprocess
import termios
import time
import urllib.error
import urllib.request
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from conftest import free_port
from served import served
from test_init import LABEL, PIN, pin_file, read, softhsm  # noqa: F401 (a fixture)
from test_tokens import BINARY, run

PATIENCE = 60


class Tpm:
    """A TPM that can be taken away and put back: as after a boot, with nothing in its PCRs."""

    def __init__(self, state):
        self.state, self.port = state, free_port(2)
        self.state.mkdir()
        self.device = f"swtpm:host=127.0.0.1,port={self.port}"
        self.start()

    def start(self):
        local = "type=tcp,bindaddr=127.0.0.1,port="
        self.process = subprocess.Popen(
            ["swtpm", "socket", "--tpm2", "--flags", "not-need-init,startup-clear"]
            + ["--tpmstate", f"dir={self.state}", "--ctrl", f"{local}{self.port + 1}"]
            + ["--server", f"{local}{self.port},disconnect"]
        )
        while self.process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return

    def stop(self):
        self.process.terminate()
        self.process.wait()

    def extend(self, pcr):
        """TPM2_PCR_Extend of the bank of SHA-256, by an empty password."""
        password = bytes.fromhex("40000009 0000 00 0000")
        body = pcr.to_bytes(4, "big") + len(password).to_bytes(4, "big") + password
        body += bytes.fromhex("00000001 000b") + b"\7" * 32
        command = bytes.fromhex("8002") + (10 + len(body)).to_bytes(4, "big")
        with socket.create_connection(("127.0.0.1", self.port)) as tpm:
            tpm.sendall(command + bytes.fromhex("00000182") + body)
            answer = tpm.recv(1024)
        assert answer[6:10] == bytes(4), answer.hex()


@pytest.fixture
def tpm(tmp_path):
    """A TPM of one's own."""
    made = Tpm(tmp_path / "tpm")
    yield made
    made.stop()


class Operator:
    """Who approves boot states, with a key that the appliance never sees."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        self.approvals = folder / "approvals"
        self.approvals.mkdir()
        self.private, self.public = folder / "operator.pem", folder / "operator.pub"
        key = ec.generate_private_key(ec.SECP256R1())
        pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
        form = serialization.PrivateFormat.PKCS8
        self.private.write_bytes(key.private_bytes(pem, form, plain))
        info = serialization.PublicFormat.SubjectPublicKeyInfo
        self.public.write_bytes(key.public_key().public_bytes(pem, info))

    def approve(self, *where):
        """Approves the state of now, as `hsm pcr show` shows it; what that says."""
        state = self.folder / "state.json"
        code, out, err = run("hsm", "pcr", "show", *where, "--out", state)
        assert code == 0, err
        approval = self.approvals / f"{len(list(self.approvals.iterdir()))}.json"
        signed = ("--key", self.private, "--state", state, "--out", approval)
        code, _, err = run("hsm", "pcr", "sign", *signed)
        assert code == 0, err
        return out


@pytest.fixture
def operator(tmp_path):
    """An operator of one's own."""
    return Operator(tmp_path / "operator")


@pytest.fixture
def seal(tmp_path, tpm, operator):
    """Seals the token's PIN: `seal("name", "--no-boot-binding")`; the file."""

    def sealed(name, *how, at=None):
        out, typed = tmp_path / name, pin_file(tmp_path / "typed", PIN)
        how = how or ("--pcr-policy", operator.public)
        given = ("--tpm", (at or tpm).device, "--pin-file", typed, "--out", out)
        code, said, err = run("hsm", "seal-pin", *given, *how)
        typed.unlink()
        assert code == 0, err
        assert "sealed to tpm-" in said and PIN[:12] not in said + err
        return out

    return sealed


class Server:
    """`strongroom serve` of one configuration."""

    def __init__(self, where, exported):
        self.where, self.configuration = where, where / "strongroom.toml"
        found = dict(re.findall(r"export (AWS_\w+)=(\S+)", exported))
        self.credentials = {name.lower(): found[name] for name in found if "KEY" in name}

    def set(self, name, value):
        """Sets a value of the token's, whether it was there or not."""
        text = re.sub(rf"^(# )?{name} = .*\n", "", self.configuration.read_text(), flags=re.M)
        self.write(text.replace("\n[token]\n", f"\n[token]\n{name} = {json.dumps(value)}\n"))

    def unset(self, name):
        """Takes a value away."""
        self.write(re.sub(rf"^{name} = .*\n", "", self.configuration.read_text(), flags=re.M))

    def write(self, text):
        """Writes the configuration, which a server that waits reads at any moment."""
        new = self.configuration.with_suffix(".new")
        new.write_text(text)
        new.rename(self.configuration)

    def refused(self, **environment):
        """What it says when it is not served."""
        ran = subprocess.run(
            [BINARY, "serve", "--config", self.configuration],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert ran.returncode == 78, (ran.returncode, ran.stderr)
        return ran.stderr

    @contextlib.contextmanager
    def begun(self):
        """Serves while somebody is inside, with or without its token."""
        with served(self.configuration) as (self.endpoint, process, self.log):
            yield process

    @contextlib.contextmanager
    def serving(self):
        """The same, once it is ready; KMS."""
        with self.begun() as process:
            self.await_ready(process)
            yield self.kms()

    def ready(self):
        """The status of `/readyz`, and its text."""
        with contextlib.suppress(OSError):
            try:
                with urllib.request.urlopen(f"{self.endpoint}/readyz", timeout=PATIENCE) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                return error.code, error.read().decode()
        return 0, ""

    def await_ready(self, process):
        """Waits until it serves."""
        self.await_true(process, lambda: self.ready()[0] == 200)

    def await_true(self, process, there):
        """Waits until something is so."""
        end = time.monotonic() + PATIENCE
        while not there():
            assert process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, (self.ready(), self.log.read_text())
            time.sleep(0.05)

    def await_words(self, process, *words):
        """Waits until `/readyz` says why the server waits; it lives meanwhile."""
        self.await_true(process, lambda: all(word in self.ready()[1] for word in words))
        with urllib.request.urlopen(f"{self.endpoint}/healthz", timeout=PATIENCE) as answer:
            assert answer.status == 200

    def kms(self):
        """A client without retries."""
        plain = Config(retries={"total_max_attempts": 1}, proxies={})
        given = {"endpoint_url": self.endpoint, "region_name": "us-east-1", "config": plain}
        return boto3.session.Session().client("kms", **given, **self.credentials)


@pytest.fixture
def server(tmp_path, softhsm):  # noqa: F811
    """An appliance on a token of its vendor's tools, with its PIN in a file still."""
    configuration, pin = softhsm
    where = tmp_path / "appliance"
    given = ("--module-configuration", configuration, "--pin-file", pin)
    code, out, err = run("init", "--dir", where, "--token-label", LABEL, *given)
    assert code == 0, err
    pin.unlink()
    return Server(where, out)


def use(server, sealed, tpm, operator=None):
    """From now on the PIN comes from this file."""
    server.unset("pin_file")
    server.set("pin_sealed", str(sealed))
    server.set("pin_tpm", tpm.device)
    if operator:
        server.set("pcr_approvals", str(operator.approvals))


def test_an_appliance_is_made_with_a_sealed_pin_and_serves_in_approved_boot_states(
    tmp_path, softhsm, tpm, operator, seal, monkeypatch
):
    # The TSS would write down what it decrypts, some bytes on each line.
    monkeypatch.setenv("TSS2_LOG", "all+trace")
    configuration, pin = softhsm
    pin.unlink()
    where, sealed = tmp_path / "appliance", seal("pin.sealed")
    assert sealed.stat().st_mode & 0o777 == 0o600
    given = ("init", "--dir", where, "--token-label", LABEL)
    given += ("--module-configuration", configuration)
    given += ("--pin-sealed", sealed, "--pin-tpm", tpm.device)
    code, _, err = run(*given)
    assert code == 78 and "set `pcr_approvals`" in err
    given += ("--pcr-approvals", operator.approvals)
    code, _, err = run(*given)
    assert code == 1 and "no state of these PCRs was approved (`strongroom hsm pcr`" in err
    operator.approve("--tpm", tpm.device)
    code, out, err = run(*given)
    assert code == 0, err
    token = read(where)["token"]
    assert token["pin_sealed"] == str(sealed) and "pin_file" not in token
    assert token["pcr_approvals"] == str(operator.approvals) and "pcr_policy" not in token

    server = Server(where, out)
    with server.serving() as kms:
        key = kms.create_key()["KeyMetadata"]["KeyId"]
        blob = kms.encrypt(KeyId=key, Plaintext=b"before")["CiphertextBlob"]
    with server.serving() as kms:
        assert kms.decrypt(CiphertextBlob=blob)["Plaintext"] == b"before"

    tpm.extend(7)
    with server.begun() as process:
        why = "its PIN can't be unsealed", "the boot state is not approved: PCRs [7] have changed"
        server.await_words(process, *why, "`strongroom hsm pcr`")
        said = operator.approve("--config", server.configuration)
        assert "The token's PIN is sealed: the boot state is not approved: PCRs [7]" in said
        server.await_ready(process)
        assert server.kms().decrypt(CiphertextBlob=blob)["Plaintext"] == b"before"
    code, said, _ = run("hsm", "pcr", "show", "--config", server.configuration)
    assert code == 0 and "The token's PIN is sealed: the boot state is approved" in said
    # It was not tried at the token, and is in no file.
    assert "refused the PIN" not in server.log.read_text()
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert not [file for file in files if PIN[:12].encode() in file.read_bytes()]


def test_what_another_operator_has_signed_does_not_count(tmp_path, tpm, operator, seal, server):
    use(server, seal("pin.sealed"), tpm, operator)
    Operator(tmp_path / "another").approve("--tpm", tpm.device)
    for approval in (tmp_path / "another" / "approvals").iterdir():
        (operator.approvals / "forged.json").write_bytes(approval.read_bytes())
    with server.begun() as process:
        server.await_words(process, "1 files there are no approval by the operator")


def test_a_tpm_that_is_away_is_waited_for(tpm, seal, server):
    use(server, seal("pin.sealed", "--no-boot-binding"), tpm)
    tpm.stop()
    with server.begun() as process:
        server.await_words(process, "token `main` is unavailable: its PIN can't be unsealed by")
        tpm.start()
        server.await_ready(process)
        # The PIN was needed once.
        tpm.stop()
        assert server.kms().list_keys()["Keys"]
    # An unbound PIN opens in any boot state.
    tpm.start()
    tpm.extend(7)
    with server.serving() as kms:
        assert kms.list_keys()["Keys"]
    code, _, err = run("hsm", "pcr", "show", "--config", server.configuration)
    assert code == 78 and "bound to no boot state" in err
    tpm.stop()
    tpm.start()


def test_a_tss_that_hangs_or_is_killed_is_not_the_server_s_end(tpm, seal, server):
    use(server, seal("pin.sealed", "--no-boot-binding"), tpm)
    port = free_port(2)
    with socket.create_server(("127.0.0.1", port)), socket.create_server(("127.0.0.1", port + 1)):
        server.set("pin_tpm", f"swtpm:host=127.0.0.1,port={port}")
        with server.begun() as process:

            def waiting():
                children = Path(f"/proc/{process.pid}/task").glob("*/children")
                return "".join(child.read_text() for child in children).split()

            server.await_true(process, waiting)
            with urllib.request.urlopen(f"{server.endpoint}/healthz", timeout=5) as answer:
                assert answer.status == 200
            for child in waiting():
                os.kill(int(child), signal.SIGKILL)
            server.await_words(process, "its process has not opened it", "SIGKILL")
            server.set("pin_tpm", tpm.device)
            for child in waiting():
                os.kill(int(child), signal.SIGKILL)
            server.await_ready(process)


def test_a_file_that_was_altered_is_refused_and_never_becomes_a_wrong_pin(
    tmp_path, tpm, operator, seal, server
):
    sealed = seal("pin.sealed")
    operator.approve("--tpm", tpm.device)
    use(server, sealed, tpm, operator)
    with server.serving() as kms:
        assert kms.list_keys()["Keys"]
    good = json.loads(sealed.read_text())
    whole = base64.b64decode(good["Object"])

    def bent(at):
        other = bytearray(whole)
        other[at] ^= 1
        return good | {"Object": base64.b64encode(other).decode()}

    # The private area's end, the public area's hash of the policy, its attributes.
    altered = [bent(-1), bent(-80), bent(20), bent(8)]
    altered.append({name: good[name] for name in good if name != "Boot"})
    altered.append(good | {"Boot": good["Boot"] | {"Pcrs": [0]}})
    altered.append(good | {"Object": base64.b64encode(whole[:-1]).decode()})
    for file in altered[:5] + altered[6:]:
        sealed.write_text(json.dumps(file))
        said = server.refused()
        assert "the sealed PIN of token `main` can't be opened" in said, said
        assert "seal the PIN anew with `strongroom hsm seal-pin`" in said
    for text in ("", PIN, json.dumps(good | {"Version": 2}), json.dumps(good | {"More": 1})):
        sealed.write_text(text)
        said = server.refused()
        assert "is no sealed PIN, or was damaged" in said and PIN not in said
    sealed.write_text(json.dumps(good))
    sealed.chmod(0o640)
    assert "can be read by others" in server.refused()
    sealed.chmod(0o600)

    # Of another TPM.
    other = Tpm(tmp_path / "other")
    try:
        use(server, seal("other.sealed", at=other), tpm, operator)
        assert "it was sealed to another TPM, or this one was cleared since" in server.refused()
    finally:
        other.stop()
    use(server, sealed, tpm, operator)
    with server.serving() as kms:
        assert kms.list_keys()["Keys"]


def test_a_sealed_pin_is_the_only_one(tmp_path, tpm, operator, seal, server):
    sealed = seal("pin.sealed")
    use(server, sealed, tpm)
    assert "is bound to boot states: set `pcr_approvals`" in server.refused()
    server.set("pcr_approvals", str(operator.approvals))
    said = server.refused(STRONGROOM_PIN=PIN)
    assert "is sealed (`pin_sealed`) and there is another" in said and PIN not in said
    pin_file(tmp_path / "hsm-pin", PIN)
    assert "there is another" in server.refused(CREDENTIALS_DIRECTORY=str(tmp_path))
    server.set("pin_file", "hsm-pin")
    assert "`pin_file` and `pin_sealed` exclude each other" in server.refused()


def test_what_can_not_be_sealed_is_told(tmp_path, tpm, operator):
    out = tmp_path / "sealed"
    given = ("hsm", "seal-pin", "--tpm", tpm.device, "--out", out)
    code, _, err = run(*given)
    assert code == 2 and "--no-boot-binding" in err
    bound = (*given, "--pcr-policy", operator.public)
    code, _, err = run(*bound)
    assert code == 78 and "--pin-file" in err
    for long in ("7" * 129, "7" * 300):
        code, _, err = run(*bound, "--pin-file", pin_file(tmp_path / "pin", long))
        assert code != 0 and "bytes" in err, err
    code, _, err = run(*bound, "--pcrs", "24", "--pin-file", tmp_path / "pin")
    assert code == 1 and "0 to 23" in err
    assert not out.exists()


def test_a_pin_to_seal_is_typed_twice_and_unseen(tmp_path, tpm, server):
    out = tmp_path / "pin.sealed"
    command = [BINARY, "hsm", "seal-pin", "--tpm", tpm.device, "--no-boot-binding", "--out", out]

    def typed(*pins):
        child, terminal = pty.fork()
        if child == 0:
            os.execv(BINARY, list(map(str, command)))
        seen = b""
        for pin, asked in zip(pins, (b"PIN to seal: ", b"the same again: "), strict=True):
            while asked not in seen:
                seen += os.read(terminal, 1024)
            while termios.tcgetattr(terminal)[3] & termios.ECHO:
                time.sleep(0.01)
            os.write(terminal, f"{pin}\n".encode())
        # A terminal whose other side has gone answers with an error.
        with contextlib.suppress(OSError):
            while more := os.read(terminal, 1024):
                seen += more
        os.close(terminal)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), seen

    code, seen = typed(PIN, PIN + "x")
    assert code == 78 and b"two different PINs" in seen and PIN.encode() not in seen
    assert not out.exists()
    code, seen = typed(PIN, PIN)
    assert code == 0 and PIN.encode() not in seen, seen
    use(server, out, tpm)
    for isolation in ("process", "none"):
        server.set("isolation", isolation)
        with server.serving() as kms:
            assert kms.list_keys()["Keys"]


def test_the_keys_that_init_makes_are_bound_too(tmp_path, tpm, operator):
    where = tmp_path / "appliance"
    given = ("init", "--dir", where, "--profile", "swtpm", "--token-device", tpm.device)
    code, _, err = run(*given, "--pcr-policy", operator.public)
    assert code == 2 and "--pcr-approvals" in err
    given += ("--pcr-policy", operator.public, "--pcr-approvals", operator.approvals)
    given += ("--pcrs", "7,4")
    code, _, err = run("init", "--dir", tmp_path / "none", *given[3:])
    assert code == 1 and "no state of these PCRs was approved (`strongroom hsm pcr`" in err
    operator.approve("--tpm", tpm.device, "--pcrs", "4,7")
    code, out, err = run(*given)
    assert code == 0, err
    token = read(where)["token"]
    assert (token["pcr_policy"], token["pcrs"]) == (str(operator.public), [7, 4])
    server = Server(where, out)
    with server.serving() as kms:
        assert kms.list_keys()["Keys"]
    tpm.extend(4)
    with server.begun() as process:
        server.await_words(process, "the boot state is not approved: PCRs [4] have changed")
    operator.approve("--config", server.configuration)
    with server.serving() as kms:
        assert kms.list_keys()["Keys"]

    # The PIN of its own keys can be sealed to it too: one approval counts for both.
    sealed = tmp_path / "pin.sealed"
    given = ("--tpm", tpm.device, "--pcr-policy", operator.public, "--pcrs", "4,7")
    code, _, err = run("hsm", "seal-pin", *given, "--pin-file", where / "hsm-pin", "--out", sealed)
    assert code == 0, err
    (where / "hsm-pin").unlink()
    use(server, sealed, tpm)
    with server.serving() as kms:
        assert kms.list_keys()["Keys"]


def test_of_two_tokens_each_has_what_fits_it(tmp_path, tpm, operator, softhsm, seal):  # noqa: F811
    configuration, pin = softhsm
    where = tmp_path / "appliance"
    states = ("--pcr-policy", operator.public, "--pcr-approvals", operator.approvals)
    code, _, err = run("init", "--dir", where, *states)
    assert code == 78 and "only a TPM's keys are bound to boot states" in err

    # A TPM without a resource manager has one user, so that another one opens the PIN.
    keys = Tpm(tmp_path / "keys")
    try:
        operator.approve("--tpm", tpm.device)
        operator.approve("--tpm", keys.device)
        given = ("--profile", "swtpm", "--token-device", keys.device, *states)
        given += ("--second-profile", "softhsm2", "--second-label", LABEL)
        given += ("--second-module-configuration", configuration)
        given += ("--second-pin-sealed", seal("pin.sealed"), "--second-pin-tpm", tpm.device)
        pin.unlink()
        code, out, err = run("init", "--dir", where, *given)
        assert code == 0, err
        first, second = read(where)["token"]
        assert first["pcr_policy"] == str(operator.public) and "pin_sealed" not in first
        assert "pcr_policy" not in second and "pin_file" not in second
        assert second["pin_sealed"] == str(tmp_path / "pin.sealed")
        server = Server(where, out)
        with server.serving() as kms:
            key = kms.create_key()["KeyMetadata"]["KeyId"]
            assert kms.encrypt(KeyId=key, Plaintext=b"x")
        # Another boot state of both: each of the two tokens is waited for, and neither is alone.
        keys.extend(0)
        tpm.extend(0)
        with server.begun() as process:
            server.await_words(process, "the boot state is not approved: PCRs [0] have changed")
            operator.approve("--tpm", tpm.device)
            server.await_ready(process)
            assert server.kms().encrypt(KeyId=key, Plaintext=b"x")
    finally:
        keys.stop()
