"""The README's tour, typed into a shell as it stands there."""

import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

from served import served
from test_holders import await_true
from test_tokens import BINARY, ROOT, run

# Commands of the tour that fail, and are there to: how they begin.
REFUSED = [
    "strongroom hsm verify evidence.json",  # SoftHSM proves nothing
    "AWS_ACCESS_KEY_ID=${key",  # in `app`: a user who may read is to delete
]
# What is seen meanwhile, in this order.
SEEN = [
    '{"user":"app","password":"first"}',
    '"AWSPENDING"',
    "card number",
    "software token, proves nothing",
    '{"user":"app","password":"',
    "is not authorized to perform: secretsmanager:DeleteSecret",
    "NOT ALLOWED  secretsmanager:DeleteSecret",
    "Would newly fail:",
    '"ready":true',
    "strongroom_audit_ready 1",
    '"eventName":"ReplayPolicy"',
    "vouched for",
    '"SecretString":"hunter2"',
]
# A command that fails is noted, and the next one follows, as where somebody types.
NOTE_FAILURES = """set -o pipefail
trap 'echo "$BASH_COMMAND" >>failed' ERR
"""
SECONDS = 120


def blocks():
    """What is to be typed in the tour."""
    tour = re.search(r"^## A tour.*?(?=^## )", (ROOT / "README.md").read_text(), re.M | re.S)
    return re.findall(r"^```\n(.*?)^```$", tour.group(), re.M | re.S)


def test_the_tour_does_what_it_says(tmp_path):
    exports, *typed, dev = blocks()
    assert dev.startswith("target/release/strongroom dev "), "it serves until somebody ends it"
    code, out, err = run("init", "--dir", tmp_path / "data", "--profile", "softhsm2")
    assert code == 0, err
    printed = re.findall(r"^ *export (\w+)=(\S+)$", out + err, re.M)
    assert [name for name, _ in printed] == re.findall(r"^export (\w+)", exports, re.M)[:3]
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "strongroom").symlink_to(BINARY)
    # Nothing else of whoever runs the tests: an AWS_PROFILE would lead the clients elsewhere.
    environment = dict(printed) | {
        "PATH": os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]),
        "HOME": str(tmp_path),
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with served(tmp_path / "data" / "strongroom.toml") as (endpoint, _, _):
        await_true(lambda: answers(endpoint))
        said = subprocess.run(
            ["bash", "-c", NOTE_FAILURES + "\n".join(typed)],
            cwd=tmp_path,
            env=environment | {"AWS_ENDPOINT_URL": endpoint},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
        ).stdout
    failed = (tmp_path / "failed").read_text().splitlines()
    assert len(failed) == len(REFUSED), (failed, said)
    assert all(map(str.startswith, failed, REFUSED)), (failed, said)
    at = 0
    for text in SEEN:
        at = said.find(text, at)
        assert at >= 0, (text, said)
    rotated = re.findall(r'^{"user":"app","password":"(.*)"}$', said, re.M)
    assert rotated[:2] == ["first", "first"] and rotated[-1] != "third", said


def answers(endpoint):
    """Whether requests are taken."""
    try:
        with urllib.request.urlopen(f"{endpoint}/readyz", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False
