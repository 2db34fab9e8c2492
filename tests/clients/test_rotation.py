"""Rotation through the Lambda path and with the built-in function, as clients see it."""

import base64
import contextlib
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from conftest import refused
from test_trail import strongroom

FUNCTION = Path(__file__).with_name("rotation_function.py")
STEPS = ["createSecret", "setSecret", "testSecret", "finishSecret"]
PATIENCE = 60
INVOKED = re.compile(r"/2015-03-31/functions/([^/]+)/invocations")


class Functions(ThreadingHTTPServer):
    """A Lambda Invoke endpoint on loopback; runs `rotation_function.py` as Lambda would."""

    daemon_threads = True

    def __init__(self, target):
        super().__init__(("127.0.0.1", 0), Invocation)
        self.target = target
        self.endpoint = None
        self.events = []
        self.contexts = []
        # Called before and after a step with ("before" | "after", step); what it returns is answered.
        self.hook = lambda when, step: None
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        """Its own address."""
        return f"http://127.0.0.1:{self.server_port}"

    def run(self, event, context):
        """Runs a step in a process of its own; answers status, whether it failed, and the body."""
        step = event["Step"]
        self.events.append(event)
        self.contexts.append(context)
        answer = self.hook("before", step)
        if answer is not None:
            return answer
        environment = {
            "PATH": os.environ["PATH"],
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "1",
            "SECRETS_MANAGER_ENDPOINT": self.endpoint,
            "TARGET": str(self.target),
            **context["custom"],
        }
        ran = subprocess.run(
            [sys.executable, FUNCTION],
            input=json.dumps(event),
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        answer = self.hook("after", step)
        if answer is not None:
            return answer
        if ran.returncode == 0:
            return 200, False, b"null"
        kind, _, text = ran.stderr.strip().splitlines()[-1].partition(": ")
        return failure(text, kind)

    def steps(self):
        """The steps that were asked for."""
        return [event["Step"] for event in self.events]


def failure(text, kind="ValueError"):
    """How a function's exception is answered."""
    return 200, True, json.dumps({"errorMessage": text, "errorType": kind}).encode()


class Invocation(BaseHTTPRequestHandler):
    """One POST to the Invoke API."""

    def do_POST(self):  # noqa: N802
        """Runs the function."""
        assert INVOKED.fullmatch(self.path), self.path
        assert self.headers["X-Amz-Invocation-Type"] == "RequestResponse"
        event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert set(event) == {"Step", "SecretId", "ClientRequestToken", "RotationToken"}
        context = json.loads(base64.b64decode(self.headers["X-Amz-Client-Context"]))
        status, failed, body = self.server.run(event, context)
        try:
            self.send_response(status)
            if failed:
                self.send_header("X-Amz-Function-Error", "Unhandled")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            pass  # Whoever asked is gone.

    def log_message(self, *_):
        """Says nothing."""


class Site:
    """An appliance, a target with one login, and the function that rotates it."""

    def __init__(self, appliance, functions, name):
        self.appliance, self.functions = appliance, functions
        self.name = name
        self.connect()
        value = {"engine": "file", "username": "app", "password": "first password"}
        functions.target.write_text(value["password"])
        self.first = self.client.create_secret(Name=name, SecretString=json.dumps(value))
        self.arn = self.first["ARN"]

    def connect(self):
        """Clients for the appliance as it is served now."""
        self.client = self.appliance.client("secretsmanager")
        self.functions.endpoint = self.appliance.endpoint

    @property
    def function(self):
        """The function's ARN."""
        return f"arn:aws:lambda:us-east-1:{self.appliance.account_id}:function:rotate-file"

    def rotate(self, **more):
        """Asks for a rotation; answers the version that it makes."""
        rules = {"AutomaticallyAfterDays": 30}
        given = {"RotationLambdaARN": self.function, "RotationRules": rules, **more}
        return self.client.rotate_secret(SecretId=self.name, **given)["VersionId"]

    def password(self, stage="AWSCURRENT"):
        """The password under a stage."""
        value = self.client.get_secret_value(SecretId=self.name, VersionStage=stage)
        return json.loads(value["SecretString"])["password"]

    def stages(self):
        """The labels of each version."""
        return self.client.describe_secret(SecretId=self.name)["VersionIdsToStages"]

    def shown(self):
        """How `strongroom secret rotation` tells of it."""
        return shown(self.appliance, self.name)

    def events(self):
        """What the audit log has of rotations that the appliance does by itself."""
        (path,) = self.appliance.directory.rglob("audit.jsonl")
        all_records = [json.loads(line) for line in path.read_text().splitlines()]
        mine = [r for r in all_records if r["eventType"] == "AwsServiceEvent"]
        names = ("Rotation", "TestRotation")
        told = [r for r in mine if r["eventName"].startswith(names)]
        assert all(r["resources"][0]["ARN"] == self.arn for r in told)
        return [(r["eventName"], r["requestParameters"]) for r in told]

    def logs_in(self):
        """Whether the target lets the application in."""
        return self.functions.target.read_text() == self.password()

    def rotated(self, token):
        """Waits for a rotation to be over and checks what it leaves."""
        first = self.first["VersionId"]
        wait(lambda: self.stages() == {token: ["AWSCURRENT"], first: ["AWSPREVIOUS"]})
        assert self.logs_in()
        assert self.password() != "first password" == self.password("AWSPREVIOUS")


def shown(appliance, name):
    """What `strongroom secret rotation` says."""
    return json.loads(strongroom(appliance, "secret", "rotation", name).stdout)


def wait(true, patience=PATIENCE):
    """Waits until something is so."""
    deadline = time.monotonic() + patience
    while not true():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.1)


