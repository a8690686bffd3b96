"""The audit for analysis: DataFrames and SQL over DuckDB plus what is not carried yet, so every answer is complete."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import pandas as pd
import pyarrow as pa

from opsagent_jupyter.audit import rollups
from opsagent_jupyter.audit.anchor import BEGINNING, Anchor, anchor_of, steady
from opsagent_jupyter.audit.archives import archived
from opsagent_jupyter.audit.blocks import LINKS
from opsagent_jupyter.audit.frames import CATEGORIES, RISKS, audit_frame, frame_of
from opsagent_jupyter.audit.projection import (
    BATCH,
    CopyOutrun,
    DuckProjection,
    Following,
    attach,
    interruptible,
    is_damaged,
    last,
    links,
    memory,
    require_witness,
)
from opsagent_jupyter.audit.queries import derive, parquet, quoted, sql
from opsagent_jupyter.audit.verification import Verification, readable, verify, with_archives
from opsagent_jupyter.contracts import Store
from opsagent_jupyter.errors import AuditError, AuditQueryError, AuditTampered

__all__ = ["AuditReader", "Verification", "moment"]

T = TypeVar("T")
When = str | date | datetime | timedelta

#: Limits of one SQL query.
SECONDS, ROWS, MEMORY = 30.0, 100_000, "2GB"
#: Said when the answer is not about all events there ever were.
ARCHIVED_ROWS = (
    "Events 1 to {} are archived and not part of this answer; name the folder of the archives to read them too."
)
#: What a connection that runs somebody's SQL may do besides answering: nothing. No file, no variable of the caller, no
#: way to unlock it.
LOCKDOWN = (
    "SET python_enable_replacements = false",
    f"SET memory_limit = '{MEMORY}'",
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)
_LEVEL = rf"'(?:{'|'.join(RISKS)})'"
#: Where SQL compares a risk level with a plain word. DuckDB would do it by the alphabet, and `risk >= 'high'` would leave
#: out what is critical.
_BY_RANK = (
    (re.compile(rf"""(\brisk"?\s*[<>]=?\s*{_LEVEL})""", re.IGNORECASE), r"\1::risk_level"),
    (re.compile(rf"""({_LEVEL})(\s*[<>]=?\s*(?:[\w"]+\.)*"?risk\b)""", re.IGNORECASE), r"\1::risk_level\2"),
    (
        re.compile(rf"""(\brisk"?\s+(?:not\s+)?between\s+{_LEVEL})(\s+and\s+{_LEVEL})""", re.IGNORECASE),
        r"\1::risk_level\2::risk_level",
    ),
)
FILTERS = {
    "since": "coalesce(time >= CAST(? AS TIMESTAMPTZ), true)",
    "until": "coalesce(time < CAST(? AS TIMESTAMPTZ), true)",
    "risk": "risk >= CAST(? AS risk_level)",
    "status": "status = ?",
    "server": "server = ?",
    "instance": "instance = ?",
    "tool": "ends_with('.' || tool, '.' || ?)",
    "actor": "? IN (actor, actor_name)",
    "session": "starts_with(session, ?)",
    "approval": "starts_with(approval, ?)",
}
#: What an exported file can be, by the ending of its name.
FORMATS = {".parquet": "FORMAT parquet", ".csv": "FORMAT csv, HEADER", ".jsonl": "FORMAT json"}
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
FORMS = (
    "Write 30m, 12h, 1d or 2w (so long ago), or a date or time such as 2026-11-01 or 2026-11-01T14:00+01:00; "
    "without a zone it is UTC."
)


@dataclass
class OpenAudit:
    """A database in memory with the view ``audit``, and what is worth knowing about it."""

    database: duckdb.DuckDBPyConnection
    notices: list[str] = field(default_factory=list)
    archives: Sequence[Path] = ()
    begins: Anchor = BEGINNING


