"""The audit in DuckDB: the store's chain, carried exactly once by sequence number into a file for analysis.

The store's rows are the ledger. ``audit.duckdb`` is a copy that can be rebuilt from them at any time, and only rows
that verify get into it. Carrying never blocks anybody: a file that is in use is left for later.
"""

from __future__ import annotations

import gc
import logging
import os
import random
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from opsagent_jupyter.audit import chain
from opsagent_jupyter.audit.anchor import BEGINNING, Anchor, anchor_of, steady
from opsagent_jupyter.audit.blocks import BLOCK, LINKS, block_after
from opsagent_jupyter.audit.queries import derive, quoted, sql
from opsagent_jupyter.audit.rollups import gather, gather_anew
from opsagent_jupyter.contracts import Store
from opsagent_jupyter.errors import AuditError, AuditTampered, OpsAgentError
from opsagent_jupyter.models import AuditRow

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

log = logging.getLogger("opsagent_jupyter")

#: Rows that are fetched, verified and handed to DuckDB at a time.
BATCH = 10_000
#: What offsets of 32 bits can count.
MOST_BYTES = 2**31 - 1
#: Raise it with every change of what a file holds (schema, derive, views, kept_*): files of older layouts are rebuilt.
LAYOUT = 3
#: No extension is ever looked for: offline that costs seconds.
OFFLINE: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}
#: Files stay readable for tools that are still on DuckDB 1.5.
CONFIG = OFFLINE | {"storage_compatibility_version": "v1.5.0"}
#: Seconds to wait for a file that is in use, before the store alone answers.
PATIENCE = 0.25
#: Rows that are asked for at first, one by one: most carries are a catch-up of a few.
FEW = 200

_BUSY = (
    "Could not set lock",
    "different configuration",
    "Unique file handle conflict",
    "being used by another process",  # Windows
)
_DAMAGED = (
    "not a valid DuckDB database file",
    "Corrupt database file",
    "Could not read enough bytes",
    "Failed to deserialize",
    "Failed to load metadata pointer",
    "Failure while replaying WAL",
)
_PREFIX = "opsagent_jupyter audit, layout "


def is_busy(error: duckdb.Error) -> bool:
    """True when somebody else, or this process itself, has the file open in a way that excludes us."""
    return any(sign in str(error) for sign in _BUSY)


def is_damaged(error: duckdb.Error) -> bool:
    """True when the file is no DuckDB database any more; a full disk or missing rights are no damage."""
    return any(sign in str(error) for sign in _DAMAGED)


def holder(error: duckdb.Error) -> str:
    """Who holds a busy file, as far as DuckDB says."""
    found = re.search(r"\(PID (\d+)\)", str(error))
    return f"process {found[1]}" if found else "another connection of this process"


@contextmanager
def without_collector() -> Iterator[None]:
    """Keep Python from looking for cycles among millions of rows, which have none; half the time went there."""
    active = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if active:
            gc.enable()


@contextmanager
def interruptible() -> Iterator[None]:
    """DuckDB takes a Ctrl-C for itself and reports it as an error like any other; here it is one again."""
    try:
        yield
    except RuntimeError as error:
        if "interrupted" not in str(error):
            raise
        raise KeyboardInterrupt from None


def links(rows: Sequence[AuditRow]) -> pa.RecordBatch:
    """Rows of the chain as Arrow, the input of derive.sql."""
    return batch_of(rows, LINKS)


def batch_of(rows: Sequence[Sequence[Any]], schema: pa.Schema) -> pa.RecordBatch:
    """Rows of whole numbers and texts as Arrow."""
    columns = zip(*rows, strict=True) if rows else ([] for _ in schema)
    arrays = [
        texts(values) if field.type == pa.string() else pa.array(values, field.type)
        for values, field in zip(columns, schema, strict=True)
    ]
    return pa.record_batch(arrays, schema=schema)