@pytest.fixture
def site(own_appliance, tmp_path, name):
    """A secret of a target, and the function that rotates it."""
    functions = Functions(tmp_path / "target")
    yield Site(own_appliance("--lambda-endpoint", functions.url), functions, name)
    functions.shutdown()


def test_a_function_in_the_style_of_aws_s_rotates_a_secret(site):
    before = time.time()
    ran = site.appliance.aws(
        *("secretsmanager", "rotate-secret", "--secret-id", site.name),
        *("--rotation-lambda-arn", site.function),
        *("--rotation-rules", "ScheduleExpression=rate(10 days),Duration=3h"),
    )
    assert ran.code == 0, ran.err
    assert (ran.out["ARN"], ran.out["Name"]) == (site.arn, site.name)
    token = ran.out["VersionId"]
    site.rotated(token)
    assert site.functions.steps() == STEPS
    assert {event["SecretId"] for event in site.functions.events} == {site.arn}
    assert {event["ClientRequestToken"] for event in site.functions.events} == {token}
    wait(lambda: len(site.events()) == 2)
    assert [name for name, _ in site.events()] == ["RotationStarted", "RotationSucceeded"]
    described = site.client.describe_secret(SecretId=site.name)
    listed = site.client.list_secrets(Filters=[{"Key": "name", "Values": [site.name]}])
    for shown in (described, listed["SecretList"][0]):
        assert shown["RotationEnabled"] is True
        assert shown["RotationLambdaARN"] == site.function
        assert shown["RotationRules"] == {
            "AutomaticallyAfterDays": 10,
            "Duration": "3h",
            "ScheduleExpression": "rate(10 days)",
        }
        assert before - 1 <= shown["LastRotatedDate"].timestamp() <= time.time()
        days = (shown["NextRotationDate"].timestamp() - before) / 86400
        assert 9 <= days <= 11


def test_between_the_steps_the_version_has_its_label_and_no_value(site):
    go = threading.Event()
    site.functions.hook = lambda when, step: go.wait(PATIENCE) and None
    token = site.rotate()
    wait(lambda: site.functions.events)
    assert site.stages() == {site.first["VersionId"]: ["AWSCURRENT"], token: ["AWSPENDING"]}
    get = {"SecretId": site.name, "VersionStage": "AWSPENDING"}
    text = refused("ResourceNotFoundException", site.client.get_secret_value, **get)
    assert text.endswith("staging label: AWSPENDING")
    assert site.password() == "first password"
    text = refused("InvalidRequestException", site.client.rotate_secret, SecretId=site.name)
    assert text == "A previous rotation isn't complete. That rotation will be reattempted."
    again = site.client.rotate_secret(SecretId=site.name, ClientRequestToken=token)
    assert again["VersionId"] == token
    go.set()
    site.rotated(token)
    assert site.functions.steps() == STEPS
    again = site.client.rotate_secret(SecretId=site.name, ClientRequestToken=token)
    assert again["VersionId"] == token
    assert site.functions.steps() == STEPS, "asked twice, done once"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_a_rotation_outlives_the_appliance(site, step, when):
    reached, gone = threading.Event(), threading.Event()

    def hook(now, doing):
        if (now, doing) == (when, step) and not reached.is_set():
            reached.set()
            gone.wait(PATIENCE)
            return 500, False, b""
        # The next appliance is at another port: the function has to know it first.
        if reached.is_set():
            gone.wait(PATIENCE)
        return None

    site.functions.hook = hook
    token = site.rotate()
    assert reached.wait(PATIENCE)
    site.appliance.kill()
    site.appliance.start()
    site.connect()
    gone.set()
    site.rotated(token)
    steps = site.functions.steps()
    assert steps == STEPS[: STEPS.index(step) + 1] + STEPS[STEPS.index(step) :] or (
        # AWSCURRENT had moved: there was nothing left to do.
        (step, when) == ("finishSecret", "after") and steps == STEPS
    )


