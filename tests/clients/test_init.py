"""`strongroom init`: on a token that is there already, on two tokens, and on one that is said aloud."""

import contextlib
import os
import pty
import shutil
import subprocess
import termios
import time
import tomllib
from pathlib import Path

import pytest

from test_tokens import BINARY, KRYOPTIC, ROOT, TOKENS, run, swtpm

PIN = "a-pin-of-its-own"
LABEL = "made by others"
SOFTHSM = "/usr/lib/softhsm/libsofthsm2.so"


@pytest.fixture
def softhsm(tmp_path):
    """A token that softhsm2-util has made: its module's configuration and its PIN file."""
    tokens = tmp_path / "vendor"
    tokens.mkdir()
    configuration = tmp_path / "vendor.conf"
    configuration.write_text(f"directories.tokendir = {tokens}\nobjectstore.backend = file\n")
    subprocess.run(
        ["softhsm2-util", "--init-token", "--free", "--label", LABEL]
        + ["--pin", PIN, "--so-pin", "so-pin-of-its-own"],
        env=os.environ | {"SOFTHSM2_CONF": str(configuration)},
        check=True,
        capture_output=True,
    )
    return configuration, pin_file(tmp_path / "pin", PIN)


@pytest.fixture
def kryoptic(tmp_path):
    """A token of Kryoptic's that another appliance's init has made."""
    maker = tmp_path / "maker"
    code, _, err = run("init", "--dir", maker, "--profile", "kryoptic", *TOKENS["kryoptic"][2:])
    assert code == 0, err
    return maker


def pin_file(path, pin):
    """A private file with this PIN."""
    path.write_text(f"{pin}\n")
    path.chmod(0o600)
    return path


def read(where):
    """The configuration that init has written."""
    return tomllib.loads((where / "strongroom.toml").read_text())


def objects(configuration):
    """The names of the objects in SoftHSM's tokens."""
    tokens = configuration.read_text().split("directories.tokendir = ")[1].splitlines()[0]
    return {path.name for path in Path(tokens).rglob("*.object")} - {"token.object"}


def held(where):
    """What `holder list` says."""
    code, out, err = run("hsm", "holder", "list", "--config", where / "strongroom.toml")
    assert code == 0, err
    return out


def test_an_appliance_is_made_on_a_token_of_its_vendors_tools(tmp_path, softhsm):
    configuration, pin = softhsm
    where = tmp_path / "appliance"
    given = ("--module-configuration", configuration, "--pin-file", pin)
    code, out, err = run("init", "--dir", where, "--token-label", LABEL, *given)
    assert code == 0, err
    token = read(where)["token"]
    assert token["configuration"] == str(configuration)
    assert token["pin_file"] == str(pin)
    # No token and no PIN was made.
    assert not any((where / name).exists() for name in ("tokens", "hsm-pin", "hsm-so-pin"))
    assert PIN not in out + err + (where / "strongroom.toml").read_text()
    assert "store key: `main`" in held(where)

    # By its serial number, by a profile of one's own, which the configuration then names.
    profile = tmp_path / "mine.toml"
    shutil.copy(ROOT / "hsm-profiles" / "softhsm2" / "profile.toml", profile)
    where = tmp_path / "other"
    given += ("--token-serial", token["serial"], "--profile", profile, "--token-module", SOFTHSM)
    code, _, err = run("init", "--dir", where, *given)
    assert code == 0, err
    other = read(where)["token"]
    assert (other["profile"], other["serial"]) == (str(profile), token["serial"])
    assert other["module"] == SOFTHSM
    assert "store key: `main`" in held(where)


def test_an_appliance_is_made_on_a_token_of_kryoptics(tmp_path, kryoptic):
    where, label = tmp_path / "appliance", read(kryoptic)["token"]["serial"]
    given = ("--token-serial", label, "--pin-file", kryoptic / "hsm-pin")
    given += ("--module-configuration", kryoptic / "kryoptic.conf", "--token-module", KRYOPTIC)
    code, _, err = run("init", "--dir", where, "--profile", "kryoptic", *given)
    assert code == 0, err
    assert "store key: `main`" in held(where)


def test_a_wrong_pin_or_token_makes_no_appliance(tmp_path, softhsm):
    configuration, pin = softhsm
    where = tmp_path / "appliance"
    given = ("init", "--dir", where, "--module-configuration", configuration)
    wrong = pin_file(tmp_path / "wrong", "another pin")
    code, _, err = run(*given, "--token-label", LABEL, "--pin-file", wrong)
    assert code == 78 and "refused the PIN" in err and "another pin" not in err
    code, _, err = run(*given, "--token-label", "nobody's", "--pin-file", pin)
    assert code == 1 and "is unavailable" in err
    # Nobody to ask.
    code, _, err = run(*given, "--token-label", LABEL)
    assert code == 78 and "--pin-file" in err
    pin.chmod(0o644)
    code, _, err = run(*given, "--token-label", LABEL, "--pin-file", pin)
    assert code == 78 and "can be read by others" in err
    pin.chmod(0o600)
    assert not (where / "strongroom.toml").exists() and not (where / "store").exists()
    # What was refused leaves nothing in the way.
    code, _, err = run(*given, "--token-label", LABEL, "--pin-file", pin)
    assert code == 0, err


