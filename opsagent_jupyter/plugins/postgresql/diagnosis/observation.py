"""One look at a database: what several areas of a diagnosis need is read once, each in a short transaction of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from opsagent_jupyter.models import Json, Suggestion
from opsagent_jupyter.plugins.postgresql.connection import Database, Row
from opsagent_jupyter.plugins.postgresql.queries import query
from opsagent_jupyter.plugins.postgresql.reads import indexes, tables

#: The largest tables that are looked at.
TABLES = 500
MB, GB = 1024**2, 1024**3


class Observation:
    """A database and what was read of it so far."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self._read: dict[str, Any] = {}

    async def tables(self) -> list[tables.TableState]:
        """The largest tables, each with what was found about it."""
        settings = await self.vacuum_settings()
        return list(await self._once("tables", lambda: tables.examined(self.db, None, TABLES, settings)))

    async def indexes(self) -> list[indexes.Index]:
        """Every index, each with its most important finding."""
        age = await self.statistics_age()
        return list(await self._once("indexes", lambda: indexes.examined(self.db, None, age)))

    async def statistics_age(self) -> Row:
        """Since when use is counted, and whether there are standbys."""
        return dict(await self._once("age", lambda: self.db.one(query("statistics_age"))))

    async def vacuum_settings(self) -> Row:
        """The thresholds of autovacuum."""
        return dict(await self._once("vacuum", lambda: self.db.one(query("vacuum_settings"))))

    async def recovery(self) -> Row:
        """Whether this is a standby, and whether this role sees what other roles do."""
        return dict(await self._once("recovery", lambda: self.db.one(query("recovery"))))

    async def locks(self) -> list[Row]:
        """Sessions that wait for locks, and those that they wait for."""
        return list(await self._once("locks", lambda: self.db.rows(query("locks"))))

    async def _once(self, name: str, read: Callable[[], Awaitable[Any]]) -> Any:
        if name not in self._read:
            self._read[name] = await read()
        return self._read[name]


def call(tool: str, why: str, **arguments: Json) -> Suggestion:
    """A ready call of one of our tools."""
    return Suggestion(tool=f"postgresql.{tool}", arguments=arguments, why=why)
