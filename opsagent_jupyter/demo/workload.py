"""A realistic shop with everything wrong that a DBA meets in a year, and the demo that runs it."""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier, Literal

from opsagent_jupyter.demo.binaries import Binaries
from opsagent_jupyter.demo.postgres import (
    EmbeddedPostgres,
    EmbeddedReplica,
    Setting,
    connected,
    login_dsn,
    scram_verifier,
)
from opsagent_jupyter.demo.sessions import WARM_UP_ROUNDS, LiveSessions, run_round
from opsagent_jupyter.errors import DemoError

if TYPE_CHECKING:
    from typing import Self

OBSERVER = "opsagent_observer"
OPERATOR = "opsagent_operator"
APPLICATION = "shop_app"
OWNER = "shop_owner"
OLD_SLOT = "old_replica_slot"

#: Logins and how many connections each may hold.
_LOGINS = {OBSERVER: 15, OPERATOR: 15, APPLICATION: 20}
_ANALYZED = "ANALYZE customers, products, inventory, orders, order_items, carts, order_events"
_FAILING_INDEX = "CREATE UNIQUE INDEX CONCURRENTLY customers_name_uq ON customers (name)"
_ENTRY = re.compile(r"^-- (?P<head>\w+ \|[^\n]*)\n-- (?P<sign>[^\n]*)\n(?P<evidence>.*?);$", re.MULTILINE | re.DOTALL)

#: A slot that nobody reads keeps WAL; a demo that is left open must not fill the disk with it.
DEMO_SETTINGS: Mapping[str, Setting] = {"max_slot_wal_keep_size": "1GB"}


@dataclass(frozen=True)
class Planted:
    """One problem of the shop. `evidence` is a query for the observer that has a row while the problem is there."""

    kind: str
    object: str
    #: The tool that shows it.
    tool: str
    #: What it takes besides the seed: `pg_stat_statements`, `sessions`, `standby` or nothing.
    needs: str
    #: One sentence: what is wrong.
    sign: str
    evidence: str


@dataclass(frozen=True)
class Shop:
    """The logins of a seeded shop; each connection string holds a password, and none is in the repr."""

    superuser_dsn: str = field(repr=False)
    observer_dsn: str = field(repr=False)
    operator_dsn: str = field(repr=False)
    application_dsn: str = field(repr=False)
    reports_dsn: str = field(repr=False)


def sql_file(name: str) -> bytes:
    return Path(__file__).with_name(f"{name}.sql").read_bytes()


def read_planted(text: str) -> tuple[Planted, ...]:
    """The entries of planted.sql."""
    entries = []
    for match in _ENTRY.finditer(text):
        kind, name, tool, needs = (part.strip() for part in match["head"].split("|"))
        entries.append(Planted(kind, name, tool, needs, match["sign"], match["evidence"]))
    return tuple(entries)


#: Everything that is wrong with the shop, for the tour and its check.
PLANTED = read_planted(sql_file("planted").decode())


def seed(dsn: str) -> Shop:
    """Make the databases `shop` and `reports` on an embedded server, as the superuser of `dsn`; takes seconds."""
    with connected(dsn) as server:
        passwords = _make_logins(server)
        _make_databases(server)
    _fill(_login(dsn, "reports"), "reports_tables")
    _fill(_login(dsn, "shop"), "shop_tables", "shop_rows", "shop_indexes", "shop_decay")
    shop = Shop(
        superuser_dsn=_login(dsn, "shop"),
        observer_dsn=_login(dsn, "shop", OBSERVER, passwords[OBSERVER]),
        operator_dsn=_login(dsn, "shop", OPERATOR, passwords[OPERATOR]),
        application_dsn=_login(dsn, "shop", APPLICATION, passwords[APPLICATION]),
        reports_dsn=_login(dsn, "reports", APPLICATION, passwords[APPLICATION]),
    )
    _finish(shop)
    return shop


def _login(dsn: str, database: str, user: str = "", password: str = "") -> str:
    """`dsn` with another database, and another user if one is given.

    The server is on this machine and has no TLS; a PGSSLMODE that is meant for other servers must not break the demo.
    """
    given = {name: str(value) for name, value in conninfo_to_dict(dsn).items()}
    user, password = (user, password) if user else (given["user"], given["password"])
    return f"{login_dsn(given['host'], int(given['port']), database, user, password)}?sslmode=disable"


def _make_logins(server: psycopg.Connection) -> dict[str, str]:
    """Create the roles, and return the passwords by role."""
    passwords = {name: secrets.token_urlsafe(24) for name in _LOGINS}
    server.execute(SQL("CREATE ROLE {} NOLOGIN").format(Identifier(OWNER)))
    statement = SQL("CREATE ROLE {} LOGIN CONNECTION LIMIT {} PASSWORD {}")
    for name, limit in _LOGINS.items():
        verifier = scram_verifier(server, name, passwords[name])
        server.execute(statement.format(Identifier(name), Literal(limit), Literal(verifier)))
    server.execute(SQL("GRANT pg_monitor TO {}, {}").format(Identifier(OBSERVER), Identifier(OPERATOR)))
    server.execute(SQL("GRANT pg_signal_backend, {} TO {}").format(Identifier(OWNER), Identifier(OPERATOR)))
    if server.info.server_version >= 140000:
        server.execute(SQL("GRANT pg_read_all_data TO {}").format(Identifier(OBSERVER)))
    return passwords


