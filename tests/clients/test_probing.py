"""Probing: whether what is stored still logs in is known before an application finds out."""

import json
import random

import pytest

from conftest import refused
from systems import Postgres, Redis
from test_rotation import wait
from test_trail import strongroom

PASSWORD = "first-password"


class Probed:
    """A secret for a user of a server, which is probed."""

    def __init__(self, appliance, system):
        self.appliance, self.system = appliance, system
        self.client = appliance.client("secretsmanager")
        self.user = f"app{random.randrange(10**9)}"
        system.add_user(self.user, PASSWORD)
        value = json.dumps(system.secret(self.user, PASSWORD))
        self.name = f"probed-{self.user}"
        self.arn = self.client.create_secret(Name=self.name, SecretString=value)["ARN"]

    def tag(self, rate):
        """Says how often it is probed. A shorter pause counts from now on."""
        tags = [{"Key": "strongroom:probe", "Value": rate}]
        self.client.tag_resource(SecretId=self.name, Tags=tags)

    def shown(self):
        """What `strongroom secret probe` says."""
        return json.loads(strongroom(self.appliance, "secret", "probe", self.name).stdout)

    def finds(self, outcome):
        """Waits for a probe that finds this; answers why."""
        wait(lambda: self.shown().get("LastProbe", {}).get("Outcome") == outcome)
        return self.shown()["LastProbe"].get("Reason")

    def told(self):
        """What the audit log has of it, and why."""
        (path,) = self.appliance.directory.rglob("audit.jsonl")
        records = [json.loads(line) for line in path.read_text().splitlines()]
        names = ("SecretDrifted", "SecretProbeRecovered")
        mine = [record for record in records if record["eventName"] in names]
        assert all(record["resources"][0]["ARN"] == self.arn for record in mine)
        return [(r["eventName"], r["requestParameters"].get("reason")) for r in mine]

    def drifted(self):
        """How many secrets have, by the metrics."""
        page = self.appliance.post(b"", {}, path="/metrics", method="GET").body.decode()
        (line,) = [line for line in page.splitlines() if line.startswith("strongroom_secrets_drifted ")]
        return int(line.split()[1])


@pytest.fixture
def server():
    """Starts a server of a kind."""
    started = []

    def start(kind):
        started.append(kind())
        return started[-1]

    yield start
    for running in started:
        running.close()


@pytest.mark.waits
def test_a_password_that_was_changed_by_hand_is_told_once_and_so_is_its_mending(server, own_appliance):
    system = server(Postgres)
    secret = Probed(own_appliance(), system)
    assert "EverySeconds" not in secret.shown()
    secret.tag("rate(10 days)")
    assert secret.finds("LET_IN") is None
    assert secret.shown()["EverySeconds"] == 864000
    system.set_password(secret.user, "another one")
    secret.tag("rate(9 days)")
    assert "it refuses the credentials" in secret.finds("REFUSED")
    assert "DriftedDate" not in secret.shown(), "it may be changing just now"
    assert secret.told() == [] and secret.drifted() == 0
    wait(lambda: "DriftedDate" in secret.shown())
    wait(secret.told)
    ((name, reason),) = secret.told()
    assert (name, secret.drifted()) == ("SecretDrifted", 1)
    assert "it refuses the credentials" in reason and "another one" not in reason
    shown = secret.shown()
    assert shown["NextProbeDate"] - shown["LastProbe"]["Date"] >= 3600, "no account is locked by it"
    # What can't be asked has neither drifted nor recovered.
    system.stop()
    secret.tag("rate(8 days)")
    assert "can't reach it" in secret.finds("UNREACHABLE")
    assert "DriftedDate" in secret.shown()
    system.start()
    # Another value is probed at once.
    value = json.dumps(system.secret(secret.user, "another one"))
    secret.client.put_secret_value(SecretId=secret.name, SecretString=value)
    secret.finds("LET_IN")
    assert "DriftedDate" not in secret.shown() and secret.drifted() == 0
    both = ["SecretDrifted", "SecretProbeRecovered"]
    wait(lambda: [name for name, _ in secret.told()] == both)
    described = secret.client.describe_secret(SecretId=secret.name)
    assert "LastAccessedDate" not in described, "a probe is no use of the secret"


@pytest.mark.waits
def test_a_secret_is_probed_as_long_as_its_tag_says_so(server, own_appliance):
    appliance = own_appliance()
    secret = Probed(appliance, server(Redis))
    secret.tag("rate(10 days)")
    secret.finds("LET_IN")
    before = secret.shown()["LastProbe"]
    appliance.kill()
    appliance.start()
    secret.client = appliance.client("secretsmanager")
    assert secret.shown()["LastProbe"] == before
    secret.client.put_secret_value(SecretId=secret.name, SecretString="no JSON")
    assert secret.finds("UNUSABLE") == "the secret is no JSON object of at most 65536 bytes"
    secret.client.untag_resource(SecretId=secret.name, TagKeys=["strongroom:probe"])
    shown = secret.shown()
    assert "EverySeconds" not in shown and "LastProbe" not in shown


@pytest.mark.parametrize("rate", ["rate(4 minutes)", "cron(0 8 * * ? *)", "often", "rate(1 week)"])
def test_a_rate_that_can_not_be_kept_is_refused(secretsmanager, name, rate):
    tags = [{"Key": "strongroom:probe", "Value": rate}]
    given = {"Name": name, "SecretString": "x", "Tags": tags}
    text = refused("InvalidParameterException", secretsmanager.create_secret, **given)
    assert "rate(5 minutes)" in text
