"""Built-in functions rotate the passwords of real servers, through whatever happens meanwhile."""

import contextlib
import json
import os
import random
import signal
import tempfile
import threading
import time
from pathlib import Path

import pytest
from botocore.credentials import Credentials

from conftest import refused
from systems import (
    ADMIN,
    ADMIN_PASSWORD,
    Choosy,
    MariaDb,
    Postgres,
    RabbitMq,
    Redis,
    Sshd,
)
from test_rotation import wait
from test_trail import strongroom

FIRST = "first-password"
# PostgreSQL's and MariaDB's users change their own passwords.
BY_THEMSELVES = {"postgres", "mariadb"}
SYSTEMS = [Postgres, MariaDb, Redis, RabbitMq]
# The longest while in which the application may not be let in with the one user that it has, in seconds:
# from the change of the password to the new version's turn, on a slow machine.
INSTANT = 5
# How long it may take until a rotation whose value the server may have is given up: AWSCURRENT has to be
# let in twice, a minute apart.
GIVEN_UP = 120


@pytest.fixture(scope="module")
def server():
    """Starts a server of a kind, once for all tests here."""
    started = {}

    def start(kind):
        if kind not in started:
            started[kind] = kind()
        return started[kind]

    yield start
    for running in started.values():
        running.close()


class Site:
    """An appliance, and a secret for a user of a server."""

    def __init__(self, appliance, system, function, value):
        self.appliance, self.system = appliance, system
        self.connect()
        self.name = f"{function}-{random.randrange(10**9)}"
        self.function = self.arn_of(f"strongroom-{function}")
        self.first = self.client.create_secret(Name=self.name, SecretString=json.dumps(value))

    def connect(self):
        """A client for the appliance as it is served now."""
        self.client = self.appliance.client("secretsmanager")

    def arn_of(self, name):
        """A function's ARN."""
        return f"arn:aws:lambda:us-east-1:{self.appliance.account_id}:function:{name}"

    def rotate(self, **more):
        """Asks for a rotation; answers the version that it makes."""
        given = {"RotationLambdaARN": self.function, **more}
        return self.client.rotate_secret(SecretId=self.name, **given)["VersionId"]

    def value(self, stage="AWSCURRENT"):
        """What the secret holds under a label."""
        answer = self.client.get_secret_value(SecretId=self.name, VersionStage=stage)
        return json.loads(answer["SecretString"])

    def stages(self):
        """The labels of each version."""
        return self.client.describe_secret(SecretId=self.name)["VersionIdsToStages"]

    def shown(self):
        """How `strongroom secret rotation` tells of it."""
        return json.loads(strongroom(self.appliance, "secret", "rotation", self.name).stdout)

    def rotated(self, token, **more):
        """Waits for a rotation to be over, and logs in."""

        def over():
            return self.stages().get(token) == ["AWSCURRENT"] and "InProgress" not in self.shown()

        wait(over, **more)
        assert "LastFailure" not in self.shown()
        assert self.lets_in()

    def failed(self, step):
        """Waits for a rotation to end in a failure of this step; answers the reason. Nothing is left."""
        wait(lambda: "LastFailure" in self.shown() and "InProgress" not in self.shown(), GIVEN_UP)
        failure = self.shown()["LastFailure"]
        assert failure["Step"] == step, failure
        assert not any("AWSPENDING" in labels for labels in self.stages().values())
        return failure["Reason"]

    def fails(self):
        """Asks for a rotation, and waits until it has failed once; answers the reason."""
        asked = time.time()
        self.rotate()
        wait(lambda: self.shown().get("LastFailure", {"Date": 0})["Date"] > asked)
        return self.shown()["LastFailure"]["Reason"]

    def lets_in(self, stage="AWSCURRENT"):
        """Whether the server lets in who has the value under this label."""
        return self.system.lets_in(self.value(stage))

    def somebody_is_let_in(self):
        """Whether one of the two values is in force. The rotation goes on meanwhile, and may overtake
        the question twice: with the change of the password, and with its end."""
        return any(self.one_of_two_lets_in() for _ in range(3))

    def one_of_two_lets_in(self):
        """The question, asked once."""
        values = [self.value()]
        with contextlib.suppress(self.client.exceptions.ResourceNotFoundException):
            values.append(self.value("AWSPENDING"))
        return any(self.system.lets_in(value) for value in values)

    def restart(self):
        """The appliance comes back from a crash."""
        self.appliance.start()
        self.connect()


def user(system):
    """A user of the server's, with its password."""
    name = f"app{random.randrange(10**9)}"
    system.add_user(name, FIRST)
    return name


def master(appliance, system):
    """The secret with the administrator's login."""
    value = json.dumps(system.secret(ADMIN, ADMIN_PASSWORD))
    name = f"master-{random.randrange(10**9)}"
    return appliance.client("secretsmanager").create_secret(Name=name, SecretString=value)["ARN"]