def _make_databases(server: psycopg.Connection) -> None:
    # The slot comes first, so that it keeps the WAL of the whole load.
    server.execute("SELECT pg_create_physical_replication_slot(%s, true)", [OLD_SLOT])
    for name in ("shop", "reports"):
        server.execute(SQL("CREATE DATABASE {} OWNER {}").format(Identifier(name), Identifier(OWNER)))
    # One process for a query, and no JIT: plans that are easy to read, and a core left for the notebook.
    server.execute("ALTER DATABASE shop SET max_parallel_workers_per_gather = 0")
    server.execute("ALTER DATABASE shop SET jit = off")


def _fill(dsn: str, *scripts: str) -> None:
    with connected(dsn) as database:
        database.execute(sql_file("shop_rights"))
        database.execute(SQL("SET ROLE {}").format(Identifier(OWNER)))
        for script in scripts:
            database.execute(sql_file(script))


def _finish(shop: Shop) -> None:
    """The statistics, the failed index, and the first statements of the load."""
    with connected(shop.superuser_dsn) as database:
        if database.info.server_version < 140000:
            database.execute(SQL("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {}").format(Identifier(OBSERVER)))
        database.execute(SQL("SET ROLE {}").format(Identifier(OWNER)))
        database.execute(_ANALYZED)
        with suppress(psycopg.errors.UniqueViolation):
            database.execute(_FAILING_INDEX)
        database.execute("RESET ROLE")
        _count_statements(database)
    with connected(shop.application_dsn) as application:
        for number in range(WARM_UP_ROUNDS):
            run_round(application, number)


def _count_statements(database: psycopg.Connection) -> None:
    """Begin counting here: the statements of the seed itself are no part of the shop."""
    preloaded = database.execute("SHOW shared_preload_libraries").fetchone()
    if preloaded and "pg_stat_statements" in preloaded[0]:
        database.execute("CREATE EXTENSION pg_stat_statements")
        database.execute("SELECT pg_stat_statements_reset()")


class Demo:
    """An embedded PostgreSQL with the sick shop, its sessions, and a standby that lags; use it with `with`.

    `on_step` is told in one line what begins, from the thread that called start().
    """

    def __init__(
        self,
        on_step: Callable[[str], None] | None = None,
        binaries: Binaries | None = None,
        settings: Mapping[str, Setting] | None = None,
    ) -> None:
        self.server = EmbeddedPostgres(binaries, {**DEMO_SETTINGS, **(settings or {})})
        self._on_step = on_step or (lambda _: None)
        self._shop: Shop | None = None
        self._sessions: LiveSessions | None = None
        self._standby: EmbeddedReplica | None = None
        self._standby_failure: DemoError | None = None
        self._standby_thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"Demo({self.server!r})"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def shop(self) -> Shop:
        if self._shop is None:
            raise DemoError("The demo is not running.", hint="Call start() first.")
        return self._shop

    @property
    def sessions(self) -> LiveSessions:
        if self._sessions is None:
            raise DemoError("The demo is not running.", hint="Call start() first.")
        return self._sessions

    @property
    def observer_dsn(self) -> str:
        return self.shop.observer_dsn

    @property
    def operator_dsn(self) -> str:
        return self.shop.operator_dsn

    @property
    def superuser_dsn(self) -> str:
        return self.shop.superuser_dsn

    @property
    def standby(self) -> EmbeddedReplica | None:
        """The standby; None while it is being made in the background."""
        return self._standby

    def start(self) -> Self:
        """Start everything; the standby comes up in the background."""
        try:
            self._on_step(f"Starting PostgreSQL {self.server.binaries.version}")
            self.server.start()
            self._on_step("Filling the shop: 20,000 customers, 200,000 orders, 400,000 order items")
            self._shop = seed(self.server.dsn)
            self._on_step("Opening the shop's sessions")
            self._sessions = LiveSessions(self._shop.application_dsn, self._shop.reports_dsn)
            self._sessions.start()
            self._on_step("Adding a standby that lags")
            self._standby_thread = threading.Thread(target=self._add_standby, name="demo-standby", daemon=True)
            self._standby_thread.start()
        except BaseException:
            self.stop()
            raise
        return self

    def wait_for_standby(self, timeout: float = 60.0) -> EmbeddedReplica:
        """The standby, once it answers; `timeout` in seconds."""
        if self._standby_thread:
            self._standby_thread.join(timeout)
        if self._standby_failure:
            raise self._standby_failure
        if self._standby is None:
            raise DemoError(f"The standby was not up within {timeout:.0f} s.", hint="Call start(), or wait longer.")
        return self._standby

    def stop(self) -> None:
        """Close the sessions, stop both servers and remove their directories; harmless when stopped."""
        if self._sessions:
            self._sessions.stop()
        if self._standby_thread:
            self._standby_thread.join()
        self.server.stop()
        self._shop = self._sessions = self._standby = self._standby_thread = None

    def _add_standby(self) -> None:
        try:
            self._standby = self.server.add_standby()
        except DemoError as error:
            self._standby_failure = error
