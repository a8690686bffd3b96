"""Copying a store row by row into a new SQLite file: the backup of a store on a server."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from sqlalchemy import Connection, Table, delete, insert, select

from opsagent_jupyter.stores import schema
from opsagent_jupyter.stores.sqlite import SqliteFile
from opsagent_jupyter.stores.storage import Storage
from opsagent_jupyter.stores.tables import metadata

BATCH = 1000


def copy_rows(source: Storage, path: Path) -> None:
    """Fill the empty file with everything the store holds at one moment, in one transaction."""
    with closing(SqliteFile(path, lock_timeout=30.0)) as target:
        schema.migrate(target)
        with source.snapshot() as reading, target.writing() as writing:
            for table in metadata.sorted_tables:
                _copy(table, reading, writing)


def _copy(table: Table, reading: Connection, writing: Connection) -> None:
    writing.execute(delete(table))
    rows = reading.execution_options(yield_per=BATCH).execute(select(table))
    for batch in rows.partitions():
        writing.execute(insert(table), [dict(row._mapping) for row in batch])  # noqa: SLF001 - public in SQLAlchemy
