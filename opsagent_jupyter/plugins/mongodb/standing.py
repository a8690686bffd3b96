"""What a connected deployment says of itself: who it is, how it is, and which names it has."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from opsagent_jupyter.errors import DatabaseError, DeadlineExceeded, MissingRight, OpsAgentError
from opsagent_jupyter.models import Catalog, Health, Json
from opsagent_jupyter.plugins.mongodb import failures, names, uri
from opsagent_jupyter.plugins.mongodb.connection import (
    READ_SECONDS,
    REPLICA_SET,
    SHARDED,
    STANDALONE,
    Document,
    Server,
    stamped,
)
from opsagent_jupyter.plugins.wording import listing

if TYPE_CHECKING:
    from opsagent_jupyter.plugins.mongodb.connection import Database
    from opsagent_jupyter.plugins.mongodb.uri import Parts

#: Names of a kind that a catalog holds, and databases and collections that are asked for them.
NAMES, DATABASES, COLLECTIONS = 2_000, 30, 300

#: Roles with which a user can do more than look after indexes, by what they allow.
POWERFUL: Mapping[str, str] = {
    "root": "may do everything (root)",
    "__system": "may do everything (__system)",
    "dbOwner": "owns a database (dbOwner)",
    "dbAdminAnyDatabase": "administers every database (dbAdminAnyDatabase)",
    "readWriteAnyDatabase": "writes to every database (readWriteAnyDatabase)",
    "userAdmin": "may make users and grant itself any role of a database (userAdmin)",
    "userAdminAnyDatabase": "may make users and grant itself any role (userAdminAnyDatabase)",
    "clusterAdmin": "administers the cluster (clusterAdmin)",
    "clusterManager": "may reconfigure the set (clusterManager)",
    "backup": "reads everything (backup)",
    "restore": "writes everything (restore)",
    "readWrite": "writes documents (readWrite)",
}

#: Roles that see what others run.
MONITORING = frozenset({"clusterMonitor", "clusterAdmin", "root", "__system"})


async def learned(db: Database, parts: Parts) -> Server:
    """Ask once who answers: topology, version and our own login."""
    client = db.client()
    with failures.refusing(uri.redactions(db.secret)):
        hello, built, status = [
            dict(
                await client.admin.command(stamped({command: 1}, READ_SECONDS), read_preference=client.read_preference)
            )
            for command in ("hello", "buildInfo", "connectionStatus")
        ]
    login = status["authInfo"]
    return Server(
        version=str(built["version"]),
        number=tuple(int(part) for part in built["versionArray"]),
        topology=topology(hello),
        set_name=str(hello.get("setName", "")),
        hosts=_hosts(hello, parts),
        user=next((f"{user['user']}@{user['db']}" for user in login["authenticatedUsers"]), ""),
        roles=tuple(f"{role['role']}@{role['db']}" for role in login["authenticatedUserRoles"]),
        database=parts.database,
        direct=parts.option("directConnection").lower() == "true",
    )


def topology(hello: Mapping[str, Any]) -> str:
    """The kind of deployment that answered a handshake."""
    return SHARDED if hello.get("msg") == "isdbgrid" else REPLICA_SET if hello.get("setName") else STANDALONE


def _hosts(hello: Mapping[str, Any], parts: Parts) -> tuple[str, ...]:
    members = [*hello.get("hosts", ()), *hello.get("passives", ())]
    return tuple(sorted(members or [host if ":" in host else f"{host}:27017" for host in parts.hosts]))


# -- identity


async def identity(db: Database) -> dict[str, Json]:
    """Return what tells this deployment from any other. Without the right to its id, its hosts stand alone for it."""
    server = db.server
    return {
        "deployment_id": await _deployment_id(db),
        "topology": server.topology,
        "replica_set": server.set_name,
        "hosts": list(server.hosts),
        "database": server.database,
        "user": server.user,
        "version": server.version,
    }


async def _deployment_id(db: Database) -> str:
    """The id that outlives restarts: of the set, of the cluster, or of the standalone's own startup log."""
    with suppress(MissingRight):
        if db.server.topology == REPLICA_SET:
            found = await db.command("admin", {"replSetGetConfig": 1})
            return str(found["config"].get("settings", {}).get("replicaSetId", ""))
        if db.server.topology == SHARDED:
            found = await db.command("config", {"find": "version", "limit": 1, "singleBatch": True})
            return str(next((each.get("clusterId", "") for each in found["cursor"]["firstBatch"]), ""))
        return await _startup_log(db)
    return ""


