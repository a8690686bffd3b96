"""analyze_table and vacuum_table: fresh statistics for the planner, and the room of dead rows given back."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

from opsagent_jupyter.errors import EffectMissing, PreconditionFailed
from opsagent_jupyter.models import Assessment, Effect, Json, Plan, Risk
from opsagent_jupyter.plugin import Arg, Note
from opsagent_jupyter.plugins.postgresql import names
from opsagent_jupyter.plugins.postgresql.changes import preflight
from opsagent_jupyter.plugins.postgresql.changes.create_index import Columns
from opsagent_jupyter.plugins.postgresql.changes.execution import (
    UNSEEN,
    Reader,
    carry_out,
    found_out,
    reported,
    session,
)
from opsagent_jupyter.plugins.postgresql.connection import Database, Ending, Row
from opsagent_jupyter.plugins.postgresql.lock_modes import ANY, MAINTENANCE
from opsagent_jupyter.plugins.postgresql.queries import query
from opsagent_jupyter.plugins.postgresql.toolbox import tools
from opsagent_jupyter.plugins.wording import count, duration, plural, size

#: Bytes that VACUUM, a rewrite, and ANALYZE get through in a second, for the estimate on the card.
VACUUM_RATE, FULL_RATE, ANALYZE_RATE = 80 * 1024**2, 25 * 1024**2, 60 * 1024**2
#: Pages that ANALYZE samples at the default statistics target.
SAMPLE = 30_000
#: How long they wait for their lock.
PATIENCE, FULL_PATIENCE = "10s", "2s"
#: Seconds and pauses in which the statistics collector gets to count what was done.
COUNTED_WITHIN, PAUSE = 2.0, 0.1


@tools.change(
    Risk.MEDIUM,
    phrases=(
        "analyze {table}",
        "refresh the statistics of {table}",
        "update planner statistics for {table}",
        "run analyze on {table}",
        "refresh the stale statistics of {table}",
        "gather fresh statistics for {table}",
        "analyze table {table}",
    ),
    keywords=("analyze", "analyse", "refresh", "statistics", "planner", "stale"),
    patterns=(
        r"(run\s+)?analy[sz]e\s+table\b",
        r"(refresh|update|gather|collect)\s+(the\s+|fresh\s+|planner\s+)*statistics\b",
    ),
)
async def analyze_table(
    db: Database,
    table: Annotated[str, Arg("the table", slot="table", example="orders")],
    columns: Annotated[Columns, Arg("only these columns", slot="columns")] = [],  # noqa: B006  # never changed
) -> Plan:
    """Refresh the planner's statistics of a table."""
    relation = await names.table(db, table, kinds=("r", "p", "m"))
    preflight.must_maintain(db, relation, await preflight.rights(db, relation), "analyse")
    chosen = await names.columns(db, relation, columns)
    measure = await preflight.target(db, relation)
    waiting = await preflight.waits(db, relation, MAINTENANCE)
    counts = await db.one(query("maintenance_counts"), {"table": relation.oid})
    sample = min(measure.heap, SAMPLE * db.server.block_size)
    only = f" ({', '.join(column.written for column in chosen)})" if chosen else ""
    return Plan(
        title=f"Analyse {relation.shown}",
        statements=(f"ANALYZE {relation.written}{only}",),
        risk=Risk.MEDIUM,
        reasons=("plans of queries on the table may change", "it reads a sample and blocks no reads or writes"),
        lock=_gentle(relation),
        size=f"{measure.measures}, of which it reads up to {size(sample)}",
        waits=waiting,
        duration=preflight.estimated(sample / ANALYZE_RATE, f"a sample of {size(sample)}", waiting),
        undo_note="Statistics cannot be put back; another ANALYZE replaces them.",
        cautions=await preflight.blind_spots(db),
        preconditions={"table_oid": relation.oid, "table": relation.written, "columns": [each.name for each in chosen]},
        before=_before(db, relation, counts, PATIENCE),
        execution="probeable",
    )


@analyze_table.performs
async def _(db: Database, plan: Plan, note: Note) -> Effect:
    return await carry_out(db, plan, note, _judge_analyze)


@analyze_table.probes
async def _(db: Database, plan: Plan, evidence: Mapping[str, Json]) -> Effect:
    return await found_out(db, plan, evidence, _judge_analyze)


