"""What a language model is told of a MongoDB deployment before a conversation."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from opsagent_jupyter.errors import DatabaseError, DeadlineExceeded, MissingRight
from opsagent_jupyter.models import Json
from opsagent_jupyter.plugins.mongodb.standing import MONITORING, POWERFUL, member_state
from opsagent_jupyter.plugins.wording import size

if TYPE_CHECKING:
    from opsagent_jupyter.plugins.mongodb.connection import Database

#: Seconds for each figure that has to be counted.
COUNTING = 1.0


async def facts(db: Database) -> Mapping[str, Json]:
    """Version, topology and state, size, counts and rights; what cannot be told in time is left out."""
    hello = await db.command("admin", {"hello": 1}, seconds=COUNTING)
    server = db.server
    state = f" {server.set_name}, this member is {member_state(hello)}" if server.set_name else ""
    return {
        "version": f"MongoDB {server.version}",
        "topology": f"{server.topology}{state}",
        **await _held(db),
        "account": server.user or "nobody (no authentication)",
        "roles": list(server.roles),
        "rights": _rights(db),
    }


async def _held(db: Database) -> dict[str, Json]:
    """How much there is: in the database that the connection names, else on the whole deployment."""
    with suppress(MissingRight, DatabaseError, DeadlineExceeded):
        if db.server.database:
            found = await db.command(db.server.database, {"dbStats": 1}, seconds=COUNTING)
            stored = size(found["storageSize"] + found.get("indexSize", 0))
            return {"database": db.server.database, "size": stored, "collections": int(found["collections"])}
        found = await db.command("admin", {"listDatabases": 1}, seconds=COUNTING)
        return {"databases": len(found["databases"]), "size": size(found["totalSize"])}
    return {"size": "not known"}


def _rights(db: Database) -> list[Json]:
    held = {role.partition("@")[0] for role in db.server.roles}
    sees = not db.server.user or bool(held & MONITORING)
    told: list[Json] = [text for role, text in POWERFUL.items() if role in held]
    return [*told, "sees what others run" if sees else "sees only its own operations"]
