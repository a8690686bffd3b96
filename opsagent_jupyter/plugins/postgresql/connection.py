"""Connections of one instance: three in all, two for reads, two for changes; a cancelled task cancels in the server."""

from __future__ import annotations

import asyncio
import select
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from opsagent_jupyter.errors import TargetUnreachable
from opsagent_jupyter.models import Catalog, Health, Json
from opsagent_jupyter.plugin import Limits
from opsagent_jupyter.plugins.postgresql import dsn, failures
from opsagent_jupyter.plugins.postgresql.queries import query

if TYPE_CHECKING:
    from psycopg import AsyncConnection
    from psycopg.errors import Diagnostic
    from psycopg.sql import Composed

Row = dict[str, Any]

#: Milliseconds that one read may run, and may wait for a lock.
STATEMENT_MS = 5_000
LOCK_MS = 200
#: Connections of one instance: in all, for reads, for changes.
BUDGET, READERS, CHANGERS = 3, 2, 2
#: Seconds that a cancelled statement gets to end.
CANCEL_GRACE = 10.0
#: Seconds that the server gets to say that it rolled back; after that the connection is closed.
ROLLBACK_SECONDS = 5.0
#: Seconds until it is cancelled again.
CANCEL_AGAIN = 0.25

_DEFAULTS = {"connect_timeout": "10", "keepalives_idle": "30", "keepalives_interval": "10", "keepalives_count": "3"}
#: Compiling a catalog query costs more than running it.
_BEGIN = b"BEGIN READ ONLY; SET LOCAL jit = off; SET LOCAL statement_timeout = %d; SET LOCAL lock_timeout = %d"
_ROLLBACK = b"ROLLBACK"
#: Texts of times and intervals have one form, whatever the role prefers.
_FORMATS = "-c DateStyle=ISO,YMD -c IntervalStyle=postgres"
_READ_ONLY = (
    "-c default_transaction_read_only=on"
    f" -c statement_timeout={STATEMENT_MS} -c lock_timeout={LOCK_MS} -c idle_in_transaction_session_timeout=60000"
)


@dataclass(frozen=True)
class Server:
    """What a connection learns of the server once; nothing here changes while it lives."""

    version: str
    number: int
    """As server_version_num: 150018."""
    database: str
    database_oid: int
    role: str
    superuser: bool
    block_size: int

    @property
    def major(self) -> int:
        return self.number // 10_000


