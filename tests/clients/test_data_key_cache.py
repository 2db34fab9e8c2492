"""How long opened data keys are kept is what the token's profile says, where the configuration doesn't."""

import contextlib
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from test_holders import Server
from test_tokens import swtpm

PROFILE = Path(__file__).parents[2] / "hsm-profiles" / "swtpm" / "profile.toml"


@pytest.mark.parametrize(
    ("proposed", "configured", "kept"),
    [(None, None, True), (0, None, False), (0, 300, True), (300, 0, False)],
)
def test_a_profile_decides_where_the_configuration_does_not(tmp_path, proposed, configured, kept):
    server = Server(tmp_path / "appliance", {})
    profile = tmp_path / "profile.toml"
    proposal = "" if proposed is None else f"cache_seconds = {proposed}\n"
    profile.write_text(PROFILE.read_text().replace("[limits]\n", f"{proposal}[limits]\n"))
    with contextlib.ExitStack() as tpm:
        device = tpm.enter_context(swtpm(tmp_path / "state"))
        server.init("--profile", profile, "--token-device", device)
        if configured is not None:
            text = server.configuration.read_text()
            table = "\n[data_key_cache]\n"
            assert table in text
            text = text.replace(table, f"{table}seconds = {configured}\n")
            server.configuration.write_text(text)
        with server.serving() as (_, secrets):
            secrets.create_secret(Name="it", SecretString="kept or not")

            def read():
                return secrets.get_secret_value(SecretId="it")["SecretString"]

            assert read() == "kept or not"
            tpm.close()
            if kept:
                assert read() == "kept or not"
            else:
                with pytest.raises(ClientError) as refused:
                    read()
                assert refused.value.response["Error"]["Code"] == "InternalServiceError"
