"""A running appliance, and clients for it whose every answer is checked against the models."""

import contextlib
import http.client
import json
import os
import queue
import random
import signal
import socket
import subprocess
import sys
import threading
import uuid
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from model import Model
from query import QueryModel

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60
STOP_SECONDS = 30
CALL_SECONDS = 30

TARGETS = {
    "TrentService": "kms",
    "secretsmanager": "secretsmanager",
    "CloudTrail_20131101": "cloudtrail",
}
MODELS = {service: Model(service) for service in TARGETS.values()}
QUERY_MODELS = {service: QueryModel(service) for service in ("iam", "sts")}

# Nothing of the developer's own AWS set-up may leak in.
os.environ.update(
    AWS_CONFIG_FILE=os.devnull,
    AWS_SHARED_CREDENTIALS_FILE=os.devnull,
    AWS_EC2_METADATA_DISABLED="true",
)


class Ran(NamedTuple):
    """How a run of the AWS CLI ended."""

    code: int
    out: Any
    err: str


class Answer(NamedTuple):
    """A raw answer; `headers` have lower-case names."""

    status: int
    headers: dict
    body: bytes

    @property
    def json(self):
        """The body's value."""
        return json.loads(self.body)

    @property
    def code(self):
        """The error code, without a namespace; None for a success."""
        return None if self.status == 200 else self.json["__type"].rpartition("#")[2]


class Appliance:
    """`strongroom dev` on a free port, with its state in `directory`."""

    def __init__(self, directory, *arguments):
        self.directory = Path(directory)
        self.arguments = arguments
        self.environment = {}
        self.start()

    def start(self):
        """Starts the process and waits for its one line; again after `stop`, with the same state."""
        binary = Path(os.environ.get("STRONGROOM_BIN", "target/debug/strongroom"))
        command = [ROOT / binary, "dev", "--dir", self.directory / "appliance"]
        command += ["--listen", "127.0.0.1:0", "--json", *self.arguments]
        self.log = self.directory / f"log-{uuid.uuid4()}.txt"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=os.environ | self.environment,
            )
        line = self._first_line()
        if not line:
            self.process.kill()
            self.process.wait()
            raise RuntimeError(f"no appliance: {self.log.read_text(errors='replace')}")
        ready = json.loads(line)
        self.endpoint, self.region = ready["endpoint"], ready["region"]
        self.account_id = ready["account_id"]
        self.credentials = Credentials(
            ready["access_key_id"], ready["secret_access_key"], ready["session_token"]
        )

    def _first_line(self):
        lines = queue.Queue()
        read = threading.Thread(target=lambda: lines.put(self.process.stdout.readline()))
        read.daemon = True
        read.start()
        try:
            return lines.get(timeout=START_SECONDS)
        except queue.Empty:
            return b""

    def stop(self):
        """Asks the process to end; it must drain, say nothing more, and end with success."""
        self.process.send_signal(signal.SIGTERM)
        try:
            rest, _ = self.process.communicate(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        log = self.log.read_text(errors="replace")
        assert self.process.returncode == 0, f"exit code {self.process.returncode}\n{log}"
        assert rest == b"", "stdout carries one line and no more"

    def kill(self):
        """Ends the process as a power cut would."""
        self.process.kill()
        self.process.communicate()

    def client(self, service, validate=True, credentials=None):
        """A boto3 client without retries; with `validate` off, boto3 sends what it is given."""
        given = (credentials or self.credentials).get_frozen_credentials()
        client = boto3.session.Session().client(
            service,
            endpoint_url=self.endpoint,
            region_name=self.region,
            aws_access_key_id=given.access_key,
            aws_secret_access_key=given.secret_key,
            aws_session_token=given.token,
            config=Config(
                retries={"total_max_attempts": 1},
                parameter_validation=validate,
                connect_timeout=CALL_SECONDS,
                read_timeout=CALL_SECONDS,
                proxies={},
            ),
        )
        client.meta.events.register("after-call", check_boto3_answer)
        return client

    def aws(self, *arguments):
        """Runs the AWS CLI: `aws("kms", "list-keys")`. Its answer is parsed if there is one."""
        given = self.credentials.get_frozen_credentials()
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.directory),
            "AWS_ACCESS_KEY_ID": given.access_key,
            "AWS_SECRET_ACCESS_KEY": given.secret_key,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "1",
        }
        if given.token:
            environment["AWS_SESSION_TOKEN"] = given.token
        service, *rest = map(str, arguments)
        command = [Path(sys.executable).parent / "aws", "--endpoint-url", self.endpoint]
        command += ["--output", "json", service, *rest]
        ran = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=2 * CALL_SECONDS
        )
        out = json.loads(ran.stdout) if ran.stdout.strip() else None
        return Ran(ran.returncode, out, ran.stderr)

    def signed(self, target, body, *, headers=None, credentials=None, region=None, signing=None):
        """The body and the headers of a signed request, to be altered and sent by `post`.

        `body` is bytes or a JSON value; `signing` is the service name that the signature names.
        """
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = AWSRequest(method="POST", url=self.endpoint + "/", data=data)
        request.headers["X-Amz-Target"] = target
        request.headers["Content-Type"] = "application/x-amz-json-1.1"
        for name, value in (headers or {}).items():
            del request.headers[name]
            request.headers[name] = value
        signing = signing or TARGETS.get(target.partition(".")[0], "kms")
        SigV4Auth(credentials or self.credentials, signing, region or self.region).add_auth(request)
        return data, dict(request.headers.items())

    def post(self, body, headers, path="/", method="POST"):
        """Sends exactly these bytes and headers; nothing is signed or checked."""
        url = urlsplit(self.endpoint)
        kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        connection = kind(url.hostname, url.port, timeout=CALL_SECONDS)
        try:
            connection.request(method, path, body=body, headers=headers)
            answer = connection.getresponse()
            names = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, names, answer.read())
        finally:
            connection.close()

    def rest(
        self, method, path, body=None, *, signing="secretsmanager", region=None, credentials=None
    ):
        """Signs and sends a REST request; `path` begins below `/v1` and is percent-encoded."""
        data = b"" if body is None else json.dumps(body).encode()
        path = f"/v1{path}"
        request = AWSRequest(method=method, url=self.endpoint + path, data=data)
        request.headers["Content-Type"] = "application/json"
        given = credentials or self.credentials
        SigV4Auth(given, signing, region or self.region).add_auth(request)
        return self.post(data, dict(request.headers.items()), path=path, method=method)

    def raw(self, target, body, *, check=True, **signing):
        """Signs (see `signed`), sends, and checks the answer against the model."""
        answer = self.post(*self.signed(target, body, **signing))
        if check:
            check_answer(target, answer)
        return answer