class Database:
    """A live connection to one instance. Reads run in READ ONLY transactions that are always rolled back."""

    def __init__(self, name: str, secret: str, limits: Limits) -> None:
        self.name = name
        self.limits = limits
        self.server: Server
        self._pool = Pool(name, secret)
        self.lent: Lent | None = None
        self._columns: dict[str, frozenset[str]] = {}

    def __repr__(self) -> str:
        return f"Database({self.name!r})"

    @classmethod
    async def connect(cls, name: str, secret: str, limits: Limits) -> Database:
        """Connect once and learn what the server is; raises an ``ExecutionError``."""
        database = cls(name, secret, limits)
        try:
            database.server = Server(**await database.one(query("server")))
        except BaseException:
            await database.close()
            raise
        return database

    async def rows(
        self,
        statement: str | Composed,
        values: Mapping[str, Any] | None = None,
        *,
        statement_ms: int = STATEMENT_MS,
        lock_ms: int = LOCK_MS,
    ) -> list[Row]:
        """Run one read in a READ ONLY transaction of its own and return its rows as dicts."""
        if self.lent is not None:
            return await self.lent.rows(statement, values, statement_ms, lock_ms)
        async with self.reading(statement_ms=statement_ms, lock_ms=lock_ms) as connection:
            return await _fetch(connection, statement, values)

    async def one(self, statement: str | Composed, values: Mapping[str, Any] | None = None) -> Row:
        """Run a read that has exactly one row."""
        (row,) = await self.rows(statement, values)
        return row

    async def columns_of(self, relation: str) -> frozenset[str]:
        """Return the columns of a catalog view: versions and forks differ, so presence decides, not a number."""
        if relation not in self._columns:
            found = await self.rows(query("columns_of"), {"relation": relation})
            self._columns[relation] = frozenset(row["name"] for row in found)
        return self._columns[relation]

    @asynccontextmanager
    async def reading(
        self, *, statement_ms: int = STATEMENT_MS, lock_ms: int = LOCK_MS
    ) -> AsyncIterator[AsyncConnection[Any]]:
        """Lend a connection inside a READ ONLY transaction with its own time limits; it ends in ROLLBACK."""
        if self.lent is not None:
            async with self.lent.transaction(statement_ms, lock_ms) as connection:
                yield connection
            return
        with failures.Translated(statement_ms):
            async with self._pool.reader() as connection:
                await _say(connection, _BEGIN % (statement_ms, lock_ms))
                yield connection

    @asynccontextmanager
    async def together(self) -> AsyncIterator[Database]:
        """Lend this database for some quick reads, one after another: on one connection, in one transaction."""
        with failures.Translated():
            async with self._pool.reader() as connection:
                yield self._over(connection)

    def _over(self, connection: AsyncConnection[Any]) -> Self:
        view = object.__new__(type(self))
        view.__dict__ = {**self.__dict__, "lent": Lent(connection)}
        return view

    @asynccontextmanager
    async def lending(self) -> AsyncIterator[AsyncConnection[Any]]:
        """Lend an idle autocommit connection, read only by default; whoever borrows it leaves no transaction."""
        with failures.Translated():
            async with self._pool.reader() as connection:
                yield connection

    @asynccontextmanager
    async def changing(self, settings: Mapping[str, str]) -> AsyncIterator[Change]:
        """Open a connection for one approved change, with these session settings; it is closed afterwards."""
        async with self._pool.changer() as connection:
            with failures.Translated():
                for name, value in settings.items():
                    await _fetch(connection, query("setting"), {"name": name, "value": value})
                (backend,) = await _fetch(connection, query("backend"))
            yield Change(connection, backend["pid"], backend["backend_start"])

    @asynccontextmanager
    async def elsewhere(self, database: str) -> AsyncIterator[Database]:
        """Connect to another database of the same server with the same credentials, for a short while.

        Raises an ``ExecutionError`` when it cannot be reached, and when the answer comes from another server or database.
        """
        secret = dsn.elsewhere(self._pool.secret, database)
        other = await Database.connect(f"{self.name}/{database}", secret, self.limits)
        try:
            if other.server.database != database or await _cluster(other) != await _cluster(self):
                raise TargetUnreachable(f"The database {database} was not reached: another one answered in its place.")
            yield other
        finally:
            await other.close()

    def pids(self) -> frozenset[int]:
        """The server processes that are ours right now."""
        return self._pool.pids()

    async def identity(self) -> dict[str, Json]:
        """Return what tells this database from any other: system identifier, database, role, version, search path."""
        from opsagent_jupyter.plugins.postgresql.standing import identity

        return await identity(self)

    async def health(self) -> Health:
        """Ask for a sign of life and the rights of the role."""
        from opsagent_jupyter.plugins.postgresql.standing import health

        return await health(self)

    async def catalog(self) -> Catalog:
        """Return tables with columns, indexes and roles as they are written here."""
        from opsagent_jupyter.plugins.postgresql.standing import catalog

        return await catalog(self)

    async def close(self) -> None:
        """Let go of every connection, whatever state it is in."""
        self._pool.close()


@dataclass
class Lent:
    """A connection for reads that follow each other; their transaction is begun anew after an error."""

    connection: AsyncConnection[Any]
    limits: tuple[int, ...] = ()
    """Of the transaction that is open, as the server was told."""

    async def rows(
        self, statement: str | Composed, values: Mapping[str, Any] | None, statement_ms: int, lock_ms: int
    ) -> list[Row]:
        """Run one of the reads."""
        with failures.Translated(statement_ms):
            await self._begin(statement_ms, lock_ms)
            try:
                return await _fetch(self.connection, statement, values)
            except BaseException:
                self.limits = ()
                raise

    @asynccontextmanager
    async def transaction(self, statement_ms: int, lock_ms: int) -> AsyncIterator[AsyncConnection[Any]]:
        """Lend the connection inside the transaction."""
        with failures.Translated(statement_ms):
            await self._begin(statement_ms, lock_ms)
            try:
                yield self.connection
            except BaseException:
                self.limits = ()
                raise

    async def _begin(self, *limits: int) -> None:
        if self.limits == limits:
            return
        if _status(self.connection) != dsn.driver().pq.TransactionStatus.IDLE:
            await _roll_back(self.connection)
        await _say(self.connection, _BEGIN % limits)
        self.limits = limits


@dataclass(frozen=True)
class Ending:
    """How a statement ended, as the driver saw it; what it did is read back from the catalog."""

    rows: tuple[Row, ...] = ()
    notices: tuple[str, ...] = ()
    sqlstate: str = ""
    message: str = ""
    lost: bool = False
    """The end was not seen: the connection broke, or the server did not answer the cancel request."""
    cancelled: bool = False
    seconds: float = 0.0

    @property
    def clean(self) -> bool:
        """Whether the server reported success."""
        return not (self.lost or self.sqlstate)


