"""A token is lost for good, and the others that hold its keys go on: with real parts, by the real CLI."""

import contextlib
import http.server
import json
import os
import re
import shutil
import subprocess
import threading
import time
import tomllib
import urllib.request
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

from conftest import free_port
from served import served
from test_tokens import BINARY, CARD, KRYOPTIC, run, swtpm

PATIENCE = 60
READERS = "/usr/lib/pcsc/drivers/serial/libifdvpcd.so"


@contextlib.contextmanager
def virtual_card(folder):
    """A PC/SC service of one's own with a card in its reader; what finds it in the environment."""
    folder.mkdir()
    port = free_port(2)
    (folder / "reader.conf.d").mkdir()
    (folder / "reader.conf.d" / "vpcd").write_text(
        f'FRIENDLYNAME "Virtual PCD"\nDEVICENAME /dev/null:{port:#06X}\n'
        f"LIBPATH {READERS}\nCHANNELID {port:#06X}\n"
    )
    mount = 'mount -t tmpfs tmpfs /run && exec pcscd --foreground --config "$1"'
    namespace = ["unshare", "-m" if os.geteuid() == 0 else "-rm"]
    daemon = subprocess.Popen(
        [*namespace, "sh", "-c", mount, "sh", folder / "reader.conf.d"],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    card = None
    try:
        service = f"/proc/{daemon.pid}/root/run/pcscd/pcscd.comm"
        await_true(lambda: Path(service).exists())
        card = subprocess.Popen([CARD, "--port", str(port), "--state", folder / "card.json"])
        yield {"PCSCLITE_CSOCK_NAME": service}
    finally:
        for process in filter(None, (card, daemon)):
            process.kill()
            process.wait()


def await_true(there):
    """Waits until something is so."""
    end = time.monotonic() + PATIENCE
    while not there():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.05)


class Server:
    """`strongroom serve`, and what an application sees of it."""

    def __init__(self, directory, environment):
        self.configuration = directory / "strongroom.toml"
        self.environment = os.environ | environment
        self.credentials = None

    def cli(self, *arguments):
        """Runs the command line."""
        command = [BINARY, *map(str, arguments)]
        given = {"env": self.environment, "capture_output": True, "text": True}
        return subprocess.run(command, timeout=PATIENCE, **given)

    def init(self, *arguments):
        """Makes the appliance and keeps its administrator's access key; False while no card is there."""
        ran = self.cli("init", "--dir", self.configuration.parent, *arguments)
        if "no YubiKey is in a reader" in ran.stderr:
            return False
        assert ran.returncode == 0, ran.stderr
        exported = dict(re.findall(r"export (AWS_\w+)=(\S+)", ran.stdout))
        self.credentials = {name.lower(): exported[name] for name in exported if "KEY" in name}
        return True

    def holder(self, command, *arguments):
        """`strongroom hsm holder`."""
        ran = self.cli("hsm", "holder", command, "--config", self.configuration, *arguments)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    @contextlib.contextmanager
    def serving(self):
        """Serves while somebody is inside; KMS and Secrets Manager."""
        with served(self.configuration, self.environment) as (self.endpoint, self.process, log):
            await_true(lambda: self.answers(self.process, log))
            yield self.client("kms"), self.client("secretsmanager")

    def answers(self, process, log):
        """Whether requests are taken: /healthz answers before they are."""
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(OSError):
            return bool(self.get("/metrics"))

    def get(self, path):
        """The text at a path."""
        with urllib.request.urlopen(self.endpoint + path, timeout=PATIENCE) as answer:
            return answer.read().decode()

    def client(self, service):
        """A client without retries."""
        plain = Config(retries={"total_max_attempts": 1}, proxies={})
        given = {"endpoint_url": self.endpoint, "region_name": "us-east-1", "config": plain}
        return boto3.session.Session().client(service, **given, **self.credentials)

    def metrics(self):
        """The figures of /metrics that have no labels."""
        return dict(re.findall(r"^(strongroom_\w+) (\d+)$", self.get("/metrics"), flags=re.M))

    def resealed(self):
        """Waits until all data keys are sealed to the holders of now; how many were sealed anew."""
        await_true(lambda: self.metrics()["strongroom_reseal_pending"] == "0")
        return int(self.metrics()["strongroom_reseal_resealed_total"])

    def waiting(self, name):
        """How many data keys wait for a token."""
        sample = f'^strongroom_reseal_waiting{{token="{name}"}} (\\d+)$'
        return int(re.search(sample, self.get("/metrics"), flags=re.M)[1])

    def forget(self, name):
        """Takes a token's table out of the configuration."""
        text = self.configuration.read_text()
        tables = re.split(r"(?m)^(?=\[)", text)
        kept, skipping = [], False
        for table in tables:
            if table.startswith("[[token]]"):
                skipping = f"name = \"{name}\"" in table or f"name = '{name}'" in table
            elif not table.startswith("[token."):
                skipping = False
            if not skipping:
                kept.append(table)
        self.configuration.write_text("".join(kept))
        assert name not in [token["name"] for token in tomllib.loads("".join(kept))["token"]]