async def _startup_log(db: Database) -> str:
    """The UUID of local.startup_log: made with the data directory, and in no other."""
    look = {"listCollections": 1, "filter": {"name": "startup_log"}}
    found = await db.documents("local", look)
    return next((names.uuid_of(each) for each in found), "")


# -- health


async def health(db: Database) -> Health:
    """Ask for a sign of life and the rights of the user; a dead server is an answer, not an exception."""
    started = time.perf_counter()
    try:
        hello = await db.command("admin", {"hello": 1})
        took = (time.perf_counter() - started) * 1000
        status = await db.command("admin", {"connectionStatus": 1})
    except OpsAgentError as error:
        return Health(instance=db.name, ok=False, summary=str(error), error_code=error.code)
    server = db.server
    place = f"{server.topology} {server.set_name}".strip() + (f", {member_state(hello)}" if server.set_name else "")
    database = f", database {server.database}" if server.database else ""
    return Health(
        instance=db.name,
        ok=True,
        milliseconds=round(took, 3),
        version=f"MongoDB {server.version}",
        summary=f"MongoDB {server.version}, {place}{database} as {server.user or 'nobody (no authentication)'}",
        warnings=_warnings(db, hello, status["authInfo"]["authenticatedUserRoles"]),
    )


def member_state(hello: Document) -> str:
    """What a member of a replica set is now."""
    return "primary" if hello.get("isWritablePrimary") else "secondary" if hello.get("secondary") else "no member state"


def _warnings(db: Database, hello: Document, roles: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    held = {role["role"] for role in roles}
    warnings = []
    if not db.server.user:
        warnings.append("Nobody is logged in: without authentication everybody who reaches the port may do everything.")
    if risky := [text for role, text in POWERFUL.items() if role in held]:
        warnings.append(f"User {db.server.user} {listing(risky, 6)}: attach a user with fewer roles where you can.")
    if db.server.user and not held & MONITORING:
        warnings.append(
            f"User {db.server.user} does not see what others run, nor use of indexes: grant it clusterMonitor on admin."
        )
    if db.server.set_name and not hello.get("isWritablePrimary") and db.server.direct:
        warnings.append("This is one member of a replica set and not its primary: changes will be refused here.")
    return tuple(warnings)


# -- catalog


async def catalog(db: Database) -> Catalog:
    """Return databases, collections and indexes, and per collection the fields that a document and the indexes have."""
    databases = (await names.databases(db))[:DATABASES]
    found = [each for name in databases for each in await _collections(db, name)]
    found = [each for each in found if not each.is_system][:NAMES]
    fields: dict[str, tuple[str, ...]] = {}
    indexes: list[str] = []
    for each in found[:COLLECTIONS]:
        specs = await _indexes(db, each)
        indexes += [spec.name for spec in specs if spec.name != "_id_"]
        fields[each.shown] = tuple(
            dict.fromkeys([*(f for spec in specs for f in spec.fields), *await _fields(db, each)])
        )
    collections = tuple(each.shown for each in found)
    return Catalog(
        names={
            "collection": collections,
            "index": tuple(dict.fromkeys(indexes))[:NAMES],
            "database": tuple(databases),
        },
        columns=fields,
    )


#: Only names of fields leave the server, never a value.
_FIELD_NAMES: list[Document] = [
    {"$limit": 5},
    {"$project": {"_id": 0, "fields": {"$objectToArray": "$$ROOT"}}},
    {"$project": {"fields.k": 1}},
]


async def _fields(db: Database, collection: names.Collection) -> list[str]:
    """Top-level fields of a few documents."""
    try:
        found = await db.documents(collection.database, {"aggregate": collection.name, "pipeline": _FIELD_NAMES})
    except (MissingRight, DatabaseError, DeadlineExceeded):
        return []
    return [field["k"] for row in found for field in row["fields"]]


async def _collections(db: Database, database: str) -> list[names.Collection]:
    try:
        return await names.collections(db, database)
    except MissingRight:
        return []


async def _indexes(db: Database, collection: names.Collection) -> list[names.Index]:
    try:
        return [] if collection.is_view else await names.indexes(db, collection)
    except OpsAgentError as error:
        if isinstance(error, MissingRight) or failures.code_in(error) == failures.NAMESPACE_NOT_FOUND:
            return []
        raise
