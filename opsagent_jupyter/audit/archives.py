"""A folder of archives: files that follow each other from the first event on, read and verified without the store."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import duckdb

from opsagent_jupyter.audit import chain
from opsagent_jupyter.audit.anchor import BEGINNING, Anchor
from opsagent_jupyter.audit.projection import BATCH, memory
from opsagent_jupyter.audit.queries import parquet, sql
from opsagent_jupyter.errors import AuditError, AuditTampered
from opsagent_jupyter.models import AuditRow

NAME = "audit-{first:012d}-{last:012d}.parquet"
_NAMED = re.compile(r"audit-(\d{12})-(\d{12})\.parquet")


def files_of(folder: Path) -> list[Path]:
    """The archives of a folder in their order; ``AuditTampered`` when one is missing in between."""
    paths, place = sorted(folder.glob("audit-*.parquet")), 0
    for path in paths:
        named = _NAMED.fullmatch(path.name)
        if named is None or int(named[1]) != place + 1:
            raise AuditTampered(
                f"{path} does not follow the archive before it, which ends at event {place}.",
                hint="Restore the missing file from a backup.",
                first_bad=place + 1,
            )
        place = int(named[2])
    return paths


def walk(folder: Path) -> Anchor:
    """Verify a folder's archives from the first event on, and return where they end; ``AuditTampered`` names the row."""
    place = BEGINNING
    with closing(memory()) as database:
        for path in files_of(folder):
            place = walk_file(database, path, place)
            _require_digest(path)
            if not path.name.endswith(f"-{place.seq:012d}.parquet"):
                raise AuditTampered(f"{path} ends at event {place.seq}: its end was cut off.", first_bad=place.seq + 1)
    return place


def walk_file(database: duckdb.DuckDBPyConnection, path: Path, place: Anchor) -> Anchor:
    """Verify one file that follows a row, at once or, to say what is wrong, row by row; its last row."""
    found = _ask(database, sql("stretch").replace("{source}", parquet([path])), place._asdict(), path)
    count, first, last, head, wrong = found[0]
    if not wrong and (first, last) == (place.seq + 1, place.seq + count):
        return Anchor(last, head)
    for rows in _rows(database, path):
        place = Anchor(*chain.verify(rows, *place))
    return place


def hash_at(folder: Path, seq: int) -> str | None:
    """The hash of an archived row, None when no file has it."""
    with closing(memory()) as database:
        for path in files_of(folder):
            named = _NAMED.fullmatch(path.name)
            if named and int(named[1]) <= seq <= int(named[2]):
                text = f"SELECT hash FROM {parquet([path])} WHERE seq = $seq"  # noqa: S608 - ours
                found = _ask(database, text, {"seq": seq}, path)
                return str(found[0][0]) if found else None
    return None


def archived(folder: Path, begins: Anchor) -> Sequence[Path]:
    """The archives, verified, if the store lacks anything that is in them."""
    if not begins.seq:
        return ()
    require_reach(folder, walk(folder), begins)
    return files_of(folder)


def require_reach(folder: Path, end: Anchor, begins: Anchor) -> None:
    """The archives hold what was pruned, as it was; ``AuditTampered``, or ``AuditError`` when they end before."""
    if end.seq < begins.seq:
        raise AuditError(
            f"The archives in {folder} end at event {end.seq}, and the store begins after event {begins.seq}.",
            hint="Name the folder that the events between were archived in.",
        )
    if (end.hash if end.seq == begins.seq else hash_at(folder, begins.seq)) != begins.hash:
        raise AuditTampered(
            f"The archives in {folder} have another event {begins.seq} than the one that the store follows.",
            hint="Keep both as evidence; name the folder that belongs to this store.",
            first_bad=begins.seq,
        )


def manifest_of(path: Path) -> Path:
    """Where the facts about an archive stand, beside it."""
    return path.with_suffix(".json")


def _require_digest(path: Path) -> None:
    try:
        kept = json.loads(manifest_of(path).read_text(encoding="utf-8"))["sha256"]
    except FileNotFoundError:  # a crash came between the two; the chain alone vouches then
        return
    except (OSError, ValueError, KeyError, TypeError):
        kept = None
    if kept != digest_of(path):
        raise AuditTampered(f"{path} is not the file that its manifest describes.", hint="Restore it from a backup.")


def digest_of(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _rows(database: duckdb.DuckDBPyConnection, path: Path) -> Iterator[list[AuditRow]]:
    """The rows of an archive in order."""
    found = database.execute(f"SELECT seq, event_id, body, prev_hash, hash FROM {parquet([path])} ORDER BY seq")  # noqa: S608 - ours
    while rows := found.fetchmany(BATCH):
        yield [AuditRow._make(row) for row in rows]


def _ask(
    database: duckdb.DuckDBPyConnection, text: str, values: object, path: Path
) -> list[tuple[int, int, int, str, int]]:
    try:
        return database.execute(text, values).fetchall()
    except duckdb.Error as error:
        raise AuditError(f"{path} cannot be read: {error}", hint="Restore it from a backup.") from None