def texts(values: Sequence[str]) -> pa.Array:
    """Texts as Arrow, four times as fast as Arrow takes them out of Python one by one. Somebody may have made something else
    of one (SQLite keeps a value of any type in a column of text): it is shown as Python writes it."""
    encoded = [str(value).encode() for value in values]
    ends = np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)))
    if not encoded or ends[-1] > MOST_BYTES:
        return pa.array([*map(str, values)], pa.string())
    offsets = np.concatenate(([0], ends)).astype(np.int32)
    return pa.StringArray.from_buffers(len(encoded), pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded)))


class CopyOutrun(AuditError):
    """The store was pruned further than this copy had come, so the two have nothing in common to compare."""


class DuckProjection:
    """Carries the store's audit into one DuckDB file. No handle stays open between two calls."""

    def __init__(self, store: Store, path: Path) -> None:
        self.store = store
        self.path = path
        self._notices: list[str] = []
        self._carried_to: tuple[int, str] | None = None

    def __repr__(self) -> str:
        return f"DuckProjection({str(self.path)!r})"

    def carry(self) -> int | None:
        """Carry what is new; the number of rows, or None when the file is in use. A damaged file is set aside and
        rebuilt. ``AuditTampered`` when a row does not verify, or the store's log is not the one in the file."""
        if self._carried_to == self.store.audit_head() and self.path.exists():
            return 0
        with self._turn() as mine, interruptible(), without_collector():
            if not mine:
                return None
            try:
                return steady(self.store, self._carried)
            except duckdb.Error as error:
                if is_busy(error):
                    return None
                if not is_damaged(error):
                    raise _failure(self.path, error) from None
            return self._rebuilt()

    def rebuild(self) -> bool:
        """Set a damaged file aside and carry everything anew; False when the file is in use."""
        with self._turn() as mine:
            if mine:
                self._rebuilt()
            return mine

    def forget(self) -> int | None:
        """Carry, and let go of what was pruned from the store since; None when the file is in use."""
        self._carried_to = None
        return self.carry()

    def take_notices(self) -> list[str]:
        """What happened to the file that its readers should know; said once."""
        taken, self._notices = self._notices, []
        return taken

    def _rebuilt(self) -> int:
        self._set_aside()
        try:
            return self._carried() or 0
        except duckdb.Error as error:
            raise _failure(self.path, error) from None

    @contextmanager
    def _turn(self) -> Iterator[bool]:
        """Whether this is the one carrier; the losers learn it without opening the database."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(f"{self.path}.lock", os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as error:
            raise _failure(self.path, error) from None
        try:
            yield locked(lock)
        finally:
            os.close(lock)

    def _carried(self) -> int | None:
        new = not self.path.exists()
        with closing(duckdb.connect(self.path, config=CONFIG)) as database:
            if new:
                self.path.chmod(0o600)
            database.execute("SET TimeZone = 'UTC'")
            layout = layout_of(database)
            outrun = False
            if layout == LAYOUT:
                try:
                    return self._append(database)
                except CopyOutrun:
                    outrun = True
            if layout is None and not database.execute("SELECT 1 FROM duckdb_tables()").fetchall():
                create(database)
                return self._append(database)
        if layout is not None and layout > LAYOUT:
            raise AuditError(
                f"{self.path} was written by a newer release of OpsAgent.",
                hint="Upgrade this installation: pip install -U opsagent_jupyter.",
            )
        if outrun:
            self._set_aside("older than what the store still holds", mark="old")
        elif layout is None:
            self._set_aside()
        else:
            self._set_aside("of an older layout", mark="old")
        return self._carried()

    def _append(self, database: duckdb.DuckDBPyConnection) -> int:
        """Read the high-water mark and insert what follows it, in one transaction: the data is the bookkeeping."""
        database.execute("BEGIN")
        place = self._begin(database)
        following = Following(self.store, *place, self.path)
        if following:
            database.register("links", following.reader())
            database.execute(f"INSERT INTO audit BY NAME {derive()}")
            gather(database, place.seq, following.seq)
        database.execute("COMMIT")
        self._carried_to = following.seq, following.hash
        following.settle()
        return following.seq - place.seq

    def _begin(self, database: duckdb.DuckDBPyConnection) -> Anchor:
        """The row that the next one follows; what was pruned from the store leaves the file."""
        begins, place = anchor_of(self.store), last(database, "audit")
        if not place.seq or not begins.seq:
            return begins if not place.seq else place
        require_witness(database, "audit", begins, place, self.path)
        (old,) = database.execute("SELECT count(*) FROM audit WHERE seq <= ?", [begins.seq]).fetchall()[0]
        if old:
            database.execute("DELETE FROM audit WHERE seq <= ?", [begins.seq])
            gather_anew(database)
        return max(place, begins)

    def _set_aside(self, why: str = "damaged", mark: str = "corrupt") -> None:
        """Rename the file and its log of writes; nothing that may be evidence is deleted."""
        aside = _unused(self.path.with_name(f"{self.path.name}.{mark}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"))
        try:
            self.path.replace(aside)
            wal = self.path.with_name(f"{self.path.name}.wal")
            if wal.exists():
                wal.replace(aside.with_name(f"{aside.name}.wal"))
        except OSError as error:
            raise _failure(self.path, error) from None
        notice = f"{self.path.name} was {why}; it was moved to {aside.name} and rebuilt from the store."
        self._notices.append(notice)
        log.warning("%s", notice)


class Following:
    """The verified rows that follow a place in the chain, on their way to DuckDB; false when there are none.

    What stops them is kept for ``settle``: an exception that crosses DuckDB would come out as one of DuckDB's.
    """

    def __init__(self, store: Store, seq: int, prev_hash: str, path: Path) -> None:
        """``AuditTampered`` unless the store has, at this place, the row that the file has."""
        self._store = store
        self.seq = seq
        self.hash = prev_hash
        self._stopped: OpsAgentError | KeyboardInterrupt | None = None
        self._next = store.audit_rows(max(seq - 1, 0), min(FEW, BATCH))
        self._few = len(self._next) < min(FEW, BATCH)
        if seq and anchor_of(store) != (seq, prev_hash):
            _require_same_log(self._next, seq, prev_hash, path)
            self._next = self._next[1:]

    def __bool__(self) -> bool:
        return bool(self._next)

    def reader(self) -> pa.RecordBatchReader:
        """The rows as a stream."""
        return pa.RecordBatchReader.from_batches(LINKS, self._batches())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        try:
            while self._next:
                self.seq, self.hash = chain.verify(self._next, self.seq, self.hash)
                yield links(self._next)
                if self._few:  # the end, as far as was seen at the beginning
                    break
                yield from self._blocks()
                self._next = self._store.audit_rows(self.seq, BATCH)
        except (OpsAgentError, KeyboardInterrupt) as error:
            self._stopped = error

    def _blocks(self) -> Iterator[pa.RecordBatch]:
        """As many rows as verify at a glance; those that do not are looked at one by one."""
        while block := block_after(self._store, self.seq, self.hash, min(BLOCK, BATCH)):
            self.seq, self.hash = block.seq, block.hash
            yield block.rows

    def settle(self) -> None:
        """Raise what stopped the stream, if anything did."""
        if isinstance(self._stopped, AuditTampered):
            self._stopped.hint = "Run `opsagent audit verify`; frame(unverified=True) shows the rows as they are."
        if self._stopped is not None:
            raise self._stopped


def memory() -> duckdb.DuckDBPyConnection:
    """A database in memory that touches no disk and knows the type of risk levels."""
    database = duckdb.connect(":memory:", config=OFFLINE | {"temp_directory": ""})
    database.execute("SET TimeZone = 'UTC'")
    database.execute("SET arrow_large_buffer_size = true")
    database.execute(sql("risk"))
    return database


def attach(database: duckdb.DuckDBPyConnection, path: Path, notices: list[str]) -> bool:
    """Attach the file as ``carried``, to be read only; while it is attached nobody can carry. When that cannot be, the
    reason is added to the notices."""
    deadline = time.monotonic() + PATIENCE
    while path.exists():
        try:
            database.execute(f"ATTACH {quoted(path)} AS carried (READ_ONLY)")
        except duckdb.Error as error:
            if not is_busy(error):
                raise
            if time.monotonic() > deadline:
                notices.append(f"{path.name} is held by {holder(error)}, so this comes from the store alone.")
                return False
            time.sleep(random.uniform(0.005, 0.02))  # noqa: S311 - spreads the readers, guards nothing
            continue
        if layout_of(database, "carried") == LAYOUT:
            return True
        database.execute("DETACH carried")
        notices.append(f"{path.name} is of another release, so this comes from the store alone.")
        return False
    return False


def layout_of(database: duckdb.DuckDBPyConnection, catalog: str = "") -> int | None:
    """The layout of an audit file; None when it is no audit file."""
    comments = database.execute(
        "SELECT comment FROM duckdb_tables() WHERE table_name = 'audit' AND (? = '' OR database_name = ?)",
        [catalog, catalog],
    ).fetchall()
    comment = str(comments[0][0]) if comments else ""
    number = comment.removeprefix(_PREFIX)
    return int(number) if comment.startswith(_PREFIX) and number.isdecimal() else None


def create(database: duckdb.DuckDBPyConnection) -> None:
    """Make type, table and views in an empty database."""
    database.execute("BEGIN")
    for name in ("risk", "schema", "views"):
        database.execute(sql(name))
    database.execute(f"COMMENT ON TABLE audit IS '{_PREFIX}{LAYOUT}'")
    database.execute("COMMIT")


def last(database: duckdb.DuckDBPyConnection, table: str) -> Anchor:
    """The newest row; the beginning of a chain when there is none."""
    rows = database.table(table).order("seq DESC").limit(1).project("seq, hash").fetchall()
    return Anchor(int(rows[0][0]), str(rows[0][1])) if rows else BEGINNING


def require_witness(database: duckdb.DuckDBPyConnection, table: str, begins: Anchor, place: Anchor, path: Path) -> None:
    """The file knows the row that the store's first one follows, and as the same; ``AuditTampered`` or ``CopyOutrun``."""
    if place.seq < begins.seq:
        raise CopyOutrun(f"{path.name} ends at event {place.seq}, before what the store still holds.")
    kept = database.table(table).filter(f"seq >= {begins.seq}").order("seq").limit(1).project("seq, hash").fetchall()
    if kept and kept[0][0] == begins.seq and kept[0] != begins:
        raise AuditTampered(
            f"{path.name} has another row {begins.seq} than the one that the store was pruned after.",
            hint="Keep both as evidence and run `opsagent audit verify`.",
            first_bad=begins.seq,
        )


def _require_same_log(rows: Sequence[AuditRow], seq: int, prev_hash: str, path: Path) -> None:
    if rows and (rows[0].seq, rows[0].hash) == (seq, prev_hash):
        return
    found = "has another row there" if rows else "does not have it"
    raise AuditTampered(
        f"{path.name} holds audit row {seq}, but the store {found}: it was edited, restored from a backup or replaced.",
        hint="Keep both as evidence and run `opsagent audit verify`. If the store was restored or replaced on purpose, "
        f"move {path} away; the next read rebuilds it from the store.",
        first_bad=seq,
    )


def locked(file: int) -> bool:
    """Take the lock if it is free. It goes with the file handle, so a killed carrier leaves none behind."""
    try:
        if sys.platform == "win32":
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _unused(path: Path) -> Path:
    """The path, or the first one like it that is not taken."""
    names = (path, *(path.with_name(f"{path.name}-{number}") for number in range(2, 1000)))
    return next(name for name in names if not name.exists())


def _failure(path: Path, error: Any) -> AuditError:
    text = str(error).splitlines()[0]
    return AuditError(
        f"{path} cannot be written: {text}",
        hint="Make its folder writable and free space there; the records themselves are safe in the store.",
    )