def test_rotations_outlive_crashes_at_any_moment(site):
    """Killed at random, again and again: what rotates is rotated in the end, and at no time is there a
    login that neither AWSCURRENT nor AWSPENDING has. STRONGROOM_CRASHES says how often."""
    serving = threading.Event()
    serving.set()
    site.functions.hook = lambda when, step: serving.wait(PATIENCE) and None
    chance = random.Random(seed := random.randrange(2**32))
    print(f"seed {seed}")
    for _ in range(int(os.environ.get("STRONGROOM_CRASHES", "5"))):
        token = site.rotate()
        time.sleep(chance.uniform(0, 5))
        serving.clear()
        site.appliance.kill()
        site.appliance.start()
        site.connect()
        known = [site.password()]
        with contextlib.suppress(site.client.exceptions.ResourceNotFoundException):
            known.append(site.password("AWSPENDING"))
        assert site.functions.target.read_text() in known
        serving.set()
        wait(lambda: site.stages().get(token) == ["AWSCURRENT"])  # noqa: B023
        assert site.logs_in()
        assert len(site.stages()) == 2, "AWSCURRENT and AWSPREVIOUS"


def test_once_the_target_may_have_the_new_password_it_is_rolled_forward(site):
    left = [3]

    def hook(when, step):
        if (when, step) == ("after", "setSecret") and left[0]:
            left[0] -= 1
            return failure("setSecret: the connection was lost")
        return None

    site.functions.hook = hook
    token = site.rotate()
    wait(lambda: left[0] < 3)
    wait(lambda: "LastFailure" in site.shown())
    shown = site.shown()
    assert shown["InProgress"]["VersionId"] == token and shown["InProgress"]["MayBeSet"]
    assert shown["LastFailure"]["Step"] == "setSecret"
    reason = "the function failed: ValueError: setSecret: the connection was lost"
    assert shown["LastFailure"]["Reason"] == reason
    # The target has it already: AWSCURRENT does not log in, and AWSPENDING must stay.
    assert token in site.stages()
    text = refused("InvalidRequestException", site.client.rotate_secret, SecretId=site.name)
    assert text == "A previous rotation isn't complete. That rotation will be reattempted."
    site.rotated(token)
    assert site.functions.steps().count("setSecret") == 4
    wait(lambda: "InProgress" not in site.shown())
    assert "LastFailure" not in site.shown()


def test_a_function_that_hangs_or_answers_nonsense_is_asked_again(site):
    (configuration,) = site.appliance.directory.rglob("strongroom.toml")
    with configuration.open("a") as file:
        file.write("\n[[function]]\nname = 'rotate-file'\ndeadline_seconds = 3\n")
        file.write(f"endpoint = '{site.functions.url}'\n")
    site.appliance.stop()
    site.appliance.start()
    site.connect()
    ended = threading.Event()
    bad = [
        (lambda: ended.wait(PATIENCE) and None, "the function gave no answer within 3 s"),
        (lambda: (404, False, b"{}"), "the function's endpoint answers 404 Not Found"),
        (lambda: (200, True, b"\xff garbage"), "the function failed"),
        (lambda: (200, False, b"null"), "createSecret has ended and AWSPENDING has no value"),
    ]
    answers = iter(answer for answer, _ in bad)

    def hook(when, step):
        answer = next(answers, None) if when == "before" else None
        return answer() if answer else None

    site.functions.hook = hook
    token = site.rotate()
    for _, why in bad:
        wait(lambda: site.shown().get("LastFailure", {}).get("Reason") == why)  # noqa: B023
        assert site.password() == "first password"
    ended.set()
    site.rotated(token)