class AuditReader:
    """Reads the audit. Each call opens what it needs and closes it again."""

    def __init__(self, store: Store, projection: DuckProjection) -> None:
        self._store = store
        self._projection = projection

    def frame(
        self,
        since: When | None = None,
        until: When | None = None,
        *,
        limit: int | None = None,
        unverified: bool = False,
        archives: str | Path | None = None,
        **filters: str | None,
    ) -> pd.DataFrame:
        """The audit as a DataFrame, the newest row last, complete at this moment.

        Filters: risk (that level and up), status, server, instance, tool (full or short name), actor (id or name),
        session and approval (an id or its beginning). ``limit`` keeps the newest rows. What is worth knowing about the
        answer stands in ``attrs["notices"]``. ``unverified`` shows a broken log as it is. With the folder of the
        ``archives`` the rows that were pruned from the store are read too, after the chain through them was verified.
        """
        given = _checked({"since": since, "until": until, **filters})
        where = _condition(given)
        newest = "" if limit is None else f"ORDER BY seq DESC LIMIT {_count(limit)}"
        text = f"SELECT * EXCLUDE (body, prev_hash) FROM (FROM audit WHERE {where} {newest}) ORDER BY seq"  # noqa: S608 - ours

        def answer(audit: OpenAudit) -> pd.DataFrame:
            found = audit_frame(audit.database.sql(text, params=[*given.values()]))
            _explain_status(audit, found, given.get("status"))
            return _noted(found, audit)

        return self._read(answer, unverified=unverified, archives=archives)

    def sql(
        self,
        text: str,
        *,
        seconds: float = SECONDS,
        rows: int = ROWS,
        unverified: bool = False,
        archives: str | Path | None = None,
    ) -> pd.DataFrame:
        """The answer to one SELECT over ``audit`` and the views beside it, in DuckDB's SQL; stopped after ``seconds``,
        cut at ``rows`` with a notice. It can read nothing else and change nothing. ``archives`` as in ``frame``."""
        return self._read(lambda audit: _answer(audit, text, seconds, rows), unverified=unverified, archives=archives)

    def export(
        self,
        path: str | Path,
        since: When | None = None,
        until: When | None = None,
        *,
        unverified: bool = False,
        between: tuple[int, int] | None = None,
        **filters: str | None,
    ) -> int:
        """Write the rows that the filters of ``frame`` leave, bodies and hashes included, to a .parquet, .csv or .jsonl
        file; the number of rows. Without filters, or ``between`` two rows, the file can be verified elsewhere."""
        target = Path(path).expanduser()
        if target.suffix not in FORMATS:
            raise AuditQueryError(
                f"The audit cannot be exported to {target.name}.",
                hint=f"Name a file that ends in {', '.join(FORMATS)}.",
            )
        given = _checked({"since": since, "until": until, **filters})
        span = "true" if between is None else f"seq BETWEEN {int(between[0])} AND {int(between[1])}"
        return self._read(lambda audit: _export(audit, target, given, span), unverified=unverified)

    def verify(self, checkpoint: tuple[int, str] | None = None, archives: str | Path | None = None) -> Verification:
        """Recompute the chain from the store's rows, and compare them with its head, with the copy in DuckDB and with a
        checkpoint (count, head) that was kept elsewhere; with the folder of the ``archives`` from the first event on."""
        found = verify(self._store, self._projection, checkpoint)
        if archives is None:
            return found
        return with_archives(found, anchor_of(self._store), Path(archives).expanduser(), checkpoint)

    def forget(self) -> None:
        """Let the copy in DuckDB go of what was pruned from the store; while the file is in use, the next carry does."""
        self._projection.forget()

    def checkpoint(self) -> dict[str, Any]:
        """Count, head and time of the audit as it is now, to be kept where nobody who can write the store can write.

        Only a log that verifies gets one; ``AuditTampered`` otherwise."""
        found = self.verify()
        if not found.ok:
            raise AuditTampered(str(found), first_bad=found.first_bad)
        return {"count": found.rows, "head": found.head, "time": datetime.now(UTC).isoformat(timespec="seconds")}

    def _read(self, query: Callable[[OpenAudit], T], *, unverified: bool, archives: str | Path | None = None) -> T:
        """Run a query on the complete audit. When the copy turns out to be damaged, the store alone answers."""
        folder = None if archives is None else Path(archives).expanduser()
        opened = self._as_found if unverified else lambda: self._complete(folder)
        try:
            return self._asked(opened, query)
        except duckdb.Error as error:
            if not is_damaged(error):
                raise _failed(error) from None
        with suppress(AuditError):
            self._projection.rebuild()
        try:
            return self._asked(lambda: self._complete(folder, alone=True), query)
        except duckdb.Error as error:
            raise _failed(error) from None

    def _asked(self, opened: Callable[[], AbstractContextManager[OpenAudit]], query: Callable[[OpenAudit], T]) -> T:
        def ask() -> T:
            with interruptible(), opened() as audit:
                return query(audit)

        return steady(self._store, ask)

    @contextmanager
    def _complete(self, folder: Path | None, *, alone: bool = False) -> Iterator[OpenAudit]:
        """The archived rows if asked for, the carried ones and those that follow. The file is attached before the rest is
        read, so nothing can move from one to the other in between; alone means without the file."""
        with closing(memory()) as database:
            audit = OpenAudit(database)
            place, carried = (anchor_of(self._store), False) if alone else self._attach_carried(audit)
            following = Following(self._store, *place, self._projection.path)
            audit.begins = begins = anchor_of(self._store)
            if begins.seq and folder is None:
                audit.notices.append(ARCHIVED_ROWS.format(begins.seq))
            audit.archives = archived(folder, begins) if folder is not None else ()
            _define(audit, following.reader() if following else None, carried=carried)
            following.settle()
            audit.notices[:0] = self._projection.take_notices()
            yield audit

    def _attach_carried(self, audit: OpenAudit) -> tuple[Anchor, bool]:
        """Carry, attach the file, and return its last row, or the one that the store's first follows when there is none,
        and whether there is one."""
        path = self._projection.path
        try:
            self._projection.carry()
        except AuditTampered:
            raise
        except AuditError as error:
            audit.notices.append(error.message)
        begins = anchor_of(self._store)
        if not attach(audit.database, path, audit.notices):
            return begins, False
        place = last(audit.database, "carried.audit")
        try:
            require_witness(audit.database, "carried.audit", begins, place, path)
        except CopyOutrun as error:
            audit.notices.append(error.message)
            audit.database.execute("DETACH carried")
            return begins, False
        return (place, True) if place.seq else (begins, False)

    @contextmanager
    def _as_found(self) -> Iterator[OpenAudit]:
        """The store's rows, whatever is wrong with them."""
        with closing(memory()) as database:
            audit = OpenAudit(database, ["These rows were not verified."])
            _define(audit, pa.RecordBatchReader.from_batches(LINKS, self._raw()), carried=False)
            yield audit

    def _raw(self) -> Iterator[pa.RecordBatch]:
        seq = 0
        while rows := self._store.audit_rows(seq, BATCH):
            seq = rows[-1].seq
            yield links([readable(row) for row in rows])


