"""Who holds which keys is changed while the server serves: under load, through a kill, by who may."""

import contextlib
import json
import random
import re
import shutil
import sqlite3
import threading
import tomllib
import urllib.request
import uuid

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from test_holders import PATIENCE, Server, await_true, third_token
from test_tokens import KRYOPTIC, swtpm
from two_tokens import with_two_tokens

# docs/envelope.md: what stands before the wraps, and of each of them under `ecdh`.
HEADER, POINT, CHECK, WRAPPED = 99, 65, 8, 40


class Load:
    """Threads that write secrets and read back what they wrote, until they are stopped."""

    def __init__(self, server, keys, threads=3):
        self.written, self.faults = {}, []
        self.stopping = threading.Event()
        work = [
            threading.Thread(target=self.run, args=(server.client("secretsmanager"), n, keys))
            for n in range(threads)
        ]
        self.threads = work
        for thread in work:
            thread.start()

    def run(self, secrets, n, keys):
        """One thread: a new secret, a new value of one that is there, a read."""
        chance, own, count = random.Random(n), [], 0
        while not self.stopping.is_set():
            count += 1
            name, value = f"load-{n}-{count}", f"value {count}"
            try:
                if own and count % 3:
                    name = chance.choice(own)
                    secrets.put_secret_value(SecretId=name, SecretString=value)
                else:
                    secrets.create_secret(Name=name, SecretString=value, **chance.choice(keys))
                    own.append(name)
                self.written[name] = value
                read = secrets.get_secret_value(SecretId=name)["SecretString"]
                assert read == value, (name, read, value)
            except Exception as fault:  # whatever it is, the load has noticed the change
                self.faults.append(fault)
            # What is written has to be sealed anew at each change: that must not outgrow the test.
            self.stopping.wait(0.03)

    def more(self, count=12):
        """Waits until so many more were written."""
        end = len(self.written) + count
        await_true(lambda: len(self.written) >= end or self.faults)
        assert self.faults == []

    def stop(self):
        """Ends it; nothing went wrong."""
        self.stopping.set()
        for thread in self.threads:
            thread.join()
        assert self.faults == []


@contextlib.contextmanager
def load(server, *keys):
    """A load under these KMS keys, and the default one."""
    running = Load(server, [{}, *({"KmsKeyId": key} for key in keys)])
    try:
        yield running
    finally:
        running.stopping.set()
        for thread in running.threads:
            thread.join()


class Online(Server):
    """A server whose command line asks the running one."""

    def ask(self, command, *arguments, credentials=None):
        """`strongroom hsm holder` over the endpoint."""
        given = credentials or self.credentials
        environment = {name.upper(): value for name, value in given.items()}
        kept, self.environment = self.environment, self.environment | environment | {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
        }
        try:
            return self.cli("hsm", "holder", command, *arguments)
        finally:
            self.environment = kept

    def online(self, command, *arguments):
        """The same where it succeeds: what it says."""
        ran = self.ask(command, *arguments)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def pending(self):
        """What /metrics says of data keys for holders of before."""
        return self.metrics()["strongroom_reseal_pending"]

    def stored(self):
        """Of each stored data key the KMS key, and whether it is sealed to exactly its holders of now."""
        with contextlib.closing(sqlite3.connect(self.database())) as database:
            keys = {}
            for (document,) in database.execute("SELECT doc FROM kms_key"):
                for backing in json.loads(document)["backing"]:
                    checks = [bytes(holder["check"]).hex() for holder in backing["holders"]]
                    keys[backing["id"]] = checks
            rows = database.execute("SELECT data_key FROM version").fetchall()
        return [sealed_to(bytes(data_key)) == keys[data_key[19:35].hex()] for (data_key,) in rows]

    def database(self):
        """The database's file."""
        return self.configuration.parent / "store" / "strongroom.db"


def sealed_to(envelope):
    """The check values of the keys that an envelope is sealed to."""
    count, entries = envelope[HEADER], HEADER + 1 + POINT
    size = CHECK + WRAPPED
    return [envelope[at : at + CHECK].hex() for at in range(entries, entries + count * size, size)]