@tools.change(
    Risk.MEDIUM,
    phrases=(
        "vacuum {table}",
        "vacuum and analyze {table}",
        "clean up the dead rows of {table}",
        "remove dead tuples from {table}",
        "run vacuum on {table}",
        "vacuum table {table}",
        "freeze the rows of {table}",
        "reclaim the bloat of {table}",
    ),
    keywords=("vacuum", "dead", "tuples", "clean", "reclaim", "freeze", "bloat"),
    patterns=(r"(run\s+)?(a\s+)?vacuum\b", r"(remove|clean up)\s+(the\s+)?dead\s+(rows|tuples)\b"),
)
async def vacuum_table(
    db: Database,
    table: Annotated[str, Arg("the table", slot="table", example="order_items")],
    *,
    analyze: Annotated[bool, Arg("refresh the planner's statistics too")] = True,
    full: Annotated[bool, Arg("rewrite the table; nobody can read or write it meanwhile")] = False,
    freeze: Annotated[bool, Arg("mark old rows as frozen, against transaction id wraparound")] = False,
    truncate: Annotated[bool, Arg("give empty pages at the end back, which needs a short exclusive lock")] = False,
) -> Plan:
    """Remove the dead rows of a table so that their room is used again; FULL rewrites it."""
    relation = await names.table(db, table, kinds=("r", "p", "m"))
    preflight.must_maintain(db, relation, await preflight.rights(db, relation), "vacuum")
    if full and relation.is_system:
        raise PreconditionFailed(f"{relation.shown} belongs to the system: VACUUM FULL is not offered for it.")
    measure = await preflight.target(db, relation)
    waiting = await preflight.waits(db, relation, ANY if full else MAINTENANCE)
    counts = await db.one(query("maintenance_counts"), {"table": relation.oid})
    risk, reasons = _risk(full=full, freeze=freeze, raising=(*preflight.large(measure), *await preflight.lagging(db)))
    rate = FULL_RATE if full else VACUUM_RATE
    whole = measure.heap + int(measure.row["index_bytes"])
    bound: dict[str, Json] = {"filenodes": counts["filenodes"]} if full else {}
    return Plan(
        title=f"{'Rewrite' if full else 'Vacuum'} {relation.shown}",
        statements=(_statement(relation, analyze=analyze, full=full, freeze=freeze, truncate=truncate),),
        risk=risk,
        reasons=reasons,
        lock=_exclusive(relation) if full else _gentle(relation, truncate=truncate),
        size=_size(measure, full=full),
        waits=waiting,
        duration=preflight.estimated(whole / rate, size(whole), waiting),
        undo_note="There is nothing to take back: no live row changes.",
        cautions=(*await _held_back(db), *await preflight.blind_spots(db)),
        preconditions={"table_oid": relation.oid, "table": relation.written, **bound},
        before=_before(db, relation, counts, FULL_PATIENCE if full else PATIENCE)
        | {"full": full, "bytes": measure.heap},
        execution="probeable",
    )


@vacuum_table.assesses
def _(arguments: Any) -> Assessment:
    if arguments.full:
        return Assessment(
            risk=Risk.CRITICAL, reasons=("VACUUM FULL lets nobody read or write the table until it is done",)
        )
    return Assessment(risk=Risk.MEDIUM)


@vacuum_table.performs
async def _(db: Database, plan: Plan, note: Note) -> Effect:
    return await carry_out(db, plan, note, _judge_vacuum)


@vacuum_table.probes
async def _(db: Database, plan: Plan, evidence: Mapping[str, Json]) -> Effect:
    return await found_out(db, plan, evidence, _judge_vacuum)


def _statement(relation: names.Relation, *, analyze: bool, full: bool, freeze: bool, truncate: bool) -> str:
    options = [word for word, wanted in (("FULL", full), ("FREEZE", freeze), ("ANALYZE", analyze)) if wanted]
    options += [] if full else [f"TRUNCATE {'true' if truncate else 'false'}"]
    return f"VACUUM ({', '.join(options)}) {relation.written}"


def _risk(*, full: bool, freeze: bool, raising: tuple[str, ...]) -> tuple[Risk, tuple[str, ...]]:
    if full:
        rewrite = "it rewrites the table: nobody can read or write it until it is done, and every index is built anew"
        return Risk.CRITICAL, (rewrite, *raising)
    frozen = ("it rewrites pages to freeze rows, which writes WAL",) if freeze else ()
    reasons = ("it reads the table and blocks no reads or writes", *frozen, *raising)
    return (Risk.HIGH if raising else Risk.MEDIUM), reasons


def _gentle(relation: names.Relation, *, truncate: bool = False) -> str:
    short = "; at its end ACCESS EXCLUSIVE for a moment, to give empty pages back" if truncate else ""
    return (
        f"SHARE UPDATE EXCLUSIVE on {relation.shown}: reads and writes go on, no DDL or other VACUUM{short}; "
        f"it gives up after {PATIENCE} of waiting"
    )


def _exclusive(relation: names.Relation) -> str:
    held = f"ACCESS EXCLUSIVE on {relation.shown} all the time: nobody reads or writes it"
    return f"{held}; it gives up after {FULL_PATIENCE} of waiting"