@contextlib.contextmanager
def taker():
    """An audit sink by HTTP: its URL, the ids of the records that it has taken, and whether it takes any."""
    taken, open_now = [], threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            if open_now.is_set():
                taken.extend(json.loads(line)["eventID"] for line in body.splitlines())
            self.send_response(204 if open_now.is_set() else 503)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", taken, open_now
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def third_token(tmp_path, server):
    """Adds a fresh token of Kryoptic's, `third`, to the configuration."""
    maker = tmp_path / "third"
    code, _, err = run("init", "--dir", maker, "--profile", "kryoptic", "--token-module", KRYOPTIC)
    assert code == 0, err
    serial = tomllib.loads((maker / "strongroom.toml").read_text())["token"]["serial"]
    settings = {
        "name": "third",
        "profile": "kryoptic",
        "serial": serial,
        "scheme": "ecdh",
        "module": str(KRYOPTIC),
        "configuration": str(maker / "kryoptic.conf"),
        "pin_file": str(maker / "hsm-pin"),
    }
    table = "".join(f"{name} = '{value}'\n" for name, value in settings.items())
    table = f"[[token]]\n{table}holds_new_keys = true\n\n[store]\n"
    text = server.configuration.read_text()
    server.configuration.write_text(text.replace("[store]\n", table))


def survives(tmp_path, server, lose_first, lose_second):
    """The drill: lose the first token, go on with the second, add a third, lose the second."""
    with server.serving() as (kms, secrets):
        key = kms.create_key()["KeyMetadata"]["KeyId"]
        secrets.create_secret(Name="default", SecretString="of the default key")
        secrets.create_secret(Name="own", SecretString="of its own", KmsKeyId=key)
        kept = kms.encrypt(KeyId=key, Plaintext=b"before")["CiphertextBlob"]
        kms.rotate_key_on_demand(KeyId=key)
        rotated = kms.encrypt(KeyId=key, Plaintext=b"rotated")["CiphertextBlob"]
    first = tomllib.loads(server.configuration.read_text())["token"][0]["serial"]

    def all_open(kms, secrets):
        assert kms.decrypt(CiphertextBlob=kept)["Plaintext"] == b"before"
        assert kms.decrypt(CiphertextBlob=rotated)["Plaintext"] == b"rotated"
        assert secrets.get_secret_value(SecretId="default")["SecretString"] == "of the default key"
        assert secrets.get_secret_value(SecretId="own")["SecretString"] == "of its own"

    lose_first()
    # It is named in the configuration still, and does not come.
    with server.serving() as (kms, secrets):
        all_open(kms, secrets)
        secrets.create_secret(Name="meanwhile", SecretString="made on one leg")
    # It is given up.
    server.forget("main")
    with server.serving() as (kms, secrets):
        all_open(kms, secrets)
        assert secrets.get_secret_value(SecretId="meanwhile")["SecretString"] == "made on one leg"
        kms.create_key()
    assert f"serial {first}, `second`" in server.holder("list")
    out = server.holder("remove", "--token", first, "--lost", "--all")
    assert "store key: held by" in out and "ReEncrypt" in out
    assert first not in server.holder("list")

    third_token(tmp_path, server)
    out = server.holder("add", "--token", "third", "--all")
    assert "store key: held by `third` now" in out
    listed = server.holder("list")
    assert "store key: `second`, `third`" in listed
    assert listed.count("yet to be sealed to them") >= 2
    with server.serving() as (kms, secrets):
        # Of the secrets, those of all KMS keys.
        assert server.resealed() == 3
        all_open(kms, secrets)
        ciphertext = kms.re_encrypt(CiphertextBlob=rotated, DestinationKeyId=key)["CiphertextBlob"]
    assert "sealed to them" not in server.holder("list")

    lose_second()
    server.forget("second")
    with server.serving() as (kms, secrets):
        assert secrets.get_secret_value(SecretId="default")["SecretString"] == "of the default key"
        assert secrets.get_secret_value(SecretId="own")["SecretString"] == "of its own"
        assert secrets.get_secret_value(SecretId="meanwhile")["SecretString"] == "made on one leg"
        assert kms.decrypt(CiphertextBlob=ciphertext)["Plaintext"] == b"rotated"
        # A ciphertext that a caller kept was sealed to the holders of its day: out of reach.
        with pytest.raises(kms.exceptions.ClientError):
            kms.decrypt(CiphertextBlob=kept)
        secrets.create_secret(Name="after", SecretString="on the third")
        assert server.metrics()["strongroom_audit_ready"] == "1"
    # What was signed by the lost tokens is evidence still.
    assert len(list(server.configuration.parent.glob("audit-*/checkpoint.pub"))) == 2


