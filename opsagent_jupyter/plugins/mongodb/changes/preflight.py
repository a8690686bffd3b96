"""What is looked at before any change is proposed: rights, the state of the collection and of the set, and who is in the way."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from opsagent_jupyter.errors import DatabaseError, MissingRight, PreconditionFailed
from opsagent_jupyter.models import Json
from opsagent_jupyter.plugins.mongodb import failures, names
from opsagent_jupyter.plugins.mongodb.changes.execution import Node, Reader, node
from opsagent_jupyter.plugins.mongodb.changes.rights import Rights, rights
from opsagent_jupyter.plugins.mongodb.connection import REPLICA_SET, Database, Document
from opsagent_jupyter.plugins.mongodb.members import everywhere
from opsagent_jupyter.plugins.wording import count, duration, listing, plural, size

T = TypeVar("T")

#: Bytes of data from which a collection counts as large: changes that read all of it are one risk level higher.
LARGE = 10 * 1024**3
#: Bytes of data that one pass reads in a second, for estimates.
RATE = 40 * 1024**2
#: Seconds of replication lag from which a change that the set has to copy is one level higher.
LAG_SECONDS = 30.0


@dataclass(frozen=True)
class Target:
    """The collection that a change is about, as the member sees it that the change goes to."""

    db: Database
    at: Node
    collection: names.Collection
    rights: Rights
    indexes: Sequence[names.Index]
    stats: Document
    """``storageStats`` of ``$collStats``."""

    @property
    def documents(self) -> int:
        return int(self.stats.get("count", 0))

    @property
    def bytes(self) -> int:
        """Bytes of data, uncompressed."""
        return int(self.stats.get("size", 0))

    @property
    def builds(self) -> tuple[str, ...]:
        """Names of the indexes that are being built now."""
        return tuple(self.stats.get("indexBuilds", ()))

    @property
    def measures(self) -> str:
        """``50,000 documents, 11 MB``."""
        return f"{plural(self.documents, 'document')}, {size(self.bytes)}"

    @property
    def bound(self) -> dict[str, Json]:
        """The identity of the collection, for the preconditions."""
        return {"collection": self.collection.full, "collection_uuid": self.collection.uuid}

    @property
    def uuid(self) -> Document:
        """The field of a command that lets the server itself refuse when another collection has taken the name. What a
        person may paste into mongosh later goes without it: there ``$uuid`` is not read."""
        return {"collectionUUID": {"$uuid": self.collection.uuid}}


async def target(db: Database, text: str, database: str, action: str, *, member: str = "") -> Target:
    """Resolve a collection for a change; refuses what is missing, a view, a time series, the system's, or not permitted."""
    collection = await names.collection(db, text, database, views=False)
    names.check_changeable(collection)
    if collection.kind == names.TIME_SERIES:
        raise PreconditionFailed(f"{collection.shown} is a time series, whose buckets are not changed from here.")
    held = await rights(db)
    held.require(action, collection.database, collection.name)
    if not collection.uuid:
        raise failures.missing_right("listCollections", collection.database)
    at = await node(db, member)
    if not member:
        await must_be_primary(at)
    indexes = await indexes_of(at, collection.database, collection.name)
    return Target(db, at, collection, held, indexes, await stats_of(at, collection.database, collection.name))


async def must_be_primary(at: Node) -> None:
    """Refuse on a member that takes no writes."""
    hello = await at.read("admin", {"hello": 1})
    if not hello.get("isWritablePrimary"):
        raise PreconditionFailed("This member is not the primary.", hint=failures.PRIMARY_HINT)


async def indexes_of(reader: Reader, database: str, collection: str) -> list[names.Index]:
    """The indexes of a collection, those being built included; none when the collection is gone."""
    try:
        found = await reader.read(database, {"listIndexes": collection, "cursor": {"batchSize": 1000}})
    except DatabaseError as error:
        if failures.code_in(error) == failures.NAMESPACE_NOT_FOUND:
            return []
        raise
    return [names.Index(each["name"], tuple(each["key"].items()), each) for each in found["cursor"]["firstBatch"]]


async def stats_of(reader: Reader, database: str, collection: str) -> Document:
    """``storageStats`` of a collection on one member; empty when the collection is gone."""
    look = {"aggregate": collection, "pipeline": [{"$collStats": {"storageStats": {}}}], "cursor": {}}
    try:
        found = (await reader.read(database, look))["cursor"]["firstBatch"]
    except DatabaseError as error:
        if failures.code_in(error) == failures.NAMESPACE_NOT_FOUND:
            return {}
        raise
    return dict(found[0]["storageStats"]) if found else {}