def test_tokens_come_and_go_under_load_and_the_last_one_opens_everything(tmp_path):
    server = Online(tmp_path / "appliance", {})
    state = tmp_path / "state"
    with contextlib.ExitStack() as tpm:
        device = tpm.enter_context(swtpm(state))
        server.init("--profile", "swtpm", "--token-device", device, "--second-profile", "softhsm2")
        with server.serving() as (kms, secrets):
            key = kms.create_key()["KeyMetadata"]["KeyId"]
            kms.rotate_key_on_demand(KeyId=key)
            for n in range(60):
                secrets.create_secret(Name=f"before-{n}", SecretString=f"{n}", KmsKeyId=key)
        third_token(tmp_path, server)

        with server.serving() as (kms, secrets), load(server, key) as running:
            running.more()
            out = server.online("add", "--token", "third", "--all")
            assert f"key {key}: held by `third` now (2 generations)" in out, out
            assert "store key: held by `third` now" in out
            running.more()
            out = server.online("add", "--token", "third", "--all", "--wait")
            assert "What the store holds is sealed to the holders." in out
            assert server.pending() == "0" and "being sealed" not in server.online("list")
            running.more()
            for token in ("main", "second"):
                out = server.online("remove", "--token", token, "--all", "--wait")
                assert f"key {key}: held by `{token}` no more (2 generations)" in out, out
                assert f"store key: held by `{token}` no more" in out and "ReEncrypt" in out
                running.more()
            running.stop()
            listed = server.online("list")
            assert "store key: `third`\n" in listed and "second" not in listed, listed
            assert f"key {key}: ecdh, `third`\n" in listed
            assert "(alias/aws/secretsmanager): ecdh, `third`" in listed
            # One that opens what it opened before: no restart was needed.
            tpm.close()
            shutil.rmtree(state)
            assert secrets.get_secret_value(SecretId="before-7")["SecretString"] == "7"
        assert all(server.stored()) and len(server.stored()) > 90

    shutil.rmtree(server.configuration.parent / "tokens-second")
    for name in ("main", "second"):
        server.forget(name)
    with server.serving() as (_, secrets):
        for name, value in running.written.items():
            assert secrets.get_secret_value(SecretId=name)["SecretString"] == value
        for n in range(60):
            assert secrets.get_secret_value(SecretId=f"before-{n}")["SecretString"] == f"{n}"


def test_changes_under_load_leave_nothing_sealed_to_holders_of_before(tmp_path):
    """Nor a generation that one of them lacks. The moment between sealing and writing is short: what
    becomes of a version that was sealed before a change and is written after it is for the crate's own
    tests to prove, in `secrets/seal.rs`."""
    server = Online(tmp_path / "appliance", {})
    server.init("--profile", "softhsm2", "--second-profile", "kryoptic", "--second-module", KRYOPTIC)
    with server.serving() as (kms, _):
        key = kms.create_key()["KeyMetadata"]["KeyId"]
        with load(server, key) as running:
            running.more()
            for _ in range(4):
                for command in ("remove", "add"):
                    rotate = patiently(kms.rotate_key_on_demand)
                    turning = threading.Thread(target=rotate, args=(key,))
                    turning.start()
                    change = ("--token", "second", "--all", "--wait")
                    ran = server.ask(command, *change)
                    while ran.returncode != 0 and "was changed meanwhile" in ran.stderr:
                        ran = server.ask(command, *change)
                    assert ran.returncode == 0, ran.stderr
                    turning.join()
            running.more()
            running.stop()
        rotated = len(kms.list_key_rotations(KeyId=key)["Rotations"])
        assert rotated > 0
        await_true(lambda: server.pending() == "0")
        listed = server.online("list")
        assert "generations" not in listed.replace(f"({rotated + 1} generations)", ""), listed
    assert len(server.stored()) > 60 and all(server.stored())


def patiently(call):
    """A call that is repeated while changes of holders get in its way."""

    def run(key):
        done = False
        while not done:
            try:
                done = bool(call(KeyId=key))
            except ClientError as error:
                assert error.response["Error"]["Code"] == "ConflictException", error

    return run