def single(appliance, system):
    """A secret whose one user rotates."""
    more = {}
    if system.engine not in BY_THEMSELVES:
        more["masterarn"] = master(appliance, system)
    return Site(appliance, system, "single-user", system.secret(user(system), FIRST, **more))


def alternating(appliance, system):
    """A secret whose two users alternate."""
    value = system.secret(user(system), FIRST, masterarn=master(appliance, system))
    return Site(appliance, system, "alternating-users", value)


def ssh(appliance, system):
    """A secret with the first key."""
    first = system.first()
    system.authorized.write_text(f"no-pty {first['public_key']} mine\n")
    return Site(appliance, system, "ssh-key", first)


class Application(threading.Thread):
    """An application that logs in with AWSCURRENT again and again, all the time."""

    def __init__(self, site):
        super().__init__(daemon=True)
        self.site, self.over = site, threading.Event()
        self.known = site.value()
        self.logins, self.locked_out, self.longest = 0, None, 0.0
        self.fault = None

    def current(self, known):
        """AWSCURRENT as the appliance has it; while that is down, as it was."""
        try:
            return self.site.value()
        except Exception:  # noqa: BLE001 - it is being killed again and again
            return known

    def run(self):
        try:
            while not self.over.is_set():
                self.known = known = self.current(self.known)
                self.note(self.site.system.lets_in(known) or self.renewed(known))
        except Exception as error:  # noqa: BLE001 - told by the test
            self.fault = error

    def renewed(self, refused_value):
        """Refused: was the value out of date?"""
        now = self.current(refused_value)
        return now != refused_value and self.site.system.lets_in(now)

    def note(self, let_in):
        """Counts a login."""
        now = time.monotonic()
        if let_in:
            self.logins += 1
            self.locked_out = None
        else:
            self.locked_out = self.locked_out or now
            self.longest = max(self.longest, now - self.locked_out)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()
        if self.fault:
            raise self.fault


@pytest.mark.parametrize("kind", SYSTEMS)
def test_one_user_gets_a_new_password(server, own_appliance, kind):
    site = single(own_appliance(), server(kind))
    before = site.value()
    for _ in range(2):
        site.rotated(site.rotate())
    after = site.value()
    assert len(after["password"]) == 32 and not set(after["password"]) & set(":/@\"'\\")
    assert {**after, "password": FIRST} == before
    assert not site.lets_in("AWSPREVIOUS"), "the old one is void"


@pytest.mark.parametrize("kind", SYSTEMS)
def test_two_users_take_turns_and_the_one_in_use_is_left_alone(server, own_appliance, kind):
    site = alternating(own_appliance(), server(kind))
    first = site.value()["username"]
    with Application(site) as application:
        for turn in range(4):
            site.rotated(site.rotate())
            assert site.value()["username"] == (first if turn % 2 else f"{first}_clone")
            assert site.lets_in("AWSPREVIOUS"), "who has not heard of it yet is let in"
    assert application.longest == 0 and application.logins > 4


def test_an_ssh_key_takes_the_place_of_another(server, own_appliance):
    site = ssh(own_appliance(), server(Sshd))
    old = site.value()
    site.rotated(site.rotate())
    new = site.value()
    assert site.system.authorized.read_text() == f"no-pty {new['public_key']} mine\n"
    assert new["private_key"] != old["private_key"]
    assert not site.system.lets_in(old)


@pytest.mark.parametrize("kind", [*SYSTEMS, Sshd])
def test_rotating_later_logs_in_and_changes_nothing(server, own_appliance, kind):
    system = server(kind)
    site = (ssh if kind is Sshd else single)(own_appliance(), system)
    before = (site.value(), site.stages())
    site.rotate(RotateImmediately=False, RotationRules={"AutomaticallyAfterDays": 30})
    wait(lambda: "InProgress" not in site.shown())
    assert "LastFailure" not in site.shown()
    assert (site.value(), site.stages()) == before


WAYS = [(single, kind) for kind in SYSTEMS] + [(alternating, kind) for kind in SYSTEMS]


def undisturbed(site):
    """How long a rotation takes that nothing disturbs, in seconds."""
    token, begun = site.rotate(), time.monotonic()
    while site.stages().get(token) != ["AWSCURRENT"]:
        time.sleep(0.005)
    taken = time.monotonic() - begun
    site.rotated(token)
    return taken


def left_of(appliances):
    """Agents with SSH keys of appliances that are gone, and their folders."""
    marks = [f"strongroom-ssh-{pid}-" for pid in appliances]
    commands = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            commands.append(path.read_bytes().decode(errors="replace"))
    folders = [str(path) for path in Path(tempfile.gettempdir()).glob("strongroom-ssh-*")]
    return [found for found in commands + folders if any(mark in found for mark in marks)]


