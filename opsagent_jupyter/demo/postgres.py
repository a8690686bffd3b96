"""An embedded PostgreSQL server and its standby: random password, loopback only, gone when its owner is gone."""

from __future__ import annotations

import atexit
import secrets
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier, Literal

from opsagent_jupyter.demo.binaries import Binaries, find_binaries
from opsagent_jupyter.demo.home import Home, tail
from opsagent_jupyter.errors import DemoError

if TYPE_CHECKING:
    from typing import Self

Setting = str | int | bool

HOST = "127.0.0.1"
SUPERUSER = "postgres"
#: Seconds from the start of the process until it must answer.
START_LIMIT = 20.0

_POLL = 0.02
_PORT_ATTEMPTS = 5
_PORT_TAKEN = "could not bind"

#: The data is made to be thrown away, so nothing waits for the disk.
_SETTINGS: Mapping[str, Setting] = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "fsync": False,
    "synchronous_commit": False,
    "full_page_writes": False,
    "shared_buffers": "64MB",
    "max_connections": 60,
    "wal_level": "replica",
    "max_wal_senders": 4,
    "track_io_timing": True,
    "max_wal_size": "512MB",
    "checkpoint_timeout": "30min",
}
_STATEMENT_SETTINGS: Mapping[str, Setting] = {
    "shared_preload_libraries": "pg_stat_statements",
    "pg_stat_statements.track": "all",
}


