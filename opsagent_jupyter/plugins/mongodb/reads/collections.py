"""list_collections, get_collection_stats and get_database_stats: what is there, and how large it is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from opsagent_jupyter.errors import MissingRight, OpsAgentError
from opsagent_jupyter.models import Result, Suggestion
from opsagent_jupyter.plugin import Arg
from opsagent_jupyter.plugins.mongodb import names
from opsagent_jupyter.plugins.mongodb.connection import Database, Document
from opsagent_jupyter.plugins.mongodb.members import one_member_note
from opsagent_jupyter.plugins.mongodb.sheets import sheet
from opsagent_jupyter.plugins.mongodb.toolbox import tools
from opsagent_jupyter.plugins.sheets import cut_note
from opsagent_jupyter.plugins.wording import count, listing, percent, plural, size

#: Collections that are measured one by one.
MEASURED = 200
#: Reusable space that is worth compacting: bytes, and share of what is stored.
WORTH_BYTES, WORTH_SHARE = 100 * 1024**2, 0.3

CHECKPOINT = (
    "Stored sizes are those of the last checkpoint, at most a minute old; they are of the member that was asked."
)

Collection = Annotated[str, Arg("collection name, or database.collection", slot="collection", example="orders")]
InDatabase = Annotated[
    str, Arg("database name; left out, the one of the connection string", slot="database", example="shop")
]


async def measured(db: Database, collection: names.Collection, *, member: str = "") -> Document:
    """The ``storageStats`` of a collection, without the engine's own sections."""
    pipeline: list[Document] = [
        {"$collStats": {"storageStats": {}}},
        {"$project": {"storageStats.wiredTiger": 0, "storageStats.indexDetails": 0}},
    ]
    command = {"aggregate": collection.name, "pipeline": pipeline, "cursor": {}}
    rows = await db.documents(collection.database, command, member=member, action="collStats")
    return summed([row["storageStats"] for row in rows])


def summed(shards: Sequence[Mapping[str, Any]]) -> Document:
    """One set of figures: a sharded collection has one for each shard."""
    if len(shards) == 1:
        return dict(shards[0])
    added = ("size", "count", "storageSize", "freeStorageSize", "totalIndexSize", "totalSize")
    total: Document = {key: sum(each.get(key, 0) for each in shards) for key in added}
    sizes: dict[str, int] = {}
    for name, value in (pair for each in shards for pair in each.get("indexSizes", {}).items()):
        sizes[name] = sizes.get(name, 0) + value
    builds = [name for each in shards for name in each.get("indexBuilds", ())]
    average = total["size"] // total["count"] if total["count"] else 0
    return {**total, "avgObjSize": average, "indexSizes": sizes, "nindexes": len(sizes), "indexBuilds": builds}


# -- list_collections


@tools.read(
    phrases=(
        "list the collections",
        "show the collections of {database}",
        "which collections are there",
        "which collection is the largest",
        "show the biggest collections",
    ),
    keywords=("collections", "views", "biggest", "largest"),
    patterns=(r"\bshow\s+collections\b", r"\blistCollections\b", r"\bgetCollectionNames\b"),
)
async def list_collections(db: Database, database: InDatabase = "") -> Result:
    """List the collections and views of a database with their documents and sizes, the largest first."""
    place = await names.database(db, database)
    found = [each for each in await names.collections(db, place) if not each.name.startswith("system.buckets.")]
    rows, refused = await _measured(db, found)
    page = sheet(f"collections of {place}", _COLUMNS, rows, db.limits, dict.fromkeys(_SIZES, "bytes"))
    own = [row for row in rows if row["kind"] != "view" and not row["system"]]
    views = sum(row["kind"] == "view" for row in rows)
    total = sum(row["stored"] or 0 for row in rows)
    largest = [f"{row['collection']} ({size(row['stored'])})" for row in own if row["stored"]][:3]
    return Result(
        summary=f"Database {place} has {plural(len(own), 'collection')}"
        + (f" and {plural(views, 'view')}" if views else "")
        + (f", {size(total)} stored. Largest: {listing(largest)}." if largest else "."),
        highlights=tuple(_line(row) for row in own[:5]),
        tables=(page,),
        figures={"collections": len(own), "views": views, "stored_bytes": total},
        notes=(*refused, *(cut_note(page)), *((CHECKPOINT,) if own else ()), *one_member_note(db)),
    )


_SIZES = ("data", "stored", "indexes")
_COLUMNS = ("collection", "kind", "documents", "data", "stored", "indexes", "index count", "notes")