@pytest.mark.parametrize(("way", "kind"), [*WAYS, (ssh, Sshd)])
def test_crashes_at_any_moment_lock_nobody_out(server, own_appliance, way, kind):
    """Killed at random, again and again, while an application logs in with AWSCURRENT all the time.
    Whenever the appliance is back AWSCURRENT or AWSPENDING is let in, and what rotates is rotated in
    the end. STRONGROOM_CRASHES says how often."""
    site = way(own_appliance(), server(kind))
    chance = random.Random(seed := random.randrange(2**32))
    print(f"seed {seed}")
    crashes = int(os.environ.get("STRONGROOM_CRASHES", "2"))
    whole = undisturbed(site)
    outages, broken_off, killed_ones = [], 0, []
    for _ in range(crashes):
        token = site.rotate()
        with Application(site) as application:
            time.sleep(chance.uniform(0, whole))
            killed_ones.append(site.appliance.process.pid)
            site.appliance.kill()
            killed = time.monotonic()
            site.restart()
            down = time.monotonic() - killed
            assert site.somebody_is_let_in()
            site.rotated(token)
        broken_off += "rotations were broken off" in site.appliance.log.read_text()
        outages.append(application.longest)
        if way is single:
            assert application.longest < down + INSTANT, outages
        else:
            assert application.longest == 0, outages
        assert application.logins
        assert len(site.stages()) == 2, "AWSCURRENT and AWSPREVIOUS"
    wait(lambda: not left_of(killed_ones))
    print(f"{crashes} crashes, {broken_off} rotations broken off, nobody let in for {max(outages):.2f} s")


def test_a_server_that_is_down_is_waited_for(server, own_appliance):
    system = server(Redis)
    site = single(own_appliance(), system)
    system.stop()
    token = site.rotate()
    wait(lambda: site.shown().get("LastFailure", {}).get("Step") == "setSecret")
    assert "can't reach it" in site.shown()["LastFailure"]["Reason"]
    assert site.stages()[token] == ["AWSPENDING"]
    system.start()
    assert site.lets_in()
    site.rotated(token)


def test_a_server_that_is_slow_is_waited_for(server, own_appliance):
    system = server(Postgres)
    site = single(own_appliance(), system)
    (process,) = system.processes
    os.killpg(process.pid, signal.SIGSTOP)
    try:
        token = site.rotate()
        time.sleep(4)
    finally:
        os.killpg(process.pid, signal.SIGCONT)
    site.rotated(token)


@pytest.mark.waits
def test_a_password_that_the_server_refuses_ends_a_rotation_and_leaves_no_trace(server, own_appliance):
    site = single(own_appliance(), server(Choosy))
    rule = {"Key": "strongroom:password:PasswordLength", "Value": "10"}
    site.client.tag_resource(SecretId=site.name, Tags=[rule])
    before = site.stages()
    site.rotate()
    assert "it refuses the new password" in site.failed("setSecret")
    assert site.stages() == before and site.lets_in()
    site.client.tag_resource(SecretId=site.name, Tags=[{**rule, "Value": "20"}])
    site.rotated(site.rotate())
    assert len(site.value()["password"]) == 20


@pytest.mark.waits
def test_a_new_user_that_is_not_let_in_is_not_promoted(server, own_appliance):
    system = server(Postgres)
    site = alternating(own_appliance(), system)
    system.reject(f"{site.value()['username']}_clone")
    before = site.stages()
    site.rotate()
    assert "it refuses the credentials" in site.failed("testSecret")
    assert site.stages() == before and site.lets_in()


@pytest.mark.waits
def test_what_the_server_has_taken_is_not_given_up_at_the_first_refusal(server, own_appliance):
    """A server may be late: a replica, a proxy that remembers logins. The new value may then be the only
    one that logs in a little later, though the old one does now."""
    system = server(Postgres)
    site = alternating(own_appliance(), system)
    clone = f"{site.value()['username']}_clone"
    system.reject(clone)
    token = site.rotate()
    wait(lambda: site.shown().get("LastFailure", {}).get("Step") == "testSecret")
    time.sleep(3)
    assert site.stages()[token] == ["AWSPENDING"] and site.lets_in()
    system.accept(clone)
    site.rotated(token, patience=GIVEN_UP)


def test_what_nobody_is_let_in_with_is_kept_until_somebody_is(server, own_appliance):
    """The password was changed by hand: neither value may be given up, and both work again once the
    server has one of them."""
    system = server(Postgres)
    site = single(own_appliance(), system)
    name = site.value()["username"]
    system.set_password(name, "another one")
    token = site.rotate()
    wait(lambda: site.shown().get("InProgress", {}).get("FailedAttempts", 0) >= 2)
    assert "AWSCURRENT: it refuses the credentials" in site.shown()["LastFailure"]["Reason"]
    text = refused("InvalidRequestException", site.client.rotate_secret, SecretId=site.name)
    assert text == "A previous rotation isn't complete. That rotation will be reattempted."
    assert site.stages()[token] == ["AWSPENDING"]
    system.set_password(name, FIRST)
    site.rotated(token)


