"""The check of the audit: the chain as the store has it, against itself, its head, its copy and a kept checkpoint."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import duckdb
import pyarrow as pa

from opsagent_jupyter.audit import chain
from opsagent_jupyter.audit.agreement import Agreement, Stretch
from opsagent_jupyter.audit.anchor import Anchor, anchor_of
from opsagent_jupyter.audit.archives import hash_at, require_reach
from opsagent_jupyter.audit.archives import walk as walk_archives
from opsagent_jupyter.audit.projection import (
    DuckProjection,
    attach,
    batch_of,
    interruptible,
    is_damaged,
    last,
    links,
    memory,
    without_collector,
)
from opsagent_jupyter.audit.queries import derive, sql
from opsagent_jupyter.contracts import Store
from opsagent_jupyter.errors import AuditError, AuditTampered
from opsagent_jupyter.models import AuditRow, canonical

#: Said when there is nothing to compare the whole log with.
NO_CHECKPOINT = (
    "No checkpoint was given: a log that was rewritten from somewhere on, or cut at its end, before it was carried "
    "looks like a true one. Keep checkpoints where nobody who can write the store can write."
)
#: Said when retention has removed rows; how many, and the hash of the last.
PRUNED_ROWS = (
    "Rows 1 to {0} were archived and removed from the store, which begins after the one with the hash {1}. "
    "With the folder of the archives they are verified too."
)
#: Rows that are fetched and hashed at a time, while DuckDB compares those before.
LARGE_BATCH = 40_000
#: The store's filter columns, all of a row in one line.
COLUMNS = pa.schema([("seq", pa.int64()), ("line", pa.string())])
#: What a body says of its own place.
SAID = ", event.seq AS said"
COPIED = "SELECT * REPLACE (CAST(risk AS risk_level) AS risk) FROM carried.audit WHERE seq BETWEEN {first} AND {last}"
NOTHING_COPIED = "SELECT * FROM stored WHERE false"
#: What the store cannot keep in a column, although JSON in a body can spell it.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True)
class Verification:
    """What a check of the audit found. ``head`` is the newest row's hash, ``first_bad`` the first row that is wrong."""

    ok: bool
    rows: int
    head: str
    first_bad: int | None = None
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        verdict = f"The audit verifies: {self.rows} rows, head {self.head[:16]}."
        if not self.ok:
            verdict = f"The audit does NOT verify: the first bad row is {self.first_bad}, of {self.rows}."
        return " ".join([verdict, *self.problems, *self.notes])


@runtime_checkable
class ShowsColumns(Protocol):
    """A store that shows what it keeps beside each row's body, for its own filters."""

    def audit_columns(self, after: int, limit: int) -> Sequence[Mapping[str, Any]]:
        """Return rows with seq > after, in order: seq, at (aware), type, status, risk, tool, server, instance, actor,
        actor_name, session and approval, as they are stored."""

    def audit_columns_in_line(self, after: int, limit: int) -> Sequence[tuple[int, str]]:
        """Return the same as (seq, one text): the others in this order with U+001F between them, the time in UTC as
        2026-11-01T14:00:00.000000+00:00."""


class Findings:
    """Problems with the row that each begins at, and what could not be checked."""

    def __init__(self) -> None:
        self.problems: dict[str, tuple[int, str]] = {}
        self.notes: list[str] = []

    def bad(self, check: str, seq: int, text: str) -> None:
        """A problem. Each check reports its first only: what follows a break is a consequence."""
        self.problems.setdefault(check, (seq, text))

    def verdict(self, rows: int, head: str) -> Verification:
        problems = sorted(self.problems.values())
        return Verification(
            ok=not problems,
            rows=rows,
            head=head,
            first_bad=problems[0][0] if problems else None,
            problems=tuple(text for _, text in problems),
            notes=tuple(self.notes),
        )