def test_what_a_function_says_is_not_passed_on_if_it_quotes_the_secret(site):
    site.functions.hook = lambda when, step: (
        failure(f"could not set {site.password('AWSPENDING')}") if when == "after" else None
    )
    site.rotate()
    wait(lambda: "LastFailure" in site.shown())
    reason = "the function failed; what it says may quote the secret and is left out"
    assert site.shown()["LastFailure"]["Reason"] == reason
    site.client.cancel_rotate_secret(SecretId=site.name)


def test_what_never_got_to_the_target_is_cancelled_without_a_trace(site):
    site.functions.hook = lambda when, step: failure("createSecret: no") if when == "after" else None
    token = site.rotate()
    wait(lambda: len(site.functions.events) > 1)
    assert site.password() == "first password"
    cancelled = site.client.cancel_rotate_secret(SecretId=site.name)
    assert cancelled["VersionId"] == token
    assert site.stages() == {site.first["VersionId"]: ["AWSCURRENT"]}
    listed = site.client.list_secret_version_ids(SecretId=site.name, IncludeDeprecated=True)
    assert [version["VersionId"] for version in listed["Versions"]] == [site.first["VersionId"]]
    described = site.client.describe_secret(SecretId=site.name)
    assert described["RotationEnabled"] is False
    assert described["RotationLambdaARN"] == site.function
    assert "NextRotationDate" not in described and "LastRotatedDate" not in described
    site.functions.hook = lambda when, step: None
    site.rotated(site.rotate())


def test_a_function_that_does_every_step_twice_does_it_once(site):
    nested = []

    def hook(when, step):
        if (when, step) == ("after", "createSecret"):
            put = {"SecretId": site.name, "ClientRequestToken": token, "VersionStages": ["AWSPENDING"]}
            pending = site.client.get_secret_value(SecretId=site.name, VersionStage="AWSPENDING")
            site.client.put_secret_value(SecretString=pending["SecretString"], **put)
            call = site.client.put_secret_value
            refused("ResourceExistsException", call, SecretString="another one", **put)
        if when == "after" and not nested:
            nested.append(step)
            again = site.functions.run(site.functions.events[-1], site.functions.contexts[-1])
            assert again == (200, False, b"null")
            nested.pop()

    token = str(uuid.uuid4())
    site.functions.hook = hook
    site.rotate(ClientRequestToken=token)
    site.rotated(token)
    assert site.functions.steps() == [step for step in STEPS for _ in range(2)]


def test_of_rotations_that_are_asked_for_at_once_there_is_one(site):
    answers = []

    def ask():
        try:
            answers.append(site.rotate())
        except ClientError as error:
            answers.append(error.response["Error"]["Code"])

    released = threading.Event()
    site.functions.hook = lambda when, step: released.wait(PATIENCE) and None
    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (token,) = [answer for answer in answers if answer != "InvalidRequestException"]
    assert site.rotate(ClientRequestToken=token) == token, "the same one, asked for again"
    released.set()
    site.rotated(token)
    assert site.functions.steps() == STEPS


def test_a_label_that_is_taken_off_by_hand_ends_a_rotation_as_on_aws(site):
    site.functions.hook = lambda when, step: failure("no")
    token = site.rotate()
    wait(lambda: site.functions.events)
    site.client.update_secret_version_stage(
        SecretId=site.name, VersionStage="AWSPENDING", RemoveFromVersionId=token
    )
    assert site.stages() == {site.first["VersionId"]: ["AWSCURRENT"]}
    site.functions.hook = lambda when, step: None
    site.rotated(site.client.rotate_secret(SecretId=site.name)["VersionId"])


def test_a_new_kms_key_while_a_version_has_no_value_yet(site):
    site.functions.hook = lambda when, step: failure("no")
    site.rotate()
    wait(lambda: site.functions.events)
    key = site.appliance.client("kms").create_key()["KeyMetadata"]["Arn"]
    site.client.update_secret(SecretId=site.name, KmsKeyId=key)
    assert site.password() == "first password"
    site.functions.hook = lambda when, step: None
    wait(lambda: "AWSPREVIOUS" in site.stages()[site.first["VersionId"]])
    assert site.logs_in()


