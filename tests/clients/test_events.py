"""Events: what becomes of secrets, at webhooks and in the event log, as receivers see it."""

import contextlib
import datetime
import http.client
import ipaddress
import json
import os
import random
import re
import ssl
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import BotoCoreError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "events.md"
PATIENCE = 60
CHANGES = int(os.environ.get("STRONGROOM_CHANGES", "220"))
SECRETS = ["whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_" + "A" * 32]


def documented():
    """The recipe of docs/events.md."""
    (recipe,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    names = {}
    exec(compile(recipe, DOCUMENT.name, "exec"), names)
    return names["verify"]


verify = documented()


class Receiver:
    """A webhook's other side, which can fail, end, and come back at the same address."""

    def __init__(self, secrets=(SECRETS[0],), certificate=None):
        self.secrets, self.certificate = secrets, certificate
        self.taken, self.attempts, self.status, self.port, self.delay = [], 0, 200, 0, 0
        self.start()

    def start(self):
        """Listens, at the same port as before."""
        receiver = self

        class Post(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):  # noqa: N802
                """Takes an event, or refuses it."""
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.attempts += 1
                time.sleep(receiver.delay)
                status = receiver.status
                if status < 300:
                    headers = {name.lower(): value for name, value in self.headers.items()}
                    receiver.taken.append((headers, body))
                self.send_response(status)
                if status in (301, 307):
                    self.send_header("Location", f"http://127.0.0.1:{receiver.port}/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                """Says nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                """Says nothing: whoever asked is gone."""

        self.server = Server(("127.0.0.1", self.port), Post)
        self.port = self.server.server_port
        if self.certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        """Is there no more."""
        self.server.shutdown()
        self.server.server_close()

    @property
    def url(self):
        """Its address."""
        return f"{'https' if self.certificate else 'http'}://127.0.0.1:{self.port}/in?x=1"

    def events(self):
        """What it took, each event once, in the order in which they came first."""
        return once(json.loads(body) for _, body in list(self.taken))

    def kinds(self):
        """Of which kind each was."""
        return [event["detail-type"] for event in self.events()]


def once(events):
    """Events without those that came again. Where each came first counts: after a crash they are told
    anew, in the same order, and a look may fall in the middle of that."""
    first = {}
    for event in events:
        first.setdefault(event["id"], event)
    return list(first.values())


def certificate(folder):
    """A certificate for 127.0.0.1 with its key, which is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "receiver")])
    now = datetime.datetime.now(datetime.timezone.utc)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (folder / "ca.pem").write_bytes(pem)
    (folder / "receiver.pem").write_bytes(pem + private)
    return folder / "receiver.pem"


class Site:
    """An appliance that tells of events."""

    def __init__(self, appliance):
        self.appliance = appliance
        self.folder = appliance.directory / "appliance"
        self.plain = (self.folder / "strongroom.toml").read_text()
        self.log = self.folder / "events.jsonl"
        self.client = appliance.client("secretsmanager")

    def configure(self, text):
        """Stops, and starts with this at the end of the configuration."""
        self.appliance.stop()
        (self.folder / "strongroom.toml").write_text(f"{self.plain}\n{text}\n")
        self.restart()

    def restart(self):
        """Starts again."""
        self.appliance.start()
        self.client = self.appliance.client("secretsmanager")

    def webhook(self, name, receiver, more=""):
        """The settings of a webhook."""
        secret = self.folder / f"webhook-{name}"
        secret.write_text("\n".join(receiver.secrets))
        secret.chmod(0o600)
        return (
            f'[[webhook]]\nname = "{name}"\nurl = "{receiver.url}"\ndeadline_ms = 2000\n'
            f'secret_file = "webhook-{name}"\n{more}\n'
        )

    def logged(self):
        """What the event log has, each event once."""
        text = self.log.read_text() if self.log.exists() else ""
        return once(map(json.loads, text.splitlines()))

    def metrics(self):
        """`/metrics`, by name and labels."""
        url = urlsplit(self.appliance.endpoint)
        connection = http.client.HTTPConnection(url.hostname, url.port, timeout=PATIENCE)
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
        connection.close()
        samples = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: int(value) for name, value in samples}

    def metric(self, name, receiver):
        """One number of a receiver's."""
        return self.metrics()[f'strongroom_events_{name}{{receiver="{receiver}"}}']


LOG = '[[event_log]]\nname = "log"\npath = "events.jsonl"\n'


@pytest.fixture
def site(own_appliance):
    """An appliance without receivers."""
    return Site(own_appliance())


def wait(true, what="it"):
    """Waits until something is so."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, f"{what} never came"
        time.sleep(0.05)


class Changes:
    """Random changes of secrets, and what is to be told of them."""

    def __init__(self, site, chance):
        self.site, self.chance = site, chance
        # Name: [ARN, versions, whether it waits for its deletion], of those that are there.
        self.there, self.expected, self.values, self.outcomes = {}, {}, [], []

    def value(self):
        """A value that is in nothing else."""
        self.values.append(f"value-{uuid.UUID(int=self.chance.getrandbits(128))}")
        return self.values[-1]

    def expect(self, arn, kind, operation):
        """Notes what is to be told."""
        self.expected.setdefault(arn, []).append((kind, operation))

    def step(self):
        """One change, acknowledged."""
        name = f"prod/{self.chance.randrange(8)}"
        if name not in self.there:
            self.create(name)
        elif self.there[name][2]:
            self.chance.choice([self.restore, self.restore, self.force])(name)
        else:
            many = [self.put, self.put, self.update, self.describe, self.tag, self.untag]
            self.chance.choice([*many, self.move, self.nothing, self.delete, self.force])(name)

    def create(self, name):
        """CreateSecret."""
        made = self.site.client.create_secret(Name=name, SecretString=self.value())
        self.there[name] = [made["ARN"], [made["VersionId"]], False]
        self.expect(made["ARN"], "SecretCreated", "CreateSecret")

    def put(self, name):
        """PutSecretValue, in force or not."""
        arn, versions, _ = self.there[name]
        stages = self.chance.choice([["AWSCURRENT"], ["AWSCURRENT"], ["mine"]])
        given = {"SecretId": name, "SecretString": self.value(), "VersionStages": stages}
        put = self.site.client.put_secret_value(**given)
        kind = "SecretChanged"
        if stages == ["AWSCURRENT"]:
            versions.append(put["VersionId"])
            kind = "SecretValueChanged"
        self.expect(arn, kind, "PutSecretValue")
        # The same again changes nothing, and nothing is told of it.
        self.site.client.put_secret_value(**given, ClientRequestToken=put["VersionId"])

    def update(self, name):
        """UpdateSecret with a value."""
        arn, versions, _ = self.there[name]
        updated = self.site.client.update_secret(SecretId=name, SecretString=self.value())
        versions.append(updated["VersionId"])
        self.expect(arn, "SecretValueChanged", "UpdateSecret")

    def describe(self, name):
        """UpdateSecret without one."""
        self.site.client.update_secret(SecretId=name, Description=self.value())
        self.expect(self.there[name][0], "SecretChanged", "UpdateSecret")

    def tag(self, name):
        """TagResource."""
        tags = [{"Key": "a", "Value": self.value()}]
        self.site.client.tag_resource(SecretId=name, Tags=tags)
        self.expect(self.there[name][0], "SecretChanged", "TagResource")

    def untag(self, name):
        """UntagResource, of what was just tagged."""
        self.tag(name)
        self.site.client.untag_resource(SecretId=name, TagKeys=["a"])
        self.expect(self.there[name][0], "SecretChanged", "UntagResource")

    def move(self, name):
        """UpdateSecretVersionStage, back to the version before."""
        arn, versions, _ = self.there[name]
        if len(versions) < 2:
            return
        self.site.client.update_secret_version_stage(
            SecretId=name,
            VersionStage="AWSCURRENT",
            RemoveFromVersionId=versions[-1],
            MoveToVersionId=versions[-2],
        )
        versions[-2:] = [versions[-1], versions[-2]]
        self.expect(arn, "SecretValueChanged", "UpdateSecretVersionStage")

    def nothing(self, name):
        """What changes nothing."""
        self.site.client.get_secret_value(SecretId=name)
        self.site.client.untag_resource(SecretId=name, TagKeys=["never-there"])
        gone = f"{name}/never-there"
        self.site.client.delete_secret(SecretId=gone, ForceDeleteWithoutRecovery=True)

    def delete(self, name):
        """DeleteSecret."""
        self.site.client.delete_secret(SecretId=name)
        self.there[name][2] = True
        self.expect(self.there[name][0], "SecretDeletionScheduled", "DeleteSecret")

    def restore(self, name):
        """RestoreSecret."""
        self.site.client.restore_secret(SecretId=name)
        self.there[name][2] = False
        self.expect(self.there[name][0], "SecretRestored", "RestoreSecret")

    def force(self, name):
        """DeleteSecret, at once."""
        self.site.client.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)
        self.expect(self.there.pop(name)[0], "SecretDeleted", "DeleteSecret")

    def crash(self):
        """The appliance is killed while it is asked for a change: it is made and told of, or neither."""
        waiting = [name for name, (_, _, deleted) in self.there.items() if not deleted]
        token = str(uuid.UUID(int=self.chance.getrandbits(128)))
        asking = threading.Thread(target=self.ask, args=(waiting[:1], token, self.value()))
        asking.start()
        time.sleep(self.chance.uniform(0, 0.008))
        self.site.appliance.kill()
        asking.join()
        self.site.restart()
        for name in waiting[:1]:
            listed = self.site.client.list_secret_version_ids(SecretId=name)["Versions"]
            if token in [version["VersionId"] for version in listed]:
                self.there[name][1].append(token)
                self.expect(self.there[name][0], "SecretValueChanged", "PutSecretValue")
                self.outcomes.append("made")
            else:
                self.outcomes.append("not made")

    def ask(self, names, token, value):
        """PutSecretValue, whose answer may never come."""
        with contextlib.suppress(BotoCoreError):
            for name in names:
                given = {"SecretId": name, "ClientRequestToken": token, "SecretString": value}
                self.site.client.put_secret_value(**given)

    def told(self, events):
        """Whether these events are all of it, for each secret in its order."""
        told = {}
        for event in events:
            (arn,) = event["resources"]
            told.setdefault(arn, []).append((event["detail-type"], event["detail"]["operation"]))
        return told == self.expected

    def total(self):
        """How many events there must be."""
        return sum(map(len, self.expected.values()))


def disturb(changes, receiver, chance):
    """Something that goes wrong now and then."""
    event = chance.randrange(40)
    if event == 0:
        receiver.status = 503
    elif event == 1 and receiver.server:
        receiver.stop()
        receiver.server = None
    elif event in (2, 3):
        changes.crash()
    elif event < 10:
        receiver.status = 200
        if receiver.server is None:
            receiver.start()


def test_every_change_is_told_in_its_order_whatever_fails(site):
    """Random changes while the receiver fails, ends and comes back, and the appliance is killed.
    STRONGROOM_CHANGES says how many."""
    chance = random.Random(seed := random.randrange(2**32))
    print(f"seed {seed}")
    shaken = Receiver(SECRETS, certificate(site.folder))
    steady = Receiver()
    site.configure(
        site.webhook("shaken", shaken, f'ca = "{site.folder / "ca.pem"}"')
        + site.webhook("steady", steady)
        + LOG
    )
    changes = Changes(site, chance)
    while changes.total() < CHANGES:
        changes.step()
        disturb(changes, shaken, chance)
    changes.crash()
    shaken.status = 200
    if shaken.server is None:
        shaken.start()
    print(f"killed {len(changes.outcomes)} times: {changes.outcomes}")
    for told in (shaken.events, steady.events, site.logged):
        wait(lambda: len(told()) >= changes.total(), f"{told}")  # noqa: B023
        assert changes.told(told())
    order = [event["id"] for event in site.logged()]
    for receiver in (shaken, steady):
        assert [event["id"] for event in receiver.events()] == order
        for headers, body in receiver.taken:
            assert headers["webhook-id"] == json.loads(body)["id"]
            assert headers["content-type"] == "application/json"
            for secret in receiver.secrets:
                assert verify(headers, body, [secret], seconds=3600)
    last = {}
    for event in site.logged():
        (arn,) = event["resources"]
        assert event["detail"]["revision"] > last.get(arn, 0)
        last[arn] = event["detail"]["revision"]
    written = site.log.read_bytes() + b"".join(body for _, body in shaken.taken + steady.taken)
    assert not [value for value in changes.values if value.encode() in written]
    assert site.log.stat().st_mode & 0o777 == 0o600


def test_what_is_forged_or_altered_fails_the_documented_recipe(site, name):
    receiver = Receiver()
    site.configure(site.webhook("ops", receiver))
    site.client.create_secret(Name=name, SecretString="a")
    wait(lambda: receiver.taken)
    ((headers, body),) = receiver.taken
    assert verify(headers, body, receiver.secrets)
    assert not verify(headers, body.replace(b"SecretCreated", b"SecretDeleted"), receiver.secrets)
    assert not verify(headers, body + b" ", receiver.secrets)
    assert not verify(headers, body, [SECRETS[1]]), "another secret"
    assert not verify(headers, body, receiver.secrets, seconds=-1), "too old"
    for member in ("webhook-id", "webhook-timestamp"):
        value = {"webhook-id": "other", "webhook-timestamp": str(int(time.time()) + 1)}[member]
        assert not verify({**headers, member: value}, body, receiver.secrets), member
    # A second line signs from the next event on, without a restart.
    receiver.secrets = SECRETS
    site.webhook("ops", receiver)
    site.client.update_secret(SecretId=name, Description="b")
    wait(lambda: len(receiver.taken) == 2)
    assert all(verify(*receiver.taken[1], [secret]) for secret in SECRETS)


def test_one_receiver_that_is_gone_blocks_no_other_and_shows_in_the_metrics(site, name):
    gone, moved, hangs, well = Receiver(), Receiver(), Receiver(), Receiver()
    gone.status, moved.status, hangs.delay = 410, 307, 3600
    everyone = {"gone": gone, "moved": moved, "hangs": hangs, "well": well}
    site.configure("".join(site.webhook(*receiver) for receiver in everyone.items()))
    site.client.create_secret(Name=name, SecretString="a")
    site.client.update_secret(SecretId=name, Description="b")
    wait(lambda: well.kinds() == ["SecretCreated", "SecretChanged"])
    wait(lambda: moved.attempts > 2)
    assert not moved.taken and not gone.taken
    assert gone.attempts == 1, "the longest pause"
    wait(lambda: hangs.attempts > 1)
    for receiver in ("gone", "moved", "hangs"):
        assert site.metric("failing", receiver) == 1
        assert site.metric("failures_total", receiver) > 0
        assert site.metric("last_success_timestamp_seconds", receiver) == 0
        assert site.metric("lag_records", receiver) > 0
        wait(lambda: site.metric("lag_seconds", receiver) > 0)  # noqa: B023
    wait(lambda: site.metric("lag_records", "well") == 0)
    assert site.metric("failing", "well") == site.metric("lag_seconds", "well") == 0
    assert site.metric("total", "well") == 2
    assert abs(site.metric("last_success_timestamp_seconds", "well") - time.time()) < PATIENCE
    moved.status = 204
    wait(lambda: moved.kinds() == ["SecretCreated", "SecretChanged"])
    wait(lambda: site.metric("failing", "moved") == 0)
    hangs.delay = 0
    wait(lambda: hangs.kinds()[-1:] == ["SecretChanged"])
    log = site.appliance.log.read_text()
    assert "no answer within 2000 ms" in log
    assert "410" in log and "events are taken again" in log


def test_a_new_receiver_begins_now_and_one_that_was_taken_out_is_forgotten(site, name):
    receiver = Receiver()
    site.client.create_secret(Name=name, SecretString="a")
    site.configure(site.webhook("ops", receiver, f'secrets = ["{name}"]\nevents = ["*Changed"]'))
    assert (site.folder / "audit" / "events-ops").exists()
    site.client.create_secret(Name=f"{name}-other", SecretString="a")
    site.client.update_secret(SecretId=name, Description="b")
    wait(lambda: receiver.kinds() == ["SecretChanged"])
    # Its place is on the disk a second later: nothing comes again.
    time.sleep(3)
    site.appliance.kill()
    site.restart()
    site.client.update_secret(SecretId=name, Description="c")
    wait(lambda: len(receiver.events()) == 2)
    assert len(receiver.taken) == 2
    site.configure("")
    assert not (site.folder / "audit" / "events-ops").exists()
    site.client.update_secret(SecretId=name, Description="nobody is told")
    site.configure(site.webhook("ops", receiver))
    site.client.update_secret(SecretId=name, SecretString="c")
    wait(lambda: receiver.kinds() == ["SecretChanged", "SecretChanged", "SecretValueChanged"])


def test_rotations_are_told_with_their_outcome_and_counted(site, name):
    receiver, functions = Receiver(), Receiver()
    functions.status = 500
    endpoint = f'[[function]]\nname = "other"\nendpoint = "http://127.0.0.1:{functions.port}"\n'
    site.configure(site.webhook("ops", receiver) + LOG + endpoint)
    function = f"arn:aws:lambda:us-east-1:{site.appliance.account_id}:function:"
    made = {"SecretId": name, "RotationLambdaARN": f"{function}strongroom-password"}
    site.client.create_secret(Name=name, SecretString="first")
    token = site.client.rotate_secret(**made)["VersionId"]
    wait(lambda: "RotationSucceeded" in receiver.kinds())
    events = receiver.events()
    assert [(event["detail-type"], event["detail"]["operation"]) for event in events] == [
        ("SecretCreated", "CreateSecret"),
        ("SecretChanged", "RotateSecret"),
        ("RotationStarted", "RotationStarted"),
        ("SecretChanged", "PutSecretValue"),
        ("SecretValueChanged", "UpdateSecretVersionStage"),
        ("RotationSucceeded", "RotationSucceeded"),
    ]
    assert events[-1]["detail"]["currentVersionId"] == token
    assert "principal" not in events[-1]["detail"]
    wait(lambda: site.logged() == events)
    other = {"SecretId": name, "RotationLambdaARN": f"{function}other"}
    site.client.rotate_secret(**other, RotateImmediately=False)
    wait(lambda: "TestRotationFailed" in receiver.kinds())
    failed = receiver.events()[-1]["detail"]
    assert failed["step"] == "testSecret" and "500" in failed["reason"]
    metrics = site.metrics()
    assert metrics["strongroom_rotations_in_progress"] == 0
    assert metrics["strongroom_rotations_overdue"] == 0
    assert metrics["strongroom_rotation_oldest_due_seconds"] == 0
    assert metrics['strongroom_rotations_total{outcome="succeeded"}'] == 1
    assert metrics['strongroom_rotations_total{outcome="failed"}'] == 0, "a trial does not count"
    site.client.rotate_secret(**other)
    failures = 'strongroom_rotation_step_failures_total{step="createSecret"}'
    wait(lambda: site.metrics()[failures] > 0)
    assert site.metrics()["strongroom_rotations_in_progress"] == 1


def test_notice_is_given_of_a_deadline_once(site, name):
    receiver = Receiver()
    site.configure(site.webhook("ops", receiver, 'events = ["SecretExpir*"]'))

    def tags(when, days=None):
        day = (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=when)).date()
        given = {"strongroom:expires": day.isoformat()}
        given |= {"strongroom:expiry-notice-days": days} if days else {}
        return [{"Key": key, "Value": value} for key, value in given.items()]

    for kind, when, days in [("past", -1, None), ("soon", 20, None), ("later", 60, "50 7")]:
        given = {"Name": f"{name}-{kind}", "SecretString": "a", "Tags": tags(when, days)}
        site.client.create_secret(**given)
    site.client.create_secret(Name=f"{name}-tagged", SecretString="a")
    site.client.tag_resource(SecretId=f"{name}-tagged", Tags=tags(5, "30,7,1"))
    before = site.client.describe_secret(SecretId=f"{name}-tagged")["LastChangedDate"]
    for bad in ["soon", "2030-02-30"]:
        with pytest.raises(site.client.exceptions.InvalidParameterException) as caught:
            wrong = [{"Key": "strongroom:expires", "Value": bad}]
            site.client.tag_resource(SecretId=f"{name}-tagged", Tags=wrong)
        assert "strongroom:expires" in caught.value.response["Error"]["Message"]
    # Housekeeping is done at the start, and every minute.
    for _ in range(2):
        site.appliance.kill()
        site.restart()
        wait(lambda: len(receiver.events()) == 3)
        site.client.update_secret(SecretId=f"{name}-soon", Description="told before")
    told = {
        event["detail"]["name"]: (event["detail-type"], event["detail"]["daysLeft"])
        for event in receiver.events()
    }
    assert told == {
        f"{name}-past": ("SecretExpired", 0),
        f"{name}-soon": ("SecretExpiring", 19),
        f"{name}-tagged": ("SecretExpiring", 4),
    }
    after = site.client.describe_secret(SecretId=f"{name}-tagged")["LastChangedDate"]
    assert before == after, "a notice is no change of the secret"
    wait(lambda: site.metrics()["strongroom_secrets_expired"] == 1)
    metrics = site.metrics()
    assert metrics['strongroom_secrets_expiring{days="7"}'] == 1
    assert metrics['strongroom_secrets_expiring{days="30"}'] == 2


def test_a_webhook_without_a_sound_secret_is_not_started(site):
    receiver = Receiver()
    settings = site.webhook("ops", receiver)
    secret = site.folder / "webhook-ops"
    secret.write_text("hunter2hunter2hunter2hunter2")
    with pytest.raises(RuntimeError) as caught:
        site.configure(settings)
    assert "whsec_" in str(caught.value) and "hunter2" not in str(caught.value)
    assert site.appliance.process.returncode == 78
