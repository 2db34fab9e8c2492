"""Rotation functions: registered while the appliance is served, run by `serve-python`, and programs."""

import base64
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import pytest
from botocore.credentials import Credentials

from conftest import ROOT, refused
from issuer import Authority, pem
from test_authorization import Person, statement, with_tenant
from test_iam_commands import done, run
from test_rotation import FUNCTION, PATIENCE, Functions, wait

HANDLERS = Path(__file__).with_name("handlers.py")
FIRST = "first password"


def binary():
    """The program under test."""
    return ROOT / Path(os.environ.get("STRONGROOM_BIN", "target/debug/strongroom"))


class Runner:
    """`strongroom function serve-python`."""

    def __init__(self, handler, endpoint, *arguments, listen="127.0.0.1:0", python=sys.executable,
                 **environment):
        command = [binary(), "function", "serve-python", handler, "--listen", listen]
        command += ["--endpoint-url", endpoint, "--python", python, *arguments]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={"PATH": os.environ["PATH"], "AWS_SECRET_ACCESS_KEY": "of the runner"} | environment,
        )
        self.url = self.process.stdout.readline().strip().removeprefix("serving ")

    def invoke(self, event, name="f", headers=(), query=""):
        """Status, headers and body of an invocation."""
        data = event if isinstance(event, bytes) else json.dumps(event).encode()
        url = f"{self.url}/2015-03-31/functions/{name}/invocations{query}"
        request = urllib.request.Request(url, data, dict(headers))
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, answer.headers, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, error.headers, json.load(error)

    def returned(self, event, **more):
        """What the handler returns."""
        status, headers, body = self.invoke(event, **more)
        assert (status, headers["X-Amz-Function-Error"]) == (200, None), body
        return body

    def raised(self, event, **more):
        """What it raises."""
        status, headers, body = self.invoke(event, **more)
        assert (status, headers["X-Amz-Function-Error"]) == (200, "Unhandled"), body
        return body

    def end(self):
        """Ends it; what the handlers printed."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        _, printed = self.process.communicate(timeout=PATIENCE)
        return printed


@pytest.fixture
def runner():
    """Starts runners that end with the test."""
    started = []

    def start(*arguments, **environment):
        started.append(Runner(*arguments, **environment))
        return started[-1]

    yield start
    for each in started:
        each.end()


class Site:
    """A secret of a target with one login, and whatever rotates it."""

    def __init__(self, appliance, target, name):
        self.appliance, self.target, self.name = appliance, target, name
        target.write_text(FIRST)
        value = {"engine": "file", "username": "app", "password": FIRST}
        self.first = self.client.create_secret(Name=name, SecretString=json.dumps(value))

    @property
    def client(self):
        return self.appliance.client("secretsmanager")

    def arn(self, function):
        account, region = self.appliance.account_id, self.appliance.region
        return f"arn:aws:lambda:{region}:{account}:function:{function}"

    def rotate(self, function, **more):
        given = {"SecretId": self.name, "RotationLambdaARN": self.arn(function), **more}
        return self.client.rotate_secret(**given)["VersionId"]

    def rotated(self, token):
        """Waits for the end of a rotation that goes well."""
        wait(lambda: self.stages().get(token) == ["AWSCURRENT"])
        value = json.loads(self.client.get_secret_value(SecretId=self.name)["SecretString"])
        assert value["password"] != FIRST
        assert self.target.read_text() == value["password"]

    def stages(self):
        return self.client.describe_secret(SecretId=self.name)["VersionIdsToStages"]

    def shown(self):
        return json.loads(done(self.appliance, "secret", "rotation", self.name))

    def reason(self):
        """Why the last attempt failed, once one has."""
        wait(lambda: "LastFailure" in self.shown())
        return self.shown()["LastFailure"]["Reason"]

    def configure(self, text):
        """Puts more into the configuration."""
        (configuration,) = self.appliance.directory.rglob("strongroom.toml")
        self.appliance.stop()
        with configuration.open("a") as file:
            file.write(f"\n{text}\n")
        self.appliance.start()

    def program(self, name, *command, **more):
        """Has a program as a function."""
        words = json.dumps([str(word) for word in command])
        more = "\n".join(f"{key} = {json.dumps(value)}" for key, value in more.items())
        self.configure(f"[[function]]\nname = '{name}'\nprogram = {words}\n{more}")


@pytest.fixture
def site(own_appliance, tmp_path, name):
    """A site of an appliance of its own."""
    return Site(own_appliance(), tmp_path / "target", name)


def lives(pid):
    """Whether a process is there that does work."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# Registered functions


