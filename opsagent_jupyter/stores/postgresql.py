"""The store in a PostgreSQL database, for teams."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.engine import URL

from opsagent_jupyter.errors import (
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreReadOnly,
    StoreUnavailable,
)
from opsagent_jupyter.stores.storage import closed_on_error, refuse_closed, seam, survive_fork

#: Seconds after which a watcher looks by itself: a pooler between us and the server may swallow notifications.
LOOK = 1.0
#: Key of the advisory lock of migrations: "opsagent" as a 64-bit number.
MIGRATION = int.from_bytes(b"opsagent")

#: SQLSTATE, or its class, to our error.
_FAILURES: dict[str, tuple[type[StoreError], str]] = {
    "25006": (StoreReadOnly, "The store's server only reads"),
    "42501": (StoreReadOnly, "The store's role lacks a right"),
    "42P01": (StoreCorrupt, "The store lacks a table"),
    "42703": (StoreCorrupt, "The store lacks a column"),
    "40001": (StoreLocked, "Another process changed the store at the same moment"),
    "40P01": (StoreLocked, "Two processes waited for each other in the store"),
    "55P03": (StoreLocked, "Another process holds the store locked"),
    "57014": (StoreLocked, "The store's server cancelled the statement"),
    "53100": (StoreFull, "The disk of the store's server is full"),
    "08": (StoreUnavailable, "The store does not answer"),
    "28": (StoreUnavailable, "The store's server refuses this login"),
    "3D": (StoreUnavailable, "The store's database does not exist"),
    "53": (StoreUnavailable, "The store's server is short of resources"),
    "57": (StoreUnavailable, "The store's server ended the connection"),
    "58": (StoreUnavailable, "The store's server has trouble with its files"),
    "XX": (StoreCorrupt, "The store's server reports damage"),
}


def explain(error: BaseException, url: URL) -> StoreError:
    """Return our error for one of psycopg's, by its SQLSTATE; one without is a connection that was not made or lost."""
    state = getattr(error, "sqlstate", None) or ("08" if isinstance(error, psycopg.OperationalError) else "")
    kind, what = _FAILURES.get(state) or _FAILURES.get(state[:2]) or (StoreError, "The store cannot do this")
    return kind(f"{what}: {_said(error, url)} ({safe(url)}).", native_code=state)


def _said(error: BaseException, url: URL) -> str:
    """The server's first line, without the password in case it is in there."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return line.replace(url.password, "***") if url.password else line


def safe(url: URL) -> str:
    """The URL for the eye: no password, and no options, where another could hide."""
    return URL.create(url.drivername, url.username, None, url.host, url.port, url.database).render_as_string()


class PostgresqlServer:
    """A store in a PostgreSQL database, shared by any number of machines."""

    kind = "postgresql"
    journal_mode = ""
    notifies = True
    swift = False

    def __init__(self, url: URL, lock_timeout: float) -> None:
        self._url = url
        self.url = safe(url)
        self._lock_timeout = lock_timeout
        self._closed = False
        self._writer = create_engine(
            url,
            isolation_level="READ COMMITTED",
            pool_size=5,
            max_overflow=10,
            pool_timeout=lock_timeout,
            pool_pre_ping=True,
            hide_parameters=True,
            connect_args={"connect_timeout": 10, "application_name": "opsagent store", "prepare_threshold": None},
        )
        event.listen(self._writer, "connect", self._prepare)
        self._reader = self._writer.execution_options(isolation_level="AUTOCOMMIT")
        self._snapshots = self._writer.execution_options(isolation_level="REPEATABLE READ")
        self.dialect = self._writer.dialect
        survive_fork(self)
        self.notices = tuple(self._observations())

    def _prepare(self, connection: psycopg.Connection[Any], _record: Any) -> None:
        """Bound the waits, and be durable even where the server's default is not."""
        milliseconds = int(self._lock_timeout * 1000)
        statement = sql.SQL(
            "SELECT set_config('lock_timeout', {}, false),"
            " set_config('idle_in_transaction_session_timeout', '60s', false),"
            " set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on'"
            " ELSE current_setting('synchronous_commit') END, false)"
        )
        with closed_on_error(connection):
            autocommit, connection.autocommit = connection.autocommit, True
            connection.execute(statement.format(sql.Literal(f"{milliseconds}ms")))
            connection.autocommit = autocommit

    def _observations(self) -> Iterator[str]:
        with self.reading() as connection:
            for setting in ("fsync", "full_page_writes"):
                if connection.exec_driver_sql(f"SHOW {setting}").scalar() == "off":
                    yield f"The store's server runs with {setting} = off: a crash of its machine can damage the audit."

    @contextmanager
    def _seam(self) -> Iterator[None]:
        refuse_closed(self.url, closed=self._closed)
        try:
            with seam(lambda error: explain(error, self._url)):
                yield
        except psycopg.Error as error:
            raise explain(error, self._url) from None

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with self._seam(), self._reader.connect() as connection:
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        with self._seam(), self._snapshots.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        with self._seam(), self._writer.begin() as connection:
            yield connection

    @contextmanager
    def recording(self, *, at_once: bool = False) -> Iterator[Any]:  # noqa: ARG002 - a network is never swift
        with self.writing() as connection:
            yield connection.connection.driver_connection

    @contextmanager
    def glancing(self) -> Iterator[Any]:
        with self.reading() as connection:
            yield connection.connection.driver_connection

    def exclude(self, connection: Connection) -> None:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION})

    def changes(self, stop: threading.Event, channel: str) -> Iterator[None]:
        """Listen on one kept connection, and look now and then even if nothing is heard."""
        with self._seam():
            kept = self._writer.raw_connection()
            connection: psycopg.Connection[Any] = kept.driver_connection  # type: ignore[assignment]
            kept.detach()
            with closing(connection):
                connection.autocommit = True
                connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
                looked = 0.0
                while not stop.is_set():
                    if any(connection.notifies(timeout=0.25, stop_after=1)) or time.monotonic() - looked > LOOK:
                        looked = time.monotonic()
                        yield

    def backup(self, path: Path) -> bool:  # noqa: ARG002 - the other database's way
        """The server's own tools make files on the server; ``SharedStore.backup`` copies the rows instead."""
        return False

    def damage(self) -> Sequence[str]:
        return []

    def abandon(self) -> object:
        pool = self._writer.pool
        self._writer.dispose(close=False)
        return pool

    def close(self) -> None:
        self._closed = True
        self._writer.dispose()
