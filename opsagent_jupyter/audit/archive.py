"""Archives of the audit: finished stretches of the chain in Parquet files, each of which goes on where the last one ended.

A stretch holds every row whole, with its hashes, so a folder of archives can be verified without the store. What is archived
is itself recorded in the chain, with the hash at which the stretch ends: the store vouches for its archives, and they for it.
Nothing is ever removed from the store here.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import duckdb

from opsagent_jupyter.audit import chain
from opsagent_jupyter.audit.projection import BATCH, memory, quoted
from opsagent_jupyter.audit.query import AuditReader, When, moment
from opsagent_jupyter.contracts import Store
from opsagent_jupyter.errors import AuditError, AuditTampered
from opsagent_jupyter.models import AuditEvent, AuditRow, Json

#: The event by which the chain knows of an archive.
ARCHIVED = "audit.archived"
_NAME = "audit-{first:012d}-{last:012d}.parquet"


@dataclass(frozen=True)
class Archive:
    """A stretch of the chain in a file: its first and last row, the hash before it and at its end, the file's SHA-256."""

    file: str
    first: int
    last: int
    prev_hash: str
    head: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.file} holds events {self.first} to {self.last}, head {self.head[:16]}."

    def details(self) -> dict[str, Json]:
        """What the chain keeps of it."""
        return asdict(self)


def archive(store: Store, reader: AuditReader, folder: Path, before: When, event: AuditEvent) -> Archive | None:
    """Write what follows the folder's archives, up to the first event that is not before that time; None when there is
    nothing. It is read back and verified, and only then recorded with ``event``. ``AuditTampered`` when store or folder
    does not verify."""
    whole = reader.verify()
    if not whole.ok:
        raise AuditTampered(str(whole), first_bad=whole.first_bad)
    seq, prev_hash = verify_archives(store, folder)
    last = _last_before(reader, seq, before)
    if last <= seq:
        return None
    made = _written(reader, folder, seq + 1, last, prev_hash)
    store.record(event.model_copy(update={"type": ARCHIVED, "status": "succeeded", "details": made.details()}))
    return made


def verify_archives(store: Store, folder: Path) -> tuple[int, str]:
    """Walk the chain through a folder's archives, and compare its end with the store: the last (seq, hash). Whether the
    newest files are missing, the events ``audit.archived`` in the store tell."""
    seq, head = 0, chain.GENESIS
    with closing(memory()) as database:
        for path in sorted(folder.glob("audit-*.parquet")):
            for rows in _rows(database, path):
                seq, head = chain.verify(rows, seq, head)
            if not path.name.endswith(f"-{seq:012d}.parquet"):
                raise AuditTampered(f"{path} ends at event {seq}: its end was cut off.", first_bad=seq + 1)
    if seq and [row.hash for row in store.audit_rows(seq - 1, 1)] != [head]:
        raise AuditTampered(
            f"The archives in {folder} end at event {seq} with another hash than the store has there.",
            hint="Keep both as evidence; name another folder to archive this store.",
            first_bad=seq,
        )
    return seq, head


def _last_before(reader: AuditReader, after: int, before: When) -> int:
    """The last of the rows before the first one that is too new: clocks differ, and a stretch has no holes."""
    limit = moment(before).isoformat()
    found = reader.sql(
        f"SELECT coalesce(min(seq) FILTER (NOT coalesce(time < TIMESTAMPTZ '{limit}', false)) - 1, max(seq)) AS last "  # noqa: S608 - ours
        f"FROM audit WHERE seq > {after}"
    )
    return int(found["last"].fillna(0)[0])


def _written(reader: AuditReader, folder: Path, first: int, last: int, prev_hash: str) -> Archive:
    """Write the stretch, read it back, and give it its name only when it verifies."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / _NAME.format(first=first, last=last)
    part = folder / f"part-{os.getpid()}.parquet"
    try:
        reader.export(part, between=(first, last))
        with closing(memory()) as database:
            seq, head = first - 1, prev_hash
            for rows in _rows(database, part):
                seq, head = chain.verify(rows, seq, head)
        if seq != last:
            raise AuditError(f"{part} ends at event {seq}, not at {last}.", hint="Archive again.")
        with part.open("rb+") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return Archive(path.name, first, last, prev_hash, head, digest)


def _rows(database: duckdb.DuckDBPyConnection, path: Path) -> Iterator[list[AuditRow]]:
    """The rows of an archive in the order of the file."""
    try:
        found = database.execute(
            f"SELECT seq, event_id, body, prev_hash, hash FROM read_parquet({quoted(path)}) ORDER BY seq"  # noqa: S608 - ours
        )
        while rows := found.fetchmany(BATCH):
            yield [AuditRow._make(row) for row in rows]
    except duckdb.Error as error:
        raise AuditError(f"{path} cannot be read: {error}", hint="Restore it from a backup.") from None