class Change:
    """The connection of one approved change."""

    def __init__(self, connection: AsyncConnection[Any], pid: int, backend_start: str) -> None:
        self.pid = pid
        self.backend_start = backend_start
        self._connection = connection
        self._notices: list[str] = []
        connection.add_notice_handler(self._hear)

    async def run(self, statement: str) -> Ending:
        """Send one statement and see its end; a cancelled task cancels it in the server and still sees its end."""
        started = time.monotonic()
        task = asyncio.ensure_future(self._send(statement))
        cancelled = False
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            cancelled = True
            await self._cancel(task)
        finally:
            if not task.done():
                self._connection.pgconn.finish()
                task.cancel()
        return self._ending(task, cancelled=cancelled, seconds=time.monotonic() - started)

    async def rows(self, statement: str | Composed, values: Mapping[str, Any] | None = None) -> list[Row]:
        """Read something back over the same connection."""
        with failures.Translated():
            return await _fetch(self._connection, statement, values)

    @property
    def alive(self) -> bool:
        """Whether the connection can still be used."""
        return not self._connection.closed

    async def _send(self, statement: str) -> list[Row]:
        from psycopg.rows import dict_row

        async with self._connection.cursor(row_factory=dict_row) as cursor:
            # binary forces the extended protocol, which takes one statement only
            await cursor.execute(statement, binary=True)
            return await cursor.fetchall() if cursor.description else []

    async def _cancel(self, task: asyncio.Future[list[Row]]) -> None:
        end = time.monotonic() + CANCEL_GRACE
        while not task.done() and time.monotonic() < end:
            # more than once: the first may come before the statement has reached the server
            with suppress(dsn.driver().Error):
                await self._connection.cancel_safe(timeout=CANCEL_GRACE)
            await asyncio.wait({task}, timeout=CANCEL_AGAIN)

    def _ending(self, task: asyncio.Future[list[Row]], *, cancelled: bool, seconds: float) -> Ending:
        notices = tuple(self._notices)
        if not task.done():
            return Ending(notices=notices, lost=True, cancelled=cancelled, seconds=seconds)
        error = task.exception()
        if error is None:
            return Ending(tuple(task.result()), notices, cancelled=cancelled, seconds=seconds)
        if not isinstance(error, dsn.driver().Error):
            raise error
        said = " ".join((error.diag.message_primary or str(error)).split())
        state = error.sqlstate or ""
        return Ending((), notices, state, said, lost=not state, cancelled=cancelled, seconds=seconds)

    def _hear(self, notice: Diagnostic) -> None:
        self._notices.append(f"{notice.severity_nonlocalized or notice.severity}: {notice.message_primary}")


@dataclass
class Pool:
    """The connections of one instance on one event loop; on another loop it starts afresh."""

    name: str
    secret: str = field(repr=False)
    idle: list[AsyncConnection[Any]] = field(default_factory=list, repr=False)
    lent: set[AsyncConnection[Any]] = field(default_factory=set, repr=False)
    places: int = 0
    """Connections that are lent or about to be opened; with the idle ones never more than BUDGET."""
    closed: bool = False
    loop: asyncio.AbstractEventLoop | None = field(default=None, repr=False)

    @asynccontextmanager
    async def reader(self) -> AsyncIterator[AsyncConnection[Any]]:
        """Lend a read connection; it goes back only when it is sound. A transaction that was left open is rolled back."""
        self._adopt_loop()
        async with self._readers, self._budget:
            self.places += 1
            try:
                connection = await self._sound() or await self._open(_READ_ONLY)
                self.lent.add(connection)
                try:
                    yield connection
                finally:
                    self.lent.discard(connection)
                    self._take_back(connection)
            finally:
                self.places -= 1

    @asynccontextmanager
    async def changer(self) -> AsyncIterator[AsyncConnection[Any]]:
        """Open a connection without the read-only default, for one change."""
        self._adopt_loop()
        async with self._changers, self._budget:
            self.places += 1
            try:
                connection = await self._open("")
                self.lent.add(connection)
                try:
                    yield connection
                finally:
                    self.lent.discard(connection)
                    _finish(connection)
            finally:
                self.places -= 1

    def pids(self) -> frozenset[int]:
        """The server processes behind the connections."""
        living = (connection for connection in (*self.idle, *self.lent) if not connection.closed)
        return frozenset(connection.info.backend_pid for connection in living)

    def close(self) -> None:
        """Finish what is idle now and what is lent when it comes back: a running change is not torn off."""
        self.closed = True
        while self.idle:
            _finish(self.idle.pop())

    def _adopt_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if loop is self.loop:
            return
        while self.idle:
            _finish(self.idle.pop())
        self.loop, self.places = loop, 0
        self._budget = asyncio.Semaphore(BUDGET)
        self._readers = asyncio.Semaphore(READERS)
        self._changers = asyncio.Semaphore(CHANGERS)

    async def _open(self, options: str) -> AsyncConnection[Any]:
        if self.closed:
            raise TargetUnreachable(
                f"The connection to {self.name} was closed.", hint="Ask again: a new one is opened."
            )
        import psycopg

        while self.idle and len(self.idle) + self.places > BUDGET:
            _finish(self.idle.pop())
        secrets = dsn.redactions(self.secret)
        try:
            return await psycopg.AsyncConnection.connect(**self._parameters(options), autocommit=True)
        except (psycopg.Error, OSError) as error:
            raise failures.refused(error, secrets) from None

    def _parameters(self, options: str) -> dict[str, Any]:
        given = dsn.parameters(self.secret)
        entries = dsn.service_entries(given.get("service", ""))
        own = given.get("options", entries.get("options", ""))
        return {
            **{key: value for key, value in _DEFAULTS.items() if key not in entries},
            **given,
            "options": f"{own} {_FORMATS} {options}".strip(),
            "client_encoding": "UTF8",
            "application_name": f"opsagent:{self.name}",
        }

    async def _sound(self) -> AsyncConnection[Any] | None:
        """An idle connection that the server has not closed meanwhile."""
        while self.idle:
            connection, sound = self.idle.pop(), False
            try:
                sound = await _is_idle(connection)
            finally:  # also when the borrower is cancelled meanwhile
                if not sound:
                    _finish(connection)
            if sound:
                return connection
        return None

    def _take_back(self, connection: AsyncConnection[Any]) -> None:
        here = self.loop is asyncio.get_running_loop()
        # this connection still holds its place, which the idle list takes over
        if here and not self.closed and len(self.idle) + self.places <= BUDGET and _ends(connection):
            self.idle.append(connection)
        else:
            _finish(connection)