def test_a_killed_server_goes_on_where_it_was(tmp_path):
    server = Online(tmp_path / "appliance", {})
    count = 400
    with swtpm(tmp_path / "state") as device:
        server.init("--profile", "swtpm", "--token-device", device, "--no-recovery")
        text = server.configuration.read_text()
        text = text.replace("\n[token]\n", "\n[[token]]\n").replace('"hmac-kdf"', '"ecdh"')
        if "scheme" not in text:
            text = text.replace("\n[[token]]\n", '\n[[token]]\nscheme = "ecdh"\n')
        server.configuration.write_text(text)
        third_token(tmp_path, server)
        text = server.configuration.read_text().replace("holds_new_keys = true\n", "")
        server.configuration.write_text(text)
        with server.serving() as (kms, secrets):
            key = kms.create_key()["KeyMetadata"]["KeyId"]
            for n in range(count):
                secrets.create_secret(Name=f"s-{n}", SecretString=f"{n}", KmsKeyId=key)
            assert server.pending() == "0"
            server.online("add", "--token", "third", "--key", key)
            # From the very moment of the change.
            assert server.pending() == "1"
            ran = server.ask("remove", "--token", "main", "--key", key)
            assert ran.returncode == 1 and "ConflictException" in ran.stderr, ran.stderr
            assert "not yet sealed to all its holders" in ran.stderr
            await_true(lambda: int(server.metrics()["strongroom_reseal_resealed_total"]) > 20)
            server.process.kill()
            server.process.wait()
        done = sum(server.stored())
        assert 20 < done < count
        with server.serving() as (_, secrets):
            out = server.online("add", "--token", "third", "--key", key, "--wait")
            assert "is sealed to the holders" in out and "held by" not in out
            assert int(server.metrics()["strongroom_reseal_resealed_total"]) == count - done
            assert server.pending() == "0"
        assert all(server.stored()) and len(server.stored()) == count


def test_a_holder_is_removed_when_what_is_stored_is_sealed_to_the_others(tmp_path):
    server = Online(tmp_path / "appliance", {})
    server.init("--profile", "softhsm2", "--second-profile", "kryoptic", "--second-module", KRYOPTIC)
    tokens = server.configuration.parent / "tokens"
    with server.serving() as (kms, secrets):
        key = kms.create_key()["KeyMetadata"]["KeyId"]
        secrets.create_secret(Name="it", SecretString="stays", KmsKeyId=key)
        server.online("remove", "--token", "second", "--key", key, "--wait")
    tokens.rename(tmp_path / "away")
    with server.serving():
        # The one token that opens it is away, so neither is the new one made a holder ...
        ran = server.ask("add", "--token", "second", "--key", key)
        assert ran.returncode == 1 and "is not available" in ran.stderr, ran.stderr
        (tmp_path / "away").rename(tokens)
        await_true(lambda: server.ask("add", "--token", "second", "--key", key).returncode == 0)
        server.online("add", "--token", "second", "--key", key, "--wait")
    serial = {
        token["name"]: token["serial"]
        for token in tomllib.loads(server.configuration.read_text())["token"]
    }
    # ... nor, when it is one, is the other removed before everything is sealed to it.
    with server.serving():
        server.online("remove", "--token", "main", "--key", key, "--wait")
        server.online("add", "--token", "main", "--key", key, "--wait")
        ran = server.ask("remove", "--token", serial["main"], "--key", key)
        assert ran.returncode == 1 and "no token is named" in ran.stderr
        out = server.online("remove", "--token", serial["main"], "--lost", "--key", key, "--wait")
        assert "no more (1 generation)" in out


OTHER = "111122223333"


