"""Retention: what is old is archived, verified, recorded, and only then removed, so that no crash loses or doubles a row.

The order is: the archive is on the disk and verifies; the chain records what may go (``audit.pruned``, with the last row and
its hash); the rows leave the store a few thousand at a time, oldest first; the copy in DuckDB lets go of what the store no
longer has. Whoever comes after a crash finishes what was recorded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from opsagent_jupyter.audit.anchor import anchor_of, prunes_of
from opsagent_jupyter.audit.archive import Archive, archive, last_before, verify_archives
from opsagent_jupyter.audit.archives import hash_at
from opsagent_jupyter.audit.query import AuditReader, When
from opsagent_jupyter.contracts import Store
from opsagent_jupyter.errors import AuditTampered
from opsagent_jupyter.models import PRUNED, PRUNED_STATUS, AuditEvent


class Prunes(Store, Protocol):
    """A store that can remove the beginning of its audit."""

    def prune_audit(self, record: int, most: int = 2000) -> int:
        """Remove at most so many of the oldest rows that the record of a prune at this place allows; how many went."""


@dataclass(frozen=True)
class Pruned:
    """What a retention did: the archive it added, if any, how many rows went, and where the store begins now."""

    made: Archive | None
    rows: int
    last: int
    folder: str

    def __str__(self) -> str:
        archived = f"{self.made}\n" if self.made else ""
        if not self.rows:
            return f"{archived}Nothing was old enough to be removed; the store begins after event {self.last}."
        return (
            f"{archived}{self.rows} events, up to {self.last}, were removed from the store; they are in {self.folder}."
        )


@dataclass(frozen=True)
class Filing:
    """A folder of archives that verifies: the archive that was added, if any, the last event in it, and its hash."""

    made: Archive | None
    last: int
    head: str
    folder: str

    def __str__(self) -> str:
        if not self.last:
            return f"{self.folder} has no archive."
        kept = f"The archives in {self.folder} verify: events 1 to {self.last}, head {self.head[:16]}."
        return f"{self.made}\n{kept}" if self.made else kept


def file(store: Store, reader: AuditReader, folder: Path, before: When | None, event: AuditEvent) -> Filing:
    """Verify a folder's archives against the store, and add what is older than a time, if one is given."""
    made = None if before is None else archive(store, reader, folder, before, event)
    return Filing(made, *verify_archives(store, folder), str(folder))


def prune(store: Prunes, reader: AuditReader, folder: Path, before: When, event: AuditEvent) -> Pruned:
    """Archive what is older than a time, and remove it from the store and its copy. ``AuditTampered`` when anything does
    not verify; then nothing is removed."""
    rows = _finish(store)
    made = archive(store, reader, folder, before, event)
    begins = anchor_of(store)
    last = min(verify_archives(store, folder)[0], last_before(reader, begins.seq, before))
    if last > begins.seq:
        rows += _remove(store, _record(store, folder, last, event))
    reader.forget()
    return Pruned(made, rows, max(last, begins.seq), str(folder))


def _record(store: Store, folder: Path, last: int, event: AuditEvent) -> int:
    """Say in the chain what may go; the seq of the record."""
    head = hash_at(folder, last)
    if head is None or [row.hash for row in store.audit_rows(last - 1, 1)] != [head]:
        raise AuditTampered(f"Event {last} is archived otherwise than the store has it.", first_bad=last)
    details = {"last": last, "head": head, "folder": str(folder.absolute())}
    summary = f"events up to {last} were archived and may be removed"
    pruned = event.model_copy(update={"type": PRUNED, "status": PRUNED_STATUS, "details": details, "summary": summary})
    return store.record(pruned)


def _finish(store: Prunes) -> int:
    """Remove what an earlier prune had recorded and not removed any more."""
    newest = next(prunes_of(store), None)
    if newest is None or newest.last <= anchor_of(store).seq:
        return 0
    return _remove(store, newest.seq)


def _remove(store: Prunes, record: int) -> int:
    rows = 0
    while went := store.prune_audit(record):
        rows += went
    return rows