def check_answer(target, answer):
    """Checks a raw answer; one to an unknown target may be any common error."""
    prefix, _, operation = target.partition(".")
    model = MODELS[TARGETS.get(prefix, "kms")]
    known = prefix in TARGETS and model.operation(operation) is not None
    model.check(operation if known else None, *answer)


def check_boto3_answer(http_response, model, **_):
    """The hook behind every boto3 client: the raw answer, before botocore's lenience."""
    headers = {name.lower(): value for name, value in http_response.headers.items()}
    checks = (MODELS | QUERY_MODELS)[model.service_model.service_name]
    checks.check(model.name, http_response.status_code, headers, http_response.content)


def pytest_configure(config):
    """Tells pytest of our marker."""
    text = "waits: half a minute or more, until the product thinks it time; begun first, beside others"
    config.addinivalue_line("markers", text)


def pytest_collection_modifyitems(items):
    """Those that wait for long come first, so that they don't end alone."""
    items.sort(key=lambda item: item.get_closest_marker("waits") is None)


def free_port(count=1):
    """The first of so many neighbouring ports that are free. They are below those that the kernel gives
    to whoever asks for any (ip_local_port_range in ip(7)), so that hardly anybody takes them before they
    are used."""
    while True:
        first = random.randrange(10_000, 32_768 - count)
        with contextlib.ExitStack() as probes:
            try:
                for port in range(first, first + count):
                    probes.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
        return first


def error_of(call, *arguments, **members):
    """The code and the text of the error that a boto3 call must end with."""
    with pytest.raises(ClientError) as caught:
        call(*arguments, **members)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


def refused(code, call, text=None, **members):
    """Makes the call, which must fail with this code and, if given, this text; answers the text."""
    found, said = error_of(call, **members)
    assert found == code, (found, said)
    if text is not None:
        assert said == text
    return said


@pytest.fixture(scope="session")
def appliance(tmp_path_factory):
    """One appliance for all tests of a process: make your own keys and secrets, look at those alone."""
    running = Appliance(tmp_path_factory.mktemp("appliance"))
    yield running
    running.stop()


@pytest.fixture
def own_appliance(tmp_path):
    """An appliance for one test that stops, kills or counts: `own_appliance("--seed", file)`."""
    started = []

    def start(*arguments):
        started.append(Appliance(tmp_path, *arguments))
        return started[-1]

    yield start
    for running in started:
        if running.process.poll() is None:
            running.stop()


@pytest.fixture(scope="session")
def kms(appliance):
    """A checked boto3 client for KMS."""
    return appliance.client("kms")


@pytest.fixture(scope="session")
def secretsmanager(appliance):
    """A checked boto3 client for Secrets Manager."""
    return appliance.client("secretsmanager")


@pytest.fixture
def name():
    """A name that no other test uses."""
    return f"test-{uuid.uuid4()}"