def verify(store: Store, projection: DuckProjection, checkpoint: tuple[int, str] | None = None) -> Verification:
    """Check everything that can be checked, and say what could not be."""
    while True:
        begun = anchor_of(store)
        found = _verified(store, projection, checkpoint)
        if found.ok or anchor_of(store) == begun:  # else a prune took rows away under the walk
            return found


def _verified(store: Store, projection: DuckProjection, checkpoint: tuple[int, str] | None) -> Verification:
    walk = Walk(store, checkpoint)
    with interruptible(), without_collector(), closing(memory()) as database:
        copy = Copy(database, projection, store, walk.findings)
        _look(walk, copy, until=walk.seq + 1)  # what the first row follows is no row
        with Agreement(database, store, copy.last).stretches(walk.seq) as stretches:
            for end, stretch in stretches:
                if stretch is not None and walk.passes(stretch):
                    copy.passed(stretch)
                else:
                    _look(walk, copy, until=end)
        _look(walk, copy)
        copy.finish(walk.seq, walk.begins.seq)
    return walk.verdict()


def with_archives(
    found: Verification, begins: Anchor, folder: Path, checkpoint: tuple[int, str] | None
) -> Verification:
    """The verdict on the archives of what was pruned and on the store as one chain."""
    try:
        end = walk_archives(folder)
        require_reach(folder, end, begins)
        if checkpoint and 0 < checkpoint[0] <= end.seq and hash_at(folder, checkpoint[0]) != checkpoint[1]:
            raise AuditTampered(
                f"Archived row {checkpoint[0]} is not the one of the checkpoint.", first_bad=checkpoint[0]
            )
    except AuditError as error:
        first = [place for place in (getattr(error, "first_bad", 1), found.first_bad) if place]
        return replace(found, ok=False, first_bad=min(first, default=1), problems=(error.message, *found.problems))
    note = f"The archives in {folder} verify up to event {end.seq}, and the store goes on from event {begins.seq}: one chain."
    notes = [text for text in found.notes if not text.startswith(("Rows 1 to ", "The checkpoint's row"))]
    return replace(found, rows=found.rows + begins.seq, notes=(*notes, note))


def _look(walk: Walk, copy: Copy, until: int | None = None) -> None:
    """Go through rows one by one, up to a place or to the end."""
    with ThreadPoolExecutor(1) as aside:
        comparing: Future[None] | None = None
        for rows in walk.batches(until):  # these are fetched and hashed here while DuckDB compares those before
            prepared = copy.prepared(rows)
            if comparing is not None:
                comparing.result()
            comparing = aside.submit(copy.compare, *prepared)
        if comparing is not None:
            comparing.result()


