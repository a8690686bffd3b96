"""The store in one SQLite file: safe journal mode, whole-disk durability, one writer at a time."""

from __future__ import annotations

import errno
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Dialect, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolExhausted
from sqlalchemy.pool import QueuePool

from opsagent_jupyter.errors import (
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreReadOnly,
    StoreUnavailable,
)
from opsagent_jupyter.stores.sqlite_library import sqlite3
from opsagent_jupyter.stores.storage import closed_on_error, refuse_closed, survive_fork, told
from opsagent_jupyter.stores.tables import VERSION_TABLE
from opsagent_jupyter.stores.turns import Turns

#: Seconds between two looks at ``PRAGMA data_version``: 24 ms until a change is seen, 0.3 % of a core.
LOOK = 0.05
#: Seconds that the last write may have taken for the next one to be as quick as handing it to a thread.
SWIFT = 0.003
#: Milliseconds that SQLite itself waits for a lock.
PATIENCE = "PRAGMA busy_timeout = {}"
#: File systems on which SQLite's locks cannot be trusted between machines.
NETWORK = re.compile(
    r"^(nfs|cifs|smb|9p|afs|ncpfs|fuse\.(sshfs|s3fs|gcsfuse|glusterfs)|ceph|lustre|glusterfs|gpfs|beegfs)"
)

#: https://sqlite.org/wal.html, "The WAL-reset bug": 3.7.0 to 3.51.2, but for two maintained lines.
_WAL_FIXED = (3, 51, 3)
_WAL_FIXED_LINES = {(3, 50): 7, (3, 44): 6}

_FAILURES: dict[int, tuple[type[StoreError], str]] = {
    sqlite3.SQLITE_BUSY: (StoreLocked, "Another process holds the store locked"),
    sqlite3.SQLITE_LOCKED: (StoreLocked, "Another connection holds the store locked"),
    sqlite3.SQLITE_CORRUPT: (StoreCorrupt, "The store file is damaged"),
    sqlite3.SQLITE_NOTADB: (StoreCorrupt, "The store file is no SQLite database"),
    sqlite3.SQLITE_READONLY: (StoreReadOnly, "The store file cannot be written"),
    sqlite3.SQLITE_PERM: (StoreReadOnly, "The store file cannot be written"),
    sqlite3.SQLITE_CANTOPEN: (StoreReadOnly, "The store file or its journal cannot be opened"),
    sqlite3.SQLITE_FULL: (StoreFull, "The disk of the store is full"),
    sqlite3.SQLITE_IOERR: (StoreUnavailable, "The disk of the store fails"),
}


_UNWRITABLE = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}