def refuse_while_building(found: Target) -> None:
    """Refuse while an index of the collection is being built."""
    if found.builds:
        raise PreconditionFailed(
            f"An index of {found.collection.shown} is being built now: {listing(found.builds)}.",
            hint="Wait until it is done; get_current_ops shows its progress. drop_index aborts a build.",
        )


def large(found: Target) -> tuple[str, ...]:
    """Why size raises the risk: nothing, or one reason."""
    if found.bytes < LARGE:
        return ()
    return (f"the collection is large ({size(found.bytes)}, {count(found.documents)} documents)",)


def estimated(data: int) -> str:
    """A duration that says that it is an estimate, and from what."""
    seconds = data / RATE
    return f"{'under 1 s' if seconds < 1 else f'about {duration(seconds)}'} (estimate from {size(data)}; longer under load)"


async def free_disk(found: Target) -> int | None:
    """Free bytes of the file system that holds the data; None when it cannot be seen."""
    try:
        held = await found.at.read(found.collection.database, {"dbStats": 1})
    except MissingRight:
        return None
    if "fsTotalSize" not in held:
        return None
    return int(held["fsTotalSize"] - held["fsUsedSize"])


@dataclass(frozen=True)
class Members:
    """How the members of a replica set stand that copy a change."""

    down: tuple[str, ...] = ()
    late: tuple[str, ...] = ()
    seen: bool = True

    @property
    def reasons(self) -> tuple[str, ...]:
        found = []
        if self.down:
            found.append(f"{listing(self.down)} cannot be reached")
        if self.late:
            found.append(f"{listing(self.late)} lags already")
        return tuple(found)


async def members(at: Node) -> Members:
    """Which members of the set are down or late; a standalone has none."""
    if at.db.server.topology != REPLICA_SET:
        return Members()
    try:
        rows = (await at.read("admin", {"replSetGetStatus": 1}))["members"]
    except MissingRight:
        return Members(seen=False)
    down = [each["name"] for each in rows if not each["health"] or each["stateStr"] in ("DOWN", "UNKNOWN", "REMOVED")]
    newest = max((each["optimeDate"] for each in rows if each["stateStr"] == "PRIMARY"), default=None)
    late = [
        f"{each['name']} (by {duration(newest - each['optimeDate'])})"
        for each in rows
        if newest and each["stateStr"] == "SECONDARY" and each["health"]
        and (newest - each["optimeDate"]).total_seconds() > LAG_SECONDS
    ]  # fmt: skip
    return Members(tuple(down), tuple(late))


async def transactions(at: Node) -> tuple[tuple[str, ...], bool]:
    """Open transactions, one line each, which an exclusive lock has to wait for; and whether all could be seen."""
    if at.db.server.topology != REPLICA_SET:
        return (), True
    look: list[Document] = [
        {"$currentOp": {"allUsers": True, "idleSessions": True}},
        {"$match": {"transaction.timeOpenMicros": {"$gt": 0}}},
        {"$project": {"client": 1, "appName": 1, "open": "$transaction.timeOpenMicros"}},
        {"$sort": {"open": -1}},
        {"$limit": 9},
    ]
    try:
        rows = await at.batch("admin", {"aggregate": 1, "pipeline": look, "cursor": {}}, action="inprog")
    except MissingRight:
        return (), False
    lines = [
        f"a transaction of {each.get('appName') or each.get('client') or 'a client'}, open for "
        f"{duration(each['open'] / 1e6)}, if it has touched the collection"
        for each in rows[:8]
    ]
    return (*lines, *(["and more"] if len(rows) > 8 else [])), True


BLIND = "Other users' operations cannot be seen with these rights (grant clusterMonitor on admin), so more may be in the way."


async def usage(found: Target, index: str) -> tuple[list[tuple[str, int, Any]], list[str]]:
    """(member, uses, counted since) of an index on every member, and the members that could not be asked."""
    look = {
        "aggregate": found.collection.name,
        "pipeline": [{"$indexStats": {}}, {"$match": {"name": index}}],
        "cursor": {},
    }

    async def ask(member: str) -> list[Document]:
        return await Node(found.db, member).batch(found.collection.database, look, action="indexStats")

    answers = await everywhere(found.db, ask)
    counted = [
        (each.member, int(row["accesses"]["ops"]), row["accesses"]["since"])
        for each in answers
        for row in each.found or ()
    ]
    return counted, [each.member for each in answers if each.error]


def jsonable(document: Mapping[str, Any]) -> dict[str, Json]:
    """A document of the server as JSON, for preconditions."""
    from bson import json_util

    found: dict[str, Json] = json.loads(json_util.dumps(document, json_options=json_util.RELAXED_JSON_OPTIONS))
    return found


async def seen(look: Awaitable[T]) -> T | None:
    """What a read finds; None when these rights do not allow it."""
    with suppress(MissingRight):
        return await look
    return None