def moment(value: When, at: datetime | None = None) -> datetime:
    """The time that somebody means, "1d" counted back from ``at``; ``AuditQueryError`` says how it can be written."""
    try:
        return _moment(value, at or datetime.now(UTC))
    except (ValueError, OverflowError):
        raise AuditQueryError(f"{value!r} is no time.", hint=FORMS) from None


def _moment(value: When, at: datetime) -> datetime:
    if isinstance(value, timedelta):
        return at - value
    if isinstance(value, str):
        ago = re.fullmatch(r"\s*(\d+)\s*([smhdw])\s*", value)
        if ago:
            return at - timedelta(**{UNITS[ago[2]]: int(ago[1])})
        value = datetime.fromisoformat(value.strip())
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    # Not a time at all (pandas' NaT) raises ValueError here.
    return datetime.fromisoformat(value.isoformat()).replace(tzinfo=value.tzinfo or UTC)


def _checked(filters: dict[str, Any]) -> dict[str, str]:
    """The filters that were given, as texts in the order of the conditions."""
    given = {name: value for name, value in filters.items() if value not in (None, "")}
    for name in given.keys() - FILTERS.keys():
        raise AuditQueryError(f"The audit has no filter {name!r}.", hint=f"Filter by {', '.join(FILTERS)} or limit.")
    if "risk" in given and str(given["risk"]) not in RISKS:
        raise AuditQueryError(f"{given['risk']!r} is no risk level.", hint=f"Choose {', '.join(RISKS)}: that and up.")
    return {
        name: moment(value).isoformat() if name in ("since", "until") else str(value) for name, value in given.items()
    }


def _count(limit: int) -> int:
    try:
        if int(limit) >= 0:
            return int(limit)
    except (TypeError, ValueError):
        pass
    raise AuditQueryError(f"{limit!r} is no number of rows.", hint="Give a whole number, for example limit=100.")


def _explain_status(audit: OpenAudit, found: pd.DataFrame, status: str | None) -> None:
    """An empty answer to a mistyped status would read like good news."""
    if status is None or len(found) or status in CATEGORIES["status"]:
        return
    used = [row[0] for row in audit.database.execute("SELECT DISTINCT status FROM audit").fetchall()]
    if status not in used:
        near = get_close_matches(status, CATEGORIES["status"], 1)
        guess = f"Did you mean {near[0]}? " if near else ""
        known = ", ".join(CATEGORIES["status"])
        raise AuditQueryError(f"No event has the status {status!r}.", hint=f"{guess}There are {known}.")


