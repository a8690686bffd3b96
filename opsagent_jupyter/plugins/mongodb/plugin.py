"""The MongoDB plugin: how to read a connection string, how to connect, and the toolbox."""

from __future__ import annotations

from collections.abc import Mapping

from opsagent_jupyter.models import Json
from opsagent_jupyter.plugin import Limits
from opsagent_jupyter.plugins.mongodb import changes, facts, reads, toolbox, uri
from opsagent_jupyter.plugins.mongodb.connection import Database


class MongoDB:
    """MongoDB 6.0 to 8.0: a standalone, a replica set, or a sharded cluster seen through mongos."""

    name = toolbox.NAME
    version = toolbox.VERSION
    extra = uri.EXTRA
    toolbox = toolbox.tools
    modules = (reads, changes)
    """The modules that declare the tools."""

    def describe(self, secret: str) -> dict[str, Json]:
        """Return the settings of a connection string that are no secrets; ``MalformedDsn`` when it cannot be read."""
        return uri.describe(secret)

    def redactions(self, secret: str) -> tuple[str, ...]:
        """Return every secret text within a connection string, raw and decoded."""
        return uri.redactions(secret)

    async def connect(self, name: str, secret: str, limits: Limits) -> Database:
        """Connect; raises an ``ExecutionError`` that says what to do."""
        return await Database.connect(name, secret, limits)

    async def facts(self, connection: Database) -> Mapping[str, Json]:
        """Say what this database is, how large it is, and what our account sees of it."""
        return await facts.facts(connection)


plugin = MongoDB()