class EmbeddedServer(ABC):
    """What a primary and a standby share: start, wait, stop. Its password is in `dsn` only, never in a repr or log."""

    host = HOST

    def __init__(self, binaries: Binaries | None, settings: Mapping[str, Setting], password: str) -> None:
        self._binaries = binaries
        self._extra = dict(settings)
        self._password = password
        self._home: Home | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.version = ""
        self.has_stat_statements = False

    def __repr__(self) -> str:
        state = f"{self.host}:{self.port}, pid {self.pid}" if self.running else "stopped"
        return f"{type(self).__name__}({self.version or 'not started'}, {state})"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """The process id of the postmaster."""
        return self._process.pid if self._process else None

    @property
    def major(self) -> int:
        return self.binaries.major

    @property
    def binaries(self) -> Binaries:
        """The programs it runs from."""
        if self._binaries is None:
            self._binaries = find_binaries()
        return self._binaries

    @property
    def data_dir(self) -> Path:
        return self._living.path / "data"

    @property
    def dsn(self) -> str:
        """The superuser's connection string for database postgres; it holds the password."""
        return self.dsn_for("postgres")

    def dsn_for(self, database: str, user: str = SUPERUSER, password: str | None = None) -> str:
        """A connection string for a database of this server, as the superuser unless a login is given."""
        return login_dsn(self.host, self.port, database, user, self._password if password is None else password)

    def log_tail(self) -> str:
        """The last lines of the server's log."""
        return tail(self._log)

    def start(self) -> Self:
        """Make the data directory, start the server, and return when it answers."""
        if self.running:
            return self
        self.stop()
        binaries = self.binaries
        self._home = Home()
        atexit.register(self.stop)
        try:
            self._binaries = self._home.usable(binaries)
            self._prepare()
            self._launch()
            self._learn()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop the server and remove its directory; harmless when it is stopped, or in a forked child."""
        home, process = self._home, self._process
        if home is None or not home.is_ours:
            return
        if process is not None:
            home.stop(process)
        home.close()
        atexit.unregister(self.stop)
        self._home = self._process = None

    @property
    def _living(self) -> Home:
        if self._home is None:
            raise DemoError("The embedded PostgreSQL server is not running.", hint="Call start() first.")
        return self._home

    @property
    def _log(self) -> Path:
        return self._living.path / "server.log"

    @abstractmethod
    def _prepare(self) -> None:
        """Fill the data directory, and include the settings in its postgresql.conf."""

    def _settings(self) -> dict[str, Setting]:
        statements = _STATEMENT_SETTINGS if self.binaries.has_stat_statements else {}
        return {**_SETTINGS, **statements, **self._extra, "port": self.port}

    def _launch(self) -> None:
        """Start on a free port; somebody else may take that port before the server does, so try again on another."""
        for _ in range(_PORT_ATTEMPTS):
            self.port = free_port()
            self._write_settings()
            self._process = self._living.spawn([self.binaries.program("postgres"), "-D", self.data_dir], self._log)
            if self._answers():
                return
            if _PORT_TAKEN not in self.log_tail():
                break
            self._log.unlink()
        raise DemoError(f"PostgreSQL {self.binaries.version} did not start. Its log ends: {self.log_tail()}")

    def _write_settings(self) -> None:
        (self._living.path / "opsagent.conf").unlink(missing_ok=True)
        lines = [f"{name} = {quoted(value)}\n" for name, value in self._settings().items()]
        self._living.write("opsagent.conf", "".join(lines))

    def _answers(self) -> bool:
        """Wait until the server accepts us; False when its process ended instead."""
        deadline = time.monotonic() + START_LIMIT
        while self.running:
            try:
                psycopg.connect(self.dsn, connect_timeout=2, sslmode="disable").close()
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline:
                    seconds = f"{START_LIMIT:.0f} s"
                    said = f"{str(error).strip()} Its log ends: {self.log_tail()}"
                    raise DemoError(f"PostgreSQL did not answer within {seconds}: {said}") from None
                time.sleep(_POLL)
            else:
                return True
        return False

    def _learn(self) -> None:
        with connected(self.dsn) as connection:
            row = connection.execute(
                "SELECT current_setting('server_version'), current_setting('shared_preload_libraries')"
            ).fetchone()
        version, preloaded = row or ("", "")
        self.version = str(version).split()[0]
        # The extension can be created without the preload, and then every call of it fails (55000).
        self.has_stat_statements = self.binaries.has_stat_statements and "pg_stat_statements" in preloaded


class EmbeddedPostgres(EmbeddedServer):
    """A PostgreSQL server made from nothing in a temporary directory; use it with `with`, or start() and stop()."""

    def __init__(self, binaries: Binaries | None = None, settings: Mapping[str, Setting] | None = None) -> None:
        super().__init__(binaries, settings or {}, secrets.token_urlsafe(24))
        self._standbys: list[EmbeddedReplica] = []

    def add_standby(
        self, name: str = "demo_standby", apply_delay: str = "3s", settings: Mapping[str, Setting] | None = None
    ) -> EmbeddedReplica:
        """A started streaming standby that replays everything `apply_delay` late ('0' for at once)."""
        own = {**self._extra, "recovery_min_apply_delay": apply_delay, **(settings or {})}
        replica = EmbeddedReplica(self, name, own, self._password)
        self._standbys.append(replica)
        return replica.start()

    def stop(self) -> None:
        while self._standbys:
            self._standbys.pop().stop()
        super().stop()

    def _prepare(self) -> None:
        home = self._living
        secret = home.write("superuser", self._password)
        try:
            home.run([*self._initdb(), "--pwfile", secret])
        finally:
            secret.unlink()
        include_settings(self.data_dir, home.path / "opsagent.conf")

    def _initdb(self) -> list[str | Path]:
        login = ["-U", SUPERUSER, "-A", "scram-sha-256"]
        options = ["-E", "UTF8", "--locale=C", "--no-sync"]
        quiet = ["--no-instructions"] if self.binaries.major >= 14 else []
        return [self.binaries.program("initdb"), "-D", self.data_dir, *login, *options, *quiet]


class EmbeddedReplica(EmbeddedServer):
    """A streaming standby of an embedded primary, with a replication login and a slot of its own.

    It is a physical copy, so its logins and passwords are the primary's.
    """

    def __init__(self, primary: EmbeddedPostgres, name: str, settings: Mapping[str, Setting], password: str) -> None:
        super().__init__(primary.binaries, settings, password)
        self.primary = primary
        self.name = name
        self.slot = f"{name}_slot"
        self._replication_password = secrets.token_urlsafe(24)

    def stop(self) -> None:
        had_home = self._home is not None and self._home.is_ours
        super().stop()
        if had_home and self.primary.running:
            self._leave_primary()

    def _prepare(self) -> None:
        self._join_primary()
        home = self._living
        source = make_conninfo(**self._source())
        how = ["-X", "stream", "-c", "fast", "--no-sync", "--no-password"]
        home.run([self.binaries.program("pg_basebackup"), "-D", self.data_dir, "-d", source, *how])
        (self.data_dir / "standby.signal").touch()
        include_settings(self.data_dir, home.path / "opsagent.conf")

    def _settings(self) -> dict[str, Setting]:
        source = make_conninfo(**self._source(), application_name=self.name)
        standby: dict[str, Setting] = {"primary_conninfo": source, "primary_slot_name": self.slot, "hot_standby": True}
        return {**super()._settings(), **standby}

    def _source(self) -> dict[str, str]:
        """How the standby reaches the primary. The password stays in a 0600 file: pg_monitor can read the setting."""
        file = self._living.path / "pgpass"
        if not file.exists():
            self._living.write(file.name, f"{HOST}:{self.primary.port}:*:{self.name}:{self._replication_password}\n")
        return {"host": HOST, "port": str(self.primary.port), "user": self.name, "passfile": str(file)}

    def _join_primary(self) -> None:
        role = Identifier(self.name)
        with connected(self.primary.dsn) as connection:
            connection.execute("SET pg_stat_statements.track = 'none'")  # it would show the verifier
            verifier = scram_verifier(connection, self.name, self._replication_password)
            connection.execute(SQL("CREATE ROLE {} LOGIN REPLICATION PASSWORD {}").format(role, Literal(verifier)))
            connection.execute("SELECT pg_create_physical_replication_slot(%s)", [self.slot])

    def _leave_primary(self) -> None:
        """Drop slot and login: a stopped standby keeps no WAL. The slot is in use until its sender has ended."""
        deadline = time.monotonic() + 2
        with suppress(DemoError), connected(self.primary.dsn) as connection:
            while not self._slot_dropped(connection) and time.monotonic() < deadline:
                time.sleep(_POLL)
            connection.execute(SQL("DROP ROLE IF EXISTS {}").format(Identifier(self.name)))

    def _slot_dropped(self, connection: psycopg.Connection) -> bool:
        query = "SELECT active FROM pg_replication_slots WHERE slot_name = %s"
        row = connection.execute(query, [self.slot]).fetchone()
        if row is not None and not row[0]:
            connection.execute("SELECT pg_drop_replication_slot(%s)", [self.slot])
        return row is None or not row[0]


def login_dsn(host: str, port: int, database: str, user: str, password: str) -> str:
    """A connection URI; it holds the password."""
    login = f"{quote(user, safe='')}:{quote(password, safe='')}"
    return f"postgresql://{login}@{host}:{port}/{quote(database, safe='')}"


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def quoted(value: Setting) -> str:
    """A value as postgresql.conf reads it."""
    text = ("on" if value else "off") if isinstance(value, bool) else str(value)
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def include_settings(data_dir: Path, settings: Path) -> None:
    """Make postgresql.conf end with our own file, which therefore wins; a copied one names the primary's file."""
    conf = data_dir / "postgresql.conf"
    lines = [line for line in conf.read_text(encoding="utf-8").splitlines() if not line.startswith("include = ")]
    conf.write_text("\n".join([*lines, f"include = {quoted(str(settings))}", ""]), encoding="utf-8")


def scram_verifier(connection: psycopg.Connection, user: str, password: str) -> str:
    """What CREATE ROLE takes instead of the password: the clear text would stay in logs and pg_stat_statements."""
    verifier = connection.pgconn.encrypt_password(password.encode(), user.encode(), b"scram-sha-256")
    return verifier.decode()


@contextmanager
def connected(dsn: str) -> Iterator[psycopg.Connection]:
    """An autocommit connection to an embedded server; what goes wrong in it is a DemoError.

    A PGSSLMODE that the user has set for servers of their own would otherwise keep us out.
    """
    try:
        with psycopg.connect(dsn, autocommit=True, sslmode="disable", application_name="opsagent-demo") as connection:
            yield connection
    except psycopg.Error as error:
        code = f" ({error.sqlstate})" if error.sqlstate else ""
        said = str(error).strip()
        raise DemoError(f"The embedded PostgreSQL server refused a step of the demo{code}: {said}") from error
