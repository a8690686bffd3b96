"""get_server_status: connections, cache, queues, memory and work of the server, with what is near its limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from opsagent_jupyter.models import Json, Result
from opsagent_jupyter.plugins.mongodb.connection import Database, Document
from opsagent_jupyter.plugins.mongodb.members import one_member_note
from opsagent_jupyter.plugins.mongodb.sheets import sheet
from opsagent_jupyter.plugins.mongodb.toolbox import tools
from opsagent_jupyter.plugins.wording import count, duration, percent, plural, size

#: Shares of the cache at which the engine makes applications evict: filled, and dirty.
CACHE_FULL, CACHE_DIRTY = 0.95, 0.20
#: Share of the connections from which on it is worth a remark.
CONNECTIONS = 0.80
#: Documents read for one that is returned, from which on indexes are missing; and the fewest that are judged.
WASTE, JUDGED = 100, 100_000

#: Sections of no use here: large, or of the engine's allocator.
_LEFT_OUT = {"tcmalloc": 0, "locks": 0, "twoPhaseCommitCoordinator": 0, "tenantMigrations": 0, "freeMonitoring": 0}


def at(found: Mapping[str, Any], path: str, default: Any = None) -> Any:
    """A field by its path, parts between slashes: servers differ in what they report, so nothing is sure to be there."""
    here: Any = found
    for part in path.split("/"):
        here = here.get(part) if isinstance(here, Mapping) else None
    return default if here is None else here


async def status(db: Database, *, member: str = "") -> Document:
    """``serverStatus`` without the sections that nobody reads here."""
    return await db.command("admin", {"serverStatus": 1, **_LEFT_OUT, "oplog": 1}, member=member)


@tools.read(
    phrases=(
        "how much load does the server have",
        "show the server status",
        "how many connections are there",
        "is the cache too small",
        "show memory and cache use",
        "is the server under pressure",
        "server health",
        "how busy is the server",
    ),
    keywords=("server", "status", "connections", "cache", "memory", "uptime", "tickets", "load", "pressure"),
    patterns=(r"\bserverStatus\b", r"\bmongostat\b", r"\bwiredTiger\b"),
)
async def get_server_status(db: Database) -> Result:
    """Show connections, cache, queues, memory and work of the server since its start, and what is near its limit."""
    found = await status(db)
    figures = measures(found)
    rows = [{"measure": name, "value": value, "unit": unit} for name, (value, unit) in _rows(found, figures).items()]
    page = sheet("server", ("measure", "value", "unit"), rows, db.limits)
    alarms = remarks(figures)
    up = duration(float(at(found, "uptime", 0)))
    connections = f"{count(figures['connections'])} connections" if figures.get("connections") is not None else ""
    cache = f"cache {figures['cache_share']:.0%} full" if figures.get("cache_share") is not None else ""
    say = ", ".join(filter(None, [connections, cache]))
    return Result(
        summary=f"MongoDB {db.server.version}, up {up}"
        + (f", {say}" if say else "")
        + (f". {alarms[0]}" if alarms else ". Nothing is near its limit."),
        highlights=tuple(alarms),
        tables=(page,),
        figures={key: value for key, value in figures.items() if value is not None},
        notes=("Counters run since the start of the server.", *one_member_note(db)),
    )


def measures(found: Document) -> dict[str, Any]:
    """The figures that are judged; None where this server does not report one."""
    current, available = at(found, "connections/current"), at(found, "connections/available")
    cache = at(found, "wiredTiger/cache", {})
    held, most = cache.get("bytes currently in the cache"), cache.get("maximum bytes configured")
    dirty = cache.get("tracked dirty bytes in the cache")
    tickets = [_tickets(found, kind) for kind in ("read", "write")]
    scanned, returned = at(found, "metrics/queryExecutor/scannedObjects"), at(found, "metrics/document/returned")
    return {
        "connections": current,
        "connections_most": current + available if current is not None and available is not None else None,
        "connections_active": at(found, "connections/active"),
        "connections_rejected": at(found, "connections/rejected"),
        "cache_bytes": held,
        "cache_most": most,
        "cache_share": round(held / most, 4) if held is not None and most else None,
        "dirty_share": round(dirty / most, 4) if dirty is not None and most else None,
        "app_evictions": cache.get("pages evicted by application threads"),
        "queued": at(found, "globalLock/currentQueue/total"),
        "read_tickets_free": tickets[0],
        "write_tickets_free": tickets[1],
        "collection_scans": at(found, "metrics/queryExecutor/collectionScans/nonTailable"),
        "sorts_in_memory": at(found, "metrics/operation/scanAndOrder"),
        "write_conflicts": at(found, "metrics/operation/writeConflicts"),
        "documents_read": scanned,
        "documents_returned": returned,
        "cursors_timed_out": at(found, "metrics/cursor/timedOut"),
        "ttl_deleted": at(found, "metrics/ttl/deletedDocuments"),
        "resident_mb": at(found, "mem/resident"),
        "uptime_seconds": at(found, "uptime"),
    }


def _tickets(found: Document, kind: str) -> int | None:
    """Free tickets of the storage engine, in 6.0 and 7.0, or of the execution queues, in 8.0."""
    places = (f"wiredTiger/concurrentTransactions/{kind}/available", f"queues/execution/{kind}/available")
    return next((value for path in places if (value := at(found, path)) is not None), None)


def remarks(figures: Mapping[str, Any]) -> list[str]:
    """What is near its limit, as sentences."""
    found = []
    current, most = figures.get("connections"), figures.get("connections_most")
    if current and most and current / most >= CONNECTIONS:
        found.append(f"{percent(current, most)} of the {count(most)} connections are in use.")
    if (figures.get("cache_share") or 0) >= CACHE_FULL:
        found.append(f"The cache of {size(figures['cache_most'])} is full: applications wait while pages are evicted.")
    if (figures.get("dirty_share") or 0) >= CACHE_DIRTY:
        found.append(
            f"{figures['dirty_share']:.0%} of the cache is dirty: writes come faster than the disk takes them."
        )
    if figures.get("queued"):
        found.append(f"{plural(figures['queued'], 'operation')} wait in the lock queue: run get_current_ops.")
    taken = [kind for kind in ("read", "write") if figures.get(f"{kind}_tickets_free") == 0]
    found += [f"All {kind} tickets of the storage engine are taken: operations queue up." for kind in taken]
    scanned, returned = figures.get("documents_read") or 0, figures.get("documents_returned") or 0
    if scanned >= JUDGED and scanned / max(returned, 1) >= WASTE:
        found.append(
            f"{count(scanned / max(returned, 1))} documents were read for each one returned: an index is missing "
            "(get_profiler_data names the queries)."
        )
    if figures.get("connections_rejected"):
        found.append(f"{plural(figures['connections_rejected'], 'connection')} were refused since the start.")
    return found


def _rows(found: Document, figures: Mapping[str, Any]) -> dict[str, tuple[Json, str]]:
    units = {"cache_bytes": "bytes", "cache_most": "bytes", "resident_mb": "MB", "uptime_seconds": "s"}
    rows: dict[str, tuple[Json, str]] = {
        name.replace("_", " "): (value, units.get(name, "")) for name, value in figures.items() if value is not None
    }
    for path, label in _COUNTERS:
        for key, value in at(found, path, {}).items():
            if isinstance(value, int) and key not in {"deprecated", "constraintsRelaxed"}:
                rows[f"{label}: {key}"] = (value, "bytes" if key.startswith("bytes") else "")
    return rows


_COUNTERS: Sequence[tuple[str, str]] = (
    ("opcounters", "operations"),
    ("opcountersRepl", "replicated operations"),
    ("asserts", "asserts"),
    ("network", "network"),
)
