"""get_slow_queries: where the time of the database goes, by pg_stat_statements, and what runs long right now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from opsagent_jupyter.errors import OpsAgentError, PreconditionFailed
from opsagent_jupyter.models import Result, Suggestion, Table
from opsagent_jupyter.plugin import Arg
from opsagent_jupyter.plugins.postgresql.connection import Database, Row
from opsagent_jupyter.plugins.postgresql.literals import HIDDEN, brief, shown, who
from opsagent_jupyter.plugins.postgresql.queries import query, query_in
from opsagent_jupyter.plugins.postgresql.toolbox import tools
from opsagent_jupyter.plugins.sheets import cut_note, sheet
from opsagent_jupyter.plugins.wording import (
    duration,
    milliseconds,
    percent,
    plural,
    size,
    verb,
)

Order = Literal["total", "mean", "max", "calls", "rows", "reads", "temp", "wal"]

#: Order to column of pg_stat_statements.
_ORDERS = {
    "total": "total_exec_time",
    "mean": "mean_exec_time",
    "max": "max_exec_time",
    "calls": "calls",
    "rows": "rows",
    "reads": "shared_blks_read",
    "temp": "temp_blks_written",
    "wal": "wal_bytes",
}
#: Seconds from which a running statement is shown, and from which ending it is offered.
RUNNING, RUNAWAY = 1.0, 60.0
#: Calls below which a mean says little; seconds below which statistics are young.
FEW_CALLS, YOUNG = 5, 3600.0
_EXPLAINABLE = ("select", "with", "values", "table", "insert", "update", "delete", "merge")
_INSTALL = (
    "To record slow queries: put pg_stat_statements into shared_preload_libraries, restart the server, "
    "then CREATE EXTENSION pg_stat_statements in this database."
)


@dataclass(frozen=True)
class Recorded:
    """What pg_stat_statements holds for this database."""

    rows: list[Row]
    statements: int = 0
    total: float = 0.0
    """Milliseconds of all statements together."""
    notes: tuple[str, ...] = ()


@tools.read(
    phrases=(
        "show me slow queries",
        "what are the slowest queries",
        "which statements take the most time",
        "top queries by total time",
        "why is the database slow",
        "what is eating the cpu",
        "show the most expensive sql",
        "which queries are run most often",
        "find long running queries",
    ),
    keywords=("slow", "slowest", "query", "queries", "statement", "expensive", "pg_stat_statements", "top", "latency"),
    patterns=(r"\bpg_stat_statements\b", r"\bslow(est)?\b.{0,20}\b(quer(y|ies)|statements?|sql)\b"),
)
async def get_slow_queries(
    db: Database,
    order: Annotated[Order, Arg("what to rank by: total or mean time, calls, rows, reads, temp or wal")] = "total",
    limit: Annotated[int, Field(ge=1, le=100), Arg("how many statements", slot="number", example="10")] = 10,
    minimum_calls: Annotated[int, Field(ge=1), Arg("leave out statements with fewer calls")] = 1,
) -> Result:
    """Rank the statements that take most of the database's time, and show what runs long right now."""
    running = await db.rows(query("running_statements"), {"seconds": RUNNING, "limit": limit})
    try:
        recorded = await _recorded(db, order, limit, minimum_calls)
    except _Unrecorded as reason:
        return _unrecorded(db, str(reason), running)
    for row in (*recorded.rows, *running):
        row["query"] = shown(row["query"])
    tables = (_statement_table(db, recorded), *_running_table(db, running))
    return Result(
        summary=_summary(recorded, order, running),
        highlights=(
            *(_highlight(db, row, recorded) for row in recorded.rows[:5]),
            *(_running_highlight(db, row) for row in running[:3]),
        ),
        tables=tables,
        figures={"statements": recorded.statements, "total_ms": round(recorded.total, 3), "running": len(running)},
        notes=(*recorded.notes, *(note for table in tables for note in cut_note(table))),
        suggestions=(*_explains(recorded.rows), *_cancels(running)),
    )


class _Unrecorded(Exception):
    """pg_stat_statements cannot be read, and why."""


async def statements_schema(db: Database) -> str:
    """Return the schema of pg_stat_statements; ``PreconditionFailed`` that says how to get it when it is not there."""
    found = await db.rows(query("statements_extension"))
    if not found:
        raise PreconditionFailed(
            f"The extension pg_stat_statements is not installed in database {db.server.database}.", hint=_INSTALL
        )
    return str(found[0]["schema"])


async def _recorded(db: Database, order: Order, limit: int, minimum: int) -> Recorded:
    try:
        schema = await statements_schema(db)
        if "total_exec_time" not in await db.columns_of(f'"{schema}".pg_stat_statements'):
            raise _Unrecorded(
                "pg_stat_statements is of an old version here: run ALTER EXTENSION pg_stat_statements UPDATE"
            )
        (totals,) = await db.rows(query_in("slow_totals", schema=schema))
    except PreconditionFailed as error:
        raise _Unrecorded(error.message.removesuffix(".")) from error
    rows = await db.rows(
        query_in("slow_statements", schema=schema, order=_ORDERS[order]), {"limit": limit, "minimum": minimum}
    )
    if totals["hidden"] and not rows:
        notes = (f"All statements belong to other roles: GRANT pg_read_all_stats TO {db.server.role} to see them.",)
        return Recorded([], totals["statements"], totals["total"], notes)
    return Recorded(rows, totals["statements"], totals["total"], await _notes(db, schema, totals, rows))