class Walk:
    """One pass over the store's rows."""

    def __init__(self, store: Store, checkpoint: tuple[int, str] | None) -> None:
        self.findings = Findings()
        self.begins = anchor_of(store)
        self.seq, self.hash = self.begins
        self.rows = 0
        self._store = store
        self._checkpoint = checkpoint

    def batches(self, until: int | None = None) -> Iterator[Sequence[AuditRow]]:
        """The rows up to a place, checked against their predecessors; up to the head without one. Rows may be appended
        meanwhile; the head is read after them."""
        while True:
            while rows := self._next(until):
                self._check(rows)
                self.rows += len(rows)
                yield rows
            if until is not None:
                return
            seq, head = self._store.audit_head()
            if (seq, head) == (self.seq, self.hash) or not self._store.audit_rows(self.seq, 1):
                break
        if (seq, head) != (self.seq, self.hash):
            self.findings.bad("head", min(seq, self.seq) + (seq != self.seq), self._head_differs(seq))

    def _next(self, until: int | None) -> Sequence[AuditRow]:
        if until is None:
            return self._store.audit_rows(self.seq, LARGE_BATCH)
        rows = self._store.audit_rows(self.seq, min(until - self.seq, LARGE_BATCH)) if self.seq < until else ()
        return [row for row in rows if row.seq <= until]

    def passes(self, stretch: Stretch) -> bool:
        """Go past a stretch that is as it should be, unless it does not follow here."""
        if (stretch.after, stretch.prev_hash) != (self.seq, self.hash):
            return False
        self.rows += stretch.last - self.seq
        self.seq, self.hash = stretch.last, stretch.hash
        return True

    def verdict(self) -> Verification:
        """The result, with the checkpoint's word."""
        if self.begins.seq:
            self.findings.notes.append(PRUNED_ROWS.format(self.begins.seq, self.begins.hash[:16]))
        if self._checkpoint is None:
            self.findings.notes.append(NO_CHECKPOINT)
        else:
            self._check_checkpoint(*self._checkpoint)
        return self.findings.verdict(self.rows, self.hash)

    def _check(self, rows: Sequence[AuditRow]) -> None:
        try:
            chain.verify(rows, self.seq, self.hash)
        except AuditTampered as error:
            self.findings.bad("chain", error.first_bad, error.message)
        for row in rows:
            if f'"event_id":"{row.event_id}"' not in str(row.body):
                self.findings.bad("event_id", row.seq, f"Row {row.seq} has another event id than its body.")
        self.seq, self.hash = rows[-1].seq, rows[-1].hash

    def _check_checkpoint(self, count: int, head: str) -> None:
        """What the checkpoint counted must still be there, or be archived."""
        if count > self.seq:
            text = f"The checkpoint counts {count} rows, the store ends at {self.seq}: rows were removed."
            self.findings.bad("checkpoint", self.seq + 1, text)
        elif count < self.begins.seq:
            self.findings.notes.append(f"The checkpoint's row {count} is archived: it was not compared.")
        elif count and self._hash_of(count) not in (None, head):
            text = f"Row {count} is not the one of the checkpoint: the log was rewritten there or before."
            self.findings.bad("checkpoint", count, text)

    def _hash_of(self, seq: int) -> str | None:
        if seq == self.begins.seq:
            return self.begins.hash
        return next((row.hash for row in self._store.audit_rows(seq - 1, 1) if row.seq == seq), None)

    def _head_differs(self, seq: int) -> str:
        if seq > self.seq:
            return f"The chain's head says {seq} rows, the store ends at {self.seq}: rows were removed at the end."
        if seq < self.seq:
            return f"The chain's head says {seq} rows, the store has {self.seq}: rows were added past the head."
        return f"The newest row ({seq}) is not the one that the chain's head names."