def test_functions_are_added_listed_and_removed_while_it_is_served(site, runner):
    served = runner(FUNCTION, site.appliance.endpoint, TARGET=str(site.target))
    refused("AccessDeniedException", site.rotate, function="mine")
    add = ["function", "add", "mine", "--endpoint", served.url]
    assert done(site.appliance, *add, "--deadline", "30") == site.arn("mine") + "\n"
    again = run(site.appliance, *add)
    assert again.returncode == 1 and "already exists" in again.stderr
    done(site.appliance, *add, "--replace", "--deadline", "40")
    line = [site.arn("mine"), served.url, "40", "true"]
    assert done(site.appliance, "function", "list") == "\t".join(line) + "\n"
    site.rotated(site.rotate("mine"))

    remove = ["function", "remove", "mine"]
    kept = run(site.appliance, *remove)
    assert kept.returncode == 1 and f"it rotates the secret {site.name}." in kept.stderr
    # A version of it is it too, and one whose rotation is off does not count.
    site.rotated(site.rotate("mine:blue"))
    assert f"it rotates the secret {site.name}." in run(site.appliance, *remove).stderr
    site.client.cancel_rotate_secret(SecretId=site.name)
    done(site.appliance, *remove)
    assert done(site.appliance, "function", "list") == ""
    gone = run(site.appliance, *remove)
    assert gone.returncode == 1 and "registered no function mine" in gone.stderr
    refused("AccessDeniedException", site.rotate, function="mine")


def test_what_is_registered_outlives_the_appliance(site, runner):
    served = runner(FUNCTION, site.appliance.endpoint, TARGET=str(site.target))
    done(site.appliance, "function", "add", "mine", "--endpoint", served.url, "--no-credentials")
    before = done(site.appliance, "function", "list")
    assert before.endswith("\tfalse\n")
    site.appliance.kill()
    site.appliance.start()
    assert done(site.appliance, "function", "list") == before
    # Without credentials the runner's own count, which are none.
    site.rotate("mine")
    assert "NoCredentialsError" in site.reason() or "PartialCredentials" in site.reason()
    served = runner(FUNCTION, site.appliance.endpoint, TARGET=str(site.target))
    done(site.appliance, "function", "add", "mine", "--endpoint", served.url, "--replace")
    wait(lambda: "AWSPREVIOUS" in site.stages()[site.first["VersionId"]])


def test_by_force_a_function_goes_and_its_rotations_wait_for_it(site, runner):
    served = runner(FUNCTION, site.appliance.endpoint, TARGET=str(site.target))
    add = ["function", "add", "mine", "--endpoint", served.url]
    done(site.appliance, "function", "add", "mine", "--endpoint", "http://127.0.0.1:1")
    token = site.rotate("mine")
    assert "can't be reached" in site.reason()
    done(site.appliance, "function", "remove", "mine", "--force")
    wait(lambda: site.reason() == f"no function is registered for `{site.arn('mine')}`")
    done(site.appliance, *add)
    site.rotated(token)


def test_the_authorities_that_are_registered_are_trusted_and_no_others(site, tmp_path):
    authority = Authority()
    certificate, key = authority.issue("lambda", server=True)
    chain, ca = tmp_path / "chain.pem", tmp_path / "ca.pem"
    chain.write_text(pem(certificate) + pem(key))
    ca.write_text(pem(authority.certificate))
    functions = Functions(site.target)
    functions.endpoint = site.appliance.endpoint
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    functions.socket = context.wrap_socket(functions.socket, server_side=True)
    url = functions.url.replace("http:", "https:")
    done(site.appliance, "function", "add", "mine", "--endpoint", url)
    token = site.rotate("mine")
    assert "can't be reached" in site.reason() and "certificate" in site.reason()
    assert functions.events == []
    done(site.appliance, "function", "add", "mine", "--endpoint", url, "--replace", "--ca", ca)
    (shown,) = site.appliance.rest("GET", "/functions").json["Functions"]
    assert shown["CertificateAuthorities"] == ca.read_text()
    site.rotated(token)
    functions.shutdown()