def test_an_appliance_survives_its_tpm(tmp_path):
    server = Server(tmp_path / "appliance", {})
    state = tmp_path / "state"
    with contextlib.ExitStack() as tpm:
        device = tpm.enter_context(swtpm(state))
        server.init("--profile", "swtpm", "--token-device", device, "--second-profile", "softhsm2")

        def lose_first():
            tpm.close()
            shutil.rmtree(state)

        def lose_second():
            shutil.rmtree(server.configuration.parent / "tokens-second")

        survives(tmp_path, server, lose_first, lose_second)


def test_an_appliance_survives_its_card(tmp_path):
    with contextlib.ExitStack() as card, contextlib.ExitStack() as tpm:
        server = Server(tmp_path / "appliance", card.enter_context(virtual_card(tmp_path / "card")))
        device = tpm.enter_context(swtpm(tmp_path / "state"))
        second = ("--second-profile", "swtpm", "--second-device", device)
        # Nothing but `init` itself says when the reader has noticed the card.
        await_true(lambda: server.init("--profile", "virtual-piv", *second))
        survives(tmp_path, server, card.close, tpm.close)


def test_a_holder_stays_until_the_next_one_has_everything(tmp_path):
    server = Server(tmp_path / "appliance", {})
    server.init("--profile", "softhsm2", "--second-profile", "kryoptic", "--second-module", KRYOPTIC)
    with server.serving() as (_, secrets):
        secrets.create_secret(Name="it", SecretString="stays")
        assert server.resealed() == 0
        ran = server.cli("hsm", "holder", "list", "--config", server.configuration)
        assert ran.returncode == 78 and "in use by another strongroom process" in ran.stderr
        assert "leave `--config` out" in ran.stderr, ran.stderr
    server.holder("remove", "--token", "second", "--all")
    third_token(tmp_path, server)
    server.holder("add", "--token", "third", "--all")
    # What is stored is sealed to the first one yet, and to one that is none any more.
    ran = server.cli(*"hsm holder remove --token main --all --config".split(), server.configuration)
    assert ran.returncode == 1 and "not yet sealed to all its holders" in ran.stderr
    with server.serving() as (_, secrets):
        assert server.resealed() == 1
    server.holder("remove", "--token", "main", "--all")
    with server.serving() as (_, secrets):
        assert secrets.get_secret_value(SecretId="it")["SecretString"] == "stays"
        assert server.resealed() == 1