def test_what_cancelling_leaves_with_the_target_is_finished_by_one_call(site):
    site.functions.hook = lambda when, step: (
        failure("no") if (when, step) == ("after", "setSecret") else None
    )
    token = site.rotate()
    wait(lambda: "setSecret" in site.functions.steps())
    wait(lambda: not site.logs_in())
    site.client.cancel_rotate_secret(SecretId=site.name)
    assert site.stages()[token] == ["AWSPENDING"], "it may be the only password that logs in"
    site.functions.hook = lambda when, step: None
    enabled = lambda: site.client.describe_secret(SecretId=site.name)["RotationEnabled"]  # noqa: E731
    assert enabled() is False
    text = refused("InvalidRequestException", site.rotate)
    assert text == "A previous rotation isn't complete. That rotation will be reattempted."
    site.rotated(token)
    wait(lambda: "InProgress" not in site.shown())
    assert enabled() is False, "the call was refused"
    second = site.rotate()
    wait(lambda: site.stages().get(second) == ["AWSCURRENT"])
    assert enabled() is True


def test_rotating_later_tests_the_function_alone(site):
    token = site.rotate(RotateImmediately=False)
    first = {site.first["VersionId"]: ["AWSCURRENT"]}
    wait(lambda: site.functions.events and site.stages() == first)
    assert site.functions.steps() == ["testSecret"]
    assert site.functions.events[0]["ClientRequestToken"] == token
    described = site.client.describe_secret(SecretId=site.name)
    assert described["RotationEnabled"] is True and "NextRotationDate" in described
    assert "LastRotatedDate" not in described
    assert site.logs_in()


def test_a_trial_that_fails_leaves_nothing_but_its_reason(site):
    site.functions.hook = lambda when, step: failure("no login", "LoginError")
    token = site.rotate(RotateImmediately=False)
    wait(lambda: "LastFailure" in site.shown())
    assert site.functions.steps() == ["testSecret"], "it is not tried again"
    assert site.stages() == {site.first["VersionId"]: ["AWSCURRENT"]}
    shown = site.shown()
    assert shown["LastFailure"]["Reason"] == "the function failed: LoginError: no login"
    assert "InProgress" not in shown and shown["RotationEnabled"] and "NextAttemptDate" in shown
    wait(lambda: len(site.events()) == 2)
    assert [name for name, _ in site.events()] == ["TestRotationStarted", "TestRotationFailed"]
    reason = "the function failed: LoginError: no login"
    told = {"versionId": token, "step": "testSecret", "reason": reason}
    assert site.events()[1][1] == told


def test_a_function_s_credentials_are_for_its_secret_alone(site):
    other = site.client.create_secret(Name=f"{site.name}-other", SecretString="x")["ARN"]
    site.rotated(site.rotate())
    given = site.functions.contexts[0]["custom"]
    credentials = Credentials(
        given["AWS_ACCESS_KEY_ID"], given["AWS_SECRET_ACCESS_KEY"], given["AWS_SESSION_TOKEN"]
    )
    theirs = site.appliance.client("secretsmanager", credentials=credentials)
    assert theirs.get_secret_value(SecretId=site.arn)["Name"] == site.name
    refused("AccessDeniedException", theirs.get_secret_value, SecretId=other)
    refused("AccessDeniedException", theirs.delete_secret, SecretId=site.arn)
    refused("AccessDeniedException", theirs.list_secrets)
    # Nor are they what is granted to the account as such: by resource policies, key policies, grants.
    root = f"arn:aws:iam::{site.appliance.account_id}:root"
    allow = {"Effect": "Allow", "Principal": {"AWS": root}, "Resource": "*"}
    policy = {"Version": "2012-10-17", "Statement": {**allow, "Action": "secretsmanager:*"}}
    site.client.put_resource_policy(SecretId=other, ResourcePolicy=json.dumps(policy))
    refused("AccessDeniedException", theirs.get_secret_value, SecretId=other)
    kms = site.appliance.client("kms")
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    sealed = kms.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]
    theirs = site.appliance.client("kms", credentials=credentials)
    refused("AccessDeniedException", theirs.encrypt, KeyId=key, Plaintext=b"x")
    kms.create_grant(KeyId=key, GranteePrincipal=root, Operations=["Encrypt", "Decrypt"])
    refused("AccessDeniedException", theirs.encrypt, KeyId=key, Plaintext=b"x")
    refused("AccessDeniedException", theirs.decrypt, CiphertextBlob=sealed)
    theirs = site.appliance.client("iam", credentials=credentials)
    refused("InvalidClientTokenId", theirs.create_user, UserName="mallory")