def someone(appliance, *statements):
    """A client for a new user with a policy."""
    iam, name = appliance.client("iam"), f"u{random.randrange(10**9)}"
    iam.create_user(UserName=name)
    policy = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
    iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=policy)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    credentials = Credentials(key["AccessKeyId"], key["SecretAccessKey"])
    return appliance.client("secretsmanager", credentials=credentials)


def allow(action, resource):
    """A statement."""
    return {"Effect": "Allow", "Action": action, "Resource": resource}


def test_an_administrator_s_login_is_lent_to_none_who_may_not_read_it(server, own_appliance):
    appliance = own_appliance()
    site = alternating(appliance, server(Postgres))
    arn, boss = site.first["ARN"], site.value()["masterarn"]
    writes = allow(["secretsmanager:RotateSecret", "secretsmanager:PutSecretValue"], arn)
    invokes = allow("lambda:InvokeFunction", site.function)
    given = {"SecretId": site.name, "RotationLambdaARN": site.function}
    writer = someone(appliance, writes, invokes)
    text = refused("AccessDeniedException", writer.rotate_secret, **given)
    assert f"secretsmanager:GetSecretValue on resource: {boss}" in text
    reader = someone(appliance, writes, invokes, allow("secretsmanager:GetSecretValue", boss))
    token = reader.rotate_secret(**given)["VersionId"]
    site.rotated(token)
    # What was approved was that one secret, not whatever is named later.
    other = master(appliance, site.system)
    value = json.dumps({**site.value(), "masterarn": other})
    writer.put_secret_value(SecretId=site.name, SecretString=value)
    site.client.cancel_rotate_secret(SecretId=site.name)
    text = refused("AccessDeniedException", reader.rotate_secret, **given)
    assert other in text
    # Rotations compare ARNs: a name would let none of them begin.
    value = json.dumps({**site.value(), "masterarn": boss.rpartition("-")[0]})
    writer.put_secret_value(SecretId=site.name, SecretString=value)
    text = refused("InvalidParameterException", site.client.rotate_secret, **given)
    assert text == "masterarn must be the complete ARN of a secret."


@pytest.mark.parametrize("way", [single, alternating])
def test_who_writes_a_secret_gets_no_other_user_by_it(server, own_appliance, way):
    """The administrator changes a password only for a user whose own was just let in, where the
    administrator's secret says."""
    system, appliance = server(Redis), own_appliance()
    site = way(appliance, system)
    good = site.value()
    foreign = user(system)
    for wrong, reason in [
        ({"username": foreign, "password": "guessed"}, "it refuses the credentials"),
        ({"host": "localhost"}, "opens another system"),
        # The one user tries its own login first.
        ({"engine": "rabbitmq"}, "can't reach it" if way is single else "opens another system"),
    ]:
        value = json.dumps({**good, **wrong})
        site.client.put_secret_value(SecretId=site.name, SecretString=value)
        assert reason in site.fails()
        site.client.cancel_rotate_secret(SecretId=site.name)
        for version, labels in site.stages().items():
            if "AWSPENDING" in labels:
                site.client.update_secret_version_stage(
                    SecretId=site.name, VersionStage="AWSPENDING", RemoveFromVersionId=version
                )
    assert system.lets_in(system.secret(foreign, FIRST)), "nobody changed it"


@pytest.mark.waits
@pytest.mark.parametrize("way", [single, alternating])
def test_what_lends_out_an_administrator_s_rights_is_believed_over_its_connection_alone(
    server, own_appliance, way
):
    """Whoever writes a secret could switch TLS off there, and answer in the server's place that a
    password is right."""
    system, appliance = server(Redis), own_appliance()
    site = way(appliance, system)
    boss = system.secret(ADMIN, ADMIN_PASSWORD, ssl=True)
    site.client.put_secret_value(SecretId=site.value()["masterarn"], SecretString=json.dumps(boss))
    assert "the login with AWSCURRENT: can't reach it" in site.fails()
    assert site.lets_in()


def test_a_secret_that_is_of_no_use_is_told(server, own_appliance):
    site = single(own_appliance(), server(Postgres))
    for value, reason in [
        ("no JSON", "the secret is no JSON object"),
        ('{"engine": "oracle"}', "`engine` of the secret is not"),
        ('{"engine": "postgres"}', "the secret has no `host`"),
    ]:
        site.client.put_secret_value(SecretId=site.name, SecretString=value)
        site.rotate()
        assert reason in site.failed("createSecret")
