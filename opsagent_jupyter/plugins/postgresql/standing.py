"""What a connected database says of itself: who it is, how it is, and which names it has."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING

from opsagent_jupyter.errors import DatabaseError, MissingRight, OpsAgentError
from opsagent_jupyter.models import Catalog, Health, Json
from opsagent_jupyter.plugins.postgresql.queries import query
from opsagent_jupyter.plugins.wording import listing, plural

if TYPE_CHECKING:
    from opsagent_jupyter.plugins.postgresql.connection import Database, Row

#: Names of a kind, and columns in all, that a catalog holds.
NAMES, COLUMNS = 2_000, 10_000

#: By the name of a role that one can become.
_POWERS = {
    "pg_write_server_files": "may write files of the server (pg_write_server_files)",
    "pg_read_server_files": "may read files of the server (pg_read_server_files)",
    "pg_execute_server_program": "may run programs on the server (pg_execute_server_program)",
    "pg_write_all_data": "may write to every table (pg_write_all_data)",
}
_RISKY_RIGHTS = {
    "rolbypassrls": "bypasses row security (BYPASSRLS)",
    "rolcreaterole": "may make roles (CREATEROLE)",
    "rolcreatedb": "may make databases (CREATEDB)",
    "rolreplication": "may replicate everything (REPLICATION)",
}


async def identity(db: Database) -> dict[str, Json]:
    """Return what tells this database from any other. Without the right to the system identifier, its address."""
    found: dict[str, Json] = dict(await db.one(query("identity")))
    try:
        return {**await db.one(query("system_identifier")), **found}
    except (MissingRight, DatabaseError):
        return {"system_identifier": "", **await db.one(query("server_address")), **found}


async def health(db: Database) -> Health:
    """Ask for a sign of life and the rights of the role; a dead server is an answer, not an exception."""
    started = time.perf_counter()
    try:
        await db.one("SELECT 1 AS alive")
        took = (time.perf_counter() - started) * 1000
        rights = await db.one(query("rights"))
    except OpsAgentError as error:
        return Health(instance=db.name, ok=False, summary=str(error), error_code=error.code)
    place = " (standby, read only)" if rights["standby"] else ""
    return Health(
        instance=db.name,
        ok=True,
        milliseconds=round(took, 3),
        version=f"PostgreSQL {db.server.version}",
        summary=f"PostgreSQL {db.server.version}, database {db.server.database} as {db.server.role}{place}",
        warnings=_warnings(db.server.role, rights),
    )


def _warnings(role: str, rights: Row) -> tuple[str, ...]:
    held = risky(rights)
    warnings = []
    if held:
        warnings.append(
            f"Role {role} {listing(held, 6)}: attach a role with fewer rights where you can (`opsagent roles` prints one)."
        )
    if not rights["monitors"]:
        warnings.append(f"Role {role} does not see what other roles run: GRANT pg_monitor TO {role}.")
    if not rights["has_statements"]:
        warnings.append("pg_stat_statements is not installed in this database, so slow queries are not recorded.")
    return tuple(warnings)


def risky(rights: Row) -> list[str]:
    """What a role can do beyond its tools' needs, by itself or by becoming another role."""
    if rights["rolsuper"]:
        return ["is a superuser"]
    own = [text for right, text in _RISKY_RIGHTS.items() if rights[right]]
    return own + [_POWERS.get(name, f"can become {name}, which is like a superuser") for name in rights["powers"]]


async def excess(db: Database) -> tuple[str, ...]:
    """Say what the role could change in this database: of interest where an instance shall only read."""
    found, role = await db.one(query("excess")), db.server.role
    if db.server.superuser:
        return (f"Role {role} is a superuser: nothing but OpsAgent keeps it from changing things.",)
    could = [
        *(["owns this database"] if found["owns_database"] else []),
        *([f"owns {plural(found['owned'], 'table')}"] if found["owned"] else []),
        *([f"may write to {plural(found['writable'], 'table')}"] if found["writable"] else []),
        *([f"may create in {listing(found['creates'])}"] if found["creates"] else []),
    ]
    return (f"Role {role} is attached to read only, but {listing(could, 4)}.",) if could else ()


async def catalog(db: Database) -> Catalog:
    """Return tables with columns, indexes and roles, the largest first, each as it is written on this search path."""
    tables = await db.rows(query("relation_names"), {"kinds": ["r", "p", "m", "f"], "limit": NAMES})
    indexes = await db.rows(query("relation_names"), {"kinds": ["i", "I"], "limit": NAMES})
    roles = await db.rows(query("role_names"), {"limit": NAMES})
    columns = await db.rows(query("column_names"), {"oids": [row["oid"] for row in tables], "limit": COLUMNS})
    by_table: dict[int, list[str]] = defaultdict(list)
    for row in columns:
        by_table[row["oid"]].append(row["name"])
    return Catalog(
        names={
            "table": tuple(row["name"] for row in tables),
            "index": tuple(row["name"] for row in indexes),
            "role": tuple(row["name"] for row in roles),
        },
        columns={row["name"]: tuple(by_table[row["oid"]]) for row in tables},
    )