def test_what_a_program_says_may_not_quote_the_administrator_s_secret_either(site, tmp_path):
    master = site.client.create_secret(
        Name=f"{site.name}-admin", SecretString=json.dumps({"password": "of the administrator"})
    )["ARN"]
    value = {"username": "app", "password": FIRST, "masterarn": master}
    site.client.put_secret_value(SecretId=site.name, SecretString=json.dumps(value))
    text = f"""
import boto3
client = boto3.client("secretsmanager")
sys.exit(client.get_secret_value(SecretId={master!r})["SecretString"])
"""
    site.program("bad", *script(tmp_path, text))
    site.rotate("bad")
    left_out = "the program ended with status 1; what it says may quote the secret and is left out"
    assert site.reason() == left_out


def test_one_account_does_not_see_the_other_s(own_appliance, tmp_path, name, runner):
    appliance, tenant = with_tenant(own_appliance)
    mine = Site(appliance, tmp_path / "target", name)
    served = runner(FUNCTION, appliance.endpoint, TARGET=str(mine.target))
    add = ["function", "add", "mine", "--endpoint"]
    done(appliance, *add, served.url)
    assert done(appliance, "function", "list", credentials=tenant) == ""
    theirs = appliance.client("secretsmanager", credentials=tenant)
    theirs.create_secret(Name=name, SecretString="{}")
    foreign = {"SecretId": name, "RotationLambdaARN": mine.arn("mine")}
    refused("AccessDeniedException", theirs.rotate_secret, **foreign)
    own = {**foreign, "RotationLambdaARN": foreign["RotationLambdaARN"].replace(
        appliance.account_id, "111122223333")}
    text = refused("AccessDeniedException", theirs.rotate_secret, **own)
    assert text.startswith("Secrets Manager cannot invoke")
    done(appliance, *add, "http://127.0.0.1:1", credentials=tenant)
    assert ":111122223333:function:mine\t" in done(appliance, "function", "list", credentials=tenant)
    done(appliance, "function", "remove", "mine", credentials=tenant)
    assert done(appliance, "function", "list").startswith(mine.arn("mine"))
    mine.rotated(mine.rotate("mine"))


def test_the_configuration_s_functions_win(site, runner):
    served = runner(FUNCTION, site.appliance.endpoint, TARGET=str(site.target))
    done(site.appliance, "function", "add", "mine", "--endpoint", "http://127.0.0.1:1")
    done(site.appliance, "function", "add", "other", "--endpoint", "http://127.0.0.1:1")
    site.configure(f"[[function]]\nname = 'mine'\nendpoint = '{served.url}'\n"
                   f"[[function]]\nname = '*'\nendpoint = '{served.url}'")
    served.end()
    address = served.url.removeprefix("http://")
    served = runner(FUNCTION, site.appliance.endpoint, listen=address, TARGET=str(site.target))
    taken = run(site.appliance, "function", "add", "mine", "--endpoint", served.url)
    assert taken.returncode == 1 and "configuration has a function mine" in taken.stderr
    site.rotated(site.rotate("mine"))
    site.rotated(site.rotate("anything"))
    site.rotate("other")
    assert "can't be reached" in site.reason(), "what is registered comes before `*`"


@pytest.mark.parametrize("member, value, code", [
    ("FunctionName", "", "ValidationException"),
    ("FunctionName", "a/b", "ValidationException"),
    ("FunctionName", "*", "ValidationException"),
    ("FunctionName", "x" * 65, "ValidationException"),
    ("FunctionName", None, "ValidationException"),
    ("FunctionName", 1, "SerializationException"),
    ("FunctionName", "strongroom-mine", "InvalidParameterException"),
    ("Endpoint", "http://example.com", "InvalidParameterException"),
    ("Endpoint", "file:///etc/passwd", "InvalidParameterException"),
    ("Endpoint", "https://" + "x" * 2048, "ValidationException"),
    ("Endpoint", None, "ValidationException"),
    ("DeadlineSeconds", 0, "ValidationException"),
    ("DeadlineSeconds", 901, "ValidationException"),
    ("DeadlineSeconds", "x", "SerializationException"),
    ("Credentials", "x", "SerializationException"),
    ("CertificateAuthorities", "garbage", "InvalidParameterException"),
    ("CertificateAuthorities", "x" * 16385, "ValidationException"),
    # There is no way to name a program, and so to run code on the appliance.
    ("Endpoint", "/bin/sh", "InvalidParameterException"),
])
def test_what_can_t_be_registered_is_refused(appliance, member, value, code):
    given = {"FunctionName": "bad", "Endpoint": "https://lambda.example.com", member: value}
    answer = appliance.rest("POST", "/functions", {k: v for k, v in given.items() if v is not None})
    assert (answer.status, answer.json["title"]) == (400, code), answer
    named = {"FunctionName": "bad", "Program": ["/bin/sh"]}
    assert appliance.rest("POST", "/functions", named).json["title"] == "ValidationException"
    assert appliance.rest("GET", "/functions").json == {"Functions": []}