def _size(measure: preflight.Target, *, full: bool) -> str:
    dead = f", {plural(measure.row['dead'] or 0, 'dead row')}"
    room = (
        f"; it needs up to {size(measure.heap + int(measure.row['index_bytes']))} of free disk meanwhile"
        if full
        else ""
    )
    return f"{measure.measures}{dead}{room}"


async def _held_back(db: Database) -> tuple[str, ...]:
    """A caution when something keeps dead rows from being removed."""
    holders = [row for row in await db.rows(query("horizon")) if row["age"] > 0]
    if not holders:
        return ()
    first = holders[0]
    since = f"{first['kind']} {first['name']} began, {plural(first['age'], 'transaction')} ago,"
    return (f"Rows that died since {since} stay until it ends.",)


def _before(db: Database, relation: names.Relation, counts: Row, patience: str) -> dict[str, Json]:
    return {
        "session": session(db, patience),
        "table_oid": relation.oid,
        "table": relation.shown,
        "partitioned": relation.kind == "p",
        **{key: counts[key] for key in ("leaves", "vacuums", "analyzes", "dead", "filenodes", "pages", "counting")},
    }


async def _counted(reader: Reader, plan: Plan, counter: str) -> tuple[Row, bool]:
    """Wait until the server has counted the work on every leaf; the last counts, and whether it has."""
    before: Any = plan.before
    waited = 0.0
    while True:
        (row,) = await reader.rows(query("maintenance_counts"), {"table": before["table_oid"]})
        done = row[counter] >= before[counter] + before["leaves"]
        if done or waited >= COUNTED_WITHIN:
            return row, done
        await asyncio.sleep(PAUSE)
        waited += PAUSE


async def _judge_analyze(reader: Reader, plan: Plan, ending: Ending) -> Effect:
    row, counted = await _counted(reader, plan, "analyzes")
    before: Any = plan.before
    if counted:
        took = f" in {duration(ending.seconds)}" if ending.seconds else ""
        return Effect(
            state="succeeded",
            summary=f"{before['table']} is analysed{took}.",
            figures={"seconds": round(ending.seconds, 3), "last_analyze": row["last_analyze"]},
        )
    return _not_counted(plan, ending, "analysed", "the planner's statistics are as they were")


async def _judge_vacuum(reader: Reader, plan: Plan, ending: Ending) -> Effect:
    before: Any = plan.before
    if before["full"]:
        return await _judge_full(reader, plan, ending)
    row, counted = await _counted(reader, plan, "vacuums")
    if not counted:
        return _not_counted(plan, ending, "vacuumed", "rows that were removed stay removed, the rest is as it was")
    removed = max(before["dead"] - row["dead"], 0)
    took = f" in {duration(ending.seconds)}" if ending.seconds else ""
    left = f", {count(row['dead'])} could not be removed yet" if row["dead"] else ""
    return Effect(
        state="succeeded",
        summary=f"{before['table']} is vacuumed{took}: {count(removed)} dead rows removed{left}.",
        figures={"seconds": round(ending.seconds, 3), "removed": removed, "dead": row["dead"]},
    )


async def _judge_full(reader: Reader, plan: Plan, ending: Ending) -> Effect:
    before: Any = plan.before
    (row,) = await reader.rows(query("maintenance_counts"), {"table": before["table_oid"]})
    rewritten = [node for node in row["filenodes"] if node not in before["filenodes"]]
    if len(rewritten) < before["leaves"]:
        done = (
            f"{count(len(rewritten))} of {count(before['leaves'])} partitions are rewritten"
            if rewritten
            else "it is as it was"
        )
        return Effect(
            state="failed",
            summary=f"{before['table']} was not rewritten: {reported(ending)}; {done}.",
            error_code=ending.sqlstate or EffectMissing.code,
        )
    took = f" in {duration(ending.seconds)}" if ending.seconds else ""
    return Effect(
        state="succeeded",
        summary=f"{before['table']} is rewritten{took}.",
        figures={"seconds": round(ending.seconds, 3), "pages_before": before["pages"], "pages": row["pages"]},
    )


def _not_counted(plan: Plan, ending: Ending, done: str, otherwise: str) -> Effect:
    """No count moved: a failure, unless the server counts nothing at all."""
    before: Any = plan.before
    if not before["counting"]:
        if ending.clean and not ending.notices:
            return Effect(
                state="succeeded", summary=f"The server says that {before['table']} is {done}; it keeps no counts."
            )
        if ending is UNSEEN:
            return Effect(
                state="unknown", summary="The server keeps no counts (track_counts is off), so nothing shows its end."
            )
    return Effect(
        state="failed",
        summary=f"{before['table']} was not {done}: {reported(ending)}; {otherwise}.",
        error_code=ending.sqlstate or EffectMissing.code,
    )