def test_a_value_put_by_hand_counts_as_a_rotation(site):
    site.rotated(site.rotate())
    before = site.client.describe_secret(SecretId=site.name)["LastRotatedDate"]
    site.client.put_secret_value(SecretId=site.name, SecretString="by hand")
    assert site.client.describe_secret(SecretId=site.name)["LastRotatedDate"] > before


def test_what_can_t_be_asked_for_is_refused_in_aws_s_words(appliance, secretsmanager, name):
    secretsmanager.create_secret(Name=name, SecretString="x")
    rotate = secretsmanager.rotate_secret
    text = refused("InvalidRequestException", rotate, SecretId=name)
    assert text == "No Lambda rotation function ARN is associated with this secret."
    arn = f"arn:aws:lambda:{appliance.region}:{appliance.account_id}:function:"
    text = refused("AccessDeniedException", rotate, SecretId=name, RotationLambdaARN=f"{arn}nobody")
    assert text.startswith("Secrets Manager cannot invoke the specified Lambda function.")
    mine = {"SecretId": name, "RotationLambdaARN": f"{arn}strongroom-password"}
    both = {"AutomaticallyAfterDays": 1, "ScheduleExpression": "rate(1 day)"}
    text = refused("InvalidParameterException", rotate, **mine, RotationRules=both)
    assert text.startswith("You cannot specify both")
    role = f"arn:aws:iam::{appliance.account_id}:role/partner"
    refused("InvalidParameterException", rotate, **mine, ExternalSecretRotationRoleArn=role)
    answer = appliance.raw("secretsmanager.RotateSecret", {"SecretId": f"{name}-none"})
    assert answer.code == "InvalidParameterException", "before anybody looks for the secret"
    refused("ResourceNotFoundException", rotate, **{**mine, "SecretId": f"{name}-none"})
    described = secretsmanager.describe_secret(SecretId=name)
    assert "RotationEnabled" not in described and "RotationLambdaARN" not in described
    secretsmanager.delete_secret(SecretId=name)
    refused("InvalidRequestException", rotate, **mine)
    refused("InvalidRequestException", secretsmanager.cancel_rotate_secret, SecretId=name)


def test_the_built_in_function_makes_passwords_by_the_secret_s_rules(appliance, secretsmanager, name):
    value = {"username": "app", "password": "old"}
    rules = {"PasswordLength": "50", "ExcludePunctuation": "true"}
    tags = [{"Key": f"strongroom:password:{k}", "Value": v} for k, v in rules.items()]
    secretsmanager.create_secret(Name=name, SecretString=json.dumps(value), Tags=tags)
    arn = f"arn:aws:lambda:{appliance.region}:{appliance.account_id}:function:strongroom-password"
    token = str(uuid.uuid4())
    given = {"SecretId": name, "RotationLambdaARN": arn, "ClientRequestToken": token}
    assert secretsmanager.rotate_secret(**given)["VersionId"] == token
    described = lambda: secretsmanager.describe_secret(SecretId=name)  # noqa: E731
    wait(lambda: described()["VersionIdsToStages"].get(token) == ["AWSCURRENT"])
    other = name + "-read"
    secretsmanager.create_secret(Name=other, SecretString="x")
    secretsmanager.get_secret_value(SecretId=other)
    wait(lambda: "LastAccessedDate" in secretsmanager.describe_secret(SecretId=other))
    assert "LastAccessedDate" not in described(), "what the appliance reads for itself is no use"
    current = lambda: secretsmanager.get_secret_value(SecretId=name)  # noqa: E731
    made = json.loads(current()["SecretString"])
    assert made["username"] == "app"
    assert re.fullmatch(r"[A-Za-z0-9]{50}", made["password"])


def test_rules_that_no_password_can_keep_are_told_and_nothing_rotates(appliance, secretsmanager, name):
    tags = [{"Key": "strongroom:password:PasswordLength", "Value": "3"}]
    secretsmanager.create_secret(Name=name, SecretString="old", Tags=tags)
    arn = f"arn:aws:lambda:{appliance.region}:{appliance.account_id}:function:strongroom-password"
    secretsmanager.rotate_secret(SecretId=name, RotationLambdaARN=arn)
    wait(lambda: "LastFailure" in shown(appliance, name))
    reason = shown(appliance, name)["LastFailure"]["Reason"]
    assert reason.endswith("Password length is too short based on the required types.")
    assert secretsmanager.get_secret_value(SecretId=name)["SecretString"] == "old"
