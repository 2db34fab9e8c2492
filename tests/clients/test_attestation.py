"""What the token says of a key, asked of the real server and checked offline by the real program."""

import base64
import hashlib
import json
import os
import subprocess
import uuid
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from conftest import ROOT, Appliance
from test_authorization import Person, statement
from test_tokens import TOKENS
from test_trail import records, soon, strongroom

NONCE = "00112233445566778899aabbccddeeff"


@pytest.fixture(scope="module")
def appliance(tmp_path_factory):
    """An appliance of this file's own: it changes rights, and its audit log is short."""
    running = Appliance(tmp_path_factory.mktemp("attestation"))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def key(appliance):
    """A key of two materials, under an alias: its ARN."""
    kms = appliance.client("kms")
    made = kms.create_key()["KeyMetadata"]["Arn"]
    kms.create_alias(AliasName="alias/attested", TargetKeyId=made)
    kms.rotate_key_on_demand(KeyId=made)
    return made


@pytest.fixture(scope="module")
def attested(appliance, key, tmp_path_factory):
    """The attestation's file."""
    file = tmp_path_factory.mktemp("attested") / "key.json"
    ran = strongroom(appliance, "hsm", "attest", "alias/attested", "--nonce", NONCE, "--out", file)
    assert ran.returncode == 0, ran.stderr
    assert f"Key      {key}\n" in ran.stdout and f"Nonce    {NONCE}\n" in ran.stdout
    assert "(software)" in ran.stdout and ran.stdout.count("never extractable  yes") == 2
    return file


def public_key(appliance):
    return audit(appliance) / "checkpoint.pub"


def audit(appliance):
    """The folder of the audit log's tree. It is not searched: files come and go in it."""
    return appliance.directory / "appliance" / "audit"


def objects(appliance):
    """SoftHSM's files, one for each object."""
    return set((appliance.directory / "appliance" / "tokens").rglob("*.object"))


