"""`strongroom serve` of a configuration, on a free port."""

import contextlib
import re
import signal
import subprocess

from conftest import free_port
from test_tokens import BINARY

STOP_SECONDS = 60


@contextlib.contextmanager
def served(configuration, environment=None):
    """Serves while somebody is inside; the endpoint, the process and its log's path. The log lies beside
    the configuration and goes on from one time to the next. Who is inside may have killed it."""
    address = f"127.0.0.1:{free_port()}"
    text = configuration.read_text()
    text = re.sub(r"^listen_plain = .*$", f'listen_plain = ["{address}"]', text, flags=re.M)
    configuration.write_text(text)
    log = configuration.parent / "server.log"
    with log.open("ab") as out:
        command = [BINARY, "serve", "--config", configuration]
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
    try:
        yield f"http://{address}", process, log
    finally:
        killed = process.returncode == -signal.SIGKILL
        process.send_signal(signal.SIGTERM)
        code = process.wait(STOP_SECONDS)
    assert killed or code == 0, log.read_text()
