"""Sizes that never wait: what is locked exclusively is measured by the planner's page counts instead."""

from __future__ import annotations

from typing import Any

from opsagent_jupyter.errors import DatabaseError
from opsagent_jupyter.plugins.postgresql.connection import Database, Row
from opsagent_jupyter.plugins.postgresql.failures import LOCK_NOT_AVAILABLE
from opsagent_jupyter.plugins.postgresql.queries import query


async def measured(db: Database, name: str, values: dict[str, Any]) -> list[Row]:
    """Run a catalog query with ``sizes``; without, when a lock came up between looking and measuring.

    Each row says in ``locked`` whether its size is the planner's.
    """
    try:
        return await db.rows(query(name), {**values, "sizes": True})
    except DatabaseError as error:
        if error.facts.get("native_code") != LOCK_NOT_AVAILABLE:
            raise
    return [{**row, "locked": True} for row in await db.rows(query(name), {**values, "sizes": False})]


def locked_note(rows: list[Row], what: str) -> tuple[str, ...]:
    """A note when sizes are the planner's."""
    if not any(row["locked"] for row in rows):
        return ()
    return (f"Sizes of {what} that another session holds locked exclusively are the planner's last page counts.",)
