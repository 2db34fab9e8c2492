"""What a token really does: `strongroom hsm probe` and `strongroom hsm bench` on real tokens."""

import json
import os
import re
import subprocess
import tomllib

import pytest

from test_holders import await_true, virtual_card
from test_tokens import BINARY, KRYOPTIC, run, swtpm

SOFTHSM = next(
    path
    for path in ("/usr/lib/softhsm/libsofthsm2.so", "/usr/local/lib/softhsm/libsofthsm2.so")
    if os.path.exists(path)
)
MODULES = {"softhsm2": SOFTHSM, "kryoptic": KRYOPTIC}
VARIABLES = {"softhsm2": "SOFTHSM2_CONF", "kryoptic": "KRYOPTIC_CONF"}


class Token:
    """A token with an appliance's keys in it, which nobody serves."""

    def __init__(self, directory, kind):
        self.kind, self.directory = kind, directory
        self.module, self.pin = MODULES[kind], directory / "hsm-pin"
        module = ("--token-module", self.module)
        made = self.run("init", "--dir", directory, "--profile", kind, *module)
        assert made.returncode == 0, made.stderr

    def run(self, *arguments, **environment):
        return subprocess.run(
            [BINARY, *map(str, arguments)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def probe(self, *arguments, pin=None):
        variable = {VARIABLES[self.kind]: str(self.directory / f"{self.kind}.conf")}
        module = ("--module", self.module, "--pin-file", pin or self.pin)
        return self.run("hsm", "probe", *module, *arguments, **variable)


@pytest.fixture(scope="module", params=MODULES)
def token(request, tmp_path_factory):
    return Token(tmp_path_factory.mktemp("token") / "appliance", request.param)


@pytest.fixture(scope="module")
def softhsm(tmp_path_factory):
    """Whose objects are files that can be counted."""
    return Token(tmp_path_factory.mktemp("softhsm") / "appliance", "softhsm2")


def objects(token):
    return sorted((token.directory / "tokens").rglob("*.object"))


def test_the_claims_of_the_tested_profiles_hold(token):
    ran = token.probe("--profile", token.kind, "--json")
    assert ran.returncode == 0, (ran.stdout, ran.stderr)
    report = json.loads(ran.stdout)
    findings = {finding["What"]: finding for finding in report["Findings"]}
    assert {finding["Verdict"] for finding in findings.values()} == {"holds", "not-claimed"}
    for scheme in ("hmac-kdf", "ecdh"):
        for what in ("", ", sensitive", ", not extractable", ", not modifiable"):
            assert findings[f"scheme {scheme}{what}"]["Verdict"] == "holds"
    assert report["Profile"] == token.kind and report["Removed"] == 0
    assert report["Token"]["label"].startswith("strongroom-")


def test_people_read_what_was_seen(token):
    ran = token.probe("--profile", token.kind)
    assert ran.returncode == 0, ran.stderr
    assert f"Profile  {token.kind} (tested on " in ran.stdout
    assert "\nholds    scheme hmac-kdf, one mechanism " in ran.stdout
    assert "FAILS" not in ran.stdout and ran.stderr == ""


def test_a_false_claim_is_found(token):
    """An nShield has a mechanism of its own for keys for HMAC."""
    ran = token.probe("--profile", "nshield")
    assert ran.returncode == 1
    failed = [line for line in ran.stdout.splitlines() if line.startswith("FAILS")]
    assert any("CKM_NC_SHA256_HMAC_KEY_GEN" in line for line in failed)
    assert any("it would with" in line and 'hmac_key = "generic-secret"' in line for line in failed)
    assert "Profile  nshield (untested so far)\n" in ran.stdout
    assert "\nunknown  " in ran.stdout
    assert ran.stderr.startswith("strongroom: claims that do not hold: ")


def test_a_profile_is_proposed_for_an_unknown_module_and_holds(token, tmp_path):
    ran = token.probe("--propose")
    assert ran.returncode == 0, ran.stderr
    assert "Profile  none: nothing is claimed\n" in ran.stderr
    file = tmp_path / "profile.toml"
    file.write_text(ran.stdout)
    again = token.probe("--profile", file, "--json")
    assert again.returncode == 0, (again.stdout, again.stderr)
    assert json.loads(again.stdout)["Profile"] == "proposed"
    claimed = [f for f in json.loads(again.stdout)["Findings"] if f["Verdict"] == "holds"]
    assert len(claimed) > 15


def test_a_proposed_profile_and_another_scheme_are_used_as_configured(token, tmp_path):
    file = tmp_path / "profile.toml"
    file.write_text(token.probe("--propose").stdout)
    config = token.directory / "proposed.toml"
    text = (token.directory / "strongroom.toml").read_text()
    named = f'profile = "{token.kind}"\n'
    assert named in text
    config.write_text(text.replace(named, f'profile = "{file}"\nscheme = "ecdh"\n'))
    variable = {VARIABLES[token.kind]: str(token.directory / f"{token.kind}.conf")}
    ran = token.run("hsm", "bench", "--config", config, "--seconds", "1", "--callers", "4", **variable)
    assert ran.returncode == 0, ran.stderr
    assert "profile `proposed` is untested on real hardware" in ran.stderr
    assert "profile proposed\n" in ran.stdout and "\nagree (ecdh) " in ran.stdout
    assert "failed" not in ran.stdout


def test_nothing_is_left_in_the_token(softhsm):
    before = objects(softhsm)
    assert before
    for arguments in (("--profile", "softhsm2"), ("--profile", "cloudhsm"), ()):
        softhsm.probe(*arguments)
        assert objects(softhsm) == before


def test_a_probe_that_was_killed_leaves_nothing_to_the_one_after_next(tmp_path):
    """On Kryoptic, since a SoftHSM whose user is killed at the login may lose the token.

    The next probe cleans up; tests/custody.rs plants what it must find.
    """
    token = Token(tmp_path / "appliance", "kryoptic")
    variable = {"KRYOPTIC_CONF": str(token.directory / "kryoptic.conf")}
    command = [BINARY, "hsm", "probe", "--profile", "kryoptic", "--module", token.module]
    command += ["--pin-file", token.pin]
    for wait in (0.1, 0.2, 0.4, 0.6):
        with subprocess.Popen(command, env=variable, stdout=subprocess.DEVNULL) as running:
            try:
                running.wait(wait)
            except subprocess.TimeoutExpired:
                running.kill()
    for removed in (range(100), range(1)):
        ran = token.probe("--profile", "kryoptic", "--json")
        assert ran.returncode == 0, (ran.stdout, ran.stderr)
        assert json.loads(ran.stdout)["Removed"] in removed


def test_a_wrong_pin_is_told_with_what_a_pin_looks_like_and_tried_once(softhsm, tmp_path):
    wrong = tmp_path / "pin"
    wrong.write_text("not the PIN")
    wrong.chmod(0o600)
    ran = softhsm.probe("--profile", "yubihsm2", pin=wrong)
    assert ran.returncode == 78 and ran.stdout == ""
    assert "PinIncorrect" in ran.stderr or "PIN" in ran.stderr
    assert "0001password" in ran.stderr and "not the PIN" not in ran.stderr


def test_what_can_not_be_told_is_not_called_good(softhsm):
    ran = softhsm.run("hsm", "probe", "--profile", "luna", "--pin-file", softhsm.pin)
    assert ran.returncode == 2 and "no module of profile `luna`" in ran.stderr
    none = softhsm.probe("--token", "nonesuch")
    assert none.returncode == 2 and "it is in no slot" in none.stderr


def test_the_benchmark_measures_and_leaves_nothing(token):
    before = objects(token)
    config = token.directory / "strongroom.toml"
    ran = token.run("hsm", "bench", "--config", config, "--seconds", "1", "--json", "--callers", "1,8")
    assert ran.returncode == 0, ran.stderr
    (only,) = json.loads(ran.stdout)["Tokens"]
    figures = only["Figures"]
    assert only["Name"] == "main" and only["Profile"] == token.kind
    assert [figure["Callers"] for figure in figures] == 3 * [1, 8]
    for figure in figures:
        assert figure["PerSecond"] > 0 and figure["Errors"] == 0
        assert 0 < figure["P50Micros"] <= figure["P99Micros"]
        raw = figure["Raw"]
        assert raw["PerSecond"] > 0 and raw["CpuMicros"] > 0
        assert abs(figure["Ratio"] - figure["PerSecond"] / raw["PerSecond"]) < 0.01
    assert {figure["Operation"].partition(" ")[0] for figure in figures} == {
        "derive",
        "random",
        "sign",
    }
    assert objects(token) == before


@pytest.mark.parametrize("kind", ["swtpm", "piv"])
def test_the_benchmark_of_a_throw_away_appliance_starts_its_stand_in(own_appliance, kind):
    appliance = own_appliance("--token", kind)
    appliance.stop()
    folder = appliance.directory / "appliance"
    command = [BINARY, "hsm", "bench", "--dir", folder, "--seconds", "1", "--json", "--callers", "4"]
    ran = subprocess.run(command, capture_output=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    (only,) = json.loads(ran.stdout)["Tokens"]
    for figure in only["Figures"]:
        assert figure["PerSecond"] > 0 and figure["Errors"] == 0 and figure["Raw"]["PerSecond"] > 0
    operations = {figure["Operation"] for figure in only["Figures"]}
    # A YubiKey gives out no random bytes.
    assert ("random (32 bytes)" in operations) == (kind == "swtpm")
    assert "sign (ecdsa-p256)" in operations


def test_a_benchmark_gives_a_wrong_pin_once(tmp_path):
    token = Token(tmp_path / "appliance", "kryoptic")
    token.pin.write_text("not the PIN")
    ran = token.run("hsm", "bench", "--config", token.directory / "strongroom.toml")
    assert ran.returncode == 78 and ran.stdout == ""
    assert ran.stderr.count("refused the PIN") == 1 and "`main` is not measured" in ran.stderr


def test_the_benchmark_of_a_token_that_is_not_configured_is_refused(softhsm):
    config = softhsm.directory / "strongroom.toml"
    ran = softhsm.run("hsm", "bench", "--config", config, "--token", "other")
    assert ran.returncode == 78 and "has no token `other`" in ran.stderr


def test_a_tpm_is_probed_without_a_pin_and_gets_a_profile(tmp_path):
    with swtpm(tmp_path / "state") as device:
        where = ("hsm", "probe", "--device", device)
        code, out, err = run(*where, "--profile", "swtpm", "--json")
        assert code == 0, (out, err)
        report = json.loads(out)
        findings = {finding["What"]: finding for finding in report["Findings"]}
        assert {finding["Verdict"] for finding in findings.values()} == {"holds", "not-claimed"}
        for scheme in ("hmac-kdf", "ecdh", "rsa-oaep"):
            for what in ("", ", made inside and kept"):
                assert findings[f"scheme {scheme}{what}"]["Verdict"] == "holds"
        assert findings["scheme ecdh, attested"]["Seen"] == "signed, by a key that nobody vouches for"
        assert report["Mechanisms"] is None and report["Token"]["serial"]

        code, out, err = run(*where, "--kind", "tpm", "--propose")
        assert code == 0 and "Profile  none: nothing is claimed\n" in err
        proposed = tomllib.loads(out)
        assert proposed["name"] == "swtpm" and proposed["software"]

        # swtpm's maker is not one of chips.
        code, out, err = run(*where, "--profile", "tpm2")
        assert code == 1 and "claims that do not hold: 1" in err
        (failed,) = (line.split() for line in out.splitlines() if line.startswith("FAILS"))
        assert failed[-3:] == ["swtpm", "(claimed:", "tpm2)"]
    code, out, err = run(*where, "--profile", "swtpm")
    assert code == 2 and "can't be probed" in err and out == ""


def test_a_card_is_probed_and_keeps_its_tries(tmp_path):
    with virtual_card(tmp_path / "card") as environment:
        appliance, environment = tmp_path / "appliance", os.environ | environment

        def call(*arguments):
            command = [BINARY, *map(str, arguments)]
            return subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=120
            )

        pin = tmp_path / "pin"
        pin.write_text("12345678")
        pin.chmod(0o600)
        where = ("hsm", "probe", "--profile", "virtual-piv", "--pin-file")
        # Nothing but the program itself says when the reader has noticed the card.
        await_true(lambda: "no YubiKey is in a reader" not in call(*where, pin).stderr)
        blank = call(*where, pin)
        assert blank.returncode == 2, blank.stderr
        assert "the card was not set up by `strongroom init`" in blank.stdout
        assert "3 tries left; none was used" in blank.stdout

        made = call("init", "--dir", appliance, "--profile", "virtual-piv", "--no-recovery")
        assert made.returncode == 0, made.stderr
        slots = set()
        for _ in range(2):
            ran = call(*where, appliance / "hsm-pin")
            assert ran.returncode == 0, (ran.stdout, ran.stderr)
            assert "\nholds    scheme rsa-oaep " in ran.stdout and "FAILS" not in ran.stdout
            assert "3 tries left; none was used" in ran.stdout
            slots.add(re.search(r"(\d+ of 24) free for keys", ran.stdout)[1])
        assert len(slots) == 1
        wrong = call(*where, pin)
        assert wrong.returncode == 78 and "2 tries are left" in wrong.stderr