@pytest.fixture(scope="module")
def changing(tmp_path_factory):
    """A server with a second token that holds nothing yet, and a second account."""
    server = Online(tmp_path_factory.mktemp("changing") / "appliance", {})
    server.init("--profile", "softhsm2", "--second-profile", "kryoptic", "--second-module", KRYOPTIC)
    added = server.cli("account", "add", "--config", server.configuration, "--account", OTHER)
    assert added.returncode == 0, added.stderr
    exported = dict(re.findall(r"export (AWS_\w+)=(\S+)", added.stdout))
    server.other = {name.lower(): exported[name] for name in exported if "KEY" in name}
    text = server.configuration.read_text()
    assert "holds_new_keys = true" in text
    server.configuration.write_text(text.replace("holds_new_keys = true", ""))
    with server.serving():
        server.online("remove", "--token", "second", "--all", "--wait")
        yield server


def asked(server, operation, body, credentials=None):
    """Has an operation of KMS done; HTTP status and answer."""
    given = credentials or server.credentials
    keys = Credentials(given["aws_access_key_id"], given["aws_secret_access_key"])
    headers = {
        "content-type": "application/x-amz-json-1.1",
        "x-amz-target": f"TrentService.{operation}",
    }
    request = AWSRequest("POST", server.endpoint + "/", headers, json.dumps(body))
    SigV4Auth(keys, "kms", "us-east-1").add_auth(request)
    sent = request.prepare()
    plain = urllib.request.Request(sent.url, sent.body.encode(), dict(sent.headers.items()))
    try:
        with urllib.request.urlopen(plain, timeout=PATIENCE) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def refusal(server, operation, body, credentials=None):
    """The code and text of a refusal."""
    status, answer = asked(server, operation, body, credentials)
    assert status == 400, (status, answer)
    return answer["__type"].rpartition("#")[2], answer.get("message") or answer.get("Message")


TOKEN = {"Token": "second"}
CHANGES = {
    "ListKeyHolders": {},
    "AddKeyHolder": TOKEN,
    "RemoveKeyHolder": TOKEN,
    "ListStoreKeyHolders": None,
    "AddStoreKeyHolder": TOKEN,
    "RemoveStoreKeyHolder": TOKEN,
}


def person(server):
    """A user without rights: its name, ARN and access key."""
    iam, name = server.client("iam"), f"user-{uuid.uuid4()}"
    arn = iam.create_user(UserName=name)["User"]["Arn"]
    key = iam.create_access_key(UserName=name)["AccessKey"]
    named = {"aws_access_key_id": key["AccessKeyId"]}
    return name, arn, named | {"aws_secret_access_key": key["SecretAccessKey"]}


def statement(effect, **more):
    return {"Effect": effect, "Resource": "*", **more}


@pytest.mark.parametrize("named", ["own", "alias/aws/secretsmanager"])
@pytest.mark.parametrize("operation", CHANGES)
def test_each_change_needs_its_action_and_that_alone(changing, operation, named):
    """The key policy of the AWS-managed key speaks of its use alone: there IAM's policies decide."""
    server, iam = changing, changing.client("iam")
    of_store = "Store" in operation
    key = server.client("kms").create_key()["KeyMetadata"]["Arn"] if named == "own" else named
    body = (CHANGES[operation] or {}) | ({} if of_store else {"KeyId": key})
    holders = {"KeyId": key}
    name, arn, credentials = person(server)
    action = f"kms:{operation}"

    def may(*statements):
        document = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
        iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=document)

    before = asked(server, "ListKeyHolders", holders), asked(server, "ListStoreKeyHolders", {})
    code, text = refusal(server, operation, body, credentials)
    assert code == "AccessDeniedException"
    assert text.startswith(f"User: {arn} is not authorized to perform: {action} on "), text
    may({"Effect": "Allow", "NotAction": action, "Resource": "*"})
    assert refusal(server, operation, body, credentials)[0] == "AccessDeniedException"
    may(statement("Allow", Action="*"), statement("Deny", Action=action))
    code, text = refusal(server, operation, body, credentials)
    assert code == "AccessDeniedException" and "explicit deny" in text
    # Of another account not even an administrator.
    known = asked(server, "ListKeyHolders", holders)[1]
    elsewhere = body if of_store else body | {"KeyId": known["KeyId"]}
    assert refusal(server, operation, elsewhere, server.other)[0] == "AccessDeniedException"
    assert before == (
        asked(server, "ListKeyHolders", holders),
        asked(server, "ListStoreKeyHolders", {}),
    )
    may(statement("Allow", Action=action))
    status, answer = asked(server, operation, body, credentials)
    assert status == 200, answer
    # That of a change comes by way of the database.
    await_true(lambda: "errorCode" not in records(server, operation, arn)[-1])
    told = [record for record in records(server, operation, arn) if "errorCode" not in record]
    assert len(told) == 1
    assert (told[0]["requestParameters"] or {}).get("token") == body.get("Token")