def test_a_tpm_and_a_pkcs_11_token_hold_rsa_keys_together(tmp_path):
    server = Server(tmp_path / "appliance", {})
    with swtpm(tmp_path / "state") as device:
        second = ("--second-profile", "kryoptic", "--second-module", KRYOPTIC)
        server.init("--profile", "swtpm", "--token-device", device, *second)
        # Of KMS keys; the store key is by `ecdh` still.
        text, count = re.subn(
            r"(?m)^scheme = .*$", 'scheme = "rsa-oaep"', server.configuration.read_text()
        )
        assert count == 2
        server.configuration.write_text(text)
        with server.serving() as (kms, secrets):
            key = kms.create_key()["KeyMetadata"]["KeyId"]
            secrets.create_secret(Name="own", SecretString="of its own", KmsKeyId=key)
            kept = kms.encrypt(KeyId=key, Plaintext=b"for both")["CiphertextBlob"]
            # A ciphertext of 2,048 bits for each of both.
            assert len(kept) > 2 * 256
            assert kms.decrypt(CiphertextBlob=kept)["Plaintext"] == b"for both"
    with server.serving() as (kms, secrets):
        assert kms.decrypt(CiphertextBlob=kept)["Plaintext"] == b"for both"
        assert secrets.get_secret_value(SecretId="own")["SecretString"] == "of its own"
        kms.encrypt(KeyId=key, Plaintext=b"sealing takes no token")


def test_what_waits_for_a_token_holds_up_nothing_else(tmp_path):
    """A pass once ended at the first data key whose token was away."""
    server = Server(tmp_path / "appliance", {})
    first = ("--profile", "kryoptic", "--token-module", KRYOPTIC)
    server.init(*first, "--second-profile", "softhsm2")
    with server.serving() as (kms, secrets):
        far, near = (kms.create_key()["KeyMetadata"]["KeyId"] for _ in range(2))
        for name, key in (("far", far), ("far-too", far), ("near", near)):
            secrets.create_secret(Name=name, SecretString=name, KmsKeyId=key)
    server.holder("remove", "--token", "main", "--key", far)
    server.holder("remove", "--token", "second", "--key", near)
    with server.serving():
        assert server.resealed() == 3
    server.holder("add", "--token", "main", "--key", far)
    server.holder("add", "--token", "second", "--key", near)
    tokens = server.configuration.parent / "tokens-second"
    tokens.rename(tmp_path / "elsewhere")
    with server.serving() as (_, secrets):
        await_true(lambda: server.waiting("second") == 2)
        assert server.waiting("main") == 0
        figures = server.metrics()
        assert figures["strongroom_reseal_resealed_total"] == "1"
        assert figures["strongroom_reseal_pending"] == "1"
        (tmp_path / "elsewhere").rename(tokens)
        assert server.resealed() == 3
        assert server.waiting("second") == 0
    listed = server.holder("list")
    assert "sealed to them" not in listed
    tokens.rename(tmp_path / "elsewhere")
    with server.serving() as (_, secrets):
        for name in ("far", "far-too", "near"):
            assert secrets.get_secret_value(SecretId=name)["SecretString"] == name


def test_a_sink_gets_what_it_lacked_when_the_tree_s_token_was_lost(tmp_path):
    """The other tree once began with a sink that was at its end already: what it lacked, it never got."""
    server = Server(tmp_path / "appliance", {})
    second = ("--second-profile", "kryoptic", "--second-module", KRYOPTIC)
    server.init("--profile", "softhsm2", *second)
    log = server.configuration.parent / "audit.jsonl"

    def records():
        return [json.loads(line) for line in log.read_text().splitlines()]

    before = len(records())
    with taker() as (url, taken, open_now):
        with server.configuration.open("a") as file:
            file.write(f'\n[[audit.sink]]\nname = "web"\nkind = "http"\nurl = "{url}"\n')
        with server.serving() as (_, secrets):
            for name in ("one", "two"):
                secrets.create_secret(Name=name, SecretString=name)
        assert taken == []
        shutil.rmtree(server.configuration.parent / "tokens")
        server.forget("main")
        open_now.set()
        with server.serving() as (_, secrets):
            secrets.create_secret(Name="three", SecretString="three")
            expected = [record["eventID"] for record in records()[before:]]
            await_true(lambda: taken[: len(expected)] == expected)
            position = json.loads((server.configuration.parent / "audit" / "sink-web").read_text())
            assert position["first_index"] == 0
        with server.serving():
            await_true(lambda: len(taken) >= len(records()) - before)
    # What was sent in the last second may be sent again; nothing is left out.
    assert set(taken) == {record["eventID"] for record in records()[before:]}
    starts = [record for record in records() if record["eventName"] == "StartAppliance"]
    trees = [record["requestParameters"]["auditTree"] for record in starts]
    assert trees[0] != trees[1] and trees[1] == trees[2]
