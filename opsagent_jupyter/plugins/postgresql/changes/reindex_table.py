"""reindex_table: builds the indexes of a table anew, concurrently unless told otherwise, and names what a stop leaves."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from opsagent_jupyter.errors import EffectMissing, InvalidArguments, PreconditionFailed
from opsagent_jupyter.models import Assessment, Effect, Json, Plan, Risk, Suggestion
from opsagent_jupyter.plugin import Arg, Note
from opsagent_jupyter.plugins.postgresql import names
from opsagent_jupyter.plugins.postgresql.changes import preflight
from opsagent_jupyter.plugins.postgresql.changes.execution import Reader, carry_out, found_out, reported, session
from opsagent_jupyter.plugins.postgresql.connection import Database, Ending, Row
from opsagent_jupyter.plugins.postgresql.lock_modes import ANY
from opsagent_jupyter.plugins.postgresql.measures import measured
from opsagent_jupyter.plugins.postgresql.queries import query
from opsagent_jupyter.plugins.postgresql.toolbox import tools
from opsagent_jupyter.plugins.wording import count, duration, listing, plural, sentence, size, verb

#: Bytes of table that one pass of a build reads in a second, for the estimate on the card.
RATE = 40 * 1024**2
#: How long a rebuild that blocks waits for its locks, before which every query on the table has to queue.
PATIENCE = "2s"
#: Bytes of a table from which a rebuild that blocks it is critical.
BLOCKED_FOR_LONG = 1024**3

#: What a stopped REINDEX CONCURRENTLY leaves: its copy, or the original after they changed places.
_REST = re.compile(r"_cc(new|old)\d*\Z")


@dataclass(frozen=True)
class Rebuild:
    """What is asked for: the indexes of a table, or one of them."""

    relation: names.Relation
    chosen: names.Relation | None
    concurrently: bool

    @property
    def index_oid(self) -> int | None:
        return self.chosen.oid if self.chosen else None

    @property
    def shown(self) -> str:
        return (self.chosen or self.relation).shown

    @property
    def called(self) -> str:
        return f"index {self.chosen.shown}" if self.chosen else "the indexes"

    @property
    def statement(self) -> str:
        kind, subject = ("INDEX", self.chosen) if self.chosen else ("TABLE", self.relation)
        return f"REINDEX {kind} {'CONCURRENTLY ' if self.concurrently else ''}{subject.written}"


@tools.change(
    Risk.MEDIUM,
    phrases=(
        "reindex {table}",
        "rebuild the indexes of {table}",
        "rebuild all indexes on {table}",
        "reindex table {table}",
        "reindex index {index}",
        "rebuild index {index}",
        "rebuild the bloated index {index}",
        "repair the invalid index {index}",
    ),
    keywords=("reindex", "rebuild", "repair", "bloated", "indexes", "index"),
    patterns=(r"reindex\b", r"(rebuild|repair)\s+(the\s+|all\s+)*((bloated|invalid|corrupt)\s+)?index(es)?\b"),
)
async def reindex_table(
    db: Database,
    table: Annotated[str, Arg("the table whose indexes are rebuilt", slot="table", example="orders")] = "",
    index: Annotated[str, Arg("only this index", slot="index", example="orders_status_idx")] = "",
    *,
    concurrently: Annotated[bool, Arg("rebuild without blocking reads and writes")] = True,
) -> Plan:
    """Rebuild the indexes of a table, or one index, without blocking reads and writes unless told otherwise."""
    wanted = await _wanted(db, table, index, concurrently=concurrently)
    relation = wanted.relation
    await _permit(db, wanted)
    found = await measured(db, "reindexable", {"table": relation.oid, "index": wanted.index_oid})
    rebuilt, skipped = _sorted(found, wanted)
    measure = await preflight.target(db, relation)
    waiting = await preflight.waits(db, relation, ANY, snapshots=concurrently)
    risk, reasons = _risk(wanted, measure, (*preflight.large(measure), *await preflight.lagging(db)))
    room = sum(row["size"] for row in rebuilt)
    reads = sum(row["table_bytes"] for row in rebuilt) * (2 if concurrently else 1)
    return Plan(
        title=f"Rebuild {wanted.called} of {relation.shown}",
        statements=(wanted.statement,),
        risk=risk,
        reasons=reasons,
        lock=_lock(wanted),
        size=f"{measure.measures}; {plural(len(rebuilt), 'index', 'indexes')}, {size(room)}; it needs up to {size(room)} "
        "of free disk meanwhile, for a second copy",
        waits=waiting,
        duration=preflight.estimated(reads / RATE, f"{size(reads)} to read", waiting),
        undo_note="There is nothing to take back: the indexes hold the same as before.",
        cautions=(*_cautions(rebuilt, skipped, concurrently=concurrently), *await preflight.blind_spots(db)),
        preconditions={
            "table_oid": relation.oid,
            "table": relation.written,
            "indexes": {row["index"]: [row["oid"], row["filenode"]] for row in rebuilt},
        },
        before={
            "session": session(db, "0" if concurrently else PATIENCE),
            "table_oid": relation.oid,
            "subject": f"{wanted.called} of {relation.shown}",
            "filenodes": {row["index"]: row["filenode"] for row in rebuilt},
            "rests": [row["oid"] for row in _rests(found)],
            "bytes": room,
        },
        execution="probeable",
    )


@reindex_table.assesses
def _(arguments: Any) -> Assessment:
    if arguments.concurrently:
        return Assessment(risk=Risk.MEDIUM)
    return Assessment(
        risk=Risk.HIGH, reasons=("the rebuild is not concurrent, so writers and new queries wait until it is done",)
    )


@reindex_table.performs
async def _(db: Database, plan: Plan, note: Note) -> Effect:
    return await carry_out(db, plan, note, _judge)


@reindex_table.probes
async def _(db: Database, plan: Plan, evidence: Mapping[str, Json]) -> Effect:
    return await found_out(db, plan, evidence, _judge)


async def _wanted(db: Database, table: str, index: str, *, concurrently: bool) -> Rebuild:
    if bool(table.strip()) == bool(index.strip()):
        raise InvalidArguments("Name either a table or one index.", path="table")
    if table.strip():
        return Rebuild(await names.table(db, table, kinds=("r", "p", "m")), None, concurrently)
    chosen = await names.index(db, index)
    owner = await db.one(query("index_table"), {"index": chosen.oid})
    return Rebuild(await names.table(db, str(owner["table"])), chosen, concurrently)


async def _permit(db: Database, wanted: Rebuild) -> None:
    """Refuse without the right, and what the server cannot do, or would only warn about and leave undone."""
    relation = wanted.relation
    preflight.must_maintain(db, relation, await preflight.rights(db, relation), "reindex", database_owner=False)
    if relation.is_system and wanted.concurrently:
        raise PreconditionFailed(
            f"{relation.shown} belongs to the system, whose indexes PostgreSQL cannot rebuild concurrently.",
            hint="Ask with concurrently=false at a quiet time: it blocks whoever looks something up there.",
        )
    if relation.kind == "p" and db.server.major < 14:
        parts = await db.rows(query("leaf_partitions"), {"table": relation.oid})
        raise PreconditionFailed(
            f"{wanted.shown} is partitioned, which PostgreSQL {db.server.major} cannot reindex as a whole.",
            hint=f"Reindex each partition: {listing([row['shown'] for row in parts])}.",
        )


def _sorted(found: Sequence[Row], wanted: Rebuild) -> tuple[list[Row], list[Row]]:
    """The indexes that are rebuilt, and those that the server passes over; refuses when nothing is left to do."""
    meant = [row for row in found if row["wanted"]]
    rests = [row["index"] for row in _rests(meant)]
    if rests and (wanted.chosen or not wanted.concurrently):
        raise PreconditionFailed(
            f"{listing(rests)} {verb(len(rests), 'is the rest', 'are rests')} of a REINDEX that was stopped.",
            hint=f"Drop it first: drop_index with index={rests[0]}.",
        )
    skipped = [row for row in meant if wanted.concurrently and _is_skipped(row, wanted)]
    rebuilt = [row for row in meant if row not in skipped]
    if not rebuilt:
        raise PreconditionFailed(
            f"{wanted.shown} has no index that could be rebuilt{f': {_skips(skipped)}' if skipped else ''}.",
            hint="Ask with concurrently=false at a quiet time." if skipped else "",
        )
    return rebuilt, skipped


def _rests(rows: Sequence[Row]) -> list[Row]:
    """What a stopped REINDEX has left: suffixed and invalid, never by the name alone."""
    return [row for row in rows if not row["valid"] and _REST.search(row["name"])]


def _is_skipped(row: Row, wanted: Rebuild) -> bool:
    """Whether a concurrent REINDEX passes it over: exclusion constraints always, invalid ones unless they are named."""
    return bool(row["is_exclusion"] or (not row["valid"] and wanted.chosen is None))


def _skips(skipped: Sequence[Row]) -> str:
    reasons = {True: "enforces an exclusion constraint", False: "is invalid"}
    return ", ".join(f"{row['index']} {reasons[row['is_exclusion']]}" for row in skipped)


def _risk(wanted: Rebuild, measure: preflight.Target, raising: tuple[str, ...]) -> tuple[Risk, tuple[str, ...]]:
    if wanted.concurrently:
        reasons = ("concurrent, so reads and writes go on", "it writes every index anew", *raising)
        return (Risk.HIGH if raising else Risk.MEDIUM), reasons
    if wanted.relation.is_system:
        raising = ("every session needs this system table", *raising)
    elif measure.heap >= BLOCKED_FOR_LONG:
        raising = (f"it blocks the table for long: {size(measure.heap)}", *raising)
    blocks = "not concurrent, so writers wait, and so does every new query on the table"
    return (Risk.CRITICAL if raising else Risk.HIGH), (blocks, *raising)


def _lock(wanted: Rebuild) -> str:
    table = wanted.relation.shown + (", one partition after the other" if wanted.relation.kind == "p" else "")
    if wanted.concurrently:
        return (
            f"SHARE UPDATE EXCLUSIVE on {table}: reads and writes go on, no other DDL or VACUUM; "
            "it waits without a limit and can be cancelled at any time"
        )
    held = f"ACCESS EXCLUSIVE on {wanted.chosen.shown if wanted.chosen else 'each index'}"
    return (
        f"SHARE on {table}, and {held}: writes wait, and so does every new query on the table; "
        f"it gives up after {PATIENCE} of waiting"
    )


def _cautions(rebuilt: Sequence[Row], skipped: Sequence[Row], *, concurrently: bool) -> tuple[str, ...]:
    cautions = ["Whether the disk has that room cannot be seen from here."]
    if skipped:
        cautions.append(f"PostgreSQL passes over what it cannot rebuild concurrently: {_skips(skipped)}.")
    broken = [row["index"] for row in rebuilt if not row["valid"]]
    if broken:
        cautions.append(f"{listing(broken)} {verb(len(broken), 'is', 'are')} invalid now and valid if this succeeds.")
    if concurrently:
        cautions.append(
            "If it is cancelled or fails, invalid copies (..._ccnew or ..._ccold) are left behind and have to be dropped."
        )
    return tuple(cautions)


async def _judge(reader: Reader, plan: Plan, ending: Ending) -> Effect:
    """An index is rebuilt when it is valid and its file is another one, whatever the driver saw of the statement."""
    before: Any = plan.before
    rows = await reader.rows(query("reindexable"), {"table": before["table_oid"], "index": None, "sizes": False})
    now = {row["index"]: row for row in rows if row["valid"]}
    done = [name for name, node in before["filenodes"].items() if name in now and now[name]["filenode"] != node]
    rests = [row for row in _rests(rows) if row["oid"] not in before["rests"]]
    if len(done) == len(before["filenodes"]) and not rests:
        return _rebuilt(before, ending, sum(now[name]["size"] for name in done))
    return _stopped(before, ending, done, rests)


def _rebuilt(before: Any, ending: Ending, after: int) -> Effect:
    number = len(before["filenodes"])
    took = f" in {duration(ending.seconds)}" if ending.seconds else ""
    return Effect(
        state="succeeded",
        summary=f"{sentence(before['subject'])[:-1]} {verb(number, 'is', 'are')} rebuilt and valid{took}: {size(after)}, "
        f"{size(before['bytes'])} before.{_warned(ending)}",
        figures={"bytes_before": before["bytes"], "bytes": after, "seconds": round(ending.seconds, 3)},
    )


def _warned(ending: Ending) -> str:
    """What the server passed over, in its own words: it says so in warnings only."""
    said = [text.removeprefix("WARNING: ") for text in ending.notices if text.startswith("WARNING")]
    return f" The server said: {'; '.join(said)}." if said else ""


def _stopped(before: Any, ending: Ending, done: Sequence[str], rests: Sequence[Row]) -> Effect:
    number = len(before["filenodes"])
    state = f"{count(len(done))} of {plural(number, 'index', 'indexes')} rebuilt"
    left = f" {listing([row['index'] for row in rests])} left behind invalid; {_harm(rests)}." if rests else ""
    return Effect(
        state="failed",
        summary=f"The rebuild of {before['subject']} was stopped: {reported(ending)}; "
        f"{state if done else 'no index has changed'}.{left}",
        error_code=ending.sqlstate or EffectMissing.code,
        residue=tuple(f"invalid index {row['index']} (oid {row['oid']})" for row in rests),
        suggestions=tuple(
            Suggestion(
                tool="postgresql.drop_index",
                arguments={"index": row["index"]},
                why="it is the rest of a REINDEX that was stopped",
            )
            for row in rests
        ),
        figures={"rebuilt": len(done), "indexes": number},
    )


def _harm(rests: Sequence[Row]) -> str:
    if not any(row["ready"] for row in rests):
        return "they take space and no query uses them"
    return "no query uses them, but they cost every write" + (
        " and may refuse equal values" if any(row["ready"] and row["is_unique"] for row in rests) else ""
    )