async def _measured(db: Database, found: Sequence[names.Collection]) -> tuple[list[Document], tuple[str, ...]]:
    rows: list[Document] = []
    refused: list[str] = []
    stored = [each for each in found if not each.is_view][:MEASURED]
    sizes = dict(
        zip((each.name for each in stored), await asyncio.gather(*(_tried(db, e) for e in stored)), strict=True)
    )
    for each in found:
        stats, error = sizes.get(each.name, ({}, None))
        if error:
            refused.append(error)
        rows.append(_row(each, stats))
    rows.sort(key=lambda row: (-(row["stored"] or 0), row["collection"]))
    notes = [f"Sizes of {plural(len(refused), 'collection')} cannot be seen: {refused[0]}"] if refused else []
    if len(found) > MEASURED:
        notes.append(f"Only the first {MEASURED} collections by name were measured.")
    return rows, tuple(notes)


async def _tried(db: Database, collection: names.Collection) -> tuple[Document, str | None]:
    try:
        return await measured(db, collection), None
    except OpsAgentError as error:
        return {}, str(error)


def _row(collection: names.Collection, stats: Document) -> Document:
    options = collection.options
    marks = [f"view of {options.get('viewOn')}" if collection.is_view else ""]
    marks += ["time series" if collection.kind == names.TIME_SERIES else "", "system" if collection.is_system else ""]
    marks += ["capped" if options.get("capped") else "", "clustered" if options.get("clusteredIndex") else ""]
    marks += ["has a validator" if options.get("validator") else ""]
    builds = stats.get("indexBuilds")
    return {
        "collection": collection.name,
        "kind": collection.kind,
        "documents": stats.get("count"),
        "data": stats.get("size"),
        "stored": stats.get("storageSize"),
        "indexes": stats.get("totalIndexSize"),
        "index_count": stats.get("nindexes"),
        "notes": ", ".join([*filter(None, marks), *([f"building {listing(builds)}"] if builds else [])]),
        "system": collection.is_system,
    }


def _line(row: Document) -> str:
    if row["documents"] is None:
        return f"{row['collection']}: sizes not visible"
    return (
        f"{row['collection']}: {plural(row['documents'], 'document')}, {size(row['stored'])} stored, "
        f"{plural(row['index_count'], 'index', 'indexes')} of {size(row['indexes'])}"
    )


# -- get_collection_stats


@tools.read(
    phrases=(
        "how large is {collection}",
        "show the statistics of the collection {collection}",
        "how many documents are in {collection}",
        "collection stats of {collection}",
        "how much space can be reclaimed in {collection}",
        "how slow are reads of {collection}",
    ),
    keywords=("documents", "size", "stats", "statistics", "fragmentation", "reclaim", "space", "latency"),
    patterns=(r"\bcollStats\b", r"\.stats\(\)", r"\.dataSize\(\)"),
)
async def get_collection_stats(db: Database, collection: Collection, database: InDatabase = "") -> Result:
    """Show documents, sizes, reusable space, indexes and latencies of one collection."""
    target = await names.collection(db, collection, database, views=False)
    stats, use = await asyncio.gather(measured(db, target), _use(db, target))
    free, stored = stats.get("freeStorageSize", 0), stats.get("storageSize", 0)
    rows = [
        {"index": name, "size": value, "building": name in stats.get("indexBuilds", ())}
        for name, value in sorted(stats.get("indexSizes", {}).items(), key=lambda pair: -pair[1])
    ]
    page = sheet(f"indexes of {target.shown}", ("index", "size", "building"), rows, db.limits, {"size": "bytes"})
    worth = free > WORTH_BYTES and free > WORTH_SHARE * stored
    return Result(
        summary=_summary(target, stats),
        highlights=(*_points(stats, worth=worth), *_latencies(use)),
        tables=(page,),
        figures={
            "documents": stats.get("count", 0),
            "data_bytes": stats.get("size", 0),
            "stored_bytes": stored,
            "free_bytes": free,
            "index_bytes": stats.get("totalIndexSize", 0),
            "average_document_bytes": stats.get("avgObjSize", 0),
            "collection_scans": use.get("queryExecStats", {}).get("collectionScans", {}).get("nonTailable", 0),
        },
        notes=(CHECKPOINT, *one_member_note(db)),
        suggestions=(_compact(target, free),) if worth else (),
    )


async def _use(db: Database, target: names.Collection) -> Document:
    pipeline: list[Document] = [{"$collStats": {"latencyStats": {}, "queryExecStats": {}}}]
    command = {"aggregate": target.name, "pipeline": pipeline, "cursor": {}}
    rows = await db.documents(target.database, command, action="collStats")
    return rows[0] if len(rows) == 1 else {}


def _summary(target: names.Collection, stats: Document) -> str:
    return (
        f"{target.shown} has {plural(stats.get('count', 0), 'document')}, {size(stats.get('size', 0))} of data in "
        f"{size(stats.get('storageSize', 0))} on disk, and {plural(stats.get('nindexes', 0), 'index', 'indexes')} of "
        f"{size(stats.get('totalIndexSize', 0))}."
    )


