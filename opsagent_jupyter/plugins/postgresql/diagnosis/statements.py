"""Statements that read far more than they return, or spill to disk, and the indexes that they miss."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from opsagent_jupyter.errors import InvalidArguments, OpsAgentError, PreconditionFailed
from opsagent_jupyter.models import Json, Suggestion
from opsagent_jupyter.plugins.findings import Finding, Severity, Survey
from opsagent_jupyter.plugins.postgresql import names
from opsagent_jupyter.plugins.postgresql.connection import Row
from opsagent_jupyter.plugins.postgresql.diagnosis.observation import MB, Observation, call
from opsagent_jupyter.plugins.postgresql.diagnosis.tables import DEAD, FEW_ROWS
from opsagent_jupyter.plugins.postgresql.literals import HIDDEN, brief, shown
from opsagent_jupyter.plugins.postgresql.queries import query_in
from opsagent_jupyter.plugins.postgresql.reads.slow_queries import FEW_CALLS, statements_schema
from opsagent_jupyter.plugins.wording import listing, milliseconds, percent, plural, size

if TYPE_CHECKING:
    from opsagent_jupyter.plugins.postgresql.explain_plan import PlanTree

#: Statements that are looked at, and of those that waste the ones whose plan is looked at.
STATEMENTS, PLANS = 40, 6
#: Share of the recorded time, and milliseconds on average, from which a statement is worth a look.
SHARE, MEAN_MS = 0.03, 0.5
#: Share of the recorded time from which a statement that wastes it harms.
MUCH = 0.2
#: Blocks of a call, and times the rows it returns, from which it reads in vain.
BLOCKS, IN_VAIN = 100, 10
#: Milliseconds that planning one statement may take, and may wait for a lock.
PLAN_MS, LOCK_MS = 1_000, 50
_EXPLAINABLE = ("select", "with", "values", "table", "insert", "update", "delete", "merge")
_SUMMARIZES = re.compile(
    r"\b(count|sum|avg|min|max|array_agg|string_agg|json\w*_agg|group\s+by|distinct)\b", re.IGNORECASE
)
#: Statements that look at the server itself, as monitoring does, and we.
_MONITORS = re.compile(r"\bpg_catalog\.|\bpg_stat|\binformation_schema\b", re.IGNORECASE)


@dataclass(frozen=True)
class Costly:
    """A statement that takes time and reads in vain, and what its plan says."""

    row: Row
    share: float
    """Of the recorded time, 0 to 1."""
    block: int
    tree: PlanTree | None = None
    missing: tuple[str, tuple[str, ...]] = ("", ())
    """Table and columns of the index that it misses."""
    existing: str = ""
    """An index that begins with the filtered column already."""
    dead: str = ""
    """A table that it scans and whose rows are mostly dead."""

    @property
    def id(self) -> str:
        return str(self.row["query_id"])

    @property
    def filtered(self) -> str:
        """What the plan says about rows that are read and thrown away."""
        marks = self.tree.marks if self.tree else ()
        return next((mark.text for mark in marks if mark.kind == "removes_most"), "")

    @property
    def condition(self) -> str:
        """The filter that throws them away, as the plan writes it."""
        nodes = self.tree.nodes if self.tree else ()
        fit = (dict(node.conditions).get("Filter", "") for node in nodes if node.mark("removes_most"))
        return next(fit, "")


async def survey(seen: Observation) -> Survey:
    """Look at the statements that take most of the time, and at the plans of those that read in vain."""
    db = seen.db
    try:
        schema = await statements_schema(db)
        if "total_exec_time" not in await db.columns_of(f'"{schema}".pg_stat_statements'):
            return Survey(notes=("Statements: run ALTER EXTENSION pg_stat_statements UPDATE, its version is too old.",))
        (totals,) = await db.rows(query_in("slow_totals", schema=schema))
        rows = await db.rows(
            query_in("slow_statements", schema=schema, order="total_exec_time"), {"limit": STATEMENTS, "minimum": 2}
        )
    except PreconditionFailed as error:
        return Survey((_unrecorded(),), (f"Slow statements could not be looked at: {error.message}",))
    notes = []
    if totals["hidden"]:
        hidden = plural(totals["hidden"], "statement")
        notes.append(f"{hidden} of other roles are hidden: GRANT pg_read_all_stats TO {db.server.role} to see them.")
    total = max(totals["total"], 1e-9)
    known = [Costly(row, row["total"] / total, db.server.block_size) for row in rows]
    planned, blind = await _planned(seen, [each for each in known if _in_vain(each)][:PLANS])
    findings = [finding for each in planned for finding in _judged(each)]
    findings += [_spill(each) for each in known if _spills(each)]
    return Survey(tuple(findings), (*notes, *blind))


def _in_vain(each: Costly) -> bool:
    row = each.row
    blocks, rows = row["blocks"] / row["calls"], row["rows"] / row["calls"]
    if each.share < SHARE or row["mean"] < MEAN_MS or not _is_of_users(row):
        return False
    return bool(blocks >= BLOCKS and blocks > IN_VAIN * max(rows, 1))


def _is_of_users(row: Row) -> bool:
    text = str(shown(row["query"]))
    return text != HIDDEN and text.lower().startswith(_EXPLAINABLE) and not _MONITORS.search(text)


def _spills(each: Costly) -> bool:
    temporary = each.row["temp_blocks"] * each.block
    return bool(temporary / each.row["calls"] >= MB and each.share >= SHARE and _is_of_users(each.row))


async def _planned(seen: Observation, costly: list[Costly]) -> tuple[list[Costly], list[str]]:
    """The statements with what their plans say; those without a plan, and why, as a note."""
    found, blind = [], []
    for each in costly:
        try:
            found.append(await _looked_through(seen, each))
        except OpsAgentError as error:
            found.append(each)
            blind.append(f"query {each.id}: {error.message}")
    note = f"The plans of {plural(len(blind), 'statement')} could not be seen ({listing(blind, 2)})"
    return found, [f"{note.rstrip('.)')})."] if blind else []


async def _looked_through(seen: Observation, each: Costly) -> Costly:
    from opsagent_jupyter.plugins.postgresql.explain import explain, read_plan

    async with seen.db.lending() as connection:
        explained = await explain(
            connection, str(each.row["query"]), statement_timeout_ms=PLAN_MS, lock_timeout_ms=LOCK_MS
        )
    tree = read_plan(explained.plan)
    each = replace(each, tree=tree, dead=await _dead(seen, tree))
    mark = next((mark for mark in tree.marks if mark.kind == "removes_most" and mark.columns and mark.relation), None)
    if mark is None:
        return each
    try:
        relation = await names.table(seen.db, _quoted(mark.relation), kinds=("r", "m"))
    except InvalidArguments:
        return each  # a CTE or a function has rows but no indexes
    for index in await seen.indexes():
        first = (index.columns or [""])[0] if index.keys[0] else ""
        if index.table_oid == relation.oid and first == mark.columns[0] and index.valid and not index.predicate:
            return replace(each, existing=index.index)
    return replace(each, missing=(relation.shown, mark.columns[:3]))


def _quoted(relation: str) -> str:
    schema, _, name = relation.rpartition(".") if relation.count(".") < 2 else relation.partition(".")
    return ".".join('"' + part.replace('"', '""') + '"' for part in (schema, name) if part)


async def _dead(seen: Observation, tree: PlanTree) -> str:
    """The first table that the plan reads from end to end and that is mostly dead rows."""
    scanned = {node.relation for node in tree.nodes if "Seq Scan" in node.kind}
    for state in await seen.tables():
        row, dead = state.row, state.row["dead"] or 0
        named = f"{row['schema']}.{row['name']}" in scanned
        if named and dead >= FEW_ROWS and dead >= DEAD * (dead + max(row["live"] or 0, row["counted"], 0)):
            return state.name
    return ""


def _judged(each: Costly) -> list[Finding]:
    slow = _slow(each)
    return [slow, _missing(each)] if each.missing[0] else [slow]


def _severity(each: Costly) -> Severity:
    if each.filtered:
        return Severity.HIGH if each.share >= MUCH and each.missing[0] else Severity.MEDIUM
    if each.dead:
        return Severity.MEDIUM
    # a statement that sums a table up has to read it, and without its plan nobody knows what it could do without
    needless = each.tree is None and not _SUMMARIZES.search(str(each.row["query"]))
    return Severity.MEDIUM if needless else Severity.INFO


def _slow(each: Costly) -> Finding:
    row = each.row
    text, calls = brief(shown(row["query"])), row["calls"]
    return Finding(
        kind="slow_statement",
        severity=_severity(each),
        confidence="likely" if each.tree and calls >= FEW_CALLS else "possible",
        subject=f"query {each.id}",
        title=f"A statement takes {percent(each.share, 1)} of the recorded time, {milliseconds(row['mean'])} a call: {text}",
        evidence=(
            plural(calls, "call"),
            f"reads {size(row['blocks'] / calls * each.block)} a call to return {plural(row['rows'] / calls, 'row')}",
            *([f"its plan {each.filtered}"] if each.filtered else []),
            *([f"it scans {each.dead}, which is mostly dead rows"] if each.dead else []),
            f"query id {each.id}",
        ),
        why="It takes time and memory from everything else, the more so the more the tables grow.",
        **_remedy(each),
        impact=row["total"],
    )


def _remedy(each: Costly) -> dict[str, Any]:
    if each.missing[0]:
        return {"advice": f"Create the index that it misses, on {_place(each)}.", "fix": _index(each)}
    if each.dead:
        vacuum = call("vacuum_table", "a slow statement scans its dead rows", table=each.dead, analyze=True)
        return {"advice": f"VACUUM {each.dead}: the scan reads its dead rows too.", "fix": vacuum}
    explain = call("explain_query", f"see the plan of query {each.id}", query_id=each.id)
    if each.existing:
        advice = (
            f"{each.existing} begins with the filtered column, but the planner does not choose it: look at the plan."
        )
    elif each.condition:
        advice = (
            f"No index on plain columns serves its filter {shown(each.condition)}: an index on that expression would."
        )
    else:
        advice = "Look at its plan; run it less often, or keep its result, if it has to read that much."
    return {"advice": advice, "fix": explain}


def _place(each: Costly) -> str:
    table, columns = each.missing
    return f"{table} ({', '.join(columns)})"


def _index(each: Costly) -> Suggestion:
    table, columns = each.missing
    values: list[Json] = [*columns]
    return call("create_index", f"a statement {each.filtered}", table=table, columns=values)


def _missing(each: Costly) -> Finding:
    table, columns = each.missing
    return Finding(
        kind="missing_index",
        severity=_severity(each),
        confidence="likely",
        subject=f"{table}.{', '.join(columns)}",
        title=f"No index on {_place(each)}: a statement {each.filtered}",
        evidence=(
            f"the statement takes {percent(each.share, 1)} of the recorded time, {milliseconds(each.row['mean'])} a call",
            f"query id {each.id}",
        ),
        why="Every call reads the whole table to find a few rows, and takes longer as the table grows.",
        advice=f"Create an index on {_place(each)}, without blocking writers.",
        fix=_index(each),
        impact=each.row["total"],
    )


def _spill(each: Costly) -> Finding:
    row = each.row
    spilled = row["temp_blocks"] * each.block / row["calls"]
    text = brief(shown(row["query"]))
    return Finding(
        kind="spill_to_disk",
        severity=Severity.MEDIUM,
        confidence="likely",
        subject=f"query {each.id}",
        title=f"A statement writes {size(spilled)} of temporary files a call: {text}",
        evidence=(
            plural(row["calls"], "call"),
            f"{percent(each.share, 1)} of the recorded time, {milliseconds(row['mean'])} a call",
            f"query id {each.id}",
        ),
        why="Sorts and hashes that do not fit into work_mem go through the disk.",
        advice="Look at its plan: an index may give the order; else raise work_mem for the role that runs it.",
        fix=call("explain_query", f"see the plan of query {each.id}", query_id=each.id),
        impact=row["total"],
    )


def _unrecorded() -> Finding:
    return Finding(
        kind="statements_not_recorded",
        severity=Severity.INFO,
        confidence="certain",
        subject="pg_stat_statements",
        title="Nobody records which statements take the time: pg_stat_statements is not in use here",
        evidence=(),
        why="Without it slow statements and missing indexes stay unseen until users complain.",
        advice="Put pg_stat_statements into shared_preload_libraries, restart, and CREATE EXTENSION pg_stat_statements.",
    )