def test_an_account_has_a_hundred_functions_at_most(own_appliance):
    appliance = own_appliance()
    for n in range(100):
        given = {"FunctionName": f"f-{n}", "Endpoint": "https://lambda.example.com"}
        assert appliance.rest("POST", "/functions", given).status == 200
    more = appliance.rest("POST", "/functions", {**given, "FunctionName": "more"})
    assert more.json["title"] == "LimitExceededException"
    assert appliance.rest("POST", "/functions", {**given, "Replace": True}).status == 200
    assert len(appliance.rest("GET", "/functions").json["Functions"]) == 100


def test_who_may_keep_functions_is_said_as_of_aws_lambda(appliance, name):
    """Each operation by its own action on the function's ARN alone; nothing of Secrets Manager's is it."""
    person = Person(appliance, appliance.client("iam"))
    account, region = appliance.account_id, appliance.region
    arn = f"arn:aws:lambda:{region}:{account}:function:{name}"
    new = {"FunctionName": name, "Endpoint": "https://lambda.example.com"}
    asked = {
        "lambda:CreateFunction": ("POST", "/functions", new),
        "lambda:ListFunctions": ("GET", "/functions", None),
        "lambda:DeleteFunction": ("DELETE", f"/functions/{name}", None),
    }
    ask = lambda action: appliance.rest(*asked[action], credentials=person.credentials)  # noqa: E731
    for action in asked:
        person.may(statement(action="secretsmanager:*"))
        answer = ask(action)
        assert answer.status == 403, answer
        assert f"is not authorized to perform: {action} on resource: arn:" in answer.json["detail"]
        person.may({"Effect": "Allow", "NotAction": action, "Resource": "*"})
        assert ask(action).status == 403
        person.may(statement(), statement("Deny", action))
        assert "explicit deny" in ask(action).json["detail"]
        elsewhere = f"arn:aws:lambda:{region}:{account}:function:other"
        person.may(statement(action=action, resource=elsewhere))
        assert ask(action).status == 403
        person.may(statement(action=action, resource="*" if "List" in action else arn))
        assert ask(action).status == 200
    (log,) = appliance.directory.rglob("audit.jsonl")

    def made():
        records = [json.loads(line) for line in log.read_text().splitlines() if name in line]
        new = [r for r in records if r["eventName"] == "CreateRotationFunction"]
        return [r for r in new if "errorCode" not in r]

    # A change's record is on its way to the log for a moment.
    wait(made)
    (record,) = made()
    assert record["requestParameters"]["endpoint"] == "https://lambda.example.com"
    assert record["responseElements"] == {"aRN": arn, "name": name}
    assert [resource["ARN"] for resource in record["resources"]] == [arn]


# `serve-python`


def test_a_handler_runs_as_at_aws(runner):
    served = runner(f"{HANDLERS}:returns", "http://127.0.0.1:1")
    arn = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:x-AbCdEf"
    given = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key", "AWS_SESSION_TOKEN": "token"}
    context = base64.b64encode(json.dumps({"custom": {**given, "PYTHONPATH": "/x"}}).encode())
    headers = {"X-Amz-Client-Context": context.decode()}
    told = served.returned({"SecretId": arn, "text": "\u00e9"}, name="mine", headers=headers,
                           query="?Qualifier=blue")
    assert told["event"] == {"SecretId": arn, "text": "\u00e9"}
    environment = told["environment"]
    assert given.items() <= environment.items() and "PYTHONPATH" not in environment
    assert environment["AWS_REGION"] == environment["AWS_DEFAULT_REGION"] == "eu-west-1"
    for name in ("SECRETS_MANAGER_ENDPOINT", "AWS_ENDPOINT_URL_SECRETS_MANAGER"):
        assert environment[name] == "http://127.0.0.1:1"
    assert told["function_name"] == "mine"
    assert told["arn"] == "arn:aws:lambda:eu-west-1:111122223333:function:mine:blue"
    assert uuid.UUID(told["request"]) and 0 < told["left"] <= 60_000
    # The next one has none of it.
    told = served.returned({})
    assert "AWS_SESSION_TOKEN" not in told["environment"]
    assert told["environment"]["AWS_SECRET_ACCESS_KEY"] == "of the runner"
    assert "printed by a handler" in served.end()