def _points(stats: Document, *, worth: bool) -> list[str]:
    points = []
    if average := stats.get("avgObjSize"):
        points.append(f"A document has {size(average)} on average.")
    if builds := stats.get("indexBuilds"):
        points.append(f"Being built now: {listing(builds)}.")
    free, stored = stats.get("freeStorageSize", 0), stats.get("storageSize", 0)
    if free:
        advice = ": compacting would give it back" if worth else ", which new documents will use"
        points.append(f"{size(free)} on disk ({percent(free, stored)}) is free within the file{advice}.")
    if stats.get("capped"):
        points.append(f"It is capped at {size(stats.get('maxSize', 0))}: the oldest documents make room for new ones.")
    return points


def _latencies(use: Document) -> list[str]:
    points = []
    for kind in ("reads", "writes"):
        found = use.get("latencyStats", {}).get(kind, {})
        if ops := found.get("ops"):
            mean = found["latency"] / ops / 1000
            points.append(f"{count(ops)} {kind} since the start of the server, {mean:,.1f} ms each.")
    scans = use.get("queryExecStats", {}).get("collectionScans", {}).get("nonTailable", 0)
    if scans:
        points.append(
            f"{plural(scans, 'query', 'queries')} scanned the whole collection since the start of the server."
        )
    return points


def _compact(target: names.Collection, free: float) -> Suggestion:
    return Suggestion(
        tool="mongodb.compact_collection",
        arguments={"collection": target.name, "database": target.database},
        why=f"{size(free)} of its file is free",
    )


# -- get_database_stats


@tools.read(
    phrases=(
        "how large is the database",
        "show the statistics of the database {database}",
        "database size",
        "how much disk space is left",
        "show all databases with their sizes",
    ),
    keywords=("database", "databases", "disk", "size", "stats"),
    patterns=(r"\bdbStats\b", r"\bdb\.stats\(\)", r"\bshow\s+(dbs|databases)\b"),
)
async def get_database_stats(db: Database, database: InDatabase = "") -> Result:
    """Show collections, objects, sizes, reusable space and disk of one database, or of every one when none is named."""
    places = [await names.database(db, database)] if database or db.server.database else await names.databases(db)
    rows, notes = [], []
    for place in places:
        try:
            found = await db.command(place, {"dbStats": 1, "scale": 1, "freeStorage": 1})
            rows.append({"database": place, **_database_row(found)})
        except MissingRight as error:
            notes.append(f"Database {place}: {error}")
    rows.sort(key=lambda row: -row["stored"])
    units = dict.fromkeys(("data", "stored", "free", "indexes"), "bytes")
    columns = ("database", "collections", "views", "documents", "data", "stored", "free", "index count", "indexes")
    page = sheet("databases", columns, rows, db.limits, units)
    disk = next(((row["disk_used"], row["disk"]) for row in rows if row.get("disk")), (0, 0))
    full = [f"The disk has {size(disk[1] - disk[0])} free of {size(disk[1])}."] if disk[1] else []
    return Result(
        summary=" ".join([_databases(rows), *full]) if rows else "No database is visible to this user.",
        highlights=tuple(_database_line(row) for row in rows[:8]),
        tables=(page,),
        figures={"databases": len(rows), "disk_free_bytes": int(disk[1] - disk[0]), "disk_bytes": int(disk[1])},
        notes=(*notes, CHECKPOINT, *cut_note(page), *one_member_note(db)),
    )


def _database_row(found: Document) -> Document:
    def whole(name: str) -> int:
        return int(found.get(name) or 0)

    return {
        "collections": whole("collections"),
        "views": whole("views"),
        "documents": whole("objects"),
        "data": whole("dataSize"),
        "stored": whole("storageSize"),
        "free": whole("totalFreeStorageSize") or whole("freeStorageSize"),
        "index_count": whole("indexes"),
        "indexes": whole("indexSize"),
        "disk": whole("fsTotalSize"),
        "disk_used": whole("fsUsedSize"),
    }


def _databases(rows: Sequence[Document]) -> str:
    if len(rows) == 1:
        return _database_line(rows[0]) + "."
    total = sum(row["stored"] + row["indexes"] for row in rows)
    return f"{plural(len(rows), 'database')}, {size(total)} with indexes."


def _database_line(row: Document) -> str:
    return (
        f"{row['database']}: {plural(row['collections'], 'collection')}, {plural(row['documents'], 'document')}, "
        f"{size(row['stored'])} stored ({size(row['free'])} of it free), {size(row['indexes'])} of indexes"
    )
