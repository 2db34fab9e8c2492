"""Real servers whose passwords are rotated: PostgreSQL, MariaDB, Redis, RabbitMQ and sshd, each in a
folder of its own, on free ports of the loopback address. Logins are tried with the servers' own clients,
not with the drivers under test. `scripts/setup test` installs them; one that can't be started is an error.
"""

import base64
import getpass
import hashlib
import json
import os
import pwd
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from conftest import free_port

ADMIN, ADMIN_PASSWORD = "boss", "boss's pass"
START_SECONDS = 120
LOGIN_SECONDS = 20


class System:
    """A server, and logins to it."""

    engine = None
    # As whom it runs where the tests run as root and it would refuse.
    user = None

    def __init__(self):
        # Not below pytest's own folder, which other users may not enter.
        self.place = tempfile.TemporaryDirectory()
        self.folder = Path(self.place.name)
        self.port = free_port()
        self.processes = []
        self.owner = {}
        if self.user and os.geteuid() == 0:
            found = pwd.getpwnam(self.user)
            self.owner = {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
            os.chown(self.folder, found.pw_uid, found.pw_gid)
        self.prepare()
        self.start()

    def prepare(self):
        """Whatever is needed once."""

    def start(self):
        """Starts it, and waits until its administrator is let in."""
        self.launch()
        deadline = time.monotonic() + START_SECONDS
        while not self.ready():
            assert time.monotonic() < deadline, self.said()
            assert all(p.poll() is None for p in self.processes), self.said()
            time.sleep(0.05)

    def launch(self):
        """Starts its processes."""
        raise NotImplementedError

    def ready(self):
        """Whether it lets its administrator in."""
        return self.lets_in(self.secret(ADMIN, ADMIN_PASSWORD))

    def said(self):
        """What its processes said."""
        return (self.folder / "log").read_text(errors="replace")

    def run(self, *command, **more):
        """Runs a program as the server does."""
        ran = subprocess.run(
            [str(part) for part in command],
            cwd=self.folder,
            stdin=None if "input" in more else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            **self.owner,
            **more,
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def spawn(self, *command, **environment):
        """Starts a process of the server."""
        with (self.folder / "log").open("ab") as log:
            self.processes.append(
                subprocess.Popen(
                    [str(part) for part in command],
                    cwd=self.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=os.environ | {"TMPDIR": str(self.folder)} | environment,
                    start_new_session=True,
                    **self.owner,
                )
            )

    def stop(self):
        """Ends it as a power cut would."""
        for process in self.processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.processes.clear()

    def close(self):
        """Ends it, and leaves nothing behind."""
        self.stop()
        self.place.cleanup()

    def secret(self, username, password, **more):
        """A secret's value for this user."""
        return {
            "engine": self.engine,
            "host": "127.0.0.1",
            "port": self.port,
            "ssl": False,
            "username": username,
            "password": password,
            **more,
        }

    def client_lets_in(self, *command, **environment):
        """Whether a client ends well."""
        ran = subprocess.run(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LOGIN_SECONDS,
            env=os.environ | environment,
        )
        self.client_said = ran.stdout + ran.stderr
        return ran.returncode == 0

    def lets_in(self, secret):
        """Whether a login with a secret's value succeeds."""
        raise NotImplementedError

    def add_user(self, name, password):
        """A user of an application."""
        raise NotImplementedError

    def set_password(self, name, password):
        """What somebody does by hand."""
        raise NotImplementedError


class Postgres(System):
    """PostgreSQL."""

    engine, user = "postgres", "postgres"
    rejected = None

    def prepare(self):
        newest = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        assert newest, "scripts/setup test installs it"
        self.programs = newest[-1]
        password = self.folder / "password"
        password.write_text(ADMIN_PASSWORD)
        password.chmod(0o644)
        self.run(
            *[self.programs / "initdb", "-D", self.folder / "data", "-U", ADMIN],
            *["-A", "scram-sha-256", "-N", f"--pwfile={password}", "--locale=C", "-EUTF8"],
        )

    def launch(self):
        settings = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"]
        self.spawn(
            *[self.programs / "postgres", "-D", self.folder / "data", "-p", self.port],
            *[part for setting in settings for part in ("-c", setting)],
        )

    def sql(self, text):
        """Runs statements as the administrator."""
        return self.run(*self.psql(ADMIN), "-c", text, env=os.environ | {"PGPASSWORD": ADMIN_PASSWORD})

    def psql(self, user):
        """A client's command."""
        return ["psql", "-X", "-q", "-w", "-h", "127.0.0.1", "-p", self.port, "-U", user, "postgres"]

    def lets_in(self, secret):
        command = self.psql(secret["username"])
        return self.client_lets_in(*command, "-c", "SELECT 1", PGPASSWORD=secret["password"])

    def add_user(self, name, password):
        self.sql(f"CREATE ROLE {name} LOGIN PASSWORD '{password}'")

    def set_password(self, name, password):
        self.sql(f"ALTER ROLE {name} PASSWORD '{password}'")

    def reject(self, user):
        """The server lets this user in no more, whatever its password."""
        path = self.folder / "data" / "pg_hba.conf"
        path.write_text(self.rejection(user) + path.read_text())
        self.sql("SELECT pg_reload_conf()")

    def accept(self, user):
        """It does again."""
        path = self.folder / "data" / "pg_hba.conf"
        path.write_text(path.read_text().replace(self.rejection(user), ""))
        self.sql("SELECT pg_reload_conf()")

    @staticmethod
    def rejection(user):
        """The line that says so."""
        return f"host all {user} all reject\n"


class MariaDb(System):
    """MariaDB."""

    engine = "mariadb"
    options = ()

    def prepare(self):
        (self.folder / "begin.sql").write_text(
            f'CREATE USER IF NOT EXISTS {ADMIN} IDENTIFIED BY "{ADMIN_PASSWORD}";\n'
            f"GRANT ALL ON *.* TO {ADMIN} WITH GRANT OPTION;\n"
        )
        self.run(
            *["mariadb-install-db", "--no-defaults", f"--datadir={self.folder / 'data'}"],
            *["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"],
        )

    def launch(self):
        self.spawn(
            *["/usr/sbin/mariadbd", "--no-defaults", f"--datadir={self.folder / 'data'}"],
            *["--bind-address=127.0.0.1", f"--port={self.port}", "--skip-name-resolve"],
            *[f"--socket={self.folder / 'socket'}", f"--init-file={self.folder / 'begin.sql'}"],
            *self.options,
            *(["--user=root"] if os.geteuid() == 0 else []),
        )

    def client(self, user):
        """A client's command."""
        return ["mariadb", "--no-defaults", "-h", "127.0.0.1", "-P", self.port, f"--user={user}"]

    def sql(self, text):
        """Runs statements as the administrator."""
        environment = os.environ | {"MYSQL_PWD": ADMIN_PASSWORD}
        return self.run(*self.client(ADMIN), "-e", text, env=environment)

    def lets_in(self, secret):
        command = self.client(secret["username"])
        return self.client_lets_in(*command, "-e", "SELECT 1", MYSQL_PWD=secret["password"])

    def add_user(self, name, password):
        self.sql(f"CREATE USER {name} IDENTIFIED BY '{password}'")

    def set_password(self, name, password):
        self.sql(f"ALTER USER {name} IDENTIFIED BY '{password}'")


class Choosy(MariaDb):
    """MariaDB that takes long passwords alone."""

    options = (
        "--plugin-load-add=simple_password_check",
        "--simple-password-check-minimal-length=11",
        "--simple-password-check-digits=0",
        "--simple-password-check-letters-same-case=0",
        "--simple-password-check-other-characters=0",
    )


class Redis(System):
    """Redis, whose users stand in a file of their own."""

    engine = "redis"

    def prepare(self):
        digest = hashlib.sha256(ADMIN_PASSWORD.encode()).hexdigest()
        users = f"user default off\nuser {ADMIN} on #{digest} ~* &* +@all\n"
        (self.folder / "users").write_text(users)
        settings = f'bind 127.0.0.1\nport {self.port}\ndir {self.folder}\nsave ""\n'
        settings += f"aclfile {self.folder / 'users'}\n"
        (self.folder / "redis.conf").write_text(settings)

    def launch(self):
        self.spawn("redis-server", self.folder / "redis.conf")

    def client(self, user):
        """A client's command."""
        return ["redis-cli", "--no-auth-warning", "-p", self.port, "--user", user]

    def ask(self, *command):
        """Runs a command as the administrator."""
        environment = os.environ | {"REDISCLI_AUTH": ADMIN_PASSWORD}
        answer = self.run(*self.client(ADMIN), *command, env=environment).strip()
        assert answer == "OK", answer

    def lets_in(self, secret):
        command = [*self.client(secret["username"]), "ACL", "WHOAMI"]
        ended = self.client_lets_in(*command, REDISCLI_AUTH=secret["password"])
        return ended and self.client_said.strip() == secret["username"]

    def add_user(self, name, password):
        # Redis lets nobody change a password but its administrators.
        self.ask("ACL", "SETUSER", name, "on", "~app:*", "+@all", f">{password}")
        self.ask("ACL", "SAVE")

    def set_password(self, name, password):
        self.ask("ACL", "SETUSER", name, "resetpass", f">{password}")
        self.ask("ACL", "SAVE")


class RabbitMq(System):
    """RabbitMQ, through its management plugin."""

    engine = "rabbitmq"
    programs = Path("/usr/lib/rabbitmq/bin")

    def prepare(self):
        (self.folder / "plugins").write_text("[rabbitmq_management].")
        definitions = {
            "vhosts": [{"name": "/"}],
            "users": [{"name": ADMIN, "password": ADMIN_PASSWORD, "tags": "administrator"}],
            "permissions": [],
        }
        (self.folder / "definitions.json").write_text(json.dumps(definitions))
        self.amqp, self.epmd, self.dist = free_port(), free_port(), free_port()
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.amqp}\nmanagement.tcp.ip = 127.0.0.1\n"
            f"management.tcp.port = {self.port}\n"
            f"load_definitions = {self.folder / 'definitions.json'}\n"
        )

    def launch(self):
        files = {
            "HOME": "",
            "RABBITMQ_CONFIG_FILE": "rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": "plugins",
            "RABBITMQ_LOG_BASE": "logs",
            "RABBITMQ_MNESIA_BASE": "data",
            "RABBITMQ_PID_FILE": "pid",
        }
        environment = {name: str(self.folder / file) for name, file in files.items()}
        # Erlang's port mapper: ours, or the broker would leave one behind.
        self.spawn("epmd", "-port", self.epmd, "-address", "127.0.0.1")
        self.spawn(
            self.programs / "rabbitmq-server",
            **environment,
            RABBITMQ_NODENAME=f"strongroom-{self.amqp}@localhost",
            RABBITMQ_DIST_PORT=str(self.dist),
            ERL_EPMD_PORT=str(self.epmd),
            ERL_EPMD_ADDRESS="127.0.0.1",
        )

    def ask(self, method, path, user, password, body=None):
        """Asks the management plugin; answers the status."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
        )
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        request.add_header("Authorization", f"Basic {token}")
        request.add_header("Content-Type", "application/json")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=LOGIN_SECONDS) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    def lets_in(self, secret):
        try:
            return self.ask("GET", "whoami", secret["username"], secret["password"]) == 200
        except OSError:
            return False

    def set_password(self, name, password):
        body = {"password": password, "tags": "management"}
        assert self.ask("PUT", f"users/{name}", ADMIN, ADMIN_PASSWORD, body) in (201, 204)

    def add_user(self, name, password):
        self.set_password(name, password)
        body = {"configure": ".*", "write": ".*", "read": ".*"}
        assert self.ask("PUT", f"permissions/%2F/{name}", ADMIN, ADMIN_PASSWORD, body) in (201, 204)


class Sshd(System):
    """sshd, whose only account is that of the tests, with another home."""

    def prepare(self):
        if os.geteuid() == 0:
            # Where sshd of root separates its privileges.
            Path("/run/sshd").mkdir(exist_ok=True)
        for name in ("host", "first"):
            self.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", self.folder / name)
        (self.folder / ".ssh").mkdir()
        self.authorized = self.folder / ".ssh" / "authorized_keys"
        self.authorized.write_text("no-pty " + (self.folder / "first.pub").read_text())
        self.authorized.chmod(0o600)
        (self.folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.folder / 'host'}\n"
            f"AuthorizedKeysFile {self.authorized}\nPidFile none\nUsePAM no\nStrictModes no\n"
            f"PermitRootLogin prohibit-password\nPasswordAuthentication no\n"
            f"MaxStartups 100\nSetEnv HOME={self.folder}\n"
        )

    def launch(self):
        self.spawn("/usr/sbin/sshd", "-D", "-e", "-f", self.folder / "sshd_config")

    def ready(self):
        return self.lets_in(self.first())

    def first(self):
        """The secret's value to begin with."""
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "username": getpass.getuser(),
            "private_key": (self.folder / "first").read_text(),
            "public_key": " ".join((self.folder / "first.pub").read_text().split()[:2]),
            "host_key": (self.folder / "host.pub").read_text(),
        }

    def lets_in(self, secret):
        key = self.folder / f"key-{hashlib.sha256(secret['private_key'].encode()).hexdigest()[:16]}"
        descriptor = os.open(key, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secret["private_key"])
        options = ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"]
        options += ["IdentitiesOnly=yes", "ConnectTimeout=10", "LogLevel=ERROR"]
        return self.client_lets_in(
            *["ssh", "-F", "none", "-i", key, "-p", secret["port"], "-l", secret["username"]],
            *[part for option in options for part in ("-o", option)],
            *[secret["host"], "exit 0"],
        )