async def _notes(db: Database, schema: str, totals: Row, rows: list[Row]) -> tuple[str, ...]:
    notes = []
    if totals["hidden"]:
        hidden = plural(totals["hidden"], "statement")
        notes.append(f"{hidden} of other roles are left out: GRANT pg_read_all_stats TO {db.server.role} to see them.")
    try:
        since = await db.one(query_in("statements_since", schema=schema))
    except OpsAgentError:  # the view came with PostgreSQL 14
        since = {"seconds": None, "dealloc": 0}
    if since["seconds"] is not None and since["seconds"] < YOUNG:
        notes.append(f"The statistics are young: they begin {duration(since['seconds'])} ago.")
    if since["dealloc"]:
        notes.append("The store of statements overflowed, so rare ones may be missing: raise pg_stat_statements.max.")
    if few := [row for row in rows if row["calls"] < FEW_CALLS]:
        little = verb(len(few), "its mean says", "their means say")
        notes.append(f"{plural(len(few), 'statement')} ran fewer than {FEW_CALLS} times: {little} little.")
    return tuple(notes)


def _summary(recorded: Recorded, order: Order, running: list[Row]) -> str:
    now = f" Running right now for over {duration(RUNNING)}: {plural(len(running), 'statement')}." if running else ""
    if not recorded.rows:
        return f"pg_stat_statements has recorded no statement that can be shown.{now}"
    first, many = recorded.rows[0], len(recorded.rows)
    share = percent(sum(row["total"] for row in recorded.rows), recorded.total)
    take = verb(many, "takes", "take")
    ranked = f"The top {plural(many, 'statement')} by {_LABELS[order]} {take} {share} of the recorded time."
    return (
        f"{ranked} First: {brief(first['query'])}: {milliseconds(first['mean'])} on average, {plural(first['calls'], 'call')}, "
        f"{percent(first['total'], recorded.total)} of the time.{now}"
    )


_LABELS: dict[Order, str] = {
    "total": "total time",
    "mean": "mean time",
    "max": "longest run",
    "calls": "number of calls",
    "rows": "number of rows",
    "reads": "reads from disk",
    "temp": "temporary files",
    "wal": "WAL written",
}


def _highlight(db: Database, row: Row, recorded: Recorded) -> str:
    facts = [
        f"{milliseconds(row['mean'])} on average",
        plural(row["calls"], "call"),
        f"{percent(row['total'], recorded.total)} of the time",
    ]
    blocks, rows = row["blocks"] / row["calls"], row["rows"] / row["calls"]
    if blocks >= 100 and blocks > 10 * max(rows, 1) and _is_explainable(row):
        facts.append(f"reads {size(blocks * db.server.block_size)} a call to return {plural(rows, 'row')}")
    if row["temp_blocks"]:
        facts.append(f"spills {size(row['temp_blocks'] * db.server.block_size / row['calls'])} to disk a call")
    if row["longest"] > 10 * row["mean"] and row["longest"] > 100:
        facts.append(f"up to {milliseconds(row['longest'])}")
    return f"{brief(row['query'])}: {', '.join(facts)} (query id {row['query_id']})."


def _running_highlight(db: Database, row: Row) -> str:
    waiting = f", waiting for {row['waits_for']}" if row["waits_for"] in ("Lock", "IO", "LWLock") else ""
    session = f"pid {row['pid']} ({who(row['role'], row['application'])})"
    place = f" in database {row['database']}" if row["database"] != db.server.database else ""
    return f"Running for {duration(row['running'])}{waiting}: {session}{place}: {brief(row['query'])}."


def _statement_table(db: Database, recorded: Recorded) -> Table:
    for row in recorded.rows:
        row["share"] = 100 * row["total"] / recorded.total if recorded.total else 0.0
    columns = (
        "query id", "query", "calls", "mean", "total", "share", "longest", "rows", "blocks read", "temp blocks", "role",
    )  # fmt: skip
    units = {"mean": "ms", "total": "ms", "longest": "ms", "share": "%"}
    return sheet("statements", columns, recorded.rows, db.limits, units)


def _running_table(db: Database, running: list[Row]) -> tuple[Table, ...]:
    columns = ("pid", "database", "role", "application", "running", "waits for", "query id", "query")
    return (sheet("running now", columns, running, db.limits, {"running": "s"}),) if running else ()


def _is_explainable(row: Row) -> bool:
    return row["query"] != HIDDEN and str(row["query"]).lower().startswith(_EXPLAINABLE)


def _explains(rows: list[Row]) -> tuple[Suggestion, ...]:
    fit = [row for row in rows if _is_explainable(row)]
    return tuple(
        Suggestion(
            tool="postgresql.explain_query",
            arguments={"query_id": row["query_id"]},
            why=f"see the plan of the statement with {milliseconds(row['mean'])} on average",
        )
        for row in fit[:3]
    )


def _cancels(running: list[Row]) -> tuple[Suggestion, ...]:
    return tuple(
        Suggestion(
            tool="postgresql.kill_connection",
            arguments={"pid": row["pid"], "mode": "cancel"},
            why=f"it has been running for {duration(row['running'])}",
        )
        for row in running[:3]
        if row["running"].total_seconds() >= RUNAWAY
    )


def _unrecorded(db: Database, reason: str, running: list[Row]) -> Result:
    for row in running:
        row["query"] = shown(row["query"])
    longest = f" Running right now for over {duration(RUNNING)}: {plural(len(running), 'statement')}."
    nothing = f" Nothing has been running for over {duration(RUNNING)} right now."
    return Result(
        summary=f"There is no record of slow queries: {reason[:1].lower()}{reason[1:]}.{longest if running else nothing}",
        highlights=tuple(_running_highlight(db, row) for row in running[:5]),
        tables=_running_table(db, running),
        figures={"statements": 0, "running": len(running)},
        notes=(_INSTALL,),
        suggestions=_cancels(running),
    )
