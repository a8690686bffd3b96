"""get_profiler_data: what the profiler recorded, added up by kind of query and without values."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from opsagent_jupyter.errors import InvalidArguments, MissingRight, OpsAgentError
from opsagent_jupyter.models import Json, Result, Suggestion
from opsagent_jupyter.plugin import Arg
from opsagent_jupyter.plugins.mongodb import indexing, names, shapes
from opsagent_jupyter.plugins.mongodb.connection import MARK, SHARDED, Database, Document
from opsagent_jupyter.plugins.mongodb.members import one_member_note
from opsagent_jupyter.plugins.mongodb.reads.collections import InDatabase
from opsagent_jupyter.plugins.mongodb.sheets import aware, sheet
from opsagent_jupyter.plugins.mongodb.toolbox import tools
from opsagent_jupyter.plugins.sheets import cut_note
from opsagent_jupyter.plugins.wording import count, duration, milliseconds, plural

#: Recorded operations that are read, the newest first.
READ = 3_000
#: Documents examined for each one returned, from which on a scan is worth an index; and the fewest that count.
WASTE, BIG = 10.0, 1_000
SCAN = "COLLSCAN"
OF_ONE = "Each member of a set profiles for itself: these rows are of the member that was asked."

_FIELDS = (
    "op", "ns", "command", "originatingCommand", "millis", "workingMillis", "ts", "planSummary", "docsExamined", "keysExamined",
    "nreturned", "nMatched", "ndeleted", "hasSortStage", "usedDisk", "queryHash", "planCacheShapeHash", "appName",
    "responseLength", "errCode",
)  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """Recorded operations of one kind: the same collection, shape and plan."""

    namespace: str
    operation: str
    shape: str
    plan: str
    rows: tuple[Document, ...]

    @property
    def collection(self) -> str:
        return self.namespace.partition(".")[2]

    def total(self, field: str) -> int:
        """The sum of a figure over all of them."""
        return sum(int(row.get(field) or 0) for row in self.rows)

    @property
    def millis(self) -> int:
        return self.total("millis")

    @property
    def returned(self) -> int:
        return self.total("nreturned") + self.total("nMatched") + self.total("ndeleted")

    @property
    def scans(self) -> bool:
        """Whether it reads the whole collection."""
        return SCAN in self.plan

    @property
    def wasteful(self) -> bool:
        """Whether it scans many documents to keep few."""
        examined = self.total("docsExamined")
        return self.scans and examined >= BIG and examined >= WASTE * max(self.returned, 1)

    @property
    def command(self) -> Document:
        """The command of the slowest, values included: it never leaves this process."""
        slowest = max(self.rows, key=lambda row: row.get("millis") or 0)
        return dict(slowest.get("originatingCommand") or slowest.get("command") or {})


@dataclass(frozen=True)
class Recording:
    """What the profiler of a database holds."""

    database: str
    level: int | None
    """0, 1 or 2; None without the right to see it."""
    slow_ms: int | None
    kinds: tuple[Kind, ...]
    rows: int
    since: datetime | None
    until: datetime | None
    full: bool
    """Whether there were more rows than are read."""
    present: bool


@tools.read(
    phrases=(
        "show slow queries",
        "what are the slowest queries",
        "show collection scans",
        "which queries scan the whole collection",
        "what does the profiler say",
        "show the profiler",
        "which queries need an index",
        "slow operations of {collection}",
    ),
    keywords=("slow", "slowest", "profiler", "profile", "scan", "scans", "collscan", "queries", "query"),
    patterns=(r"\bsystem\.profile\b", r"\bprofiler?\b", r"\bcoll(ection)?\s*scans?\b", r"\bslow(est)?\b"),
)
async def get_profiler_data(
    db: Database,
    database: InDatabase = "",
    collection: Annotated[str, Arg("only operations on this collection", slot="collection", example="orders")] = "",
    limit: Annotated[int, Arg("show at most so many kinds of queries", slot="number", example="20")] = 20,
) -> Result:
    """Show what the profiler recorded, by kind of query without its values: the slowest kinds and collection scans."""
    if limit < 1:
        raise InvalidArguments("limit has to be at least 1.", path="limit")
    if db.server.topology == SHARDED:
        return _behind_mongos()
    place = await names.database(db, database)
    only = await names.collection(db, collection, database, views=False) if collection else None
    found = await recorded(db, only.database if only else place, only.name if only else "")
    if not found.rows:
        return _empty(found)
    rows = [_row(kind) for kind in found.kinds[:limit]]
    page = sheet("kinds of queries", _COLUMNS, rows, db.limits, {"total": "ms", "mean": "ms", "slowest": "ms"})
    wasteful = [kind for kind in found.kinds if kind.wasteful]
    suggestions = [each for kind in wasteful[:5] if (each := await suggested(db, found.database, kind))]
    return Result(
        summary=_summary(found, wasteful),
        highlights=tuple(_line(kind) for kind in (wasteful or found.kinds)[:8]),
        tables=(page,),
        figures={
            "operations": found.rows,
            "kinds": len(found.kinds),
            "collection_scans": sum(len(kind.rows) for kind in found.kinds if kind.scans),
            "milliseconds": sum(kind.millis for kind in found.kinds),
        },
        notes=(*_notes(found), *((OF_ONE,) if db.server.set_name else ()), *cut_note(page), *one_member_note(db)),
        suggestions=tuple(suggestions),
    )


_COLUMNS = (
    "collection", "operation", "query", "plan", "times", "total", "mean", "slowest", "examined", "returned", "sorted",
    "query hash", "application",
)  # fmt: skip


async def recorded(db: Database, database: str, collection: str = "") -> Recording:
    """Read the newest rows of ``system.profile``; our own reads are left out."""
    level, slow_ms = await _level(db, database)
    present = bool(
        await db.documents(database, {"listCollections": 1, "filter": {"name": "system.profile"}, "nameOnly": True})
    )
    rows: list[Document] = []
    if present:
        rows = await db.documents(database, _look(database, collection), limit=READ, action="profiler")
    times = [aware(row["ts"]) for row in rows if "ts" in row]
    return Recording(
        database=database,
        level=level,
        slow_ms=slow_ms,
        kinds=_kinds(rows),
        rows=len(rows),
        since=min(times, default=None),
        until=max(times, default=None),
        full=len(rows) >= READ,
        present=present,
    )


def _look(database: str, collection: str) -> Document:
    own: Document = {"command.comment": {"$not": {"$regex": f"^{MARK} "}}}
    place: Any = f"{database}.{collection}" if collection else {"$ne": f"{database}.system.profile"}
    return {
        "find": "system.profile",
        "filter": {"ns": place, **own},
        "projection": {"_id": 0, **dict.fromkeys(_FIELDS, 1)},
        "sort": {"$natural": -1},
        "limit": READ,
    }


async def _level(db: Database, database: str) -> tuple[int | None, int | None]:
    try:
        found = await db.command(database, {"profile": -1})
    except (MissingRight, OpsAgentError):
        return None, None
    return int(found["was"]), int(found.get("slowms", 100))


def _kinds(rows: Sequence[Document]) -> tuple[Kind, ...]:
    """Rows by collection, operation, shape and plan, those that took the most time first."""
    groups: dict[tuple[str, str, str, str], list[Document]] = defaultdict(list)
    for row in rows:
        command = row.get("originatingCommand") or row.get("command") or {}
        operation = "getmore of " + shapes.command_name(command) if row["op"] == "getmore" else _operation(row, command)
        key = (row["ns"], operation, shapes.shown(_without_paging(command)), _plan(row))
        groups[key].append(row)
    kinds = [Kind(*key, rows=tuple(found)) for key, found in groups.items()]
    return tuple(sorted(kinds, key=lambda kind: (-kind.millis, -kind.total("docsExamined"))))


def _operation(row: Document, command: Document) -> str:
    name = shapes.command_name(command)
    return name if row["op"] in {"command", "query"} and name else str(row["op"])


def _without_paging(command: Document) -> Document:
    return {key: value for key, value in command.items() if key not in {"limit", "skip"}}


def _plan(row: Document) -> str:
    return str(row.get("planSummary") or "")[:200]


async def suggested(db: Database, database: str, kind: Kind) -> Suggestion | None:
    """The index that would spare the scan, when there is one to be named and none like it exists."""
    return (await remedy(db, database, kind))[0]


async def remedy(db: Database, database: str, kind: Kind) -> tuple[Suggestion | None, names.Index | None]:
    """The index that would spare the scan, as a call that builds it, or as it is there already; neither when none can be
    named."""
    wanted = indexing.wanted(kind.command)
    if not wanted or not kind.collection:
        return None, None
    try:
        target = await names.collection(db, kind.collection, database, views=False)
        existing = await names.indexes(db, target)
    except OpsAgentError:
        return None, None
    why = f"{plural(len(kind.rows), 'recorded query', 'recorded queries')} scanned all of {kind.collection}"
    return indexing.suggestion(target, wanted, existing, why), indexing.serving(wanted, existing)


# -- words


def _behind_mongos() -> Result:
    return Result(
        summary="Behind mongos there is no profiler to read: each shard keeps its own.",
        notes=("Attach the primary of a shard to see what it recorded.",),
    )


def _empty(found: Recording) -> Result:
    if not found.present:
        text = f"Nothing was ever profiled in database {found.database}: its profiler was never on."
    elif found.level == 0:
        text = f"The profiler of database {found.database} is off and holds nothing that fits."
    else:
        text = f"The profiler of database {found.database} holds nothing that fits."
    offered = []
    if not found.level:
        arguments: dict[str, Json] = {"level": 1, "database": found.database}
        offered.append(
            Suggestion(tool="mongodb.set_profiling_level", arguments=arguments, why="records operations over 100 ms")
        )
    return Result(summary=text, notes=tuple(_notes(found)), suggestions=tuple(offered))


def _row(kind: Kind) -> Document:
    first = kind.rows[0]
    applications = sorted({row["appName"] for row in kind.rows if row.get("appName")})
    return {
        "collection": kind.collection,
        "operation": kind.operation,
        "query": kind.shape,
        "plan": kind.plan,
        "times": len(kind.rows),
        "total": kind.millis,
        "mean": round(kind.millis / len(kind.rows), 1),
        "slowest": max(int(row.get("millis") or 0) for row in kind.rows),
        "examined": kind.total("docsExamined"),
        "returned": kind.returned,
        "sorted": any(row.get("hasSortStage") for row in kind.rows),
        "query_hash": first.get("planCacheShapeHash") or first.get("queryHash") or "",
        "application": ", ".join(applications[:3]),
    }


def _summary(found: Recording, wasteful: Sequence[Kind]) -> str:
    total = sum(kind.millis for kind in found.kinds)
    text = (
        f"The profiler of {found.database} holds {plural(found.rows, 'operation')} of "
        f"{plural(len(found.kinds), 'kind')}, {milliseconds(total)} in all"
    )
    if not wasteful:
        return text + "; none scans a large collection for few documents."
    worst = wasteful[0]
    return (
        f"{text}. {plural(len(wasteful), 'kind scans', 'kinds scan')} a whole collection for few documents, most of all "
        f"{worst.shape} ({milliseconds(worst.millis)})."
    )


def _line(kind: Kind) -> str:
    times = f"{plural(len(kind.rows), 'time')}, {milliseconds(kind.millis / len(kind.rows))} each"
    examined = kind.total("docsExamined")
    waste = f", examined {count(examined)} documents to return {count(kind.returned)}" if examined else ""
    return f"{kind.shape} on {kind.collection}: {times}{waste}, {kind.plan or 'no plan'}."


def _notes(found: Recording) -> list[str]:
    notes = []
    if found.since and found.until:
        span = duration((found.until - found.since).total_seconds())
        notes.append(
            f"The profiler keeps the newest rows only: these cover {span}, from {found.since:%Y-%m-%d %H:%M} UTC."
        )
    if found.full:
        notes.append(f"Only the newest {READ:,} rows were read.")
    if found.level == 0:
        notes.append("The profiler is off now: nothing new is recorded.")
    elif found.level == 1:
        notes.append(f"Only operations over {found.slow_ms} ms are recorded.")
    elif found.level == 2:
        notes.append("Every operation is recorded (level 2), with its values: that costs time and keeps data.")
    return notes