def test_what_goes_wrong_is_told_as_at_aws(runner):
    told = runner(f"{HANDLERS}:raises", "http://127.0.0.1:1").raised({})
    assert (told["errorType"], told["errorMessage"]) == ("KeyError", "'no such thing'")
    assert uuid.UUID(told["requestId"])
    (frame,) = told["stackTrace"]
    assert re.match(r'  File ".*handlers\.py", line \d+, in raises\n', frame)
    for handler, event, kind, text in [
        ("exits", {"status": 3}, "Runtime.ExitError", "Runtime exited with error: exit status 3"),
        ("exits", {"status": 0}, "Runtime.ExitError", "Runtime exited without providing a reason"),
        ("is_killed", {}, "Runtime.ExitError", "Runtime exited with error: signal 9"),
        ("returns_nonsense", {}, "Runtime.MarshalError",
         "Unable to marshal response: Object of type object is not JSON serializable"),
        ("returns_too_much", {}, "Function.ResponseSizeTooLarge",
         "Response payload size exceeded maximum allowed (6291456 bytes)"),
        ("nobody", {}, "Runtime.HandlerNotFound", "Handler 'nobody' missing on module 'handlers'"),
    ]:
        told = runner(f"{HANDLERS}:{handler}", "http://127.0.0.1:1").raised(event)
        assert told["errorType"] == kind and told["errorMessage"].endswith(text), told


def test_a_file_that_is_no_module_is_told(runner, tmp_path):
    (tmp_path / "broken.py").write_text("def (")
    told = runner(tmp_path / "broken.py", "http://127.0.0.1:1").raised({})
    assert told["errorType"] == "Runtime.UserCodeSyntaxError"
    (tmp_path / "lacking.py").write_text("import no_such_module")
    told = runner(tmp_path / "lacking.py", "http://127.0.0.1:1").raised({})
    assert told["errorMessage"] == "Unable to import module 'lacking': No module named 'no_such_module'"
    served = runner(f"{HANDLERS}:returns", "http://127.0.0.1:1", python="/no/such/python")
    assert served.raised({})["errorType"] == "Runtime.StartError"


def test_garbage_that_a_handler_prints_is_no_answer(runner):
    assert runner(f"{HANDLERS}:prints_garbage", "http://127.0.0.1:1").returned({}) == "well"


def test_when_its_time_is_over_a_handler_and_its_children_are_ended(runner, tmp_path):
    pids = tmp_path / "pids"
    served = runner(f"{HANDLERS}:hangs", "http://127.0.0.1:1", "--timeout", "2", PIDS=str(pids))
    told = served.raised({})
    assert told["errorType"] == "Sandbox.Timedout"
    assert told["errorMessage"].endswith("Task timed out after 2.00 seconds")
    assert len(pids.read_text().split()) == 2
    wait(lambda: not any(map(lives, pids.read_text().split())))


@pytest.mark.parametrize("who", ["caller", "runner"])
def test_whoever_goes_away_ends_the_invocation(runner, tmp_path, who):
    pids = tmp_path / "pids"
    served = runner(f"{HANDLERS}:hangs", "http://127.0.0.1:1", PIDS=str(pids))
    request = "POST /2015-03-31/functions/f/invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(request.encode())
        wait(lambda: pids.exists() and len(pids.read_text().split()) == 2)
        assert all(map(lives, pids.read_text().split()))
        if who == "runner":
            served.process.kill()
    wait(lambda: not any(map(lives, pids.read_text().split())))


def test_requests_that_run_nothing(runner):
    served = runner(f"{HANDLERS}:returns", "http://127.0.0.1:1")
    for status, kind, more in [
        (400, "InvalidRequestContentException", {"event": b"{"}),
        (400, "InvalidParameterValueException", {"headers": {"X-Amz-Client-Context": "%"}}),
        (400, "InvalidParameterValueException", {"headers": {"X-Amz-Invocation-Type": "Event"}}),
        (403, "AccessDeniedException", {"headers": {"Origin": "https://example.com"}}),
        (404, "ResourceNotFoundException", {"name": "a/b"}),
        (413, "RequestTooLargeException", {"event": b"x" * ((6 << 20) + 1)}),
    ]:
        got, headers, _ = served.invoke(**{"event": {}, **more})
        assert (got, headers["X-Amzn-ErrorType"]) == (status, kind)