def verify(file, key, *arguments):
    """Runs `strongroom hsm verify`, which needs no environment; answers exit code and report."""
    binary = ROOT / Path(os.environ.get("STRONGROOM_BIN", "target/debug/strongroom"))
    ran = subprocess.run(
        [binary, "hsm", "verify", file, "--key", key, "--json", *arguments],
        env={},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return ran.returncode, json.loads(ran.stdout)


def rest(appliance, key, query="", **more):
    path = f"/keys/{key.rpartition('/')[2]}/attestation{query}"
    return appliance.rest("GET", path, signing="kms", **more)


def test_a_software_token_s_attestation_says_that_it_proves_nothing(appliance, key, attested):
    code, report = verify(attested, public_key(appliance), "--nonce", NONCE.upper())
    assert (code, report["verdict"], report["findings"]) == (2, "unproven", [])
    assert report["doubts"] == ["software token, proves nothing"]
    said = report["statement"]
    assert (said["KeyArn"], said["Nonce"], said["Version"]) == (key, NONCE, 1)
    (token,) = said["Tokens"]
    assert token["Profile"]["Software"] and "proves nothing" in token["Profile"]["Statement"]
    assert token["Label"] and token["Serial"] and token["Manufacturer"]
    assert all(key["Token"] == token["Serial"] for key in said["BackingKeys"])
    rotations = appliance.client("kms").list_key_rotations(
        KeyId=key, IncludeKeyMaterial="ALL_KEY_MATERIAL"
    )["Rotations"]
    materials = [rotation["KeyMaterialId"] for rotation in rotations]
    assert [backing["KeyMaterialId"] for backing in said["BackingKeys"]] == materials
    for backing in said["BackingKeys"]:
        told = backing["Attributes"]
        assert len(told.pop("KeyCheckValue")) == 16
        assert told.pop("Mechanisms") in (["CKM_SHA256_HMAC"], [])
        assert told == {
            "Local": True,
            "Sensitive": True,
            "Extractable": False,
            "NeverExtractable": True,
            "AlwaysSensitive": True,
        }


def test_another_token_and_another_scheme_of_signing_say_the_same(own_appliance, tmp_path):
    """Kryoptic signs by ECDSA."""
    appliance, file = own_appliance(*map(str, TOKENS["kryoptic"])), tmp_path / "key.json"
    key = appliance.client("kms").create_key()["KeyMetadata"]["Arn"]
    ran = strongroom(appliance, "hsm", "attest", key, "--nonce", NONCE, "--out", file)
    assert ran.returncode == 0, ran.stderr
    code, report = verify(file, public_key(appliance), "--nonce", NONCE)
    assert (code, report["findings"]) == (2, [])
    assert report["doubts"] == ["software token, proves nothing"]
    assert report["statement"]["Tokens"][0]["Profile"]["Name"] == "kryoptic"


def test_people_are_told_plainly(appliance, attested):
    binary = ROOT / Path(os.environ.get("STRONGROOM_BIN", "target/debug/strongroom"))
    command = [binary, "hsm", "verify", attested, "--key", public_key(appliance)]
    ran = subprocess.run(command, env={}, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 2
    assert "\nsoftware token, proves nothing\n" in ran.stdout
    assert "can't leave it" not in ran.stdout
    assert ran.stderr == "strongroom: this proves nothing about the key\n"


class Signer:
    """Another program that signs statements as docs/hardware.md says."""

    name = "strongroom/eu-central-1/0123456789abcdef"

    def __init__(self, folder):
        self.private, self.folder = Ed25519PrivateKey.generate(), folder
        public = self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.id = hashlib.sha256(self.name.encode() + b"\n\x01" + public).digest()[:4]
        self.file = folder / "signer.pub"
        typed = base64.b64encode(b"\x01" + public).decode()
        self.file.write_text(f"{self.name}+{self.id.hex()}+{typed}\n")

    def verify(self, statement, *arguments):
        """Signs it and has it verified."""
        text = json.dumps(statement)
        hashed = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        signed = f"strongroom attestation v1\n{self.name}\n{hashed}\n"
        signature = base64.b64encode(self.id + self.private.sign(signed.encode())).decode()
        file = self.folder / "signed.json"
        note = f"{signed}\n\u2014 {self.name} {signature}\n"
        file.write_text(json.dumps({"Statement": text, "Note": note}))
        return verify(file, self.file, *arguments)


def test_a_hardware_token_s_word_is_good_if_its_keys_are_as_they_must_be(attested, tmp_path):
    signer = Signer(tmp_path)
    statement = json.loads(json.loads(attested.read_text())["Statement"])
    statement["Tokens"][0]["Profile"]["Software"] = False
    code, report = signer.verify(statement, "--nonce", NONCE)
    assert (code, report["verdict"], report["doubts"]) == (0, "good", [])
    loosened = json.loads(json.dumps(statement))
    loosened["BackingKeys"][0]["Attributes"]["Extractable"] = True
    code, report = signer.verify(loosened)
    assert (code, len(report["findings"])) == (1, 1) and "extractable" in report["findings"][0]
    missing = json.loads(json.dumps(statement))
    missing["BackingKeys"][1] = missing["BackingKeys"][1] | {"Attributes": None, "Fault": "Missing"}
    code, report = signer.verify(missing)
    assert code == 1 and report["findings"][0].endswith("the token does not have it")
    code, report = signer.verify(statement | {"Version": 2})
    assert (code, report["verdict"], report["statement"]) == (2, "unproven", None)


def test_an_altered_attestation_is_found_out(appliance, attested, tmp_path):
    attestation = json.loads(attested.read_text())
    file = tmp_path / "altered.json"

    def judged(altered):
        file.write_text(json.dumps(attestation | altered))
        code, report = verify(file, public_key(appliance))
        assert report["statement"] is None
        return code, report["verdict"], report["findings"]

    forged = (1, "bad", ["the signature does not hold: it was altered"])
    text, note = attestation["Statement"], attestation["Note"]
    assert judged({"Statement": text.replace('"Software":true', '"Software":false')}) == forged
    assert judged({"Statement": text + " "}) == forged
    assert judged({"Statement": text[:-1]}) == forged
    other = "B" if note[-10] == "A" else "A"
    assert judged({"Note": note[:-10] + other + note[-9:]}) == forged
    assert judged({"Note": "x"}) == forged
    assert judged({"Note": None}) == (1, "bad", ["this is no attestation"])
    # The newest checkpoint is signed by the same key, and no attestation.
    checkpoint = audit(appliance) / "checkpoint"
    assert soon(checkpoint.exists), "the first one takes a second"
    assert judged({"Note": checkpoint.read_text()}) == forged


def test_another_key_another_nonce_and_another_statement_are_refused(
    appliance, key, attested, own_appliance
):
    other = public_key(own_appliance())
    code, report = verify(attested, other)
    assert (code, report["findings"]) == (1, ["this key has not signed it"])
    code, report = verify(attested, public_key(appliance), "--nonce", "ff" * 16)
    assert (code, report["findings"]) == (1, ["it was not made for this nonce"])
    note = json.loads(attested.read_text())["Note"]
    mixed = rest(appliance, key).json | {"Note": note}
    attested = attested.with_name("mixed.json")
    attested.write_text(json.dumps(mixed))
    assert verify(attested, public_key(appliance))[0] == 1


def test_without_a_nonce_none_is_said_and_none_is_found(appliance, key, tmp_path):
    file = tmp_path / "key.json"
    answer = rest(appliance, key)
    assert answer.status == 200
    file.write_bytes(answer.body)
    code, report = verify(file, public_key(appliance))
    assert code == 2 and "Nonce" not in report["statement"]
    assert verify(file, public_key(appliance), "--nonce", NONCE)[0] == 1


def test_what_can_not_be_read_is_told_with_its_own_exit_code(appliance, attested, tmp_path):
    for file, key in [(tmp_path / "none", public_key(appliance)), (attested, attested)]:
        ran = strongroom(appliance, "hsm", "verify", file, "--key", key)
        assert (ran.returncode, ran.stdout) == (2, "") and ran.stderr.startswith("strongroom: `")


def test_a_key_that_the_token_has_lost_is_bad_evidence(own_appliance, tmp_path):
    appliance = own_appliance()
    before = objects(appliance)
    made = appliance.client("kms").create_key()["KeyMetadata"]["Arn"]
    (gone,) = objects(appliance) - before
    gone.unlink()
    file = tmp_path / "lost.json"
    file.write_bytes(rest(appliance, made).body)
    code, report = verify(file, public_key(appliance))
    (backing,) = report["statement"]["BackingKeys"]
    assert backing["Fault"] == "Missing" and "Attributes" not in backing
    assert code == 1 and report["findings"] == [
        f"backing key {backing['Id']}: the token does not have it"
    ]


def test_a_seed_s_material_was_brought_in_from_outside(own_appliance, tmp_path):
    key_id, seed = str(uuid.uuid4()), tmp_path / "seed.yaml"
    seed.write_text(json.dumps({"Keys": [{"KeyId": key_id, "KeyMaterial": "5c" * 32}]}))
    appliance = own_appliance("--seed", str(seed))
    file = tmp_path / "seeded.json"
    ran = strongroom(appliance, "hsm", "attest", key_id, "--out", file)
    assert ran.returncode == 0 and "brought in from outside" in ran.stdout, ran
    code, report = verify(file, public_key(appliance))
    assert (code, len(report["doubts"])) == (2, 2)
    assert "was brought in from outside" in report["doubts"][0]
    (backing,) = report["statement"]["BackingKeys"]
    assert backing["Imported"] and not backing["Attributes"]["Local"]


@pytest.mark.parametrize("nonce", ["", "00", "0" * 33, "0" * 130, "zz" * 16])
def test_a_nonce_has_16_to_64_bytes_in_hexadecimal(appliance, key, nonce):
    answer = rest(appliance, key, f"?Nonce={nonce}")
    assert (answer.status, answer.json["title"]) == (400, "ValidationException")
    ran = strongroom(appliance, "hsm", "attest", key, "--nonce", nonce)
    assert ran.returncode == 1 and "is no nonce" in ran.stderr


def test_a_key_that_is_not_there_is_not_found_and_a_disabled_one_is_attested(appliance):
    kms = appliance.client("kms")
    made = kms.create_key()["KeyMetadata"]["KeyId"]
    kms.disable_key(KeyId=made)
    assert rest(appliance, made).status == 200
    answer = rest(appliance, str(uuid.uuid4()))
    assert (answer.status, answer.json["title"]) == (404, "NotFoundException")


def test_it_needs_its_own_right_and_leaves_a_record(appliance, key):
    person = Person(appliance, appliance.client("iam"))

    def asked():
        answer = rest(appliance, key, f"?Nonce={NONCE}", credentials=person.credentials)
        return answer.status, answer.json.get("title"), answer

    person.may({"Effect": "Allow", "NotAction": "kms:GetKeyAttestation", "Resource": "*"})
    assert asked()[:2] == (403, "AccessDeniedException")
    person.may(statement(), statement("Deny", "kms:GetKeyAttestation"))
    assert asked()[:2] == (403, "AccessDeniedException")
    person.may(statement(action="kms:GetKeyAttestation", resource=key))
    status, _, answer = asked()
    assert status == 200
    request = answer.headers["x-amzn-requestid"]
    (record,) = soon(lambda: [r for r in records(appliance) if r["requestID"] == request])
    assert (record["eventName"], record["readOnly"]) == ("GetKeyAttestation", True)
    assert record["requestParameters"] == {"keyId": key.rpartition("/")[2], "nonce": NONCE}
    assert [resource["ARN"] for resource in record["resources"]] == [key]


def test_the_service_s_own_key_is_attested_to_whoever_may_read_about_it(appliance):
    appliance.client("secretsmanager").create_secret(Name="attested", SecretString="x")
    ran = strongroom(appliance, "hsm", "attest", "alias/aws/secretsmanager", "--json")
    assert ran.returncode == 0, ran.stderr
    assert set(json.loads(ran.stdout)) == {"Statement", "Note"}
