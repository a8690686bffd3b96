"""Archives of the audit: finished stretches of the chain in Parquet files, each of which goes on where the last one ended.

A stretch holds every row whole, with its hashes, so a folder of archives can be verified without the store. What is archived
is itself recorded in the chain, with the hash at which the stretch ends: the store vouches for its archives, and they for it.
Nothing is removed from the store here; ``retention.py`` does that with what is archived.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from opsagent_jupyter.audit.anchor import Anchor, anchor_of
from opsagent_jupyter.audit.archives import NAME, digest_of, manifest_of, require_reach, walk, walk_file
from opsagent_jupyter.audit.projection import locked, memory
from opsagent_jupyter.audit.query import AuditReader, When, moment
from opsagent_jupyter.contracts import Store
from opsagent_jupyter.errors import AuditError, AuditTampered
from opsagent_jupyter.models import AuditEvent, Json

#: The event by which the chain knows of an archive.
ARCHIVED = "audit.archived"


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
        """What the chain and the manifest keep of it."""
        return asdict(self)


def archive(store: Store, reader: AuditReader, folder: Path, before: When, event: AuditEvent) -> Archive | None:
    """Write what follows the folder's archives, up to the first event that is not before that time; None when there is
    nothing. It is read back and verified, and only then recorded with ``event``. ``AuditTampered`` when store or folder
    does not verify."""
    whole = reader.verify()
    if not whole.ok:
        raise AuditTampered(str(whole), first_bad=whole.first_bad)
    with alone(folder):
        end = Anchor(*verify_archives(store, folder))
        last = last_before(reader, end.seq, before)
        if last <= end.seq:
            return None
        made = _written(reader, folder, last, end)
        store.record(event.model_copy(update={"type": ARCHIVED, "status": "succeeded", "details": made.details()}))
        return made


def verify_archives(store: Store, folder: Path) -> tuple[int, str]:
    """Walk the chain through a folder's archives, and compare its end with the store: the last (seq, hash). Whether the
    newest files are missing, the events ``audit.archived`` in the store tell."""
    end, begins = walk(folder), anchor_of(store)
    if begins.seq:
        require_reach(folder, end, begins)
    if end.seq > begins.seq and [row.hash for row in store.audit_rows(end.seq - 1, 1)] != [end.hash]:
        raise AuditTampered(
            f"The archives in {folder} end at event {end.seq} with another hash than the store has there.",
            hint="Keep both as evidence; name another folder to archive this store.",
            first_bad=end.seq,
        )
    return end


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep others from writing into the folder, and clear away what a killed one has left."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        if not locked(lock):
            raise AuditError(f"Another process archives into {folder}.", hint="Wait until it has ended.")
        for part in folder.glob("part-*"):
            part.unlink(missing_ok=True)
        yield
    finally:
        os.close(lock)


def last_before(reader: AuditReader, after: int, before: When) -> int:
    """The last of the rows before the first one that is too new: clocks differ, and a stretch has no holes."""
    limit = moment(before).isoformat()
    found = reader.sql(
        f"SELECT coalesce(min(seq) FILTER (NOT coalesce(time < TIMESTAMPTZ '{limit}', false)) - 1, max(seq)) AS last "  # noqa: S608 - ours
        f"FROM audit WHERE seq > {after}"
    )
    return int(found["last"].fillna(0)[0])


def _written(reader: AuditReader, folder: Path, last: int, end: Anchor) -> Archive:
    """Write the stretch, read it back, and give it its name only when it verifies; then its manifest."""
    path = folder / NAME.format(first=end.seq + 1, last=last)
    part = folder / f"part-{os.getpid()}.parquet"
    try:
        reader.export(part, between=(end.seq + 1, last))
        with closing(memory()) as database:
            reached = walk_file(database, part, end)
        if reached.seq != last:
            raise AuditError(f"{part} ends at event {reached.seq}, not at {last}.", hint="Archive again.")
        made = Archive(path.name, end.seq + 1, last, end.hash, reached.hash, digest_of(part))
        _settle(part, path)
    finally:
        part.unlink(missing_ok=True)
    manifest = folder / f"part-{os.getpid()}.json"
    manifest.write_text(json.dumps(made.details(), indent=1) + "\n", encoding="utf-8")
    _settle(manifest, manifest_of(path))
    return made


def _settle(part: Path, path: Path) -> None:
    """Make a file durable under its name."""
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(path)
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