def wal_is_safe(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> bool:
    """True when this SQLite has no WAL-reset bug, which can corrupt a file that several connections write."""
    fixed = _WAL_FIXED_LINES.get((version[0], version[1]))
    return version >= _WAL_FIXED or (fixed is not None and version[2] >= fixed)


def filesystem_of(path: Path, mounts: str) -> str:
    """The type of the file system that holds a path, by the text of ``/proc/mounts``; empty when it is not in there."""
    found, depth = "", -1
    for line in mounts.splitlines():
        _, place, kind, *_ = [*line.split(" "), "", "", ""]
        mount = Path(place.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\"))
        if path.is_relative_to(mount) and len(mount.parts) >= depth:
            found, depth = kind, len(mount.parts)
    return found


def explain(error: BaseException, path: Path) -> StoreError:
    """Return our error for one of SQLite's, by its result code."""
    code = getattr(error, "sqlite_errorcode", None)
    kind, what = _FAILURES.get((code or 0) & 0xFF, (StoreError, "The store cannot do this"))
    return kind(f"{what} ({error}): {path}.", native_code=getattr(error, "sqlite_errorname", ""))


def explain_os(error: OSError, path: Path) -> StoreError:
    """Return our error for one of the operating system's."""
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return StoreReadOnly(f"The store cannot be made at {path}: {error.strerror}.")
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StoreFull(f"The store cannot be made at {path}: {error.strerror}.")
    return StoreUnavailable(f"The store cannot be opened at {path}: {error.strerror}.")


class StillFile(sqlite3.Connection):
    """A connection to a file that stands still: good for one use, because somebody may begin to write."""


class Kept:
    """One connection of a pool that is kept for one use after another; after any trouble there is a new one."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._held: Any = None

    @contextmanager
    def lent(self) -> Iterator[Any]:
        """Lend it; an open transaction is rolled back with the connection when the use fails."""
        connection = self.taken()
        try:
            yield connection
        except BaseException:
            self.forget()
            raise
        if isinstance(connection, StillFile):
            self.forget()

    def taken(self) -> Any:
        """Lend it to whoever forgets it when the use fails."""
        if self._held is None:
            self._held = self._engine.raw_connection()
        return self._held.driver_connection

    def forget(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            with suppress(DBAPIError, sqlite3.Error):
                held.invalidate()


class SqliteFile:
    """A store in one file, shared by the processes of one machine."""

    kind = "sqlite"
    notifies = False

    def __init__(self, path: Path, lock_timeout: float) -> None:
        self.path = path
        self.url = f"sqlite:///{path}"
        self.journal_mode = ""
        self.notices: tuple[str, ...] = ()
        self._lock_timeout = lock_timeout
        self._closed = False
        self._turns = Turns(path.with_name(path.name + ".lock"))
        self._make_file()
        self._file = self._identity()
        self._engine = create_engine(
            URL.create("sqlite", database=str(path)),
            module=sqlite3,
            creator=self._connect,
            paramstyle="named",
            poolclass=QueuePool,
            pool_timeout=lock_timeout,
            pool_use_lifo=True,  # the connection that wrote last has its pages still
            max_overflow=20,
            hide_parameters=True,
        )
        event.listen(self._engine, "connect", self._prepare)
        event.listen(self._engine, "checkout", _renew)
        event.listen(self._engine, "begin", _begin)
        self._writer = self._engine.execution_options(begin="BEGIN IMMEDIATE")
        self._recorder, self._glancer = Kept(self._engine), Kept(self._engine)
        self._glance = threading.Lock()
        self._recorded_in = 0.0
        #: The recorder's connection, and the seconds that it was told to wait for a lock.
        self._patience: tuple[Any, float] | None = None
        self._snapshots = self._engine.execution_options(begin="BEGIN")
        survive_fork(self)
        self._settle()

    @property
    def dialect(self) -> Dialect:
        return self._engine.dialect

    @property
    def swift(self) -> bool:
        """In WAL on a local disk that was quick the last time."""
        return self.journal_mode == "wal" and self._recorded_in < SWIFT

    def _make_file(self) -> None:
        """Make folder and file for this user alone. An existing file is never opened here: closing it would drop the
        locks that SQLite holds on it for this process."""
        try:
            if not self.path.parent.exists():
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self.path.exists():
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except FileExistsError:
            return
        except OSError as error:
            raise explain_os(error, self.path) from None

    def _settle(self) -> None:
        """Learn the journal mode, and what there is to say about this place."""
        with self.reading() as connection:
            self.journal_mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
        self.notices = tuple(self._observations())

    def _observations(self) -> Iterator[str]:
        if self._on_network():
            yield (
                f"{self.path} is on a network file system ({self._filesystem()}), where SQLite's locks may fail "
                "between machines. Use a local disk, or PostgreSQL through OPSAGENT_STORE_URL."
            )
        if self.journal_mode != "wal":
            yield (
                f"SQLite {sqlite3.sqlite_version}: rollback journal instead of WAL, because of "
                + (
                    "the WAL-reset bug before 3.51.3."
                    if not wal_is_safe()
                    else "the file system or the file's history."
                )
            )
        if os.name == "posix" and self.path.stat().st_mode & 0o077:
            yield f"{self.path} can be read by other users of this machine; make it private with chmod 600."

    def _filesystem(self) -> str:
        mounts = Path("/proc/mounts")
        return filesystem_of(self.path, mounts.read_text(errors="replace")) if mounts.exists() else ""

    def _on_network(self) -> bool:
        return NETWORK.match(self._filesystem()) is not None

    def _connect(self) -> sqlite3.Connection:
        """Open the file. In WAL a reader makes two files beside it, which it cannot in a folder that it may not write:
        there, when nobody else has made them, the file stands still and is read as it is
        (https://sqlite.org/wal.html, "Read-Only Databases")."""
        with closed_on_error(connection := self._opened(str(self.path))):
            try:
                connection.execute("PRAGMA schema_version").fetchall()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF not in _UNWRITABLE or not self._stands_still():
                    raise
            else:
                return connection
        connection.close()
        return self._opened(f"{self.path.as_uri()}?mode=ro&immutable=1", factory=StillFile)

    def _opened(self, place: str, factory: type[sqlite3.Connection] = sqlite3.Connection) -> sqlite3.Connection:
        return sqlite3.connect(
            place,
            timeout=self._lock_timeout,
            isolation_level=None,
            check_same_thread=False,
            factory=factory,
            uri=factory is StillFile,
        )

    def _stands_still(self) -> bool:
        """Whether nobody has the file open in WAL, and nobody like us can."""
        return not os.access(self.path.parent, os.W_OK) and not self.path.with_name(self.path.name + "-wal").exists()

    def _prepare(self, connection: sqlite3.Connection, _record: Any) -> None:
        """Set up a new connection; every change is on the disk when COMMIT returns."""
        if isinstance(connection, StillFile):
            return
        with closed_on_error(connection), closing(connection.cursor()) as cursor:
            cursor.execute("PRAGMA foreign_keys = ON")
            cursor.execute("PRAGMA synchronous = FULL")
            self._choose_journal(cursor)

    def _choose_journal(self, cursor: sqlite3.Cursor) -> None:
        """A new file gets WAL where that is safe. A file once taken out of WAL stays out: another Python of this
        machine may have the SQLite with the bug, and it follows the mode that it finds in the file."""
        if self.journal_mode == "wal" or _is_foreign(cursor):
            return
        current = cursor.execute("PRAGMA journal_mode").fetchall()[0][0]
        empty = cursor.execute("PRAGMA page_count").fetchall()[0][0] == 0
        if (current == "wal" or empty) and wal_is_safe() and not self._on_network():
            self._switch(cursor, "wal")
        else:
            self._switch(cursor, "truncate")

    def _switch(self, cursor: sqlite3.Cursor, mode: str) -> None:
        """Set the journal mode; changing to or from WAL needs the file alone and does not wait for it by itself."""
        deadline = time.monotonic() + self._lock_timeout
        while True:
            try:
                got = cursor.execute(f"PRAGMA journal_mode = {mode}").fetchall()[0][0]
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                got = "busy"
            if got == mode:
                return
            if time.monotonic() > deadline:
                raise StoreLocked(
                    f"The store {self.path} is in journal mode {got}, which SQLite {sqlite3.sqlite_version} breaks.",
                    hint="Close the other processes that use the store once, then start this one again.",
                )
            time.sleep(0.02)

    @contextmanager
    def _seam(self) -> Iterator[None]:
        refuse_closed(self.url, closed=self._closed)
        try:
            yield
        except (PoolExhausted, DBAPIError, sqlite3.Error) as error:
            raise self._told(error) from None

    def _told(self, error: PoolExhausted | DBAPIError | sqlite3.Error) -> StoreError:
        if isinstance(error, sqlite3.Error):
            return explain(error, self.path)
        return told(error, lambda original: explain(original, self.path))

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with self._seam(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        with self._seam(), self._snapshots.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        with self._turns.turn(self._lock_timeout), self._seam(), self._writer.begin() as connection:
            self._require_place()
            yield connection

    @contextmanager
    def recording(self, *, at_once: bool = False) -> Iterator[Any]:
        """On a kept connection: lending one costs more than SQLite does, and only one writes at a time anyhow. Turn, seam and
        loan are not nested contexts here, because every call pays for them twice."""
        seconds = 0.0 if at_once else self._lock_timeout
        turn = self._turns.take(seconds)
        try:
            refuse_closed(self.url, closed=self._closed)
            connection, begun = self._recorder.taken(), time.perf_counter()
            if self._patience != (connection, seconds):
                connection.execute(PATIENCE.format(int(seconds * 1000)))
                self._patience = connection, seconds
            connection.execute("BEGIN IMMEDIATE")
            self._require_place()
            yield connection
            connection.execute("COMMIT")
            self._recorded_in = time.perf_counter() - begun
        except BaseException as error:
            self._recorder.forget()  # an open transaction is rolled back with its connection
            if isinstance(error, PoolExhausted | DBAPIError | sqlite3.Error):
                raise self._told(error) from None
            raise
        finally:
            self._turns.give_back(turn)

    @contextmanager
    def glancing(self) -> Iterator[Any]:
        if self._glance.acquire(blocking=False):
            try:
                with self._seam(), self._glancer.lent() as connection:
                    yield connection
            finally:
                self._glance.release()
        else:
            with self.reading() as lent:
                yield lent.connection.driver_connection

    def _require_place(self) -> None:
        """The open file is the one at the path: in WAL SQLite does not look, and nobody would find the record again."""
        try:
            same = self._identity() == self._file
        except OSError:
            same = False
        if not same:
            raise StoreUnavailable(
                f"The store file was moved or replaced while it was open: {self.path}.",
                hint="Put it back, or restart whatever uses it.",
            )

    def _identity(self) -> tuple[int, int]:
        found = os.stat(self.path)  # noqa: PTH116 - Path.stat costs as much as the SQL of a change
        return found.st_dev, found.st_ino

    def exclude(self, connection: Connection) -> None:
        """``BEGIN IMMEDIATE`` has done it."""

    def changes(self, stop: threading.Event, channel: str) -> Iterator[None]:  # noqa: ARG002 - the other database's need
        """Look at ``data_version`` on one kept connection. It is read before the caller reads the feed, so that a
        commit between the two shows at the next look."""
        with self._seam():
            kept = self._engine.raw_connection()
            kept.detach()
            with closing(kept):
                seen = None
                while not stop.is_set():
                    cursor = kept.cursor()
                    cursor.execute("PRAGMA data_version")
                    found = cursor.fetchall()[0][0]
                    cursor.close()
                    if found != seen:
                        seen = found
                        yield
                    stop.wait(LOOK)

    def backup(self, path: Path) -> bool:
        """Copy the file page by page through SQLite, as it is at one moment."""
        source = closing(sqlite3.connect(self.path, timeout=self._lock_timeout))
        with self._seam(), source as pages, closing(sqlite3.connect(path)) as target:
            pages.backup(target)
        return True

    def damage(self) -> Sequence[str]:
        with self.reading() as connection:
            found = connection.exec_driver_sql("PRAGMA quick_check(20)").scalars().all()
        return [] if found == ["ok"] else list(found)

    def abandon(self) -> object:
        """In a child the turn is free too, whoever of the parent's threads had it."""
        left = self._engine.pool, self._recorder, self._glancer
        self._recorder, self._glancer = Kept(self._engine), Kept(self._engine)
        self._turns, self._glance = Turns(self._turns.path), threading.Lock()
        self._engine.dispose(close=False)
        return left

    def close(self) -> None:
        self._closed = True
        with suppress(StoreLocked), self._turns.here(self._lock_timeout):  # a record that hangs keeps its connection
            self._recorder.forget()
        with self._glance:
            self._glancer.forget()
        self._engine.dispose()


def _is_foreign(cursor: sqlite3.Cursor) -> bool:
    """True for a database of somebody else, of which nothing may be changed, its journal mode neither."""
    tables = {name for (name,) in cursor.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()}
    return bool(tables) and VERSION_TABLE not in tables


def _renew(connection: sqlite3.Connection, record: Any, _proxy: Any) -> None:
    """Let the pool lend a connection to a file that stands still once only."""
    if isinstance(connection, StillFile):
        if record.info.get("used"):
            raise DisconnectionError
        record.info["used"] = True


def _begin(connection: Connection) -> None:
    statement = connection.get_execution_options().get("begin")
    if statement:
        driver: Any = connection.connection.driver_connection
        driver.execute(statement)