def records(server, operation, arn):
    """The audit log's records of what somebody asked for."""
    log = server.configuration.parent / "audit.jsonl"
    all_of_them = (json.loads(line) for line in log.read_text().splitlines())
    return [
        record
        for record in all_of_them
        if record["eventName"] == operation and record["userIdentity"]["arn"] == arn
    ]


def test_the_key_s_own_policy_has_the_last_word(changing):
    kms = changing.client("kms")
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    account = kms.describe_key(KeyId=key)["KeyMetadata"]["AWSAccountId"]
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": f"arn:aws:iam::{account}:root"},
                "NotAction": "kms:AddKeyHolder",
                "Resource": "*",
            }
        ],
    }
    kms.put_key_policy(KeyId=key, Policy=json.dumps(policy))
    ran = changing.ask("add", "--token", "second", "--key", key)
    assert ran.returncode == 1 and "AccessDeniedException" in ran.stderr, ran.stderr
    assert "held by" not in ran.stdout


def test_a_refusal_says_what_is_the_matter(changing, tmp_path):
    kms = changing.client("kms")
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    nobody = {"KeyId": key, "Token": "nobody"}
    for operation in ("AddKeyHolder", "RemoveKeyHolder"):
        told = refusal(changing, operation, nobody)
        assert told == ("NotFoundException", "no token is named `nobody`")
    for operation in ("AddStoreKeyHolder", "RemoveStoreKeyHolder"):
        told = refusal(changing, operation, {"Token": "nobody"})
        assert told == ("NotFoundException", "no token is named `nobody`")
    code, text = refusal(changing, "RemoveKeyHolder", {"KeyId": key, "Token": "main"})
    assert code == "KMSInvalidStateException"
    assert text.startswith("`main` is the only token that holds "), text
    told = refusal(changing, "RemoveStoreKeyHolder", {"Token": "main"})
    assert told[0] == "KMSInvalidStateException"
    assert told[1] == "`main` is the only token that holds the store key"
    # What changes nothing is no fault, so that a command can be repeated.
    status, answer = asked(changing, "RemoveKeyHolder", {"KeyId": key} | TOKEN)
    assert (status, answer["Generations"]) == (200, 0)
    ran = changing.ask("add", "--token", "nobody", "--key", key)
    assert ran.returncode == 1 and "NotFoundException: no token is named `nobody`" in ran.stderr


def test_a_key_of_a_scheme_without_holders_has_one_for_good(tmp_path):
    appliance = with_two_tokens(tmp_path)
    try:
        kms = appliance.client("kms")
        key = kms.create_key()["KeyMetadata"]["KeyId"]
        store = kms.create_custom_key_store(
            CustomKeyStoreName="spare", CloudHsmClusterId=appliance.cluster
        )["CustomKeyStoreId"]
        kms.connect_custom_key_store(CustomKeyStoreId=store)
        stored = kms.create_key(Origin="AWS_CLOUDHSM", CustomKeyStoreId=store)
        stored = stored["KeyMetadata"]["KeyId"]
        for named, why in (
            (key, "a key of scheme hmac-kdf is held by one token"),
            (stored, "a key in a custom key store is held by that one's token alone"),
        ):
            body = {"KeyId": named, "Token": "spare"}
            answer = appliance.raw("TrentService.AddKeyHolder", body, check=False)
            assert (answer.status, answer.code) == (400, "UnsupportedOperationException")
            assert (answer.json.get("message") or answer.json["Message"]) == why
            listed = appliance.raw("TrentService.ListKeyHolders", {"KeyId": named}, check=False).json
            assert len(listed["Holders"]) == 1 and "Resealing" not in listed
    finally:
        appliance.stop()