def _define(audit: OpenAudit, rows: pa.RecordBatchReader | None, *, carried: bool) -> None:
    """Make the view ``audit`` of what is archived, what is carried and what is not, and the views over it."""
    database = audit.database
    more = rows is not None or not carried
    begins = str(audit.begins.seq)
    parts = []
    if audit.archives:
        old = derive(source=parquet(audit.archives))
        parts.append(sql("archived").replace("{begins}", begins).replace("{rows}", old))
    if carried:
        parts.append(sql("carried").replace("{begins}", begins))
    if more:
        database.execute(sql("schema").partition(");")[0].replace("TABLE audit", "TABLE tail") + ")")
        parts.append("FROM tail")
    if rows is not None:
        database.register("links", rows)
        database.execute(f"INSERT INTO tail BY NAME {derive()}")
        database.unregister("links")
    database.execute(f"CREATE VIEW audit AS {' UNION ALL BY NAME '.join(f'({part})' for part in parts)}")
    if audit.archives:
        rollups.define(database, carried=False, source="audit")
    else:
        rollups.define(database, carried=carried, source="tail" if more else "")
    database.execute(sql("views"))


def _answer(audit: OpenAudit, text: str, seconds: float, rows: int) -> pd.DataFrame:
    if audit.archives:
        audit.database.execute(f"SET allowed_paths = [{', '.join(map(quoted, audit.archives))}]")
    for statement in LOCKDOWN:
        audit.database.execute(statement)
    for compared, by_rank in _BY_RANK:
        text = compared.sub(by_rank, text)
    try:
        _require_select(audit.database, text)
        found = aside(audit.database, lambda: frame_of(audit.database.sql(text).limit(rows + 1)), seconds)
    except TimeoutError:
        raise AuditQueryError(
            f"The query was stopped after {seconds:g} s.", hint="Narrow it, for example by time, or export the audit."
        ) from None
    except duckdb.Error as error:
        if is_damaged(error):
            raise
        raise AuditQueryError(str(error), hint="DESCRIBE audit lists the columns, SHOW TABLES the views.") from None
    if len(found) > rows:
        audit.notices.append(f"Only the first {rows} rows are shown; add conditions, or aggregate.")
        found = found.head(rows)
    return _noted(found, audit)


def _require_select(database: duckdb.DuckDBPyConnection, text: str) -> None:
    try:
        kinds = [statement.type for statement in database.extract_statements(text)]
    except ValueError:  # a kind of statement that the Python client has no name for
        kinds = []
    if kinds != [duckdb.StatementType.SELECT]:
        raise AuditQueryError("This is not one SELECT.", hint="The audit is only read here: write a single SELECT.")


def aside(database: duckdb.DuckDBPyConnection, work: Callable[[], T], seconds: float) -> T:
    """Run work in a thread of its own: then its time, and the kernel's stop button, end it wherever DuckDB is."""
    with ThreadPoolExecutor(1, "opsagent-audit") as threads:
        future = threads.submit(work)
        try:
            return future.result(seconds)
        finally:
            while not future.done():
                database.interrupt()  # again, because one that comes before the query does is forgotten
                wait([future], 0.05)


def _export(audit: OpenAudit, target: Path, given: dict[str, str], span: str) -> int:
    """Write beside the target and rename, so that a file with its name is always whole."""
    part = target.with_name(f".{target.name}.{os.getpid()}")
    rows = f"SELECT * FROM audit WHERE {span} AND {_condition(given)} ORDER BY seq"  # noqa: S608 - ours
    write = f"COPY ({rows}) TO {quoted(part)} ({FORMATS[target.suffix]})"
    try:
        ((count,),) = audit.database.execute(write, [*given.values()]).fetchall()
        part.replace(target)
    except (OSError, duckdb.IOException) as error:
        part.unlink(missing_ok=True)
        raise AuditError(f"{target} cannot be written: {error}", hint="Check the folder and its free space.") from None
    return int(count)


def _condition(given: dict[str, str]) -> str:
    """The filters as SQL; their values are its parameters."""
    return " AND ".join(FILTERS[name] for name in given) or "true"


def _noted(frame: pd.DataFrame, audit: OpenAudit) -> pd.DataFrame:
    frame.attrs["notices"] = tuple(audit.notices)
    return frame


def _failed(error: duckdb.Error) -> AuditError:
    return AuditError(f"The audit cannot be read: {error}", hint="Run `opsagent doctor`.")
