"""What the two databases under the store have to offer, and the one seam where their errors become ours."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Connection, Dialect
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolExhausted

from opsagent_jupyter.errors import StoreError, StoreLocked


class Storage(Protocol):
    """One database that holds a store. Its errors leave through ``seam`` as ``StoreError``."""

    kind: str
    """``sqlite`` or ``postgresql``."""
    url: str
    """For the eye: no password in it."""
    journal_mode: str
    """``wal`` or ``truncate`` on SQLite, empty on PostgreSQL."""
    notices: tuple[str, ...]
    """What an operator should know about this place."""
    notifies: bool
    """True when a writer tells the watchers itself (``NOTIFY``)."""

    @property
    def swift(self) -> bool:
        """True while a record is likely to take less time than handing it to a thread."""

    @property
    def dialect(self) -> Dialect:
        """How SQLAlchemy spells for this database."""

    def reading(self) -> AbstractContextManager[Connection]:
        """Lend a connection on which each statement stands for itself."""

    def snapshot(self) -> AbstractContextManager[Connection]:
        """Lend a connection that sees one moment only."""

    def glancing(self) -> AbstractContextManager[Any]:
        """Lend the driver's own connection for one quick query: SQLAlchemy's way takes longer than SQLite does."""

    def writing(self) -> AbstractContextManager[Connection]:
        """Lend a connection in a write transaction, committed at the end and rolled back on an error."""

    def recording(self, *, at_once: bool = False) -> AbstractContextManager[Any]:
        """Lend the driver's own connection in a write transaction, like ``writing``. With ``at_once``, where records are
        swift, ``StoreLocked`` takes the place of waiting for another writer."""

    def exclude(self, connection: Connection) -> None:
        """Within a write transaction, keep every other migration out until it ends."""

    def changes(self, stop: threading.Event, channel: str) -> Iterator[None]:
        """Yield at once, and then whenever something may have been committed, until ``stop`` is set."""

    def backup(self, path: Path) -> bool:
        """Copy the database to a new file as it is at one moment; False when it has no way of its own."""

    def damage(self) -> Sequence[str]:
        """What the database itself finds wrong with its files."""

    def abandon(self) -> object:
        """Forget the connections without closing them, and return them."""

    def close(self) -> None:
        """Let go of the connections."""


@contextmanager
def closed_on_error(connection: Any) -> Iterator[None]:
    """Close a new connection that cannot be used: the pool does not know it yet."""
    try:
        yield
    except BaseException:
        connection.close()
        raise


def refuse_closed(url: str, *, closed: bool) -> None:
    """A closed store opens no connection again: nobody would close it."""
    if closed:
        raise StoreError(f"This store was closed: {url}.")


@contextmanager
def seam(explain: Callable[[BaseException], StoreError]) -> Iterator[None]:
    """The one place where errors of SQLAlchemy and of the driver become ours.

    The original is not chained: its frames hold connection arguments, the password among them.
    """
    try:
        yield
    except (PoolExhausted, DBAPIError) as error:
        raise told(error, explain) from None


def told(error: PoolExhausted | DBAPIError, explain: Callable[[BaseException], StoreError]) -> StoreError:
    """Our error for one of SQLAlchemy's."""
    if isinstance(error, PoolExhausted):
        return StoreLocked("All connections to the store are in use.")
    if isinstance(error, IntegrityError):
        return StoreError(f"The store has such a row already, or lacks the one it belongs to: {error.orig}.")
    return explain(error.orig or error)


_storages: weakref.WeakSet[Storage] = weakref.WeakSet()
#: A forked child keeps its parent's connections alive without using them: closing them would disturb the parent.
_left_alone: list[object] = []


def survive_fork(storage: Storage) -> None:
    """Let a forked child of this process open connections of its own."""
    _storages.add(storage)


def _leave_alone() -> None:
    _left_alone.extend(storage.abandon() for storage in _storages)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_alone)
