"""What a language model is told of a PostgreSQL database before a conversation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from opsagent_jupyter.errors import OpsAgentError
from opsagent_jupyter.models import Json
from opsagent_jupyter.plugins.postgresql.queries import query
from opsagent_jupyter.plugins.postgresql.standing import risky
from opsagent_jupyter.plugins.wording import size

if TYPE_CHECKING:
    from opsagent_jupyter.plugins.postgresql.connection import Database, Row

#: Extensions that record or measure what happens, and so decide which questions can be answered.
MEASURING = (
    "pg_stat_statements", "pgstattuple", "hypopg", "pg_buffercache", "pg_freespacemap", "pg_visibility",
    "pg_stat_kcache", "pg_qualstats", "pg_wait_sampling",
)  # fmt: skip
#: Milliseconds for the size: it touches every file of the database.
SIZE_MS = 1_000


async def facts(db: Database) -> Mapping[str, Json]:
    """Version, role, size, counts, extensions and rights; what cannot be told in time is left out."""
    found = await db.one(query("facts"))
    rights = await db.one(query("rights"))
    here: Sequence[str] = found["extensions"]
    return {
        "version": f"PostgreSQL {db.server.version}",
        "role": "standby, read only" if found["standby"] else "primary",
        "database": db.server.database,
        "size": await _size(db),
        "tables": found["tables"],
        "account": db.server.role,
        "rights": _rights(rights),
        "statistics from": [name for name in MEASURING if name in here]
        or "no extension: slow queries are not recorded",
        "extensions": [f"{name} {version}" for name, version in zip(here, found["versions"], strict=True)],
    }


async def _size(db: Database) -> str:
    try:
        (row,) = await db.rows("SELECT pg_catalog.pg_database_size(current_database()) AS bytes", statement_ms=SIZE_MS)
    except OpsAgentError:  # too slow, or not allowed
        return "not known"
    return size(row["bytes"])


def _rights(rights: Row) -> list[Json]:
    sees = "sees what other roles run" if rights["monitors"] or rights["rolsuper"] else "sees only its own sessions"
    return [*risky(rights), sees]