@pytest.mark.parametrize("arguments, text", [
    (["--listen", "0.0.0.0:0"], "only loopback"),
    (["--timeout", "901"], "1..=900"),
    ([], "--endpoint-url"),
])
def test_a_runner_that_is_refused(arguments, text):
    command = [binary(), "function", "serve-python", HANDLERS, *arguments]
    ran = subprocess.run(command, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True,
                         timeout=PATIENCE)
    assert ran.returncode != 0 and text in ran.stderr, ran.stderr


# Programs


def test_a_function_in_the_style_of_aws_s_is_a_program_unchanged(site):
    environment = ["/usr/bin/env", f"TARGET={site.target}"]
    site.program("program", *environment, sys.executable, FUNCTION)
    site.rotated(site.rotate("program"))
    refused("AccessDeniedException", site.rotate, function="program:blue")
    taken = run(site.appliance, "function", "add", "program", "--endpoint", "http://127.0.0.1:1")
    assert "configuration has a function program" in taken.stderr


def script(tmp_path, text):
    """A function that is a Python script: `event` is what it is told."""
    file = tmp_path / f"{uuid.uuid4()}.py"
    file.write_text(f"import json, os, sys, time\nevent = json.load(sys.stdin)\n{text}\n")
    return [sys.executable, file]


def test_a_program_s_environment_is_its_own(site, tmp_path):
    told = tmp_path / "told"
    text = f"open({str(told)!r}, 'w').write(json.dumps([dict(os.environ), event, os.getcwd()]))"
    site.program("mine", *script(tmp_path, text))
    token = site.rotate("mine")
    assert site.reason() == "createSecret has ended and AWSPENDING has no value"
    environment, event, folder = json.loads(told.read_text())
    assert set(event) == {"Step", "SecretId", "ClientRequestToken", "RotationToken"}
    assert (event["Step"], event["ClientRequestToken"], folder) == ("createSecret", token, "/")
    # What Python adds for itself.
    environment.pop("LC_CTYPE", None)
    assert set(environment) == {
        "PATH", "LANG", "HOME", "AWS_REGION", "AWS_DEFAULT_REGION", "SECRETS_MANAGER_ENDPOINT",
        "AWS_ENDPOINT_URL_SECRETS_MANAGER", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
    }
    assert environment["SECRETS_MANAGER_ENDPOINT"] == site.appliance.endpoint
    given = Credentials(*(environment[name] for name in (
        "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")))
    other = site.client.create_secret(Name=f"{site.name}-other", SecretString="x")["ARN"]
    theirs = site.appliance.client("secretsmanager", credentials=given)
    assert theirs.get_secret_value(SecretId=site.name)["Name"] == site.name
    refused("AccessDeniedException", theirs.get_secret_value, SecretId=other)


def test_a_program_has_no_credentials_if_it_has_its_own_and_another_appliance_if_it_is_told(
    site, tmp_path
):
    told = tmp_path / "told"
    text = f"open({str(told)!r}, 'w').write(json.dumps(dict(os.environ)))"
    more = {"credentials": False, "appliance_url": "https://strongroom.example.com",
            "appliance_ca": "/etc/ca.pem"}
    site.program("mine", *script(tmp_path, text), **more)
    site.rotate("mine")
    site.reason()
    environment = json.loads(told.read_text())
    assert not any(name.startswith("AWS_SECRET") for name in environment)
    assert environment["AWS_CA_BUNDLE"] == "/etc/ca.pem"
    for name in ("SECRETS_MANAGER_ENDPOINT", "AWS_ENDPOINT_URL_SECRETS_MANAGER"):
        assert environment[name] == "https://strongroom.example.com"