class Copy:
    """What stands beside the bodies, compared with them: the rows in audit.duckdb, and the store's own filter columns.
    While the file is attached nobody can carry."""

    def __init__(
        self, database: duckdb.DuckDBPyConnection, projection: DuckProjection, store: Store, findings: Findings
    ) -> None:
        self._database = database
        self._name = projection.path.name
        self._store = store
        self._findings = findings
        self._expected = self.last = 0
        database.register("links", links([]))
        columns = database.sql(derive()).columns
        self._differ = " OR ".join(f"stored.{name} IS DISTINCT FROM copied.{name}" for name in columns)
        with self._noted():
            if attach(database, projection.path, findings.notes):
                self.last = last(database, "carried.audit")[0]
            else:
                findings.notes.append(f"{self._name} was not compared.")

    @contextmanager
    def _noted(self) -> Iterator[None]:
        """Damage of a copy says nothing about the log: it ends the comparison with a note."""
        try:
            yield
        except duckdb.Error as error:
            if not is_damaged(error):
                raise
            self.last = 0
            self._findings.notes.append(f"{self._name} is damaged and was not compared; the next read rebuilds it.")

    def passed(self, stretch: Stretch) -> None:
        """Count a stretch that was compared whole."""
        self._expected += stretch.last - stretch.after

    def prepared(self, rows: Sequence[AuditRow]) -> tuple[Sequence[AuditRow], pa.RecordBatch, pa.RecordBatch]:
        """The rows, and for DuckDB the rows and their filter columns."""
        beside: Sequence[tuple[int, str]] = ()
        if isinstance(self._store, ShowsColumns):
            beside = self._store.audit_columns_in_line(rows[0].seq - 1, len(rows))
        return rows, links(rows), batch_of(beside, COLUMNS)

    def compare(self, rows: Sequence[AuditRow], linked: pa.RecordBatch, beside: pa.RecordBatch) -> None:
        """Compare the typed columns of these rows, in the file and in the store, with what their bodies say."""
        self._database.register("columns", beside)
        found = self._differences(rows, linked)
        self._expected += sum(1 for row in rows if row.seq <= self.last)
        differing = [seq for seq, differs, _ in found if differs]
        if differing:
            first = min(differing)
            text = f"Row {first} differs between the store and {self._name}: one was changed after it was carried."
            self._findings.bad("copy", first, text)
        self._check_columns(rows, {seq for seq, _, doubtful in found if doubtful})

    def _differences(self, rows: Sequence[AuditRow], linked: pa.RecordBatch) -> Sequence[tuple[int, bool, bool]]:
        """Which rows differ from the copy, and which filter columns need a closer look."""
        self._database.register("links", linked)
        try:
            if rows[0].seq <= self.last:
                with self._noted():
                    return self._ask(COPIED.format(first=rows[0].seq, last=min(rows[-1].seq, self.last)))
            return self._ask(NOTHING_COPIED)
        except duckdb.InvalidInputException:
            whole = [readable(row) for row in rows]
            if whole == rows:
                raise
            return self._differences(whole, links(whole))

    def _ask(self, copied: str) -> Sequence[tuple[int, bool, bool]]:
        query = sql("compare").replace("{derive}", derive(SAID))
        query = query.replace("{copied}", copied).replace("{differ}", self._differ)
        return self._database.execute(query, {"last": self.last}).fetchall()

    def _check_columns(self, rows: Sequence[AuditRow], doubtful: set[int]) -> None:
        """What the store filters by must be what the bodies say, or rows can be hidden from a filter. DuckDB only says
        which rows to look at: it spells some texts unlike the store."""
        for row in rows:
            if row.seq in doubtful:
                found = self._store.audit_columns(row.seq - 1, 1) if isinstance(self._store, ShowsColumns) else ()
                wrong = [name for name, value in _expected(row).items() if found and found[0].get(name) != value]
                if wrong:
                    text = f"The store's columns of row {row.seq} differ from its body: {', '.join(wrong)}."
                    self._findings.bad("columns", row.seq, text)
                    return

    def finish(self, newest: int, begins: int) -> None:
        """Look for rows that only the copy has. Those that the store has pruned leave it with the next carry."""
        if not self.last:
            return
        with self._noted():
            count, beyond, doubled = self._database.execute(
                sql("extra"), {"newest": newest, "begins": begins}
            ).fetchall()[0]
            if beyond:
                text = f"{self._name} has {beyond} rows after row {newest} that the store lacks: its end was cut off."
                self._findings.bad("beyond", newest + 1, text)
            elif count != self._expected:
                text = f"{self._name} has {count} rows where the store has {self._expected}."
                self._findings.bad("count", self.last if doubled is None else doubled, text)


def readable(row: AuditRow) -> AuditRow:
    """The row, or one that shows a body which is no event as what it is."""
    try:
        if str(row.body) == row.body and isinstance(json.loads(row.body), dict):  # bytes would do for JSON
            return row
    except ValueError:
        pass
    return row._replace(body=canonical({"type": "unreadable", "details": {"body": str(row.body)}}))


def _expected(row: AuditRow) -> dict[str, Any]:
    """The store's columns as the row's body has them."""
    event = json.loads(readable(row).body)
    actor = event.get("actor") or {}
    names = ("type", "status", "tool", "server", "instance", "session", "approval")
    texts = {name: event.get(name) for name in names} | {
        "risk": event.get("risk") or "",
        "actor": actor.get("id"),
        "actor_name": actor.get("name"),
    }
    stored = {name: _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text or "") for name, text in texts.items()}
    return {"seq": event.get("seq"), "at": _moment(event.get("at")), **stored}


def _moment(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
