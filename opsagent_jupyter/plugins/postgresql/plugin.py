"""The PostgreSQL plugin: how to read a connection string, how to connect, and the toolbox."""

from __future__ import annotations

from collections.abc import Mapping

from opsagent_jupyter.models import Json
from opsagent_jupyter.plugin import Limits
from opsagent_jupyter.plugins.postgresql import accounts, changes, dsn, facts, reads, standing, toolbox
from opsagent_jupyter.plugins.postgresql.connection import Database


class PostgreSQL:
    """PostgreSQL 13 to 18."""

    name = toolbox.NAME
    version = toolbox.VERSION
    extra = dsn.EXTRA
    toolbox = toolbox.tools
    modules = (reads, changes)
    """The modules that declare the tools."""

    def describe(self, secret: str) -> dict[str, Json]:
        """Return the settings of a connection string that are no secrets; ``MalformedDsn`` when it cannot be read."""
        return dsn.describe(secret)

    def redactions(self, secret: str) -> tuple[str, ...]:
        """Return every secret text within a connection string, raw and decoded."""
        return dsn.redactions(secret)

    async def connect(self, name: str, secret: str, limits: Limits) -> Database:
        """Connect; raises an ``ExecutionError`` that says what to do."""
        return await Database.connect(name, secret, limits)

    async def facts(self, connection: Database) -> Mapping[str, Json]:
        """Say what this database is, how large it is, and what our account sees of it."""
        return await facts.facts(connection)

    async def account_sql(self, connection: Database, observer: str = "", operator: str = "") -> str:
        """Return the commands that make an observer and an operator role for this server; nothing is run."""
        found = await accounts.ground(connection)
        return accounts.account_sql(found, observer or accounts.OBSERVER, operator or accounts.OPERATOR)

    async def excess(self, connection: Database) -> tuple[str, ...]:
        """Say what the role of a connection that shall only read could change."""
        return await standing.excess(connection)


plugin = PostgreSQL()