@pytest.mark.parametrize("text, reason", [
    ("raise ValueError('no login')", r"the program ended with status 1: .*\nValueError: no login"),
    ("sys.exit(7)", "the program ended with status 7"),
    ("os.kill(os.getpid(), 9)", "the program was ended by signal 9"),
    ("time.sleep(600)", "the program did not end within 2 s"),
    ("os.write(1, os.urandom(1 << 20)); os.write(2, b'\\xff\\x00' * 100000); sys.exit(1)",
     r"the program ended with status 1: [\ufffd\0]{500}"),
    # The value is quoted far before the end that would be passed on.
    ("print('first password', file=sys.stderr); print('x' * 5000, file=sys.stderr); sys.exit(1)",
     "the program ended with status 1; what it says may quote the secret and is left out"),
    ("os.execv('/no/such/program', ['x'])", r"the program ended with status 1: .*No such file.*"),
])
def test_what_goes_wrong_with_a_program_is_told(site, tmp_path, text, reason):
    site.program("bad", *script(tmp_path, text), deadline_seconds=2)
    site.rotate("bad")
    assert re.fullmatch(reason, site.reason(), re.DOTALL), site.reason()
    assert site.stages()[site.first["VersionId"]] == ["AWSCURRENT"]
    assert site.target.read_text() == FIRST
    site.client.cancel_rotate_secret(SecretId=site.name)


def test_a_program_that_is_not_there_is_told(site):
    site.program("bad", "/no/such/program")
    site.rotate("bad")
    assert site.reason() == "the program can't be started: No such file or directory (os error 2)"


BEYOND = """
import boto3, ctypes
from botocore.exceptions import ClientError
found = []
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
# PTRACE_SEIZE of the appliance, which is not far up the line of parents.
if libc.ptrace(0x4206, {pid}, 0, 0) == 0:
    found.append("ptrace")
try:
    os.kill({pid}, 0)
    found.append("kill")
except PermissionError:
    pass
try:
    open("/proc/{pid}/environ").read()
    found.append("environ")
except PermissionError:
    pass
client = boto3.client("secretsmanager")
for call in (
    lambda: client.get_secret_value(SecretId={other!r}),
    lambda: client.list_secrets(),
    lambda: client.delete_secret(SecretId=event["SecretId"]),
    lambda: client.rotate_secret(SecretId=event["SecretId"]),
):
    try:
        call()
        found.append("a call")
    except ClientError as error:
        assert error.response["Error"]["Code"] == "AccessDeniedException", error
sys.exit(f"found {{found}}")
"""


def test_a_program_reaches_nothing_but_its_secret(site, tmp_path):
    other = site.client.create_secret(Name=f"{site.name}-other", SecretString="x")["ARN"]
    file = tmp_path / "beyond.py"
    site.program("beyond", sys.executable, file)
    text = BEYOND.format(pid=site.appliance.process.pid, other=other)
    file.write_text(f"import json, os, sys, time\nevent = json.load(sys.stdin)\n{text}\n")
    site.rotate("beyond")
    major, minor = map(int, os.uname().release.split(".")[:2])
    # Who runs as root reads what it likes of /proc; before Linux 6.12 signals go everywhere.
    allowed = (["kill"] if (major, minor) < (6, 12) else []) + (["environ"] if os.getuid() == 0 else [])
    assert site.reason() == f"the program ended with status 1: found {allowed}"


def test_a_program_ends_with_the_appliance(site, tmp_path):
    """Killed as by a power cut, the appliance leaves nobody behind who goes on with the step."""
    pids = tmp_path / "pids"
    text = f"""
if os.path.exists({str(pids)!r}):
    sys.exit("again")
child = os.fork()
open({str(pids)!r}, 'a').write(str(os.getpid()) + "\\n")
time.sleep(600)
"""
    site.program("hangs", *script(tmp_path, text))
    site.rotate("hangs")
    wait(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    assert all(map(lives, pids.read_text().split()))
    site.appliance.kill()
    wait(lambda: not any(map(lives, pids.read_text().split())))
    site.appliance.start()
    assert site.reason() == "the program ended with status 1: again"


def test_a_rotation_that_is_cancelled_while_a_program_runs(site, tmp_path):
    """It is not heard until the step is over; what it brings counts no more."""
    go = tmp_path / "go"
    site.program("slow", *script(tmp_path, f"while not os.path.exists({str(go)!r}): time.sleep(0.1)"))
    token = site.rotate("slow")
    wait(lambda: token in site.stages())
    site.client.cancel_rotate_secret(SecretId=site.name)
    go.touch()
    time.sleep(0.5)
    assert site.stages() == {site.first["VersionId"]: ["AWSCURRENT"]}
    assert "InProgress" not in site.shown()