@pytest.mark.parametrize("broken", ["audit.jsonl", "audit"])
def test_what_breaks_off_leaves_no_key_in_a_token_that_is_others_too(tmp_path, softhsm, broken):
    """The store key's backing key once stayed there, and nobody knew whose it was."""
    configuration, pin = softhsm
    code, _, err = run(
        *("init", "--dir", tmp_path / "theirs", "--module-configuration", configuration),
        *("--token-label", LABEL, "--pin-file", pin),
    )
    assert code == 0, err
    theirs = objects(configuration)
    assert len(theirs) >= 3
    where = tmp_path / "appliance"
    where.mkdir()
    if broken == "audit":
        (where / broken).write_text("not a folder")
    else:
        (where / broken).mkdir()
    given = ("init", "--dir", where, "--module-configuration", configuration)
    code, _, err = run(*given, "--token-label", LABEL, "--pin-file", pin)
    assert code == 1 and "audit" in err, err
    assert objects(configuration) == theirs
    assert "store key: `main`" in held(tmp_path / "theirs")


def test_a_pin_is_typed_unseen(tmp_path, softhsm):
    configuration, _ = softhsm
    where = tmp_path / "appliance"
    command = [BINARY, "init", "--dir", where, "--token-label", LABEL]
    command += ["--module-configuration", configuration]
    child, terminal = pty.fork()
    if child == 0:
        os.execv(BINARY, list(map(str, command)))
    seen = b""
    while b"PIN of token" not in seen:
        seen += os.read(terminal, 1024)
    while termios.tcgetattr(terminal)[3] & termios.ECHO:
        time.sleep(0.01)
    os.write(terminal, f"{PIN}\n".encode())
    # A terminal whose other side has gone answers with an error.
    with contextlib.suppress(OSError):
        while more := os.read(terminal, 1024):
            seen += more
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, seen
    assert PIN.encode() not in seen
    kept = where / "hsm-pin"
    assert kept.read_text() == PIN and kept.stat().st_mode & 0o777 == 0o600
    assert "store key: `main`" in held(where)


def test_who_can_not_be_made_here_is_told_how_to_go_on(tmp_path):
    for profile in ("luna", "pkcs11"):
        code, _, err = run("init", "--dir", tmp_path / "none", "--profile", profile)
        assert code == 78 and "--token-label" in err and "vendor's tools" in err
    code, _, err = run("init", "--dir", tmp_path / "none", "--pin-file", "x")
    assert code == 2 and "--token-label" in err


@pytest.mark.parametrize("profile", ["tpm2", "tpm2-firmware", "yubikey", "yubikey-5-7"])
def test_hardware_that_dies_alone_wants_a_second_token_or_the_word(tmp_path, profile):
    where = tmp_path / "appliance"
    code, _, err = run("init", "--dir", where, "--profile", profile)
    assert code == 78 and "--no-recovery" in err and "--second-profile" in err
    assert not where.exists()
    # Said aloud it goes on to the device, which is not there.
    gone = ("--token-device", "swtpm:host=127.0.0.1,port=1")
    code, _, err = run("init", "--dir", where, "--profile", profile, "--no-recovery", *gone)
    assert code == 1 and "is unavailable" in err
    # A second token that can't hold the same keys is none.
    second = ("--second-profile", "nshield", "--second-label", "x")
    second += ("--second-pin-file", pin_file(tmp_path / "pin", PIN))
    code, _, err = run("init", "--dir", where, "--profile", profile, *second)
    assert code == 78 and "no scheme `ecdh`" in err


def test_an_appliance_is_made_on_two_tokens(tmp_path, softhsm):
    configuration, pin = softhsm
    where = tmp_path / "appliance"
    second = ("--second-profile", "softhsm2", "--second-label", LABEL, "--second-pin-file", pin)
    second += ("--second-module-configuration", configuration)
    with swtpm(tmp_path / "state") as device:
        first = ("--profile", "swtpm", "--token-device", device)
        code, _, err = run("init", "--dir", where, *first, *second)
        assert code == 0, err
        main, other = read(where)["token"]
        assert (main["name"], other["name"]) == ("main", "second")
        assert main["scheme"] == other["scheme"] == "ecdh"
        assert other["holds_new_keys"] and "holds_new_keys" not in main
        listed = held(where).splitlines()
    assert listed[0] == "store key: `main`, `second`"
    assert len(listed) == 2 and "ecdh, `main`, `second`" in listed[1]


def test_one_token_is_not_two(tmp_path, softhsm):
    configuration, pin = softhsm
    given = ("--token-label", LABEL, "--pin-file", pin, "--module-configuration", configuration)
    second = ("--second-profile", "softhsm2", "--second-label", LABEL, "--second-pin-file", pin)
    second += ("--second-module-configuration", configuration)
    code, _, err = run("init", "--dir", tmp_path / "appliance", *given, *second)
    assert code == 78 and "the second token is the first one" in err


def test_a_tpm_s_wrong_pin_is_nothing_that_another_start_mends(tmp_path):
    """It ended with exit code 1, and the service manager went on starting it."""
    where = tmp_path / "appliance"
    with swtpm(tmp_path / "state") as device:
        code, _, err = run("init", "--dir", where, "--profile", "swtpm", "--token-device", device)
        assert code == 0, err
        right = (where / "hsm-pin").read_text()
        pin_file(where / "hsm-pin", "another-pin-of-16-bytes-or-more")
        code, _, err = run("serve", "--config", where / "strongroom.toml")
        assert code == 78 and "does not take the PIN: the PIN is wrong, or" in err, err
        assert "another-pin" not in err
        pin_file(where / "hsm-pin", right)
        assert "store key: `main`" in held(where)
