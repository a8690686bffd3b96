"""Which databases a diagnosis is about."""

from __future__ import annotations

from opsagent_jupyter.plugins.mongodb import names
from opsagent_jupyter.plugins.mongodb.connection import Database

#: Databases that are looked at when the connection string names none.
DATABASES = 10


async def databases(db: Database) -> tuple[list[str], tuple[str, ...]]:
    """The database of the connection string, or all that are visible, with a note when there are too many."""
    if db.server.database:
        return [await names.database(db)], ()
    found = await names.databases(db)
    left = len(found) - DATABASES
    return found[:DATABASES], ((f"Only the first {DATABASES} databases by name were looked at.",) if left > 0 else ())


def place(db: Database) -> str:
    """What the diagnosis is about, in words."""
    return f"database {db.server.database}" if db.server.database else f"deployment {db.name}"
