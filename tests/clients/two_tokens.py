"""An appliance with a second token: SoftHSM is the default one, Kryoptic the other."""

import shutil
import tomllib

from conftest import Appliance
from test_tokens import KRYOPTIC, run


def with_two_tokens(directory):
    """Makes and starts it; `cluster` is what a custom key store names the second token by."""
    appliance = Appliance(directory)
    appliance.stop()
    spare = directory / "spare"
    code, _, err = run("init", "--dir", spare, "--profile", "kryoptic", "--token-module", KRYOPTIC)
    assert code == 0, err
    made = tomllib.loads((spare / "strongroom.toml").read_text())["token"]
    # Of that appliance nothing but the token is wanted.
    (spare / "audit.jsonl").unlink()
    for rest in ("audit", "store"):
        shutil.rmtree(spare / rest)
    configuration = directory / "appliance" / "strongroom.toml"
    text = configuration.read_text().replace("\n[token]\n", "\n[[token]]\n")
    settings = {
        "name": "spare",
        "profile": "kryoptic",
        "serial": made["serial"],
        "module": str(KRYOPTIC),
        "configuration": str(spare / "kryoptic.conf"),
        "pin_file": str(spare / "hsm-pin"),
    }
    lines = "".join(f"{name} = '{value}'\n" for name, value in settings.items())
    configuration.write_text(f"{text}\n[[token]]\n{lines}")
    # `strongroom dev` sees to the default token's module alone.
    appliance.environment["KRYOPTIC_CONF"] = settings["configuration"]
    appliance.start()
    appliance.cluster = clusters(appliance)["spare"]
    return appliance


def clusters(appliance):
    """The cluster id of each token, by the token's name."""
    configuration = appliance.directory / "appliance" / "strongroom.toml"
    code, out, err = run("hsm", "tokens", "--config", configuration)
    assert code == 0, err
    lines = (line.split("\t") for line in out.splitlines())
    return {name: cluster for name, _, _, cluster in lines}