async def _cluster(database: Database) -> tuple[Any, ...]:
    """What two databases of one server have in common: its start, its port, and who we are on it."""
    return tuple((await database.one(query("cluster"))).values())


def _status(connection: AsyncConnection[Any]) -> int:
    return connection.pgconn.transaction_status  # UNKNOWN for a closed one


def _ends(connection: AsyncConnection[Any]) -> bool:
    """Whether a connection can be kept: it is idle, or is told to roll back. Nobody waits for the server's word on that but
    whoever is lent the connection next: it would cost every read a round trip."""
    status = dsn.driver().pq.TransactionStatus
    match _status(connection):
        case status.IDLE:
            return True
        case status.INTRANS | status.INERROR:
            with suppress(dsn.driver().Error):
                connection.pgconn.send_query(_ROLLBACK)
                return connection.pgconn.flush() == 0
    return False


async def _is_idle(connection: AsyncConnection[Any]) -> bool:
    """Whether a connection can be lent: open, no transaction, and nothing said by the server while nobody listened."""
    status = dsn.driver().pq.TransactionStatus
    if _status(connection) == status.ACTIVE:
        with suppress(dsn.driver().Error, TimeoutError):
            await _hear(connection)
    return _status(connection) == status.IDLE and not _has_word(connection.fileno())


async def _hear(connection: AsyncConnection[Any]) -> None:
    """Read the end of a ROLLBACK, which nearly always is there. Not by the connection's own waiting: out of time, that
    would ask the server to cancel, and wait on."""
    from psycopg import generators, waiting

    pgconn = connection.pgconn
    pgconn.consume_input()
    async with asyncio.timeout(ROLLBACK_SECONDS if pgconn.is_busy() else None):
        await waiting.wait_async(generators.execute(pgconn), pgconn.socket)


def _has_word(socket: int) -> bool:
    """Whether something can be read from a socket."""
    if hasattr(select, "poll"):  # unlike the others it makes no file, and knows no highest number of one
        poll = select.poll()
        poll.register(socket, select.POLLIN)
        return bool(poll.poll(0))
    return bool(select.select([socket], [], [], 0)[0])


def _finish(connection: AsyncConnection[Any]) -> None:
    connection.pgconn.finish()


async def _fetch(
    connection: AsyncConnection[Any], statement: str | Composed, values: Mapping[str, Any] | None = None
) -> list[Row]:
    from psycopg.rows import dict_row

    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(statement, values or {}, prepare=True)
        return await cursor.fetchall()


async def _say(connection: AsyncConnection[Any], command: bytes) -> None:
    """Send our own fixed words past psycopg, which forgets its prepared statements whenever it sees a ROLLBACK."""
    from psycopg import errors, generators, pq

    async with connection.lock:
        connection.pgconn.send_query(command)
        for result in await connection.wait(generators.execute(connection.pgconn)):
            if result.status == pq.ExecStatus.FATAL_ERROR:
                raise errors.error_from_result(result, encoding=connection.info.encoding)


async def _roll_back(connection: AsyncConnection[Any]) -> None:
    if not connection.closed:
        with suppress(dsn.driver().Error):
            await _say(connection, _ROLLBACK)
